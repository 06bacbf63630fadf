"""I/O backends for Trio: io_uring, kqueue and epoll, chosen when a run starts.

``trio_backends.run(main)`` runs a Trio program on the best backend that this machine offers; all of
Trio's public API works as before. Beside it there are streams on the engine's own accept, receive
and send, and joined streams whose bytes move without any Python running.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._choose import BackendUnavailable, available_backends
    from ._everywhere import everywhere
    from ._install import (
        ContractBroken,
        current_backend,
        current_manager,
        installed,
        run,
        start_guest_run,
    )
    from ._manager import EngineStatistics, KqueueStatistics
    from ._open import (
        open_tcp_listeners,
        open_tcp_stream,
        open_unix_listener,
        open_unix_socket,
        serve_tcp,
    )
    from ._relay import (
        ClientNews,
        ClientReport,
        LastWords,
        Multiplexer,
        MultiplexerStats,
        RelayCounts,
        Remains,
        ServerNews,
        Standing,
        relay,
    )
    from ._signals import open_signal_receiver
    from ._streams import EngineListener, EngineStream
    from ._timers import Tick, Ticker, every

__all__ = [
    "BackendUnavailable",
    "ClientNews",
    "ClientReport",
    "ContractBroken",
    "EngineListener",
    "EngineStatistics",
    "EngineStream",
    "KqueueStatistics",
    "LastWords",
    "Multiplexer",
    "MultiplexerStats",
    "RelayCounts",
    "Remains",
    "ServerNews",
    "Standing",
    "Tick",
    "Ticker",
    "available_backends",
    "current_backend",
    "current_manager",
    "every",
    "everywhere",
    "installed",
    "open_signal_receiver",
    "open_tcp_listeners",
    "open_tcp_stream",
    "open_unix_listener",
    "open_unix_socket",
    "relay",
    "run",
    "serve_tcp",
    "start_guest_run",
]

if not TYPE_CHECKING:
    # Imported when first asked for: pytest loads our plugin, and with it this package, in every
    # project that has us installed.
    _MODULES = (
        "_choose",
        "_install",
        "_manager",
        "_streams",
        "_open",
        "_relay",
        "_timers",
        "_signals",
        "_everywhere",
    )

    def __getattr__(name: str) -> object:
        if name in __all__:
            for module in _MODULES:
                found = vars(import_module(f".{module}", __name__)).get(name)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

"""I/O backends for Trio: io_uring and epoll, chosen when a run starts.

``trio_backends.run(main)`` runs a Trio program on the best backend that this machine offers; all of
Trio's public API works as before. Beside it there are streams on the engine's own accept, receive
and send, and joined streams whose bytes move without any Python running.
"""

from ._choose import BackendUnavailable, available_backends
from ._install import ContractBroken, current_backend, current_manager, run, start_guest_run
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
from ._streams import EngineListener, EngineStream

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
    "available_backends",
    "current_backend",
    "current_manager",
    "open_tcp_listeners",
    "open_tcp_stream",
    "open_unix_listener",
    "open_unix_socket",
    "relay",
    "run",
    "serve_tcp",
    "start_guest_run",
]

"""Puts a manager into one Trio run. The only file that touches Trio's private names.

An instrument's ``before_run`` is called by the runner before the first task exists. There, and for
that run only, the runner's IOManager is exchanged. Trio logs and swallows what an instrument
raises, so the manager is made before the run, where its errors surface, and the first task checks
that it is the one in use: a backend asked for by name never silently becomes another.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import trio
from trio._core import _run

from ._choose import choose
from ._manager import EngineIOManager, HugePages

T = TypeVar("T")

# What the runner calls on its IOManager, with the names of the parameters: unchanged since Trio
# 0.16.
_CONTRACT: dict[str, tuple[str, ...]] = {
    "get_events": ("self", "timeout"),
    "process_events": ("self", "events"),
    "force_wakeup": ("self",),
    "statistics": ("self",),
    "close": ("self",),
    "wait_readable": ("self", "fd"),
    "wait_writable": ("self", "fd"),
    "notify_closing": ("self", "fd"),
}


class ContractBroken(ImportError):
    """This version of Trio has changed what a backend relies on; the message names the
    difference.
    """


def _difference() -> str | None:
    stock = getattr(_run, "TheIOManager", None)
    if stock is None or not hasattr(_run, "GLOBAL_RUN_CONTEXT"):
        return "trio._core._run has no TheIOManager or no GLOBAL_RUN_CONTEXT"
    for name, expected in _CONTRACT.items():
        method = getattr(stock, name, None)
        if method is None:
            return f"Trio's IOManager has no {name}()"
        found = tuple(inspect.signature(method).parameters)
        if found != expected:
            return f"Trio's IOManager.{name}() takes {found}, not {expected}"
    fields = {field.name for field in _run.Runner.__attrs_attrs__}
    missing = {"io_manager", "is_guest", "instruments"} - fields
    return f"Trio's Runner has no {', '.join(sorted(missing))}" if missing else None


def check_contract() -> None:
    """Raises :class:`ContractBroken` when this Trio is not one that we know how to serve."""
    difference = _difference()
    if difference is not None:
        raise ContractBroken(f"trio {trio.__version__} is not supported: {difference}")


class _Exchange(trio.abc.Instrument):
    def __init__(self, manager: EngineIOManager) -> None:
        self._manager = manager

    def before_run(self) -> None:
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        stock, runner.io_manager = runner.io_manager, self._manager  # type: ignore[assignment]
        stock.close()


def current_manager() -> EngineIOManager:
    """The engine's manager in this run.

    Raises:
        RuntimeError: this run is on Trio's own manager, or there is no run.
    """
    try:
        manager: object = _run.GLOBAL_RUN_CONTEXT.runner.io_manager
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    if not isinstance(manager, EngineIOManager):
        raise RuntimeError("this run is not on trio_backends: start it with trio_backends.run()")
    return manager


def current_backend() -> str:
    """The name of the backend that this run uses: one of ours, or "stock" for Trio's own."""
    try:
        return current_manager().backend
    except RuntimeError:
        if not trio.lowlevel.in_trio_run():
            raise
        return "stock"


def on_system_clock() -> bool:
    """Whether this run is on Trio's ordinary clock: the engine's time is not that of any other."""
    return type(trio.lowlevel.current_clock()) is _run.SystemClock


def _prepare(
    async_fn: Callable[..., Awaitable[T]],
    backend: str,
    instruments: Sequence[trio.abc.Instrument],
    guest: bool,
    huge_pages: HugePages,
) -> tuple[EngineIOManager, Callable[..., Awaitable[T]], list[trio.abc.Instrument]]:
    check_contract()
    manager = choose(backend, guest=guest, huge_pages=huge_pages)

    async def checked_main(*args: Any) -> T:
        if current_manager() is not manager:
            raise RuntimeError("the backend's manager was not put in place")
        return await async_fn(*args)

    return manager, checked_main, [_Exchange(manager), *instruments]


def run(
    async_fn: Callable[..., Awaitable[T]],
    *args: Any,
    backend: str = "auto",
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
    restrict_keyboard_interrupt_to_checkpoints: bool = False,
    strict_exception_groups: bool = True,
    huge_pages: HugePages = "off",
) -> T:
    """``trio.run`` on one of our backends: "auto", "io_uring", "kqueue" or "epoll".

    Args:
        huge_pages: for the buffers that the kernel receives into, where there are any (io_uring's,
            4 MB): "off"; "try" reserved ones, else transparent ones, else ordinary pages; "on":
            reserved ones (sysctl vm.nr_hugepages) or no run. What was got, the statistics say.

    Raises:
        ValueError: there is no backend of that name.
        BackendUnavailable: it cannot serve on this machine, or not on huge pages.
        ContractBroken: this version of Trio is not supported.
    """
    manager, main, all_instruments = _prepare(
        async_fn, backend, instruments, guest=False, huge_pages=huge_pages
    )
    try:
        return trio.run(
            main,
            *args,
            clock=clock,
            instruments=all_instruments,
            restrict_keyboard_interrupt_to_checkpoints=restrict_keyboard_interrupt_to_checkpoints,
            strict_exception_groups=strict_exception_groups,
        )
    finally:
        manager.close()


def start_guest_run(
    async_fn: Callable[..., Awaitable[T]],
    *args: Any,
    backend: str = "auto",
    instruments: Sequence[trio.abc.Instrument] = (),
    huge_pages: HugePages = "off",
    **options: Any,
) -> None:
    """``trio.lowlevel.start_guest_run`` on one of our backends; ``options`` are its own.

    Raises: as :func:`run`.
    """
    manager, main, all_instruments = _prepare(
        async_fn, backend, instruments, guest=True, huge_pages=huge_pages
    )
    try:
        trio.lowlevel.start_guest_run(main, *args, instruments=all_instruments, **options)
    except BaseException:
        manager.close()
        raise

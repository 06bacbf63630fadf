"""Puts managers into Trio's runs. The only file that touches Trio's private names.

One run (:func:`run`, :func:`start_guest_run`): an instrument's ``before_run`` is called by the
runner before the first task exists. There, and for that run only, the runner's IOManager is
exchanged. Trio logs and swallows what an instrument raises, so the manager is made before the run,
where its errors surface, and the runner is asked for the manager it uses before the main function
is called.

Every run (:func:`installed`): the class that Trio makes its IOManager of is replaced. Its
constructor is called within ``trio.run`` before anything of the run exists, so what it raises comes
out there. A class, in the place of Trio's own, and not a function or a wrapped ``setup_runner``:
programs that patch a method of ``trio._core._run.TheIOManager`` (Trio's tests do) patch ours then.

Either way a backend asked for by name never silently becomes another.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import platform
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio
from trio._core import _run

from ._choose import AUTO, choose, first_that_works
from ._kqueue import KqueueIOManager
from ._manager import EngineIOManager, HugePages

if TYPE_CHECKING:
    import outcome

T = TypeVar("T")

STOCK = "stock"

# ---------------------------------------------------------------- what we rely on

# What the runner calls on its IOManager, with the names of the parameters: unchanged since Trio
# 0.16. The runner may call nothing else.
_FOR_THE_RUNNER: dict[str, tuple[str, ...]] = {
    "get_events": ("self", "timeout"),
    "process_events": ("self", "events"),
    "force_wakeup": ("self",),
    "statistics": ("self",),
    "close": ("self",),
}
# What trio.lowlevel hands on to it: there must be these, and no others.
_FOR_EVERYBODY: dict[str, tuple[str, ...]] = {
    "wait_readable": ("self", "fd"),
    "wait_writable": ("self", "fd"),
    "notify_closing": ("self", "fd"),
}
_WITH_KQUEUE: dict[str, tuple[str, ...]] = {
    "current_kqueue": ("self",),
    "monitor_kevent": ("self", "ident", "filter"),
    "wait_kevent": ("self", "ident", "filter", "abort_func"),
}
# Trio chooses its manager by what `select` offers; so does the name of its module of wrappers.
_EXPORTS: dict[str, dict[str, tuple[str, ...]]] = {
    "_generated_io_epoll": {},
    "_generated_io_kqueue": _WITH_KQUEUE,
}
_FIELDS = {"io_manager", "is_guest", "instruments"}


class ContractBroken(ImportError):
    """This version of Trio has changed what a backend relies on; the message names the version and
    the difference.
    """

    def __init__(self, difference: str) -> None:
        super().__init__(f"trio {trio.__version__} is not supported: {difference}")


def _codes(module: ModuleType) -> Iterator[tuple[str, CodeType]]:
    """The byte code of every function that a module defines, by its qualified name."""
    namespace = vars(module)

    def walk(code: CodeType) -> Iterator[tuple[str, CodeType]]:
        yield code.co_qualname, code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from walk(constant)

    for value in list(namespace.values()):
        members = list(vars(value).values()) if inspect.isclass(value) else [value]
        for member in members:
            function = member.fget if isinstance(member, property) else inspect.unwrap(member)
            # By globals: Trio gives what it exports another __module__.
            if inspect.isfunction(function) and function.__globals__ is namespace:
                yield from walk(function.__code__)


def _after(code: CodeType, name: str) -> Iterator[str]:
    """The attributes that a function loads of the attribute ``name`` of anything."""
    if name not in code.co_names:
        return
    loaded = False
    for instruction in dis.get_instructions(code):
        if loaded:
            attribute = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
            yield str(instruction.argval) if attribute else "(itself)"
        loaded = instruction.opname == "LOAD_ATTR" and instruction.argval == name


def _users(name: str) -> set[str]:
    """The functions of trio._core._run that mention a global or an attribute of that name."""
    return {user for user, code in _codes(_run) if name in code.co_names}


def _makes_it_without_arguments(code: CodeType) -> bool:
    instructions = iter(dis.get_instructions(code))
    for instruction in instructions:
        if instruction.argval == "TheIOManager":
            call = next((i for i in instructions if i.opname in ("CALL", "PRECALL")), None)
            return call is not None and call.arg == 0
    return False


def _signature_difference(stock: type, methods: dict[str, tuple[str, ...]]) -> str | None:
    for name, expected in methods.items():
        method = getattr(stock, name, None)
        if method is None:
            return f"its IOManager has no {name}()"
        found = tuple(inspect.signature(method).parameters)
        if found != expected:
            return f"its IOManager.{name}() takes {found}, not {expected}"
    return None


def _runner_difference() -> str | None:
    """How the runner makes, keeps and calls its manager."""
    fields = {field.name for field in _run.Runner.__attrs_attrs__}
    if missing := _FIELDS - fields:
        return f"its Runner has no {', '.join(sorted(missing))}"
    if (users := _users("TheIOManager")) != {"setup_runner"}:
        return f"TheIOManager is used by {sorted(users)}, not by setup_runner alone"
    if not _makes_it_without_arguments(inspect.unwrap(_run.setup_runner).__code__):
        return "setup_runner does not call TheIOManager without arguments"
    if (users := _users("setup_runner")) != {"run", "start_guest_run"}:
        return f"setup_runner is used by {sorted(users)}, not by run and start_guest_run"
    called = {name for _, code in _codes(_run) for name in _after(code, "io_manager")}
    if called != set(_FOR_THE_RUNNER):
        return f"its runner uses {sorted(called)} of its IOManager, not {sorted(_FOR_THE_RUNNER)}"
    if "before_run" not in inspect.unwrap(_run.unrolled_run).__code__.co_consts:
        return "unrolled_run no longer calls the instruments' before_run"
    return None


def _export_difference(stock: type) -> str | None:
    """What trio.lowlevel hands on to the manager."""
    for name, more in _EXPORTS.items():
        module = sys.modules.get(f"trio._core.{name}")
        if module is None:
            continue
        expected = _FOR_EVERYBODY | more
        for function, code in _codes(module):
            if set(_after(code, "io_manager")) != {function}:
                return f"trio.lowlevel.{function}() does not call the manager's method of that name"
        found = {function for function, _ in _codes(module)}
        if found != set(expected):
            return f"trio.lowlevel takes {sorted(found)} from its manager, not {sorted(expected)}"
        return _signature_difference(stock, expected)
    return f"its IOManager for {platform.system()} is unknown to us"


def _difference(stock: type | None) -> str | None:
    names = ("GLOBAL_RUN_CONTEXT", "Runner", "setup_runner", "run", "start_guest_run")
    for name in ("TheIOManager", *names, "unrolled_run"):
        if not hasattr(_run, name):
            return f"trio._core._run has no {name}"
    assert stock is not None
    return (
        _signature_difference(stock, _FOR_THE_RUNNER)
        or _export_difference(stock)
        or _runner_difference()
    )


@functools.cache
def _checked(*_what_is_checked: object) -> str | None:
    return _difference(_replacement.stock())


def check_contract() -> None:
    """Raises :class:`ContractBroken` when this Trio is not one that we know how to serve.

    Signatures and byte code are looked at (a few milliseconds): once, and again only when one of
    the objects that are looked at is no longer the same.
    """
    names = ("Runner", "setup_runner", "run", "start_guest_run", "unrolled_run")
    difference = _checked(_replacement.stock(), *(getattr(_run, name, None) for name in names))
    if difference is not None:
        raise ContractBroken(difference)


# ---------------------------------------------------------------- one run


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
    """The name of the backend that this run uses: one of ours, or "stock" for Trio's own.

    Raises:
        RuntimeError: there is no run.
    """
    try:
        return current_manager().backend
    except RuntimeError:
        if not hasattr(_run.GLOBAL_RUN_CONTEXT, "runner"):
            raise
        return STOCK


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
    manager = choose(_replacement.resolve(backend), guest=guest, huge_pages=huge_pages)

    def main(*args: Any) -> Awaitable[T]:
        # Trio calls it in the run, when all instruments have heard of it. Not a coroutine function:
        # what is wrong with theirs is for Trio to say.
        in_use: object = _run.GLOBAL_RUN_CONTEXT.runner.io_manager
        if in_use is not manager:
            raise ContractBroken("its runner does not use the IOManager that was given to it")
        return async_fn(*args)

    # The task is called what it would be called without us.
    named = async_fn
    while isinstance(named, functools.partial):
        named = named.func
    functools.update_wrapper(main, named)
    return manager, main if callable(async_fn) else async_fn, [_Exchange(manager), *instruments]


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

    "auto" is what :func:`installed` or else the environment variable TRIO_BACKEND says, or else the
    best that works.

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
    run_sync_soon_threadsafe: Callable[[Callable[[], object]], object],
    done_callback: Callable[[outcome.Outcome[T]], object],
    backend: str = "auto",
    instruments: Sequence[trio.abc.Instrument] = (),
    huge_pages: HugePages = "off",
    **options: Any,
) -> None:
    """``trio.lowlevel.start_guest_run`` on one of our backends; ``options`` are its other ones.

    Raises: as :func:`run`.
    """
    manager, main, all_instruments = _prepare(
        async_fn, backend, instruments, guest=True, huge_pages=huge_pages
    )
    try:
        trio.lowlevel.start_guest_run(
            main,
            *args,
            run_sync_soon_threadsafe=run_sync_soon_threadsafe,
            done_callback=done_callback,
            instruments=all_instruments,
            **options,
        )
    except BaseException:
        manager.close()
        raise


# ---------------------------------------------------------------- every run


def _guest_run_is_starting() -> bool:
    """Trio makes its manager before it notes that the run is a guest's: only the call stack knows.

    check_contract() makes sure that it is one of these two functions that is starting it.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals is vars(_run) and frame.f_code.co_name in ("run", "start_guest_run"):
            return frame.f_code.co_name == "start_guest_run"
        frame = frame.f_back
    return False


class _InstalledManager(EngineIOManager):
    """What stands in the place of Trio's own, and is made as that is: without arguments."""

    def __init__(self) -> None:
        guest, huge_pages = _guest_run_is_starting(), _replacement.huge_pages()
        make = functools.partial(super().__init__, guest=guest, huge_pages=huge_pages)
        _, self.passed_over = first_that_works(_replacement.resolve(AUTO), make)


class _InstalledKqueueManager(_InstalledManager, KqueueIOManager):
    pass


@attrs.frozen(eq=False)
class _Installation:
    backend: str
    huge_pages: HugePages
    manager: type[EngineIOManager] | None  # None: Trio's own


class _Replacement:
    """Of Trio's class of managers, for the whole process: the last installation rules."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Not changed in place: runs of other threads look at it.
        self._installations: tuple[_Installation, ...] = ()
        self._original: type | None = None

    def stock(self) -> type | None:
        return self._original if self._installations else getattr(_run, "TheIOManager", None)

    def resolve(self, backend: str) -> str:
        """What "auto" is at present."""
        *_, last = (None, *self._installations)
        return last.backend if backend == AUTO and last and last.backend != STOCK else backend

    def huge_pages(self) -> HugePages:
        *_, last = (None, *self._installations)
        return last.huge_pages if last else "off"

    def add(self, new: _Installation) -> None:
        with self._lock:
            self._original = self.stock()
            self._set((*self._installations, new))

    def remove(self, old: _Installation) -> None:
        """Not always the last: those of several threads may overlap."""
        with self._lock:
            self._set(tuple(one for one in self._installations if one is not old))

    def _set(self, installations: tuple[_Installation, ...]) -> None:
        self._installations = installations
        *_, last = (None, *installations)
        vars(_run)["TheIOManager"] = (last and last.manager) or self._original


_replacement = _Replacement()


@contextlib.contextmanager
def installed(
    backend: str = "auto", *, streams: bool = False, huge_pages: HugePages = "off"
) -> Iterator[None]:
    """Within it every ``trio.run`` and ``trio.lowlevel.start_guest_run`` of the process, in any
    thread, is on this backend, and so is "auto" in :func:`run`.

    Runs that were started before keep what they have. It may be nested: the innermost rules, and
    what was there before is there afterwards. Besides the backends there is "stock", Trio's own.

    Args:
        streams: ``trio.open_tcp_stream`` and its kin make the engine's streams, as within
            :func:`everywhere`.
        huge_pages: as in :func:`run`.

    Raises:
        ValueError: there is no backend of that name, or "stock" was to have the engine's streams.
        BackendUnavailable: it cannot serve on this machine. ``trio.run`` raises it, too, when it
            no longer can.
        ContractBroken: this version of Trio is not supported.
    """
    check_contract()
    backend = _replacement.resolve(backend)
    manager: type[EngineIOManager] | None = None
    if backend != STOCK:
        first = choose(backend, huge_pages=huge_pages)
        first.close()
        is_kqueue = isinstance(first, KqueueIOManager)
        manager = _InstalledKqueueManager if is_kqueue else _InstalledManager
    elif streams:
        raise ValueError("the engine's streams need one of our backends, not Trio's own")
    installation = _Installation(backend, huge_pages, manager)
    with contextlib.ExitStack() as stack:
        if streams:
            from ._everywhere import everywhere  # which imports this module

            stack.enter_context(everywhere())
        _replacement.add(installation)
        stack.callback(_replacement.remove, installation)
        yield

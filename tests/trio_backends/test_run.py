"""Starting a run: which backend, why not another, and what is said when none will do."""

from __future__ import annotations

import functools
import inspect
import queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from trio._core import _run

import trio_backends
from tests.support.backends import KQUEUE


async def where() -> str:
    await trio.lowlevel.checkpoint()
    return trio_backends.current_backend()


def guest_run(start: Callable[..., None], **options: Any) -> Any:
    """What :func:`where` says in a run that is a guest of a queue of callbacks."""
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    done: list[Any] = []

    async def main() -> tuple[str, bool]:
        await trio.sleep(0.001)  # and so in the worker thread
        manager = _run.GLOBAL_RUN_CONTEXT.runner.io_manager
        return await where(), getattr(manager, "guest", False)

    start(
        main,
        run_sync_soon_threadsafe=todo.put,
        done_callback=done.append,
        host_uses_signal_set_wakeup_fd=False,
        **options,
    )
    while not done:
        todo.get(timeout=20)()
    return done[0].unwrap()


# ---------------------------------------------------------------- run()


def test_a_run_is_on_the_backend_asked_for(backend: str) -> None:
    async def main(word: str) -> tuple[str, str]:
        return word, await where()

    assert trio_backends.run(main, "hello", backend=backend) == ("hello", backend)


def test_auto_takes_the_first_that_works() -> None:
    works = [name for name, why in trio_backends.available_backends().items() if why is None]
    assert trio_backends.run(where) == works[0]


def test_an_unknown_backend_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match=r"'select'.*io_uring, kqueue, epoll"):
        trio_backends.run(trio.sleep, 0, backend="select")


def unavailable() -> str:
    """The name of a backend that does not work here."""
    for name, why_not in trio_backends.available_backends().items():
        if why_not is not None:
            return name
    pytest.skip("every backend works here")


def test_a_backend_of_another_kernel_says_why() -> None:
    name = unavailable()
    with pytest.raises(trio_backends.BackendUnavailable, match=f"{name}: not built"):
        trio_backends.run(trio.sleep, 0, backend=name)


def test_a_stock_run_is_called_stock() -> None:
    assert trio.run(where) == "stock"


def test_streams_need_one_of_our_runs() -> None:
    async def main() -> None:
        await trio_backends.open_tcp_listeners(0, host="127.0.0.1")

    with pytest.raises(RuntimeError, match=r"trio_backends\.run"):
        trio.run(main)


def test_what_main_raises_comes_out(backend: str) -> None:
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trio_backends.run(main, backend=backend)


def test_runs_may_be_nested_in_threads(backend: str) -> None:
    async def outer() -> str:
        return await trio.to_thread.run_sync(lambda: trio_backends.run(where, backend=backend))

    assert trio_backends.run(outer, backend=backend) == backend


@pytest.mark.parametrize("name", ["run", "start_guest_run"])
def test_whatever_trio_takes_is_taken(name: str) -> None:
    trios = getattr(trio if name == "run" else trio.lowlevel, name)
    ours = inspect.signature(getattr(trio_backends, name)).parameters
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in ours.values()):
        assert inspect.signature(trios).parameters.keys() <= ours.keys()


def test_clock_and_instruments_are_those_given(backend: str) -> None:
    class Counting(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += 1

    async def main() -> float:
        start = trio.current_time()
        await trio.sleep(1000)
        return trio.current_time() - start

    counting = Counting()
    clock = trio.testing.MockClock(autojump_threshold=0)
    assert trio_backends.run(main, backend=backend, clock=clock, instruments=[counting]) >= 1000
    assert counting.steps > 2


def test_the_main_task_is_called_what_trio_calls_it(backend: str) -> None:
    async def main(_: int) -> str:
        return trio.lowlevel.current_task().name

    bound = functools.partial(main, 1)
    assert trio_backends.run(main, 1, backend=backend) == trio.run(main, 1)
    assert trio_backends.run(bound, backend=backend) == trio.run(bound)


def test_trio_says_what_is_wrong_with_a_main_function() -> None:
    def no_coroutine() -> None:
        pass

    with pytest.raises(TypeError, match="expected an async function"):
        trio_backends.run(no_coroutine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="instead it got a coroutine object"):
        trio_backends.run(where())  # type: ignore[arg-type]


def test_a_guest_run_is_on_the_backend_asked_for(backend: str) -> None:
    start = functools.partial(trio_backends.start_guest_run, backend=backend)
    assert guest_run(start) == (backend, True)


# ---------------------------------------------------------------- TRIO_BACKEND


def test_the_environment_says_what_auto_is(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_BACKEND", backend)
    assert trio_backends.run(where) == backend
    with trio_backends.installed():
        assert trio.run(where) == backend
    monkeypatch.setenv("TRIO_BACKEND", "nonsense")
    assert trio_backends.run(where, backend=backend) == backend


@pytest.mark.parametrize("nothing", ["auto", ""])
def test_the_environment_may_leave_it_open(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trio_backends.run(where)
    monkeypatch.setenv("TRIO_BACKEND", nothing)
    assert trio_backends.run(where) == before


def test_a_wrong_environment_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_BACKEND", "nonsense")
    with pytest.raises(ValueError, match=r"TRIO_BACKEND=nonsense: unknown backend .*epoll"):
        trio_backends.run(where)
    name = unavailable()
    monkeypatch.setenv("TRIO_BACKEND", name)
    with pytest.raises(trio_backends.BackendUnavailable, match=f"TRIO_BACKEND={name}: .*not built"):
        trio_backends.run(where)


# ---------------------------------------------------------------- installed()


@pytest.fixture
def untouched() -> Iterator[None]:
    """Afterwards Trio's manager is the very object that it was."""
    before = _run.TheIOManager  # type: ignore[attr-defined]
    yield
    assert _run.TheIOManager is before  # type: ignore[attr-defined]
    assert trio.run(where) == "stock"


@pytest.mark.usefixtures("untouched")
def test_every_run_of_the_process_is_on_what_is_installed(backend: str) -> None:
    async def outer() -> tuple[str, str]:
        return await where(), await trio.to_thread.run_sync(trio.run, where)

    with trio_backends.installed(backend):
        assert trio.run(outer) == (backend, backend)
        assert guest_run(trio.lowlevel.start_guest_run) == (backend, True)
        assert trio.run(where) == backend


@pytest.mark.usefixtures("untouched")
def test_what_is_installed_is_what_auto_means(backend: str) -> None:
    with trio_backends.installed(backend):
        assert trio_backends.run(where) == backend
        with trio_backends.installed("auto"):
            assert trio.run(where) == backend
        assert guest_run(trio_backends.start_guest_run) == (backend, True)


@pytest.mark.usefixtures("untouched")
def test_installations_may_be_nested(backend: str) -> None:
    with pytest.raises(KeyError), trio_backends.installed(backend):
        with trio_backends.installed("stock"):
            assert trio.run(where) == "stock"
            with trio_backends.installed(backend):
                assert trio.run(where) == backend
            assert trio.run(where) == "stock"
        assert trio.run(where) == backend
        raise KeyError


@pytest.mark.usefixtures("untouched")
def test_installations_of_threads_may_overlap(backend: str) -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(trio_backends.installed(backend))
    thread = threading.Thread(target=lambda: second.enter_context(trio_backends.installed("stock")))
    thread.start()
    thread.join()
    assert trio.run(where) == "stock"
    first.close()
    assert trio.run(where) == "stock"
    second.close()


@pytest.mark.usefixtures("untouched")
def test_a_run_goes_on_where_it_was_started(backend: str) -> None:
    async def main() -> str:
        with trio_backends.installed("stock"):
            await trio.sleep(0.001)
            return await where()

    with trio_backends.installed(backend):
        assert trio.run(main) == backend


@pytest.mark.usefixtures("untouched")
def test_what_cannot_be_installed_is_refused_at_once() -> None:
    name = unavailable()
    with pytest.raises(trio_backends.BackendUnavailable, match=name):
        with trio_backends.installed(name):
            pytest.fail("entered")
    with pytest.raises(ValueError, match="unknown backend 'select'"):
        with trio_backends.installed("select"):
            pytest.fail("entered")
    with pytest.raises(ValueError, match="streams"):
        with trio_backends.installed("stock", streams=True):
            pytest.fail("entered")


@pytest.mark.usefixtures("untouched")
def test_a_manager_patched_in_trio_is_the_one_in_use(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trio's own tests do that."""
    calls: list[object] = []
    with trio_backends.installed(backend), monkeypatch.context() as patch:
        manager = _run.TheIOManager  # type: ignore[attr-defined]
        original = manager.get_events

        def get_events(self: Any, timeout: float) -> Any:
            calls.append(self)
            return original(self, timeout)

        patch.setattr(manager, "get_events", get_events)
        assert trio.run(where) == backend
    assert calls


@pytest.mark.usefixtures("untouched")
def test_installed_with_streams(backend: str) -> None:
    async def main() -> tuple[bool, bool]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            port = listener.socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                return (
                    isinstance(listener, trio_backends.EngineListener),
                    isinstance(stream, trio_backends.EngineStream),
                )

    with trio_backends.installed(backend, streams=True):
        assert trio.run(main) == (True, True)
    assert trio.run(main) == (False, False)


# ---------------------------------------------------------------- a forbidden io_uring

# A seccomp filter (seccomp(2)) that refuses io_uring_setup, number 425 everywhere, with EPERM, as
# Docker's does.
FORBIDDEN = """
    import ctypes, struct
    import trio
    import trio_backends
    async def main():
        manager = trio_backends.current_manager()
        print(manager.backend, manager.passed_over)
    def forbid():
        libc = ctypes.CDLL(None, use_errno=True)
        code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001),
                (0x06, 0, 0, 0x7FFF0000)]
        program = b"".join(struct.pack("HBBI", *line) for line in code)
        buffer = ctypes.create_string_buffer(program)
        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
        filter = Filter(len(code), ctypes.addressof(buffer))
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")


def _forbidden(code: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(FORBIDDEN) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@on_linux
@pytest.mark.parametrize("run", ["trio_backends.run", "trio.run"])
def test_a_forbidden_io_uring_is_a_reason_to_fall_back(run: str) -> None:
    result = _forbidden(f"forbid()\nwith trio_backends.installed(): {run}(main)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("kqueue" if KQUEUE else "epoll")
    assert "Operation not permitted" in result.stdout


@on_linux
def test_a_forbidden_io_uring_asked_for_by_name_is_an_error() -> None:
    result = _forbidden(
        """
        forbid()
        try:
            trio_backends.run(main, backend="io_uring")
        except trio_backends.BackendUnavailable as error:
            print("refused:", error)
        """
    )
    assert "refused: no backend can serve: io_uring" in result.stdout
    assert "seccomp" in result.stdout


@on_linux
@pytest.mark.skipif(
    trio_backends.available_backends()["io_uring"] is not None, reason="no io_uring to lose"
)
def test_an_installed_backend_that_works_no_more_is_an_error_of_the_run() -> None:
    result = _forbidden(
        """
        with trio_backends.installed("io_uring"):
            trio.run(main)
            forbid()
            try:
                trio.run(main)
            except trio_backends.BackendUnavailable as error:
                print("refused:", error)
        trio.run(trio.sleep, 0)
        """
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("io_uring")
    assert second.startswith("refused: no backend can serve: io_uring")

"""Backend "kqueue": what Trio offers there only, and what kevent() has in store for its users."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_backends
from tests.support.backends import KQUEUE, KQUEUE_SIMULATED
from tests.support.running import LONGEST_TEST
from trio_backends import EngineStream

pytestmark = pytest.mark.skipif(not KQUEUE, reason="no kqueue, not even a simulated one")

# Not in the standard library of Linux, nor in its types.
kq: Any = select


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        with trio.fail_after(LONGEST_TEST):
            return await main()

    return trio_backends.run(bounded, backend="kqueue")


def manager() -> Any:
    """The manager, for those methods that trio.lowlevel has on this kind of system only."""
    return trio_backends.current_manager()


def nonblocking_pair() -> tuple[socket.socket, socket.socket]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


def turns() -> int:
    waits: int = manager().statistics().waits
    return waits


# -- kevents of the program's own -------------------------------------------------------


def test_kevents_of_the_programs_own() -> None:
    async def main() -> list[tuple[int, int]]:
        queue = manager().current_kqueue()
        got: list[tuple[int, int]] = []

        async def wait(ident: int) -> None:
            flags = kq.KQ_EV_ADD | kq.KQ_EV_ONESHOT
            queue.control([kq.kevent(ident, kq.KQ_FILTER_TIMER, flags, 0, 10 * ident)], 0)
            event = await manager().wait_kevent(ident, kq.KQ_FILTER_TIMER, lambda _: 1 / 0)
            got.append((event.ident, event.data))

        async with trio.open_nursery() as nursery:
            for ident in (3, 1, 2):
                nursery.start_soon(wait, ident)
            await trio.testing.wait_all_tasks_blocked()
            assert manager().statistics().tasks_waiting == 4  # one is Trio's own
        assert manager().statistics().tasks_waiting == 1
        return got

    assert run(main) == [(1, 1), (2, 1), (3, 1)]


def test_monitoring_a_knote() -> None:
    async def main() -> None:
        a, b = nonblocking_pair()
        queue = manager().current_kqueue()
        with a, b:
            queue.control([kq.kevent(a, kq.KQ_FILTER_READ, kq.KQ_EV_ADD | kq.KQ_EV_CLEAR)], 0)
            with manager().monitor_kevent(a.fileno(), kq.KQ_FILTER_READ) as events:
                assert manager().statistics().monitors == 1
                for word in (b"abc", b"de"):
                    b.send(word)
                    async for batch in events:
                        assert [event.ident for event in batch] == [a.fileno()]
                        break
                    # The engine's own interest in the same is another one.
                    await trio.lowlevel.wait_readable(a)
                    assert a.recv(9) == word
                with pytest.raises(trio.BusyResourceError):
                    with manager().monitor_kevent(a.fileno(), kq.KQ_FILTER_READ):
                        pass
                with pytest.raises(trio.BusyResourceError):
                    await manager().wait_kevent(a.fileno(), kq.KQ_FILTER_READ, lambda _: None)
                with pytest.raises(NotImplementedError):
                    trio.lowlevel.notify_closing(a)
            queue.control([kq.kevent(a, kq.KQ_FILTER_READ, kq.KQ_EV_DELETE)], 0)
            assert manager().statistics().monitors == 0

    run(main)


def test_cancelling_and_closing_under_a_wait_for_a_kevent() -> None:
    async def main() -> None:
        a, b = nonblocking_pair()
        queue = manager().current_kqueue()
        one_shot = kq.KQ_EV_ADD | kq.KQ_EV_ONESHOT

        def delete(_: object) -> trio.lowlevel.Abort:
            queue.control([kq.kevent(a, kq.KQ_FILTER_READ, kq.KQ_EV_DELETE)], 0)
            return trio.lowlevel.Abort.SUCCEEDED

        async def wait() -> None:
            queue.control([kq.kevent(a, kq.KQ_FILTER_READ, one_shot)], 0)
            await manager().wait_kevent(a.fileno(), kq.KQ_FILTER_READ, delete)

        with a, b:
            with trio.move_on_after(0.01) as scope:
                await wait()
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:

                async def closed() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await wait()

                nursery.start_soon(closed)
                await trio.testing.wait_all_tasks_blocked()
                trio.lowlevel.notify_closing(a)
                a.close()

    run(main)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_kevent_that_nobody_waits_for_is_an_error() -> None:
    async def main() -> None:
        flags = kq.KQ_EV_ADD | kq.KQ_EV_ONESHOT
        manager().current_kqueue().control([kq.kevent(9, kq.KQ_FILTER_TIMER, flags, 0, 1)], 0)
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError) as caught:
        run(main)
    assert "ident=9" in str(caught.value.__cause__)
    del caught
    gc.collect()  # Trio leaves a broken run to it


# -- change lists -----------------------------------------------------------------------


@contextlib.contextmanager
def many_descriptors() -> Any:
    """As many as the system lets us have: the simulator needs one for each interest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_changes_than_one_call_takes() -> None:
    count = 700

    async def main() -> None:
        pairs = [nonblocking_pair() for _ in range(count)]
        left = count

        async def read(sock: socket.socket) -> None:
            nonlocal left
            while True:
                await trio.lowlevel.wait_readable(sock)
                with contextlib.suppress(BlockingIOError):
                    assert sock.recv(9) == b"x"
                    break
            left -= 1

        with contextlib.ExitStack() as stack:
            for a, b in pairs:
                stack.enter_context(a)
                stack.enter_context(b)
            for when in ("after", "before"):
                left = count
                async with trio.open_nursery() as nursery:
                    if when == "before":
                        for _, b in pairs:
                            b.send(b"x")
                    for a, _ in pairs:
                        nursery.start_soon(read, a)
                    await trio.testing.wait_all_tasks_blocked()
                    assert left == (count if when == "after" else 0)
                    if when == "after":
                        for _, b in pairs:
                            b.send(b"x")

    with many_descriptors():
        run(main)


def test_refused_changes_are_told_and_hide_nothing() -> None:
    async def main() -> None:
        a, b = nonblocking_pair()
        refused = 0

        async def bad(number: int) -> None:
            nonlocal refused
            with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
                await trio.lowlevel.wait_readable(number)
            refused += 1

        with a, b:
            b.send(b"x")
            async with trio.open_nursery() as nursery:
                for number in range(5000, 5300):
                    nursery.start_soon(bad, number)
                nursery.start_soon(trio.lowlevel.wait_readable, a)
        assert refused == 300

    run(main)


def test_a_number_used_again_is_watched_anew() -> None:
    """Closed behind our back, while a task waits: the next one of that number is not confused."""

    async def main() -> None:
        for closing in (True, False):
            a, b = nonblocking_pair()
            with trio.move_on_after(0.01):
                await trio.lowlevel.wait_readable(a)
            number = a.fileno()
            if closing:
                trio.lowlevel.notify_closing(a)
            a.close()
            c, d = nonblocking_pair()
            if (other := c.detach()) != number:
                os.dup2(other, number)
                os.close(other)
            e = socket.socket(fileno=number)
            with b, d, e:
                d.send(b"x")
                with trio.fail_after(5):
                    await trio.lowlevel.wait_readable(e)
                assert e.recv(9) == b"x"
                # And a stream's interest stays, where the one before was for once.
                stream = EngineStream.adopt(e)
                for word in (b"1", b"2", b"3"):
                    d.send(word)
                    assert await stream.receive_some() == word
                await stream.aclose()

    run(main)


def test_a_stream_that_stopped_reading_does_not_keep_us_awake() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        b.setblocking(False)
        stream = EngineStream.adopt(a, high_water=1000)
        with b:
            b.send(b"x")
            assert await stream.receive_some() == b"x"
            with contextlib.suppress(BlockingIOError):
                while True:
                    b.send(b"y" * 65536)
            await trio.sleep(0.05)
            before = turns()
            await trio.sleep(0.2)
            assert turns() - before < 20
        await stream.aclose()

    run(main)


# -- alarms, signals, processes ---------------------------------------------------------


def test_many_alarms_in_order() -> None:
    async def main() -> list[int]:
        rung: list[int] = []
        start = trio.current_time()

        async def tick(n: int) -> None:
            async for _ in trio_backends.every(0.02 * n):
                assert trio.current_time() - start >= 0.02 * n
                rung.append(n)
                break

        async with trio.open_nursery() as nursery:
            for n in (5, 3, 1, 4, 2):
                nursery.start_soon(tick, n)
        return rung

    assert run(main) == [1, 2, 3, 4, 5]


def test_ignored_signals_are_reported_and_handlers_run() -> None:
    async def main() -> None:
        handled: list[int] = []
        former = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
        try:
            with trio_backends.open_signal_receiver(signal.SIGUSR2) as signals:
                os.kill(os.getpid(), signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGUSR2)
                assert await anext(signals) == signal.SIGUSR2
            assert handled == [signal.SIGUSR1]
        finally:
            signal.signal(signal.SIGUSR1, former)

    run(main)


def test_a_child_that_ends_does_not_harm_its_parent() -> None:
    """It has no kqueue; what it closes is its own."""

    async def main() -> None:
        a, b = socket.socketpair()
        stream = EngineStream.adopt(a)
        b.setblocking(False)
        with b:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                child = os.fork()
                if not child:
                    try:
                        trio.lowlevel.notify_closing(a)
                        manager().close()
                    finally:
                        os._exit(0 if sys.exc_info()[0] is None else 1)
                assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - it ends at once
                b.send(b"x")
            b.send(b"y")
            assert await stream.receive_some() == b"y"
        await stream.aclose()

    run(main)


@pytest.mark.skipif(not KQUEUE_SIMULATED, reason="elsewhere Trio has these functions")
def test_trio_itself_has_no_kqueue_functions_here() -> None:
    assert not hasattr(trio.lowlevel, "current_kqueue")


@pytest.mark.skipif(KQUEUE_SIMULATED, reason="Trio itself has no kqueue here")
def test_trios_own_functions_reach_us() -> None:
    async def main() -> None:
        lowlevel: Any = trio.lowlevel
        assert lowlevel.current_kqueue() is manager().current_kqueue()

    run(main)

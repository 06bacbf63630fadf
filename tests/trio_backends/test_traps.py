"""Mistakes easily made below Trio: each was made and measured once, none is made by a backend.

Others are in test_manager.py, test_streams.py and trio_backends.testing.
"""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable
from typing import Any

import outcome
import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_backends
from tests.support.running import LONGEST_TEST, Run
from tests.trio_backends.test_manager import fill, pair, turns
from trio_backends._manager import EngineIOManager


def test_a_time_out_with_something_submitted_is_one_wait(run: Run) -> None:
    """io_uring_enter(2) then returns how much was submitted, and never ETIME: waiting again because
    nothing came would double the time.
    """

    async def main() -> None:
        with pair() as (a, b):
            fill(a)
            for wait in (trio.lowlevel.wait_readable, trio.lowlevel.wait_writable):
                before = turns()
                start = trio.current_time()
                with trio.move_on_after(0.1) as scope:
                    await wait(a)
                assert scope.cancelled_caught
                assert trio.current_time() - start >= 0.1
                # One until the time is up; a second one, if any, is a look.
                assert turns() - before <= 3
            b.send(b"x")
            await trio.lowlevel.wait_readable(a)

    run(main)


def test_a_guest_submits_nothing_from_threads_that_come_and_go(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread has submitted to io_uring is cancelled when the thread ends, and Trio waits for
    a guest's events in threads that end when they have been idle for a while.
    """
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.01)
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    ended: list[outcome.Outcome[Any]] = []

    async def main() -> bytes:
        with trio.fail_after(LONGEST_TEST), pair() as (a, b):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, a)
                for _ in range(5):
                    await trio.sleep(0.01)
                    with trio.move_on_after(0.01):
                        await trio.lowlevel.wait_readable(b)
                b.send(b"x")
            return a.recv(9)

    trio_backends.start_guest_run(
        main,
        backend=backend,
        run_sync_soon_threadsafe=todo.put,
        done_callback=ended.append,
        host_uses_signal_set_wakeup_fd=True,
    )
    while not ended:
        call = todo.get(timeout=LONGEST_TEST)
        time.sleep(0.05)  # the thread that brought it is gone by now
        call()
    assert ended[0].unwrap() == b"x"


def test_the_manager_itself_without_trios_wrappers(run: Run) -> None:
    """Trio's wrappers take any AttributeError for a call from outside of a run."""

    async def main() -> None:
        manager = trio_backends.current_manager()
        with pair() as (a, b):
            await manager.wait_writable(a)
            await manager.wait_writable(a.fileno())
            b.send(b"x")
            await manager.wait_readable(a)
            a.recv(1)
            with trio.move_on_after(0.001):
                await manager.wait_readable(a)
            async with trio.open_nursery() as nursery:

                async def closed(sock: socket.socket) -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await manager.wait_readable(sock)

                nursery.start_soon(closed, a)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await manager.wait_readable(a)
                manager.notify_closing(a)
            manager.force_wakeup()
            assert manager.statistics().tasks_waiting_read == 1
            with pytest.raises(OSError, match="descriptor"):
                await manager.wait_readable(987_654)

    run(main)


def test_a_fault_of_the_manager_is_seen_without_the_wrappers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: EngineIOManager, _fd: object) -> None:
        await trio.lowlevel.checkpoint()
        self.no_such_name  # type: ignore[attr-defined] # noqa: B018

    monkeypatch.setattr(EngineIOManager, "wait_readable", broken)

    async def main() -> None:
        with pytest.raises(AttributeError, match="no_such_name"):
            await trio_backends.current_manager().wait_readable(0)

    with pytest.raises(trio.TrioInternalError):  # Trio's own wake-up task meets the fault too
        run(main)

"""A run as a whole: time, threads, signals, processes, guest mode."""

from __future__ import annotations

import os
import queue
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import outcome
import trio
import trio.lowlevel
import trio.testing

from .._install import STOCK, current_backend, start_guest_run
from .._signals import open_signal_receiver
from .._timers import every
from .support import (
    counted_waits,
    expect,
    expect_closed,
    expect_waiting,
    socket_pair,
    socket_pair_at,
)


async def check_timer_order() -> None:
    """No sleep ends early, and none before an earlier one; sockets do not hasten or delay them."""
    woken: list[tuple[float, int]] = []
    delays = [i * 0.001 for i in range(100)]
    random.Random(5).shuffle(delays)

    with counted_waits() as waits, socket_pair() as (a, b):

        async def sleep(deadline: float) -> None:
            await trio.sleep_until(deadline)
            expect(trio.current_time() >= deadline, "a sleep ended early")
            woken.append((deadline, waits.count))

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for delay in delays:
                nursery.start_soon(sleep, start + delay)
            while len(woken) < len(delays):
                b.send(b"x")
                await trio.lowlevel.wait_readable(a)
                a.recv(1)
                with trio.move_on_after(0.002):
                    await trio.lowlevel.wait_readable(a)
    turns = [turn for _, turn in sorted(woken)]
    expect(turns == sorted(turns), "a sleep ended in a later turn than one that was due after it")


async def check_ticks() -> None:
    """every(): never early, in step, and none that nobody waits for."""
    ticker = every(0.005)
    last = 0
    for _ in range(20):
        tick = await anext(ticker)
        expect(trio.current_time() >= tick.scheduled, "a tick came early")
        expect(tick.number == last + 1 + tick.missed, "ticks are not numbered by the timetable")
        last = tick.number
    ticker.close()


async def check_idle() -> None:
    """Nothing wakes a run in which nothing happens."""
    with socket_pair() as (a, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, a)
            await trio.testing.wait_all_tasks_blocked()
            with counted_waits() as waits:
                await trio.sleep(0.3)
                expect(waits.count < 20, f"{waits.count} turns in 0.3 s of idling")
            nursery.cancel_scope.cancel()


async def check_wake_up_storm() -> None:
    """Whatever threads ask for is done, all of it, and wakes a run that waits for nothing else."""
    threads, calls = 8, 500
    done = 0
    token = trio.lowlevel.current_trio_token()
    finished = trio.Event()

    def count() -> None:
        nonlocal done
        done += 1
        if done == threads * calls:
            finished.set()

    def ask() -> None:
        for _ in range(calls):
            token.run_sync_soon(count)

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    await finished.wait()
    for worker in workers:
        worker.join()

    async def answer(i: int) -> int:
        await trio.lowlevel.checkpoint()
        return i + 1

    def ask_and_wait() -> int:
        result = 0
        for _ in range(50):
            result = trio.from_thread.run(answer, result)
        return result

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(trio.to_thread.run_sync, ask_and_wait)
    expect(await trio.to_thread.run_sync(ask_and_wait) == 50, "an answer was lost")


async def check_signal_burst() -> str | None:
    """However many signals come, the last of each is told; Python's own handlers run meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return "not checked: signals are for Python's main thread"
    one, two, other = signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM
    handled = 0

    def count(*_: object) -> None:
        nonlocal handled
        handled += 1

    former = {number: signal.signal(number, count) for number in (one, two, other)}
    try:
        with open_signal_receiver(one, two) as signals:
            for burst in (1, 10, 1000):

                def send(burst: int = burst) -> None:
                    for _ in range(burst):
                        os.kill(os.getpid(), one)
                    os.kill(os.getpid(), other)
                    os.kill(os.getpid(), two)

                await trio.to_thread.run_sync(send)
                got: set[int] = set()
                while got != {one, two}:
                    got.add(await anext(signals))
                # The last of the burst may have come after the first was looked at.
                with trio.move_on_after(0.02):
                    while True:
                        await anext(signals)
        expect(handled >= 3, "a handler of Python's did not run")
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return None


async def check_processes() -> None:
    """Programs run, are fed and read, and are waited for."""
    code = "import sys; sys.stdout.write(sys.stdin.read().upper())"
    async with trio.open_nursery() as nursery:

        async def run_one(words: bytes) -> None:
            result = await trio.run_process(
                [sys.executable, "-c", code], stdin=words, capture_stdout=True
            )
            expect(result.stdout == words.upper(), "a program's output is not what it wrote")

        for size in (0, 10, 300_000):
            nursery.start_soon(run_one, b"words" * size)


def _fork(child: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        # Of threads, which the child does not need: it makes system calls only, and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return pid


def _ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


async def _reap(pid: int) -> None:
    async for _ in every(0.005):
        if _ended(pid):
            return


async def check_fork() -> None:
    """A child that holds copies of everything, or closes them, is of no consequence."""
    end, go = os.pipe()

    def hold() -> None:
        os.close(go)
        os.read(end, 1)

    with socket_pair() as (other, its_peer):
        a, b = socket.socketpair()
        number = a.fileno()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, other)
            nursery.start_soon(expect_closed, trio.lowlevel.wait_readable, a)
            await trio.testing.wait_all_tasks_blocked()
            holds = _fork(hold)
            await _reap(_fork(lambda: os.closerange(3, 1000)))
            trio.lowlevel.notify_closing(a)
            a.close()
            with socket_pair_at(number) as (c, d):
                b.send(b"x")  # to the file that the child keeps alive
                await expect_waiting(
                    trio.lowlevel.wait_readable, c, "a reused number was woken by a child's file"
                )
                d.send(b"y")
                await trio.lowlevel.wait_readable(c)
            its_peer.send(b"x")  # the wait from before the fork still holds
        b.close()
        os.close(go)
        await _reap(holds)
        os.close(end)


async def check_guest_mode() -> None:
    """A run that is a guest in another loop: sockets, time, threads, cancellation."""
    backend = current_backend()
    start: Callable[..., None] = trio.lowlevel.start_guest_run
    if backend != STOCK:
        start = partial(start_guest_run, backend=backend)
    result = await trio.to_thread.run_sync(_host, start)
    expect(result == "done", f"a guest run returned {result!r}")


def _host(start: Callable[..., None]) -> Any:
    """A loop that does nothing but what the guest asks for."""
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    ended: list[outcome.Outcome[Any]] = []
    start(
        _guest,
        run_sync_soon_threadsafe=todo.put,
        done_callback=ended.append,
        host_uses_signal_set_wakeup_fd=True,
    )
    while not ended:
        todo.get(timeout=60)()
    return ended[0].unwrap()


async def _guest() -> str:
    with trio.fail_after(60), socket_pair() as (a, b):
        for i in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, a)
                await trio.testing.wait_all_tasks_blocked()
                # From a thread every other time: then the wait itself has to notice.
                if i % 2:
                    await trio.to_thread.run_sync(b.send, b"x")
                else:
                    b.send(b"x")
            a.recv(1)
            with trio.move_on_after(0.002) as scope:
                await trio.lowlevel.wait_readable(a)
            expect(scope.cancelled_caught, "a guest's wait returned for nothing")
        trio.lowlevel.notify_closing(a)
        a.close()
        expect(b.recv(1) == b"", "the file is still open after close()")
    return "done"

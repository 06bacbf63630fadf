"""Trio's public API on each backend: descriptors, cancellation, threads, signals, guest mode."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

import trio_backends
from tests.support.running import Run


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass


def turns() -> int:
    return trio_backends.current_manager().statistics().waits


def test_readable_and_writable(run: Run) -> None:
    async def main() -> None:
        with pair() as (a, b):
            await trio.lowlevel.wait_writable(a)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, a)
                await trio.testing.wait_all_tasks_blocked()
                b.send(b"x")
            fill(a)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_writable, a)
                await trio.testing.wait_all_tasks_blocked()
                while nursery.child_tasks:
                    b.recv(1 << 20)
                    await trio.testing.wait_all_tasks_blocked()

    run(main)


def test_both_directions_of_one_descriptor(run: Run) -> None:
    async def main() -> list[str]:
        order: list[str] = []
        with pair() as (a, b):
            fill(a)

            async def wait(kind: str) -> None:
                await getattr(trio.lowlevel, f"wait_{kind}")(a)
                order.append(kind)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, "readable")
                nursery.start_soon(wait, "writable")
                await trio.testing.wait_all_tasks_blocked()
                b.send(b"x")
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert order == ["readable"]
                while len(order) < 2:
                    b.recv(1 << 20)
                    await trio.testing.wait_all_tasks_blocked()
        return order

    assert run(main) == ["readable", "writable"]


@pytest.mark.parametrize("kind", ["readable", "writable"])
def test_cancelled_waits_leave_nothing_behind(run: Run, kind: str) -> None:
    async def main() -> None:
        with pair() as (a, b):
            fill(a)
            wait = getattr(trio.lowlevel, f"wait_{kind}")
            for _ in range(100):
                with trio.move_on_after(0.0001) as scope:
                    await wait(a)
                assert scope.cancelled_caught
            b.send(b"x")
            await trio.lowlevel.wait_readable(a)
            assert a.recv(9) == b"x"
            stats = trio.lowlevel.current_statistics().io_statistics
            # One reader: Trio's own wake-up socket.
            assert (stats.tasks_waiting_read, stats.tasks_waiting_write) == (1, 0)

    run(main)


@pytest.mark.parametrize("kind", ["readable", "writable"])
def test_one_waiter_for_each_direction(run: Run, kind: str) -> None:
    async def main() -> None:
        with pair() as (a, _b):
            fill(a)
            wait = getattr(trio.lowlevel, f"wait_{kind}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, a)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await wait(a)
                nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize("kind", ["readable", "writable"])
def test_a_bad_descriptor_is_an_error(run: Run, kind: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
            await getattr(trio.lowlevel, f"wait_{kind}")(987654)
        with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
            await getattr(trio.lowlevel, f"wait_{kind}")(4321)

    run(main)


def test_closing_wakes_who_waits_and_lets_go_of_the_file(run: Run) -> None:
    async def main() -> None:
        with pair() as (a, b):
            fill(a)
            async with trio.open_nursery() as nursery:

                async def wait(kind: str) -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await getattr(trio.lowlevel, f"wait_{kind}")(a)

                nursery.start_soon(wait, "readable")
                nursery.start_soon(wait, "writable")
                await trio.testing.wait_all_tasks_blocked()
                trio.lowlevel.notify_closing(a)
                a.close()
            while b.recv(1 << 20):
                pass  # and then the end, at once: nobody keeps the file open

    run(main)


def test_the_peer_sees_the_end_after_a_cancelled_wait(run: Run) -> None:
    async def main() -> None:
        with pair() as (a, b):
            with trio.move_on_after(0.001):
                await trio.lowlevel.wait_readable(a)
            trio.lowlevel.notify_closing(a)
            a.close()
            assert b.recv(1) == b""

    run(main)


def test_a_reused_descriptor_gets_no_report_of_the_old_one(run: Run) -> None:
    async def main() -> None:
        for _ in range(50):
            a, b = socket.socketpair()
            number = a.fileno()
            async with trio.open_nursery() as nursery:

                async def wait(sock: socket.socket) -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await trio.lowlevel.wait_readable(sock)

                nursery.start_soon(wait, a)
                await trio.testing.wait_all_tasks_blocked()
                b.send(b"x")
                trio.lowlevel.notify_closing(a)
                a.close()
            b.close()
            c, d = socket.socketpair()
            with c, d, trio.move_on_after(0.002) as scope:
                if c.fileno() == number:
                    await trio.lowlevel.wait_readable(c)
                else:
                    await trio.sleep_forever()
            assert scope.cancelled_caught

    run(main)


def test_a_half_closed_peer_does_not_make_a_writer_spin(run: Run) -> None:
    async def main() -> None:
        with pair() as (a, b):
            fill(a)
            b.shutdown(socket.SHUT_WR)
            before = turns()
            with trio.move_on_after(0.2):
                await trio.lowlevel.wait_writable(a)
            assert turns() - before < 20

    run(main)


def test_an_idle_run_wakes_for_nothing(run: Run) -> None:
    async def main() -> None:
        with pair() as (a, _b):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, a)
                await trio.testing.wait_all_tasks_blocked()
                before = turns()
                await trio.sleep(0.3)
                assert turns() - before < 10
                nursery.cancel_scope.cancel()

    run(main)


def test_sleeps_last_as_long_as_they_should(run: Run) -> None:
    async def main() -> None:
        with pair() as (a, b):
            for delay in (0.0, 0.003, 0.05):
                start = trio.current_time()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep, delay)
                    b.send(b"x")  # I/O on the way must not end a sleep
                    await trio.lowlevel.wait_readable(a)
                assert trio.current_time() - start >= delay

    run(main)


def test_threads_processes_and_files(run: Run) -> None:
    async def main() -> tuple[int, bytes, bytes]:
        in_thread = await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(lambda: 42))
        code = "import sys; sys.stdout.write(sys.stdin.read().upper())"
        result = await trio.run_process(
            [sys.executable, "-c", code], stdin=b"words" * 50000, capture_stdout=True
        )
        async with await trio.open_file(__file__, "rb") as file:
            return in_thread, result.stdout, await file.read(3)

    assert run(main) == (42, b"WORDS" * 50000, b'"""')


def test_signals_are_trio_events(run: Run) -> None:
    async def main() -> list[int]:
        got = []
        with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            async for number in signals:
                got.append(number)
                if number == signal.SIGUSR2:
                    return got
                await trio.to_thread.run_sync(os.kill, os.getpid(), signal.SIGUSR2)
        return got

    assert run(main) == [signal.SIGUSR1, signal.SIGUSR2]


def test_keyboard_interrupt_ends_a_wait(run: Run) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, os.kill, os.getpid(), signal.SIGINT)
            await trio.sleep_forever()

    # A shell's background job is started with SIGINT ignored, and Python leaves it so.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(BaseExceptionGroup) as caught:
            run(main)
    finally:
        signal.signal(signal.SIGINT, former)
    assert caught.group_contains(KeyboardInterrupt)


def test_an_autojump_clock_jumps(backend: str) -> None:
    async def main() -> float:
        start = trio.current_time()
        await trio.sleep(3600)
        return trio.current_time() - start

    clock = trio.testing.MockClock(autojump_threshold=0)
    assert trio_backends.run(main, backend=backend, clock=clock) >= 3600


def test_statistics_name_the_backend(run: Run, backend: str) -> None:
    async def main() -> tuple[str, int]:
        with pair() as (a, _b):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, a)
                await trio.testing.wait_all_tasks_blocked()
                stats = trio.lowlevel.current_statistics().io_statistics
                nursery.cancel_scope.cancel()
        return stats.backend, stats.tasks_waiting_read

    assert run(main) == (backend, 2)


def test_a_program_in_guest_mode(backend: str) -> None:
    """A host loop that is nothing but a queue of callbacks."""
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    done: list[Any] = []

    async def main() -> str:
        with trio.fail_after(20):
            listeners = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")

            async def echo(stream: trio.abc.Stream) -> None:
                async with stream:
                    while data := await stream.receive_some():
                        await stream.send_all(data)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, echo, listeners)
                # One client on the engine's streams, one on Trio's own.
                for open_stream in (trio_backends.open_tcp_stream, trio.open_tcp_stream):
                    stream = await open_stream("127.0.0.1", listeners[0].name[1])
                    async with stream:
                        for n in (1, 100_000):
                            await stream.send_all(b"y" * n)
                            while n:
                                n -= len(await stream.receive_some())
                await trio.sleep(0.01)
                assert await trio.to_thread.run_sync(lambda: 7) == 7
                with trio.move_on_after(0.01):
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
        return trio_backends.current_backend()

    trio_backends.start_guest_run(
        main,
        backend=backend,
        run_sync_soon_threadsafe=todo.put,
        done_callback=done.append,
        host_uses_signal_set_wakeup_fd=False,
    )
    while not done:
        todo.get(timeout=20)()
    assert done[0].unwrap() == backend


def test_closing_what_is_no_descriptor_is_harmless(run: Run) -> None:
    async def main() -> None:
        for number in (2**31 - 1, 1_000_000_000, 54_321):
            trio.lowlevel.notify_closing(number)

    run(main)

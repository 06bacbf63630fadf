"""Waiting for descriptors: wait_readable, wait_writable, notify_closing."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio
import trio.lowlevel
import trio.testing

from .support import (
    PAIRS,
    RESET,
    WAITS,
    counted_waits,
    drain,
    expect,
    expect_closed,
    expect_waiting,
    fill,
    socket_pair,
    socket_pair_at,
    tcp_pair,
)

MANY = 10_000  # descriptors


async def check_readiness() -> None:
    """Each direction is told when it is ready and not before, also when both are waited for."""
    with socket_pair() as (a, b):
        await trio.lowlevel.wait_writable(a)
        await expect_waiting(trio.lowlevel.wait_readable, a, "readable without a byte")
        await fill(a)
        await expect_waiting(trio.lowlevel.wait_writable, a, "writable without room")
        woken: list[str] = []

        async def wait(kind: str) -> None:
            await getattr(trio.lowlevel, f"wait_{kind}")(a)
            woken.append(kind)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "readable")
            nursery.start_soon(wait, "writable")
            await trio.testing.wait_all_tasks_blocked()
            b.send(b"x")
            await trio.testing.wait_all_tasks_blocked(0.01)
            expect(woken == ["readable"], f"after a byte arrived, woken: {woken}")
            while len(woken) < 2:
                drain(b)
                await trio.testing.wait_all_tasks_blocked()


async def check_cancel_a_waiter() -> None:
    """A cancelled wait leaves nothing behind that wakes, or keeps from waking, the next one."""
    with socket_pair() as (a, b):
        await fill(a)
        for wait in WAITS:
            for i in range(100):
                with trio.move_on_after(i * 1e-5) as scope:
                    await wait(a)
                expect(scope.cancelled_caught, f"{wait.__name__} returned for nothing")
        b.send(b"x")
        await trio.lowlevel.wait_readable(a)
        expect(a.recv(9) == b"x", "the byte was not there")
        drain(b)
        await trio.lowlevel.wait_writable(a)


async def check_two_waiters() -> None:
    """A second task for the same direction is refused, and disturbs nothing."""
    for wait in WAITS:
        with socket_pair() as (a, b):
            await fill(a)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, a)
                await trio.testing.wait_all_tasks_blocked()
                try:
                    await wait(a)
                except trio.BusyResourceError:
                    pass
                else:
                    raise AssertionError(f"a second {wait.__name__} was not refused")
                b.send(b"x")
                drain(b)


async def check_bad_descriptor() -> None:
    """A number that is no open descriptor is an OSError."""
    with socket_pair() as (a, _):
        free = a.fileno()
    for number in (free, 987_654):
        for wait in WAITS:
            try:
                await wait(number)
            except OSError:
                continue
            raise AssertionError(f"{wait.__name__} took a descriptor that is not open")


async def check_close_under_a_waiter() -> None:
    """Who waits for a descriptor that is being closed gets ClosedResourceError; others nothing."""
    with socket_pair() as (a, b), socket_pair() as (other, _):
        await fill(a)
        closed: list[str] = []

        async def wait(kind: str) -> None:
            try:
                await getattr(trio.lowlevel, f"wait_{kind}")(a)
            except trio.ClosedResourceError:
                closed.append(kind)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "readable")
            nursery.start_soon(wait, "writable")
            nursery.start_soon(trio.lowlevel.wait_readable, other)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.notify_closing(a)
            a.close()
            await trio.testing.wait_all_tasks_blocked()
            expect(len(nursery.child_tasks) == 1, "another descriptor's waiter was woken")
            nursery.cancel_scope.cancel()
        expect(sorted(closed) == ["readable", "writable"], f"told of the closing: {closed}")
        trio.lowlevel.notify_closing(b)  # nobody waits: nothing happens


async def _close_the_other(sock: socket.socket, other: socket.socket, outcomes: list[str]) -> None:
    try:
        await trio.lowlevel.wait_readable(sock)
    except trio.ClosedResourceError:
        outcomes.append("closed")
        return
    outcomes.append("ready")
    if other.fileno() >= 0:
        trio.lowlevel.notify_closing(other)
        other.close()


async def check_close_in_the_same_turn() -> None:
    """Of two that became ready together the first one woken closes the other: no harm done."""
    for _ in range(20):
        with socket_pair() as (a, b), socket_pair() as (c, d):
            outcomes: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_close_the_other, a, c, outcomes)
                nursery.start_soon(_close_the_other, c, a, outcomes)
                await trio.testing.wait_all_tasks_blocked()
                b.send(b"x")
                d.send(b"x")
            expect("ready" in outcomes and len(outcomes) == 2, f"woken: {outcomes}")


async def check_reuse_of_a_number() -> None:
    """A descriptor with the number of one that was closed hears nothing of that one."""
    for _ in range(20):
        a, b = socket.socketpair()
        number = a.fileno()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, trio.lowlevel.wait_readable, a)
            await trio.testing.wait_all_tasks_blocked()
            b.send(b"x")
            trio.lowlevel.notify_closing(a)
            a.close()
        b.close()
        with socket_pair_at(number) as (c, d):
            with trio.move_on_after(0.005) as scope:
                await trio.lowlevel.wait_readable(c)
            expect(scope.cancelled_caught, "a reused number was woken by its former file")
            d.send(b"y")
            await trio.lowlevel.wait_readable(c)


async def check_peer_sees_the_end() -> None:
    """After notify_closing and close() nothing keeps the file open: its peer sees the end."""
    for wait in WAITS:
        for cancelled in (False, True):
            with socket_pair() as (a, b):
                await fill(a)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(expect_closed, wait, a)
                    await trio.testing.wait_all_tasks_blocked()
                    if cancelled:
                        nursery.cancel_scope.cancel()
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    trio.lowlevel.notify_closing(a)
                    a.close()
                    try:
                        while b.recv(1 << 20):
                            pass
                    except BlockingIOError:
                        raise AssertionError("the file is still open after close()") from None


async def check_peer_ends() -> None:
    """A peer that closes (FIN) wakes who reads; one that breaks off (RST) wakes both directions."""
    for pair in PAIRS:
        with pair() as (a, b):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, a)
                await trio.testing.wait_all_tasks_blocked()
                b.close()
            expect(a.recv(1) == b"", "no end after the peer closed")
    with tcp_pair() as (a, b):
        await fill(a)
        async with trio.open_nursery() as nursery:
            for wait in WAITS:
                nursery.start_soon(wait, a)
            await trio.testing.wait_all_tasks_blocked()
            b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            b.close()
        try:
            a.recv(1)
        except ConnectionError:
            return
        raise AssertionError("no error after the peer reset the connection")


async def check_half_close() -> None:
    """A peer that will send no more does not wake who waits for room, and costs no turns."""
    for pair in PAIRS:
        with pair() as (a, b):
            await fill(a)
            b.shutdown(socket.SHUT_WR)
            await trio.lowlevel.wait_readable(a)
            expect(a.recv(1) == b"", "no end after the peer's half-close")
            with counted_waits() as waits:
                await expect_waiting(
                    trio.lowlevel.wait_writable, a, "a half-closed peer made a full socket writable"
                )
                expect(waits.count < 50, f"{waits.count} waits for one that should last")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_writable, a)
                while nursery.child_tasks:
                    drain(b)
                    await trio.testing.wait_all_tasks_blocked()


@contextmanager
def _descriptors(count: int) -> Iterator[int]:
    """Room for so many more, or for as many as the limit allows: how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/dev/fd")) + 64
    limit = count + used if hard == resource.RLIM_INFINITY else min(hard, count + used)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    except (ValueError, OSError):  # a limit of the kernel's that getrlimit(2) does not tell
        limit = soft
    try:
        yield min(count, max(soft, limit) - used)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def check_many_descriptors() -> str | None:
    """Ten thousand descriptors, waited for all at once: cancelled, and then woken, every one."""
    with _descriptors(MANY) as room, ExitStack() as stack:
        pairs = [stack.enter_context(socket_pair()) for _ in range(room // 2)]
        ends = [sock for pair in pairs for sock in pair]
        woken = 0

        async def wait(sock: socket.socket) -> None:
            nonlocal woken
            await trio.lowlevel.wait_readable(sock)
            sock.recv(1)
            woken += 1

        for cancelled in (True, False):
            async with trio.open_nursery() as nursery:
                for sock in ends:
                    nursery.start_soon(wait, sock)
                await trio.testing.wait_all_tasks_blocked()
                if cancelled:
                    nursery.cancel_scope.cancel()
                else:
                    for sock in ends:
                        sock.send(b"x")
        expect(woken == len(ends), f"{woken} of {len(ends)} were woken")
        for sock in ends:
            trio.lowlevel.notify_closing(sock)
    if room < MANY:
        return f"{room} descriptors instead of {MANY}: RLIMIT_NOFILE"
    return None

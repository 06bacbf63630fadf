"""What the checks are made of: pairs of sockets, the backend's own streams, counting waits."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
import trio.lowlevel

from .._install import STOCK, current_backend
from .._streams import EngineStream

SOON = 0.1  # seconds: what has not happened by then is taken not to happen
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
WAITS = (trio.lowlevel.wait_readable, trio.lowlevel.wait_writable)


def expect(condition: object, otherwise: str) -> None:
    """An assertion that stays one under ``python -O``."""
    if not condition:
        raise AssertionError(otherwise)


@contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected non-blocking sockets."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The same, by TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


PAIRS = (socket_pair, tcp_pair)


@contextmanager
def socket_pair_at(number: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair whose first has a certain descriptor, which must be free."""
    a, b = socket.socketpair()
    if b.fileno() == number:
        a, b = b, a
    elif a.fileno() != number:
        os.dup2(a.fileno(), number)
        a.close()
        a = socket.socket(fileno=number)
    with a, b:
        a.setblocking(False)
        yield a, b


async def fill(sock: socket.socket) -> None:
    """Until the kernel takes no more, and has not made room since by moving it to the peer."""
    taken = 1
    while taken:
        taken = 0
        for size in (65536, 1):
            try:
                while True:
                    taken += sock.send(bytes(size))
            except BlockingIOError:
                pass
        await trio.sleep(SOON / 5)


def drain(sock: socket.socket) -> int:
    """Receives what there is; how many bytes it was."""
    count = 0
    try:
        while data := sock.recv(1 << 20):
            count += len(data)
    except BlockingIOError:
        pass
    return count


def own_stream(sock: socket.socket) -> trio.abc.HalfCloseableStream:
    """A stream of the backend's own kind over a connected socket."""
    if current_backend() == STOCK:
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    return EngineStream.adopt(sock)


async def own_streams() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    """Two connected streams of the backend's own kind."""
    with tcp_pair() as (a, b):
        return own_stream(a.dup()), own_stream(b.dup())


async def expect_waiting(
    wait: Callable[[Any], Awaitable[None]], what: int | socket.socket, otherwise: str
) -> None:
    """Nothing is to wake who waits."""
    with trio.move_on_after(SOON) as scope:
        await wait(what)
    expect(scope.cancelled_caught, otherwise)


async def expect_closed(wait: Callable[[Any], Awaitable[None]], what: int | socket.socket) -> None:
    """Who waits is to be told that the descriptor is being closed."""
    try:
        await wait(what)
    except trio.ClosedResourceError:
        return
    raise AssertionError("a wait for a descriptor that was closed returned")


class WaitCounter(trio.abc.Instrument):
    """Counts the times that Trio asks its manager for events, and what the engine waits besides."""

    def __init__(self) -> None:
        self._asked = 0
        self._engines = self._engine_waits()

    @staticmethod
    def _engine_waits() -> int:
        statistics = trio.lowlevel.current_statistics().io_statistics
        return int(getattr(statistics, "waits", 0))

    def before_io_wait(self, timeout: float) -> None:
        self._asked += 1

    @property
    def count(self) -> int:
        return max(self._asked, self._engine_waits() - self._engines)


@contextmanager
def counted_waits() -> Iterator[WaitCounter]:
    counter = WaitCounter()
    trio.lowlevel.add_instrument(counter)
    try:
        yield counter
    finally:
        trio.lowlevel.remove_instrument(counter)

"""The backend's own streams: the engine's in our runs, else Trio's."""

from __future__ import annotations

import random
import socket
import threading

import trio
import trio.lowlevel
import trio.testing

from .support import RESET, expect, own_stream, own_streams, socket_pair, tcp_pair


async def check_streams() -> None:
    """Trio's own checks of a half-closeable stream."""

    async def clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        with socket_pair() as (a, b):
            for sock in (a, b):
                try:
                    while True:
                        sock.send(bytes(65536))
                except BlockingIOError:
                    pass
            return own_stream(a.dup()), own_stream(b.dup())

    await trio.testing.check_half_closeable_stream(own_streams, clogged)


async def check_cancelled_receives() -> None:
    """A byte that arrives while its receive is being cancelled is there for the next one."""
    data = random.Random(3).randbytes(20_000)

    def feed(sock: socket.socket) -> None:
        sock.setblocking(True)
        for i in range(0, len(data), 4):
            sock.sendall(data[i : i + 4])

    with tcp_pair() as (a, b):
        stream = own_stream(a.dup())
        thread = threading.Thread(target=feed, args=(b,))
        thread.start()
        got = bytearray()
        delays = random.Random(4)
        while len(got) < len(data):
            with trio.move_on_after(delays.random() * 2e-4):
                received = await stream.receive_some(delays.randint(1, 50))
                expect(received, f"the stream ended after {len(got)} bytes")
                got += received
        thread.join()
        expect(bytes(got) == data, "bytes were lost or came in another order")
        await stream.aclose()


async def check_cancelled_sends() -> None:
    """What a cancelled send leaves behind is the beginning of its data, and nothing else."""
    with tcp_pair() as (a, b):
        stream = own_stream(a.dup())
        await stream.send_all(b"first")
        with trio.move_on_after(0.02) as scope:
            await stream.send_all(b"x" * 50_000_000)
        expect(scope.cancelled_caught, "50 MB were sent to a peer that does not read")
        got = bytearray()
        while len(got) < 5:
            await trio.lowlevel.wait_readable(b)
            got += b.recv(1 << 20)
        expect(got.startswith(b"first"), "what was sent before is missing")
        expect(set(got[5:]) <= {ord("x")}, "what was sent is not what was to be sent")
        trio.lowlevel.notify_closing(b)
        await stream.aclose()


async def check_back_pressure() -> None:
    """A stream that nobody reads stops its peer, and loses nothing by it."""
    limit = 100_000_000
    with tcp_pair() as (a, b):
        stream = own_stream(a.dup())
        b.send(b"x")
        await stream.receive_some()  # from now on it may be received ahead
        sent = stalled = 0
        while sent < limit and stalled < 10:
            try:
                while sent < limit:
                    sent += b.send(bytes(1 << 20))
                    stalled = 0
            except BlockingIOError:
                stalled += 1
            await trio.sleep(0.02)
        expect(sent < limit, f"{sent} bytes were taken from a peer though nobody reads")
        b.shutdown(socket.SHUT_WR)
        received = 0
        while data := await stream.receive_some():
            received += len(data)
        expect(received == sent, f"{received} bytes of {sent} arrived")
        await stream.aclose()


async def check_broken_streams() -> None:
    """A reset is BrokenResourceError for who receives and who sends."""
    for operation in ("receive", "send"):
        with tcp_pair() as (a, b):
            stream = own_stream(a.dup())

            async def use(stream: trio.abc.Stream, operation: str) -> None:
                try:
                    if operation == "receive":
                        await stream.receive_some()
                    else:
                        await stream.send_all(bytes(50_000_000))
                except trio.BrokenResourceError:
                    return
                raise AssertionError(f"{operation}: no error after a reset")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, stream, operation)
                await trio.testing.wait_all_tasks_blocked(0.02)
                b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                b.close()
            await stream.aclose()

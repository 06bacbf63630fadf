"""Streams and listeners on the engine, held to Trio's own conformance checks, and relay()."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_backends
from tests.support.running import Run
from trio_backends import EngineStream

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset


async def socket_pair() -> tuple[EngineStream, EngineStream]:
    a, b = socket.socketpair()
    return EngineStream.adopt(a), EngineStream.adopt(b)


async def tcp_pair(**options: Any) -> tuple[EngineStream, EngineStream]:
    [listener] = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        a = await trio_backends.open_tcp_stream("127.0.0.1", listener.name[1], **options)
        return a, await listener.accept()


async def clogged_pair() -> tuple[EngineStream, EngineStream]:
    """A pair whose send_all blocks, either way, until the other end is read."""
    a, b = socket.socketpair()
    for sock in (a, b):
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(b"x" * 65536)
    return EngineStream.adopt(a), EngineStream.adopt(b)


async def receive(stream: EngineStream, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        piece = await stream.receive_some(n - len(data))
        assert piece, "the stream ended"
        data += piece
    return bytes(data)


@pytest.mark.parametrize("maker", [socket_pair, tcp_pair])
def test_trios_own_checks_of_a_stream(run: Run, maker: Any) -> None:
    async def main() -> None:
        await trio.testing.check_half_closeable_stream(maker, clogged_pair)

    run(main)


def test_bytes_arrive_whole_and_in_order_with_a_slow_reader(run: Run) -> None:
    async def main() -> None:
        a, b = await tcp_pair()
        data = b"".join(i.to_bytes(4, "big") for i in range(1_000_000))
        got = bytearray()
        async with a, b, trio.open_nursery() as nursery:

            async def send() -> None:
                await a.send_all(data)
                await a.send_eof()

            nursery.start_soon(send)
            while piece := await b.receive_some(5000):
                got += piece
                if len(got) % 7 == 0:
                    await trio.sleep(0.0005)
        assert bytes(got) == data

    run(main)


def test_cancelled_receives_lose_nothing(run: Run) -> None:
    async def main() -> None:
        a, b = await tcp_pair()
        got = bytearray()
        cancelled = 0
        async with a, b, trio.open_nursery() as nursery:

            async def send() -> None:
                for i in range(3000):
                    await a.send_all(bytes([i % 251]))
                    if i % 10 == 0:
                        await trio.lowlevel.checkpoint()

            nursery.start_soon(send)
            delay = 0.0
            while len(got) < 3000:
                delay = (delay + 0.000013) % 0.0002
                with trio.move_on_after(delay) as scope:
                    got += await b.receive_some(7)
                cancelled += scope.cancelled_caught
        assert bytes(got) == bytes(i % 251 for i in range(3000))
        assert cancelled

    run(main)


def test_a_reader_that_does_not_read_stops_the_sender(run: Run) -> None:
    async def main() -> int:
        a, b = await tcp_pair()
        await b.send_all(b"x")
        await a.receive_some()  # now the engine reads a
        sent = 0
        with trio.move_on_after(1):
            while sent < 200_000_000:
                await b.send_all(bytes(1 << 20))
                sent += 1 << 20
        heap = trio_backends.current_manager().statistics().heap_bytes
        assert heap < 4_000_000
        await a.aclose()
        await b.aclose()
        return sent

    assert run(main) < 50_000_000


def test_a_reset_is_a_broken_stream(run: Run) -> None:
    async def main() -> None:
        [listener] = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
        client = socket.create_connection(listener.name)
        stream = await listener.accept()
        async with trio.open_nursery() as nursery:

            async def broken() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()

            nursery.start_soon(broken)
            await trio.testing.wait_all_tasks_blocked()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            client.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")

    run(main)


def test_listeners_serve_trios_own_clients(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async def greet(stream: EngineStream) -> None:
            async with stream:
                await stream.send_all(b"hello " + await stream.receive_some())

        path = str(tmp_path / "socket")
        unix = await trio_backends.open_unix_listener(path, mode=0o600)
        tcp = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, greet, [unix, *tcp])
            for client in (
                await trio.open_unix_socket(path),
                await trio.open_tcp_stream("127.0.0.1", tcp[0].name[1]),
            ):
                async with client:
                    await client.send_all(b"you")
                    assert await client.receive_some() == b"hello you"
            nursery.cancel_scope.cancel()

    run(main)


def test_a_connection_is_offered_when_it_has_spoken(run: Run) -> None:
    async def main() -> None:
        [listener] = await trio_backends.open_tcp_listeners(0, host="127.0.0.1", until_data=True)
        listener.limit_silent(3, 3600)
        clients = [await trio.open_tcp_stream("127.0.0.1", listener.name[1]) for _ in range(2)]
        with trio.move_on_after(0.05) as scope:
            await listener.accept()
        assert scope.cancelled_caught
        await clients[1].send_all(b"second")
        stream = await listener.accept()
        assert await stream.receive_some() == b"second"
        # Too many that are silent: the oldest gives way.
        clients += [await trio.open_tcp_stream("127.0.0.1", listener.name[1]) for _ in range(3)]
        with trio.move_on_after(0.05):
            await listener.accept()
        assert listener.dropped == 1
        assert await clients[0].receive_some() == b""
        # Silent for too long.
        listener.limit_silent(3, 0.01)
        with trio.move_on_after(0.05):
            await listener.accept()
        assert listener.dropped == 4
        for client in clients[2:]:
            assert await client.receive_some() == b""
        await listener.aclose()

    run(main)


def test_no_descriptor_is_left(run: Run) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    before = descriptors()

    async def main() -> None:
        [listener] = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
        for i in range(50):
            if i == 1:  # the simulator of kqueue uses descriptors for what is watched
                inside = descriptors()
            client = await trio_backends.open_tcp_stream("127.0.0.1", listener.name[1])
            server = await listener.accept()
            await client.send_all(b"x")
            await server.receive_some()
            await client.aclose()
            server.close()
        await trio.sleep(0.01)
        assert descriptors() == inside
        # And what is left open when the run ends is closed with it.
        await trio_backends.open_tcp_stream("127.0.0.1", listener.name[1])

    run(main)
    assert descriptors() == before


def test_relay_moves_bytes_both_ways_and_passes_the_end_on(run: Run) -> None:
    async def main() -> None:
        left, a = await tcp_pair()
        b, right = await tcp_pair()
        await left.send_all(b"early ")
        await trio.sleep(0.01)
        payload = bytes(range(256)) * 20_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio_backends.relay, a, b)

            async def one_way(source: EngineStream, target: EngineStream) -> None:
                async with trio.open_nursery() as both:
                    both.start_soon(source.send_all, payload)
                    assert await receive(target, len(payload)) == payload
                await source.send_eof()
                assert await target.receive_some() == b""

            assert await receive(right, 6) == b"early "
            nursery.start_soon(one_way, left, right)
            nursery.start_soon(one_way, right, left)
        for stream in (left, right, a, b):
            await stream.aclose()

    run(main)


def test_relay_reads_no_faster_than_the_other_end(run: Run) -> None:
    async def main() -> int:
        left, a = await tcp_pair()
        b, _right = await tcp_pair()
        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio_backends.relay, a, b)
            with trio.move_on_after(1):
                while sent < 200_000_000:
                    await left.send_all(bytes(1 << 20))
                    sent += 1 << 20
            heap = trio_backends.current_manager().statistics().heap_bytes
            assert heap < 4_000_000
            nursery.cancel_scope.cancel()
        return sent

    assert run(main) < 50_000_000


def test_a_cancelled_relay_gives_the_streams_back(run: Run) -> None:
    async def main() -> None:
        left, a = await tcp_pair()
        b, right = await tcp_pair()
        with trio.move_on_after(0.01):
            await trio_backends.relay(a, b)
        await left.send_all(b"to a")
        assert await receive(a, 4) == b"to a"
        await b.send_all(b"from b")
        assert await receive(right, 6) == b"from b"

    run(main)


def test_a_broken_end_breaks_the_relay(run: Run) -> None:
    async def main() -> None:
        [listener] = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
        client = socket.create_connection(listener.name)
        a = await listener.accept()
        b, right = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def broken() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await trio_backends.relay(a, b)

            nursery.start_soon(broken)
            await trio.testing.wait_all_tasks_blocked()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            client.close()
        await right.aclose()

    run(main)


def test_a_relay_delivers_all_that_came_before_the_ends(run: Run) -> None:
    """The reader's own end comes first, and its peer's while most is still unsent."""

    async def main() -> None:
        left, a = await tcp_pair()
        b, right = await tcp_pair()
        payload = bytes(range(251)) * 12_000
        async with trio.open_nursery() as nursery:

            async def relay_and_close() -> None:
                await trio_backends.relay(a, b)
                a.close()
                b.close()

            async def send() -> None:
                await left.send_all(payload)
                await left.send_eof()

            nursery.start_soon(relay_and_close)
            await right.send_eof()
            nursery.start_soon(send)
            await trio.sleep(0.05)
            assert await receive(right, len(payload)) == payload
            assert await right.receive_some() == b""

    run(main)


@pytest.mark.parametrize("which", [0, 1])
def test_closing_a_relayed_stream_ends_the_relay(run: Run, which: int) -> None:
    async def main() -> None:
        _left, a = await tcp_pair()
        b, _right = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def ends() -> None:
                with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                    await trio_backends.relay(a, b)

            nursery.start_soon(ends)
            await trio.testing.wait_all_tasks_blocked()
            (a, b)[which].close()

    run(main)


def test_a_run_may_end_with_bytes_under_way(run: Run) -> None:
    async def main() -> None:
        left, a = await tcp_pair()
        b, _right = await tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio_backends.relay, a, b)
            nursery.start_soon(left.send_all, bytes(20_000_000))
            await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    run(main)


def test_relays_of_one_direction_alone_go_on(run: Run) -> None:
    """Nothing but the sends themselves happens, and their outcome has to be acted upon."""
    size, count = 2_000_000, 12

    def send(sources: list[socket.socket]) -> None:
        for _ in range(size // 100_000):
            for source in sources:
                source.sendall(bytes(100_000))

    def receive_all(targets: list[socket.socket]) -> int:
        left = dict.fromkeys(targets, size)
        with selectors.DefaultSelector() as selector:
            for target in targets:
                selector.register(target, selectors.EVENT_READ)
            while any(left.values()) and (ready := selector.select(timeout=5)):
                for key, _ in ready:
                    left[key.fileobj] -= len(key.fileobj.recv(1 << 20))  # type: ignore[index, union-attr]
        return sum(left.values())

    async def main() -> None:
        [listener] = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
        # The ends are threads': what they do wakes no engine.
        ends = [socket.create_connection(listener.name) for _ in range(2 * count)]
        streams = [await listener.accept() for _ in ends]
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for a, b in zip(streams[:count], streams[count:], strict=True):
                    nursery.start_soon(trio_backends.relay, a, b)
                nursery.start_soon(trio.to_thread.run_sync, send, ends[:count])
                assert await trio.to_thread.run_sync(receive_all, ends[count:]) == 0
                nursery.cancel_scope.cancel()
        for end in (*ends, *streams):
            end.close()

    run(main)

"""relay(): what it returns, what it refuses, and what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.support.running import Run
from tests.trio_backends.test_streams import receive, tcp_pair
from trio_backends import EngineStream, RelayCounts, relay

Four = tuple[EngineStream, EngineStream, EngineStream, EngineStream]


@asynccontextmanager
async def ends() -> AsyncIterator[Four]:
    """Client, the two to relay between, server."""
    client, left = await tcp_pair()
    right, server = await tcp_pair()
    async with client, left, right, server:
        yield client, left, right, server


async def ending(stream: EngineStream) -> int:
    """Receives to the end; how many bytes it was."""
    count = 0
    while data := await stream.receive_some():
        count += len(data)
    return count


def test_the_bytes_of_each_side_are_counted(run: Run) -> None:
    async def main() -> None:
        counts: list[RelayCounts] = []
        async with ends() as (client, left, right, server), trio.open_nursery() as nursery:
            # Received before it begins: taken and put back, and not taken at all.
            await client.send_all(b"early bytes")
            await server.send_all(b"greeting")
            left.put_back(await receive(left, 5))

            async def relaying() -> None:
                counts.append(await relay(left, right))

            nursery.start_soon(relaying)
            assert await receive(server, 11) == b"early bytes"
            assert await receive(client, 8) == b"greeting"
            nursery.start_soon(client.send_all, bytes(3_000_000))
            assert len(await receive(server, 3_000_000)) == 3_000_000
            # One side ends; the other goes on.
            await client.send_eof()
            assert await ending(server) == 0
            await server.send_all(bytes(1_000_000))
            await server.send_eof()
            assert await ending(client) == 1_000_000
        assert counts == [RelayCounts(3_000_011, 1_000_008)]

    run(main)


def test_a_second_relay_counts_afresh(run: Run) -> None:
    async def main() -> None:
        async with ends() as (client, left, right, server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay, left, right)
                await client.send_all(b"first")
                assert await receive(server, 5) == b"first"
                nursery.cancel_scope.cancel()
            await client.send_all(b"second")
            await client.send_eof()
            await server.send_eof()
            assert await relay(right, left) == RelayCounts(0, 6)
            assert await receive(server, 6) == b"second"

    run(main)


def test_streams_that_have_ended_already(run: Run) -> None:
    async def main() -> None:
        async with ends() as (client, left, right, server):
            await client.send_all(b"all there is")
            await client.send_eof()
            await server.send_eof()
            assert await receive(left, 3) == b"all"
            left.put_back(b"all")
            assert await right.receive_some() == b""
            assert await relay(left, right) == RelayCounts(12, 0)
            assert await receive(server, 12) == b"all there is"
            assert await server.receive_some() == b""

    run(main)


def test_a_stream_in_use_is_refused(run: Run) -> None:
    async def main() -> None:
        async with ends() as (client, left, right, server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(right.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await relay(left, right)
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay, left, right)
                await trio.testing.wait_all_tasks_blocked()
                for use in (left.receive_some, right.send_eof, lambda: right.send_all(b"x")):
                    with pytest.raises(trio.BusyResourceError):
                        await use()
                with pytest.raises(trio.BusyResourceError):
                    await relay(left, server)
                with pytest.raises(trio.BusyResourceError):
                    await relay(client, right)
                # Which disturbed nothing.
                await client.send_all(b"still there")
                assert await receive(server, 11) == b"still there"
                nursery.cancel_scope.cancel()
            await right.send_all(b"free again")
            assert await receive(server, 10) == b"free again"

    run(main)


def test_a_stream_is_not_relayed_to_itself(run: Run) -> None:
    async def main() -> None:
        async with ends() as (_, left, _right, _server):
            with pytest.raises(ValueError, match="itself"):
                await relay(left, left)

    run(main)


def test_closed_streams_are_said_to_be_closed(run: Run) -> None:
    async def main() -> None:
        for which in range(2):
            async with ends() as (_, left, right, _server):
                async with trio.open_nursery() as nursery:

                    async def closed(left: EngineStream, right: EngineStream) -> None:
                        with pytest.raises(trio.ClosedResourceError):
                            await relay(left, right)

                    nursery.start_soon(closed, left, right)
                    await trio.testing.wait_all_tasks_blocked()
                    (left, right)[which].close()
                with pytest.raises(trio.ClosedResourceError):
                    await relay(left, right)

    run(main)


def test_a_relay_is_a_checkpoint(run: Run) -> None:
    async def main() -> None:
        async with ends() as (client, left, right, server):
            with trio.CancelScope() as scope:
                scope.cancel()
                await relay(left, right)
            assert scope.cancelled_caught
            await client.send_eof()
            await server.send_eof()
            with trio.testing.assert_checkpoints():
                await relay(left, right)

    run(main)

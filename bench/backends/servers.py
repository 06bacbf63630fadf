"""The programs that are measured: ``python -m bench.backends.servers LOOP STREAMS WORKLOAD``.

Each prints the port that it listens on and serves until its standard input ends. *WORKLOAD* is
``echo``, ``accept`` (a byte, then close), ``proxy:PORT`` (to that port, by two tasks a connection)
or ``relay:PORT`` (the same by ``trio_backends.relay``).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

import trio_backends
from bench.backends.stacks import Stack

CHUNK = 65536  # bytes of one receive
BACKLOG = 1024

Handler = Callable[[Any], Awaitable[None]]


# -- Trio ---------------------------------------------------------------------------------


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async with stream:
        while data := await stream.receive_some(CHUNK):
            await stream.send_all(data)


async def greet(stream: trio.abc.HalfCloseableStream) -> None:
    async with stream:
        await stream.send_all(b"!")


async def _pump(source: trio.abc.Stream, sink: trio.abc.HalfCloseableStream) -> None:
    while data := await source.receive_some(CHUNK):
        await sink.send_all(data)
    await sink.send_eof()


async def proxy_by_tasks(connect: Callable[[], Awaitable[Any]], left: Any) -> None:
    async with left, await connect() as right, trio.open_nursery() as nursery:
        nursery.start_soon(_pump, left, right)
        nursery.start_soon(_pump, right, left)


async def proxy_by_relay(connect: Callable[[], Awaitable[Any]], left: Any) -> None:
    async with left, await connect() as right:
        await trio_backends.relay(left, right)


def trio_handler(workload: str, streams: str) -> Handler:
    kind, _, port = workload.partition(":")
    if kind == "echo":
        return echo
    if kind == "accept":
        return greet
    module: Any = trio_backends if streams == "engine" else trio
    connect = partial(module.open_tcp_stream, "127.0.0.1", int(port))
    return partial(proxy_by_relay if kind == "relay" else proxy_by_tasks, connect)


async def forgiving(handler: Handler, stream: Any) -> None:
    """Of a client that went away."""
    try:
        await handler(stream)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def trio_main(streams: str, workload: str) -> None:
    module: Any = trio_backends if streams == "engine" else trio
    listeners = await module.open_tcp_listeners(0, host="127.0.0.1", backlog=BACKLOG)
    address = listeners[0].name if streams == "engine" else listeners[0].socket.getsockname()
    print(address[1], flush=True)
    handler = partial(forgiving, trio_handler(workload, streams))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


# -- asyncio, for reference ---------------------------------------------------------------


async def asyncio_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()


async def asyncio_greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"!")
    writer.close()


class EchoProtocol(asyncio.Protocol):
    def __init__(self, greets: bool) -> None:
        self._greets = greets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        if self._greets:
            self._transport.write(b"!")
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def asyncio_main(streams: str, workload: str) -> None:
    if streams == "protocol":
        factory = partial(EchoProtocol, workload == "accept")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, "127.0.0.1", 0, backlog=BACKLOG)
    else:
        handler = asyncio_greet if workload == "accept" else asyncio_echo
        server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


# -- either -------------------------------------------------------------------------------


def run(stack: Stack, main: Callable[..., Any], *args: Any) -> None:
    """Runs an async function on the stack's event loop."""
    if stack.loop == "stock":
        trio.run(main, *args)
    elif stack.is_trio:
        trio_backends.run(main, *args, backend=stack.loop)
    elif stack.loop == "uvloop":
        import uvloop

        uvloop.run(main(*args))
    else:
        asyncio.run(main(*args))


if __name__ == "__main__":
    the_stack = Stack(sys.argv[1], sys.argv[2])
    run(the_stack, trio_main if the_stack.is_trio else asyncio_main, sys.argv[2], sys.argv[3])

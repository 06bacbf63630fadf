"""Streams and listeners under Trio's own names: parameters, options, TLS, serving."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing
import trustme

import trio_backends
from tests.support.running import Run
from trio_backends import EngineListener, EngineStream

NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(data)


async def start_echo(nursery: trio.Nursery) -> EngineListener:
    serve = partial(trio_backends.serve_tcp, echo, 0, host="127.0.0.1")
    [listener] = await nursery.start(serve)
    assert isinstance(listener, EngineListener)
    return listener


async def exchange(stream: trio.abc.Stream, data: bytes) -> bytes:
    """Sends all and receives as much."""
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        while len(got) < len(data):
            piece = await stream.receive_some()
            assert piece, "the stream ended"
            got += piece
    return bytes(got)


def test_serve_tcp_tells_its_listeners_and_runs_handlers_where_it_is_told(run: Run) -> None:
    async def main() -> None:
        async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:
            serve = partial(
                trio_backends.serve_tcp,
                echo,
                0,
                host="127.0.0.1",
                backlog=5,
                handler_nursery=handlers,
            )
            [listener] = await nursery.start(serve)
            stream = await trio_backends.open_tcp_stream("127.0.0.1", listener.name[1])
            async with stream:
                assert await exchange(stream, b"hello") == b"hello"
                assert len(handlers.child_tasks) == 1
            nursery.cancel_scope.cancel()

    run(main)


def test_the_local_address_may_be_given(run: Run) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listener = await start_echo(nursery)
            stream = await trio_backends.open_tcp_stream(
                "127.0.0.1",
                listener.name[1],
                local_address="127.0.0.7",
                happy_eyeballs_delay=None,
            )
            async with stream:
                assert stream.getsockname()[0] == "127.0.0.7"
            nursery.cancel_scope.cancel()

    run(main)


def test_what_cannot_be_connected_to_is_an_error(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio_backends.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(FileNotFoundError):
            await trio_backends.open_unix_socket(tmp_path / "nobody")

    run(main)


def test_unix_sockets_by_path(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        listener = await trio_backends.open_unix_listener(tmp_path / "socket", mode=0o600)
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [listener])
            async with await trio_backends.open_unix_socket(tmp_path / "socket") as stream:
                assert await exchange(stream, bytes(100_000)) == bytes(100_000)
            nursery.cancel_scope.cancel()

    run(main)


def test_socket_options_of_streams_and_listeners(run: Run) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listener = await start_echo(nursery)
            assert listener.getsockopt(*NODELAY)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert listener.socket.getsockname() == listener.name
            stream = await trio_backends.open_tcp_stream(*listener.name)
            async with stream:
                assert stream.getsockopt(*NODELAY)
                stream.setsockopt(*NODELAY, 0)
                assert not stream.getsockopt(*NODELAY)
                assert stream.getsockopt(*NODELAY, 4) == bytes(4)
                view = stream.socket
                assert (view.family, view.type) == (socket.AF_INET, socket.SOCK_STREAM)
                assert view.getpeername() == stream.getpeername() == listener.name
                assert view.getsockname() == stream.getsockname()
                with pytest.raises(OSError, match="not available"):
                    stream.setsockopt(socket.IPPROTO_TCP, 9999, 1)
                assert await exchange(stream, b"still there") == b"still there"
            with pytest.raises(trio.ClosedResourceError):
                stream.getsockopt(*NODELAY)
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.ClosedResourceError):
            listener.getsockopt(*NODELAY)

    run(main)


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server called localhost, and for its clients."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls_over_the_engines_streams(
    run: Run, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server, client = contexts
    data = bytes(range(256)) * 16_384  # 4 MB

    async def main() -> None:
        listeners = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
        encrypted = [trio.SSLListener(listener, server) for listener in listeners]

        async def echo_tls(stream: trio.SSLStream[EngineStream]) -> None:
            while piece := await stream.receive_some():
                await stream.send_all(piece)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo_tls, encrypted)
            transport = await trio_backends.open_tcp_stream(*listeners[0].name)
            stream = trio.SSLStream(transport, client, server_hostname="localhost")
            assert await exchange(stream, data) == data
            await stream.aclose()
            nursery.cancel_scope.cancel()

    run(main)


def test_everywhere_gives_a_program_the_engines_streams(run: Run, tmp_path: Path) -> None:
    before = [trio.open_tcp_stream, trio.open_unix_socket, trio.open_tcp_listeners, trio.serve_tcp]

    async def greet(stream: trio.SocketStream) -> None:
        assert isinstance(stream, EngineStream)
        assert isinstance(stream, trio.SocketStream)
        await stream.send_all(b"hello you")
        await echo(stream)

    async def receive_as_far_as(stream: EngineStream, words: bytes) -> None:
        assert await stream.receive_some(len(words)) == words
        assert stream.socket.is_readable()
        assert await stream.receive_some() == b"you"

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
            assert isinstance(listener, EngineListener)
            assert isinstance(listener, trio.SocketListener)
            stream = await trio.open_tcp_stream(*listener.socket.getsockname())
            assert isinstance(stream, EngineStream)
            assert isinstance(stream, trio.SocketStream)
            async with stream:
                await receive_as_far_as(stream, b"hello ")
                assert not stream.socket.is_readable()
                assert await exchange(stream, b"tcp") == b"tcp"
                await stream.send_eof()
                assert await stream.receive_some() == b""
                assert stream.socket.is_readable()
            # Ours are what they are.
            ours = await trio_backends.open_tcp_stream(*listener.name)
            assert not isinstance(ours, trio.SocketStream)
            async with ours:
                assert await ours.receive_some() == b"hello you"
            unix = await trio_backends.open_unix_listener(tmp_path / "socket")
            nursery.start_soon(trio.serve_listeners, echo, [unix])
            stream = await trio.open_unix_socket(str(tmp_path / "socket"))
            assert isinstance(stream, EngineStream)
            async with stream:
                assert await exchange(stream, b"unix") == b"unix"
            nursery.cancel_scope.cancel()

    with trio_backends.everywhere():
        with trio_backends.everywhere():
            run(program)
        (tmp_path / "socket").unlink()
        run(program)  # the inner one's end is not the outer one's
    assert before == [
        trio.open_tcp_stream,
        trio.open_unix_socket,
        trio.open_tcp_listeners,
        trio.serve_tcp,
    ]


def test_everywhere_reaches_what_trio_builds_upon_its_functions(
    run: Run, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server, client = contexts

    async def main() -> None:
        listeners = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1")
        engines = listeners[0].transport_listener
        assert isinstance(engines, EngineListener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, listeners)
            stream = await trio.open_ssl_over_tcp_stream(
                "localhost", engines.name[1], ssl_context=client
            )
            assert isinstance(stream.transport_stream, EngineStream)
            assert await exchange(stream, b"x" * 100_000) == b"x" * 100_000
            await stream.aclose()
            nursery.cancel_scope.cancel()

    with trio_backends.everywhere():
        run(main)


def test_everywhere_leaves_stock_runs_alone() -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        assert isinstance(listeners[0], trio.SocketListener)
        client = await trio.testing.open_stream_to_socket_listener(listeners[0])
        assert isinstance(client, trio.SocketStream)
        await client.aclose()
        await listeners[0].aclose()

    with trio_backends.everywhere():
        trio.run(main)

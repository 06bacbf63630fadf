"""Opening streams and listeners on the engine, under Trio's own names and with its parameters.

Names are resolved, connections tried and sockets bound by Trio itself; the sockets are then handed
to the engine.
"""

from __future__ import annotations

import os
import socket as stdlib_socket
from collections.abc import Awaitable, Callable

import trio

from ._install import current_manager
from ._streams import DEFAULT_HIGH_WATER, EngineListener, EngineStream

# Trio's, whatever stands under these names later: everywhere() puts ours there.
trios_open_tcp_stream = trio.open_tcp_stream
trios_open_unix_socket = trio.open_unix_socket
trios_open_tcp_listeners = trio.open_tcp_listeners

_HAPPY_EYEBALLS_DELAY = 0.25  # seconds: Trio's default, of RFC 8305


async def open_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    happy_eyeballs_delay: float | None = _HAPPY_EYEBALLS_DELAY,
    local_address: str | None = None,
    high_water: int = DEFAULT_HIGH_WATER,
) -> EngineStream:
    """As ``trio.open_tcp_stream``, on the engine.

    Args:
        high_water: above so many bytes that were received and not taken, receiving stops.

    Raises:
        OSError: no address of the host could be connected to.
        RuntimeError: this run is not on one of our backends.
    """
    current_manager()
    stream = await trios_open_tcp_stream(
        host, port, happy_eyeballs_delay=happy_eyeballs_delay, local_address=local_address
    )
    return EngineStream.adopt(stream.socket, high_water=high_water)


async def open_unix_socket(
    filename: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    high_water: int = DEFAULT_HIGH_WATER,
) -> EngineStream:
    """As ``trio.open_unix_socket``, on the engine.

    Raises:
        OSError: it cannot be connected to.
        RuntimeError: this run is not on one of our backends.
    """
    current_manager()
    stream = await trios_open_unix_socket(filename)
    return EngineStream.adopt(stream.socket, high_water=high_water)


async def open_tcp_listeners(
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    high_water: int = DEFAULT_HIGH_WATER,
    until_data: bool = False,
) -> list[EngineListener]:
    """As ``trio.open_tcp_listeners``: one for each address of ``host``, on the engine.

    Connections have ``TCP_NODELAY`` set, as ``trio.SocketStream`` sets it.

    Args:
        high_water: of the connections; see :func:`open_tcp_stream`.
        until_data: see :class:`EngineListener`.

    Raises:
        OSError: it cannot be listened there.
        RuntimeError: this run is not on one of our backends.
    """
    current_manager()
    listeners = await trios_open_tcp_listeners(port, host=host, backlog=backlog)
    for listener in listeners:
        listener.socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
    return [
        EngineListener(listener.socket, high_water=high_water, until_data=until_data)
        for listener in listeners
    ]


async def serve_tcp(
    handler: Callable[[EngineStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[list[EngineListener]] = trio.TASK_STATUS_IGNORED,
    high_water: int = DEFAULT_HIGH_WATER,
) -> None:
    """As ``trio.serve_tcp``, on the engine: a task ``handler(stream)`` for each connection.

    Returns only when cancelled. Raises: as :func:`open_tcp_listeners`.
    """
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog, high_water=high_water)
    await trio.serve_listeners(
        handler, listeners, handler_nursery=handler_nursery, task_status=task_status
    )


async def open_unix_listener(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    mode: int | None = None,
    backlog: int = 1024,
    high_water: int = DEFAULT_HIGH_WATER,
    until_data: bool = False,
) -> EngineListener:
    """Listens on a Unix socket at ``path``, which must not exist; its permissions may be given.

    Raises:
        OSError: it cannot be listened there.
        RuntimeError: this run is not on one of our backends.
    """
    current_manager()
    sock = trio.socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        await sock.bind(os.fspath(path))
        if mode is not None:
            os.chmod(path, mode)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return EngineListener(sock, high_water=high_water, until_data=until_data)

"""Existing programs on the engine's streams, without a change.

While :func:`everywhere` is on, three functions of the ``trio`` package are ours:
``open_tcp_stream``, ``open_unix_socket`` and ``open_tcp_listeners``. So whatever is built upon them
goes by the engine too: ``trio.serve_tcp``, ``trio.open_ssl_over_tcp_stream``,
``trio.serve_ssl_over_tcp``, httpcore and with it httpx. In a run that is not on one of our backends
they do what Trio's do.

What they make passes for a ``trio.SocketStream`` or a ``trio.SocketListener`` where a program asks
with isinstance() (httpcore does), as mock objects do. ``type()`` tells the truth.

Trio's public hook, ``trio.socket.set_custom_socket_factory``, would reach further: sockets instead
of streams. But a socket promises more than completion can keep (``recv_into``, ``MSG_PEEK``,
reading by hand after ``wait_readable``); with every socket replaced, Trio's own tests of sockets
hang. So sockets stay what they are, and what cannot be covered is this:

- programs that use ``trio.socket``, or make a ``trio.SocketStream`` or ``trio.SocketListener`` of
  a socket themselves: anyio does, and hypercorn. They run as before, on Trio's sockets;
- modules that said ``from trio import open_tcp_stream`` before: they hold Trio's function;
- code that sends or receives by ``stream.socket``: it has names, options and ``is_readable()``
  only, and such code fails with AttributeError.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ._install import current_manager
from ._open import trios_open_tcp_listeners, trios_open_tcp_stream, trios_open_unix_socket
from ._streams import EngineListener, EngineStream


class _SocketLikeStream(EngineStream):
    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return trio.SocketStream


class _SocketLikeListener(EngineListener):
    stream_type = _SocketLikeStream

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return trio.SocketListener


def _stream(made: trio.SocketStream) -> EngineStream:
    return _SocketLikeStream.adopt(made.socket)


def _listeners(made: list[trio.SocketListener]) -> list[EngineListener]:
    for listener in made:  # connections inherit what trio.SocketStream would set
        listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return [_SocketLikeListener(listener.socket) for listener in made]


def _handing_over(
    trios: Callable[..., Awaitable[Any]], hand_over: Callable[[Any], object]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(trios)
    async def function(*args: Any, **options: Any) -> Any:
        made = await trios(*args, **options)
        try:
            current_manager()
        except RuntimeError:
            return made
        return hand_over(made)

    return function


_OURS: dict[str, Callable[..., Awaitable[Any]]] = {
    "open_tcp_stream": _handing_over(trios_open_tcp_stream, _stream),
    "open_unix_socket": _handing_over(trios_open_unix_socket, _stream),
    "open_tcp_listeners": _handing_over(trios_open_tcp_listeners, _listeners),
}


@contextmanager
def everywhere() -> Iterator[None]:
    """While on, ``trio.open_tcp_stream`` and its kin make the engine's streams and listeners.

    It holds for the process: enter it once, around the program. It may be nested. See the
    documentation for what it does not reach.
    """
    before = {name: getattr(trio, name) for name in _OURS}
    for name, function in _OURS.items():
        setattr(trio, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(trio, name, function)

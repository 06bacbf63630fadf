"""Existing programs on the engine's streams, without a change.

While :func:`everywhere` is on, four functions of the ``trio`` package are ours:
``open_tcp_stream``, ``open_unix_socket``, ``open_tcp_listeners`` and ``serve_tcp``. So whatever is
built upon them goes by the engine too: ``trio.open_ssl_over_tcp_stream``,
``trio.serve_ssl_over_tcp``, httpcore and httpx. In a run that is not on one of our backends they do
what Trio's do.

Trio's public hook, ``trio.socket.set_custom_socket_factory``, would reach further: sockets instead
of streams. But a socket promises more than completion can keep (``recv_into``, ``MSG_PEEK``,
reading by hand after ``wait_readable``); with every socket replaced, Trio's own tests of sockets
hang. So sockets stay what they are, and what cannot be covered is this:

- programs that use ``trio.socket``, ``trio.SocketStream`` or ``trio.SocketListener`` themselves:
  anyio does, and hypercorn for its listeners. They run as before, on Trio's sockets;
- modules that said ``from trio import open_tcp_stream`` before: they hold Trio's function;
- code that asks whether a stream is a ``trio.SocketStream``: it is an ``EngineStream``. Its
  ``socket`` has names and options, no ``send`` or ``recv``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from . import _open
from ._install import current_manager

_NAMES = ("open_tcp_stream", "open_unix_socket", "open_tcp_listeners", "serve_tcp")
_TRIOS: dict[str, Callable[..., Any]] = {name: getattr(trio, name) for name in _NAMES}


def _either(name: str) -> Callable[..., Any]:
    ours, trios = getattr(_open, name), _TRIOS[name]

    @functools.wraps(trios)
    async def function(*args: Any, **options: Any) -> Any:
        try:
            current_manager()
        except RuntimeError:
            return await trios(*args, **options)
        return await ours(*args, **options)

    return function


_OURS = {name: _either(name) for name in _NAMES}


@contextmanager
def everywhere() -> Iterator[None]:
    """While on, ``trio.open_tcp_stream`` and its kin make the engine's streams and listeners.

    It holds for the process: enter it once, around the program. It may be nested. See the
    documentation for what it does not reach.
    """
    before = {name: getattr(trio, name) for name in _NAMES}
    for name, function in _OURS.items():
        setattr(trio, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(trio, name, function)

"""The names and options of a socket whose bytes are the engine's."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class SocketView:
    """What ``stream.socket`` is used for besides its bytes, with the names of ``socket.socket``.

    Good as long as the stream is open: it keeps the descriptor's number, not the descriptor. Every
    method raises OSError.

    Args:
        fd: the socket's descriptor.
        received: how many bytes the engine has received and nobody has taken.
    """

    __slots__ = ("_fd", "_received")

    def __init__(self, fd: int, received: Callable[[], int] = int) -> None:
        self._fd = fd
        self._received = received

    @contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        # A socket object finds out the family and the form of addresses; it must not close ours.
        sock = socket.socket(fileno=self._fd)
        try:
            yield sock
        finally:
            sock.detach()

    @property
    def family(self) -> socket.AddressFamily:
        with self._socket() as sock:
            return sock.family

    @property
    def type(self) -> socket.SocketKind:
        with self._socket() as sock:
            return sock.type

    @property
    def proto(self) -> int:
        with self._socket() as sock:
            return sock.proto

    def fileno(self) -> int:
        return self._fd

    def is_readable(self) -> bool:
        """Whether there are bytes to be received, or the end; as Trio's sockets say it."""
        if self._received():
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def getsockname(self) -> Any:
        with self._socket() as sock:
            return sock.getsockname()

    def getpeername(self) -> Any:
        with self._socket() as sock:
            return sock.getpeername()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        with self._socket() as sock:
            sock.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        with self._socket() as sock:
            if buffersize:
                return sock.getsockopt(level, option, buffersize)
            return sock.getsockopt(level, option)

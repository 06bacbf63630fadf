"""The generator of load: a closed loop of plain non-blocking sockets in the process that measures.

It costs a few microseconds a message and runs beside the server on another CPU, so that what is
measured, the CPU time of the server, is not its own.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["connections", "connects", "echoes"]

PATIENCE = 10.0  # seconds for anything to come back


@contextmanager
def connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has had one byte back: the server has them all."""
    sockets = []
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(sock)
        for sock in sockets:
            sock.sendall(b"?")
        for sock in sockets:
            if sock.recv(1) != b"?":
                raise ConnectionError("the server did not answer")
            sock.setblocking(False)
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def echoes(sockets: list[socket.socket], size: int, seconds: float) -> int:
    """Keeps one message of *size* bytes under way on each; how many came back whole."""
    message = bytes(size)
    by_number = {sock.fileno(): sock for sock in sockets}
    missing = dict.fromkeys(by_number, size)
    unsent = dict.fromkeys(by_number, b"")
    poll = select.epoll()
    for sock in sockets:
        poll.register(sock, select.EPOLLIN)
        _send(poll, sock, message, unsent)
    whole, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        events = poll.poll(PATIENCE)
        if not events:
            raise TimeoutError(f"nothing came back for {PATIENCE:.0f} s")
        for number, event in events:
            sock = by_number[number]
            if event & select.EPOLLOUT:
                _send(poll, sock, unsent[number], unsent)
            if not event & ~select.EPOLLOUT:
                continue
            data = sock.recv(missing[number])
            if not data:
                raise ConnectionError("the server closed a connection")
            missing[number] -= len(data)
            if not missing[number]:
                whole += 1
                missing[number] = size
                _send(poll, sock, message, unsent)
    poll.close()
    _drain(sockets, missing, unsent)
    return whole


def _send(poll: select.epoll, sock: socket.socket, data: bytes, unsent: dict[int, bytes]) -> None:
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    before, unsent[sock.fileno()] = unsent[sock.fileno()], data[sent:]
    if bool(before) != (sent < len(data)):
        poll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if sent < len(data) else 0))


def _drain(sockets: list[socket.socket], missing: dict[int, int], unsent: dict[int, bytes]) -> None:
    """What is under way comes home, so that the next round begins with nothing."""
    for sock in sockets:
        sock.settimeout(PATIENCE)
        sock.sendall(unsent[sock.fileno()])
        left = missing[sock.fileno()]
        while left:
            data = sock.recv(left)
            if not data:
                raise ConnectionError("the server closed a connection")
            left -= len(data)
        sock.setblocking(False)


def connects(port: int, seconds: float) -> int:
    """Connects, hears a byte and the end, one after the other; how often."""
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            while sock.recv(16):
                pass
        count += 1
    return count

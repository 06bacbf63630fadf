"""Many clients that have logged in and do nothing, and what they cost a pooler.

The clients live in a process of their own, ``python -m bench.idle HOST PORT COUNT``: it logs them
in, prints how many there are, and keeps them until its standard input ends.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Idle
from bench.peers import BenchFailed, Peer, spawned
from bench.proc import CpuMeter, memory

__all__ = ["login", "measure", "possible", "raise_descriptor_limit"]

AT_ONCE = 64  # logins under way
SPARE_DESCRIPTORS = 400  # of the pooler, beside those of its idle clients
WARM_UP = 20  # logins before the first look at the memory: code and tables are there then
LOGIN_TIMEOUT = 120.0  # seconds for all of them
REST = 1.0  # seconds before the memory is looked at

PROTOCOL_3_0 = 196608  # Message Formats: StartupMessage
READY = b"Z\0\0\0\5I"  # ReadyForQuery, outside a transaction; the last message of a login


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one, for our children too; returns it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def possible(wanted: int, limit: int) -> int:
    """How many of *wanted* idle clients a process with this *limit* of open files can have."""
    return max(min(wanted, limit - SPARE_DESCRIPTORS), 0)


def measure(peer: Peer, count: int, directory: Path) -> Idle:
    """Opens *count* idle clients at *peer*, which is best a fresh one, and closes them again.

    Raises BenchFailed where they could not all log in.
    """
    assert peer.pid is not None
    with _clients(peer, WARM_UP, directory):
        pass
    time.sleep(REST)
    meter = CpuMeter(peer.pid)
    before, used = memory(peer.pid), meter.nanoseconds()
    with _clients(peer, count, directory):
        time.sleep(REST)
        after, used = memory(peer.pid), meter.nanoseconds() - used
    return Idle(count, before, after, used / 1e3 / count)


@contextlib.contextmanager
def _clients(peer: Peer, count: int, directory: Path) -> Iterator[None]:
    """That many idle clients, for the time of the with block."""
    output = directory / "idle.log"
    command = [sys.executable, "-m", "bench.idle", peer.host, str(peer.port), str(count)]
    pipe = subprocess.PIPE
    with spawned(command, output=output, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"%d\n" % count:
            said = output.read_text(errors="replace").strip().splitlines()[-1:]
            raise BenchFailed(f"idle clients of {peer.name}: {' '.join(said)}")
        yield


def login(host: str, port: int, count: int) -> list[socket.socket]:
    """*count* connections logged in as ``postgres``, who is asked for no password.

    Raises BenchFailed if one is refused, or if all take longer than LOGIN_TIMEOUT.
    """
    logins = _Logins(host, port)
    deadline = time.monotonic() + LOGIN_TIMEOUT
    while len(logins.done) < count:
        while len(logins.under_way) < AT_ONCE and logins.begun < count:
            logins.begin()
        logins.go_on()
        if time.monotonic() > deadline:
            raise BenchFailed(f"{len(logins.done)} of {count} logins in {LOGIN_TIMEOUT:.0f} s")
    return logins.done


class _Logins:
    """Non-blocking logins, some at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.begun = 0
        self.under_way: dict[int, tuple[socket.socket, bytearray]] = {}
        self.done: list[socket.socket] = []
        self._address = (host, port)
        self._epoll = select.epoll()

    def begin(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        error = connection.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            raise BenchFailed(f"connect: {errno.errorcode[error]}")
        self.begun += 1
        self.under_way[connection.fileno()] = (connection, bytearray())
        self._epoll.register(connection, select.EPOLLOUT)

    def go_on(self) -> None:
        """Waits until something can be done, and does it."""
        for fd, events in self._epoll.poll(1.0):
            connection, received = self.under_way[fd]
            try:
                if events & select.EPOLLOUT:
                    # A few dozen bytes always fit into the empty buffer of a new connection.
                    connection.send(_startup())
                    self._epoll.modify(fd, select.EPOLLIN)
                else:
                    self._receive(connection, received)
            except OSError as error:
                raise BenchFailed(f"login {len(self.done)}: {error}") from None

    def _receive(self, connection: socket.socket, received: bytearray) -> None:
        data = connection.recv(4096)
        received += data
        if received.endswith(READY):
            self._epoll.unregister(connection)
            del self.under_way[connection.fileno()]
            self.done.append(connection)
        elif not data or received.startswith(b"E"):
            said = bytes(received).replace(b"\0", b" ").decode(errors="replace")
            raise BenchFailed(f"login {len(self.done)} was refused: {said or 'closed'}")


def _startup() -> bytes:
    body = struct.pack(">I", PROTOCOL_3_0) + b"user\0postgres\0database\0postgres\0\0"
    return struct.pack(">I", len(body) + 4) + body


def _main() -> None:
    host, port, count = sys.argv[1:]
    raise_descriptor_limit()
    try:
        connections = login(host, int(port), int(count))
    except BenchFailed as error:
        sys.exit(str(error))
    print(len(connections), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()

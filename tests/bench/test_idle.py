"""Idle clients: the login that they speak, and how many there can be."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from bench.idle import SPARE_DESCRIPTORS, login, possible
from bench.peers import BenchFailed

AUTHENTICATION_OK = b"R" + struct.pack(">II", 8, 0)
PARAMETER = b"S" + struct.pack(">I", 10) + b"Z\0\0I\0\0"
READY = b"Z" + struct.pack(">I", 5) + b"I"


@contextlib.contextmanager
def a_server(*replies: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Answers each login with *replies*, apart; gives its port, and what clients have sent."""
    received: list[bytes] = []
    held = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _address = listener.accept()
                    received.append(connection.recv(1024))
                    for reply in replies:
                        connection.sendall(reply)
                    held.append(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], received
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def test_logins() -> None:
    with a_server(AUTHENTICATION_OK, PARAMETER, READY) as (port, received):
        connections = login("127.0.0.1", port, 100)
        assert len(connections) == 100
        for connection in connections:
            connection.close()
    body = b"\0\3\0\0user\0postgres\0database\0postgres\0\0"
    assert received == [struct.pack(">I", len(body) + 4) + body] * 100


def test_a_refusal_is_told() -> None:
    text = b"SFATAL\0C53300\0Mtoo many clients\0\0"
    refusal = b"E" + struct.pack(">I", len(text) + 4) + text
    with a_server(refusal) as (port, _received):
        with pytest.raises(BenchFailed, match="too many clients"):
            login("127.0.0.1", port, 1)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BenchFailed, match="refused"):
        login("127.0.0.1", port, 1)


@pytest.mark.parametrize(
    ("wanted", "limit", "expected"),
    [
        (10_000, 20_000, 10_000),
        (10_000, 10_000, 10_000 - SPARE_DESCRIPTORS),
        (10_000, 100, 0),
    ],
)
def test_how_many_the_limit_of_open_files_allows(wanted: int, limit: int, expected: int) -> None:
    assert possible(wanted, limit) == expected

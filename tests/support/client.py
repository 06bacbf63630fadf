"""A client that speaks the protocol itself: for what no driver does, and to see every byte.

Blocking; every wait is bounded. Written apart from ``pooler.wire``, whose users it tests.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple, Self

TIMEOUT = 20.0  # seconds until a pooler that says nothing has failed
PROTOCOL_3_0 = 196608
PROTOCOL_3_2 = 196610
TYPES = frozenset(b"123ACDEGHIKNRSTVWZcdnstv")  # "Message Formats", of the backend


class Message(NamedTuple):
    kind: str
    body: bytes


class Result(NamedTuple):
    """What came until ReadyForQuery: rows as texts, the errors' fields, the transaction status."""

    rows: list[tuple[str | None, ...]]
    errors: list[dict[str, str]]
    status: str

    @property
    def value(self) -> str | None:
        """The one value of the one row."""
        assert not self.errors, self.errors
        assert len(self.rows) == 1 and len(self.rows[0]) == 1, self.rows
        return self.rows[0][0]


class Ended(Exception):
    """The connection ended where a message was awaited; ``rest``: part of one that had come."""

    def __init__(self, rest: bytes = b"") -> None:
        super().__init__(rest)
        self.rest = rest


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def query(sql: str) -> bytes:
    return message("Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    return message("P", f"{name}\0{sql}\0".encode() + bytes(2))


def bind(*values: bytes, statement: str = "", portal: str = "") -> bytes:
    """Values as text."""
    texts = b"".join(struct.pack("!I", len(value)) + value for value in values)
    head = f"{portal}\0{statement}\0".encode() + struct.pack("!HH", 0, len(values))
    return message("B", head + texts + struct.pack("!H", 0))


def execute(portal: str = "") -> bytes:
    return message("E", portal.encode() + b"\0" + bytes(4))


def copy_data(data: bytes) -> bytes:
    return message("d", data)


COPY_DONE = message("c")
SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")


def startup(
    database: str = "postgres",
    user: str = "postgres",
    *,
    version: int = PROTOCOL_3_0,
    **parameters: str,
) -> bytes:
    pairs = {"user": user, "database": database, **parameters}
    body = struct.pack("!I", version)
    body += b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def cancel_packet(process_id: int, secret: bytes) -> bytes:
    return struct.pack("!III", 12 + len(secret), 80877102, process_id) + secret


def fields(body: bytes) -> dict[str, str]:
    """Of an ErrorResponse or NoticeResponse: letter to text; ``C`` is the SQLSTATE."""
    assert body.endswith(b"\0\0"), body
    return {part[0]: part[1:] for part in body[:-2].decode().split("\0")}


def _row(body: bytes) -> tuple[str | None, ...]:
    (count,) = struct.unpack_from("!H", body)
    at, values = 2, list[str | None]()
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if length < 0 else body[at : at + length].decode())
        at += max(length, 0)
    assert at == len(body), "a row with something behind it"
    return tuple(values)


class Client:
    """One connection to 127.0.0.1. A context manager that closes."""

    def __init__(self, port: int, *, timeout: float = TIMEOUT) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self.parameters: dict[str, str] = {}
        self.key = (0, b"")

    @classmethod
    def log_in(
        cls,
        port: int,
        database: str = "postgres",
        user: str = "postgres",
        *,
        version: int = PROTOCOL_3_0,
        **parameters: str,
    ) -> Self:
        """A client that was let in without being asked for a password."""
        client = cls(port)
        try:
            client.send(startup(database, user, version=version, **parameters))
            result = client.result()
            assert not result.errors, result.errors
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- sending ----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def query(self, sql: str) -> Result:
        self.send(query(sql))
        return self.result()

    def extended(self, sql: str, *values: bytes) -> Result:
        self.send(parse(sql) + bind(*values) + execute() + SYNC)
        return self.result()

    # -- receiving --------------------------------------------------------------------

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = self.socket.recv(1 << 18)
            if not data:
                raise Ended(bytes(self._buffer))
            self._buffer += data

    def message(self) -> Message:
        """The next one. Ended: there is none; AssertionError: what came is none."""
        try:
            self._fill(5)
            kind, length = self._buffer[0], int.from_bytes(self._buffer[1:5], "big")
            assert kind in TYPES and 4 <= length < 1 << 30, f"no message: {self._buffer[:80]!r}"
            self._fill(1 + length)
        except ConnectionResetError:
            raise Ended(bytes(self._buffer)) from None
        body = bytes(self._buffer[5 : 1 + length])
        del self._buffer[: 1 + length]
        return Message(chr(kind), body)

    def result(self) -> Result:
        """Everything up to the next ReadyForQuery."""
        rows, errors = [], []
        while True:
            kind, body = self.message()
            if kind == "D":
                rows.append(_row(body))
            elif kind == "E":
                errors.append(fields(body))
            elif kind == "S":
                name, value = body[:-1].decode().split("\0")
                self.parameters[name] = value
            elif kind == "K":
                self.key = (int.from_bytes(body[:4], "big"), body[4:])
            elif kind == "Z":
                return Result(rows, errors, body.decode())

    def until_end(self) -> list[Message]:
        """All messages until the pooler closes; that must be between two of them."""
        messages = []
        while True:
            try:
                messages.append(self.message())
            except Ended as end:
                assert not end.rest, f"ended inside a message: {end.rest[:80]!r}"
                return messages

    def last_error(self) -> dict[str, str]:
        """The fields of the one error with which the connection ends; it must come and be last."""
        messages = self.until_end()
        errors = [fields(body) for kind, body in messages if kind == "E"]
        assert len(errors) == 1 and messages[-1].kind == "E", messages
        return errors[0]

    def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return not self._buffer
        finally:
            self.socket.settimeout(TIMEOUT)
        self._buffer += data
        return False

    # -- ways to go -------------------------------------------------------------------

    def close(self) -> None:
        """FIN, unless something was left unread."""
        self.socket.close()

    def terminate(self) -> None:
        """The protocol's own goodbye."""
        self.send(TERMINATE)
        self.close()

    def finish_sending(self) -> None:
        """FIN, but go on reading; of no effect where the other side has ended already."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE):
                raise

    def abort(self) -> None:
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def cancel(port: int, process_id: int, secret: bytes) -> None:
    """Sends a cancel request and waits until the pooler has closed, as libpq does."""
    with Client(port) as client:
        client.send(cancel_packet(process_id, secret))
        assert client.until_end() == []

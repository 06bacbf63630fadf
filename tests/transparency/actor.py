"""A client that keeps a record of what it hears."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from tests.support.client import Client, Ended, cancel, fields, message, query, startup

PATIENCE = 5.0  # seconds until a message that must come has not
LONGEST = 120  # characters of a value that is written out

Record = Callable[[str], None]


class Silence(Exception):
    """What must come did not: the rest of a row makes no sense."""


def _text(value: bytes | None) -> str:
    if value is None:
        return "NULL"
    if len(value) > LONGEST:
        return f"{len(value)} bytes, {hashlib.sha256(value).hexdigest()}"
    return value.decode(errors="backslashreplace")


def _row(body: bytes) -> str:
    (count,) = struct.unpack_from("!H", body)
    at, values = 2, []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(_text(None if length < 0 else body[at : at + length]))
        at += max(length, 0)
    return " | ".join(values)


def _description(body: bytes) -> str:
    """Of RowDescription: a table's OID is another each time."""
    columns, at = [], 2
    while at < len(body):
        end = body.index(b"\0", at)
        table, number, *rest = struct.unpack_from("!IHIhiH", body, end + 1)
        columns.append(f"{body[at:end].decode()} {bool(table)} {number} {rest}")
        at = end + 19
    return ", ".join(columns)


def _notification(body: bytes) -> str:
    channel, payload, _ = body[4:].split(b"\0")
    return f"{channel.decode()} {_text(payload)}"


def _said(body: bytes) -> str:
    return " ".join(f"{key}={value!r}" for key, value in fields(body).items())


WRITTEN: dict[str, Callable[[bytes], str]] = {
    "A": _notification,
    "C": lambda body: body[:-1].decode(),
    "D": _row,
    "E": _said,
    "N": _said,
    "S": lambda body: body[:-1].decode().replace("\0", "="),
    "T": _description,
}


class Actor:
    """One connection, by the name *name* in the record.

    ``turn`` is called before anything is sent outside of a transaction, and returns what is to be
    called when it is sent: that is when others can use the servers.
    """

    def __init__(
        self,
        name: str,
        port: int,
        turn: Callable[[], Callable[[], None]],
        record: Record,
    ) -> None:
        self.name = name
        self.port = port
        self.client = Client(port, timeout=PATIENCE)
        self._turn = turn
        self._record = record
        self._at_rest = True

    # -- logging in -------------------------------------------------------------------

    def log_in(self, user: str, database: str = "postgres", **parameters: str) -> None:
        """Says nothing for the record; a refusal is a fault."""
        self.client.send(startup(database, user, **parameters))
        result = self.client.result()
        assert not result.errors, result.errors

    def start(self, packet: bytes) -> None:
        """A start-up packet, and what it is answered with; ParameterStatus in order of names.

        A refusal is recorded without where in PostgreSQL's source it was made.
        """
        self.client.send(packet)
        parameters: list[str] = []
        while True:
            kind, body = self._message()
            if kind == "S":
                parameters.append(WRITTEN[kind](body))
            elif kind == "K":
                self.client.key = (int.from_bytes(body[:4], "big"), body[4:])
            elif kind == "E":
                self.note(" ".join(f"{k}={v!r}" for k, v in fields(body).items() if k not in "FLR"))
            elif kind != "R":
                self._write(kind, body)
            if kind in "ZE":
                break
        for parameter in sorted(parameters):
            self.note(f"S {parameter}")

    # -- saying and hearing -----------------------------------------------------------

    def __call__(self, *sql: str) -> None:
        """Simple queries, each with all of its answer."""
        for each in sql:
            self.batch(query(each))

    def value(self, sql: str) -> str | None:
        """The one value of a query, which is not recorded."""
        self.send(query(sql))
        result = self.client.result()
        self._at_rest = result.status == "I"
        assert len(result.rows) == 1, (sql, result)
        return result.rows[0][0]

    def batch(self, *messages: bytes) -> None:
        """Sends these messages, and hears as many ReadyForQuery as they ask for."""
        self.send(b"".join(messages))
        for _ in range(sum(map(_asks, messages))):
            self.until("Z")

    def send(self, data: bytes) -> None:
        sent = self._turn() if self._at_rest else lambda: None
        self._at_rest = False
        self.client.send(data)
        sent()

    def until(self, kind: str) -> None:
        """Hears all up to a message of one of these kinds."""
        while self.hear() not in kind:
            pass

    def hear(self) -> str:
        """One message; returns its kind."""
        kind, body = self._message()
        self._write(kind, body)
        if kind == "Z":
            self._at_rest = body == b"I"
        return kind

    def end(self) -> None:
        """Hears all until the connection is closed."""
        try:
            while True:
                self.hear()
        except Ended:
            self.note("(end)")

    def silent(self) -> None:
        """That nothing comes is recorded, or else that something does."""
        self.note(f"silent: {self.client.silent(0.05)}")

    def idle(self) -> None:
        """Others use the servers meanwhile."""
        self._turn()()

    def cancel(self) -> None:
        cancel(self.port, *self.client.key)

    # -- the record -------------------------------------------------------------------

    def note(self, text: str) -> None:
        self._record(f"{self.name}: {text}")

    def _message(self) -> tuple[str, bytes]:
        try:
            return self.client.message()
        except TimeoutError:
            self.note("(nothing comes)")
            raise Silence from None

    def _write(self, kind: str, body: bytes) -> None:
        written = WRITTEN.get(kind)
        self.note(f"{kind} {written(body) if written else _text(body)}")


def _asks(data: bytes) -> int:
    """How many ReadyForQuery a message asks for; several messages may stand in one."""
    count = 0
    while data:
        length = int.from_bytes(data[1:5], "big")
        count += data[:1] in (b"Q", b"S", b"F")
        data = data[1 + length :]
    return count


__all__ = ["Actor", "Silence", "message"]

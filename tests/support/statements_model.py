"""A PostgreSQL backend as far as prepared statements go: bytes in, bytes out.

From "Message Flow" in PostgreSQL's documentation and the order in which postgres.c checks things. A
statement's text says what it does: ``begin``, ``commit``, ``rollback``, ``fail`` when it is run,
``bad`` when it is parsed, ``discard all``, ``deallocate all``; anything else is a query with itself
as its one row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

TAGS = {
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "discard all": "DISCARD ALL",
    "deallocate all": "DEALLOCATE ALL",
}


def _tag(text: str) -> str:
    return "DEALLOCATE" if text.startswith("DEALLOCATE ") else TAGS.get(text, "SELECT 1")


class Refused(Exception):
    """An ErrorResponse."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def message(letter: str, body: bytes = b"") -> bytes:
    return letter.encode() + struct.pack("!I", 4 + len(body)) + body


class Backend:
    """One server connection after its log-in."""

    def __init__(self) -> None:
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.prepared: dict[str, bytes] = {}
        self.unnamed: bytes | None = None
        self.portals: dict[str, bytes] = {}
        self.status = "I"
        self.skipping = False

    def feed(self, data: bytes) -> None:
        self.inbox += data

    def step(self) -> bool:
        """Handles one message, if a whole one is there."""
        if len(self.inbox) < 5:
            return False
        (length,) = struct.unpack_from("!I", self.inbox, 1)
        if len(self.inbox) < 1 + length:
            return False
        letter, body = chr(self.inbox[0]), bytes(self.inbox[5 : 1 + length])
        del self.inbox[: 1 + length]
        if not self.skipping or letter == "S":
            self._handle(letter, body)
        return True

    def _handle(self, letter: str, body: bytes) -> None:
        handlers: dict[str, Callable[[bytes], None]] = {
            "P": self._parse,
            "B": self._bind,
            "D": self._describe,
            "E": self._execute,
            "C": self._close,
            "S": self._sync,
            "Q": self._query,
            "H": lambda _: None,
        }
        try:
            handlers[letter](body)
        except Refused as refused:
            fields = f"SERROR\0C{refused.sqlstate}\0M{refused}\0\0".encode()
            self.outbox += message("E", fields)
            self.portals.clear()
            if self.status == "T":
                self.status = "E"
            if letter == "Q":
                self._ready()
            else:
                self.skipping = True

    def _ready(self) -> None:
        if self.status == "I":
            self.portals.clear()
        self.outbox += message("Z", self.status.encode())

    def _sync(self, _: bytes) -> None:
        self.skipping = False
        self._ready()

    def _query(self, body: bytes) -> None:
        self.unnamed = None
        text = body[:-1].decode()
        self._check(text)
        self.outbox += message("T", bytes(2)) if _tag(text) == "SELECT 1" else b""
        self._run(text)
        self._ready()

    def _check(self, text: str) -> None:
        if text.startswith("bad"):
            raise Refused("42601", f'syntax error at or near "{text}"')
        if self.status == "E" and text not in ("commit", "rollback", ""):
            raise Refused("25P02", "current transaction is aborted")

    def _run(self, text: str) -> None:
        if text.startswith("fail"):
            raise Refused("22012", "division by zero")
        if text == "begin":
            self.status = "T"
        elif text in ("commit", "rollback"):
            self.status = "I"
        elif text in ("discard all", "deallocate all"):
            self.prepared.clear()
        elif text.startswith("DEALLOCATE "):
            name = text.split()[1].strip('"')
            if name not in self.prepared:
                raise Refused("26000", f'prepared statement "{name}" does not exist')
            del self.prepared[name]
        else:
            row = struct.pack("!HI", 1, len(text)) + text.encode()
            self.outbox += message("D", row)
        self.outbox += message("C", _tag(text).encode() + b"\0")

    def _parse(self, body: bytes) -> None:
        raw_name, rest = body.split(b"\0", 1)
        name = raw_name.decode()
        if not name:
            self.unnamed = None
        text = rest.split(b"\0", 1)[0].decode()
        self._check(text)
        if not name:
            self.unnamed = rest
        elif name in self.prepared:
            raise Refused("42P05", f'prepared statement "{name}" already exists')
        else:
            self.prepared[name] = rest
        self.outbox += message("1")

    def _statement(self, name: str) -> str:
        text = self.prepared.get(name) if name else self.unnamed
        if text is None:
            what = f'prepared statement "{name}"' if name else "unnamed prepared statement"
            raise Refused("26000", f"{what} does not exist")
        return text.split(b"\0", 1)[0].decode()

    def _bind(self, body: bytes) -> None:
        portal, name, rest = body.split(b"\0", 2)
        text = self._statement(name.decode())
        if rest != bytes(6):
            why = f'bind message supplies 1 parameters, but prepared statement "{name.decode()}"'
            raise Refused("08P01", f"{why} requires 0")
        self._check(text)
        self.portals[portal.decode()] = text.encode()
        self.outbox += message("2")

    def _describe(self, body: bytes) -> None:
        kind, name = chr(body[0]), body[1:-1].decode()
        if kind == "P":
            if name not in self.portals:
                raise Refused("34000", f'portal "{name}" does not exist')
        else:
            text = self._statement(name)
            if _tag(text) == "SELECT 1":
                self._check(text)
            self.outbox += message("t", bytes(2))
        self.outbox += message("n")

    def _execute(self, body: bytes) -> None:
        name = body.split(b"\0", 1)[0].decode()
        if name not in self.portals:
            raise Refused("34000", f'portal "{name}" does not exist')
        self._run(self.portals[name].decode())

    def _close(self, body: bytes) -> None:
        kind, name = chr(body[0]), body[1:-1].decode()
        if kind == "P":
            self.portals.pop(name, None)
        elif name:
            self.prepared.pop(name, None)
        else:
            self.unnamed = None
        self.outbox += message("3")

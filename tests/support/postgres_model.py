"""What a PostgreSQL backend answers to what: its main loop, with chance in place of SQL.

From "Message Flow" in PostgreSQL's documentation; nothing here knows how the framing counts.
"""

from __future__ import annotations

import struct
from random import Random

BODIES = {
    "Z": b"I",
    "C": b"SELECT 1\0",
    "E": b"SERROR\0\0",
    "T": bytes(2),
    "t": bytes(2),
    "D": bytes(2),
    "d": b"1\n",
    "G": bytes(3),
    "H": bytes(3),
    "V": bytes(4),
    "N": b"\0",
    "S": b"a\0b\0",
    "A": bytes(6),
}


def message(letter: str, body: bytes = b"") -> bytes:
    return letter.encode() + struct.pack("!I", 4 + len(body)) + body


class PostgresModel:
    """Reads ``inbox`` (type letters) one step at a time and writes ``outbox`` (bytes)."""

    def __init__(self, rnd: Random) -> None:
        self.rnd = rnd
        self.inbox: list[str] = []
        self.outbox = bytearray()
        self.status = "I"
        self.implicit = False  # inside an implicit transaction, which a Sync ends
        self.ignore_till_sync = False
        self.copying = ""  # the type of the message that executes COPY FROM STDIN
        self.muddled = False  # the bytes no longer tell where the server is
        self.closed = False

    def owes_nothing(self) -> bool:
        """Will nothing come any more, and is no transaction open?"""
        silent = all(letter in "Hdcf" for letter in self.inbox)
        return silent and not self.outbox and self.standing() == "APART"

    def standing(self) -> str:
        if self.copying or self.ignore_till_sync:
            return "BUSY"
        return "OPEN" if self.implicit or self.status != "I" else "APART"

    def step(self) -> None:
        if self.closed:
            return
        if self.copying:
            self._copy_step()
        elif self.inbox:
            letter = self.inbox.pop(0)
            if letter == "S":
                self.ignore_till_sync = False
            if not self.ignore_till_sync:
                self._handle(letter)

    def _say(self, letters: str) -> None:
        for letter in letters:
            self.outbox += message(letter, BODIES.get(letter, b""))

    def _handle(self, letter: str) -> None:
        if letter in "Hdcf":
            return
        if self.rnd.random() < 0.1:
            self._say(self.rnd.choice("NSA"))
        if letter in "PBDEC":
            self.implicit = True
        if self.rnd.random() < 0.15:
            self._fail(letter)
        elif letter == "Q":
            self._query()
        elif letter == "E":
            self._execute()
        else:
            plain = {"P": "1", "B": "2", "C": "3", "F": "V", "S": ""}
            self._say(plain[letter] if letter != "D" else self.rnd.choice(["tT", "tn", "T", "n"]))
            if letter in "FS":
                self._ready(letter)

    def _execute(self) -> None:
        ending = self.rnd.choice(["C", "DDC", "I", "Ds", "HddcC", "G", "G"])
        self._say(ending)
        self.copying = "E" if ending == "G" else ""

    def _query(self) -> None:
        """Any number of statements; the rest of them follows when a COPY among them is over."""
        while True:
            statement = self.rnd.choice(["TDDC", "C", "I", "HdcC", "G", "E"])
            self._say(statement)
            if statement == "G":
                self.copying = "Q"
                return
            if statement == "E" or self.rnd.random() < 0.6:
                self._ready("Q")
                return

    def _copy_step(self) -> None:
        if self.rnd.random() < 0.1:  # a trigger, or a row that does not parse
            self._fail_copy()
        elif self.inbox:
            letter = self.inbox.pop(0)
            if letter == "c":
                self._copied()
            elif letter == "f":
                self._fail_copy()
            elif letter not in "dHS":
                self._say("E")
                self.closed = True

    def _copied(self) -> None:
        command, self.copying = self.copying, ""
        self._say("C")
        if command == "Q":
            if self.rnd.random() < 0.5:
                self._query()
            else:
                self._ready(command)

    def _fail_copy(self) -> None:
        command, self.copying = self.copying, ""
        self.muddled = True
        self._fail(command)

    def _fail(self, letter: str) -> None:
        self._say("E")
        if letter in "PBDEC":
            self.ignore_till_sync = True
        else:
            self._ready(letter)

    def _ready(self, letter: str) -> None:
        before, self.status = self.status, self.rnd.choice("IIITE")
        if self.implicit and letter != "S" and (before, self.status) in [("I", "T"), ("I", "E")]:
            self.muddled = True
        self.implicit = False
        self.outbox += message("Z", self.status.encode())

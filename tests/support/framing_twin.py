"""A twin of ``pooler/wire/framing.c``, written from the protocol's rules to be obvious, not fast.

It takes one byte at a time, so it cannot know where chunks end, and it keeps the requests that
await an answer as a list of their type letters.
"""

from __future__ import annotations

import struct

from tests.support.framing import Scan

HEADER = 5
MOST_REQUESTS = 65_536
SMALL, LARGE = 10_000, 0x3FFFFFFE

ANSWERED_TYPES = "PBDECQFS"
EXTENDED = "PBDEC"
READIED = "QFS"
FRONTEND = dict.fromkeys("CDESXcf", SMALL) | dict.fromkeys("PBQFd", LARGE) | {"H": 4}

# type: (least length, is it the only one)
BACKEND = {
    **dict.fromkeys("123Icns", (4, True)),
    "Z": (5, True),
    "d": (4, False),
    **dict.fromkeys("CEN", (5, False)),
    **dict.fromkeys("DSTt", (6, False)),
    **dict.fromkeys("GHW", (7, False)),
    **dict.fromkeys("KRV", (8, False)),
    "A": (10, False),
    "v": (12, False),
}
# What a message may be said in answer to, and what it answers in full.
SAID_TO = {
    "1": "P",
    "2": "B",
    "3": "C",
    "T": "DQ",
    "t": "D",
    "n": "D",
    "s": "E",
    "V": "F",
    **dict.fromkeys("CIDdcHG", "EQ"),
}
ANSWERS = {"1": "P", "2": "B", "3": "C", "T": "D", "n": "D", "C": "E", "I": "E", "s": "E"}


class FramingTwin:
    """The same face as ``EngineFraming``."""

    def __init__(self) -> None:
        self.client_message = bytearray()
        self.fresh()

    def fresh(self) -> None:
        self.server_message = bytearray()
        self.awaiting: list[str] = []
        self.last_type = ""
        self.status = "I"
        self.unsure = False
        self.skipping = False  # the server discards everything up to a Sync
        self.copying = False  # the server reads copy data, and so do we
        self.swallowed = False  # the copy under way has taken a Sync
        self.unsynced = False

    # ------------------------------------------------------------------------------ the client

    def opening(self, data: bytes) -> Scan:
        if not data:
            return Scan("MORE", 0)
        refused = self._refused_type(data[0])
        if refused:
            return refused
        if len(data) < HEADER:
            return Scan("MORE", 0)
        if not self._good_client_length(data):
            return Scan("BAD", 0, why="invalid message length")
        return Scan("GO", 0)

    def _refused_type(self, byte: int) -> Scan | None:
        if chr(byte) not in FRONTEND:
            return Scan("BAD", 0, why=f"invalid frontend message type {byte}")
        return Scan("LEAVE", 0) if chr(byte) == "X" else None

    def _good_client_length(self, message: bytes) -> bool:
        return 4 <= _length(message) <= FRONTEND[chr(message[0])]

    def from_client(self, data: bytes) -> Scan:
        for at, byte in enumerate(data):
            if not self.client_message:
                refused = self._refused_type(byte)
                if refused and refused.verdict == "LEAVE" and self._ready_is_due():
                    return Scan("FULL", at)
                if refused:
                    return refused._replace(consumed=at)
                if chr(byte) in ANSWERED_TYPES + "cf" and len(self.awaiting) == MOST_REQUESTS:
                    return Scan("FULL", at)
            self.client_message.append(byte)
            if len(self.client_message) == HEADER:
                if not self._good_client_length(self.client_message):
                    consumed = _take_back(self.client_message, at)
                    return Scan("BAD", consumed, why="invalid message length")
                self._requested(chr(self.client_message[0]))
            _drop_if_whole(self.client_message)
        return Scan("GO", len(data))

    def _ready_is_due(self) -> bool:
        """A goodbye waits for it."""
        if self.unsure or self.copying:
            return False
        return any(letter in "QFS" for letter in self.awaiting)

    def _requested(self, letter: str) -> None:
        if self.unsure or letter in "Hd":
            return
        if letter in "cf":
            if self.copying:
                self.copying = False
            elif not self.skipping:
                self.awaiting.append("end of copy")
                self._drop_stray_ends()
        elif self.skipping and letter != "S":
            pass
        elif self.copying and letter == "S":
            self.swallowed = True
        else:
            self.skipping = False
            self.awaiting.append(letter)

    # ------------------------------------------------------------------------------ the server

    def from_server(self, data: bytes) -> Scan:
        answered = 0
        for at, byte in enumerate(data):
            if not self.server_message and chr(byte) not in BACKEND:
                self._lose_count()
                return Scan("BAD", at, answered, "invalid message type from the server")
            self.server_message.append(byte)
            if len(self.server_message) == HEADER:
                if not self._good_server_length():
                    self._lose_count()
                    why = "invalid message length from the server"
                    return Scan("BAD", _take_back(self.server_message, at), answered, why)
                self.last_type = chr(self.server_message[0])
                self._said(self.last_type)
            if len(self.server_message) == 6 and self.last_type == "Z":
                answered += self._ready(chr(byte))
            _drop_if_whole(self.server_message)
        return Scan("GO", len(data), answered)

    def _good_server_length(self) -> bool:
        least, only = BACKEND[chr(self.server_message[0])]
        length = _length(self.server_message)
        return length == least if only else least <= length <= 0x3FFFFFFE + 4

    def _said(self, letter: str) -> None:
        if self.unsure or letter in "NASZ":
            return
        first = self.awaiting[0] if self.awaiting else "nothing"
        if letter == "E":
            self._failed(first)
        elif first not in SAID_TO.get(letter, "") or self.copying:
            self._lose_count()
        elif letter == "G":
            self._copy_in()
        else:
            if letter == "C":
                self.swallowed = False
            if first in ANSWERS.get(letter, ""):
                del self.awaiting[0]
                self.unsynced = True
        self._drop_stray_ends()

    def _failed(self, first: str) -> None:
        self.copying = False
        if self.swallowed or first == "nothing":
            self._lose_count()
        elif first in EXTENDED:
            self.skipping = "S" not in self.awaiting
            syncs = [i for i, letter in enumerate(self.awaiting) if letter == "S"]
            self.awaiting = self.awaiting[syncs[0] :] if syncs else []

    def _copy_in(self) -> None:
        command, *rest = self.awaiting
        while rest and rest[0] == "S":
            del rest[0]
            self.swallowed = True
        if not rest:
            self.copying = True
        elif rest[0] == "end of copy":
            del rest[0]
        self.awaiting = [command, *rest]

    def _ready(self, status: str) -> int:
        if self.unsure:
            return 0
        first = self.awaiting[0] if self.awaiting else "nothing"
        if first not in READIED or self.copying or self.swallowed:
            self._lose_count()
            return 0
        del self.awaiting[0]
        self._drop_stray_ends()
        if first in "QF" and self.unsynced and self.status == "I" and status != "I":
            self._lose_count()  # it has kept the implicit transaction that it was to end
        self.status = status
        self.unsynced = False
        return 1

    def _drop_stray_ends(self) -> None:
        while self.awaiting[:1] == ["end of copy"]:
            del self.awaiting[0]

    def _lose_count(self) -> None:
        self.unsure = True
        self.awaiting = []

    # ------------------------------------------------------------------------------- questions

    def standing(self) -> str:
        if self.unsure:
            return "UNSURE"
        midway = self.client_message or self.server_message
        if self.awaiting or self.skipping or self.copying or midway:
            return "BUSY"
        return "OPEN" if self.unsynced or self.status != "I" else "APART"

    def last_words(self) -> str:
        if self.server_message:
            return "CUT"
        return "ERROR" if self.last_type == "E" else "WHOLE"


def _length(message: bytes) -> int:
    """Of any size, so that nothing hides in its sign."""
    (length,) = struct.unpack_from("!I", message, 1)
    return length


def _take_back(message: bytearray, at: int) -> int:
    """A header whose last byte is at ``at`` is refused: keep what came in earlier chunks."""
    start = max(0, at - (HEADER - 1))
    del message[HEADER - (at + 1 - start) :]
    return start


def _drop_if_whole(message: bytearray) -> None:
    if len(message) >= HEADER and len(message) == 1 + _length(message):
        message.clear()

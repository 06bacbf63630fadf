"""One of the two connections of a client: says steps, and knows when all has been answered."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Self

import trio

from tests.support.client import TERMINATE, TYPES, Message, startup

# What ends the answer to a request, other than an error.
ENDS = {"P": "1", "B": "2", "C": "3", "D": "Tn", "E": "CIs", "Q": "Z", "F": "Z", "S": "Z", "?": "Z"}
EXTENDED = "PBCDE"


class Owed:
    """Which requests are still to be answered, in what order.

    Follows the documented rules: after an error in an extended-query message everything is skipped
    up to Sync; in COPY FROM STDIN, Sync and Flush are ignored until the data's end.
    """

    def __init__(self) -> None:
        self.queue = deque("?")  # the start-up packet, whose answer ends with ReadyForQuery
        self._skipping = False
        self._copying = False  # data is wanted whose end has not been sent yet

    @property
    def settled(self) -> bool:
        """Nothing more will come by itself."""
        return not self.queue or self._copying

    def __str__(self) -> str:
        return " ".join(self.queue) + (", and waits for data" if self._copying else "")

    def ask(self, kind: str) -> None:
        """A message of this type was sent."""
        if self._copying:
            self._copying = kind not in "cf"
        elif kind not in "HdX":
            self.queue.append(kind)
            self._advance()

    def hear(self, kind: str) -> None:
        """A message of this type has come."""
        head = self.queue[0] if self.queue else "none"
        if kind == "E" and head in EXTENDED:
            self._skipping, self._copying = True, False
        elif kind == "G" and head in "QE":
            self._copy_in()
        elif kind in ENDS.get(head, ""):
            self.queue.popleft()
            self._copying = False
        self._advance()

    def _copy_in(self) -> None:
        head, *rest = self.queue
        ends = [n for n, kind in enumerate(rest) if kind in "cf"]
        self._copying = not ends
        self.queue = deque([head, *(rest[ends[0] + 1 :] if ends else ())])

    def _advance(self) -> None:
        queue = self.queue
        while queue and (queue[0] in "cf" or (self._skipping and queue[0] != "S")):
            queue.popleft()
        if queue:
            self._skipping = False


class Side:
    """A connection that is logged in, or about to be."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self.owed = Owed()
        self.ended = False
        self.heard: list[Message] = []  # in answer to the last step

    @classmethod
    async def open(cls, port: int, database: str, user: str) -> Self:
        """Connects and sends the start-up packet; its answer is still to be heard."""
        side = cls(await trio.open_tcp_stream("127.0.0.1", port))
        await side.send([startup(database, user)])
        return side

    async def send(self, pieces: Iterable[bytes]) -> None:
        """Messages, cut in whatever way."""
        try:
            for piece in pieces:
                await self._stream.send_all(piece)
                await trio.lowlevel.checkpoint()
        except trio.BrokenResourceError:
            pass  # what was heard says why

    def ask(self, said: Iterable[bytes]) -> None:
        """These messages are going to be sent."""
        for each in said:
            self.owed.ask(chr(each[0]))
        self.heard = []

    async def hear(self) -> list[Message]:
        """The answers to all that was said, or what came until the connection ended."""
        self._parse()
        while not (self.owed.settled or self.ended):
            await self._receive()
        return self.heard

    async def leave(self, *, goodbye: bool, abort: bool) -> list[Message]:
        """Ends the connection; returns what came in answer to a Terminate, which is nothing."""
        self.heard = []
        if goodbye and not (self.ended or self.owed.queue):
            await self.send([TERMINATE])
            while not self.ended:
                await self._receive()
        if abort:
            self._stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0" * 2)
        self.close()
        return self.heard

    def close(self) -> None:
        self._stream.socket.close()

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(1 << 17)
        except trio.BrokenResourceError:
            data = b""
        if data:
            self._buffer += data
            self._parse()
        else:
            self.ended = True

    def _parse(self) -> None:
        """Takes what is whole, as far as it answers what was said."""
        buffer, at, hear = bytes(self._buffer), 0, self.owed.hear
        while len(buffer) - at >= 5:
            kind, length = struct.unpack_from("!BI", buffer, at)
            assert kind in TYPES and length >= 4, f"no message: {buffer[at : at + 80]!r}"
            if len(buffer) - at < 1 + length:
                break
            self.heard.append(Message(chr(kind), buffer[at + 5 : at + 1 + length]))
            hear(chr(kind))
            at += 1 + length
        del self._buffer[:at]

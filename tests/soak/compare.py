"""Whether two connections have heard the same."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import groupby

from tests.support.client import Message, fields

Heard = list[Message]


def plain(heard: Message) -> tuple[str, object]:
    """A message without what is another's on each connection.

    That is: process ids and keys, object ids of tables, and where in PostgreSQL's source an error
    was raised.
    """
    kind, body = heard
    if kind == "K":
        return kind, None
    if kind == "A":
        return kind, body[4:]
    if kind == "T":
        return kind, _without_tables(body)
    if kind in "EN":
        return kind, {k: v for k, v in fields(body).items() if k not in "FLR"}
    return kind, body


def _without_tables(body: bytes) -> list[tuple[object, ...]]:
    (count,) = struct.unpack_from("!H", body)
    at, found = 2, list[tuple[object, ...]]()
    for _ in range(count):
        end = body.index(0, at)
        table, *others = struct.unpack_from("!IHIHIH", body, end + 1)
        found.append((body[at:end], bool(table), *others))
        at = end + 19
    assert at == len(body), "a RowDescription with something behind it"
    return found


def in_order(heard: Heard) -> Heard:
    """ParameterStatus that come together, by name: PostgreSQL promises them no order."""
    found = Heard()
    for is_status, each in groupby(heard, lambda message: message.kind == "S"):
        together = list(each)
        found += sorted(together) if is_status else together
    return found


def same(one: Heard, other: Heard) -> bool:
    """Byte for byte but for what is another's."""
    if one == other:
        return True
    pairs = zip(in_order(one), in_order(other), strict=False)
    return len(one) == len(other) and all(_same_message(*pair) for pair in pairs)


def _same_message(one: Message, other: Message) -> bool:
    return one == other or plain(one) == plain(other)


@dataclass
class Comparison:
    """Of two connections, as their answers come in.

    In an aborted transaction a statement that is not on the server yet cannot be prepared there,
    and the pooler's answer is 25P02 where PostgreSQL may still describe the statement, or complain
    of a parameter (docs/transaction-pooling.md). How often that made a difference is counted.
    """

    before: bytes = b"I"
    excused: int = 0
    _through: Heard = field(default_factory=list)
    _direct: Heard = field(default_factory=list)

    def agree(self, through: Heard, direct: Heard) -> bool:
        """Whether the answers to the next step are the same. After a no it is not asked again."""
        self._through += through
        self._direct += direct
        while True:
            one, other = _segment(self._through), _segment(self._direct)
            if not (one and other):
                break
            if not self._may_pass(self._through[:one], self._direct[:other]):
                return False
            self.before = self._direct[other - 1].body
            del self._through[:one], self._direct[:other]
        # In an aborted transaction what is not whole yet has to wait for its end.
        return self.before == b"E" or same(self._through, self._direct)

    def _may_pass(self, one: Heard, other: Heard) -> bool:
        if same(one, other):
            return True
        refused = any(kind == "E" and fields(body)["C"] == "25P02" for kind, body in one)
        excused = refused and self.before == b"E" and one[-1] == other[-1] == ("Z", b"E")
        self.excused += excused
        return excused


def _segment(heard: Heard) -> int:
    """How many messages up to and with the next ReadyForQuery; 0: it has not come."""
    return next((n for n, each in enumerate(heard, 1) if each.kind == "Z"), 0)

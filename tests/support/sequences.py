"""Random legal sequences of frontend messages, for comparing two connections that get the same.

A session is a list of steps. What a step says is sent at once; then everything that it asks for is
awaited. It is made of nothing but a seed, so the same seed says the same again. Statements ask and
change only what is the client's own: tables named by its place among the clients, channels and
locks by its session. So a direct connection to a database of the same kind must answer the same.

Steps come from named groups, which can be switched on and off. This module has the loom; what goes
over the extended protocol is in ``sequences_extended``, plain queries and COPY are in
``sequences_simple``, and what outlives a transaction is in ``sequences_session``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from tests.support.client import SYNC, message, query

T = TypeVar("T")
Said = list[bytes]
Plan = Callable[["Author"], Iterator[Said]]
STEPS = (5, 80)  # of a session, at least and at most


@dataclass(frozen=True)
class Step:
    """Messages that go out together. *group*: where they come from."""

    group: str
    said: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        return b"".join(self.said)


@dataclass(frozen=True)
class Group:
    """A kind of statement.

    *session*: what it does may outlive a transaction. *differs*: how the pooler's answers do.
    """

    name: str
    weight: float
    plan: Plan
    session: bool = False
    differs: str = ""


GROUPS: dict[str, Group] = {}


def group(
    name: str, weight: float, *, session: bool = False, differs: str = ""
) -> Callable[[Plan], Plan]:
    """Enters a function that yields what is to be said step by step; the caller may join steps."""

    def enter(plan: Plan) -> Plan:
        GROUPS[name] = Group(name, weight, plan, session, differs)
        return plan

    return enter


@dataclass
class Author:
    """Who writes one session. Everything by chance comes from *rnd*."""

    rnd: Random
    place: int  # among the clients; names tables
    session: int  # names locks and channels
    open: bool = False  # a transaction probably is
    names: dict[str, int] = field(default_factory=dict)  # prepared statements, probably

    def pick(self, choices: Sequence[T]) -> T:
        return self.rnd.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.rnd.random() < probability

    def own(self, text: str) -> str:
        """@t, @u and @n are the client's tables, @s is only this session's, @i a small number."""
        while "@i" in text:
            text = text.replace("@i", str(self.rnd.randint(-2, 12)), 1)
        for sign, name in (("@t", "t"), ("@u", "u"), ("@n", "n")):
            text = text.replace(sign, f"{name}{self.place:02}")
        return text.replace("@s", str(self.session))

    def query(self, text: str) -> bytes:
        return query(self.own(text))

    def in_either_way(self, text: str) -> bytes:
        """As a query, or by the unnamed statement."""
        if self.chance(0.6):
            return self.query(text)
        return by_extended(self.own(text))


def by_extended(text: str) -> bytes:
    """A statement without parameters as drivers send it."""
    head = message("P", b"\0" + text.encode() + b"\0\0\0") + message("B", bytes(8))
    return head + message("D", b"P\0") + message("E", bytes(5)) + SYNC


def split(data: bytes) -> Iterator[bytes]:
    """The messages in what was built together."""
    at = 0
    while at < len(data):
        end = at + 1 + int(struct.unpack_from("!I", data, at + 1)[0])
        yield data[at:end]
        at = end


def chosen(spec: str = "") -> list[str]:
    """Groups by a list such as ``copy,errors`` (these), or ``+unsynced,-copy`` (the usual, but).

    Usual is what is answered as by PostgreSQL itself; ``session`` is the state of sessions, ``all``
    every group.
    """
    several = {
        "all": list(GROUPS),
        "usual": [name for name, each in GROUPS.items() if not each.differs],
        "session": [n for n, each in GROUPS.items() if each.session and not each.differs],
    }
    words = [word for word in spec.split(",") if word]
    unknown = [word for word in words if word.lstrip("+-") not in {*GROUPS, *several}]
    if unknown:
        raise ValueError(f"no such group: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    only = [word for word in words if word[0] not in "+-"] or ["usual"]
    found = {name: None for word in only for name in several.get(word, [word])}
    for sign, word in ((word[0], word[1:]) for word in words):
        for name in several.get(word, [word]):
            if sign == "+":
                found[name] = None
            elif sign == "-":
                found.pop(name, None)
    return list(found)


def prologue(place: int) -> Step:
    """Makes the client's tables what they are at the beginning of each session."""
    t, u, n = f"t{place:02}", f"u{place:02}", f"n{place:02}"
    text = (
        f"TRUNCATE {t}, {u}; DROP TABLE IF EXISTS {n}; INSERT INTO {t} (id, v, n)"
        " SELECT i, 'v' || i, i / 4.0 FROM generate_series(1, 5) i"
    )
    return Step("prologue", (query(text),))


def tables(places: Iterable[int]) -> Iterator[str]:
    """What makes the tables of all clients."""
    for place in places:
        yield (
            f"CREATE TABLE t{place:02} (id int PRIMARY KEY, v text NOT NULL CHECK (v <> 'bad'),"
            " n numeric, b bytea) WITH (autovacuum_enabled = off)"
        )
        yield (
            f"CREATE TABLE u{place:02} (id int REFERENCES t{place:02}"
            " DEFERRABLE INITIALLY DEFERRED)"
        )


def session(seed: int, number: int, place: int, groups: Sequence[str]) -> list[Step]:
    """The steps of a session, whole."""
    author = Author(Random(f"{seed}/{number}"), place, number)
    rnd = author.rnd
    entered = [GROUPS[name] for name in groups]
    weights = [each.weight for each in entered]
    # Some sessions keep to few kinds of statements: what one does then has an effect on the other.
    if len(entered) > 3 and author.chance(0.3):
        few = rnd.sample(range(len(entered)), 3)
        entered, weights = [entered[i] for i in few], [weights[i] for i in few]
    steps = [prologue(place)]
    for _ in range(rnd.randint(*STEPS)):
        steps += _steps(author, rnd.choices(entered, weights)[0])
        if author.open and author.chance(0.3):
            author.open = False
            end = rnd.choice(("COMMIT", "ROLLBACK", "END; SELECT 'after'", "ABORT"))
            steps.append(Step("end", tuple(split(author.in_either_way(end)))))
    return steps


def _steps(author: Author, entered: Group) -> list[Step]:
    """One visit to a group; or more in one go, as pipelining clients do."""
    times = author.rnd.randint(2, 4) if author.chance(0.15) else 1
    parts = [tuple(said) for _ in range(times) for said in entered.plan(author)]
    if times > 1 or (len(parts) > 1 and author.chance(0.3)):
        parts = [tuple(each for part in parts for each in part)]
    return [Step(entered.name, tuple(split(b"".join(part)))) for part in parts]


def said_in(steps: Iterable[Step]) -> int:
    """How many messages."""
    return sum(len(step.said) for step in steps)


# The groups enter themselves.
from tests.support import (  # noqa: E402
    sequences_extended,  # noqa: F401
    sequences_session,  # noqa: F401
    sequences_simple,  # noqa: F401
)

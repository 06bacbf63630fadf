"""Many clients over few servers, each beside a direct connection that is told the same."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import psycopg
import trio

from tests.soak.compare import Comparison, same
from tests.soak.side import Side
from tests.soak.transcript import exchange
from tests.support.client import Message
from tests.support.postgres import EmbeddedPostgres, connect, create_database
from tests.support.sequences import Step, session, tables

THROUGH, DIRECT = "differential_through", "differential_direct"
SHOWN = 4  # steps of a transcript
LARGE = 30_000  # bytes: what is sent while the answer is being read
STILL = 30.0  # seconds without an answer to anybody, which is a hang


@dataclass(frozen=True)
class Place:
    """Where the two sides are: a pooler's port, PostgreSQL's, who logs in."""

    pooler: int
    postgres: int
    user: str = "postgres"


@dataclass
class Divergence:
    """Where a session was not answered as a direct connection was."""

    number: int
    at: int
    transcript: str
    steps: list[Step]

    def __str__(self) -> str:
        return f"session {self.number}, step {self.at}:\n{self.transcript}"


@dataclass
class Report:
    """What came of it. ``hang``: who waited for what, if nothing went on any more."""

    seed: int
    messages: int = 0
    sessions: int = 0
    answers: int = 0
    excused: int = 0
    seconds: float = 0.0
    hang: str = ""
    divergences: list[Divergence] = field(default_factory=list)
    by_group: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        return bool(self.divergences or self.hang)

    def __str__(self) -> str:
        faults = "\n".join([*map(str, self.divergences), *([self.hang] if self.hang else ())])
        return (
            f"seed {self.seed}: {self.messages} messages in {self.sessions} sessions,"
            f" {self.answers} answers, {len(self.divergences)} divergences,"
            f" {'a hang' if self.hang else 'no hang'}, {self.excused} excused,"
            f" {self.seconds:.0f} s\n{faults}"
        ).rstrip()


def prepare(pg: EmbeddedPostgres, clients: int, user: str = "postgres") -> None:
    """Two databases alike, and a role to change to."""
    for name in (THROUGH, DIRECT):
        create_database(pg, name, owner=user)
        with connect(pg, dbname=name, user=user) as conn:
            for text in tables(range(clients)):
                conn.execute(text)
    with connect(pg) as conn:
        found = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = 'differential_other'")
        if found.fetchone() is None:
            conn.execute("CREATE ROLE differential_other")


class Pair:
    """A client of the pooler and the direct connection beside it, in one session."""

    def __init__(
        self, number: int, steps: list[Step], report: Report, shown: int | None = SHOWN
    ) -> None:
        self.number, self.steps, self.report = number, steps, report
        self.at = -1
        self.sides: list[Side] = []
        self._comparison = Comparison()
        self._shown = deque[str](maxlen=shown)
        self._rnd = Random(number)

    def __str__(self) -> str:
        group = self.steps[self.at].group if self.at >= 0 else "login"
        named = zip(("pooler", "direct"), self.sides, strict=False)
        waits = [f"{name} owes {side.owed}" for name, side in named if not side.owed.settled]
        if len(self.sides) < 2:
            waits.append("a connection is being made")
        return f"session {self.number}, step {self.at} ({group}): {'; '.join(waits)}"

    @property
    def transcript(self) -> str:
        """Of the last steps."""
        return "\n".join(self._shown)

    async def run(self, place: Place) -> None:
        """Up to the end, or the first difference."""
        try:
            self.sides.append(await Side.open(place.pooler, THROUGH, place.user))
            self.sides.append(await Side.open(place.postgres, DIRECT, place.user))
            if await self._login() and await self._speak():
                await self._leave()
        finally:
            for side in self.sides:
                side.close()
            self.report.excused += self._comparison.excused

    async def _login(self) -> bool:
        through, direct = [await side.hear() for side in self.sides]
        # Of the start-up's parameters PostgreSQL does not promise an order.
        return self._check(Step("login", ()), sorted(through), sorted(direct), same)

    async def _speak(self) -> bool:
        for at, step in enumerate(self.steps):
            self.at = at
            await self._say(step)
            through, direct = (side.heard for side in self.sides)
            self.report.messages += len(step.said)
            self.report.answers += len(through)
            self.report.by_group[step.group] += len(step.said)
            if not self._check(step, through, direct, self._comparison.agree):
                return False
            if any(side.ended for side in self.sides):
                return False
            if self._comparison.excused:
                break  # what was skipped on one side only may make a difference later
        return True

    async def _say(self, step: Step) -> None:
        data = step.data
        pieces = list(self._cut(data))
        through, direct = self.sides
        for side in self.sides:
            side.ask(step.said)
        if len(data) < LARGE:
            await through.send(pieces)
            await direct.send([data])
            await direct.hear()  # first: what hangs then is the pooler
            await through.hear()
            return
        async with trio.open_nursery() as nursery:
            for side, parts in ((through, pieces), (direct, [data])):
                nursery.start_soon(side.send, parts)
                nursery.start_soon(side.hear)

    def _cut(self, data: bytes) -> Iterator[bytes]:
        """Sometimes anywhere, as networks do."""
        while data and self._rnd.random() < 0.15:
            end = self._rnd.randint(1, len(data))
            yield data[:end]
            data = data[end:]
        yield data

    async def _leave(self) -> None:
        goodbye, abort = self._rnd.random() < 0.6, self._rnd.random() < 0.2
        through, direct = [await side.leave(goodbye=goodbye, abort=abort) for side in self.sides]
        self._check(Step("leaving", ()), through, direct, same)

    def _check(
        self,
        step: Step,
        through: list[Message],
        direct: list[Message],
        agree: Callable[[list[Message], list[Message]], bool],
    ) -> bool:
        ended = [side.ended for side in self.sides]
        agreed = agree(through, direct)
        if step.said or not agreed:
            self._shown.append(exchange(step, through, direct))
        if agreed and ended[0] == ended[1]:
            return True
        if ended[0] != ended[1]:
            self._shown.append(f"    {'pooler' if ended[0] else 'direct'} < closed")
        found = Divergence(self.number, self.at, self.transcript, self.steps)
        self.report.divergences.append(found)
        return False


@dataclass
class Soak:
    """A run. *sessions*: their numbers, if not as many as it takes for so many *messages*."""

    place: Place
    seed: int
    messages: int
    clients: int
    groups: Sequence[str]
    sessions: Sequence[int] = ()
    tolerated: int = 0  # divergences, before it ends
    progress: Callable[[Report], None] | None = None

    def __post_init__(self) -> None:
        self.report = Report(self.seed)
        self._numbers = iter(self.sessions) if self.sessions else itertools.count()
        self._pairs: dict[int, Pair] = {}

    async def run(self) -> Report:
        """All of it, in this task's children."""
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            async with trio.open_nursery() as clients:
                for place in range(self.clients):
                    clients.start_soon(self._client, place, clients.cancel_scope)
            nursery.cancel_scope.cancel()
        self.report.seconds = time.monotonic() - began
        return self.report

    async def _client(self, place: int, all_clients: trio.CancelScope) -> None:
        report = self.report
        for number in self._numbers:
            steps = session(self.seed, number, place, self.groups)
            pair = self._pairs[place] = Pair(number, steps, report)
            await pair.run(self.place)
            report.sessions += 1
            if report.messages >= self.messages and not self.sessions:
                break
            if len(report.divergences) > self.tolerated:
                all_clients.cancel()
        self._pairs.pop(place, None)

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Ends a run in which nothing goes on any more, and tells who waits for what."""
        last, since = -1, trio.current_time()
        for second in itertools.count(1):
            await trio.sleep(1)
            done = self.report.messages + self.report.sessions
            if done != last:
                last, since = done, trio.current_time()
            elif trio.current_time() - since > STILL:
                self.report.hang = self._hang()
                scope.cancel()
            if second % 10 == 0 and self.progress is not None:
                self.progress(self.report)

    def _hang(self) -> str:
        waiting = "\n".join(f"  {pair}" for pair in self._pairs.values())
        return f"nothing came for {STILL:.0f} s; waiting are\n{waiting}\n{self._activity()}"

    def _activity(self) -> str:
        place = f"host=127.0.0.1 port={self.place.postgres} user={self.place.user} dbname=postgres"
        with psycopg.connect(place) as conn:
            found = conn.execute(
                "SELECT pid, state, wait_event, left(query, 60) FROM pg_stat_activity"
                " WHERE datname = %s",
                [THROUGH],
            ).fetchall()
        return "\n".join(f"  server {pid}: {a}, {b}, {c!r}" for pid, a, b, c in found)

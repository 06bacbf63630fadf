"""Makes a divergence small: what can be left out so that it still diverges, is left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar

import trio

from tests.soak.run import THROUGH, Divergence, Pair, Place, Report
from tests.soak.side import Side
from tests.support.client import SYNC, parse, query
from tests.support.sequences import Step

T = TypeVar("T")
MOST_TRIES = 2000
PATIENCE = 3.0  # seconds for one try; if it is the pooler that still owes something, it diverges
AGAIN = 4  # how often a sequence that may need luck is tried


class Shrink:
    """Of one session, at a pooler that others use, but only to be in the way."""

    def __init__(self, place: Place, found: Divergence, servers: int, seed: int = 0) -> None:
        self._place = place
        self._prologue, *self._steps = found.steps[: max(0, found.at) + 1]
        self._others = servers - 1
        self._rnd = Random(seed)
        self._tries = 0
        self._last = ""

    async def run(self) -> str:
        """The transcript of the smallest."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._others):
                nursery.start_soon(self._disturb)
            await self._shrink()
            nursery.cancel_scope.cancel()
        return self._last or f"in {AGAIN} tries without the others it did not diverge"

    async def _shrink(self) -> None:
        if not await self._diverges(self._steps):
            return
        steps = await self._fewer(self._steps, self._diverges)
        for at in range(len(steps)):
            steps = await self._fewer_messages(steps, at)
        await self._fewer(steps, self._diverges)

    async def _fewer_messages(self, steps: list[Step], at: int) -> list[Step]:
        """Leaves messages out of one step, but not its last one, without which it has no end."""
        *said, last = steps[at].said

        def with_these(said: Sequence[bytes]) -> list[Step]:
            return [*steps[:at], Step(steps[at].group, (*said, last)), *steps[at + 1 :]]

        async def diverges(fewer: Sequence[bytes]) -> bool:
            return await self._diverges(with_these(fewer))

        return with_these(await self._fewer(said, diverges))

    async def _fewer(
        self, parts: Sequence[T], diverges: Callable[[Sequence[T]], Awaitable[bool]]
    ) -> list[T]:
        """Leaves out halves, then quarters and so on, down to single ones."""
        kept, size = list(parts), max(1, len(parts) // 2)
        while kept:
            at = 0
            while at < len(kept):
                fewer = kept[:at] + kept[at + size :]
                if await diverges(fewer):
                    kept = fewer
                else:
                    at += size
            if size == 1:
                break
            size //= 2
        return kept

    async def _diverges(self, steps: Sequence[Step]) -> bool:
        for _ in range(AGAIN):
            if self._tries >= MOST_TRIES or not steps:
                return False
            self._tries += 1
            if await self._try(list(steps)):
                return True
        return False

    async def _try(self, steps: list[Step]) -> bool:
        report = Report(0)
        number = self._rnd.randrange(10**6)
        pair = Pair(number, [self._prologue, *steps], report, shown=None)
        with trio.move_on_after(PATIENCE) as scope:
            await pair.run(self._place)
        if len(pair.sides) == 2 and pair.sides[1].ended:
            return False  # what is left is no legal sequence
        if scope.cancelled_caught and len(pair.sides) == 2 and pair.sides[1].owed.settled:
            self._last = f"{pair.transcript}\n    a hang: {pair}"
            return True
        if report.divergences:
            self._last = report.divergences[0].transcript
        return bool(report.divergences)

    async def _disturb(self) -> None:
        """Holds a server now and then, so that others change theirs, and prepares something."""
        side = await Side.open(self._place.pooler, THROUGH, self._place.user)
        await side.hear()
        try:
            while True:
                some = parse(f"SELECT {self._rnd.randrange(10)}")
                for said in ([query("BEGIN")], [some, SYNC], [query("ROLLBACK")]):
                    await trio.sleep(self._rnd.random() * 0.004)
                    side.ask(said)
                    await side.send(said)
                    await side.hear()
        finally:
            side.close()

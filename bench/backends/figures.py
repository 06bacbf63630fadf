"""What is measured, what it gave, and the bars to meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.backends.stacks import BASELINE, Stack
from bench.figures import Bar, Spread

__all__ = ["ROWS", "Result", "Row", "bars"]


@dataclass(frozen=True)
class Row:
    """*workload* as servers.py and inside.py name it; ``proxy`` covers ``relay``, beside it."""

    workload: str
    unit: str  # what one figure is for
    connections: int = 0
    size: int = 0  # bytes of a message

    @property
    def name(self) -> str:
        if not self.size:
            return self.workload
        size = f"{self.size} B" if self.size < 1024 else f"{self.size // 1024} kB"
        many = "" if self.connections == 1 else "s"
        return f"{self.workload}, {self.connections:,} connection{many}, {size}"


ROWS = (
    *(
        Row("echo", "µs of CPU for a round trip", connections, size)
        for size in (64, 16384)
        for connections in (1, 64, 1000)
    ),
    Row("accept", "µs of CPU for a connection"),
    *(
        Row("proxy", "µs of CPU for a message there and back", connections, size)
        for size in (64, 16384)
        for connections in (64, 1000)
    ),
    Row("wakeup", "µs of CPU for a wake-up by another thread"),
    Row("memory", "kB for a task that waits on a connection"),
)


@dataclass
class Result:
    """The cost of one unit, round by round, for each stack; the less the better."""

    row: Row
    costs: dict[Stack, list[float]] = field(default_factory=dict)

    def spread(self, stack: Stack) -> Spread | None:
        return Spread.of(self.costs.get(stack, []))

    def ratio(self, stack: Stack) -> Spread | None:
        """How many times more units than stock Trio for the same CPU time (or memory).

        Of the ratios of single rounds, which follow each other closely, not of the medians.
        """
        pairs = zip(self.costs.get(BASELINE, []), self.costs.get(stack, []), strict=False)
        return Spread.of([stock / ours for stock, ours in pairs if ours > 0])


STREAMS_RATIO = 1.3  # our streams on io_uring, at 64 connections
SOCKETS_RATIO = 0.97  # Trio's own sockets on any backend
RELAY_RATIO = 5.0


def bars(results: Sequence[Result]) -> list[Bar]:
    """Those that these results can tell of."""
    found: list[Bar] = []
    unit = "of stock Trio's units per CPU second"
    for result in results:
        row = result.row
        for stack in result.costs:
            limit = _limit(row, stack)
            if limit is not None:
                what = f"{row.name}: {stack.name}"
                found.append(Bar(what, False, limit, result.ratio(stack), unit))
    return found


def _limit(row: Row, stack: Stack) -> float | None:
    if stack == BASELINE or not stack.is_trio or row.workload == "memory":
        return None
    if stack.streams == "sockets":
        return SOCKETS_RATIO
    if stack.streams == "relay":
        return RELAY_RATIO
    if row.workload == "echo" and row.connections == 64 and stack.loop == "io_uring":
        return STREAMS_RATIO
    return None


def as_json(results: Sequence[Result], about: Mapping[str, str]) -> dict[str, object]:
    """Everything, each single round included."""
    return {
        "about": dict(about),
        "rows": [
            {
                "row": result.row.name,
                "unit": result.row.unit,
                "costs": {stack.name: costs for stack, costs in result.costs.items()},
            }
            for result in results
        ],
        "bars": [bar.as_json() for bar in bars(results)],
    }

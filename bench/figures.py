"""The arithmetic of the figures: what a round gave, medians, ratios, and the bars to meet."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

__all__ = [
    "BASELINE",
    "IDLE_KB",
    "METRICS",
    "OURS",
    "PROTOCOLS",
    "Bar",
    "Idle",
    "Round",
    "Row",
    "RowResult",
    "Spread",
    "bars",
    "percentile",
    "three_digits",
]

BASELINE = "PgBouncer"
PROTOCOLS = ("simple", "extended", "prepared", "settings")

# The figures of a round, with what they are called and counted in.
METRICS: Mapping[str, str] = {
    "cpu_us": "CPU of the pooler, µs per transaction",
    "tps": "Transactions per second",
    "mean_ms": "Mean latency, ms",
    "p99_ms": "99th percentile of latency, ms",
}


@dataclass(frozen=True)
class Row:
    """What is measured: *kind* is one of PROTOCOLS, or ``connect``, at so many clients."""

    kind: str
    clients: int


@dataclass(frozen=True)
class Round:
    """What one round of one peer gave. *cpu_us* is None where there is no pooler."""

    tps: float
    mean_ms: float
    p99_ms: float
    cpu_us: float | None
    transactions: int


@dataclass(frozen=True)
class Spread:
    """The median of the figures of some rounds, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there are no values."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class RowResult:
    """The rounds of one row: for each peer one entry a round, None where that round failed."""

    row: Row
    rounds: dict[str, list[Round | None]]

    def figures(self, peer: str, metric: str) -> list[float | None]:
        """A metric (a key of METRICS) of one peer, round by round."""
        rounds = self.rounds.get(peer, [])
        return [None if each is None else getattr(each, metric) for each in rounds]

    def spread(self, peer: str, metric: str) -> Spread | None:
        """Over the rounds that gave this metric."""
        return Spread.of([each for each in self.figures(peer, metric) if each is not None])

    def ratio(self, peer: str, metric: str) -> Spread | None:
        """To PgBouncer: of the ratios of each single round, not the ratio of the medians.

        The rounds of a row follow each other within seconds, so that what else the machine does
        falls on both sides of each ratio.
        """
        ours, theirs = self.figures(peer, metric), self.figures(BASELINE, metric)
        pairs = zip(ours, theirs, strict=False)
        return Spread.of([a / b for a, b in pairs if a is not None and b])


@dataclass(frozen=True)
class Idle:
    """What *clients* that have logged in and do nothing cost one pooler.

    Memory in kB of 1,024 bytes, before them and with them; *login_us* is CPU of the pooler.
    """

    clients: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    login_us: float

    @property
    def kb_per_client(self) -> float:
        """Growth of the resident set for each client."""
        return (self.after["rss"] - self.before["rss"]) / self.clients


@dataclass(frozen=True)
class Bar:
    """A limit that was set before anything was measured, and what was measured."""

    what: str
    at_most: bool
    limit: float
    measured: Spread | None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """By the median; None where it was not measured."""
        if self.measured is None:
            return None
        if self.at_most:
            return self.measured.median <= self.limit
        return self.measured.median >= self.limit

    def as_json(self) -> dict[str, object]:
        """With the verdict."""
        return {**asdict(self), "met": self.met}


# Peer, clients, and the most CPU per transaction, as a part of PgBouncer's.
CPU_BARS = (
    ("io_uring", 20, 0.80),
    ("io_uring", 100, 0.70),
    ("epoll", 20, 1.0),
    ("epoll", 100, 1.0),
)
PREPARED_RATIO = 0.75  # at 20 clients; of a PgBouncer without prepared statements, its extended
IDLE_KB = 8.0
CONNECT_RATIO = 1.5
OURS = ("io_uring", "epoll")


def bars(results: Sequence[RowResult], idle: Mapping[str, Idle]) -> list[Bar]:
    """Every bar, also those that this run did not measure."""
    by_row = {result.row: result for result in results}

    def ratio(kind: str, clients: int, peer: str, metric: str) -> Spread | None:
        result = by_row.get(Row(kind, clients))
        return result.ratio(peer, metric) if result else None

    found = []
    for peer, clients, limit in CPU_BARS:
        for kind in ("simple", "extended"):
            what = f"CPU per transaction, {peer}, {clients} clients, {kind}"
            measured = ratio(kind, clients, peer, "cpu_us")
            found.append(Bar(what, True, limit, measured, "of PgBouncer's"))
    what = "CPU per transaction, io_uring, 20 clients, prepared"
    measured = ratio("prepared", 20, "io_uring", "cpu_us")
    found.append(Bar(what, True, PREPARED_RATIO, measured, "of PgBouncer's"))
    for peer in OURS:
        for clients in (20, 100):
            for kind in ("simple", "extended"):
                what = f"transactions per second, {peer}, {clients} clients, {kind}"
                measured = ratio(kind, clients, peer, "tps")
                found.append(Bar(what, False, 1.0, measured, "of PgBouncer's"))
    for peer in OURS:
        what = f"CPU per connect-query-disconnect, {peer}"
        measured = ratio("connect", 20, peer, "cpu_us")
        found.append(Bar(what, True, CONNECT_RATIO, measured, "of PgBouncer's"))
    for peer in OURS:
        measured = Spread.of([idle[peer].kb_per_client]) if peer in idle else None
        found.append(Bar(f"memory per idle client, {peer}", True, IDLE_KB, measured, "kB"))
    return found


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that *part* (0 to 1) of all values do not exceed: nearest rank."""
    if not values:
        raise ValueError("a percentile of nothing")
    return sorted(values)[max(math.ceil(part * len(values)), 1) - 1]


def three_digits(value: float) -> str:
    """For people, since more is noise: 0.0834, 12.3, 456, 41,234 (whole numbers stay whole)."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(digits, 0)}f}"

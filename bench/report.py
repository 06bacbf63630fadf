"""The report: tables in Markdown that can be read as they are, and the raw figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.figures import BASELINE, METRICS, OURS, Bar, Idle, RowResult, Spread, bars, three_digits

__all__ = ["Report"]

NOTHING = "–"


@dataclass(frozen=True)
class Report:
    """What a run found. *about*: its circumstances; *notes*: what to beware of."""

    about: Mapping[str, str]
    results: Sequence[RowResult]
    idle: Mapping[str, Idle]
    notes: Sequence[str]

    def text(self) -> str:
        """In Markdown, for a terminal too."""
        parts = ["# trio-pooler beside PgBouncer", self._about()]
        parts += [self._table(metric) for metric in METRICS if self.results]
        if self.idle:
            parts.append(self._idle())
        parts.append(_bars(bars(self.results, self.idle)))
        if self.notes:
            parts.append("## Beware\n\n" + "\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def json(self) -> str:
        """Everything, the figures of each single round included."""
        rows = [
            {
                "kind": result.row.kind,
                "clients": result.row.clients,
                "peers": {
                    peer: {
                        "rounds": [each and asdict(each) for each in rounds],
                        "spread": self._spreads(result, peer),
                        "ratio": self._ratios(result, peer),
                    }
                    for peer, rounds in result.rounds.items()
                },
            }
            for result in self.results
        ]
        idle = {
            peer: {**asdict(found), "kb_per_client": found.kb_per_client}
            for peer, found in self.idle.items()
        }
        judged = [bar.as_json() for bar in bars(self.results, self.idle)]
        found = {"about": self.about, "rows": rows, "idle": idle, "bars": judged}
        return json.dumps({**found, "notes": self.notes}, indent=1, ensure_ascii=False) + "\n"

    def _spreads(self, result: RowResult, peer: str) -> dict[str, object]:
        spreads = {metric: result.spread(peer, metric) for metric in METRICS}
        return {metric: spread and asdict(spread) for metric, spread in spreads.items()}

    def _ratios(self, result: RowResult, peer: str) -> dict[str, object]:
        ratios = {metric: result.ratio(peer, metric) for metric in METRICS}
        return {metric: ratio and asdict(ratio) for metric, ratio in ratios.items()}

    def _about(self) -> str:
        return "\n".join(f"- {name}: {text}" for name, text in self.about.items())

    def _table(self, metric: str) -> str:
        peers = list(dict.fromkeys(peer for each in self.results for peer in each.rounds))
        compared = [peer for peer in peers if peer in OURS and BASELINE in peers]
        # Where no pooler is, there is no CPU of a pooler.
        peers = [p for p in peers if any(each.spread(p, metric) for each in self.results)]
        rows = []
        for result in self.results:
            values = [_median(result.spread(peer, metric)) for peer in peers]
            ratios = [_spread(result.ratio(peer, metric)) for peer in compared]
            rows.append([result.row.kind, f"{result.row.clients:,}", *values, *ratios])
        head = ["row", "clients", *peers, *(f"{peer} : {BASELINE}" for peer in compared)]
        return f"## {METRICS[metric]}\n\n{_markdown(head, rows)}"

    def _idle(self) -> str:
        rows = [
            [
                peer,
                f"{found.clients:,}",
                f"{found.kb_per_client:.1f}",
                f"{found.before['rss']:,}",
                f"{found.after['rss']:,}",
                f"{found.login_us:.0f}",
            ]
            for peer, found in self.idle.items()
        ]
        head = ["pooler", "clients", "kB per client", "kB before", "kB with them", "µs per login"]
        return f"## Idle clients: resident memory, and CPU of the pooler\n\n{_markdown(head, rows)}"


def _bars(judged: Sequence[Bar]) -> str:
    """The limits and whether they are met, of those for which this run has figures."""
    rows = [
        [
            bar.what,
            f"{'≤' if bar.at_most else '≥'} {bar.limit:.2f} {bar.unit}",
            # A digit more than the limit has: what just misses it is not to look as if it met it.
            _spread(bar.measured, digits=3),
            "yes" if bar.met else "NO",
        ]
        for bar in judged
        if bar.measured is not None
    ]
    parts = ["## Bars"]
    if rows:
        parts.append(_markdown(["bar", "limit", "measured", "met"], rows, text=(0, 1)))
    if len(rows) < len(judged):
        parts.append(f"Not measured in this run: {len(judged) - len(rows)} of {len(judged)} bars.")
    return "\n\n".join(parts)


def _median(spread: Spread | None) -> str:
    return NOTHING if spread is None else three_digits(spread.median)


def _spread(spread: Spread | None, digits: int = 2) -> str:
    """Such as ``0.71 (0.69–0.74)``: the median, the least and the greatest."""
    if spread is None:
        return NOTHING
    median, least, greatest = (
        f"{each:.{digits}f}" for each in (spread.median, spread.least, spread.greatest)
    )
    return median if spread.least == spread.greatest else f"{median} ({least}–{greatest})"


def _markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)
) -> str:
    """A table whose columns are aligned in the source too: those in *text* left, others right."""
    widths = [max(len(each) for each in column) for column in zip(head, *rows, strict=True)]

    def cell(value: str, column: int) -> str:
        width = widths[column]
        return value.ljust(width) if column in text else value.rjust(width)

    def line(values: Sequence[str]) -> str:
        return f"| {' | '.join(cell(value, n) for n, value in enumerate(values))} |"

    rule = ["-" * w if n in text else "-" * (w - 1) + ":" for n, w in enumerate(widths)]
    return "\n".join(line(each) for each in [head, rule, *rows])

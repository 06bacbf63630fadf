"""The plot of a run, drawn with matplotlib where that is installed (the extra ``bench``)."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import BASELINE, IDLE_KB, METRICS, Idle, RowResult, Spread, three_digits
from bench.peers import DIRECT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    # Draws itself on axes.
    Panel = Callable[[Axes], None]

__all__ = ["draw"]

# Colours that the colour-blind can tell apart (Okabe and Ito, Color Universal Design).
COLOURS = {DIRECT: "#999999", BASELINE: "#E69F00", "io_uring": "#0072B2", "epoll": "#56B4E9"}
NAMES = {
    DIRECT: "PostgreSQL alone",
    BASELINE: BASELINE,
    "io_uring": "trio-pooler, io_uring",
    "epoll": "trio-pooler, epoll",
}
TITLES = {
    "simple": "simple protocol",
    "extended": "extended protocol",
    "prepared": "prepared statements",
    "settings": "a search_path for each client",
}
# The metrics that are drawn, with the label of their axis.
LABELS = {"cpu_us": "µs per transaction", "tps": "transactions per second", "p99_ms": "ms"}

# Heights in inches: of the title with the legend, and of a line of panels.
HEAD, PANEL = 0.8, 3.2


def draw(
    results: Sequence[RowResult],
    idle: Mapping[str, Idle],
    about: Mapping[str, str],
    path: Path,
) -> str | None:
    """Writes the plot to *path*; where that cannot be, the words to say instead."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "No plot (matplotlib is not installed: pip install matplotlib); table, raw figures"
    lines = [line for line in (*_by_metric(results), _last_line(results, idle)) if line]
    if not lines:
        return "No plot (nothing was measured); table, raw figures"
    heights = [HEAD, *[PANEL] * len(lines)]
    figure = Figure(figsize=(14, sum(heights) + HEAD), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    head, *parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, line in zip(parts, lines, strict=True):
        for axes, panel in zip(part.subplots(1, len(line), squeeze=False)[0], line, strict=True):
            panel(axes)
    _title(head, {*idle, *(peer for each in results for peer in each.rounds)})
    _circumstances(figure, about)
    figure.savefig(path)
    return None


def _by_metric(results: Sequence[RowResult]) -> list[list[Panel]]:
    """A line for each metric, in it a panel for each protocol that was measured."""
    by_kind = [[each for each in results if each.row.kind == kind] for kind in TITLES]
    return [[partial(_metric, name, of) for of in by_kind if of] for name in LABELS]


def _last_line(results: Sequence[RowResult], idle: Mapping[str, Idle]) -> list[Panel]:
    panels: list[Panel] = []
    for result in results:
        if result.row.kind == "connect":
            spreads = {peer: result.spread(peer, "cpu_us") for peer in result.rounds}
            title = f"CPU per connect-query-disconnect, {result.row.clients} clients"
            panels.append(partial(_each, title, "µs of the pooler", spreads, None))
    if idle:
        spreads = {peer: Spread.of([found.kb_per_client]) for peer, found in idle.items()}
        count = next(iter(idle.values())).clients
        title = f"Memory per idle client, {count:,} clients"
        panels.append(partial(_each, title, "kB (1,024 bytes), resident", spreads, IDLE_KB))
    return panels


def _metric(metric: str, results: Sequence[RowResult], axes: Axes) -> None:
    """A panel of one metric: a group for each number of clients, in it a bar for each peer."""
    peers = [peer for peer in COLOURS if any(each.spread(peer, metric) for each in results)]
    width = 0.84 / max(len(peers), 1)
    for number, peer in enumerate(peers):
        for group, result in enumerate(results):
            spread = result.spread(peer, metric)
            if spread is not None:
                at = group + (number - (len(peers) - 1) / 2) * width
                _mark(axes, at, width, spread, peer, as_point=metric == "p99_ms")
    axes.set_xticks(range(len(results)), [f"{each.row.clients:,}" for each in results])
    axes.set_xlabel("clients")
    axes.set_ylabel(LABELS[metric])
    title = METRICS[metric].split(",")[0] + (" (logarithmic)" if metric == "p99_ms" else "")
    axes.set_title(f"{title}, {TITLES[results[0].row.kind]}")
    # A few bars are not to be as broad as the panel.
    middle, half = (len(results) - 1) / 2, max(len(results) / 2, 1.5) + 0.05
    axes.set_xlim(middle - half, middle + half)
    _scale(axes, logarithmic=metric == "p99_ms")


def _each(
    title: str,
    label: str,
    spreads: Mapping[str, Spread | None],
    limit: float | None,
    axes: Axes,
) -> None:
    """A panel with one bar for each peer."""
    shown = [(peer, spread) for peer in COLOURS if (spread := spreads.get(peer)) is not None]
    for at, (peer, spread) in enumerate(shown):
        _mark(axes, at, 0.6, spread, peer)
    axes.set_xticks(range(len(shown)), [NAMES[peer] for peer, _spread in shown])
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.set_ylabel(label)
    axes.set_title(title)
    if limit is not None:
        axes.axhline(limit, color="#444444", linestyle="--", linewidth=1)
        axes.annotate(f"limit {limit:.0f}", (-0.58, limit), va="bottom", fontsize=8)
    _scale(axes)


def _mark(
    axes: Axes, at: float, width: float, spread: Spread, peer: str, *, as_point: bool = False
) -> None:
    """The median, its figure above it, and a line from the least to the greatest."""
    colour = COLOURS[peer]
    if as_point:
        axes.plot([at], [spread.median], "o", color=colour, markersize=6)
    else:
        axes.bar(at, spread.median, width * 0.92, color=colour)
    line = colour if as_point else "#333333"
    axes.vlines(at, spread.least, spread.greatest, color=line, linewidth=1.2)
    axes.annotate(
        _short(spread.median),
        (at, spread.greatest),
        xytext=(0, 4 if as_point else 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
    )


def _scale(axes: Axes, *, logarithmic: bool = False) -> None:
    from matplotlib.ticker import LogLocator

    if logarithmic:
        # Latency grows with the number of clients: on one linear axis only the last group shows.
        axes.set_yscale("log", subs=[])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.margins(y=0.18)
        axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,g}")
    else:
        axes.set_ylim(bottom=0.0, top=axes.dataLim.ymax * 1.12)
        axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.10g}")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _short(value: float) -> str:
    """What fits above a bar: 0.46, 11.9, 456, 8.3k, 42.1k."""
    if value >= 1000:
        return f"{value / 1000:.1f}k"
    return three_digits(value) if value >= 1 else f"{value:#.2g}"


def _title(head: SubFigure, present: set[str]) -> None:
    """With the legend, which is the same for all panels."""
    from matplotlib.patches import Patch

    handles = [Patch(color=COLOURS[peer], label=NAMES[peer]) for peer in COLOURS if peer in present]
    head.suptitle("pgbench -S through each pooler, transaction mode, 20 servers", fontsize=15)
    head.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=11)


def _circumstances(figure: Figure, about: Mapping[str, str]) -> None:
    found = "; ".join(f"{name} {text}" for name, text in about.items())
    lines = [
        "Bars, points and numbers: the median of the rounds. Thin lines: from least to greatest.",
        *textwrap.wrap(found, 180),
    ]
    figure.supxlabel("\n".join(lines), fontsize=8.5, color="#444444")

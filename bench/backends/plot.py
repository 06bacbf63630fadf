"""The plot of a run: for each row, how many times stock Trio's work the same CPU time does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.backends.figures import Result
from bench.backends.stacks import BASELINE, Stack

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

# Colours that the colour-blind can tell apart (Okabe and Ito, Color Universal Design).
LOOPS = {
    "stock": "#999999",
    "io_uring": "#0072B2",
    "epoll": "#56B4E9",
    "kqueue": "#009E73",
    "asyncio": "#E69F00",
    "uvloop": "#D55E00",
}
COLUMNS = 3
PANEL = (5.0, 3.0)  # inches


def draw(results: Sequence[Result], path: Path) -> str:
    """Writes the plot to *path*; returns what to call what was written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "Table and raw figures (no plot: matplotlib is not installed)"
    if not results:
        return "Nothing was measured"
    lines = -(-len(results) // COLUMNS)
    size = (PANEL[0] * COLUMNS, PANEL[1] * lines + 0.6)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("trio_backends: work done for the same CPU time (or memory), stock Trio = 1")
    panels = figure.subplots(lines, COLUMNS, squeeze=False).flat
    for axes, result in zip(panels, results, strict=False):
        _panel(axes, result)
    for axes in list(figure.axes)[len(results) :]:
        axes.set_axis_off()
    figure.savefig(path)
    return "Table, raw figures and plot"


def _panel(axes: Axes, result: Result) -> None:
    shown = [stack for stack in result.costs if result.ratio(stack) is not None]
    for place, stack in enumerate(reversed(shown)):
        ratio = result.ratio(stack)
        assert ratio is not None
        reach = [[ratio.median - ratio.least], [ratio.greatest - ratio.median]]
        axes.barh(place, ratio.median, xerr=reach, color=LOOPS.get(stack.loop), ecolor="#444444")
        axes.text(0.02, place, f"{ratio.median:.2f}", va="center", fontsize=8, color="white")
    axes.set_yticks(range(len(shown)), [_name(stack) for stack in reversed(shown)], fontsize=8)
    axes.axvline(1.0, color="#444444", linewidth=0.8)
    axes.set_title(result.row.name, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)


def _name(stack: Stack) -> str:
    return "stock" if stack == BASELINE else stack.name

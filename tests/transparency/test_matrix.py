"""Every row of the table, direct and through the pooler; and the page that is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import trio_backends
from tests.support.backends import BACKENDS
from tests.transparency.matrix import Matrix
from tests.transparency.page import page
from tests.transparency.rows import ROWS
from tests.transparency.table import DIFFERS, MODES, PINNED, PINS, SAME, Mode, Row

ROOT = Path(__file__).parents[2]


def _backends() -> dict[Mode, list[str]]:
    """Transaction mode is measured on each backend, the other modes on one, in turn."""
    names = [getattr(backend, "values", (backend,))[0] for backend in BACKENDS]
    why_not = trio_backends.available_backends()
    able = [name for name in names if why_not.get(name) is None]
    return {
        mode: able if mode.name == "transaction" else [able[number % len(able)]]
        for number, mode in enumerate(MODES)
    }


MEASURED_ON = _backends()
CASES = [
    pytest.param(row, mode, backend, id=f"{row.name}-{mode.name}-{backend}")
    for mode in MODES
    for backend in MEASURED_ON[mode]
    for row in ROWS
]


@pytest.mark.parametrize(("row", "mode", "backend"), CASES)
def test_row(matrix: Matrix, row: Row, mode: Mode, backend: str) -> None:
    direct = matrix.direct(row)
    assert "broken off" not in direct[-1], direct
    measured = matrix.measure(row, mode, backend)
    assert measured.verdict == row.verdict(mode), measured.difference


def test_the_page_in_docs_is_what_is_made_now(matrix: Matrix) -> None:
    made = page(lambda row, mode: matrix.measure(row, mode, MEASURED_ON[mode][0]).verdict)
    assert (ROOT / "docs" / "transparency.md").read_text(encoding="utf-8") == made, "run: make docs"


def test_the_table_is_large_and_says_why() -> None:
    assert len(ROWS) >= 60
    assert len({row.name for row in ROWS}) == len({row.title for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.title, row.name
        assert bool(row.why) == (DIFFERS in row.expected.values()), row.name
        assert SAME not in row.expected.values(), row.name


def test_transaction_mode_is_hardly_ever_another() -> None:
    verdicts = [row.expected.get("transaction", SAME) for row in ROWS]
    assert verdicts.count(DIFFERS) * 10 <= len(ROWS)
    pinned = [verdict.removeprefix(PINNED) for verdict in verdicts if verdict.startswith(PINNED)]
    assert {reason for reasons in pinned for reason in reasons.split(", ")} <= set(PINS)

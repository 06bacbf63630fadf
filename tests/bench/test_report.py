"""The report: what a person reads, and what a program reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import plot
from bench.figures import BASELINE, Idle, Round, Row, RowResult
from bench.report import Report
from bench.run import parse_arguments

ABOUT = {"date": "2025-01-01 00:00 UTC"}


def a_result() -> RowResult:
    ours = [Round(22000.0, 0.9, 1.5, cpu, 44000) for cpu in (12.0, 13.0, 15.0)]
    theirs = [Round(20000.0, 1.0, 2.0, 20.0, 40000)] * 3
    alone = [Round(30000.0, 0.6, 1.2, None, 60000), None, None]
    peers: dict[str, list[Round | None]] = {"direct": alone, BASELINE: [*theirs]}
    return RowResult(Row("simple", 20), {**peers, "io_uring": [*ours]})


def an_idle() -> dict[str, Idle]:
    return {"io_uring": Idle(10_000, {"rss": 50_000}, {"rss": 87_000}, 43.0)}


def cells(text: str, first: str) -> list[list[str]]:
    """The lines of all tables whose first cell is *first*."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    return [row for row in rows if row[0] == first]


def test_the_tables() -> None:
    text = Report(ABOUT, [a_result()], an_idle(), []).text()
    cpu, tps, _mean, p99 = cells(text, "simple")
    assert cpu == ["simple", "20", "20.0", "13.0", "0.65 (0.60–0.75)"]
    assert tps == ["simple", "20", "30,000", "20,000", "22,000", "1.10"]
    assert p99 == ["simple", "20", "1.20", "2.00", "1.50", "0.75"]
    assert cells(text, "io_uring")[0][:3] == ["io_uring", "10,000", "3.7"]


def test_the_bars_that_were_measured_with_their_verdict() -> None:
    text = Report(ABOUT, [a_result()], an_idle(), []).text()
    [bar] = cells(text, "CPU per transaction, io_uring, 20 clients, simple")
    assert bar[1:] == ["≤ 0.80 of PgBouncer's", "0.650 (0.600–0.750)", "yes"]
    assert not cells(text, "CPU per transaction, io_uring, 100 clients, simple")
    assert "Not measured in this run: 18 of 21 bars" in text


def test_a_miss_by_little_does_not_look_like_a_hit() -> None:
    result = a_result()
    result.rounds["io_uring"] = [Round(19960.0, 1.0, 2.0, 16.04, 40000)] * 3
    text = Report(ABOUT, [result], {}, []).text()
    [bar] = cells(text, "transactions per second, io_uring, 20 clients, simple")
    assert bar[1:] == ["≥ 1.00 of PgBouncer's", "0.998", "NO"]


def test_what_could_not_be_measured_is_told() -> None:
    text = Report(ABOUT, [], {}, ["PgBouncer is not installed"]).text()
    assert "- PgBouncer is not installed" in text


def test_the_raw_figures() -> None:
    found = json.loads(Report(ABOUT, [a_result()], an_idle(), ["a note"]).json())
    [row] = found["rows"]
    assert (row["kind"], row["clients"]) == ("simple", 20)
    assert [each["cpu_us"] for each in row["peers"]["io_uring"]["rounds"]] == [12.0, 13.0, 15.0]
    assert row["peers"]["direct"]["rounds"][1] is None
    assert row["peers"]["io_uring"]["ratio"]["cpu_us"]["median"] == pytest.approx(0.65)
    assert found["idle"]["io_uring"]["kb_per_client"] == pytest.approx(3.7)
    assert found["notes"] == ["a note"]


def test_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    assert plot.draw([a_result()], an_idle(), ABOUT, path) is None
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "nothing was measured" in (plot.draw([], {}, ABOUT, path) or "")


def test_arguments() -> None:
    options = parse_arguments(["--quick", "--clients", "100,20", "--rows", "idle,simple"])
    assert (options.seconds, options.rounds) == (1, 2)
    assert options.clients == [20, 100]
    assert options.rows == ["simple", "idle"]
    usual = parse_arguments([])
    assert (usual.seconds, usual.rounds, usual.clients) == (2, 5, [1, 20, 100, 1000])


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--rows", "complex"], "'complex' is none of simple, extended"),
        (["--clients", "20,none"], "'none' is not a whole number from 1"),
        (["--rounds", "0"], "'0' is not a whole number from 1"),
    ],
)
def test_arguments_that_make_no_sense(
    args: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(args)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err

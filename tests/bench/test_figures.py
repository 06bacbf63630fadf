"""The arithmetic of the benchmarks: medians, ratios round by round, percentiles, bars."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import (
    BASELINE,
    Idle,
    Round,
    Row,
    RowResult,
    Spread,
    bars,
    percentile,
    three_digits,
)


def a_round(*, tps: float = 1000.0, cpu_us: float | None = 10.0) -> Round:
    return Round(tps=tps, mean_ms=1.0, p99_ms=2.0, cpu_us=cpu_us, transactions=1000)


def a_row(kind: str, clients: int, ours: list[Round | None], theirs: list[Round]) -> RowResult:
    return RowResult(Row(kind, clients), {"io_uring": ours, BASELINE: [*theirs]})


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """Not the ratio of the medians, which here is 1.0: the machine was slow in the last rounds."""
    ours = [a_round(cpu_us=each) for each in (6.0, 20.0, 22.0)]
    theirs = [a_round(cpu_us=each) for each in (10.0, 20.0, 44.0)]
    assert a_row("simple", 20, [*ours], theirs).ratio("io_uring", "cpu_us") == Spread(0.6, 0.5, 1.0)


def test_a_round_that_failed_leaves_its_pair_out() -> None:
    result = a_row("simple", 20, [None, a_round(tps=500.0)], [a_round(), a_round()])
    assert result.ratio("io_uring", "tps") == Spread(0.5, 0.5, 0.5)
    assert result.spread("io_uring", "tps") == Spread(500.0, 500.0, 500.0)


def test_without_pgbouncer_there_is_no_ratio() -> None:
    result = RowResult(Row("simple", 20), {"io_uring": [a_round()]})
    assert result.ratio("io_uring", "tps") is None


def test_without_a_pooler_there_is_no_cpu() -> None:
    result = RowResult(Row("simple", 20), {"direct": [a_round(cpu_us=None)]})
    assert result.spread("direct", "cpu_us") is None
    assert result.spread("direct", "tps") is not None


@pytest.mark.parametrize(
    ("part", "expected"), [(0.0, 1.0), (0.5, 5.0), (0.9, 9.0), (0.99, 10.0), (1.0, 10.0)]
)
def test_percentiles_of_ten_values(part: float, expected: float) -> None:
    assert percentile([float(each) for each in range(10, 0, -1)], part) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_bounds_its_part_of_the_values(values: list[float], part: float) -> None:
    found = percentile(values, part)
    assert found in values
    assert sum(each <= found for each in values) >= part * len(values) - 1e-9


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.99)


@pytest.mark.parametrize(
    ("cpu_us", "clients", "met"),
    [(8.0, 20, True), (8.1, 20, False), (7.0, 100, True), (7.1, 100, False)],
)
def test_the_bar_of_cpu_per_transaction(cpu_us: float, clients: int, met: bool) -> None:
    results = [a_row("extended", clients, [a_round(cpu_us=cpu_us)], [a_round(cpu_us=10.0)])]
    what = f"CPU per transaction, io_uring, {clients} clients, extended"
    assert [bar.met for bar in bars(results, {}) if bar.what == what] == [met]


@pytest.mark.parametrize(("tps", "met"), [(999.0, False), (1000.0, True), (1200.0, True)])
def test_the_bar_of_transactions_per_second(tps: float, met: bool) -> None:
    results = [a_row("simple", 100, [a_round(tps=tps)], [a_round(tps=1000.0)])]
    what = "transactions per second, io_uring, 100 clients, simple"
    assert [bar.met for bar in bars(results, {}) if bar.what == what] == [met]


@pytest.mark.parametrize(("kb", "met"), [(80_000, True), (80_010, False)])
def test_the_bar_of_idle_clients(kb: int, met: bool) -> None:
    idle = Idle(10_000, {"rss": 50_000}, {"rss": 50_000 + kb}, login_us=50.0)
    found = [bar for bar in bars([], {"epoll": idle}) if bar.measured is not None]
    assert [(bar.what, bar.met) for bar in found] == [("memory per idle client, epoll", met)]


def test_a_bar_that_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {bar.met for bar in bars([], {})} == {None}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.08344, "0.0834"),
        (0.5, "0.500"),
        (11.94, "11.9"),
        (456.4, "456"),
        (41234.4, "41,234"),
    ],
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text

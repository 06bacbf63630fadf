"""pgbench's log, and the figures of the time that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Row
from bench.peers import BenchFailed, Peer
from bench.pgbench import (
    Reading,
    Transaction,
    command,
    connection_time,
    figures,
    parse_log,
)


def load(count: int, interval: float, *, clients: int = 1) -> list[Transaction]:
    """Transactions that end at *interval*, 2 × *interval* …, of the clients in turn."""
    return [Transaction(n % clients, (n + 1) * interval, 1.0) for n in range(count)]


def readings(until: float, *, cpu: float) -> list[Reading]:
    """Every 50 ms; *cpu* is the part of that time that was used."""
    times = [n * 0.05 for n in range(round(until / 0.05) + 1)]
    return [Reading(at, round(at * cpu * 1e9)) for at in times]


def test_lines_of_the_log() -> None:
    lines = ["0 199 2241 0 1175850568 995598\n", "7 200 88 0 1175850569 600 120\n"]
    assert parse_log(lines) == [
        Transaction(0, 1175850568.995598, 2.241),
        Transaction(7, 1175850569.0006, 0.088),
    ]


@pytest.mark.parametrize("word", ["failed", "skipped", "serialization", "deadlock"])
def test_transactions_that_did_not_succeed_are_not_counted(word: str) -> None:
    assert parse_log([f"3 0 {word} 0 1499414498 84905\n"]) == []


def test_a_line_that_is_none_of_pgbench_is_an_error() -> None:
    with pytest.raises(BenchFailed, match="line of pgbench's log"):
        parse_log(["0 199 2241\n"])


def test_cpu_and_rate_are_those_of_the_same_time() -> None:
    """1,000 a second for 2 s, with half a processor: 500 µs each."""
    found = figures(load(2000, 0.001), readings(3.0, cpu=0.5))
    assert found.tps == pytest.approx(1000, rel=0.01)
    assert found.cpu_us == pytest.approx(500, rel=0.01)
    assert 1500 < found.transactions < 2000


def test_what_the_pooler_does_before_and_after_the_load_is_not_counted() -> None:
    """Logins before the first transaction, leaving after the last one."""
    late = [each._replace(ended=each.ended + 1.0) for each in load(1000, 0.001)]
    busy_outside = [
        Reading(each.at, each.nanoseconds + (10**12 if each.at > 2.0 else 0))
        for each in readings(3.0, cpu=0.1)
    ]
    found = figures(late, busy_outside)
    assert found.cpu_us == pytest.approx(100, rel=0.02)
    assert found.tps == pytest.approx(1000, rel=0.02)


def test_latencies() -> None:
    slow = [
        each._replace(latency=9.0) if n % 50 == 0 else each
        for n, each in enumerate(load(2000, 0.001))
    ]
    found = figures(slow, readings(2.0, cpu=0.1))
    assert found.mean_ms == pytest.approx(1.16, rel=0.01)
    assert found.p99_ms == 9.0


def test_reconnecting_the_latency_is_from_end_to_end() -> None:
    """pgbench says 1 ms, without the connecting; four clients in turn, 5 ms apart: 20 ms."""
    found = figures(load(400, 0.005, clients=4), readings(2.0, cpu=0.1), reconnecting=True)
    assert found.mean_ms == pytest.approx(20)
    assert found.p99_ms == pytest.approx(20)
    assert found.tps == pytest.approx(200, rel=0.05)


def test_without_a_pooler_no_cpu() -> None:
    assert figures(load(2000, 0.001), readings(2.0, cpu=0.0), cpu=False).cpu_us is None


@pytest.mark.parametrize("transactions", [[], load(3, 0.01), load(100, 0.001)])
def test_too_short_to_say_anything(transactions: list[Transaction]) -> None:
    with pytest.raises(BenchFailed, match="too short"):
        figures(transactions, readings(2.0, cpu=0.1))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("simple", ["-M simple", "-j 1"]),
        ("extended", ["-M extended", "-j 1"]),
        ("prepared", ["-M prepared", "-j 1"]),
        ("connect", ["-M simple", "-C", "-j 20"]),
    ],
)
def test_the_command(kind: str, options: list[str]) -> None:
    peer = Peer("epoll", 6432)
    args = command(Path("/bin/pgbench"), peer, Row(kind, 20), 2, Path("/tmp/log"))
    line = " ".join(args)
    for option in ["/bin/pgbench -S", "-c 20", "-T 2", "-h 127.0.0.1", "-p 6432", *options]:
        assert option in line
    assert ("-C" in args) == (kind == "connect")


def test_who_keeps_no_prepared_statements_parses_anew() -> None:
    peer = Peer("PgBouncer", 6432, prepares=False)
    args = command(Path("/bin/pgbench"), peer, Row("prepared", 20), 2, Path("/tmp/log"))
    assert "-M extended" in " ".join(args)


def test_the_time_that_clients_take_to_connect() -> None:
    report = "latency average = 24.1 ms\ninitial connection time = 1843.672 ms\ntps = 41 (…)\n"
    assert connection_time(report) == pytest.approx(1.843672)
    assert connection_time("average connection time = 0.4 ms\n") is None


def test_clients_that_differ_in_a_setting_run_a_script() -> None:
    peer = Peer("epoll", 6432)
    args = command(Path("/bin/pgbench"), peer, Row("settings", 20), 2, Path("/tmp/log"))
    script = Path(args[args.index("-f") + 1])
    assert "-S" not in args
    assert "SET search_path TO tenant_:client_id" in script.read_text()

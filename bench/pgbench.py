"""One round of pgbench against one peer, and the figures from its log.

pgbench writes a line for each transaction. Meanwhile we read the pooler's CPU time twenty times a
second. The figures are those of the time between two such readings, so that neither the logins at
the start nor the leaving at the end is in them.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.figures import Round, Row, percentile
from bench.peers import BenchFailed, Peer, TooShort, spawned
from bench.proc import CpuMeter

__all__ = [
    "Reading",
    "Transaction",
    "command",
    "connection_time",
    "figures",
    "fill",
    "parse_log",
    "run_round",
    "warm_up",
]

SAMPLE_INTERVAL = 0.05  # seconds between two readings of the CPU time
SETTLE = 0.2  # seconds after the first transaction that do not count: servers may be opened
SHORTEST = 0.3  # seconds; less says nothing
PATIENCE = 60.0  # seconds above the time asked for, in which a thousand clients connect
SETTINGS = Path(__file__).parent / "settings.sql"  # -S by clients that differ
SCALE = 10  # a million rows, which fit into shared_buffers


class Transaction(NamedTuple):
    """One that succeeded: when it ended (seconds since the epoch), and its latency in ms."""

    client: int
    ended: float
    latency: float


class Reading(NamedTuple):
    """The CPU time that a process had used at a time in seconds since the epoch."""

    at: float
    nanoseconds: int


def fill(pgbench: Path, peer: Peer) -> None:
    """Makes pgbench's tables."""
    _call([str(pgbench), "-i", "-q", "-s", str(SCALE), *_address(peer)])


def command(pgbench: Path, peer: Peer, row: Row, seconds: int, log: Path) -> list[str]:
    """The command of one round, which leaves files whose names begin with *log*."""
    # With -C pgbench waits for each connection: only a thread for each client makes them at once.
    options = ["-C", "-j", str(row.clients)] if row.kind == "connect" else ["-j", "1"]
    clients = ["-c", str(row.clients), "-T", str(seconds), "-M", protocol(peer, row)]
    logging = ["-l", f"--log-prefix={log}"]
    script = ["-f", str(SETTINGS), "-D", "done=0"] if row.kind == "settings" else ["-S"]
    return [str(pgbench), *script, "-n", *clients, *options, *logging, *_address(peer)]


def protocol(peer: Peer, row: Row) -> str:
    """pgbench's -M: a peer that keeps no prepared statements parses each query anew."""
    if row.kind == "prepared":
        return "prepared" if peer.prepares else "extended"
    return "extended" if row.kind == "extended" else "simple"


def _address(peer: Peer) -> list[str]:
    return ["-h", peer.host, "-p", str(peer.port), "-U", "postgres", "postgres"]


def warm_up(pgbench: Path, peer: Peer, row: Row, directory: Path) -> float:
    """A second of load that is not measured; the seconds that the clients took to connect.

    It fills PostgreSQL's cache and the pools. pgbench counts connecting as part of the time that it
    is given: measured rounds are to be that much longer. Raises BenchFailed as run_round() does.
    """
    args = command(pgbench, peer, row, 1, directory / "pgbench")
    begun = time.monotonic()
    try:
        output = _call(args)
    finally:
        _remove_logs(directory)
    if row.kind == "connect":
        return 0.0
    # Not told where the second was over before all had connected.
    return connection_time(output) or time.monotonic() - begun


def connection_time(output: str) -> float | None:
    """Of pgbench's report, in seconds; None where it does not say it."""
    match = re.search(r"^initial connection time = ([\d.]+) ms", output, re.MULTILINE)
    return float(match[1]) / 1e3 if match else None


def run_round(pgbench: Path, peer: Peer, row: Row, seconds: int, directory: Path) -> Round:
    """Raises BenchFailed if pgbench or the pooler failed, with what pgbench said."""
    log = directory / "pgbench"
    try:
        readings = _run(command(pgbench, peer, row, seconds, log), peer, directory, seconds)
        transactions: list[Transaction] = []
        for path in directory.glob("pgbench.*"):
            with path.open() as lines:
                transactions += parse_log(lines)
    finally:
        _remove_logs(directory)
    return figures(transactions, readings, reconnecting=row.kind == "connect", cpu=bool(peer.pid))


def _remove_logs(directory: Path) -> None:
    for path in directory.glob("pgbench.*"):
        path.unlink()


def _run(args: Sequence[str], peer: Peer, directory: Path, seconds: int) -> list[Reading]:
    """Runs pgbench to its end; the readings of the pooler's CPU time meanwhile."""
    meter = CpuMeter(peer.pid) if peer.pid else None
    readings = []
    output = directory / "output"
    deadline = time.monotonic() + seconds + PATIENCE
    with spawned(args, output=output) as process:
        while process.poll() is None:
            try:
                used = meter.nanoseconds() if meter else 0
            except ProcessLookupError as error:
                raise BenchFailed(f"{peer.name}: {error}") from None
            readings.append(Reading(time.time(), used))
            if time.monotonic() > deadline:
                raise BenchFailed(f"pgbench does not end: {output.read_text()[-500:]}")
            time.sleep(SAMPLE_INTERVAL)
    if process.returncode:
        raise BenchFailed(f"pgbench, through {peer.name}: {output.read_text().strip()[-500:]}")
    return readings


def _call(args: Sequence[str]) -> str:
    """Runs a program to its end; what it printed."""
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise BenchFailed(f"{' '.join(args)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def parse_log(lines: Iterable[str]) -> list[Transaction]:
    """The transactions of a log of pgbench, whole lines, without those that failed.

    Fields (pgbench, Per-Transaction Logging): client_id transaction_no time script_no time_epoch
    time_us, and further ones that we do not ask for; time in µs, or a word in its place.
    """
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < 6:
            raise BenchFailed(f"not a line of pgbench's log: {line!r}")
        if fields[2].isdigit():
            ended = int(fields[4]) + int(fields[5]) / 1e6
            found.append(Transaction(int(fields[0]), ended, int(fields[2]) / 1e3))
    return found


def figures(
    transactions: Sequence[Transaction],
    readings: Sequence[Reading],
    *,
    reconnecting: bool = False,
    cpu: bool = True,
) -> Round:
    """The figures of the time between the first and the last reading that lie within the load.

    With *reconnecting* (pgbench -C), latency is from the end of one transaction of a client to the
    end of its next one: pgbench's own leaves the connecting out.

    Raises TooShort where that time is too short to say anything.
    """
    ends = [each.ended for each in transactions]
    begin, finish = (min(ends) + SETTLE, max(ends)) if ends else (0.0, 0.0)
    within = [each for each in readings if begin <= each.at <= finish]
    if len(within) < 2 or within[-1].at - within[0].at < SHORTEST:
        raise TooShort("the round was too short: few transactions, or a machine too busy")
    first, last = within[0], within[-1]
    counted = [each for each in transactions if first.at < each.ended <= last.at]
    latencies = (
        _gaps(transactions, first.at, last.at)
        if reconnecting
        else [each.latency for each in counted]
    )
    if not counted or not latencies:
        raise TooShort("no transaction ended within the time that counts")
    used = (last.nanoseconds - first.nanoseconds) / 1e3
    return Round(
        tps=len(counted) / (last.at - first.at),
        mean_ms=sum(latencies) / len(latencies),
        p99_ms=percentile(latencies, 0.99),
        cpu_us=used / len(counted) if cpu else None,
        transactions=len(counted),
    )


def _gaps(transactions: Sequence[Transaction], begin: float, finish: float) -> list[float]:
    """Milliseconds between the ends of each client's successive transactions, in that time."""
    before: dict[int, float] = {}
    found = []
    for each in sorted(transactions, key=lambda one: one.ended):
        if each.client in before and begin < each.ended <= finish:
            found.append((each.ended - before[each.client]) * 1e3)
        before[each.client] = each.ended
    return found

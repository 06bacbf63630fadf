"""``python -m bench.run``: measures this pooler beside PgBouncer and PostgreSQL alone.

Prints the tables and the bars, and leaves them with the raw figures and a plot in bench/results.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import facts, idle, pgbench, plot, report
from bench.figures import BASELINE, PROTOCOLS, Idle, Round, Row, RowResult
from bench.peers import (
    DIRECT,
    ROOT,
    BenchFailed,
    Peer,
    Start,
    TooShort,
    find_pgbouncer,
    pgbouncer,
    trio_pooler,
)
from bench.proc import children
from pooler.demo import EmbeddedPostgres, PostgresFailed

PEERS = (DIRECT, BASELINE, "io_uring", "epoll")
KINDS = ("simple", "extended", "prepared", "settings", "connect", "idle")
CONNECT_CLIENTS = 20
QUIET_TIMEOUT = 5.0  # seconds that the backends of one round may take to end before the next


def _list_of(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [each.strip() for each in text.split(",")]
        by_lower = {each.lower(): each for each in known}
        unknown = [each for each in names if each.lower() not in by_lower]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [each for each in known if each.lower() in {name.lower() for name in names}]

    return parse


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _counts(text: str) -> list[int]:
    return sorted({_count(each) for each in text.split(",")})


def parse_arguments(args: list[str] | None = None) -> argparse.Namespace:
    """Ends the process with status 2 and a word about it where they make no sense."""
    parser = argparse.ArgumentParser(prog="bench.run", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="2 rounds of 1 s: a look, not a measurement")
    add(
        "--rows",
        type=_list_of(KINDS),
        default=list(KINDS),
        metavar="ROWS",
        help=f"which of {','.join(KINDS)} (default: all)",
    )
    add(
        "--peers",
        type=_list_of(PEERS),
        default=list(PEERS),
        metavar="PEERS",
        help=f"which of {','.join(PEERS)} (default: all)",
    )
    add(
        "--clients",
        type=_counts,
        default=[1, 20, 100, 1000],
        metavar="COUNTS",
        help="clients of all rows but connect and idle (default: 1,20,100,1000)",
    )
    add("--seconds", type=_count, help="of one round of one peer (default: 2)")
    add("--rounds", type=_count, help="of each row (default: 5)")
    add("--idle-clients", type=_count, default=10000, help="of the row idle (default: 10000)")
    out = ROOT / "bench" / "results"
    add("--out", type=Path, default=out, metavar="DIR", help="default: bench/results")
    options = parser.parse_args(args)
    options.seconds = options.seconds or (1 if options.quick else 2)
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


@dataclass
class Bench:
    """A run: what is asked for, what it runs on, and what it has found so far."""

    options: argparse.Namespace
    postgres: EmbeddedPostgres
    directory: Path
    results: list[RowResult] = field(default_factory=list)
    idle: dict[str, Idle] = field(default_factory=dict)
    # Why something that was asked for could not be measured, or is not to be trusted.
    notes: list[str] = field(default_factory=list)

    @property
    def pgbench(self) -> Path:
        """PostgreSQL's own where there is one, else the one on PATH."""
        own = self.postgres.bin_dir / "pgbench"
        found = str(own) if own.exists() else shutil.which("pgbench")
        if found is None:
            raise BenchFailed(f"pgbench is neither in {self.postgres.bin_dir} nor on PATH")
        return Path(found)

    def note(self, text: str) -> None:
        """Says it now, and in the report."""
        _say(f"! {text}")
        self.notes.append(text)

    def run(self) -> None:
        """Every row that was asked for."""
        busy = facts.why_too_busy()
        if busy:
            self.note(busy)
        pgbench.fill(self.pgbench, self.direct)
        starts = self._poolers()
        rows = self._rows()
        if rows:
            with contextlib.ExitStack() as stack:
                peers = [self.direct] if DIRECT in self.options.peers else []
                peers += self._started(starts, stack)
                for row in rows:
                    self.results.append(self._measure(row, peers))
        if "idle" in self.options.rows:
            self._measure_idle(starts)

    @property
    def direct(self) -> Peer:
        """PostgreSQL without a pooler."""
        return Peer(DIRECT, self.postgres.port)

    def _poolers(self) -> dict[str, Start]:
        starts: dict[str, Start] = {}
        for name in self.options.peers:
            if name == BASELINE:
                program = find_pgbouncer()
                if program is None:
                    self.note("PgBouncer is not installed: nothing to compare with")
                else:
                    starts[name] = pgbouncer(program)
            elif name != DIRECT:
                starts[name] = trio_pooler(name)
        return starts

    def _started(self, starts: Mapping[str, Start], stack: contextlib.ExitStack) -> list[Peer]:
        peers = []
        for start in starts.values():
            try:
                peers.append(stack.enter_context(start(self.postgres.port, self.directory)))
            except BenchFailed as error:
                self.note(str(error))
        return peers

    def _rows(self) -> list[Row]:
        kinds = self.options.rows
        counts = self.options.clients
        queries = [kind for kind in PROTOCOLS if kind in kinds]
        rows = [Row(kind, n) for kind in queries for n in counts]
        return rows + ([Row("connect", CONNECT_CLIENTS)] if "connect" in kinds else [])

    def _measure(self, row: Row, peers: list[Peer]) -> RowResult:
        result = RowResult(row, {peer.name: [] for peer in peers})
        seconds = {peer: self._warm_up(row, peer) for peer in peers}
        for number in range(self.options.rounds):
            _say(f"{row.kind}, {row.clients} clients: round {number + 1} of {self.options.rounds}")
            # There and back, so that none always comes after the same other one.
            for peer in peers if number % 2 == 0 else reversed(peers):
                figures = None
                try:
                    figures = self._round(row, peer, seconds[peer])
                except BenchFailed as error:
                    where = f"{row.kind}, {row.clients} clients, {peer.name}, round {number + 1}"
                    self.note(f"{where}: {error}")
                result.rounds[peer.name].append(figures)
                self._wait_for_quiet()
        return result

    def _round(self, row: Row, peer: Peer, seconds: int) -> Round:
        """Once more, and longer, where the clients took so long to connect that nothing is left."""
        try:
            return pgbench.run_round(self.pgbench, peer, row, seconds, self.directory)
        except TooShort:
            self._wait_for_quiet()
            longer = 2 * seconds + 2
            return pgbench.run_round(self.pgbench, peer, row, longer, self.directory)

    def _warm_up(self, row: Row, peer: Peer) -> int:
        """Returns the seconds of a round, with those that the clients take to connect."""
        connecting = 0.0
        # What fails here fails in the first round too, where it is told.
        with contextlib.suppress(BenchFailed):
            connecting = pgbench.warm_up(self.pgbench, peer, row, self.directory)
        self._wait_for_quiet()
        # Some tenths of a second are no matter, a quarter of a round is.
        return int(self.options.seconds) + math.ceil(connecting - 0.25)

    def _wait_for_quiet(self) -> None:
        """Returns when no more backends are ending, whose work would fall on the next peer."""
        deadline = time.monotonic() + QUIET_TIMEOUT
        before, now = -1, children(self.postgres.pid or 0)
        while now != before and time.monotonic() < deadline:
            time.sleep(0.1)
            before, now = now, children(self.postgres.pid or 0)

    def _measure_idle(self, starts: Mapping[str, Start]) -> None:
        """Each pooler by itself and fresh: its heap holds nothing that former clients have left."""
        wanted = self.options.idle_clients
        count = idle.possible(wanted, idle.raise_descriptor_limit())
        if count < wanted:
            self.note(f"{count} idle clients, not {wanted}: the limit of open files (ulimit -Hn)")
        for name, start in starts.items():
            _say(f"{count} idle clients: {name}")
            try:
                with start(self.postgres.port, self.directory) as peer:
                    self.idle[name] = idle.measure(peer, count, self.directory)
            except BenchFailed as error:
                self.note(str(error))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Signals that ask us to end raise an exception, so that everything of ours is ended first."""

    def end(number: int, _frame: object) -> None:
        # A second one is not to keep us from it.
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _run(options: argparse.Namespace) -> Bench:
    most = max([*options.clients, CONNECT_CLIENTS])
    settings = {"max_connections": most + 100, "shared_buffers": "256MB"}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trio-pooler-")))
        # The unprivileged user of PgBouncer has a directory of its own in it.
        os.chmod(directory, 0o711)
        postgres = EmbeddedPostgres(settings=settings)
        stack.callback(postgres.stop)
        postgres.start()
        bench = Bench(options, postgres, directory)
        bench.run()
    return bench


def main() -> None:
    """Exit status 0 when it could measure, whatever it found; 1 with the reason when not."""
    options = parse_arguments()
    if not sys.platform.startswith("linux"):
        sys.exit("bench: CPU time and memory are read from Linux's /proc")
    idle.raise_descriptor_limit()
    about = facts.collect()
    try:
        with _ended_in_order():
            bench = _run(options)
    except (BenchFailed, PostgresFailed) as error:
        sys.exit(f"bench: {error}")
    about["PostgreSQL"] = bench.postgres.version
    about["rounds"] = f"{options.rounds} of {options.seconds} s for each peer and row"
    written = report.Report(about, bench.results, bench.idle, bench.notes)
    print(written.text())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmarks.md").write_text(written.text())
    (options.out / "benchmarks.json").write_text(written.json())
    why_not = plot.draw(bench.results, bench.idle, about, options.out / "benchmarks.png")
    _say(f"\n{why_not or 'Table, raw figures and plot'} in {options.out}")


if __name__ == "__main__":
    main()

"""Measures trio_backends beside stock Trio, asyncio and uvloop: ``python -m bench.backends.run``.

Each server is a process of its own and sleeps while others are measured; the rounds of a row take
turns, so that what else the machine does falls on all of them. Everything runs on one CPU: what it
costs to wake another one up differs from moment to moment by more than what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.backends import load
from bench.backends.figures import ROWS, Result, Row, as_json, bars
from bench.backends.plot import draw
from bench.backends.stacks import BASELINE, Stack, stacks
from bench.facts import collect, why_too_busy
from bench.figures import Spread, three_digits
from bench.proc import CpuMeter

ROOT = Path(__file__).resolve().parents[2]
ALONE = ("wakeup", "memory")  # measured within a process of their own
LONGEST = 120.0  # seconds that one of those may take


@contextmanager
def server(stack: Stack, workload: str) -> Iterator[tuple[int, CpuMeter]]:
    """A server process: its port, and its CPU time. It ends with the block."""
    streams = "engine" if stack.streams == "relay" else stack.streams
    command = [sys.executable, "-m", "bench.backends.servers", stack.loop, streams, workload]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin and process.stdout
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(command)} did not start")
        yield int(line), CpuMeter(process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def measure_server(
    row: Row, chosen: Sequence[Stack], rounds: int, seconds: float, upstream: int | None
) -> Result:
    result = Result(row, {stack: [] for stack in chosen})
    with ExitStack() as opened:
        meters, ports, sockets = {}, {}, {}
        for stack in chosen:
            workload = row.workload
            if workload == "proxy":
                workload = f"{'relay' if stack.streams == 'relay' else 'proxy'}:{upstream}"
            ports[stack], meters[stack] = opened.enter_context(server(stack, workload))
            if row.connections:
                many = load.connections(ports[stack], row.connections)
                sockets[stack] = opened.enter_context(many)
        for turn in range(rounds + 1):
            for stack in chosen:
                before = meters[stack].nanoseconds()
                if row.connections:
                    done = load.echoes(sockets[stack], row.size, seconds)
                else:
                    done = load.connects(ports[stack], seconds)
                used = (meters[stack].nanoseconds() - before) / 1000
                if turn:  # the first is to warm up
                    result.costs[stack].append(used / done)
    return result


def measure_alone(row: Row, chosen: Sequence[Stack], rounds: int) -> Result:
    result = Result(row, {stack: [] for stack in chosen})
    module = "bench.backends.inside"
    for _ in range(rounds):
        for stack in chosen:
            command = [sys.executable, "-m", module, stack.loop, stack.streams, row.workload]
            done = subprocess.run(
                command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=LONGEST
            )
            result.costs[stack].append(float(done.stdout))
    return result


def who_runs(row: Row, everyone: Sequence[Stack]) -> list[Stack]:
    """The stacks for which a row makes sense."""
    trios = [stack for stack in everyone if stack.is_trio]
    if row.workload == "proxy":
        return trios + [Stack(each.loop, "relay") for each in trios if each.streams == "engine"]
    if row.workload == "wakeup":
        return [stack for stack in trios if stack.streams == "sockets"]
    return trios if row.workload == "memory" else list(everyone)


def measure(row: Row, everyone: Sequence[Stack], rounds: int, seconds: float) -> Result:
    chosen = who_runs(row, everyone)
    if row.workload in ALONE:
        return measure_alone(row, chosen, rounds)
    if row.workload != "proxy":
        return measure_server(row, chosen, rounds, seconds, None)
    fastest = next((each for each in everyone if each.streams == "engine"), BASELINE)
    with server(fastest, "echo") as (upstream, _):
        return measure_server(row, chosen, rounds, seconds, upstream)


# -- what is printed ----------------------------------------------------------------------


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.median:.2f} [{spread.least:.2f}–{spread.greatest:.2f}]"


def table(result: Result) -> str:
    lines = [
        f"## {result.row.name}",
        "",
        f"| | {result.row.unit} | times stock Trio |",
        "|---|---:|---:|",
    ]
    for stack in result.costs:
        spread = result.spread(stack)
        cost = three_digits(spread.median) if spread else "–"
        lines.append(f"| {stack.name} | {cost} | {_spread(result.ratio(stack))} |")
    return "\n".join(lines)


def verdicts(results: Sequence[Result]) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    lines = ["## Bars", "", "| | at least | measured | |", "|---|---:|---:|---|"]
    for bar in bars(results):
        lines.append(f"| {bar.what} | {bar.limit} | {_spread(bar.measured)} | {words[bar.met]} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.backends.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of each stack in each row")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--stacks", default="", help="only these, by name; separated by ;")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    about, busy = collect(), why_too_busy()
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # and whatever it starts
    names = [name.strip() for name in options.stacks.split(";") if name.strip()]
    everyone = [each for each in stacks() if not names or each.name in (*names, BASELINE.name)]
    head = "# trio_backends beside stock Trio\n\n"
    text = head + "\n".join(f"- {name}: {value}" for name, value in about.items())
    print(text, flush=True)
    results: list[Result] = []
    for row in ROWS:
        if options.rows in row.name:
            results.append(measure(row, everyone, options.rounds, options.seconds))
            text += "\n\n" + table(results[-1])
            print("\n" + table(results[-1]), flush=True)
    end = verdicts(results) + (f"\n\nBeware: {busy}." if busy else "")
    print("\n" + end)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / time.strftime("backends-%Y%m%d-%H%M%S")
    stem.with_suffix(".md").write_text(f"{text}\n\n{end}\n", encoding="utf-8")
    raw = json.dumps(as_json(results, about), indent=1, ensure_ascii=False)
    stem.with_suffix(".json").write_text(raw + "\n", encoding="utf-8")
    print(f"\n{draw(results, stem.with_suffix('.png'))}: {stem}.*")


if __name__ == "__main__":
    main()

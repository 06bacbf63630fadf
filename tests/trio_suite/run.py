"""Runs Trio's own test suite on stock Trio and on each backend, and compares test by test.

``python -m tests.trio_suite.run [BACKEND ...]``, by default on all that work here. The suite ships
inside the trio package. Deselected, alike everywhere, is what has nothing to do with I/O and needs
what is not there: tests that Trio marks ``redistributors_should_skip`` (they run mypy, pyright,
pylint and jedi over its sources, some over the network), and tests of the tools that generate its
sources (``--skip-optional-imports``: isort, black).

Status 1 when a test ends otherwise on a backend than on stock Trio, unless differences.toml says
why; and when it says so of a test that does not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import trio_backends

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# A copy of the package with driver_kqueue.c over the simulator of kevent, where it has been built.
KQUEUE_SIM = ROOT / "build" / "kqueue-sim"
SIMULATED = "kqueue-sim"
LONGEST = 240  # seconds, of one run of the suite
Outcomes = dict[str, str]


def run_suite(backend: str) -> tuple[Outcomes, str]:
    """How each test ended, by its name: passed, failed, error, skipped or xfailed; and what pytest
    said.
    """
    simulated = backend == SIMULATED
    environment = {
        **os.environ,
        "PYTHONPATH": str(KQUEUE_SIM if simulated else ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # pytest-trio would run the tests itself
        "PYTEST_ADDOPTS": "",
    }
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short"),
            *("-c", str(HERE / "pytest.ini"), f"--junitxml={report}", f"--basetemp={scratch}/tmp"),
            *("-p", "trio._tests.pytest_plugin", "-p", "trio_backends.pytest_plugin"),
            *("--run-slow", "--skip-optional-imports", "-m", "not redistributors_should_skip"),
            f"--trio-backend={'kqueue' if simulated else backend}",
            *("--pyargs", "trio"),
        ]
        result = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        if not report.exists() or result.returncode not in (0, 1):
            sys.exit(f"{backend}: pytest ended with {result.returncode}\n{result.stdout[-5000:]}")
        return read_report(report), result.stdout


def read_report(report: Path) -> Outcomes:
    outcomes: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcome = "passed"
        for kind, is_called in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
            found = case.find(kind)
            if found is not None:
                outcome = "xfailed" if found.get("type") == "pytest.xfail" else is_called
        outcomes[name] = outcome
    return outcomes


def allowed(backend: str) -> dict[str, str]:
    """The tests that may end otherwise on a backend, and why."""
    listed = tomllib.loads((HERE / "differences.toml").read_text(encoding="utf-8"))["difference"]
    return {one["test"]: one["reason"].strip() for one in listed if backend in one["backends"]}


def compare(backend: str, stock: Outcomes, ours: Outcomes) -> bool:
    """Prints the differences; whether all of them, and no others, are those that are allowed."""
    reasons = allowed(backend)
    names = sorted(stock.keys() | ours.keys())
    differing = [name for name in names if stock.get(name) != ours.get(name)]
    for name in differing:
        why = f"listed: {reasons[name]}" if name in reasons else "NOT LISTED"
        was, is_now = stock.get(name, "missing"), ours.get(name, "missing")
        print(f"  {name}: {was} on stock, {is_now} on {backend}\n    {why}")
    needless = sorted(reasons.keys() - set(differing))
    for name in needless:
        print(f"  {name}: listed as a difference of {backend}, and is none")
    return not needless and all(name in reasons for name in differing)


def main() -> int:
    works = [name for name, why in trio_backends.available_backends().items() if why is None]
    if KQUEUE_SIM.is_dir():
        works.append(SIMULATED)
    parser = argparse.ArgumentParser(description="Trio's own test suite on each backend")
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=", ".join(works))
    backends = parser.parse_args().backends or works
    if unknown := sorted(set(backends) - set(works)):
        parser.error(f"cannot serve here: {', '.join(unknown)}")
    stock: Outcomes = {}
    failed = []
    for backend in ("stock", *backends):
        start = time.monotonic()
        outcomes, output = run_suite(backend)
        counts = Counter(outcomes.values())
        said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))
        print(f"{backend}: {said} in {time.monotonic() - start:.0f} s", flush=True)
        if backend == "stock":
            stock = outcomes
        elif not compare(backend, stock, outcomes):
            print(output[-10_000:])
            failed.append(backend)
    if failed:
        print(f"test-trio: other than on stock Trio: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

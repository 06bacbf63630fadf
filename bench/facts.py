"""The circumstances of a run, without which its figures mean nothing."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

from bench.figures import BASELINE
from bench.peers import ROOT, find_pgbouncer
from pooler import __version__

__all__ = ["collect", "why_too_busy"]

QUIET_LOAD = 0.25  # of each CPU, averaged over the last minute


def collect() -> dict[str, str]:
    """What ran where and when: name to text. Nothing that names the machine or its owner."""
    now = datetime.datetime.now(datetime.UTC)
    found = {
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "trio-pooler": __version__ + _commit(),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} CPUs",
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    program = find_pgbouncer()
    if program is not None:
        said = _said([str(program), "--version"]).splitlines()
        found[BASELINE] = said[0].removeprefix("PgBouncer ") if said else "unknown"
    return found


def why_too_busy() -> str | None:
    """Words about other work on the machine, where that is enough to spoil the figures."""
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= QUIET_LOAD * cpus:
        return None
    return f"the machine had other work (load {load:.2f} on {cpus} CPUs): the figures are rough"


def _commit() -> str:
    commit = _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    return f" ({commit})" if commit else ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if match:
            return match[1]
    return platform.machine()


def _said(args: list[str]) -> str:
    """What a command prints; nothing where it fails."""
    try:
        done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

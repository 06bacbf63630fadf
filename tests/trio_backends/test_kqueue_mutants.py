"""A kernel that does what it may do is served well; one that does what it may not is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests
from tests.support.backends import KQUEUE_SIMULATED
from tests.support.kqueue.core import CAUGHT, SURVIVED

pytestmark = pytest.mark.skipif(not KQUEUE_SIMULATED, reason="the mutants are the simulator's")
ROOT = Path(tests.__path__[0]).parent
LONGEST = 180  # seconds: it hangs


def core(mutant: str) -> tuple[int | str, str]:
    """Runs the core of the suite over a mutant: its status, or "hangs", and what it said."""
    command = [sys.executable, "-m", "tests.support.kqueue.core"]
    environment = {**os.environ, "TB_KQUEUE_MUTANT": mutant}
    try:
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return "hangs", ""
    return result.returncode, result.stderr


def test_the_simulator_without_any() -> None:
    assert core("") == (0, "")


@pytest.mark.parametrize("mutant", SURVIVED)
def test_what_a_kernel_may_do_is_survived(mutant: str) -> None:
    status, said = core(mutant)
    assert status == 0, said


@pytest.mark.parametrize("mutant", CAUGHT)
def test_what_no_kernel_may_do_is_caught(mutant: str) -> None:
    status, said = core(mutant)
    assert status != 0
    assert status == "hangs" or "FAILED" in said, said

"""The processes of a benchmark: ended in any case, and their CPU time and memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.peers import BenchFailed, spawned, trio_pooler
from bench.proc import CpuMeter, memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")

IDLE = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("up", flush=True)
while True:
    signal.pause()
"""


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_process_ends_with_its_block(tmp_path: Path) -> None:
    with spawned(IDLE, output=tmp_path / "out", stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    assert not is_there(process.pid)


def test_it_ends_too_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with spawned(IDLE, output=tmp_path / "out", stdin=-1) as process:
            raise KeyboardInterrupt
    assert not is_there(process.pid)


def test_it_ends_too_when_it_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.peers.END_TIMEOUT", 0.2)
    with spawned([sys.executable, "-c", STUBBORN], output=tmp_path / "out", stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    assert not is_there(process.pid)


def test_a_pooler_that_does_not_start_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(BenchFailed, match=r"nonsense did not start.*backend"):
        with trio_pooler("nonsense")(5432, tmp_path):
            raise AssertionError("it started")


BURN_IN_A_THREAD = """
import sys, threading, time

def burn():
    while time.thread_time() < 0.3:
        pass
    print("burnt", flush=True)
    forever.wait()

forever = threading.Event()
threading.Thread(target=burn, daemon=True).start()
sys.stdin.read()
"""


def test_cpu_time_counts_every_thread(tmp_path: Path) -> None:
    """300 ms in a second thread; the first one does no more than to start the interpreter."""
    args = [sys.executable, "-S", "-c", BURN_IN_A_THREAD]
    with spawned(args, output=tmp_path / "out", stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        assert CpuMeter(process.pid).nanoseconds() >= 280_000_000


def test_cpu_time_of_a_process_that_has_ended(tmp_path: Path) -> None:
    with spawned(IDLE, output=tmp_path / "out", stdin=-1) as process:
        meter = CpuMeter(process.pid)
        assert meter.nanoseconds() >= 0
    with pytest.raises(ProcessLookupError):
        meter.nanoseconds()


def test_memory_grows_with_what_is_held() -> None:
    before = memory(os.getpid())["rss"]
    held = b"x" * 30_000_000
    assert memory(os.getpid())["rss"] - before > 25_000
    del held

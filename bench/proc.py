"""What the kernel says about a process: CPU time and memory (proc(5)). Linux."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["CpuMeter", "children", "memory"]

NANOSECONDS = 1_000_000_000


class CpuMeter:
    """The CPU time of the process *pid*: user and system, all its threads.

    Threads of the kernel that work for io_uring (io-wq, SQPOLL) are threads of the process, and
    are counted. So is a thread that has ended, if it was there at an earlier reading.
    """

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._used: dict[str, int] = {}
        self._read = _schedstat if _has_schedstat() else _stat

    def nanoseconds(self) -> int:
        """Since the process began. Raises ProcessLookupError when it has ended."""
        try:
            threads = os.listdir(self._tasks)
        except FileNotFoundError:
            raise ProcessLookupError(f"process {self._tasks.parent.name} has ended") from None
        for thread in threads:
            # A thread may end between the listing and the reading.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self._used[thread] = self._read(self._tasks / thread)
        return sum(self._used.values())


def _has_schedstat() -> bool:
    """Whether the kernel keeps schedstat (CONFIG_SCHED_INFO): without, it is absent or all 0."""
    try:
        return _schedstat(Path("/proc/self")) > 0
    except FileNotFoundError:
        return False


def _schedstat(task: Path) -> int:
    """Time on the CPU in nanoseconds: the first field of schedstat."""
    return int((task / "schedstat").read_bytes().split()[0])


def _stat(task: Path) -> int:
    """The same from utime and stime, fields 14 and 15 of stat, in ticks of mostly 10 ms."""
    # Field 2 is the name in brackets, which may hold blanks and brackets itself.
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks * NANOSECONDS // os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> dict[str, int]:
    """The memory of a process in kB of 1,024 bytes: ``rss``, and ``pss`` where we may see it.

    Memory of the kernel, such as socket buffers, is in neither.
    """
    process = Path(f"/proc/{pid}")
    found = {"rss": _kilobytes(process / "status", "VmRSS:")}
    with contextlib.suppress(OSError, LookupError):
        found["pss"] = _kilobytes(process / "smaps_rollup", "Pss:")
    return found


def _kilobytes(path: Path, label: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    raise LookupError(f"no {label} in {path}")


def children(pid: int) -> int:
    """How many child processes *pid* has; 0 where the kernel does not tell."""
    try:
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError:
        return 0

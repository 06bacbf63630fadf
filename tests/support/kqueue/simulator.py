"""kevent() for Python tests: of the simulator, or of the system where it has one."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, Protocol

HERE = Path(__file__).parent
SOURCES = ("kqueue_sim.c", "filters.c", "signals.c", "mutants.c")


class Kevent(NamedTuple):
    """A change or an event: the members of ``struct kevent``."""

    ident: int
    filter: int
    flags: int = 0
    fflags: int = 0
    data: int = 0
    udata: int = 0


class Kqueue(Protocol):
    """A kqueue, as the conformance script uses it."""

    def kevent(self, changes: list[Kevent], room: int, timeout: float | None) -> list[Kevent]:
        """One call; the timeout is in seconds. Raises OSError where it returns -1."""

    def close(self) -> None: ...

    def fileno(self) -> int: ...


class _Struct(ctypes.Structure):
    _fields_ = (
        ("ident", ctypes.c_size_t),
        ("filter", ctypes.c_short),
        ("flags", ctypes.c_ushort),
        ("fflags", ctypes.c_uint),
        ("data", ctypes.c_int64),
        ("udata", ctypes.c_void_p),
        ("ext", ctypes.c_uint64 * 4),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def build(directory: Path) -> ctypes.CDLL:
    """The simulator as a library, compiled into *directory*."""
    target = directory / "libkqueue_sim.so"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    compiler = os.environ.get("CC", "cc").split()
    sources = [str(HERE / name) for name in SOURCES]
    subprocess.run([*compiler, *flags, f"-I{HERE}", "-o", str(target), *sources], check=True)
    return ctypes.CDLL(str(target), use_errno=True)


class SimulatedKqueue:
    """A kqueue of the simulator."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._fd: int = library.kqueue()

    def kevent(self, changes: list[Kevent], room: int, timeout: float | None) -> list[Kevent]:
        given = (_Struct * len(changes))()
        for struct, change in zip(given, changes, strict=True):
            for name, value in change._asdict().items():
                setattr(struct, name, value)
        found = (_Struct * room)()
        limit = None
        if timeout is not None:
            limit = ctypes.byref(_Timespec(int(timeout), round(timeout % 1 * 1e9)))
        ctypes.set_errno(0)
        count = self._library.kevent(self._fd, given, len(changes), found, room, limit)
        if count < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return [
            Kevent(e.ident, e.filter, e.flags, e.fflags, e.data, e.udata or 0)
            for e in found[:count]
        ]

    def close(self) -> None:
        self._library.kqueue_sim_close(self._fd)

    def fileno(self) -> int:
        return self._fd


class SystemKqueue:
    """A kqueue of the kernel's, through the standard library."""

    def __init__(self) -> None:
        # Not in the standard library of Linux, nor in its types.
        self._select: Any = select
        self._kqueue = self._select.kqueue()

    def kevent(self, changes: list[Kevent], room: int, timeout: float | None) -> list[Kevent]:
        given = [self._select.kevent(*change) for change in changes]
        found = self._kqueue.control(given, room, timeout)
        return [Kevent(e.ident, e.filter, e.flags, e.fflags, e.data, e.udata) for e in found]

    def close(self) -> None:
        self._kqueue.close()

    def fileno(self) -> int:
        number: int = self._kqueue.fileno()
        return number

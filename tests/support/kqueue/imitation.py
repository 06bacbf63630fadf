"""What Python has where the system has a kqueue, over the simulator in our test build."""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
from collections.abc import Iterable
from typing import Any

from trio_backends._engine import ffi, lib

CONSTANTS = {
    "KQ_FILTER_READ": -1,
    "KQ_FILTER_WRITE": -2,
    "KQ_FILTER_SIGNAL": -6,
    "KQ_FILTER_TIMER": -7,
    "KQ_FILTER_USER": -11,
    "KQ_EV_ADD": 0x1,
    "KQ_EV_DELETE": 0x2,
    "KQ_EV_ENABLE": 0x4,
    "KQ_EV_DISABLE": 0x8,
    "KQ_EV_ONESHOT": 0x10,
    "KQ_EV_CLEAR": 0x20,
    "KQ_EV_ERROR": 0x4000,
    "KQ_EV_EOF": 0x8000,
    "KQ_NOTE_TRIGGER": 0x01000000,
}


class SimulatedKevent:
    """``select.kevent``."""

    def __init__(
        self,
        ident: Any,
        filter: int = -1,
        flags: int = 1,
        fflags: int = 0,
        data: int = 0,
        udata: int = 0,
    ) -> None:
        self.ident: int = ident if isinstance(ident, int) else ident.fileno()
        self.filter, self.flags, self.fflags = filter, flags, fflags
        self.data, self.udata = data, udata


class SimulatedKqueue:
    """``select.kqueue``."""

    def __init__(self) -> None:
        self._fd: int = lib.kqueue()

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            lib.kqueue_sim_close(self._fd)
        self._fd = -1

    def control(
        self, changes: Iterable[Any] | None, max_events: int, timeout: float | None = None
    ) -> list[SimulatedKevent]:
        changes = list(changes or ())
        given = ffi.new("struct kevent[]", len(changes))
        for struct, change in zip(given, changes, strict=True):
            struct.ident, struct.filter, struct.flags = change.ident, change.filter, change.flags
            struct.fflags, struct.data = change.fflags, change.data
            struct.udata = ffi.cast("void *", change.udata)
        found = ffi.new("struct kevent[]", max_events)
        limit = ffi.NULL
        if timeout is not None:
            limit = ffi.new("struct timespec *", (int(timeout), round(timeout % 1 * 1e9)))
        count = lib.kevent(self._fd, given, len(changes), found, max_events, limit)
        if count < 0 and ffi.errno == errno.EINTR:
            return []
        if count < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return [
            SimulatedKevent(
                e.ident, e.filter, e.flags, e.fflags, e.data, int(ffi.cast("uintptr_t", e.udata))
            )
            for e in found[0:count]
        ]


def install() -> None:
    """Gives module ``select`` its kqueue, and has ``signal.signal`` tell the simulator."""
    module: Any = select
    if hasattr(module, "kqueue"):
        return
    module.kqueue, module.kevent = SimulatedKqueue, SimulatedKevent
    for name, value in CONSTANTS.items():
        setattr(module, name, value)

    original = signal.signal

    @functools.wraps(original)
    def tell_the_simulator(number: int, handler: Any) -> Any:
        former = original(number, handler)
        lib.kqueue_sim_signals_hook()
        return former

    setattr(signal, "signal", tell_the_simulator)  # noqa: B010 - mypy: a function of the library

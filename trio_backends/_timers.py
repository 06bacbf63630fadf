"""Periodic ticks without drift.

A tick's time is the start plus a multiple of the period, computed from the start each time: what
one tick is late does not move the next. A tick that comes due while the body of the loop still runs
is not queued: the next one says how many were missed, so that a body that was held up is not run
many times in a row.

On one of our backends a tick is an alarm of the engine, which ends its wait for the kernel. The
engine knows one clock, the monotonic one of the system, so with any other clock (say
``trio.testing.MockClock``), and on Trio's own backend, a tick is a deadline of Trio's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from ._engine import lib
from ._install import current_manager, on_system_clock
from ._manager import EngineIOManager, os_error

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT, Task

_SHORTEST = 1e-9  # seconds: what the engine's clock can tell apart
_CENTURY = 3e9  # seconds: no tick beyond fits the engine's clock, and none will be seen


@attrs.frozen
class Tick:
    """One tick of :func:`every`.

    Attributes:
        number: from 1, on the timetable: those that were missed count too.
        scheduled: when it was due, in seconds of ``trio.current_time()``.
        missed: how many came due since the last one and were not delivered.
    """

    number: int
    scheduled: float
    missed: int


def every(seconds: float) -> Ticker:
    """Ticks each ``seconds``, for ``async for``; the first one is due a period after the start.

    The time runs from this call, not from when the loop begins. A tick that is late is delivered at
    once; see :class:`Tick` for those that were missed. While nobody waits for a tick nothing wakes
    up. ::

        async for tick in every(10):
            write_report(late_by=trio.current_time() - tick.scheduled, missed=tick.missed)

    Raises:
        ValueError: the period is not positive (a nanosecond at least) and finite.
        RuntimeError: there is no run.
    """
    return Ticker(seconds)


class Ticker:
    """What :func:`every` returns: an asynchronous iterator that one task at a time may wait on."""

    def __init__(self, seconds: float) -> None:
        if not _SHORTEST <= seconds < math.inf:
            raise ValueError(f"the period must be positive and finite, not {seconds!r}")
        self._period = seconds
        self._start = trio.current_time()
        manager = _engine_manager() if on_system_clock() else None
        self._clock = _TrioClock(self._start) if manager is None else _EngineClock(manager)
        self._delivered = 0
        self._waiting = self._closed = False

    def __aiter__(self) -> Ticker:
        return self

    async def __anext__(self) -> Tick:
        """The next tick.

        Raises:
            StopAsyncIteration: the ticker has been closed.
            trio.BusyResourceError: another task waits on it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._waiting:
            raise trio.BusyResourceError("another task waits for this ticker")
        if self._due() > self._delivered or self._closed:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._wait()
        if self._closed:
            raise StopAsyncIteration
        # One at least: the wait was for it, whatever rounding says.
        number = max(self._due(), self._delivered + 1)
        missed = number - self._delivered - 1
        self._delivered = number
        return Tick(number, self._start + number * self._period, missed)

    async def _wait(self) -> None:
        self._waiting = True
        try:
            await self._clock.wait_until((self._delivered + 1) * self._period)
        finally:
            self._waiting = False

    def _due(self) -> int:
        """How many ticks have come due by now."""
        return int(self._clock.passed() // self._period)

    def close(self) -> None:
        """Ends the iteration, that of a task which waits for a tick too."""
        self._closed = True
        self._clock.stop_waiting()

    async def aclose(self) -> None:
        """As :meth:`close`, for ``contextlib.aclosing``."""
        self.close()
        await trio.lowlevel.checkpoint()


def _engine_manager() -> EngineIOManager | None:
    try:
        return current_manager()
    except RuntimeError:
        return None


class _Clock(Protocol):
    """Time since the start, in seconds. One task at a time waits."""

    def passed(self) -> float: ...

    async def wait_until(self, seconds: float) -> None: ...

    def stop_waiting(self) -> None: ...


class _TrioClock(_Clock):
    def __init__(self, start: float) -> None:
        self._start = start
        self._scope = trio.CancelScope()

    def passed(self) -> float:
        return trio.current_time() - self._start

    async def wait_until(self, seconds: float) -> None:
        with trio.CancelScope(deadline=self._start + seconds) as self._scope:
            await trio.sleep_forever()

    def stop_waiting(self) -> None:
        self._scope.cancel()


class _EngineClock(_Clock):
    """An alarm of the engine exists while somebody waits for it, and no longer."""

    def __init__(self, manager: EngineIOManager) -> None:
        self._manager = manager
        self._start: int = lib.tb_clock()
        self._alarm: Any = None
        self._task: Task | None = None

    def passed(self) -> float:
        return float(lib.tb_clock() - self._start) / 1e9

    async def wait_until(self, seconds: float) -> None:
        alarm = self._alarm = lib.tb_alarm_new(self._manager.engine)
        token: int = lib.tb_alarm_token(alarm)
        self._manager.faces[token] = self
        try:
            error = lib.tb_alarm_set(alarm, self._start + math.ceil(min(seconds, _CENTURY) * 1e9))
            if error:
                raise os_error(error)
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        finally:
            if self._alarm is not None:  # the engine is still there
                self._manager.faces.pop(token, None)
                self._alarm = None
                lib.tb_alarm_free(alarm)

    def _abort(self, _: RaiseCancelT) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def stop_waiting(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def hear(self, _kind: int, _value: int) -> None:
        self.stop_waiting()

    def forget(self) -> None:
        alarm, self._alarm = self._alarm, None
        lib.tb_alarm_free(alarm)

"""Checks that any I/O backend for Trio must pass: ours, Trio's own, and one that you write.

Each of :data:`CHECKS` is an asynchronous function without arguments that is to be called within a
Trio run. It raises AssertionError, or whatever the backend raised, when the backend is at fault,
and returns a remark when not all could be checked here. They use what Trio says in public, so a
manager of your own is checked in a run that is on it; no pytest is needed::

    for result in check_backend("mine", run=my_run):
        print(result)

Where a check needs a stream it takes the backend's own: :class:`EngineStream` in one of our runs,
else ``trio.SocketStream``. ``python -m trio_backends.testing [BACKEND …]`` runs all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import attrs
import trio
import trio.lowlevel

from ._checks.descriptors import (
    check_bad_descriptor,
    check_cancel_a_waiter,
    check_close_in_the_same_turn,
    check_close_under_a_waiter,
    check_half_close,
    check_many_descriptors,
    check_peer_ends,
    check_peer_sees_the_end,
    check_readiness,
    check_reuse_of_a_number,
    check_two_waiters,
)
from ._checks.runs import (
    check_fork,
    check_guest_mode,
    check_idle,
    check_processes,
    check_signal_burst,
    check_ticks,
    check_timer_order,
    check_wake_up_storm,
)
from ._checks.streams import (
    check_back_pressure,
    check_broken_streams,
    check_cancelled_receives,
    check_cancelled_sends,
    check_streams,
)
from ._choose import available_backends
from ._install import STOCK
from ._install import run as _run

Check = Callable[[], Awaitable[str | None]]
Run = Callable[[Check], str | None]

CHECKS: tuple[Check, ...] = (
    check_readiness,
    check_cancel_a_waiter,
    check_two_waiters,
    check_bad_descriptor,
    check_close_under_a_waiter,
    check_close_in_the_same_turn,
    check_reuse_of_a_number,
    check_peer_sees_the_end,
    check_peer_ends,
    check_half_close,
    check_many_descriptors,
    check_streams,
    check_cancelled_receives,
    check_cancelled_sends,
    check_back_pressure,
    check_broken_streams,
    check_timer_order,
    check_ticks,
    check_idle,
    check_wake_up_storm,
    check_signal_burst,
    check_processes,
    check_fork,
    check_guest_mode,
)

__all__ = ["CHECKS", "Check", "CheckResult", "Run", "check_backend"]
__all__ += [check.__name__ for check in CHECKS]

LONGEST = 120.0  # seconds that one check may take


@attrs.frozen
class CheckResult:
    """What became of one check; ``error`` is None when it was passed."""

    name: str
    error: Exception | None
    remark: str | None = None

    def __str__(self) -> str:
        outcome = "passed" if self.error is None else f"FAILED: {self.error!r}"
        return f"{self.name}: {outcome}" + (f" ({self.remark})" if self.remark else "")


def check_backend(
    backend: str, *, run: Run | None = None, checks: Sequence[Check] = CHECKS
) -> list[CheckResult]:
    """Runs each check in a run of its own on ``backend``, and tells what became of it.

    Args:
        backend: one of ours, or "stock" for Trio's own; of no meaning when ``run`` is given.
        run: runs an asynchronous function on a backend of your own, and returns what it returns.
        checks: some instead of all.

    Raises:
        ValueError, BackendUnavailable: as :func:`trio_backends.run`.
    """
    if run is None:
        run = _run_on(backend)
        run(trio.lowlevel.checkpoint)
    return [_result_of(check, run) for check in checks]


def _run_on(backend: str) -> Run:
    return trio.run if backend == STOCK else partial(_run, backend=backend)


def _result_of(check: Check, run: Run) -> CheckResult:
    async def bounded() -> str | None:
        with trio.fail_after(LONGEST):
            return await check()

    name = check.__name__.removeprefix("check_")
    try:
        return CheckResult(name, None, run(bounded))
    except Exception as error:
        return CheckResult(name, error)


def main(names: Sequence[str]) -> int:
    """Prints what becomes of each check on the backends named, or on all: 1 when one failed."""
    works = [name for name, why_not in available_backends().items() if why_not is None]
    failed = False
    for backend in names or [*works, STOCK]:
        for check in CHECKS:
            [result] = check_backend(backend, checks=[check])
            print(f"{backend}: {result}", flush=True)
            failed |= result.error is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""every(): ticks on the engine's clock and on Trio's."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_backends
from tests.support.running import LONGEST_TEST, Run
from trio_backends import Tick, every

PERIOD = 0.01


@pytest.fixture(params=["ours", "stock"])
def anywhere(request: pytest.FixtureRequest, run: Run) -> Run:
    """On each backend, and on Trio's own."""

    def on_stock(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            with trio.fail_after(LONGEST_TEST):
                return await main()

        return trio.run(bounded)

    return run if request.param == "ours" else on_stock


def hold_up(seconds: float) -> None:
    """What a body that computes does: no other task runs."""
    time.sleep(seconds)


async def take(ticker: trio_backends.Ticker, count: int) -> list[Tick]:
    return [await anext(ticker) for _ in range(count)]


def test_ticks_are_on_the_timetable_and_never_early(anywhere: Run) -> None:
    async def main() -> None:
        before = trio.current_time()
        ticker = every(PERIOD)
        after = trio.current_time()
        start = None
        async for tick in ticker:
            assert trio.current_time() >= tick.scheduled
            if start is None:
                start = tick.scheduled - tick.number * PERIOD
                assert before - 1e-6 <= start <= after + 1e-6
            # To the rounding of a float, however many went before: nothing adds up.
            assert tick.scheduled == pytest.approx(start + tick.number * PERIOD, abs=1e-9)
            if tick.number >= 20:
                break

    anywhere(main)


def test_missed_ticks_are_counted_and_not_queued(anywhere: Run) -> None:
    async def main() -> None:
        ticker = every(PERIOD)
        [first] = await take(ticker, 1)
        hold_up(5 * PERIOD)
        late, following = await take(ticker, 2)
        assert late.missed == late.number - first.number - 1 >= 4
        # And only one was due: the next is waited for.
        assert following.scheduled > late.scheduled
        assert following.missed == following.number - late.number - 1

    anywhere(main)


def test_ticks_of_a_mock_clock_are_exact(backend: str) -> None:
    async def main() -> list[Tick]:
        ticker = every(60)
        ticks = await take(ticker, 2)
        await trio.sleep(200)
        ticks += await take(ticker, 2)
        assert trio.current_time() == 360
        return ticks

    clock = trio.testing.MockClock(autojump_threshold=0)
    assert trio_backends.run(main, backend=backend, clock=clock) == [
        Tick(1, 60, 0),
        Tick(2, 120, 0),
        Tick(5, 300, 2),
        Tick(6, 360, 0),
    ]


def test_a_tick_is_frozen(anywhere: Run) -> None:
    async def main() -> None:
        [tick] = await take(every(PERIOD), 1)
        with pytest.raises(AttributeError):
            tick.missed = 0

    anywhere(main)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 1e-320])
def test_a_period_that_is_none_is_refused(anywhere: Run, seconds: float) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="period"):
            every(seconds)

    anywhere(main)


def test_a_period_beyond_all_clocks_is_waited_for(anywhere: Run) -> None:
    async def main() -> None:
        with trio.move_on_after(PERIOD) as scope:
            await anext(every(1e300))
        assert scope.cancelled_caught

    anywhere(main)


def test_a_cancelled_wait_loses_no_tick(anywhere: Run) -> None:
    async def main() -> None:
        ticker = every(5 * PERIOD)
        cancelled = 0
        ticks: list[Tick] = []
        while len(ticks) < 3:
            with trio.move_on_after(PERIOD) as scope:
                ticks += await take(ticker, 1)
            cancelled += scope.cancelled_caught
        assert cancelled
        for earlier, later in itertools.pairwise(ticks):
            assert later.number == earlier.number + 1 + later.missed

    anywhere(main)


def test_a_tick_that_is_due_is_a_checkpoint_too(anywhere: Run) -> None:
    async def main() -> None:
        ticker = every(PERIOD)
        hold_up(2 * PERIOD)
        with trio.testing.assert_checkpoints():
            await anext(ticker)
        hold_up(2 * PERIOD)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(ticker)
        assert scope.cancelled_caught

    anywhere(main)


def test_closing_ends_the_loop_that_waits(anywhere: Run) -> None:
    async def main() -> None:
        ticker = every(3600)

        async def loop() -> None:
            async for _ in ticker:
                raise AssertionError("no tick is due")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop)
            await trio.testing.wait_all_tasks_blocked()
            await ticker.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(ticker)
        async with contextlib.aclosing(every(PERIOD)) as closing:
            await take(closing, 1)

    anywhere(main)


def test_one_task_at_a_time_waits(anywhere: Run) -> None:
    async def main() -> None:
        ticker = every(3600)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, ticker)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(ticker)
            nursery.cancel_scope.cancel()

    anywhere(main)


def test_many_tickers_tick_at_once(anywhere: Run) -> None:
    async def main() -> None:
        counts = dict.fromkeys(range(200), 0)

        async def count(i: int) -> None:
            async for _ in every(0.005 + i % 7 * 0.001):
                counts[i] += 1
                if counts[i] == 5:
                    break

        async with trio.open_nursery() as nursery:
            for i in counts:
                nursery.start_soon(count, i)
        assert set(counts.values()) == {5}

    anywhere(main)


def test_a_ticker_that_nobody_waits_for_wakes_nothing(run: Run) -> None:
    async def main() -> None:
        ticker = every(0.001)
        await take(ticker, 2)
        with trio.move_on_after(0):
            await anext(ticker)
        before = trio_backends.current_manager().statistics().waits
        await trio.sleep(0.2)
        assert trio_backends.current_manager().statistics().waits - before < 20

    run(main)


def test_no_alarm_is_left_when_a_run_ends_under_a_waiter(backend: str) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(anext, every(3600))
            await trio.testing.wait_all_tasks_blocked()
            faces = trio_backends.current_manager().faces
            assert len(faces) == 100
            nursery.cancel_scope.cancel()
        assert not faces

    trio_backends.run(main, backend=backend)

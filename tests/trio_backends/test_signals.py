"""open_signal_receiver(): Trio's semantics on every backend, also where the kernel reports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_backends
from tests.support.running import Run
from trio_backends import open_signal_receiver

ONE, TWO = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def delivered() -> Iterator[list[int]]:
    """The signals that reach the handlers from before."""
    got: list[int] = []
    with ExitStack() as stack:
        for number in (ONE, TWO):
            former = signal.signal(number, lambda number, _: got.append(number))
            stack.callback(signal.signal, number, former)
        yield got


async def settle() -> None:
    """Until what has been sent has arrived."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked()


def test_signals_arrive_in_order(run: Run, delivered: list[int]) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE, TWO) as signals:
            for number in (ONE, TWO, ONE):
                signal.raise_signal(number)
                assert await anext(signals) == number
            await trio.to_thread.run_sync(os.kill, os.getpid(), TWO)
            assert await anext(signals) == TWO

    run(main)
    assert not delivered


def test_a_burst_is_told_at_least_once_and_at_the_last(run: Run, delivered: list[int]) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE, TWO) as signals:
            for _ in range(100):
                signal.raise_signal(ONE)
            signal.raise_signal(TWO)
            await settle()
            assert [await anext(signals), await anext(signals)] == [ONE, TWO]
            with trio.move_on_after(0.05) as scope:
                await anext(signals)
            assert scope.cancelled_caught

    run(main)
    assert not delivered


def test_what_nobody_looked_at_is_delivered_again(run: Run, delivered: list[int]) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE, TWO):
            signal.raise_signal(TWO)
            signal.raise_signal(ONE)
            await settle()
            assert not delivered
        assert sorted(delivered) == [ONE, TWO]
        # And what has hardly arrived, likewise.
        with open_signal_receiver(ONE):
            signal.raise_signal(ONE)
        await settle()
        assert delivered.count(ONE) == 2

    run(main)


def test_all_are_delivered_again_even_if_a_handler_raises(run: Run, delivered: list[int]) -> None:
    def refuse(*_: object) -> None:
        raise KeyError("mine")

    async def main() -> None:
        signal.signal(ONE, refuse)
        with pytest.raises(KeyError, match="mine"):
            with open_signal_receiver(ONE, TWO):
                signal.raise_signal(ONE)
                signal.raise_signal(TWO)
                await settle()
        assert delivered == [TWO]

    run(main)


def test_handlers_from_before_are_back(run: Run, delivered: list[int]) -> None:
    async def main() -> None:
        before = signal.getsignal(ONE)
        with open_signal_receiver(ONE, ONE) as signals:
            assert signal.getsignal(ONE) != before
            with open_signal_receiver(ONE) as inner:
                signal.raise_signal(ONE)
                assert await anext(inner) == ONE
            signal.raise_signal(ONE)
            assert await anext(signals) == ONE
        assert signal.getsignal(ONE) == before
        signal.raise_signal(ONE)

    run(main)
    assert delivered == [ONE]


def test_what_the_inner_leaves_the_outer_gets(run: Run, delivered: list[int]) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE) as signals:
            with open_signal_receiver(ONE):
                signal.raise_signal(ONE)
                await settle()
            assert await anext(signals) == ONE

    run(main)
    assert not delivered


def test_misuse_is_refused(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="signals"):
            with open_signal_receiver():
                pass
        with pytest.raises((ValueError, OSError)):
            with open_signal_receiver(signal.SIGKILL):
                pass
        with open_signal_receiver(ONE) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, signals)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await anext(signals)
                nursery.cancel_scope.cancel()
        with pytest.raises(RuntimeError, match="exited"):
            await anext(signals)

    run(main)


def test_the_main_thread_only(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="main thread"):
            with open_signal_receiver(ONE):
                pass

    errors: list[BaseException] = []

    def in_thread() -> None:
        try:
            trio_backends.run(main, backend=backend)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert not errors


def test_children_are_waited_for_and_reported(run: Run) -> None:
    async def main() -> None:
        with open_signal_receiver(signal.SIGCHLD) as signals:
            result = await trio.run_process([sys.executable, "-c", "exit(3)"], check=False)
            assert result.returncode == 3
            assert await anext(signals) == signal.SIGCHLD
            child = await trio.to_thread.run_sync(
                lambda: subprocess.Popen([sys.executable, "-c", "exit(4)"])
            )
            assert await anext(signals) == signal.SIGCHLD
            assert await trio.to_thread.run_sync(child.wait) == 4

    run(main)


def test_children_are_not_deaf(run: Run) -> None:
    """Neither a mask nor SIG_IGN is inherited by what is started meanwhile."""

    async def main() -> None:
        with open_signal_receiver(signal.SIGTERM):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            await process.stdout.receive_some()
            process.terminate()
            assert await process.wait() == -signal.SIGTERM

    run(main)


class Kernel:
    """A driver that tells of signals, in place of the engine's functions."""

    def __init__(self) -> None:
        self.started: list[int] = []

    def tb_signal_start(self, _engine: Any, number: int) -> int:
        self.started.append(number)
        return 0

    def tb_signal_stop(self, _engine: Any, number: int) -> None:
        self.started.remove(number)

    def report(self, number: int) -> None:
        """As the engine's events are told when the wait is over."""
        face = trio_backends.current_manager().faces.get(-number)
        if face is not None:
            face.hear(0, 1)


def kernel_first(kernel: Kernel, number: int) -> None:
    kernel.report(number)
    signal.raise_signal(number)


def handler_first(kernel: Kernel, number: int) -> None:
    signal.raise_signal(number)
    kernel.report(number)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    functions = ("tb_signal_start", "tb_signal_stop")
    fake = SimpleNamespace(**{name: getattr(kernel, name) for name in functions})
    monkeypatch.setattr("trio_backends._signals.lib", fake)
    return kernel


@pytest.mark.parametrize("send", [kernel_first, handler_first])
def test_a_signal_that_the_kernel_reports_is_told_once(
    run: Run, delivered: list[int], kernel: Kernel, send: Callable[[Kernel, int], None]
) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE, TWO) as signals:
            assert sorted(kernel.started) == [ONE, TWO]
            for number in (ONE, TWO, ONE):
                send(kernel, number)
                assert await anext(signals) == number
            with trio.move_on_after(0.02) as scope:
                await anext(signals)
            assert scope.cancelled_caught
        assert not kernel.started

    run(main)
    assert not delivered


def test_a_signal_that_the_kernel_has_yet_to_report_is_not_lost(
    run: Run, delivered: list[int], kernel: Kernel
) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE):
            signal.raise_signal(ONE)
        kernel.report(ONE)  # too late: there is nobody
        assert delivered == [ONE]

    run(main)


def test_receivers_within_each_other_where_the_kernel_reports(
    run: Run, delivered: list[int], kernel: Kernel
) -> None:
    async def main() -> None:
        with open_signal_receiver(ONE) as outer:
            with open_signal_receiver(ONE) as inner:
                handler_first(kernel, ONE)
                assert await anext(inner) == ONE
                handler_first(kernel, ONE)
            kernel.report(ONE)  # what the inner delivered again
            assert await anext(outer) == ONE
            assert kernel.started == [ONE]
        assert not kernel.started

    run(main)
    assert not delivered

"""The simulator of kevent() against what a FreeBSD kernel said; and that kernel, on it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.kqueue.conformance import ADD, CLEAR, DELETE, DEVIATIONS, READ, Script, Step, ch
from tests.support.kqueue.simulator import Kevent, SimulatedKqueue, SystemKqueue, build

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the simulator is built on epoll")
SIGNAL = -6


def different(steps: list[Step]) -> dict[str, tuple[str, str]]:
    """Steps at which something else was said than by the kernel: (the kernel, now)."""
    return {what: (kernel, now) for what, kernel, now in steps if kernel != now}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("kqueue"))


@pytest.fixture
def kqueue(library: ctypes.CDLL) -> Iterator[SimulatedKqueue]:
    kq = SimulatedKqueue(library)
    yield kq
    kq.close()


@linux_only
def test_the_simulator_says_what_the_kernel_said(library: ctypes.CDLL) -> None:
    steps = Script(lambda: SimulatedKqueue(library)).run()
    assert len(steps) > 130
    assert set(different(steps)) == set(DEVIATIONS)


@pytest.mark.skipif(not sys.platform.startswith("freebsd"), reason="it was a FreeBSD kernel")
def test_the_kernel_says_it_again() -> None:
    assert different(Script(SystemKqueue).run()) == {}


@linux_only
def test_signals_are_counted_beside_their_handlers(kqueue: SimulatedKqueue) -> None:
    handled: list[int] = []
    add = Kevent(signal.SIGUSR1, SIGNAL, ADD, udata=7)
    cases: tuple[tuple[Callable[..., object] | signal.Handlers, int], ...] = (
        (lambda number, _: handled.append(number), 2),
        (signal.SIG_IGN, 2),
    )
    for handler, count in cases:
        former = signal.signal(signal.SIGUSR1, handler)
        try:
            assert kqueue.kevent([add], 8, 0) == []
            for _ in range(count):
                os.kill(os.getpid(), signal.SIGUSR1)
            # EV_CLEAR is implied.
            assert kqueue.kevent([], 8, 5) == [Kevent(signal.SIGUSR1, SIGNAL, CLEAR, 0, count, 7)]
            assert kqueue.kevent([Kevent(signal.SIGUSR1, SIGNAL, DELETE)], 8, 0) == []
        finally:
            signal.signal(signal.SIGUSR1, former)
    assert handled == [signal.SIGUSR1] * 2


@linux_only
def test_a_kqueue_may_be_polled_and_watched_by_another(
    library: ctypes.CDLL, kqueue: SimulatedKqueue
) -> None:
    r, w = os.pipe()
    outer = SimulatedKqueue(library)
    kqueue.kevent([ch(r, READ, ADD)], 0, 0)
    assert outer.kevent([ch(kqueue.fileno(), READ, ADD, 3)], 8, 0) == []
    poll = select.poll()
    poll.register(kqueue.fileno(), select.POLLIN)
    assert not poll.poll(0)
    os.write(w, b"x")
    assert poll.poll(5000)
    assert [event.udata for event in outer.kevent([], 8, 5)] == [3]
    os.read(r, 1)
    assert outer.kevent([], 8, 0) == []
    outer.close()
    os.close(r)
    os.close(w)


@linux_only
def test_a_child_has_no_kqueue(kqueue: SimulatedKqueue) -> None:
    child = os.fork()
    if not child:
        try:
            kqueue.kevent([], 8, 0)
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_every_deviation_has_a_reason_and_every_file_is_built() -> None:
    from tests.support.kqueue import simulator

    assert all(DEVIATIONS.values())
    there = {path.name for path in Path(simulator.__file__).parent.glob("*.c")}
    assert there == set(simulator.SOURCES)

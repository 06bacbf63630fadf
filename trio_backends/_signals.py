"""Signals as an asynchronous iterator, read by the engine where the kernel tells of them besides.

kqueue's EVFILT_SIGNAL reports a signal in addition to its ordinary delivery: nothing has to be
blocked, and nobody else is robbed of it. The ordinary delivery must do no harm meanwhile, so it
goes to a Python handler that only takes a note: the default action would end the process, and
SIG_IGN would be inherited by every program started meanwhile (SIGCHLD ignored would make children
vanish unwaited for), where a handler is not.

On Linux it is Trio's own ``open_signal_receiver``. signalfd(2) takes signals away from their
ordinary delivery, and only while they are blocked, in every thread:

- a signal sent to the process goes to any thread that does not block it, and ends the process by
  its default action. A library cannot block it in threads that exist already, nor in those that C
  libraries start;
- programs inherit the mask over exec, and ``subprocess`` does not undo it: a child started
  meanwhile is deaf to SIGTERM;
- a handler of Python's for a blocked signal does not run.

(All three were observed, with SIGUSR1, a ``sleep`` that outlived its SIGTERM, and SIGUSR2.) Against
that stands one write to a pipe per signal, which Trio's way costs and signals are too rare to feel.
"""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import trio

from ._engine import lib
from ._install import current_manager
from ._manager import EngineIOManager, Face, os_error


@contextmanager
def open_signal_receiver(*signals: signal.Signals | int) -> Iterator[AsyncIterator[int]]:
    """As ``trio.open_signal_receiver``: while open, the signals arrive in an asynchronous iterator.

    A signal that arrives again before it was looked at counts once. What is still there at the end
    is delivered again, to the handlers that held before.

    Raises:
        TypeError: no signals are given.
        RuntimeError: this is not Python's main thread, or there is no run.
        OSError: the signal cannot be caught.
    """
    manager = _manager_that_tells(signals)
    if manager is None:
        with trio.open_signal_receiver(*signals) as trios:
            yield trios
        return
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals can be received in Python's main thread only")
    receiver = _EngineReceiver(manager)
    with receiver.receiving(set(signals)):
        yield receiver


def _manager_that_tells(signals: tuple[int, ...]) -> EngineIOManager | None:
    """The manager of this run, if there are signals to receive that its driver tells of."""
    try:
        manager = current_manager()
    except RuntimeError:
        return None
    for number in signals[:1]:
        if -number in manager.faces:
            return manager
        error = lib.tb_signal_start(manager.engine, number)
        if not error:
            lib.tb_signal_stop(manager.engine, number)
        return None if error == -errno.ENOSYS else manager
    return None


class _EngineReceiver:
    """Yields a signal when both have happened: its handler has run, and the kernel has reported it.

    Both come for every signal, in either order, and both may stand for several of the same number.
    With the report alone a signal whose handler has yet to run could be told twice: here, and again
    at the end. With both, each that is told is one whose handler ran; and what was handled and not
    told is exactly what is to be delivered again at the end.
    """

    def __init__(self, manager: EngineIOManager) -> None:
        self._manager = manager
        self._token = trio.lowlevel.current_trio_token()
        self._reported: set[int] = set()
        self._handled: set[int] = set()
        self._pending: dict[int, None] = {}
        self._lot = trio.lowlevel.ParkingLot()
        self._iterating = self._closed = False

    @contextmanager
    def receiving(self, signals: set[int]) -> Iterator[None]:
        try:
            with ExitStack() as stack:
                for number in signals:
                    former = signal.signal(number, self._handle)
                    stack.callback(signal.signal, number, former)
                    stack.enter_context(self._hearing(number))
                yield
        finally:
            self._closed = True
            self._deliver_again()

    @contextmanager
    def _hearing(self, number: int) -> Iterator[None]:
        faces, engine = self._manager.faces, self._manager.engine
        outer = faces.get(-number)  # another receiver's, which hears nothing meanwhile
        if outer is None and (error := lib.tb_signal_start(engine, number)):
            raise os_error(error)
        faces[-number] = _Ear(self, number)
        try:
            yield
        finally:
            if outer is not None:
                faces[-number] = outer
            elif faces.pop(-number, None) is not None:  # the engine is still there
                lib.tb_signal_stop(engine, number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        """Runs between any two byte codes of the main thread."""
        self._handled.add(number)
        if number in self._reported:
            self._token.run_sync_soon(self._match, number, idempotent=True)

    def report(self, number: int) -> None:
        """The kernel has told the engine of a signal."""
        self._reported.add(number)
        self._match(number)

    def _match(self, number: int) -> None:
        if not self._closed and number in self._reported and number in self._handled:
            self._reported.discard(number)
            self._handled.discard(number)
            self._pending[number] = None
            self._lot.unpark()

    def _deliver_again(self) -> None:
        with ExitStack() as stack:  # all of them, should a handler raise
            for number in reversed([*self._pending, *(self._handled - self._pending.keys())]):
                stack.callback(signal.raise_signal, number)

    def __aiter__(self) -> _EngineReceiver:
        return self

    async def __anext__(self) -> int:
        if self._closed:
            raise RuntimeError("open_signal_receiver block already exited")
        if self._iterating:
            raise trio.BusyResourceError("only one task at a time can receive signals")
        self._iterating = True
        try:
            if self._pending:
                await trio.lowlevel.checkpoint()
            else:
                await self._lot.park()
        finally:
            self._iterating = False
        number = next(iter(self._pending))
        del self._pending[number]
        return number


class _Ear(Face):
    """Where a receiver hears of one signal: in ``manager.faces``, under minus the number."""

    def __init__(self, receiver: _EngineReceiver, number: int) -> None:
        self._receiver = receiver
        self._number = number

    def hear(self, _kind: int, _value: int) -> None:
        self._receiver.report(self._number)

    def forget(self) -> None:
        pass  # it keeps no pointer

"""What Trio offers on kqueue only: the kqueue itself, and waiting for kevents of any kind.

``trio.lowlevel.current_kqueue``, ``monitor_kevent`` and ``wait_kevent`` call the manager's methods
of these names, where the platform has a kqueue. The kqueue that they are about is a second one,
which the engine's own watches like any descriptor: a kqueue is readable when it has events. So
nothing that a program adds, deletes or forgets in it can touch the engine's interests, although a
kqueue holds one for each pair of an ident and a filter. See trio/_core/_io_kqueue.py for the
original.
"""

from __future__ import annotations

import errno
import select
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import outcome
import trio
from trio.lowlevel import (
    Abort,
    Task,
    UnboundedQueue,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from ._engine import lib
from ._manager import EngineIOManager, HugePages, KqueueStatistics, os_error

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT

    from ._manager import _HasFileNo

# The types of Linux's standard library know no kqueue.
_select: Any = select


class KqueueIOManager(EngineIOManager):
    """The manager of backend "kqueue".

    Raises:
        OSError: there is no kqueue here; the message says why.
    """

    def __init__(self, backend: str, *, guest: bool = False, huge_pages: HugePages = "off") -> None:
        super().__init__(backend, guest=guest, huge_pages=huge_pages)
        self._kqueue: Any = None  # select.kqueue, made when it is asked for
        self._receivers: dict[tuple[int, int], Task | UnboundedQueue[Any]] = {}

    # -- Trio's methods ---------------------------------------------------------------

    def current_kqueue(self) -> Any:
        """A ``select.kqueue`` for kevents of the caller's. For each that comes there must be a
        ``monitor_kevent`` or a ``wait_kevent``.
        """
        if self._kqueue is None:
            self._kqueue = _select.kqueue()
            self._watch_kqueue()
        return self._kqueue

    @contextmanager
    def monitor_kevent(self, ident: int, filter: int) -> Iterator[UnboundedQueue[Any]]:
        """The events of one knote, in a queue, while the block lasts.

        Raises:
            trio.BusyResourceError: somebody receives them already.
        """
        key = self._claim(ident, filter)
        with warnings.catch_warnings():
            # Trio would have its users take a memory channel; for kevents it gives them this.
            warnings.simplefilter("ignore", trio.TrioDeprecationWarning)
            queue: UnboundedQueue[Any] = UnboundedQueue()
        self._receivers[key] = queue
        try:
            yield queue
        finally:
            del self._receivers[key]

    async def wait_kevent(
        self, ident: int, filter: int, abort_func: Callable[[RaiseCancelT], Abort]
    ) -> Any:
        """The next event (``select.kevent``) of one knote, which the caller has added.
        ``abort_func`` is called on cancellation; to succeed it has to delete the knote.

        Raises:
            trio.BusyResourceError: somebody receives them already.
        """
        key = self._claim(ident, filter)
        self._receivers[key] = current_task()

        def abort(raise_cancel: RaiseCancelT) -> Abort:
            result = abort_func(raise_cancel)
            if result is Abort.SUCCEEDED:
                del self._receivers[key]
            return result

        return await wait_task_rescheduled(abort)

    def notify_closing(self, fd: int | _HasFileNo) -> None:
        if not isinstance(fd, int):
            fd = fd.fileno()
        if self._kqueue is not None:
            for filter_ in (_select.KQ_FILTER_READ, _select.KQ_FILTER_WRITE):
                self._close_knote(fd, filter_)
        super().notify_closing(fd)

    def statistics(self) -> KqueueStatistics:
        readers, writers = (len(waiting) for waiting in self._waiting)
        tasks = sum(isinstance(receiver, Task) for receiver in self._receivers.values())
        return KqueueStatistics.collect(
            self.engine,
            self.backend,
            readers,
            writers,
            tasks_waiting=readers + writers + tasks,
            monitors=len(self._receivers) - tasks,
        )

    def close(self) -> None:
        super().close()
        if self._kqueue is not None:
            self._kqueue.close()
            self._kqueue = None

    # -- the second kqueue ------------------------------------------------------------

    def _claim(self, ident: int, filter: int) -> tuple[int, int]:
        key = (ident, filter)
        if key in self._receivers:
            raise trio.BusyResourceError("another task already receives this ident's kevents")
        self.current_kqueue()
        return key

    def _watch_kqueue(self) -> None:
        result = lib.tb_watch(self.engine, self._kqueue.fileno(), False)
        if result < 0:
            raise os_error(result)

    def _unclaimed(self, fd: int) -> None:
        if self._kqueue is None or fd != self._kqueue.fileno():
            return
        # What does not fit is reported by the next watch: a kqueue is readable while it has events.
        for event in self._kqueue.control([], len(self._receivers) + 1, 0):
            self._receive(event)
        self._watch_kqueue()

    def _receive(self, event: Any) -> None:
        key = (event.ident, event.filter)
        receiver = self._receivers.get(key)
        if receiver is None:
            raise RuntimeError(
                f"a kevent came that nobody waits for: ident={event.ident} filter={event.filter}"
            )
        if isinstance(receiver, Task):
            del self._receivers[key]
            reschedule(receiver, outcome.Value(event))
        else:
            receiver.put_nowait(event)

    def _close_knote(self, fd: int, filter: int) -> None:
        receiver = self._receivers.get((fd, filter))
        if receiver is None:
            return
        if not isinstance(receiver, Task):
            raise NotImplementedError("can't close an fd that monitor_kevent is using")
        try:
            self._kqueue.control([_select.kevent(fd, filter, _select.KQ_EV_DELETE)], 0)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBADF):
                raise
        del self._receivers[fd, filter]
        closed = trio.ClosedResourceError("another task closed this fd")
        reschedule(receiver, outcome.Error(closed))

"""Trio's IOManager contract over the engine.

What Trio calls: ``get_events`` waits, ``process_events`` reschedules tasks, ``wait_readable``,
``wait_writable`` and ``notify_closing`` are its public low-level API, ``force_wakeup`` serves guest
mode, ``statistics`` and ``close`` are what they say. See trio/_core/_io_epoll.py for the original.

While ``get_events`` waits, the engine relays: a call may move the bytes of many thousand messages
and return for none of them.

In guest mode Trio calls ``get_events`` in a worker thread, while the host's thread may call
everything else. The engine is not touched there: the worker polls the engine's descriptor, and
the turn is made in ``process_events``, in the host's thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import attrs
import outcome
import trio
from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

from ._engine import ffi, lib

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT, Task

# Looked up once: a wait for a descriptor is paid for in these.
_wait_for_events: Callable[[Any, int], int] = lib.tb_wait
_events_clear: Callable[[Any], None] = lib.tb_events_clear
_watch: Callable[[Any, int, bool], int] = lib.tb_watch
_unwatch: Callable[[Any, int, bool], None] = lib.tb_unwatch

_READABLE: int = lib.TB_EV_READABLE
_WRITABLE: int = lib.TB_EV_WRITABLE
_EVENTS_AT_FIRST: int = lib.TB_EVENTS_AT_FIRST
_WHY_SIZE = 256
# What Trio passes when there is no deadline; a timer for it would be set and cancelled at every
# wait.
_FOREVER = 86400.0  # seconds


HugePages = Literal["off", "try", "on"]
_HUGE_PAGES_WANTED = {"off": lib.TB_HUGE_OFF, "try": lib.TB_HUGE_TRY, "on": lib.TB_HUGE_ON}
_HUGE_PAGES_GOT = {
    lib.TB_HUGE_OFF: "none",
    lib.TB_HUGE_TRY: "transparent",
    lib.TB_HUGE_ON: "reserved",
}


class _HasFileNo(Protocol):
    def fileno(self) -> int: ...


class Face(Protocol):
    """The Python side of a stream, a listener or a multiplexer."""

    def hear(self, kind: int, value: int) -> None:
        """An event of the engine's (enum tb_event_kind)."""

    def forget(self) -> None:
        """The engine's object is about to be gone: keep no pointer to it."""


@attrs.frozen(eq=False)
class EngineStatistics:
    """What ``trio.lowlevel.current_statistics().io_statistics`` is on one of our backends.

    Totals since the start of the run, except where it says "now".

    Attributes:
        backend: the name of the backend.
        tasks_waiting_read: tasks now in ``trio.lowlevel.wait_readable``, Trio's own one too.
        tasks_waiting_write: and in ``wait_writable``.
        waits: waits for the kernel; one may move the bytes of many messages.
        submissions: what the kernel was asked for: entries of io_uring, calls of ``epoll_ctl``,
            changes handed to ``kevent``.
        completions: what it reported: completions of io_uring, events of epoll and kqueue.
        receives: pieces received by the engine's streams.
        sends: sends of the engine's streams that the kernel accepted, in part at least.
        bytes_received: by the engine's streams.
        bytes_sent: by the engine's streams.
        bytes_copied: that had to be copied to the heap, on their way in or out.
        sends_blocked: sends that found the kernel's buffer full.
        buffers_total: buffers that the kernel receives into (io_uring; 0 elsewhere).
        buffers_lent: of these, those that hold bytes now.
        buffer_starvations: receives that found no buffer free (io_uring).
        overflows: times that completions were fetched from the kernel's overflow list (io_uring).
        heap_bytes: held on the heap now, for all streams together.
        huge_pages: what the buffers are on now: "none" (ordinary pages), "transparent" (the kernel
            may split them when it needs memory) or "reserved" (from ``vm.nr_hugepages``).
        huge_page_bytes: how much of that.
    """

    backend: str
    tasks_waiting_read: int
    tasks_waiting_write: int
    waits: int
    submissions: int
    completions: int
    receives: int
    sends: int
    bytes_received: int
    bytes_sent: int
    bytes_copied: int
    sends_blocked: int
    buffers_total: int
    buffers_lent: int
    buffer_starvations: int
    overflows: int
    heap_bytes: int
    huge_pages: str
    huge_page_bytes: int

    @classmethod
    def collect(cls, engine: Any, backend: str, readers: int, writers: int, **more: int) -> Self:
        """Reads an engine's counters; ``more``: fields that a subclass has besides."""
        counters = lib.tb_engine_counters(engine)
        return cls(
            backend=backend,
            tasks_waiting_read=readers,
            tasks_waiting_write=writers,
            waits=counters.turns,
            submissions=counters.submissions,
            completions=counters.completions,
            receives=counters.receives,
            sends=counters.sends,
            bytes_received=counters.bytes_received,
            bytes_sent=counters.bytes_sent,
            bytes_copied=counters.copied,
            sends_blocked=counters.blocked,
            buffers_total=counters.buffers,
            buffers_lent=counters.lent,
            buffer_starvations=counters.starved,
            overflows=counters.overflows,
            heap_bytes=counters.heap,
            huge_pages=_HUGE_PAGES_GOT[counters.huge_pages],
            huge_page_bytes=counters.huge_bytes,
            **more,
        )


@attrs.frozen(eq=False)
class KqueueStatistics(EngineStatistics):
    """With the two fields that Trio's own manager has on kqueue.

    Attributes:
        tasks_waiting: tasks now in ``wait_readable``, ``wait_writable`` or ``wait_kevent``.
        monitors: of ``trio.lowlevel.monitor_kevent``, now.
    """

    tasks_waiting: int
    monitors: int


def os_error(result: int) -> OSError:
    """The exception for a negative errno, as the engine returns them."""
    return OSError(-result, os.strerror(-result))


class EngineIOManager:
    """One engine, for one run.

    Raises:
        OSError: the backend cannot serve; the message says why.
    """

    def __init__(self, backend: str, *, guest: bool = False, huge_pages: HugePages = "off") -> None:
        why = ffi.new("char[]", _WHY_SIZE)
        wanted = _HUGE_PAGES_WANTED[huge_pages]
        self.engine: Any = lib.tb_engine_new(backend.encode(), guest, wanted, why, _WHY_SIZE)
        if self.engine == ffi.NULL:
            raise OSError(ffi.string(why).decode())
        self.backend = backend
        self.guest = guest
        # Why backends that would have been preferred were not taken.
        self.passed_over: dict[str, str] = {}
        self._descriptor: int = lib.tb_engine_descriptor(self.engine)
        self._waiting: tuple[dict[int, Task], dict[int, Task]] = ({}, {})  # readers, writers
        self._map_events(0)
        # The Python faces of the engine's own objects, by token.
        self.faces: dict[int, Face] = {}

    # -- the run ----------------------------------------------------------------------

    def get_events(self, timeout: float) -> int:
        """How many events there are; 0 exactly when the time (seconds) is up."""
        if self.guest:
            return self._poll(timeout)
        deadline = 0
        if timeout <= 0:
            wait = 0
        elif timeout >= _FOREVER:
            wait = -1
        else:
            wait = round(timeout * 1e9)
            deadline = lib.tb_clock() + wait
        while (count := _wait_for_events(self.engine, wait)) == -errno.EINTR:
            # Python's signal handlers run here, between two byte codes.
            if wait >= 0:
                wait = max(0, deadline - lib.tb_clock())
        if count < 0:
            raise os_error(count)
        return count

    def _poll(self, timeout: float) -> int:
        now = lib.tb_clock()
        until = min(now + round(timeout * 1e9), lib.tb_next_check(self.engine))
        due = until < now + round(timeout * 1e9)
        while (ready := lib.tb_engine_poll(self._descriptor, max(0, until - now))) == -errno.EINTR:
            now = lib.tb_clock()
        if ready < 0:
            raise os_error(ready)
        return int(ready or due)

    def process_events(self, events: object) -> None:
        count = lib.tb_wait(self.engine, 0) if self.guest else events
        if not count or count == -errno.EINTR:
            return
        assert isinstance(count, int)
        if count > self._room:
            self._map_events(count)
        # Copied before anyone hears of them: who does may cause more, which are appended.
        if count == 1:
            words = [self._events[0], self._events[1]]
        else:
            words = self._events[: 2 * count].tolist()
        _events_clear(self.engine)
        faces = self.faces
        readers, writers = self._waiting
        for what, handle in zip(words[::2], words[1::2], strict=True):  # struct tb_event
            if 0 < what <= _WRITABLE:  # and no error
                task = (readers if what == _READABLE else writers).pop(handle, None)
                if task is not None:
                    reschedule(task)
                else:
                    self._unclaimed(handle)
                continue
            kind, value = what & 0xFFFFFFFF, what >> 32
            if kind <= _WRITABLE:
                self._fail(kind == _WRITABLE, handle, value)
            elif handle in faces:
                faces[handle].hear(kind, value)

    def _unclaimed(self, fd: int) -> None:
        """A watch fired that no task waits for."""

    def _map_events(self, count: int) -> None:
        """The engine's array moved: it does when it has to grow, and at no other time."""
        self._room = max(count, _EVENTS_AT_FIRST)
        size = self._room * ffi.sizeof("struct tb_event")
        self._events = memoryview(ffi.buffer(lib.tb_events(self.engine), size)).cast("q")

    def force_wakeup(self) -> None:
        """Ends a ``get_events`` that another thread waits in."""
        lib.tb_engine_wake(self.engine)

    def statistics(self) -> EngineStatistics:
        readers, writers = self._waiting
        return EngineStatistics.collect(self.engine, self.backend, len(readers), len(writers))

    def close(self) -> None:
        if self.engine is None:
            return
        for face in list(self.faces.values()):
            face.forget()
        self._events.release()
        engine, self.engine = self.engine, None
        lib.tb_engine_free(engine)

    # -- other people's descriptors ---------------------------------------------------

    def _fail(self, write: bool, fd: int, error: int) -> None:
        task = self._waiting[write].pop(fd, None)
        if task is not None:
            reschedule(task, outcome.Error(os_error(error)))

    async def _wait(self, fd: int | _HasFileNo, write: bool) -> None:
        if not isinstance(fd, int):
            fd = fd.fileno()
        waiting = self._waiting[write]
        if fd in waiting:
            raise trio.BusyResourceError("another task is already reading / writing this fd")
        result = _watch(self.engine, fd, write)
        if result < 0:
            raise os_error(result)
        waiting[fd] = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            del waiting[fd]
            _unwatch(self.engine, fd, write)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def wait_readable(self, fd: int | _HasFileNo) -> Awaitable[None]:
        return self._wait(fd, False)

    def wait_writable(self, fd: int | _HasFileNo) -> Awaitable[None]:
        return self._wait(fd, True)

    def notify_closing(self, fd: int | _HasFileNo) -> None:
        if not isinstance(fd, int):
            fd = fd.fileno()
        for waiting in self._waiting:
            task = waiting.pop(fd, None)
            if task is not None:
                closed = trio.ClosedResourceError("another task closed this fd")
                reschedule(task, outcome.Error(closed))
        lib.tb_release(self.engine, fd)

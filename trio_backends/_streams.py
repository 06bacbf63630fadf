"""Trio streams and listeners on the engine's own accept, receive and send.

A stream here costs the kernel one registration for its whole life and, on io_uring, no system
call to receive. It follows Trio's rules: every operation is a checkpoint, one task at a time may
receive and one send, closing wakes both.

Back-pressure: what has been received and not yet taken is bounded by ``high_water`` (and by what
the kernel had already delivered when it was reached); the kernel's own buffers do the rest.
"""

from __future__ import annotations

import errno
import operator
import os
import socket as stdlib_socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import outcome
import trio
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from ._engine import ffi, lib
from ._install import current_manager
from ._manager import EngineIOManager, os_error
from ._socket_view import SocketView

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT, Task

DEFAULT_HIGH_WATER = 65536  # bytes
DEFAULT_RECEIVE_SIZE = 65536  # bytes

# What is received goes through here, under the GIL, on its way into a bytes object.
_SCRATCH_SIZE = 65536
_scratch = ffi.new("uint8_t[]", _SCRATCH_SIZE)
_scratch_buffer = ffi.buffer(_scratch)  # a slice of it is a bytes object

# Looked up once: every message is paid for in these.
_stream_receive: Callable[[Any, Any, int], int] = lib.tb_stream_receive
_stream_send: Callable[[Any, Any, int], int] = lib.tb_stream_send

_AGAIN = -errno.EAGAIN
_RECEIVED: int = lib.TB_EV_RECEIVED
_SENT: int = lib.TB_EV_SENT


class EngineStream(trio.abc.HalfCloseableStream):
    """A connected socket that the engine reads and writes.

    Made by :meth:`adopt`, by a listener, or by ``open_tcp_stream`` and its kin (_open.py).
    """

    __slots__ = (
        "__weakref__",
        "_eof_sent",
        "_manager",
        "_news",
        "_news_task",
        "_receiver",
        "_receiving",
        "_sender",
        "_sending",
        "pointer",
        "token",
    )

    def __init__(self, manager: EngineIOManager, pointer: Any) -> None:
        self._manager = manager
        self.pointer = pointer
        self.token: int = lib.tb_stream_token(self.pointer)
        self._receiver: Task | None = None
        self._sender: Task | None = None
        self._receiving = self._sending = self._eof_sent = False
        # What a multiplexer or a relay has to say of this stream; see _relay.py.
        self._news_task: Task | None = None
        self._news: deque[int] | None = None
        manager.faces[self.token] = self

    @classmethod
    def adopt(
        cls,
        sock: stdlib_socket.socket | trio.socket.SocketType,
        *,
        high_water: int = DEFAULT_HIGH_WATER,
    ) -> EngineStream:
        """Takes over a connected stream socket; the socket object is detached and of no more use.

        Raises:
            RuntimeError: this run is not on one of our backends.
        """
        manager = current_manager()
        fd = sock.detach()
        os.set_blocking(fd, False)
        return cls(manager, lib.tb_stream_new(manager.engine, fd, high_water))

    # -- events -----------------------------------------------------------------------

    def hear(self, kind: int, value: int) -> None:
        if kind == _RECEIVED:
            task, self._receiver = self._receiver, None
        elif kind == _SENT:
            task, self._sender = self._sender, None
        else:
            self._hear_news(value)
            return
        if task is not None:
            reschedule(task)

    def _hear_news(self, value: int) -> None:
        if self._news_task is None:
            if self._news is None:
                self._news = deque()
            self._news.append(value)
            return
        task, self._news_task = self._news_task, None
        reschedule(task, outcome.Value(value))

    async def wait_news(self) -> int:
        """What the engine reports of this stream as a member of a multiplexer or a relay."""
        if self._news:
            await trio.lowlevel.checkpoint()
            return self._news.popleft()
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        if self._news_task is not None:
            raise trio.BusyResourceError("another task waits for this stream's news")
        self._news_task = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._news_task = None
            return Abort.SUCCEEDED

        return int(await wait_task_rescheduled(abort))

    def forget_news(self) -> None:
        """News that came for a task that no longer waits (cancelled) are nobody's."""
        self._news = None

    @property
    def busy(self) -> bool:
        """Whether a task is receiving or sending, or the stream is relayed."""
        return self._receiving or self._sending

    @busy.setter
    def busy(self, value: bool) -> None:
        self._receiving = self._sending = value

    # -- Trio's stream ----------------------------------------------------------------

    def receive_nowait(self) -> bytes | None:
        """What :meth:`receive_some` would return without waiting; None: nothing has come yet."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        data = self._receive_now(DEFAULT_RECEIVE_SIZE)
        if data is None:
            lib.tb_stream_stop_waiting(self.pointer, False)
        return data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As ``trio.abc.ReceiveStream``: at least one byte, or b"" at the end."""
        max_bytes = DEFAULT_RECEIVE_SIZE if max_bytes is None else operator.index(max_bytes)
        if max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        await checkpoint_if_cancelled()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            data = self._receive_now(max_bytes)
            if data is not None:
                await cancel_shielded_checkpoint()
            while data is None:
                await self._park_receiver()
                data = self._receive_now(max_bytes)
        finally:
            self._receiving = False
        return data

    def _receive_now(self, max_bytes: int) -> bytes | None:
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        size = max_bytes if max_bytes < _SCRATCH_SIZE else _SCRATCH_SIZE
        result = _stream_receive(self.pointer, _scratch, size)
        if result == _AGAIN:
            return None
        if result < 0:
            raise trio.BrokenResourceError("the connection broke") from os_error(result)
        data: bytes = _scratch_buffer[:result]
        return data

    def put_back(self, data: bytes) -> None:
        """Puts back bytes that were received: the next receive begins with them."""
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        lib.tb_stream_put_back(self.pointer, ffi.from_buffer(data), len(data))

    async def _park_receiver(self) -> None:
        self._receiver = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._receiver = None
            lib.tb_stream_stop_waiting(self.pointer, False)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As ``trio.abc.SendStream``: returns when the kernel has taken all of it."""
        await checkpoint_if_cancelled()
        if self._sending:
            raise trio.BusyResourceError("another task is sending to this stream")
        self._sending = True
        try:
            if self.send_now(data):
                await cancel_shielded_checkpoint()
            else:
                await self._park_sender()
        finally:
            self._sending = False

    def send_now(self, data: bytes | bytearray | memoryview) -> bool:
        """Hands over ``data`` without waiting; True when the kernel has taken all of it at once.

        When not, the engine sends the rest as there is room; a caller that does not wait for it
        (:meth:`send_all` does) must know that it is little.
        """
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        if self._eof_sent:
            raise trio.ClosedResourceError("send_eof() was called on this stream")
        # cffi hands a bytes object's own memory over.
        view = data if type(data) is bytes else ffi.from_buffer(memoryview(data).cast("B"))
        result = _stream_send(self.pointer, view, len(view))
        if result < 0:
            raise trio.BrokenResourceError("the connection broke") from os_error(result)
        return not result

    async def _park_sender(self) -> None:
        self._sender = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._sender = None
            lib.tb_stream_stop_waiting(self.pointer, True)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        error = lib.tb_stream_error(self.pointer)
        if error:
            raise trio.BrokenResourceError("the connection broke") from os_error(error)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        if self._sending:
            raise trio.BusyResourceError("another task is sending to this stream")
        if lib.tb_stream_wait_room(self.pointer):
            self._sending = True
            try:
                await self._park_sender()
            finally:
                self._sending = False

    @property
    def unsent(self) -> int:
        """How many bytes are on their way that the kernel has not taken yet."""
        return int(lib.tb_stream_unsent(self.pointer)) if self.pointer is not None else 0

    async def send_eof(self) -> None:
        """As ``trio.abc.HalfCloseableStream``."""
        await trio.lowlevel.checkpoint()
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        if self._sending:
            raise trio.BusyResourceError("another task is sending to this stream")
        self._eof_sent = True
        result = lib.tb_stream_shutdown_send(self.pointer)
        if result < 0 and result != -errno.ENOTCONN:
            raise trio.BrokenResourceError("the connection broke") from os_error(result)

    def close(self) -> None:
        """Closes at once. Tasks that wait on the stream get ``trio.ClosedResourceError``."""
        if self.pointer is None:
            return
        pointer = self.pointer
        self.forget()
        lib.tb_stream_close(pointer)

    def forget(self) -> None:
        self._manager.faces.pop(self.token, None)
        self.pointer = None
        if self._receiver is self._sender is self._news_task:  # None, all of them
            return
        for task in (self._receiver, self._sender, self._news_task):
            if task is not None:
                closed = trio.ClosedResourceError("another task closed this stream")
                reschedule(task, outcome.Error(closed))
        self._receiver = self._sender = self._news_task = None

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def getpeername(self) -> Any:
        """The other end's address, as ``socket.getpeername`` gives it, or None when it is gone."""
        try:
            return self.socket.getpeername()
        except OSError:
            return None

    def getsockname(self) -> Any:
        """This end's address, as ``socket.getsockname`` gives it, or None when it is gone."""
        try:
            return self.socket.getsockname()
        except OSError:
            return None

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As ``socket.setsockopt``. Raises OSError."""
        self.socket.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """As ``socket.getsockopt``. Raises OSError."""
        return self.socket.getsockopt(level, option, buffersize)

    @property
    def socket(self) -> SocketView:
        """The socket's names and options, not its bytes.

        Raises:
            trio.ClosedResourceError: this stream is closed.
        """
        if self.pointer is None:
            raise trio.ClosedResourceError("this stream is closed")
        return SocketView(lib.tb_stream_fd(self.pointer), self._received_bytes)

    def _received_bytes(self) -> int:
        return 0 if self.pointer is None else int(lib.tb_stream_received_bytes(self.pointer))


class EngineListener(trio.abc.Listener[EngineStream]):
    """A listening socket whose connections the engine accepts.

    What is set on the listening socket (``TCP_NODELAY``, ``SO_KEEPALIVE``) holds for the
    connections.

    Args:
        until_data: offer a connection only when it has sent something or ended, for protocols in
            which the client speaks first. Silent connections then cost no task and no Python
            object.
    """

    stream_type = EngineStream  # what connections become

    def __init__(
        self,
        sock: stdlib_socket.socket | trio.socket.SocketType,
        *,
        high_water: int = DEFAULT_HIGH_WATER,
        until_data: bool = False,
    ) -> None:
        self._manager = current_manager()
        self.name = sock.getsockname()
        fd = sock.detach()
        os.set_blocking(fd, False)
        self._fd = fd
        self._error = 0
        self._task: Task | None = None
        self._handler: Callable[[EngineStream], object] | None = None
        self._listener: Any = lib.tb_listener_new(self._manager.engine, fd, high_water, until_data)
        self._token: int = lib.tb_listener_token(self._listener)
        self._manager.faces[self._token] = self

    @property
    def socket(self) -> SocketView:
        """The listening socket's name and options.

        Raises:
            trio.ClosedResourceError: this listener is closed.
        """
        if self._listener is None:
            raise trio.ClosedResourceError("this listener is closed")
        return SocketView(self._fd)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As ``socket.setsockopt``. Raises OSError."""
        self.socket.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """As ``socket.getsockopt``. Raises OSError."""
        return self.socket.getsockopt(level, option, buffersize)

    def limit_silent(self, count: int, patience: float) -> None:
        """With ``until_data``: how many silent connections there may be, and for how many seconds.

        Above the count the one that has been silent longest is closed. 0: no limit.
        """
        lib.tb_listener_limit_silent(self._listener, count, round(patience * 1e9))

    @property
    def dropped(self) -> int:
        """How many connections were closed because of :meth:`limit_silent`."""
        return int(lib.tb_listener_dropped(self._listener))

    def hear(self, _kind: int, value: int) -> None:
        self._error = value or self._error
        if self._handler is not None and not value:
            self._start_handlers()
        elif self._task is not None:
            task, self._task = self._task, None
            reschedule(task)

    async def accept(self) -> EngineStream:
        """The next connection.

        Raises:
            OSError: the kernel refused one, for want of descriptors (EMFILE) say; call again later.
        """
        await checkpoint_if_cancelled()
        if self._task is not None:
            raise trio.BusyResourceError("another task is accepting from this listener")
        stream = self.accept_nowait()
        if stream is not None:
            await cancel_shielded_checkpoint()
            return stream
        while stream is None:
            await self._park()
            stream = self.accept_nowait()
        return stream

    def accept_nowait(self) -> EngineStream | None:
        """What :meth:`accept` would return without waiting; None: nothing. Raises OSError
        likewise.
        """
        if self._listener is None:
            raise trio.ClosedResourceError("this listener is closed")
        pointer = lib.tb_listener_take(self._listener)
        if pointer != ffi.NULL:
            return self.stream_type(self._manager, pointer)
        if self._error:
            error, self._error = self._error, 0
            raise os_error(error)
        return None

    async def serve(self, handler: Callable[[EngineStream], object]) -> NoReturn:
        """Calls ``handler(stream)`` for each connection, until cancelled.

        It is called while the engine's events are looked at, so it must not wait: it starts or
        wakes a task, which then runs in the same turn of Trio's loop. With :meth:`accept` there
        would be one task and one turn more.

        Raises:
            OSError: the kernel refused a connection, for want of descriptors (EMFILE) say; call
                again later.
        """
        if self._task is not None or self._handler is not None:
            raise trio.BusyResourceError("another task is accepting from this listener")
        self._handler = handler
        try:
            while True:
                self._start_handlers()
                await self._park()
        finally:
            self._handler = None

    def _start_handlers(self) -> None:
        assert self._handler is not None
        while (stream := self.accept_nowait()) is not None:
            self._handler(stream)

    async def _park(self) -> None:
        error = lib.tb_listener_want(self._listener, True)
        if error < 0:
            raise os_error(error)
        self._task = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._task = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def close(self) -> None:
        """Stops listening. Connections accepted and not yet taken are closed."""
        if self._listener is None:
            return
        listener = self._listener
        self.forget()
        lib.tb_listener_close(listener)

    def forget(self) -> None:
        self._manager.faces.pop(self._token, None)
        self._listener = None
        if self._task is not None:
            task, self._task = self._task, None
            closed = trio.ClosedResourceError("another task closed this listener")
            reschedule(task, outcome.Error(closed))

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

"""Joined streams: what the engine does while Python sleeps.

:func:`relay` joins two streams. A :class:`Multiplexer` joins many clients with few servers,
switching where a *framing* (a table of C functions, see engine/framing.h) says that nothing is
owed and nothing open. A task parks in :meth:`Multiplexer.serve` or
:meth:`Multiplexer.server_news` and wakes up only when there is something to decide.
"""

from __future__ import annotations

import enum
import errno
from typing import Any

import attrs
import trio

from ._engine import ffi, lib
from ._install import current_manager
from ._manager import os_error
from ._streams import EngineStream


class ClientNews(enum.IntEnum):
    """Why a client is no longer multiplexed."""

    LEFT = lib.TB_CLIENT_LEFT  # it said goodbye
    ENDED = lib.TB_CLIENT_ENDED  # its connection ended or broke without a goodbye
    VIOLATION = lib.TB_CLIENT_VIOLATION  # of the protocol
    SERVER_LOST = lib.TB_CLIENT_SERVER_LOST  # while they were joined
    WAITED = lib.TB_CLIENT_WAITED  # for a server, longer than the limit
    IDLE = lib.TB_CLIENT_IDLE  # longer than the limit
    OPEN = lib.TB_CLIENT_OPEN  # idle longer than its limit with something open on its server
    APART = lib.TB_CLIENT_APART  # it was asked to leave when nothing is open
    DISMISSED = lib.TB_CLIENT_DISMISSED  # no server was to be had for it
    REFUSED = lib.TB_CLIENT_REFUSED  # it did what the framing does not allow


class ServerNews(enum.IntEnum):
    """What is to be decided of a server. It is parked: its stream is the caller's to use."""

    LOST = lib.TB_SERVER_LOST  # its connection ended or broke
    VIOLATION = lib.TB_SERVER_VIOLATION  # of the protocol
    SPOKE = lib.TB_SERVER_SPOKE  # it sent something although nothing was asked
    ORPHANED = lib.TB_SERVER_ORPHANED  # its client is gone; Multiplexer.remains() says what is left
    IDLE = lib.TB_SERVER_IDLE  # longer than the limit
    RETIRED = lib.TB_SERVER_RETIRED  # it was asked to retire when free
    ASKED = lib.TB_SERVER_ASKED  # the framing has to be told of it: Multiplexer.settle()
    UNFIT = lib.TB_SERVER_UNFIT  # it could not serve its client; others may


class Standing(enum.IntEnum):
    """What there is between a server and the client that has gone."""

    APART = lib.TB_APART  # nothing
    OPEN = lib.TB_OPEN  # nothing is owed, but something is open: a transaction, say
    BUSY = lib.TB_BUSY  # an answer is owed, or a message is half through
    UNSURE = lib.TB_UNSURE  # the account does not hold
    KEPT = lib.TB_KEPT  # the client had something that only this server has
    ASK = lib.TB_ASK  # perhaps the same: the framing wanted to know
    LEFT = lib.TB_LEFT  # the client's goodbye has gone on behind a request


class LastWords(enum.IntEnum):
    """What a client has heard last from its server."""

    WHOLE = lib.TB_WORDS_WHOLE  # a whole message: it may be told something
    ERROR = lib.TB_WORDS_ERROR  # an error: it need not be told another
    CUT = lib.TB_WORDS_CUT  # half a message: it cannot be told anything


@attrs.frozen
class ClientReport:
    """How a client's time in a multiplexer ended; ``why`` names a violation, or what is refused."""

    news: ClientNews
    why: str
    heard: LastWords

    @property
    def usual(self) -> bool:
        """It went by itself."""
        return self.news in (ClientNews.LEFT, ClientNews.ENDED)


_USUAL_REPORTS: dict[int, ClientReport] = {
    int(news): ClientReport(news, "", LastWords.WHOLE)
    for news in (ClientNews.LEFT, ClientNews.ENDED)
}


@attrs.frozen
class Remains:
    """What a departed client left on its server; ``goodbye``: it left by the protocol's own way."""

    standing: Standing
    goodbye: bool


@attrs.frozen
class MultiplexerStats:
    """Counts now, and totals since the start; times in seconds.

    The histograms count by powers of two: entry 0 is below 1 µs, entry n from 2^(n-1) to 2^n µs.
    """

    clients: int
    waiting: int
    joined: int
    servers: int
    servers_idle: int
    servers_parked: int
    longest_wait: float
    transactions: int
    requests: int
    waits: int
    wait_time: float
    busy_time: float
    bytes_from_clients: int
    bytes_from_servers: int
    wait_histogram: tuple[int, ...]
    busy_histogram: tuple[int, ...]


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


class Multiplexer:
    """Many clients over few servers, switched in the engine.

    Args:
        framing: the address of a ``struct tb_framing``; it must live as long as the process.
        sticky: a server stays with its client until the client leaves.
        option: a number for the framing, which says what it means.

    Raises:
        RuntimeError: this run is not on one of our backends, or the framing was compiled against
            another version of framing.h.
    """

    def __init__(self, framing: int, *, sticky: bool = False, option: int = 0) -> None:
        self._manager = current_manager()
        pointer = ffi.cast("void *", framing)
        self._mux: Any = lib.tb_mux_new(self._manager.engine, pointer, sticky, option)
        if self._mux == ffi.NULL:
            raise RuntimeError("the framing was compiled against another version of framing.h")
        self._token: int = lib.tb_mux_token(self._mux)
        self._starved = trio.Event()
        self._manager.faces[self._token] = self

    def hear(self, _kind: int, _value: int) -> None:
        self._starved.set()

    def forget(self) -> None:
        self._manager.faces.pop(self._token, None)
        self._mux = None

    def close(self) -> None:
        """Every member must have been removed."""
        if self._mux is not None:
            mux = self._mux
            self.forget()
            lib.tb_mux_free(mux)

    def limit(
        self,
        *,
        wait: float = 0,
        client_idle: float = 0,
        open_idle: float = 0,
        server_idle: float = 0,
    ) -> None:
        """How long each may last, in seconds; 0: for ever. Holds for who is there already."""
        limits = ffi.new("struct tb_mux_limits *")
        limits.wait = _nanoseconds(wait)
        limits.client_idle = _nanoseconds(client_idle)
        limits.open_idle = _nanoseconds(open_idle)
        limits.server_idle = _nanoseconds(server_idle)
        lib.tb_mux_limit(self._mux, limits)

    def stats(self) -> MultiplexerStats:
        raw = ffi.new("struct tb_mux_stats *")
        lib.tb_mux_stats(self._mux, raw)
        return MultiplexerStats(
            clients=raw.clients,
            waiting=raw.waiting,
            joined=raw.joined,
            servers=raw.servers,
            servers_idle=raw.servers_idle,
            servers_parked=raw.servers_parked,
            longest_wait=raw.longest_wait / 1e9,
            transactions=raw.transactions,
            requests=raw.requests,
            waits=raw.waits,
            wait_time=raw.wait_ns / 1e9,
            busy_time=raw.busy_ns / 1e9,
            bytes_from_clients=raw.bytes_from_clients,
            bytes_from_servers=raw.bytes_from_servers,
            wait_histogram=tuple(raw.wait_histogram),
            busy_histogram=tuple(raw.busy_histogram),
        )

    @property
    def waiting(self) -> int:
        """How many clients wait for a server now."""
        return int(lib.tb_mux_waiting(self._mux))

    # -- clients ----------------------------------------------------------------------

    def tell(self, data: bytes) -> None:
        """Tells the framing something about all members, which it knows how to read."""
        lib.tb_mux_tell(self._mux, data, len(data))

    async def serve(self, stream: EngineStream, told: bytes = b"") -> ClientReport:
        """Multiplexes a client until there is something to decide; then its stream is the caller's.

        ``told`` is what the framing is to know of it from the start.

        When cancelled, the client is taken out; a server that it was joined with is reported to
        whoever owns that server (``ServerNews.ORPHANED``).
        """
        pointer = _pointer(stream)
        lib.tb_mux_add_client(self._mux, pointer, told, len(told))
        try:
            news = await stream.wait_news()
            # How nearly every client goes needs no looking into.
            # Another task may have closed the stream in this very tick: its pointer is dead then.
            return _USUAL_REPORTS.get(news) or self._report(_pointer(stream), news)
        finally:
            if stream.pointer is not None:
                lib.tb_mux_remove(pointer)
            stream.forget_news()

    def _report(self, pointer: Any, news: int) -> ClientReport:
        why = ffi.string(lib.tb_member_why(pointer)).decode()
        return ClientReport(ClientNews(news), why, LastWords(lib.tb_member_words(pointer)))

    def dismiss_waiting(self) -> None:
        """Ends :meth:`serve` with ``ClientNews.DISMISSED`` for every client that waits now."""
        lib.tb_mux_dismiss(self._mux)

    def ask_to_leave(self, stream: EngineStream) -> None:
        """Ends :meth:`serve` with ``ClientNews.APART`` as soon as nothing is owed or open."""
        if stream.pointer is not None:
            lib.tb_client_leave(stream.pointer)

    def server_token(self, stream: EngineStream) -> int | None:
        """The token of the server that a client is joined with now."""
        if stream.pointer is None:
            return None
        return lib.tb_client_server(stream.pointer) or None

    def is_waiting(self, stream: EngineStream) -> bool:
        """Whether a client waits for a server."""
        return stream.pointer is not None and bool(lib.tb_client_waits(stream.pointer))

    def queued(self, stream: EngineStream) -> bytes | None:
        """What a client that waits for a server has sent so far; None: it does not wait."""
        if not self.is_waiting(stream):
            return None
        size = lib.tb_stream_received_bytes(stream.pointer)
        raw = ffi.new("uint8_t[]", size)
        return bytes(ffi.buffer(raw, lib.tb_client_peek(stream.pointer, raw, size)))

    def answer_waiting(self, stream: EngineStream, size: int, answer: bytes) -> None:
        """Answers the first ``size`` bytes of what a waiting client has sent, in a server's place.

        They go nowhere; what is behind them waits for a server as if it had come just now. Nothing
        is done if the client does not wait, or has not sent so much.
        """
        if stream.pointer is None or not lib.tb_client_withdraw(stream.pointer, size):
            return
        try:
            stream.send_now(answer)
        except trio.BrokenResourceError:
            pass  # which resuming it reports
        finally:
            lib.tb_client_resume(stream.pointer)

    # -- servers ----------------------------------------------------------------------

    def add_server(self, stream: EngineStream) -> None:
        """A server that is clean and logged in begins to serve."""
        lib.tb_mux_add_server(self._mux, _pointer(stream))

    async def server_news(self, stream: EngineStream) -> ServerNews:
        """Parks until there is something to decide of this server."""
        return ServerNews(await stream.wait_news())

    def remains(self, stream: EngineStream) -> Remains:
        """What an orphaned server's client left behind."""
        pointer = _pointer(stream)
        return Remains(
            Standing(lib.tb_member_standing(pointer)), bool(lib.tb_server_goodbye(pointer))
        )

    def why(self, stream: EngineStream) -> str:
        """The words for a ``ServerNews.VIOLATION``."""
        return str(ffi.string(lib.tb_member_why(_pointer(stream))).decode())

    def client_token(self, stream: EngineStream) -> int | None:
        """The token of the client that a server is joined with now."""
        return lib.tb_server_client(_pointer(stream)) or None

    def noted(self, stream: EngineStream) -> bytes:
        """What the framing has noted of a server's client; for ``ServerNews.ASKED``."""
        length = ffi.new("size_t *")
        noted = lib.tb_server_noted(_pointer(stream), length)
        return bytes(ffi.buffer(noted, length[0])) if length[0] else b""

    def tell_server(self, stream: EngineStream, data: bytes) -> None:
        """Tells the framing something about a server that is parked."""
        lib.tb_server_tell(_pointer(stream), data, len(data))

    def settle(self, stream: EngineStream, data: bytes, forward: bytes = b"") -> bool:
        """The answer to ``ServerNews.ASKED``: what the framing is to know of the client, to which
        ``forward`` is sent first. The two go on from where they were.

        False: the client has gone meanwhile; the server is still the caller's, and not clean.
        """
        return bool(lib.tb_server_answer(_pointer(stream), data, len(data), forward, len(forward)))

    def server_ready(self, stream: EngineStream) -> None:
        """A parked server is clean again: it serves on."""
        lib.tb_server_ready(_pointer(stream))

    def remove_server(self, stream: EngineStream) -> None:
        """Takes a server out; a client joined with it hears that it was lost."""
        if stream.pointer is not None:
            lib.tb_mux_remove(stream.pointer)

    def retire(self, stream: EngineStream) -> None:
        """Reports ``ServerNews.RETIRED`` as soon as the server is free."""
        lib.tb_server_retire(_pointer(stream))

    def hold(self, stream: EngineStream) -> None:
        """Keeps a server from being given to another client until :meth:`release`. Nests."""
        lib.tb_server_hold(_pointer(stream))

    def release(self, stream: EngineStream) -> None:
        if stream.pointer is not None:
            lib.tb_server_release(stream.pointer)

    # -- starvation -------------------------------------------------------------------

    def want_starvation(self, wanted: bool) -> None:
        """Whether :meth:`starved` is to be told: at the limit of servers there is no use in it."""
        lib.tb_mux_hungry(self._mux, wanted)

    async def starved(self) -> None:
        """Parks until a client finds no idle server (and :meth:`want_starvation` was set)."""
        await self._starved.wait()
        self._starved = trio.Event()


def _pointer(stream: EngineStream) -> Any:
    if stream.pointer is None:
        raise trio.ClosedResourceError("this stream is closed")
    return stream.pointer


@attrs.frozen
class RelayCounts:
    """How many bytes a relay has taken from each side for the other."""

    left_to_right: int
    right_to_left: int


async def relay(left: EngineStream, right: EngineStream) -> RelayCounts:
    """Moves bytes both ways in the engine until both ends have ended; the end of one is passed on.

    What a stream had received already goes first. Meanwhile the streams are busy for other tasks.
    Cancelling it parts the streams, which stay open; what was taken from one is still sent to the
    other.

    Raises:
        ValueError: the two are one stream.
        trio.BusyResourceError: another task is using one of them.
        trio.BrokenResourceError: one of the connections broke.
        trio.ClosedResourceError: one of the streams is closed, or was closed meanwhile.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    pointers = _pointer(left), _pointer(right)
    for stream in (left, right):
        if stream.busy:
            raise trio.BusyResourceError("another task is using this stream")
        stream.forget_news()
    error = lib.tb_relay(*pointers)
    if error == -errno.EBUSY:
        raise trio.BusyResourceError("this stream is joined with another already")
    if error:
        raise ValueError("a stream cannot be joined with itself")
    left.busy = right.busy = True
    try:
        result = await min(left, right, key=lambda stream: stream.token).wait_news()
        if left.pointer is None or right.pointer is None:
            raise trio.ClosedResourceError("another task closed a relayed stream")
        counts = RelayCounts(*map(lib.tb_relayed, pointers))
    finally:
        left.busy = right.busy = False
        for stream in (left, right):
            stream.forget_news()
            if stream.pointer is not None:
                lib.tb_relay_stop(stream.pointer)
    if result < 0:
        raise trio.BrokenResourceError("a relayed connection broke") from os_error(result)
    return counts

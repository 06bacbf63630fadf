"""A client's life between its first byte and its last.

While it is logged in and nothing has to be decided, all there is of it in Python is this task,
asleep in ``Multiplexer.serve``.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from pooler.links.client import ClientGone, authenticate, first_packet, read_first
from pooler.links.replication import replicate
from pooler.links.server import ServerLink
from pooler.pool import Guest, Place, Pool
from pooler.rules.admission import Check, Trust
from pooler.rules.replication import wants_replication
from pooler.sessions.farewell import CANCELLED, farewell
from pooler.wire import messages
from pooler.wire.errors import PostgresError
from pooler.wire.requests import first_request
from pooler.wire.startup import PROTOCOL_3_0, CancelRequest, Startup
from trio_backends import ClientNews, ClientReport, EngineStream

_READY = messages.ready_for_query()
_SHUTTING_DOWN = PostgresError("FATAL", "57P03", "the pooler is shutting down")
# A client that does not read what it is told is closed all the same.
FAREWELL_TIMEOUT = 1.0  # seconds
# How long a client that has said goodbye may take to read what it asked for before.
LAST_ANSWER_TIMEOUT = 10.0  # seconds


class House(Protocol):
    """What a session needs of the pooler around it (service.Service)."""

    def check_for(self, startup: Startup) -> Check:
        """What this client has to prove."""

    def known_place(self, startup: Startup) -> Place | None:
        """Where a client belongs whose start-up packet has been seen before."""

    async def find_place(self, startup: Startup) -> Place:
        """Where a client belongs. PostgresError: there is no such database."""

    def walsender(self, startup: Startup) -> AbstractAsyncContextManager[ServerLink]:
        """A server for replication, within the limits. PostgresError: it is not to be had."""

    def admit(self, session: Session) -> None:
        """A client has logged in: gives it its cancel key. PostgresError: there is no room."""

    async def cancel(self, request: CancelRequest) -> None:
        """A cancel request has come."""

    def left(self, session: Session, report: ClientReport | None) -> None:
        """A session is over; ``report``: how its time with servers ended, if it had any."""

    def log_failed(self, session: Session, error: PostgresError) -> None:
        """A log-in was refused."""


class Session:
    """One client connection."""

    __slots__ = (
        "arrived",
        "database",
        "guest",
        "number",
        "pool",
        "process_id",
        "protocol",
        "secret",
        "stream",
        "user",
        "walsender",
    )

    def __init__(self, stream: EngineStream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.guest = Guest(number)
        self.pool: Pool | None = None
        self.walsender: ServerLink | None = None  # of a replication connection
        self.user = ""
        self.database = ""
        self.protocol = PROTOCOL_3_0  # as the client asked for it; it may be newer than ours
        # What a CancelRequest must name; given out by the house.
        self.process_id = 0
        self.secret = b""
        self.arrived = trio.current_time()

    async def run(self, house: House) -> None:
        """From the first byte to the last. Never raises for what a client or server sends."""
        report: ClientReport | None = None
        try:
            pool = await self._log_in(house)
            if pool is not None:
                report = await pool.serve(self.stream, self.guest)
                error = self.guest.refusal or farewell(report, pool.last_error)
                if error is not None:
                    await self._tell(error)
                elif report.news is ClientNews.LEFT and self.stream.unsent:
                    await self._finish()
        except PostgresError as refusal:
            house.log_failed(self, refusal)
            await self._tell(refusal)
        except (ClientGone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # nobody is there to be told
        finally:
            house.left(self, report)
            self.stream.close()

    async def _log_in(self, house: House) -> Pool | None:
        """None: there is nothing more to do for it. Waits only for what is not there."""
        stream = self.stream
        arrival = first_packet(stream) or await read_first(stream)
        if isinstance(arrival, CancelRequest):
            # Closed when PostgreSQL has been told, as PostgreSQL itself does.
            await house.cancel(arrival)
            return None
        startup, rest = arrival.startup, arrival.rest
        self.user, self.database = startup.user, startup.database
        self.protocol = startup.version
        check = house.check_for(startup)
        plain = startup.version == PROTOCOL_3_0 and not startup.protocol_options
        if not (plain and isinstance(check, Trust)):
            rest = await authenticate(stream, arrival, check)
        if wants_replication(startup.replication):
            await self._replicate(house, startup, rest)
            return None
        place = house.known_place(startup) or await house.find_place(startup)
        pool = place.pool
        if pool.parameters is None:
            await pool.wait_parameters()
        house.admit(self)
        self.guest = place.guest(self.number)
        stream.send_now(
            messages.AUTHENTICATION_OK
            + place.greeting()
            + messages.backend_key_data(self.process_id, self.secret)
            + _READY
        )
        self.pool = pool
        if rest:
            stream.put_back(rest)
        return pool

    async def _replicate(self, house: House, startup: Startup, rest: bytes) -> None:
        house.admit(self)
        self.stream.put_back(rest)
        key = messages.backend_key_data(self.process_id, self.secret)
        async with house.walsender(startup) as self.walsender:
            await replicate(self.stream, self.walsender, key)

    async def _finish(self) -> None:
        """What it asked for before its goodbye is still on its way."""
        with (
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            trio.move_on_after(LAST_ANSWER_TIMEOUT),
        ):
            await self.stream.wait_send_all_might_not_block()

    async def _tell(self, error: PostgresError) -> None:
        with (
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            trio.move_on_after(FAREWELL_TIMEOUT),
        ):
            await self.stream.send_all(error.to_bytes())

    def cancel_waiting(self) -> bool:
        """Answers the request with which it waits for a server, if all of it is there.

        Returns whether it waits. Nothing can come between the looking and the answer.
        """
        queued = self.pool.multiplexer.queued(self.stream) if self.pool is not None else None
        if queued is None or self.pool is None:
            return False
        size = first_request(queued)
        if size:
            self.pool.multiplexer.answer_waiting(self.stream, size, CANCELLED.to_bytes() + _READY)
        return True

    def ask_to_leave(self) -> None:
        """Ends the session as soon as it has nothing under way; at once if it is not logged in."""
        if self.pool is None:
            # It has said what it wants, and waits for an answer. (A relay may be in the midst of a
            # message: nothing can be said there.)
            if self.user and self.walsender is None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    self.stream.send_now(_SHUTTING_DOWN.to_bytes())
            self.stream.close()
        else:
            self.pool.multiplexer.ask_to_leave(self.stream)

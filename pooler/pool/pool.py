"""The servers of one database and user that clients share.

The multiplexer knows which server is idle, joined or parked; there is no second list. The pool
decides how many there are, opens them when clients wait, and has one Trio task for each, which
logs it in, parks until the engine has something to decide, cleans it, and closes it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from pooler.pool.guest import Guest
from pooler.pool.inquiry import NO_SETTINGS, Inquiry
from pooler.pool.quota import Quota
from pooler.pool.server import Log, Server, ServerFailed
from pooler.rules.cleaning import Clean, Ending, Left, after_client
from pooler.rules.outage import RETRY_DELAY, RETRY_DELAY_UNHURRIED, will_pass
from pooler.wire.errors import PostgresError
from pooler.wire.messages import parameter_status
from trio_backends import (
    ClientReport,
    EngineStream,
    Multiplexer,
    Remains,
    ServerNews,
    Standing,
)

# Log-ins to one database under way at once: each costs PostgreSQL a process.
PARALLEL_LOGINS = 4
# A server whose client went is clean, or cancelled and at its end, within so many seconds; if not,
# it is closed.
CLEANING_TIMEOUT = 10.0
# Greetings kept ready, one for each name that applications give themselves.
GREETINGS_KEPT = 256
# How long to wait for the effect of a cancellation before the second one; then twice as long, ….
CANCELLING_PAUSE = 0.1
# A server lives this share longer or shorter than it might, so that they do not all end at once.
LIFETIME_JITTER = 0.1

_LEFT = {
    Standing.APART: Left.NOTHING,
    Standing.OPEN: Left.TRANSACTION,
    Standing.BUSY: Left.REQUEST,
    Standing.UNSURE: Left.REQUEST,
    Standing.LEFT: Left.REQUEST,
    Standing.KEPT: Left.SESSION,
    Standing.ASK: Left.SESSION,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, 0: never."""

    min_servers: int
    server_connect_timeout: float
    server_lifetime: float


class Pool:
    """Servers opened by ``connect`` and shared by the clients of ``multiplexer``.

    Args:
        connect: makes a server; raises ServerFailed.
        sticky: session mode: a server stays with its client, and is made as new afterwards.
        pins_allowed: whether a client may keep its server for what only that has.
        quota: the places for servers, perhaps shared with other pools.
        nursery: where the servers' tasks run.
    """

    def __init__(
        self,
        multiplexer: Multiplexer,
        connect: Callable[[], Awaitable[Server]],
        *,
        sticky: bool,
        pins_allowed: bool = True,
        limits: Limits,
        quota: Quota,
        nursery: trio.Nursery,
        log: Log,
    ) -> None:
        self.multiplexer = multiplexer
        self.limits = limits
        # What the server opened last reported of itself; None before the first.
        self.parameters: Mapping[str, str] | None = None
        self._greetings: dict[str, bytes] = {}
        # Why there is no server, for clients that are dismissed.
        self.last_error: PostgresError | None = None
        self._connect = connect
        self._sticky = sticky
        self.inquiry = Inquiry(multiplexer, pins_allowed=pins_allowed, log=log)
        self._quota = quota
        self._nursery = nursery
        self._log = log
        self._servers: dict[int, Server] = {}  # by token of their streams
        self._opening = 0
        self._retry_at = 0.0
        self._failing_since: float | None = None
        self._retry_planned = False
        self._curious = 0  # who waits for the first server's parameters
        self._news = trio.Event()  # a server came, went, is idle again, or could not be had
        self._closing = False
        quota.join(self)

    # -- clients ----------------------------------------------------------------------

    async def serve(self, stream: EngineStream, guest: Guest) -> ClientReport:
        """Multiplexes a client until its session is over; ``guest.refusal``: why, if by us."""
        return await self.inquiry.serve(stream, guest)

    # -- how many ---------------------------------------------------------------------

    @property
    def size(self) -> int:
        return len(self._servers) + self._opening

    def _needed(self) -> int:
        """How many servers should be opened now, places permitting."""
        wanted = self.multiplexer.waiting + (1 if self._curious and not self._servers else 0)
        ahead = self.limits.min_servers - self.size
        return min(max(wanted - self._opening, ahead), PARALLEL_LOGINS - self._opening)

    def consider(self) -> None:
        """Opens servers if clients wait for them, or fewer are there than are to be kept."""
        if self._closing:
            return
        needed = self._needed()
        wait = self._retry_at - trio.current_time()
        if needed > 0 and wait > 0:
            self._plan_retry(wait)
            return
        for _ in range(min(needed, self._quota.free)):
            self._quota.take()
            self._opening += 1
            self._nursery.start_soon(self._life_of_a_server)
        if needed > 0 and not self.size:
            self._quota.ask_siblings(self)
        self.multiplexer.want_starvation(self._quota.free > 0 or not self.size)

    def _plan_retry(self, wait: float) -> None:
        if not self._retry_planned:
            self._retry_planned = True
            self._nursery.start_soon(self._retry, wait)

    async def _retry(self, wait: float) -> None:
        await trio.sleep(wait)
        self._retry_planned = False
        self.consider()

    async def run(self) -> None:
        """Opens servers whenever a client finds none. Runs until cancelled."""
        self.consider()
        while True:
            await self.multiplexer.starved()
            self.consider()

    def give_up_one(self) -> None:
        """For a sibling: the next server that is free ends."""
        for server in self._servers.values():
            self.multiplexer.retire(server.stream)
            return

    # -- the first server's parameters ------------------------------------------------

    def greeting(self, application_name: str) -> bytes:
        """What servers report of themselves, as messages for a client; b"" before the first.

        The application's name is the client's own.
        """
        found = self._greetings.get(application_name)
        if found is None and self.parameters is not None:
            reported = {**self.parameters, "application_name": application_name}
            found = b"".join(parameter_status(name, value) for name, value in reported.items())
            if len(self._greetings) >= GREETINGS_KEPT:
                self._greetings.clear()
            self._greetings[application_name] = found
        return found or b""

    async def wait_parameters(self) -> None:
        """Until :attr:`parameters` are known; opens a server if there has been none yet.

        Raises:
            PostgresError: no server could be opened.
        """
        self._curious += 1
        try:
            while self.parameters is None:
                self.consider()
                await self._news.wait()
                if self.parameters is None and self.last_error is not None:
                    raise self.last_error
        finally:
            self._curious -= 1

    def _learn(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters
        self._greetings.clear()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # -- failures ---------------------------------------------------------------------

    def _failed(self, error: PostgresError) -> None:
        now = trio.current_time()
        passing = will_pass(error.sqlstate)
        hurry = self.multiplexer.waiting or self._curious
        if self._failing_since is None:
            self._failing_since = now
            self._log.warning("cannot open a server", error=str(error))
        self._retry_at = now + (RETRY_DELAY if hurry else RETRY_DELAY_UNHURRIED)
        # Clients that wait are told when it is not going to work, or has not for long enough. With
        # other servers there, they are served by those.
        lasting = now - self._failing_since >= self.limits.server_connect_timeout
        if not self._servers and (not passing or lasting):
            self.last_error = error
            self.multiplexer.dismiss_waiting()
            self._tell()

    def _succeeded(self, server: Server) -> None:
        if self._failing_since is not None:
            self._log.info("servers can be opened again")
        self._failing_since = None
        self._retry_at = 0.0
        self.last_error = None
        self._learn(server.parameters)
        self._tell()

    # -- one server -------------------------------------------------------------------

    async def _life_of_a_server(self) -> None:
        try:
            server = await self._open()
            if server is not None:
                await self._serve(server)
        finally:
            self._quota.give_back()
            self.consider()

    async def _open(self) -> Server | None:
        try:
            server = await self._connect()
        except ServerFailed as failure:
            self._opening -= 1
            self._failed(failure.error)
            return None
        except BaseException:
            self._opening -= 1
            raise
        self._opening -= 1
        self._servers[server.stream.token] = server
        self._succeeded(server)
        return server

    async def _serve(self, server: Server) -> None:
        stream = server.stream
        try:
            self.multiplexer.add_server(stream)
            # Clients that found no server were reported once; not all of them have one now.
            self.consider()
            expiry = self._expiry()
            while await self._decide(server, await self._news_of(server, expiry)):
                self._tell()
        finally:
            del self._servers[stream.token]
            self.inquiry.forget(server)
            self.multiplexer.remove_server(stream)
            server.close()
            self._tell()

    def _expiry(self) -> float:
        lifetime = self.limits.server_lifetime
        if not lifetime:
            return float("inf")
        return trio.current_time() + lifetime * random.uniform(1 - LIFETIME_JITTER, 1)

    async def _news_of(self, server: Server, expiry: float) -> ServerNews:
        if not trio.current_time() >= expiry:
            with trio.move_on_at(expiry):
                return await self.multiplexer.server_news(server.stream)
        self.multiplexer.retire(server.stream)
        return await self.multiplexer.server_news(server.stream)

    async def _decide(self, server: Server, news: ServerNews) -> bool:
        """Whether the server serves on."""
        if news is ServerNews.ASKED:
            return await self.inquiry.look(server)
        good = False
        if news is ServerNews.ORPHANED:
            good = await self._clean(server, self.multiplexer.remains(server.stream))
        elif news is ServerNews.SPOKE:
            good = await self._heard(server)
        elif news is ServerNews.IDLE:
            good = self.size <= self.limits.min_servers
        elif news is ServerNews.VIOLATION:
            self._log.warning(
                "a server broke the protocol", why=self.multiplexer.why(server.stream)
            )
        if good:
            self.multiplexer.server_ready(server.stream)
        return good

    async def _heard(self, server: Server) -> bool:
        try:
            await server.listen()
        except PostgresError as error:
            self._log.info("a server ended", error=str(error))
            return False
        self._learn(server.parameters)
        return True

    async def _clean(self, server: Server, remains: Remains) -> bool:
        left = _LEFT[remains.standing]
        what = after_client(left, goodbye=remains.goodbye, keeps_session=self._sticky)
        # What was asked for before a goodbye may take as long as it would if the client had stayed:
        # PostgreSQL works on, so the place is not free.
        timeout = math.inf if what is Ending.FINISH else CLEANING_TIMEOUT
        with trio.move_on_after(timeout):
            try:
                if isinstance(what, Clean):
                    for statement in what.statements:
                        await server.execute(statement)
                    if what.session:
                        return await self.inquiry.undo(server)
                    if self._sticky:  # DISCARD ALL
                        self.multiplexer.tell_server(server.stream, NO_SETTINGS)
                    return True
                if what is Ending.FINISH:
                    await server.end(finish=True)
                else:
                    await self._cancel(server)
            except PostgresError as error:
                self._log.warning("a server could not be cleaned", error=str(error))
        return False

    async def _cancel(self, server: Server) -> None:
        """Until it has ended. A cancellation that comes before PostgreSQL has read the query, or
        between two queries, hits nothing: so there are several."""
        pause = CANCELLING_PAUSE
        while True:
            await server.cancel()
            with trio.move_on_after(pause):
                await server.end(finish=False)
                return
            pause *= 2

    # -- the end, and cancel requests -------------------------------------------------

    async def cancel_client(self, client: EngineStream) -> None:
        """Cancels what the server of this client does, if it has one.

        Until PostgreSQL has passed the cancellation on, the server goes to no other client.
        """
        token = self.multiplexer.server_token(client)
        server = self._servers.get(token) if token is not None else None
        if server is None:
            return
        self.multiplexer.hold(server.stream)
        try:
            await server.cancel()
        finally:
            self.multiplexer.release(server.stream)
            self._tell()

    async def settled(self) -> None:
        """Returns when no server has anything to do for clients, all of whom are gone."""
        stats = self.multiplexer.stats
        while (now := stats()).servers > now.servers_idle:
            await self._news.wait()

    def stop_opening(self) -> None:
        """No further server is opened, and nobody waits for one any longer: the pooler ends."""
        if not self._closing:
            self._closing = True
            self._quota.leave(self)
            self.last_error = PostgresError("FATAL", "57P03", "the pooler is shutting down")
            self._tell()

"""The pooler as a whole: accepts clients, runs their sessions, ends in good order."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import outcome
import structlog
import trio

from pooler.config import Settings
from pooler.links.server import ServerLink
from pooler.pool import Place
from pooler.rules.admission import Check, Gatekeeper
from pooler.service.directory import Directory
from pooler.service.keys import CancelKeys
from pooler.service.logins import Logins
from pooler.sessions.session import Session
from pooler.wire.errors import PostgresError
from pooler.wire.startup import CancelRequest, Startup
from trio_backends import ClientNews, ClientReport, EngineListener, EngineStream

log = structlog.get_logger()

# How long accepting rests when the kernel has no room (descriptors, memory) for a connection.
ACCEPT_PAUSE = 0.1  # seconds
# Tasks that wait for another client when theirs has gone.
SPARE_TASKS = 100


class Service:
    """Sessions and pools, in one nursery of its caller. Implements ``sessions.session.House``."""

    def __init__(self, settings: Settings, nursery: trio.Nursery) -> None:
        self._settings = settings
        self._log_connections = settings.pooler.log_connections
        self._max_clients = settings.pooler.max_clients
        self._gatekeeper = Gatekeeper(settings.auth.method)
        self._logins = Logins(settings.pooler.max_logins, settings.pooler.client_login_timeout)
        self._keys = CancelKeys()
        self._sessions: dict[Session, None] = {}
        self._number = 0
        self._draining = False
        self._empty = trio.Event()
        self._nursery = nursery
        self._spare: list[trio.lowlevel.Task] = []  # asleep between two clients
        self.directory = Directory(settings, nursery)

    # -- accepting --------------------------------------------------------------------

    async def run(self, listeners: list[EngineListener]) -> None:
        """Accepts until cancelled; sessions go on in the nursery."""
        self.directory.prefill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._logins.expire)
            for listener in listeners:
                nursery.start_soon(self._accept, listener)

    async def _accept(self, listener: EngineListener) -> None:
        pooler = self._settings.pooler
        listener.limit_silent(pooler.max_logins, pooler.client_login_timeout)
        while True:
            try:
                await listener.serve(self._start)
            except OSError as error:
                log.warning("no room for another connection", error=str(error))
                await trio.sleep(ACCEPT_PAUSE)

    def _start(self, stream: EngineStream) -> None:
        """Gives a connection a task: one that has just finished with another, or a new one."""
        if self._spare:
            trio.lowlevel.reschedule(self._spare.pop(), outcome.Value(stream))
        else:
            self._nursery.start_soon(self._clients, stream)

    async def _clients(self, stream: EngineStream) -> None:
        """A client's task, and then perhaps the next one's: to make a task costs time."""
        while True:
            await self._client(stream)
            if len(self._spare) >= SPARE_TASKS or self._draining:
                return
            task = trio.lowlevel.current_task()
            self._spare.append(task)

            def abort(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._spare.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            stream = await trio.lowlevel.wait_task_rescheduled(abort)

    async def _client(self, stream: EngineStream) -> None:
        """One client. A fault of ours here is its end, and a line in the log."""
        self._number += 1
        session = Session(stream, self._number)
        self._sessions[session] = None
        gave_way = self._logins.begin(session)
        if gave_way is not None:
            log.info("too many log-ins: the oldest gave way", client=gave_way.number)
        try:
            await session.run(self)
        except Exception:
            log.exception("a session failed", client=session.number)

    # -- House ------------------------------------------------------------------------

    def check_for(self, startup: Startup) -> Check:
        return self._gatekeeper.check(startup.user, self._settings.secrets.get(startup.user))

    def known_place(self, startup: Startup) -> Place | None:
        return self.directory.known(startup)

    async def find_place(self, startup: Startup) -> Place:
        return await self.directory.find(startup)

    def walsender(self, startup: Startup) -> AbstractAsyncContextManager[ServerLink]:
        return self.directory.walsender(startup)

    def admit(self, session: Session) -> None:
        if self._draining:
            raise PostgresError("FATAL", "57P03", "the pooler is shutting down")
        if len(self._sessions) - len(self._logins) >= self._max_clients:
            raise PostgresError("FATAL", "53300", "sorry, too many clients already")
        self._logins.end(session)
        self._keys.give(session)
        if self._log_connections:
            log.info("client logged in", **_who(session))

    async def cancel(self, request: CancelRequest) -> None:
        session = self._keys.find(request)
        if session is None:
            return
        if session.walsender is not None:
            await session.walsender.cancel()
        elif session.pool is not None and not session.cancel_waiting():
            await session.pool.cancel_client(session.stream)

    def log_failed(self, session: Session, error: PostgresError) -> None:
        log.warning("client refused", **_who(session), error=str(error))

    def left(self, session: Session, report: ClientReport | None) -> None:
        self._logins.end(session)
        self._keys.take_back(session)
        self._sessions.pop(session, None)
        if not self._sessions:
            self._empty.set()
        if report is None or (report.usual and not self._log_connections):
            return
        if report.news is ClientNews.VIOLATION:
            log.warning("client broke the protocol", client=session.number, why=report.why)
        else:
            log.info("client left", client=session.number, reason=report.news.name.lower())

    # -- the end ----------------------------------------------------------------------

    async def drain(self) -> None:
        """Asks every session to end when nothing is under way; returns when the last has."""
        self._draining = True
        log.info("shutting down", clients=len(self._sessions))
        self.directory.stop_opening()
        for session in list(self._sessions):
            session.ask_to_leave()
        while self._sessions:
            self._empty = trio.Event()
            await self._empty.wait()

    async def end(self) -> None:
        """Closes whoever is still there; returns when nothing is under way for them any more."""
        for session in list(self._sessions):
            session.stream.close()
        await self.directory.settled()


def _who(session: Session) -> dict[str, object]:
    return {
        "client": session.number,
        "database": session.database,
        "user": session.user,
        "address": _address(session.stream),
    }


def _address(stream: EngineStream) -> str:
    if stream.pointer is None:
        return "gone"
    peer = stream.getpeername()
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"

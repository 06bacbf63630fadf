"""What clients have in their sessions: their servers are asked, and in the end made as new."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import trio

from pooler.pool.guest import Guest
from pooler.pool.server import Log, Server
from pooler.rules.session import AS_NEW, undo
from pooler.wire.errors import PostgresError
from pooler.wire.session import read_noted, told_settings
from trio_backends import ClientReport, EngineStream, Multiplexer

# A server has answered what its session has within so many seconds; if not, it is closed.
LOOKING_TIMEOUT = 10.0
NO_SETTINGS = told_settings(())


class Inquiry:
    """The clients of a pool, and what is known of their sessions.

    Args:
        pins_allowed: whether a client may keep its server for what only that has.
    """

    def __init__(self, multiplexer: Multiplexer, *, pins_allowed: bool, log: Log) -> None:
        self.pinned: Counter[str] = Counter()  # since the start, by reason
        self._multiplexer = multiplexer
        self._pins_allowed = pins_allowed
        self._log = log
        self._guests: dict[int, Guest] = {}  # by token of their streams
        self._kept: dict[int, Guest] = {}  # by token of the server that they keep

    async def serve(self, stream: EngineStream, guest: Guest) -> ClientReport:
        """Multiplexes a client until its session is over; ``guest.refusal``: why, if by us."""
        token = stream.token
        self._guests[token] = guest
        guest.stream = stream
        try:
            return await self._multiplexer.serve(stream, guest.wanted())
        finally:
            del self._guests[token]

    def forget(self, server: Server) -> None:
        """A server is gone."""
        self._kept.pop(server.stream.token, None)

    async def look(self, server: Server) -> bool:
        """The framing asks, for a client that may have changed its session. Whether the server
        serves on."""
        with trio.move_on_after(LOOKING_TIMEOUT):
            try:
                if await self._answer(server):
                    return True
                # The client has gone meanwhile, or is to go.
                if await self.undo(server):
                    self._multiplexer.server_ready(server.stream)
                    return True
            except PostgresError as error:
                self._log.warning("a server could not be asked", error=str(error))
        return False

    async def _answer(self, server: Server) -> bool:
        """Whether the client is still there, and the two go on."""
        mux, stream = self._multiplexer, server.stream
        token = mux.client_token(stream)
        guest = self._guests.get(token) if token is not None else None
        if guest is None:
            return False
        names, remarks = read_noted(mux.noted(stream))
        state, aside = await server.look(guest.names(names))
        told = guest.see(state, remarks)
        mux.tell_server(stream, told_settings(state.settings, delicate=state.delicate))
        self._note_pins(server, guest)
        return guest.refusal is None and mux.settle(stream, told, aside + guest.reset(state))

    def _note_pins(self, server: Server, guest: Guest) -> None:
        new = sorted(guest.unlogged())
        self.pinned.update(new)
        if guest.pins:
            self._kept[server.stream.token] = guest
        else:
            self._kept.pop(server.stream.token, None)
        if not guest.pins or self._pins_allowed:
            if new:
                self._log.info("client pinned", client=guest.number, reason=", ".join(new))
            return
        reasons = ", ".join(sorted(guest.pins))
        self._log.info("client refused what would pin it", client=guest.number, reason=reasons)
        guest.refusal = PostgresError(
            "FATAL",
            "0A000",
            f"this needs a server of one's own, which transaction pooling does not give: {reasons}",
            None,
            'Use session pooling, or allow it: pins = "allow" in the pooler\'s settings.',
        )
        assert guest.stream is not None
        self._multiplexer.ask_to_leave(guest.stream)

    async def undo(self, server: Server) -> bool:
        """Makes a server as new whose client has gone and may have left anything in its session."""
        guest = self._kept.pop(server.stream.token, None)
        for statement in AS_NEW:
            await server.execute(statement)
        state, _ = await server.look(())
        lasting = guest.lasting if guest is not None else frozenset()
        statements = undo(replace(state, pins=state.pins | lasting))
        if statements is None:
            return False
        for statement in statements:
            await server.execute(statement)
        self._multiplexer.tell_server(server.stream, NO_SETTINGS)
        return True

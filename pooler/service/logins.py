"""Connections that have not logged in yet: how many, and for how long.

They cost memory and must cost those inside nothing else. When there are too many, the one that has
been silent longest gives way, so that a flood of silent connections keeps no good client out: a good
one logs in within milliseconds.
"""

from __future__ import annotations

import trio

from pooler.sessions.session import Session


class Logins:
    """Log-ins under way, oldest first."""

    def __init__(self, limit: int, timeout: float) -> None:
        self.limit = limit
        self.timeout = timeout
        self._sessions: dict[Session, None] = {}  # in order of arrival
        self._some = trio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, session: Session) -> Session | None:
        """A connection has come; returns the one that gave way for it, already closed."""
        self._sessions[session] = None
        self._some.set()
        if len(self._sessions) <= self.limit:
            return None
        oldest = next(iter(self._sessions))
        del self._sessions[oldest]
        oldest.stream.close()
        return oldest

    def end(self, session: Session) -> None:
        """It is logged in, or gone."""
        self._sessions.pop(session, None)

    async def expire(self) -> None:
        """Closes those that take too long. Asleep while there is none; runs until cancelled."""
        while True:
            if not self._sessions:
                self._some = trio.Event()
                await self._some.wait()
            oldest = next(iter(self._sessions))
            due = oldest.arrived + self.timeout
            if due > trio.current_time():
                await trio.sleep_until(due)
            elif self._sessions.pop(oldest, 0) is None:
                oldest.stream.close()

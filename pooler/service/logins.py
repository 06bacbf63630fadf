"""Connections that have said something and have not logged in yet: how many, and for how long.

They cost memory and must cost those inside nothing else. When there are too many, the one that has
taken longest gives way, so that a flood of slow ones keeps no good client out: a good one logs in
within milliseconds. (Those that have said nothing yet are the listener's: EngineListener.)
"""

from __future__ import annotations

import math

import trio

from pooler.sessions.session import Session


class Logins:
    """Log-ins under way, oldest first."""

    def __init__(self, limit: int, timeout: float) -> None:
        self.limit = limit
        self.timeout = timeout
        self._sessions: dict[Session, None] = {}  # in order of arrival
        self._next_look = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, session: Session) -> Session | None:
        """A connection has come; returns the one that gave way for it, already closed."""
        self._sessions[session] = None
        if self._next_look.deadline == math.inf:
            self._next_look.deadline = session.arrived + self.timeout
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
        """Closes those that take too long; runs until cancelled.

        Looks when the oldest that there was would be due: most have long been done by then, and
        their coming and going does not wake this task.
        """
        while True:
            with self._next_look:
                await trio.sleep_forever()
            self._next_look = trio.CancelScope()
            while (oldest := next(iter(self._sessions), None)) is not None:
                due = oldest.arrived + self.timeout
                if due > trio.current_time():
                    self._next_look.deadline = due
                    break
                del self._sessions[oldest]
                oldest.stream.close()

"""Cancel keys of our own: what a client names in a CancelRequest."""

from __future__ import annotations

import hmac
import secrets

from pooler.sessions.session import Session
from pooler.wire.startup import CancelRequest

SECRET_LENGTH = 4  # bytes; protocol 3.0 has no more


class CancelKeys:
    """Process ids and secrets that are given to clients; both are random, 63 bits together."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}

    def give(self, session: Session) -> None:
        process_id = 0
        while not process_id or process_id in self._sessions:
            process_id = secrets.randbits(31)
        session.process_id = process_id
        session.secret = secrets.token_bytes(SECRET_LENGTH)
        self._sessions[process_id] = session

    def take_back(self, session: Session) -> None:
        self._sessions.pop(session.process_id, None)

    def find(self, request: CancelRequest) -> Session | None:
        session = self._sessions.get(request.process_id)
        if session is None or not hmac.compare_digest(session.secret, request.secret):
            return None
        return session

"""Cancel keys of our own: what a client names in a CancelRequest."""

from __future__ import annotations

import hmac
import os

from pooler.sessions.session import Session
from pooler.wire.startup import CancelRequest

SECRET_LENGTH = 4  # bytes; protocol 3.0 has no more
_KEY_LENGTH = 4 + SECRET_LENGTH
_AT_ONCE = (
    4096  # bytes asked of the kernel's generator at a time; a system call for each key is dear
)


class CancelKeys:
    """Process ids and secrets that are given to clients; both are random, 63 bits together."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._random = b""
        self._used = 0

    def _bytes(self) -> bytes:
        if self._used + _KEY_LENGTH > len(self._random):
            self._random = os.urandom(_AT_ONCE)
            self._used = 0
        self._used += _KEY_LENGTH
        return self._random[self._used - _KEY_LENGTH : self._used]

    def give(self, session: Session) -> None:
        process_id = 0
        while not process_id or process_id in self._sessions:
            key = self._bytes()
            process_id = int.from_bytes(key[:4], "big") >> 1
        session.process_id = process_id
        session.secret = key[4:]
        self._sessions[process_id] = session

    def take_back(self, session: Session) -> None:
        self._sessions.pop(session.process_id, None)

    def find(self, request: CancelRequest) -> Session | None:
        session = self._sessions.get(request.process_id)
        if session is None or not hmac.compare_digest(session.secret, request.secret):
            return None
        return session

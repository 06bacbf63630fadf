"""Cancel keys of our own: what a client names in a CancelRequest."""

from __future__ import annotations

import hmac
import os

from pooler.sessions.session import Session
from pooler.wire.startup import PROTOCOL_3_2, CancelRequest

SHORT_SECRET = 4  # bytes; protocol 3.0 has no more
LONG_SECRET = 32  # from protocol 3.2 on; as PostgreSQL's
_PROCESS_ID = 4  # bytes
# Bytes asked of the kernel's generator at a time; a system call for each key is dear.
_AT_ONCE = 4096


class CancelKeys:
    """Process ids and secrets that are given to clients; both are random.

    Together they have 63 bits, and from protocol 3.2 on 287.
    """

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._random = b""
        self._used = 0

    def _bytes(self, count: int) -> bytes:
        if self._used + count > len(self._random):
            self._random = os.urandom(_AT_ONCE)
            self._used = 0
        self._used += count
        return self._random[self._used - count : self._used]

    def give(self, session: Session) -> None:
        process_id = 0
        while not process_id or process_id in self._sessions:
            process_id = int.from_bytes(self._bytes(_PROCESS_ID), "big") >> 1
        session.process_id = process_id
        session.secret = self._bytes(
            LONG_SECRET if session.protocol >= PROTOCOL_3_2 else SHORT_SECRET
        )
        self._sessions[process_id] = session

    def take_back(self, session: Session) -> None:
        self._sessions.pop(session.process_id, None)

    def find(self, request: CancelRequest) -> Session | None:
        session = self._sessions.get(request.process_id)
        if session is None or not hmac.compare_digest(session.secret, request.secret):
            return None
        return session

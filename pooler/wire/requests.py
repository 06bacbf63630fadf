"""Where a client's request ends, of messages that no server has seen yet."""

from __future__ import annotations

_HEADER = 5  # bytes: type and length
_EXTENDED = b"PBDEC"
# Answered by nothing: Flush, and what belongs to a COPY, which PostgreSQL ignores outside of one.
_SILENT = b"Hdcf"


def first_request(data: bytes) -> int:
    """How many bytes the first request in ``data`` has that could fail; 0: it is not whole.

    A request is what one ReadyForQuery answers: a Query, a FunctionCall, or all from the first
    extended-query message up to Sync, since an error there skips everything before the Sync. A
    Sync alone, a goodbye, and what is no message, are none.
    """
    at, extended = 0, False
    while len(data) >= at + _HEADER:
        kind = data[at : at + 1]
        length = int.from_bytes(data[at + 1 : at + _HEADER], "big")
        at += 1 + length
        if length < 4 or at > len(data):
            break
        if kind in _EXTENDED:
            extended = True
        elif kind == b"S":
            return at if extended else 0
        elif kind in b"QF":
            if not extended:
                return at
        elif kind not in _SILENT:
            break
    return 0

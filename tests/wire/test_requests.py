"""Where a request ends."""

from __future__ import annotations

import pytest

from pooler.wire.messages import message
from pooler.wire.requests import first_request

QUERY, CALL = message(b"Q", b"SELECT 1\0"), message(b"F", bytes(10))
PARSE, BIND, EXECUTE = (message(kind, bytes(4)) for kind in (b"P", b"B", b"E"))
SYNC, FLUSH, DONE = message(b"S"), message(b"H"), message(b"c")


@pytest.mark.parametrize(
    "request_",
    [
        QUERY,
        CALL,
        PARSE + SYNC,
        PARSE + FLUSH + BIND + EXECUTE + SYNC,
        PARSE + QUERY + SYNC,  # an error in Parse skips the Query, too
        FLUSH + QUERY,
        DONE + message(b"d", b"Q\0\0\0\x05x") + QUERY,
        message(b"Q", QUERY),
    ],
)
@pytest.mark.parametrize("behind", [b"", QUERY, SYNC, message(b"X"), b"\0", b"Q\0\0"])
def test_a_whole_request(request_: bytes, behind: bytes) -> None:
    assert first_request(request_ + behind) == len(request_)
    for size in range(len(request_)):
        assert first_request(request_[:size]) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SYNC,
        SYNC + QUERY,
        message(b"X") + QUERY,
        message(b"y") + QUERY,
        PARSE + message(b"X") + SYNC,
        PARSE + BIND + EXECUTE + FLUSH,
        b"Q\0\0\0\x03" + QUERY,
        b"P\0\0\0\0" + SYNC,
        b"Q\xff\xff\xff\xff" + QUERY,
    ],
)
def test_no_whole_request(data: bytes) -> None:
    assert first_request(data) == 0

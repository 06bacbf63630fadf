"""The framing that looks at nothing but a goodbye."""

from __future__ import annotations

import pytest
from pooler.wire._framing import ffi, lib

FRAMING = ffi.cast("struct tb_framing *", lib.pg_opaque_framing())
GOODBYE = b"X\0\0\0\x04"


class Pair:
    """A client and its server."""

    def __init__(self) -> None:
        self.client = ffi.new("uint8_t[]", FRAMING.client_size)
        self.server = ffi.new("uint8_t[]", FRAMING.server_size)
        FRAMING.client_new(self.client, ffi.NULL)
        FRAMING.server_new(self.server, ffi.NULL)

    def asks(self, data: bytes) -> int:
        scan = ffi.new("struct tb_scan *")
        consumed = FRAMING.from_client(self.client, self.server, data, len(data), scan)
        assert consumed == (len(data) if scan.verdict == lib.TB_GO else 0)
        assert scan.instead == ffi.NULL
        return int(scan.verdict)

    def answers(self, data: bytes) -> None:
        scan = ffi.new("struct tb_scan *")
        assert FRAMING.from_server(self.client, self.server, data, len(data), scan) == len(data)
        assert scan.verdict == lib.TB_GO and scan.instead == ffi.NULL
        assert FRAMING.last_words(self.server) == lib.TB_WORDS_CUT

    @property
    def standing(self) -> int:
        return int(FRAMING.standing(self.client, self.server))


@pytest.mark.parametrize("data", [b"Q", b"\0", GOODBYE[:4], GOODBYE + b"X", b"Q" + GOODBYE])
def test_whatever_comes_first_needs_a_server(data: bytes) -> None:
    scan = ffi.new("struct tb_scan *")
    assert FRAMING.opening(ffi.NULL, data, len(data), scan) == lib.TB_GO
    assert FRAMING.opening(ffi.NULL, GOODBYE, 5, scan) == scan.verdict == lib.TB_LEAVE


def test_a_goodbye_comes_alone_and_after_the_server() -> None:
    pair = Pair()
    assert pair.asks(GOODBYE) == lib.TB_GO, "it has answered nothing yet"
    pair.answers(b"anything")
    assert pair.standing == lib.TB_LEFT
    assert pair.asks(b"Q") == lib.TB_GO and pair.standing == lib.TB_UNSURE
    pair.answers(GOODBYE)
    for data in (GOODBYE + GOODBYE, GOODBYE[:4], b"\x04", b"Y" + GOODBYE[1:]):
        assert pair.asks(data) == lib.TB_GO
        pair.answers(b"Z")
    assert pair.asks(GOODBYE) == lib.TB_LEAVE and pair.standing == lib.TB_APART
    FRAMING.server_fresh(pair.server)
    assert pair.asks(GOODBYE) == lib.TB_GO

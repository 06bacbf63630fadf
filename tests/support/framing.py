"""Drives the framing in C as the engine does, through the table of functions that it is given."""

from __future__ import annotations

from typing import NamedTuple

from pooler.wire import _framing

ffi, lib = _framing.ffi, _framing.lib
FRAMING = ffi.cast("struct tb_framing *", lib.pg_framing())


def _names(prefix: str, *names: str) -> dict[int, str]:
    return {getattr(lib, f"{prefix}{name}"): name for name in names}


VERDICTS = _names("TB_", "GO", "MORE", "LEAVE", "FULL", "BAD", "UNFIT", "REFUSED")
STANDINGS = _names("TB_", "APART", "OPEN", "BUSY", "UNSURE", "KEPT", "ASK")
LAST_WORDS = _names("TB_WORDS_", "WHOLE", "ERROR", "CUT")


class Scan(NamedTuple):
    """What one call said: names instead of numbers, ``why`` as text."""

    verdict: str
    consumed: int
    answered: int = 0
    why: str | None = None


class EngineFraming:
    """A client and a server that are joined, their state in memory as the engine provides it."""

    def __init__(self) -> None:
        self._client = ffi.gc(_zeroed(FRAMING.client_size), FRAMING.client_free)
        self._server = ffi.gc(_zeroed(FRAMING.server_size), FRAMING.server_free)
        FRAMING.client_new(self._client, ffi.NULL)
        FRAMING.server_new(self._server, ffi.NULL)
        FRAMING.server_fresh(self._server)

    def opening(self, data: bytes) -> Scan:
        scan = ffi.new("struct tb_scan *")
        verdict = FRAMING.opening(self._client, _exactly(data), len(data), scan)
        assert verdict == scan.verdict
        return _scan(scan, 0)

    def from_client(self, data: bytes) -> Scan:
        return self._pass(FRAMING.from_client, data)

    def from_server(self, data: bytes) -> Scan:
        return self._pass(FRAMING.from_server, data)

    def standing(self) -> str:
        return STANDINGS[FRAMING.standing(self._client, self._server)]

    def last_words(self) -> str:
        return LAST_WORDS[FRAMING.last_words(self._server)]

    def fresh(self) -> None:
        FRAMING.server_fresh(self._server)

    def _pass(self, function, data: bytes) -> Scan:
        scan = ffi.new("struct tb_scan *")
        consumed = function(self._client, self._server, _exactly(data), len(data), scan)
        return _scan(scan, consumed)


class Shared:
    """What the clients and servers of one multiplexer have in common."""

    def __init__(self, limit: int) -> None:
        self.pointer = ffi.gc(FRAMING.shared_new(limit), FRAMING.shared_free)


class Member:
    """A client's or a server's state, alone: they can be joined as one likes."""

    def __init__(self, shared: Shared, *, client: bool) -> None:
        self._shared = shared  # outlives it
        size = FRAMING.client_size if client else FRAMING.server_size
        self._free = FRAMING.client_free if client else FRAMING.server_free
        self.pointer = _zeroed(size)
        (FRAMING.client_new if client else FRAMING.server_new)(self.pointer, shared.pointer)

    def close(self) -> None:
        self._free(self.pointer)


class Passed(NamedTuple):
    """What a scan let on, byte for byte, and how much of the chunk it took."""

    verdict: str
    consumed: int
    on: bytes
    why: str | None


def let_pass(client: Member, server: Member, data: bytes, *, from_client: bool) -> Passed:
    scan = ffi.new("struct tb_scan *")
    function = FRAMING.from_client if from_client else FRAMING.from_server
    consumed = function(client.pointer, server.pointer, _exactly(data), len(data), scan)
    assert consumed <= len(data)
    verdict = VERDICTS[scan.verdict]
    assert (verdict == "GO") == (consumed == len(data))
    on = data[:consumed]
    if scan.instead != ffi.NULL:
        on = bytes(ffi.buffer(scan.instead, scan.instead_length))
    why = None if scan.why == ffi.NULL else ffi.string(scan.why).decode()
    return Passed(verdict, consumed, on, why)


def standing_of(client: Member, server: Member) -> str:
    return STANDINGS[FRAMING.standing(client.pointer, server.pointer)]


def last_words_of(server: Member) -> str:
    return LAST_WORDS[FRAMING.last_words(server.pointer)]


def make_fresh(server: Member) -> None:
    FRAMING.server_fresh(server.pointer)


def tell(
    shared: Shared, data: bytes, *, client: Member | None = None, server: Member | None = None
) -> None:
    """Python's word to the framing; about all if about neither."""
    pointers = [ffi.NULL if member is None else member.pointer for member in (client, server)]
    FRAMING.told(shared.pointer, *pointers, _exactly(data), len(data))


def noted_of(client: Member) -> bytes:
    length = ffi.new("size_t *")
    noted = FRAMING.noted(client.pointer, length)
    return bytes(ffi.buffer(noted, length[0])) if length[0] else b""


def _zeroed(size: int):
    return ffi.new("uint64_t[]", (size + 7) // 8)


def _exactly(data: bytes):
    """A copy without a NUL behind it, so that a sanitizer sees a read beyond its end."""
    return ffi.new("uint8_t[]", list(data)) if data else ffi.NULL


def _scan(scan, consumed: int) -> Scan:
    why = None if scan.why == ffi.NULL else ffi.string(scan.why).decode()
    return Scan(VERDICTS[scan.verdict], consumed, scan.answered, why)

"""The framing of PostgreSQL's messages (framing.c), for a multiplexer."""

from pooler.wire._framing import ffi, lib


def framing_address() -> int:
    """The address of its ``struct tb_framing``, which is static."""
    return int(ffi.cast("uintptr_t", lib.pg_framing()))

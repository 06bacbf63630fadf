"""The framing of PostgreSQL's messages (framing.c), for a multiplexer.

Its option is how many prepared statements there may be on a server (statements.c); 0: they are not
looked at.
"""

from pooler.wire._framing import ffi, lib


def framing_address() -> int:
    """The address of its ``struct tb_framing``, which is static."""
    return int(ffi.cast("uintptr_t", lib.pg_framing()))

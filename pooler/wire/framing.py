"""The framings of PostgreSQL's messages (framing.c), for a multiplexer.

Their option is how many prepared statements there may be on a server (statements.c; 0: they are not
looked at), and one of the flags in session.py.
"""

from pooler.wire._framing import ffi, lib


def framing_address(*, blocks: bool = True, inspects: bool = True) -> int:
    """The address of a ``struct tb_framing``, which is static.

    ``blocks``: whether a transaction may outlast the request that began it. If not, who tries is
    reported as ``ClientNews.REFUSED``. ``inspects``: whether messages are looked at; if not, a
    client must keep its server (opaque.c).
    """
    if not inspects:
        framing = lib.pg_opaque_framing()
    else:
        framing = lib.pg_framing() if blocks else lib.pg_brief_framing()
    return int(ffi.cast("uintptr_t", framing))

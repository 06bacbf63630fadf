"""The packet that opens a connection: what a client may send first, and what we send to a server.

"Message Formats": StartupMessage, SSLRequest, GSSENCRequest, CancelRequest and
NegotiateProtocolVersion; the checks and their words follow PostgreSQL's ProcessStartupPacket().
Strings are UTF-8; bytes that are not survive as surrogates: the client's encoding is not known yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from types import MappingProxyType

from pooler.wire.errors import FEATURE_NOT_SUPPORTED, INVALID_AUTHORIZATION, PostgresError

PROTOCOL_3_0 = 0x0003_0000
PROTOCOL_3_2 = 0x0003_0002
CANCEL_REQUEST_CODE = 80877102
SSL_REQUEST_CODE = 80877103
GSSENC_REQUEST_CODE = 80877104

MAX_STARTUP_PACKET = 10_000
"""Bytes in the packet beside the length, as in PostgreSQL."""
MAX_CANCEL_KEY = 256
"""Bytes of the secret in a CancelRequest and in BackendKeyData (protocol 3.2)."""

REMEMBERED_SIZE = 512
"""Bytes of a packet that is worth remembering."""

_TWO_WORDS = Struct("!II")
_THREE_WORDS = Struct("!III")
_OPTION_PREFIX = "_pq_."


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """The client would like TLS: answer one byte, S or N."""


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """The client would like GSSAPI encryption: answer one byte, G or N."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Cancel what this process is doing; no answer, the connection is closed."""

    process_id: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Startup:
    """A StartupMessage of protocol 3.

    ``version`` is as sent (``PROTOCOL_3_0``, ...), ``parameters`` all that is meant as a run-time
    setting, ``protocol_options`` the names beginning with ``_pq_.``.
    """

    version: int
    user: str
    database: str
    options: str | None
    replication: str | None
    parameters: Mapping[str, str]
    protocol_options: tuple[str, ...]


StartupPacket = Startup | SSLRequest | GSSENCRequest | CancelRequest


def read_startup(buffer: bytes | bytearray) -> tuple[StartupPacket, int] | None:
    """The packet at the beginning of ``buffer`` and its size in bytes; None while it is incomplete.

    A bad length is refused as soon as it is there, so at most ``MAX_STARTUP_PACKET`` + 4 bytes need
    ever be kept. Raises PostgresError.
    """
    if len(buffer) < 4:
        return None
    size = int.from_bytes(buffer[:4], "big")
    if not 8 <= size <= MAX_STARTUP_PACKET + 4:
        raise PostgresError.violation("invalid length of startup packet")
    if len(buffer) < size:
        return None
    body = bytes(buffer[4:size])
    # Clients of one kind send the same packet each time. Secrets of cancel requests are not kept.
    remember = size <= REMEMBERED_SIZE and body.startswith(b"\0\3")
    return (_remembered(body) if remember else parse_startup(body)), size


def parse_startup(body: bytes) -> StartupPacket:
    """A whole packet without its length. Raises PostgresError."""
    code = int.from_bytes(body[:4], "big")
    if code >> 16 == 3:
        return _startup(code, body)
    if code == CANCEL_REQUEST_CODE:
        return _cancel_request(body)
    if code in (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE) and len(body) == 4:
        return SSLRequest() if code == SSL_REQUEST_CODE else GSSENCRequest()
    if code in (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE) or len(body) < 4:
        raise PostgresError.violation("invalid length of startup packet")
    raise PostgresError(
        "FATAL",
        FEATURE_NOT_SUPPORTED,
        f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0 to 3.2",
    )


@lru_cache(maxsize=256)
def _remembered(body: bytes) -> StartupPacket:
    return parse_startup(body)


def _cancel_request(body: bytes) -> CancelRequest:
    if len(body) < 8:
        raise PostgresError.violation("invalid length of cancel request packet")
    if not 1 <= len(body) - 8 <= MAX_CANCEL_KEY:
        raise PostgresError.violation("invalid length of cancel key in cancel request packet")
    return CancelRequest(int.from_bytes(body[4:8], "big"), body[8:])


def _startup(version: int, body: bytes) -> Startup:
    # Names and values alternate, each ends with NUL; an empty name is the packet's last byte.
    words = body[4:].decode("utf-8", "surrogateescape").split("\0")
    names = words[:-2:2]
    if len(words) < 2 or len(words) % 2 or words[-1] or words[-2] or not all(names):
        raise PostgresError.violation(
            "invalid startup packet layout: expected terminator as last byte"
        )
    given = dict(zip(names, words[1:-2:2], strict=True))
    user = given.pop("user", "")
    if not user:
        raise PostgresError(
            "FATAL", INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet"
        )
    protocol_options = tuple(name for name in given if name.startswith(_OPTION_PREFIX))
    for name in protocol_options:
        del given[name]
    return Startup(
        version=version,
        user=user,
        database=given.pop("database", "") or user,
        options=given.pop("options", None),
        replication=given.pop("replication", None),
        parameters=MappingProxyType(given),  # it may be remembered, and shared
        protocol_options=protocol_options,
    )


def negotiate_protocol_version(
    startup: Startup, newest: int = PROTOCOL_3_2, known_options: Sequence[str] = ()
) -> bytes:
    """The NegotiateProtocolVersion that is due before authentication; empty if none is.

    ``newest`` is the newest protocol version that we speak. One is due if the client asks for a
    newer one, or for options that we do not know.
    """
    unknown = [name for name in startup.protocol_options if name not in known_options]
    if startup.version <= newest and not unknown:
        return b""
    names = b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in unknown)
    spoken = min(startup.version, newest)
    return b"v" + _THREE_WORDS.pack(12 + len(names), spoken, len(unknown)) + names


def startup_message(parameters: Mapping[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """A StartupMessage for a server; ``parameters`` begin with user and database.

    Raises ValueError for an empty name, a NUL, or more than a packet may hold: the caller's fault.
    """
    for name, value in parameters.items():
        if not name or "\0" in name or "\0" in value:
            raise ValueError(f"not a start-up parameter: {name!r}")
    text = "".join(f"{name}\0{value}\0" for name, value in parameters.items()) + "\0"
    body = text.encode("utf-8", "surrogateescape")
    if len(body) + 4 > MAX_STARTUP_PACKET:
        raise ValueError(f"start-up parameters of {len(body)} bytes are too long")
    return _TWO_WORDS.pack(len(body) + 8, version) + body


def cancel_request(process_id: int, secret: bytes) -> bytes:
    """A CancelRequest for a server, with what its BackendKeyData said."""
    return _THREE_WORDS.pack(12 + len(secret), CANCEL_REQUEST_CODE, process_id) + secret


SSL_REQUEST = _TWO_WORDS.pack(8, SSL_REQUEST_CODE)
GSSENC_REQUEST = _TWO_WORDS.pack(8, GSSENC_REQUEST_CODE)

"""The messages of a login and of the pool's own conversations: built, parsed, cut from a stream.

"Message Formats" of PostgreSQL's documentation. Builders return whole messages; parsers take a body
without type and length, and raise PostgresError (08P01) if it is not one. Types are bytes of length
one. Strings are UTF-8, other bytes survive as surrogates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Self

from pooler.wire.errors import PostgresError, fields_body
from pooler.wire.startup import MAX_CANCEL_KEY

_WORD = Struct("!I")
_TWO_WORDS = Struct("!II")
_THREE_WORDS = Struct("!III")

MAX_AUTH_TOKEN = 65_535
"""Length of the longest password or SASL message that PostgreSQL reads."""


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A whole message of this type."""
    return kind + _WORD.pack(len(body) + 4) + body


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a NUL cannot be sent inside a string")
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _strings(body: bytes, count: int) -> list[str]:
    """Exactly ``count`` strings, each ended by its NUL, and nothing else."""
    if not body.endswith(b"\0") or body.count(b"\0") != count:
        raise PostgresError.violation("invalid string in message")
    return _decode(body[:-1]).split("\0")


# ------------------------------------------------------------------------------------ from a client


def query(sql: str) -> bytes:
    """Query: one string of statements."""
    return message(b"Q", _encode(sql))


def parse_query(body: bytes) -> str:
    """The statements of a Query."""
    return _strings(body, 1)[0]


def password_message(secret: str) -> bytes:
    """PasswordMessage: plain, or the md5... string."""
    return message(b"p", _encode(secret))


def parse_password(body: bytes) -> str:
    """The secret of a PasswordMessage."""
    if body.count(b"\0") != 1 or not body.endswith(b"\0"):
        raise PostgresError.violation("invalid password packet size")
    return _decode(body[:-1])


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """SASLInitialResponse with the mechanism that was chosen."""
    return message(b"p", _encode(mechanism) + _WORD.pack(len(data)) + data)


def parse_sasl_initial_response(body: bytes) -> tuple[str, bytes]:
    """Mechanism and data; -1 for the length, "no data", gives none."""
    end = body.find(b"\0")
    if end < 0 or len(body) < end + 5:
        raise PostgresError.violation("invalid message format")
    data = body[end + 5 :]
    length = int.from_bytes(body[end + 1 : end + 5], "big", signed=True)
    if length != len(data) and not (length == -1 and not data):
        raise PostgresError.violation("invalid message format")
    return _decode(body[:end]), data


def sasl_response(data: bytes) -> bytes:
    """SASLResponse; its whole body is the data."""
    return message(b"p", data)


SYNC = message(b"S")
FLUSH = message(b"H")
TERMINATE = message(b"X")


# ------------------------------------------------------------------------------------ from a server


def authentication_md5(salt: bytes) -> bytes:
    """AuthenticationMD5Password with a salt of four bytes."""
    return message(b"R", _WORD.pack(5) + salt)


def authentication_sasl(mechanisms: Sequence[str]) -> bytes:
    """AuthenticationSASL: these mechanisms, best first."""
    return message(b"R", _WORD.pack(10) + b"".join(map(_encode, mechanisms)) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    """AuthenticationSASLContinue."""
    return message(b"R", _WORD.pack(11) + data)


def authentication_sasl_final(data: bytes) -> bytes:
    """AuthenticationSASLFinal."""
    return message(b"R", _WORD.pack(12) + data)


AUTHENTICATION_OK = message(b"R", _WORD.pack(0))
AUTHENTICATION_CLEARTEXT = message(b"R", _WORD.pack(3))


@dataclass(frozen=True, slots=True)
class AuthenticationOk:
    """The login is over."""


@dataclass(frozen=True, slots=True)
class AuthenticationCleartext:
    """Send the password as it is."""


@dataclass(frozen=True, slots=True)
class AuthenticationMD5:
    """Send the password's MD5 with this salt (four bytes)."""

    salt: bytes


@dataclass(frozen=True, slots=True)
class AuthenticationSASL:
    """Begin a SASL exchange with one of these mechanisms."""

    mechanisms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuthenticationSASLContinue:
    """A challenge."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AuthenticationSASLFinal:
    """The server's proof."""

    data: bytes


Authentication = (
    AuthenticationOk
    | AuthenticationCleartext
    | AuthenticationMD5
    | AuthenticationSASL
    | AuthenticationSASLContinue
    | AuthenticationSASLFinal
)


def parse_authentication(body: bytes) -> Authentication:
    """What the server asks for. Raises PostgresError, also for GSSAPI, SSPI and Kerberos."""
    if len(body) < 4:
        raise PostgresError.violation("invalid message format")
    code, data = int.from_bytes(body[:4], "big"), body[4:]
    if code == 0 and not data:
        return AuthenticationOk()
    if code == 3 and not data:
        return AuthenticationCleartext()
    if code == 5 and len(data) == 4:
        return AuthenticationMD5(data)
    if code == 10:
        return AuthenticationSASL(_mechanisms(data))
    if code == 11:
        return AuthenticationSASLContinue(data)
    if code == 12:
        return AuthenticationSASLFinal(data)
    if code in (0, 3, 5):
        raise PostgresError.violation("invalid length of authentication request from the server")
    raise PostgresError.violation(f"authentication method {code} not supported")


def _mechanisms(data: bytes) -> tuple[str, ...]:
    names = _strings(data, data.count(b"\0"))
    if names.pop() or not names or not all(names):
        raise PostgresError.violation("invalid list of SASL mechanisms from the server")
    return tuple(names)


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus: a setting that clients are told of."""
    return message(b"S", _encode(name) + _encode(value))


def parse_parameter_status(body: bytes) -> tuple[str, str]:
    """Name and value."""
    name, value = _strings(body, 2)
    return name, value


def backend_key_data(process_id: int, secret: bytes) -> bytes:
    """BackendKeyData; the secret has four bytes, from protocol 3.2 on up to 256."""
    return b"K" + _TWO_WORDS.pack(8 + len(secret), process_id) + secret


def parse_backend_key_data(body: bytes) -> tuple[int, bytes]:
    """Process id and secret, what a CancelRequest must name."""
    if not 4 <= len(body) - 4 <= MAX_CANCEL_KEY:
        raise PostgresError.violation("invalid length of cancel key from the server")
    return int.from_bytes(body[:4], "big"), body[4:]


def ready_for_query(status: bytes = b"I") -> bytes:
    """ReadyForQuery: I idle, T in a transaction, E in a failed one."""
    return b"Z\0\0\0\x05" + status


def parse_ready_for_query(body: bytes) -> bytes:
    """The transaction status: I, T or E."""
    if body not in (b"I", b"T", b"E"):
        raise PostgresError.violation("invalid transaction status from the server")
    return body


def parse_negotiate_protocol_version(body: bytes) -> tuple[int, list[str]]:
    """The version that the server will speak, and the options that it does not know."""
    if len(body) < 8:
        raise PostgresError.violation("invalid NegotiateProtocolVersion from the server")
    version, count = _TWO_WORDS.unpack_from(body)
    return version, _strings(body[8:], count) if count or len(body) > 8 else []


# ------------------------------------------------------------------------------- errors and notices


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an ErrorResponse or NoticeResponse, by their one-letter code, in order."""

    by_code: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """From a body. Raises PostgresError."""
        if body == b"\0":
            return cls()
        if not body.endswith(b"\0\0"):
            raise PostgresError.violation("invalid error message from the server")
        fields = _decode(body[:-2]).split("\0")
        if not all(fields):
            raise PostgresError.violation("invalid error message from the server")
        return cls({text[0]: text[1:] for text in fields})

    @property
    def severity(self) -> str:
        """Not localised where the server says so (PostgreSQL 9.6 and later)."""
        return self.by_code.get("V") or self.by_code.get("S", "")

    @property
    def sqlstate(self) -> str:
        return self.by_code.get("C", "")

    @property
    def message(self) -> str:
        return self.by_code.get("M", "")

    @property
    def detail(self) -> str | None:
        return self.by_code.get("D")

    @property
    def hint(self) -> str | None:
        return self.by_code.get("H")

    def to_error(self) -> PostgresError:
        """As an exception; fields beside the five that it holds are lost."""
        return PostgresError(
            self.severity or "ERROR", self.sqlstate or "XX000", self.message, self.detail, self.hint
        )

    def to_bytes(self, kind: bytes = b"E") -> bytes:
        """A whole ErrorResponse, or with ``b"N"`` a NoticeResponse."""
        return kind + fields_body(self.by_code)


# ------------------------------------------------------------------------------------ from a stream


class MessageReader:
    """Cuts a stream of bytes into messages, whatever the chunks.

    ``limit`` bounds the length word (body and its own four bytes) of a message, ``limits`` that of
    some types. ``types``, if given, are the only ones that may come: any other is refused at its
    first byte. Kept is at most one unfinished message, if the iterators are exhausted.
    """

    def __init__(
        self,
        limit: int = MAX_AUTH_TOKEN,
        limits: Mapping[bytes, int] | None = None,
        types: bytes = b"",
    ) -> None:
        self._limit = limit
        self._limits = limits or {}
        self._types = types
        self._buffer = b""
        self._at = 0  # what lies before this in the buffer has been given

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Takes the bytes at once; the iterator gives (type, body) of what has become whole.

        Who stops early loses nothing: the next call, or ``rest``, goes on there. The iterator
        raises PostgresError for a type or a length that may not be.
        """
        self._buffer = self.rest() + data
        return iter(self._next, None)

    def rest(self) -> bytes:
        """Takes out the bytes that no iterator has given yet."""
        rest = self._buffer[self._at :]
        self._buffer, self._at = b"", 0
        return rest

    def _next(self) -> tuple[bytes, bytes] | None:
        buffer, at = self._buffer, self._at
        kind = buffer[at : at + 1]
        if not kind:
            return None
        if self._types and kind not in self._types:
            raise PostgresError.violation(f"unexpected message type {kind[0]}")
        if len(buffer) < at + 5:
            return None
        length = int.from_bytes(buffer[at + 1 : at + 5], "big")
        if not 4 <= length <= self._limits.get(kind, self._limit):
            raise PostgresError.violation("invalid message length")
        end = at + 1 + length
        if len(buffer) < end:
            return None
        self._at = end
        return kind, buffer[at + 5 : end]

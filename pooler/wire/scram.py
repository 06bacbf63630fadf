"""SCRAM-SHA-256, both sides: RFC 5802, RFC 7677, "SASL Authentication" of PostgreSQL's manual.

The exchange is scramp's. Here is what PostgreSQL does otherwise: the user name inside the exchange
means nothing (that of the start-up packet counts, libpq leaves this one empty), and a password that
SASLprep refuses is used as it is. And the bounds: nothing that the other side sends is long, and no
server makes us hash for as long as it likes.

Hashing a password takes milliseconds: ``derive_verifier`` and ``ClientExchange.proof`` do it, need
nothing but their arguments, and are meant for a worker thread. Nothing else here takes long.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Self

from scramp import ScramClient, ScramException, ScramMechanism
from scramp.utils import saslprep

from pooler.wire.errors import FEATURE_NOT_SUPPORTED, INVALID_PASSWORD, PostgresError

MECHANISM = "SCRAM-SHA-256"
DEFAULT_ITERATIONS = 4096
"""Also the least that RFC 7677 allows."""
MAX_ITERATIONS = 100_000
"""What a server may ask of us, unless the caller says otherwise."""
MAX_STORED_ITERATIONS = 10_000_000
MAX_MESSAGE = 2048
"""Bytes of any message of an exchange. libpq's and PostgreSQL's have about 100."""

_MIN_SALT, _MAX_SALT = 12, 256
_VERIFIER = re.compile(r"SCRAM-SHA-256\$([0-9]{1,8}):([^$:]+)\$([^$:]+):([^$:]+)")
_CLIENT_FIRST = re.compile(
    r"(?P<flag>[ny]|p=[^,]*),(?P<identity>[^,]*),(?P<bare>n=[^,]*,r=(?P<nonce>[^,]+)(?:,.*)?)",
    re.DOTALL,
)
_SERVER_FIRST = re.compile(r"r=[^,]+,s=[^,]+,i=(?P<iterations>[1-9][0-9]{0,8})(?:,.*)?", re.DOTALL)
_ANYONE = "*"  # scramp wants a user name that is not empty
_SERVER_SIDE = ScramMechanism(MECHANISM)


def prepare_password(password: str) -> bytes:
    """SASLprep (RFC 4013), or the plain bytes where that refuses, as in PostgreSQL and libpq."""
    try:
        prepared = saslprep(password)
    except ScramException:
        prepared = ""
    return (prepared or password).encode("utf-8", "surrogateescape")


# --------------------------------------------------------------------------------- what is stored


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server needs to check a password, and what cannot log in elsewhere."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From PostgreSQL's form, ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``.

        Raises ValueError; its message does not repeat the secret.
        """
        match = _VERIFIER.fullmatch(text)
        if match is None:
            raise ValueError("not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
        iterations = int(match[1])
        salt, stored_key, server_key = (_base64(part) for part in match.groups()[1:])
        _check_iterations(iterations)
        _check_salt(salt)
        if len(stored_key) != 32 or len(server_key) != 32:
            raise ValueError("the keys of a SCRAM-SHA-256 verifier have 32 bytes each")
        return cls(iterations, salt, stored_key, server_key)

    def format(self) -> str:
        """PostgreSQL's form."""
        salt, stored, server = (
            b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a part of the SCRAM verifier is not base64") from None


def _check_iterations(iterations: int) -> None:
    if not DEFAULT_ITERATIONS <= iterations <= MAX_STORED_ITERATIONS:
        raise ValueError(
            f"SCRAM iterations must be {DEFAULT_ITERATIONS} to {MAX_STORED_ITERATIONS}, "
            f"not {iterations}"
        )


def _check_salt(salt: bytes) -> None:
    if not _MIN_SALT <= len(salt) <= _MAX_SALT:
        raise ValueError(f"a SCRAM salt must have {_MIN_SALT} to {_MAX_SALT} bytes")


def derive_verifier(
    password: str, salt: bytes | None = None, iterations: int = DEFAULT_ITERATIONS
) -> Verifier:
    """The verifier of a plain password; a random salt if none is given. Slow: PBKDF2."""
    _check_iterations(iterations)
    salt = os.urandom(16) if salt is None else salt
    _check_salt(salt)
    salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return Verifier(iterations, salt, hashlib.sha256(client_key).digest(), server_key)


def mock_verifier(user: str, secret: bytes, iterations: int = DEFAULT_ITERATIONS) -> Verifier:
    """For a user that does not exist, so that the exchange looks the same, and always fails.

    ``secret``: random bytes, the same for the life of the pooler, or the salt would tell.
    """
    salt = hmac.digest(secret, user.encode("utf-8", "surrogateescape"), "sha256")[:16]
    return Verifier(iterations, salt, os.urandom(32), os.urandom(32))


# ------------------------------------------------------------------------------- to check a client


class ServerExchange:
    """Checks one client against a verifier: ``first``, then ``final``, once each.

    ``user`` is only named in the error. Both methods raise PostgresError.
    """

    def __init__(self, verifier: Verifier, user: str) -> None:
        self._user = user
        keys = (verifier.salt, verifier.stored_key, verifier.server_key, verifier.iterations)
        self._scramp = _SERVER_SIDE.make_server(lambda _user: keys)

    def first(self, data: bytes) -> bytes:
        """client-first-message, of SASLInitialResponse; returns server-first-message."""
        match = _CLIENT_FIRST.fullmatch(_text(data))
        if match is None:
            raise _malformed("The client sent no client-first-message.")
        if match["identity"]:
            raise _unsupported("client uses authorization identity, but it is not supported")
        if match["flag"] not in ("n", "y"):
            raise _unsupported("client requires SCRAM channel binding, but it is not supported")
        try:
            self._scramp.set_client_first(f"{match['flag']},,n={_ANYONE},r={match['nonce']}")
            # Both sides sign the message as it was sent.
            self._scramp.client_first_bare = match["bare"]
            return bytes(self._scramp.get_server_first(), "ascii")
        except ScramException as error:
            raise _malformed(error.args[0]) from error

    def final(self, data: bytes) -> bytes:
        """client-final-message, of SASLResponse; returns server-final-message: the client is in."""
        try:
            self._scramp.set_client_final(_text(data))
            return bytes(self._scramp.get_server_final(), "ascii")
        except ScramException as error:
            if "invalid-proof" in str(error):
                raise PostgresError(
                    "FATAL",
                    INVALID_PASSWORD,
                    f'password authentication failed for user "{self._user}"',
                ) from error
            raise _malformed(error.args[0]) from error


# ------------------------------------------------------------------------------ to log in ourselves


class _Password:
    """A password as scramp wants it, prepared by us."""

    def __init__(self, prepared: bytes) -> None:
        self._prepared = prepared

    def __bytes__(self) -> bytes:
        return self._prepared


class ClientExchange:
    """Logs in to a server: ``first``, ``challenge``, ``proof``, ``verify``, once each, in order.

    A server that asks for more than ``max_iterations`` is refused. Methods that take the server's
    bytes raise PostgresError.
    """

    def __init__(self, password: str, max_iterations: int = MAX_ITERATIONS) -> None:
        self._max_iterations = max_iterations
        self._scramp = ScramClient([MECHANISM], _ANYONE, "")
        self._scramp.password = _Password(prepare_password(password))

    def first(self) -> bytes:
        """client-first-message, for SASLInitialResponse."""
        return bytes(self._scramp.get_client_first(), "ascii")

    def challenge(self, data: bytes) -> None:
        """Takes server-first-message, of AuthenticationSASLContinue, and checks it. Quick."""
        text = _text(data)
        match = _SERVER_FIRST.fullmatch(text)
        if match is None:
            raise _malformed("The server sent no server-first-message.")
        iterations = int(match["iterations"])
        if iterations > self._max_iterations:
            raise PostgresError.violation(
                f"the server asks for {iterations} SCRAM iterations, "
                f"but at most {self._max_iterations} are allowed"
            )
        try:
            self._scramp.set_server_first(text)
        except ScramException as error:
            raise _malformed(error.args[0]) from error

    def proof(self) -> bytes:
        """client-final-message, for SASLResponse. Slow: PBKDF2; safe in any one thread."""
        return bytes(self._scramp.get_client_final(), "ascii")

    def verify(self, data: bytes) -> None:
        """Takes server-final-message: does the server know the password too?"""
        try:
            self._scramp.set_server_final(_text(data))
        except ScramException as error:
            raise PostgresError(
                "FATAL",
                INVALID_PASSWORD,
                "the server did not prove that it knows the password",
                error.args[0],
            ) from error


def _text(data: bytes) -> str:
    if len(data) > MAX_MESSAGE:
        raise _malformed(f"The message is longer than {MAX_MESSAGE} bytes.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("The message is not UTF-8.") from None


def _malformed(detail: str) -> PostgresError:
    return PostgresError.violation("malformed SCRAM message", detail)


def _unsupported(message: str) -> PostgresError:
    return PostgresError("FATAL", FEATURE_NOT_SUPPORTED, message)

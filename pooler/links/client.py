"""A client on its way in: encryption requests, start-up packet, authentication.

"Message Flow", "Start-up", of PostgreSQL's manual. Reads exactly as far as the log-in goes; what
the client has sent behind it stays in the stream for the engine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import trio

from pooler.rules.admission import Check, Cleartext, Md5, Scram, Trust, plain_matches
from pooler.wire import messages, scram
from pooler.wire.errors import PostgresError
from pooler.wire.md5 import md5_matches
from pooler.wire.messages import MessageReader
from pooler.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    Startup,
    negotiate_protocol_version,
    read_startup,
)
from trio_backends import EngineStream

READ_SIZE = 16384  # bytes, more than any start-up packet


class ClientGone(Exception):
    """The client ended its connection before it had logged in."""


@dataclass(slots=True)
class Arrival:
    """A client that has said what it wants; ``rest``: bytes that it has sent behind that."""

    startup: Startup
    rest: bytes


async def _receive(stream: EngineStream) -> bytes:
    try:
        data = await stream.receive_some(READ_SIZE)
    except trio.BrokenResourceError:
        raise ClientGone from None
    if not data:
        raise ClientGone
    return data


def first_packet(stream: EngineStream) -> Arrival | None:
    """What :func:`read_first` would return, if it is a whole start-up packet that is there already.

    Most clients' is, since a connection is taken up when it has sent something. What is not whole,
    or something else, is put back.
    """
    data = stream.receive_nowait()
    if not data:
        return None
    found = read_startup(data)
    if found is not None and isinstance(found[0], Startup):
        return Arrival(found[0], data[found[1] :])
    stream.put_back(data)
    return None


async def read_first(stream: EngineStream) -> Arrival | CancelRequest:
    """What a new connection wants. Encryption is declined: 'N'.

    Raises:
        PostgresError: what came is no start-up packet.
        ClientGone: nothing whole came.
    """
    buffer = b""
    while True:
        buffer += await _receive(stream)
        found = read_startup(buffer)
        if found is None:
            continue
        packet, size = found
        buffer = buffer[size:]
        if isinstance(packet, Startup):
            return Arrival(packet, buffer)
        if isinstance(packet, CancelRequest):
            return packet
        if buffer:
            # Bytes that came in the clear before the answer must not be taken for what comes after
            # it (CVE-2021-23222 and its kin).
            kind = "SSL" if isinstance(packet, SSLRequest) else "GSSAPI encryption"
            raise PostgresError.violation(
                f"received unencrypted data after {kind} request",
                "This could be either a client-software bug or evidence of an attempted "
                "man-in-the-middle attack.",
            )
        assert isinstance(packet, SSLRequest | GSSENCRequest)
        stream.send_now(b"N")


class _Conversation:
    """Password messages, one after the other."""

    def __init__(self, stream: EngineStream, rest: bytes) -> None:
        self._stream = stream
        self._reader = MessageReader(types=b"p")
        self._rest = rest

    async def ask(self, message: bytes) -> bytes:
        """Sends a request; returns the body of the PasswordMessage that answers it."""
        self._stream.send_now(message)
        data, self._rest = self._rest, b""
        while True:
            for _, body in self._reader.feed(data):
                return body
            data = await _receive(self._stream)

    def tell(self, message: bytes) -> None:
        self._stream.send_now(message)

    @property
    def rest(self) -> bytes:
        return self._rest + self._reader.rest()


def _refused(user: str) -> PostgresError:
    return PostgresError("FATAL", "28P01", f'password authentication failed for user "{user}"')


async def _cleartext(conversation: _Conversation, user: str, check: Cleartext) -> None:
    body = await conversation.ask(messages.AUTHENTICATION_CLEARTEXT)
    password = messages.parse_password(body)
    # A stored SCRAM verifier means hashing: milliseconds, not in the loop that relays.
    if isinstance(check.secret, scram.Verifier):
        good = await trio.to_thread.run_sync(plain_matches, check.secret, user, password)
    else:
        good = plain_matches(check.secret, user, password)
    if not good:
        raise _refused(user)


async def _md5(conversation: _Conversation, user: str, check: Md5) -> None:
    salt = os.urandom(4)
    body = await conversation.ask(messages.authentication_md5(salt))
    answer = messages.parse_password(body)
    if not (md5_matches(user, check.secret, salt, answer) and check.exists):
        raise _refused(user)


async def _scram(conversation: _Conversation, user: str, check: Scram) -> None:
    verifier = check.verifier
    if verifier is None:
        verifier = await trio.to_thread.run_sync(check.derive)
    exchange = scram.ServerExchange(verifier, user)
    body = await conversation.ask(messages.authentication_sasl([scram.MECHANISM]))
    mechanism, first = messages.parse_sasl_initial_response(body)
    if mechanism != scram.MECHANISM:
        raise PostgresError.violation("client selected an invalid SASL authentication mechanism")
    challenge = messages.authentication_sasl_continue(exchange.first(first))
    final = exchange.final(await conversation.ask(challenge))
    if not check.exists:
        raise _refused(user)
    conversation.tell(messages.authentication_sasl_final(final))


async def authenticate(stream: EngineStream, arrival: Arrival, check: Check) -> bytes:
    """Has a client prove who it is; returns bytes that it has already sent behind that.

    AuthenticationOk is left to the caller, who sends it with all that follows.

    Raises:
        PostgresError: it did not, or broke the protocol.
        ClientGone: it left.
    """
    startup = arrival.startup
    negotiation = negotiate_protocol_version(startup)
    if negotiation:
        stream.send_now(negotiation)
    if isinstance(check, Trust):
        return arrival.rest
    conversation = _Conversation(stream, arrival.rest)
    if isinstance(check, Cleartext):
        await _cleartext(conversation, startup.user, check)
    elif isinstance(check, Md5):
        await _md5(conversation, startup.user, check)
    else:
        await _scram(conversation, startup.user, check)
    return conversation.rest

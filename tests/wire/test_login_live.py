"""Logs in to a real PostgreSQL, with a password of each kind, by the messages alone."""

from __future__ import annotations

import socket

import pytest

from pooler.wire import messages
from pooler.wire.errors import PostgresError
from pooler.wire.md5 import md5_response, md5_secret
from pooler.wire.messages import Fields, MessageReader
from pooler.wire.scram import MECHANISM, ClientExchange, Verifier, derive_verifier
from pooler.wire.startup import PROTOCOL_3_0, PROTOCOL_3_2, startup_message
from tests.support.postgres import EmbeddedPostgres, create_user, hba, major

USER = "wire_user"


def log_in(
    pg: EmbeddedPostgres, password: str, user: str = USER, version: int = PROTOCOL_3_0
) -> dict[bytes, list[bytes]]:
    """The bodies that the server sent, by type. Raises what it refused with."""
    got: dict[bytes, list[bytes]] = {}
    reader = MessageReader()
    exchange = ClientExchange(password)
    with socket.create_connection((pg.host, pg.port)) as connection:
        connection.sendall(startup_message({"user": user, "database": "postgres"}, version))
        while b"Z" not in got:
            data = connection.recv(4096)
            assert data, "closed"
            for kind, body in reader.feed(data):
                got.setdefault(kind, []).append(body)
                if kind == b"E":
                    raise Fields.parse(body).to_error()
                if kind == b"R":
                    connection.sendall(answer(exchange, user, password, body))
        connection.sendall(messages.TERMINATE)
    return got


def answer(exchange: ClientExchange, user: str, password: str, body: bytes) -> bytes:
    match messages.parse_authentication(body):
        case messages.AuthenticationCleartext():
            return messages.password_message(password)
        case messages.AuthenticationMD5(salt):
            return messages.password_message(md5_response(user, password, salt))
        case messages.AuthenticationSASL(mechanisms):
            assert MECHANISM in mechanisms
            return messages.sasl_initial_response(MECHANISM, exchange.first())
        case messages.AuthenticationSASLContinue(data):
            exchange.challenge(data)
            return messages.sasl_response(exchange.proof())
        case messages.AuthenticationSASLFinal(data):
            exchange.verify(data)
    return b""


def test_what_a_greeting_holds(postgres: EmbeddedPostgres) -> None:
    got = log_in(postgres, "", "postgres")
    settings = dict(map(messages.parse_parameter_status, got[b"S"]))
    assert settings["server_version"].startswith(str(major(postgres)))
    process_id, secret = messages.parse_backend_key_data(got[b"K"][0])
    assert process_id > 0
    assert len(secret) == 4
    assert [messages.parse_ready_for_query(body) for body in got[b"Z"]] == [b"I"]


def test_protocol_3_2(postgres: EmbeddedPostgres) -> None:
    got = log_in(postgres, "", "postgres", PROTOCOL_3_2)
    _, secret = messages.parse_backend_key_data(got[b"K"][0])
    if major(postgres) >= 18:
        assert len(secret) == 32
        assert b"v" not in got
    else:
        assert messages.parse_negotiate_protocol_version(got[b"v"][0]) == (PROTOCOL_3_0, [])


@pytest.mark.parametrize("password", ["secret", "pass wörd\u2168", "🐘", "a,b=c", "\x07"])
def test_scram(postgres: EmbeddedPostgres, password: str) -> None:
    stored = Verifier.parse(create_user(postgres, USER, password))
    assert derive_verifier(password, stored.salt, stored.iterations) == stored
    with hba(postgres, f"host all {USER} all scram-sha-256"):
        log_in(postgres, password)
        with pytest.raises(PostgresError) as caught:
            log_in(postgres, password + "x")
    assert caught.value.sqlstate == "28P01"


def test_scram_verifier_of_ours(postgres: EmbeddedPostgres) -> None:
    """PostgreSQL takes a verifier for what it is, instead of a password to make one of."""
    verifier = derive_verifier("ours", iterations=5000).format()
    assert create_user(postgres, USER, verifier) == verifier
    with hba(postgres, f"host all {USER} all scram-sha-256"):
        log_in(postgres, "ours")


def test_md5(postgres: EmbeddedPostgres) -> None:
    stored = create_user(postgres, USER, "secret", encryption="md5")
    assert stored == md5_secret(USER, "secret")
    with hba(postgres, f"host all {USER} all md5"):
        log_in(postgres, "secret")
        log_in(postgres, stored)
        with pytest.raises(PostgresError, match="password authentication failed"):
            log_in(postgres, "wrong")


def test_cleartext(postgres: EmbeddedPostgres) -> None:
    create_user(postgres, USER, "secret")
    with hba(postgres, f"host all {USER} all password"):
        log_in(postgres, "secret")

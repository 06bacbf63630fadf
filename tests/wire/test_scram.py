"""SCRAM-SHA-256, against itself, RFC 7677, libpq and PostgreSQL."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pooler.wire.errors import PostgresError
from pooler.wire.scram import (
    MAX_MESSAGE,
    ClientExchange,
    ServerExchange,
    Verifier,
    derive_verifier,
    mock_verifier,
    prepare_password,
)

VERIFIER = derive_verifier("secret")


def log_in(password: str, verifier: Verifier) -> None:
    client, server = ClientExchange(password), ServerExchange(verifier, "ann")
    client.challenge(server.first(client.first()))
    client.verify(server.final(client.proof()))


def refusal(call: object, *arguments: object) -> PostgresError:
    assert callable(call)
    with pytest.raises(PostgresError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("password", ["secret", "pass wörd", "🐘", "\x07", "\udcff", "I\xadX"])
def test_right_password(password: str) -> None:
    log_in(password, derive_verifier(password))


@pytest.mark.parametrize("password", ["", "Secret", "secret "])
def test_wrong_password(password: str) -> None:
    error = refusal(log_in, password, VERIFIER)
    assert (error.severity, error.sqlstate) == ("FATAL", "28P01")
    assert error.message == 'password authentication failed for user "ann"'


def test_rfc_7677_example() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = derive_verifier("pencil", salt, 4096)
    server = ServerExchange(verifier, "user")
    first = server.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").decode()
    assert first.startswith("r=rOprNGfwEbeRWgbNEkqO")
    assert first.endswith(",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert verifier.format() == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_password_is_prepared() -> None:
    assert prepare_password("I\xadX") == b"IX"  # RFC 4013, section 3
    assert prepare_password("\u2168") == b"IX"
    assert prepare_password("\xaa") == b"a"
    for refused in ("\x07", "\u0627\x31", "🐘"):
        assert prepare_password(refused) == refused.encode()


# ----------------------------------------------------------------------------------- verifiers


def test_verifier_survives_its_form() -> None:
    assert Verifier.parse(VERIFIER.format()) == VERIFIER
    assert VERIFIER.format().startswith("SCRAM-SHA-256$4096:")
    assert "stored_key" not in repr(VERIFIER)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[1:],
        lambda text: text + "x",
        lambda text: text.replace("$4096:", "$4095:"),
        lambda text: text.replace("$4096:", "$99999999:"),
        lambda text: text.replace("$4096:", "$-4096:"),
        lambda text: text.replace("$4096:", "$4096:?"),
        lambda text: "SCRAM-SHA-256$4096:c2FsdA==$" + text.rpartition("$")[2],
        lambda text: text.rpartition("$")[0] + "$AAAA:AAAA",
        lambda text: text.rpartition(":")[0],
        lambda text: "md5" + "0" * 32,
    ],
)
def test_bad_verifiers(change: object) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match="SCRAM"):
        Verifier.parse(change(VERIFIER.format()))


def test_bounds_of_derived_verifiers() -> None:
    for iterations in (0, 4095, 10_000_001):
        with pytest.raises(ValueError, match="iterations"):
            derive_verifier("x", None, iterations)
    with pytest.raises(ValueError, match="salt"):
        derive_verifier("x", b"short")


# ---------------------------------------------------------------------------- against bad clients


def test_unknown_user_looks_like_any_other() -> None:
    mock = mock_verifier("bob", b"random")
    assert mock.salt == mock_verifier("bob", b"random").salt
    assert mock.salt != mock_verifier("eve", b"random").salt
    assert (len(mock.salt), mock.iterations) == (len(VERIFIER.salt), VERIFIER.iterations)
    wrong, unknown = refusal(log_in, "guess", VERIFIER), refusal(log_in, "guess", mock)
    assert (wrong.to_bytes(), wrong.detail) == (unknown.to_bytes(), unknown.detail)


@pytest.mark.parametrize("first", [b"n,,n=,r=abc", b"y,,n=any=one,r=abc", b"n,,n=a,r=abc,x=y"])
def test_client_first_of_all_kinds(first: bytes) -> None:
    assert ServerExchange(VERIFIER, "u").first(first).startswith(b"r=abc")


@pytest.mark.parametrize(
    ("first", "sqlstate"),
    [
        (b"", "08P01"),
        (b"\xff", "08P01"),
        (b"n,,", "08P01"),
        (b"n,,n=a", "08P01"),
        (b"n,,n=a,r=", "08P01"),
        (b"n,,n=a,r=a b", "08P01"),
        (b"n,,m=x,n=a,r=abc", "08P01"),
        (b"n,,n=a,r=" + b"x" * MAX_MESSAGE, "08P01"),
        (b"n,a=other,n=a,r=abc", "0A000"),
        (b"p=tls-server-end-point,,n=a,r=abc", "0A000"),
    ],
)
def test_bad_client_first(first: bytes, sqlstate: str) -> None:
    assert refusal(ServerExchange(VERIFIER, "u").first, first).sqlstate == sqlstate


@pytest.mark.parametrize(
    "final",
    [
        b"",
        b"c=biws",
        b"c=biws,r=other,p=AAAA",
        b"c=eSws,r={nonce},p=AAAA",
        b"c=biws,r={nonce},p=!",
        b"c=biws,r={nonce}",
        b"c=biws,r={nonce},p=" + b"A" * MAX_MESSAGE,
    ],
)
def test_bad_client_final(final: bytes) -> None:
    server = ServerExchange(VERIFIER, "u")
    nonce = server.first(b"n,,n=,r=abc").partition(b",")[0][2:]
    assert refusal(server.final, final.replace(b"{nonce}", nonce)).sqlstate == "08P01"


def test_proof_of_wrong_size() -> None:
    server = ServerExchange(VERIFIER, "u")
    nonce = server.first(b"n,,n=,r=abc").partition(b",")[0][2:]
    assert refusal(server.final, b"c=biws,r=" + nonce + b",p=AAAA").sqlstate == "28P01"


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_from_a_client(first: bytes, final: bytes) -> None:
    for opening in (first, b"n,," + first, b"n,,n=,r=" + first):
        server = ServerExchange(VERIFIER, "u")
        try:
            server.first(opening)
            server.final(final)
        except PostgresError:
            continue
        raise AssertionError("let in")


# ---------------------------------------------------------------------------- against bad servers


def challenge(text: str, **limits: int) -> None:
    client = ClientExchange("secret", **limits)
    nonce = client.first().decode().rpartition("r=")[2]
    client.challenge(text.format(nonce=nonce, salt="QSXCR+Q6sek8bf92").encode())


def test_iterations_are_bounded() -> None:
    challenge("r={nonce}x,s={salt},i=100000")
    challenge("r={nonce}x,s={salt},i=100001", max_iterations=100_001)
    for iterations in (100_001, 999_999_999):
        error = refusal(challenge, f"r={{nonce}}x,s={{salt}},i={iterations}")
        assert f"asks for {iterations} SCRAM iterations" in error.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r={nonce},s={salt},i=4096",
        "r=other{nonce},s={salt},i=4096",
        "r={nonce}x,s={salt},i=1",
        "r={nonce}x,s={salt},i=04096",
        "r={nonce}x,s={salt},i=-4096",
        "r={nonce}x,s={salt},i=9999999999",
        "r={nonce}x,s={salt}",
        "r={nonce}x,s=?,i=4096",
        "r={nonce}x,s=,i=4096",
        "r={nonce}x,s={salt},i=4096,r=again",
        "r={nonce}x,s={salt},i=4096" + "," * 3000,
    ],
)
def test_bad_challenges(text: str) -> None:
    error = refusal(challenge, text)
    assert (error.sqlstate, error.message) == ("08P01", "malformed SCRAM message")


def test_server_must_know_the_password_too() -> None:
    client, server = ClientExchange("secret"), ServerExchange(VERIFIER, "ann")
    client.challenge(server.first(client.first()))
    server.final(client.proof())
    assert refusal(client.verify, b"v=AAAA").sqlstate == "28P01"


@given(st.binary(max_size=80))
@settings(max_examples=30)
def test_any_bytes_from_a_server(data: bytes) -> None:
    client = ClientExchange("secret")
    nonce = client.first().rpartition(b"r=")[2]
    for candidate in (data, b"r=" + nonce + data):
        fresh = ClientExchange("secret")
        fresh.first()
        assert refusal(fresh.challenge, candidate).sqlstate == "08P01"
    client.challenge(b"r=" + nonce + b"x,s=QSXCR+Q6sek8bf92,i=4096")
    client.proof()
    assert refusal(client.verify, data).sqlstate in ("28P01", "08P01")

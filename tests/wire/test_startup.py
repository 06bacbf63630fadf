"""The first packet of a connection."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.wire.errors import PostgresError
from pooler.wire.startup import (
    GSSENC_REQUEST,
    MAX_STARTUP_PACKET,
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    SSL_REQUEST,
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    Startup,
    cancel_request,
    negotiate_protocol_version,
    parse_startup,
    read_startup,
    startup_message,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAMES = TEXT.filter(lambda name: name and not name.startswith("_pq_."))


def packet(body: bytes) -> bytes:
    return struct.pack("!I", len(body) + 4) + body


def version_3(body: bytes) -> bytes:
    return packet(struct.pack("!I", PROTOCOL_3_0) + body)


def refused(data: bytes) -> PostgresError:
    with pytest.raises(PostgresError) as caught:
        read_startup(data)
    return caught.value


def test_startup() -> None:
    data = startup_message({"user": "ann", "database": "db", "application_name": "é"})
    assert read_startup(data + b"more") == (
        Startup(PROTOCOL_3_0, "ann", "db", None, None, {"application_name": "é"}, ()),
        len(data),
    )


def test_database_is_that_of_the_user_unless_named() -> None:
    for parameters in ({"user": "ann"}, {"user": "ann", "database": ""}):
        parsed = read_startup(startup_message(parameters))
        assert parsed is not None
        assert isinstance(parsed[0], Startup)
        assert parsed[0].database == "ann"


def test_what_is_no_setting() -> None:
    given = {
        "user": "u",
        "options": "-c a=b",
        "replication": "database",
        "_pq_.x": "1",
        "TimeZone": "",
    }
    parsed = parse_startup(startup_message(given, PROTOCOL_3_2)[4:])
    assert parsed == Startup(
        PROTOCOL_3_2, "u", "u", "-c a=b", "database", {"TimeZone": ""}, ("_pq_.x",)
    )


def test_last_of_two_values_counts() -> None:
    parsed = read_startup(version_3(b"user\0a\0x\x001\0user\0b\0x\x002\0\0"))
    assert parsed is not None
    assert parsed[0] == Startup(PROTOCOL_3_0, "b", "b", None, None, {"x": "2"}, ())


def test_bytes_that_are_not_utf8_survive() -> None:
    parsed = read_startup(version_3(b"user\0\xff\xe9\0\0"))
    assert parsed is not None
    assert isinstance(parsed[0], Startup)
    assert startup_message({"user": parsed[0].user}) == version_3(b"user\0\xff\xe9\0\0")


def test_requests_without_parameters() -> None:
    assert read_startup(SSL_REQUEST) == (SSLRequest(), 8)
    assert read_startup(GSSENC_REQUEST) == (GSSENCRequest(), 8)
    assert bytes.fromhex("0000000804d2162f") == SSL_REQUEST
    assert bytes.fromhex("0000000804d21630") == GSSENC_REQUEST


@pytest.mark.parametrize("secret", [b"1234", b"k" * 32, b"k" * 256])
def test_cancel_request(secret: bytes) -> None:
    data = cancel_request(77, secret)
    assert read_startup(data) == (CancelRequest(77, secret), 12 + len(secret))


def test_incomplete() -> None:
    data = startup_message({"user": "ann"})
    for end in range(len(data)):
        assert read_startup(data[:end]) is None


def test_length_is_refused_at_once() -> None:
    message = "invalid length of startup packet"
    for length in (0, 3, 4, 7, MAX_STARTUP_PACKET + 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        error = refused(struct.pack("!I", length))
        assert (error.severity, error.sqlstate, error.message) == ("FATAL", "08P01", message)
    assert read_startup(struct.pack("!I", MAX_STARTUP_PACKET + 4)) is None
    assert refused(b"\x16\x03\x01\x02\x00").message == message  # TLS without asking
    assert refused(b"GET / HTTP/1.1\r\n").message == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"user\0ann",
        b"user\0ann\0",
        b"user\0\0ann\0\0",
        b"user\0ann\0\0\0",
        b"a\0\0b\0",
        b"\0x",
    ],
)
def test_layout(body: bytes) -> None:
    error = refused(version_3(body))
    assert error.sqlstate == "08P01"
    assert error.message == "invalid startup packet layout: expected terminator as last byte"


@pytest.mark.parametrize("body", [b"\0", b"user\0\0\0", b"database\0d\0\0"])
def test_no_user(body: bytes) -> None:
    error = refused(version_3(body))
    assert error.sqlstate == "28000"
    assert error.message == "no PostgreSQL user name specified in startup packet"


@pytest.mark.parametrize(("major", "minor"), [(2, 0), (0, 1), (4, 0), (1234, 1)])
def test_other_protocols(major: int, minor: int) -> None:
    error = refused(packet(struct.pack("!HH", major, minor) + b"user\0a\0\0"))
    assert error.sqlstate == "0A000"
    assert f"unsupported frontend protocol {major}.{minor}: server supports 3.0" in error.message


def test_requests_of_wrong_length() -> None:
    code = SSL_REQUEST[4:]
    assert refused(packet(code + b"x")).message == "invalid length of startup packet"
    cancel = cancel_request(1, b"")[4:8]
    assert "cancel request packet" in refused(packet(cancel + b"123")).message
    for secret in (b"", b"k" * 257):
        assert "length of cancel key" in refused(cancel_request(1, secret)).message


def test_negotiation() -> None:
    def answer(version: int, newest: int, *options: str) -> bytes:
        names = tuple(f"_pq_.{name}" for name in options)
        return negotiate_protocol_version(
            Startup(version, "u", "u", None, None, {}, names), newest, ["_pq_.known"]
        )

    assert answer(PROTOCOL_3_0, PROTOCOL_3_2) == b""
    assert answer(PROTOCOL_3_2, PROTOCOL_3_2, "known") == b""
    assert answer(PROTOCOL_3_2, PROTOCOL_3_0) == b"v" + struct.pack("!III", 12, PROTOCOL_3_0, 0)
    assert answer(PROTOCOL_3_0 + 9999, PROTOCOL_3_2)[5:9] == struct.pack("!I", PROTOCOL_3_2)
    assert answer(PROTOCOL_3_0, PROTOCOL_3_2, "x", "known", "y") == (
        b"v" + struct.pack("!III", 26, PROTOCOL_3_0, 2) + b"_pq_.x\0_pq_.y\0"
    )


@pytest.mark.parametrize("parameters", [{"": "x"}, {"a\0": "x"}, {"a": "\0"}, {"a": "x" * 10_000}])
def test_own_parameters_must_be_sendable(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="start-up"):
        startup_message(parameters)


@given(TEXT.filter(bool), TEXT, st.dictionaries(NAMES, TEXT, max_size=5))
def test_what_is_built_is_what_is_read(user: str, database: str, settings: dict[str, str]) -> None:
    special = ("user", "database", "options", "replication")
    settings = {name: value for name, value in settings.items() if name not in special}
    data = startup_message({"user": user, "database": database, **settings})
    startup = Startup(PROTOCOL_3_0, user, database or user, None, None, settings, ())
    assert read_startup(data) == (startup, len(data))


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    for candidate in (data, packet(data), version_3(data), packet(SSL_REQUEST[4:7] + data)):
        try:
            parsed = read_startup(candidate)
        except PostgresError:
            continue
        assert parsed is None or parsed[1] <= len(candidate)

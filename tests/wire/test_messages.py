"""Messages of a login: built, parsed, cut from a stream."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.wire import messages
from pooler.wire.errors import PostgresError
from pooler.wire.messages import Fields, MessageReader, message

PARSERS: list[Callable[[bytes], object]] = [
    messages.parse_query,
    messages.parse_password,
    messages.parse_sasl_initial_response,
    messages.parse_authentication,
    messages.parse_parameter_status,
    messages.parse_backend_key_data,
    messages.parse_ready_for_query,
    messages.parse_negotiate_protocol_version,
    Fields.parse,
]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def body(data: bytes) -> bytes:
    """Of one whole message, whose length must be right."""
    assert struct.unpack_from("!I", data, 1) == (len(data) - 1,)
    return data[5:]


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        (messages.AUTHENTICATION_OK, messages.AuthenticationOk()),
        (messages.AUTHENTICATION_CLEARTEXT, messages.AuthenticationCleartext()),
        (messages.authentication_md5(b"salt"), messages.AuthenticationMD5(b"salt")),
        (messages.authentication_sasl(["A", "B"]), messages.AuthenticationSASL(("A", "B"))),
        (messages.authentication_sasl_continue(b"x"), messages.AuthenticationSASLContinue(b"x")),
        (messages.authentication_sasl_final(b"y"), messages.AuthenticationSASLFinal(b"y")),
    ],
)
def test_authentication(data: bytes, meaning: object) -> None:
    assert data[:1] == b"R"
    assert messages.parse_authentication(body(data)) == meaning


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0x",
        b"\0\0\0\3x",
        b"\0\0\0\5abc",
        b"\0\0\0\x0a",
        b"\0\0\0\x0a\0",
        b"\0\0\0\x0aA\0",
        b"\0\0\0\x0aA\0\0B\0\0",
        b"\0\0\0\x07",
        b"\xff\xff\xff\xff",
    ],
)
def test_bad_authentication(data: bytes) -> None:
    with pytest.raises(PostgresError) as caught:
        messages.parse_authentication(data)
    assert caught.value.sqlstate == "08P01"


def test_of_a_client() -> None:
    assert messages.query("SELECT 1") == b"Q\0\0\0\x0dSELECT 1\0"
    assert messages.parse_query(b"SELECT 1\0") == "SELECT 1"
    assert messages.parse_password(body(messages.password_message("é"))) == "é"
    assert messages.TERMINATE == b"X\0\0\0\4"
    assert messages.SYNC == b"S\0\0\0\4"
    assert messages.sasl_response(b"x") == b"p\0\0\0\5x"
    initial = body(messages.sasl_initial_response("SCRAM-SHA-256", b"n,,"))
    assert messages.parse_sasl_initial_response(initial) == ("SCRAM-SHA-256", b"n,,")
    assert messages.parse_sasl_initial_response(b"M\0\xff\xff\xff\xff") == ("M", b"")


def test_of_a_server() -> None:
    assert messages.ready_for_query(b"T") == message(b"Z", b"T")
    assert messages.parse_ready_for_query(b"T") == b"T"
    status = messages.parameter_status("TimeZone", "")
    assert messages.parse_parameter_status(body(status)) == ("TimeZone", "")
    for size in (4, 32, 256):
        key = body(messages.backend_key_data(0xFFFFFFFF, b"k" * size))
        assert messages.parse_backend_key_data(key) == (0xFFFFFFFF, b"k" * size)
    negotiation = struct.pack("!II", 0x30000, 2) + b"a\0b\0"
    assert messages.parse_negotiate_protocol_version(negotiation) == (0x30000, ["a", "b"])
    assert messages.parse_negotiate_protocol_version(negotiation[:4] + bytes(4)) == (0x30000, [])


@pytest.mark.parametrize(
    ("parser", "data"),
    [
        (messages.parse_query, b"no end"),
        (messages.parse_query, b"two\0ends\0"),
        (messages.parse_password, b""),
        (messages.parse_password, b"a\0b\0"),
        (messages.parse_sasl_initial_response, b"M"),
        (messages.parse_sasl_initial_response, b"M\0\0\0\0"),
        (messages.parse_sasl_initial_response, b"M\0\0\0\0\2x"),
        (messages.parse_sasl_initial_response, b"M\0\xff\xff\xff\xfe"),
        (messages.parse_parameter_status, b"a\0"),
        (messages.parse_parameter_status, b"a\0b\0c\0"),
        (messages.parse_backend_key_data, b"\0\0\0\1abc"),
        (messages.parse_backend_key_data, bytes(4 + 257)),
        (messages.parse_ready_for_query, b""),
        (messages.parse_ready_for_query, b"X"),
        (messages.parse_ready_for_query, b"II"),
        (messages.parse_negotiate_protocol_version, bytes(7)),
        (messages.parse_negotiate_protocol_version, bytes(7) + b"\2a\0"),
        (Fields.parse, b""),
        (Fields.parse, b"Mno end"),
        (Fields.parse, b"Mx\0"),
        (Fields.parse, b"Mx\0\0\0"),
    ],
)
def test_bad_bodies(parser: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(PostgresError) as caught:
        parser(data)
    assert (caught.value.severity, caught.value.sqlstate) == ("FATAL", "08P01")


def test_nul_cannot_be_sent() -> None:
    for build in (messages.query, messages.password_message):
        with pytest.raises(ValueError, match="NUL"):
            build("a\0b")


def test_error() -> None:
    error = PostgresError("ERROR", "53300", "too many", detail="d\0d", hint="h")
    assert str(error) == "ERROR 53300: too many (d\0d)"
    data = error.to_bytes()
    assert data[:1] == b"E"
    fields = Fields.parse(body(data))
    assert fields.by_code == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "53300",
        "M": "too many",
        "D": "dd",
        "H": "h",
    }
    assert fields.to_bytes() == data
    again = fields.to_error()
    assert (again.severity, again.sqlstate, again.message) == ("ERROR", "53300", "too many")
    assert (again.detail, again.hint) == ("dd", "h")


def test_fields_of_a_server() -> None:
    fields = Fields.parse("SFEHLER\0VERROR\0C42601\0Mungültig\0P7\0\0".encode())
    assert (fields.severity, fields.sqlstate, fields.message) == ("ERROR", "42601", "ungültig")
    assert (fields.detail, fields.hint, fields.by_code["P"]) == (None, None, "7")
    assert Fields.parse(b"SFATAL\0\0").severity == "FATAL"
    assert Fields.parse(b"\0").to_error().sqlstate == "XX000"
    assert fields.to_bytes(b"N")[:1] == b"N"


@given(st.dictionaries(st.sampled_from("SVCMDHPpqWstcdnFLR"), TEXT))
def test_fields_survive(by_code: dict[str, str]) -> None:
    assert Fields.parse(body(Fields(by_code).to_bytes())).by_code == by_code


@given(st.sampled_from(PARSERS), st.binary(max_size=60))
def test_any_body(parser: Callable[[bytes], object], data: bytes) -> None:
    for candidate in (data, data + b"\0", data + b"\0\0", b"\0\0\0\x0a" + data):
        try:
            parser(candidate)
        except PostgresError as error:
            assert error.sqlstate == "08P01"


# --------------------------------------------------------------------------------------- the reader


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.binary(max_size=30)), max_size=8),
    st.lists(st.integers(1, 20)),
)
def test_reader_gives_every_message(sent: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    stream = b"".join(message(kind, data) for kind, data in sent)
    reader, got = MessageReader(limit=100), []
    for size in [*sizes, 1000]:
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert got == sent
    assert reader.rest() == b""


def test_reader_that_is_left_early_loses_nothing() -> None:
    reader = MessageReader()
    stream = message(b"p", b"secret\0") + messages.query("SELECT 1") + b"Q\0"
    for kind, data in reader.feed(stream):
        assert (kind, data) == (b"p", b"secret\0")
        break
    assert next(reader.feed(b"")) == (b"Q", b"SELECT 1\0")
    assert reader.rest() == b"Q\0"
    assert list(reader.feed(messages.SYNC)) == [(b"S", b"")]


def test_reader_refuses_lengths() -> None:
    def offer(data: bytes) -> None:
        list(MessageReader(limit=20, limits={b"Q": 30}).feed(data))

    offer(b"p\0\0\0\x14")
    offer(b"Q\0\0\0\x1e")
    for bad in (b"p\0\0\0\x15", b"Q\0\0\0\x1f", b"p\0\0\0\3", b"p\xff\xff\xff\xff"):
        with pytest.raises(PostgresError, match="invalid message length"):
            offer(bad)


def test_reader_refuses_types_at_once() -> None:
    reader = MessageReader(types=b"pX")
    assert list(reader.feed(messages.TERMINATE)) == [(b"X", b"")]
    with pytest.raises(PostgresError, match="unexpected message type 81"):
        list(reader.feed(b"Q"))


def test_good_messages_come_before_the_refusal() -> None:
    given = MessageReader().feed(messages.SYNC + b"Q\0\0\0\0")
    assert next(given) == (b"S", b"")
    with pytest.raises(PostgresError):
        next(given)


@given(st.lists(st.binary(max_size=20)))
def test_reader_of_any_bytes(chunks: list[bytes]) -> None:
    reader = MessageReader(limit=50)
    try:
        for chunk in chunks:
            for kind, data in reader.feed(chunk):
                assert len(kind) == 1
                assert len(data) <= 46
    except PostgresError as error:
        assert error.sqlstate == "08P01"

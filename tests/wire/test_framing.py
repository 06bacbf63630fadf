"""Every rule of the framing by example: what it lets on, and how it then stands."""

from __future__ import annotations

import struct

import pytest

from tests.support.framing import FRAMING, EngineFraming, Scan, lib
from tests.support.postgres_model import BODIES, message

LARGEST = 0x3FFFFFFE


def said(letters: str, status: bytes = b"I") -> bytes:
    """Messages of the server, by their types, with bodies that fit."""
    bodies = BODIES | {"Z": status, "R": bytes(4), "K": bytes(8), "W": bytes(3), "v": bytes(8)}
    return b"".join(message(letter, bodies.get(letter, b"")) for letter in letters)


def talk(*turns: str) -> EngineFraming:
    """Turns are type letters: ``>QS`` from the client, ``<CZ`` from the server."""
    framing = EngineFraming()
    for turn in turns:
        who, letters = turn[0], turn[1:]
        if who == ">":
            scan = framing.from_client(b"".join(map(message, letters)))
        else:
            scan = framing.from_server(said(letters))
        assert scan.verdict == "GO"
    return framing


def header(letter: str, length: int) -> bytes:
    return letter.encode() + struct.pack("!I", length)


def test_what_the_engine_is_given() -> None:
    assert FRAMING.abi == lib.TB_FRAMING_ABI
    assert FRAMING.client_size <= 320
    assert FRAMING.server_size <= 1024


@pytest.mark.parametrize(
    ("turns", "standing"),
    [
        ([], "APART"),
        ([">Q"], "BUSY"),
        ([">Q", "<TDDC"], "BUSY"),
        ([">Q", "<TDDCZ"], "APART"),
        ([">Q", "<IZ"], "APART"),
        ([">Q", "<TDCTDCEZ"], "APART"),
        ([">QQ", "<CZ"], "BUSY"),
        ([">QQ", "<CZCZ"], "APART"),
        ([">F", "<V"], "BUSY"),
        ([">F", "<VZ"], "APART"),
        ([">F", "<EZ"], "APART"),
        ([">S", "<Z"], "APART"),
        ([">S", "<EZ"], "APART"),
        ([">PBDES", "<12TDC"], "BUSY"),
        ([">PBDES", "<12TDCZ"], "APART"),
        ([">PBDES", "<12nIZ"], "APART"),
        ([">PDCS", "<1tT3Z"], "APART"),
        ([">PDCS", "<1tn3Z"], "APART"),
        ([">BEES", "<2DDsDCZ"], "APART"),
        ([">PBDE", "<12T"], "BUSY"),
        ([">PBDE", "<12TDC"], "OPEN"),
        ([">PH", "<1", ">S", "<Z"], "APART"),
        ([">H"], "APART"),
        ([">dcf"], "APART"),
        ([">PdcfS", "<1Z"], "APART"),
        ([">QcQ", "<CZCZ"], "APART"),
        ([">Qc", "<CZ"], "APART"),
        (["<NSA"], "APART"),
        ([">PS", "<N1SAZ"], "APART"),
    ],
)
def test_account(turns: list[str], standing: str) -> None:
    assert talk(*turns).standing() == standing


@pytest.mark.parametrize(
    ("turns", "standing"),
    [
        ([">PBDES", "<E"], "BUSY"),
        ([">PBDES", "<EZ"], "APART"),
        ([">PBDES", "<12EZ"], "APART"),
        ([">PBESPBES", "<E", "<Z12C"], "BUSY"),
        ([">PBESPBES", "<EZ12CZ"], "APART"),
        ([">PBQFcS", "<EZ"], "APART"),
        ([">P", "<E"], "BUSY"),
        ([">P", "<E", ">BEQFcf"], "BUSY"),
        ([">P", "<E", ">BEQFcfS", "<Z"], "APART"),
        ([">P", "<E", ">SP", "<Z"], "BUSY"),
        ([">P", "<E", ">SP", "<Z1"], "OPEN"),
        ([">C", "<E", ">S", "<Z"], "APART"),
    ],
)
def test_an_error_skips_to_the_sync(turns: list[str], standing: str) -> None:
    assert talk(*turns).standing() == standing


@pytest.mark.parametrize(
    ("turns", "standing"),
    [
        ([">Q", "<G"], "BUSY"),
        ([">Q", "<G", ">ddc", "<CZ"], "APART"),
        ([">Q", "<G", ">df", "<EZ"], "APART"),
        ([">Q", "<G", ">d", "<EZ", ">dc"], "APART"),
        ([">Qddc", "<GCZ"], "APART"),
        ([">QddcQ", "<GCZCZ"], "APART"),
        ([">QdcdcS", "<GCGCZZ"], "APART"),
        ([">QSc", "<GCZ"], "APART"),
        ([">Q", "<G", ">SHdSc", "<CZ"], "APART"),
        ([">Q", "<G", ">cS", "<CZZ"], "APART"),
        ([">BES", "<2G", ">ddcS", "<CZ"], "APART"),
        ([">BESSdcS", "<2GCZ"], "APART"),
        ([">BESdcSQ", "<2GCZCZ"], "APART"),
        ([">BEdcS", "<2GEZ"], "APART"),
        ([">BE", "<2G", ">dcS", "<EZ"], "APART"),
        ([">BE", "<2GE", ">dc"], "BUSY"),
        ([">BE", "<2GE", ">dcS", "<Z"], "APART"),
        ([">QQ", "<G"], "BUSY"),
    ],
)
def test_copy_in(turns: list[str], standing: str) -> None:
    assert talk(*turns).standing() == standing


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param(["<Z"], id="ready unasked"),
        pytest.param(["<E"], id="error unasked"),
        pytest.param(["<R"], id="login"),
        pytest.param(["<K"], id="key"),
        pytest.param(["<v"], id="version"),
        pytest.param([">Q", "<W"], id="replication"),
        pytest.param([">P", "<Z"], id="ready too early"),
        pytest.param([">P", "<2"], id="wrong order"),
        pytest.param([">S", "<C"], id="completed at Sync"),
        pytest.param([">P", "<T"], id="rows of Parse"),
        pytest.param([">Q", "<V"], id="function result of Query"),
        pytest.param([">Q", "<s"], id="portal of Query"),
        pytest.param([">Q", "<GZ"], id="ready inside a copy"),
        pytest.param([">Q", "<GC"], id="copied without an end"),
        pytest.param([">BES", "<2GE"], id="failed copy had a Sync behind it"),
        pytest.param([">BES", "<2G", ">fS", "<E"], id="failed copy had a Sync in it"),
        pytest.param([">Q", "<G", ">S", "<E"], id="failed copy of Query had a Sync in it"),
    ],
)
def test_unsure_for_ever(turns: list[str]) -> None:
    framing = talk(*turns)
    assert framing.standing() == "UNSURE"
    assert framing.from_client(message("Q")).verdict == "GO"
    assert framing.from_server(said("CZ")) == Scan("GO", len(said("CZ")), 0)
    assert framing.standing() == "UNSURE"
    framing.fresh()
    assert framing.standing() == "APART"


@pytest.mark.parametrize(("status", "standing"), [(b"T", "OPEN"), (b"E", "OPEN"), (b"I", "APART")])
def test_transaction_status(status: bytes, standing: str) -> None:
    framing = talk(">Q", "<C")
    framing.from_server(said("Z", status))
    assert framing.standing() == standing


def test_query_that_keeps_the_implicit_transaction() -> None:
    framing = talk(">PH", "<1", ">Q", "<C")
    assert framing.from_server(said("Z", b"T")).answered == 1
    assert framing.standing() == "UNSURE"
    explicit = talk(">Q", "<C")
    explicit.from_server(said("Z", b"T"))
    explicit.from_client(message("P") + message("Q"))
    explicit.from_server(said("1C") + said("Z", b"T"))
    assert explicit.standing() == "OPEN"


def test_answered_counts_what_is_ready() -> None:
    framing = talk(">QSFPBES")
    assert framing.from_server(said("CZZ")).answered == 2
    assert framing.from_server(said("VZ12C")).answered == 1
    assert framing.from_server(said("Z")[:-1]).answered == 0
    assert framing.from_server(b"I").answered == 1


def test_standing_between_the_bytes_of_a_message() -> None:
    framing = EngineFraming()
    for scan, data in ((framing.from_client, message("H")), (framing.from_server, said("A"))):
        for at in range(len(data) - 1):
            scan(data[at : at + 1])
            assert framing.standing() == "BUSY"
        scan(data[-1:])
        assert framing.standing() == "APART"


def test_last_words() -> None:
    framing = talk(">QQ")
    assert framing.last_words() == "WHOLE"
    error = said("E")
    for end in range(1, len(error)):
        fresh = talk(">Q")
        fresh.from_server(error[:end])
        assert fresh.last_words() == "CUT"
    framing.from_server(error)
    assert framing.last_words() == "ERROR"
    framing.from_server(said("Z"))
    assert framing.last_words() == "WHOLE"
    framing.from_server(message("D", b"E\0\0\0\x05\0"))
    assert framing.last_words() == "WHOLE"


def test_bytes_of_a_row_are_never_messages() -> None:
    framing = talk(">Q", "<T")
    row = message("D", said("CZEZ") * 10)
    for at in range(0, len(row), 3):
        assert framing.from_server(row[at : at + 3]) == Scan("GO", len(row[at : at + 3]))
    assert framing.standing() == "BUSY"
    framing.from_server(said("CZ"))
    assert framing.standing() == "APART"


@pytest.mark.parametrize("letter", "QBPFd")
def test_lengths_of_large_messages(letter: str) -> None:
    _check_lengths(letter, LARGEST)


@pytest.mark.parametrize("letter", "CDEScf")
def test_lengths_of_small_messages(letter: str) -> None:
    _check_lengths(letter, 10_000)


def test_length_of_a_flush() -> None:
    """With a body it is answered by an error that nobody awaits."""
    _check_lengths("H", 4)


def _check_lengths(letter: str, largest: int) -> None:
    for length in {4, min(5, largest), largest}:
        assert EngineFraming().opening(header(letter, length)) == Scan("GO", 0)
        assert EngineFraming().from_client(header(letter, length)) == Scan("GO", 5)
    for length in (0, 3, largest + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        bad = header(letter, length)
        expected = Scan("BAD", 0, 0, "invalid message length")
        assert EngineFraming().opening(bad) == expected
        assert EngineFraming().from_client(bad) == expected
        assert EngineFraming().from_client(message("H") + bad) == expected._replace(consumed=5)


def test_refused_header_that_had_begun_to_go_on() -> None:
    framing = EngineFraming()
    framing.from_client(header("Q", 3)[:2])
    assert framing.from_client(header("Q", 3)[2:]) == Scan("BAD", 0, 0, "invalid message length")
    assert framing.standing() == "BUSY"


def test_types_of_the_client() -> None:
    for letter in range(256):
        if chr(letter) in "BCDEFHPQSXcdf":
            continue
        expected = Scan("BAD", 0, 0, f"invalid frontend message type {letter}")
        assert EngineFraming().opening(bytes([letter])) == expected
        assert EngineFraming().from_client(bytes([letter])) == expected


def test_opening_needs_a_header() -> None:
    framing = EngineFraming()
    for end in range(5):
        assert framing.opening(message("Q")[:end]).verdict == "MORE"
    assert framing.opening(message("Q")).verdict == "GO"
    assert framing.opening(message("X")).verdict == "LEAVE"
    assert framing.opening(b"X").verdict == "LEAVE"


def test_terminate_goes_nowhere() -> None:
    framing = EngineFraming()
    assert framing.from_client(message("H") + message("X")) == Scan("LEAVE", 5)
    assert framing.from_client(message("P") + message("X")) == Scan("LEAVE", 5)


def test_terminate_waits_for_what_was_asked_before() -> None:
    """But not for what never comes: without a Sync, or while the server waits for copy data."""
    for request, answers in (("Q", "CZ"), ("PBES", "12CZ"), ("F", "VZ")):
        framing = EngineFraming()
        sent = b"".join(map(message, request))
        assert framing.from_client(sent + message("X")) == Scan("FULL", len(sent))
        for letter in answers:
            assert framing.from_client(message("X")) == Scan("FULL", 0)
            framing.from_server(said(letter))
        assert framing.from_client(message("X")) == Scan("LEAVE", 0)
    framing = talk(">Q", "<G")
    assert framing.from_client(message("X")) == Scan("LEAVE", 0)


def test_types_and_lengths_of_the_server() -> None:
    for letter in range(256):
        verdict = EngineFraming().from_server(bytes([letter])).verdict
        known = chr(letter) in "123ACDEGHIKNRSTVWZcdnstv"
        assert verdict == ("GO" if known else "BAD")
    for bad in (header("Z", 4), header("Z", 6), header("1", 5), header("D", 5), header("E", 4)):
        framing = talk(">Q")
        why = "invalid message length from the server"
        assert framing.from_server(said("T") + bad) == Scan("BAD", 7, 0, why)
        assert framing.standing() == "UNSURE"
        assert framing.last_words() == "WHOLE"
    assert EngineFraming().from_server(header("D", 0x40000002)).verdict == "GO"
    assert EngineFraming().from_server(header("D", 0x40000003)).verdict == "BAD"


def test_full() -> None:
    framing = EngineFraming()
    pair = message("P") + message("S")
    assert framing.from_client(pair * 32_768).verdict == "GO"
    assert framing.from_client(message("H") + message("P")) == Scan("FULL", 5)
    assert framing.from_client(message("c")) == Scan("FULL", 0)
    assert framing.from_client(message("d", b"xx")) == Scan("GO", 7)
    assert framing.from_server(said("1")).verdict == "GO"
    assert framing.from_client(pair) == Scan("FULL", 5)
    framing.from_server(said("Z"))
    assert framing.from_client(message("S")).verdict == "GO"
    assert framing.from_server(said("1Z" * 32_767)).answered == 32_767
    assert framing.standing() == "BUSY"
    framing.from_server(said("1Z"))
    assert framing.standing() == "APART"


def test_account_grows_in_order() -> None:
    framing = talk(">" + "PBE" * 20, "<12C12C1")
    framing.from_client(b"".join(map(message, "DCF" * 500)))
    assert framing.from_server(said("2C" + "12C" * 17)).verdict == "GO"
    assert framing.standing() == "BUSY"
    assert framing.from_server(said("n3VZ" * 500)).answered == 500
    assert framing.standing() == "APART"


def test_fresh_forgets_everything() -> None:
    for turns in ([">" + "PBDES" * 20], [">P", "<E"], [">Q", "<G"], [">P", "<1"], ["<R"]):
        framing = talk(*turns)
        framing.from_server(b"N\0")
        framing.fresh()
        assert (framing.standing(), framing.last_words()) == ("APART", "WHOLE")
        assert framing.from_client(message("Q")).verdict == "GO"
        assert framing.from_server(said("CZ")).answered == 1
        assert framing.standing() == "APART"

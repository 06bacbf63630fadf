from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.rules import session
from pooler.rules.session import SessionState, in_order, is_delicate, judge, undo, with_startup

USUAL: list[session.Row] = [
    ("named", "client_encoding", b"UTF8"),
    ("named", "session_authorization", b"me"),
    ("named", "role", b"none"),
    ("named", "trio_pooler.pin", None),
]


def state(*rows: session.Row) -> SessionState:
    return judge([*USUAL, *rows], "me")


# -- the question ---------------------------------------------------------------------------


def test_only_what_may_be_a_name_is_asked_for() -> None:
    question = session.probe(
        ["my.own", "my.größe", "a.b.c", "plain", "it's.bad", "1.5", "x.", "\ufffd.a"]
    )
    assert "'a.b.c'" in question and "'my.own'" in question and r"E'my.gr\u00F6\u00DFe'" in question
    for no in ("plain", "bad", "1.5", "'x.'"):
        assert no not in question
    question.encode("ascii")


def test_no_name_is_left_out_however_many() -> None:
    question = session.probe([f"my.own_{n}" for n in range(2000)])
    assert all(f"'my.own_{n}'" in question for n in range(2000))


# -- the answer -----------------------------------------------------------------------------


def test_a_new_session_has_nothing() -> None:
    assert state() == SessionState()


def test_settings_and_whose_they_are() -> None:
    found = state(
        ("setting", "work_mem", b"5MB"),
        ("named", "my.own", "ü".encode()),
        ("named", "my.other", None),
        ("named", "my.empty", b""),
    )
    assert found.settings == (("my.empty", ""), ("my.own", "ü"), ("work_mem", "5MB"))
    assert not found.delicate and not found.pins


def test_another_self_comes_last_and_is_delicate() -> None:
    rows: list[session.Row] = [
        ("named", "client_encoding", b"UTF8"),
        ("named", "role", b"somebody"),
        ("named", "session_authorization", b"else"),
        ("setting", "work_mem", b"5MB"),
    ]
    found = judge(rows, "me")
    assert [name for name, _ in found.settings] == ["work_mem", "session_authorization", "role"]
    assert found.delicate


@pytest.mark.parametrize(
    ("value", "pins"), [("on", True), ("TRUE", True), ("off", False), ("", False)]
)
def test_a_client_may_ask_for_a_pin(value: str, pins: bool) -> None:
    found = judge([("named", "trio_pooler.pin", value.encode())], "me")
    assert (session.ASKED_FOR in found.pins) == pins
    assert not pins or not found.settings


def test_pins_and_what_was_prepared() -> None:
    found = state(
        (session.LISTENS, "news", None),
        (session.LISTENS, "more", None),
        (session.ADVISORY, "", None),
        (session.PREPARED, 'a "b"', None),
    )
    assert found.pins == {session.LISTENS, session.ADVISORY, session.PREPARED}
    assert found.prepared == ('a "b"',)


def test_values_are_read_in_the_encoding_of_the_client() -> None:
    def judged(encoding: bytes, value: bytes) -> SessionState:
        return judge([("named", "client_encoding", encoding), ("named", "my.own", value)], "me")

    assert judged(b"LATIN1", b"gr\xfcn").settings == (("my.own", "grün"),)
    assert judged(b"SJIS", "ソ".encode("shift_jis")).settings == (("my.own", "ソ"),)
    assert judged(b"MULE_INTERNAL", b"plain").settings == (("my.own", "plain"),)
    latin1 = judge(
        [("named", "client_encoding", b"UTF8"), ("named", "server_encoding", b"LATIN1")], "me"
    )
    assert latin1 == SessionState()
    rows: list[session.Row] = [
        ("named", "client_encoding", b"UTF8"),
        ("named", "server_encoding", b"SQL_ASCII"),
        ("named", "my.own", "ü".encode()),
    ]
    for order in (rows, rows[::-1]):
        assert judge(order, "me").pins == {session.UNREADABLE}
    for encoding, value in ((b"MULE_INTERNAL", b"\x81\xe4"), (b"UTF8", b"\xff")):
        assert judged(encoding, value).pins == {session.UNREADABLE}


# -- what follows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "delicate"),
    [
        ("work_mem", "5MB", False),
        ("role", "x", True),
        ("Role", "x", True),
        ("session_authorization", "x", True),
        ("statement_timeout", "0", False),
        ("statement_timeout", "999ms", True),
        ("statement_timeout", "1500ms", False),
        ("statement_timeout", "5", True),
        ("Statement_Timeout", "5", True),
        ("statement_timeout", "1s", False),
        ("transaction_timeout", "1ms", True),
        ("default_tablespace", "x", True),
        ("temp_buffers", "8MB", True),
    ],
)
def test_what_a_request_has_to_wait_for(name: str, value: str, delicate: bool) -> None:
    assert is_delicate([("work_mem", "1MB"), (name, value)]) == delicate


@given(st.permutations(["a", "B", "c", "role", "session_authorization", "my.own"]))
def test_the_order_is_one(names: list[str]) -> None:
    ordered = in_order((name, "x") for name in names)
    assert ordered == in_order((name, "x") for name in sorted(names))
    assert [name for name, _ in ordered][-2:] == ["session_authorization", "role"]


def test_what_was_reset_goes_back_to_the_start_up_packet() -> None:
    have = SessionState(settings=(("TimeZone", "UTC"),))
    startup = (("timezone", "Asia/Tokyo"), ("work_mem", "9MB"))
    assert with_startup(have, startup) == (("TimeZone", "UTC"), ("work_mem", "9MB"))
    assert with_startup(SessionState(), startup) == startup


def test_undoing() -> None:
    assert undo(SessionState()) == ()
    everything = SessionState(
        pins=frozenset({session.LISTENS, session.NAMED, session.PREPARED, session.ASKED_FOR}),
        prepared=('a "b"', "c"),
    )
    assert undo(everything) == ("UNLISTEN *", 'DEALLOCATE "a ""b"""', 'DEALLOCATE "c"')
    for pin in (session.LOADED, session.SEEDED):
        assert undo(SessionState(pins=frozenset({pin, session.LISTENS}))) is None

"""What the framing takes for a change of the session, and how it restores one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pooler.wire.session import TRACKS, literal, read_noted, told_settings, told_words
from tests.support.client import SYNC, bind, execute, message, parse, query
from tests.support.framing import (
    Member,
    Passed,
    Shared,
    last_words_of,
    let_pass,
    make_fresh,
    noted_of,
    standing_of,
    tell,
)

READY = message("Z", b"I")
DONE = message("C", b"SELECT 1\0") + READY
FAILED = message("E", b"SERROR\0C22023\0Mno\0\0") + READY


class Pair:
    """A client and a server that are joined, ``limit``: of prepared statements."""

    def __init__(self, limit: int = 100) -> None:
        self.shared = Shared(limit | TRACKS)
        self.client = Member(self.shared, client=True)
        self.server = Member(self.shared, client=False)
        make_fresh(self.server)

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def ask(self, data: bytes) -> Passed:
        return let_pass(self.client, self.server, data, from_client=True)

    def answer(self, data: bytes) -> Passed:
        return let_pass(self.client, self.server, data, from_client=False)

    @property
    def standing(self) -> str:
        return standing_of(self.client, self.server)

    @property
    def noted(self) -> tuple[frozenset[str], frozenset[str]]:
        return read_noted(noted_of(self.client))

    def tell_client(self, data: bytes) -> None:
        tell(self.shared, data, client=self.client)

    def tell_server(self, data: bytes) -> None:
        tell(self.shared, data, server=self.server)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def marks(text: str | bytes, *, kept: bool = False, chunk: int = 1 << 20) -> bool:
    """Whether the server is to be asked after a query."""
    return reading_of(text, kept=kept, chunk=chunk)[0]


def reading_of(
    text: str | bytes, *, kept: bool = False, chunk: int = 1 << 20
) -> tuple[bool, frozenset[str], frozenset[str]]:
    """Whether a query marks, which names were noted, which remarks made."""
    pair = Pair()
    pair.tell_client(told_settings((), kept=kept))
    data = message("Q", (text.encode() if isinstance(text, str) else text) + b"\0")
    for at in range(0, len(data), chunk):
        assert pair.ask(data[at : at + chunk]).verdict == "GO"
    noted = pair.noted
    pair.answer(DONE)
    standing = pair.standing
    assert standing in ("ASK", "KEPT" if kept else "APART")
    pair.close()
    return standing == "ASK", *noted


# -- which texts mark -----------------------------------------------------------------------

MARKS = [
    "SET a = 1",
    "set session a to 1",
    "sEt TIME ZONE 'x'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET SESSION AUTHORIZATION x",
    "SET transaction_isolation = 'serializable'",
    "SET local.a = 1",
    "SET local .a = 1",
    'SET "local"."a" = 1',
    "SET transaction.a = 1",
    "RESET ALL",
    "DISCARD ALL",
    "LOAD 'auto_explain'",
    "DO $$ BEGIN END $$",
    "LISTEN a",
    "PREPARE p AS SELECT 1",
    "SELECT 1; SET a = 1",
    "BEGIN;SET a = 1;COMMIT",
    "SET LOCAL a = 1; SET b = 1",
    # comments and strings, one in another
    "/* a */ SET a = 1",
    "/* a /* b */ c */ SET a = 1",
    "/*/ a */ SET a = 1",
    "/**/SET a = 1",
    "/***/SET a = 1",
    "-- a\nSET a = 1",
    "-- a\rSET a = 1",
    "-- /* a\nSET a = 1",
    "/* -- */SET a = 1",
    "SET /* LOCAL */ a = 1",
    "SET -- LOCAL\n a = 1",
    "SELECT ';--'; SET a = 1",
    "SELECT ';/*'; SET a = 1",
    "SELECT '; -- x', pg_advisory_lock(1)",
    "SELECT ';/*', set_config('a', 'b', false)",
    'SELECT 1 AS "--"; SET a = 1',
    'SELECT 1 AS "\'"; SET a = 1; SELECT 1 AS "\'"',
    "SELECT 'it''s --'; SET a = 1",
    "SELECT E'it\\'s --'; SET a = 1",
    "SELECT E'\\\\'; SET a = 1 --'",
    "SELECT e'\\n'; SET a = 1",
    "SELECT E'''\\'--'; SET a = 1",
    "SELECT 1 /* ; */ ; SET a = 1",
    "SELECT 2 */* c */ 3; SET a = 1",
    # where it depends on a setting, or on more than is read
    "SELECT '\\'; SET a = 1 --'",
    "SELECT $$;--$$; SET a = 1",
    "SELECT $a$;--$a$; SET a = 1",
    "SELECT $ä$ ' $ä$",
    # functions
    "SELECT set_config('a', 'b', false)",
    "SELECT pg_catalog.set_config('a', 'b', false)",
    "SELECT \"pg_catalog\".\"set_config\"('a', 'b', false)",
    'SELECT U&"set\\005Fconfig"(\'a\', set_config(U&"x", true), false)',
    "SELECT set_config('a', 'b', $1)",
    "SELECT set_config('a', 'b', not true)",
    "SELECT set_config('a', 'b', true and false)",
    "SELECT set_config('a', 'b', 'true')",
    "SELECT set_config('a', 'b', true), set_config('a', 'b', false)",
    "SELECT set_config('a', set_config('b', 'c', false), true)",
    "SELECT set_config('a' /*,true)*/, 'b', false)",
    "SELECT set_config('a', --,true)\n 'b', false)",
    "SELECT set_config($$,true)$$, 'b', false)",
    "SELECT set_config($a$,true)$a$, 'b', false)",
    "SELECT set_config('a,true)', 'b', false)",
    "SELECT set_config(\"a,true)\", 'b', false)",
    "SELECT set_config('\\',true)', 'b', false)",
    "SELECT set_config(f(x,true), 'b', false)",
    "SELECT query_to_xml('SELECT set_config(''a'', ''b'', false)', true, true, '')",
    "SELECT setseed(0.5)",
    "WITH x AS (SELECT pg_try_advisory_lock(1)) SELECT * FROM x",
    "SELECT pg_advisory_unlock_all()",
    # things that only this server has
    "CREATE TEMP TABLE t ()",
    "CREATE /* ! */ TEMP TABLE t ()",
    "CREATE LOCAL TEMPORARY TABLE t ()",
    "CREATE OR REPLACE TEMP VIEW t AS SELECT 1",
    "CREATE TABLE pg_temp.t ()",
    'CREATE TABLE "pg_temp"."t" ()',
    "SELECT 1 INTO TEMP t",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "BEGIN; DECLARE c CURSOR WITH -- x\n HOLD FOR SELECT 1; COMMIT",
    # long ones
    "SELECT " + "a" * 300 + "; SET a = 1",
    "SELECT " + "'x', " * 30_000 + "set_config('a', 'b', false)",
]


@pytest.mark.parametrize("text", MARKS, ids=lambda text: text[:40])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_texts_that_may_change_the_session(text: str, chunk: int) -> None:
    assert marks(text, chunk=chunk)


DOES_NOT_MARK = [
    "",
    ";",
    "SELECT 1",
    "UPDATE t SET a = 1",
    "UPDATE t SET a = 'SET b = 1'",
    "SELECT 'set'",
    "SELECT '; SET a = 1'",
    "SELECT 'it''s; SET a = 1'",
    "SELECT E'it\\'s; SET a = 1'",
    "INSERT INTO t VALUES ('x;load', ';do')",
    'SELECT 1 AS "; SET a = 1"',
    "/* SET a = 1; */ SELECT 1",
    "/* load Item */ SELECT 1",
    "/* a */ /* set /* set */ set */ SELECT 1",
    "-- SET a = 1\nSELECT 1",
    "SELECT 1 -- ; SET a = 1",
    "SELECT 1 /* ; SET a = 1 */",
    "SELECT /* set_config( */ 1",
    "SELECT 'C:\\dir', 1",
    "SELECT $1, $2",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "SET LOCAL a = 1",
    "SET /* x */ LOCAL a = 1",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL DEFERRED",
    "BEGIN; SET LOCAL a = 1; SELECT 1; COMMIT",
    "SELECT set_config('a', 'b', true)",
    "SELECT set_config('a', 'it''s, (', true )",
    "SELECT set_config('a', f(1, (2)), TRUE) FROM t",
    "SELECT pg_catalog.set_config('a', 'b', true), set_config('c', 'd', true)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
    "ALTER TABLE t SET (fillfactor = 10)",
    "CREATE TABLE t (temp int, hold int)",
    "SELECT temp FROM t",
    "DECLARE c CURSOR FOR SELECT 1",
    "DROP TABLE t",
    "CLOSE c",
    "UNLISTEN *",
    "DEALLOCATE x",
    "SELECT reset, load, listen FROM do_prepare",
    "SELECT " + "a" * 300 + "set_config",
    "INSERT INTO t VALUES ('" + "x" * 70_000 + "')",
]


@pytest.mark.parametrize("text", DOES_NOT_MARK, ids=lambda text: text[:40])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_texts_that_do_not(text: str, chunk: int) -> None:
    assert not marks(text, chunk=chunk)


@pytest.mark.parametrize(
    "text", ["DROP TABLE t", "CLOSE c", "UNLISTEN *", "DEALLOCATE x", "EXECUTE x"]
)
def test_what_may_end_a_pin_marks_where_there_is_one(text: str) -> None:
    assert marks(text, kept=True) and not marks(text)


def test_half_of_a_character_may_look_like_a_backslash() -> None:
    assert marks("SELECT E'ソ'; SET a = 1 --'".encode("cp932"))
    assert marks("SELECT 'ソ'; SET a = 1 --'".encode("cp932"))


def test_words_that_mark_by_will_of_the_operator(pair: Pair) -> None:
    tell(pair.shared, told_words(["My_Function", "größe"]))
    for text in ("SELECT my_function()", 'SELECT s."MY_FUNCTION"(1)', "SELECT größe"):
        pair.ask(query(text))
        pair.answer(DONE)
        assert pair.standing == "ASK"
        assert pair.noted[1] == {"named"}
        pair.tell_client(told_settings(()))
        assert pair.standing == "APART"
    pair.ask(query("SELECT my_function2() -- my_function"))
    pair.answer(DONE)
    assert pair.standing == "APART"


# -- what is noted --------------------------------------------------------------------------


def noted_names(text: str) -> frozenset[str]:
    return reading_of(text)[1]


def test_names_of_settings_are_noted_for_python() -> None:
    assert noted_names("SET my.own = 1") == {"my.own"}
    assert noted_names('SET "My"."Own" = 1') == {"my.own"}
    assert noted_names("SET my.größe = 1") == {"my.größe"}
    assert noted_names("SELECT set_config('my.own', 'x', false)") == {"my.own"}
    before = "WITH v AS (SELECT 'my.own' AS n) SELECT set_config(n, 'x', false) FROM v"
    assert noted_names(before) == {"my.own"}
    assert noted_names("DO $$ BEGIN PERFORM set_config('my.own', 'y', false); END $$") == {"my.own"}
    assert noted_names("SELECT 'my.own', 1.5, t.a FROM t") == frozenset()
    assert noted_names("SELECT set_config('my.own', 'x', true)") == frozenset()


def test_remarks_for_python() -> None:
    assert reading_of("LOAD 'x'")[2] == {"load"}
    assert reading_of("DISCARD ALL")[2] == {"discard"}
    assert reading_of("SELECT setseed(1)")[2] == reading_of("SET seed = 1")[2] == {"seed"}
    assert reading_of("/* load Item */ SET a = 1")[2] == frozenset()


def test_what_a_transaction_says_beside_is_not_noted(pair: Pair) -> None:
    pair.ask(query("BEGIN; SET my.own = 1"))
    pair.answer(message("C", b"SET\0") + message("Z", b"T"))
    for n in range(2000):
        pair.ask(query(f"SELECT t.column_{n}, 'x.y{n}' FROM s.t"))
        pair.answer(message("C", b"SELECT 1\0") + message("Z", b"T"))
    assert pair.noted == ({"my.own"}, frozenset())


def test_too_many_names_are_said_to_be_lost() -> None:
    many = "; ".join(f"SET my.own_{n} = 1" for n in range(2000))
    marked, names, remarks = reading_of(many)
    assert marked and len(names) > 100 and remarks == {"lost"}
    marked, names, remarks = reading_of("; ".join(["SET my.own = 1"] * 2000))
    assert marked and names == {"my.own"} and not remarks


# -- prepared statements --------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
@pytest.mark.parametrize("padding", [0, 70_000])
def test_a_bind_marks_and_names_settings(limit: int, chunk: int, padding: int) -> None:
    pair = Pair(limit)
    text = "SELECT set_config($1, $2, $3)" + " " * padding
    ready = message("1") + READY
    for name in ("", "s"):
        data = parse(text, name) + SYNC
        for at in range(0, len(data), chunk):
            pair.ask(data[at : at + chunk])
        pair.answer(message("3") * (limit > 0 and bool(name)) + ready)
        pair.tell_client(told_settings(()))
        data = bind(b"x--y", b"my.own", b"f", statement=name) + execute() + SYNC
        for at in range(0, len(data), chunk):
            pair.ask(data[at : at + chunk])
        pair.answer(message("2") + message("C", b"SELECT 1\0") + READY)
        assert pair.standing == "ASK"
        assert "my.own" in pair.noted[0]
        pair.tell_client(told_settings(()))
    pair.close()


def test_a_bind_of_what_changes_nothing_does_not_mark(pair: Pair) -> None:
    pair.ask(parse("UPDATE t SET a = $1", "s") + bind(b"set_config my.own", statement="s"))
    pair.ask(execute() + SYNC)
    pair.answer(message("3") + message("1") + message("2") + DONE)
    assert pair.standing == "APART" and pair.noted == (frozenset(), frozenset())


def test_a_server_s_word_that_a_setting_has_changed_marks(pair: Pair) -> None:
    status = message("S", b"TimeZone\0UTC\0")
    pair.ask(query("SELECT f()"))
    pair.answer(message("C", b"SELECT 1\0") + status + READY)
    assert pair.standing == "ASK"
    pair.tell_client(told_settings(()))
    pair.ask(query("SET LOCAL TimeZone = 'UTC'"))
    pair.answer(message("C", b"SET\0") + status + status + READY)
    assert pair.standing == "APART"


# -- any split into chunks ------------------------------------------------------------------

PIECES = [
    *"'\"\\;$/*-(),. \n\r\0e", "--", "/*", "*/", "$$", "$a$", "E'", "U&\"", "''", "''",
    "SET ", "LOCAL ", "TRANSACTION ", "set_config(", "true", "my.own", "'my.own'", "LOAD ",
    "DISCARD ALL", "CREATE ", "TEMP ", "pg_temp.x", "setseed", "DROP ", "SELECT ", "a", "1.5",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@given(TEXTS, st.integers(1, 9), st.booleans())
def test_any_split_into_chunks_reads_the_same(text: str, chunk: int, kept: bool) -> None:
    whole = reading_of(text, kept=kept)
    assert reading_of(text, kept=kept, chunk=chunk) == whole
    assert reading_of(text, kept=kept, chunk=1) == whole


SAFE = st.sampled_from(
    ["SELECT 1", "'a;--b'", "/* set */", "-- x\n", '"a;\'"', "E'\\'--'", ",", "("]
)


@given(st.lists(SAFE, max_size=10))
def test_what_comes_before_never_hides_a_statement(pieces: list[str]) -> None:
    assert marks(" ".join(pieces) + "; SET a = 1")


# -- restoring ------------------------------------------------------------------------------

MINE = told_settings([("work_mem", "5MB"), ("my.own", "it's \\ ü \U0001f418")])
OTHERS = told_settings([("work_mem", "6MB"), ("search_path", "a, b")])
DELICATE = told_settings([("work_mem", "5MB"), ("role", "somebody")], delicate=True)


def restoring(passed: Passed) -> str:
    """The text of the query that the client did not send."""
    assert passed.on[:1] == b"Q"
    length = int.from_bytes(passed.on[1:5], "big")
    assert passed.on[length : length + 1] == b"\0"
    return passed.on[5:length].decode("ascii")


def test_settings_are_put_before_the_client_s_own_in_one_packet(pair: Pair) -> None:
    pair.tell_client(MINE)
    passed = pair.ask(query("SELECT 1"))
    own = "E'it''s \\\\ \\u00FC \\U0001F418'"
    assert restoring(passed) == (
        "SELECT pg_catalog.set_config('work_mem','5MB',false),"
        f"pg_catalog.set_config('my.own',{own},false)"
    )
    assert passed.on.endswith(query("SELECT 1")) and passed.verdict == "GO"
    assert pair.answer(message("T", bytes(2)) + DONE + DONE).on == DONE
    assert pair.standing == "APART"
    make_fresh(pair.server)
    assert pair.ask(query("SELECT 2")).on == query("SELECT 2")


def test_what_another_had_is_taken_off(pair: Pair) -> None:
    pair.tell_server(OTHERS)
    pair.tell_client(MINE)
    text = restoring(pair.ask(query("SELECT 1")))
    assert text.startswith("SELECT pg_catalog.set_config('search_path',NULL,false),")
    assert "'work_mem','5MB'" in text and "NULL" not in text.replace("'search_path',NULL", "")
    pair.answer(DONE)
    pair.answer(DONE)
    pair.tell_client(told_settings(()))
    text = restoring(pair.ask(query("SELECT 1")))
    assert text.count("NULL") == 2 and "5MB" not in text


def test_equal_settings_cost_nothing(pair: Pair) -> None:
    pair.tell_server(MINE)
    pair.tell_client(MINE)
    assert pair.ask(query("SELECT 1")).on == query("SELECT 1")


def test_many_settings(pair: Pair) -> None:
    many = [(f"my.own_{n}", f"'{n}\\" * 10) for n in range(2000)]
    pair.tell_client(told_settings(many))
    text = restoring(pair.ask(query("SELECT 1")))
    calls = [f"pg_catalog.set_config({literal(k)},{literal(v)},false)" for k, v in many]
    assert text == "SELECT " + ",".join(calls)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_delicate_settings_are_waited_for(pair: Pair, chunk: int) -> None:
    pair.tell_client(DELICATE)
    passed = pair.ask(query("SELECT 1"))
    assert (passed.verdict, passed.consumed) == ("FULL", 0)
    assert "'role','somebody'" in restoring(passed)
    answer = message("T", bytes(2)) + message("D", bytes(2)) + DONE
    for at in range(0, len(answer), chunk):
        again = pair.ask(
            query("SELECT 1")
        )  # the engine tries whenever the server has said something
        assert (again.verdict, again.consumed, again.on) == ("FULL", 0, b"")
        assert pair.answer(answer[at : at + chunk]).on == b""
    assert pair.ask(query("SELECT 1")).on == query("SELECT 1")
    assert pair.answer(DONE).on == DONE


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_others_settings_that_cannot_be_taken_off_make_a_server_unfit(
    pair: Pair, chunk: int
) -> None:
    pair.tell_server(DELICATE)
    pair.tell_client(MINE)
    pair.ask(query("SELECT 1"))
    for at in range(0, len(FAILED), chunk):
        passed = pair.answer(FAILED[at : at + chunk])
        assert passed.on == b"" and pair.standing != "APART"
        if passed.verdict != "GO":
            break
    assert passed.verdict == "UNFIT" and pair.standing == "UNSURE"


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("told", [MINE, DELICATE])
def test_own_settings_that_a_new_server_does_not_take_are_told_to_the_client(
    pair: Pair, chunk: int, told: bytes
) -> None:
    pair.tell_client(told)
    pair.ask(query("SELECT 1"))
    heard = b""
    for at in range(0, len(FAILED), chunk):
        passed = pair.answer(FAILED[at : at + chunk])
        heard += passed.on
        if passed.verdict != "GO":
            break
    assert passed.verdict == "BAD" and heard == FAILED[: -len(READY)]
    assert last_words_of(pair.server) == "ERROR"
    assert "restored" in (passed.why or "")


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("begun", [b"Q", b"Q\0\0\0", b"P\0\0\0\x20s"])
def test_a_server_that_has_half_a_message_of_the_client_s_cannot_be_swapped(
    limit: int, begun: bytes
) -> None:
    pair = Pair(limit)
    pair.tell_server(OTHERS)
    pair.tell_client(MINE)
    assert pair.ask(begun).verdict == "GO"
    passed = pair.answer(FAILED)
    assert passed.verdict == "BAD" and passed.on == FAILED[: -len(READY)]
    pair.close()


def test_a_notification_meanwhile_is_the_client_s(pair: Pair) -> None:
    news = message("A", bytes(4) + b"news\0x\0")
    pair.tell_client(MINE)
    pair.ask(query("SELECT 1"))
    assert pair.answer(message("T", bytes(2)) + DONE[: -len(READY)] + news + READY).on == news


def test_a_server_that_dies_while_restoring_has_told_the_client_nothing(pair: Pair) -> None:
    pair.tell_client(DELICATE)
    pair.tell_server(OTHERS)
    pair.ask(query("SELECT 1"))
    pair.answer(FAILED[: -len(READY)])
    assert last_words_of(pair.server) == "WHOLE"
    pair.close()
    other = Pair()
    other.tell_client(MINE)
    other.ask(query("SELECT 1"))
    other.answer(message("T", bytes(20))[:9])
    assert last_words_of(other.server) == "WHOLE"
    other.close()


def test_a_goodbye_needs_no_settings(pair: Pair) -> None:
    pair.tell_client(MINE)
    passed = pair.ask(message("X"))
    assert (passed.verdict, passed.on) == ("LEAVE", b"")
    assert pair.standing == "APART"


SETTINGS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    max_size=6,
)


@settings(max_examples=200)
@given(SETTINGS, SETTINGS, st.booleans())
def test_any_settings_from_any_others(
    mine: dict[str, str], others: dict[str, str], delicate: bool
) -> None:
    pair = Pair()
    pair.tell_server(told_settings(others.items()))
    pair.tell_client(told_settings(mine.items(), delicate=delicate))
    passed = pair.ask(query("SELECT 1"))
    kept = {} if delicate else {k: v for k, v in others.items() if k in mine}
    if list(mine.items()) == list(others.items()):
        assert passed.on == query("SELECT 1")
    else:
        resets = [(k, "NULL") for k in reversed(others) if k not in kept]
        sets = [(k, literal(v)) for k, v in mine.items() if kept.get(k) != v]
        calls = [f"pg_catalog.set_config({literal(k)},{v},false)" for k, v in resets + sets]
        assert restoring(passed) == "SELECT " + ",".join(calls)
    pair.close()

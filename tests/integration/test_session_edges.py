"""Session state where it is hard to see, to ask for, or to restore: on every PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support import client as raw
from tests.support.pooler import PoolerProcess
from tests.support.postgres import EmbeddedPostgres
from tests.support.postgres import connect as direct

Connection = psycopg.Connection[tuple[object, ...]]
Connect = Callable[..., Connection]


@pytest.fixture(scope="module")
def pg(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    return postgres


@pytest.fixture
def one(start: MakePooler) -> PoolerProcess:
    """Every client but a pinned one meets the same server."""
    return start(max_servers=1, mode="transaction")


@pytest.fixture
def connect(one: PoolerProcess, user: str) -> Iterator[Connect]:
    made: list[Connection] = []

    def make(**parameters: object) -> Connection:
        conn = psycopg.connect(one.dsn(user=user, **parameters), autocommit=True)
        made.append(conn)
        return conn

    yield make
    for conn in made:
        conn.close()


def value(conn: Connection, sql: str, *values: object) -> object:
    row = conn.execute(sql, values or None).fetchone()
    assert row is not None
    return row[0]


def show(conn: Connection, name: str) -> object:
    return value(conn, f"SELECT pg_catalog.current_setting('{name}', true)")


# -- where the question what a session has might fail, or be answered by another ------------

HOSTILE = """
    CREATE SCHEMA hostile;
    CREATE FUNCTION hostile.no(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION hostile.no(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION hostile.no(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION hostile.no(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.no);
    CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.no);
    CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.no);
    CREATE OPERATOR hostile.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.no);
    CREATE OPERATOR hostile.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.no);
    CREATE FUNCTION hostile.set_config(text, text, boolean) RETURNS text
        LANGUAGE sql AS 'SELECT 1/0::text';
    CREATE FUNCTION hostile.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''x''';
    CREATE TABLE hostile.pg_settings (name int);
    CREATE DOMAIN hostile.text AS int;
"""


def test_a_search_path_that_hides_the_catalog(connect: Connect) -> None:
    mine, other = connect(), connect()
    other.execute(HOSTILE.replace("1/0::text", "(1/0)::pg_catalog.text"))
    try:
        mine.execute("SET search_path TO hostile, pg_catalog; SET work_mem = '5MB'")
        for _ in range(3):
            assert show(other, "work_mem") == "4MB"
            assert show(mine, "work_mem") == "5MB"
            assert show(mine, "search_path") == "hostile, pg_catalog"
    finally:
        mine.close()
        other.execute("DROP SCHEMA hostile CASCADE")


def test_temporary_tables_with_names_of_the_catalog(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=2, mode="transaction")
    with (
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as mine,
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as other,
    ):
        names = ["pg_settings", "pg_locks", "pg_depend", "pg_namespace", "pg_prepared_statements"]
        for name in names:
            mine.execute(f"CREATE TEMP TABLE {name} (a int)")
        home = value(mine, "SELECT pg_backend_pid()")
        mine.execute("SET work_mem = '5MB'")
        for _ in range(3):
            assert value(other, "SELECT pg_backend_pid()") != home
            assert value(mine, "SELECT pg_backend_pid()") == home
        mine.execute("DROP TABLE " + ", ".join(names))
        assert show(mine, "work_mem") == "5MB"
        mine.execute("RESET work_mem")
        assert value(mine, "SELECT pg_backend_pid()") == value(other, "SELECT pg_backend_pid()")


@pytest.mark.parametrize(
    "hurdle",
    [
        "SET default_transaction_read_only = on",
        "SET default_transaction_isolation = 'serializable'",
        "SET default_transaction_isolation = 'serializable';"
        " SET default_transaction_read_only = on; SET default_transaction_deferrable = on",
        "SET row_security = off",
        "SET plan_cache_mode = force_generic_plan",
        "SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0",
        "SET standard_conforming_strings = off; SET escape_string_warning = off",
        "SET backslash_quote = off",
        "SET quote_all_identifiers = on",
        "SET client_min_messages = debug5",
        "SET bytea_output = escape; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = iso_8601",
        "SET transform_null_equals = on",
        "SET search_path = ''",
        "SET statement_timeout = 1",
        "SET lock_timeout = 1",
        "SET idle_in_transaction_session_timeout = 1",
        "SET enable_seqscan = off; SET enable_indexscan = off; SET enable_hashjoin = off",
        "SET from_collapse_limit = 1; SET geqo_threshold = 2",
        "SET client_encoding = 'LATIN1'",
        "SET client_encoding = 'SJIS'",
    ],
)
def test_settings_that_stand_in_the_way(connect: Connect, hurdle: str) -> None:
    mine, other = connect(), connect()
    mine.execute(hurdle)
    mine.execute("SET my.own = 'it''s'")
    for _ in range(3):
        assert show(other, "my.own") in (None, "")
        other.execute("SELECT pg_sleep(0.002)")
        own = None
        while own is None:  # a client with the least statement_timeout insists, too
            try:
                own = show(mine, "my.own")
            except psycopg.errors.QueryCanceled:
                assert "statement_timeout" in hurdle
        assert own == "it's"


def test_a_role_that_may_do_nothing(connect: Connect, user: str) -> None:
    mine, other = connect(), connect()
    other.execute("CREATE ROLE nobody_at_all")
    try:
        mine.execute("SET work_mem = '5MB'; SET ROLE nobody_at_all; SET my.own = 'x'")
        for _ in range(3):
            assert value(other, "SELECT current_user") == user
            assert show(other, "work_mem") == "4MB"
            assert value(mine, "SELECT current_user") == "nobody_at_all"
            assert (show(mine, "work_mem"), show(mine, "my.own")) == ("5MB", "x")
        mine.execute("RESET ROLE")
        assert value(mine, "SELECT current_user") == user
        assert value(other, "SELECT current_user") == user
        mine.execute("SET SESSION AUTHORIZATION nobody_at_all")
        assert value(other, "SELECT session_user") == user
        assert value(mine, "SELECT session_user") == "nobody_at_all"
    finally:
        mine.close()
        other.execute("DROP ROLE nobody_at_all")


def test_a_role_that_every_session_of_the_user_has(
    connect: Connect, user: str, pg: EmbeddedPostgres
) -> None:
    with direct(pg) as conn:
        conn.execute(f"CREATE ROLE usual_{user}; ALTER ROLE {user} SET role = 'usual_{user}'")
    mine, other = connect(), connect()
    assert value(other, "SELECT current_user") == f"usual_{user}"
    mine.execute("SET work_mem = '5MB'")
    assert value(mine, "SELECT current_user") == f"usual_{user}"
    assert value(other, "SELECT current_user") == f"usual_{user}"
    mine.execute("SET ROLE pg_monitor")
    mine.close()
    assert value(other, "SELECT current_user") == f"usual_{user}"


# -- which settings a client has -------------------------------------------------------------


def test_an_own_setting_that_is_empty_is_known(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute("SET my.own = ''")
    other.execute("SET other.own = 'x'")
    assert value(mine, "SELECT current_setting('my.own')") == ""


@pytest.mark.parametrize("name", ["my.größe", 'my."Own"', "my.own.deeper"])
def test_names_of_own_settings(connect: Connect, name: str) -> None:
    mine, other = connect(), connect()
    mine.execute(f"SET {name} = 'x'")
    for _ in range(3):
        assert show(other, name.replace('"', "")) in (None, "")
        assert show(mine, name.replace('"', "")) == "x"


def test_a_name_that_is_not_where_it_is_set(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute(
        "WITH names AS (SELECT 'my.own' AS name) SELECT set_config(name, 'x', false) FROM names"
    )
    assert show(other, "my.own") in (None, "")
    assert show(mine, "my.own") == "x"


def test_a_long_text(connect: Connect) -> None:
    mine, other = connect(), connect()
    padding = "x" * 200_000
    mine.execute(f"SELECT '{padding}'; SET my.own = 'x'")
    assert show(other, "my.own") in (None, "")
    assert show(mine, "my.own") == "x"
    with other.cursor() as cursor:
        cursor.execute(f"SELECT set_config('my.own', %s, false), '{padding}'", ["y"])
    assert show(mine, "my.own") == "x"
    assert show(other, "my.own") == "y"


def test_a_string_that_looks_like_a_comment_hides_nothing(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute("SELECT ';-- ', set_config('work_mem', '5MB', false); SELECT ';/*'")
    assert show(other, "work_mem") == "4MB"
    assert show(mine, "work_mem") == "5MB"


def test_a_transaction_of_many_qualified_names_pins_nobody(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=2, mode="transaction")
    with psycopg.connect(pooler.dsn(user=user)) as mine:
        mine.execute("SET work_mem = '5MB'")
        for n in range(300):
            mine.execute(
                f'SELECT "t"."column_{n}_of_a_table" FROM (SELECT 1 AS column_{n}_of_a_table) t'
            )
        mine.commit()
        mine.execute("SELECT 1")
    assert "cannot be carried over" not in pooler.log


def test_another_encoding(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute("SET client_encoding = 'LATIN1'")
    mine.execute("SET my.own = 'grün'")
    for _ in range(3):
        assert show(other, "my.own") in (None, "")
        assert show(mine, "my.own") == "grün"
        assert value(mine, "SELECT length(current_setting('my.own'))") == 4
    assert mine.info.encoding == "iso8859-1" and other.info.encoding == "utf-8"


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_a_database_in_another_encoding(
    start: MakePooler, user: str, pg: EmbeddedPostgres, encoding: str
) -> None:
    pooler = start(max_servers=2, mode="transaction")
    name = f"{user}_database"
    with direct(pg) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    with (
        psycopg.connect(pooler.dsn(name, user=user), autocommit=True) as mine,
        psycopg.connect(pooler.dsn(name, user=user), autocommit=True) as other,
    ):
        for conn in (mine, other):
            conn.execute("SET client_encoding = 'UTF8'")
        for text in ("plain", "grün" if encoding != "EUC_JP" else "ソ"):
            mine.execute(
                f"SET my.own = '{text}'; SET my.ü = 'x'"
                if "ü" in text
                else f"SET my.own = '{text}'"
            )
            for _ in range(3):
                assert value(other, "SELECT 1") == 1
                own = show(mine, "my.own")
                assert (own.decode() if isinstance(own, bytes) else own) == text
        # What the database cannot say is an error, and no more than that.
        if encoding != "SQL_ASCII":
            with pytest.raises(psycopg.Error):
                mine.execute("SELECT set_config('my.own', 'x.😀', false)")
            mine.execute("SELECT 1")


def test_a_parameter_that_only_a_new_connection_takes(connect: Connect) -> None:
    plain = connect()
    special = connect(options="-c ignore_system_indexes=on")
    assert show(special, "ignore_system_indexes") == "on"
    plain.execute("SELECT 1")


def test_a_seed_holds_for_its_client(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=2, mode="transaction")
    with (
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as mine,
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as other,
    ):
        rounds: list[list[object]] = []
        for _ in range(2):
            mine.execute("SELECT setseed(0.25)")
            rounds.append([])
            for _ in range(3):
                other.execute("SELECT random()")
                rounds[-1].append(value(mine, "SELECT random()"))
        assert rounds[0] == rounds[1]
    assert "setseed" in pooler.log


# -- pipelines, errors, rollbacks ------------------------------------------------------------


def test_a_query_right_behind_its_setting(one: PoolerProcess, user: str, connect: Connect) -> None:
    other = connect()
    with raw.Client.log_in(one.port, user=user) as mine:
        for n in range(20):
            mine.send(
                raw.query(f"SET my.own = '{n}'")
                + raw.query("SELECT current_setting('my.own')")
                + raw.query("BEGIN; SET LOCAL my.own = 'no'; COMMIT")
                + raw.query("SELECT current_setting('my.own')")
            )
            assert not mine.result().errors
            assert mine.result().value == str(n)
            assert not mine.result().errors
            assert mine.result().value == str(n)
            assert show(other, "my.own") in (None, "")


def test_a_setting_in_a_pipeline_that_fails(connect: Connect) -> None:
    mine, other = connect(), connect()
    for text in ("SET work_mem = '7MB'", "SELECT set_config('work_mem', '7MB', false)"):
        with pytest.raises(psycopg.errors.DivisionByZero), mine.pipeline() as pipeline:
            mine.execute(text)
            mine.execute("SELECT 1/0")
            pipeline.sync()
        assert show(mine, "work_mem") == show(other, "work_mem") == "4MB"
        with mine.pipeline() as pipeline:
            mine.execute("SET work_mem = '8MB'")
            pipeline.sync()
            broken = mine.execute("SELECT 1/0")
            with pytest.raises(psycopg.errors.DivisionByZero):
                pipeline.sync()
                broken.fetchall()
        assert (show(mine, "work_mem"), show(other, "work_mem")) == ("8MB", "4MB")
        mine.execute("RESET work_mem")


def test_a_setting_in_a_transaction_that_has_failed(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute("BEGIN; SET work_mem = '7MB'")
    with pytest.raises(psycopg.errors.DivisionByZero):
        mine.execute("SELECT 1/0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        mine.execute("SET work_mem = '8MB'")
    mine.execute("COMMIT")
    assert show(mine, "work_mem") == show(other, "work_mem") == "4MB"


def test_the_unnamed_statement_outlives_question_and_restoring(
    one: PoolerProcess, user: str, connect: Connect
) -> None:
    other = connect()
    with raw.Client.log_in(one.port, user=user) as mine:
        mine.send(raw.parse("SELECT set_config('work_mem', '5MB', false)") + raw.SYNC)
        assert not mine.result().errors
        for _ in range(3):
            mine.send(raw.bind() + raw.execute() + raw.SYNC)
            assert mine.result().value == "5MB"
            assert show(other, "work_mem") == "4MB"


# -- what happens beside ---------------------------------------------------------------------


def test_late_cancel_requests_do_no_harm(connect: Connect) -> None:
    mine = connect()
    for n in range(30):
        mine.execute("SELECT set_config('my.own', %s, false)", [str(n)])
        mine.cancel_safe()
        assert show(mine, "my.own") == str(n)


def test_a_reload_is_heard_and_settings_stay(connect: Connect, pg: EmbeddedPostgres) -> None:
    mine, other = connect(), connect()
    mine.execute("SET TimeZone = 'Asia/Tokyo'")
    other.execute("BEGIN")
    with direct(pg) as conn:
        conn.execute("ALTER SYSTEM SET TimeZone = 'Asia/Kolkata'")
        conn.execute("SELECT pg_reload_conf()")
        try:
            deadline = time.monotonic() + 20
            while show(other, "TimeZone") != "Asia/Kolkata":
                assert time.monotonic() < deadline
            other.execute("COMMIT")
            assert other.info.parameter_status("TimeZone") == "Asia/Kolkata"
            assert show(mine, "TimeZone") == "Asia/Tokyo" == mine.info.parameter_status("TimeZone")
            assert show(other, "TimeZone") == "Asia/Kolkata"
            mine.execute("RESET TimeZone")
            assert (
                show(mine, "TimeZone") == "Asia/Kolkata" == mine.info.parameter_status("TimeZone")
            )
        finally:
            conn.execute("ALTER SYSTEM RESET TimeZone")
            conn.execute("SELECT pg_reload_conf()")


# -- prepared statements ---------------------------------------------------------------------

LITERAL = "SELECT extract(epoch FROM '01/02/2020 00:00'::timestamptz)::bigint"


def seconds(conn: Connection, *, prepare: bool = True) -> object:
    row = conn.execute(LITERAL, prepare=prepare).fetchone()
    assert row is not None
    return row[0]


def test_literals_are_read_with_the_settings_of_their_client(connect: Connect) -> None:
    """One text prepared by two clients, to whom it does not mean the same."""
    mine, other = connect(), connect(options="-c TimeZone=Asia/Tokyo -c DateStyle=SQL,DMY")
    clients = (mine, other, mine, other)
    prepared = [seconds(conn) for conn in clients]
    assert prepared == [seconds(conn, prepare=False) for conn in clients]
    assert len(set(prepared)) == 2


@pytest.mark.parametrize(
    "setting",
    [
        "SET LOCAL TimeZone = 'Asia/Tokyo'",
        "SET LOCAL TIME ZONE 'Asia/Tokyo'",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', true)",
        "SET TimeZone = 'Asia/Tokyo'",
        "DO $$ BEGIN PERFORM set_config('Time' || 'Zone', 'Asia/Tokyo', true); END $$",
    ],
)
def test_what_is_prepared_within_a_transaction_is_not_shared(
    connect: Connect, setting: str
) -> None:
    mine, other = connect(), connect()
    usual = seconds(other, prepare=False)
    for _ in range(2):
        mine.execute("BEGIN")
        mine.execute(setting)
        assert seconds(mine, prepare=False) != usual
        mine.execute("ROLLBACK")
        assert seconds(other) == usual
    mine.execute("BEGIN")
    mine.execute(setting)
    first = seconds(mine)
    assert first != usual
    mine.execute("ROLLBACK")
    assert seconds(other) == usual == seconds(other, prepare=False)

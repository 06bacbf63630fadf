"""What a client leaves in its session, with one server for all: nobody else finds any of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import SYNC, Client, bind, execute, parse, query
from tests.support.pooler import PoolerProcess

LOCK = 4711


class Kind(NamedTuple):
    """What a client does; ``keeps``: for that it keeps its server."""

    sql: str
    keeps: bool = False


KINDS = {
    "setting": Kind("SET work_mem = '7MB'"),
    "reported setting": Kind("SET TimeZone = 'Asia/Tokyo'"),
    "several settings": Kind("SET DateStyle = 'German'; SET statement_timeout = '7min'"),
    "set_config": Kind("SELECT set_config('lock_timeout', '7s', false)"),
    "setting by DO": Kind("DO $$ BEGIN SET work_mem = '8MB'; END $$"),
    "own setting": Kind("SET my.own = 'left behind'"),
    "search_path": Kind("SET search_path = 'left behind', pg_catalog"),
    "encoding": Kind("SET client_encoding = 'LATIN1'"),
    "role": Kind("SET ROLE pg_monitor"),
    "authorization": Kind("SET SESSION AUTHORIZATION pg_monitor"),
    "both": Kind("SET SESSION AUTHORIZATION pg_monitor; SET ROLE pg_read_all_stats"),
    "characteristics": Kind("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
    "LISTEN": Kind("LISTEN left_behind", keeps=True),
    "advisory lock": Kind(f"SELECT pg_advisory_lock({LOCK})", keeps=True),
    "shared lock": Kind(f"SELECT pg_try_advisory_lock_shared({LOCK})", keeps=True),
    "temporary table": Kind("CREATE TEMP TABLE left_behind (v int)", keeps=True),
    "temporary view": Kind("CREATE TEMP VIEW left_behind AS SELECT 1", keeps=True),
    "temporary function": Kind(
        "CREATE FUNCTION pg_temp.left_behind() RETURNS int LANGUAGE sql AS 'SELECT 1'", keeps=True
    ),
    "cursor": Kind("DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1", keeps=True),
    "PREPARE": Kind("PREPARE left_behind AS SELECT 1", keeps=True),
    "pin": Kind("SET trio_pooler.pin = on", keeps=True),
    "much": Kind(
        "SET work_mem = '9MB'; CREATE TEMP TABLE left_behind (); LISTEN left_behind;"
        f" SELECT pg_advisory_lock({LOCK}); SET ROLE pg_monitor",
        keeps=True,
    ),
}
LEAVING = ("Terminate", "RST", "FIN")
CASES = [pytest.param(kind, id=name) for name, kind in KINDS.items()]

# What a client can ask about its session. A setting of a user's own, once set, is never unknown
# again on its server, but empty. A language, once used, brings settings of its own along.
QUESTIONS = {
    "settings": "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'plpgsql.%'",
    "own settings": "SELECT coalesce(current_setting('my.own', true), ''),"
    " coalesce(current_setting('trio_pooler.pin', true), '')",
    "identity": "SELECT current_user, session_user",
    "channels": "SELECT pg_listening_channels()",
    "locks": f"SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK}",
    "relations": "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()",
    "cursors": "SELECT name FROM pg_cursors",
    "statements": "SELECT name FROM pg_prepared_statements WHERE from_sql",
}


def look(client: Client) -> dict[str, Any]:
    """What a client finds, and has been told."""
    found: dict[str, Any] = {}
    for what, question in QUESTIONS.items():
        result = client.query(question)
        assert not result.errors, (what, result.errors)
        found[what] = result.rows
    return {**found, "told": dict(client.parameters)}


def leave(client: Client, way: str) -> None:
    {"Terminate": client.terminate, "RST": client.abort, "FIN": client.close}[way]()


def do(client: Client, *sql: str) -> None:
    for each in sql:
        result = client.query(each)
        assert not result.errors, result.errors


@pytest.fixture
def one(start: MakePooler) -> PoolerProcess:
    """Whatever is left on its server would be the next client's."""
    return start(max_servers=1, mode="transaction")


@pytest.fixture
def other(one: PoolerProcess, user: str) -> Any:
    """The other client; it asks before and after, so what it finds at first is what it must."""
    with Client.log_in(one.port, user=user) as client:
        yield client


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize("kind", CASES)
def test_nothing_is_left_of_a_client_that_has_gone(
    one: PoolerProcess, other: Client, user: str, kind: Kind, way: str
) -> None:
    before = look(other)
    client = Client.log_in(one.port, user=user)
    do(client, kind.sql)
    assert look(client) != before
    leave(client, way)
    assert look(other) == before
    with Client.log_in(one.port, user=user) as newcomer:
        assert look(newcomer) == before


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize("kind", CASES)
def test_nothing_is_left_of_an_open_transaction(
    one: PoolerProcess, other: Client, user: str, kind: Kind, way: str
) -> None:
    before = look(other)
    client = Client.log_in(one.port, user=user)
    do(client, "BEGIN", kind.sql)
    leave(client, way)
    assert look(other) == before


@pytest.mark.parametrize("before_it", ["", "BEGIN"])
@pytest.mark.parametrize("kind", CASES)
def test_what_a_client_has_is_its_own(
    one: PoolerProcess, other: Client, user: str, kind: Kind, before_it: str
) -> None:
    """Who keeps the server has it; the other one is served when the server is free again."""
    before = look(other)
    with Client.log_in(one.port, user=user) as client:
        do(client, before_it, kind.sql, "COMMIT" if before_it else "")
        mine = look(client)
        if kind.keeps:
            other.send(b"".join(map(_asked, QUESTIONS)))
            assert other.silent(0.03)
            assert look(client) == mine
            client.terminate()
            assert [other.result().rows for _ in QUESTIONS] == list(before.values())[:-1]
        else:
            for _ in range(2):
                assert look(other) == before
                assert look(client) == mine
    assert look(other) == before


def _asked(what: str) -> bytes:
    return query(QUESTIONS[what])


ENDS = {
    "LISTEN": "UNLISTEN *",
    "advisory lock": f"SELECT pg_advisory_unlock({LOCK})",
    "shared lock": "SELECT pg_advisory_unlock_all()",
    "temporary table": "DROP TABLE left_behind",
    "temporary view": "DISCARD TEMP",
    "temporary function": "DROP FUNCTION pg_temp.left_behind()",
    "cursor": "CLOSE left_behind",
    "PREPARE": "DEALLOCATE left_behind",
    "pin": "RESET trio_pooler.pin",
    "much": "DISCARD ALL",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_pin_ends_with_its_reason(
    one: PoolerProcess, other: Client, user: str, name: str
) -> None:
    """Its client stays, and the other one is served."""
    before = look(other)
    with Client.log_in(one.port, user=user) as client:
        do(client, KINDS[name].sql)
        other.send(parse("SELECT 'served'") + bind() + execute() + SYNC)
        assert other.silent(0.03)
        do(client, ENDS[name])
        assert other.result().rows == [("served",)]
        assert look(other) == before
        do(client, "SELECT 1")


def test_a_pin_that_is_off_is_its_client_s(one: PoolerProcess, other: Client, user: str) -> None:
    before = look(other)
    with Client.log_in(one.port, user=user) as client:
        do(client, "SET trio_pooler.pin = on", "SET trio_pooler.pin = off")
        assert look(other) == before


@pytest.mark.parametrize("way", LEAVING)
def test_statements_of_the_protocol_are_their_client_s(
    one: PoolerProcess, other: Client, user: str, way: str
) -> None:
    client = Client.log_in(one.port, user=user)
    for name, sql in (("left_behind", "SELECT 'left'"), ("", "SELECT 'unnamed'")):
        client.send(parse(sql, name) + SYNC)
        assert not client.result().errors
    for name in ("left_behind", ""):
        other.send(bind(statement=name) + execute() + SYNC)
        assert [error["C"] for error in other.result().errors] == ["26000"]
    leave(client, way)
    for name in ("left_behind", ""):
        other.send(bind(statement=name) + execute() + SYNC)
        assert [error["C"] for error in other.result().errors] == ["26000"]


@pytest.mark.parametrize("way", LEAVING)
def test_start_up_parameters_are_their_client_s(
    one: PoolerProcess, other: Client, user: str, way: str
) -> None:
    before = look(other)
    given = {"TimeZone": "Asia/Tokyo", "options": "-c work_mem=7MB -c my.own=left"}
    client = Client.log_in(one.port, user=user, application_name="mine", **given)
    mine = look(client)
    assert mine != before and mine["own settings"] == [("left", "")]
    assert look(other) == before
    assert look(client) == mine
    leave(client, way)
    assert look(other) == before

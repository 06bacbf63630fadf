"""Transaction mode: what a client has in its session follows it, or keeps its server for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.pooler import PoolerProcess, activity, eventually
from tests.support.postgres import EmbeddedPostgres

Connect = Callable[..., psycopg.Connection[tuple[object, ...]]]


@pytest.fixture
def one(start: MakePooler) -> PoolerProcess:
    """Every client but a pinned one meets the same server."""
    return start(max_servers=1, mode="transaction")


@pytest.fixture
def connect(one: PoolerProcess, user: str) -> Iterator[Connect]:
    made = []

    def make(**parameters: object) -> psycopg.Connection[tuple[object, ...]]:
        conn = psycopg.connect(one.dsn(user=user, **parameters), autocommit=True)
        made.append(conn)
        return conn

    yield make
    for conn in made:
        conn.close()


def show(conn: psycopg.Connection[tuple[object, ...]], name: str) -> object:
    row = conn.execute("SELECT current_setting(%s, true)", [name]).fetchone()
    assert row is not None
    return row[0]


# -- settings follow their client ----------------------------------------------------------

SETTINGS = [
    ("SET search_path TO pg_catalog, public", "search_path", "pg_catalog, public"),
    ("SET search_path TO 'a, b', \"C d\"", "search_path", '"a, b", "C d"'),
    ("SET statement_timeout = 12345", "statement_timeout", "12345ms"),
    ("SET TIME ZONE 'Asia/Tokyo'", "TimeZone", "Asia/Tokyo"),
    ("SET my.own = 'it''s \\ ü'", "my.own", "it's \\ ü"),
    ("SELECT set_config('my.own', 'x', false)", "my.own", "x"),
    ("DO $$ BEGIN PERFORM set_config('my.own', 'y', false); END $$", "my.own", "y"),
    ("SELECT 1; SET work_mem = '5MB'", "work_mem", "5MB"),
    ("/* why */ -- so\n SET work_mem = '6MB'", "work_mem", "6MB"),
    ("BEGIN; SET LOCAL work_mem = '7MB'; SET work_mem = '8MB'; COMMIT", "work_mem", "8MB"),
    ("SET ROLE pg_monitor", "role", "pg_monitor"),
    ("SET SESSION AUTHORIZATION pg_monitor", "session_authorization", "pg_monitor"),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "default_transaction_isolation",
        "serializable",
    ),
]


@pytest.mark.parametrize(("statement", "name", "value"), SETTINGS)
def test_a_setting_follows_its_client(
    connect: Connect, statement: str, name: str, value: str
) -> None:
    mine, other = connect(), connect()
    usual = show(other, name)
    mine.execute(statement)
    for _ in range(3):
        assert show(other, name) in (usual, "" if usual is None else usual)
        assert show(mine, name) == value
    mine.execute("RESET ALL; SET SESSION AUTHORIZATION DEFAULT")
    assert show(mine, name) in (usual, "")


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN; SET work_mem = '7MB'; ROLLBACK",
        "BEGIN; SET LOCAL work_mem = '7MB'; COMMIT",
        "SELECT set_config('work_mem', '7MB', true)",
        "BEGIN; SAVEPOINT s; SET work_mem = '7MB'; ROLLBACK TO s; COMMIT",
        "SET LOCAL work_mem = '7MB'",
    ],
)
def test_what_was_not_for_the_session_does_not_last(connect: Connect, statement: str) -> None:
    mine, other = connect(), connect()
    usual = show(mine, "work_mem")
    mine.execute(statement)
    assert show(mine, "work_mem") == show(other, "work_mem") == usual


def test_settings_by_prepared_statements(connect: Connect) -> None:
    mine, other = connect(), connect()
    for value in ("5MB", "6MB", "7MB", "8MB"):
        mine.execute("SELECT set_config(%s, %s, false)", ["work_mem", value], prepare=True)
        mine.execute("SELECT set_config(%s, %s, false)", ["my.own", value], prepare=True)
        assert show(other, "work_mem") != value
        assert show(mine, "work_mem") == show(mine, "my.own") == value


def test_a_server_s_words_of_a_restored_setting_are_not_the_client_s(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute("SET TIME ZONE 'Asia/Tokyo'")
    usual = other.info.parameter_status("TimeZone")
    for _ in range(3):
        other.execute("SELECT 1")
        mine.execute("SELECT 1")
    assert other.info.parameter_status("TimeZone") == usual
    assert mine.info.parameter_status("TimeZone") == "Asia/Tokyo"


def test_a_short_statement_timeout_does_not_hit_others(connect: Connect) -> None:
    mine, other = connect(), connect()
    mine.execute("SET statement_timeout = 1")
    for _ in range(5):
        other.execute("SELECT pg_sleep(0.01)")
        with pytest.raises(psycopg.errors.QueryCanceled):
            mine.execute("SELECT pg_sleep(1)")


def test_a_role_that_is_gone_is_not_done_without(connect: Connect, pg: EmbeddedPostgres) -> None:
    mine, other = connect(), connect()
    other.execute("CREATE ROLE passing")
    mine.execute("SET ROLE passing")
    other.execute("DROP ROLE passing")
    with pytest.raises(psycopg.Error, match='"passing" does not exist'):
        mine.execute("SELECT current_user")
    assert other.execute("SELECT 1").fetchone() == (1,)


# -- start-up parameters -------------------------------------------------------------------


def test_start_up_parameters_share_servers(
    connect: Connect, pg: EmbeddedPostgres, user: str
) -> None:
    plain = connect(application_name="plain")
    special = connect(application_name="special", options="-c work_mem=9MB -c TimeZone=Asia/Tokyo")
    assert special.info.parameter_status("TimeZone") == "Asia/Tokyo"
    for _ in range(3):
        assert show(plain, "work_mem") == "4MB"
        assert show(plain, "application_name") == "plain"
        assert show(special, "work_mem") == "9MB"
        assert show(special, "application_name") == "special"
    assert len(activity(pg, user)) == 1


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_applications_are_known_by_their_names(
    start: MakePooler, pg: EmbeddedPostgres, user: str, mode: str
) -> None:
    pooler = start(max_servers=1, mode=mode)
    for name in ("one", "other", ""):
        place = pooler.dsn(user=user, application_name=name)
        with psycopg.connect(place, autocommit=True) as conn:
            assert show(conn, "application_name") == name
            assert conn.info.parameter_status("application_name") == name


def test_reset_goes_back_to_the_start_up_parameters(connect: Connect) -> None:
    conn = connect(application_name="mine", options="-c work_mem=9MB -c TimeZone=Asia/Tokyo")
    conn.execute("SET work_mem = '1MB'; SET TimeZone = 'UTC'")
    conn.execute("RESET ALL")
    assert show(conn, "work_mem") == "9MB"
    assert show(conn, "application_name") == "mine"
    assert show(conn, "TimeZone") == "Asia/Tokyo" == conn.info.parameter_status("TimeZone")


def test_a_bad_start_up_parameter_is_refused_in_the_server_s_words(connect: Connect) -> None:
    with pytest.raises(psycopg.OperationalError, match=r'unrecognized.*"no_such_setting"'):
        connect(options="-c no_such_setting=1")


# -- what keeps a client on its server -----------------------------------------------------

PINS = [
    ("LISTEN", "LISTEN news", "UNLISTEN *"),
    ("advisory lock", "SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)"),
    (
        "advisory lock",
        "SELECT pg_try_advisory_lock_shared(1, 2)",
        "SELECT pg_advisory_unlock_all()",
    ),
    ("temporary object", "CREATE TEMP TABLE mine (a int)", "DROP TABLE mine"),
    ("temporary object", "SELECT 1 AS a INTO TEMPORARY TABLE mine", "DISCARD TEMP"),
    (
        "cursor WITH HOLD",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "CLOSE c",
    ),
    ("PREPARE", "PREPARE p AS SELECT 1", "DEALLOCATE p"),
    ("asked for", "SET trio_pooler.pin = on", "RESET trio_pooler.pin"),
]


@pytest.mark.parametrize(("reason", "begin", "end"), PINS)
def test_a_pin_lasts_as_long_as_its_reason(
    start: MakePooler, user: str, reason: str, begin: str, end: str
) -> None:
    pooler = start(max_servers=2, mode="transaction")
    with (
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as mine,
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as other,
    ):

        def pid(conn: psycopg.Connection[tuple[object, ...]]) -> object:
            return conn.execute("SELECT pg_backend_pid()").fetchone()

        mine.execute(begin)
        home = pid(mine)
        for _ in range(5):
            assert pid(other) != home
            assert pid(mine) == home
        mine.execute(end)
        # Free again: both meet the server that was used last.
        assert pid(mine) == pid(other) == pid(mine)
    assert f'reason="{reason}"' in pooler.log or f"reason={reason}" in pooler.log


def test_notifications_arrive_while_idle(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=2, mode="transaction")
    with (
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as mine,
        psycopg.connect(pooler.dsn(user=user), autocommit=True) as other,
    ):
        mine.execute("LISTEN news")
        for n in range(5):
            other.execute(f"NOTIFY news, '{n}'")
            (news,) = mine.notifies(timeout=20, stop_after=1)
            assert news.payload == str(n)


def test_what_a_pinned_client_leaves_is_undone(connect: Connect) -> None:
    mine = connect()
    for _, begin, _ in PINS[:4]:
        mine.execute(begin)
    mine.execute("SET work_mem = '5MB'")
    mine.close()
    other = connect()
    assert show(other, "work_mem") == "4MB"
    count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    assert other.execute(count).fetchone() == (0,)
    assert other.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)
    assert other.execute("SELECT to_regclass('pg_temp.mine')").fetchone() == (None,)


def test_pins_can_be_refused(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=1, mode="transaction", pins="refuse")
    with psycopg.connect(pooler.dsn(user=user), autocommit=True) as mine:
        mine.execute("SET work_mem = '5MB'")
        mine.execute("LISTEN news")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="LISTEN"):
            mine.execute("SELECT 1")
    with psycopg.connect(pooler.dsn(user=user), autocommit=True) as other:
        count = "SELECT count(*) FROM pg_listening_channels()"
        assert other.execute(count).fetchone() == (0,)


def test_names_that_pin(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=2, mode="transaction", pin_on=["pg_backend_pid"])
    with psycopg.connect(pooler.dsn(user=user), autocommit=True) as mine:
        mine.execute("SELECT pg_backend_pid()")
        eventually(lambda: "reason=pin_on" in pooler.log, "the pin is logged")

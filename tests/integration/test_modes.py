"""What the modes of pooling differ in; what they have in common, the other tests try in each."""

from __future__ import annotations

import struct
import time

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import SYNC, TERMINATE, Client, bind, execute, message, parse, query
from tests.support.pooler import PoolerProcess, activity, configuration, eventually, servers
from tests.support.postgres import EmbeddedPostgres, connect

NO_BLOCKS = "transaction blocks not allowed in statement pooling mode"


def extended(sql: str) -> bytes:
    return parse(sql) + bind() + execute()


# ------------------------------------------------------------------------------------- statement


def test_statements_share_servers(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    pooler = start(mode="statement", max_servers=1)
    with (
        Client.log_in(pooler.port, user=user) as one,
        Client.log_in(pooler.port, user=user) as two,
    ):
        for _ in range(3):
            assert one.query("SELECT 'one'").value == "one"
            assert two.extended("SELECT $1", b"two").value == "two"
        assert one.query("BEGIN; SELECT 1; COMMIT").status == "I", "one request, one transaction"
        assert one.query("SELECT 1; SELECT 1/0").errors[0]["C"] == "22012"
        assert servers(pg, user) == 1


@pytest.mark.parametrize("prepared", [0, 200])
@pytest.mark.parametrize(
    "request_",
    [
        query("BEGIN"),
        query("SELECT 1; BEGIN"),
        extended("START TRANSACTION") + SYNC,
        query("BEGIN; SELECT 1/0"),
        query("SELECT 1/0; BEGIN; COMMIT") + query("BEGIN"),
    ],
)
def test_a_transaction_of_several_statements_is_refused(
    start: MakePooler, pg: EmbeddedPostgres, user: str, request_: bytes, prepared: int
) -> None:
    """In the words of PgBouncer; its server is as before, and serves on."""
    pooler = start(mode="statement", max_servers=1, max_prepared_statements=prepared)
    with (
        Client.log_in(pooler.port, user=user) as good,
        Client.log_in(pooler.port, user=user) as bad,
    ):
        good.query("CREATE TABLE t ()")
        [(pid, _)] = activity(pg, user)
        bad.send(request_)
        messages = bad.until_end()
        assert [kind for kind, _ in messages].count("Z") == request_.count(b"COMMIT")
        tags = [body[:5] for kind, body in messages if kind == "C"]
        assert b"SELECT 1/0" in request_ or not {b"BEGIN", b"START"} & {*tags}, "not as if done"
        assert messages[-1].kind == "E" and NO_BLOCKS.encode() in messages[-1].body
        assert b"SFATAL\0" in messages[-1].body and b"C0A000\0" in messages[-1].body
        assert good.query("SELECT pg_backend_pid()").value == str(pid)
        assert good.query("DROP TABLE t").errors == [], "no lock is left"


def test_a_transaction_under_way_is_refused_with_what_follows(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    """However much was sent behind it: nothing of that is done."""
    pooler = start(mode="statement", max_servers=1)
    with Client.log_in(pooler.port, user=user) as other:
        other.query("CREATE TABLE t (i int)")
        with Client.log_in(pooler.port, user=user) as bad:
            lines = query("BEGIN") + query("INSERT INTO t VALUES (1)") + query("COMMIT")
            bad.send(lines + query("SELECT pg_sleep(60)"))
            error = bad.last_error()
            assert (error["C"], error["M"]) == ("0A000", NO_BLOCKS)
        assert other.query("SELECT 'still there'").value == "still there"


def test_what_is_no_transaction_is_not_refused(start: MakePooler, user: str) -> None:
    """An answer before the Sync, a COPY, an error that skips: the server is not at rest, but."""
    pooler = start(mode="statement")
    with Client.log_in(pooler.port, user=user) as client:
        client.send(parse("SELECT 1", "name") + message("D", b"Sname\0") + message("H"))
        assert [client.message().kind for _ in range(3)] == ["1", "t", "T"]
        client.send(bind(statement="name") + execute() + SYNC)
        assert client.result().value == "1"
        client.query("CREATE TABLE c (i int)")
        client.send(query("COPY c FROM STDIN"))
        assert client.message().kind == "G"
        client.send(message("d", b"1\n") + message("c"))
        assert client.result().errors == []
        client.send(extended("SELECT 1/0") + extended("SELECT 2"))
        client.send(SYNC)
        assert [error["C"] for error in client.result().errors] == ["22012"]
        assert client.query("SELECT count(*) FROM c").value == "1"


def test_a_driver_without_autocommit_hears_why(start: MakePooler, user: str) -> None:
    pooler = start(mode="statement")
    with psycopg.connect(pooler.dsn(user=user), autocommit=True) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    conn = psycopg.connect(pooler.dsn(user=user))
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=NO_BLOCKS):
        conn.execute("SELECT 1")
    conn.close()


def test_who_is_refused_leaves_nothing(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    pooler = start(mode="statement", max_servers=2)
    for _ in range(20):
        with Client.log_in(pooler.port, user=user) as client:
            client.send(query("BEGIN"))
            assert client.last_error()["M"] == NO_BLOCKS
    eventually(lambda: pooler.clients() == 0, "all are gone")
    eventually(lambda: {state for _, state in activity(pg, user)} == {"idle"}, "all is undone")
    assert servers(pg, user) <= 2


# ----------------------------------------------------------------------------------- passthrough


def test_a_session_is_passed_through(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    """To its end; the next client has the same server, and finds nothing of it."""
    pooler = start(mode="passthrough", max_servers=1)
    pids = set()
    for turn in range(3):
        client = Client.log_in(pooler.port, user=user)
        assert client.query("SHOW work_mem").value == "4MB"
        assert client.query("SELECT to_regclass('mine')").value is None
        client.query("SET work_mem = '9MB'; CREATE TEMP TABLE mine (); LISTEN here")
        client.send(parse("SELECT 'kept'", "name") + SYNC)
        assert client.result().errors == []
        client.send(bind(statement="name") + execute() + SYNC)
        assert client.result().value == "kept"
        client.query("BEGIN" if turn == 0 else "BEGIN; SELECT 1/0")
        assert client.query("SELECT pg_backend_pid()").errors == [] or turn
        pids |= {pid for pid, _ in activity(pg, user)}
        client.terminate()
    assert len(pids) == 1


def test_a_server_that_is_not_at_rest_is_not_used_again(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    """Its client said goodbye in the midst of an answer, or of a COPY, or before a Sync."""
    pooler = start(mode="passthrough", max_servers=1)
    requests = {
        query("SELECT i, 'theirs' FROM generate_series(1, 2000000) i"): "T",
        query("SELECT 'theirs'") + query("SELECT pg_sleep(0.3)") + query("SELECT 'theirs'"): "T",
        query("CREATE TEMP TABLE c (i int); COPY c FROM STDIN"): "C",
    }
    for request_, first in requests.items():
        before = {pid for pid, _ in activity(pg, user)}
        with Client.log_in(pooler.port, user=user) as client:
            client.send(request_)
            assert client.message().kind == first
            client.terminate()
        with Client.log_in(pooler.port, user=user) as next_client:
            pid = next_client.query("SELECT pg_backend_pid()").value
            assert pid is not None and int(pid) not in before
            assert next_client.query("SELECT 'mine'").value == "mine"


def test_an_answer_that_nobody_waited_for(start: MakePooler, user: str) -> None:
    """A goodbye behind a request is PostgreSQL's to hear, which does what was asked first."""
    pooler = start(mode="passthrough", max_servers=1)
    with Client.log_in(pooler.port, user=user) as client:
        client.send(query("SELECT 'said'") + TERMINATE)
        assert client.result().value == "said"
        assert client.until_end() == []
    with Client.log_in(pooler.port, user=user) as client:
        assert client.query("SELECT 'joined'").value == "joined"
        client.send(query("SELECT pg_sleep(0.1); CREATE TABLE done ()"))
        client.terminate()
    with Client.log_in(pooler.port, user=user) as client:
        assert client.query("SELECT to_regclass('done')").value == "done"


def test_bytes_like_a_goodbye_go_on(start: MakePooler, user: str) -> None:
    pooler = start(mode="passthrough")
    with Client.log_in(pooler.port, user=user) as client:
        client.query("SELECT 1")
        text = parse("SELECT $1::bytea = '\\x5800000004'")
        binary = struct.pack("!HHHI", 1, 1, 1, 5) + TERMINATE + struct.pack("!H", 0)
        whole = text + message("B", b"\0\0" + binary) + execute() + SYNC
        at = whole.index(TERMINATE)
        for piece in (whole[:at], TERMINATE, whole[at + 5 :]):
            client.send(piece)
            time.sleep(0.05)  # so that each comes alone
        assert client.result().value == "t"


def test_who_goes_without_a_goodbye_is_cancelled(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start(mode="passthrough", max_servers=1)
    with Client.log_in(pooler.port, user=user) as client:
        client.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: "active" in dict(activity(pg, user)).values(), "it runs")
    with Client.log_in(pooler.port, user=user) as client:
        assert client.query("SELECT 1").value == "1"


def test_what_the_server_says_last_is_all(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start(mode="passthrough")
    with Client.log_in(pooler.port, user=user) as client:
        assert client.query("SELECT 1").value == "1"
        [(pid, _)] = activity(pg, user)
        with connect(pg) as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert client.last_error()["C"] == "57P01"


# ---------------------------------------------------------------------- for databases and users


def mode_of(port: int, database: str, user: str) -> str:
    """By what it does, with one server at most."""
    with Client.log_in(port, database, user) as one, Client.log_in(port, database, user) as two:
        assert one.query("SELECT 1").value == "1"
        two.send(query("SELECT 2"))
        if two.silent():
            return "session"
        assert two.result().value == "2"
        one.send(query("BEGIN"))
        return "statement" if one.message().kind == "E" else "transaction"


def test_modes_of_databases_and_users(pg: EmbeddedPostgres, user: str) -> None:
    with connect(pg) as conn:
        conn.execute("CREATE ROLE special LOGIN; CREATE ROLE other LOGIN")
    config = configuration(pg, mode="transaction", max_servers=1)
    config["databases"]["stated"] = {**config["databases"]["*"], "dbname": "postgres"}
    config["databases"]["stated"]["mode"] = "statement"
    config["users"] = {"special": {"mode": "session"}, "other": {}}
    try:
        with PoolerProcess(config) as pooler:
            found = {
                (database, name): mode_of(pooler.port, database, name)
                for database in ("postgres", "stated")
                for name in (user, "special", "other")
            }
    finally:
        with connect(pg) as conn:
            conn.execute("DROP ROLE special, other")
    assert found == {
        ("postgres", user): "transaction",
        ("postgres", "special"): "session",
        ("postgres", "other"): "transaction",
        ("stated", user): "statement",
        ("stated", "special"): "session",
        ("stated", "other"): "statement",
    }

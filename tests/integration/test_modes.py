"""What the modes of pooling differ in; what they have in common, the other tests try in each."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import SYNC, Client, bind, execute, message, parse, query
from tests.support.pooler import activity, eventually, servers
from tests.support.postgres import EmbeddedPostgres

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

"""Replication connections: each has a server of its own, and all that passes is passed on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import FIRST, MakePooler
from tests.support.client import Client, cancel, copy_data, query, startup
from tests.support.pooler import (
    PoolerProcess,
    activity,
    configuration,
    eventually,
    servers,
    wait_for_servers,
)
from tests.support.postgres import EmbeddedPostgres, connect


@pytest.fixture(scope="module")
def pg() -> Iterator[EmbeddedPostgres]:
    """One that decodes its log."""
    with EmbeddedPostgres(bin_dir=FIRST, settings={"wal_level": "logical"}) as pg:
        yield pg


def walsenders(pg: EmbeddedPostgres, user: str) -> int:
    with connect(pg) as conn:
        asked = "SELECT FROM pg_stat_activity WHERE backend_type = 'walsender' AND usename = %s"
        return conn.execute(asked, [user]).rowcount


def test_the_commands_of_replication(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    dsn = start().dsn(user=user, replication="database", application_name="mine")
    with psycopg.connect(dsn, autocommit=True) as conn, connect(pg) as direct:
        row = conn.execute("IDENTIFY_SYSTEM").fetchone()
        assert row is not None and row[3] == "postgres"
        found = direct.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
        assert found == (row[0],)
        assert conn.execute("SHOW application_name").fetchone() == ("mine",)
        assert walsenders(pg, user) == 1
    eventually(lambda: walsenders(pg, user) == 0, "its server has gone with it")


def test_the_greeting_is_its_servers(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    greetings = []
    for port in (start().port, pg.port):
        asked = {"replication": "true", "TimeZone": "Asia/Tokyo", "options": "-c DateStyle=German"}
        with Client.log_in(port, user=user, **asked) as client:
            assert len(client.key[1]) == 4
            greetings.append(client.parameters)
            assert client.query("SHOW TimeZone").value == "Asia/Tokyo"
    assert greetings[0] == greetings[1]
    assert greetings[0]["DateStyle"] == "German, DMY"


@pytest.mark.parametrize("value", ["maybe", "", "databases", "o"])
def test_what_asks_for_nothing_is_refused_as_by_postgresql(
    start: MakePooler, pg: EmbeddedPostgres, user: str, value: str
) -> None:
    errors = []
    for port in (start().port, pg.port):
        with Client(port) as client:
            client.send(startup(user=user, replication=value))
            errors.append(client.last_error())
    assert {code: errors[0].get(code) for code in "SVCMH"} == {
        code: errors[1].get(code) for code in "SVCMH"
    }


@pytest.mark.parametrize("value", ["false", "off", "N", "0"])
def test_what_asks_for_no_replication_has_none(start: MakePooler, user: str, value: str) -> None:
    with Client.log_in(start().port, user=user, replication=value) as client:
        assert client.extended("SELECT $1", b"pooled").value == "pooled"


def test_changes_are_streamed(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    """COPY both ways, for as long as the client likes; then the connection is of further use."""
    with (
        connect(pg, user=user) as direct,
        Client.log_in(start().port, user=user, replication="database") as client,
    ):
        direct.execute("CREATE TABLE t (word text)")
        direct.execute(f"CREATE PUBLICATION {user} FOR TABLE t")
        slot = client.query(f"CREATE_REPLICATION_SLOT {user} TEMPORARY LOGICAL pgoutput")
        assert not slot.errors
        options = f"(proto_version '1', publication_names '{user}')"
        client.send(query(f"START_REPLICATION SLOT {user} LOGICAL 0/0 {options}"))
        assert client.message().kind == "W"
        for word in ("here", "there", 100_000 * "far"):
            direct.execute("INSERT INTO t VALUES (%s)", [word])
            while word.encode() not in (message := client.message()).body:
                assert message.kind == "d"
            client.send(copy_data(b"r" + bytes(33)))  # a standby's status
        client.send(b"c\0\0\0\x04")
        while client.message().kind != "c":
            pass
        assert client.result().errors == []
        assert client.query("SELECT count(*) FROM t").value == "3"


def run(pg: EmbeddedPostgres, program: str, *arguments: str) -> None:
    path = Path(pg.bin_dir) / program
    if not path.exists():
        pytest.skip(f"no {path}")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_postgresqls_own_programs(
    start: MakePooler, pg: EmbeddedPostgres, user: str, tmp_path: Path
) -> None:
    dsn = start(max_servers=2).dsn(user=user)
    backup, log = tmp_path / "backup", tmp_path / "log"
    run(pg, "pg_basebackup", "-d", dsn, "-D", str(backup), "-c", "fast", "--no-sync")
    assert (backup / "PG_VERSION").exists()
    log.mkdir()
    run(pg, "pg_receivewal", "-d", dsn, "--slot", user, "--create-slot")
    with connect(pg) as conn:
        for _ in range(2):
            row = conn.execute("SELECT pg_logical_emit_message(true, 'x', 'y')::text").fetchone()
    assert row is not None
    run(pg, "pg_receivewal", "-d", dsn, "-D", str(log), "--slot", user, "-E", row[0], "--no-sync")
    assert list(log.iterdir())
    run(pg, "pg_receivewal", "-d", dsn, "--slot", user, "--drop-slot")
    wait_for_servers(pg, 0, user)


def test_a_cancel_request_reaches_it(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    pooler = start()
    with Client.log_in(pooler.port, user=user, replication="database") as client:
        client.send(query("SELECT pg_sleep(60)"))
        running = "SELECT FROM pg_stat_activity WHERE usename = %s AND wait_event = 'PgSleep'"
        with connect(pg) as conn:
            eventually(lambda: conn.execute(running, [user]).rowcount == 1, "it runs")
        cancel(pooler.port, *client.key)
        assert [error["C"] for error in client.result().errors] == ["57014"]
        assert client.query("SELECT 1").value == "1"


def test_it_takes_a_place_of_its_pool(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    """An idle server makes room for it; who comes when there is none waits until it ends."""
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as pooled:
        assert pooled.query("SELECT 1").value == "1"
        [(idle, _)] = activity(pg, user)
        with Client.log_in(pooler.port, user=user, replication="true") as client:
            assert not client.query("IDENTIFY_SYSTEM").errors
            eventually(lambda: idle not in dict(activity(pg, user)), "the idle server has gone")
            assert walsenders(pg, user) == 1
            pooled.send(query("SELECT 'at last'"))
            assert pooled.silent()
            client.terminate()
        assert pooled.result().value == "at last"
        assert servers(pg, user) == 1


def test_without_a_place_it_is_refused(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    pooler = start(max_servers=1, query_wait_timeout=0.3)
    with Client.log_in(pooler.port, user=user, replication="true") as first:
        with Client(pooler.port) as second:
            second.send(startup(user=user, replication="true"))
            error = second.last_error()
            assert (error["S"], error["C"]) == ("FATAL", "53300")
        assert not first.query("IDENTIFY_SYSTEM").errors
    with Client.log_in(pooler.port, user=user) as pooled:
        assert pooled.query("SELECT 'its place is free'").value == "its place is free"


def test_a_server_that_refuses_is_heard(start: MakePooler, pg: EmbeddedPostgres) -> None:
    with connect(pg) as conn:
        conn.execute("CREATE ROLE nobody_special LOGIN")
    try:
        for port in (start(max_servers=1).port, pg.port) * 2:
            with Client(port) as client:
                client.send(startup(user="nobody_special", replication="true"))
                assert client.last_error()["C"] == "42501"
    finally:
        with connect(pg) as conn:
            conn.execute("DROP ROLE nobody_special")


@pytest.mark.parametrize("leave", [Client.abort, Client.close, Client.terminate])
def test_who_goes_takes_its_server_along(
    start: MakePooler, pg: EmbeddedPostgres, user: str, leave: object
) -> None:
    assert callable(leave)
    pooler = start()
    client = Client.log_in(pooler.port, user=user, replication="true")
    row = client.query("IDENTIFY_SYSTEM").rows[0]
    client.send(query(f"START_REPLICATION PHYSICAL {row[2]} TIMELINE {row[1]}"))
    assert client.message().kind == "W"
    leave(client)
    eventually(lambda: walsenders(pg, user) == 0, "its server has gone")
    eventually(lambda: pooler.clients() == 0, "it has gone")


def test_a_server_that_ends_takes_its_client_along(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    with Client.log_in(start().port, user=user, replication="true") as client:
        with connect(pg) as conn:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
            conn.execute(ended, [user])
        assert client.last_error()["C"] == "57P01"


def test_the_pooler_ends_while_it_streams(pg: EmbeddedPostgres, backend: str, user: str) -> None:
    with PoolerProcess(configuration(pg, backend=backend)) as pooler:
        client = Client.log_in(pooler.port, user=user, replication="true")
        row = client.query("IDENTIFY_SYSTEM").rows[0]
        client.send(query(f"START_REPLICATION PHYSICAL {row[2]} TIMELINE {row[1]}"))
        assert client.message().kind == "W"
        pooler.stop()
        client.until_end()
        client.close()
    eventually(lambda: walsenders(pg, user) == 0, "its server has gone")

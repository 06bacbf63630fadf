"""PostgreSQL that dies, restarts, is not there, or does not let us in."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from pooler.demo import free_port
from tests.integration.conftest import MakePooler
from tests.support.client import Client, query, startup
from tests.support.pooler import (
    PoolerProcess,
    activity,
    configuration,
    eventually,
    servers,
)
from tests.support.postgres import EmbeddedPostgres, connect, create_user, hba

# admin_shutdown, crash_shutdown, connection_failure
LOST = {"57P01", "57P02", "08006"}
BOUND = 5.0  # seconds


def refusal(port: int, **parameters: str) -> dict[str, str]:
    """The error that a client is refused with."""
    with Client(port) as client:
        client.send(startup(**parameters))
        return client.last_error()


def accepting_since(pg: EmbeddedPostgres, found: list[float]) -> None:
    """Notes when PostgreSQL itself takes connections."""
    while True:
        try:
            connect(pg).close()
        except psycopg.OperationalError:
            time.sleep(0.01)
        else:
            found.append(time.monotonic())
            return


def test_kill_of_the_postmaster(own_pg: EmbeddedPostgres, backend: str, mode: str) -> None:
    """Each client that has something under way hears of it once; the others notice nothing."""
    with PoolerProcess(configuration(own_pg, backend=backend, mode=mode)) as pooler:
        idle, inside, running = (
            [Client.log_in(pooler.port) for _ in range(count)] for count in (3, 4, 3)
        )
        for client in inside:
            assert client.query("BEGIN").status == "T"
        for client in running:
            client.send(query("SELECT pg_sleep(60)"))
        eventually(
            lambda: [state for _, state in activity_of_all(own_pg)].count("active") == 3,
            "three queries run",
        )
        own_pg.kill()
        for client in inside + running:
            error = client.last_error()
            assert (error["S"], error["C"] in LOST) == ("FATAL", True), error
        restarted(own_pg, pooler, idle)
        for client in idle + inside + running:
            client.close()


def activity_of_all(pg: EmbeddedPostgres) -> list[tuple[int, str]]:
    with connect(pg, dbname="template1") as conn:
        return conn.execute(
            "SELECT pid, state FROM pg_stat_activity WHERE datname = 'postgres'"
        ).fetchall()


def restarted(pg: EmbeddedPostgres, pooler: PoolerProcess, idle: list[Client]) -> None:
    """Those who were idle ask while PostgreSQL is away, and are answered when it is back."""
    for client in idle:
        client.send(query("SELECT 'back'"))
    since: list[float] = []
    watcher = threading.Thread(target=accepting_since, args=(pg, since))
    watcher.start()
    starter = threading.Thread(target=pg.start)
    starter.start()
    assert idle[0].result().value == "back"
    answered = time.monotonic()
    starter.join()
    watcher.join()
    print(f"answered {1000 * (answered - since[0]):.0f} ms after PostgreSQL took connections")
    assert answered - since[0] < BOUND
    for client in idle[1:]:
        assert client.result().value == "back"
    with Client.log_in(pooler.port) as new:
        assert new.query("SELECT 'new'").value == "new"


def test_restart_in_good_order(own_pg: EmbeddedPostgres, backend: str) -> None:
    with PoolerProcess(configuration(own_pg, backend=backend)) as pooler:
        with Client.log_in(pooler.port) as idle, Client.log_in(pooler.port) as inside:
            assert idle.query("SELECT 1").value == "1"
            inside.query("BEGIN")
            own_pg.restart()
            assert inside.last_error()["C"] in LOST
            assert idle.query("SELECT 'back'").value == "back"


def test_postgres_that_is_not_there(own_pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(own_pg, backend=backend, server_connect_timeout=1)
    with PoolerProcess(config) as pooler:
        own_pg.stop(keep=True)
        began = time.monotonic()
        error = refusal(pooler.port)
        assert time.monotonic() - began < 1 + BOUND
        assert (error["S"], error["C"]) == ("FATAL", "08001"), error
        assert "Connection refused" in error["M"]
        own_pg.start()
        with Client.log_in(pooler.port) as client:
            assert client.query("SELECT 'there'").value == "there"


def test_queries_while_postgres_is_away_have_an_end(own_pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(own_pg, backend=backend, server_connect_timeout=1)
    with PoolerProcess(config) as pooler:
        with Client.log_in(pooler.port) as client, Client.log_in(pooler.port) as later:
            assert client.query("SELECT 1").value == "1"
            own_pg.stop(keep=True)
            began = time.monotonic()
            client.send(query("SELECT 1"))
            assert client.last_error()["C"] == "08001"
            assert time.monotonic() - began < 1 + BOUND
            own_pg.start()
            assert later.query("SELECT 'there'").value == "there"


def test_a_port_where_nothing_answers(pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(pg, backend=backend, server_connect_timeout=1)
    config["databases"] = {"*": {"host": "127.0.0.1", "port": free_port()}}
    with PoolerProcess(config) as pooler:
        assert refusal(pooler.port)["C"] == "08001"


@pytest.mark.parametrize("encryption", ["scram-sha-256", "md5"])
def test_wrong_password_for_the_server(pg: EmbeddedPostgres, backend: str, encryption: str) -> None:
    create_user(pg, "walter", "right", encryption=encryption)
    config = configuration(pg, backend=backend)
    config["databases"]["*"] |= {"user": "walter", "password": "wrong"}
    with hba(pg, f"host all walter all {encryption}"), PoolerProcess(config) as pooler:
        error = refusal(pooler.port, user="anybody")
        assert (error["S"], error["C"]) == ("FATAL", "28P01")
        assert error["M"] == 'password authentication failed for user "walter"'  # its own words


def test_what_the_server_refuses(start: MakePooler) -> None:
    pooler = start()
    assert refusal(pooler.port, database="missing")["C"] == "3D000"
    assert refusal(pooler.port, user="missing")["C"] == "28000"


def test_a_server_that_is_ended_while_idle(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start()
    with Client.log_in(pooler.port, user=user) as client:
        pid = client.query("SELECT pg_backend_pid()").value
        with connect(pg) as conn:
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert client.query("SELECT pg_backend_pid()").value != pid


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN; SELECT 1/0", "SELECT pg_sleep(60)"])
def test_a_server_that_is_ended_while_in_use(
    start: MakePooler, pg: EmbeddedPostgres, user: str, begin: str
) -> None:
    pooler = start(max_servers=2)
    with (
        Client.log_in(pooler.port, user=user) as client,
        Client.log_in(pooler.port, user=user) as other,
    ):
        client.send(query(begin))
        if begin.startswith("BEGIN"):
            client.result()
        eventually(lambda: servers(pg, user) == 1, "one server is in use")
        ((pid, _),) = activity(pg, user)
        with connect(pg) as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        error = client.last_error()
        assert (error["S"], error["C"]) == ("FATAL", "57P01")
        assert other.query("SELECT 'unharmed'").value == "unharmed"


def test_too_many_connections_for_the_server(backend: str) -> None:
    """A refusal that passes: who waits gets a server when there is one."""
    with EmbeddedPostgres(
        settings={"max_connections": 5, "superuser_reserved_connections": 3}
    ) as pg:
        create_user(pg, "few", "")
        with PoolerProcess(configuration(pg, backend=backend, max_servers=10)) as pooler:
            four = [Client.log_in(pooler.port, user="few") for _ in range(4)]
            for client in four:
                client.send(query("SELECT pg_sleep(0.2)"))
            for client in four:
                assert client.result().errors == []
                client.close()

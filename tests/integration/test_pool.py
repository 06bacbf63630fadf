"""How many servers there are, who gets one, how old they grow, what one client leaves another."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from unittest import mock

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import TERMINATE, Client, query, startup
from tests.support.pooler import (
    PoolerProcess,
    activity,
    configuration,
    eventually,
    servers,
    wait_for_servers,
)
from tests.support.postgres import EmbeddedPostgres, connect


@contextlib.contextmanager
def clients(pooler: PoolerProcess, user: str, count: int) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client.log_in(pooler.port, user=user)) for _ in range(count)]


# -- how many -----------------------------------------------------------------------------


def test_limit_of_servers_is_kept(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    pooler = start(max_servers=5)
    stop = threading.Event()
    faults: list[BaseException] = []
    queries = 0

    def hammer() -> None:
        nonlocal queries
        try:
            with psycopg.connect(pooler.dsn(user=user), prepare_threshold=None) as conn:
                while not stop.is_set():
                    conn.execute("SELECT pg_sleep(0.002)")
                    conn.commit()
                    queries += 1
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=hammer) for _ in range(50)]
    for thread in threads:
        thread.start()
    counts = []
    for _ in range(60):
        counts.append(servers(pg, user))
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert queries > 50
    assert max(counts) == 5


def test_clients_that_come_together_each_get_a_server(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start(max_servers=20)
    with clients(pooler, user, 15) as together:
        for client in together:
            client.send(query("BEGIN"))
        assert [client.result().status for client in together] == ["T"] * 15
        assert servers(pg, user) == 15


def test_limit_counts_each_database_and_user(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as one, Client.log_in(pooler.port) as other:
        assert one.query("BEGIN").status == "T"
        assert other.query("SELECT 'another user'").value == "another user"
        with Client.log_in(pooler.port, "template1", user) as third:
            assert third.query("SELECT 'another database'").value == "another database"


def test_servers_are_made_ahead_and_replaced(pg: EmbeddedPostgres, user: str, backend: str) -> None:
    config = configuration(pg, backend=backend, min_servers=0)
    own = {"host": pg.host, "port": pg.port, "user": user, "min_servers": 3}
    config["databases"] = {"postgres": own}
    with PoolerProcess(config) as pooler:
        wait_for_servers(pg, 3, user)
        first = activity(pg, user)
        with connect(pg) as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [first[0][0]])
        eventually(
            lambda: len(activity(pg, user)) == 3 and first[0] not in activity(pg, user),
            "the server that was ended is replaced",
        )
        with Client.log_in(pooler.port, user=user) as client:
            assert client.query("SELECT 1").value == "1"
        assert len(activity(pg, user)) == 3
    wait_for_servers(pg, 0, user)


def test_servers_serve_first_come_first_served(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=1)
    with clients(pooler, user, 12) as (first, *others):
        first.query("CREATE SEQUENCE served; BEGIN")
        for client in others:
            client.send(query("SELECT nextval('served')"))
            time.sleep(0.02)  # so that it is known who came first
        first.query("COMMIT")
        assert [int(client.result().value or 0) for client in others] == list(range(1, 12))


def test_a_busy_client_does_not_keep_others_waiting(start: MakePooler, user: str) -> None:
    """It sends its next query as soon as the last is answered, and still there are turns."""
    pooler = start(max_servers=1)
    with clients(pooler, user, 2) as (busy, other):
        other.query("CREATE SEQUENCE served")
        asked = query("SELECT nextval('served')")
        for _ in range(5):
            busy.send(query("SELECT pg_sleep(0.1)"))
            other.send(asked)
            busy.result()
            busy.send(asked)
            assert int(other.result().value or 0) < int(busy.result().value or 0)


# -- how old ------------------------------------------------------------------------------


def test_idle_servers_are_closed(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    pooler = start(server_idle_timeout=0.5)
    with clients(pooler, user, 3) as three:
        for client in three:
            client.query("BEGIN")
        assert servers(pg, user) == 3
        for client in three:
            client.query("COMMIT")
        wait_for_servers(pg, 0, user)
        assert three[0].query("SELECT 'a new one'").value == "a new one"


def test_servers_made_ahead_stay_when_idle(pg: EmbeddedPostgres, user: str, backend: str) -> None:
    config = configuration(pg, backend=backend, server_idle_timeout=0.3)
    own = {"host": pg.host, "port": pg.port, "user": user, "min_servers": 2}
    config["databases"] = {"postgres": own}
    with PoolerProcess(config) as pooler:
        with clients(pooler, user, 4) as four:
            for client in four:
                client.query("BEGIN")
            assert servers(pg, user) == 4
        wait_for_servers(pg, 2, user)
        time.sleep(1)
        assert servers(pg, user) == 2


def test_old_servers_are_replaced(start: MakePooler, user: str) -> None:
    pooler = start(server_lifetime=1, max_servers=1)
    with clients(pooler, user, 1) as (client,):
        pid = client.query("SELECT pg_backend_pid()").value
        eventually(
            lambda: client.query("SELECT pg_backend_pid()").value != pid, "another server serves"
        )


def test_an_old_server_finishes_its_transaction(start: MakePooler, user: str) -> None:
    pooler = start(server_lifetime=0.5, max_servers=1)
    with clients(pooler, user, 1) as (client,):
        client.query("BEGIN")
        pid = client.query("SELECT pg_backend_pid()").value
        time.sleep(1)
        assert client.query("SELECT pg_backend_pid()").value == pid
        assert client.query("COMMIT").status == "I"
        assert client.query("SELECT pg_backend_pid()").value != pid


# -- time-outs of clients -----------------------------------------------------------------


def test_waiting_has_an_end(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=1, query_wait_timeout=0.5)
    with clients(pooler, user, 3) as (holder, waiter, later):
        holder.query("BEGIN")
        waiter.send(query("SELECT 1"))
        error = waiter.last_error()
        assert (error["S"], error["C"]) == ("FATAL", "57014")
        assert holder.query("COMMIT").errors == []
        assert later.query("SELECT 'served'").value == "served"


def test_idle_clients_are_ended(start: MakePooler, user: str, mode: str) -> None:
    pooler = start(client_idle_timeout=0.3, mode=mode)
    with clients(pooler, user, 2) as (used, unused):
        used.query("SELECT 1")
        assert used.last_error()["C"] == "57P05"
        assert unused.last_error()["C"] == "57P05"
        with clients(pooler, user, 1) as (busy,):
            assert busy.query("SELECT pg_sleep(0.6)").errors == []


def test_idle_transactions_are_ended(start: MakePooler, user: str, mode: str) -> None:
    pooler = start(idle_transaction_timeout=0.3, max_servers=1, mode=mode)
    with clients(pooler, user, 2) as (idle, other):
        idle.query("CREATE TABLE t (n int)")
        idle.query("BEGIN; INSERT INTO t VALUES (1)")
        assert idle.last_error()["C"] == "25P03"
        assert other.query("SELECT count(*) FROM t").value == "0"
        other.query("BEGIN")
        assert other.query("SELECT pg_sleep(0.6)").errors == []  # it is not idle


# -- what one client leaves another -------------------------------------------------------


def test_session_mode_leaves_nothing(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=1, mode="session")
    with clients(pooler, user, 1) as (client,):
        pid = client.query("SELECT pg_backend_pid()").value
        client.query("SET search_path = nowhere; CREATE TEMP TABLE mine (n int)")
        client.query("PREPARE mine AS SELECT 1; LISTEN mine; SELECT pg_advisory_lock(1)")
        client.query("DECLARE mine CURSOR WITH HOLD FOR SELECT 1; SET ROLE pg_monitor")
        assert client.query("SHOW search_path").value == "nowhere"
        client.terminate()
    with clients(pooler, user, 1) as (other,):
        assert other.query("SELECT pg_backend_pid()").value == pid
        assert other.query("SHOW search_path").value == '"$user", public'
        assert other.query("SELECT to_regclass('pg_temp.mine')").value is None
        assert other.query("SELECT count(*) FROM pg_prepared_statements").value == "0"
        assert other.query("SELECT count(*) FROM pg_cursors").value == "0"
        assert other.query("SELECT count(*) FROM pg_listening_channels()").value == "0"
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert other.query(locks).value == "0"
        assert other.query("SELECT current_user").value == user


def test_session_mode_keeps_the_server(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=2, mode="session")
    with clients(pooler, user, 2) as both:
        pids = [client.query("SELECT pg_backend_pid()").value for client in both]
        both[0].query("SET search_path = mine")
        for _ in range(3):
            assert [c.query("SELECT pg_backend_pid()").value for c in both] == pids
        assert both[0].query("SHOW search_path").value == "mine"
        assert both[1].query("SHOW search_path").value == '"$user", public'


@pytest.mark.parametrize("goodbye", ["terminate", "close", "abort"])
@pytest.mark.parametrize("failed", [False, True])
def test_a_transaction_left_open_is_rolled_back(
    start: MakePooler, user: str, mode: str, goodbye: str, failed: bool
) -> None:
    pooler = start(max_servers=1, mode=mode)
    with clients(pooler, user, 2) as (leaver, other):
        leaver.query("CREATE TABLE t (n int)")
        pid = leaver.query("SELECT pg_backend_pid()").value
        leaver.query("BEGIN; INSERT INTO t VALUES (1)")
        if failed:
            assert leaver.query("SELECT 1/0").status == "E"
        getattr(leaver, goodbye)()
        found = other.query("SELECT count(*) FROM t")
        assert (found.value, found.status) == ("0", "I")
        assert other.query("SELECT pg_backend_pid()").value == pid  # it was cleaned, not closed


def test_a_statement_before_goodbye_is_done(start: MakePooler, user: str, mode: str) -> None:
    """As with PostgreSQL: whoever sends a statement and Terminate need not wait in between."""
    pooler = start(max_servers=1, mode=mode)
    with clients(pooler, user, 2) as (leaver, other):
        leaver.query("CREATE TABLE t (n int)")
        leaver.send(query("SELECT pg_sleep(0.3); INSERT INTO t VALUES (1)") + TERMINATE)
        leaver.close()
        assert other.query("SELECT count(*) FROM t").value == "1"


# -- start-up parameters ------------------------------------------------------------------


def test_start_up_parameters_are_had(pooler: PoolerProcess, user: str) -> None:
    with mock.patch.dict(os.environ, {"PGTZ": "Asia/Tokyo"}):
        tokyo = psycopg.connect(pooler.dsn(user=user))
    path = psycopg.connect(pooler.dsn(user=user, options="-c search_path=mine -c work_mem=77MB"))
    plain = psycopg.connect(pooler.dsn(user=user))
    latin = psycopg.connect(pooler.dsn(user=user, client_encoding="latin1"))
    with tokyo, path, plain, latin:
        for _ in range(3):
            asked = "SELECT current_setting('timezone'), current_setting('search_path')"
            zone, _ = tokyo.execute(asked).fetchone() or ("", "")
            assert zone == "Asia/Tokyo"
            assert tokyo.info.parameter_status("TimeZone") == "Asia/Tokyo"
            zone, searched = path.execute(asked).fetchone() or ("", "")
            assert (zone == "Asia/Tokyo", searched) == (False, "mine")
            assert path.execute("SHOW work_mem").fetchone() == ("77MB",)
            zone, searched = plain.execute(asked).fetchone() or ("", "")
            assert (zone == "Asia/Tokyo", searched) == (False, '"$user", public')
            assert latin.execute("SELECT 'é', octet_length('é')").fetchone() == ("é", 2)
            for conn in (tokyo, path, plain, latin):
                conn.commit()


def test_a_bad_start_up_parameter_is_refused(pooler: PoolerProcess, user: str) -> None:
    with Client.log_in(pooler.port, user=user) as control:
        with Client(pooler.port) as client:
            client.send(startup(user=user, TimeZone="No/Where"))
            assert client.last_error()["C"] == "22023"
        assert control.query("SELECT 1").value == "1"


def test_other_parameters_share_one_limit(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    """With one server in all, clients that need it to be another each get it in turn."""
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as plain:
        assert plain.query("SELECT 1").value == "1"
        with Client.log_in(pooler.port, user=user, TimeZone="Asia/Tokyo") as tokyo:
            for _ in range(3):
                assert tokyo.query("SHOW timezone").value == "Asia/Tokyo"
                assert plain.query("SHOW timezone").value != "Asia/Tokyo"
                assert servers(pg, user) <= 1

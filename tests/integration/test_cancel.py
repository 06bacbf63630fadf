"""A cancel request reaches the query it is aimed at, or nothing."""

from __future__ import annotations

import random
import threading
import time
from typing import Any, LiteralString

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import (
    SYNC,
    Client,
    bind,
    cancel,
    cancel_packet,
    execute,
    parse,
    query,
)
from tests.support.pooler import PoolerProcess, activity, eventually
from tests.support.postgres import EmbeddedPostgres, connect


def active(pg: EmbeddedPostgres, user: str) -> int:
    return [state for _, state in activity(pg, user)].count("active")


def runs(pg: EmbeddedPostgres, sql: str) -> bool:
    with connect(pg) as conn:
        asked = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        return conn.execute(asked, [sql]).rowcount > 0


def run_into_error(
    conn: psycopg.Connection[Any], sql: LiteralString, seen: list[type[BaseException]]
) -> None:
    try:
        conn.execute(sql)
    except psycopg.Error as error:
        seen.append(type(error))


def test_psycopg_cancels_its_query(
    start: MakePooler, pg: EmbeddedPostgres, user: str, mode: str
) -> None:
    pooler = start(mode=mode)
    dsn = pooler.dsn(user=user)
    with (
        psycopg.connect(dsn, autocommit=True) as mine,
        Client.log_in(pooler.port, user=user) as other,
    ):
        other.send(query("SELECT pg_sleep(1)"))
        for request in (mine.cancel, mine.cancel_safe):
            seen: list[type[BaseException]] = []
            marker = f"/* {request.__name__} */ SELECT pg_sleep(60)"
            thread = threading.Thread(target=run_into_error, args=(mine, marker, seen))
            thread.start()
            eventually(lambda marker=marker: runs(pg, marker), "it runs")  # type: ignore[misc]
            request()
            thread.join(20)
            assert seen == [psycopg.errors.QueryCanceled]
            assert mine.execute("SELECT 'it goes on'").fetchone() == ("it goes on",)
        assert other.result().errors == []


def test_a_cancelled_transaction_has_failed(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start()
    with Client.log_in(pooler.port, user=user) as client:
        client.query("BEGIN")
        client.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: active(pg, user) == 1, "it runs")
        cancel(pooler.port, *client.key)
        result = client.result()
        assert ([error["C"] for error in result.errors], result.status) == (["57014"], "E")
        assert client.query("ROLLBACK").status == "I"


def test_a_wrong_key_cancels_nothing(start: MakePooler, user: str) -> None:
    pooler = start()
    with (
        Client.log_in(pooler.port, user=user) as client,
        Client.log_in(pooler.port, user=user) as other,
    ):
        pid, secret = client.key
        client.send(query("SELECT pg_sleep(1)"))
        time.sleep(0.1)
        flipped = bytes([secret[0] ^ 1]) + secret[1:]
        for wrong in (
            (pid, flipped),
            (pid, other.key[1]),
            (pid, b"\0\0\0\0"),
            (pid, b""),
            (pid, secret + b"\0"),
            (pid ^ 1, secret),
            (0, b"\0\0\0\0"),
            (2**32 - 1, secret),
        ):
            with Client(pooler.port) as stranger:
                stranger.send(cancel_packet(*wrong))
                stranger.finish_sending()
                stranger.until_end()
        assert client.result().errors == []


def test_keys_are_each_clients_own(start: MakePooler, user: str) -> None:
    pooler = start()
    with Client.log_in(pooler.port, user=user) as one, Client.log_in(pooler.port, user=user) as two:
        assert one.key[0] != two.key[0] and one.key[1] != two.key[1]
        assert 0 < one.key[0] < 2**31


def test_cancelling_an_idle_client_does_nothing(start: MakePooler, user: str) -> None:
    """Also not to who has its former server now."""
    pooler = start(max_servers=1)
    with (
        Client.log_in(pooler.port, user=user) as idle,
        Client.log_in(pooler.port, user=user) as busy,
    ):
        assert idle.query("SELECT 1").value == "1"
        busy.send(query("SELECT pg_sleep(0.5)"))
        time.sleep(0.1)
        for _ in range(20):
            cancel(pooler.port, *idle.key)
        assert busy.result().errors == []


def waiting_for(pooler: PoolerProcess, client: Client, request: bytes) -> None:
    """Sends a request for which there is no server, and lets it arrive."""
    client.send(request)
    with Client(pooler.port) as later:  # what came before it has been read when it is answered
        later.send(cancel_packet(1, b"none"))
        assert later.until_end() == []


def extended(sql: str) -> bytes:
    return parse(sql) + bind() + execute()


@pytest.mark.parametrize(
    "request_",
    [
        query("SELECT 'mine'"),
        extended("SELECT 'mine'") + SYNC,
        extended("SELECT 'mine'") + query("SELECT 'skipped'") + extended("SELECT 2") + SYNC,
        query("SELECT '" + 50_000 * "x" + "'"),
    ],
)
def test_cancelling_a_client_that_waits(
    start: MakePooler, pg: EmbeddedPostgres, user: str, mode: str, request_: bytes
) -> None:
    """It is told at once; the query of who has the server goes on."""
    pooler = start(mode=mode, max_servers=1)
    with (
        Client.log_in(pooler.port, user=user) as busy,
        Client.log_in(pooler.port, user=user) as waiting,
    ):
        busy.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: active(pg, user) == 1, "the server is taken")
        for _ in range(3):
            waiting_for(pooler, waiting, request_)
            cancel(pooler.port, *waiting.key)
            result = waiting.result()
            [error] = result.errors
            assert (error["S"], error["C"], result.status) == ("ERROR", "57014", "I")
            assert error["M"] == "canceling statement due to user request"
        cancel(pooler.port, *waiting.key)  # who does not wait any more has nothing to cancel
        assert active(pg, user) == 1
        busy.close()
        assert waiting.query("SELECT 'served'").value == "served"


def test_cancelling_one_of_several_requests_that_wait(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    """The first one; the others keep waiting, and come to a server in their order."""
    pooler = start(max_servers=1)
    with (
        Client.log_in(pooler.port, user=user) as busy,
        Client.log_in(pooler.port, user=user) as waiting,
    ):
        busy.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: active(pg, user) == 1, "the server is taken")
        rest = extended("SELECT 'two'") + SYNC + query("SELECT 'three'") + SYNC
        waiting_for(pooler, waiting, query("SELECT 'one'") + rest)
        cancel(pooler.port, *waiting.key)
        assert [error["C"] for error in waiting.result().errors] == ["57014"]
        assert waiting.silent()
        cancel(pooler.port, *busy.key)
        assert [error["C"] for error in busy.result().errors] == ["57014"]
        assert [waiting.result().value for _ in range(2)] == ["two", "three"]
        assert waiting.result() == ([], [], "I")


@pytest.mark.parametrize("part", [query("SELECT 'mine'")[:-1], extended("SELECT 'mine'"), SYNC])
def test_half_a_request_that_waits_is_not_cancelled(
    start: MakePooler, pg: EmbeddedPostgres, user: str, part: bytes
) -> None:
    pooler = start(max_servers=1)
    with (
        Client.log_in(pooler.port, user=user) as busy,
        Client.log_in(pooler.port, user=user) as waiting,
    ):
        busy.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: active(pg, user) == 1, "the server is taken")
        waiting_for(pooler, waiting, part)
        cancel(pooler.port, *waiting.key)
        assert waiting.silent()
        waiting.send(b"\0" if part[:1] == b"Q" else SYNC)
        busy.close()
        assert waiting.result().errors == []


def test_a_client_that_waits_and_goes_while_it_is_cancelled(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as busy:
        busy.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: active(pg, user) == 1, "the server is taken")
        for leave in (Client.abort, Client.close, Client.terminate) * 3:
            waiting = Client.log_in(pooler.port, user=user)
            waiting_for(pooler, waiting, query("SELECT 1") + query("SELECT 2"))
            leave(waiting)
            cancel(pooler.port, *waiting.key)
        eventually(lambda: pooler.clients() == 1, "they are gone")
        cancel(pooler.port, *busy.key)
        assert [error["C"] for error in busy.result().errors] == ["57014"]
        assert busy.query("SELECT 1").value == "1"


def test_a_key_is_of_no_use_after_its_client(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as gone:
        gone.query("SELECT 1")
    with Client.log_in(pooler.port, user=user) as busy:
        busy.send(query("SELECT pg_sleep(0.5)"))
        time.sleep(0.1)
        cancel(pooler.port, *gone.key)
        assert busy.result().errors == []


def test_a_flood_of_cancels_hits_nobody_else(start: MakePooler, user: str) -> None:
    """Short queries of many clients on few servers, some of whom are cancelled all the time."""
    pooler = start(max_servers=3)
    stop = threading.Event()
    faults: list[str] = []
    counts = {"hit": 0, "served": 0, "sent": 0}

    def ask(client: Client, may_be_hit: bool) -> None:
        try:
            while not stop.is_set():
                pause = random.choice(["0", "0", "0.001", "0.003"])
                result = client.query(f"SELECT pg_sleep({pause})")
                codes = [error["C"] for error in result.errors]
                if codes and (not may_be_hit or codes != ["57014"]):
                    faults.append(f"{'victim' if may_be_hit else 'bystander'}: {result.errors}")
                counts["hit" if codes else "served"] += 1
        except BaseException as fault:
            faults.append(repr(fault))

    def flood(victims: list[Client]) -> None:
        try:
            while not stop.is_set():
                cancel(pooler.port, *random.choice(victims).key)
                counts["sent"] += 1
        except BaseException as fault:
            faults.append(repr(fault))

    victims, bystanders = (
        [Client.log_in(pooler.port, user=user) for _ in range(count)] for count in (8, 12)
    )
    threads = [threading.Thread(target=ask, args=(c, c in victims)) for c in victims + bystanders]
    threads += [threading.Thread(target=flood, args=(victims,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for client in victims + bystanders:
        client.close()
    assert not faults, faults[:5]
    assert counts["sent"] > 20 and counts["served"] > 20, counts

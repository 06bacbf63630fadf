"""The protocol itself: its version, its options, the cancel key, the goodbye."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import (
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    SYNC,
    TERMINATE,
    Client,
    Message,
    bind,
    cancel,
    cancel_packet,
    execute,
    parse,
    query,
    startup,
)
from tests.support.pooler import activity, eventually
from tests.support.postgres import EmbeddedPostgres, major

NEWEST = 0x0003_FFFF


def log_in(port: int, packet: bytes) -> list[Message]:
    """All that answers a start-up packet, up to ReadyForQuery."""
    with Client(port) as client:
        client.send(packet)
        messages = [client.message()]
        while messages[-1].kind not in "ZE":
            messages.append(client.message())
    return messages


def outline(messages: list[Message]) -> list[Message]:
    """What of a log-in is the same for all connections; of the cancel key its length."""
    return [
        Message(kind, bytes(len(body)) if kind == "K" else body)
        for kind, body in messages
        if kind != "S"
    ]


@pytest.mark.parametrize("version", [PROTOCOL_3_0, PROTOCOL_3_2, PROTOCOL_3_2 + 1, NEWEST])
@pytest.mark.parametrize("options", [{}, {"_pq_.one": "1"}, {"_pq_.b": "", "_pq_.a": "x"}])
def test_the_version_is_negotiated_as_by_postgresql(
    start: MakePooler, pg: EmbeddedPostgres, user: str, version: int, options: dict[str, str]
) -> None:
    if major(pg) < 18:
        pytest.skip("knows protocol 3.0 only")
    packet = startup(user=user, version=version, **options)
    assert outline(log_in(start().port, packet)) == outline(log_in(pg.port, packet))


@pytest.mark.parametrize("version", [0x0002_0000, 0x0004_0000])
def test_other_protocols_are_refused(
    start: MakePooler, pg: EmbeddedPostgres, user: str, version: int
) -> None:
    packet = startup(user=user, version=version)
    with Client(start().port) as client:
        client.send(packet)
        error = client.last_error()
    assert (error["S"], error["C"]) == ("FATAL", "0A000")
    assert error["M"].startswith(f"unsupported frontend protocol {version >> 16}.0: ")


@pytest.mark.parametrize(
    ("version", "length"), [(PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32), (NEWEST, 32)]
)
def test_the_cancel_key_of_each_version(
    start: MakePooler, pg: EmbeddedPostgres, user: str, version: int, length: int
) -> None:
    pooler = start()
    with Client.log_in(pooler.port, user=user, version=version) as client:
        pid, secret = client.key
        assert len(secret) == length
        for wrong in (secret[:4] + b"\0", secret[:-1] + bytes([secret[-1] ^ 1]), secret[:4] * 8):
            if wrong != secret:
                with Client(pooler.port) as stranger:
                    stranger.send(cancel_packet(pid, wrong))
                    assert stranger.until_end() == []
        assert client.query("SELECT pg_sleep(0.1)").errors == []
        client.send(query("SELECT pg_sleep(60)"))
        eventually(lambda: "active" in dict(activity(pg, user)).values(), "it runs")
        cancel(pooler.port, pid, secret)
        assert [error["C"] for error in client.result().errors] == ["57014"]
        assert client.query("SELECT 1").value == "1"


def test_a_driver_that_asks_for_the_newest(
    start: MakePooler, pg: EmbeddedPostgres, user: str
) -> None:
    if psycopg.pq.version() < 180000:
        pytest.skip("this libpq knows protocol 3.0 only")
    for version in ("latest", "3.2"):
        dsn = start().dsn(user=user, max_protocol_version=version)
        with psycopg.connect(dsn, autocommit=True) as conn:
            assert conn.execute("SELECT %s", ["served"]).fetchone() == ("served",)
            assert conn.info.parameter_status("server_version") == pg.version


# ------------------------------------------------------------------------- a goodbye and answers


@pytest.mark.parametrize(
    "requests",
    [
        query("SELECT 'said'"),
        query("SELECT 1") + query("SELECT 'said'"),
        parse("SELECT 'said'") + bind() + execute() + SYNC,
        query("BEGIN") + query("SELECT pg_sleep(0.1)") + query("SELECT 'said'"),
    ],
)
def test_what_was_asked_before_a_goodbye_is_answered(
    start: MakePooler, pg: EmbeddedPostgres, user: str, mode: str, requests: bytes
) -> None:
    """As PostgreSQL does, then it closes; the server serves on."""
    pooler = start(mode=mode, max_servers=1)
    ends = []
    for port in (pooler.port, pg.port, pooler.port):
        with Client.log_in(port, user=user) as client:
            client.send(requests + TERMINATE)
            ends.append(client.until_end())
    assert ends[0] == ends[1] == ends[2]
    assert len(activity(pg, user)) == 1


def test_all_of_a_long_answer_comes_before_the_end(start: MakePooler, user: str, mode: str) -> None:
    with Client.log_in(start(mode=mode).port, user=user) as client:
        client.send(query("SELECT repeat('x', 20000000)") + TERMINATE)
        time.sleep(0.2)  # until nothing more fits anywhere
        messages = client.until_end()
        assert [kind for kind, _ in messages] == ["T", "D", "C", "Z"]
        assert len(messages[1].body) == 20000006


def test_a_goodbye_that_nothing_answers(start: MakePooler, pg: EmbeddedPostgres, user: str) -> None:
    """Without a Sync, or in a COPY, PostgreSQL says nothing before it reads the goodbye."""
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as client:
        client.send(parse("SELECT 1") + bind() + execute() + TERMINATE)
        client.until_end()
    with Client.log_in(pooler.port, user=user) as client:
        client.send(query("CREATE TEMP TABLE t (); COPY t FROM STDIN") + TERMINATE)
        assert "G" in [kind for kind, _ in client.until_end()]
    with Client.log_in(pooler.port, user=user) as client:
        assert client.query("SELECT 1").value == "1"

"""Clients that go in every way there is, while others work: nobody notices, nothing is left."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import (
    FLUSH,
    SYNC,
    Client,
    bind,
    copy_data,
    execute,
    parse,
    query,
    startup,
)
from tests.support.pooler import PoolerProcess, activity, configuration, eventually
from tests.support.postgres import EmbeddedPostgres

SERVERS = 10
ABANDONED = 200
WORKERS = 6
FOREIGN = "abandoned"
LARGE = f"SELECT repeat('{FOREIGN}', 100000) FROM generate_series(1, 20)"

# What a client is in the midst of when it goes: bytes to send, after which it may wait for some.
MIDST: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 0),
    "result": (query(LARGE), 5000),
    "result, unread": (query(LARGE), 0),
    "query": (query("SELECT pg_sleep(0.3)"), 0),
    "long query": (query("SELECT pg_sleep(60)"), 0),
    "transaction": (query(f"BEGIN; INSERT INTO t VALUES ('{FOREIGN}')"), 20),
    "failed transaction": (query("BEGIN; SELECT 1/0"), 50),
    "result in a transaction": (query(f"BEGIN; {LARGE}"), 5000),
    "pipeline": ((parse("SELECT 'abandoned'") + bind() + execute()) * 200 + SYNC, 10),
    "pipeline without Sync": ((parse("SELECT 'abandoned'") + bind() + execute()) * 20 + FLUSH, 100),
    "pipeline of queries": (query("SELECT 'abandoned'") * 100, 10),
    "failed pipeline": (parse("SELECT nonsense") + bind() + execute() + FLUSH, 10),
    "copy in": (query("COPY t FROM STDIN") + copy_data(b"abandoned\n") * 100, 5),
    "copy in by pipeline": (
        parse("COPY t FROM STDIN") + bind() + execute() + copy_data(b"abandoned\n") + FLUSH,
        5,
    ),
    "copy out": (query(f"COPY ({LARGE}) TO STDOUT"), 5000),
    "half a header": (b"Q\0\0", 0),
    "half a query": (query("SELECT 'abandoned'")[:-5], 0),
    "half a query in a transaction": (query("BEGIN") + query("SELECT 1")[:7], 6),
    "half a row of copy": (query("COPY t FROM STDIN") + copy_data(b"abandoned\n")[:8], 5),
    "a lock": (query("BEGIN; LOCK TABLE locked"), 5),
    "waiting for a lock": (query("LOCK TABLE locked"), 0),
}
WAYS: dict[str, Callable[[Client], None]] = {
    "RST": Client.abort,
    "FIN": Client.close,
    "Terminate": Client.terminate,
}
# A Terminate behind a query asks for it to be done, however long that takes.
CASES = [each for each in itertools.product(MIDST, WAYS) if each != ("long query", "Terminate")]


def abandon(port: int, user: str, midst: str, way: str) -> None:
    client = Client.log_in(port, user=user)
    data, wait_for = MIDST[midst]
    client.send(data)
    while wait_for > 0:
        wait_for -= len(client.socket.recv(65536)) or wait_for
    WAYS[way](client)


def abandon_log_in(port: int, user: str, way: str) -> None:
    client = Client(port)
    client.send(startup(user=user)[: random.randrange(60)])
    WAYS[way](client)


class Worker(threading.Thread):
    """Asks for what nobody else asks for, in every manner, and must get that and nothing else."""

    def __init__(self, port: int, user: str, number: int, stop: threading.Event) -> None:
        super().__init__()
        self._client = Client.log_in(port, user=user)
        self._number = number
        self._halt = stop
        self.answers = 0
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            with self._client:
                for n in itertools.count():
                    if self._halt.is_set():
                        break
                    self._ask(f"marker-{self._number}-{n}", n)
                    self.answers += 1
        except BaseException as fault:
            self.fault = fault

    def _ask(self, marker: str, n: int) -> None:
        client, expected = self._client, [(marker,)]
        if n % 4 == 0:
            assert client.query(f"SELECT '{marker}'").rows == expected
        elif n % 4 == 1:
            assert client.extended("SELECT $1::text", marker.encode()).rows == expected
        elif n % 4 == 2:
            assert client.query("BEGIN") == ([], [], "T")
            assert client.query(f"SELECT '{marker}' FROM t").rows == []
            assert client.query(f"SELECT '{marker}'").rows == expected
            assert client.query("COMMIT") == ([], [], "I")
        else:
            client.send(query(f"SELECT '{marker}', 1") + query(f"SELECT repeat('{marker}', 5000)"))
            assert client.result().rows == [(marker, "1")]
            assert client.result().rows == [(marker * 5000,)]


@pytest.fixture
def pooler(pg: EmbeddedPostgres, backend: str, mode: str) -> Iterator[PoolerProcess]:
    servers = {"max_servers": SERVERS}
    with PoolerProcess(configuration(pg, backend=backend, mode=mode, **servers)) as process:
        yield process


@pytest.fixture
def tables(pooler: PoolerProcess, user: str) -> None:
    with Client.log_in(pooler.port, user=user) as client:
        client.query("CREATE TABLE t (v text); CREATE TABLE locked ()")


def test_abandoned_clients(
    pooler: PoolerProcess, pg: EmbeddedPostgres, user: str, mode: str, tables: None
) -> None:
    before, threads = pooler.fds_at_rest(pg), pooler.threads()
    stop = threading.Event()
    # In session mode each worker keeps a server; what is left of them is for the others.
    workers = [Worker(pooler.port, user, n, stop) for n in range(WORKERS)]
    for worker in workers:
        worker.start()
    for n in range(ABANDONED):
        midst, way = CASES[n % len(CASES)]
        if n % 10 == 9:
            abandon_log_in(pooler.port, user, way)
        abandon(pooler.port, user, midst, way)
    stop.set()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
        assert worker.fault is None, worker.fault
        assert worker.answers > 10
    nothing_is_left(pooler, pg, user, before, threads)


def nothing_is_left(
    pooler: PoolerProcess, pg: EmbeddedPostgres, user: str, fds: int, threads: int
) -> None:
    eventually(
        lambda: all(state == "idle" for _, state in activity(pg, user)),
        "no server has anything under way",
    )
    eventually(lambda: pooler.fds_without_servers(pg) == fds, "no descriptor is left")
    found = {pid for pid, _ in activity(pg, user)}
    assert 0 < len(found) <= SERVERS
    clients = [Client.log_in(pooler.port, user=user) for _ in range(SERVERS)]
    for client in clients:
        client.send(query("BEGIN; SELECT count(*) FROM t"))
    # Each has a server to itself: all of them are usable, and none more than there may be.
    for client in clients:
        assert client.result() == ([("0",)], [], "T")
    assert len(activity(pg, user)) == SERVERS
    assert found <= {pid for pid, _ in activity(pg, user)}, "a server that was there was lost"
    for client in clients:
        client.terminate()
    eventually(lambda: pooler.fds_without_servers(pg) == fds, "no descriptor is left")
    assert pooler.threads() <= threads + 4  # Trio keeps a few for what blocks


def test_abandoned_while_waiting(
    pooler: PoolerProcess, pg: EmbeddedPostgres, user: str, tables: None
) -> None:
    """None of them gets a server after it has gone, and none keeps one."""
    before, threads = pooler.fds_at_rest(pg), pooler.threads()
    holders = [Client.log_in(pooler.port, user=user) for _ in range(SERVERS)]
    for client in holders:
        assert client.query("BEGIN").status == "T"
    insert = query(f"INSERT INTO t VALUES ('{FOREIGN}')")
    waiting = [Client.log_in(pooler.port, user=user) for _ in range(60)]
    last = Client.log_in(pooler.port, user=user)
    for client in waiting:
        client.send(insert + query("SELECT 1")[:3])
    last.send(query("SELECT 'served'"))
    time.sleep(0.2)
    for client, way in zip(waiting, itertools.cycle(("RST", "FIN")), strict=False):
        WAYS[way](client)
    eventually(
        lambda: pooler.fds_without_servers(pg) == before + SERVERS + 1, "those who waited are gone"
    )
    assert last.silent(0.05)
    for client in holders:
        assert client.query("COMMIT").status == "I"
        client.terminate()
    assert last.result().value == "served"
    last.close()
    nothing_is_left(pooler, pg, user, before, threads)


def test_queries_that_have_hardly_begun_are_cancelled(
    one_server: PoolerProcess, pg: EmbeddedPostgres, user: str
) -> None:
    """A cancellation may be there before the query."""
    for _ in range(20):
        abandon(one_server.port, user, "long query", "RST")
    eventually(lambda: all(state == "idle" for _, state in activity(pg, user)), "none runs")


@pytest.fixture
def one_server(crossed: MakePooler) -> PoolerProcess:
    return crossed(max_servers=1)


@pytest.mark.parametrize(("midst", "way"), CASES)
def test_the_next_client_notices_nothing(
    one_server: PoolerProcess, user: str, midst: str, way: str
) -> None:
    """With one server, whatever is left on it would be the next client's."""
    with Client.log_in(one_server.port, user=user) as client:
        client.query("CREATE TABLE t (v text); CREATE TABLE locked ()")
    abandon(one_server.port, user, midst, way)
    with Client.log_in(one_server.port, user=user) as client:
        began = time.monotonic()
        assert client.query("SELECT 'mine'") == ([("mine",)], [], "I")
        assert time.monotonic() - began < 5
        assert client.query("SELECT count(*) FROM t").value == "0"
        assert client.extended("SELECT 'mine too'") == ([("mine too",)], [], "I")
        assert client.silent(0.01)

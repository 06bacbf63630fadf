"""The end of the pooler: by signals, in good order, with nothing left."""

from __future__ import annotations

import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pooler.demo import free_port
from tests.support.client import Client, query, startup
from tests.support.pooler import Config, PoolerProcess, configuration, eventually, wait_for_servers
from tests.support.postgres import EmbeddedPostgres

SIGNALS = [signal.SIGTERM, signal.SIGINT]
SHUTDOWN = "57P01"  # admin_shutdown


CROSSED = [("session", signal.SIGTERM), ("transaction", signal.SIGINT)]


@pytest.fixture
def mode() -> str:
    """Where a test does not say."""
    return "transaction"


@pytest.fixture
def pooler(pg: EmbeddedPostgres, backend: str, mode: str) -> Iterator[PoolerProcess]:
    config = configuration(pg, backend=backend, mode=mode, shutdown_timeout=30)
    with PoolerProcess(config) as process:
        yield process


def refused(port: int) -> bool:
    """Whether a new connection is turned away: by the kernel, or before it is logged in."""
    try:
        with Client(port) as client:
            client.send(startup())
            return "Z" not in [kind for kind, _ in client.until_end()]
    except OSError:
        return True


@pytest.mark.parametrize("number", SIGNALS)
def test_stop_with_nobody_there(
    pooler: PoolerProcess, pg: EmbeddedPostgres, user: str, number: signal.Signals
) -> None:
    with Client.log_in(pooler.port, user=user) as client:
        client.query("SELECT 1")
    pooler.signal(number)
    pooler.wait()
    assert refused(pooler.port)
    wait_for_servers(pg, 0, user)


@pytest.mark.parametrize(("mode", "number"), CROSSED)
def test_drain(
    pooler: PoolerProcess, pg: EmbeddedPostgres, user: str, number: signal.Signals
) -> None:
    """Who is idle is told to go; who is in a transaction may finish it, and is told then."""
    idle, fresh, inside, running, silent = (
        *(Client.log_in(pooler.port, user=user) for _ in range(4)),
        Client(pooler.port),
    )
    idle.query("CREATE TABLE t (n int)")
    inside.query("BEGIN")
    running.send(query("SELECT pg_sleep(1); SELECT 'done'"))
    time.sleep(0.1)
    pooler.signal(number)
    for client in (idle, fresh):
        error = client.last_error()
        assert (error["S"], error["C"]) == ("FATAL", SHUTDOWN)
    assert "Z" not in [kind for kind, _ in silent.until_end()]
    eventually(lambda: refused(pooler.port), "new clients are refused")
    result = running.result()
    assert result.rows[-1] == ("done",) and not result.errors
    assert running.last_error()["C"] == SHUTDOWN
    assert pooler.exit_status is None
    assert inside.query("INSERT INTO t VALUES (1)").errors == []
    assert inside.query("COMMIT") == ([], [], "I")
    assert inside.last_error()["C"] == SHUTDOWN
    pooler.wait()
    wait_for_servers(pg, 0, user)
    for client in (idle, fresh, inside, running, silent):
        client.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_at_once(
    pooler: PoolerProcess, pg: EmbeddedPostgres, user: str, number: signal.Signals
) -> None:
    with Client.log_in(pooler.port, user=user) as inside:
        inside.query("BEGIN")
        pooler.signal(signal.SIGTERM)
        eventually(lambda: "signal received" in pooler.log, "the first signal is noticed")
        time.sleep(0.1)
        assert pooler.exit_status is None
        began = time.monotonic()
        pooler.signal(number)
        pooler.wait()
        assert time.monotonic() - began < 10
        inside.until_end()
    wait_for_servers(pg, 0, user)


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_the_time_for_it_is_limited(
    pg: EmbeddedPostgres, backend: str, mode: str, user: str
) -> None:
    config = configuration(pg, backend=backend, mode=mode, shutdown_timeout=0.5)
    with PoolerProcess(config) as pooler:
        with (
            Client.log_in(pooler.port, user=user) as inside,
            Client.log_in(pooler.port, user=user) as running,
            Client.log_in(pooler.port, user=user) as unread,
        ):
            inside.query("BEGIN")
            running.send(query("SELECT pg_sleep(60)"))
            unread.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 100)"))
            time.sleep(0.3)
            pooler.signal(signal.SIGTERM)
            pooler.wait()
            inside.until_end()
            running.until_end()
        wait_for_servers(pg, 0, user)


def test_clients_that_wait_for_a_server_are_told(
    pg: EmbeddedPostgres, backend: str, mode: str, user: str
) -> None:
    config = configuration(pg, backend=backend, mode=mode, max_servers=1, shutdown_timeout=30)
    with PoolerProcess(config) as pooler:
        with (
            Client.log_in(pooler.port, user=user) as holder,
            Client.log_in(pooler.port, user=user) as waiting,
        ):
            holder.query("BEGIN")
            waiting.send(query("SELECT 1"))
            time.sleep(0.1)
            pooler.signal(signal.SIGTERM)
            assert waiting.last_error()["C"] == SHUTDOWN
            assert holder.query("COMMIT").status == "I"
            pooler.wait()


def test_stop_while_postgres_is_away(own_pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(own_pg, backend=backend, shutdown_timeout=30)
    with PoolerProcess(config) as pooler:
        with Client.log_in(pooler.port) as idle, Client(pooler.port) as waiting:
            idle.query("SELECT 1")
            own_pg.stop(keep=True)
            idle.send(query("SELECT 1"))
            waiting.send(startup(TimeZone="Asia/Tokyo"))
            time.sleep(0.3)
            began = time.monotonic()
            pooler.signal(signal.SIGTERM)
            pooler.wait()
            assert time.monotonic() - began < 10
            for client in (idle, waiting):
                assert client.last_error()["S"] == "FATAL"


# -- starts that fail -----------------------------------------------------------------------


def start_that_fails(config: Config) -> tuple[int, str]:
    """The exit status, and what was said."""
    pooler = PoolerProcess(config)
    try:
        pooler.launch()
        eventually(lambda: pooler.exit_status is not None, "it ends")
        assert pooler.exit_status is not None
        return pooler.exit_status, pooler.log
    finally:
        pooler.kill()


def test_a_port_in_use(pg: EmbeddedPostgres, backend: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        status, said = start_that_fails(configuration(pg, backend=backend, listen=[address]))
    assert status == 1
    assert said == f"trio-pooler: cannot listen on {address}: Address already in use\n"


def test_a_unix_socket(pg: EmbeddedPostgres, backend: str) -> None:
    """What a killed pooler left is no hindrance; a living one is; at the end it is removed."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / ".s.PGSQL.6432"
        config = configuration(pg, backend=backend, listen=["127.0.0.1:0", directory])
        killed = PoolerProcess(config)
        killed.start()
        killed.kill()
        assert path.exists()
        with PoolerProcess(config):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
            status, said = start_that_fails(config)
            assert (status, said.count("\n")) == (1, 1)
            assert "another process listens there" in said
        assert not path.exists()

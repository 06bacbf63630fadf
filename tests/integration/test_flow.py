"""Large results, slow readers, long queries, both ways at once: little memory, no deadlock."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import (
    COPY_DONE,
    SYNC,
    Client,
    bind,
    copy_data,
    execute,
    message,
    parse,
    query,
)
from tests.support.pooler import PoolerProcess, Poolers, configuration
from tests.support.postgres import EmbeddedPostgres

MB = 1_000_000
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
GROWTH = 2 * MB  # what a large load may cost in memory beyond a small one of its kind


@pytest.fixture
def pooler(pg: EmbeddedPostgres, backend: str, running: Poolers) -> PoolerProcess:
    return running.get(configuration(pg, backend=backend, mode="transaction"))


class Memory:
    """Watches the pooler's resident memory in a thread of its own."""

    def __init__(self, pooler: PoolerProcess) -> None:
        self._pooler = pooler
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = pooler.rss()
        self.peak = self.before

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self._pooler.rss())

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        # AddressSanitizer keeps what was given back: its memory says nothing of ours. All else that
        # these tests check they check under it too.
        return 0 if SANITIZED else self.peak - self.before


# -- a slow reader ------------------------------------------------------------------------


def read_slowly(pooler: PoolerProcess, user: str, rows: int, pauses: int) -> None:
    """A result of so many MB; stops reading a few times on the way, and between two pieces."""
    with Client.log_in(pooler.port, user=user) as client:
        client.send(query(f"SELECT repeat('x', {MB}) FROM generate_series(1, {rows})"))
        # A row has a header of five bytes, a count of two and a length of four.
        expected = rows * (MB + 11)
        stops = [expected * n // (pauses + 1) for n in range(1, pauses + 1)]
        buffer, got, tail = bytearray(1 << 18), 0, b""
        while got < expected:
            n = client.socket.recv_into(buffer)
            assert n, "the connection ended"
            got += n
            tail = bytes(buffer[max(0, n - 100) : n])
            if stops and got > stops[0]:
                stops.pop(0)
                time.sleep(0.5)
            elif n < 1000:
                time.sleep(0.0001)
        while not tail.endswith(b"Z\0\0\0\5I"):
            tail += client.socket.recv(1000)
        assert f"SELECT {rows}\0".encode() in tail


def test_a_slow_reader_costs_little_memory(pooler: PoolerProcess, user: str) -> None:
    read_slowly(pooler, user, 30, 2)
    with Memory(pooler) as memory:
        read_slowly(pooler, user, 1000, 3)
    assert memory.growth <= GROWTH


def test_a_reader_that_never_reads_harms_nobody(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=20)
    with Client.log_in(pooler.port, user=user) as other:
        stuck = [Client.log_in(pooler.port, user=user) for _ in range(10)]
        for client in stuck:
            client.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 100)"))
        with Memory(pooler) as memory:
            for n in range(200):
                assert other.query(f"SELECT {n}").value == str(n)
        # For each: what waits to be sent, and what was on its way when that became too much.
        assert memory.growth <= 10 * GROWTH
        for client in stuck:
            client.abort()
        assert other.query("SELECT 'unharmed'").value == "unharmed"


# -- a long query -------------------------------------------------------------------------


def send_long(pooler: PoolerProcess, user: str, megabytes: int) -> None:
    with Client.log_in(pooler.port, user=user) as client:
        client.socket.settimeout(60)
        head, tail = b"SELECT length('", b"')\0"
        size = 4 + len(head) + megabytes * MB + len(tail)
        client.send(b"Q" + size.to_bytes(4, "big") + head)
        piece = b"x" * MB
        for _ in range(megabytes):
            client.send(piece)
        client.send(tail)
        assert client.result().value == str(megabytes * MB)


def test_a_long_query_costs_little_memory(pooler: PoolerProcess, user: str) -> None:
    send_long(pooler, user, 30)
    with Memory(pooler) as memory:
        send_long(pooler, user, 300)
    assert memory.growth <= GROWTH


def test_a_long_query_of_a_client_that_waits(start: MakePooler, user: str) -> None:
    """It is read as far as it must be, and the rest when there is a server."""
    pooler = start(max_servers=1)
    with Client.log_in(pooler.port, user=user) as holder:
        holder.query("BEGIN")
        send_in_thread = threading.Thread(target=send_long, args=(pooler, user, 10))
        send_in_thread.start()
        time.sleep(0.3)
        memory = Memory(pooler)
        with memory:
            time.sleep(0.3)
            holder.query("COMMIT")
            send_in_thread.join()
        assert memory.growth <= GROWTH


# -- both directions at once --------------------------------------------------------------


class Sender(threading.Thread):
    """Sends pieces one after the other; ``stalled`` once nobody has taken any for a while."""

    def __init__(self, sock: socket.socket, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._sock = sock
        self._pieces = pieces
        self._sent = 0
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            for piece in self._pieces:
                self._sock.sendall(piece)
                self._sent += 1
        except BaseException as fault:
            self.fault = fault

    def wait_until_stalled(self) -> None:
        """Returns as well when all is sent."""
        before = -1
        while self.is_alive() and self._sent != before:
            before = self._sent
            time.sleep(0.3)


def echoes(count: int, size: int) -> Iterator[bytes]:
    """Requests of the extended protocol whose answers are as large as they are."""
    text = b"y" * size
    for n in range(count):
        sql = f"SELECT {n}, $1::text"
        yield parse(sql) + bind(text) + execute() + (SYNC if n % 7 == 0 else b"")
    yield SYNC


def test_a_pipeline_that_is_sent_before_it_is_read(pooler: PoolerProcess, user: str) -> None:
    """80,000 messages out and as many back, 100 MB each way; reading begins when writing stalls."""
    count, size = 20_000, 5000
    with Client.log_in(pooler.port, user=user) as client:
        sender = Sender(client.socket, echoes(count, size))
        sender.start()
        sender.wait_until_stalled()
        rows = 0
        while rows < count:
            result = client.result()
            assert not result.errors, result.errors
            for number, text in result.rows:
                assert (number, len(text or "")) == (str(rows), size)
                rows += 1
        sender.join()
        assert sender.fault is None
        while client.silent(0.05) is False:
            client.result()
        assert client.query("SELECT 'in step'").value == "in step"


def test_small_requests_beyond_number(pooler: PoolerProcess, user: str) -> None:
    """More requests under way than the pooler counts: it waits with the rest of them."""
    count = 70_000
    with Client.log_in(pooler.port, user=user) as client:
        sender = Sender(client.socket, iter([query("SELECT 1") * 1000] * (count // 1000)))
        sender.start()
        sender.wait_until_stalled()
        for _ in range(count):
            assert client.result().rows == [("1",)]
        sender.join()
        assert sender.fault is None


def copy_lines(count: int) -> Iterator[bytes]:
    line = b"z" * 9_999 + b"\n"
    for _ in range(count):
        yield copy_data(line)
    yield COPY_DONE


def test_copy_both_ways_at_once(pooler: PoolerProcess, user: str) -> None:
    """100 MB in, with a trigger that says as much to the client on the way."""
    with Client.log_in(pooler.port, user=user) as client:
        client.query(
            """
            CREATE TABLE lines (line text);
            CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE NOTICE '%', NEW.line; RETURN NULL; END $$;
            CREATE TRIGGER say BEFORE INSERT ON lines FOR EACH ROW EXECUTE FUNCTION say();
            """
        )
        with Memory(pooler) as memory:
            client.send(query("COPY lines FROM STDIN"))
            while client.message().kind != "G":
                pass
            sender = Sender(client.socket, copy_lines(10_000))
            sender.start()
            sender.wait_until_stalled()
            notices = 0
            while (kind := client.message().kind) != "Z":
                assert kind in "NC"
                notices += kind == "N"
            sender.join()
        assert (sender.fault, notices) == (None, 10_000)
        assert memory.growth <= 2 * GROWTH


def test_a_fatal_error_behind_much_that_is_unread(pooler: PoolerProcess, user: str) -> None:
    """What the server said before it ended still comes, all of it."""
    with Client.log_in(pooler.port, user=user) as client:
        client.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 20)"))
        client.send(query("SELECT pg_terminate_backend(pg_backend_pid())") + message("H"))
        time.sleep(0.3)
        messages = client.until_end()
        kinds = [kind for kind, _ in messages]
        assert kinds.count("D") >= 20
        assert kinds[-1] == "E" and kinds.count("E") == 1

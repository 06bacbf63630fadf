"""Conversations with a real PostgreSQL: the framing says "apart" exactly when the server is idle.

Whether it is, pg_stat_activity says, on another connection.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import psycopg
import pytest

from pooler.wire import messages
from pooler.wire.messages import FLUSH, SYNC, MessageReader, query
from pooler.wire.startup import startup_message
from tests.support.framing import EngineFraming
from tests.support.postgres import EmbeddedPostgres, connect

SETUP = """
    CREATE TEMP TABLE numbers (n int);
    CREATE TEMP VIEW a_view AS SELECT 1 AS n;
    CREATE TEMP TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
"""
PATIENCE = 20.0
"""Seconds until a conversation that does not come to the expected end has failed."""


def parse(sql: str, name: str = "") -> bytes:
    return messages.message(b"P", f"{name}\0{sql}\0".encode() + bytes(2))


def bind(portal: str = "", statement: str = "") -> bytes:
    return messages.message(b"B", f"{portal}\0{statement}\0".encode() + bytes(6))


def describe(kind: str = "P", name: str = "") -> bytes:
    return messages.message(b"D", f"{kind}{name}\0".encode())


def execute(portal: str = "", rows: int = 0) -> bytes:
    return messages.message(b"E", f"{portal}\0".encode() + struct.pack("!I", rows))


def close(kind: str = "S", name: str = "") -> bytes:
    return messages.message(b"C", f"{kind}{name}\0".encode())


def call(function: int, *arguments: bytes) -> bytes:
    body = struct.pack("!IHH", function, 0, len(arguments))
    body += b"".join(struct.pack("!I", len(argument)) + argument for argument in arguments)
    return messages.message(b"F", body + bytes(2))


def copy_data(data: bytes) -> bytes:
    return messages.message(b"d", data)


def run(sql: str, rows: int = 0) -> bytes:
    return parse(sql) + bind() + describe() + execute("", rows)


COPY_DONE = messages.message(b"c")
COPY_FAIL = messages.message(b"f", b"never mind\0")
ROWS = copy_data(b"1\n") + copy_data(b"2\n")
COPY = "COPY numbers FROM STDIN"
INT4PL, INT4DIV = 177, 154

# Each: the rounds that a client sends, with the standing that each must lead to.
CONVERSATIONS: dict[str, list[tuple[bytes, str]]] = {
    "select": [(query("SELECT 1"), "APART")],
    "empty query": [(query(""), "APART")],
    "several statements": [(query("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3"), "APART")],
    "queries ahead": [(query("SELECT 1") + query("SELECT 1/0") + query(""), "APART")],
    "transaction": [(query("BEGIN"), "OPEN"), (query("COMMIT"), "APART")],
    "failed transaction": [(query("BEGIN; SELECT 1/0"), "OPEN"), (query("ROLLBACK"), "APART")],
    "bytes that look like messages": [
        (query("SELECT repeat(E'Z\\x01\\x01\\x01\\x05I',9999)"), "APART")
    ],
    "notice": [(query("DO $$ BEGIN RAISE NOTICE 'x'; END $$"), "APART")],
    "notification": [(query("LISTEN a; NOTIFY a"), "APART")],
    "reported setting": [(query("SET application_name = 'x'; SET TimeZone = 'UTC'"), "APART")],
    "extended": [(run("SELECT 1") + SYNC, "APART")],
    "extended, empty": [(run("") + SYNC, "APART")],
    "extended, no rows described": [(run("INSERT INTO numbers VALUES (1)") + SYNC, "APART")],
    "named statement": [
        (parse("SELECT $1::int", "s") + describe("S", "s") + close("S", "s") + SYNC, "APART"),
    ],
    "pipeline": [(run("SELECT 1") * 200 + SYNC, "APART")],
    "pipeline of Syncs": [((run("SELECT 1") + SYNC) * 100, "APART")],
    "errors in a pipeline": [
        ((run("SELECT 1/0") + run("SELECT 1") + SYNC + run("nonsense") + SYNC) * 20, "APART"),
    ],
    "error in Bind": [(bind("", "unknown") + execute() + SYNC + query("SELECT 1"), "APART")],
    "error in Describe": [(describe("S", "unknown") + run("SELECT 1") + SYNC, "APART")],
    "error in Close": [(messages.message(b"C", b"?\0") + SYNC, "APART")],
    "flush": [(run("SELECT 1") + FLUSH, "OPEN"), (SYNC, "APART")],
    # The simple query ends the implicit transaction (PostgreSQL 15), or muddles it (18).
    "flush, then a simple query": [
        (run("SELECT 1") + FLUSH, "OPEN"),
        (query("SELECT 2"), "APART or UNSURE"),
        (SYNC, "APART or UNSURE"),
    ],
    "only a flush": [(FLUSH, "APART")],
    "error, Sync later": [
        (run("SELECT 1/0") + FLUSH, "BUSY"),
        (run("SELECT 1") + query("SELECT 2") + call(INT4PL, b"1", b"2"), "BUSY"),
        (SYNC, "APART"),
    ],
    "simple query instead of Sync": [
        (run("SELECT 1") + query("SELECT 2"), "APART or UNSURE"),
        (SYNC, "APART or UNSURE"),
    ],
    "extended transaction": [(run("BEGIN") + SYNC, "OPEN"), (run("COMMIT") + SYNC, "APART")],
    "portal in pieces": [
        (query("BEGIN"), "OPEN"),
        (parse("SELECT generate_series(1, 5)") + bind("p") + execute("p", 2) + FLUSH, "OPEN"),
        (execute("p", 2) + execute("p", 2) + execute("p", 2) + close("P", "p") + SYNC, "OPEN"),
        (query("END"), "APART"),
    ],
    "error at Sync": [
        (run("INSERT INTO late VALUES (1), (1)") + SYNC + run("SELECT 1") + SYNC, "APART"),
    ],
    "function call": [(call(INT4PL, b"1", b"2"), "APART")],
    "error in a function call": [(call(INT4DIV, b"1", b"0") + query("SELECT 1"), "APART")],
    "copy out": [(query("COPY (SELECT generate_series(1, 1000)) TO STDOUT"), "APART")],
    "copy out, extended": [(run("COPY (SELECT 1) TO STDOUT") + SYNC, "APART")],
    "copy in": [(query(COPY), "BUSY"), (ROWS, "BUSY"), (COPY_DONE, "APART")],
    "copy in, ahead": [(query(COPY) + ROWS + COPY_DONE + query("SELECT 1"), "APART")],
    "copy in, fail": [(query(COPY), "BUSY"), (ROWS + COPY_FAIL, "APART")],
    "copy in, bad row": [(query(COPY), "BUSY"), (copy_data(b"x\n") + ROWS + COPY_DONE, "APART")],
    "copy in, bad row, end of it later": [
        (query(COPY) + copy_data(b"x\n"), "APART"),
        (ROWS + COPY_DONE, "APART"),
        (query("SELECT 1"), "APART"),
    ],
    "copy in, Sync inside": [
        (query(COPY), "BUSY"),
        (ROWS + SYNC + FLUSH + ROWS + COPY_DONE + SYNC, "APART"),
    ],
    "copy in, extended": [
        (run(COPY) + SYNC, "BUSY"),
        (ROWS + COPY_DONE + SYNC, "APART"),
        (run("SELECT 1") + SYNC, "APART"),
    ],
    "copy in, extended, ahead": [
        (run(COPY) + SYNC + SYNC + ROWS + COPY_DONE + SYNC + run("SELECT 1") + SYNC, "APART"),
    ],
    "copy in, extended, flush": [
        (run(COPY) + FLUSH, "BUSY"),
        (ROWS + COPY_DONE + FLUSH, "OPEN"),
        (SYNC, "APART"),
    ],
    "copy in, extended, bad row without a Sync inside": [
        (run(COPY) + FLUSH, "BUSY"),
        (copy_data(b"x\n") + ROWS + COPY_DONE + SYNC, "APART"),
    ],
    # Whether the first Sync was swallowed, the bytes do not tell: here it was ...
    "copy in, extended, fail": [(run(COPY) + SYNC, "BUSY"), (ROWS + COPY_FAIL + SYNC, "UNSURE")],
    # ... and here it was not, although CopyInResponse came first.
    "copy in, extended, into a view": [
        (run("COPY a_view FROM STDIN") + SYNC + ROWS + COPY_DONE + SYNC, "UNSURE"),
    ],
    "copy in, into a view": [
        (query("COPY a_view FROM STDIN"), "APART"),
        (ROWS + COPY_DONE, "APART"),
    ],
    "two copies in one query": [
        (query(f"{COPY}; {COPY}; SELECT 1") + (ROWS + COPY_DONE) * 2 + SYNC, "APART"),
    ],
    "two copies in one query, by turns": [
        (query(f"{COPY}; {COPY}"), "BUSY"),
        (ROWS + COPY_DONE, "BUSY"),
        (ROWS + COPY_DONE, "APART"),
    ],
    "copy messages without a copy": [
        (ROWS + COPY_DONE + COPY_FAIL, "APART"),
        (run("SELECT 1") + ROWS + COPY_DONE + SYNC + COPY_FAIL, "APART"),
        (query("SELECT 1") + COPY_DONE + query("SELECT 2"), "APART"),
    ],
}


class RawConnection:
    """All bytes of one connection, after its login, pass through a framing."""

    def __init__(self, pg: EmbeddedPostgres) -> None:
        self.framing = EngineFraming()
        self.replies = MessageReader(limit=1 << 20)
        self.answered = 0
        self.closed = False
        self._socket = socket.create_connection((pg.host, pg.port))
        self._socket.sendall(startup_message({"user": "postgres", "database": "postgres"}))
        self.process_id = self._login()

    def _login(self) -> int:
        process_id = 0
        while True:
            for kind, body in self.replies.feed(self._socket.recv(65536)):
                if kind == b"K":
                    process_id, _ = messages.parse_backend_key_data(body)
                elif kind == b"Z":
                    return process_id

    def close(self) -> None:
        self._socket.close()

    def say(self, data: bytes) -> None:
        assert self.framing.from_client(data).verdict == "GO"
        self._socket.sendall(data)

    def last_error(self, data: bytes) -> str:
        """What the server says to this, past the framing."""
        self._socket.sendall(data)
        return self._socket.recv(65536).decode()

    def listen(self, quiet: float) -> None:
        """Takes in what comes until nothing has come for so many seconds."""
        self._socket.settimeout(quiet)
        while not self.closed:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                return
            self.closed = not data
            scan = self.framing.from_server(data)
            assert scan.verdict == "GO"
            self.answered += scan.answered


@pytest.fixture
def observer(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    with connect(postgres) as connection:
        yield connection


@pytest.fixture
def raw(postgres: EmbeddedPostgres) -> Iterator[RawConnection]:
    connection = RawConnection(postgres)
    yield connection
    connection.close()


def settle(raw: RawConnection, observer: psycopg.Connection, expected: str) -> None:
    """Until the framing stands as expected and the server waits for more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        raw.listen(0.01)
        row = observer.execute(
            "SELECT state = 'idle', wait_event FROM pg_stat_activity WHERE pid = %s",
            [raw.process_id],
        ).fetchone()
        assert row is not None
        idle, waits_for = row
        standing = raw.framing.standing()
        agree = standing == "UNSURE" or idle == (standing == "APART")
        if standing in expected and waits_for == "ClientRead" and agree:
            break
        assert time.monotonic() < deadline, f"{standing}, idle: {idle}, waits for {waits_for}"
    raw.listen(0.02)
    assert raw.framing.standing() == standing, "something came late"


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_apart_exactly_when_idle(
    raw: RawConnection, observer: psycopg.Connection, name: str
) -> None:
    raw.say(query(SETUP))
    settle(raw, observer, "APART")
    assert raw.answered == 1
    for data, standing in CONVERSATIONS[name]:
        raw.say(data)
        settle(raw, observer, standing)


def test_cancelled_query(raw: RawConnection, observer: psycopg.Connection) -> None:
    raw.say(query("SELECT pg_sleep(600)"))
    while not observer.execute(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'",
        [raw.process_id],
    ).fetchone():
        pass
    assert raw.framing.standing() == "BUSY"
    observer.execute("SELECT pg_cancel_backend(%s)", [raw.process_id])
    settle(raw, observer, "APART")


def test_server_ends_the_session(raw: RawConnection, observer: psycopg.Connection) -> None:
    raw.say(query("SELECT 1"))
    settle(raw, observer, "APART")
    observer.execute("SELECT pg_terminate_backend(%s)", [raw.process_id])
    raw.listen(PATIENCE)
    assert raw.closed
    assert raw.framing.standing() == "UNSURE"
    assert raw.framing.last_words() == "ERROR"


@pytest.mark.parametrize("letter", [b"\0", b"A", b"p", b"1", b"Z", b"\xff"])
def test_invalid_type_in_the_words_of_the_server(raw: RawConnection, letter: bytes) -> None:
    scan = raw.framing.from_client(letter)
    assert (scan.verdict, scan.consumed) == ("BAD", 0)
    assert scan.why is not None
    assert scan.why in raw.last_error(messages.message(letter))

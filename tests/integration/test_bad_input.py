"""Any bytes anywhere: an error where the protocol allows one, then the end; others are unharmed."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.integration.conftest import MakePooler
from tests.support.client import (
    SYNC,
    TERMINATE,
    Client,
    Ended,
    Message,
    bind,
    copy_data,
    execute,
    fields,
    message,
    parse,
    query,
    startup,
)
from tests.support.pooler import PoolerProcess, configuration, eventually
from tests.support.postgres import EmbeddedPostgres

BOUND = 5.0  # seconds


@pytest.fixture(scope="module")
def pooler(crossed: MakePooler) -> PoolerProcess:
    """For the whole module: what is drawn needs a fixture that outlives one example."""
    return crossed()


@pytest.fixture(scope="module")
def control(pooler: PoolerProcess) -> Iterator[Client]:
    """A client that is there all the time, and is served."""
    with Client.log_in(pooler.port) as client:
        client.query("SELECT 1")
        yield client


@pytest.fixture(scope="module")
def descriptors(pooler: PoolerProcess, control: Client, pg: EmbeddedPostgres) -> int:
    """How many there are before anything has happened."""
    assert pooler.clients() == 1
    return pooler.fds_without_servers(pg)


@pytest.fixture
def unharmed(control: Client, descriptors: int) -> Iterator[None]:
    """Afterwards the control client is served as before."""
    yield
    assert control.query("SELECT 'unharmed'") == ([("unharmed",)], [], "I")


def sqlstates(messages: list[Message]) -> list[str]:
    found = [fields(body) for kind, body in messages if kind == "E"]
    assert all(len(error["C"]) == 5 and error["M"] and error["S"] for error in found)
    return [error["C"] for error in found]


def packet(body: bytes) -> bytes:
    return struct.pack("!I", len(body) + 4) + body


V3 = struct.pack("!I", 196608)

# -- before the log-in --------------------------------------------------------------------------

# Each is followed by nothing; the pooler must not wait for more.
START_UPS = {
    "garbage": bytes(range(7, 100)),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "too long": struct.pack("!I", 10_005) + V3,
    "as long as can be": b"\xff\xff\xff\xff",
    "negative": b"\x80\0\0\0",
    "too short": struct.pack("!I", 7) + bytes(3),
    "no length": bytes(8),
    "protocol 2": packet(struct.pack("!I", 131072) + bytes(100)),
    "protocol 4": packet(struct.pack("!I", 4 << 16) + b"user\0a\0\0"),
    "no user": packet(V3 + b"database\0postgres\0\0"),
    "an empty user": packet(V3 + b"user\0\0\0"),
    "no end": packet(V3 + b"user\0postgres"),
    "no last NUL": packet(V3 + b"user\0postgres\0"),
    "a name without a value": packet(V3 + b"user\0postgres\0database\0\0"[:-1]),
    "bytes behind the end": packet(V3 + b"user\0postgres\0\0more"),
    "nothing but a version": packet(V3),
    "a cancel request that is short": packet(struct.pack("!I", 80877102) + bytes(3)),
    "a cancel request that is long": packet(struct.pack("!I", 80877102) + bytes(400)),
    "data behind an SSL request": packet(struct.pack("!I", 80877103)) + startup(),
    "data behind a GSS request": packet(struct.pack("!I", 80877104)) + startup(),
    "an SSL request with more": packet(struct.pack("!I", 80877103) + b"x"),
    "no such database": startup("no such database"),
    "no such user": startup(user="no such user"),
    "a bad parameter": startup(DateStyle="nonsense"),
    "replication of what": startup(replication="what"),
}


@pytest.mark.parametrize("name", START_UPS)
def test_bad_start_up(pooler: PoolerProcess, unharmed: None, name: str) -> None:
    with Client(pooler.port) as client:
        client.send(START_UPS[name])
        try:
            messages = client.until_end()
        except AssertionError:
            # The answer to an encryption request is one byte and no message.
            assert client._buffer[:1] == b"N"
            del client._buffer[:1]
            messages = client.until_end()
        assert "Z" not in [kind for kind, _ in messages]
        # PostgreSQL itself says nothing to a cancel request, whatever it is.
        assert len(sqlstates(messages)) == 1 or "cancel" in name


@pytest.mark.parametrize("cut", range(0, 41, 4))
@pytest.mark.parametrize("way", ["close", "abort", "finish_sending"])
def test_half_a_start_up(pooler: PoolerProcess, unharmed: None, cut: int, way: str) -> None:
    client = Client(pooler.port)
    client.send(startup()[:cut])
    getattr(client, way)()
    if way == "finish_sending":
        assert "Z" not in [kind for kind, _ in client.until_end()]
        client.close()


def test_a_long_start_up(pooler: PoolerProcess, unharmed: None) -> None:
    with Client(pooler.port) as client:
        client.send(startup(**{f"a.b{n}": "x" * 80 for n in range(100)}))
        assert client.result().errors == []
        assert client.query('SHOW "a.b99"').value == "x" * 80


def test_encryption_is_declined_each_time(pooler: PoolerProcess, unharmed: None) -> None:
    with Client(pooler.port) as client:
        for code in (80877103, 80877104):
            client.send(packet(struct.pack("!I", code)))
            assert client.socket.recv(10) == b"N"
        client.send(startup())
        assert client.result().errors == []


def test_a_start_up_in_single_bytes(pooler: PoolerProcess, unharmed: None) -> None:
    with Client(pooler.port) as client:
        for byte in startup() + query("SELECT 'bytewise'"):
            client.send(bytes([byte]))
        assert client.result().errors == []
        assert client.result().value == "bytewise"


# -- behind it ----------------------------------------------------------------------------------

# Each is wrong in itself: the pooler says so and closes, whatever has gone before.
WRONG = {
    "a type that is none": b"\0\0\0\0\4",
    "a type of the server": message("Z", b"I"),
    "a log-in once more": startup(),
    "a password": message("p", b"secret\0"),
    "length 3": b"Q\0\0\0\3",
    "length 0": b"Q\0\0\0\0",
    "length -1": b"Q\xff\xff\xff\xff",
    "the least length": b"Q\x80\0\0\0",
    "a Sync that is long": b"S\0\1\0\0",
    "a Flush with a body": message("H", b"body"),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}
BEFORE = {
    "idle": b"",
    "in a transaction": query("BEGIN"),
    "in a failed transaction": query("BEGIN; SELECT 1/0"),
    "in a pipeline": parse("SELECT 1") + bind() + execute() + message("H"),
    "in a query": query("SELECT pg_sleep(0.2)"),
    "in a copy": query("COPY pg_temp.t FROM STDIN") + copy_data(b"1\n"),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_messages(pooler: PoolerProcess, unharmed: None, wrong: str, before: str) -> None:
    with Client.log_in(pooler.port) as client:
        if before == "in a copy":
            client.send(query("BEGIN; CREATE TEMP TABLE t (n int) ON COMMIT DROP"))
            client.result()
        client.send(BEFORE[before])
        if before != "idle":
            time.sleep(0.02)
        client.send(WRONG[wrong])
        try:
            messages = client.until_end()
        except AssertionError as cut:
            # An error in the midst of a result would be taken for more of it.
            assert "ended inside a message" in str(cut) and before == "in a query"
            return
        states = sqlstates(messages)
        assert states[-1:] == ["08P01"] and messages[-1].kind == "E", messages
    with Client.log_in(pooler.port) as other:
        assert other.query("SELECT 'and on'") == ([("and on",)], [], "I")


def test_an_error_that_nobody_awaits(start: MakePooler, user: str) -> None:
    """PostgreSQL would answer this Flush by an error and skip what comes next: another's query."""
    pooler = start(max_servers=1)
    for n in range(20):
        with Client.log_in(pooler.port, user=user) as client:
            with Client.log_in(pooler.port, user=user) as other:
                client.send(message("H", b"body"))
                assert other.query(f"SELECT {n}").value == str(n)


# Each is a message as far as the pooler goes; PostgreSQL refuses what it says, and goes on or not.
REFUSED = {
    "a query without an end": message("Q", b"SELECT 1"),
    "a query with two": message("Q", b"SELECT 1\0SELECT 2\0"),
    "an empty message": message("Q"),
    "bytes that are no UTF-8": message("Q", b"SELECT '\xff\xfe'\0"),
    "a Bind that is cut": message("B", b"\0\0\0\1") + SYNC,
    "a Bind of 65,535 values": message("B", b"\0\0\0\0\xff\xff") + SYNC,
    "a Parse that is cut": message("P", b"name") + SYNC,
    "an Execute of nothing": execute("nothing") + SYNC,
    "a Describe of nothing": message("D", b"?\0") + SYNC,
    "a Close of nothing": message("C", b"?\0") + SYNC,
    "a Sync with a body": message("S", b"body"),
    "a function call": message("F", b"\0\0\0\1") + SYNC,
    "copy data": copy_data(b"stray") + message("c") + message("f", b"x\0") + SYNC,
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_postgres_refuses(pooler: PoolerProcess, unharmed: None, refused: str) -> None:
    with Client.log_in(pooler.port) as client:
        client.send(REFUSED[refused] + SYNC + query("SELECT 'behind it'"))
        messages: list[Message] = []
        with contextlib.suppress(Ended):
            while messages[-1:] != [Message("C", b"SELECT 1\0")]:
                messages.append(client.message())
        assert sqlstates(messages) or refused == "copy data", messages


@pytest.mark.parametrize("way", ["close", "abort", "finish_sending"])
@pytest.mark.parametrize("before", BEFORE)
def test_half_a_message(pooler: PoolerProcess, unharmed: None, before: str, way: str) -> None:
    client = Client.log_in(pooler.port)
    client.send(BEFORE[before] + query("SELECT 'never'")[:-3])
    getattr(client, way)()
    if way == "finish_sending":
        with contextlib.suppress(AssertionError):
            client.until_end()
        client.close()


# -- anything -----------------------------------------------------------------------------------

PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([*WRONG.values(), *REFUSED.values()]),
    st.sampled_from([*BEFORE.values(), SYNC, TERMINATE, startup()]),
    st.builds(
        lambda kind, length, body: bytes([kind]) + struct.pack("!I", length) + body,
        st.sampled_from(b"QPBEDCSHFdcfXp\0\xff"),
        st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)),
        st.binary(max_size=40),
    ),
)


@examples(max_examples=60)
@given(
    logged_in=st.booleans(),
    pieces=st.lists(PIECES, max_size=6),
    way=st.sampled_from(["close", "abort", "finish_sending"]),
    data=st.randoms(use_true_random=False),
)
def test_anything(
    pooler: PoolerProcess,
    control: Client,
    logged_in: bool,
    pieces: list[bytes],
    way: str,
    data: random.Random,
) -> None:
    client = Client.log_in(pooler.port) if logged_in else Client(pooler.port)
    with contextlib.suppress(ConnectionError):  # it may have been closed meanwhile
        for piece in pieces:
            cut = data.randint(0, len(piece))
            client.send(piece[:cut])
            client.send(piece[cut:])
        getattr(client, way)()
        if way == "finish_sending":
            read_to_the_end(client)
    client.close()
    assert control.query("SELECT 'unharmed'") == ([("unharmed",)], [], "I")


def read_to_the_end(client: Client) -> None:
    """It comes soon, and what comes before are messages, or an N for each encryption request."""
    try:
        while True:
            client.message()
    except (Ended, AssertionError):
        while client.socket.recv(1 << 16):
            pass


def test_nothing_is_left_of_anything(
    pooler: PoolerProcess, control: Client, pg: EmbeddedPostgres, descriptors: int
) -> None:
    """Behind all tests above: the control client is the only one there."""
    eventually(lambda: pooler.clients() == 1, "all others are gone")
    eventually(lambda: pooler.fds_without_servers(pg) == descriptors, "no descriptor is left")
    assert "Traceback" not in pooler.log


# -- silence ------------------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip(f"the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("said", [b"", startup()[:20]], ids=["nothing", "half a packet"])
def test_silent_connections_keep_nobody_out(
    pg: EmbeddedPostgres, backend: str, many_descriptors: None, said: bytes
) -> None:
    with PoolerProcess(configuration(pg, backend=backend)) as pooler:
        with Client.log_in(pooler.port) as client:
            client.query("SELECT 1")
        before = pooler.fds_at_rest(pg)
        with contextlib.ExitStack() as stack:
            for _ in range(3000):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", pooler.port), 10))
                sock.sendall(said)
            began = time.monotonic()
            for n in range(5):
                with Client.log_in(pooler.port) as client:
                    assert client.query(f"SELECT {n}").value == str(n)
            assert time.monotonic() - began < BOUND
            assert pooler.fds() < 1000 + 100
        eventually(lambda: pooler.fds_without_servers(pg) == before, "no descriptor is left")


def test_the_time_for_a_log_in_is_limited(pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(pg, backend=backend, client_login_timeout=0.5)
    config["auth"] = {"method": "scram-sha-256"}
    with PoolerProcess(config, users='"alice" "secret"\n') as pooler:
        before = pooler.fds()
        began = time.monotonic()
        silent, slow, asked = (Client(pooler.port) for _ in range(3))
        slow.send(startup()[:10])
        asked.send(startup(user="alice"))
        assert asked.message().kind == "R"
        for client in (silent, slow, asked):
            assert "Z" not in [kind for kind, _ in client.until_end()]
            client.close()
        assert time.monotonic() - began < BOUND
        eventually(lambda: pooler.fds() == before, "no descriptor is left")

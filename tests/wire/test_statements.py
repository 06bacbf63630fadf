"""Prepared statements rewritten in the framing: clients that share servers notice nothing.

Every conversation is held twice: with a backend of the client's own, and with others, over fewer
backends, through the framing. Each client must hear the same bytes.
"""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.framing import Member, Shared, let_pass, make_fresh, standing_of
from tests.support.statements_model import Backend, message

SYNC, FLUSH = message("S"), message("H")


def parse(name: str, text: str) -> bytes:
    return message("P", f"{name}\0{text}\0".encode() + bytes(2))


def bind(name: str, portal: str = "", *, wrong: bool = False) -> bytes:
    return message("B", f"{portal}\0{name}\0".encode() + (bytes(5) + b"\1" if wrong else bytes(6)))


def describe(name: str, kind: str = "S") -> bytes:
    return message("D", f"{kind}{name}\0".encode())


def execute(portal: str = "") -> bytes:
    return message("E", f"{portal}\0".encode() + bytes(4))


def close(name: str, kind: str = "S") -> bytes:
    return message("C", f"{kind}{name}\0".encode())


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def run(name: str) -> bytes:
    return bind(name) + execute() + SYNC


class Server:
    def __init__(self, shared: Shared) -> None:
        self.member = Member(shared, client=False)
        self.backend = Backend()
        self.joined: Client | None = None


class Client:
    def __init__(self, shared: Shared) -> None:
        self.member = Member(shared, client=True)
        self.unsent = b""
        self.heard = b""
        self.server: Server | None = None
        self.directly = Backend()

    def say(self, data: bytes) -> None:
        self.unsent += data
        self.directly.feed(data)
        while self.directly.step():
            pass


class House:
    """Clients over servers, switched as the multiplexer does; chance says who goes on next."""

    def __init__(self, clients: int, servers: int, *, limit: int = 100, seed: int = 0) -> None:
        self.rnd = Random(seed)
        self.shared = Shared(limit)
        self.clients = [Client(self.shared) for _ in range(clients)]
        self.servers = [Server(self.shared) for _ in range(servers)]
        for server in self.servers:
            make_fresh(server.member)
        self.chunk = 1 << 20

    def close(self) -> None:
        for client in self.clients:
            client.member.close()
        for server in self.servers:
            server.member.close()

    def settle(self) -> None:
        """Until nobody has anything to do, and everybody has heard what there is to hear."""
        for _ in range(1_000_000):
            moves = [
                move
                for client in self.clients
                for move in (self._send, self._work, self._hear)
                if self._can(move, client)
            ]
            if not moves:
                break
            client = self.rnd.choice(self.clients)
            move = self.rnd.choice([self._send, self._work, self._hear])
            if self._can(move, client):
                move(client)
        else:
            raise AssertionError("it does not come to rest")
        for client in self.clients:
            assert not client.unsent
            assert client.heard == bytes(client.directly.outbox)

    def _can(self, move: object, client: Client) -> bool:
        server = client.server
        if move == self._send:
            free = any(server.joined is None for server in self.servers)
            return bool(client.unsent) and (server is not None or free) and not self._held(client)
        if server is None:
            return False
        if move == self._hear:
            return bool(server.backend.outbox)
        return len(server.backend.inbox) >= 5

    def _held(self, client: Client) -> bool:
        return client in self._waiting

    _waiting: frozenset[Client] = frozenset()

    def _send(self, client: Client) -> None:
        if client.server is None:
            client.server = self.rnd.choice([s for s in self.servers if s.joined is None])
            client.server.joined = client
        piece = client.unsent[: self.rnd.randint(1, self.chunk)]
        passed = let_pass(client.member, client.server.member, piece, from_client=True)
        assert passed.verdict in ("GO", "FULL"), passed
        client.server.backend.feed(passed.on)
        client.unsent = client.unsent[passed.consumed :]
        if passed.verdict == "FULL":
            assert client.server.backend.inbox or client.server.backend.outbox
            self._waiting |= {client}
        self._consider(client)

    def _work(self, client: Client) -> None:
        assert client.server is not None
        client.server.backend.step()

    def _hear(self, client: Client) -> None:
        assert client.server is not None
        backend = client.server.backend
        piece = bytes(backend.outbox[: self.rnd.randint(1, self.chunk)])
        del backend.outbox[: len(piece)]
        passed = let_pass(client.member, client.server.member, piece, from_client=False)
        assert passed.verdict == "GO", passed
        client.heard += passed.on
        self._waiting -= {client}
        self._consider(client)

    def _consider(self, client: Client) -> None:
        server = client.server
        assert server is not None
        standing = standing_of(client.member, server.member)
        assert standing != "UNSURE"
        if standing == "APART":
            while server.backend.step():  # a Flush that nothing answers
                pass
            assert not server.backend.inbox and not server.backend.outbox
            client.server = server.joined = None
            make_fresh(server.member)


def told(house: House, client: int, data: bytes) -> bytes:
    """What a client hears in answer."""
    before = len(house.clients[client].heard)
    house.clients[client].say(data)
    house.settle()
    return house.clients[client].heard[before:]


@pytest.fixture
def house() -> House:
    return House(3, 1)


# -- one by one ----------------------------------------------------------------------------


def test_a_statement_is_there_on_every_server() -> None:
    house = House(1, 4)
    told(house, 0, parse("mine", "select 1") + SYNC)
    for _ in range(40):
        assert b"select 1" in told(house, 0, run("mine"))
    assert all(len(server.backend.prepared) == 1 for server in house.servers)


def test_equal_statements_are_one_on_the_server(house: House) -> None:
    for client, name in enumerate(("a", "b", "c")):
        told(house, client, parse(name, "select 1") + SYNC)
    (server,) = house.servers
    assert len(server.backend.prepared) == 1


def test_the_same_name_means_to_each_what_it_prepared(house: House) -> None:
    for client in range(3):
        told(house, client, parse("s", f"select {client}") + SYNC)
    for client in range(3):
        assert f"select {client}".encode() in told(house, client, run("s"))


def test_a_name_in_use_is_refused_by_the_clients_name(house: House) -> None:
    told(house, 0, parse("s", "select 1") + SYNC)
    heard = told(house, 0, parse("s", "select 2") + SYNC)
    assert b'42P05\0Mprepared statement "s" already exists' in heard
    assert b"select 1" in told(house, 0, run("s"))


def test_an_unknown_name_is_refused_even_if_it_looks_like_a_label(house: House) -> None:
    told(house, 0, parse("s", "select 1") + SYNC)
    (label,) = house.servers[0].backend.prepared
    heard = told(house, 1, run(label))
    assert f'26000\0Mprepared statement "{label}" does not exist'.encode() in heard


@pytest.mark.parametrize("text", ['M"_tp?', 'M"_tp?_tp1', 'M"_tp?other"', "M", "", 'M"_tp?_tp10"'])
def test_an_error_that_quotes_something_like_it_passes(text: str) -> None:
    shared = Shared(10)
    client, server = Member(shared, client=True), Member(shared, client=False)
    sent = let_pass(client, server, bind("_tp10") + SYNC, from_client=True).on
    assert b"_tp?_tp10" in sent
    body = f"{text}\0\0".encode()
    on = let_pass(client, server, message("E", body), from_client=False).on
    assert on == message("E", body.replace(b'"_tp?_tp10"', b'"_tp10"'))


def test_the_unnamed_statement_of_another_is_not_mine(house: House) -> None:
    told(house, 0, parse("", "select 1") + SYNC)
    assert b"unnamed prepared statement does not exist" in told(house, 1, run(""))


def test_the_unnamed_statement_outlives_a_sync(house: House) -> None:
    told(house, 0, parse("", "select 1") + SYNC)
    told(house, 1, parse("", "select 2") + run(""))
    assert b"select 1" in told(house, 0, run(""))


def test_a_simple_query_ends_the_unnamed_statement(house: House) -> None:
    told(house, 0, parse("", "select 1") + SYNC)
    told(house, 0, query("select 2"))
    assert b"26000" in told(house, 0, run(""))


def test_an_error_quotes_the_clients_name(house: House) -> None:
    told(house, 0, parse("s", "select 1") + SYNC)
    heard = told(house, 0, bind("s", wrong=True) + SYNC)
    assert b'prepared statement "s" requires' in heard


def test_discard_all_forgets_on_both_sides(house: House) -> None:
    told(house, 0, parse("s", "select 1") + SYNC)
    told(house, 1, parse("s", "select 1") + SYNC)
    told(house, 0, query("discard all"))
    assert b"26000" in told(house, 0, run("s"))


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("sql", ["DEALLOCATE s", "deallocate PREPARE S ;", 'DEALLOCATE "s"'])
def test_sql_deallocates_what_the_protocol_prepared(servers: int, sql: str) -> None:
    house = House(1, servers)
    for _ in range(10):
        heard = told(house, 0, parse("s", "select 1") + SYNC + query("DEALLOCATE s"))
        assert b"DEALLOCATE\0" in heard
        assert b"26000" in told(house, 0, run("s"))
        assert b"26000" in told(house, 0, query("DEALLOCATE s"))
    shared = Shared(10)
    client, server = Member(shared, client=True), Member(shared, client=False)
    let_pass(client, server, parse("s", "select 1") + SYNC, from_client=True)
    answer = message("3") + message("1") + message("Z", b"I")
    let_pass(client, server, answer, from_client=False)
    on = let_pass(client, server, query(sql), from_client=True).on
    assert on.startswith(b"Q") and b'DEALLOCATE "_tp' in on


@pytest.mark.parametrize("sql", ["DEALLOCATE ALL", "DEALLOCATE other", "drop table s", "d"])
def test_other_queries_are_left_alone(sql: str) -> None:
    house = House(1, 1)
    told(house, 0, parse("s", "select 1") + SYNC)
    shared = house.shared
    server = Member(shared, client=False)
    passed = let_pass(house.clients[0].member, server, query(sql), from_client=True)
    assert passed.on == query(sql)


def test_a_server_keeps_no_more_than_its_limit() -> None:
    house = House(1, 1, limit=10)
    for i in range(50):
        told(house, 0, parse(f"s{i}", f"select {i}") + SYNC)
    assert len(house.servers[0].backend.prepared) == 10
    for i in range(50):
        assert f"select {i}".encode() in told(house, 0, run(f"s{i}"))
    assert len(house.servers[0].backend.prepared) == 10


def test_a_server_keeps_no_more_than_its_limit_in_a_pipeline_either() -> None:
    house = House(1, 1, limit=10)
    told(house, 0, b"".join(parse(f"s{i}", f"select {i}") + SYNC for i in range(50)))
    assert len(house.servers[0].backend.prepared) == 10
    told(house, 0, b"".join(run(f"s{i}") for i in range(50)))
    assert len(house.servers[0].backend.prepared) == 10


def test_a_large_unnamed_statement_holds_as_long_as_the_server_is_kept() -> None:
    house = House(2, 1)
    large = "select " + "x" * 100_000
    told(house, 0, query("begin") + parse("", large) + SYNC)
    assert b"xxx" in told(house, 0, run(""))
    told(house, 0, query("commit") + parse("", large) + SYNC)
    assert house.clients[0].server is None
    # The server still has it, and nobody is to bind it.
    client, server = house.clients[1].member, house.servers[0].member
    assert let_pass(client, server, run(""), from_client=True).on == close("", "S") + run("")


def test_a_malformed_parse_is_for_the_server_to_refuse() -> None:
    shared = Shared(10)
    client, server = Member(shared, client=True), Member(shared, client=False)
    for body in (b"s\0select 1\0", b"s\0select 1\0\0\1", b"s\0select 1", b"s", b""):
        passed = let_pass(client, server, message("P", body), from_client=True)
        assert passed.on == message("P", body)


@pytest.mark.parametrize("size", [16 << 20])
def test_a_statement_too_large_to_share_is_a_violation(size: int) -> None:
    shared = Shared(10)
    client, server = Member(shared, client=True), Member(shared, client=False)
    head = b"P" + struct.pack("!I", size + 100) + b"s\0select 1"
    passed = let_pass(client, server, head, from_client=True)
    assert passed.verdict == "BAD"
    assert passed.why == "a prepared statement is too large"


# -- by chance -----------------------------------------------------------------------------

NAMES = ("a", "b", "_tp10", "")
TEXTS = ("select 1", "select 2", "select 3", "bad", "fail", "begin", "commit", "rollback")


def request(rnd: Random) -> bytes:
    name, text = rnd.choice(NAMES), rnd.choice(TEXTS)
    portal = rnd.choice(("", "", "p"))
    choices = (
        parse(name, text),
        bind(name, portal, wrong=rnd.random() < 0.1),
        bind(name, portal) + execute(portal),
        describe(name),
        describe(portal, "P"),
        execute(portal),
        close(name),
        close(portal, "P"),
        FLUSH,
    )
    return rnd.choices(choices, (4, 2, 6, 2, 1, 1, 2, 1, 1))[0]


def batch(rnd: Random) -> bytes:
    if rnd.random() < 0.2:
        ends = ("discard all", "deallocate all") if rnd.random() < 0.2 else ()
        return query(rnd.choice((*TEXTS, *ends, "DEALLOCATE a", 'DEALLOCATE "b"')))
    return b"".join(request(rnd) for _ in range(rnd.randint(1, 6))) + SYNC


@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 100]),
    st.sampled_from([1, 7, 40, 1000]),
)
def test_nobody_notices_the_others(
    seed: int, clients: int, servers: int, limit: int, chunk: int
) -> None:
    house = House(clients, servers, limit=limit, seed=seed)
    house.chunk = chunk
    rnd = Random(seed + 1)
    for _ in range(12):
        for client in house.clients:
            for _ in range(rnd.randint(0, 3)):
                client.say(batch(rnd))
        # An open transaction keeps its server: those who wait for one would wait for ever.
        for client in house.clients:
            client.say(query("rollback"))
        house.settle()
    house.close()

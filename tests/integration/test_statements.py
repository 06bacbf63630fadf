"""Prepared statements in transaction mode, beside the same on a direct connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from random import Random
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.integration.conftest import MakePooler
from tests.support.client import SYNC, Client, execute, fields, message, query
from tests.support.pooler import PoolerProcess, eventually
from tests.support.postgres import EmbeddedPostgres

CLIENTS = 4
SERVERS = 2
ROUNDS = 100
MANY = 30_000
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


@pytest.fixture
def few(start: MakePooler) -> PoolerProcess:
    """Many clients over few servers, each of which keeps hardly any statement."""
    return start(max_servers=SERVERS, mode="transaction", max_prepared_statements=3)


# -- by chance, beside a direct connection -------------------------------------------------

NAMES = ("a", "b", "_tp10", "")
TEXTS = (
    "SELECT 1",
    "SELECT 'two' AS two",
    "SELECT generate_series(1, 3)",
    "SELECT 1/0",
    "SELEC 1",
    "SELECT * FROM no_such_table",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "",
)


def _parse(name: str, text: str) -> bytes:
    return message("P", f"{name}\0{text}\0".encode() + bytes(2))


def _bind(name: str, portal: str, *, wrong: bool = False) -> bytes:
    values = b"\0\0\0\1\0\0\0\0011" if wrong else bytes(4)
    return message("B", f"{portal}\0{name}\0".encode() + values + bytes(2))


def _request(rnd: Random) -> bytes:
    name, text, portal = rnd.choice(NAMES), rnd.choice(TEXTS), rnd.choice(("", "", "p"))
    choices = (
        _parse(name, text),
        _bind(name, portal, wrong=rnd.random() < 0.1),
        _bind(name, portal) + execute(portal),
        message("D", f"S{name}\0".encode()),
        message("D", f"P{portal}\0".encode()),
        message("E", f"{portal}\0".encode() + b"\0\0\0\2"),
        message("C", f"S{name}\0".encode()),
        message("C", f"P{portal}\0".encode()),
        message("H"),
    )
    return rnd.choices(choices, (4, 2, 6, 2, 1, 1, 2, 1, 1))[0]


def _batch(rnd: Random) -> bytes:
    if rnd.random() < 0.2:
        ends = ("DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE a", 'deallocate prepare "b";')
        return query(rnd.choice(ends if rnd.random() < 0.2 else TEXTS))
    return b"".join(_request(rnd) for _ in range(rnd.randint(1, 6))) + SYNC


def _answers(client: Client, batches: int) -> list[tuple[str, Any]]:
    """Messages as they came; of errors not where in PostgreSQL's source they were raised.

    In an aborted transaction that may differ: a statement that is not there yet is refused when it
    is prepared, and not when it is bound.
    """
    found = list[tuple[str, Any]]()
    while batches:
        kind, body = client.message()
        if kind == "E":
            found.append((kind, {k: v for k, v in fields(body).items() if k not in "FLR"}))
        else:
            found.append((kind, body))
        batches -= kind == "Z"
    return found


def _segments(answers: list[tuple[str, Any]]) -> list[list[tuple[str, Any]]]:
    """Up to and with each ReadyForQuery."""
    found: list[list[tuple[str, Any]]] = [[]]
    for answer in answers:
        found[-1].append(answer)
        if answer[0] == "Z":
            found.append([])
    return found[:-1]


def _aborted(segment: list[tuple[str, Any]]) -> bool:
    """In an aborted transaction a statement that is not on this server cannot be prepared there."""
    refused = any(kind == "E" and body["C"] == "25P02" for kind, body in segment)
    return refused and segment[-1] == ("Z", b"E")


def _check(heard: list[tuple[str, Any]], wanted: list[tuple[str, Any]]) -> None:
    before = b"I"
    ours, theirs = _segments(heard), _segments(wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert one == other or (before == b"E" and _aborted(one) and other[-1] == one[-1])
        before = one[-1][1]


@pytest.fixture
def pairs(few: PoolerProcess, pg: EmbeddedPostgres, user: str) -> Iterator[list[Any]]:
    """Clients of the pooler, each with a direct connection beside it."""
    made = []
    try:
        for _ in range(CLIENTS):
            made.append((Client.log_in(few.port, user=user), Client.log_in(pg.port, user=user)))
        yield made
    finally:
        for pair in made:
            for client in pair:
                client.close()


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_that_of_a_direct_connection(pairs: list[Any], seed: int) -> None:
    rnd = Random(seed)
    for _ in range(ROUNDS):
        # An open transaction keeps its server, so each ends what it may have begun.
        said = [[_batch(rnd) for _ in range(rnd.randint(0, 3))] for _ in pairs]
        for (through, direct), batches in zip(pairs, said, strict=True):
            for client in (through, direct):
                client.send(b"".join(batches) + query("ROLLBACK"))
        for (through, direct), batches in zip(pairs, said, strict=True):
            heard, wanted = (_answers(each, len(batches) + 1) for each in (through, direct))
            _check(heard, wanted)


# -- what drivers do by themselves ---------------------------------------------------------


def test_psycopg_prepares_what_it_repeats(few: PoolerProcess, user: str) -> None:
    place = few.dsn("postgres", user=user)
    with psycopg.connect(place, autocommit=True) as one, psycopg.connect(place) as other:
        for n in range(30):
            for conn in (one, other):
                assert conn.execute("SELECT %s + 1", [n]).fetchone() == (n + 1,)
                assert conn.execute("SELECT %s || 'x'", [str(n)]).fetchone() == (f"{n}x",)
                conn.commit()


def test_asyncpg_keeps_its_statement_cache(few: PoolerProcess, user: str) -> None:
    async def client(number: int) -> None:
        conn = await asyncpg.connect(**few.place | {"user": user}, database="postgres")
        try:
            for n in range(20):
                assert await conn.fetchval(f"SELECT $1::int + {n % 5}", number) == number + n % 5
        finally:
            await conn.close()

    async def main() -> None:
        await asyncio.gather(*(client(number) for number in range(8)))

    asyncio.run(main())


def test_a_changed_table_is_prepared_again(few: PoolerProcess, user: str) -> None:
    """After DDL: PostgreSQL's 0A000, as on a direct connection, and a new statement works."""
    with Client.log_in(few.port, user=user) as client:
        client.query("CREATE TABLE changing (a int)")
        client.send(_parse("s", "SELECT * FROM changing") + SYNC)
        client.result()
        client.query("ALTER TABLE changing ADD b int")
        client.send(_bind("s", "") + execute() + SYNC)
        (error,) = client.result().errors
        assert (error["C"], error["M"]) == ("0A000", "cached plan must not change result type")
        client.send(message("C", b"Ss\0") + _parse("s", "SELECT * FROM changing") + SYNC)
        assert not client.result().errors
        client.send(_bind("s", "") + execute() + SYNC)
        assert not client.result().errors


def test_statements_are_off_where_the_setting_is_0(start: MakePooler, user: str) -> None:
    pooler = start(max_servers=1, mode="transaction", max_prepared_statements=0)
    with Client.log_in(pooler.port, user=user) as client:
        client.send(_parse("mine", "SELECT 1") + SYNC)
        client.result()
        name = client.query("SELECT name FROM pg_prepared_statements").value
        assert name == "mine"


def test_thirty_thousand_statements_are_given_back(start: MakePooler, user: str) -> None:
    """Bounded while their client lives (60 MB would be 2 kB each), and gone when it has left."""
    pooler = start(max_servers=1, mode="transaction", max_prepared_statements=10)
    with Client.log_in(pooler.port, user=user) as client:
        client.query("SELECT 1")
        before = pooler.rss()
        for first in range(0, MANY, 100):
            names = range(first, first + 100)
            texts = (_parse(f"s{n}", f"SELECT {n}, 'so that each is long enough'") for n in names)
            client.send(b"".join(texts) + SYNC)
            assert not client.result().errors
        client.send(_bind(f"s{MANY // 2}", "") + execute() + SYNC)
        assert client.result().rows[0][0] == str(MANY // 2)
        grown = pooler.rss() - before
    if not SANITIZED:
        assert grown < 60 << 20
        eventually(lambda: pooler.rss() < before + (2 << 20), "the memory is given back")

"""Cancelling."""

from __future__ import annotations

import time

from tests.support.client import SYNC, bind, cancel, execute, parse, query
from tests.transparency.actor import Actor
from tests.transparency.stage import Stage
from tests.transparency.table import CANCEL, row

SLEEP = "SELECT pg_sleep(10)"


def _cancelled(client: Actor, watcher: Actor) -> None:
    """The query of *client* is cancelled when it runs, and heard to its end."""
    running = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '{SLEEP}%'"
    running += " AND state = 'active'"
    deadline = time.monotonic() + 5
    while watcher.value(running) != "t" and time.monotonic() < deadline:
        time.sleep(0.005)
    client.cancel()
    client.until("Z")


@row(CANCEL)
def cancelled_query(s: Stage) -> None:
    """A query is cancelled: 57014, and the client goes on"""
    a, b = s.client("a"), s.client("b")
    a.send(query(SLEEP))
    _cancelled(a, b)
    a("SELECT 1")


@row(CANCEL, blocks=True)
def cancelled_in_transaction(s: Stage) -> None:
    """A cancelled query fails its transaction"""
    a, b = s.client("a"), s.client("b")
    a("BEGIN")
    a.send(query(SLEEP))
    _cancelled(a, b)
    a("SELECT 1", "ROLLBACK", "SELECT 1")


@row(CANCEL)
def cancelled_pipeline(s: Stage) -> None:
    """A cancelled statement in a pipeline: the rest is skipped"""
    a, b = s.client("a"), s.client("b")
    rest = parse("SELECT 1") + bind() + execute()
    a.send(parse(SLEEP) + bind() + execute() + rest + SYNC)
    _cancelled(a, b)
    a("SELECT 1")


@row(CANCEL)
def cancelled_idle(s: Stage) -> None:
    """Cancelling when nothing runs does nothing; not to another's query, either"""
    a, b = s.client("a"), s.client("b")
    a("SELECT 1")
    b.send(query("SELECT pg_sleep(0.1)"))
    a.cancel()
    a("SELECT 2")
    b.until("Z")


@row(CANCEL)
def cancelled_with_wrong_key(s: Stage) -> None:
    """A wrong key cancels nothing"""
    a = s.client()
    a.send(query("SELECT pg_sleep(0.1)"))
    number, secret = a.client.key
    cancel(s.port, number, bytes([secret[0] ^ 1]) + secret[1:])
    a.until("Z")

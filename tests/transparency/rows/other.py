"""Other state of a session."""

from __future__ import annotations

from tests.transparency.stage import Stage
from tests.transparency.table import DIFFERS, OTHER, row


@row(OTHER, pins="LOAD")
def load(s: Stage) -> None:
    """LOAD of a library"""
    a = s.client()
    a("LOAD 'plpgsql'", "SET plpgsql.extra_warnings = 'all'", "SHOW plpgsql.extra_warnings")


@row(OTHER, pins="asked for")
def pinned_by_oneself(s: Stage) -> None:
    """SET trio_pooler.pin = on, until it is off"""
    a = s.client()
    a("SET trio_pooler.pin = on", "SHOW trio_pooler.pin")
    pids = {a.value("SELECT pg_backend_pid()") for _ in range(3)}
    s.note("servers", len(pids))
    a("SET trio_pooler.pin = off", "SHOW trio_pooler.pin")


@row(
    OTHER,
    differs="The last value belongs to the server's session. Ask in the same transaction, use "
    "`RETURNING`, or say `SET trio_pooler.pin = on` before.",
)
def currval(s: Stage) -> None:
    """currval() and lastval() in a later transaction"""
    a = s.client()
    a("CREATE SEQUENCE q", "SELECT nextval('q')", "SELECT currval('q')", "SELECT lastval()")


@row(OTHER, blocks=True)
def currval_in_transaction(s: Stage) -> None:
    """currval() and lastval() in the same transaction; serial columns"""
    a = s.client()
    a("CREATE TABLE t (id serial, v int)", "BEGIN", "INSERT INTO t (v) VALUES (7)")
    a("SELECT currval('t_id_seq')", "SELECT lastval()", "COMMIT")
    a("INSERT INTO t (v) VALUES (8) RETURNING id", "INSERT INTO t (v) VALUES (9); SELECT lastval()")


@row(OTHER, transaction="pinned: setseed", statement="pinned: setseed")
def seeded_random(s: Stage) -> None:
    """random() in a later transaction than setseed()"""
    a = s.client()
    a("SELECT setseed(0.5)", "SELECT random()")


@row(
    OTHER,
    session=DIFFERS,
    differs="It is the server's. What `pg_cancel_backend` and `pg_stat_activity` are asked about "
    "in the same transaction is right.",
)
def backend_pid(s: Stage) -> None:
    """pg_backend_pid() is that of BackendKeyData, in every transaction"""
    a = s.client()
    pids = [a.value("SELECT pg_backend_pid()") for _ in range(3)]
    s.note("as told", [pid == str(a.client.key[0]) for pid in pids])


@row(OTHER, blocks=True)
def discard(s: Stage) -> None:
    """DISCARD PLANS, SEQUENCES, TEMP and ALL; in a transaction 25001"""
    a = s.client()
    a("DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP", "DISCARD ALL", "SELECT 1")
    a("BEGIN", "DISCARD ALL", "ROLLBACK")


@row(OTHER, blocks=True)
def large_objects(s: Stage) -> None:
    """Large objects, in a transaction and by later ones"""
    a = s.client()
    number = a.value("SELECT lo_from_bytea(0, 'content')")
    a("BEGIN")
    s.note("descriptor", a.value(f"SELECT lo_open({number}, 262144)"))
    a("SELECT loread(0, 3)", "COMMIT")
    s.note("content", a.value(f"SELECT convert_from(lo_get({number}), 'UTF8')"))
    s.note("gone", a.value(f"SELECT lo_unlink({number})"))


@row(OTHER)
def explain(s: Stage) -> None:
    """EXPLAIN with a planner's setting"""
    a = s.client()
    a("CREATE TABLE t (v int PRIMARY KEY)", "SET enable_indexscan = off")
    a("SET enable_bitmapscan = off", "EXPLAIN (COSTS off) SELECT FROM t WHERE v = 1")

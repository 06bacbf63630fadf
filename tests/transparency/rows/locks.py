"""Locks."""

from __future__ import annotations

from tests.transparency.stage import Stage
from tests.transparency.table import LOCKS, NAME_IT, NAMED, UNSEEN, row

ADVISORY = "advisory lock"
# By database: another client's, too.
HELD = "SELECT mode, objid FROM pg_locks WHERE locktype = 'advisory' ORDER BY objid"


@row(LOCKS, pins=ADVISORY)
def advisory_lock(s: Stage) -> None:
    """pg_advisory_lock, held until pg_advisory_unlock"""
    a, b = s.client("a"), s.client("b")
    a("SELECT pg_advisory_lock(1)", "SELECT 1")
    b("SELECT pg_try_advisory_lock(1)", HELD)
    a("SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock(1)")
    b("SELECT pg_try_advisory_lock(1)", "SELECT pg_advisory_unlock(1)", HELD)


@row(LOCKS, pins=ADVISORY)
def advisory_lock_twice(s: Stage) -> None:
    """An advisory lock taken twice is to be given back twice"""
    a, b = s.client("a"), s.client("b")
    a("SELECT pg_advisory_lock(1), pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)")
    b("SELECT pg_try_advisory_xact_lock(1)")
    a("SELECT pg_advisory_unlock(1)")
    b("SELECT pg_try_advisory_xact_lock(1)")


@row(LOCKS, pins=ADVISORY)
def advisory_try_lock(s: Stage) -> None:
    """pg_try_advisory_lock of two keys, taken and refused"""
    a, b = s.client("a"), s.client("b")
    a("SELECT pg_try_advisory_lock(1, 2)")
    b("SELECT pg_try_advisory_lock(1, 2)")
    a("SELECT pg_advisory_unlock(1, 2)")


@row(LOCKS, pins=ADVISORY)
def shared_advisory_lock(s: Stage) -> None:
    """pg_advisory_lock_shared: shared, and exclusive"""
    a, b = s.client("a"), s.client("b")
    a("SELECT pg_advisory_lock_shared(1)")
    b("SELECT pg_try_advisory_lock_shared(1)", "SELECT pg_advisory_unlock_shared(1)")
    b("SELECT pg_try_advisory_lock(1)")
    a(HELD, "SELECT pg_advisory_unlock_shared(1)")


@row(LOCKS, pins=ADVISORY)
def advisory_unlock_all(s: Stage) -> None:
    """pg_advisory_unlock_all"""
    a, b = s.client("a"), s.client("b")
    a("SELECT pg_advisory_lock(n) FROM generate_series(1, 3) n", HELD)
    a("SELECT pg_advisory_unlock_all()")
    b(HELD)


@row(LOCKS, pins=ADVISORY, blocks=True)
def advisory_lock_rolled_back(s: Stage) -> None:
    """An advisory lock of session level outlives a rollback"""
    a, b = s.client("a"), s.client("b")
    a("BEGIN", "SELECT pg_advisory_lock(1)", "ROLLBACK")
    b(HELD)
    a("SELECT pg_advisory_unlock(1)")


@row(LOCKS, blocks=True)
def advisory_transaction_lock(s: Stage) -> None:
    """pg_advisory_xact_lock ends with its transaction"""
    a, b = s.client("a"), s.client("b")
    a("BEGIN", "SELECT pg_advisory_xact_lock(1)")
    b("SELECT pg_try_advisory_xact_lock(1)")
    a("COMMIT")
    b("SELECT pg_try_advisory_xact_lock(1)", HELD)


@row(
    LOCKS,
    differs=f"{UNSEEN} {NAME_IT}",
)
def advisory_lock_in_function(s: Stage) -> None:
    """A function that takes an advisory lock"""
    a = s.client()
    a("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(1) $$")
    a("SELECT f()", "SELECT 1", "SELECT pg_advisory_unlock(1)")


@row(LOCKS, pins="asked for")
def advisory_lock_in_function_pinned(s: Stage) -> None:
    """The same, after SET trio_pooler.pin = on"""
    a = s.client()
    a("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(1) $$")
    a("SET trio_pooler.pin = on")
    a("SELECT f()", "SELECT 1", "SELECT pg_advisory_unlock(1)", "SET trio_pooler.pin = off")


@row(LOCKS, pins="pin_on, advisory lock")
def advisory_lock_in_named_function(s: Stage) -> None:
    """The same, with the function's name in the setting `pin_on`, until DISCARD ALL"""
    a, b = s.client("a"), s.client("b")
    a(f"CREATE FUNCTION {NAMED}() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(1) $$")
    a(f"SELECT {NAMED}()", "SELECT 1", "SELECT pg_advisory_unlock(1)", f"SELECT {NAMED}()")
    a("DISCARD ALL")
    b(HELD)


@row(LOCKS, blocks=True)
def table_lock(s: Stage) -> None:
    """LOCK TABLE, and lock_timeout of who waits for it: 55P03"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TABLE t (v int)", "BEGIN", "LOCK TABLE t")
    b("SET lock_timeout = 30", "SELECT 1", "TABLE t")
    a("COMMIT")
    b("TABLE t")


@row(LOCKS, blocks=True)
def row_lock(s: Stage) -> None:
    """SELECT … FOR UPDATE, NOWAIT and SKIP LOCKED"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TABLE t AS SELECT 1 AS v", "BEGIN", "SELECT * FROM t FOR UPDATE")
    b("SELECT * FROM t FOR UPDATE SKIP LOCKED", "SELECT * FROM t FOR UPDATE NOWAIT")
    a("COMMIT")
    b("SELECT * FROM t FOR UPDATE NOWAIT")

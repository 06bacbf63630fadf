"""Cursors and portals."""

from __future__ import annotations

from tests.support.client import FLUSH, SYNC, bind, execute, parse
from tests.transparency.requests import close_portal, describe_portal, execute_rows
from tests.transparency.stage import Stage
from tests.transparency.table import CURSORS, row

TEN = "SELECT generate_series(1, 10) AS n"


@row(CURSORS, blocks=True)
def cursor(s: Stage) -> None:
    """DECLARE, FETCH, MOVE and CLOSE in a transaction"""
    a = s.client()
    a("BEGIN", f"DECLARE c SCROLL CURSOR FOR {TEN}", "FETCH 3 c", "MOVE 2 c", "FETCH BACKWARD 1 c")
    a("CLOSE c", "FETCH c", "ROLLBACK")


@row(CURSORS, blocks=True)
def cursor_after_transaction(s: Stage) -> None:
    """A cursor ends with its transaction: 34000"""
    a = s.client()
    a("BEGIN", f"DECLARE c CURSOR FOR {TEN}", "COMMIT", "FETCH c")
    a(f"DECLARE c CURSOR FOR {TEN}")


@row(CURSORS, pins="cursor WITH HOLD", blocks=True)
def cursor_with_hold(s: Stage) -> None:
    """A cursor WITH HOLD, read after its transaction, until CLOSE"""
    a = s.client()
    a("BEGIN", f"DECLARE c CURSOR WITH HOLD FOR {TEN}", "FETCH 1 c", "COMMIT", "FETCH 2 c")
    a("SELECT name, is_holdable FROM pg_cursors", "CLOSE c", "FETCH c", "SELECT FROM pg_cursors")


@row(CURSORS, pins="cursor WITH HOLD")
def cursor_with_hold_alone(s: Stage) -> None:
    """A cursor WITH HOLD, declared outside of a transaction, until CLOSE ALL"""
    a = s.client()
    a(f"DECLARE c CURSOR WITH HOLD FOR {TEN}", "FETCH 2 c", "CLOSE ALL", "FETCH c")


@row(CURSORS, blocks=True)
def cursor_with_hold_rolled_back(s: Stage) -> None:
    """A cursor WITH HOLD, of a transaction that is rolled back"""
    a = s.client()
    a("BEGIN", f"DECLARE c CURSOR WITH HOLD FOR {TEN}", "ROLLBACK", "FETCH c")


@row(CURSORS, blocks=True)
def cursor_of_function(s: Stage) -> None:
    """A cursor that a function returns"""
    a = s.client()
    a(
        "CREATE FUNCTION f() RETURNS refcursor LANGUAGE plpgsql AS"
        f" $$ DECLARE c refcursor := 'mine'; BEGIN OPEN c FOR {TEN}; RETURN c; END $$"
    )
    a("BEGIN", "SELECT f()", "FETCH 2 mine", "COMMIT")


@row(CURSORS, blocks=True)
def binary_cursor(s: Stage) -> None:
    """A BINARY cursor; WHERE CURRENT OF"""
    a = s.client()
    a("CREATE TABLE t AS SELECT 1 AS v", "BEGIN", "DECLARE c BINARY CURSOR FOR TABLE t")
    a("FETCH c", "UPDATE t SET v = 2 WHERE CURRENT OF c", "COMMIT", "TABLE t")


@row(CURSORS, blocks=True)
def limited_portal(s: Stage) -> None:
    """Execute with a limit of rows: PortalSuspended, and the rest"""
    a = s.client()
    a("BEGIN")
    a.batch(parse(TEN), bind(portal="p"), describe_portal("p"), execute_rows(3, "p"), SYNC)
    a.batch(execute_rows(3, "p"), SYNC)
    a.batch(execute("p"), SYNC)
    a.batch(execute("p"), SYNC)
    a("COMMIT")


@row(CURSORS)
def portal_before_sync(s: Stage) -> None:
    """A portal read in parts, with Flush and without a transaction"""
    a = s.client()
    a.send(parse(TEN) + bind(portal="p") + execute_rows(4, "p") + FLUSH)
    a.until("s")
    a.idle()
    a.send(execute_rows(4, "p") + FLUSH)
    a.until("s")
    a.batch(execute("p"), SYNC)


@row(CURSORS)
def portal_after_sync(s: Stage) -> None:
    """A portal ends with its transaction: 34000"""
    a = s.client()
    a.batch(parse(TEN), bind(portal="p"), execute_rows(3, "p"), SYNC)
    a.batch(execute("p"), SYNC)
    a.batch(describe_portal("p"), SYNC)


@row(CURSORS, blocks=True)
def two_portals(s: Stage) -> None:
    """Two portals read by turns; Close of one"""
    a = s.client()
    a("BEGIN")
    a.batch(parse(TEN, "s"), bind(statement="s", portal="p"), bind(statement="s", portal="q"), SYNC)
    a.batch(execute_rows(1, "p"), execute_rows(2, "q"), execute_rows(1, "p"), SYNC)
    a.batch(close_portal("p"), execute_rows(1, "q"), execute("p"), SYNC)
    a("ROLLBACK")


@row(CURSORS, blocks=True)
def duplicate_portal(s: Stage) -> None:
    """A portal's name that is in use: 42P03"""
    a = s.client()
    a("BEGIN")
    a.batch(parse(TEN, "s"), bind(statement="s", portal="p"), bind(statement="s", portal="p"), SYNC)
    a("ROLLBACK")


@row(CURSORS, blocks=True)
def portal_and_cursor(s: Stage) -> None:
    """A cursor of SQL read by Execute, a portal read by FETCH"""
    a = s.client()
    a("BEGIN", f"DECLARE c CURSOR FOR {TEN}")
    a.batch(execute_rows(2, "c"), parse(TEN), bind(portal="p"), SYNC)
    a("FETCH 1 p", "FETCH 1 c", "COMMIT")

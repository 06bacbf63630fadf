"""Temporary objects."""

from __future__ import annotations

from tests.transparency.stage import Stage
from tests.transparency.table import NAME_IT, TEMPORARY, UNSEEN, row

OBJECT = "temporary object"


@row(TEMPORARY, pins=OBJECT)
def temporary_table(s: Stage) -> None:
    """CREATE TEMP TABLE, used until DROP TABLE"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TEMP TABLE t (v int)", "INSERT INTO t VALUES (1)", "TABLE t")
    b("TABLE t")
    a("DROP TABLE t", "TABLE t", "SELECT 1")


@row(TEMPORARY, pins=OBJECT)
def temporary_table_as(s: Stage) -> None:
    """SELECT INTO TEMP, CREATE TEMPORARY TABLE … AS"""
    a = s.client()
    a("SELECT 1 AS v INTO TEMP t", "CREATE TEMPORARY TABLE u AS TABLE t", "TABLE u")
    a("DROP TABLE t, u")


@row(TEMPORARY, blocks=True)
def dropped_on_commit(s: Stage) -> None:
    """ON COMMIT DROP"""
    a = s.client()
    a("BEGIN", "CREATE TEMP TABLE t (v int) ON COMMIT DROP", "TABLE t", "COMMIT", "TABLE t")


@row(TEMPORARY, pins=OBJECT)
def emptied_on_commit(s: Stage) -> None:
    """ON COMMIT DELETE ROWS"""
    a = s.client()
    a("CREATE TEMP TABLE t (v int) ON COMMIT DELETE ROWS", "INSERT INTO t VALUES (1)", "TABLE t")


@row(TEMPORARY, blocks=True)
def temporary_table_rolled_back(s: Stage) -> None:
    """CREATE TEMP TABLE in a transaction that is rolled back"""
    a = s.client()
    a("BEGIN", "CREATE TEMP TABLE t (v int)", "ROLLBACK", "TABLE t")


@row(TEMPORARY, pins=OBJECT)
def hiding_table(s: Stage) -> None:
    """A temporary table that hides a permanent one of the same name"""
    a, b = s.client("a"), s.client("b")
    b("CREATE TABLE t AS SELECT 'permanent' AS v")
    a("CREATE TEMP TABLE t AS SELECT 'temporary' AS v", "TABLE t")
    b("TABLE t")
    a("DISCARD TEMP", "TABLE t")


@row(TEMPORARY, pins=OBJECT)
def temporary_by_schema(s: Stage) -> None:
    """CREATE TABLE pg_temp.t"""
    a = s.client()
    a("CREATE TABLE pg_temp.t AS SELECT 1 AS v", "TABLE pg_temp.t", "DISCARD ALL", "TABLE t")


@row(TEMPORARY, pins=OBJECT)
def temporary_view(s: Stage) -> None:
    """CREATE TEMP VIEW"""
    a = s.client()
    a("CREATE TEMP VIEW v AS SELECT 'seen' AS v", "TABLE v", "DROP VIEW v", "TABLE v")


@row(TEMPORARY, pins=OBJECT)
def temporary_sequence(s: Stage) -> None:
    """CREATE TEMP SEQUENCE"""
    a = s.client()
    a("CREATE TEMP SEQUENCE q START 7", "SELECT nextval('q')", "SELECT nextval('q')")
    a("DROP SEQUENCE q")


@row(TEMPORARY, pins=OBJECT)
def temporary_function(s: Stage) -> None:
    """A function, a type and a domain in pg_temp"""
    a = s.client()
    a("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 7'", "SELECT pg_temp.f()")
    a("CREATE DOMAIN pg_temp.d AS int CHECK (value > 1)", "SELECT 1::pg_temp.d")
    a("DROP FUNCTION pg_temp.f()", "DROP DOMAIN pg_temp.d", "SELECT pg_temp.f()")


@row(TEMPORARY, pins=OBJECT)
def temporary_in_do(s: Stage) -> None:
    """CREATE TEMP TABLE in a DO block"""
    a = s.client()
    a("DO $$ BEGIN CREATE TEMP TABLE t AS SELECT 7 AS v; END $$", "TABLE t", "DROP TABLE t")


@row(
    TEMPORARY,
    differs=f"{UNSEEN} {NAME_IT}",
)
def temporary_in_function(s: Stage) -> None:
    """A function that makes a temporary table"""
    a = s.client()
    a(
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql"
        " AS $$ BEGIN CREATE TEMP TABLE t AS SELECT 7 AS v; END $$"
    )
    a("SELECT f()", "TABLE t", "DROP TABLE t")

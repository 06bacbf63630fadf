"""The protocol."""

from __future__ import annotations

from tests.support.client import FLUSH, SYNC, bind, execute, parse, query
from tests.transparency.requests import (
    BINARY,
    bind_binary,
    describe,
    describe_portal,
    function_call,
)
from tests.transparency.stage import Stage
from tests.transparency.table import PROTOCOL, row


@row(PROTOCOL)
def empty_query(s: Stage) -> None:
    """Empty queries, in both protocols"""
    a = s.client()
    a("", " ; -- nothing", ";;SELECT 1;;")
    a.batch(parse(""), describe(), bind(), describe_portal(), execute(), SYNC)


@row(PROTOCOL)
def two_results(s: Stage) -> None:
    """Two results of one query"""
    s.client()("SELECT 1 AS a; SELECT 'x' AS b, 'y' AS c", "CREATE TABLE t (); TABLE t; SELECT")


@row(PROTOCOL)
def large_query(s: Stage) -> None:
    """A query of 2 MB"""
    s.client()(f"SELECT length('{'x' * 2_000_000}')")


@row(PROTOCOL)
def large_parameter(s: Stage) -> None:
    """A parameter of 2 MB, and a value of 2 MB"""
    a = s.client()
    a.batch(parse("SELECT $1::text"), bind(b"y" * 2_000_000), execute(), SYNC)


@row(PROTOCOL)
def large_result(s: Stage) -> None:
    """A result of 20,000 rows"""
    s.client()("SELECT n, md5(n::text) FROM generate_series(1, 20000) n")


@row(PROTOCOL)
def wide_result(s: Stage) -> None:
    """A result of 1,600 columns, NULLs among them"""
    s.client()("SELECT " + ", ".join(f"nullif({n} % 3, 0) AS c{n}" for n in range(1600)))


@row(PROTOCOL, blocks=True)
def function_call_message(s: Stage) -> None:
    """FunctionCall: its result, and its error"""
    a = s.client()
    oid = int(a.value("SELECT 'pg_catalog.int4div(int,int)'::regprocedure::oid") or 0)
    a.batch(function_call(oid, b"\0\0\0\x2a", b"\0\0\0\2", form=BINARY))
    a.batch(function_call(oid, b"\0\0\0\1", bytes(4), form=BINARY))
    a.batch(function_call(oid, b"7", b"2"))
    a("BEGIN")
    a.batch(function_call(1, b""))
    a("ROLLBACK")


@row(PROTOCOL)
def flush_without_sync(s: Stage) -> None:
    """Flush without Sync: answers come, the transaction stays open"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TABLE t (v int)")
    a.send(parse("INSERT INTO t VALUES (1)") + bind() + execute() + FLUSH)
    a.until("C")
    b("TABLE t")
    a.idle()
    a.batch(SYNC)
    b("TABLE t")


@row(PROTOCOL)
def sync_alone(s: Stage) -> None:
    """Sync alone, and several"""
    s.client().batch(SYNC, SYNC, SYNC)


@row(PROTOCOL)
def flush_alone(s: Stage) -> None:
    """Flush alone is answered with nothing"""
    a = s.client()
    a.send(FLUSH)
    a.silent()
    a("SELECT 1")


@row(PROTOCOL)
def mixed_protocols(s: Stage) -> None:
    """Simple and extended queries in one batch"""
    a = s.client()
    one = parse("SELECT 1") + bind() + execute()
    a.batch(query("SELECT 2"), one + SYNC, query("SELECT 3"), query(""), one + SYNC)


@row(PROTOCOL, blocks=True)
def query_before_sync(s: Stage) -> None:
    """A simple query in the midst of a pipeline, before its Sync"""
    a = s.client()
    a("CREATE TABLE t (v int)")
    a.batch(parse("INSERT INTO t VALUES (1)"), bind(), execute(), query("SELECT 2"), SYNC)
    a("TABLE t")


@row(PROTOCOL)
def described_results(s: Stage) -> None:
    """Describe of portals: formats, types, tables; NoData"""
    a = s.client()
    a("CREATE TABLE t (a int, b numeric(5, 2), c timestamptz, d text[])")
    a.batch(parse("TABLE t"), bind(), describe_portal(), execute(), SYNC)
    a.batch(parse("TABLE t"), bind_binary(), describe_portal(), execute(), SYNC)
    a.batch(parse("INSERT INTO t (a) VALUES (1)"), bind(), describe_portal(), execute(), SYNC)


@row(PROTOCOL)
def tags(s: Stage) -> None:
    """Command tags"""
    a = s.client()
    a(
        "CREATE TABLE t (v int)",
        "INSERT INTO t VALUES (1), (2)",
        "UPDATE t SET v = 3",
        "DELETE FROM t",
    )
    a("MERGE INTO t USING (VALUES (1)) s (w) ON v = w WHEN NOT MATCHED THEN INSERT VALUES (w)")
    a("TRUNCATE t", "ALTER TABLE t ADD w int", "VALUES (1)", "SHOW work_mem", "EXPLAIN VALUES (1)")


@row(PROTOCOL)
def half_a_message(s: Stage) -> None:
    """A message that arrives in parts, while others work"""
    a = s.client()
    data = query("SELECT 'in parts'")
    a.idle()
    for part in (data[:1], data[1:3], data[3:12], data[12:]):
        a.client.send(part)
    a.until("Z")


@row(PROTOCOL)
def goodbye(s: Stage) -> None:
    """Terminate, with a query before it that is still done"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TABLE t (v int)", "INSERT INTO t VALUES (1)")
    a.client.terminate()
    b("TABLE t")

"""Errors and notices."""

from __future__ import annotations

from tests.support.client import FLUSH, SYNC, bind, execute, message, parse, query
from tests.transparency.requests import describe
from tests.transparency.stage import Stage
from tests.transparency.table import ERRORS, row


@row(ERRORS)
def fields_of_errors(s: Stage) -> None:
    """All fields of an error: position, hint, constraint, source"""
    a = s.client()
    a("SELEC 1", "SELECT 1/0", "SELECT lenght('x')", "CREATE TABLE t (v int CHECK (v > 0))")
    a("INSERT INTO t VALUES (0)", "SELECT 'x'::int", "TABLE nowhere")


@row(ERRORS)
def raised(s: Stage) -> None:
    """RAISE with a SQLSTATE, detail and hint of one's own"""
    a = s.client()
    a("DO $$ BEGIN RAISE 'mine' USING ERRCODE = 'XX123', DETAIL = 'd', HINT = 'h'; END $$")


@row(ERRORS)
def notices(s: Stage) -> None:
    """Notices and warnings, in their places between other messages"""
    a = s.client()
    a("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$; SELECT 1")
    a("DROP TABLE IF EXISTS nowhere", "SELECT 1 AS " + "x" * 70)


@row(ERRORS)
def silenced_notices(s: Stage) -> None:
    """client_min_messages, in effect in a later transaction"""
    a = s.client()
    a("SET client_min_messages = error", "SELECT 1", "DROP TABLE IF EXISTS nowhere")
    a("SET client_min_messages = notice", "SELECT 1", "DROP TABLE IF EXISTS nowhere")


@row(ERRORS)
def error_in_pipeline(s: Stage) -> None:
    """An error in a pipeline: all is skipped up to Sync"""
    a = s.client()
    one = parse("SELECT 1", "s") + bind(statement="s") + execute()
    bad = parse("SELECT 1/0") + bind() + execute()
    a.batch(bad, one, describe("s"), SYNC, bind(statement="s"), execute(), SYNC, one, SYNC)


@row(ERRORS)
def error_before_flush(s: Stage) -> None:
    """An error is sent at once; Flush after it is skipped"""
    a = s.client()
    a.send(parse("SELECT FROM nowhere") + FLUSH)
    a.until("E")
    a.send(parse("SELECT 1", "s") + FLUSH)
    a.silent()
    a.batch(SYNC)
    a.batch(bind(statement="s"), execute(), SYNC)


@row(ERRORS)
def query_in_skipped_pipeline(s: Stage) -> None:
    """A simple query among what is skipped"""
    a = s.client()
    a.send(parse("SELECT FROM nowhere") + query("SELECT 1") + SYNC)
    a.until("Z")
    a("SELECT 2")


@row(ERRORS)
def several_queries(s: Stage) -> None:
    """Simple queries sent without waiting, one of them wrong"""
    a = s.client()
    a.batch(query("SELECT 1"), query("SELECT 1/0"), query("SELECT 3"))


@row(ERRORS, blocks=True)
def timed_out_statement(s: Stage) -> None:
    """statement_timeout in a transaction: 57014"""
    a = s.client()
    a("BEGIN", "SET LOCAL statement_timeout = 30", "SELECT pg_sleep(10)", "ROLLBACK", "SELECT 1")


@row(ERRORS)
def terminated(s: Stage) -> None:
    """The server is terminated by the client's own query: one error, and the end"""
    a = s.client()
    a.send(query("SELECT pg_terminate_backend(pg_backend_pid())"))
    a.end()


@row(ERRORS, blocks=True)
def terminated_in_transaction(s: Stage) -> None:
    """The server is terminated while a transaction is open: one error, and the end"""
    a, b = s.client("a"), s.client("b")
    a("BEGIN")
    pid = a.value("SELECT pg_backend_pid()")
    b("SELECT 1")
    b.value(f"SELECT pg_terminate_backend({pid})")
    a.end()


@row(ERRORS, blocks=True)
def permission(s: Stage) -> None:
    """Missing permissions"""
    a = s.client()
    a("CREATE TABLE t (v int)", "BEGIN", f"SET LOCAL ROLE {s.role}", "TABLE t", "ROLLBACK")
    a("TABLE t")


@row(ERRORS)
def bad_text(s: Stage) -> None:
    """Bytes that are no text in the client's encoding: 22021"""
    a = s.client()
    a.batch(message("Q", b"SELECT '\xff'\0"))
    a.batch(parse("SELECT $1::text"), bind(b"a\xc3("), execute(), SYNC)
    a("SELECT 1")


@row(ERRORS, blocks=True)
def deadlock(s: Stage) -> None:
    """A serialization failure, and the transaction tried again"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TABLE t AS SELECT 1 AS v")
    a("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT sum(v) FROM t")
    b("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT sum(v) FROM t", "INSERT INTO t VALUES (2)")
    a("INSERT INTO t VALUES (3)", "COMMIT")
    b("COMMIT", "BEGIN", "INSERT INTO t VALUES (2)", "COMMIT", "SELECT sum(v) FROM t")

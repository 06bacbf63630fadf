"""Transactions."""

from __future__ import annotations

from tests.support.client import SYNC, bind, execute, parse, query
from tests.transparency.stage import Stage
from tests.transparency.table import TRANSACTIONS, row


@row(TRANSACTIONS, blocks=True)
def commit_and_rollback(s: Stage) -> None:
    """BEGIN, COMMIT and ROLLBACK"""
    a = s.client()
    a("CREATE TABLE t (v int)", "BEGIN", "INSERT INTO t VALUES (1)", "COMMIT")
    a("BEGIN", "INSERT INTO t VALUES (2)", "ROLLBACK", "TABLE t")


@row(TRANSACTIONS, blocks=True)
def one_server(s: Stage) -> None:
    """pg_backend_pid() is the same all through a transaction"""
    a = s.client()
    a("BEGIN")
    pids = {a.value("SELECT pg_backend_pid()")}
    a.idle()
    pids.add(a.value("SELECT pg_backend_pid()"))
    a("COMMIT")
    s.note("servers", len(pids))


@row(TRANSACTIONS, blocks=True)
def failed_transaction(s: Stage) -> None:
    """A failed transaction: 25P02 until its end"""
    a = s.client()
    a("BEGIN", "SELECT 1/0", "SELECT 1", "COMMIT", "SELECT 2")


@row(TRANSACTIONS, blocks=True)
def savepoints(s: Stage) -> None:
    """Savepoints"""
    a = s.client()
    a("BEGIN", "SAVEPOINT p", "SELECT 1/0", "ROLLBACK TO p", "SELECT 1", "COMMIT")


@row(TRANSACTIONS, blocks=True)
def chained(s: Stage) -> None:
    """COMMIT AND CHAIN, ROLLBACK AND CHAIN"""
    a = s.client()
    a("BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT AND CHAIN", "SHOW transaction_isolation")
    a("ROLLBACK AND CHAIN", "COMMIT", "COMMIT AND CHAIN")


@row(TRANSACTIONS, blocks=True)
def isolation(s: Stage) -> None:
    """Isolation levels, READ ONLY, DEFERRABLE"""
    a = s.client()
    a("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", "SHOW transaction_isolation")
    a("CREATE TABLE refused (a int)", "ROLLBACK", "SHOW transaction_isolation")
    a("START TRANSACTION READ ONLY", "SET TRANSACTION READ WRITE", "COMMIT")


@row(TRANSACTIONS, blocks=True)
def snapshot(s: Stage) -> None:
    """REPEATABLE READ sees the same while others write; 40001"""
    a, b = s.client("a"), s.client("b")
    b("CREATE TABLE t (v int)", "INSERT INTO t VALUES (1)")
    a("BEGIN ISOLATION LEVEL REPEATABLE READ", "TABLE t")
    b("UPDATE t SET v = 2")
    a("TABLE t", "UPDATE t SET v = 3", "ROLLBACK", "TABLE t")


@row(TRANSACTIONS, blocks=True)
def exported_snapshot(s: Stage) -> None:
    """pg_export_snapshot(), used by another client"""
    a, b = s.client("a"), s.client("b")
    a("CREATE TABLE t ()", "BEGIN ISOLATION LEVEL REPEATABLE READ")
    snapshot = a.value("SELECT pg_export_snapshot()")
    b("BEGIN ISOLATION LEVEL REPEATABLE READ")
    b.client.send(query(f"SET TRANSACTION SNAPSHOT '{snapshot}'"))
    b.until("Z")
    b("SELECT count(*) FROM t", "COMMIT")
    a("COMMIT")


@row(TRANSACTIONS, blocks=True)
def warnings(s: Stage) -> None:
    """Warnings of BEGIN in a transaction, and of COMMIT without one"""
    a = s.client()
    a("BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT p")


@row(TRANSACTIONS, blocks=True)
def whole_in_one_query(s: Stage) -> None:
    """BEGIN … COMMIT in one query"""
    a = s.client()
    a("BEGIN; CREATE TABLE t AS SELECT 1 AS v; COMMIT", "TABLE t")
    a("SELECT 1; BEGIN; INSERT INTO t VALUES (2)", "SELECT 3; COMMIT; SELECT 4", "TABLE t")


@row(TRANSACTIONS)
def several_in_one_query(s: Stage) -> None:
    """Several statements in one query are one transaction"""
    a = s.client()
    a("CREATE TABLE t (v int)", "INSERT INTO t VALUES (1); SELECT 1/0; SELECT 3", "TABLE t")
    a("INSERT INTO t VALUES (1); ROLLBACK; INSERT INTO t VALUES (2)", "TABLE t")
    a("INSERT INTO t VALUES (3); COMMIT; INSERT INTO t VALUES (4); SELECT 1/0", "TABLE t")


@row(TRANSACTIONS, blocks=True)
def whole_in_one_pipeline(s: Stage) -> None:
    """BEGIN … COMMIT in one pipeline, with and without Sync in between"""
    a = s.client()
    one = [parse("BEGIN") + bind() + execute(), parse("SELECT 1") + bind() + execute()]
    one.append(parse("COMMIT") + bind() + execute())
    a.batch(*one, SYNC)
    a.batch(*(part + SYNC for part in one))


@row(TRANSACTIONS)
def implicit_transaction(s: Stage) -> None:
    """A pipeline up to its Sync is one transaction"""
    a = s.client()
    a("CREATE TABLE t (v int)")
    insert = parse("INSERT INTO t VALUES (1)") + bind() + execute()
    a.batch(insert, parse("SELECT 1/0") + bind() + execute(), insert, SYNC)
    a("TABLE t")
    a.batch(insert, insert, SYNC)
    a("TABLE t")


@row(TRANSACTIONS, blocks=True)
def deferred_constraint(s: Stage) -> None:
    """A deferred constraint that fails at COMMIT"""
    a = s.client()
    a("CREATE TABLE t (v int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    a("BEGIN", "INSERT INTO t VALUES (1), (1)", "COMMIT", "TABLE t")
    a.batch(parse("INSERT INTO t VALUES (1), (1)"), bind(), execute(), SYNC)


@row(TRANSACTIONS, blocks=True)
def prepared_transaction(s: Stage) -> None:
    """PREPARE TRANSACTION and COMMIT PREPARED"""
    a = s.client()
    a(
        "CREATE TABLE t (v int)",
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        f"PREPARE TRANSACTION '{s.user}'",
    )
    a("TABLE t", f"COMMIT PREPARED '{s.user}'", "TABLE t")


@row(TRANSACTIONS, blocks=True)
def procedure_that_commits(s: Stage) -> None:
    """CALL of a procedure that commits"""
    a = s.client()
    a("CREATE TABLE t (v int)")
    a(
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); ROLLBACK; END $$"
    )
    a("CALL p()", "TABLE t", "BEGIN", "CALL p()", "ROLLBACK")


@row(TRANSACTIONS, blocks=True)
def outside_of_transactions(s: Stage) -> None:
    """VACUUM and CREATE DATABASE, inside a transaction and outside"""
    a = s.client()
    a("CREATE TABLE t (v int)", "VACUUM t", "BEGIN", "VACUUM t", "ROLLBACK")
    a.batch(parse("VACUUM t"), bind(), execute(), SYNC)


@row(TRANSACTIONS, blocks=True)
def idle_in_transaction(s: Stage) -> None:
    """idle_in_transaction_session_timeout: one error, and the end"""
    a = s.client()
    a("SET idle_in_transaction_session_timeout = 50", "BEGIN")
    a.end()

"""Prepared statements."""

from __future__ import annotations

import struct

from tests.support.client import FLUSH, SYNC, bind, execute, parse
from tests.transparency.requests import bind_binary, close, describe, describe_portal, parse_typed
from tests.transparency.stage import Stage
from tests.transparency.table import PREPARED, row

INT4, TEXT = 23, 25


@row(PREPARED)
def named_statement(s: Stage) -> None:
    """A named statement, executed in later transactions"""
    a = s.client()
    a.batch(parse("SELECT $1::int + 1", "s"), SYNC)
    for value in (b"1", b"41"):
        a.batch(bind(value, statement="s"), describe_portal(), execute(), SYNC)


@row(PREPARED)
def names_of_two_clients(s: Stage) -> None:
    """Two clients that give different statements the same name"""
    a, b = s.client("a"), s.client("b")
    a.batch(parse("SELECT 'of a'", "s"), SYNC)
    b.batch(parse("SELECT 'of b'", "s"), SYNC)
    for client in (a, b, a):
        client.batch(bind(statement="s"), execute(), SYNC)


@row(PREPARED)
def described_statement(s: Stage) -> None:
    """Describe of a statement with given and inferred types of parameters"""
    a = s.client()
    a.batch(parse_typed("SELECT $1, $2 || 'x'", "s", INT4, TEXT), SYNC)
    a.batch(describe("s"), SYNC)
    a.batch(parse("CREATE TABLE described (a int)", "nothing"), describe("nothing"), SYNC)


@row(PREPARED)
def duplicate_name(s: Stage) -> None:
    """A name that is in use: 42P05"""
    a = s.client()
    a.batch(parse("SELECT 1", "s"), SYNC)
    a.batch(parse("SELECT 2", "s"), SYNC)
    a.batch(bind(statement="s"), execute(), SYNC)


@row(PREPARED)
def unknown_name(s: Stage) -> None:
    """A name that is not there: 26000"""
    a = s.client()
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(describe("s"), SYNC)
    a.batch(close("s"), SYNC)


@row(PREPARED)
def failed_parse(s: Stage) -> None:
    """A Parse that fails leaves no name behind"""
    a = s.client()
    a.batch(parse("SELECT FROM no_such_table", "s"), SYNC)
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(parse("SELECT 'now'", "s"), bind(statement="s"), execute(), SYNC)


@row(PREPARED)
def unnamed_across_sync(s: Stage) -> None:
    """The unnamed statement, executed after Sync"""
    a = s.client()
    a.batch(parse("SELECT $1::int * 2"), SYNC)
    a.batch(bind(b"4"), execute(), SYNC)
    a.batch(bind(b"5"), execute(), SYNC)


@row(PREPARED)
def unnamed_replaced(s: Stage) -> None:
    """The unnamed statement is gone after a simple query"""
    a = s.client()
    a.batch(parse("SELECT 1"), SYNC)
    a("SELECT 2")
    a.batch(bind(), execute(), SYNC)


@row(
    PREPARED,
    differs="An unnamed statement of more than 64 kB holds until the end of its transaction. "
    "Execute it before Sync, as drivers do, or give it a name.",
)
def large_unnamed_statement(s: Stage) -> None:
    """An unnamed statement of 100 kB, executed after Sync"""
    a = s.client()
    a.batch(parse(f"SELECT length('{'x' * 100_000}')"), SYNC)
    a.batch(bind(), execute(), SYNC)


@row(PREPARED)
def closed_name(s: Stage) -> None:
    """Close, after which the name is free"""
    a = s.client()
    a.batch(parse("SELECT 1", "s"), SYNC)
    a.batch(close("s"), SYNC)
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(parse("SELECT 2", "s"), bind(statement="s"), execute(), SYNC)


@row(PREPARED)
def deallocated(s: Stage) -> None:
    """DEALLOCATE and DEALLOCATE ALL of statements of the protocol"""
    a = s.client()
    a.batch(*(parse(f"SELECT '{name}'", name) for name in "stu"), SYNC)
    a("DEALLOCATE s")
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(bind(statement="t"), execute(), SYNC)
    a("DEALLOCATE ALL")
    a.batch(bind(statement="t"), execute(), SYNC)


@row(PREPARED)
def discarded(s: Stage) -> None:
    """DISCARD ALL forgets statements"""
    a = s.client()
    a.batch(parse("SELECT 1", "s"), SYNC)
    a("DISCARD ALL")
    a.batch(bind(statement="s"), execute(), SYNC)


@row(PREPARED, blocks=True)
def prepared_and_rolled_back(s: Stage) -> None:
    """A statement prepared in a transaction that is rolled back stays"""
    a = s.client()
    a("BEGIN")
    a.batch(parse("SELECT 'stays'", "s"), SYNC)
    a("ROLLBACK")
    a.batch(bind(statement="s"), execute(), SYNC)


@row(PREPARED)
def changed_table(s: Stage) -> None:
    """0A000 after a table has changed, and the statement prepared anew"""
    a, b = s.client("a"), s.client("b")
    b("CREATE TABLE changing (a int)", "INSERT INTO changing VALUES (1)")
    a.batch(parse("SELECT * FROM changing", "s"), SYNC)
    a.batch(bind(statement="s"), execute(), SYNC)
    b("ALTER TABLE changing ADD b int")
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(close("s"), parse("SELECT * FROM changing", "s"), SYNC)
    a.batch(bind(statement="s"), describe_portal(), execute(), SYNC)


@row(PREPARED)
def many_statements(s: Stage) -> None:
    """300 statements of one client, executed in turn"""
    a = s.client()
    a.batch(*(parse(f"SELECT {number}", f"s{number}") for number in range(300)), SYNC)
    for number in (0, 299, 100, 0):
        a.batch(bind(statement=f"s{number}"), execute(), SYNC)


@row(PREPARED)
def long_pipeline(s: Stage) -> None:
    """300 pipelined requests, a Sync after each"""
    a = s.client()
    a.batch(parse("SELECT $1::int", "s"), SYNC)
    one = (bind(b"%d", statement="s"), execute(), SYNC)
    a.batch(*(part.replace(b"%d", b"%02d" % (n % 100)) for n in range(300) for part in one))


@row(PREPARED)
def binary_values(s: Stage) -> None:
    """Parameters and results in binary"""
    a = s.client()
    a.batch(parse("SELECT $1::int + 1, $1::float8, 'text'", "s"), SYNC)
    a.batch(bind_binary(struct.pack("!i", 41), statement="s"), describe_portal(), execute(), SYNC)


@row(PREPARED)
def wrong_parameters(s: Stage) -> None:
    """Wrong numbers and values of parameters"""
    a = s.client()
    a.batch(parse("SELECT $1::int", "s"), SYNC)
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(bind(b"1", b"2", statement="s"), execute(), SYNC)
    a.batch(bind(b"one", statement="s"), execute(), SYNC)
    a.batch(bind(b"1", statement="s"), execute(), SYNC)


@row(PREPARED)
def flushed_parse(s: Stage) -> None:
    """Parse and Describe with Flush, as drivers do, then Bind"""
    a = s.client()
    a.send(parse("SELECT $1::text", "s") + describe("s") + FLUSH)
    a.until("T")
    a.batch(bind(b"value", statement="s"), execute(), SYNC)
    a.batch(bind(b"again", statement="s"), execute(), SYNC)


@row(PREPARED, blocks=True)
def prepared_in_failed_transaction(s: Stage) -> None:
    """Preparing in a failed transaction: 25P02"""
    a = s.client()
    a("BEGIN", "SELECT 1/0")
    a.batch(parse("SELECT 1", "s"), SYNC)
    a("ROLLBACK")
    a.batch(bind(statement="s"), execute(), SYNC)


@row(
    PREPARED,
    differs="A statement that the server of a failed transaction has not cannot be prepared there: "
    "25P02 comes where PostgreSQL would still describe one that returns no rows. Roll back first.",
    blocks=True,
)
def described_in_failed_transaction(s: Stage) -> None:
    """Describe, in a failed transaction, of a statement that returns nothing"""
    a = s.client()
    a.batch(parse("DEALLOCATE ALL", "s"), SYNC)
    a("BEGIN", "SELECT 1/0")
    a.batch(describe("s"), SYNC)
    a("ROLLBACK")


@row(PREPARED, pins="PREPARE")
def sql_prepare(s: Stage) -> None:
    """PREPARE, EXECUTE and DEALLOCATE in SQL"""
    a = s.client()
    a("PREPARE p (int) AS SELECT $1 + 1", "EXECUTE p (1)", "EXECUTE p (41)")
    a("PREPARE p AS SELECT 2", "DEALLOCATE p", "EXECUTE p (1)")


@row(PREPARED, pins="PREPARE", blocks=True)
def sql_prepare_rolled_back(s: Stage) -> None:
    """PREPARE in a transaction that is rolled back stays"""
    a = s.client()
    a("BEGIN", "PREPARE p AS SELECT 'stays'", "ROLLBACK", "EXECUTE p")


@row(
    PREPARED,
    differs="On its servers the protocol's statements have names of the pooler's. EXECUTE only "
    "what PREPARE has made.",
)
def sql_execute_of_protocol_statement(s: Stage) -> None:
    """EXECUTE, in SQL, of a statement that the protocol prepared"""
    a = s.client()
    a.batch(parse("SELECT 'by protocol'", "s"), SYNC)
    a("EXECUTE s")


@row(
    PREPARED,
    differs="The view shows the pooler's names, and statements of other clients.",
)
def view_of_prepared_statements(s: Stage) -> None:
    """pg_prepared_statements"""
    a = s.client()
    a.batch(parse("SELECT 1", "s"), SYNC)
    a("SELECT name, statement FROM pg_prepared_statements ORDER BY name")

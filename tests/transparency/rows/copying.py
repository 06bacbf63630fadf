"""COPY."""

from __future__ import annotations

from tests.support.client import COPY_DONE, FLUSH, SYNC, bind, copy_data, execute, parse, query
from tests.transparency.actor import Actor
from tests.transparency.requests import copy_fail
from tests.transparency.stage import Stage
from tests.transparency.table import COPY, row


def _table(s: Stage) -> Actor:
    a = s.client()
    a("CREATE TABLE t (v int)")
    return a


@row(COPY)
def copy_out(s: Stage) -> None:
    """COPY TO STDOUT, as text and in binary"""
    a = s.client()
    a("COPY (SELECT generate_series(1, 3), NULL) TO STDOUT")
    a("COPY (SELECT 1) TO STDOUT (FORMAT binary)")


@row(COPY)
def large_copy_out(s: Stage) -> None:
    """COPY TO STDOUT of 3 MB"""
    s.client()("COPY (SELECT repeat('x', 100000) FROM generate_series(1, 30)) TO STDOUT")


@row(COPY)
def failing_copy_out(s: Stage) -> None:
    """COPY TO STDOUT that fails in the middle"""
    s.client()("COPY (SELECT 1/(3 - n) FROM generate_series(1, 5) n) TO STDOUT")


@row(COPY)
def copy_in(s: Stage) -> None:
    """COPY FROM STDIN"""
    a = _table(s)
    a.batch(query("COPY t FROM STDIN"), copy_data(b"1\n2"), copy_data(b"\n3\n"), COPY_DONE)
    a("TABLE t")


@row(COPY)
def copy_in_by_turns(s: Stage) -> None:
    """COPY FROM STDIN whose client takes its time, while others work"""
    a = _table(s)
    a.send(query("COPY t FROM STDIN"))
    a.until("G")
    a.idle()
    a.send(copy_data(b"1\n"))
    a.idle()
    a.send(COPY_DONE)
    a.until("Z")
    a("TABLE t")


@row(COPY)
def copy_fails(s: Stage) -> None:
    """CopyFail: 57014, and nothing is stored"""
    a = _table(s)
    a.batch(query("COPY t FROM STDIN"), copy_data(b"1\n"), copy_fail("no more"))
    a("TABLE t")


@row(COPY)
def copy_of_nonsense(s: Stage) -> None:
    """COPY FROM STDIN of what is no number; what is sent after the error is ignored"""
    a = _table(s)
    a.batch(query("COPY t FROM STDIN"), copy_data(b"1\none\n"), copy_data(b"2\n"), COPY_DONE)
    a("TABLE t")


@row(COPY)
def copy_in_by_pipeline(s: Stage) -> None:
    """COPY FROM STDIN by Parse, Bind and Execute"""
    a = _table(s)
    command = parse("COPY t FROM STDIN") + bind() + execute()
    a.send(command + FLUSH)
    a.until("G")
    a.batch(copy_data(b"1\n"), COPY_DONE, SYNC)
    a.send(command + FLUSH)
    a.until("G")
    a.batch(copy_data(b"2\n"), copy_fail("no more"), SYNC)
    a("TABLE t")


@row(COPY)
def copy_among_others(s: Stage) -> None:
    """COPY in the midst of a query of several statements"""
    a = _table(s)
    a.batch(
        query("SELECT 1; COPY t FROM STDIN; SELECT 2; COPY t TO STDOUT"),
        copy_data(b"7\n"),
        COPY_DONE,
    )


@row(COPY, blocks=True)
def copy_in_transaction(s: Stage) -> None:
    """COPY FROM STDIN in a transaction that is rolled back"""
    a = _table(s)
    a("BEGIN")
    a.batch(query("COPY t FROM STDIN"), copy_data(b"1\n"), COPY_DONE)
    a("TABLE t", "ROLLBACK", "TABLE t")


@row(COPY)
def stray_copy_messages(s: Stage) -> None:
    """CopyData, CopyDone and CopyFail outside of a COPY are ignored"""
    a = s.client()
    a.batch(copy_data(b"stray"), COPY_DONE, copy_fail("stray"), query("SELECT 1"))
    a("SELECT 2")


@row(COPY)
def refused_copy(s: Stage) -> None:
    """COPY of a table that is not there, with its data sent along"""
    a = s.client()
    a.batch(query("COPY nowhere FROM STDIN"), copy_data(b"1\n"), COPY_DONE, query("SELECT 1"))

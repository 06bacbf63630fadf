"""LISTEN and NOTIFY."""

from __future__ import annotations

from tests.transparency.stage import Stage
from tests.transparency.table import NOTIFICATIONS, row

CHANNELS = "SELECT pg_listening_channels()"
LISTEN = "LISTEN"


@row(NOTIFICATIONS, pins=LISTEN)
def listen(s: Stage) -> None:
    """LISTEN; a notification arrives while the client is idle"""
    a, b = s.client("a"), s.client("b")
    a("LISTEN news", "SELECT 1")
    a.idle()
    b("NOTIFY news, 'first'", "SELECT pg_notify('news', 'second')")
    a.until("A")
    a.until("A")
    a("SELECT 2")


@row(NOTIFICATIONS, pins=LISTEN, blocks=True)
def listen_to_oneself(s: Stage) -> None:
    """A client's own notifications, before ReadyForQuery"""
    a = s.client()
    a("LISTEN news", "NOTIFY news, 'mine'", "BEGIN", "NOTIFY news, 'later'", "SELECT 1", "COMMIT")


@row(NOTIFICATIONS, pins=LISTEN)
def unlisten(s: Stage) -> None:
    """UNLISTEN, after which nothing arrives"""
    a, b = s.client("a"), s.client("b")
    a("LISTEN news", CHANNELS, "UNLISTEN news", CHANNELS)
    b("NOTIFY news")
    a.silent()
    a("SELECT 1")


@row(NOTIFICATIONS, pins=LISTEN)
def unlisten_all(s: Stage) -> None:
    """UNLISTEN * of several channels"""
    a, b = s.client("a"), s.client("b")
    a("LISTEN news; LISTEN weather", "UNLISTEN news", "SELECT 1")
    b("NOTIFY news, 'nobody hears it'", "NOTIFY weather, 'fine'")
    a.until("A")
    a("UNLISTEN *", CHANNELS)
    b("NOTIFY weather, 'nobody hears it'")
    a.silent()


@row(NOTIFICATIONS, blocks=True)
def listen_rolled_back(s: Stage) -> None:
    """LISTEN in a transaction that is rolled back"""
    a, b = s.client("a"), s.client("b")
    a("BEGIN", "LISTEN news", "ROLLBACK", CHANNELS)
    b("NOTIFY news")
    a.silent()


@row(NOTIFICATIONS, pins=LISTEN, blocks=True)
def notify_rolled_back(s: Stage) -> None:
    """NOTIFY is sent by COMMIT, and not by ROLLBACK"""
    a, b = s.client("a"), s.client("b")
    a("LISTEN news")
    b("BEGIN", "NOTIFY news, 'never'", "ROLLBACK", "BEGIN", "NOTIFY news, 'at last'")
    a.silent()
    b("COMMIT")
    a.until("A")


@row(NOTIFICATIONS, pins=LISTEN, blocks=True)
def notified_in_transaction(s: Stage) -> None:
    """A notification waits until the listener's transaction is over"""
    a, b = s.client("a"), s.client("b")
    a("LISTEN news", "BEGIN")
    b("NOTIFY news, 'meanwhile'")
    a.silent()
    a("SELECT 1", "COMMIT")


@row(NOTIFICATIONS, pins=LISTEN)
def many_notifications(s: Stage) -> None:
    """A thousand notifications, in order"""
    a, b = s.client("a"), s.client("b")
    a('LISTEN "Odd Name"')
    b("SELECT count(pg_notify('Odd Name', n::text)) FROM generate_series(1, 1000) n")
    for _ in range(1000):
        a.until("A")


@row(NOTIFICATIONS, pins=LISTEN)
def two_listeners(s: Stage) -> None:
    """Two listeners, on different channels and on the same"""
    a, b = s.client("a"), s.client("b")
    a("LISTEN news; LISTEN for_a")
    b("LISTEN news; LISTEN for_b")
    b("NOTIFY for_a, 'to a'", "NOTIFY news, 'to both'", "NOTIFY for_b, 'to b'")
    a.until("A")
    a.until("A")
    a.silent()


@row(NOTIFICATIONS, pins=LISTEN)
def listen_discarded(s: Stage) -> None:
    """DISCARD ALL ends LISTEN"""
    a = s.client()
    a("LISTEN news", CHANNELS, "DISCARD ALL", CHANNELS)

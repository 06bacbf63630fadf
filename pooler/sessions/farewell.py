"""What a client is told in a server's place: above all when its session ends without a goodbye."""

from __future__ import annotations

from pooler.wire.errors import FEATURE_NOT_SUPPORTED, PostgresError
from trio_backends import ClientNews, ClientReport, LastWords

# SQLSTATEs are PostgreSQL's own for the same event, where there is one (appendix A).
_WORDS = {
    ClientNews.WAITED: ("57014", "canceling request: no server connection became free in time"),
    ClientNews.IDLE: ("57P05", "terminating connection due to idle-session timeout"),
    ClientNews.OPEN: ("25P03", "terminating connection due to idle-in-transaction timeout"),
    ClientNews.APART: ("57P01", "terminating connection due to administrator command"),
}
CANCELLED = PostgresError("ERROR", "57014", "canceling statement due to user request")
LOST = PostgresError("FATAL", "08006", "the connection to the server was lost")
NO_SERVER = PostgresError("FATAL", "08006", "no connection to the server could be had")


def farewell(report: ClientReport, why_no_server: PostgresError | None) -> PostgresError | None:
    """The error to send before closing; None: nothing (it said goodbye, or heard enough)."""
    news = report.news
    if news in (ClientNews.LEFT, ClientNews.ENDED) or report.heard is LastWords.CUT:
        return None
    if news is ClientNews.SERVER_LOST:
        return None if report.heard is LastWords.ERROR else LOST
    if news is ClientNews.VIOLATION:
        return PostgresError.violation(report.why)
    if news is ClientNews.REFUSED:
        return PostgresError("FATAL", FEATURE_NOT_SUPPORTED, report.why)
    if news is ClientNews.DISMISSED:
        return why_no_server or NO_SERVER
    sqlstate, message = _WORDS[news]
    return PostgresError("FATAL", sqlstate, message)

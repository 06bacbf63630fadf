"""Which failures to get a server are worth trying again, and how soon."""

from __future__ import annotations

# Seconds between attempts while clients wait. A query has to work within 250 ms after PostgreSQL
# itself accepts connections again.
RETRY_DELAY = 0.1
# Seconds between attempts while nobody waits (servers that are to be opened ahead).
RETRY_DELAY_UNHURRIED = 2.0

# "PostgreSQL Error Codes", appendix A: what passes by itself.
_PASSING = frozenset(
    {
        "57P03",  # cannot_connect_now: starting up, shutting down, in recovery
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "53300",  # too_many_connections
        "08000",
        "08001",  # sqlclient_unable_to_establish_sqlconnection
        "08006",  # connection_failure
    }
)


def will_pass(sqlstate: str) -> bool:
    """Whether a server that refused a log-in with this code may accept one a moment later."""
    return sqlstate in _PASSING

"""What a client has in its session: which settings follow it, and what keeps it on its server.

Only PostgreSQL knows for certain, so it is asked (:func:`probe`), on the client's own server, when
the client may have changed something; :func:`judge` reads the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pooler.wire.session import ENCODINGS, Setting, literal

PIN_SETTING = "trio_pooler.pin"
_ON = frozenset({"on", "true", "yes", "1", "t", "y"})

LISTENS = "LISTEN"
ADVISORY = "advisory lock"
TEMPORARY = "temporary object"
CURSOR = "cursor WITH HOLD"
PREPARED = "PREPARE"
LOADED = "LOAD"
SEEDED = "setseed"
NAMED = "pin_on"
ASKED_FOR = "asked for"
UNREADABLE = "settings that cannot be carried over"

# How each is undone; what is not here cannot be, and the server is closed instead.
_UNDONE: Mapping[str, str] = {
    LISTENS: "UNLISTEN *",
    ADVISORY: "SELECT pg_catalog.pg_advisory_unlock_all()",
    TEMPORARY: "DISCARD TEMP",
    CURSOR: "CLOSE ALL",
    NAMED: "",
    ASKED_FOR: "",
    UNREADABLE: "",
}
# The last: a role may be given by ALTER ROLE ... SET role, and the statement before takes it off.
AS_NEW = ("RESET ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE")

# A client's word for a setting that PostgreSQL does not list ("Customized Options").
# (U+FFFD: it is in an encoding of its client's own.)
_LETTER = "a-z_\x80-\ud7ff\ue000-\ufffc\U00010000-\U0010ffff"
_CUSTOM_NAME = re.compile(rf"[{_LETTER}][{_LETTER}0-9$]*(\.[{_LETTER}][{_LETTER}0-9$]*)+")
# Not of the session, but of the transaction that has just ended; or nothing that could be told.
_PASSING = ("transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed")
# Limits of this many seconds do not cut off a query of ours.
_AMPLE = re.compile(r"\d{4,}ms|\d+(s|min|h|d)")
_LIMITS = frozenset({"statement_timeout", "transaction_timeout"})
_ENCODINGS = ("client_encoding", "server_encoding")
_IDENTITIES = ("session_authorization", "role")
# What a server may refuse that has taken it before: it depends on the catalog, or on what was done.
_REFUSABLE = frozenset(
    {
        "default_table_access_method",
        "default_tablespace",
        "default_text_search_config",
        "temp_buffers",
        "temp_tablespaces",
    }
)

Row = tuple[str, str, bytes | None]


def probe(names: Iterable[str]) -> str:
    """The query that asks a server what its session has; ``names``: custom settings, perhaps."""
    custom = sorted({name for name in names if _CUSTOM_NAME.fullmatch(name)})
    listed = ",".join(map(literal, (*_ENCODINGS, *_IDENTITIES, PIN_SETTING, *custom)))
    passing = ",".join(map(literal, _PASSING))
    equal = "OPERATOR(pg_catalog.=)"
    here = f"pid {equal} pg_catalog.pg_backend_pid()"
    temporary = (
        f"SELECT FROM pg_catalog.pg_depend WHERE refclassid {equal}"
        " 'pg_catalog.pg_namespace'::pg_catalog.regclass"
        f" AND refobjid {equal} pg_catalog.pg_my_temp_schema()"
    )
    return (
        "SELECT 'setting'::pg_catalog.text, name, pg_catalog.current_setting(name, true)"
        f" FROM pg_catalog.pg_settings WHERE source {equal} 'session'"
        f" AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[{passing}])"
        " UNION ALL SELECT 'named', name, pg_catalog.current_setting(name, true)"
        f" FROM pg_catalog.unnest(ARRAY[{listed}]::pg_catalog.text[]) AS name"
        f" UNION ALL SELECT {literal(LISTENS)}, name, NULL"
        " FROM pg_catalog.pg_listening_channels() AS name"
        f" UNION ALL SELECT {literal(ADVISORY)}, '', NULL WHERE EXISTS (SELECT FROM"
        f" pg_catalog.pg_locks WHERE locktype {equal} 'advisory' AND {here})"
        f" UNION ALL SELECT {literal(TEMPORARY)}, '', NULL WHERE EXISTS ({temporary})"
        f" UNION ALL SELECT {literal(CURSOR)}, name, NULL FROM pg_catalog.pg_cursors"
        " WHERE is_holdable"
        f" UNION ALL SELECT {literal(PREPARED)}, name, NULL FROM pg_catalog.pg_prepared_statements"
        " WHERE from_sql"
    )


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a server's session has."""

    settings: tuple[Setting, ...] = ()
    delicate: bool = False
    pins: frozenset[str] = frozenset()
    prepared: tuple[str, ...] = ()  # names of statements prepared by SQL


@dataclass(slots=True)
class Reading:
    """An answer to :func:`probe`, taken in row by row."""

    encoding: str = "UTF8"
    # A server that knows nothing of characters takes no literal that names one by its number.
    ascii_only: bool = False
    settings: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    prepared: list[str] = field(default_factory=list)

    def take(self, row: Row) -> None:
        kind, name, value = row
        if kind == "named" and name == "client_encoding":
            self.encoding = (value or b"").decode("ascii", "replace")
        elif kind == "named" and name == "server_encoding":
            self.ascii_only = value == b"SQL_ASCII"
        elif kind in ("setting", "named"):
            # One that was reset, or taken back by a rollback, stays there and is empty: as in a
            # session of the client's own.
            if value is not None:
                self.settings[name.lower()] = (name, value)
        else:
            self.pins.add(kind)
            if kind == PREPARED:
                self.prepared.append(name)


def judge(rows: Iterable[Row], login: str) -> SessionState:
    """What the answer to :func:`probe` says; ``login``: the user that the server was opened as."""
    reading = Reading()
    for row in rows:
        reading.take(row)
    found = reading.settings
    for name, usual in (("role", b"none"), ("session_authorization", login.encode())):
        if name in found and found[name][1] == usual:
            del found[name]
    pin = found[PIN_SETTING][1].decode("ascii", "replace").lower() if PIN_SETTING in found else ""
    if pin in _ON:
        reading.pins.add(ASKED_FOR)
    if pin in _ON or not pin:
        found.pop(PIN_SETTING, None)  # it is not to be carried anywhere
    settings = _decoded(found, reading)
    return SessionState(
        settings, is_delicate(settings), frozenset(reading.pins), tuple(reading.prepared)
    )


def _decoded(found: Mapping[str, tuple[str, bytes]], reading: Reading) -> tuple[Setting, ...]:
    codec = "ascii" if reading.ascii_only else ENCODINGS.get(reading.encoding, "ascii")
    settings: list[Setting] = []
    for name, value in found.values():
        try:
            settings.append((name, value.decode(codec)))
        except UnicodeDecodeError:
            reading.pins.add(UNREADABLE)
    return in_order(settings)


def in_order(settings: Iterable[Setting]) -> tuple[Setting, ...]:
    """So that equal ones are equal; and nobody becomes another before all else is set."""

    def rank(setting: Setting) -> tuple[int, str]:
        name = setting[0].lower()
        return (_IDENTITIES.index(name) + 1 if name in _IDENTITIES else 0, name)

    return tuple(sorted(settings, key=rank))


def is_delicate(settings: Iterable[Setting]) -> bool:
    """Whether a request must wait until these are known to be in force."""
    return any(
        name in _IDENTITIES
        or name in _REFUSABLE
        or (name in _LIMITS and value != "0" and not _AMPLE.fullmatch(value))
        for name, value in ((name.lower(), value) for name, value in settings)
    )


def with_startup(session: SessionState, startup: Iterable[Setting]) -> tuple[Setting, ...]:
    """A client's settings: those of its session, and of its start-up packet where those were
    reset."""
    have = {name.lower() for name, _ in session.settings}
    missing = [setting for setting in startup if setting[0].lower() not in have]
    return in_order([*session.settings, *missing])


def undo(session: SessionState) -> tuple[str, ...] | None:
    """The statements after which a server has none of the pins left; None: there are none such."""
    statements: list[str] = []
    for pin in sorted(session.pins - {PREPARED}):
        if pin not in _UNDONE:
            return None
        statements.append(_UNDONE[pin])
    for name in session.prepared:
        quoted = name.replace('"', '""')
        statements.append(f'DEALLOCATE "{quoted}"')
    return tuple(filter(None, statements))

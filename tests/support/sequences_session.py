"""Groups of what may outlive a transaction: settings, pins, and what is left at the end."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.client import SYNC, message
from tests.support.sequences import Author, Said, by_extended, group

# A setting, two values that it takes, and one more, which most refuse. The client's tables stay in
# the search_path: a statement that is prepared on another server has to find them there.
SETTINGS = {
    "application_name": ("'one'", "'another name'", "''"),
    "datestyle": ("'SQL, DMY'", "'ISO, MDY'", "'no style'"),
    "timezone": ("'Europe/Madrid'", "'UTC'", "'No/Where'"),
    "intervalstyle": ("'iso_8601'", "'postgres'", "'none'"),
    "client_encoding": ("'UTF8'", "'LATIN1'", "'NOCODE'"),
    "extra_float_digits": ("0", "-3", "77"),
    "bytea_output": ("'escape'", "'hex'", "'none'"),
    "search_path": ("pg_catalog, public", '"$user", public', "public, pg_catalog"),
    "work_mem": ("'5MB'", "8192", "'lots'"),
    "statement_timeout": ("'1h'", "0", "'never'"),
    "client_min_messages": ("warning", "notice", "nothing"),
    "standard_conforming_strings": ("on", "on", "perhaps"),
    "default_transaction_isolation": ("'serializable'", "'read committed'", "'none'"),
    "default_transaction_read_only": ("off", "on", "maybe"),
    "enable_seqscan": ("off", "on", "neither"),
}
SEEN = (
    "SELECT DATE '2024-02-29', INTERVAL '1 day 2 hours'",
    "SELECT TIMESTAMPTZ '2024-07-01 12:00+00'",
    "SELECT 0.1::float8 * 3, '\\x00ff'::bytea",
    "SELECT current_schemas(false)",
)
SHOWN = ", ".join(f"current_setting('{name}', true)" for name in SETTINGS)


@group("settings", 4, session=True)
def _settings(author: Author) -> Iterator[Said]:
    name = author.pick(list(SETTINGS))
    good, usual, bad = SETTINGS[name]
    value = author.rnd.choices((good, usual, bad, "DEFAULT"), (6, 4, 1, 2))[0]
    plain = value.strip("'") if value != "DEFAULT" else usual.strip("'")
    texts = [
        f"SET {name} TO {value}",
        f"SET SESSION {name} = {value}",
        f"set {name} = {value}; SHOW {name}",
        f"SET LOCAL {name} TO {value}",
        f"SELECT set_config('{name}', '{plain}', {author.pick(('true', 'false', 'false'))})",
        f"RESET {name}",
        f"SHOW {name}",
        f"BEGIN; SET {name} TO {value}; {author.pick(('COMMIT', 'ROLLBACK', 'SELECT 1/0'))}",
        f"BEGIN; SET LOCAL {name} TO {value}; SHOW {name}; COMMIT",
        f"SAVEPOINT s; SET {name} TO {value}; ROLLBACK TO s",
        f"DO $$BEGIN PERFORM set_config('{name}', '{plain}', false); END$$",
        f"SELECT {SHOWN}",
        "RESET ALL",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        *SEEN,
    ]
    author.open = author.open or "SELECT 1/0" in texts[7]
    yield [author.in_either_way(author.pick(texts))]
    if author.chance(0.5):
        yield [author.query(author.pick((f"SHOW {name}", f"SELECT {SHOWN}", *SEEN)))]


CUSTOM = ("my.own", "app.user_id", '"My"."Own"')
SET_OR_NOT = (
    "SELECT nullif(current_setting('my.own', true), ''),"
    " nullif(current_setting('app.user_id', true), ''), nullif(current_setting('My.Own', true), '')"
)


@group("custom", 1, session=True)
def _custom(author: Author) -> Iterator[Said]:
    """Settings of one's own making, where one that is empty is as good as one that is not there."""
    name = author.pick(CUSTOM)
    value = author.pick(("'one'", "42", "'é, \"two\"'", "''", "'a\\b'", "DEFAULT"))
    texts = (
        f"SET {name} TO {value}",
        f"SET {name} TO {value}",
        f"SET LOCAL {name} TO {value}",
        f"SELECT set_config('{name}', 'by function', false)",
        f"BEGIN; SET {name} TO {value}; {author.pick(('COMMIT', 'ROLLBACK'))}",
        f"RESET {name}",
    )
    yield [author.in_either_way(author.pick(texts))]
    yield [author.in_either_way(SET_OR_NOT)]


@group("placeholders", 0.3, session=True, differs="they stay on a server")
def _placeholders(author: Author) -> Iterator[Said]:
    """Whether a setting of one's own making is there at all."""
    texts = ("SET not.there = 1", "RESET not.there", "SHOW not.there")
    yield [author.query(author.pick((*texts, "SELECT current_setting('not.there', true) IS NULL")))]


@group("roles", 0.7, session=True)
def _roles(author: Author) -> Iterator[Said]:
    texts = (
        "SET ROLE differential_other",
        "SET SESSION ROLE differential_other",
        "SET LOCAL ROLE differential_other",
        "SET SESSION AUTHORIZATION differential_other",
        "SET ROLE NONE",
        "RESET ROLE",
        "RESET SESSION AUTHORIZATION",
        "SET ROLE no_such_role",
    )
    yield [author.in_either_way(author.pick(texts))]
    yield [author.query("SELECT current_user, session_user, current_setting('role')")]
    if author.chance(0.7):
        yield [author.query("RESET SESSION AUTHORIZATION"), author.query("RESET ROLE")]


@group("listen", 1, session=True)
def _listen(author: Author) -> Iterator[Said]:
    texts = (
        "LISTEN ch@s",
        "LISTEN ch@s",
        "NOTIFY ch@s, 'hello'",
        "BEGIN; NOTIFY ch@s, 'in a block'; NOTIFY ch@s; COMMIT",
        "BEGIN; LISTEN ch@s; ROLLBACK",
        "BEGIN; LISTEN ch@s; NOTIFY ch@s, 'both'; COMMIT",
        "SELECT pg_notify('ch@s', 'by function')",
        "SELECT pg_listening_channels()",
        'LISTEN "Other@s"',
        "UNLISTEN ch@s",
        "UNLISTEN *",
    )
    yield [author.in_either_way(author.pick([t for t in texts if ";" not in t]))]
    if author.chance(0.6):
        yield [author.query(author.pick(texts))]


@group("advisory", 1, session=True)
def _advisory(author: Author) -> Iterator[Said]:
    texts = (
        "SELECT pg_advisory_lock(@s, 1)",
        "SELECT pg_try_advisory_lock(@s, 2)",
        "SELECT pg_advisory_lock_shared(@s, 3)",
        "SELECT pg_advisory_unlock(@s, 1)",
        "SELECT pg_advisory_unlock(@s, 2)",
        "SELECT pg_advisory_unlock_all()",
        "SELECT pg_advisory_xact_lock(@s, 4)",
    )
    yield [author.in_either_way(author.pick(texts))]
    held = "SELECT classid, objid, mode FROM pg_locks WHERE locktype = 'advisory'"
    yield [author.query(f"{held} AND pid = pg_backend_pid() ORDER BY 1, 2, 3")]


@group("temporary", 1, session=True)
def _temporary(author: Author) -> Iterator[Said]:
    texts = (
        "CREATE TEMP TABLE mine (a int)",
        "CREATE TEMPORARY TABLE IF NOT EXISTS mine (a int)",
        "CREATE TEMP TABLE fleeting (a int) ON COMMIT DROP",
        "SELECT 1 AS a INTO TEMP mine",
        "INSERT INTO mine VALUES (@i)",
        "SELECT count(*) FROM mine",
        "DROP TABLE mine",
        "CREATE TEMP VIEW seen AS SELECT 1 AS one",
        "SELECT * FROM seen",
        "DROP VIEW IF EXISTS seen",
        "CREATE TABLE pg_temp.mine (a int)",
        "DISCARD TEMP",
    )
    yield [author.in_either_way(author.pick(texts))]
    if author.chance(0.5):
        yield [author.query(author.pick(texts))]


@group("hold", 1, session=True)
def _hold(author: Author) -> Iterator[Said]:
    texts = (
        "DECLARE h CURSOR WITH HOLD FOR SELECT id, v FROM @t ORDER BY id",
        "BEGIN; DECLARE h SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 9); COMMIT",
        "FETCH 2 FROM h",
        "FETCH ALL FROM h",
        "MOVE 1 FROM h",
        "CLOSE h",
        "CLOSE ALL",
        "SELECT name, is_holdable FROM pg_cursors WHERE name = 'h'",
    )
    yield [author.query(author.pick(texts))]
    yield [author.in_either_way(author.pick([t for t in texts if ";" not in t]))]


@group("sql_prepare", 1, session=True)
def _sql_prepare(author: Author) -> Iterator[Said]:
    texts = (
        "PREPARE q AS SELECT 1",
        "PREPARE q (int) AS SELECT $1 + 1",
        "PREPARE r AS SELECT id, v FROM @t ORDER BY id",
        "EXECUTE q",
        "EXECUTE q (5)",
        "EXECUTE r",
        "DEALLOCATE q",
        "DEALLOCATE PREPARE r",
        "DEALLOCATE ALL",
        "CREATE TABLE @n AS EXECUTE r",
        "EXPLAIN (COSTS OFF) EXECUTE q (1)",
    )
    yield [author.in_either_way(author.pick(texts))]
    if author.chance(0.7):
        yield [author.in_either_way(author.pick(texts))]
    if author.chance(0.2):
        author.names.pop("q", None)
        body = message("D", b"Sq\0") + message("B", b"\0q\0" + bytes(6)) + message("E", bytes(5))
        yield [body + SYNC]


@group("mixed_names", 0.5, session=True, differs="EXECUTE finds no statement of the protocol")
def _mixed_names(author: Author) -> Iterator[Said]:
    """Statements prepared by the protocol and executed by SQL, and what the catalog shows."""
    parsed = message("P", b"q\0SELECT 'q'\0\0\0")
    yield [message("C", b"Sq\0") + parsed + SYNC]
    yield [author.query(author.pick(("EXECUTE q", "DEALLOCATE q", "PREPARE q AS SELECT 2")))]
    if author.chance(0.5):
        shown = "SELECT name, statement, from_sql FROM pg_prepared_statements"
        yield [author.query(f"{shown} WHERE name = 'q' ORDER BY name")]


@group("discard", 0.7, session=True)
def _discard(author: Author) -> Iterator[Said]:
    texts = ("DISCARD ALL", "DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES")
    # Not left behind as the unnamed statement; "forget_extended" does that.
    end = author.in_either_way(author.pick((*texts, "RESET ALL", "UNLISTEN *", "CLOSE ALL")))
    yield [end, by_extended("SELECT 'discarded'")]
    author.names.clear()

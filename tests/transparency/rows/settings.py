"""Settings of a session."""

from __future__ import annotations

from tests.support.client import SYNC, bind, execute, parse
from tests.transparency.requests import BINARY, function_call
from tests.transparency.stage import Stage
from tests.transparency.table import DIFFERS, NAME_IT, SETTINGS, UNSEEN, row


@row(SETTINGS)
def set_and_show(s: Stage) -> None:
    """SET, seen in later transactions"""
    a = s.client()
    a("SET work_mem = '7MB'", "SHOW work_mem", "SELECT 1", "SHOW work_mem")


@row(SETTINGS)
def set_session(s: Stage) -> None:
    """SET SESSION, SET … TO DEFAULT"""
    a = s.client()
    a("SET SESSION work_mem TO 7000", "SHOW work_mem", "SET work_mem TO DEFAULT", "SHOW work_mem")


@row(SETTINGS)
def two_clients(s: Stage) -> None:
    """Two clients with different settings"""
    a, b = s.client("a"), s.client("b")
    a("SET work_mem = '7MB'")
    b("SET work_mem = '8MB'", "SET lock_timeout = 1000")
    for client in (a, b, a):
        client("SHOW work_mem", "SHOW lock_timeout")


@row(SETTINGS)
def reset(s: Stage) -> None:
    """RESET of one setting"""
    a = s.client()
    a("SET work_mem = '7MB'", "SET lock_timeout = '9s'", "RESET work_mem")
    a("SHOW work_mem", "SHOW lock_timeout")


@row(SETTINGS)
def reset_all(s: Stage) -> None:
    """RESET ALL"""
    a = s.client()
    a("SET work_mem = '7MB'", "SET TimeZone = 'Europe/Paris'", "SET my.own = '1'", "RESET ALL")
    a("SHOW work_mem", "SHOW TimeZone", "SHOW my.own")


@row(SETTINGS)
def discard_all(s: Stage) -> None:
    """DISCARD ALL resets settings"""
    a = s.client()
    a("SET work_mem = '7MB'", "SET search_path = pg_catalog", f"SET ROLE {s.role}", "DISCARD ALL")
    a("SHOW work_mem", "SHOW search_path", "SELECT current_user")


@row(SETTINGS, blocks=True)
def set_local(s: Stage) -> None:
    """SET LOCAL ends with its transaction"""
    a = s.client()
    a("SET work_mem = '7MB'", "BEGIN", "SET LOCAL work_mem = '8MB'", "SHOW work_mem", "COMMIT")
    a("SHOW work_mem", "SET LOCAL work_mem = '9MB'", "SHOW work_mem")


@row(SETTINGS, blocks=True)
def set_rolled_back(s: Stage) -> None:
    """SET in a transaction that is rolled back"""
    a = s.client()
    a("SET work_mem = '7MB'", "BEGIN", "SET work_mem = '8MB'", "SHOW work_mem", "ROLLBACK")
    a("SHOW work_mem")


@row(SETTINGS, blocks=True)
def set_committed(s: Stage) -> None:
    """SET in a transaction that is committed"""
    a = s.client()
    a("BEGIN", "SET work_mem = '8MB'", "COMMIT", "SHOW work_mem")


@row(SETTINGS, blocks=True)
def set_in_failed_transaction(s: Stage) -> None:
    """SET in a transaction that fails, and is ended by COMMIT"""
    a = s.client()
    a("BEGIN", "SET work_mem = '8MB'", "SELECT 1/0", "COMMIT", "SHOW work_mem")


@row(SETTINGS, blocks=True)
def set_in_savepoint(s: Stage) -> None:
    """SET after a savepoint: released, and rolled back to"""
    a = s.client()
    a("BEGIN", "SAVEPOINT p", "SET work_mem = '8MB'", "RELEASE p")
    a("SAVEPOINT q", "SET lock_timeout = '8s'", "ROLLBACK TO q", "COMMIT")
    a("SHOW work_mem", "SHOW lock_timeout")


@row(SETTINGS, blocks=True)
def set_config_function(s: Stage) -> None:
    """set_config(…, false) and set_config(…, true)"""
    a = s.client()
    a("SELECT set_config('work_mem', '7MB', false)", "SHOW work_mem")
    a("BEGIN", "SELECT set_config('work_mem', '8MB', true)", "SHOW work_mem", "COMMIT")
    a("SHOW work_mem")


@row(SETTINGS)
def set_by_update(s: Stage) -> None:
    """UPDATE pg_settings"""
    a = s.client()
    a("UPDATE pg_settings SET setting = '7MB' WHERE name = 'work_mem'", "SHOW work_mem")


@row(SETTINGS)
def set_role(s: Stage) -> None:
    """SET ROLE and RESET ROLE"""
    a = s.client()
    a(f"SET ROLE {s.role}", "SELECT current_user, session_user", "CREATE TABLE refused (a int)")
    a("RESET ROLE", "SELECT current_user, session_user", f"SET ROLE {s.role}", "SET ROLE NONE")
    a("SELECT current_user, session_user")


@row(SETTINGS)
def set_session_authorization(s: Stage) -> None:
    """SET SESSION AUTHORIZATION and RESET SESSION AUTHORIZATION"""
    a = s.client()
    a(f"SET SESSION AUTHORIZATION {s.role}", "SELECT current_user, session_user")
    a("SHOW is_superuser", "CREATE ROLE refused", "RESET SESSION AUTHORIZATION")
    a("SELECT current_user, session_user", "SHOW is_superuser")


@row(SETTINGS)
def role_under_authorization(s: Stage) -> None:
    """SET ROLE after SET SESSION AUTHORIZATION"""
    a, b = s.client("a"), s.client("b")
    b(f"GRANT {s.other_role} TO {s.role}")
    a(f"SET SESSION AUTHORIZATION {s.role}", f"SET ROLE {s.other_role}")
    a("SELECT current_user, session_user", "RESET ROLE", "SELECT current_user, session_user")


@row(SETTINGS)
def search_path(s: Stage) -> None:
    """search_path with quoted names, and what it finds"""
    a = s.client()
    a('CREATE SCHEMA "Quoted, odd"', "CREATE TABLE \"Quoted, odd\".t AS SELECT 'found' AS v")
    a('SET search_path = "Quoted, odd", "$user", public', "SHOW search_path", "TABLE t")
    a("SET search_path = ''", "SHOW search_path", "TABLE t", 'DROP SCHEMA "Quoted, odd" CASCADE')


@row(SETTINGS)
def time_zone(s: Stage) -> None:
    """TimeZone and its ParameterStatus"""
    a = s.client()
    a("SET TimeZone = 'Europe/Paris'", "SELECT timestamptz '2024-07-01 12:00Z'")
    a("SET TIME ZONE INTERVAL '+05:30' HOUR TO MINUTE", "SELECT timestamptz '2024-07-01 12:00Z'")
    a("SET TIME ZONE LOCAL", "SHOW TimeZone")


@row(SETTINGS, blocks=True)
def reported_in_transaction(s: Stage) -> None:
    """ParameterStatus of a setting that a rollback takes back"""
    a = s.client()
    a("SET DateStyle = 'German'", "BEGIN", "SET DateStyle = 'SQL'", "SELECT date '2024-07-01'")
    a("ROLLBACK", "SELECT date '2024-07-01'")


@row(SETTINGS)
def client_encoding(s: Stage) -> None:
    """client_encoding, and the bytes of values"""
    a = s.client()
    a("SET client_encoding = 'LATIN1'", "SELECT chr(233)", "SET NAMES 'UTF8'", "SELECT chr(233)")


@row(SETTINGS)
def statement_timeout(s: Stage) -> None:
    """statement_timeout, in effect in a later transaction"""
    a = s.client()
    a("SET statement_timeout = 30", "SELECT 1", "SELECT pg_sleep(10)", "SHOW statement_timeout")


@row(SETTINGS)
def custom_setting(s: Stage) -> None:
    """A setting of the user's own"""
    a = s.client()
    a("SET my.setting = 'it''s; mine'", "SHOW my.setting")
    a("SELECT current_setting('my.setting'), current_setting('my.other', true)")
    a("RESET my.setting", "SHOW my.setting")


@row(
    SETTINGS,
    session=DIFFERS,
    differs="PostgreSQL has no way to make a server forget that such a setting was there: it is "
    "empty then. Ask by `current_setting(…, true)` and take NULL and '' for the same.",
)
def unknown_custom_setting(s: Stage) -> None:
    """A setting of a user's own that another client, but not this one, has set"""
    a = s.client()
    a("SHOW my.setting", "SELECT current_setting('my.setting', true)")


@row(SETTINGS)
def characteristics(s: Stage) -> None:
    """SET SESSION CHARACTERISTICS AS TRANSACTION"""
    a = s.client()
    a("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE")
    a("SHOW transaction_isolation", "CREATE TABLE refused (a int)", "SHOW transaction_read_only")


@row(
    SETTINGS,
    passthrough=DIFFERS,
    why="Servers are opened without the name in the start-up packet. SET it.",
)
def application_name(s: Stage) -> None:
    """application_name, in pg_stat_activity too"""
    a, b = s.client("a", application_name="by start-up"), s.client("b")
    mine = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    a(mine, "SHOW application_name", "SET application_name = 'by SET'", mine)
    b(mine, "SHOW application_name")
    a(mine)


@row(SETTINGS)
def set_by_extended_protocol(s: Stage) -> None:
    """SET by Parse, Bind and Execute"""
    a = s.client()
    a.batch(parse("SET work_mem = '7MB'"), bind(), execute(), SYNC)
    a("SHOW work_mem")
    a.batch(parse("SELECT set_config($1, $2, false)"), bind(b"work_mem", b"8MB"), execute(), SYNC)
    a("SHOW work_mem")


@row(SETTINGS)
def set_by_prepared_statement(s: Stage) -> None:
    """SET by a statement that was prepared long before"""
    a = s.client()
    a.batch(parse("SET work_mem = '7MB'", "s"), SYNC)
    a.batch(parse("SELECT set_config('lock_timeout', $1, false)", "t"), SYNC)
    a("SHOW work_mem")
    a.batch(bind(statement="s"), execute(), SYNC)
    a.batch(bind(b"9s", statement="t"), execute(), SYNC)
    a("SHOW work_mem", "SHOW lock_timeout")


@row(SETTINGS)
def set_among_others(s: Stage) -> None:
    """SET in the midst of a query of several statements"""
    a = s.client()
    a("SELECT 1; SET work_mem = '7MB'; SELECT 2", "SHOW work_mem")
    a("SET work_mem = '8MB'; SELECT 1/0", "SHOW work_mem")


@row(SETTINGS)
def set_behind_comments(s: Stage) -> None:
    """SET behind comments, in odd spelling"""
    a = s.client()
    a("/* a /* nested */ comment */ -- and\n sEt\n\"work_mem\"\t=\t'7MB' ; ", "SHOW work_mem")
    a("SET/**/work_mem='8MB'", "SHOW work_mem")


@row(SETTINGS)
def set_without_blank(s: Stage) -> None:
    """SET with nothing between it and a quoted name"""
    a = s.client()
    a("SET\"work_mem\"='8MB'", "SHOW work_mem")


@row(SETTINGS)
def set_in_do(s: Stage) -> None:
    """SET and set_config in a DO block"""
    a = s.client()
    a("DO $$ BEGIN SET work_mem = '7MB'; PERFORM set_config('my.own', 'x', false); END $$")
    a("SHOW work_mem", "SHOW my.own")


@row(
    SETTINGS,
    differs=f"{UNSEEN} {NAME_IT}",
)
def set_by_function(s: Stage) -> None:
    """A function that sets something for the session"""
    a = s.client()
    a("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ SET work_mem = '7MB' $$")
    a("SELECT f()", "SHOW work_mem")


@row(SETTINGS)
def function_with_setting(s: Stage) -> None:
    """A function with a setting of its own (CREATE FUNCTION … SET)"""
    a = s.client()
    a(
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql SET work_mem = '7MB'"
        " AS $$ SELECT current_setting('work_mem') $$"
    )
    a("SELECT f()", "SHOW work_mem")


@row(SETTINGS)
def set_config_by_function_call(s: Stage) -> None:
    """FunctionCall (the message) of a function that sets nothing"""
    a = s.client()
    oid = int(a.value("SELECT 'pg_catalog.int4pl(int,int)'::regprocedure::oid") or 0)
    a("SET work_mem = '7MB'")
    a.batch(function_call(oid, bytes(4), b"\0\0\0\7", form=BINARY))
    a("SHOW work_mem")


@row(SETTINGS)
def errors_of_set(s: Stage) -> None:
    """SET of what is not there, or not allowed, changes nothing"""
    a = s.client()
    a("SET work_mem = '7MB'", "SET no_such_setting = 1", "SET work_mem = 'much'")
    a("SET max_connections = 5", "SHOW work_mem")


@row(SETTINGS)
def many_settings(s: Stage) -> None:
    """Thirty settings at once"""
    a = s.client()
    a("; ".join(f"SET my.setting_{number} = 'value {number}'" for number in range(30)))
    a("SELECT string_agg(current_setting('my.setting_' || n), ', ') FROM generate_series(0, 29) n")
    a("RESET my.setting_7", "SHOW my.setting_7", "SHOW my.setting_8")

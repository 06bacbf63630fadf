"""Start-up parameters."""

from __future__ import annotations

import struct

from tests.support.client import startup
from tests.transparency.stage import Stage
from tests.transparency.table import STARTUP, row

PROTOCOL_3_2 = 3 << 16 | 2
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


def _packet(s: Stage, version: int, **parameters: str) -> bytes:
    packet = startup(user=s.user, **parameters)
    return packet[:4] + struct.pack("!I", version) + packet[8:]


@row(STARTUP)
def greeting(s: Stage) -> None:
    """What a client is told when it has logged in: ParameterStatus"""
    s.stranger().start(startup(user=s.user))


@row(STARTUP)
def parameters(s: Stage) -> None:
    """Parameters, as settings of the session and in ParameterStatus"""
    given = {"TimeZone": "Europe/Paris", "work_mem": "7MB", "search_path": "pg_catalog, public"}
    a = s.stranger()
    a.start(startup(user=s.user, **given))
    a("SHOW TimeZone", "SHOW work_mem", "SHOW search_path")


@row(STARTUP)
def options(s: Stage) -> None:
    """options=-c …, with blanks and quotes"""
    a = s.stranger()
    a.start(startup(user=s.user, options=r"-c work_mem=7MB --my-set.ting=a\ b -c TimeZone=UTC"))
    a("SHOW work_mem", 'SHOW "my_set.ting"', "SHOW TimeZone")


@row(STARTUP)
def reset_to_parameters(s: Stage) -> None:
    """RESET, RESET ALL and DISCARD ALL go back to the start-up parameters"""
    a = s.client(options="-c work_mem=7MB", lock_timeout="9s")
    a("SET work_mem = '8MB'", "SET lock_timeout = 0", "RESET work_mem", "SHOW work_mem")
    a("RESET ALL", "SHOW lock_timeout", "SET work_mem TO DEFAULT", "SHOW work_mem")
    a("SET work_mem = '8MB'", "SET lock_timeout = 0", "DISCARD ALL")
    a("SHOW work_mem", "SHOW lock_timeout")


@row(
    STARTUP,
    differs="There are two: one of the server's own value, and behind ReadyForQuery one of the "
    "start-up packet's. Go by the later one, as drivers do.",
)
def reset_reported_parameter(s: Stage) -> None:
    """ParameterStatus of RESET, for what is in the start-up packet"""
    a = s.client(TimeZone="Europe/Paris", DateStyle="German")
    a("SET TimeZone = 'UTC'", "RESET TimeZone", "SHOW TimeZone")
    a("SET DateStyle = 'ISO'", "DISCARD ALL", "SHOW DateStyle")


@row(STARTUP)
def two_with_parameters(s: Stage) -> None:
    """Clients with different parameters, and one without"""
    a = s.client("a", TimeZone="Europe/Paris")
    b = s.client("b", TimeZone="America/Lima", options="-c work_mem=7MB")
    c = s.client("c")
    for client in (a, b, c, a, b):
        client("SHOW TimeZone", "SHOW work_mem")


@row(STARTUP)
def bad_parameter(s: Stage) -> None:
    """A parameter with a wrong value, or of no setting: the log-in fails"""
    s.stranger("a").start(startup(user=s.user, work_mem="much"))
    s.stranger("b").start(startup(user=s.user, no_such_setting="1"))
    s.stranger("c").start(startup(user=s.user, options="-c no_such_setting=1"))


@row(STARTUP)
def encoding_parameter(s: Stage) -> None:
    """client_encoding"""
    a = s.stranger()
    a.start(startup(user=s.user, client_encoding="LATIN1"))
    a("SELECT chr(233)", "SHOW client_encoding")


@row(STARTUP)
def role_parameter(s: Stage) -> None:
    """role"""
    a = s.client(options=f"-c role={s.role}")
    a("SELECT current_user", f"SET ROLE {s.user}", "SELECT current_user")


@row(
    STARTUP,
    differs="NONE is taken for RESET, which goes back to the role of the start-up packet; and "
    "ParameterStatus of is_superuser does not come. SET ROLE by name.",
)
def role_parameter_reset(s: Stage) -> None:
    """RESET ROLE and SET ROLE NONE, with a role in the start-up packet"""
    a = s.client(options=f"-c role={s.role}")
    a(f"SET ROLE {s.user}", "RESET ROLE", "SELECT current_user")
    a("SET ROLE NONE", "SELECT current_user")


@row(STARTUP)
def no_such_database(s: Stage) -> None:
    """A database that is not there"""
    s.stranger().start(startup("no_such_database", s.user))


@row(STARTUP)
def newer_protocol(s: Stage) -> None:
    """Protocol 3.2, with its longer cancel key"""
    a = s.stranger()
    a.start(_packet(s, PROTOCOL_3_2))
    s.note("the key is longer", len(a.client.key[1]) > 4)
    a("SELECT 1")


@row(STARTUP)
def negotiated_protocol(s: Stage) -> None:
    """A later protocol and `_pq_.` options: NegotiateProtocolVersion"""
    a = s.stranger()
    a.start(_packet(s, 3 << 16 | 9999, **{"_pq_.unknown": "1"}))
    a("SELECT 1")


@row(STARTUP)
def encryption_requests(s: Stage) -> None:
    """SSLRequest and GSSENCRequest, where neither is configured"""
    a = s.stranger()
    for request in (SSL_REQUEST, GSS_REQUEST):
        a.client.send(struct.pack("!II", 8, request))
        a.note(repr(a.client.socket.recv(1)))
    a.start(startup(user=s.user))


@row(STARTUP)
def replication(s: Stage) -> None:
    """A replication connection: its commands, and SQL"""
    a = s.client(replication="database")
    a("SHOW wal_level", "SELECT 1")
    fields = a.client.query("IDENTIFY_SYSTEM")
    s.note("IDENTIFY_SYSTEM", (len(fields.rows), [error["C"] for error in fields.errors]))

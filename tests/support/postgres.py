"""PostgreSQL for tests: which ones there are, and short ways to ask and change one.

Everything here speaks to PostgreSQL directly, past any pooler, by blocking psycopg connections.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from pooler.demo import EmbeddedPostgres, PostgresFailed, embedded_bin_dir

__all__ = [
    "EmbeddedPostgres",
    "connect",
    "connections",
    "create_database",
    "create_user",
    "hba",
    "installations",
    "major",
    "wait_for_connections",
]


def installations() -> dict[str, Path]:
    """Every PostgreSQL to test with: id (``pg18``, ``pg15-debian``) to directory of binaries."""
    found = {}
    with contextlib.suppress(PostgresFailed):
        found["pg18"] = embedded_bin_dir()
    for postgres in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        found[f"pg{postgres.parts[-3]}-debian"] = postgres.parent
    return found


def connect(
    pg: EmbeddedPostgres, *, dbname: str = "postgres", user: str = "postgres", **kwargs: object
) -> psycopg.Connection:
    """A connection in autocommit, straight to *pg*; *kwargs* are further connection parameters."""
    return psycopg.connect(
        host=pg.host,
        port=pg.port,
        dbname=dbname,
        user=user,
        autocommit=True,
        **kwargs,  # type: ignore[arg-type]
    )


def connections(pg: EmbeddedPostgres, *, dbname: str | None = None) -> int:
    """How many client backends *pg* has, besides the one that asks; of one database, or of all."""
    with connect(pg) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() AND (%(dbname)s::text IS NULL OR datname = %(dbname)s)",
            {"dbname": dbname},
        ).fetchone()
    assert row is not None
    return int(row[0])


def wait_for_connections(pg: EmbeddedPostgres, count: int, *, dbname: str | None = None) -> None:
    """Returns once *pg* has *count* client backends; fails the test if that takes over 10 s.

    A backend is seen for a moment after its client has left: PostgreSQL ends it in its own time.
    """
    for _ in range(1000):
        found = connections(pg, dbname=dbname)
        if found == count:
            return
        time.sleep(0.01)
    raise AssertionError(f"PostgreSQL has {found} client backends, not {count}, after 10 s")


def create_user(
    pg: EmbeddedPostgres, name: str, password: str, *, encryption: str = "scram-sha-256"
) -> str:
    """Makes (or makes anew) a user who may log in; returns the secret that PostgreSQL stores.

    *encryption* is ``scram-sha-256`` or ``md5``. That a password is asked for needs hba() too.
    """
    with connect(pg) as conn:
        conn.execute("SELECT set_config('password_encryption', %s, false)", [encryption])
        exists = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
        command = "ALTER" if exists else "CREATE"
        conn.execute(
            sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                sql.SQL(command), sql.Identifier(name), sql.Literal(password)
            )
        )
        row = conn.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name]
        ).fetchone()
    assert row is not None
    return str(row[0])


def create_database(pg: EmbeddedPostgres, name: str, *, owner: str = "postgres") -> None:
    """Makes a database, empty; one of this name is dropped first, its connections with it."""
    with connect(pg) as conn:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        conn.execute(drop)
        create = sql.SQL("CREATE DATABASE {} OWNER {}")
        conn.execute(create.format(sql.Identifier(name), sql.Identifier(owner)))


@contextlib.contextmanager
def hba(pg: EmbeddedPostgres, *lines: str) -> Iterator[None]:
    """Puts *lines* before all others of pg_hba.conf, for the time of the with block.

    Example: ``with hba(pg, "host all alice all scram-sha-256"): …``. Lines that PostgreSQL does not
    understand fail the test. The superuser's own line is not to be among them: we log in by it.
    """
    path = pg.data_dir / "pg_hba.conf"
    before = path.read_text()
    path.write_text("".join(f"{line}\n" for line in lines) + before)
    try:
        _reload(pg)
        yield
    finally:
        path.write_text(before)
        _reload(pg)


def _reload(pg: EmbeddedPostgres) -> None:
    """Has the postmaster read pg_hba.conf again, and returns when it has."""
    with connect(pg) as conn:
        errors = conn.execute(
            "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL"
        ).fetchall()
        assert not errors, f"pg_hba.conf: {errors}"
        row = conn.execute("SELECT pg_conf_load_time()").fetchone()
        assert row is not None
        conn.execute("SELECT pg_reload_conf()")
    # Each new backend inherits what the postmaster has loaded, with the time of it.
    for _ in range(1000):
        with connect(pg) as conn:
            if conn.execute("SELECT pg_conf_load_time()").fetchone() != row:
                return
    raise AssertionError("PostgreSQL did not reload its configuration")


def major(pg: EmbeddedPostgres) -> int:
    """The major version, such as 18."""
    match = re.match(r"\d+", pg.version)
    assert match is not None
    return int(match[0])

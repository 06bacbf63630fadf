"""The clients that people use, through the pooler, to every PostgreSQL there is."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.support.pooler import PoolerProcess
from tests.support.postgres import EmbeddedPostgres, connect, create_database

DATABASE = "clients"


@pytest.fixture(scope="module")
def pg(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """Every PostgreSQL, one after the other, with the tables that the tests use."""
    create_database(postgres, DATABASE)
    with connect(postgres, dbname=DATABASE) as conn:
        conn.execute("CREATE TABLE items (id int PRIMARY KEY, name text, data bytea)")
    return postgres


@pytest.fixture
def table(pg: EmbeddedPostgres) -> None:
    """The table is empty."""
    with connect(pg, dbname=DATABASE) as conn:
        conn.execute("TRUNCATE items")


@pytest.fixture
def conn(pooler: PoolerProcess, table: None) -> Iterator[psycopg.Connection[Any]]:
    """psycopg's own way: a transaction begins with the first statement."""
    with psycopg.connect(pooler.dsn(DATABASE)) as connection:
        yield connection


# -- psql ---------------------------------------------------------------------------------


def run(
    pooler: PoolerProcess, program: Path, *arguments: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.defpath,
        "LC_ALL": "C",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(pooler.port),
        "PGUSER": "postgres",
        "PGDATABASE": DATABASE,
    }
    return subprocess.run(
        [str(program), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def psql(
    pooler: PoolerProcess, program: Path, *arguments: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    return run(pooler, program, "-X", "-A", "-t", "-q", *arguments, **options)


def test_psql_command(pooler: PoolerProcess, psql_path: Path) -> None:
    done = psql(pooler, psql_path, "-c", "SELECT 6 * 7", "-c", "SELECT 'again'")
    assert (done.stdout, done.stderr, done.returncode) == ("42\nagain\n", "", 0)


def test_psql_script(pooler: PoolerProcess, psql_path: Path, table: None) -> None:
    script = """
        BEGIN;
        INSERT INTO items VALUES (1, 'one'), (2, 'two');
        SAVEPOINT a;
        DELETE FROM items;
        ROLLBACK TO a;
        COMMIT;
        SELECT count(*) FROM items;
        SELECT 1/0;
        SELECT 'after the error';
        \\echo :SQLSTATE
    """
    done = psql(pooler, psql_path, input=script)
    assert done.stdout == "2\nafter the error\n00000\n"
    assert "division by zero" in done.stderr
    assert done.returncode == 0


def test_psql_stops_at_an_error(pooler: PoolerProcess, psql_path: Path) -> None:
    script = "SELECT 1; SELECT 1/0; SELECT 3;"
    done = psql(pooler, psql_path, "-v", "ON_ERROR_STOP=1", input=script)
    assert done.returncode == 3
    assert done.stdout == "1\n"


def test_psql_refused_database(pooler: PoolerProcess, psql_path: Path) -> None:
    done = psql(pooler, psql_path, "-d", "no such database", "-c", "SELECT 1")
    assert done.returncode == 2
    assert 'FATAL:  database "no such database" does not exist' in done.stderr


def test_psql_copy(pooler: PoolerProcess, psql_path: Path, table: None, tmp_path: Path) -> None:
    rows = "".join(f"{n}\tname {n}\t\\N\n" for n in range(20_000))
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text(rows)
    done = psql(pooler, psql_path, "-c", f"\\copy items FROM '{source}'")
    assert (done.stderr, done.returncode) == ("", 0)
    query = "(SELECT * FROM items ORDER BY id)"
    done = psql(pooler, psql_path, "-c", f"\\copy {query} TO '{target}'")
    assert (done.stderr, done.returncode) == ("", 0)
    assert target.read_text() == rows


# -- psycopg ------------------------------------------------------------------------------


def test_psycopg_transactions(pooler: PoolerProcess, conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO items VALUES (1, %s)", ["committed"])
    conn.commit()
    conn.execute("INSERT INTO items VALUES (2, 'rolled back')")
    conn.rollback()
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO items VALUES (1, 'again')")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        conn.execute("SELECT 1")
    conn.rollback()
    assert conn.execute("SELECT id, name FROM items").fetchall() == [(1, "committed")]


def test_psycopg_savepoints(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction():
        conn.execute("INSERT INTO items VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero), conn.transaction():
            conn.execute("INSERT INTO items VALUES (2)")
            conn.execute("SELECT 1/0")
    assert conn.execute("SELECT id FROM items").fetchall() == [(1,)]


def test_psycopg_binary(conn: psycopg.Connection[Any]) -> None:
    data = bytes(range(256)) * 1000
    conn.execute("INSERT INTO items VALUES (1, 'b', %b)", [data])
    row = conn.cursor(binary=True).execute("SELECT id, data, 1.5::float8 FROM items").fetchone()
    assert row == (1, data, 1.5)


def test_psycopg_executemany(conn: psycopg.Connection[Any]) -> None:
    with conn.cursor() as cursor:
        rows = [(n, f"name {n}") for n in range(2000)]
        cursor.executemany("INSERT INTO items VALUES (%s, %s)", rows)
    assert conn.execute("SELECT count(*), sum(id) FROM items").fetchone() == (2000, 1999 * 1000)


def test_psycopg_pipeline(conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = True
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("SELECT %s::int", [n]) for n in range(500)]
        pipeline.sync()
        more = [conn.execute("SELECT repeat('x', %s)", [n * 100]) for n in range(100)]
    assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(500)]
    assert [len(cursor.fetchone()[0]) for cursor in more] == [n * 100 for n in range(100)]


def test_psycopg_error_in_a_pipeline(conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = True
    with pytest.raises(psycopg.errors.DivisionByZero), conn.pipeline():
        conn.execute("INSERT INTO items VALUES (1)")
        conn.execute("SELECT 1/0")
        conn.execute("INSERT INTO items VALUES (2)")
    # The pipeline up to its Sync is one transaction.
    assert conn.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_psycopg_copy(conn: psycopg.Connection[Any]) -> None:
    rows = [(n, f"name {n}\t\\", b"\0\1") for n in range(5000)]
    with conn.cursor() as cursor:
        with cursor.copy("COPY items FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "bytea"])
            for row in rows:
                copy.write_row(row)
        with cursor.copy("COPY (SELECT * FROM items ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int4", "text", "bytea"])
            assert list(copy.rows()) == rows


def test_psycopg_copy_that_fails(conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = True
    cursor = conn.cursor()
    with pytest.raises(ZeroDivisionError), cursor.copy("COPY items FROM STDIN") as copy:
        copy.write(b"1\tone\t\\N\n")
        raise ZeroDivisionError  # psycopg says CopyFail, and takes in the error that it asked for
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        with cursor.copy("COPY items FROM STDIN") as copy:
            copy.write(b"no number\tone\t\\N\n")
    assert conn.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_psycopg_server_side_cursor(conn: psycopg.Connection[Any]) -> None:
    with conn.cursor(name="some rows") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT generate_series(1, 1000)")
        assert cursor.fetchmany(10) == [(n,) for n in range(1, 11)]
        assert [row[0] for row in cursor] == list(range(11, 1001))


def test_psycopg_notices(conn: psycopg.Connection[Any]) -> None:
    heard: list[str | None] = []
    conn.add_notice_handler(lambda diagnostic: heard.append(diagnostic.message_primary))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'from the server'; END $$")
    assert heard == ["from the server"]


def test_psycopg_async(pooler: PoolerProcess, table: None) -> None:
    async def client(number: int) -> int:
        conn = await psycopg.AsyncConnection.connect(pooler.dsn(DATABASE))
        async with conn:
            total = 0
            for n in range(20):
                async with conn.transaction():
                    await conn.execute("INSERT INTO items VALUES (%s)", [number * 100 + n])
                    cursor = await conn.execute("SELECT %s + 0", [n])
                    row = await cursor.fetchone()
                    assert row is not None
                    total += row[0]
            async with conn.cursor() as cursor, cursor.copy("COPY items TO STDOUT") as copy:
                lines = [bytes(data) async for data in copy]
            assert len(lines) >= 20
            async with conn.pipeline():
                cursors = [await conn.execute("SELECT %s::int", [n]) for n in range(50)]
            assert [await each.fetchone() for each in cursors] == [(n,) for n in range(50)]
            return total

    async def main() -> list[int]:
        return await asyncio.gather(*(client(number) for number in range(15)))

    assert asyncio.run(main()) == [190] * 15


# -- asyncpg ------------------------------------------------------------------------------


def test_asyncpg(pooler: PoolerProcess, table: None) -> None:
    async def client(number: int) -> None:
        conn = await asyncpg.connect(**pooler.place, database=DATABASE)
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO items VALUES ($1, $2)", number, "asyncpg")
                assert await conn.fetchval("SELECT name FROM items WHERE id = $1", number)
                cursor = conn.cursor("SELECT generate_series(1, 200)", prefetch=10)
                assert [row[0] async for row in cursor] == list(range(1, 201))
            with pytest.raises(asyncpg.DivisionByZeroError):
                await conn.fetchval("SELECT 1 / $1::int", 0)
            rows = [(1000 * number + n, "many", None) for n in range(1, 300)]
            assert await conn.copy_records_to_table("items", records=rows) == "COPY 299"
            data = os.urandom(100_000)
            assert await conn.fetchval("SELECT $1::bytea", data) == data
        finally:
            await conn.close()

    async def main() -> None:
        await asyncio.gather(*(client(number) for number in range(1, 16)))

    asyncio.run(main())


# -- pgbench ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench_tables(pg: EmbeddedPostgres, pgbench_path: Path) -> None:
    place = ["-h", pg.host, "-p", str(pg.port), "-U", "postgres", DATABASE]
    command = [str(pgbench_path), "-i", "-q", "-I", "dtGp", "-s", "2", *place]
    subprocess.run(command, check=True, capture_output=True, env={"LC_ALL": "C"}, timeout=60)


@pytest.mark.parametrize("protocol", ["simple", "extended"])
@pytest.mark.parametrize(("clients", "transactions"), [(1, 1000), (20, 100), (200, 10)])
def test_pgbench(
    pooler: PoolerProcess,
    pgbench_path: Path,
    bench_tables: None,
    protocol: str,
    clients: int,
    transactions: int,
) -> None:
    """Single statements and transactions of several; more clients than servers, in turns."""
    scripts = ["-b", "select-only@4", "-b", "simple-update@1"]
    load = ["-c", str(clients), "-t", str(transactions), "-M", protocol]
    done = run(pooler, pgbench_path, "-n", *scripts, *load)
    assert done.returncode == 0, done.stderr
    total = clients * transactions
    found = re.search(r"actually processed: (\d+)/(\d+)", done.stdout)
    assert found is not None and int(found[1]) == int(found[2]) == total, done.stdout
    assert "failed transactions: 0 " in done.stdout, done.stdout
    assert "error" not in done.stderr, done.stderr


def test_pgbench_prepared(pooler: PoolerProcess, pgbench_path: Path, bench_tables: None) -> None:
    """pgbench waits for the answer to each Parse and lets all others wait meanwhile, so that there
    may be no more clients than servers if clients keep theirs."""
    done = run(pooler, pgbench_path, "-n", "-S", "-c", "20", "-t", "50", "-M", "prepared")
    assert done.returncode == 0, done.stderr
    assert "actually processed: 1000/1000" in done.stdout, done.stdout
    assert "failed transactions: 0 " in done.stdout, done.stdout

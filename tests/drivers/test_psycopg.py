"""psycopg 3: sync and async, statements prepared after five times and at once, pipelines, COPY."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.drivers.conftest import CLIENTS, Shop

ROUNDS = 12
THRESHOLDS: dict[str, dict[str, Any]] = {"default": {}, "at_once": {"prepare_threshold": 0}}


def _work(shop: Shop, client: int, options: dict[str, Any]) -> None:
    with psycopg.connect(shop.dsn, application_name=f"client {client}", **options) as conn:
        _stock(conn, client)
        _transactions(conn, client)
        _copy(conn, client)
        _cursors(conn, client)
        _pipeline(conn, client)
        _settings(conn, client)


def _stock(conn: psycopg.Connection, client: int) -> None:
    for item in range(ROUNDS):
        with conn.transaction():
            conn.execute("INSERT INTO stock VALUES (%s, %s, %s)", (client, item, f"item {item}"))
    for item in range(ROUNDS):
        select = "SELECT name FROM stock WHERE client = %s AND item = %s"
        assert conn.execute(select, (client, item)).fetchone() == (f"item {item}",)
        conn.commit()
    with conn.cursor(binary=True) as cur:
        cur.execute("SELECT item, name FROM stock WHERE client = %s ORDER BY item", (client,))
        assert [row[0] for row in cur] == list(range(ROUNDS))
    with conn.cursor() as cur:
        cur.executemany(
            "UPDATE stock SET name = %s WHERE client = %s AND item = %s",
            [(f"new {item}", client, item) for item in range(ROUNDS)],
        )
    conn.commit()


def _transactions(conn: psycopg.Connection, client: int) -> None:
    with pytest.raises(errors.UniqueViolation):
        conn.execute("INSERT INTO stock VALUES (%s, 0, 'again')", (client,))
    with pytest.raises(errors.InFailedSqlTransaction):
        conn.execute("SELECT 1")
    conn.rollback()
    for _ in range(ROUNDS):
        with pytest.raises(errors.DivisionByZero), conn.transaction():
            conn.execute("DELETE FROM stock WHERE client = %s", (client,))
            conn.execute("SELECT 1 / %s", (0,))
        with conn.transaction():
            with pytest.raises(errors.DivisionByZero), conn.transaction():
                conn.execute("SELECT 1 / %s", (0,))
            row = conn.execute("SELECT count(*) FROM stock WHERE client = %s", (client,)).fetchone()
            assert row == (ROUNDS,)


def _copy(conn: psycopg.Connection, client: int) -> None:
    with conn.cursor() as cur:
        with cur.copy("COPY stock FROM STDIN") as copy:
            for item in range(1000, 1500):
                copy.write_row((client, item, "copied"))
        assert cur.rowcount == 500
        with cur.copy("COPY (SELECT * FROM stock WHERE client = %s) TO STDOUT", (client,)) as copy:
            assert len(list(copy.rows())) == 500 + ROUNDS
        conn.commit()
        with pytest.raises(errors.UniqueViolation), cur.copy("COPY stock FROM STDIN") as copy:
            copy.write_row((client, 1000, "twice"))
        conn.rollback()
        with pytest.raises(ZeroDivisionError), cur.copy("COPY stock FROM STDIN") as copy:
            copy.write_row((client, 2000, 1 / 0))
        conn.rollback()


def _cursors(conn: psycopg.Connection, client: int) -> None:
    """Server-side ones, of the transaction and beyond it."""
    select = "SELECT item FROM stock WHERE client = %s AND item >= 1000 ORDER BY item"
    with conn.cursor("of_transaction") as cur:
        cur.itersize = 100
        assert [item for (item,) in cur.execute(select, (client,))] == list(range(1000, 1500))
    conn.commit()
    with conn.cursor("held", withhold=True, scrollable=True) as cur:
        cur.execute(select, (client,))
        conn.commit()
        assert cur.fetchmany(2) == [(1000,), (1001,)]
        conn.commit()
        cur.scroll(-1)
        assert cur.fetchone() == (1001,)
    conn.commit()


def _pipeline(conn: psycopg.Connection, client: int) -> None:
    for _ in range(3):
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int + %s", (client, n)) for n in range(20)]
        assert [cur.fetchone() for cur in cursors] == [(client + n,) for n in range(20)]
        conn.commit()
    with pytest.raises(errors.DivisionByZero), conn.pipeline() as pipeline:
        conn.execute("SELECT 1")
        conn.execute("SELECT 1 / %s", (0,))
        conn.execute("SELECT 2")
        pipeline.sync()
    conn.rollback()


def _settings(conn: psycopg.Connection, client: int) -> None:
    zone = ("UTC", "Europe/Madrid", "Asia/Tokyo")[client % 3]
    conn.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
    conn.execute(f"SET search_path TO pg_catalog, client_{client}")
    conn.commit()
    for _ in range(ROUNDS):
        assert conn.info.parameter_status("TimeZone") == zone
        row = conn.execute(
            "SELECT current_setting('TimeZone'), current_setting('search_path'),"
            " current_setting('application_name')"
        ).fetchone()
        assert row == (zone, f"pg_catalog, client_{client}", f"client {client}")
        conn.commit()


@pytest.mark.parametrize("options", THRESHOLDS.values(), ids=THRESHOLDS.keys())
def test_threads(shop: Shop, options: dict[str, Any]) -> None:
    with ThreadPoolExecutor(CLIENTS) as executor:
        list(executor.map(lambda client: _work(shop, client, options), range(CLIENTS)))


async def _async_work(shop: Shop, client: int, options: dict[str, Any]) -> None:
    conn = await psycopg.AsyncConnection.connect(shop.dsn, autocommit=True, **options)
    async with conn:
        for item in range(ROUNDS):
            await conn.execute("INSERT INTO stock VALUES (%s, %s, 'a')", (client, item))
        async with conn.transaction(), conn.cursor("mine") as cur:
            await cur.execute("SELECT item FROM stock WHERE client = %s ORDER BY 1", (client,))
            assert [item async for (item,) in cur] == list(range(ROUNDS))
        async with conn.pipeline():
            found = [await conn.execute("SELECT %s::text", (str(n),)) for n in range(30)]
        assert [await cur.fetchone() for cur in found] == [(str(n),) for n in range(30)]
        async with conn.cursor() as cur:
            async with cur.copy("COPY stock (client, item) FROM STDIN") as copy:
                for item in range(500, 700):
                    await copy.write_row((client, item))
        with pytest.raises(errors.UndefinedTable):
            await conn.execute("SELECT * FROM no_such_table WHERE a = %s", (1,))
        await _notified(conn, client)


async def _notified(conn: psycopg.AsyncConnection, client: int) -> None:
    await conn.execute(f"LISTEN channel_{client}")
    await conn.execute(f"NOTIFY channel_{client}, 'hello'")
    found = [note.payload async for note in conn.notifies(timeout=10, stop_after=1)]
    assert found == ["hello"]
    await conn.execute("UNLISTEN *")


@pytest.mark.parametrize("options", THRESHOLDS.values(), ids=THRESHOLDS.keys())
def test_asyncio(shop: Shop, options: dict[str, Any]) -> None:
    async def main() -> None:
        await asyncio.gather(*(_async_work(shop, client, options) for client in range(CLIENTS)))

    asyncio.run(main())

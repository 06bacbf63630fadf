"""asyncpg: its cache of statements, its pool with the reset query, cursors, COPY, LISTEN."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.drivers.conftest import CLIENTS, Shop

ROUNDS = 12
TYPES = """
    CREATE TYPE colour AS ENUM ('red', 'green');
    CREATE TYPE pair AS (left_one int, right_one text);
"""


async def _work(pool: Any, client: int) -> None:
    for round_ in range(ROUNDS):
        # Another connection each time, and the reset query between.
        async with pool.acquire() as conn:
            await _stock(conn, client, round_)
            await _types(conn, client)
        async with pool.acquire() as conn:
            await _settings(conn, client)
    async with pool.acquire() as conn:
        await _bulk(conn, client)
        await _errors(conn, client)
        await _notified(conn, client)


async def _stock(conn: Any, client: int, item: int) -> None:
    async with conn.transaction():
        await conn.execute("INSERT INTO stock VALUES ($1, $2, $3)", client, item, f"item {item}")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with conn.transaction():
                await conn.execute("INSERT INTO stock VALUES ($1, $2, 'twice')", client, item)
    select = "SELECT name FROM stock WHERE client = $1 AND item = $2"
    assert await conn.fetchval(select, client, item) == f"item {item}"


async def _types(conn: Any, client: int) -> None:
    """What asyncpg has to look up in the catalogs first, which it does with settings of its own."""
    row = await conn.fetchrow("SELECT $1::colour, ROW($2::int, 'b')::pair", "green", client)
    assert row[0] == "green" and tuple(row[1]) == (client, "b")


async def _settings(conn: Any, client: int) -> None:
    """They end with the reset query, when the connection goes back to the pool."""
    assert await conn.fetchval("SELECT current_setting('work_mem')") == "4MB"
    await conn.execute(f"SET work_mem = '{client + 1}MB'")
    for _ in range(3):
        await asyncio.sleep(0)
        assert await conn.fetchval("SELECT current_setting('work_mem')") == f"{client + 1}MB"


async def _bulk(conn: Any, client: int) -> None:
    records = [(client, item, "copied") for item in range(1000, 1500)]
    await conn.copy_records_to_table("stock", records=records)
    await conn.executemany(
        "UPDATE stock SET name = $3 WHERE client = $1 AND item = $2",
        [(client, item, "changed") for item in range(1000, 1300)],
    )
    select = "SELECT item FROM stock WHERE client = $1 AND name = 'changed' ORDER BY item"
    statement = await conn.prepare(select)
    assert len(await statement.fetch(client)) == 300
    async with conn.transaction():
        found = [row[0] async for row in conn.cursor(select, client, prefetch=7)]
        cursor = await statement.cursor(client)
        assert [row[0] for row in await cursor.fetch(3)] == found[:3] == [1000, 1001, 1002]
    assert found == list(range(1000, 1300))


async def _errors(conn: Any, client: int) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await conn.fetchval("SELECT 1 / $1::int", 0)
    with pytest.raises(asyncpg.QueryCanceledError):
        await conn.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)")
    with pytest.raises(TimeoutError):
        await conn.execute("SELECT pg_sleep(9)", timeout=0.05)  # asyncpg sends a cancel request
    assert await conn.fetchval("SELECT $1::int", client) == client


async def _notified(conn: Any, client: int) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(_conn: Any, _pid: int, _channel: str, payload: str) -> None:
        heard.put_nowait(payload)

    await conn.add_listener(f"channel_{client}", hear)
    await conn.execute("SELECT pg_notify($1, 'hello')", f"channel_{client}")
    assert await asyncio.wait_for(heard.get(), 10) == "hello"
    await conn.remove_listener(f"channel_{client}", hear)


def test_pools(shop: Shop) -> None:
    """Two of them, ten connections each; of the pooler's servers there are five."""

    async def main() -> None:
        place = {"host": shop.host, "port": shop.port, "user": shop.user}
        async with (
            asyncpg.create_pool(**place, database=shop.database) as one,
            asyncpg.create_pool(**place, database=shop.database) as other,
        ):
            await one.execute(TYPES)
            works = (_work((one, other)[client % 2], client) for client in range(CLIENTS))
            await asyncio.gather(*works)

    asyncio.run(main())


@pytest.mark.xfail(
    strict=True, reason="who did not prepare anew sees new columns without PostgreSQL's 0A000"
)
def test_a_changed_table_is_read_again(shop: Shop) -> None:
    """asyncpg tells its users of it, outside transactions it prepares again by itself."""

    async def main() -> None:
        conn = await asyncpg.connect(shop.url("postgres"))
        other = await asyncpg.connect(shop.url("postgres"))
        try:
            await conn.execute("INSERT INTO stock VALUES (1, 1, 'one')")
            for added in range(5):
                rows = [await each.fetchrow("SELECT * FROM stock") for each in (conn, other)]
                assert [len(row) for row in rows] == [3 + added, 3 + added]
                await other.execute(f"ALTER TABLE stock ADD added_{added} int")
        finally:
            await conn.close()
            await other.close()

    asyncio.run(main())

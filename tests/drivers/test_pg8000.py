"""pg8000: both of its faces, from threads."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pg8000.dbapi
import pg8000.native
import pytest

from tests.drivers.conftest import CLIENTS, Shop

ROUNDS = 12


def _native(shop: Shop, client: int) -> None:
    place = (shop.user, shop.host, shop.database, shop.port)
    with pg8000.native.Connection(*place) as conn:
        insert = conn.prepare("INSERT INTO stock VALUES (:client, :item, :name)")
        for item in range(ROUNDS):
            insert.run(client=client, item=item, name=f"item {item}")
            rows = conn.run(
                "SELECT name FROM stock WHERE client = :c AND item = :i", c=client, i=item
            )
            assert rows == [[f"item {item}"]]
        conn.run("START TRANSACTION")
        with pytest.raises(pg8000.native.DatabaseError, match="23505"):
            insert.run(client=client, item=0, name="twice")
        conn.run("ROLLBACK")
        insert.close()
        conn.run("COPY stock FROM STDIN", stream=io.BytesIO(b"%d\t500\tcopied\n" % client))
        out = io.BytesIO()
        conn.run(f"COPY (SELECT item FROM stock WHERE client = {client}) TO STDOUT", stream=out)
        assert len(out.getvalue().split()) == ROUNDS + 1


def _dbapi(shop: Shop, client: int) -> None:
    place = {"host": shop.host, "port": shop.port, "database": shop.database}
    with pg8000.dbapi.connect(shop.user, **place) as conn:
        cursor = conn.cursor()
        for item in range(1000, 1000 + ROUNDS):
            cursor.execute("INSERT INTO stock VALUES (%s, %s, %s)", (client, item, "dbapi"))
            cursor.execute("SELECT count(*) FROM stock WHERE client = %s AND item > 999", (client,))
            assert cursor.fetchone() == [item - 999]
            conn.commit()
        with pytest.raises(pg8000.dbapi.DatabaseError, match="42P01"):
            cursor.execute("SELECT * FROM no_such_table")
        conn.rollback()
        cursor.executemany("DELETE FROM stock WHERE client = %s AND item = %s", [(client, 1000)])
        conn.commit()


def test_threads(shop: Shop) -> None:
    with ThreadPoolExecutor(CLIENTS) as executor:
        list(executor.map(lambda client: _native(shop, client), range(CLIENTS)))
        list(executor.map(lambda client: _dbapi(shop, client), range(CLIENTS)))

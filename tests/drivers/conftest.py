"""What applications use, as it is by default, through a pooler of five servers.

Transaction mode, and nothing that the drivers' documentation advises for poolers is set.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.pooler import Poolers, configuration, eventually, poolers
from tests.support.postgres import (
    EmbeddedPostgres,
    connect,
    connections,
    create_database,
    installations,
)

SERVERS = 5
CLIENTS = 15
TIMEOUT = 60  # seconds for a program that does a workload
_numbers = itertools.count(1)


class Shop(NamedTuple):
    """A database of its own, behind the pooler: parameters as drivers take them."""

    host: str
    port: int
    user: str
    database: str

    @property
    def dsn(self) -> str:
        return f"host={self.host} port={self.port} user={self.user} dbname={self.database}"

    def url(self, scheme: str) -> str:
        return f"{scheme}://{self.user}@{self.host}:{self.port}/{self.database}"


@pytest.fixture(scope="session")
def drivers_pg() -> Iterator[EmbeddedPostgres]:
    first = next(iter(installations().values()), None)
    with EmbeddedPostgres(bin_dir=first) as pg:
        yield pg


@pytest.fixture(scope="session")
def drivers_poolers() -> Iterator[Poolers]:
    yield from poolers()


@pytest.fixture
def shop(backend: str, drivers_pg: EmbeddedPostgres, drivers_poolers: Poolers) -> Iterator[Shop]:
    """Afterwards there must not have been more servers than allowed."""
    settings = {"mode": "transaction", "max_servers": SERVERS}
    pooler = drivers_poolers.get(configuration(drivers_pg, backend=backend, **settings))
    database = f"shop_{next(_numbers)}"
    create_database(drivers_pg, database)
    with connect(drivers_pg, dbname=database) as conn:
        conn.execute(
            "CREATE TABLE stock (client int, item int, name text, PRIMARY KEY (client, item))"
        )
    yield Shop("127.0.0.1", pooler.port, "postgres", database)
    eventually(lambda: pooler.clients() == 0, "every client has left")
    assert 0 < connections(drivers_pg, dbname=database) <= SERVERS
    with connect(drivers_pg) as conn:
        conn.execute(f"DROP DATABASE {database} WITH (FORCE)")  # its idle servers go, too

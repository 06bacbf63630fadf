"""A pooler before a real PostgreSQL.

Everything is tested with the first PostgreSQL there is; what clients do, which is where versions
differ, with every one (fixture ``postgres``).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.pooler import PoolerProcess, Poolers, configuration, poolers
from tests.support.postgres import (
    EmbeddedPostgres,
    connect,
    create_database,
    installations,
)

FIRST = next(iter(installations().values()), None)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def first_postgres() -> Iterator[EmbeddedPostgres]:
    """The first PostgreSQL, shared by all tests; who changes it changes it back."""
    with EmbeddedPostgres(bin_dir=FIRST, settings={"max_connections": 300}) as pg:
        yield pg


@pytest.fixture(scope="module")
def pg(first_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The PostgreSQL to test with; a module may have it be another."""
    return first_postgres


@pytest.fixture
def own_pg() -> Iterator[EmbeddedPostgres]:
    """The first PostgreSQL once more, for one test, which may stop and kill it."""
    with EmbeddedPostgres(bin_dir=FIRST) as pg:
        yield pg


@pytest.fixture
def dbname(pg: EmbeddedPostgres) -> Iterator[str]:
    """A database for one test: whoever is connected to it, the test has to do with."""
    name = f"test_{next(_numbers)}"
    create_database(pg, name)
    yield name
    with connect(pg) as conn:
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["session", "transaction"])
def mode(request: pytest.FixtureRequest) -> str:
    """The modes of pooling."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def running() -> Iterator[Poolers]:
    """The poolers of a module, by configuration."""
    yield from poolers()


@pytest.fixture
def pooler(pg: EmbeddedPostgres, backend: str, mode: str, running: Poolers) -> PoolerProcess:
    """The module's pooler on this backend in this mode: for tests that do it no harm."""
    return running.get(configuration(pg, backend=backend, mode=mode))


MakePooler = Callable[..., PoolerProcess]


@pytest.fixture
def start(pg: EmbeddedPostgres, backend: str) -> Iterator[MakePooler]:
    """Starts a pooler for this test: ``start(max_servers=1)``, with any settings of [pooler]."""
    with contextlib.ExitStack() as stack:

        def make(**settings: object) -> PoolerProcess:
            config = configuration(pg, backend=backend, **settings)
            return stack.enter_context(PoolerProcess(config))

        yield make

"""A pooler before a real PostgreSQL.

Everything is tested with the first PostgreSQL there is; what clients do, which is where versions
differ, with every one (fixture ``postgres``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

import trio_backends
from tests.support.backends import backend_params
from tests.support.pooler import PoolerProcess, Poolers, configuration, poolers
from tests.support.postgres import (
    EmbeddedPostgres,
    connect,
    installations,
)

FIRST = next(iter(installations().values()), None)
MakePooler = Callable[..., PoolerProcess]
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
def user(pg: EmbeddedPostgres) -> Iterator[str]:
    """A superuser for one test, with a schema of the same name, which is first in its search_path.

    Pools are per user, so the test has servers of its own, in a pooler that is there already.
    """
    name = f"test_{next(_numbers)}"
    with connect(pg) as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN SUPERUSER; CREATE SCHEMA AUTHORIZATION {name}")
    yield name
    with connect(pg) as conn:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
        conn.execute(ended, [name])


@pytest.fixture(params=["session", "transaction"])
def mode(request: pytest.FixtureRequest) -> str:
    """The modes of pooling."""
    name: str = request.param
    return name


CROSSED = [
    *backend_params(kqueue="kqueue-transaction", others=("io_uring-transaction",)),
    *backend_params(kqueue="kqueue-session", others=("epoll-session",)),
]


@pytest.fixture(scope="module", params=CROSSED)
def crossed(
    request: pytest.FixtureRequest, pg: EmbeddedPostgres, running: Poolers
) -> Callable[..., PoolerProcess]:
    """A pooler as from ``start``, on each backend and in each mode, but not in each combination.

    For tests that are many, where the two have little to do with each other.
    """
    backend, mode = request.param.split("-")
    why_not = trio_backends.available_backends().get(backend)
    if why_not is not None:
        pytest.skip(f"{backend}: {why_not}")

    def make(**settings: object) -> PoolerProcess:
        return running.get(configuration(pg, backend=backend, mode=mode, **settings))

    return make


@pytest.fixture(scope="module")
def running() -> Iterator[Poolers]:
    """The poolers of a module, by configuration."""
    yield from poolers()


@pytest.fixture
def pooler(pg: EmbeddedPostgres, backend: str, mode: str, running: Poolers) -> PoolerProcess:
    """The module's pooler on this backend in this mode: for tests that do it no harm."""
    return running.get(configuration(pg, backend=backend, mode=mode))


@pytest.fixture
def start(pg: EmbeddedPostgres, backend: str, running: Poolers) -> MakePooler:
    """A pooler with settings of [pooler]: ``start(max_servers=1)``.

    The module's tests share it, as far as they ask for the same; each has its own user.
    """

    def make(**settings: object) -> PoolerProcess:
        return running.get(configuration(pg, backend=backend, **settings))

    return make

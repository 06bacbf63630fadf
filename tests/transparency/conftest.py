"""One PostgreSQL and one matrix for all rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pooler import poolers
from tests.support.postgres import EmbeddedPostgres, installations
from tests.transparency.matrix import Matrix

FIRST = next(iter(installations().values()), None)


@pytest.fixture(scope="session")
def matrix() -> Iterator[Matrix]:
    with EmbeddedPostgres(bin_dir=FIRST, settings={"max_connections": 200}) as pg:
        for running in poolers():
            measuring = Matrix(pg, running)
            yield measuring
            measuring.close()

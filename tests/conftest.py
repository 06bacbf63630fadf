"""The fixtures that any test may ask for: a PostgreSQL, its programs, an I/O backend."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.backends import BACKENDS
from tests.support.postgres import EmbeddedPostgres, installations

# The machine may be busy: how long one example takes says nothing. On a CI machine the examples are
# the same every time, so that a change is not blamed for what it did not do.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

INSTALLATIONS = installations()


def pytest_configure() -> None:
    """SIGTERM (of timeout(1), say) ends the suite as Ctrl-C does, so that no PostgreSQL is left."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", returncode=143))


@pytest.fixture(scope="session", params=list(INSTALLATIONS))
def postgres_bin(request: pytest.FixtureRequest) -> Path:
    """The directory of binaries of each PostgreSQL there is."""
    return INSTALLATIONS[request.param]


@pytest.fixture(scope="session")
def postgres(postgres_bin: Path) -> Iterator[EmbeddedPostgres]:
    """One server for all tests; who changes it changes it back. Room for 300 connections."""
    with EmbeddedPostgres(bin_dir=postgres_bin, settings={"max_connections": 300}) as pg:
        yield pg


@pytest.fixture
def own_postgres(postgres_bin: Path) -> Iterator[EmbeddedPostgres]:
    """A server for one test, which may stop, kill and break it. Slow to make: a second or two."""
    with EmbeddedPostgres(bin_dir=postgres_bin) as pg:
        yield pg


@pytest.fixture(scope="session")
def psql_path(postgres_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The psql of the same version as the server."""
    return _program(postgres_bin / "psql", tmp_path_factory)


@pytest.fixture(scope="session")
def pgbench_path(postgres_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pgbench of the same version as the server."""
    return _program(postgres_bin / "pgbench", tmp_path_factory)


def _program(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not path.exists():
        pytest.skip(f"no {path}")
    if "LD_PRELOAD" not in os.environ:
        return path
    # `make sanitize` preloads AddressSanitizer for our extensions. Programs that were not built
    # with it are better off without: Debian's psql never ends.
    without = tmp_path_factory.mktemp("bin") / path.name
    without.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec "{path}" "$@"\n')
    without.chmod(0o755)
    return without


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each I/O backend that can serve on this machine."""
    import trio_backends

    name: str = request.param
    why_not = trio_backends.available_backends().get(name, "unknown to trio_backends")
    if why_not is not None:
        pytest.skip(f"{name}: {why_not}")
    return name

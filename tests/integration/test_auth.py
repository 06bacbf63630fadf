"""Who is let in by the pooler, and how the pooler is let in by PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import asyncpg
import psycopg
import pytest

from tests.support.client import Client, message, startup
from tests.support.pooler import PoolerProcess, Poolers, configuration
from tests.support.postgres import EmbeddedPostgres, create_user, hba

METHODS = ("password", "md5", "scram-sha-256")
# Names tell the secret's form in the users file. An MD5 secret proves nothing by SCRAM.
PASSWORDS = {"plain": "pla'in", "hashed": "has hed", "scrammed": "scrämmed"}
ADMITTED = [
    (method, name)
    for method in METHODS
    for name in PASSWORDS
    if (method, name) != ("scram-sha-256", "hashed")
]


class Secrets(NamedTuple):
    users: str
    stored: dict[str, str]


@pytest.fixture(scope="module")
def secrets(pg: EmbeddedPostgres) -> Secrets:
    """The users in PostgreSQL, and the lines of the users file."""
    kinds = {"hashed": "md5", "scrammed": "scram-sha-256", "plain": "scram-sha-256"}
    stored = {
        name: create_user(pg, name, password, encryption=kinds[name])
        for name, password in PASSWORDS.items()
    }
    stored["plain"] = PASSWORDS["plain"]
    create_user(pg, "empty", "unused")
    lines = [f'"{name}" "{secret}"' for name, secret in {**stored, "empty": ""}.items()]
    return Secrets("\n".join(lines) + "\n", stored)


@pytest.fixture
def asking(pg: EmbeddedPostgres, backend: str, running: Poolers, secrets: Secrets) -> Asking:
    return Asking(pg, backend, running, secrets)


class Asking(NamedTuple):
    """Makes poolers that ask for passwords; PostgreSQL behind them asks for none."""

    pg: EmbeddedPostgres
    backend: str
    running: Poolers
    secrets: Secrets

    def by(self, method: str) -> PoolerProcess:
        config = configuration(self.pg, backend=self.backend)
        config["auth"]["method"] = method
        return self.running.get(config, users=self.secrets.users)


async def _who(pooler: PoolerProcess, user: str, password: str) -> str:
    place = {**pooler.place, "user": user}
    conn = await asyncpg.connect(
        **place, password=password, database="postgres", statement_cache_size=0
    )
    try:
        name = await conn.fetchval("SELECT current_user")
    finally:
        await conn.close()
    return str(name)


def asyncpg_says(pooler: PoolerProcess, user: str, password: str) -> str:
    """The user that one is, or the SQLSTATE of the refusal."""
    try:
        return asyncio.run(_who(pooler, user, password))
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)


def psycopg_says(pooler: PoolerProcess, user: str, password: str) -> str:
    """The user that one is, or the words of the refusal."""
    try:
        with psycopg.connect(pooler.dsn(user=user), password=password) as conn:
            return conn.info.user
    except psycopg.OperationalError as error:
        return str(error)


@pytest.mark.parametrize(("method", "name"), ADMITTED)
def test_the_right_password(asking: Asking, method: str, name: str) -> None:
    pooler = asking.by(method)
    assert asyncpg_says(pooler, name, PASSWORDS[name]) == name
    assert psycopg_says(pooler, name, PASSWORDS[name]) == name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*PASSWORDS, "empty", "nobody", "postgres"])
@pytest.mark.parametrize("password", ["wrong", "", "plain", "x" * 2000])
def test_wrong_passwords(asking: Asking, method: str, name: str, password: str) -> None:
    assert asyncpg_says(asking.by(method), name, password) == "28P01"


@pytest.mark.parametrize("method", METHODS)
def test_the_stored_secret_is_no_password(asking: Asking, secrets: Secrets, method: str) -> None:
    for name in ("hashed", "scrammed"):
        assert asyncpg_says(asking.by(method), name, secrets.stored[name]) == "28P01"


def test_a_hash_is_not_enough_for_scram(asking: Asking) -> None:
    assert asyncpg_says(asking.by("scram-sha-256"), "hashed", PASSWORDS["hashed"]) == "28P01"


@pytest.mark.parametrize("method", METHODS)
def test_words_of_a_refusal(asking: Asking, method: str) -> None:
    """The same for those who exist and those who do not."""
    pooler = asking.by(method)
    for name in ("plain", "nobody", "empty"):
        words = psycopg_says(pooler, name, "wrong")
        assert f'FATAL:  password authentication failed for user "{name}"' in words


def test_no_password_is_logged(asking: Asking, secrets: Secrets) -> None:
    for method in METHODS:
        pooler = asking.by(method)
        asyncpg_says(pooler, "plain", "a secret")
        asyncpg_says(pooler, "plain", PASSWORDS["plain"])
        for text in ("a secret", *PASSWORDS.values(), *secrets.stored.values()):
            assert text not in pooler.log


def test_trust(asking: Asking) -> None:
    pooler = asking.by("trust")
    assert asyncpg_says(pooler, "plain", "") == "plain"
    assert asyncpg_says(pooler, "scrammed", "wrong") == "scrammed"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "answer",
    [
        message("Q", b"SELECT 1\0"),
        message("X"),
        message("p"),
        message("p", b"no end"),
        message("p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
        message("p", b"SCRAM-SHA-256\0\0\0\0\x05n,,n="),
        message("p", b"SCRAM-SHA-1\0\0\0\0\x05n,,n="),
        message("p", b"x" * 70_000),
        b"p\xff\xff\xff\xff",
        b"p\0\0\0\3",
        bytes(100),
    ],
    ids=lambda answer: repr(answer[:24]),
)
def test_answers_that_are_none(asking: Asking, method: str, answer: bytes) -> None:
    with Client(asking.by(method).port) as client:
        client.send(startup(user="plain"))
        client.message()
        client.send(answer)
        client.finish_sending()
        kinds = [kind for kind, _ in client.until_end()]
        assert set(kinds) <= {"E", "R"} and "Z" not in kinds and "K" not in kinds


def test_queries_before_the_password_are_not_served(asking: Asking) -> None:
    with Client(asking.by("password").port) as client:
        client.send(startup(user="plain") + message("Q", b"SELECT 1\0"))
        assert client.message().kind == "R"
        assert client.last_error()["C"] == "08P01"


# -- the pooler's own log-in ----------------------------------------------------------------


@contextlib.contextmanager
def asked_by_postgres(pg: EmbeddedPostgres, encryption: str) -> Iterator[str]:
    create_user(pg, "asked", "its password", encryption=encryption)
    with hba(pg, f"host all asked all {encryption}"):
        yield "asked"


@pytest.mark.parametrize("encryption", ["scram-sha-256", "md5"])
def test_log_in_with_the_password_of_the_users_file(
    pg: EmbeddedPostgres, backend: str, encryption: str
) -> None:
    config = configuration(pg, backend=backend)
    config["auth"]["method"] = "scram-sha-256"
    with asked_by_postgres(pg, encryption) as user:
        with PoolerProcess(config, users='"asked" "its password"\n') as pooler:
            assert asyncpg_says(pooler, user, "its password") == user


def test_log_in_with_a_password_in_the_clear(pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(pg, backend=backend)
    create_user(pg, "asked", "its password")
    with hba(pg, "host all asked all password"):
        with PoolerProcess(config, users='"asked" "its password"\n') as pooler:
            assert asyncpg_says(pooler, "asked", "") == "asked"


def test_log_in_with_the_databases_own_user(pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(pg, backend=backend)
    config["databases"]["*"] |= {"user": "asked", "password": "its password"}
    with asked_by_postgres(pg, "scram-sha-256"), PoolerProcess(config) as pooler:
        assert asyncpg_says(pooler, "somebody", "") == "asked"


def test_log_in_by_md5_with_a_hash(pg: EmbeddedPostgres, backend: str) -> None:
    config = configuration(pg, backend=backend)
    config["auth"]["method"] = "md5"
    hashed = create_user(pg, "asked", "its password", encryption="md5")
    with asked_by_postgres(pg, "md5") as user:
        with PoolerProcess(config, users=f'"asked" "{hashed}"\n') as pooler:
            assert asyncpg_says(pooler, user, "its password") == user


def test_log_in_by_scram_with_a_hash(pg: EmbeddedPostgres, backend: str) -> None:
    """Is not possible; whoever operates the pooler is told why."""
    config = configuration(pg, backend=backend)
    config["auth"]["method"] = "md5"
    hashed = create_user(pg, "asked", "its password", encryption="md5")
    with asked_by_postgres(pg, "scram-sha-256") as user:
        with PoolerProcess(config, users=f'"asked" "{hashed}"\n') as pooler:
            assert asyncpg_says(pooler, user, "its password") == "28P01"
            assert "no usable password" in pooler.log

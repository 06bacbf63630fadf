"""Where rows are played: PostgreSQL itself, or a pooler, and a user who is there alone."""

from __future__ import annotations

import re
import time

import psycopg

from tests.support.client import Client
from tests.support.pooler import PATIENCE, PoolerProcess
from tests.transparency.neighbours import Neighbours
from tests.transparency.stage import Stage
from tests.transparency.table import Mode, Row

SERVERS = 3  # of a pool; the clients of a row may pin all but one
# Seconds until what a row has left is there to stay: a lock of which the pooler does not know.
SETTLING = 0.5

_PINNED = re.compile(r'client pinned .*?reason=(?:"([^"]*)"|(\S+))')
_SERVERS = "FROM pg_stat_activity WHERE usename = %s"
_LOCKS = "SELECT FROM pg_locks WHERE locktype = 'advisory'"


class Ground:
    """A user with a schema of the same name, empty when a row begins."""

    def __init__(self, admin: psycopg.Connection, port: int, user: str) -> None:
        self.port = port
        self.user = user
        self._admin = admin
        for role in (f"{user} LOGIN SUPERUSER", f"{user}_r", f"{user}_s"):
            admin.execute(f"CREATE ROLE {role}")

    def play(self, row: Row) -> list[str]:
        """What its clients hear."""
        self._admin.execute(f"DROP SCHEMA IF EXISTS {self.user} CASCADE")
        self._admin.execute(f"CREATE SCHEMA AUTHORIZATION {self.user}")
        stage = self._stage()
        stage.play(row)
        if stage.special:
            self.end_servers()  # they would take the places of those that the next row needs
        self._until_gone(f"{_LOCKS} UNION ALL SELECT {_SERVERS} AND state <> 'idle'", SETTLING)
        return stage.record

    def _stage(self) -> Stage:
        return Stage(self.port, self.user)

    def end_servers(self) -> None:
        """Whatever they still have is not for the next row."""
        # Again and again: a pooler may be about to open one for a client that has just gone.
        self._until_gone(f"SELECT pg_terminate_backend(pid) {_SERVERS}")

    def _until_gone(self, asked: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while self._admin.execute(asked, [self.user]).rowcount and time.monotonic() < deadline:
            time.sleep(0.002)

    def close(self) -> None:
        """What is left to do at the end."""


class Pooled(Ground):
    """Through a pooler, with neighbours where they can have the servers in between."""

    def __init__(
        self, admin: psycopg.Connection, pooler: PoolerProcess, user: str, mode: Mode
    ) -> None:
        super().__init__(admin, pooler.port, user)
        self._pooler = pooler
        admin.execute(f"CREATE SCHEMA AUTHORIZATION {user}")
        self._neighbours = Neighbours(self.port, user, SERVERS) if mode.shuffled else None
        self._heard = 0  # of the log, before the row

    def _stage(self) -> Stage:
        if self._neighbours:
            self._neighbours.open_servers()
        else:
            self._former_clients()
        self._heard = len(self._pooler.log)
        return Stage(self.port, self.user, self._neighbours)

    def _former_clients(self) -> None:
        """They have used all servers, and left what they could."""
        former = [Client.log_in(self.port, user=self.user) for _ in range(SERVERS)]
        for client in former:
            client.query("SET TimeZone = 'Asia/Tokyo'; SET my.setting = 'of a former client'")
            client.query("LISTEN former; CREATE TEMP TABLE t (former int); PREPARE s AS SELECT")
        for client in former:
            client.terminate()

    def pins(self) -> list[str]:
        """The reasons for which clients of the row played last were pinned, in order."""
        found = _PINNED.findall(self._pooler.log[self._heard :])
        return list(dict.fromkeys(reason or word for reason, word in found))

    def close(self) -> None:
        if self._neighbours:
            self._neighbours.leave()

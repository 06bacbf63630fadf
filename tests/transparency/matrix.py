"""Measuring: each row on a direct connection, and through the pooler in a mode."""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass

from tests.support.pooler import Poolers, configuration
from tests.support.postgres import EmbeddedPostgres, connect
from tests.transparency.ground import SERVERS, Ground, Pooled
from tests.transparency.table import DIFFERS, NAMED, PINNED, REFUSED, SAME, Mode, Row

_NO_BLOCKS = "transaction blocks not allowed in statement pooling mode"


@dataclass(frozen=True, slots=True)
class Measured:
    """``difference``: what was heard, as a diff from the direct connection; empty if the same."""

    verdict: str
    difference: str = ""


class Matrix:
    """Measures what it is asked for, once."""

    def __init__(self, pg: EmbeddedPostgres, poolers: Poolers) -> None:
        self._pg = pg
        self._admin = connect(pg)
        self._poolers = poolers
        # Names of the same length, since some are in what is compared.
        self._users = (f"matrix_{number:02}" for number in itertools.count())
        self._ground = Ground(self._admin, pg.port, next(self._users))
        self._grounds: dict[tuple[str, str], Pooled] = {}
        self._direct: dict[str, list[str]] = {}
        self._measured: dict[tuple[str, str, str], Measured] = {}

    def measure(self, row: Row, mode: Mode, backend: str) -> Measured:
        key = (row.name, mode.name, backend)
        if key not in self._measured:
            self._measured[key] = self._measure(row, mode, backend)
        return self._measured[key]

    def direct(self, row: Row) -> list[str]:
        """What a row's clients hear on direct connections."""
        if row.name not in self._direct:
            self._direct[row.name] = self._ground.play(row)
            self._ground.end_servers()
        return self._direct[row.name]

    def close(self) -> None:
        for ground in self._grounds.values():
            ground.close()
        self._admin.close()

    def _pooled(self, mode: Mode, backend: str) -> Pooled:
        key = (mode.name, backend)
        if key not in self._grounds:
            settings = {"mode": mode.name, "max_servers": SERVERS, "pin_on": [NAMED]}
            pooler = self._poolers.get(configuration(self._pg, backend=backend, **settings))
            self._grounds[key] = Pooled(self._admin, pooler, next(self._users), mode)
        return self._grounds[key]

    def _measure(self, row: Row, mode: Mode, backend: str) -> Measured:
        wanted = self.direct(row)
        ground = self._pooled(mode, backend)
        found = ground.play(row)
        if found == wanted:
            reasons = ground.pins()
            return Measured(PINNED + ", ".join(reasons) if reasons else SAME)
        ground.end_servers()
        if mode.name == "statement" and any(_NO_BLOCKS in line for line in found):
            return Measured(REFUSED)
        diff = difflib.unified_diff(wanted, found, "direct", mode.name, lineterm="", n=3)
        return Measured(DIFFERS, "\n".join(diff))

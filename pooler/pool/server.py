"""What a pool asks of a server, and of a log."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from pooler.rules.session import SessionState
from pooler.wire.errors import PostgresError
from trio_backends import EngineStream


class ServerFailed(Exception):
    """A server could not be opened; ``error`` is what a waiting client is to be told."""

    def __init__(self, error: PostgresError) -> None:
        super().__init__(str(error))
        self.error = error


class Server(Protocol):
    """A logged-in connection to PostgreSQL, as the pool sees it (links.server makes them)."""

    @property
    def stream(self) -> EngineStream: ...

    @property
    def parameters(self) -> dict[str, str]:
        """What it reported of itself: ParameterStatus."""

    async def execute(self, statement: str) -> None:
        """Runs one statement, outside of any transaction at its end; else PostgresError."""

    async def look(self, names: Collection[str]) -> tuple[SessionState, bytes]:
        """What its session has, and what it said meanwhile for its client; else PostgresError."""

    async def listen(self) -> None:
        """Takes in what it said unasked; PostgresError if that was an error or its end."""

    async def cancel(self) -> None:
        """Asks PostgreSQL to cancel what it does; returns when PostgreSQL has passed that on."""

    async def end(self, *, finish: bool) -> None:
        """Waits until PostgreSQL has closed; ``finish``: when it has done what it was asked for."""

    def close(self) -> None:
        """Says Terminate if there is room for it, and closes."""


class Log(Protocol):
    def info(self, event: str, **values: object) -> object: ...
    def warning(self, event: str, **values: object) -> object: ...

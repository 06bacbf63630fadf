"""Where a client belongs: a pool, and what of its start-up packet its servers do not do anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pooler.pool.guest import Guest
from pooler.pool.pool import Pool
from pooler.wire.messages import parameter_status
from pooler.wire.session import Setting


@dataclass(frozen=True, slots=True)
class Place:
    """``settings`` are made so on each server that the client gets; ``reported`` is what a server
    with them says of itself at log-in (None: what all servers of the pool say)."""

    pool: Pool
    application_name: str = ""
    settings: tuple[Setting, ...] = ()
    reported: Mapping[str, str] | None = None

    def greeting(self) -> bytes:
        """What a server would report of itself; b"" before the pool's first one has."""
        if self.reported is None:
            return self.pool.greeting(self.application_name)
        return b"".join(parameter_status(*each) for each in self._parameters().items())

    def _parameters(self) -> dict[str, str]:
        reported = self.pool.parameters if self.reported is None else self.reported
        return {**(reported or {}), "application_name": self.application_name}

    def guest(self, number: int) -> Guest:
        """A client that comes in; ``number``: what it is called in the log."""
        return Guest(number, self.settings, self._parameters() if self.settings else {})

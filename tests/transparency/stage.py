"""What a row is played on: clients of one user, on a direct connection or through a pooler."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from tests.support.client import Ended
from tests.transparency.actor import Actor, Silence
from tests.transparency.neighbours import Neighbours
from tests.transparency.table import Row

_TEMPORARY = re.compile(r"pg_temp_\d+")  # a schema by the number of its backend


class Stage:
    """Clients of *user* and a record of what they heard.

    ``role`` and ``other_role`` are roles who may do nothing in particular.
    """

    def __init__(self, port: int, user: str, neighbours: Neighbours | None = None) -> None:
        self.port = port
        self.user = user
        self.role = f"{user}_r"
        self.other_role = f"{user}_s"
        self.record: list[str] = []
        # Whether a client may have had servers of its own, opened with its start-up parameters.
        self.special = False
        self._actors: list[Actor] = []
        self._neighbours = neighbours

    # -- for rows ---------------------------------------------------------------------

    def client(self, name: str = "a", **parameters: str) -> Actor:
        """One that is logged in, with these start-up parameters."""
        self.special |= bool(parameters)
        actor = self._actor(name)
        actor.log_in(self.user, **parameters)
        return actor

    def stranger(self, name: str = "a") -> Actor:
        """One that is connected only."""
        self.special = True
        return self._actor(name)

    def _actor(self, name: str) -> Actor:
        actor = Actor(name, self.port, self._turn, self._write)
        self._actors.append(actor)
        return actor

    def note(self, what: str, value: object) -> None:
        self._write(f"{what}: {value}")

    # -- around them ------------------------------------------------------------------

    def _turn(self) -> Callable[[], None]:
        return self._neighbours.turn() if self._neighbours else lambda: None

    def _write(self, text: str) -> None:
        text = _TEMPORARY.sub("pg_temp_N", text.replace(self.user, "USER"))
        self.record.append(text)

    def play(self, row: Row) -> None:
        """Plays it to its end, or to where nothing comes any more."""
        try:
            row.play(self)
            self._turn()()
            self.note("the neighbours are undisturbed", self._undisturbed())
        except (Silence, Ended, TimeoutError, AssertionError) as fault:
            self.note("broken off", f"{type(fault).__name__} {fault}")
        finally:
            self.close()

    def _undisturbed(self) -> bool:
        return self._neighbours is None or self._neighbours.undisturbed()

    def close(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(OSError):
                actor.client.terminate()

"""Other clients of the same user, who use the same servers between the steps of a row.

Each has a state of its own, different from that of all others, so that a client that is given a
server as its neighbour left it notices. Before each step the neighbours take every server there is
to have; then the client sends, and they give the servers back, first one that the client has not
had lately.
"""

from __future__ import annotations

import functools
import select
from collections.abc import Callable

from tests.support.client import FLUSH, SYNC, Client, bind, execute, parse

# A server that is not given out after so many round trips on another is not to be had.
ROUND_TRIPS = 25
_ASK = parse("SELECT pg_backend_pid()") + bind() + execute() + FLUSH
_ANSWER = ("1", "2", "D", "C")

ZONES = ("Asia/Tokyo", "America/Lima", "Australia/Perth")


def _state(number: int) -> dict[str, str]:
    """Settings, by name, of a neighbour."""
    return {
        "TimeZone": ZONES[number],
        "DateStyle": "SQL, MDY" if number else "German",
        "IntervalStyle": "sql_standard",
        "search_path": f"nobody_{number}, pg_catalog",
        "statement_timeout": f"{number + 20}min",
        "application_name": f"neighbour {number}",
        "client_min_messages": "error",
        "extra_float_digits": str(-number - 1),
        "bytea_output": "escape",
        "my.setting": f"of neighbour {number}",
    }


class Neighbour:
    """A client that holds a server when it is asked to, outside of any transaction block."""

    def __init__(self, port: int, user: str, number: int) -> None:
        self.client = Client.log_in(port, user=user)
        self.pid = ""  # of the server that it has
        settings = _state(number)
        changes = (f"set_config('{name}', '{value}', false)" for name, value in settings.items())
        self._shown = "SELECT " + ", ".join(f"current_setting('{name}')" for name in settings)
        self._state = self.client.query(f"SELECT {', '.join(changes)}").rows
        self.client.send(parse(f"SELECT 'of neighbour {number}'", "s") + SYNC)
        self.client.result()

    def ask(self) -> None:
        """For a server, without waiting for it."""
        self.pid = ""
        self.client.send(_ASK)

    def take(self) -> None:
        """What it was answered."""
        for kind in _ANSWER:
            found, body = self.client.message()
            assert found == kind, (found, body)
            if kind == "D":
                self.pid = body[6:].decode()

    def ping(self) -> None:
        self.client.send(_ASK)
        self.take()

    def let_go(self) -> None:
        self.client.send(SYNC)

    def gone(self) -> None:
        if not self.pid:
            self.take()
        assert self.client.message().kind == "Z"

    def undisturbed(self) -> bool:
        """Whether it still is in the state that it put itself into."""
        return self.client.query(self._shown).rows == self._state


class Neighbours:
    """As many as there may be servers: no row may have as many clients with a server each."""

    def __init__(self, port: int, user: str, count: int) -> None:
        self._all = [Neighbour(port, user, number) for number in range(count)]
        self._given: list[str] = []  # pids, the one given last at the end

    def open_servers(self) -> None:
        """Waits until there is one for each; none may be pinned."""
        for neighbour in self._all:
            neighbour.ask()
        for neighbour in self._all:
            neighbour.take()
        self._release()

    def turn(self) -> Callable[[], None]:
        """Has them take the servers; what is returned has them let go."""
        waiting = {neighbour.client.socket.fileno(): neighbour for neighbour in self._all}
        holders: list[Neighbour] = []
        for neighbour in self._all:
            neighbour.ask()
        for _ in range(ROUND_TRIPS):
            # The first one must come; for the others, see whether the pooler could give them one.
            ready, _, _ = select.select(list(waiting), [], [], 0.0005 if holders else 20)
            for number in ready:
                holders.append(waiting.pop(number))
                holders[-1].take()
            if not waiting:
                break
            assert holders, "no server is to be had"
            holders[0].ping()
        return functools.partial(self._release_to, holders[0])

    def _release_to(self, holder: Neighbour) -> None:
        """When what has been sent is with the pooler, and waits for a server."""
        for _ in range(3):
            holder.ping()
        self._release()

    def _release(self) -> None:
        order = sorted(self._all, key=self._lately)
        self._given = [*(pid for pid in self._given if pid != order[0].pid), order[0].pid]
        order[0].let_go()
        order[0].gone()  # and so its server is given to whoever waits
        for neighbour in order[1:]:
            neighbour.let_go()
        for neighbour in order[1:]:
            neighbour.gone()

    def _lately(self, neighbour: Neighbour) -> int:
        """Who has none comes last."""
        if not neighbour.pid:
            return len(self._given)
        return self._given.index(neighbour.pid) if neighbour.pid in self._given else -1

    def undisturbed(self) -> bool:
        return all(neighbour.undisturbed() for neighbour in self._all)

    def leave(self) -> None:
        for neighbour in self._all:
            neighbour.client.terminate()

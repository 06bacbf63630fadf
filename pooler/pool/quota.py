"""How many servers a database and user may have, over all pools that share the limit.

Clients with other start-up parameters need other servers, so a database and user may have several
pools. They share one limit: a pool whose clients wait while it has no server at all gets a place
from the sibling that has most, whose next free server is retired for it.
"""

from __future__ import annotations

from typing import Protocol


class Member(Protocol):
    """A pool, as its siblings see it."""

    @property
    def size(self) -> int:
        """How many places it holds."""

    def give_up_one(self) -> None:
        """Retire a server as soon as it is free."""

    def consider(self) -> None:
        """A place may have become free."""


class Quota:
    """``limit`` places, taken before a server is opened and given back when it is closed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._members: list[Member] = []

    def join(self, member: Member) -> None:
        self._members.append(member)

    def leave(self, member: Member) -> None:
        self._members.remove(member)

    @property
    def free(self) -> int:
        """How many places are left; negative when the limit was lowered."""
        return self.limit - self.taken

    def take(self) -> None:
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1
        # Whoever has least is asked first: it may have been waiting for this one.
        for member in sorted(self._members, key=lambda member: member.size):
            if self.free <= 0:
                break
            member.consider()

    def ask_siblings(self, asking: Member) -> None:
        """The asking pool has clients waiting and no server: the largest sibling gives one up."""
        siblings = [m for m in self._members if m is not asking and m.size]
        if siblings:
            max(siblings, key=lambda member: member.size).give_up_one()

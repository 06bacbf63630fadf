"""Servers for replication: opened for one client each, within the limit of its pools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from pooler.links.server import ServerLink, Target, open_server
from pooler.pool import Quota
from pooler.wire.errors import PostgresError


class _Reservation:
    """Waits for a place among the pools of a quota, as if it were one. See quota.Member."""

    size = 0  # so that it is asked before all that have a server

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._taken = trio.Event()

    def consider(self) -> None:
        if not self._taken.is_set() and self._quota.free > 0:
            self._quota.take()
            self._taken.set()

    def give_up_one(self) -> None:
        """It has none to give."""

    async def wait(self, timeout: float) -> None:
        """Until there is a place; ``timeout`` in seconds."""
        self._quota.join(self)
        try:
            self.consider()
            if not self._taken.is_set():
                self._quota.ask_siblings(self)
            with trio.move_on_after(timeout):
                await self._taken.wait()
        except BaseException:
            if self._taken.is_set():
                self._quota.give_back()
            raise
        finally:
            self._quota.leave(self)
        if not self._taken.is_set():
            raise PostgresError("FATAL", "53300", "no server connection became free in time")


@asynccontextmanager
async def walsender(
    target: Target, quota: Quota, *, wait_timeout: float, connect_timeout: float
) -> AsyncIterator[ServerLink]:
    """A server of its own for a client that replicates, closed at the end; times in seconds.

    Raises:
        PostgresError: there was no place for it in time, or it could not be opened.
    """
    await _Reservation(quota).wait(wait_timeout)
    try:
        link = await open_server(target, connect_timeout)
        try:
            yield link
        finally:
            link.close()
    finally:
        quota.give_back()

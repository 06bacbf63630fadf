"""Which pool serves whom: by database, user, and the start-up parameters that make a difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager

import structlog
import trio

from pooler.config import Database, PlainSecret, Secret, Settings, UnixAddress
from pooler.config.users import Md5Secret
from pooler.links.proof import UnseenServer
from pooler.links.server import ServerLink, Target, open_server
from pooler.pool import Limits, Place, Pool, Quota, ServerFailed
from pooler.rules.modes import pooling
from pooler.rules.parameters import Variant, as_settings, variant
from pooler.service.walsenders import walsender
from pooler.wire.errors import PostgresError
from pooler.wire.framing import framing_address
from pooler.wire.session import SETS, TRACKS, told_words
from pooler.wire.startup import Startup
from trio_backends import Multiplexer

log = structlog.get_logger()

# Different start-up packets that are remembered; clients choose them, so there is a limit.
KNOWN_LIMIT = 1024
# Servers opened at once to find out what their parameters make of them.
PARALLEL_TRIALS = 4


def _password(database: Database, user: str, users: Mapping[str, Secret | None]) -> str | None:
    if database.password is not None:
        return database.password.get_secret_value()
    secret = users.get(user)
    if isinstance(secret, PlainSecret):
        return secret.password.get_secret_value()
    return "md5" + secret.digest if isinstance(secret, Md5Secret) else None


def _key(startup: Startup) -> tuple[object, ...]:
    """All of a packet that makes a difference to which pool it is."""
    special = (startup.options, startup.replication)
    return (startup.database, startup.user, special, *startup.parameters.items())


class Directory:
    """Pools, made when first asked for."""

    def __init__(self, settings: Settings, nursery: trio.Nursery) -> None:
        # What servers report that are opened with some parameters; one is opened to find out.
        self._reported: dict[tuple[str, str, Variant], Mapping[str, str]] = {}
        self._trials = trio.CapacityLimiter(PARALLEL_TRIALS)
        self._settings = settings
        self._nursery = nursery
        self._pools: dict[tuple[str, str, Variant], Pool] = {}
        self._quotas: dict[tuple[str, str], Quota] = {}
        # The pools of start-up packets that have been seen.
        self._known: dict[tuple[object, ...], Place] = {}

    def __iter__(self) -> Iterator[tuple[str, str, Pool]]:
        for (database, user, _), pool in self._pools.items():
            yield database, user, pool

    def known(self, startup: Startup) -> Place | None:
        """The place that :meth:`find` has found before for the like of this packet."""
        return self._known.get(_key(startup))

    async def find(self, startup: Startup) -> Place:
        """Where a client belongs.

        Raises:
            PostgresError: there is no such database (3D000), or what it asks for is not to be had,
                or whether it asks for anything special could not be found out.
        """
        place = await self._find(startup)
        if len(self._known) >= KNOWN_LIMIT:
            self._known.clear()
        self._known[_key(startup)] = place
        return place

    async def _find(self, startup: Startup) -> Place:
        database = self._database(startup)
        plain = self._get(database, startup.user, ())
        application = startup.parameters.get("application_name", "")
        if variant(startup, {}):
            # Perhaps it asks for what servers do anyway, as most clients do.
            await plain.wait_parameters()
        wishes = variant(startup, plain.parameters)
        settings = as_settings(wishes, application)
        if pooling(database.mode).keeps_server or settings is None:
            named = as_settings((), application) or ()
            return Place(self._get(database, startup.user, wishes), application, named)
        reported = await self._try(database, startup.user, wishes) if wishes else None
        return Place(plain, application, settings, reported)

    async def _try(self, database: Database, user: str, wishes: Variant) -> Mapping[str, str]:
        """What a server reports that is opened with these parameters. PostgresError: it refuses."""
        key = (database.name, user, wishes)
        found = self._reported.get(key)
        if found is None:
            async with self._trials:
                target = self._target(database, user, wishes)
                link = await open_server(target, database.server_connect_timeout)
                link.close()
            found = link.parameters
            if len(self._reported) >= KNOWN_LIMIT:
                self._reported.clear()
            self._reported[key] = found
        return found

    def walsender(self, startup: Startup) -> AbstractAsyncContextManager[ServerLink]:
        """A server for a client that asks for replication; see walsenders.walsender.

        Raises:
            PostgresError: there is no such database.
        """
        database = self._database(startup)
        given = {"replication": startup.replication, "options": startup.options}
        wishes = {**startup.parameters, **{k: v for k, v in given.items() if v is not None}}
        return walsender(
            self._target(database, startup.user, tuple(wishes.items())),
            self._quota(database, startup.user),
            wait_timeout=database.query_wait_timeout or math.inf,
            connect_timeout=database.server_connect_timeout,
        )

    def _database(self, startup: Startup) -> Database:
        database = self._settings.database(startup.database, startup.user)
        if database is None:
            raise PostgresError("FATAL", "3D000", f'database "{startup.database}" does not exist')
        return database

    def _quota(self, database: Database, user: str) -> Quota:
        return self._quotas.setdefault((database.name, user), Quota(database.max_servers))

    def _get(self, database: Database, user: str, wishes: Variant) -> Pool:
        pool = self._pools.get((database.name, user, wishes))
        return pool if pool is not None else self._make(database, user, wishes)

    def _target(self, database: Database, client_user: str, wishes: Variant) -> Target:
        user = database.user or client_user
        address = database.address
        return Target(
            host=None if isinstance(address, UnixAddress) else address.host,
            port=address.port,
            path=address.path if isinstance(address, UnixAddress) else None,
            user=user,
            database=database.dbname,
            secret=_password(database, user, self._settings.secrets),
            settings=wishes,
            high_water=self._settings.pooler.buffer_high_water,
        )

    def _make(self, database: Database, client_user: str, wishes: Variant) -> Pool:
        name = (database.name, client_user)
        target = self._target(database, client_user, wishes)
        quota = self._quota(database, client_user)
        mode = pooling(database.mode)
        sticky = mode.keeps_server
        # A server that stays with its client needs nothing rewritten.
        option = SETS if sticky else database.max_prepared_statements | TRACKS
        framing = framing_address(blocks=mode.blocks, inspects=mode.inspects)
        kind = ServerLink if mode.inspects else UnseenServer
        multiplexer = Multiplexer(framing, sticky=sticky, option=option)
        multiplexer.tell(told_words(database.pin_on))
        multiplexer.limit(
            wait=database.query_wait_timeout,
            client_idle=self._settings.pooler.client_idle_timeout,
            open_idle=database.idle_transaction_timeout,
            server_idle=database.server_idle_timeout,
        )

        async def connect() -> ServerLink:
            try:
                return await open_server(target, database.server_connect_timeout, kind)
            except PostgresError as error:
                raise ServerFailed(error) from None

        pool = Pool(
            multiplexer,
            connect,
            sticky=sticky,
            pins_allowed=database.pins == "allow",
            limits=Limits(
                min_servers=database.min_servers if not wishes else 0,
                server_connect_timeout=database.server_connect_timeout,
                server_lifetime=database.server_lifetime,
            ),
            quota=quota,
            nursery=self._nursery,
            log=log.bind(database=database.name, user=client_user),
        )
        self._pools[(*name, wishes)] = pool
        self._nursery.start_soon(pool.run)
        return pool

    def prefill(self) -> None:
        """Makes the pools that are to have servers ahead and whose user is known."""
        for name, settings in self._settings.databases.items():
            users = [settings.user] if settings.user else list(self._settings.secrets)
            for user in users:
                database = self._settings.database(name, user)
                if name != "*" and database is not None and database.min_servers:
                    self._get(database, user, ())

    def stop_opening(self) -> None:
        for pool in self._pools.values():
            pool.stop_opening()

    async def settled(self) -> None:
        """Returns when no server has anything to do for clients that are gone."""
        for pool in self._pools.values():
            await pool.settled()

"""Which pool serves whom: by database, user, and the start-up parameters that make a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog
import trio

from pooler.config import Database, PlainSecret, Secret, Settings, UnixAddress
from pooler.config.users import Md5Secret
from pooler.links.server import ServerLink, Target, open_server
from pooler.pool import Limits, Pool, Quota, ServerFailed
from pooler.rules.modes import pooling
from pooler.rules.parameters import Variant, variant
from pooler.wire.errors import PostgresError
from pooler.wire.framing import framing_address
from pooler.wire.startup import Startup
from trio_backends import Multiplexer

log = structlog.get_logger()

# Different start-up packets that are remembered; clients choose them, so there is a limit.
KNOWN_LIMIT = 1024


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
        self._settings = settings
        self._nursery = nursery
        self._pools: dict[tuple[str, str, Variant], Pool] = {}
        self._quotas: dict[tuple[str, str], Quota] = {}
        # The pools of start-up packets that have been seen.
        self._known: dict[tuple[object, ...], Pool] = {}

    def __iter__(self) -> Iterator[tuple[str, str, Pool]]:
        for (database, user, _), pool in self._pools.items():
            yield database, user, pool

    def known(self, startup: Startup) -> Pool | None:
        """The pool that :meth:`find` has found before for the like of this packet."""
        return self._known.get(_key(startup))

    async def find(self, startup: Startup) -> Pool:
        """The pool that serves a client.

        Raises:
            PostgresError: there is no such database (3D000), or what it asks for is not to be had,
                or whether it asks for anything special could not be found out.
        """
        pool = await self._find(startup)
        if len(self._known) >= KNOWN_LIMIT:
            self._known.clear()
        self._known[_key(startup)] = pool
        return pool

    async def _find(self, startup: Startup) -> Pool:
        database = self._settings.database(startup.database)
        if database is None:
            raise PostgresError("FATAL", "3D000", f'database "{startup.database}" does not exist')
        if startup.replication not in (None, "", "false", "off", "no", "0"):
            raise PostgresError("FATAL", "0A000", "replication connections are not supported")
        plain = self._get(database, startup.user, ())
        if variant(startup, {}):
            # Perhaps it asks for what servers do anyway, as most clients do.
            await plain.wait_parameters()
        return self._get(database, startup.user, variant(startup, plain.parameters))

    def _get(self, database: Database, user: str, wishes: Variant) -> Pool:
        pool = self._pools.get((database.name, user, wishes))
        return pool if pool is not None else self._make(database, user, wishes)

    def _make(self, database: Database, client_user: str, wishes: Variant) -> Pool:
        name = (database.name, client_user)
        user = database.user or client_user
        address = database.address
        target = Target(
            host=None if isinstance(address, UnixAddress) else address.host,
            port=address.port,
            path=address.path if isinstance(address, UnixAddress) else None,
            user=user,
            database=database.dbname,
            secret=_password(database, user, self._settings.users),
            settings=wishes,
            high_water=self._settings.pooler.buffer_high_water,
        )
        quota = self._quotas.setdefault(name, Quota(database.max_servers))
        mode = pooling(database.mode)
        sticky = mode.keeps_server
        # A server that stays with its client needs nothing rewritten.
        statements = 0 if sticky else database.max_prepared_statements
        framing = framing_address(blocks=mode.blocks)
        multiplexer = Multiplexer(framing, sticky=sticky, option=statements)
        multiplexer.limit(
            wait=database.query_wait_timeout,
            client_idle=self._settings.pooler.client_idle_timeout,
            open_idle=database.idle_transaction_timeout,
            server_idle=database.server_idle_timeout,
        )

        async def connect() -> ServerLink:
            try:
                return await open_server(target, database.server_connect_timeout)
            except PostgresError as error:
                raise ServerFailed(error) from None

        pool = Pool(
            multiplexer,
            connect,
            sticky=sticky,
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
            database = self._settings.database(name)
            if name == "*" or database is None or not database.min_servers:
                continue
            users = [settings.user] if settings.user else list(self._settings.users)
            for user in users:
                self._get(database, user, ())

    def stop_opening(self) -> None:
        for pool in self._pools.values():
            pool.stop_opening()

    async def settled(self) -> None:
        """Returns when no server has anything to do for clients that are gone."""
        for pool in self._pools.values():
            await pool.settled()

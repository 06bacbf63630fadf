"""The one table of settings: type, default, bounds, unit, meaning, and what a change takes.

Every setting stands here and nowhere else. Checking a file, the reference in docs/ and what
``trio-pooler init`` prints are made from it (``table.py`` reads it). All objects are frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from pooler.config.addresses import Address, TcpAddress, UnixAddress, parse_listen, server_address
from pooler.config.choices import AuthMethod, Backend, LogFormat, LogLevel, Mode, Pins, Scheduling
from pooler.config.users import Secret

Change = Literal["restart", "reload"]
V = TypeVar("V")

YEAR = 365 * 24 * 3600  # seconds; no time-out is longer
WILDCARD = "*"  # the entry in [databases] for every database that has none of its own


@dataclass(frozen=True, slots=True)
class About:
    """What a setting's type does not say. *change*: what it takes to put a new value into force."""

    meaning: str
    change: Change
    unit: str = ""
    example: str | None = None  # as TOML writes it, for a setting that has no value by default
    expected: str | None = None  # for error messages, where the type says too little
    essential: bool = False  # has no default that would do: ``init`` sets the example


Count = Annotated[int, Field(ge=1, le=10_000)]
CountOrZero = Annotated[int, Field(ge=0, le=10_000)]
Port = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[float, Field(gt=0, le=YEAR)]
TimeoutOrNever = Annotated[float, Field(ge=0, le=YEAR)]


def _parse_address(value: object) -> object:
    if isinstance(value, TcpAddress | UnixAddress):
        return value
    # Refused here: of the union, pydantic would name an error for each of its members.
    return parse_listen(value if isinstance(value, str) else "")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _check_addresses(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    if not addresses:
        raise ValueError("expected at least one address")
    for index, address in enumerate(addresses):
        # Port 0 is another port each time.
        if address.port and address in addresses[:index]:
            raise ValueError(f"expected each address once; {address} is there twice")
    return addresses


def _check_host(host: str) -> str:
    server_address(host, 1)
    return host


def _check_name(name: str) -> str:
    if not name or "\0" in name:
        raise ValueError("expected a name, which is not empty and has no NUL character")
    return name


def _check_words(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if not word or len(word) > 63 or not word.replace("_", "a").replace("$", "a").isalnum():
            raise ValueError("expected a list of names, without quotation marks, dots or spaces")
    return words


def _read_only(mapping: Mapping[str, V]) -> Mapping[str, V]:
    return MappingProxyType(dict(mapping))


ListenAddress = Annotated[TcpAddress | UnixAddress, BeforeValidator(_parse_address)]
Listen = Annotated[
    tuple[ListenAddress, ...], BeforeValidator(_as_tuple), AfterValidator(_check_addresses)
]
Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_check_words)]
Host = Annotated[str, AfterValidator(_check_host)]
Name = Annotated[str, AfterValidator(_check_name)]


class _Section(BaseModel):
    # strict: "20" is no number, and 1 is no boolean. Inputs are hidden in pydantic's own messages,
    # because they may be passwords.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class PoolerSettings(_Section):
    """[pooler]: the process, and the defaults of every database."""

    listen: Annotated[
        Listen,
        About(
            'Where clients connect: "host:port", "[::1]:6432", or "/run/dir" for a Unix socket in '
            'that directory ("/run/dir:5433" where the port in its name is not to be 6432).',
            "restart",
            expected='a list of addresses, such as ["127.0.0.1:6432"]',
        ),
    ] = (TcpAddress("127.0.0.1", 6432),)
    backend: Annotated[
        Backend,
        About(
            "The kernel's mechanism for I/O. auto: the fastest that works here; the log says which "
            "one, and why.",
            "restart",
        ),
    ] = "auto"
    mode: Annotated[
        Mode,
        About(
            "When a server connection goes back to the pool: at the end of the client's session, "
            "of each transaction, or of each statement (a transaction of several is refused). "
            "passthrough: as session, and nothing is looked at on the way; see docs/modes.md.",
            "reload",
        ),
    ] = "transaction"
    max_clients: Annotated[
        int, Field(ge=1, le=1_000_000), About("Client connections at once.", "reload", "clients")
    ] = 10000
    max_logins: Annotated[
        int,
        Field(ge=1, le=100_000),
        About(
            "Connections at once that have not logged in yet. When there are more, the one that "
            "has been silent longest gives way.",
            "reload",
            "connections",
        ),
    ] = 1000
    max_servers: Annotated[
        Count,
        About("Server connections at once, per database and user.", "reload", "connections"),
    ] = 20
    min_servers: Annotated[
        CountOrZero,
        About(
            "Server connections opened ahead and kept, per database and user.",
            "reload",
            "connections",
        ),
    ] = 0
    max_prepared_statements: Annotated[
        CountOrZero,
        About(
            "Transaction mode: prepared statements kept on each server connection. Clients may "
            "have any number of them; the one not used for longest gives way, and is prepared "
            "again when it is needed. 0: prepared statements are passed through unseen, and hold "
            "only until the end of a transaction.",
            "reload",
            "statements",
        ),
    ] = 200
    pins: Annotated[
        Pins,
        About(
            "Transaction mode: what a client gets that has something only its server has (LISTEN, "
            "session-level advisory locks, temporary tables, cursors WITH HOLD, PREPARE, LOAD). "
            "allow: it keeps the server for as long as it has it. refuse: an error, and its end.",
            "reload",
        ),
    ] = "allow"
    pin_on: Annotated[
        Words,
        About(
            "Transaction mode: names in statements, of functions mostly, whose users keep their "
            "servers until DISCARD ALL or the end of their sessions: for functions that leave "
            "behind what no pooler can see.",
            "reload",
            expected="a list of names, without quotation marks, dots or spaces",
        ),
    ] = ()
    query_wait_timeout: Annotated[
        TimeoutOrNever,
        About("How long a client may wait for a server. 0: for ever.", "reload", "seconds"),
    ] = 120
    server_connect_timeout: Annotated[
        Timeout,
        About("How long it may take to connect and log in to a server.", "reload", "seconds"),
    ] = 15
    server_idle_timeout: Annotated[
        TimeoutOrNever,
        About("A server connection idle for this long is closed. 0: never.", "reload", "seconds"),
    ] = 600
    server_lifetime: Annotated[
        TimeoutOrNever,
        About(
            "A server connection this old is closed once it is idle, with jitter, so that they do "
            "not all end at once. 0: never.",
            "reload",
            "seconds",
        ),
    ] = 3600
    client_login_timeout: Annotated[
        Timeout, About("How long a client may take to log in.", "reload", "seconds")
    ] = 60
    client_idle_timeout: Annotated[
        TimeoutOrNever,
        About(
            "A client idle for this long outside a transaction is disconnected. 0: never.",
            "reload",
            "seconds",
        ),
    ] = 0
    idle_transaction_timeout: Annotated[
        TimeoutOrNever,
        About(
            "A client idle for this long inside a transaction is disconnected. 0: never.",
            "reload",
            "seconds",
        ),
    ] = 0
    shutdown_timeout: Annotated[
        TimeoutOrNever,
        About(
            "How long after SIGTERM clients may take to finish their transactions. 0: none.",
            "reload",
            "seconds",
        ),
    ] = 30
    buffer_high_water: Annotated[
        int,
        Field(ge=16 * 1024, le=16 * 1024 * 1024),
        About(
            "How much may wait in memory for one slow reader before the pooler stops reading from "
            "its peer.",
            "restart",
            "bytes",
        ),
    ] = 65536
    scheduling: Annotated[
        Scheduling,
        About(
            "The process's place in the kernel's scheduler (Linux). batch: woken, it lets a "
            "running process finish first, and so finds more to do at once: less CPU per "
            "transaction. "
            "normal: better where other programs keep all processors busy.",
            "restart",
        ),
    ] = "batch"
    log_level: Annotated[LogLevel, About("The least serious messages to log.", "reload")] = "info"
    log_format: Annotated[
        LogFormat,
        About(
            "How messages are written to standard error. text: a line for each; json: a JSON "
            "object for each; auto: text, with colours on a terminal.",
            "restart",
        ),
    ] = "auto"
    log_connections: Annotated[
        bool, About("Whether to log each client that logs in, and its leaving.", "reload")
    ] = True


class DatabaseSettings(_Section):
    """[databases.NAME]: where a database is, and what differs from [pooler] for it."""

    host: Annotated[
        Host,
        About(
            "The server's name or IP address, or the directory of its Unix socket.",
            "reload",
            expected="a host name, an IP address or a directory",
        ),
    ] = "127.0.0.1"
    port: Annotated[Port, About("The server's port.", "reload")] = 5432
    dbname: Annotated[
        Name | None,
        About(
            "The database's name on the server. Default: the name the client asks for.",
            "reload",
            example='"bench"',
        ),
    ] = None
    user: Annotated[
        Name | None,
        About("The user to be on the server. Default: the client's.", "reload", example='"app"'),
    ] = None
    password: Annotated[
        SecretStr | None,
        About(
            "That user's password. Default: the one in auth.users_file.",
            "reload",
            example='"secret"',
        ),
    ] = None
    mode: Annotated[
        Mode | None,
        About("Default: pooler.mode.", "reload", example='"session"'),
    ] = None
    max_servers: Annotated[
        Count | None,
        About("Default: pooler.max_servers.", "reload", "connections", example="20"),
    ] = None
    min_servers: Annotated[
        CountOrZero | None,
        About("Default: pooler.min_servers.", "reload", "connections", example="0"),
    ] = None


class UserSettings(_Section):
    """[users.NAME]: what differs for a user, in every database."""

    mode: Annotated[
        Mode | None,
        About("Default: the database's.", "reload", example='"session"'),
    ] = None


class AuthSettings(_Section):
    """[auth]: how clients prove who they are."""

    method: Annotated[
        AuthMethod,
        About("How a client proves who it is. trust: it need not.", "reload"),
    ] = "scram-sha-256"
    users_file: Annotated[
        Name | None,
        About(
            'The file of users and their secrets, a line of "name" "secret" for each. A relative '
            "path starts at the directory of the configuration. Required unless method is trust.",
            "reload",
            example='"users.txt"',
            essential=True,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Database:
    """One database as clients see it, every default filled in. Times are in seconds; 0 is never."""

    name: str
    host: str
    port: int
    dbname: str
    user: str | None  # None: the client's
    password: SecretStr | None
    mode: Mode
    max_servers: int
    min_servers: int
    max_prepared_statements: int
    pins: Pins
    pin_on: tuple[str, ...]
    query_wait_timeout: float
    server_connect_timeout: float
    server_idle_timeout: float
    server_lifetime: float
    idle_transaction_timeout: float

    @property
    def address(self) -> Address:
        """Where its server listens."""
        return server_address(self.host, self.port)


class Document(_Section):
    """What a configuration file may hold: its sections."""

    pooler: PoolerSettings = PoolerSettings()
    databases: Annotated[Mapping[Name, DatabaseSettings], AfterValidator(_read_only)] = Field(
        default_factory=dict, validate_default=True
    )
    users: Annotated[Mapping[Name, UserSettings], AfterValidator(_read_only)] = Field(
        default_factory=dict, validate_default=True
    )
    auth: AuthSettings = AuthSettings()


class Settings(Document):
    """A checked configuration. ``load`` makes it from a file; a program may make it by hand.

    *secrets* is what users_file holds: for each user the secret, or None for one who is known but
    cannot log in with a password. *path* is the configuration file, None if there is none.
    """

    secrets: Annotated[Mapping[str, Secret | None], AfterValidator(_read_only)] = Field(
        default_factory=dict, validate_default=True
    )
    path: Path | None = None

    def database(self, name: str, user: str | None = None) -> Database | None:
        """The database that a client calls *name*, or None if there is no such one.

        *user* is who the client is, if that is known: it may make a difference.
        """
        own = self.databases.get(name, self.databases.get(WILDCARD))
        if own is None:
            return None
        default = self.pooler
        special = self.users.get(user) if user is not None else None
        return Database(
            name=name,
            host=own.host,
            port=own.port,
            dbname=own.dbname or name,
            user=own.user,
            password=own.password,
            mode=(special and special.mode) or own.mode or default.mode,
            max_servers=default.max_servers if own.max_servers is None else own.max_servers,
            min_servers=default.min_servers if own.min_servers is None else own.min_servers,
            max_prepared_statements=default.max_prepared_statements,
            pins=default.pins,
            pin_on=default.pin_on,
            query_wait_timeout=default.query_wait_timeout,
            server_connect_timeout=default.server_connect_timeout,
            server_idle_timeout=default.server_idle_timeout,
            server_lifetime=default.server_lifetime,
            idle_transaction_timeout=default.idle_transaction_timeout,
        )

    def with_pooler(self, **changes: object) -> Self:
        """A copy with other values in [pooler], checked: ``settings.with_pooler(backend="epoll")``.

        Raises pydantic.ValidationError.
        """
        pooler = PoolerSettings.model_validate({**dict(self.pooler), **changes})
        return self.model_copy(update={"pooler": pooler})

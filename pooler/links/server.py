"""A connection to PostgreSQL: connect, log in, run a statement of our own, cancel, end.

"Message Flow", "Start-up" and "Canceling Requests in Progress", of PostgreSQL's manual.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import trio

from pooler.rules import session
from pooler.rules.session import SessionState
from pooler.wire import messages, scram
from pooler.wire import session as session_wire
from pooler.wire.errors import PostgresError
from pooler.wire.md5 import is_md5_secret, md5_response
from pooler.wire.messages import Fields, MessageReader
from pooler.wire.session import parse_data_row
from pooler.wire.startup import cancel_request, startup_message
from trio_backends import EngineStream, open_tcp_stream, open_unix_socket

# The length of the longest message that a server sends at log-in, or in answer to our statements.
MESSAGE_LIMIT = 1 << 20
CANCEL_TIMEOUT = 10.0  # seconds

QUERY_CANCELED = "57014"
UNTRANSLATABLE = frozenset({"22P05", "22021", "0A000"})  # to the encoding of the database
LOOKS = 3  # before a statement_timeout is thought to be the reason
INSISTENCE = 1000  # times that a short question is put: each may be cut off, but hardly all are

_TERMINATE = messages.message(b"X")
_STATEMENT_TIMEOUT = "SELECT '', '', pg_catalog.current_setting('statement_timeout')"


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to log in. ``host`` None: ``path`` is a Unix socket.

    ``secret``: the password, or "md5…" as PostgreSQL stores it; None: there is none.
    ``settings``: start-up parameters beside user and database.
    """

    host: str | None
    port: int
    path: str | None
    user: str
    database: str
    secret: str | None = field(repr=False)
    settings: tuple[tuple[str, str], ...]
    high_water: int

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def _row(body: bytes) -> session.Row:
    try:
        kind, name, value = parse_data_row(body)
    except ValueError as error:
        raise PostgresError.violation(str(error)) from None
    return (kind or b"").decode(), (name or b"").decode("utf-8", "replace"), value


def _unreachable(target: Target, error: OSError) -> PostgresError:
    # Trio's open_tcp_stream raises one error for all addresses of a host; why, each of theirs says.
    cause = error.__cause__
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause or error,)
    reasons = dict.fromkeys(getattr(each, "strerror", None) or str(each) for each in causes)
    return PostgresError(
        "FATAL", "08001", f"could not connect to the server at {target}: {', '.join(reasons)}"
    )


def _lost() -> PostgresError:
    return PostgresError("FATAL", "08006", "server closed the connection unexpectedly")


@contextlib.contextmanager
def breaking_is_an_error() -> Iterator[None]:
    """Says that the server was lost, where a stream says that it broke."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise _lost() from None


async def _dial(target: Target) -> EngineStream:
    try:
        if target.path is not None:
            return await open_unix_socket(target.path, high_water=target.high_water)
        assert target.host is not None
        return await open_tcp_stream(target.host, target.port, high_water=target.high_water)
    except OSError as error:
        raise _unreachable(target, error) from None


class ServerLink:
    """A server that has logged us in. See pool.Server for what the pool asks of it."""

    def __init__(self, target: Target, stream: EngineStream) -> None:
        self.target = target
        self.stream = stream
        self.parameters: dict[str, str] = {}
        self.process_id = 0
        self._secret = b""
        self._aside = b""  # what came for the client while its server was asked
        self._reader = MessageReader(limit=MESSAGE_LIMIT)

    # -- log-in -----------------------------------------------------------------------

    async def log_in(self) -> None:
        """Until the first ReadyForQuery. Raises PostgresError, the server's own where it sent
        one.
        """
        target = self.target
        wanted = {"user": target.user, "database": target.database, **dict(target.settings)}
        try:
            packet = startup_message(wanted)
        except ValueError as error:
            raise PostgresError("FATAL", "08P01", str(error)) from None
        with breaking_is_an_error():
            await self.stream.send_all(packet)
            await self._authenticate()
            await self._until_ready()

    async def _receive(self) -> bytes:
        data = await self.stream.receive_some()
        if not data:
            raise _lost()
        return data

    def _messages(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Those that have become whole, but for what may come at any time: settings that changed
        are noted, notices passed over, errors raised.
        """
        for kind, body in self._reader.feed(data):
            if kind == b"E":
                raise Fields.parse(body).to_error()
            if kind == b"S":
                name, value = messages.parse_parameter_status(body)
                self.parameters = {**self.parameters, name: value}
            elif kind not in b"NA":
                yield kind, body

    async def _next(self) -> tuple[bytes, bytes]:
        """The next message."""
        data = b""
        while True:
            for message in self._messages(data):
                return message
            data = await self._receive()

    async def _authenticate(self) -> None:
        exchange: scram.ClientExchange | None = None
        while True:
            kind, body = await self._next()
            if kind == b"v":
                continue
            if kind != b"R":
                raise PostgresError.violation(f"unexpected message type {kind[0]} at log-in")
            request = messages.parse_authentication(body)
            if isinstance(request, messages.AuthenticationOk):
                return
            if isinstance(request, messages.AuthenticationSASL):
                exchange = self._begin_scram(request)
                first = messages.sasl_initial_response(scram.MECHANISM, exchange.first())
                await self.stream.send_all(first)
            elif isinstance(
                request, messages.AuthenticationSASLContinue | messages.AuthenticationSASLFinal
            ):
                await self._go_on_with_scram(exchange, request)
            else:
                await self.stream.send_all(messages.password_message(self._password(request)))

    def _password(
        self, request: messages.AuthenticationCleartext | messages.AuthenticationMD5
    ) -> str:
        secret = self.target.secret
        if secret is None:
            raise self._no_password()
        if isinstance(request, messages.AuthenticationMD5):
            return md5_response(self.target.user, secret, request.salt)
        if is_md5_secret(secret):
            raise self._no_password()
        return secret

    def _no_password(self) -> PostgresError:
        return PostgresError(
            "FATAL",
            "28P01",
            f'no usable password for user "{self.target.user}" on the server',
            "It asks for a password, and the pooler has none, or only a hash of another kind.",
            "Give it in users_file or with the database.",
        )

    def _begin_scram(self, request: messages.AuthenticationSASL) -> scram.ClientExchange:
        if scram.MECHANISM not in request.mechanisms:
            offered = ", ".join(request.mechanisms)
            raise PostgresError.violation(f"the server offers only unknown mechanisms: {offered}")
        secret = self.target.secret
        if secret is None or is_md5_secret(secret):
            raise self._no_password()
        return scram.ClientExchange(secret)

    async def _go_on_with_scram(
        self,
        exchange: scram.ClientExchange | None,
        request: messages.AuthenticationSASLContinue | messages.AuthenticationSASLFinal,
    ) -> None:
        if exchange is None:
            raise PostgresError.violation("a SASL message from the server out of order")
        if isinstance(request, messages.AuthenticationSASLFinal):
            exchange.verify(request.data)
            return
        exchange.challenge(request.data)
        # PBKDF2 takes milliseconds: not in the loop that relays.
        proof = await trio.to_thread.run_sync(exchange.proof)
        await self.stream.send_all(messages.sasl_response(proof))

    async def _until_ready(self) -> None:
        while True:
            kind, body = await self._next()
            if kind == b"K":
                self.process_id, self._secret = messages.parse_backend_key_data(body)
            elif kind == b"Z":
                messages.parse_ready_for_query(body)
                return
            else:
                raise PostgresError.violation(f"unexpected message type {kind[0]} at log-in")

    # -- between clients --------------------------------------------------------------

    async def execute(self, statement: str) -> None:
        """Runs one statement of ours; its results are not looked at.

        Raises:
            PostgresError: it failed, or left the server in a transaction.
        """
        with breaking_is_an_error():
            await self.stream.send_all(messages.query(statement))
            while True:
                kind, body = await self._next()
                if kind == b"Z":
                    break
        if messages.parse_ready_for_query(body) != b"I":
            raise PostgresError("ERROR", "25001", f"{statement} left a transaction open")

    async def look(self, names: Collection[str]) -> tuple[SessionState, bytes]:
        """What this server's session has (``names``: settings of clients' own making, perhaps), and
        what the server said meanwhile that is for its client, byte for byte.

        Raises:
            PostgresError: it could not be asked.
        """
        self._aside = b""
        question = session.probe(names)
        plain = session.probe(filter(str.isascii, names))
        try:
            return await self._look(question)
        except PostgresError as error:
            if plain == question or error.sqlstate not in UNTRANSLATABLE:
                raise
        return await self._look(plain)

    async def _look(self, question: str) -> tuple[SessionState, bytes]:
        try:
            rows = await self._insist(question, LOOKS)
        except PostgresError as error:
            if error.sqlstate != QUERY_CANCELED:
                raise
            # Its client allows a statement less time than ours takes.
            rows = await self._ask_unhurried(question)
        return session.judge(rows, self.target.user), self._aside

    async def _ask_unhurried(self, question: str) -> list[session.Row]:
        ((_, _, limit),) = await self._insist(_STATEMENT_TIMEOUT)
        await self._insist(session_wire.NO_STATEMENT_TIMEOUT)
        rows = await self._insist(question)
        value = (limit or b"").decode("ascii", "replace")
        await self._insist(session_wire.set_statement_timeout(value))
        return [*rows, ("setting", "statement_timeout", limit)]

    async def _insist(self, query: str, times: int = INSISTENCE) -> list[session.Row]:
        """As ``_ask``, so many times if it is canceled: by a timeout, or by a client too late."""
        while True:
            times -= 1
            try:
                return await self._ask(query)
            except PostgresError as error:
                if error.sqlstate != QUERY_CANCELED or not times:
                    raise

    async def _ask(self, query: str) -> list[session.Row]:
        """The rows of a query of three columns. What comes unasked is put aside."""
        rows: list[session.Row] = []
        failure: PostgresError | None = None
        with breaking_is_an_error():
            await self.stream.send_all(messages.query(query))
            while True:
                for kind, body in self._reader.feed(await self._receive()):
                    if kind == b"Z":
                        # What comes behind it is not for us.
                        self.stream.put_back(self._reader.rest())
                        if failure is not None:
                            raise failure
                        return rows
                    if kind == b"E":
                        failure = Fields.parse(body).to_error()
                    elif kind == b"D":
                        rows.append(_row(body))
                    elif kind in b"AS":  # notices can only be about the question
                        self._aside += messages.message(kind, body)

    async def listen(self) -> None:
        """Takes in what has come unasked: settings that changed, notices.

        Raises:
            PostgresError: an error (the server was told to end, say), or the end.
        """
        with breaking_is_an_error():
            data = await self._receive()
        for kind, _ in self._messages(data):
            raise PostgresError.violation(f"unexpected message type {kind[0]}, unasked")
        if self._reader.rest():
            raise PostgresError.violation("half a message, unasked")

    def unread(self) -> bytes:
        """Takes out what has come and was not looked at."""
        return self._reader.rest()

    # -- the end ----------------------------------------------------------------------

    async def cancel(self) -> None:
        """Sends a CancelRequest on a connection of its own; returns when PostgreSQL has closed
        that.

        PostgreSQL signals the process before it closes, so whatever the server is sent afterwards
        cannot be hit any more. Failures are passed over: then nothing is cancelled.
        """
        with trio.move_on_after(CANCEL_TIMEOUT), contextlib.suppress(PostgresError):
            stream = await _dial(self.target)
            try:
                with breaking_is_an_error():
                    await stream.send_all(cancel_request(self.process_id, self._secret))
                    while await stream.receive_some():
                        pass
            finally:
                stream.close()

    async def end(self, *, finish: bool) -> None:
        """Waits until PostgreSQL has closed, and drops whatever was still to come.

        ``finish``: Terminate, which it reads when it has done all that it was asked for before.
        Otherwise FIN: it may be in the midst of a message, and would take a Terminate for the rest.
        """
        with contextlib.suppress(PostgresError), breaking_is_an_error():
            if finish:
                await self.stream.send_all(_TERMINATE)
            else:
                await self.stream.send_eof()
            while await self.stream.receive_some():
                pass

    def close(self) -> None:
        """Terminate if the kernel takes it at once, and close."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self.stream.send_now(_TERMINATE)
        self.stream.close()


async def open_server(
    target: Target, timeout: float, kind: type[ServerLink] = ServerLink
) -> ServerLink:
    """Connects and logs in, within ``timeout`` seconds.

    Raises:
        PostgresError: why not, with the server's own SQLSTATE and words where it gave them.
    """
    with trio.move_on_after(timeout):
        stream = await _dial(target)
        link = kind(target, stream)
        try:
            await link.log_in()
        except BaseException:
            stream.close()
            raise
        return link
    raise PostgresError("FATAL", "08001", f"could not connect to the server at {target}: timed out")

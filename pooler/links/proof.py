"""A server whose client nobody has watched proves that it is at rest, before it is used again."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex

from pooler.links.server import ServerLink, breaking_is_an_error
from pooler.rules.cleaning import ROLLBACK
from pooler.wire import messages
from pooler.wire.errors import PostgresError


class UnseenServer(ServerLink):
    """The server of a passthrough pool."""

    async def execute(self, statement: str) -> None:
        """Rolls back, runs the statement, and asks for a random word.

        A server that was in the midst of anything answers something else, or something more, or
        waits for the rest of a message (and the caller gives up). An answer that was due to the
        client cannot have the word in it.

        Raises:
            PostgresError: it did not answer exactly that.
        """
        word = token_hex(16)
        queries = map(messages.query, (ROLLBACK, statement, f"SELECT '{word}'"))
        with breaking_is_an_error():
            await self.stream.send_all(messages.SYNC + b"".join(queries))
            for kind, body in _answers(statement, word):
                found = await self._next()
                if found != (kind, found[1] if body is None else body):
                    raise PostgresError.violation(f"the server was not at rest: {found[0]!r}")
        if self.unread():
            raise PostgresError.violation("the server was not at rest: it said more")


def _answers(statement: str, word: str) -> Iterator[tuple[bytes, bytes | None]]:
    """Types and bodies; None: any body."""
    yield b"Z", None  # to Sync, in whatever transaction there is
    for tag in (ROLLBACK, statement):
        yield b"C", tag.encode() + b"\0"
        yield b"Z", b"I"
    yield b"T", None
    yield b"D", b"\0\1" + len(word).to_bytes(4, "big") + word.encode()
    yield b"C", b"SELECT 1\0"
    yield b"Z", b"I"

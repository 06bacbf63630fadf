"""A replication connection: one client, one server opened for it, nothing between them.

A server that was opened with the parameter ``replication`` speaks another language than the others
(IDENTIFY_SYSTEM, START_REPLICATION, COPY both ways for as long as it lasts), so it is not shared.
"Streaming Replication Protocol" of PostgreSQL's manual.
"""

from __future__ import annotations

from pooler.links.server import ServerLink
from pooler.wire import messages
from trio_backends import EngineStream, relay


async def replicate(client: EngineStream, link: ServerLink, key: bytes) -> None:
    """Greets a client in the words of its server, then joins the two until both have ended.

    ``key``: the BackendKeyData by which the client cancels.

    Raises:
        trio.BrokenResourceError, trio.ClosedResourceError: one of the connections broke, or was
            closed here.
    """
    reported = (messages.parameter_status(*each) for each in link.parameters.items())
    ready = messages.ready_for_query()
    client.send_now(messages.AUTHENTICATION_OK + b"".join(reported) + key + ready)
    link.stream.put_back(link.unread())
    await relay(client, link.stream)

"""What a multiplexer does while Python is asked about a server, and with servers that do not suit.

The framing of lines asks after ``ask``; a client that was told ``a`` wants a server like that
(tests/support/line_framing.py). Whoever has to do with it may go at any moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from tests.support.running import Run
from tests.trio_backends.test_multiplexer import Client, House, house
from tests.trio_backends.test_streams import tcp_pair
from trio_backends import ClientNews, EngineStream, ServerNews, Standing


@dataclass
class Asked:
    """A client of whom Python has been asked, and its server."""

    h: House
    client: Client
    far: EngineStream
    near: EngineStream

    async def alive(self) -> None:
        """Whoever comes is served, by another server."""
        other = await self.h.client()
        await self.h.echo_server("new")
        await other.say("still there?")
        assert await other.hear() == ["new:still there?"]


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def asked(*lines: str) -> AsyncIterator[Asked]:
    """The client has had its answers to ``lines`` and ``ask``."""
    async with house() as h:
        far, near = await h.server()
        client = await h.client()
        await client.say(*lines, "ask")
        await far.receive_some()
        await far.send_all(b"done\n" * (len(lines) + 1))
        await client.hear(len(lines) + 1)
        assert await h.mux.server_news(near) is ServerNews.ASKED
        assert h.mux.client_token(near) == client.near.token
        assert h.mux.noted(near) == b"ask"
        yield Asked(h, client, far, near)


def test_the_two_part_if_nothing_is_kept(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            assert a.h.mux.settle(a.near, b"", b"by the way\n")
            assert await a.client.hear() == ["by the way"]
            stats = a.h.mux.stats()
            assert (stats.joined, stats.servers_idle, stats.transactions) == (0, 1, 1)
            other = await a.h.client()
            await other.say("x")
            assert await a.far.receive_some() == b"x\n"

    run(main)


def test_a_client_that_is_kept_has_the_server_to_itself(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            assert a.h.mux.settle(a.near, b"keep")
            other = await a.h.client()
            await other.say("x")
            await settled()
            assert a.h.mux.is_waiting(other.near) and a.h.mux.stats().servers_idle == 0
            for _ in range(3):
                await a.client.say("y")
                assert await a.far.receive_some() == b"y\n"
                await a.far.send_all(b"z\n")
                assert await a.client.hear() == ["z"]
            await a.client.say("ask")
            await a.far.receive_some()
            await a.far.send_all(b"done\n")
            assert await a.h.mux.server_news(a.near) is ServerNews.ASKED
            assert a.h.mux.settle(a.near, b"")
            assert await a.far.receive_some() == b"x\n"

    run(main)


@pytest.mark.parametrize("told", [b"", b"keep"])
def test_what_a_paused_client_sends_goes_on_afterwards(run: Run, told: bytes) -> None:
    async def main() -> None:
        async with asked() as a:
            for n in range(100):
                await a.client.say(f"line {n}")
            await settled()
            await a.near.send_all(b"what has it?\n")
            assert await a.far.receive_some() == b"what has it?\n"
            await a.far.send_all(b"this and that\n")
            assert await a.near.receive_some() == b"this and that\n"
            assert a.h.mux.settle(a.near, told)
            heard = b""
            while heard.count(b"\n") < 100:
                heard += await a.far.receive_some()
            assert heard == b"".join(b"line %d\n" % n for n in range(100))
            await a.far.send_all(b"ok\n" * 100)
            assert await a.client.hear(100) == ["ok"] * 100

    run(main)


def test_a_paused_client_that_sends_without_end_is_read_no_further(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            sent = 0
            with trio.move_on_after(0.5):
                while True:
                    await a.client.far.send_all(b"x" * 9999 + b"\n")
                    sent += 1
            assert sent > 1
            await settled()
            assert a.h.mux.settle(a.near, b"keep")
            heard = b""
            while heard.count(b"\n") < sent:
                heard += await a.far.receive_some()
            assert len(heard) <= 10000 * (sent + 1)

    run(main)


def test_a_server_that_was_asked_while_its_client_does_not_read(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client = await h.client()
            await client.say("ask")
            await far.receive_some()
            large = b"x" * 20_000_000 + b"\n"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.send_all, large)
                with trio.move_on_after(0.3):
                    await h.mux.server_news(near)
                heard = 0
                while heard < len(large):
                    heard += len(await client.far.receive_some())
            assert await h.mux.server_news(near) is ServerNews.ASKED
            await far.send_all(b"answer\n")
            assert await near.receive_some() == b"answer\n"
            assert h.mux.settle(near, b"")

    run(main)


# -- somebody goes --------------------------------------------------------------------------

Move = Callable[[Asked], Awaitable[None]]


async def closes(a: Asked) -> None:
    await a.client.far.aclose()


async def ends(a: Asked) -> None:
    await a.client.far.send_eof()


async def says_more_and_closes(a: Asked) -> None:
    await a.client.say("x", "y")
    await a.client.far.aclose()


async def is_asked_to_leave(a: Asked) -> None:
    a.h.mux.ask_to_leave(a.client.near)


GOING: list[tuple[Move, ClientNews]] = [
    (closes, ClientNews.ENDED),
    (ends, ClientNews.ENDED),
    (says_more_and_closes, ClientNews.ENDED),
    (is_asked_to_leave, ClientNews.APART),
]


@pytest.mark.parametrize(("move", "news"), GOING)
def test_a_client_that_goes_meanwhile_leaves_the_server_to_who_asks(
    run: Run, move: Move, news: ClientNews
) -> None:
    async def main() -> None:
        async with asked() as a:
            await move(a)
            assert await a.client.news() is news
            await settled()
            assert a.h.mux.client_token(a.near) is None
            assert a.h.mux.noted(a.near) == b""
            assert not a.h.mux.settle(a.near, b"keep")
            assert a.h.mux.stats().joined == 0
            # It is nobody else's until it is said to be clean.
            other = await a.h.client()
            await other.say("x")
            await settled()
            assert a.h.mux.is_waiting(other.near)
            a.h.mux.server_ready(a.near)
            assert await a.far.receive_some() == b"x\n"

    run(main)


def test_a_goodbye_behind_the_question(run: Run) -> None:
    async def main() -> None:
        for told in (b"", b"keep"):
            async with asked() as a:
                await a.client.say("bye")
                await settled()
                assert not a.client.gone.is_set()
                assert a.h.mux.settle(a.near, told)
                assert await a.client.news() is ClientNews.LEFT
                if told:
                    assert await a.h.mux.server_news(a.near) is ServerNews.ORPHANED
                    remains = a.h.mux.remains(a.near)
                    assert (remains.standing, remains.goodbye) == (Standing.KEPT, True)
                else:
                    assert a.h.mux.stats().servers_idle == 1

    run(main)


def test_a_violation_behind_the_question(run: Run) -> None:
    async def main() -> None:
        for told in (b"", b"keep"):
            async with asked() as a:
                await a.client.say("bad")
                await settled()
                assert a.h.mux.settle(a.near, told)
                assert await a.client.news() is ClientNews.VIOLATION

    run(main)


def test_a_cancelled_session_while_its_server_is_asked(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client = Client(*await tcp_pair())
            scope = trio.CancelScope()

            async def serve() -> None:
                with scope:
                    await h.mux.serve(client.near)

            h.nursery.start_soon(serve)
            await client.say("ask")
            await far.receive_some()
            await far.send_all(b"done\n")
            assert await h.mux.server_news(near) is ServerNews.ASKED
            scope.cancel()
            await settled()
            assert not h.mux.settle(near, b"")
            assert h.mux.stats().clients == 0

    run(main)


def test_a_server_that_is_taken_out_takes_its_client_along(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            await a.client.say("x")
            await settled()
            a.h.mux.remove_server(a.near)
            assert await a.client.news() is ClientNews.SERVER_LOST
            await a.alive()

    run(main)


def test_a_server_that_ends_while_it_is_asked(run: Run) -> None:
    async def main() -> None:
        for told in (b"", b"keep"):
            async with asked() as a:
                await a.far.aclose()
                await settled()
                assert a.h.mux.settle(a.near, told)
                assert await a.client.news() is ClientNews.SERVER_LOST
                assert await a.h.mux.server_news(a.near) is ServerNews.LOST
                a.h.mux.remove_server(a.near)
                await a.alive()

    run(main)


def test_what_a_server_says_behind_its_answer_is_its_client_s(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            await a.far.send_all(b"half of a line")
            await settled()
            assert a.h.mux.settle(a.near, b"keep")
            assert await a.client.far.receive_some() == b"half of a line"

        async with asked() as a:  # more than it owes
            await a.far.send_all(b"answer\nnobody asked for this\n")
            await settled()
            assert a.h.mux.settle(a.near, b"keep")
            assert await a.client.news() is ClientNews.SERVER_LOST
            assert await a.h.mux.server_news(a.near) is ServerNews.VIOLATION

    run(main)


# -- holding, retiring, limits --------------------------------------------------------------


def test_a_server_held_while_it_is_asked(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            a.h.mux.hold(a.near)
            assert a.h.mux.settle(a.near, b"")
            other = await a.h.client()
            await other.say("x")
            await settled()
            assert a.h.mux.is_waiting(other.near)
            a.h.mux.release(a.near)
            assert await a.far.receive_some() == b"x\n"

    run(main)


def test_a_server_that_is_to_retire_while_it_is_asked(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            a.h.mux.retire(a.near)
            assert a.h.mux.settle(a.near, b"")
            assert await a.h.mux.server_news(a.near) is ServerNews.RETIRED
            assert not a.client.gone.is_set()
        async with asked() as a:
            a.h.mux.retire(a.near)
            assert a.h.mux.settle(a.near, b"keep")
            await a.client.say("x")
            assert await a.far.receive_some() == b"x\n"

    run(main)


def test_limits_of_time_pass_over_a_paused_client(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            a.h.mux.limit(wait=0.01, client_idle=0.01, open_idle=0.01, server_idle=0.01)
            await trio.sleep(0.05)
            assert not a.client.gone.is_set()
            assert a.h.mux.settle(a.near, b"keep")
            assert await a.client.news() is ClientNews.IDLE
            assert await a.h.mux.server_news(a.near) is ServerNews.ORPHANED

    run(main)


def test_settling_twice_or_unasked_does_nothing(run: Run) -> None:
    async def main() -> None:
        async with asked() as a:
            assert a.h.mux.settle(a.near, b"keep")
            assert not a.h.mux.settle(a.near, b"")
            await a.client.say("x")
            assert await a.far.receive_some() == b"x\n"
            assert not a.h.mux.settle(a.near, b"")
            await a.far.send_all(b"y\n")
            assert await a.client.hear() == ["y"]

    run(main)


# -- servers that do not suit ---------------------------------------------------------------


async def becomes(far: EngineStream, what: str, answer: bytes = b"so be it\n") -> None:
    assert await far.receive_some() == f"become {what}\n".encode()
    await far.send_all(answer)


def test_a_client_waits_for_what_it_wants(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, _near = await h.server()
            client = await h.client(b"a")
            await client.say("x")
            assert await far.receive_some() == b"become a\n"
            for piece in (b"so ", b"be", b" it", b"\n"):
                await far.send_all(piece)
                await settled()
            assert await far.receive_some() == b"x\n"
            await far.send_all(b"y\n")
            assert await client.hear() == ["y"]
            # The server is like that now.
            other = await h.client(b"a")
            await other.say("z")
            assert await far.receive_some() == b"z\n"

    run(main)


def test_an_idle_server_that_suits_goes_first(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            ends = [await h.server() for _ in range(3)]
            for (_, near), like in zip(ends, b"abc", strict=True):
                h.mux.tell_server(near, bytes([like]))
            for (far, _), like in zip(ends, b"abc", strict=True):
                client = await h.client(bytes([like]))
                await client.say("x")
                assert await far.receive_some() == b"x\n"

    run(main)


def test_an_unfit_server_is_swapped_for_another(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client = await h.client(b"a")
            await client.say("x", "y")
            await becomes(far, "a", b"unfit\n")
            assert await h.mux.server_news(near) is ServerNews.UNFIT
            assert h.mux.why(near) == "a bad line"
            await settled()
            assert h.mux.is_waiting(client.near) and h.mux.stats().joined == 0
            h.mux.remove_server(near)
            far, near = await h.server()
            await becomes(far, "a")
            assert await far.receive_some() == b"x\ny\n"
            await far.send_all(b"1\n2\n")
            assert await client.hear(2) == ["1", "2"]

    run(main)


def test_a_client_that_goes_after_an_unfit_server_is_seen(run: Run) -> None:
    async def main() -> None:
        for leaves in (False, True):
            async with house() as h:
                far, near = await h.server()
                client = await h.client(b"a")
                await client.say("x")
                assert await far.receive_some() == b"become a\n"
                if leaves:
                    h.mux.ask_to_leave(client.near)
                await far.send_all(b"unfit\n")
                assert await h.mux.server_news(near) is ServerNews.UNFIT
                if leaves:
                    assert await client.news() is ClientNews.APART
                else:
                    await client.far.aclose()
                    assert await client.news() is ClientNews.ENDED
                assert h.mux.waiting == 0

    run(main)


def test_a_client_that_goes_while_its_server_becomes(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client = await h.client(b"a")
            await client.say("x")
            assert await far.receive_some() == b"become a\n"
            h.mux.remove_server(near)
            assert await client.news() is ClientNews.SERVER_LOST

    run(main)

"""Many clients over few servers, with a framing of lines (tests/support/line_framing.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import trio_backends
from tests.support.line_framing import LINE_FRAMING, MOST_OWED
from tests.support.running import Run
from tests.trio_backends.test_streams import tcp_pair
from trio_backends import (
    ClientNews,
    ClientReport,
    EngineStream,
    LastWords,
    Multiplexer,
    ServerNews,
    Standing,
)


class Client:
    """The far end of a client, and how its time in the multiplexer ended."""

    def __init__(self, far: EngineStream, near: EngineStream) -> None:
        self.far, self.near = far, near
        self.report: ClientReport | None = None
        self.gone = trio.Event()

    async def serve(self, mux: Multiplexer, told: bytes = b"") -> None:
        self.report = await mux.serve(self.near, told)
        self.gone.set()

    async def say(self, *lines: str) -> None:
        await self.far.send_all("".join(f"{line}\n" for line in lines).encode())

    async def hear(self, lines: int = 1) -> list[str]:
        data = b""
        while data.count(b"\n") < lines:
            piece = await self.far.receive_some()
            assert piece, f"ended after {data!r}"
            data += piece
        assert data.endswith(b"\n") and data.count(b"\n") == lines
        return data.decode().splitlines()

    async def news(self) -> ClientNews:
        await self.gone.wait()
        assert self.report is not None
        return self.report.news


class House:
    """A multiplexer with clients; its servers' far ends are played by the tests."""

    def __init__(self, mux: Multiplexer, nursery: trio.Nursery) -> None:
        self.mux, self.nursery = mux, nursery

    async def client(self, told: bytes = b"") -> Client:
        client = Client(*await tcp_pair())
        self.nursery.start_soon(client.serve, self.mux, told)
        await trio.testing.wait_all_tasks_blocked()
        return client

    async def server(self) -> tuple[EngineStream, EngineStream]:
        """Far end, near end; the far end does nothing by itself."""
        far, near = await tcp_pair()
        self.mux.add_server(near)
        return far, near

    async def echo_server(self, name: str) -> EngineStream:
        """Answers each line with its own name and the line."""
        far, near = await self.server()

        async def answer() -> None:
            buffer = b""
            while data := await far.receive_some():
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    await far.send_all(name.encode() + b":" + line + b"\n")

        self.nursery.start_soon(answer)
        return near


@asynccontextmanager
async def house(*, sticky: bool = False) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        yield House(Multiplexer(LINE_FRAMING, sticky=sticky), nursery)
        nursery.cancel_scope.cancel()


def test_a_server_goes_from_client_to_client(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            await h.echo_server("s")
            clients = [await h.client() for _ in range(5)]
            for i in range(20):
                for n, client in enumerate(clients):
                    await client.say(f"{n}.{i}")
                    assert await client.hear() == [f"s:{n}.{i}"]
            stats = h.mux.stats()
            assert (stats.clients, stats.servers, stats.servers_idle) == (5, 1, 1)
            assert (stats.transactions, stats.requests, stats.joined) == (100, 100, 0)
            assert sum(stats.busy_histogram) == 100

    run(main)


def test_those_who_wait_are_served_in_their_order(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            clients = [await h.client() for _ in range(6)]
            for n, client in enumerate(clients):
                await client.say(f"{n}")
                await trio.testing.wait_all_tasks_blocked(0.005)
            assert h.mux.waiting == 6
            far, _ = await h.server()
            order = []
            for _ in clients:
                line = await far.receive_some()
                order.append(line)
                await far.send_all(line)
            assert order == [b"%d\n" % n for n in range(6)]
            stats = h.mux.stats()
            assert (stats.waits, stats.waiting, sum(stats.wait_histogram)) == (6, 0, 6)

    run(main)


def test_something_open_keeps_them_together(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            await h.echo_server("a")
            await h.echo_server("b")
            first, second = await h.client(), await h.client()
            await first.say("begin")
            [answer] = await first.hear()
            mine, other = answer[0], {"a": "b", "b": "a"}[answer[0]]
            for _ in range(5):
                await second.say("x")
                assert await second.hear() == [f"{other}:x"]
                await first.say("y")
                assert await first.hear() == [f"{mine}:y"]
            assert h.mux.stats().joined == 1
            await first.say("end")
            await first.hear()
            assert h.mux.stats().servers_idle == 2

    run(main)


def test_a_sticky_server_stays_until_its_client_leaves(run: Run) -> None:
    async def main() -> None:
        async with house(sticky=True) as h:
            near = await h.echo_server("s")
            first, second = await h.client(), await h.client()
            await first.say("x")
            await first.hear()
            await second.say("y")
            await trio.sleep(0.02)
            assert h.mux.is_waiting(second.near)
            await first.say("bye")
            assert await first.news() is ClientNews.LEFT
            assert await h.mux.server_news(near) is ServerNews.ORPHANED
            assert h.mux.remains(near).standing is Standing.APART
            assert h.mux.is_waiting(second.near)
            h.mux.server_ready(near)
            assert await second.hear() == ["s:y"]

    run(main)


@pytest.mark.parametrize(("said", "standing"), [("begin", Standing.OPEN), ("half", Standing.BUSY)])
def test_what_a_client_leaves_behind_is_told(run: Run, said: str, standing: Standing) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client, other = await h.client(), await h.client()
            if said == "half":
                await client.far.send_all(b"half a line")
                await far.receive_some()
            else:
                await client.say(said)
                await far.receive_some()
                await far.send_all(b"done\n")
                await client.hear()
            await client.far.aclose()
            assert await client.news() is ClientNews.ENDED
            assert await h.mux.server_news(near) is ServerNews.ORPHANED
            remains = h.mux.remains(near)
            assert (remains.standing, remains.goodbye) == (standing, False)
            # It serves nobody until it is said to be clean.
            await other.say("x")
            await trio.sleep(0.02)
            assert h.mux.is_waiting(other.near)
            await near.send_all(b"clean up\n")
            assert await far.receive_some() == b"clean up\n"
            h.mux.server_ready(near)
            assert await far.receive_some() == b"x\n"

    run(main)


def test_an_answer_for_one_who_left_reaches_nobody(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client, other = await h.client(), await h.client()
            await client.say("secret?")
            await far.receive_some()
            await other.say("hello?")
            await client.far.aclose()
            assert await h.mux.server_news(near) is ServerNews.ORPHANED
            await far.send_all(b"secret!\n")
            assert await near.receive_some() == b"secret!\n"
            h.mux.remove_server(near)
            await h.echo_server("s")
            assert await other.hear() == ["s:hello?"]

    run(main)


def test_a_lost_server_is_told_to_both(run: Run) -> None:
    async def main() -> None:
        for words, heard in (
            (b"", LastWords.WHOLE),
            (b"an error\n", LastWords.ERROR),
            (b"half", LastWords.CUT),
        ):
            async with house() as h:
                far, near = await h.server()
                client, other = await h.client(), await h.client()
                await client.say("x", "y")
                await far.receive_some()
                if words:
                    await far.send_all(words)
                    await client.far.receive_some()
                await far.aclose()
                assert await client.news() is ClientNews.SERVER_LOST
                assert client.report is not None and client.report.heard is heard
                assert await h.mux.server_news(near) is ServerNews.LOST
                h.mux.remove_server(near)
                # The others go on.
                await h.echo_server("s")
                await other.say("z")
                assert await other.hear() == ["s:z"]

    run(main)


def test_an_idle_server_that_speaks_is_parked(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            await far.send_all(b"by the way\n")
            assert await h.mux.server_news(near) is ServerNews.SPOKE
            assert await near.receive_some() == b"by the way\n"
            h.mux.server_ready(near)
            await far.aclose()
            assert await h.mux.server_news(near) is ServerNews.LOST

    run(main)


def test_violations_name_their_cause(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            at_once, later, victim = [await h.client() for _ in range(3)]
            await at_once.say("bad")
            assert await at_once.news() is ClientNews.VIOLATION
            assert at_once.report is not None and at_once.report.why == "a bad line"
            await later.say("good", "bad")
            assert await later.news() is ClientNews.VIOLATION
            assert await h.mux.server_news(near) is ServerNews.ORPHANED
            assert await far.receive_some() == b"good\n"
            await far.send_all(b"done\n")
            await near.receive_some()
            h.mux.server_ready(near)
            await victim.say("x")
            await far.receive_some()
            await far.send_all(b"one\ntwo\n")
            assert await victim.news() is ClientNews.SERVER_LOST
            assert await h.mux.server_news(near) is ServerNews.VIOLATION
            assert h.mux.why(near) == "a bad line"

    run(main)


def test_limits_of_time(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            idle = await h.client()
            waiting = await h.client()
            await waiting.say("x")
            await trio.sleep(0.01)
            h.mux.limit(wait=0.03, client_idle=0.06)
            assert await waiting.news() is ClientNews.WAITED
            assert not idle.gone.is_set()
            assert await idle.news() is ClientNews.IDLE
            h.mux.limit(open_idle=0.03, server_idle=0.1)
            near = await h.echo_server("s")
            opener = await h.client()
            await opener.say("begin")
            await opener.hear()
            assert await opener.news() is ClientNews.OPEN
            assert await h.mux.server_news(near) is ServerNews.ORPHANED
            h.mux.server_ready(near)
            assert await h.mux.server_news(near) is ServerNews.IDLE

    run(main)


def test_a_held_server_waits_for_its_release(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            first, second = await h.client(), await h.client()
            await first.say("x")
            await far.receive_some()
            assert h.mux.server_token(first.near) == near.token
            h.mux.hold(near)
            await second.say("y")
            await far.send_all(b"done\n")
            await first.hear()
            await trio.sleep(0.02)
            assert h.mux.server_token(first.near) is None
            assert h.mux.is_waiting(second.near)
            h.mux.release(near)
            assert await far.receive_some() == b"y\n"

    run(main)


def test_retiring_and_leaving_wait_for_the_end_of_what_is_open(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            near = await h.echo_server("s")
            idle, busy = await h.client(), await h.client()
            await busy.say("begin")
            await busy.hear()
            h.mux.retire(near)
            for client in (idle, busy):
                h.mux.ask_to_leave(client.near)
            assert await idle.news() is ClientNews.APART
            await trio.sleep(0.02)
            assert not busy.gone.is_set()
            await busy.say("end")
            await busy.hear()
            assert await busy.news() is ClientNews.APART
            assert await h.mux.server_news(near) is ServerNews.RETIRED

    run(main)


def test_starvation_is_told_when_it_is_wanted(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            client, other = await h.client(), await h.client()
            await client.say("x")
            with trio.move_on_after(0.02) as scope:
                await h.mux.starved()
            assert scope.cancelled_caught
            h.mux.want_starvation(True)
            await other.say("y")
            await h.mux.starved()
            h.mux.dismiss_waiting()
            assert await client.news() is await other.news() is ClientNews.DISMISSED

    run(main)


def test_a_cancelled_client_leaves_an_orphan(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await h.server()
            client = Client(*await tcp_pair())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.serve, h.mux)
                await client.say("x")
                await far.receive_some()
                nursery.cancel_scope.cancel()
            assert await h.mux.server_news(near) is ServerNews.ORPHANED
            assert h.mux.stats().clients == 0
            # Its stream is its task's again.
            await client.near.send_all(b"farewell\n")
            assert await client.hear() == ["farewell"]

    run(main)


def test_pipelines_longer_than_the_framing_accounts_for(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            await h.echo_server("s")
            client = await h.client()
            count = MOST_OWED * 4 + 7
            async with trio.open_nursery() as nursery:

                async def say() -> None:
                    await client.say(*(str(i) for i in range(count)))

                nursery.start_soon(say)
                assert await client.hear(count) == [f"s:{i}" for i in range(count)]

    run(main)


def test_a_client_that_does_not_read_is_not_answered_further(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, _ = await h.server()
            client, other = await h.client(), await h.client()
            await client.say("much?")
            await far.receive_some()
            line = b"x" * 99_999
            sent = 0
            with trio.move_on_after(1):
                while sent < 200_000_000:
                    await far.send_all(line)
                    sent += len(line)
            assert sent < 50_000_000
            assert trio_backends.current_manager().statistics().heap_bytes < 4_000_000
            # It reads on, and gets every byte.
            got = 0

            async def read() -> None:
                nonlocal got
                while True:
                    data = await client.far.receive_some()
                    got += len(data)
                    if data.endswith(b"\n"):
                        return

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await far.send_all(b"\n")
            assert got >= sent
            await other.say("next")
            assert await far.receive_some() == b"next\n"

    run(main)


def test_a_stream_closed_as_its_news_arrive(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            client = Client(*await tcp_pair())
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await h.mux.serve(client.near)

                nursery.start_soon(serve)
                await trio.testing.wait_all_tasks_blocked()
                h.mux.ask_to_leave(client.near)  # its news are under way now
                client.near.close()

    run(main)


def test_news_of_an_earlier_stay_are_forgotten(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            far, near = await tcp_pair()
            for _ in range(3):
                with trio.move_on_after(0.01) as scope:
                    await h.mux.serve(near)
                assert scope.cancelled_caught
            await h.echo_server("s")
            h.nursery.start_soon(h.mux.serve, near)
            await far.send_all(b"x\n")
            assert await far.receive_some() == b"s:x\n"

    run(main)


def test_a_sticky_server_that_speaks_counts_as_no_transaction(run: Run) -> None:
    async def main() -> None:
        async with house(sticky=True) as h:
            far, _ = await h.server()
            client = await h.client()
            await client.say("x")
            await far.receive_some()
            await far.send_all(b"done\n")
            await client.hear()
            before = h.mux.stats()
            await trio.sleep(0.01)
            await client.say("y")
            await far.receive_some()
            await far.send_all(b"done\n")
            await client.hear()
            after = h.mux.stats()
            assert after.transactions == before.transactions + 1
            assert after.busy_time - before.busy_time < 5

    run(main)


def test_a_client_that_waits_is_answered_in_a_servers_place(run: Run) -> None:
    """It keeps what it has sent behind that, and loses its place only if it was answered."""

    async def main() -> None:
        async with house() as h:
            first, second = await h.client(), await h.client()
            assert h.mux.queued(first.near) is None
            await first.say("one", "two")
            await trio.testing.wait_all_tasks_blocked(0.005)
            await second.say("other")
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert h.mux.queued(first.near) == b"one\ntwo\n"
            h.mux.answer_waiting(first.near, 100, b"more than there is\n")
            h.mux.answer_waiting(first.near, 4, b"not now\n")
            assert await first.hear() == ["not now"]
            assert h.mux.queued(first.near) == b"two\n" and h.mux.waiting == 2
            far, near = await h.server()
            assert [await far.receive_some() for _ in "1"] == [b"other\n"]
            await far.send_all(b"other\n")
            assert await far.receive_some() == b"two\n"
            h.mux.answer_waiting(first.near, 0, b"has a server\n")
            await far.send_all(b"two\n")
            assert await first.hear() == ["two"]
            h.mux.remove_server(near)
            await first.say("three")
            await trio.testing.wait_all_tasks_blocked(0.005)
            h.mux.answer_waiting(first.near, 6, b"nothing else\n")
            assert await first.hear() == ["nothing else"]
            assert h.mux.waiting == 0 and h.mux.stats().clients == 2

    run(main)


def test_a_client_that_is_answered_and_gone_is_reported(run: Run) -> None:
    async def main() -> None:
        async with house() as h:
            client = await h.client()
            await client.say("one")
            await trio.testing.wait_all_tasks_blocked(0.005)
            client.far.close()
            h.mux.answer_waiting(client.near, 4, b"not now\n")
            assert await client.news() is ClientNews.ENDED
            assert h.mux.waiting == 0

    run(main)

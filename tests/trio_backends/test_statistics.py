"""What a run says of its engine, and on which pages its buffers are."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_backends
from tests.support.running import Run
from tests.trio_backends.test_streams import receive, tcp_pair
from trio_backends import BackendUnavailable, EngineStatistics


def statistics() -> EngineStatistics:
    found = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(found, EngineStatistics)
    return found


def test_statistics_are_frozen_and_count(run: Run, backend: str) -> None:
    async def main() -> None:
        before = statistics()
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            before.waits = 0
        a, b = await tcp_pair()
        async with a, b:
            for _ in range(10):
                await a.send_all(bytes(1000))
                assert len(await receive(b, 1000)) == 1000
                await b.send_all(bytes(500))
                assert len(await receive(a, 500)) == 500
        after = statistics()
        assert after.bytes_sent - before.bytes_sent == 15_000
        assert after.bytes_received - before.bytes_received == 15_000
        assert after.sends - before.sends == 20
        assert after.receives - before.receives >= 20
        assert after.waits > before.waits
        assert after.submissions > before.submissions
        assert after.completions > before.completions
        assert after.heap_bytes == before.heap_bytes == 0
        assert 0 <= after.buffers_lent <= after.buffers_total
        assert bool(after.buffers_total) == (backend == "io_uring")

    run(main)


def test_statistics_tell_a_send_that_found_no_room(run: Run) -> None:
    async def main() -> None:
        a, b = await tcp_pair()
        async with a, b:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.send_all, bytes(10_000_000))
                await trio.testing.wait_all_tasks_blocked(0.01)
                found = statistics()
                assert found.sends_blocked > 0
                assert found.bytes_copied > 0
                assert found.heap_bytes > 0
                nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize("huge_pages", ["off", "try"])
def test_buffers_that_may_be_on_huge_pages_serve(backend: str, huge_pages: str) -> None:
    async def main() -> None:
        a, b = await tcp_pair()
        async with a, b, trio.open_nursery() as nursery:
            data = bytes(range(250)) * 20_000
            nursery.start_soon(a.send_all, data)
            assert await receive(b, len(data)) == data
        found = statistics()
        if huge_pages == "off" or not found.buffers_total:
            assert found.huge_pages == "none"
        assert bool(found.huge_page_bytes) == (found.huge_pages != "none")
        assert found.huge_pages in ("none", "transparent", "reserved")

    trio_backends.run(main, backend=backend, huge_pages=huge_pages)  # type: ignore[arg-type]


def test_huge_pages_that_must_be_are_there_or_the_run_is_refused(backend: str) -> None:
    async def main() -> None:
        assert statistics().huge_pages == "reserved"

    try:
        trio_backends.run(main, backend=backend, huge_pages="on")
    except BackendUnavailable as error:
        assert f"{backend}: " in str(error) and "huge pages" in str(error)
    else:
        assert backend == "io_uring"


def test_an_unknown_choice_of_huge_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="huge_pages"):
        trio_backends.run(trio.sleep, 0, huge_pages="yes")  # type: ignore[arg-type]

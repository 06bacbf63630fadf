"""A short core of the suite on backend "kqueue": ``python -m tests.support.kqueue.core``.

The simulator's mutants (mutants.c) are chosen by the environment variable TB_KQUEUE_MUTANT. Ends
with status 0 when all checks were passed, else with the name of the first that was not.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
import trio.testing

import trio_backends
from trio_backends import EngineStream, testing

# What a kernel may do.
SURVIVED = {
    "stale": "one-shot interests in sockets are reported although nothing is there, one in three",
    "ghosts": "interests that ended are reported once more, with what was their udata",
    "keep_add": "EV_ADD and the flags of a refused change come back (XNU, NetBSD)",
    "short": "one event a call, however many there are and fit",
    "no_receipts": "EV_RECEIPT is not known",
    "shuffle": "events in any order",
    "eintr": "waits are interrupted after the changes were made",
    "early_timer": "timers ring after half their time",
    "few_timers": "the kernel grants two timers and no more",
}
# What none may, and what notices it.
CAUGHT = {
    "close_keeps": "close() leaves the interests in a descriptor",
    "no_eof": "the end of a connection is not reported",
    "oneshot_stays": "EV_ONESHOT is reported again and again",
    "level_once": "what is still there is not reported again",
    "delete_ignored": "EV_DELETE does nothing",
    "last_change_lost": "the last of several changes is not made",
    "trigger_lost": "NOTE_TRIGGER wakes nobody",
}
# Checks that a wait ends for its own reason only. No kqueue promises that of a one-shot knote, nor
# does Trio of wait_readable(): its sockets try again. They are left out with `stale`.
NOT_IF_STALE = {
    testing.check_readiness,
    testing.check_cancel_a_waiter,
    testing.check_two_waiters,
    testing.check_close_under_a_waiter,
    testing.check_close_in_the_same_turn,
    testing.check_reuse_of_a_number,
    testing.check_peer_sees_the_end,
    testing.check_half_close,
    testing.check_fork,
    testing.check_guest_mode,
}
LONGEST_CHECK = 10.0  # seconds


async def check_reading_stopped() -> None:
    """A stream above its high water is not asked for, however much its peer sends."""
    a, b = socket.socketpair()
    b.setblocking(False)
    with b:
        async with EngineStream.adopt(a, high_water=1000) as stream:
            b.send(b"x")
            assert await stream.receive_some() == b"x"
            with contextlib.suppress(BlockingIOError):
                while True:
                    b.send(b"y" * 65536)
            await trio.sleep(0.05)
            manager = trio_backends.current_manager()
            before = manager.statistics().waits
            await trio.sleep(0.2)
            assert manager.statistics().waits - before < 20


async def check_trios_sockets() -> None:
    """Trio's own streams and listeners, whose sockets wait by wait_readable and wait_writable."""
    data = bytes(range(256)) * 4096

    async def echo(stream: trio.SocketStream) -> None:
        async for piece in stream:
            await stream.send_all(piece)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        for _ in range(20):
            stream = await trio.testing.open_stream_to_socket_listener(listener)
            async with stream, trio.open_nursery() as sender:
                sender.start_soon(stream.send_all, data)
                received = bytearray()
                while len(received) < len(data):
                    received += await stream.receive_some()
                assert received == data
        nursery.cancel_scope.cancel()


async def check_host_wakes_its_guest() -> None:
    """What the host's thread does between two ticks ends the wait in the other thread."""
    await trio.to_thread.run_sync(_host)


def _host() -> None:
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    ended: list[Any] = []
    event: list[trio.Event] = []

    async def guest() -> None:
        for _ in range(20):
            event[:] = [trio.Event()]
            await event[0].wait()

    trio_backends.start_guest_run(
        guest,
        backend="kqueue",
        run_sync_soon_threadsafe=todo.put,
        done_callback=ended.append,
        host_uses_signal_set_wakeup_fd=True,
    )
    deadline = time.monotonic() + LONGEST_CHECK
    while not ended:
        assert time.monotonic() < deadline, "the guest does not wake"
        try:
            todo.get(timeout=0.01)()
        except queue.Empty:  # the guest waits, in a thread, for nothing that will come
            event[0].set()
    ended[0].unwrap()


CORE = (
    *(check for check in testing.CHECKS if check is not testing.check_many_descriptors),
    check_reading_stopped,
    check_trios_sockets,
    check_host_wakes_its_guest,
)


def _run(check: testing.Check) -> str | None:
    async def bounded() -> str | None:
        with trio.fail_after(LONGEST_CHECK):
            return await check()

    return trio_backends.run(bounded, backend="kqueue")


def main() -> None:
    stale = os.environ.get("TB_KQUEUE_MUTANT") == "stale"
    for check in CORE:
        if stale and check in NOT_IF_STALE:
            continue
        [result] = testing.check_backend("kqueue", run=_run, checks=[check])
        if result.error is not None:
            sys.exit(str(result))


if __name__ == "__main__":
    main()

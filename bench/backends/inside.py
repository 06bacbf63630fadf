"""What is measured within one process: ``python -m bench.backends.inside LOOP STREAMS WORKLOAD``.

Prints one number. *WORKLOAD* is ``memory`` (kB of 1,024 bytes for a task that waits for a
connection) or ``wakeup`` (µs of CPU for a wake-up from another thread).
"""

from __future__ import annotations

import os
import queue
import resource
import socket
import sys
import threading
import time

import trio
import trio.lowlevel
import trio.testing

import trio_backends
from bench.backends.servers import run
from bench.backends.stacks import Stack
from bench.proc import memory

TASKS = 5000
WAKEUPS = 5000


async def memory_of_a_task(streams: str) -> float:
    """Each waits on a descriptor of its own: duplicates of one silent connection."""
    near, far = socket.socketpair()
    copies = [near.dup() for _ in range(TASKS)]
    await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        before = memory(os.getpid())["rss"]
        for copy in copies:
            if streams == "engine":
                nursery.start_soon(trio_backends.EngineStream.adopt(copy).receive_some)
            else:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(copy))
                nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        after = memory(os.getpid())["rss"]
        nursery.cancel_scope.cancel()
    near.close()
    far.close()
    return (after - before) / TASKS


async def wakeup(_streams: str) -> float:
    """One at a time: the thread waits until the loop has run what it was given."""
    token = trio.lowlevel.current_trio_token()
    heard: queue.SimpleQueue[None] = queue.SimpleQueue()
    finished = trio.Event()

    def thread() -> None:
        for _ in range(WAKEUPS):
            token.run_sync_soon(heard.put, None)
            heard.get()
        token.run_sync_soon(finished.set)

    before = time.process_time()
    threading.Thread(target=thread).start()
    await finished.wait()
    return (time.process_time() - before) / WAKEUPS * 1e6


def main() -> None:
    loop, streams, workload = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: list[float] = []

    async def measured() -> None:
        measure = memory_of_a_task if workload == "memory" else wakeup
        found.append(await measure(streams))

    run(Stack(loop, streams), measured)
    print(found[0])


if __name__ == "__main__":
    main()

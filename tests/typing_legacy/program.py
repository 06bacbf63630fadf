"""What a code base on trio-typing looks like: mypy has to understand it, and us in it.

Only for `make test-typing`. The one ignored error must be found: an ignore that is not needed is an
error with strict settings, so a mypy that takes everything for Any fails here.
"""

from __future__ import annotations

import trio
from trio_typing import Nursery, TaskStatus

import trio_backends


async def serve(*, task_status: TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    listeners = await trio_backends.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listeners[0].name[1])
    await trio.serve_listeners(answer, listeners)


async def answer(stream: trio_backends.EngineStream) -> None:
    async with stream:
        await stream.send_all(b"hello")


def start(nursery: Nursery) -> None:
    nursery.start_soon(trio.sleep, 0.1)
    nursery.start_soon(trio.sleep, "long")  # type: ignore[arg-type]


async def main(number: int) -> str:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        start(nursery)
        nursery.cancel_scope.cancel()
    return f"{number} on {trio_backends.current_backend()}"


text: str = trio_backends.run(main, 42, backend="auto")

"""Fixtures of the tests of the backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import trio_backends
from tests.support.running import LONGEST_TEST, Run


@pytest.fixture
def run(backend: str) -> Run:
    """Runs an async function on each backend, for a bounded time."""

    def on_backend(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            with trio.fail_after(LONGEST_TEST):
                return await main()

        return trio_backends.run(bounded, backend=backend)

    return on_backend

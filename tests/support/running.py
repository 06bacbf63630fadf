"""Running an async test on a backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
LONGEST_TEST = 30  # seconds: it hangs

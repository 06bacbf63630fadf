"""Which backend: a name, or "auto" for the best that works here, and why the others do not.

"auto" may be narrowed by the environment variable TRIO_BACKEND, for programs that leave the choice
to us. It holds the name of a backend, or "auto".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from ._kqueue import KqueueIOManager
from ._manager import EngineIOManager, HugePages

T = TypeVar("T")

AUTO = "auto"
# In order of preference.
BACKENDS = ("io_uring", "kqueue", "epoll")
VARIABLE = "TRIO_BACKEND"


class BackendUnavailable(RuntimeError):
    """The backend asked for cannot serve on this machine; the message says why."""


def first_that_works(backend: str, make: Callable[[str], T]) -> tuple[T, dict[str, str]]:
    """What ``make`` makes of ``backend``, or with "auto" of the first of :data:`BACKENDS` for which
    it does not raise OSError; and by name, why those before it were passed over.

    Raises:
        ValueError: there is no backend of that name.
        BackendUnavailable: it, or with "auto" every one of them, cannot serve.
    """
    asker = ""
    if backend == AUTO and (wish := os.environ.get(VARIABLE)):
        backend, asker = wish, f"{VARIABLE}={wish}: "
    if backend != AUTO and backend not in BACKENDS:
        names = ", ".join((AUTO, *BACKENDS))
        raise ValueError(f"{asker}unknown backend {backend!r}; the backends are: {names}")
    reasons: dict[str, str] = {}
    for name in BACKENDS if backend == AUTO else (backend,):
        try:
            return make(name), reasons
        except OSError as error:
            reasons[name] = str(error)
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise BackendUnavailable(f"{asker}no backend can serve: {why}")


def _make(name: str, guest: bool, huge_pages: HugePages) -> EngineIOManager:
    kind = KqueueIOManager if name == "kqueue" else EngineIOManager
    return kind(name, guest=guest, huge_pages=huge_pages)


def choose(backend: str, *, guest: bool = False, huge_pages: HugePages = "off") -> EngineIOManager:
    """A manager on ``backend``; it knows which others were ``passed_over``, and why.

    Raises:
        ValueError: there is no backend of that name, or no such choice of huge pages.
        BackendUnavailable: it, or with "auto" every one of them, cannot serve.
    """
    if huge_pages not in ("off", "try", "on"):
        raise ValueError(f'huge_pages is "off", "try" or "on", not {huge_pages!r}')
    manager, reasons = first_that_works(backend, lambda name: _make(name, guest, huge_pages))
    manager.passed_over = reasons
    return manager


def available_backends() -> dict[str, str | None]:
    """Every backend by name: None when it works on this machine, else why it does not.

    Found out by trying: an engine is made and closed again.
    """
    result: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            EngineIOManager(name).close()
            result[name] = None
        except OSError as error:
            result[name] = str(error)
    return result

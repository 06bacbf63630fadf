"""Which backend: a name, or "auto" for the best that works here, and why the others do not."""

from __future__ import annotations

from ._manager import EngineIOManager, HugePages

# In order of preference.
BACKENDS = ("io_uring", "kqueue", "epoll")


class BackendUnavailable(RuntimeError):
    """The backend asked for cannot serve on this machine; the message says why."""


def _try(name: str, guest: bool, huge_pages: HugePages = "off") -> EngineIOManager | str:
    try:
        return EngineIOManager(name, guest=guest, huge_pages=huge_pages)
    except OSError as error:
        return str(error)


def choose(backend: str, *, guest: bool = False, huge_pages: HugePages = "off") -> EngineIOManager:
    """A manager on ``backend``, or for "auto" on the first of :data:`BACKENDS` that works.

    The manager knows why the backends before it were passed over (``passed_over``).

    Raises:
        ValueError: there is no backend of that name, or no such choice of huge pages.
        BackendUnavailable: it, or with "auto" every one of them, cannot serve.
    """
    if huge_pages not in ("off", "try", "on"):
        raise ValueError(f'huge_pages is "off", "try" or "on", not {huge_pages!r}')
    if backend != "auto" and backend not in BACKENDS:
        names = ", ".join(("auto", *BACKENDS))
        raise ValueError(f"unknown backend {backend!r}; the backends are: {names}")
    reasons: dict[str, str] = {}
    for name in BACKENDS if backend == "auto" else (backend,):
        found = _try(name, guest, huge_pages)
        if isinstance(found, EngineIOManager):
            found.passed_over = reasons
            return found
        reasons[name] = found
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise BackendUnavailable(f"no backend can serve: {why}")


def available_backends() -> dict[str, str | None]:
    """Every backend by name: None when it works on this machine, else why it does not.

    Found out by trying: an engine is made and closed again.
    """
    result: dict[str, str | None] = {}
    for name in BACKENDS:
        found = _try(name, False)
        if isinstance(found, EngineIOManager):
            found.close()
            result[name] = None
        else:
            result[name] = found
    return result

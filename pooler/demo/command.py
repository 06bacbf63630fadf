"""``trio-pooler demo``: a PostgreSQL and the pooler before it, both gone at Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from pooler.demo.postgres import (
    HOST,
    EmbeddedPostgres,
    PostgresFailed,
    free_port,
    why_not_bindable,
)

__all__ = ["run"]

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, port: int = 6432, backend: str = "auto") -> int:
    """A PostgreSQL, and the pooler before it on 127.0.0.1:*port*, until a signal ends both.

    Returns the exit status: 1 if one of them could not start, 128 and the signal's number if it was
    ended while it started, else what ``pooler.app.run`` returns.
    """
    why_not = why_not_bindable(port)
    if why_not is not None:
        return _failed(
            f"cannot listen on {HOST}:{port}: {why_not}. For another port: trio-pooler demo --port"
            f" {free_port()}"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_orderly_end())
        try:
            pg = EmbeddedPostgres()
            stack.callback(pg.stop)
            # From here on a signal that comes twice is not to end us with the server still there.
            stack.callback(_ignore_signals)
            pg.start()
            return _serve(pg, port, backend)
        except PostgresFailed as error:
            return _failed(str(error))
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _serve(pg: EmbeddedPostgres, port: int, backend: str) -> int:
    from pooler import app
    from pooler.config import Settings

    settings = Settings.model_validate(
        {
            "pooler": {
                "listen": [f"{HOST}:{port}"],
                "backend": backend,
                # Nobody's work is lost here: Ctrl-C need not wait for a transaction left open.
                "shutdown_timeout": 1,
            },
            "databases": {"*": {"host": pg.host, "port": pg.port}},
            "auth": {"method": "trust"},
        }
    )
    print(_greeting(pg, port, backend), flush=True)
    return app.run(settings)


def _greeting(pg: EmbeddedPostgres, port: int, backend: str) -> str:
    address = f"host={HOST} port={port} user=postgres dbname=postgres"
    return f"""
PostgreSQL {pg.version} on {pg.host}:{pg.port}, the pooler before it on {HOST}:{port}.
I/O backend: {_backend_and_why(backend)}

    psql "{address}"
    psycopg.connect("{address}")

Ctrl-C ends both.
"""


def _backend_and_why(asked: str) -> str:
    if asked != "auto":
        return f"{asked}, as asked"
    import trio_backends

    why_not = trio_backends.available_backends()
    passed_over: list[str] = []
    for name, reason in why_not.items():
        if reason is None:
            return f"{name} ({'; '.join(passed_over) or 'the fastest there is'})"
        passed_over.append(f"no {name}: {reason}")
    return "none"


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Has SIGTERM and SIGHUP end the with block as an exception does; restores what was before."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    def end_by_sigterm(_number: int, _frame: object) -> None:
        # Not an exception: the pooler, while it runs, has its own way to end at SIGTERM.
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end_by_sigterm)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _failed(message: str) -> int:
    print(f"trio-pooler: {message}", file=sys.stderr)
    return 1

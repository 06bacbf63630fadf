"""Which backends the tests run on."""

from __future__ import annotations

import sys

import pytest

import trio_backends

KQUEUE = trio_backends.available_backends()["kqueue"] is None
# The build of `make test-kqueue`: there it is kqueue that is tested, and nothing else.
KQUEUE_SIMULATED = KQUEUE and sys.platform == "linux"

if KQUEUE_SIMULATED:
    from tests.support.kqueue import imitation

    imitation.install()


def backend_params(*, kqueue: str = "kqueue", others: tuple[str, ...]) -> list[object]:
    """Parameters of a fixture: ``others``, or where the system has a kqueue, ``kqueue``."""
    if KQUEUE_SIMULATED:
        return [pytest.param(kqueue, id=kqueue.replace("kqueue", "kqueue-sim"))]
    return [kqueue] if KQUEUE else list(others)


BACKENDS = backend_params(others=("io_uring", "epoll"))

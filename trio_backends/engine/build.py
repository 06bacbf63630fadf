"""Builds ``trio_backends._engine``, the engine, with cffi in API mode.

setup.py runs this from the project's root; so does ``python trio_backends/engine/build.py``, which
leaves the extension beside the package's modules. Each driver compiles to nothing on a platform
that is not its own.

``TRIO_BACKENDS_KQUEUE_SIM=1`` builds the kqueue driver in as well, over the simulator of kevent()
in tests/support/kqueue. For tests on Linux, in a copy of the tree (``make test-kqueue``).
"""

import os
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
HERE = "trio_backends/engine"  # paths of sources are relative to the root: setuptools demands it
SOURCES = [
    "engine.c",
    "listener.c",
    "stream.c",
    "alarm.c",
    "relay.c",
    "multiplexer.c",
    "members.c",
    "watch.c",
    "ring.c",
    "readiness.c",
    "driver_io_uring.c",
    "driver_epoll.c",
    "driver_kqueue.c",
    "knotes.c",
]
HEADERS = [
    "engine.h",
    "framing.h",
    "knotes.h",
    "multiplexer.h",
    "platform.h",
    "readiness.h",
    "ring.h",
    "watch.h",
]
SIMULATOR = "tests/support/kqueue"
SIMULATOR_SOURCES = ["kqueue_sim.c", "filters.c", "signals.c", "mutants.c"]


def _cdef(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def builder(*, simulate_kqueue: bool) -> FFI:
    """What builds the extension."""
    ffi = FFI()
    ffi.cdef(_cdef(f"{HERE}/engine.cdef.txt"))
    sources = [f"{HERE}/{name}" for name in SOURCES]
    headers = [f"{HERE}/{name}" for name in HEADERS]
    preamble = '#include "engine.h"\n'
    if not simulate_kqueue:
        ffi.set_source(
            "trio_backends._engine", preamble, sources=sources, depends=headers, include_dirs=[HERE]
        )
        return ffi
    # Python's tests use the same simulator, so that select.kqueue can be imitated.
    ffi.cdef(_cdef(f"{SIMULATOR}/kqueue.cdef.txt"))
    ffi.set_source(
        "trio_backends._engine",
        preamble + "#include <sys/event.h>\n",
        sources=[*sources, *(f"{SIMULATOR}/{name}" for name in SIMULATOR_SOURCES)],
        depends=[*headers, f"{SIMULATOR}/sim.h", f"{SIMULATOR}/sys/event.h"],
        include_dirs=[HERE, SIMULATOR],
        define_macros=[("TB_KQUEUE_SIM", "1"), ("close", "kqueue_sim_close")],
    )
    return ffi


ffibuilder = builder(
    simulate_kqueue=os.environ.get("TRIO_BACKENDS_KQUEUE_SIM", "") not in ("", "0")
)

if __name__ == "__main__":
    os.chdir(ROOT)
    ffibuilder.compile(verbose=True)

"""Builds ``trio_backends._engine``, the engine, with cffi in API mode.

setup.py runs this from the project's root; so does ``python trio_backends/engine/build.py``, which
leaves the extension beside the package's modules. Each driver compiles to nothing on a platform
that is not its own.
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
    "driver_io_uring.c",
    "driver_epoll.c",
]

ffibuilder = FFI()
ffibuilder.cdef((ROOT / HERE / "engine.cdef.txt").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "trio_backends._engine",
    '#include "engine.h"\n',
    sources=[f"{HERE}/{name}" for name in SOURCES],
    depends=[
        f"{HERE}/{name}" for name in ("engine.h", "framing.h", "multiplexer.h", "ring.h", "watch.h")
    ],
    include_dirs=[HERE],
)

if __name__ == "__main__":
    os.chdir(ROOT)
    ffibuilder.compile(verbose=True)

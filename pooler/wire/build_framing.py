"""Builds ``pooler.wire._framing``, the framing of PostgreSQL messages for the engine, with cffi.

setup.py runs this from the project's root; so does ``python pooler/wire/build_framing.py``, which
leaves the extension beside this file.
"""

import os
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
HERE = "pooler/wire"  # paths of sources are relative to the root: setuptools demands it

ffibuilder = FFI()
ffibuilder.cdef((ROOT / HERE / "framing.cdef.txt").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "pooler.wire._framing",
    """
    #include "framing.h"
    const struct tb_framing *pg_framing(void);
    const struct tb_framing *pg_brief_framing(void);
    const struct tb_framing *pg_opaque_framing(void);
    """,
    sources=[
        f"{HERE}/{name}.c" for name in ("framing", "opaque", "statements", "session", "memory")
    ],
    depends=[
        "trio_backends/engine/framing.h",
        *(
            f"{HERE}/{name}.h"
            for name in ("account", "framing_messages", "held", "memory", "session", "statements")
        ),
    ],
    include_dirs=["trio_backends/engine"],
)

if __name__ == "__main__":
    os.chdir(ROOT)
    ffibuilder.compile(verbose=True)

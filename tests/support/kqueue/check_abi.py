"""Compiles and links both extensions for FreeBSD and macOS, as a program.

``python -m tests.support.kqueue.check_abi`` needs the compiler of ziglang (PyPI), which brings the
headers and libraries of these systems. Nothing is run: what is checked is that every name exists
there, that there is no warning, and what driver_kqueue.c asserts of the layout of ``struct
kevent``. Python's own headers are those of the Python that runs this; on 64-bit systems they fit
well enough to compile against.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("x86_64-freebsd", "aarch64-freebsd", "x86_64-macos", "aarch64-macos")
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# As in setup.py: of code that cffi generates.
OF_GENERATED = ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]
# What is of Linux alone has to compile to nothing.
OF_LINUX = ("ring.c", "driver_io_uring.c", "driver_epoll.c")


def zig(target: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-std=gnu11", "-O2"]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True)


def extensions(directory: Path) -> list[Any]:
    """The two extensions as setuptools knows them; what cffi generates is in ``directory``."""
    sys.path.insert(0, str(ROOT))
    from pooler.wire.build_framing import ffibuilder as framing
    from trio_backends.engine.build import builder

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return [
            ffi.distutils_extension(str(directory))
            for ffi in (builder(simulate_kqueue=False), framing)
        ]


def python_headers(directory: Path) -> Path:
    """A copy, beside the pyconfig.h that belongs to it: some systems keep that elsewhere.

    On Debian the file that Python knows of includes another one, for this machine's architecture.
    """
    include = Path(sysconfig.get_path("include"))
    config = Path(sysconfig.get_config_h_filename())
    own = include.parent / (sysconfig.get_config_var("MULTIARCH") or "") / include.name
    copy = directory / "python"
    shutil.copytree(include, copy)
    shutil.copy(own / config.name if (own / config.name).exists() else config, copy / "pyconfig.h")
    return copy


def check(target: str, extension: Any, directory: Path, headers: Path) -> None:
    """Raises CalledProcessError where something does not compile or link."""
    name = extension.name.rpartition(".")[2]
    [generated] = (source for source in extension.sources if Path(source).stem == name)
    includes = [f"-I{path}" for path in extension.include_dirs]
    objects = []
    for source in extension.sources:
        if source == generated:
            continue
        objects.append(str(directory / f"{target}-{Path(source).stem}.o"))
        zig(target, *WARNINGS, "-fPIC", *includes, "-c", source, "-o", objects[-1])
        if Path(source).name in OF_LINUX:
            assert_empty(target, source, includes)
    link = ["-undefined", "dynamic_lookup"] if "macos" in target else []
    flags = [*WARNINGS, *OF_GENERATED, "-fPIC", "-shared", *includes, f"-I{headers}", *link]
    zig(target, *flags, generated, *objects, "-o", str(directory / f"{target}-{name}.so"))


def assert_empty(target: str, source: str, includes: list[str]) -> None:
    """Nothing of the file is left when the preprocessor is done with it."""
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        target,
        "-E",
        "-P",
        *includes,
        source,
    ]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not text.strip(), f"{source} compiles to something for {target}:\n{text[:500]}"


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        headers = python_headers(directory)
        os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(directory / "zig-cache"))
        both = extensions(directory)
        for target in TARGETS:
            for extension in both:
                try:
                    check(target, extension, directory, headers)
                except subprocess.CalledProcessError:
                    sys.exit(f"{target}: {extension.name} does not compile or link, see above")
            print(f"{target}: compiles and links", flush=True)


if __name__ == "__main__":
    main()

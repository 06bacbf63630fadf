"""Running an unmodified program on a backend, as python itself would run it.

The program finds what it would find there: sys.argv, sys.path, ``__main__``. It leaves the exit
status and the traceback that it would leave there, without frames of ours or of runpy's.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing.spawn
import os
import runpy
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType
from typing import Any

from ._install import STOCK, installed

_for_good = contextlib.ExitStack()
_CANNOT_OPEN = 2  # python's exit status when it cannot read the script


# ---------------------------------------------------------------- the backend


class _Heirloom:
    """For a process that multiprocessing spawns: unpickled there, it installs the backend."""

    def __init__(self, backend: str, streams: bool) -> None:
        self._arguments = backend, streams

    def __reduce__(self) -> tuple[Callable[[str, bool], None], tuple[str, bool]]:
        return install_for_good, self._arguments


def install_for_good(backend: str, streams: bool) -> None:
    """Every Trio run of this process is on a backend, to the end of its threads and exit handlers;
    and of its children by multiprocessing. (Those by os.fork() are copies anyway. A program that
    it starts is another program.)

    Raises: as :func:`trio_backends.installed`.
    """
    if backend == STOCK and not streams:
        return
    _for_good.enter_context(installed(backend, streams=streams))
    original = multiprocessing.spawn.get_preparation_data

    def with_heirloom(name: str) -> dict[str, Any]:
        return {**original(name), "trio_backends": _Heirloom(backend, streams)}

    vars(multiprocessing.spawn)["get_preparation_data"] = with_heirloom


# ---------------------------------------------------------------- the program


def run_module(name: str, arguments: list[str]) -> None:
    """As ``python -m name arguments``."""
    sys.argv = [name, *arguments]
    _run(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True))


def run_script(path: str, arguments: list[str]) -> None:
    """As ``python path arguments``: a file; a directory or an archive with a ``__main__.py``; or
    "-", the program on standard input.
    """
    sys.argv = [path, *arguments]
    if path == "-":
        _run_source(sys.stdin.read(), "<stdin>", "")
        return
    whole = os.path.join(os.getcwd(), path)
    try:
        with io.open_code(whole) as file:
            source = file.read()
    except IsADirectoryError:
        source = b""
    except OSError as error:
        why = f"can't open file {whole!r}: [Errno {error.errno}] {error.strerror}"
        print(f"{sys.orig_argv[0]}: {why}", file=sys.stderr)
        raise SystemExit(_CANNOT_OPEN) from None
    if os.path.isdir(whole) or zipfile.is_zipfile(whole) or whole.endswith(".pyc"):
        _set_path(whole)
        _run(lambda: runpy.run_path(whole, run_name="__main__"))
    else:
        _run_source(source, whole, os.path.dirname(os.path.realpath(whole)))


def run_code(code: str, arguments: list[str]) -> None:
    """As ``python -c code arguments``."""
    sys.argv = ["-c", *arguments]
    _run_source(code, "<string>", "")


def _run_source(source: str | bytes, file: str, directory: str) -> None:
    """Not by runpy, whose ``__main__`` is another one, and is gone when exit handlers run."""
    _set_path(directory)
    main = sys.modules["__main__"] = ModuleType("__main__")
    if os.path.isabs(file):
        loader = SourceFileLoader("__main__", file)
        vars(main).update(__file__=file, __cached__=None, __loader__=loader)
    _run(lambda: exec(compile(source, file, "exec", dont_inherit=True), vars(main)))


def _set_path(first: str) -> None:
    """Python has put there the directory that it was started in: it was told ``-m``."""
    if not sys.flags.safe_path:
        sys.path[0] = first


def _run(program: Callable[[], object]) -> None:
    try:
        program()
    except SystemExit:
        raise
    except BaseException as error:
        error.__traceback__ = _of_the_program(error.__traceback__)
        if error.__traceback__ is None and isinstance(error, ImportError):
            # runpy found no such module; python says no more either.
            sys.exit(f"{sys.executable}: {error}")
        sys.excepthook(type(error), error, error.__traceback__)
        # It has been told; what is left is the exit status, which for a KeyboardInterrupt is a
        # signal's.
        sys.excepthook = lambda *_: None
        raise


def _of_the_program(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None:
        code, names = traceback.tb_frame.f_code, traceback.tb_frame.f_globals
        ours = names is globals() or names.get("__name__") == "runpy"
        if not ours and not code.co_filename.startswith("<frozen "):
            break
        traceback = traceback.tb_next
    return traceback

"""Builds the two C extensions; everything else about the package stands in pyproject.toml.

The build files in ``cffi_modules`` say what is compiled. How it is compiled stands here, once, and
depends on two environment variables that the Makefile sets (a third, TRIO_BACKENDS_KQUEUE_SIM, is
for trio_backends/engine/build.py):

``TRIO_POOLER_WERROR=1``
    A warning is an error. Not the default: a compiler newer than ours must not break an install.
``TRIO_POOLER_SANITIZE=1``
    AddressSanitizer and UndefinedBehaviorSanitizer, for ``make sanitize``.
"""

import os

from setuptools import setup
from setuptools.command.build_ext import build_ext

WARNINGS = [
    "-Wall",
    "-Wextra",
    # Of code that cffi generates; `make lint` compiles our own files without these two.
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def enabled(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def compile_args() -> list[str]:
    args = ["-std=gnu11", *WARNINGS]
    if enabled("TRIO_POOLER_WERROR"):
        args.append("-Werror")
    if enabled("TRIO_POOLER_SANITIZE"):
        # -UNDEBUG: many Pythons compile extensions with assertions off.
        return [*args, "-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG", *SANITIZERS]
    return [*args, "-O2"]


class BuildExtensions(build_ext):
    """Adds our flags behind those of Python's own build, so that ours win."""

    def build_extensions(self) -> None:
        for extension in self.extensions:
            extension.extra_compile_args += compile_args()
            if enabled("TRIO_POOLER_SANITIZE"):
                extension.extra_link_args += SANITIZERS
        super().build_extensions()


setup(
    cffi_modules=[
        "trio_backends/engine/build.py:ffibuilder",
        "pooler/wire/build_framing.py:ffibuilder",
    ],
    cmdclass={"build_ext": BuildExtensions},
)

"""``python -m trio_backends``: runs an unmodified program on a backend, or lists the backends."""

from __future__ import annotations

import argparse
import platform
import sys

import trio

from ._choose import AUTO, BACKENDS, VARIABLE, BackendUnavailable, available_backends
from ._install import STOCK, ContractBroken
from ._programs import install_for_good, run_code, run_module, run_script

_USAGE = """\
python -m trio_backends [--backend NAME] [--streams] SCRIPT|-  [ARGUMENT ...]
       python -m trio_backends [--backend NAME] [--streams] -m MODULE [ARGUMENT ...]
       python -m trio_backends [--backend NAME] [--streams] -c CODE   [ARGUMENT ...]
       python -m trio_backends --list"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trio_backends",
        usage=_USAGE,
        description="Runs an unchanged program, with every trio.run() in it on an I/O backend.",
        allow_abbrev=False,
    )
    names = ", ".join((AUTO, *BACKENDS))
    parser.add_argument(
        "--backend",
        metavar="NAME",
        default=AUTO,
        choices=(AUTO, *BACKENDS, STOCK),
        help=f"one of {names}, or {STOCK} for Trio's own; without it, and with {AUTO}: "
        f"what {VARIABLE} in the environment says, or else the best that works",
    )
    parser.add_argument(
        "--streams",
        action="store_true",
        help="trio.open_tcp_stream() and its kin make the engine's streams",
    )
    parser.add_argument("--list", action="store_true", help="say which backends work here")
    for names, what in (("-m", "module"), ("-c", "code"), ("script", "file")):
        parser.add_argument(
            names,
            nargs=argparse.REMAINDER,
            help=f"the {what} to run, and its arguments",
        )
    return parser


def _print_backends() -> None:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"Trio {trio.__version__}, {python}, {platform.system()} {platform.release()}\n")
    for name, why_not in available_backends().items():
        print(f"{name:10}{'works' if why_not is None else f'does not work: {why_not}'}")


def main() -> None:
    """What :data:`sys.argv` asks for."""
    parser = _parser()
    asked = parser.parse_args()
    if asked.list:
        _print_backends()
        return
    program = asked.m or asked.c or asked.script
    if not program:
        parser.error("which program? a SCRIPT, -m MODULE or -c CODE")
    try:
        install_for_good(asked.backend, asked.streams)
    except (BackendUnavailable, ContractBroken, ValueError) as error:
        sys.exit(f"trio_backends: {error}")
    if asked.m:
        run_module(program[0], program[1:])
    elif asked.c:
        run_code(program[0], program[1:])
    else:
        run_script(program[0], program[1:])


if __name__ == "__main__":
    main()

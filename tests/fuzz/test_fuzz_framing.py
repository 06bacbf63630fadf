"""A short round of ``fuzz_framing.c`` under sanitizers; its opening comment says how to go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_framing"
    sources = [f"pooler/wire/{name}.c" for name in ("framing", "statements", "session", "memory")]
    sources.append("tests/fuzz/fuzz_framing.c")
    options = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Itrio_backends/engine"]
    command = [compiler, *options, *SANITIZERS, *sources, "-o", str(program)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "cannot find -lasan" in built.stderr or "libclang_rt" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    assert not built.stderr
    return program


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_framing_survives_anything(fuzzer: Path, seed: int) -> None:
    # Under `make sanitize` another sanitizer is preloaded into Python; the program has its own.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    run = subprocess.run(
        [fuzzer, "200000", str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"seed {seed}\n")

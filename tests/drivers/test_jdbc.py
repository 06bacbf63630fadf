"""pgjdbc: statements that it names after five times, batches, portals with a limit of rows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.drivers.conftest import CLIENTS, TIMEOUT, Shop

PROGRAM = Path(__file__).parent / "java" / "Workload.java"
JAR = Path(os.environ.get("PGJDBC_JAR", "/usr/share/java/postgresql.jar"))


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command, of a program that has been compiled."""
    java, javac = shutil.which("java"), shutil.which("javac")
    if java is None or javac is None:
        pytest.skip("no java and javac (Debian: default-jdk-headless)")
    if not JAR.exists():
        pytest.skip(f"no {JAR} (Debian: libpostgresql-jdbc-java), and no PGJDBC_JAR in its place")
    classes = tmp_path_factory.mktemp("classes")
    compile_it = [javac, "-cp", str(JAR), "-d", str(classes), str(PROGRAM)]
    subprocess.run(compile_it, timeout=TIMEOUT, check=True, env=_environment())
    return [java, "-cp", f"{classes}:{JAR}", "Workload"]


def _environment() -> dict[str, str]:
    """Without what `make sanitize` has in it."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def test_an_application(shop: Shop, java: list[str]) -> None:
    url = f"jdbc:postgresql://{shop.host}:{shop.port}/{shop.database}"
    command = [*java, url, shop.user, str(CLIENTS)]
    done = subprocess.run(
        command, env=_environment(), timeout=TIMEOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

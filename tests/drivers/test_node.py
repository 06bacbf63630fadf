"""node-postgres, with the statements that it names, its pool and its cursors."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.drivers.conftest import CLIENTS, TIMEOUT, Shop
from tests.support.pooler import ROOT

HERE = Path(__file__).parent / "node"
INSTALLED = ROOT / "build" / "node"


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js; with npm's help, node-postgres is installed first."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm")
    if not (INSTALLED / "node_modules" / "pg-cursor").exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", INSTALLED)
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
        try:
            done = subprocess.run(install, cwd=INSTALLED, timeout=TIMEOUT, capture_output=True)
        except subprocess.TimeoutExpired:
            pytest.skip("npm does not get node-postgres: it takes too long")
        if done.returncode != 0:
            pytest.skip(f"npm does not get node-postgres: {done.stderr.decode()[-200:]}")
    return node


def test_an_application(shop: Shop, node: str) -> None:
    place = (shop.host, str(shop.port), shop.user, shop.database)
    command = [node, str(HERE / "workload.js"), *place, str(CLIENTS)]
    env = {**os.environ, "NODE_PATH": str(INSTALLED / "node_modules")}
    env.pop("LD_PRELOAD", None)  # of `make sanitize`
    done = subprocess.run(command, env=env, timeout=TIMEOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Django: migrations, the ORM, transactions, cursors of the server."""

from __future__ import annotations

import subprocess
import sys

from tests.drivers.conftest import TIMEOUT, Shop
from tests.support.pooler import ROOT


def test_an_application(shop: Shop) -> None:
    """In a process of its own, for a process has one Django."""
    place = (shop.host, str(shop.port), shop.user, shop.database)
    command = [sys.executable, "-m", "tests.drivers.shop", *place]
    done = subprocess.run(command, cwd=ROOT, timeout=TIMEOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""Every conformance check on every backend and on Trio's own; and that the checks find faults."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import trio
import trio.lowlevel

import trio_backends
from trio_backends import EngineStream, testing
from trio_backends._manager import EngineIOManager
from trio_backends.testing import CHECKS, check_backend

BACKENDS = [name for name, why in trio_backends.available_backends().items() if why is None]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*BACKENDS, "stock"])
def test_each_backend_passes(name: str, check: testing.Check) -> None:
    [result] = check_backend(name, checks=[check])
    if result.error is not None:
        raise result.error
    if check is testing.check_signal_burst:
        assert result.remark is None


@pytest.mark.parametrize("name", [*BACKENDS, "stock"])
def test_a_backend_of_ones_own(name: str) -> None:
    run = trio.run if name == "stock" else partial(trio_backends.run, backend=name)
    [result] = check_backend("mine", run=run, checks=[testing.check_readiness])
    assert result.error is None
    assert str(result) == "readiness: passed"


def test_every_check_is_public() -> None:
    names = {name for name in vars(testing) if name.startswith("check_")} - {"check_backend"}
    assert names == {check.__name__ for check in CHECKS}
    assert names <= set(testing.__all__)
    assert all(check.__doc__ for check in CHECKS)


def test_an_unknown_backend_is_not_a_failed_check() -> None:
    with pytest.raises(ValueError, match="unknown backend"):
        check_backend("select")


async def ready_at_once(_manager: EngineIOManager, _fd: Any) -> None:
    await trio.lowlevel.checkpoint()


def nothing(_manager: EngineIOManager, _fd: Any) -> None:
    pass


received_whole = EngineStream.receive_some


async def receive_and_drop(stream: EngineStream, max_bytes: int | None = None) -> bytes:
    data = await received_whole(stream, max_bytes)
    await trio.lowlevel.checkpoint()  # cancelled here, the data is lost
    return data


async def refuse(_stream: EngineStream, *_: Any) -> bytes:
    raise AttributeError("a fault of the backend")


FAULTS = {
    "spurious": (EngineIOManager, "wait_writable", ready_at_once, testing.check_half_close),
    "not told": (EngineIOManager, "notify_closing", nothing, testing.check_close_under_a_waiter),
    "kept open": (EngineIOManager, "notify_closing", nothing, testing.check_reuse_of_a_number),
    "lost": (EngineStream, "receive_some", receive_and_drop, testing.check_cancelled_receives),
    "broken": (EngineStream, "receive_some", refuse, testing.check_back_pressure),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, replacement, check = FAULTS[fault]
    monkeypatch.setattr(owner, name, replacement)
    monkeypatch.setattr(testing, "LONGEST", 2.0)
    [result] = check_backend(backend, checks=[check])
    assert result.error is not None
    assert "FAILED" in str(result)


def test_the_checks_from_the_command_line() -> None:
    code = (
        "from trio_backends import testing;"
        "testing.CHECKS = (testing.check_readiness, testing.check_idle);"
        "raise SystemExit(testing.main(['stock']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["stock: readiness: passed", "stock: idle: passed"]

"""Starting a run: which backend, why not another, and what is said when none will do."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import trio
import trio.lowlevel

import trio_backends
from tests.support.backends import KQUEUE


def test_a_run_is_on_the_backend_asked_for(backend: str) -> None:
    async def main(word: str) -> tuple[str, str]:
        return word, trio_backends.current_backend()

    assert trio_backends.run(main, "hello", backend=backend) == ("hello", backend)


def test_auto_takes_the_first_that_works() -> None:
    async def main() -> str:
        return trio_backends.current_backend()

    works = [name for name, why in trio_backends.available_backends().items() if why is None]
    assert trio_backends.run(main) == works[0]


def test_an_unknown_backend_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match=r"'select'.*io_uring, kqueue, epoll"):
        trio_backends.run(trio.sleep, 0, backend="select")


@pytest.mark.skipif(KQUEUE, reason="it is one of this kernel's, or simulated")
def test_a_backend_of_another_kernel_says_why() -> None:
    with pytest.raises(trio_backends.BackendUnavailable, match="kqueue: not built"):
        trio_backends.run(trio.sleep, 0, backend="kqueue")


def test_a_stock_run_is_called_stock() -> None:
    async def main() -> str:
        return trio_backends.current_backend()

    assert trio.run(main) == "stock"


def test_streams_need_one_of_our_runs() -> None:
    async def main() -> None:
        await trio_backends.open_tcp_listeners(0, host="127.0.0.1")

    with pytest.raises(RuntimeError, match=r"trio_backends\.run"):
        trio.run(main)


def test_what_main_raises_comes_out(backend: str) -> None:
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trio_backends.run(main, backend=backend)


def test_runs_may_be_nested_in_threads(backend: str) -> None:
    async def inner() -> str:
        await trio.lowlevel.checkpoint()
        return trio_backends.current_backend()

    async def outer() -> str:
        return await trio.to_thread.run_sync(lambda: trio_backends.run(inner, backend=backend))

    assert trio_backends.run(outer, backend=backend) == backend


# A seccomp filter (seccomp(2)) that refuses io_uring_setup, number 425 everywhere, with EPERM, as
# Docker's does.
FORBIDDEN = """
    import ctypes, struct
    libc = ctypes.CDLL(None, use_errno=True)
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    filter = Filter(len(code), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()
    import trio_backends
    async def main():
        manager = trio_backends.current_manager()
        print(manager.backend, manager.passed_over)
"""


def _forbidden(code: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(FORBIDDEN) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_forbidden_io_uring_is_a_reason_to_fall_back() -> None:
    result = _forbidden("trio_backends.run(main)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("kqueue" if KQUEUE else "epoll")
    assert "Operation not permitted" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_forbidden_io_uring_asked_for_by_name_is_an_error() -> None:
    result = _forbidden(
        """
        try:
            trio_backends.run(main, backend="io_uring")
        except trio_backends.BackendUnavailable as error:
            print("refused:", error)
        """
    )
    assert "refused: no backend can serve: io_uring" in result.stdout
    assert "seccomp" in result.stdout


def test_a_changed_trio_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from trio._core import _run

    class Changed(_run.TheIOManager):  # type: ignore[misc, valid-type, name-defined]
        def get_events(self, timeout: float, batch: int) -> list[object]:
            return []

    monkeypatch.setattr(_run, "TheIOManager", Changed)
    with pytest.raises(trio_backends.ContractBroken, match=r"trio \d.*get_events\(\) takes"):
        trio_backends.run(trio.sleep, 0)

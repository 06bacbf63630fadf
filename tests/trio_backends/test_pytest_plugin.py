"""``pytest --trio-backend``: which tests run on what. In processes of their own, and with no plugin
but those named.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio
from packaging.requirements import Requirement

import trio_backends

ROOT = Path(trio_backends.__file__).parents[1]
LONGEST = 60  # seconds: it hangs
PLUGINS = {"trio": "pytest_trio.plugin", "anyio": "anyio.pytest_plugin"}


def run_pytest(
    directory: Path,
    tests: str,
    *arguments: str,
    plugins: tuple[str, ...] = ("trio",),
    ini: str = "",
) -> subprocess.CompletedProcess[str]:
    (directory / "pytest.ini").write_text(f"[pytest]\n{ini}\n", encoding="utf-8")
    (directory / "test_it.py").write_text(textwrap.dedent(tests), encoding="utf-8")
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
    }
    named = [word for name in plugins for word in ("-p", PLUGINS[name])]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "trio_backends.pytest_plugin", *named]
    return subprocess.run(
        [*command, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


def outcomes(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """How each test ended, by its name with its parameters."""
    found = re.findall(r"^test_it\.py::(.*?) ([A-Z]+)\b", result.stdout, re.MULTILINE)
    assert found, result.stdout + result.stderr
    return dict(found)


def need_anyio() -> None:
    """It may want a newer Trio than the oldest that we support."""
    pytest.importorskip("anyio")
    for line in importlib.metadata.requires("anyio") or ():
        needed = Requirement(line)
        if needed.name == "trio" and not needed.specifier.contains(trio.__version__):
            pytest.skip(f"this anyio needs trio{needed.specifier}")


WITH_PYTEST_TRIO = """
    import pytest, trio, trio_backends

    @pytest.fixture
    async def place(request):
        await trio.sleep(0)
        yield trio_backends.current_backend()
        print("torn down on", trio_backends.current_backend())

    def expected(request):
        return request.node.name.partition("[")[2].rstrip("]").split("-")[0] or "BACKEND"

    @pytest.mark.trio
    async def test_async(request, place):
        assert place == trio_backends.current_backend() == expected(request)

    @pytest.mark.trio
    @pytest.mark.parametrize("number", [1, 2])
    async def test_clock(number, request, autojump_clock):
        start = trio.current_time()
        await trio.sleep(1000)
        assert trio.current_time() - start >= 1000
        assert trio_backends.current_backend() == expected(request)

    def test_sync(request):
        async def main():
            return trio_backends.current_backend()
        assert trio.run(main) == "BACKEND"
        assert trio_backends.run(main) == "BACKEND" or "BACKEND" == "stock"
"""


def test_one_backend(backend: str, tmp_path: Path) -> None:
    tests = WITH_PYTEST_TRIO.replace("BACKEND", backend)
    # Names are what they are without the option.
    tests = tests.replace('"[")[2]', '"[")[2][:0]')
    result = run_pytest(tmp_path, tests, f"--trio-backend={backend}")
    names = ["test_async", "test_clock[1]", "test_clock[2]", "test_sync"]
    assert outcomes(result) == dict.fromkeys(names, "PASSED"), result.stdout
    assert f"trio backends: {backend}\n" in result.stdout


@pytest.mark.parametrize(
    "options",
    [["--trio-backend=BACKEND,stock"], ["--trio-backend", "BACKEND", "--trio-backend=stock"]],
)
def test_each_trio_test_on_each_of_several(
    options: list[str], backend: str, tmp_path: Path
) -> None:
    tests = WITH_PYTEST_TRIO.replace("BACKEND", backend)
    options = [option.replace("BACKEND", backend) for option in options]
    result = run_pytest(tmp_path, tests, *options)
    names = [f"test_async[{name}]" for name in (backend, "stock")]
    names += [f"test_clock[{name}-{number}]" for name in (backend, "stock") for number in (1, 2)]
    assert outcomes(result) == dict.fromkeys([*names, "test_sync"], "PASSED"), result.stdout
    assert f"trio backends: {backend}, stock\n" in result.stdout
    chosen = run_pytest(tmp_path, tests, *options, "test_it.py::test_async[stock]")
    assert outcomes(chosen) == {"test_async[stock]": "PASSED"}


def test_trio_mode(backend: str, tmp_path: Path) -> None:
    tests = WITH_PYTEST_TRIO.replace("BACKEND", backend).replace("@pytest.mark.trio\n", "\n")
    option = f"--trio-backend={backend},stock"
    result = run_pytest(tmp_path, tests, option, ini="trio_mode = true")
    assert len(outcomes(result)) == 7
    assert set(outcomes(result).values()) == {"PASSED"}, result.stdout
    # The other way to ask for it.
    conftest = tmp_path / "conftest.py"
    conftest.write_text("from pytest_trio.enable_trio_mode import *\n", encoding="utf-8")
    result = run_pytest(tmp_path, tests, option)
    assert len(outcomes(result)) == 7
    assert set(outcomes(result).values()) == {"PASSED"}, result.stdout


def test_auto_is_the_first_that_works(tmp_path: Path) -> None:
    works = [name for name, why in trio_backends.available_backends().items() if why is None]
    tests = """
        import pytest, trio_backends
        @pytest.mark.trio
        async def test_it():
            assert trio_backends.current_backend() == "BACKEND"
    """
    result = run_pytest(tmp_path, tests.replace("BACKEND", works[0]), "--trio-backend=auto,auto")
    assert outcomes(result) == {"test_it": "PASSED"}
    assert f"trio backends: {works[0]}\n" in result.stdout


WITH_ANYIO = """
    import pytest, trio_backends

    set_up = []

    @pytest.fixture(scope="module")
    async def place(anyio_backend):
        set_up.append(anyio_backend)
        yield backend(anyio_backend)
        assert set_up.pop() == anyio_backend

    def backend(loop):
        return trio_backends.current_backend() if loop == "trio" else loop

    def expected(request):
        *_, last = request.node.name.partition("[")[2].rstrip("]").split("-")
        return last

    @pytest.mark.anyio
    async def test_first(request, place, anyio_backend):
        assert place == backend(anyio_backend) == expected(request)
        assert len(set_up) == 1

    @pytest.mark.anyio
    class TestOfClass:
        async def test_second(self, request, place, anyio_backend):
            assert place == backend(anyio_backend) == expected(request)
            assert len(set_up) == 1
"""


def test_anyio_on_each_and_asyncio_once(backend: str, tmp_path: Path) -> None:
    need_anyio()
    result = run_pytest(
        tmp_path,
        WITH_ANYIO,
        f"--trio-backend={backend},stock",
        "-k",
        "not uvloop",
        plugins=("anyio",),
    )
    names = [
        f"{test}[{loop}]"
        for test in ("test_first", "TestOfClass::test_second")
        for loop in ("asyncio", f"trio-{backend}", "trio-stock")
    ]
    assert outcomes(result) == dict.fromkeys(names, "PASSED"), result.stdout


@pytest.mark.parametrize("scope", ["function", "session"])
def test_an_anyio_backend_of_the_projects_own(scope: str, backend: str, tmp_path: Path) -> None:
    need_anyio()
    own = f"""
    @pytest.fixture(scope="{scope}")
    def anyio_backend():
        return "trio"
    """
    tests = WITH_ANYIO.replace('scope="module"', f'scope="{scope}"') + own
    option = f"--trio-backend={backend},stock"
    result = run_pytest(tmp_path, tests, option, plugins=("anyio", "trio"))
    names = [
        f"{test}[{name}]"
        for test in ("test_first", "TestOfClass::test_second")
        for name in (backend, "stock")
    ]
    assert outcomes(result) == dict.fromkeys(names, "PASSED"), result.stdout


def test_anyio_on_asyncio_alone_is_left_alone(backend: str, tmp_path: Path) -> None:
    need_anyio()
    tests = """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_own(anyio_backend):
            assert anyio_backend == "asyncio"

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_direct(anyio_backend):
            assert anyio_backend == "asyncio"
    """
    option = f"--trio-backend={backend},stock"
    result = run_pytest(tmp_path, tests, option, plugins=("anyio",))
    names = [name.partition("[")[0] for name in outcomes(result)]
    assert sorted(names) == ["test_direct", "test_own"]
    assert set(outcomes(result).values()) == {"PASSED"}, result.stdout


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trio-backend=select", "unknown backend 'select'"),
        ("--trio-backend=epoll,kqueue", "kqueue: not built"),
        ("--trio-backend=", "unknown backend ''"),
    ],
)
def test_a_backend_that_cannot_serve_is_a_usage_error(
    option: str, said: str, tmp_path: Path
) -> None:
    if trio_backends.available_backends()["kqueue"] is None and "kqueue" in said:
        pytest.skip("kqueue works here")
    result = run_pytest(tmp_path, "def test_it(): pass", option)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--trio-backend: {said}" in result.stderr.replace("no backend can serve: ", "")
    assert "Traceback" not in result.stderr
    assert "passed" not in result.stdout


def test_without_the_option_nothing_is_imported(tmp_path: Path) -> None:
    tests = """
        import sys
        def test_it():
            ours = sorted(name for name in sys.modules if name.startswith("trio"))
            assert ours == ["trio_backends", "trio_backends.pytest_plugin"]
    """
    result = run_pytest(tmp_path, tests, plugins=())
    assert outcomes(result) == {"test_it": "PASSED"}, result.stdout
    assert "trio backends" not in result.stdout

"""The command ``trio-pooler`` as its user sees it; what it starts is replaced."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

import pooler
from pooler.cli import main
from pooler.config import Settings

GOOD = """
[pooler]
log_level = "error"
[databases.bench]
[auth]
method = "trust"
"""


def trio_pooler(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pooler.toml"
    path.write_text(GOOD)
    return path


Replace = Callable[[str, object], None]


@pytest.fixture
def replace_run(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Puts another function in place of ``pooler.NAME.run``."""

    def replace(name: str, function: object) -> None:
        if importlib.util.find_spec(f"pooler.{name}") is None:
            module = ModuleType(f"pooler.{name}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setattr(pooler, name, module, raising=False)
        monkeypatch.setattr(f"pooler.{name}.run", function, raising=False)

    return replace


@pytest.fixture
def started(replace_run: Replace) -> list[Settings]:
    """The settings with which the pooler was started; it ends with status 0."""
    settings: list[Settings] = []

    def run(given: Settings) -> int:
        settings.append(given)
        return 0

    replace_run("app", run)
    return settings


def test_run(config: Path, started: list[Settings]) -> None:
    result = trio_pooler("run", config)
    assert (result.exit_code, result.output) == (0, "")
    [settings] = started
    assert settings.path == config
    assert list(settings.databases) == ["bench"]
    assert (settings.pooler.backend, settings.pooler.log_level) == ("auto", "error")


def test_options_override_the_file(config: Path, started: list[Settings]) -> None:
    options = ("--backend", "epoll", "--log-level", "debug", "--log-format", "json")
    assert trio_pooler("run", *options, config).exit_code == 0
    chosen = started[0].pooler
    assert (chosen.backend, chosen.log_level, chosen.log_format) == ("epoll", "debug", "json")


def test_the_status_of_the_pooler_is_that_of_the_command(
    config: Path, replace_run: Replace
) -> None:
    replace_run("app", lambda settings: 1)
    assert trio_pooler("run", config).exit_code == 1


def test_nothing_is_run_with_a_bad_configuration(config: Path, started: list[Settings]) -> None:
    config.write_text(GOOD.replace("log_level", "log_levle"))
    result = trio_pooler("run", config)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"trio-pooler: {config}:3: pooler.log_levle: unknown setting; did you mean log_level?\n"
    )
    assert started == []


def test_a_missing_file_is_a_bad_configuration(tmp_path: Path, started: list[Settings]) -> None:
    result = trio_pooler("run", tmp_path / "x.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        f"trio-pooler: {tmp_path}/x.toml: cannot be read: No such file or directory\n"
    )
    assert started == []


def test_demo(replace_run: Replace) -> None:
    calls: list[tuple[int, str]] = []

    def run(*, port: int, backend: str) -> int:
        calls.append((port, backend))
        return len(calls) - 1

    replace_run("demo", run)
    assert trio_pooler("demo").exit_code == 0
    assert trio_pooler("demo", "--port", "6433", "--backend", "epoll").exit_code == 1
    assert calls == [(6432, "auto"), (6433, "epoll")]


def test_check_of_a_good_file(config: Path) -> None:
    result = trio_pooler("check", config)
    assert result.exit_code == 0
    assert result.output == (f"{config}: good (listens on 127.0.0.1:6432, 1 database, 0 users)\n")


def test_check_says_all_that_is_wrong(config: Path) -> None:
    config.write_text(GOOD.replace("error", "loud").replace("trust", "nothing"))
    result = trio_pooler("check", config)
    assert result.exit_code == 1
    first, second, last = result.stdout.splitlines()
    assert first.startswith(f'{config}:3: pooler.log_level = "loud": expected')
    assert second.startswith(f'{config}:6: auth.method = "nothing": expected')
    assert last == "2 problems"


def test_check_counts_one_problem(config: Path) -> None:
    config.write_text(GOOD.replace("error", "loud"))
    assert trio_pooler("check", config).stdout.splitlines()[-1] == "1 problem"


def test_init_prints_what_check_finds_good(tmp_path: Path) -> None:
    printed = trio_pooler("init")
    assert printed.exit_code == 0
    (tmp_path / "users.txt").touch()
    (tmp_path / "new.toml").write_text(printed.stdout)
    assert trio_pooler("check", tmp_path / "new.toml").exit_code == 0


def test_init_writes_a_new_file_and_overwrites_none(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    assert trio_pooler("init", "-o", path).exit_code == 0
    assert path.read_text() == trio_pooler("init").stdout
    path.write_text("mine")
    result = trio_pooler("init", "-o", path)
    assert result.exit_code == 1
    assert result.stderr == f"trio-pooler: {path} exists already, and is not overwritten\n"
    assert path.read_text() == "mine"


def test_init_where_no_file_can_be(tmp_path: Path) -> None:
    result = trio_pooler("init", "-o", tmp_path / "no" / "new.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        f"trio-pooler: cannot write {tmp_path}/no/new.toml: No such file or directory\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("rnu",),
        ("run", "--backend", "kpoll", "x.toml"),
        ("demo", "--port", "65536"),
        ("check", "--nothing", "x.toml"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = trio_pooler(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_version() -> None:
    result = trio_pooler("--version")
    assert (result.exit_code, result.output) == (0, f"trio-pooler {pooler.__version__}\n")


def test_help_names_every_command() -> None:
    text = trio_pooler("--help").output
    for command in main.commands:
        assert f"\n  {command} " in text
        assert trio_pooler(command, "--help").exit_code == 0


def test_help_imports_little() -> None:
    """So that it is quick. Asked of a process of its own: here everything is imported already."""
    script = (
        "import sys; from pooler.cli import main; main(['--help'], standalone_mode=False);"
        "assert not {'pydantic', 'trio', 'structlog', 'psutil'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "pooler", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"trio-pooler {pooler.__version__}\n"

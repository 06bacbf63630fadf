"""What stands on standard error, whatever the names in a message are."""

import json
import re
import sys

import pytest
import structlog
from pydantic import SecretStr

from pooler import logs

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


class Terminal:
    """Standard error, as a terminal that keeps what was written."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    structlog.get_logger().bind(user="alice").warning("client left", after=1.5, why="it is late")
    line = capsys.readouterr().err
    assert re.fullmatch(
        rf'{TIME} warning client left user=alice after=1.5 why="it is late"\n', line
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger().info("listening", port=6432, password=SecretStr("hush"), on={1})
    message = json.loads(capsys.readouterr().err)
    assert re.fullmatch(TIME, message.pop("timestamp"))
    assert message == {"level": "info", "event": "listening", "port": 6432, "on": "{1}"}


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    texts = []
    for form, no_color in (("auto", ""), ("auto", "1"), ("text", "")):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        logs.configure("info", form)  # type: ignore[arg-type]
        structlog.get_logger().info("listening", port=6432)
        texts.append(terminal.text)
    assert "\x1b[32minfo" in texts[0]
    assert all(text.endswith(" info    listening port=6432\n") for text in texts[1:])


@pytest.mark.parametrize("form", ["auto", "text", "json"])
@pytest.mark.parametrize(
    "name", ["al\nice", "al\rice", "\x1b[2Jalice", "al\0ice", "al\x85ice", "al\u2028ice", "\x9b2J"]
)
def test_a_name_cannot_forge_a_line(
    capsys: pytest.CaptureFixture[str], form: str, name: str
) -> None:
    logs.configure("info", form)  # type: ignore[arg-type]
    structlog.get_logger().info(f"refused {name}", user=name, deep={"user": name}, **{name: 1})
    written = capsys.readouterr().err
    assert written.endswith("\n")
    assert written[:-1].isprintable()


@pytest.mark.parametrize("name", ["x admin=true", 'x" admin="true', "x\\", "", "a=b"])
def test_a_value_cannot_forge_another_key(capsys: pytest.CaptureFixture[str], name: str) -> None:
    logs.configure("info", "text")
    structlog.get_logger().info("client logged in", user=name, last=1)
    written = capsys.readouterr().err
    quoted = re.search(r' user=("(?:[^"\\]|\\.)*") last=1\n', written)
    assert quoted and json.loads(quoted[1]) == name


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_endless_name_is_cut(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.configure("info", form)  # type: ignore[arg-type]
    structlog.get_logger().info("refused", user="x" * 100_000)
    assert len(capsys.readouterr().err) < 2 * logs.LONGEST_VALUE


def test_a_traceback_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    try:
        raise ValueError("first\n2030-01-01T00:00:00Z info forged\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("session failed")
    first, *below = capsys.readouterr().err.splitlines()
    assert first.endswith("error   session failed")
    assert below[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in below)
    assert any("forged" in line for line in below)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_password_is_written(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.configure("info", form)  # type: ignore[arg-type]
    structlog.get_logger().bind(secret="hush1").info(
        "logging in",
        user="alice",
        password="hush2",
        Passwd="hush3",
        options={"password": "hush4", "port": 5432},
        key=SecretStr("hush5"),
    )
    written = capsys.readouterr().err
    assert "alice" in written and "5432" in written
    assert "hush" not in written


def test_a_new_level_reaches_loggers_made_before(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    plain = structlog.get_logger()
    bound = plain.bind(user="alice")
    plain.debug("one")
    bound.debug("one")
    assert capsys.readouterr().err == ""
    logs.configure("debug", "json")
    plain.debug("two")
    bound.debug("two")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "two",
        "two",
    ]
    logs.configure("error", "text")
    bound.warning("three")
    bound.error("four")
    assert capsys.readouterr().err.endswith("four user=alice\n")


class Broken(Terminal):
    def write(self, text: str) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Broken(), None])
def test_a_log_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("info", "auto")
    structlog.get_logger().info("listening")

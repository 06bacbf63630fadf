"""From a file to ``Settings``, or to everything that is wrong with it at once."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from pooler.config.errors import ConfigError, Problem, dotted, printable
from pooler.config.findings import Findings
from pooler.config.places import KeyPath, key_lines
from pooler.config.settings import Document, Settings
from pooler.config.users import Secret, parse_users

# No configuration comes near; a device or a log given by mistake does.
LARGEST_FILE = 1 << 20  # bytes
LARGEST_USERS_FILE = 64 << 20  # bytes

_AT_LINE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_TWICE = re.compile(r"Cannot declare \((?P<keys>.*)\) twice")


def load(path: str | os.PathLike[str]) -> Settings:
    """Reads and checks a configuration file and the users file that it names.

    Raises ConfigError with every problem of both.
    """
    path = Path(path)
    text = _read(path, LARGEST_FILE)
    try:
        document = tomllib.loads(text)
        findings = Findings(path, key_lines(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(path, text, error)]) from None
    except ValueError:  # int() refuses thousands of digits
        raise ConfigError([Problem(path, None, "", "not TOML: a number is too long")]) from None
    except RecursionError:
        raise ConfigError([Problem(path, None, "", "is nested too deeply")]) from None
    good = _validate(document, findings)
    _check_together(good, findings)
    users, users_problems = _load_users(good, findings)
    problems = [*findings.in_order(), *users_problems]
    if problems:
        raise ConfigError(problems)
    return Settings(**dict(good), secrets=users, path=path)


def _validate(document: dict[str, object], findings: Findings) -> Document:
    """The document without the values that are wrong, which go to *findings*.

    Leaving them out lets the checks that look at several values find their own problems, too.
    """
    while True:
        try:
            return Document.model_validate(document)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                findings.add_error(detail)
                document = _without(document, detail["loc"])


def _without(tree: dict[str, object], path: KeyPath) -> dict[str, object]:
    """A copy of *tree* without what stands at *path*; without the whole list, if it is in one."""
    name = str(path[0])
    inner = tree.get(name)
    if len(path) > 1 and path[1] != "[key]" and isinstance(inner, dict):
        return {**tree, name: _without(inner, path[1:])}
    return {key: value for key, value in tree.items() if key != name}


def _check_together(good: Document, findings: Findings) -> None:
    """What no value says alone."""
    if not good.databases and not findings.spoil_below("databases"):
        findings.add(("databases",), "there must be a section [databases.NAME], at least one")
    _check_servers(("pooler",), good.pooler.min_servers, good.pooler.max_servers, findings)
    settings = Settings(**dict(good))
    for name in good.databases:
        _check_database(name, settings, findings)
    users_file: KeyPath = ("auth", "users_file")
    if good.auth.method == "trust" or good.auth.users_file is not None:
        return
    if not findings.spoil(users_file) and not findings.spoil(("auth", "method")):
        findings.add(users_file, f'is required for method = "{good.auth.method}"')


def _check_database(name: str, settings: Settings, findings: Findings) -> None:
    own = settings.databases[name]
    section = ("databases", name)
    merged = settings.database(name)
    if merged and (own.min_servers is not None or own.max_servers is not None):
        _check_servers(section, merged.min_servers, merged.max_servers, findings)
    if own.password is not None and own.user is None and not findings.spoil((*section, "user")):
        findings.add((*section, "password"), "is of no use without the user whose password it is")


def _check_servers(section: KeyPath, lowest: int, highest: int, findings: Findings) -> None:
    if lowest <= highest:
        return
    keys = ("min_servers", "max_servers")
    key = next((key for key in keys if findings.has((*section, key))), keys[0])
    findings.add((*section, key), f"min_servers ({lowest}) is more than max_servers ({highest})")


def _load_users(
    good: Document, findings: Findings
) -> tuple[Mapping[str, Secret | None], list[Problem]]:
    name = good.auth.users_file
    if name is None:
        return {}, []
    path = findings.path.parent / name
    try:
        return parse_users(_read(path, LARGEST_USERS_FILE), path)
    except ConfigError as error:
        [problem] = error.problems
        if problem.line is not None:
            return {}, [problem]
        findings.add(("auth", "users_file"), f"{printable(str(path))}: {problem.message}")
        return {}, []


def _read(path: Path, largest: int) -> str:
    """The text of a file. ConfigError: it cannot be read, is too large, or is not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ConfigError([Problem(path, None, "", f"cannot be read: {error.strerror}")]) from None
    except ValueError:  # a NUL character in the name
        raise ConfigError([Problem(path, None, "", "is not the name of a file")]) from None
    if len(data) > largest:
        raise ConfigError([Problem(path, None, "", f"is larger than {largest >> 20} MiB")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(path, line, "", "is not UTF-8 text")]) from None


def _syntax_problem(path: Path, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    message = str(error)
    place = _AT_LINE.search(message)
    line = text.count("\n") + 1
    if place:
        message = message[: place.start()]
        line = int(place["line"] or line)
    if message == "Invalid value":
        message += "; a text stands in quotes"
    twice = _TWICE.fullmatch(message)
    if twice:
        section = dotted(re.findall(r"'([^']*)'", twice["keys"]))
        message = f"section [{section}] stands there twice"
    return Problem(path, line, "", f"not TOML: {message[:1].lower()}{message[1:]}")

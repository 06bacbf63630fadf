"""Collects what is wrong with one file, and says it in the words of its author."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pooler.config.errors import Problem, dotted, shown
from pooler.config.places import KeyPath
from pooler.config.table import SECTIONS, Row, rows

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# What PgBouncer calls it, where the letters do not lead to our name.
PGBOUNCER_NAMES: Mapping[str, str] = {
    "auth_file": "auth.users_file",
    "auth_type": "auth.method",
    "default_pool_size": "pooler.max_servers",
    "listen_addr": "pooler.listen",
    "listen_port": "pooler.listen",
    "max_client_conn": "pooler.max_clients",
    "min_pool_size": "pooler.min_servers",
    "pool_mode": "pooler.mode",
    "pool_size": "pooler.max_servers",
    "unix_socket_dir": "pooler.listen",
}

# Sections that hold a section for each of something.
_NAMED: Mapping[str | int, str] = {"databases": "database", "users": "user"}


class Findings:
    """The problems of the file *path*; *lines* says where its keys stand."""

    def __init__(self, path: Path, lines: Mapping[KeyPath, int]) -> None:
        self.path = path
        self._lines = lines
        self._problems: list[Problem] = []
        self._paths: set[KeyPath] = set()

    def in_order(self) -> list[Problem]:
        """All problems as they stand in the file; first those that stand in no line."""
        return sorted(self._problems, key=lambda problem: problem.line or 0)

    def spoil(self, path: KeyPath) -> bool:
        """Whether something is wrong with *path*, or with a section that it lies in."""
        return any(path[:length] in self._paths for length in range(1, len(path) + 1))

    def spoil_below(self, section: str) -> bool:
        """Whether something is wrong anywhere in a section, or in one of nearly its name."""
        return any(difflib.get_close_matches(str(path[0]), [section]) for path in self._paths)

    def has(self, path: KeyPath) -> bool:
        """Whether the file sets *path*."""
        return path in self._lines

    def add(
        self,
        path: KeyPath,
        message: str,
        *,
        value: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        """Notes a problem, in the line of *path*, or else of the section that lacks it."""
        self._paths.add(path)
        prefixes = (path[:length] for length in range(len(path), 0, -1))
        line = next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), None)
        self._problems.append(Problem(self.path, line, dotted(path), message, value, suggestion))

    def add_error(self, error: "ErrorDetails") -> None:
        """Notes what pydantic has found."""
        path: KeyPath = error["loc"]
        if path[-1] == "[key]":  # pydantic's mark: it is about the key and not the value
            self.add(path[:-1], str(error["ctx"]["error"]))
        elif error["type"] == "extra_forbidden":
            self._add_unknown(path, error["input"])
        elif path[0] in _NAMED and len(path) <= 2:
            # The value is not shown: it may be a connection string.
            self.add(path, f"expected a section for each {_NAMED[path[0]]}, [{path[0]}.NAME]")
        elif len(path) == 1:
            self.add(path, f"expected a section, [{path[0]}]")
        else:
            self._add_value(path, error)

    def _add_unknown(self, path: KeyPath, value: object) -> None:
        # The value is not shown: the key may be a misspelt "password".
        key = str(path[-1])
        if len(path) > 1:
            self.add(path, "unknown setting", suggestion=_nearest_setting(str(path[0]), key))
        elif isinstance(value, dict):
            near = _nearest(key, [section.name for section in SECTIONS])
            self.add(path, "unknown section", suggestion=near and f"[{near}]")
        else:
            self.add(path, "stands in no section", suggestion=_nearest_setting("", key))

    def _add_value(self, path: KeyPath, error: "ErrorDetails") -> None:
        row = _row_of(path)
        value = error["input"]
        if error["type"] == "value_error":
            message = str(error["ctx"]["error"])
        else:
            message = f"expected {row.expected}"
        near = _nearest(value, row.choices) if isinstance(value, str) else None
        visible = not row.secret and _is_harmless(value)
        self.add(
            path,
            message,
            value=shown(value) if visible else None,
            suggestion=near and f'"{near}"',
        )


def _row_of(path: KeyPath) -> Row:
    """The setting that *path* leads to, or into."""
    section = str(path[0])
    return rows(section)[str(path[2 if section in _NAMED else 1])]


def _is_harmless(value: object) -> bool:
    """Whether a value may be repeated: it is no table, and no connection string with a password."""
    if isinstance(value, str):
        return not any(mark in value for mark in ("://", "@", "="))
    return not isinstance(value, dict | list)


def _nearest(word: str, words: list[str] | tuple[str, ...]) -> str | None:
    """The word that *word* was meant to be: much like it, or longer by an ending."""
    word = word.lower()
    longer = [each for each in words if len(word) > 2 and each.startswith(word)]
    return next(iter(difflib.get_close_matches(word, words, n=1) or longer), None)


def _nearest_setting(section: str, key: str) -> str | None:
    """The right name for *key*; with its section, where it is not *section*."""
    everywhere = {
        name: f"{each.title[1:-1]}.{name}"
        for each in reversed(SECTIONS)
        for name in rows(each.name)
    }
    here = list(rows(section)) if section else []
    found = everywhere.get(key) or PGBOUNCER_NAMES.get(key)
    if found is None and (near := _nearest(key, here)):
        return near
    if found is None and (near := _nearest(key, list(everywhere))):
        found = everywhere[near]
    return found.removeprefix(f"{section}.") if found else None

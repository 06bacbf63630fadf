"""In which line of a TOML text each key stands; tomllib does not say.

For texts that tomllib has read already: what is not valid TOML is not noticed here.
"""

import re
import tomllib
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]

_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(
    r"""[ \t]*(?:(?P<bare>[A-Za-z0-9_-]+)|(?P<quoted>"(?:[^"\\]|\\.)*"|'[^']*'))"""
)
_DOT = re.compile(r"[ \t]*\.")
_SCALAR = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""(?:"{0,2})'''
    r"""|'''.*?'''(?:'{0,2})"""
    r"""|"(?:[^"\\]|\\.)*"|'[^']*'|[^,\]}#\n]*""",
    re.DOTALL,
)
_AFTER_KEY = re.compile(r"[ \t]*=[ \t]*|[ \t]*\]+")


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line, counted from 1, of each key, each table's header and each element of a list."""
    scan = _Scan(text.replace("\r\n", "\n"))
    scan.document()
    return scan.lines


class _Scan:
    """One pass over the text; *pos* is the index of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted = 0
        self._line = 1

    def document(self) -> None:
        table: KeyPath = ()
        while self._next():
            if self._skip_one("["):
                self._skip_one("[")
                line, table = self._line_here(), self._key()
                self._note_tables(line, table)
                self.lines[table] = line
                self._match(_AFTER_KEY)
            else:
                self._pair(table)

    def _pair(self, table: KeyPath) -> None:
        line = self._line_here()
        path = table + self._key()
        self._note_tables(line, path)
        self.lines.setdefault(path, line)
        self._match(_AFTER_KEY)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._skip_one("["):
            index = 0
            while self._next() != "]":
                self.lines[(*path, index)] = self._line_here()
                self._value((*path, index))
                self._separator()
                index += 1
            self.pos += 1
        elif self._skip_one("{"):
            while self._next() != "}":
                self._pair(path)
                self._separator()
            self.pos += 1
        else:
            self._match(_SCALAR)

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            match = self._match(_KEY_PART)
            quoted = match["quoted"]
            parts.append(tomllib.loads(f"x={quoted}")["x"] if quoted else match["bare"])
            if _DOT.match(self.text, self.pos) is None:
                return tuple(parts)
            self._match(_DOT)

    def _note_tables(self, line: int, path: KeyPath) -> None:
        """A dotted key also mentions the tables around it, perhaps for the first time."""
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)

    def _next(self) -> str:
        """The next character that is neither blank nor in a comment; empty at the end."""
        self._match(_GAP)
        return self.text[self.pos : self.pos + 1]

    def _separator(self) -> None:
        self._next()
        self._skip_one(",")

    def _skip_one(self, character: str) -> bool:
        found = self.text.startswith(character, self.pos)
        self.pos += found
        return found

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.pos)
        if match is None:
            raise AssertionError(f"not TOML at character {self.pos}")
        self.pos = match.end()
        return match

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.pos)
        self._counted = self.pos
        return self._line

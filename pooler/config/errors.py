"""What is wrong with a configuration, where, and what would be right."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_VALUE = 60  # characters of a bad value that are worth showing


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. As text it is one line, without any password.

    *line* counts from 1; None: the problem is in no line (a missing file, a missing section).
    *key* is the dotted path of the setting, ``pooler.mode``; empty where there is none.
    *value* is the bad value as TOML would write it; None where there is none, or none to show.
    *message* says what is wrong or what was expected, *suggestion* is the nearest right name.
    """

    path: Path
    line: int | None
    key: str
    message: str
    value: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        place = printable(str(self.path))
        if self.line is not None:
            place += f":{self.line}"
        subject = self.key if self.value is None else f"{self.key} = {self.value}"
        parts = [part for part in (place, subject, self.message) if part]
        hint = f"; did you mean {self.suggestion}?" if self.suggestion else ""
        return ": ".join(parts) + hint


class ConfigError(Exception):
    """A configuration that cannot be used. Carries every problem, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def printable(text: str) -> str:
    """*text* with whatever could disturb a terminal, or begin a new line, written as ``\\u….``"""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """A value as TOML would write it, on one line and not too long."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "…"  # Python refuses to write a number of thousands of digits
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def dotted(path: Sequence[str | int]) -> str:
    """The path of a setting as TOML writes it: ``databases."*".port``, ``pooler.listen[1]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part.isascii() and part.replace("-", "a").replace("_", "a").isalnum()
        name = part if bare else shown(part)
        text += f".{name}" if text else name
    return text

"""The table of settings as rows: what checking, the reference and ``init`` are made from."""

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pooler.config.errors import shown
from pooler.config.settings import (
    About,
    AuthSettings,
    DatabaseSettings,
    PoolerSettings,
    UserSettings,
)

Kind = Literal["choice", "integer", "number", "boolean", "string", "list"]

_KINDS: Mapping[type, Kind] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    SecretStr: "string",
    tuple: "list",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. *default* is as TOML writes it, None for no value."""

    section: str
    key: str
    kind: Kind
    about: About
    default: str | None
    choices: tuple[str, ...]
    secret: bool
    lowest: float | None
    highest: float | None
    above: bool  # the value must be more than *lowest*

    @property
    def expected(self) -> str:
        """What a value must be, for an error message."""
        if self.about.expected:
            return self.about.expected
        if self.kind == "choice":
            *others, last = (f'"{choice}"' for choice in self.choices)
            return f"{', '.join(others)} or {last}"
        unit = f" of {self.about.unit}" if self.about.unit else ""
        return {
            "integer": f"a whole number{unit} {self.bounds}",
            "number": f"a number{unit} {self.bounds}",
            "boolean": "true or false",
            "string": "a text in quotes",
            "list": "a list",
        }[self.kind]

    @property
    def bounds(self) -> str:
        """``from 1 to 10000``; empty where there are none."""
        if self.lowest is None or self.highest is None:
            return ""
        if self.above:
            return f"above {self.lowest:.0f}, up to {self.highest:.0f}"
        return f"from {self.lowest:.0f} to {self.highest:.0f}"


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file. *name* is its key, *title* how its header is written."""

    name: str
    title: str
    meaning: str
    model: type[BaseModel]
    sample: str = ""  # what stands for NAME where the title is to be TOML


SECTIONS = (
    Section(
        "pooler", "[pooler]", "The process, and the defaults of every database.", PoolerSettings
    ),
    Section(
        "databases",
        "[databases.NAME]",
        "A section for each database; NAME is what clients ask for. The section "
        '[databases."*"] is for all others, each under the name that the client asks for.',
        DatabaseSettings,
        # The section of every database is the one that can be written without knowing any.
        '"*"',
    ),
    Section(
        "users",
        "[users.NAME]",
        "A section for each user who is to be treated otherwise; NAME is what clients say.",
        UserSettings,
        "alice",
    ),
    Section("auth", "[auth]", "How clients prove who they are.", AuthSettings),
)


@cache
def rows(section: str) -> Mapping[str, Row]:
    """The settings of a section by their keys, in the order of the table."""
    model = next(each.model for each in SECTIONS if each.name == section)
    return {key: _row(section, key, field) for key, field in model.model_fields.items()}


@dataclass(slots=True)
class _Facts:
    """What an annotation says, however deep it says it."""

    kind: type | None = None
    choices: tuple[str, ...] = ()
    metadata: list[object] = field(default_factory=list)


def _row(section: str, key: str, info: FieldInfo) -> Row:
    facts = _Facts(metadata=list(info.metadata))
    _look_into(info.annotation, facts)
    bounds = {type(item): item for item in _flat(facts.metadata)}
    ge, gt, le = (
        bounds.get(kind) for kind in (annotated_types.Ge, annotated_types.Gt, annotated_types.Le)
    )
    lowest: Any = getattr(ge, "ge", getattr(gt, "gt", None))
    about = bounds[About]
    assert isinstance(about, About)
    return Row(
        section=section,
        key=key,
        kind="choice" if facts.choices else _KINDS[facts.kind or str],
        about=about,
        default=_as_toml(info.default),
        choices=facts.choices,
        secret=facts.kind is SecretStr,
        lowest=lowest,
        highest=getattr(le, "le", None),
        above=gt is not None,
    )


def _look_into(annotation: Any, facts: _Facts) -> None:
    """Takes ``X | None``, ``Annotated`` and ``Literal`` apart."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        facts.metadata += arguments[1:]
        _look_into(arguments[0], facts)
    elif origin is Literal:
        facts.choices = arguments
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            if argument is not types.NoneType:
                _look_into(argument, facts)
    else:
        facts.kind = origin or annotation


def _flat(metadata: list[object]) -> Iterator[object]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item


def _as_toml(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        return shown([str(item) for item in value])
    return shown(value)

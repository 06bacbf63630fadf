"""The configuration that ``trio-pooler init`` prints: every setting, explained, at its default."""

import textwrap
from collections.abc import Iterator

from pooler.config.table import SECTIONS, Row, Section, rows

WIDTH = 88  # columns of the comments

_HEAD = (
    "The configuration of trio-pooler, in TOML (https://toml.io). Each setting stands here with "
    "its default, so any line may be left out; a line that is commented out shows an example.",
    "The last word above each setting says what it takes to change it: a reload of the file, or a "
    "restart of the pooler.",
    'Check a file with "trio-pooler check FILE", start the pooler with "trio-pooler run FILE".',
)


def configuration() -> str:
    """A whole file in TOML. Read again, it gives the defaults, and one database for every name."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield from "\n#\n".join("\n".join(_comment(paragraph)) for paragraph in _HEAD).splitlines()
    for section in SECTIONS:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield ""
    yield ""
    yield from _comment(section.meaning)
    yield section.title.replace("NAME", section.sample)
    for row in rows(section.name).values():
        yield ""
        yield from _comment(row.about.meaning)
        yield from _comment(f"{row.expected}; {row.about.change}")
        yield _assignment(row)
    if section is SECTIONS[-1]:
        yield ""


def _assignment(row: Row) -> str:
    if row.default is not None:
        return f"{row.key} = {row.default}"
    hidden = "" if row.about.essential else "# "
    return f"{hidden}{row.key} = {row.about.example}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )

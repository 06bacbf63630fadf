"""The reference of all settings, in Markdown: ``python -m pooler.config.reference``."""

import sys
from collections.abc import Iterator

from pooler.config.table import SECTIONS, Row, Section, rows

_HEAD = """\
<!-- Made by `make docs` from pooler/config/settings.py: change it there. -->

# Settings

The configuration is a [TOML](https://toml.io) file. `trio-pooler init` prints one with every
setting in it, explained; `trio-pooler check FILE` says all that is wrong with a file.

```toml
[pooler]
listen = ["127.0.0.1:6432"]

[databases.bench]
host = "127.0.0.1"

[auth]
method = "scram-sha-256"
users_file = "users.txt"
```

The column *change* says what it takes to put a new value into force: a `reload` of the file, or a
`restart` of the pooler. Times are in seconds and may have decimals.
"""

_TAIL = """
## The users file

The file that `auth.users_file` names has a line for each user, in PgBouncer's form:

```text
; a comment; so is a line that begins with #
"alice" "her password"
"bob"   "md5…"
"carol" "SCRAM-SHA-256$4096:…$…:…"
```

A quote inside the quotes is written twice. The secret is the password itself, or what PostgreSQL
keeps of it: `SELECT rolname, rolpassword FROM pg_authid`. A user with the secret `""` cannot log in
with a password.
"""


def reference() -> str:
    """All settings, a table for each section."""
    return "\n".join([_HEAD, *(line for each in SECTIONS for line in _section(each))]) + _TAIL


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    yield ""
    yield section.meaning
    yield ""
    yield "| Setting | Default | Value | Change | Meaning |"
    yield "|---|---|---|---|---|"
    for row in rows(section.name).values():
        yield _row(row)
    yield ""


def _row(row: Row) -> str:
    default = f"`{row.default}`" if row.default is not None else "none"
    cells = (f"`{row.key}`", default, _value(row), row.about.change, row.about.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(row: Row) -> str:
    if row.kind == "choice":
        return ", ".join(f"`{choice}`" for choice in row.choices)
    kind = "list of strings" if row.kind == "list" else row.kind
    words = (kind, row.bounds, row.about.unit)
    return " ".join(word for word in words if word)


if __name__ == "__main__":
    sys.stdout.write(reference())

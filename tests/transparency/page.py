"""docs/transparency.md, from the table and what was measured. Run as a program, it measures."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from tests.support.pooler import poolers
from tests.support.postgres import EmbeddedPostgres, installations
from tests.transparency.matrix import Matrix
from tests.transparency.rows import ROWS
from tests.transparency.table import DIFFERS, MODES, PINS, Mode, Row

Verdict = Callable[[Row, Mode], str]

_HEAD = """\
<!-- Made by `make docs` from tests/transparency: change it there. -->

# What is the same through the pooler, and what is not

Each row below is a small program that is run twice: on a direct connection, and through the pooler.
Whatever its clients hear is compared, message by message: rows, tags, errors with all their fields,
notices, ParameterStatus, notifications, the transaction's status.

In transaction and statement mode there are three servers, and three other clients with settings and
prepared statements of their own, who use every server between any two steps of a row; the next step
is on another server than the last, wherever that can be. The other clients must notice nothing,
either.
In session and passthrough mode the servers have been used by clients who left settings, temporary
tables and a LISTEN behind.

- **same**: no difference.
- **pinned**: no difference, either; the client keeps its server for as long as the reason lasts.
- **refused**: statement mode allows no transaction of several statements.
- **differs**: see [What differs](#what-differs-and-what-to-do).

Not compared is what is inherently another's: process IDs, cancel keys, OIDs of tables. An error at
log-in may come without the fields that say where in PostgreSQL's source it was made.
"""

_PINS_HEAD = """\
## What pins a client

Some things exist only on one server. A client that has one of them keeps its server between
transactions, which then serves nobody else; the pooler logs `client pinned` with the reason, once.
When the last reason is gone, at the end of that transaction, so is the pin. `pins = "refuse"` ends
such a client with an error instead.

| Reason | What makes it so | What ends it |
|---|---|---|
"""

_DIFFERENT_HEAD = """\
## What differs, and what to do

"""


def page(verdict: Verdict) -> str:
    """The page, in Markdown."""
    parts = [_HEAD, _summary(verdict)]
    for group in dict.fromkeys(row.group for row in ROWS):
        parts.append(_table(group, verdict))
    parts.append(_PINS_HEAD + "".join(_pins()))
    parts.append(_DIFFERENT_HEAD + "\n".join(_different(verdict)) + "\n")
    return "\n".join(parts)


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


def _summary(verdict: Verdict) -> str:
    counts = {mode: Counter(verdict(row, mode).split(":")[0] for row in ROWS) for mode in MODES}
    kinds = [kind for kind in ("same", "pinned", "refused", "differs") if _any(counts, kind)]
    lines = [_line(f"{len(ROWS)} rows", *kinds), "|---" * (len(kinds) + 1) + "|\n"]
    lines += [_line(mode.name, *(counts[mode][kind] for kind in kinds)) for mode in MODES]
    return "".join(lines)


def _any(counts: dict[Mode, Counter[str]], kind: str) -> bool:
    return any(counter[kind] for counter in counts.values())


def _table(group: str, verdict: Verdict) -> str:
    lines = [f"## {group}\n\n", _line("", *(mode.name for mode in MODES))]
    lines.append("|---" * (len(MODES) + 1) + "|\n")
    for row in ROWS:
        if row.group == group:
            lines.append(_line(row.title, *(_cell(verdict(row, mode)) for mode in MODES)))
    return "".join(lines)


def _cell(verdict: str) -> str:
    return "**differs**" if verdict == DIFFERS else verdict


def _pins() -> Iterator[str]:
    for reason, (what, end) in PINS.items():
        yield _line(reason, what, end)


def _different(verdict: Verdict) -> Iterator[str]:
    for row in ROWS:
        modes = [mode.name for mode in MODES if verdict(row, mode) == DIFFERS]
        if modes:
            yield f"- **{row.title}** ({', '.join(modes)} mode). {row.why}"


def faults(verdict: Verdict) -> list[str]:
    """Where a verdict is not what the table expects."""
    return [
        f"{row.name}, {mode.name}: {verdict(row, mode)}, expected {row.verdict(mode)}"
        for row in ROWS
        for mode in MODES
        if verdict(row, mode) != row.verdict(mode)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures, and prints docs/transparency.md.")
    parser.add_argument("--backend", default="auto")
    backend = parser.parse_args().backend
    binaries = next(iter(installations().values()), None)
    with EmbeddedPostgres(bin_dir=binaries, settings={"max_connections": 200}) as pg:
        for running in poolers():
            matrix = Matrix(pg, running)
            measured = {
                (row.name, mode.name): matrix.measure(row, mode, backend).verdict
                for row in ROWS
                for mode in MODES
            }
            matrix.close()

    def verdict(row: Row, mode: Mode) -> str:
        return measured[row.name, mode.name]

    for fault in faults(verdict):
        print(fault, file=sys.stderr)
    print(page(verdict), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

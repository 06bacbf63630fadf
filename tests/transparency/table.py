"""The table of behaviours: what a client does, and how that is to be through the pooler.

A row is a function that plays with clients on a stage; its docstring is its title in the page. It
is run on a direct connection and through the pooler in each of MODES, and what the clients heard is
compared. The verdict is one of

- ``same``
- ``pinned: REASON`` - the same, and the pooler has pinned the client to its server
- ``refused`` - by statement mode, because the row has a transaction block
- ``differs``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.transparency.stage import Stage

SAME = "same"
PINNED = "pinned: "
REFUSED = "refused"
DIFFERS = "differs"

# Groups, in the order of the page.
PREPARED = "Prepared statements"
SETTINGS = "Settings"
STARTUP = "Start-up parameters"
TRANSACTIONS = "Transactions"
CURSORS = "Cursors and portals"
COPY = "COPY"
NOTIFICATIONS = "Notifications"
LOCKS = "Locks"
TEMPORARY = "Temporary objects"
OTHER = "Other state of a session"
ERRORS = "Errors and notices"
PROTOCOL = "Protocol"
CANCEL = "Cancelling"

NAMED = "leaves_something_behind"  # the one word in the poolers' setting pin_on

UNSEEN = "It is not seen, and stays on the server, where other clients may find it."
NAME_IT = "Name the function in `pin_on`, or say `SET trio_pooler.pin = on` before."

Play = Callable[["Stage"], None]


@dataclass(frozen=True, slots=True)
class Mode:
    """A column. ``shuffled``: clients part from their servers, so neighbours can be made to use
    them in between."""

    name: str
    shuffled: bool


# A mode that is added here is measured, and has a column in the page.
MODES = (
    Mode("session", shuffled=False),
    Mode("transaction", shuffled=True),
    Mode("statement", shuffled=True),
    Mode("passthrough", shuffled=False),
)

# Why clients are pinned, as the pooler names it: what makes it so, and what ends it. In Markdown.
PINS = {
    "LISTEN": ("`LISTEN`", "`UNLISTEN *`, or `UNLISTEN` of the last channel"),
    "advisory lock": (
        "`pg_advisory_lock` and its like, of session level",
        "`pg_advisory_unlock` of the last one, `pg_advisory_unlock_all`",
    ),
    "temporary object": (
        "a temporary table, view or sequence, anything in `pg_temp`",
        "`DROP` of the last one, `DISCARD TEMP`",
    ),
    "cursor WITH HOLD": (
        "`DECLARE … WITH HOLD`, when its transaction is over",
        "`CLOSE` of the last one, `CLOSE ALL`",
    ),
    "PREPARE": (
        "`PREPARE` in SQL; statements that drivers prepare by the protocol pin nobody",
        "`DEALLOCATE` of the last one, `DEALLOCATE ALL`",
    ),
    "LOAD": ("`LOAD`", "the end of the client: PostgreSQL cannot unload"),
    "setseed": ("`setseed()`, `SET seed`", "the end of the client"),
    "pin_on": ("a statement with a word that the setting `pin_on` names", "`DISCARD ALL`"),
    "asked for": (
        "`SET trio_pooler.pin = on`",
        "`SET trio_pooler.pin = off`, `RESET`",
    ),
    "settings that cannot be carried over": (
        "values of settings that are no text in the client's encoding, or too large",
        "the end of the client",
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A behaviour.

    ``expected``: the verdict by mode, where it is not SAME. ``blocks``: whether it has transaction
    blocks. ``why``: of a row that differs, the reason and what to do, for the page.
    """

    group: str
    play: Play
    expected: dict[str, str] = field(default_factory=dict)
    blocks: bool = False
    why: str = ""

    @property
    def name(self) -> str:
        return self.play.__name__

    @property
    def title(self) -> str:
        return " ".join((self.play.__doc__ or "").split())

    def verdict(self, mode: Mode) -> str:
        """What is expected. Two modes are as others, if nothing else is said."""
        if mode.name == "statement" and self.blocks:
            return REFUSED
        like = {"statement": "transaction", "passthrough": "session"}.get(mode.name, mode.name)
        return self.expected.get(mode.name, self.expected.get(like, SAME))


ROWS: list[Row] = []


def row(
    group: str,
    *,
    pins: str = "",
    differs: str = "",
    why: str = "",
    blocks: bool = False,
    **others: str,
) -> Callable[[Play], Play]:
    """Puts a function into the table.

    *pins*: the reason for which transaction mode pins the client. *differs*: it is another in
    transaction mode; why, and what to do. *blocks*: it has transaction blocks, which statement mode
    refuses. *others*: the verdicts of other modes, and *why* they differ if transaction mode does
    not.
    """
    expected = dict(others)
    if pins:
        expected["transaction"] = PINNED + pins
    if differs:
        expected.setdefault("transaction", DIFFERS)

    def enter(play: Play) -> Play:
        ROWS.append(Row(group, play, expected, blocks, differs or why))
        return play

    return enter

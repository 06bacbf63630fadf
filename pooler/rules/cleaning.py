"""What is to be done with a server whose client has gone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ROLLBACK = "ROLLBACK"
DISCARD_ALL = "DISCARD ALL"


class Left(Enum):
    """How a departed client and its server stood to each other."""

    NOTHING = "nothing owed, nothing open"
    TRANSACTION = "an open transaction"
    REQUEST = "a request under way"
    SESSION = "something in its session, perhaps"


class Ending(Enum):
    """How a server ends that cannot be cleaned."""

    FINISH = "let it finish what it was asked, then close"
    CANCEL = "cancel what it does, then close"


@dataclass(frozen=True, slots=True)
class Clean:
    """Run these statements, one by one; then the server is as new. None: it is already.

    ``session``: then undo what is left in the session, whatever that is.
    """

    statements: tuple[str, ...]
    session: bool = False


def after_client(left: Left, *, goodbye: bool, keeps_session: bool) -> Clean | Ending:
    """What to do with a server.

    Args:
        left: what the client left behind.
        goodbye: it said Terminate; PostgreSQL does all that was asked for before a Terminate, so a
            client may send its last statement, say goodbye and not wait for the answer.
        keeps_session: the client had the server to itself (session mode), and may have left
            settings, prepared statements, temporary tables and more.
    """
    if left is Left.REQUEST:
        return Ending.FINISH if goodbye else Ending.CANCEL
    rollback = (ROLLBACK,) if left is Left.TRANSACTION else ()
    # DISCARD ALL cannot run inside a transaction block: it has to be a statement of its own.
    if keeps_session:
        return Clean((*rollback, DISCARD_ALL))
    return Clean(rollback, session=left is not Left.NOTHING)

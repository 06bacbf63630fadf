"""Whether a start-up packet asks for a replication connection."""

from __future__ import annotations

from pooler.wire.errors import PostgresError

INVALID_PARAMETER_VALUE = "22023"
# PostgreSQL takes abbreviations of these words, of at least so many letters.
_YES = {"true": 1, "yes": 1, "on": 2, "1": 1}
_NO = {"false": 1, "no": 1, "off": 2, "0": 1}


def _abbreviates(text: str, words: dict[str, int]) -> bool:
    return any(len(text) >= least and word.startswith(text) for word, least in words.items())


def wants_replication(value: str | None) -> bool:
    """What the parameter ``replication`` of a client says; None: it gave none.

    Raises:
        PostgresError: as PostgreSQL does, for what is neither a truth value nor "database".
    """
    if value is None:
        return False
    word = value.lower()
    if value == "database" or _abbreviates(word, _YES):
        return True
    if _abbreviates(word, _NO):
        return False
    raise PostgresError(
        "FATAL",
        INVALID_PARAMETER_VALUE,
        f'invalid value for parameter "replication": "{value}"',
        None,
        'Valid values are: "false", 0, "true", 1, "database".',
    )

"""What a session has beside prepared statements, as the framing and PostgreSQL are told of it.

The framing (session.c) takes literals of SQL, and puts them into the query that makes a server's
settings those of its client. They are ASCII whatever the client's encoding is, and mean the same
whatever ``standard_conforming_strings`` says ("String Constants with C-Style Escapes").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Setting = tuple[str, str]

TRACKS = 1 << 32
"""In the option of a multiplexer: the framing watches for what changes a session."""
SETS = 1 << 33
"""The same: it only makes the settings so that a client comes with."""

_DELICATE = 1
_KEPT = 2


def literal(text: str) -> str:
    """A string constant, ASCII. ValueError: it holds a NUL, or bytes that are no text."""
    if "\0" in text or any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("not a text for PostgreSQL")
    plain = text.isascii() and "\\" not in text
    quoted = text.replace("'", "''")
    if plain:
        return f"'{quoted}'"
    return "E'" + "".join(map(_escaped, quoted)) + "'"


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isascii():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def told_settings(
    settings: Iterable[Setting], *, delicate: bool = False, kept: bool = False
) -> bytes:
    """For ``Multiplexer.serve``, ``settle`` and ``tell_server``.

    Args:
        settings: names and values, in the order in which they are to be set.
        delicate: a request must not run before they are known to be in force.
        kept: the client has something that only its server has.
    """
    flags = _DELICATE * delicate | _KEPT * kept
    pairs = "".join(f"{literal(name)}\0{literal(value)}\0" for name, value in settings)
    return bytes([flags]) + pairs.encode("ascii")


def told_words(words: Iterable[str]) -> bytes:
    """For ``Multiplexer.tell``: words that mark whoever uses them, in whatever case."""
    return b"".join(word.lower().encode() + b"\0" for word in words)


NO_STATEMENT_TIMEOUT = "SET statement_timeout = 0"


def set_statement_timeout(value: str) -> str:
    """A query that sets it to what ``current_setting`` has said."""
    return f"SET statement_timeout = {literal(value)}"


def read_noted(noted: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """What the framing has noted: names that may be settings, and its own remarks (without "!")."""
    words = [word.decode("utf-8", "replace") for word in noted.split(b"\0") if word]
    remarks = frozenset(word[1:] for word in words if word.startswith("!"))
    return frozenset(word for word in words if not word.startswith("!")), remarks


def parse_data_row(body: bytes) -> list[bytes | None]:
    """The columns of a DataRow. ValueError: it is none."""
    columns: list[bytes | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        length = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        if length < 0:
            columns.append(None)
            continue
        if at + length > len(body):
            raise ValueError("a DataRow that is too short")
        columns.append(body[at : at + length])
        at += length
    if at != len(body):
        raise ValueError("a DataRow of another length")
    return columns


def split_options(options: str) -> dict[str, str] | None:
    """The settings in the start-up parameter ``options``; None: there are other switches in it.

    As PostgreSQL's pg_split_opts() and ParseLongOption(): words separated by white space, which a
    backslash protects; ``-c name=value`` or ``--name=value``.
    """
    words = _split_words(options)
    found: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            assignment = words.pop(0)
        elif word.startswith(("-c", "--")) and len(word) > 2:
            assignment = word[2:]
        else:
            return None
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            return None
        found[name.replace("-", "_")] = value
    return found


def _split_words(text: str) -> list[str]:
    words: list[str] = []
    word: str | None = None
    characters = iter(text)
    for character in characters:
        if character in " \t\n\r\f\v":
            if word is not None:
                words.append(word)
            word = None
            continue
        if character == "\\":
            character = next(characters, "")
        word = (word or "") + character
    return words if word is None else [*words, word]


ENCODINGS: Mapping[str, str] = {
    "UTF8": "utf-8",
    "SQL_ASCII": "ascii",
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN9": "iso8859-15",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
    "SJIS": "shift_jis",
    "BIG5": "big5",
    "GBK": "gbk",
    "GB18030": "gb18030",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    **{f"WIN{number}": f"cp{number}" for number in range(1250, 1259)},
}
"""Python's names for encodings of clients ("Character Set Support")."""

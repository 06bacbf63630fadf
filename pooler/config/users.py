"""The file of users and their secrets, in PgBouncer's form: ``"name" "secret"`` on a line.

A quote inside the quotes is written twice. A comment begins with ``;`` or ``#``. Further quoted
fields on the line are ignored, as PgBouncer does. What a secret is follows PostgreSQL's rules for
``pg_authid.rolpassword``, from which it can be copied: ``md5`` and 32 hexadecimal digits,
``SCRAM-SHA-256$iterations:salt$stored key:server key`` (both keys as in RFC 5802), or else the
password itself. An empty secret is a user who cannot log in with a password.
"""

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from pooler.config.errors import Problem, printable

KEY_LENGTH = 32  # bytes of SHA-256

_LINE = re.compile(
    r"""\s* (?: "(?P<name>(?:[^"]|"")*)" \s+ "(?P<secret>(?:[^"]|"")*)"
                (?: \s+ "(?:[^"]|"")*" )* )?
        \s* (?: [;\#].* )?""",
    re.VERBOSE | re.DOTALL,
)
# src/common: get_password_type() takes lower-case digits only.
_MD5 = re.compile(r"md5([0-9a-f]{32})")
_SCRAM = re.compile(r"SCRAM-SHA-256\$([0-9]{1,10}):([^$:]+)\$([^$:]+):([^$:]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class PlainSecret:
    """The password itself."""

    password: SecretStr


@dataclass(frozen=True, slots=True)
class Md5Secret:
    """*digest*: md5(password + user name) as 32 lower-case hexadecimal digits."""

    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What a server keeps for SCRAM-SHA-256 (RFC 5802, section 3), decoded."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


Secret = PlainSecret | Md5Secret | ScramSecret


def parse_secret(text: str) -> Secret | None:
    """What secret *text* is; None for an empty one. ValueError says why, without repeating it."""
    if not text:
        return None
    if "\0" in text:
        raise ValueError("a secret has no NUL character")
    md5 = _MD5.fullmatch(text)
    if md5:
        return Md5Secret(md5[1])
    if text.startswith("SCRAM-SHA-256$"):
        return _parse_scram(text)
    return PlainSecret(SecretStr(text))


def parse_users(text: str, path: Path) -> tuple[dict[str, Secret | None], list[Problem]]:
    """The users of a whole file and what is wrong with it; a bad line spoils no other."""
    users: dict[str, Secret | None] = {}
    first_lines: dict[str, int] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            user = _parse_line(line)
            if user is None:
                continue
            if user[0] in users:
                raise ValueError(
                    f'user "{printable(user[0])}" is there already, in line {first_lines[user[0]]}'
                )
        except ValueError as error:
            problems.append(Problem(path, number, "", str(error)))
        else:
            first_lines[user[0]] = number
            users[user[0]] = user[1]
    return users, problems


def _parse_line(line: str) -> tuple[str, Secret | None] | None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError('expected "name" "secret", each in quotes, a quote inside written as ""')
    if match["name"] is None:
        return None
    name = match["name"].replace('""', '"')
    if not name or "\0" in name:
        raise ValueError("a user's name is not empty and has no NUL character")
    try:
        return name, parse_secret(match["secret"].replace('""', '"'))
    except ValueError as error:
        raise ValueError(f'user "{printable(name)}": {error}') from None


def _parse_scram(text: str) -> ScramSecret:
    match = _SCRAM.fullmatch(text)
    if match is None:
        raise ValueError(
            "expected SCRAM-SHA-256$iterations:salt$stored-key:server-key, as in pg_authid"
        )
    iterations = int(match[1])
    if not 1 <= iterations < 2**31:
        raise ValueError("the iteration count of a SCRAM secret is from 1 to 2147483647")
    try:
        salt, stored_key, server_key = (b64decode(match[i], validate=True) for i in (2, 3, 4))
    except binascii.Error:
        raise ValueError("the salt and the keys of a SCRAM secret are base64") from None
    if len(stored_key) != KEY_LENGTH or len(server_key) != KEY_LENGTH:
        raise ValueError(f"the keys of a SCRAM secret have {KEY_LENGTH} bytes each")
    return ScramSecret(iterations, salt, stored_key, server_key)

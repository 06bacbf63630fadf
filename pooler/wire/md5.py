"""MD5 authentication: AuthenticationMD5Password in "Message Formats". PostgreSQL is retiring it."""

from __future__ import annotations

import hashlib
import re
from hmac import compare_digest

_SECRET = re.compile(r"md5[0-9a-f]{32}")


def is_md5_secret(secret: str) -> bool:
    """Is this what PostgreSQL stores (md5 and 32 hexadecimal digits), not a plain password?"""
    return _SECRET.fullmatch(secret) is not None


def md5_secret(user: str, password: str) -> str:
    """What PostgreSQL stores: md5 of the password salted with the user's name."""
    return "md5" + _md5(_encode(password + user))


def md5_response(user: str, secret: str, salt: bytes) -> str:
    """The content of PasswordMessage; ``secret`` is the plain password or what is stored."""
    stored = secret if is_md5_secret(secret) else md5_secret(user, secret)
    return "md5" + _md5(stored[3:].encode("ascii") + salt)


def md5_matches(user: str, secret: str, salt: bytes, response: str) -> bool:
    """Does a client's response show that it knows the secret? Takes as long for yes as for no."""
    return compare_digest(_encode(md5_response(user, secret, salt)), _encode(response))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

"""Who may come in: which proof a client is asked for, and what it is held against."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass

from pooler.config.choices import AuthMethod
from pooler.config.users import Md5Secret, PlainSecret, ScramSecret, Secret
from pooler.wire import scram
from pooler.wire.md5 import md5_secret

# What an unknown user's answer is held against: no password has this digest but by chance.
_NOBODY = os.urandom(32)


@dataclass(frozen=True, slots=True)
class Trust:
    """No proof."""


@dataclass(frozen=True, slots=True)
class Cleartext:
    """The password itself. ``secret``: a password, "md5…", a verifier; None: nobody gets in."""

    secret: str | scram.Verifier | None


@dataclass(frozen=True, slots=True)
class Md5:
    """``secret``: the password or "md5…"; ``exists`` is False where any answer is wrong."""

    secret: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Scram:
    """``verifier``, or where it has to be derived first (slow) the function that does that."""

    verifier: scram.Verifier | None
    derive: Callable[[], scram.Verifier]
    exists: bool


Check = Trust | Cleartext | Md5 | Scram


class Gatekeeper:
    """Turns the method and the users' secrets into what a client is to prove.

    An unknown user, and one whose secret does not fit the method, is asked the same questions and
    refused in the same words at the end.
    """

    def __init__(self, method: AuthMethod) -> None:
        self._method = method
        # Verifiers derived from plain passwords: once per password, not per log-in.
        self._derived: dict[tuple[str, str], scram.Verifier] = {}

    def check(self, user: str, secret: Secret | None) -> Check:
        if self._method == "trust":
            return Trust()
        if self._method == "password":
            return Cleartext(_stored(user, secret))
        # A client that knows its SCRAM secret only cannot do MD5, so SCRAM it is, as PostgreSQL
        # does.
        if self._method == "md5" and not isinstance(secret, ScramSecret):
            stored = _stored(user, secret)
            if isinstance(stored, str):
                return Md5(stored, exists=True)
            return Md5(_NOBODY.hex(), exists=False)
        return self._scram(user, secret)

    def _scram(self, user: str, secret: Secret | None) -> Scram:
        if isinstance(secret, ScramSecret):
            verifier = _verifier(secret)
            return Scram(verifier, lambda: verifier, exists=True)
        if isinstance(secret, PlainSecret):
            password = secret.password.get_secret_value()
            key = (user, password)

            def derive() -> scram.Verifier:
                self._derived[key] = scram.derive_verifier(password)
                return self._derived[key]

            return Scram(self._derived.get(key), derive, exists=True)
        mock = scram.mock_verifier(user, _NOBODY)
        return Scram(mock, lambda: mock, exists=False)


def _verifier(secret: ScramSecret) -> scram.Verifier:
    return scram.Verifier(secret.iterations, secret.salt, secret.stored_key, secret.server_key)


def _stored(user: str, secret: Secret | None) -> str | scram.Verifier | None:
    if isinstance(secret, PlainSecret):
        return secret.password.get_secret_value()
    if isinstance(secret, Md5Secret):
        return "md5" + secret.digest
    return None if secret is None else _verifier(secret)


def plain_matches(secret: str | scram.Verifier | None, user: str, password: str) -> bool:
    """Does a password that came in the clear fit what is stored? Constant time; slow for
    verifiers.
    """
    if isinstance(secret, scram.Verifier):
        derived = scram.derive_verifier(password, secret.salt, secret.iterations)
        return hmac.compare_digest(derived.stored_key, secret.stored_key)
    known = _NOBODY.hex() if secret is None else secret
    # Both as MD5, whose length is the same: a comparison of passwords would tell their length.
    if not known.startswith("md5") or len(known) != 35:
        known = md5_secret(user, known)
    same = hmac.compare_digest(known, md5_secret(user, password))
    return same and secret is not None and bool(password)

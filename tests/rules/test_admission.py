"""What a client is asked for, and what it is held against."""

import pytest
from pydantic import SecretStr

from pooler.config.choices import AuthMethod
from pooler.config.users import Md5Secret, PlainSecret, ScramSecret, Secret
from pooler.rules.admission import Cleartext, Gatekeeper, Md5, Scram, Trust, plain_matches
from pooler.wire.md5 import md5_secret
from pooler.wire.scram import derive_verifier

VERIFIER = derive_verifier("pencil", salt=b"0123456789abcdef")
PLAIN = PlainSecret(SecretStr("pencil"))
MD5 = Md5Secret(md5_secret("user", "pencil")[3:])
SCRAM = ScramSecret(VERIFIER.iterations, VERIFIER.salt, VERIFIER.stored_key, VERIFIER.server_key)


def test_trust_asks_nobody_for_anything() -> None:
    for secret in (PLAIN, MD5, SCRAM, None):
        assert Gatekeeper("trust").check("user", secret) == Trust()


@pytest.mark.parametrize("secret", [PLAIN, MD5, SCRAM])
def test_a_password_in_the_clear_fits_every_kind_of_secret(secret: Secret) -> None:
    check = Gatekeeper("password").check("user", secret)
    assert isinstance(check, Cleartext)
    assert plain_matches(check.secret, "user", "pencil")
    for wrong in ("", "Pencil", "pencil ", "md5" + MD5.digest):
        assert not plain_matches(check.secret, "user", wrong)


def test_nothing_fits_an_unknown_user() -> None:
    check = Gatekeeper("password").check("nobody", None)
    assert isinstance(check, Cleartext)
    for wrong in ("", "pencil", "None"):
        assert not plain_matches(check.secret, "nobody", wrong)


@pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
def test_an_unknown_user_is_asked_the_same(method: AuthMethod) -> None:
    gatekeeper = Gatekeeper(method)
    known, unknown = gatekeeper.check("user", PLAIN), gatekeeper.check("nobody", None)
    assert type(known) is type(unknown)
    assert isinstance(known, Md5 | Scram) and known.exists
    assert isinstance(unknown, Md5 | Scram) and not unknown.exists


def test_an_unknown_users_salt_stays_the_same() -> None:
    gatekeeper = Gatekeeper("scram-sha-256")
    first, second = gatekeeper.check("nobody", None), gatekeeper.check("nobody", None)
    assert isinstance(first, Scram) and isinstance(second, Scram)
    assert first.verifier is not None and second.verifier is not None
    assert first.verifier.salt == second.verifier.salt


def test_an_md5_secret_cannot_do_scram() -> None:
    check = Gatekeeper("scram-sha-256").check("user", MD5)
    assert isinstance(check, Scram) and not check.exists


def test_a_scram_secret_makes_md5_scram() -> None:
    check = Gatekeeper("md5").check("user", SCRAM)
    assert check == Scram(VERIFIER, check.derive, exists=True)  # type: ignore[union-attr]


def test_a_verifier_is_derived_once() -> None:
    gatekeeper = Gatekeeper("scram-sha-256")
    check = gatekeeper.check("user", PLAIN)
    assert isinstance(check, Scram) and check.verifier is None
    derived = check.derive()
    again = gatekeeper.check("user", PLAIN)
    assert isinstance(again, Scram) and again.verifier is derived

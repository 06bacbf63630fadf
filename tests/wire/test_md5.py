"""MD5 passwords."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pooler.wire.md5 import is_md5_secret, md5_matches, md5_response, md5_secret


def test_what_postgresql_stores() -> None:
    assert md5_secret("ann", "secret") == "md59d792a3a8853c2411afb9163d088c036"


@given(st.text(), st.text(), st.binary(min_size=4, max_size=4))
def test_plain_and_stored_secret_answer_the_same(user: str, password: str, salt: bytes) -> None:
    if is_md5_secret(password):
        return
    stored = md5_secret(user, password)
    assert is_md5_secret(stored)
    response = md5_response(user, password, salt)
    assert response == md5_response(user, stored, salt)
    assert md5_matches(user, stored, salt, response)
    assert not md5_matches(user, stored, bytes(4) if salt != bytes(4) else b"salt", response)
    assert not md5_matches(user, stored, salt, response[:-1] + "x")


def test_what_is_no_stored_secret() -> None:
    for secret in ("", "md5", "md5" + "0" * 31, "md5" + "0" * 33, "md5" + "G" * 32, "x" * 35):
        assert not is_md5_secret(secret)

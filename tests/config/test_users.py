from pathlib import Path

import pytest
from pydantic import SecretStr

from pooler.config.users import Md5Secret, PlainSecret, ScramSecret, parse_users

USERS = Path("users.txt")
MD5 = "md5" + "0123456789abcdef" * 2
SCRAM = (
    "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$"
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
)


def test_every_kind_of_secret() -> None:
    text = f'"plain" "hush"\n"hashed" "{MD5}"\n"scram" "{SCRAM}"\n"none" ""\n'
    users, problems = parse_users(text, USERS)
    assert problems == []
    assert users == {
        "plain": PlainSecret(SecretStr("hush")),
        "hashed": Md5Secret("0123456789abcdef" * 2),
        "scram": ScramSecret(4096, b"saltsalt", bytes(range(32)), bytes(range(32, 64))),
        "none": None,
    }


@pytest.mark.parametrize(
    ("line", "name", "password"),
    [
        ('"a" "b"', "a", "b"),
        ('  "a"\t"b"  ', "a", "b"),
        ('"a" "b"\r', "a", "b"),
        ('"say ""hi""" "q""p"', 'say "hi"', 'q"p'),
        ('"a" "b" ; comment', "a", "b"),
        ('"a" "b" # "comment', "a", "b"),
        ('"a;b" "c#d"', "a;b", "c#d"),
        ('"a" "b" "ignored" ""', "a", "b"),
        ('"ä" "→"', "ä", "→"),
        # Like a digest, but not one to PostgreSQL either.
        (f'"a" "{MD5.upper()}"', "a", MD5.upper()),
        (f'"a" "{MD5}0"', "a", MD5 + "0"),
    ],
)
def test_how_a_line_may_be_written(line: str, name: str, password: str) -> None:
    users, problems = parse_users(line, USERS)
    assert problems == []
    assert users == {name: PlainSecret(SecretStr(password))}


@pytest.mark.parametrize("line", ["", "   ", "; comment", "# comment", '  ;"a" "b"', "\r"])
def test_lines_that_name_nobody(line: str) -> None:
    assert parse_users(line, USERS) == ({}, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a hush", "expected"),
        ('"a" hush', "expected"),
        ('"a" "hush', "expected"),
        ('"a""hush"', "expected"),
        ('"a" "hu"sh"', "expected"),
        ('"a" "hush" more', "expected"),
        ('"" "hush"', "not empty"),
        ('"a\0" "hush"', "no NUL"),
        ('"a" "hush\0"', "no NUL"),
        ('"a" "SCRAM-SHA-256$hush"', 'user "a": expected SCRAM-SHA-256$iterations'),
        (f'"a" "{SCRAM.replace("4096", "0")}"', "iteration count"),
        (f'"a" "{SCRAM.replace("4096", "9999999999")}"', "iteration count"),
        (f'"a" "{SCRAM.replace("c2Fs", "c2F!")}"', "base64"),
        (f'"a" "{SCRAM.replace("AAEC", "")}"', "32 bytes"),
    ],
)
def test_a_bad_line_is_named_and_not_repeated(line: str, message: str) -> None:
    users, problems = parse_users(f'"first" "x"\n{line}\n"last" "y"', USERS)
    assert list(users) == ["first", "last"]
    [problem] = problems
    assert (problem.path, problem.line) == (USERS, 2)
    assert message in problem.message
    assert "hush" not in str(problem)
    assert "AwQF" not in str(problem)


def test_a_user_stands_there_once() -> None:
    users, [problem] = parse_users('"a" "1"\n\n"a" "2"', USERS)
    assert users == {"a": PlainSecret(SecretStr("1"))}
    assert str(problem) == 'users.txt:3: user "a" is there already, in line 1'


def test_a_name_cannot_forge_a_line() -> None:
    _, [problem] = parse_users('"a\x1b[2J\u2028b" "1"\n' * 2, USERS)
    assert str(problem).isprintable()


def test_no_secret_shows_itself() -> None:
    users, _ = parse_users(f'"a" "hush"\n"b" "{MD5}"\n"c" "{SCRAM}"', USERS)
    shown = repr(users)
    assert "hush" not in shown
    assert "0123456789abcdef" not in shown
    assert "saltsalt" not in shown
    assert "\\x01\\x02" not in shown

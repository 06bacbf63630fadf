"""What is made from the table: the reference and the configuration of ``init``."""

import tomllib
from pathlib import Path

import pytest

from pooler.config import AuthSettings, DatabaseSettings, PoolerSettings, load
from pooler.config.init import configuration
from pooler.config.reference import reference
from pooler.config.table import SECTIONS, rows

ROOT = Path(__file__).parents[2]


def test_the_reference_in_docs_is_what_is_made_now() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference(), (
        "run: python -m pooler.config.reference > docs/settings.md"
    )


def test_the_reference_has_every_setting() -> None:
    text = reference()
    for section in SECTIONS:
        for row in rows(section.name).values():
            assert f"| `{row.key}` |" in text
            assert row.about.meaning in text


def test_the_printed_configuration_loads_to_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "users.txt").touch()
    (tmp_path / "pooler.toml").write_text(configuration())
    settings = load(tmp_path / "pooler.toml")
    assert settings.pooler == PoolerSettings()
    assert settings.databases == {"*": DatabaseSettings()}
    assert settings.auth == AuthSettings(users_file="users.txt")


def test_the_printed_configuration_sets_whatever_has_a_default() -> None:
    document = tomllib.loads(configuration())
    sections = {**document, "databases": document["databases"]["*"]}
    for section in SECTIONS:
        wanted = {row.key for row in rows(section.name).values() if row.default is not None}
        assert wanted <= set(sections[section.name])


def test_the_printed_examples_are_right_too(tmp_path: Path) -> None:
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in configuration().splitlines()
    )
    (tmp_path / "users.txt").touch()
    (tmp_path / "pooler.toml").write_text(uncommented)
    database = load(tmp_path / "pooler.toml").databases["*"]
    assert database.dbname is not None
    assert database.password is not None
    assert database.mode == "session"


@pytest.mark.parametrize("text", [configuration(), reference()])
def test_no_trailing_blanks(text: str) -> None:
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert all(line == line.rstrip() for line in text.splitlines())

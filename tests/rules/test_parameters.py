"""Which clients can share servers, by their start-up parameters."""

import pytest

from pooler.rules.parameters import variant
from pooler.wire.startup import PROTOCOL_3_0, Startup

REPORTED = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "Europe/Zurich",
    "application_name": "",
}


def startup(options: str | None = None, **parameters: str) -> Startup:
    return Startup(PROTOCOL_3_0, "user", "database", options, None, parameters, ())


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"application_name": "psql"},
        {"client_encoding": "utf-8"},
        {"client_encoding": "'utf-8'"},
        {"client_encoding": "UTF8", "DateStyle": "ISO"},
        {"datestyle": "iso, mdy", "timezone": "Europe/Zurich"},
    ],
)
def test_what_servers_do_anyway_makes_no_difference(parameters: dict[str, str]) -> None:
    assert variant(startup(**parameters), REPORTED) == ()


@pytest.mark.parametrize(
    ("parameters", "wishes"),
    [
        ({"client_encoding": "LATIN1"}, (("client_encoding", "LATIN1"),)),
        ({"DateStyle": "SQL"}, (("datestyle", "SQL"),)),
        ({"TimeZone": "UTC"}, (("timezone", "UTC"),)),
        ({"extra_float_digits": "3"}, (("extra_float_digits", "3"),)),
        ({"b": "2", "a": "1"}, (("a", "1"), ("b", "2"))),
    ],
)
def test_anything_else_does(
    parameters: dict[str, str], wishes: tuple[tuple[str, str], ...]
) -> None:
    assert variant(startup(**parameters), REPORTED) == wishes


def test_options_do_and_blank_ones_do_not() -> None:
    assert variant(startup(options="-c search_path=a"), REPORTED) == (
        ("options", "-c search_path=a"),
    )
    assert variant(startup(options="  "), REPORTED) == ()


def test_without_a_report_every_wish_counts() -> None:
    assert variant(startup(client_encoding="UTF8"), None) == (("client_encoding", "UTF8"),)

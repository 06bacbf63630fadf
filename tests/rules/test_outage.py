"""Which failures pass by themselves."""

import pytest

from pooler.rules.outage import will_pass


@pytest.mark.parametrize("sqlstate", ["57P03", "57P01", "53300", "08001", "08006"])
def test_a_server_that_starts_or_is_full_or_away(sqlstate: str) -> None:
    assert will_pass(sqlstate)


@pytest.mark.parametrize("sqlstate", ["28P01", "28000", "3D000", "42501", "08P01", ""])
def test_a_refusal_for_good(sqlstate: str) -> None:
    assert not will_pass(sqlstate)

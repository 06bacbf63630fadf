"""What is done with a server whose client has gone."""

import pytest

from pooler.rules.cleaning import Clean, Ending, Left, after_client


@pytest.mark.parametrize("goodbye", [True, False])
@pytest.mark.parametrize(
    ("left", "keeps_session", "statements"),
    [
        (Left.NOTHING, False, ()),
        (Left.NOTHING, True, ("DISCARD ALL",)),
        (Left.TRANSACTION, False, ("ROLLBACK",)),
        (Left.SESSION, False, ()),
        (Left.TRANSACTION, True, ("ROLLBACK", "DISCARD ALL")),
    ],
)
def test_what_can_be_cleaned_is(
    left: Left, keeps_session: bool, statements: tuple[str, ...], goodbye: bool
) -> None:
    assert after_client(left, goodbye=goodbye, keeps_session=keeps_session) == Clean(
        statements, session=left is not Left.NOTHING and not keeps_session
    )


@pytest.mark.parametrize("keeps_session", [True, False])
def test_a_request_under_way_is_finished_only_for_who_said_goodbye(keeps_session: bool) -> None:
    def ending(goodbye: bool) -> Clean | Ending:
        return after_client(Left.REQUEST, goodbye=goodbye, keeps_session=keeps_session)

    assert ending(True) is Ending.FINISH
    assert ending(False) is Ending.CANCEL

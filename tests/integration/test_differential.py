"""Random legal sequences of messages, by many clients over few servers, beside direct connections.

``make soak`` says more of them, and replays what has failed here.
"""

from __future__ import annotations

import os
from random import SystemRandom

import pytest
import trio

from tests.integration.conftest import MakePooler
from tests.soak.run import Place, Soak, prepare
from tests.support.postgres import EmbeddedPostgres
from tests.support.sequences import chosen

MESSAGES = 25_000  # in each of four runs
CLIENTS = 16
SERVERS = 4
STATEMENTS = 8  # on each server: fewer than clients use
KINDS = {"transactions": "-session", "sessions": ""}


def _seed() -> int:
    """By chance, but on a CI machine always the same; it is said where something fails."""
    return 1 if os.environ.get("CI") else SystemRandom().randrange(10**6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_that_of_a_direct_connection(
    kind: str, pg: EmbeddedPostgres, start: MakePooler
) -> None:
    pooler = start(
        max_servers=SERVERS,
        mode="transaction",
        max_prepared_statements=STATEMENTS,
        query_wait_timeout=0,
        log_connections=False,
    )
    prepare(pg, CLIENTS)
    names = chosen(KINDS[kind])
    soak = Soak(Place(pooler.port, pg.port), _seed(), MESSAGES, CLIENTS, names)
    report = trio.run(soak.run)
    again = f"--backend {pooler.backend} --seed {report.seed} --groups={','.join(names)}"
    assert not report.failed, f"{report}\nmake soak ARGS='{again}'"
    assert report.messages >= MESSAGES
    assert set(report.by_group) >= set(names), "every kind of statement was there"

"""The framing in C against its Python twin, and both against a model of PostgreSQL's main loop."""

from __future__ import annotations

import struct
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.framing import EngineFraming, Scan
from tests.support.framing_twin import BACKEND, FramingTwin
from tests.support.postgres_model import PostgresModel, message

CLIENT_TYPES = "PBDECQFSHdcf"


def random_message(rnd: Random, types: str, least: dict[str, int]) -> bytes:
    """Mostly a good message of one of these types; now and then a wrong type or a wrong length."""
    letter = rnd.choice(types).encode()
    length = least.get(letter.decode(), 4)
    if rnd.random() < 0.4:
        length += rnd.choice([0, 1, 1, 7, 40])
    body = bytes(rnd.choice(b"ITE\0\x01ZS") for _ in range(length - 4))
    if rnd.random() < 0.01:
        letter = bytes([rnd.randrange(256)])
    if rnd.random() < 0.01:
        length = rnd.choice([0, 3, 5, 9_999, 10_000, 10_001, 0x3FFFFFFE, 0x3FFFFFFF, 0x40000002])
    if rnd.random() < 0.005:
        length = rnd.choice([0x40000003, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    return letter + struct.pack("!I", length) + body


def random_client(rnd: Random) -> bytes:
    types = CLIENT_TYPES + ("X" if rnd.random() < 0.01 else "")
    return random_message(rnd, types, {})


def random_server(rnd: Random, twin: FramingTwin) -> bytes:
    """Mostly what fits the account, so that conversations become long before they are unsure."""
    first = twin.awaiting[0] if twin.awaiting else ""
    fitting = {"P": "1E", "B": "2E", "D": "tTnE", "E": "DDCICsGE", "C": "3E", "F": "VZE", "S": "ZE"}
    types = fitting.get(first, "TDCGIEHdcZZ" if first == "Q" else "NAS")
    if rnd.random() < 0.02:
        types = "".join(BACKEND)
    return random_message(rnd, types, {letter: least for letter, (least, _) in BACKEND.items()})


def chunks(rnd: Random, data: bytes, largest: int) -> list[bytes]:
    pieces = []
    while data:
        size = rnd.randint(1, largest)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.sampled_from([1, 3, 8, 100]))
def test_engine_and_twin_agree(rnd: Random, rounds: int, largest: int) -> None:
    engine, twin = EngineFraming(), FramingTwin()
    for _ in range(rounds):
        to_server = b"".join(random_client(rnd) for _ in range(rnd.randint(0, 5)))
        assert engine.opening(to_server) == twin.opening(to_server)
        pieces = [("from_client", piece) for piece in chunks(rnd, to_server, largest)]
        to_client = b"".join(random_server(rnd, twin) for _ in range(rnd.randint(0, 3)))
        pieces += [("from_server", piece) for piece in chunks(rnd, to_client, largest)]
        for direction, piece in pieces:
            scan = getattr(engine, direction)(piece)
            assert scan == getattr(twin, direction)(piece)
            assert scan.consumed <= len(piece)
            assert (scan.verdict == "GO") == (scan.consumed == len(piece))
            assert engine.standing() == twin.standing()
            assert engine.last_words() == twin.last_words()
            if scan.verdict != "GO":
                return
        if engine.standing() == "APART" and rnd.random() < 0.3:
            engine.fresh()
            twin.fresh()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes(from_client: bytes, from_server: bytes) -> None:
    engine, twin = EngineFraming(), FramingTwin()
    assert engine.opening(from_client) == twin.opening(from_client)
    assert engine.from_client(from_client) == twin.from_client(from_client)
    assert engine.from_server(from_server) == twin.from_server(from_server)
    assert engine.standing() == twin.standing()
    assert engine.last_words() == twin.last_words()


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_where_chunks_end_changes_nothing(rnd: Random, size: int) -> None:
    whole, split, twin = EngineFraming(), EngineFraming(), FramingTwin()
    for turn in range(size):
        if turn % 2:
            direction, data = "from_server", random_server(rnd, twin)
        else:
            direction, data = "from_client", random_client(rnd)
        scan = getattr(whole, direction)(data)
        getattr(twin, direction)(data)
        assert _in_pieces(split, direction, chunks(rnd, data, 4)) == scan._replace(consumed=0)
        if scan.verdict != "GO":
            return  # how much of the header went on before it was refused depends on the chunks
        assert split.standing() == whole.standing()
        assert split.last_words() == whole.last_words()


def _in_pieces(framing: EngineFraming, direction: str, pieces: list[bytes]) -> Scan:
    answered = 0
    scan = Scan("GO", 0)
    for piece in pieces:
        scan = getattr(framing, direction)(piece)
        answered += scan.answered
        if scan.verdict != "GO":
            break
    return Scan(scan.verdict, 0, answered, scan.why)


@given(st.randoms(use_true_random=False), st.integers(1, 120), st.sampled_from([1, 6, 1000]))
def test_standing_is_that_of_a_model_of_postgres(rnd: Random, steps: int, largest: int) -> None:
    """Apart only if the server owes nothing, whatever is on its way; and apart in the end."""
    framing, server = EngineFraming(), PostgresModel(rnd)
    for _ in range(steps):
        act = rnd.choice(["client", "server", "deliver", "deliver"])
        if act == "client":
            data = message(rnd.choice("PBDECQFSSHdcf" if rnd.random() < 0.5 else "PBESSQdcS"))
            assert framing.from_client(data).verdict == "GO"
            server.inbox.append(chr(data[0]))
        elif act == "server":
            server.step()
        else:
            _deliver(framing, server, rnd.randint(1, largest))
        if framing.standing() == "APART":
            assert server.owes_nothing(), "apart too early"
    while server.inbox and not server.closed:
        server.step()
    _deliver(framing, server, len(server.outbox))
    if server.closed:
        assert framing.standing() != "APART"
    elif not (server.muddled and framing.standing() == "UNSURE"):
        assert framing.standing() == server.standing()


def _deliver(framing: EngineFraming, server: PostgresModel, size: int) -> None:
    assert framing.from_server(bytes(server.outbox[:size])).verdict == "GO"
    del server.outbox[:size]

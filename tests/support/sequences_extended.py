"""Groups of the extended protocol: statements, portals, Flush, COPY by Execute."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.support.client import FLUSH, SYNC, message, query
from tests.support.sequences import Author, Said, by_extended, group
from tests.support.sequences_simple import INTO, copied

NAMES = ("a", "b", "_tp10", "S_1", "a name of some length, with a ' and a \" in it", "", "")
PORTALS = ("", "", "p", "another portal")
# The unnamed portal is not used without its Bind before the same Sync. A query that fails in a
# transaction block leaves a portal of this name behind, which PostgreSQL (15, 18) describes and
# executes from memory that it has freed; it may crash.
NAMED = PORTALS[2:]


class Text(NamedTuple):
    """A statement, and parameters of which kinds it takes."""

    text: str
    kinds: str = ""


TEXTS = (
    Text("SELECT $1::int + 1", "i"),
    Text("SELECT $1 || 'x' || $2", "tt"),
    Text("SELECT $1::bool, $2::bytea, $3::float8", "bBf"),
    Text("SELECT $1::int8, $2::int[]", "Ia"),
    Text("SELECT generate_series(1, $1::int)", "i"),
    # Not what a custom plan computes beforehand: whether there is one depends on the server.
    Text("SELECT 10 / (SELECT $1::int)", "i"),
    Text("SELECT 1"),
    Text("SELECT 'two' AS two"),
    Text("SELECT * FROM @t ORDER BY id"),
    Text("SELECT id, v FROM @t WHERE id >= $1 ORDER BY id", "i"),
    Text("INSERT INTO @t (id, v) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", "it"),
    Text("INSERT INTO @t (id, v) VALUES ($1, $2)", "it"),
    Text("UPDATE @t SET v = $2 WHERE id = $1 RETURNING *", "it"),
    Text("DELETE FROM @t WHERE id = $1", "i"),
    Text("INSERT INTO @u VALUES ($1)", "i"),
    Text("SELECT generate_series(1, 3)"),
    Text("SELECT 1/0"),
    Text("SELEC 1"),
    Text("SELECT * FROM no_such_table"),
    Text("SELECT 1; SELECT 2"),
    Text("SELECT $2::int", "ii"),
    Text("BEGIN"),
    Text("COMMIT"),
    Text("ROLLBACK"),
    Text("SAVEPOINT s"),
    Text("ROLLBACK TO s"),
    Text(""),
    Text("-- nothing"),
    Text("SHOW server_version_num"),
    Text("COPY (SELECT id FROM @t ORDER BY id) TO STDOUT"),
    Text("DO $$BEGIN RAISE NOTICE 'from a block'; END$$"),
)
ENDINGS = ("DEALLOCATE ALL", "DEALLOCATE a", 'deallocate prepare "b";', "DISCARD ALL")
OIDS = {"i": 23, "I": 20, "t": 25, "b": 16, "B": 17, "f": 701, "a": 1007}


def parse(author: Author, name: str) -> bytes:
    """A Parse, which the author remembers."""
    at = author.rnd.randrange(len(TEXTS))
    text, kinds = TEXTS[at]
    author.names[name] = at
    oids = [OIDS[kind] for kind in kinds] if author.chance(0.4) else []
    if author.chance(0.1):
        oids = [0] * len(kinds)
    elif author.chance(0.02):
        oids = [99_999]
    body = struct.pack(f"!H{len(oids)}I", len(oids), *oids)
    return message("P", f"{name}\0{author.own(text)}\0".encode() + body)


def bind(author: Author, name: str, portal: str) -> bytes:
    """A Bind with parameters that fit what the name probably is; sometimes with others."""
    kinds = TEXTS[author.names.get(name, 6)].kinds
    if author.chance(0.04):
        kinds = kinds[1:] if author.chance(0.5) else kinds + "i"
    formats = _formats(author, len(kinds))
    values = []
    for n, kind in enumerate(kinds):
        code = formats[0] if len(formats) == 1 else formats[n] if formats else 0
        values.append(_value(author, kind, binary=code == 1))
    if author.chance(0.02):
        formats = [*formats, 0, 1]
    results = author.pick(((), (), (1,), (0,), (0, 1)))
    body = _shorts(formats) + struct.pack("!H", len(values)) + b"".join(values)
    return message("B", f"{portal}\0{name}\0".encode() + body + _shorts(results))


def _shorts(codes: Sequence[int]) -> bytes:
    return struct.pack(f"!H{len(codes)}H", len(codes), *codes)


def _formats(author: Author, count: int) -> list[int]:
    way = author.rnd.randrange(3)
    if way == 0:
        return []
    return [author.rnd.randrange(2) for _ in range(1 if way == 1 else count)]


def _value(author: Author, kind: str, *, binary: bool) -> bytes:
    if author.chance(0.05):
        return b"\xff\xff\xff\xff"  # NULL
    if author.chance(0.04):
        value = author.pick((b"", b"not so", bytes(3)))
    else:
        value = _encoded(author, kind, binary=binary)
    return struct.pack("!I", len(value)) + value


def _encoded(author: Author, kind: str, *, binary: bool) -> bytes:
    number = author.rnd.randint(-2, 12)
    as_binary = {
        "i": struct.pack("!i", number),
        "I": struct.pack("!q", number << 33),
        "t": "tüxt".encode() + b"t" * max(0, number),
        "b": bytes([number & 1]),
        "B": bytes(range(20)),
        "f": struct.pack("!d", number / 8),
        "a": struct.pack("!iiIiiii", 1, 0, 23, 1, 1, 4, number),
    }
    as_text = {"b": b"t", "B": b"\\x00ff", "a": b"{1,NULL,3}", "t": as_binary["t"]}
    return as_binary[kind] if binary else as_text.get(kind, str(number).encode())


def execute(portal: str, rows: int = 0) -> bytes:
    return message("E", portal.encode() + b"\0" + struct.pack("!I", rows))


def describe(kind: str, name: str) -> bytes:
    return message("D", f"{kind}{name}\0".encode())


def close(kind: str, name: str) -> bytes:
    return message("C", f"{kind}{name}\0".encode())


def _request(author: Author) -> bytes:
    """One that may or may not fit what is there."""
    name, portal, rnd = author.pick(NAMES), author.pick(PORTALS), author.rnd
    way = rnd.choices(range(9), (4, 2, 6, 2, 1, 1, 2, 1, 1))[0]
    if way == 0:
        return parse(author, name)
    if way == 1:
        return bind(author, name, portal)
    if way == 2:
        return bind(author, name, portal) + execute(portal, author.pick((0, 0, 1, 2)))
    if way == 6:
        author.names.pop(name, None)
    others = {
        3: describe("S", name),
        4: describe("P", author.pick(NAMED)),
        5: execute(author.pick(NAMED), 2),
        6: close("S", name),
        7: close("P", portal),
    }
    return others.get(way, FLUSH)


@group("prepared", 6)
def _prepared(author: Author) -> Iterator[Said]:
    """As drivers do it: prepared and described once, then bound and executed again and again."""
    name, portal = author.pick(NAMES), author.pick(PORTALS)
    ready = [parse(author, name), describe("S", name)]
    if name in author.names and author.chance(0.6):
        ready = [close("S", name), *ready] if author.chance(0.8) else []
    if ready and author.chance(0.5):
        yield [*ready, SYNC]
        ready = []
    for _ in range(author.rnd.randint(1, 4)):
        told = [describe("P", portal)] if author.chance(0.5) else []
        yield [*ready, bind(author, name, portal), *told, execute(portal), SYNC]
        ready = []
    if author.chance(0.2):
        author.names.pop(name, None)
        yield [close("S", name), SYNC]


@group("requests", 5)
def _requests(author: Author) -> Iterator[Said]:
    """Any requests in any order; Sync at last, and sometimes in the midst."""
    said = Said()
    for _ in range(author.rnd.randint(1, 8)):
        said.append(_request(author))
        if author.chance(0.15):
            said.append(SYNC)
    yield [*said, SYNC]


@group("flushed", 2)
def _flushed(author: Author) -> Iterator[Said]:
    """Answers asked for by Flush, and awaited, before Sync."""
    name, portal = author.pick(NAMES), author.pick(PORTALS)
    yield [close("S", name), parse(author, name), describe("S", name), FLUSH]
    yield [bind(author, name, portal), execute(portal, author.pick((0, 1, 2))), FLUSH]
    for _ in range(author.rnd.randint(0, 3)):
        yield [_request(author), FLUSH]
    yield [SYNC]


@group("portals", 2)
def _portals(author: Author) -> Iterator[Said]:
    """Row limits, in a transaction that keeps portals over Sync, and in none."""
    portal, other = author.pick(PORTALS), author.pick(NAMED)
    if author.chance(0.7):
        author.open = True
        yield [query("BEGIN")]
    texts = ("SELECT generate_series(1, 7)", "SELECT id, v FROM @t ORDER BY id", "FETCH 3 FROM c")
    text = author.own(author.pick((*texts, "UPDATE @t SET n = 0 RETURNING 'a row'")))
    yield [message("P", b"rows\0" + text.encode() + b"\0\0\0"), SYNC]
    yield [message("B", portal.encode() + b"\0rows\0" + bytes(6)), describe("P", portal), FLUSH]
    for _ in range(author.rnd.randint(1, 4)):
        each = author.pick((portal, portal, other))
        ends = (SYNC, FLUSH + SYNC) if portal and each == portal else (FLUSH,)
        yield [execute(each, author.pick((1, 2, 3, 0))), author.pick(ends)]
    yield [SYNC, close("P", portal), close("S", "rows"), SYNC]


@group("implicit", 1)
def _implicit(author: Author) -> Iterator[Said]:
    """Several statements up to one Sync are one transaction."""
    insert, count = "INSERT INTO @t (id, v) VALUES (@i, 'i')", "SELECT count(*) FROM @t"
    texts = (insert, count, "BEGIN", "COMMIT", "SELECT 1/@i", "INSERT INTO @u VALUES (@i)")
    said = Said()
    for _ in range(author.rnd.randint(2, 5)):
        text = author.own(author.pick(texts))
        said.append(message("P", b"\0" + text.encode() + b"\0\0\0") + message("B", bytes(8)))
        said.append(execute(""))
    author.open = True
    yield [*said, SYNC]


@group("unsynced", 0.3, differs="names are forgotten")
def _unsynced(author: Author) -> Iterator[Said]:
    """A query after requests, without a Sync between."""
    name = author.pick(NAMES)
    said = [close("S", name), parse(author, name), bind(author, name, ""), execute("")]
    more = [author.query("SELECT 'a query amid requests'"), SYNC]
    yield [*said[: author.rnd.randint(1, 4)], *more[: author.rnd.randint(1, 2)]]
    author.open = True
    yield [SYNC]


@group("vanishing", 0.5)
def _vanishing(author: Author) -> Iterator[Said]:
    """A statement over a table that comes and goes."""
    text = author.own("SELECT count(*) FROM @n").encode()
    parsed = message("P", b"counting\0" + text + b"\0\0\0")
    if author.chance(0.4):
        yield [author.query(author.pick(("CREATE TABLE @n (id int, v text)", "DROP TABLE @n")))]
    if author.chance(0.4):
        yield [close("S", "counting"), parsed, SYNC]
    yield [message("B", b"\0counting\0" + bytes(6)), describe("P", ""), execute(""), SYNC]


@group("many", 0.3)
def _many(author: Author) -> Iterator[Said]:
    """Hundreds of requests in one go."""
    name, said = author.pick(NAMES), Said()
    said.append(close("S", name) + parse(author, name))
    for _ in range(author.rnd.randint(20, 120)):
        said.append(bind(author, name, "") + execute(""))
        if author.chance(0.2):
            said.append(SYNC)
    yield [*said, SYNC]


@group("names", 0.5)
def _names(author: Author) -> Iterator[Said]:
    """Many names, more than a server keeps."""
    names = [f"n{author.rnd.randrange(40)}" for _ in range(author.rnd.randint(3, 15))]
    yield [*(close("S", name) + parse(author, name) + SYNC for name in names)]
    yield [*(bind(author, name, "") + execute("") + SYNC for name in names)]


@group("forget", 0.5)
def _forget(author: Author) -> Iterator[Said]:
    """What ends prepared statements."""
    yield [author.query(author.pick(ENDINGS))]
    author.names.clear()


@group("forget_extended", 0.3, differs="DEALLOCATE does not find the name")
def _forget_extended(author: Author) -> Iterator[Said]:
    """Also amid other requests."""
    name, text = author.pick(NAMES), author.pick(ENDINGS)
    if author.chance(0.5):
        yield [by_extended(text)]
    else:
        said = [message("P", b"\0" + text.encode() + b"\0\0\0"), message("B", bytes(8))]
        yield [*said, execute(""), parse(author, name), describe("S", name), SYNC]
    author.names.clear()


@group("copy_extended", 1)
def _copy_extended(author: Author) -> Iterator[Said]:
    """COPY by Execute."""
    yield from _copying(author, author.pick((FLUSH, b"")))


@group("copy_synced", 0.5, differs="names are forgotten")
def _copy_synced(author: Author) -> Iterator[Said]:
    """With a Sync before the data, which PostgreSQL ignores in COPY; as libpq does."""
    yield from _copying(author, SYNC)


def _copying(author: Author, between: bytes) -> Iterator[Said]:
    """The statement has a name of its own, for who executes it elsewhere has to send data."""
    text = author.own(author.pick(INTO)).encode()
    unnamed = author.chance(0.3)
    name = "" if unnamed else "copying"
    head = name.encode() + b"\0"
    said = [close("S", "copying"), message("P", head + text + b"\0\0\0")]
    said.append(message("B", head + head + bytes(6)))
    if author.chance(0.5):
        said.append(describe("P", name))
    said.append(execute(name))
    if between:
        yield [*said, between]
        said = []
    yield [*said, *copied(author), SYNC]
    if unnamed:
        yield [message("P", b"\0SELECT 'no copy'\0\0\0"), SYNC]

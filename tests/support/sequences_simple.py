"""Groups of plain queries: every kind of answer, transactions, errors, COPY, function calls."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.support.client import COPY_DONE, SYNC, copy_data, message, query
from tests.support.sequences import Author, Said, by_extended, group

QUERIES = (
    "SELECT @i",
    "SELECT 1 AS one, 'two' AS two, NULL AS nothing, true",
    "SELECT generate_series(1, 5)",
    "SELECT repeat('x', 300)",
    "SELECT * FROM @t ORDER BY id",
    "SELECT v, n FROM @t WHERE id > @i ORDER BY id LIMIT 3",
    "SELECT count(*) FROM @t",
    "SELECT 1 WHERE false",
    "SELECT",
    "VALUES (1, 'a'), (2, 'b')",
    "TABLE @u ORDER BY id",
    "",
    ";",
    " ; ; ",
    "-- nothing but words",
    "/* SET x TO y */ SELECT '-- SET', $$BEGIN; COMMIT$$, E'\\';'",
    "INSERT INTO @t (id, v) VALUES (@i, 'new') ON CONFLICT (id) DO NOTHING",
    "INSERT INTO @t (id, v) VALUES (@i, 'a') ON CONFLICT (id) DO UPDATE SET v = 'b' RETURNING *",
    "UPDATE @t SET v = v || '+' WHERE id = @i",
    "UPDATE @t SET n = n + 1 WHERE id > @i RETURNING 'a row'",
    "DELETE FROM @t WHERE id = @i",
    "WITH gone AS (DELETE FROM @t WHERE id > 9 RETURNING id) SELECT count(*) FROM gone",
    "SELECT ARRAY[1, @i], '{\"a\": [1, 2]}'::jsonb, DATE '2024-02-29', INTERVAL '1 day'",
    "SELECT 'é' || chr(8364), length('日本')",
    "SELECT oid::regclass FROM pg_class WHERE relname = 'pg_class'",
    "DROP TABLE IF EXISTS no_such_table",
    "SHOW transaction_isolation",
    "LOCK TABLE @t IN SHARE MODE",
)
ERRORS = (
    "SELECT 1/0",
    "SELEC 1",
    "SELECT * FROM no_such_table",
    "SELECT no_such_column FROM @t",
    "SELECT no_such_function(1)",
    "SELECT 'x'::int",
    "SELECT $1",
    "SELECT 'not ended",
    "SELECT 100000::smallint",
    "SELECT 1 + ",
    "INSERT INTO @t (id, v) SELECT id, v FROM @t ORDER BY id",
    "INSERT INTO @t (id) VALUES (77)",
    "INSERT INTO @t (id, v) VALUES (77, 'bad')",
    "INSERT INTO @u VALUES (99); SELECT 'checked at the end'",
    "INSERT INTO @u VALUES (99); SET CONSTRAINTS ALL IMMEDIATE",
    "SELECT 1; SELECT 1/0; SELECT 2",
    "SELECT 1/(3 - i) FROM generate_series(1, 5) i",
    "RELEASE SAVEPOINT no_such_savepoint",
    "ROLLBACK TO SAVEPOINT no_such_savepoint",
    "SAVEPOINT outside",
    "FETCH 1 FROM no_such_cursor",
    "CLOSE no_such_cursor",
    "EXECUTE no_such_statement",
    "DEALLOCATE no_such_statement",
    "COPY no_such_table FROM STDIN",
    "COPY (SELECT 1/0) TO STDOUT",
    "CREATE TABLE @t (a int)",
    "CREATE DATABASE postgres",
    "COMMIT PREPARED 'no such'",
    "SET no_such_setting TO 1",
    "SET work_mem TO 'much'",
    "SHOW no_such_setting",
    "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)",
    "BEGIN; SET LOCAL statement_timeout = 3; SELECT pg_sleep(5); COMMIT",
    "SELECT repeat('x', 2000000000)",
    "SELECT 'a'\0'b'",
)
BLOCKS = (
    "DO $$BEGIN RAISE NOTICE 'said % and %', 1, 2; END$$",
    "DO $$BEGIN RAISE WARNING 'careful' USING DETAIL = 'd', HINT = 'h', ERRCODE = '01P99'; END$$",
    "DO $$BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0099', DETAIL = 'd', COLUMN = 'c'; END$$",
    "DO $$BEGIN PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN RAISE INFO 'caught'; END$$",
    "DO $$BEGIN COMMIT; RAISE NOTICE 'between'; ROLLBACK; END$$",
    "DO $$BEGIN FOR i IN 1..20 LOOP RAISE NOTICE '%', i; END LOOP; END$$",
    "DO $$BEGIN UPDATE @t SET v = 'by do' WHERE id = @i; END$$",
)
# Of these several go into one query, as many as there are points where they end.
CONTROL = (
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY",
    "START TRANSACTION",
    "COMMIT",
    "END",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET CONSTRAINTS ALL DEFERRED",
    "SELECT 1/0",
    "SELECT 'in between'",
    "INSERT INTO @t (id, v) VALUES (@i, 'block') ON CONFLICT DO NOTHING",
    "SELECT count(*), sum(id) FROM @t",
)


@group("simple", 5)
def _simple(author: Author) -> Iterator[Said]:
    texts = author.rnd.choices(QUERIES, k=author.pick((1, 1, 1, 1, 2, 3)))
    yield [author.query("; ".join(texts))]


@group("errors", 2)
def _errors(author: Author) -> Iterator[Said]:
    text = author.pick(ERRORS)
    if "\0" in text or ";" in text or author.chance(0.6):
        yield [query(author.own(text).replace("\0", " "))]
    else:
        yield [author.in_either_way(text)]


@group("encoding", 0.2, differs="a name that is no text is not looked at")
def _encoding(author: Author) -> Iterator[Said]:
    """Bytes that are no text."""
    wrong = b"SELECT '\xff\xfe'\0"
    bound = message("B", b"\0a\0" + struct.pack("!HHI", 0, 1, 1) + b"\xff\0\0")
    parsed = message("P", b"\xfe\0" + wrong + b"\0\0")
    closed = message("C", b"S\xfe\0")
    yield [author.pick((message("Q", wrong), parsed + SYNC, bound + SYNC, closed + SYNC))]


@group("blocks", 1)
def _blocks(author: Author) -> Iterator[Said]:
    yield [author.in_either_way(author.pick(BLOCKS))]


@group("transactions", 4)
def _transactions(author: Author) -> Iterator[Said]:
    if author.chance(0.5):
        author.open = True
        yield [author.in_either_way(author.pick(CONTROL[:3]))]
    elif author.chance(0.4):
        yield [author.in_either_way(author.pick(CONTROL))]
        author.open = True
    else:
        texts = [author.pick(CONTROL) for _ in range(author.rnd.randint(2, 6))]
        author.open = True
        yield [author.query(";".join(texts))]


@group("cursors", 2)
def _cursors(author: Author) -> Iterator[Said]:
    """Of transactions; those WITH HOLD are in another group."""
    name = author.pick(("c", "d", '"a Cursor"'))
    scroll = author.pick(("", "SCROLL ", "NO SCROLL ", "BINARY ", "INSENSITIVE "))
    declare = f"DECLARE {name} {scroll}CURSOR FOR SELECT id, v FROM @t ORDER BY id"
    if author.chance(0.8):
        author.open = True
        yield [author.in_either_way("BEGIN")]
    yield [author.in_either_way(declare)]
    for _ in range(author.rnd.randint(0, 4)):
        way = author.pick(("1", "2", "ALL", "NEXT", "PRIOR", "ABSOLUTE 2", "BACKWARD 1", "0", "-1"))
        verb = author.pick(("FETCH", "FETCH", "MOVE"))
        yield [author.in_either_way(f"{verb} {way} FROM {name}")]
    if author.chance(0.3):
        yield [author.query("SELECT name, statement, is_holdable, is_scrollable FROM pg_cursors")]
    if author.chance(0.2):
        yield [author.query("DECLARE e CURSOR FOR SELECT * FROM @t WHERE id = 2; FETCH e")]
        yield [author.in_either_way("UPDATE @t SET v = 'here' WHERE CURRENT OF e")]
    if author.chance(0.5):
        yield [author.in_either_way(author.pick((f"CLOSE {name}", "CLOSE ALL")))]


@group("ddl", 0.7)
def _ddl(author: Author) -> Iterator[Said]:
    made = "CREATE TABLE @n (id int, v text)"
    texts = (
        made,
        made,
        f"DROP TABLE IF EXISTS @n; {made}; INSERT INTO @n VALUES (1, 'a')",
        "DROP TABLE @n",
        "INSERT INTO @n VALUES (@i, 'n')",
        "TRUNCATE @n",
        "CREATE INDEX ON @n (id)",
        "COMMENT ON TABLE @t IS 'commented'",
        "SELECT * INTO @n FROM @t",
    )
    yield [author.in_either_way(author.pick(texts)) if author.chance(0.8) else author.query(made)]
    if author.chance(0.3):
        yield [author.in_either_way("SELECT count(*) FROM @n")]


# -- COPY ----------------------------------------------------------------------------------

INTO = (
    "COPY @t (id, v) FROM STDIN",
    "COPY @t (id, v) FROM STDIN",
    "COPY @t (id, v) FROM STDIN (FORMAT csv)",
    "COPY @t (id, v) FROM STDIN WHERE id > 3",
    "COPY @t (id, v, n) FROM STDIN",
    "COPY @u FROM STDIN",
)
OUT = (
    "COPY (SELECT * FROM @t ORDER BY id) TO STDOUT",
    "COPY (SELECT id, v FROM @t ORDER BY id) TO STDOUT (FORMAT csv, HEADER)",
    "COPY (SELECT * FROM @t ORDER BY id) TO STDOUT (FORMAT binary)",
    "COPY (SELECT i, repeat('y', i) FROM generate_series(1, 200) i) TO STDOUT",
    "COPY (SELECT 1/(3 - i) FROM generate_series(1, 5) i) TO STDOUT",
    "COPY (SELECT 1 WHERE false) TO STDOUT",
)


def rows(author: Author) -> bytes:
    """Lines for a COPY; some fit, some do not."""
    form = author.pick(("{}\tcopied\n", "{}\tcopied\n", "{},copied\n", "{}\tx\t1.5\n", "{}\n"))
    first = author.pick((100, 100, 200, 1, author.rnd.randint(300, 10**6)))
    lines = [form.format(first + i) for i in range(author.pick((0, 1, 3, 10, 300)))]
    if author.chance(0.25):
        lines.insert(author.rnd.randint(0, len(lines)), author.pick(("no\tnumber\n", "7\tbad\n")))
    if author.chance(0.2):
        lines.append("\\.\n")
    return "".join(lines).encode()


def copied(author: Author) -> Said:
    """The data of a COPY and its end, cut anywhere."""
    data, said = rows(author), Said()
    while data:
        end = author.pick((len(data), len(data), author.rnd.randint(1, len(data))))
        said.append(copy_data(data[:end]))
        data = data[end:]
    if author.chance(0.1):
        said.insert(0, copy_data(b""))
    if author.chance(0.1):
        said.insert(author.rnd.randint(0, len(said)), message("H"))
    fail = message("f", author.pick((b"enough\0", b"\0", "schön\0".encode())))
    return [*said, fail if author.chance(0.2) else COPY_DONE]


@group("copy", 2)
def _copy(author: Author) -> Iterator[Said]:
    if author.chance(0.4):
        yield [author.in_either_way(author.pick(OUT))]
    elif author.chance(0.6):
        # The data at once, or only when PostgreSQL has asked for it.
        yield [author.query(author.pick(INTO))]
        yield copied(author)
    else:
        parts = [author.pick((*INTO, *INTO, *OUT, "SELECT 'between'")) for _ in range(3)]
        data = [each for part in parts if "STDIN" in part for each in copied(author)]
        yield [author.query("; ".join(parts)), *data]


# -- function calls ------------------------------------------------------------------------

INT4PL, INT4DIV, TEXTCAT, UPPER, NONE, COUNT = 177, 154, 1258, 871, 999_999, 2803


@group("functions", 1)
def _functions(author: Author) -> Iterator[Said]:
    number = author.rnd.randint(0, 9)
    numbers = [struct.pack("!i", 40), struct.pack("!i", number)]
    texts = [b"a", "ß".encode()]
    oid, values, binary = author.pick(
        (
            (INT4PL, numbers, 1),
            (INT4PL, [b"40", b"x"], 0),
            (INT4DIV, [numbers[0], bytes(4)], 1),
            (TEXTCAT, texts, author.pick((0, 1))),
            (UPPER, texts[1:], 1),
            (NONE, texts, 1),
            (COUNT, [], 1),
            (INT4PL, numbers[:1], 1),
            (INT4PL, [numbers[0], b"\0"], 1),
        )
    )
    found = [b"\xff\xff\xff\xff" if author.chance(0.05) else _sized(value) for value in values]
    head = struct.pack("!IHHH", oid, 1, binary, len(values))
    yield [message("F", head + b"".join(found) + struct.pack("!H", author.pick((0, 1))))]


def _sized(value: bytes) -> bytes:
    return struct.pack("!I", len(value)) + value


# -- sizes ---------------------------------------------------------------------------------


@group("large", 0.15)
def _large(author: Author) -> Iterator[Said]:
    # Not left behind as the unnamed statement.
    yield [author.in_either_way(_large_text(author)), by_extended("SELECT 'small'")]


@group("large_unnamed", 0.1, differs="held for a transaction only")
def _large_unnamed(author: Author) -> Iterator[Said]:
    yield [by_extended(_large_text(author))]
    yield [message("B", bytes(8)) + message("D", b"P\0") + message("E", bytes(5)) + SYNC]


def _large_text(author: Author) -> str:
    size = author.pick((20_000, 65_530, 70_000, 300_000)) + author.rnd.randint(-9, 9)
    return author.pick(
        (
            f"SELECT length('{'z' * size}')",
            f"SELECT repeat('w', {size})",
            f"SELECT i, repeat('r', i % 50) FROM generate_series(1, {size // 40}) i",
            f"COPY (SELECT i FROM generate_series(1, {size // 9}) i) TO STDOUT",
        )
    )

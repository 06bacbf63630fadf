"""A framing of lines, for tests of the multiplexer that want no PostgreSQL.

A client's line is one request; ``begin`` opens something that ``end`` closes, ``bye`` says goodbye,
``bad`` is a violation. A server answers each request with one line.

After ``ask`` the framing asks about its client; told ``keep``, the client has something that only
this server has. A client that was told one letter wants a server like that: any other is sent
``become`` and the letter before the client's own request, which waits for the answer. That is
``unfit`` or anything else; the client hears neither.

Written as Python callbacks behind the C table: slow, but the engine cannot tell.
"""

from __future__ import annotations

from typing import Any

from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    struct tb_scan {
        int verdict; uint32_t answered; const char *why; const uint8_t *instead; size_t length;
    };
    struct tb_framing {
        uint32_t abi, client_size, server_size;
        void *(*shared_new)(uint64_t);
        void (*shared_free)(void *);
        void (*client_new)(void *, void *);
        void (*client_free)(void *);
        void (*server_new)(void *, void *);
        void (*server_free)(void *);
        int (*opening)(const void *, const uint8_t *, size_t, struct tb_scan *);
        size_t (*from_client)(void *, void *, const uint8_t *, size_t, struct tb_scan *);
        size_t (*from_server)(void *, void *, const uint8_t *, size_t, struct tb_scan *);
        int (*standing)(const void *, const void *);
        int (*last_words)(const void *);
        void (*server_fresh)(void *);
        void (*server_handled)(void *);
        void (*told)(void *, void *, void *, const uint8_t *, size_t);
        bool (*suits)(const void *, const void *);
        const uint8_t *(*noted)(const void *, size_t *);
    };
    struct client { char half, marked, kept, wanted; };
    struct server { uint32_t owed; char half, open, error, like, becomes; };
    """
)
GO, MORE, LEAVE, FULL, BAD, UNFIT = range(6)
APART, OPEN, BUSY, _, KEPT, ASK = range(6)
MOST_OWED = 1000
_WHY = ffi.new("char[]", b"a bad line")
_NOTED = ffi.new("char[]", b"ask")
_INSTEAD = ffi.new("uint8_t[]", 1 << 16)
_kept: list[Any] = []


def _callback(signature: str) -> Any:
    def keep(function: Any) -> Any:
        pointer = ffi.callback(signature, function)
        _kept.append(pointer)
        return pointer

    return keep


def _verdict_of(line: bytes) -> int:
    return {b"bye": LEAVE, b"bad": BAD}.get(line.rstrip(b"\n"), GO)


@_callback("int(const void *, const uint8_t *, size_t, struct tb_scan *)")
def opening(_client: Any, raw: Any, n: int, scan: Any) -> int:
    data = bytes(ffi.buffer(raw, n))
    if b"\n" not in data and len(data) < 4:
        return MORE
    scan.why = _WHY
    return _verdict_of(data.split(b"\n")[0])


@_callback("size_t(void *, void *, const uint8_t *, size_t, struct tb_scan *)")
def from_client(client: Any, server: Any, raw: Any, n: int, scan: Any) -> int:
    client, server = ffi.cast("struct client *", client), ffi.cast("struct server *", server)
    done = 0
    if server.becomes != b"\0" or _begins_to_become(client, server, scan):
        scan.verdict = FULL
        return 0
    for line in bytes(ffi.buffer(raw, n)).splitlines(keepends=True):
        scan.verdict = _verdict_of(line)
        if scan.verdict == GO and server.owed >= MOST_OWED:
            scan.verdict = FULL
        if scan.verdict != GO:
            scan.why = _WHY
            return done
        if not line.endswith(b"\n"):
            client.half = b"\1"
        else:
            client.half = b"\0"
            server.owed += 1
            if line == b"ask\n":
                client.marked = b"\1"
            if line in (b"begin\n", b"end\n"):
                server.open = b"\1" if line == b"begin\n" else b"\0"
        done += len(line)
    return done


def _begins_to_become(client: Any, server: Any, scan: Any) -> bool:
    at_rest = not server.owed and (server.half, server.open, client.half) == (b"\0",) * 3
    if not at_rest or client.wanted in (b"\0", server.like):
        return False
    server.becomes = client.wanted
    server.owed += 1
    _say_instead(scan, b"become " + client.wanted + b"\n")
    return True


def _say_instead(scan: Any, data: bytes) -> None:
    ffi.memmove(_INSTEAD, data, len(data))
    scan.instead, scan.length = _INSTEAD, len(data)


@_callback("size_t(void *, void *, const uint8_t *, size_t, struct tb_scan *)")
def from_server(_client: Any, server: Any, raw: Any, n: int, scan: Any) -> int:
    server = ffi.cast("struct server *", server)
    data = bytes(ffi.buffer(raw, n))
    if server.becomes != b"\0":
        if not data.endswith(b"\n"):
            _say_instead(scan, b"")
            return n
        if data.endswith(b"unfit\n"):
            scan.verdict, scan.why = UNFIT, _WHY
            return 0
        server.like, server.becomes = server.becomes, b"\0"
        server.owed -= 1
        _say_instead(scan, b"")
        return n
    answered = data.count(b"\n")
    if answered > server.owed or b"\0" in data:
        scan.verdict, scan.why = BAD, _WHY
        return 0
    server.owed -= answered
    server.half = b"\0" if data.endswith(b"\n") else b"\1"
    server.error = b"\1" if data.endswith(b"error\n") else b"\0"
    scan.answered = answered
    return n


@_callback("int(const void *, const void *)")
def standing(client: Any, server: Any) -> int:
    client = ffi.cast("const struct client *", client)
    server = ffi.cast("const struct server *", server)
    if server.owed or server.half != b"\0" or client.half != b"\0":
        return BUSY
    if server.open != b"\0":
        return OPEN
    if client.marked != b"\0":
        return ASK
    return KEPT if client.kept != b"\0" else APART


@_callback("int(const void *)")
def last_words(server: Any) -> int:
    server = ffi.cast("const struct server *", server)
    return 2 if server.half != b"\0" else int(server.error != b"\0")


@_callback("void(void *)")
def server_fresh(server: Any) -> None:
    server = ffi.cast("struct server *", server)
    server.owed, server.half, server.open, server.error = 0, b"\0", b"\0", b"\0"
    server.becomes = b"\0"


@_callback("void(void *)")
def nothing(_member: Any) -> None:
    """Nothing was allocated, nothing is to be known."""


@_callback("void(void *, void *)")
def new(_member: Any, _shared: Any) -> None:
    """Zeroed memory is what there is to begin with."""


@_callback("bool(const void *, const void *)")
def suits(client: Any, server: Any) -> bool:
    client = ffi.cast("const struct client *", client)
    return client.wanted in (b"\0", ffi.cast("const struct server *", server).like)


@_callback("void(void *, void *, void *, const uint8_t *, size_t)")
def told(_shared: Any, client: Any, server: Any, raw: Any, n: int) -> None:
    data = bytes(ffi.buffer(raw, n))
    if client != ffi.NULL:
        client = ffi.cast("struct client *", client)
        client.marked = b"\0"
        client.kept = b"\1" if data == b"keep" else b"\0"
        client.wanted = data if len(data) == 1 else b"\0"
    if server != ffi.NULL:
        ffi.cast("struct server *", server).like = data[:1] or b"\0"


@_callback("const uint8_t *(const void *, size_t *)")
def noted(client: Any, length: Any) -> Any:
    marked = ffi.cast("const struct client *", client).marked != b"\0"
    length[0] = len(b"ask") if marked else 0
    return ffi.cast("const uint8_t *", _NOTED)


_TABLE = ffi.new(
    "struct tb_framing *",
    {
        "abi": 3,
        "client_size": ffi.sizeof("struct client"),
        "server_size": ffi.sizeof("struct server"),
        "opening": opening,
        "from_client": from_client,
        "from_server": from_server,
        "standing": standing,
        "last_words": last_words,
        "server_fresh": server_fresh,
        "server_handled": nothing,
        "suits": suits,
        "told": told,
        "noted": noted,
        "client_new": new,
        "client_free": nothing,
        "server_new": new,
        "server_free": nothing,
    },
)
LINE_FRAMING = int(ffi.cast("uintptr_t", _TABLE))

"""Frontend messages that ``tests.support.client`` has not, because hardly any test needs them."""

from __future__ import annotations

import struct

from tests.support.client import message

TEXT, BINARY = 0, 1


def parse_typed(sql: str, name: str, *types: int) -> bytes:
    """Parse with the OIDs of the parameters' types."""
    oids = struct.pack(f"!H{len(types)}I", len(types), *types)
    return message("P", f"{name}\0{sql}\0".encode() + oids)


def bind_binary(*values: bytes, statement: str = "", portal: str = "") -> bytes:
    """Parameters and results in binary."""
    texts = b"".join(struct.pack("!I", len(value)) + value for value in values)
    head = f"{portal}\0{statement}\0".encode() + struct.pack("!HHH", 1, BINARY, len(values))
    return message("B", head + texts + struct.pack("!HH", 1, BINARY))


def execute_rows(limit: int, portal: str = "") -> bytes:
    """Execute with a limit of rows."""
    return message("E", portal.encode() + b"\0" + struct.pack("!I", limit))


def describe(name: str = "") -> bytes:
    return message("D", b"S" + name.encode() + b"\0")


def describe_portal(name: str = "") -> bytes:
    return message("D", b"P" + name.encode() + b"\0")


def close(name: str = "") -> bytes:
    return message("C", b"S" + name.encode() + b"\0")


def close_portal(name: str = "") -> bytes:
    return message("C", b"P" + name.encode() + b"\0")


def copy_fail(reason: str) -> bytes:
    return message("f", reason.encode() + b"\0")


def function_call(oid: int, *values: bytes, form: int = TEXT) -> bytes:
    """FunctionCall; *form* of the arguments and of the result."""
    head = struct.pack("!IHHH", oid, 1, form, len(values))
    texts = b"".join(struct.pack("!I", len(value)) + value for value in values)
    return message("F", head + texts + struct.pack("!H", form))

"""Messages as a person reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from tests.soak.compare import plain
from tests.support.client import Message, fields
from tests.support.sequences import Step

LONGEST = 110  # characters of one message
MOST = 24  # messages of one step that are shown
FRONTEND = {
    "Q": "Query", "P": "Parse", "B": "Bind", "D": "Describe", "E": "Execute", "C": "Close",
    "S": "Sync", "H": "Flush", "F": "FunctionCall", "d": "CopyData", "c": "CopyDone",
    "f": "CopyFail", "X": "Terminate",
}  # fmt: skip
BACKEND = {
    "1": "ParseComplete", "2": "BindComplete", "3": "CloseComplete", "A": "Notification",
    "C": "CommandComplete", "D": "DataRow", "E": "Error", "G": "CopyIn", "H": "CopyOut",
    "I": "EmptyQuery", "K": "BackendKeyData", "N": "Notice", "R": "Authentication",
    "S": "ParameterStatus", "T": "RowDescription", "V": "FunctionResult", "Z": "ReadyForQuery",
    "c": "CopyDone", "d": "CopyData", "n": "NoData", "s": "PortalSuspended", "t": "Parameters",
}  # fmt: skip


def said(message: bytes) -> str:
    """A frontend message."""
    kind, body = chr(message[0]), message[5:]
    if kind == "E":
        portal, rows = body[:-5].decode(), struct.unpack("!I", body[-4:])[0]
        return f"Execute {portal!r}" + (f" up to {rows} rows" if rows else "")
    if kind in "PB":
        first, second, rest = body.split(b"\0", 2)
        return _short(f"{FRONTEND[kind]} {_text(first)} {_text(second)} {_rest(rest)}")
    if kind in "DC":
        return f"{FRONTEND[kind]} {chr(body[0])} {_text(body[1:-1])}"
    return _short(f"{FRONTEND[kind]} {_text(body.removesuffix(NUL)) if body else ''}")


NUL = b"\0"


def _rest(body: bytes) -> str:
    return repr(body)[1:] if body.strip(NUL) else ""


def _text(body: bytes) -> str:
    return repr(body.decode("utf8", "backslashreplace"))


def heard(message: Message) -> str:
    """A backend message."""
    kind, body = message
    name = BACKEND.get(kind, kind)
    if kind in "EN":
        found = fields(body)
        more = {k: v for k, v in found.items() if k not in "SVCMFLR"}
        return _short(f"{name} {found['C']} {found['M']} {more or ''}")
    value = plain(message)[1]
    return _short(f"{name} {value.removesuffix(NUL)!r}" if isinstance(value, bytes) else name)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]} … ({len(text)})"


def _runs(lines: Iterable[str]) -> Iterator[str]:
    """Lines, those that repeat themselves only once."""
    last, times = None, 0
    for line in [*lines, None]:
        if line == last:
            times += 1
            continue
        if last is not None:
            yield last + (f" × {times}" if times > 1 else "")
        last, times = line, 1


def _few(lines: Iterable[str]) -> list[str]:
    """The first and the last of them, where they are very many."""
    every = list(lines)
    if len(every) <= MOST:
        return every
    return [*every[: MOST // 2], f"    … {len(every) - MOST} more", *every[-MOST // 2 :]]


def exchange(step: Step, through: list[Message], direct: list[Message]) -> str:
    """A step with the answers of both sides; where they are alike, only once."""
    lines = [f"  {step.group}:"]
    lines += _few(f"    > {line}" for line in _runs(map(said, step.said)))
    one, other = (list(_runs(map(heard, side))) for side in (through, direct))
    alike = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    alike = min(len(one), len(other)) if alike is None else alike
    lines += _few(f"    < {line}" for line in one[:alike])
    lines += _few(f"    pooler < {line}" for line in one[alike:])
    lines += _few(f"    direct < {line}" for line in other[alike:])
    return "\n".join(lines)

"""What is compared: an event loop, and the streams that a program on it uses."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import trio_backends

__all__ = ["BASELINE", "Stack", "stacks"]


@dataclass(frozen=True)
class Stack:
    """*loop*: "stock" (Trio on its own manager), a backend of ours, "asyncio" or "uvloop".

    *streams*: "sockets" (Trio's own), "engine" (ours), or asyncio's "streams" or "protocol".
    """

    loop: str
    streams: str

    @property
    def name(self) -> str:
        if self.loop == "stock":
            return "stock Trio"
        return f"{self.loop}, {self.streams}"

    @property
    def is_trio(self) -> bool:
        return self.loop not in ("asyncio", "uvloop")


BASELINE = Stack("stock", "sockets")


def stacks() -> list[Stack]:
    """All that this machine can run, the one that the others are compared with first."""
    ours = [name for name, why in trio_backends.available_backends().items() if why is None]
    found = [BASELINE]
    found += [Stack(name, "sockets") for name in ours]
    found += [Stack(name, "engine") for name in ours]
    found.append(Stack("asyncio", "streams"))
    if importlib.util.find_spec("uvloop"):
        found += [Stack("uvloop", "streams"), Stack("uvloop", "protocol")]
    return found

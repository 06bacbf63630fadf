"""The modes of pooling: what each means for a client and its servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pooler.config.choices import Mode


@dataclass(frozen=True, slots=True)
class Pooling:
    """What a mode comes down to.

    ``keeps_server``: a server stays with its client until the client leaves. ``blocks``: a
    transaction may outlast the request that began it. ``inspects``: messages are looked at.
    """

    keeps_server: bool
    blocks: bool = True
    inspects: bool = True


_POOLING: Mapping[Mode, Pooling] = {
    "session": Pooling(keeps_server=True),
    "transaction": Pooling(keeps_server=False),
    "statement": Pooling(keeps_server=False, blocks=False),
    "passthrough": Pooling(keeps_server=True, inspects=False),
}


def pooling(mode: Mode) -> Pooling:
    """What ``mode`` means."""
    return _POOLING[mode]

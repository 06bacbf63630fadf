"""A client as its pool knows it: what its session has, and why it keeps its server if it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pooler.rules.session import (
    LOADED,
    NAMED,
    SEEDED,
    UNREADABLE,
    SessionState,
    is_delicate,
    with_startup,
)
from pooler.wire.errors import PostgresError
from pooler.wire.messages import parameter_status
from pooler.wire.session import Setting, told_settings
from trio_backends import EngineStream

# What the framing remarks, and no question brings to light.
_LASTING = {"load": LOADED, "named": NAMED, "seed": SEEDED, "lost": UNREADABLE}


@dataclass(slots=True, eq=False)
class Guest:
    """``startup``: the settings in its start-up packet; ``reported``: what a server with these says
    of itself at log-in."""

    number: int
    startup: tuple[Setting, ...] = ()
    reported: Mapping[str, str] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()
    # Those among the pins that no question to the server brings to light.
    lasting: frozenset[str] = frozenset()
    refusal: PostgresError | None = None
    stream: EngineStream | None = None
    _names: frozenset[str] = frozenset()
    _logged: frozenset[str] = frozenset()

    def wanted(self) -> bytes:
        """For the framing, when it comes in."""
        if not self.startup:
            return b""
        return told_settings(self.startup, delicate=is_delicate(self.startup))

    def names(self, noted: frozenset[str]) -> frozenset[str]:
        """Settings of its own making, perhaps: those now noted, and those it has had before."""
        return self._names | noted

    def see(self, state: SessionState, remarks: frozenset[str]) -> bytes:
        """Takes in what the server has said, and the framing noted; returns what the framing is to
        know."""
        lasting = set(self.lasting)
        if "discard" in remarks:
            lasting -= {NAMED, UNREADABLE}
        lasting |= {_LASTING[remark] for remark in remarks & _LASTING.keys()}
        self.lasting = frozenset(lasting)
        self.pins = state.pins | self.lasting
        self._names = frozenset(name for name, _ in state.settings if "." in name)
        settings = with_startup(state, self.startup)
        return told_settings(settings, delicate=is_delicate(settings), kept=bool(self.pins))

    def reset(self, state: SessionState) -> bytes:
        """ParameterStatus of what its start-up packet had set and it has just reset: PostgreSQL
        would have gone back to what the packet said."""
        have = {name.lower() for name, _ in state.settings}
        gone = {name.lower() for name, _ in self.startup} - have
        return b"".join(
            parameter_status(name, value)
            for name, value in self.reported.items()
            if name.lower() in gone
        )

    def unlogged(self) -> frozenset[str]:
        """Pins that have not been logged yet; each is once."""
        new = self.pins - self._logged
        self._logged |= new
        return new

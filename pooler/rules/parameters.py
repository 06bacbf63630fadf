"""Start-up parameters: which clients can share servers.

Parameters that mean what the server does anyway make no difference. The others are settings that
follow a client from server to server; where its servers stay with it, or a parameter is no setting,
its servers are opened with them, and clients whose parameters differ do not share servers.
"""

from __future__ import annotations

from collections.abc import Mapping

from pooler.rules.session import in_order
from pooler.wire.session import Setting, split_options, told_settings
from pooler.wire.startup import Startup

# A label of the connection, no setting that a query could notice to be another's.
_LABELS = frozenset({"application_name", "fallback_application_name"})

# Only to be set when a connection is opened.
_AT_START = frozenset(
    {
        "ignore_system_indexes",
        "jit_debugging_support",
        "jit_profiling_support",
        "log_connections",
        "log_disconnections",
        "post_auth_delay",
    }
)

Variant = tuple[tuple[str, str], ...]


def _encoding(name: str) -> str:
    letters = "".join(c for c in name.lower() if c.isalnum())
    return "utf8" if letters in ("utf8", "unicode") else letters


def _same(name: str, asked: str, reported: str) -> bool:
    if name == "client_encoding":
        return _encoding(asked) == _encoding(reported)
    if name == "datestyle":
        # "ISO" leaves the order of day and month as it is.
        return reported.lower() == asked.lower() or reported.lower().startswith(asked.lower() + ",")
    return asked == reported


def variant(startup: Startup, reported: Mapping[str, str] | None) -> Variant:
    """The parameters of a client that its servers must have been opened with, in order.

    ``reported`` is what servers opened without any report of themselves (ParameterStatus); None
    when there has been none yet.
    """
    known = {name.lower(): value for name, value in (reported or {}).items()}
    wanted = {name.lower(): value for name, value in startup.parameters.items()}
    if startup.options is not None and startup.options.strip():
        wanted["options"] = startup.options
    return tuple(
        sorted(
            (name, value)
            for name, value in wanted.items()
            if name not in _LABELS and not (name in known and _same(name, value, known[name]))
        )
    )


def as_settings(wishes: Variant, application_name: str) -> tuple[Setting, ...] | None:
    """The settings that a client with these parameters has; None: not all of them are settings."""
    found = dict(wishes)
    options = split_options(found.pop("options", ""))
    if options is None:
        return None
    wanted = {**options, **found}
    if application_name:
        wanted["application_name"] = application_name
    if any(name.lower() in _AT_START for name in wanted):
        return None
    settings = in_order(wanted.items())
    try:
        told_settings(settings)
    except ValueError:
        return None
    return settings

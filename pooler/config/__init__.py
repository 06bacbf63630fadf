"""The configuration: one table of settings, and everything that is made from it.

``load(path)`` reads and checks a file and returns ``Settings``, or raises ``ConfigError`` with
every problem found. The table itself stands in ``settings.py``; the reference (``reference.py``)
and the configuration that ``trio-pooler init`` prints (``init.py``) are made from it.

The names are imported when first used: the command line needs only ``choices`` to show its help,
and importing pydantic takes longer than showing it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pooler.config.addresses import Address, TcpAddress, UnixAddress, parse_listen
    from pooler.config.errors import ConfigError, Problem
    from pooler.config.loading import load
    from pooler.config.settings import (
        AuthSettings,
        Database,
        DatabaseSettings,
        PoolerSettings,
        Settings,
        UserSettings,
    )
    from pooler.config.users import Md5Secret, PlainSecret, ScramSecret, Secret

__all__ = [
    "Address",
    "AuthSettings",
    "ConfigError",
    "Database",
    "DatabaseSettings",
    "Md5Secret",
    "PlainSecret",
    "PoolerSettings",
    "Problem",
    "ScramSecret",
    "Secret",
    "Settings",
    "TcpAddress",
    "UnixAddress",
    "UserSettings",
    "load",
    "parse_listen",
]

_MODULES = {
    "addresses": ("Address", "TcpAddress", "UnixAddress", "parse_listen"),
    "errors": ("ConfigError", "Problem"),
    "loading": ("load",),
    "settings": (
        "AuthSettings",
        "Database",
        "DatabaseSettings",
        "PoolerSettings",
        "Settings",
        "UserSettings",
    ),
    "users": ("Md5Secret", "PlainSecret", "ScramSecret", "Secret"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

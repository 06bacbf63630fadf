"""The rows, a module for each few groups; imported in the order of the page."""

from tests.transparency.rows import (  # noqa: F401, I001
    prepared,
    settings,
    startup,
    transactions,
    cursors,
    copying,
    notifications,
    locks,
    temporary,
    other,
    errors,
    protocol,
    cancelling,
)
from tests.transparency.table import ROWS

__all__ = ["ROWS"]

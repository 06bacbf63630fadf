"""trio-pooler: a PostgreSQL connection pooler on Trio. Start at ``pooler.app``."""

__version__ = "0.1.0"

"""To try the pooler, and to test it: a PostgreSQL of one's own, and the pooler before it.

``run`` is the command ``trio-pooler demo``; ``EmbeddedPostgres`` serves tests and benchmarks too.
"""

from pooler.demo.command import run
from pooler.demo.postgres import EmbeddedPostgres, PostgresFailed, embedded_bin_dir, free_port

__all__ = ["EmbeddedPostgres", "PostgresFailed", "embedded_bin_dir", "free_port", "run"]

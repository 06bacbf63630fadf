"""``python -m pooler`` is the command ``trio-pooler``."""

from pooler.cli import main

main(prog_name="trio-pooler")

"""The command ``trio-pooler``: from arguments to valid settings, and into ``pooler.app``.

Exit statuses: 0 for a good end, 1 for a bad configuration or a failed start, 2 for wrong usage.
What a command needs is imported when it runs, so that ``--help`` is quick.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from pooler import __version__
from pooler.config.choices import BACKENDS, LOG_FORMATS, LOG_LEVELS

if TYPE_CHECKING:
    from pooler.config import Settings

# A missing file is a bad configuration, not wrong usage: click is not to look for it.
_config = click.argument("config", type=click.Path(path_type=Path))
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _InOrder(click.Group):
    """Lists the commands as they stand in this file: the one that is needed most comes first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings=_HELP)
@click.version_option(__version__, prog_name="trio-pooler", message="%(prog)s %(version)s")
def main() -> None:
    """A PostgreSQL connection pooler: many clients share few server connections.

    To try it, with a PostgreSQL of its own that is gone afterwards:

    \b
        trio-pooler demo

    To use it, write a configuration, check it, and run:

    \b
        trio-pooler init -o pooler.toml
        trio-pooler check pooler.toml
        trio-pooler run pooler.toml

    Then point your clients to the pooler (port 6432) instead of PostgreSQL (port 5432).
    """


@main.command(short_help="Run the pooler with a configuration.")
@_config
@click.option("--backend", type=click.Choice(BACKENDS), help="Instead of pooler.backend.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Instead of pooler.log_level.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), help="Instead of pooler.log_format.")
def run(config: Path, **options: str | None) -> NoReturn:
    """Run the pooler with the configuration in the file CONFIG.

    It stays in the foreground and logs to standard error. SIGTERM or Ctrl-C: let clients finish
    their transactions, then end; the same again: end at once.
    """
    settings = _load(config)
    chosen = {name: value for name, value in options.items() if value is not None}
    from pooler import app

    sys.exit(app.run(settings.with_pooler(**chosen)))


@main.command(short_help="Try it: a PostgreSQL of its own, and the pooler before it.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=6432,
    show_default=True,
    help="Where the pooler listens, on 127.0.0.1.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="The kernel's mechanism for I/O.",
)
def demo(port: int, backend: str) -> NoReturn:
    """Try it: start a PostgreSQL of its own, and the pooler before it.

    Needs no configuration and no PostgreSQL on the machine. Prints how to connect; Ctrl-C ends
    both, and nothing is left behind.
    """
    from pooler import demo

    sys.exit(demo.run(port=port, backend=backend))


@main.command(short_help="Say all that is wrong with a configuration.")
@_config
def check(config: Path) -> None:
    """Say all that is wrong with the file CONFIG, and with its users file.

    Starts nothing. The exit status is 0 if all is well, else 1.
    """
    from pooler.config import ConfigError, load

    try:
        settings = load(config)
    except ConfigError as error:
        click.echo(error)
        click.echo(_count(len(error.problems), "problem"))
        sys.exit(1)
    click.echo(f"{config}: good ({_summary(settings)})")


@main.command(short_help="Print a configuration, every setting explained.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to this new file instead."
)
def init(output: Path | None) -> None:
    """Print a configuration with every setting at its default, explained.

    It serves every database of a PostgreSQL on this machine, to the users in a file users.txt.
    """
    from pooler.config.init import configuration

    if output is None:
        click.echo(configuration(), nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(configuration())
    except FileExistsError:
        _fail(f"{output} exists already, and is not overwritten")
    except OSError as error:
        _fail(f"cannot write {output}: {error.strerror}")
    click.echo(
        f"Wrote {output}. Now set the host in it, and list the users in users.txt beside it."
    )


def _load(path: Path) -> "Settings":
    from pooler.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        _fail(*map(str, error.problems))


def _fail(*messages: str) -> NoReturn:
    for message in messages:
        click.echo(f"trio-pooler: {message}", err=True)
    sys.exit(1)


def _summary(settings: "Settings") -> str:
    return ", ".join(
        (
            f"listens on {' and '.join(map(str, settings.pooler.listen))}",
            _count(len(settings.databases), "database"),
            _count(len(settings.secrets), "user"),
        )
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"

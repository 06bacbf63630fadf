"""``make soak``: random sequences through the pooler and beside it, until one differs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import SystemRandom

import trio

import trio_backends
from tests.soak.run import Place, Report, Soak, prepare
from tests.soak.shrink import Shrink
from tests.support.pooler import PoolerProcess, configuration
from tests.support.postgres import EmbeddedPostgres, installations
from tests.support.sequences import GROUPS, chosen

GROUPS_HELP = """\
--groups copy,errors means these; --groups=+unsynced,-session the usual ones, but. Groups, and how
the pooler's answers differ from PostgreSQL's, in which case a group is not a usual one:
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=…",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog=GROUPS_HELP + "\n".join(f"  {n:16} {g.differs}" for n, g in GROUPS.items()),
    )
    add = parser.add_argument
    add("--seed", type=int, default=SystemRandom().randrange(10**6), help="default: by chance")
    add("--messages", type=int, default=1_000_000, help="to say on all backends together")
    add("--backend", action="append", help="may be repeated; default: io_uring, epoll or kqueue")
    add("--clients", type=int, default=16)
    add("--servers", type=int, default=4)
    add("--statements", type=int, default=8, help="max_prepared_statements")
    add("--groups", default="")
    add("--session", type=int, action="append", default=[], help="only these, by number")
    add("--tolerate", type=int, default=0, help="divergences before it ends")
    add("--shrink", action="store_true", help="look for the fewest messages that differ")
    add("--postgres", default=next(iter(installations()), None), help=", ".join(installations()))
    found = parser.parse_args()
    found.backend = found.backend or [
        name for name, why_not in trio_backends.available_backends().items() if why_not is None
    ]
    return found


@contextmanager
def started(args: argparse.Namespace, pg: EmbeddedPostgres, backend: str) -> Iterator[Place]:
    """A pooler with few servers, and the databases anew."""
    prepare(pg, args.clients)
    settings = {
        "max_servers": args.servers,
        "mode": "transaction",
        "max_prepared_statements": args.statements,
        "query_wait_timeout": 0,
        "log_connections": False,
    }
    with PoolerProcess(configuration(pg, backend=backend, **settings)) as pooler:
        yield Place(pooler.port, pg.port)


def _progress(report: Report) -> None:
    print(f"  {report.messages} messages, {len(report.divergences)} divergences", flush=True)


def _one(args: argparse.Namespace, pg: EmbeddedPostgres, backend: str) -> bool:
    with started(args, pg, backend) as place:
        soak = Soak(
            place, args.seed, args.messages // len(args.backend), args.clients,
            chosen(args.groups), args.session, args.tolerate, _progress,
        )  # fmt: skip
        report = trio.run(soak.run)
        print(f"{backend}: {report}", flush=True)
        crash = pg.log.find("was terminated by signal")
        if crash >= 0:
            print(f"PostgreSQL crashed:\n{pg.log[crash - 200 : crash + 500]}")
        if args.shrink:
            for each in report.divergences:
                print(f"session {each.number}, as small as it gets:")
                print(trio.run(Shrink(place, each, args.servers).run), flush=True)
    return not report.failed


def main() -> int:
    args = _arguments()
    print(f"seed {args.seed}, backends {', '.join(args.backend)}", flush=True)
    settings = {"max_connections": args.clients + args.servers + 20}
    with EmbeddedPostgres(bin_dir=installations()[args.postgres], settings=settings) as pg:
        fine = [_one(args, pg, backend) for backend in args.backend]
    if not all(fine):
        print(f"again: make soak ARGS='--seed {args.seed} …', the rest as it was")
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())

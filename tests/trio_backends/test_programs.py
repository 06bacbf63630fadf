"""``python -m trio_backends``: programs that know nothing of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio

import trio_backends

ROOT = Path(trio_backends.__file__).parents[1]
LONGEST = 60  # seconds: it hangs
PYTHON = (sys.executable,)
OURS = (sys.executable, "-m", "trio_backends")


def environment(**more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "TRIO_BACKEND"}
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return {**inherited, "PYTHONPATH": path, **more}


def start(
    *command: str, cwd: Path, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


def write(path: Path, code: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(code), encoding="utf-8")


# ---------------------------------------------------------------- as python itself

PROGRAM = """
    import atexit, sys
    atexit.register(lambda: print("at exit", sys.modules["__main__"].__name__, len(sys.argv)))
    print(__name__, __file__, sys.argv[1:], sys.path[0], __package__, type(__loader__).__name__)
    names = sorted(globals().keys() - {"__annotations__"})
    print(vars(sys.modules["__main__"]) is globals(), names)
    def fail():
        raise KeyError("of the program")
    match sys.argv[1:]:
        case ["fail"]:
            fail()
        case ["exit", status]:
            sys.exit(int(status) if status.isdigit() else status)
        case ["interrupt"]:
            raise KeyboardInterrupt
        case ["hook"]:
            sys.excepthook = lambda kind, error, traceback: print("hook", repr(error))
            fail()
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("programs")
    for name in ("program.py", "package/__init__.py", "package/__main__.py", "package/part.py"):
        write(directory / name, PROGRAM if not name.endswith("__init__.py") else "")
    (directory / "empty").mkdir()
    write(directory / "broken.py", "this is no python")
    write(directory / "lacking.py", "import there_is_no_such_module")
    with zipfile.ZipFile(directory / "archive.pyz", "w") as archive:
        archive.writestr("__main__.py", textwrap.dedent(PROGRAM))
    return directory


@pytest.mark.parametrize(
    "arguments",
    [
        ["program.py", "one", "-c", "--backend", "x", "--list", "-m"],
        ["./package/../program.py", "fail"],
        ["program.py", "exit", "3"],
        ["program.py", "exit", "some words"],
        ["program.py", "interrupt"],
        ["program.py", "hook"],
        ["package", "one"],
        ["archive.pyz", "fail"],
        ["-m", "package", "one", "-c"],
        ["-m", "package.part", "fail"],
        ["-m", "there_is_no_such_module"],
        ["-m", "package.there_is_no_such_module"],
        ["-c", "import sys; print(sys.argv, __name__, sys.path[0] == ''); 1 / 0", "-m", "x"],
        ["-c", "this is no python"],
        ["-c", "x: list[y] = []"],
        ["-"],
        ["broken.py"],
        ["lacking.py"],
        ["no_such_file.py"],
        ["empty"],
    ],
    ids=" ".join,
)
def test_a_program_leaves_what_it_leaves_under_python(arguments: list[str], programs: Path) -> None:
    stdin = "import sys; print(sys.argv, __name__)\n1 / 0\n"
    expected = start(*PYTHON, *arguments, cwd=programs, stdin=stdin)
    found = start(*OURS, *arguments, cwd=programs, stdin=stdin)
    assert found.returncode == expected.returncode
    assert found.stdout == expected.stdout
    # Python's own -m shows frames of runpy, which are no part of the program.
    shown = re.sub(r'  File "<frozen runpy>", line \d+, in \w+\n', "", expected.stderr)
    assert found.stderr == shown


def test_pythons_own_options_hold(programs: Path) -> None:
    code = "import sys; print(sys.flags.safe_path, sys.path[0] == '', sys.flags.optimize)"
    options = ("-P", "-O")
    expected = start(*PYTHON, *options, "-c", code, cwd=programs)
    found = start(*PYTHON, *options, *OURS[1:], "-c", code, cwd=programs)
    assert found.stdout == expected.stdout


# ---------------------------------------------------------------- which backend

SAYS_WHERE = """
    import atexit, multiprocessing, sys, threading, trio, trio_backends
    async def where():
        return trio_backends.current_backend()
    def say(label):
        print(label, trio.run(where), flush=True)
    if __name__ == "__main__":
        say("run")
        for method in sys.argv[1:]:
            process = multiprocessing.get_context(method).Process(target=say, args=[method])
            process.start()
            process.join()
        atexit.register(say, "exit")
        after = threading.Event()
        threading.Thread(target=lambda: (after.wait(), say("thread"))).start()
        threading.Timer(0.05, after.set).start()
"""


@pytest.mark.parametrize("by", ["option", "environment"])
def test_every_run_of_the_program_is_on_the_backend(by: str, backend: str, tmp_path: Path) -> None:
    """Those of its exit handlers and of the threads and processes that it starts, too."""
    write(tmp_path / "program.py", SAYS_WHERE)
    option = ["--backend", backend] if by == "option" else []
    more = {"TRIO_BACKEND": backend} if by == "environment" else {}
    methods = ["fork", "spawn", "forkserver"]
    result = start(*OURS, *option, "program.py", *methods, cwd=tmp_path, **more)
    assert result.returncode == 0, result.stderr
    labels = ["run", *methods, "thread", "exit"]
    assert result.stdout.splitlines() == [f"{label} {backend}" for label in labels]


def test_trios_own_manager_may_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "program.py", SAYS_WHERE)
    result = start(*OURS, "--backend=stock", "program.py", "spawn", cwd=tmp_path)
    assert set(result.stdout.split()[1::2]) == {"stock"}


def test_the_engines_streams_may_be_asked_for(backend: str, tmp_path: Path) -> None:
    program = """
        import trio
        async def main():
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            print([kind.__module__ for kind in type(listener).__mro__])
        trio.run(main)
    """
    write(tmp_path / "program.py", program)
    result = start(*OURS, "--backend", backend, "--streams", "program.py", cwd=tmp_path)
    assert "trio_backends._streams" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("options", "variable", "said"),
    [
        (["--backend", "select"], "", "invalid choice: 'select'"),
        (["--backend", "kqueue"], "", "kqueue: not built"),
        ([], "kqueue", "TRIO_BACKEND=kqueue: no backend can serve: kqueue: not built"),
        ([], "select", "TRIO_BACKEND=select: unknown backend 'select'"),
        (["--backend", "stock", "--streams"], "", "streams need one of our backends"),
    ],
)
def test_a_backend_that_cannot_serve_is_an_error_before_the_program(
    options: list[str], variable: str, said: str, tmp_path: Path
) -> None:
    if trio_backends.available_backends()["kqueue"] is None and "kqueue" in said:
        pytest.skip("kqueue works here")
    write(tmp_path / "program.py", "print('it runs')")
    result = start(*OURS, *options, "program.py", cwd=tmp_path, TRIO_BACKEND=variable)
    assert result.returncode != 0
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not result.stdout


def test_no_program_is_a_usage_error(tmp_path: Path) -> None:
    result = start(*OURS, cwd=tmp_path)
    assert result.returncode == 2
    assert "which program?" in result.stderr


def test_the_list_says_what_works_and_why_not(tmp_path: Path) -> None:
    result = start(*OURS, "--list", cwd=tmp_path)
    first, _, *lines = result.stdout.splitlines()
    assert trio.__version__ in first
    for line, (name, why) in zip(lines, trio_backends.available_backends().items(), strict=True):
        assert line.split() == [
            name,
            *("works" if why is None else f"does not work: {why}").split(),
        ]


# ---------------------------------------------------------------- known programs

MIXED = """
    import sys, trio, trio_backends

    async def child(number):
        code = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
        sent = f"{number:06} " * 20_000
        got = await trio.run_process(
            [sys.executable, "-c", code], stdin=sent.encode(), capture_stdout=True
        )
        assert got.stdout == sent[::-1].encode()

    async def worker(numbers, total):
        for number in numbers:
            total.append(await trio.to_thread.run_sync(lambda: number * trio.from_thread.run(one)))

    async def one():
        await trio.sleep(0)
        return 1

    async def main():
        total = []
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(child, number)
                nursery.start_soon(worker, range(number, 300, 6), total)
        with trio.move_on_after(0.02):
            await trio.run_process([sys.executable, "-c", "import time; time.sleep(60)"])
        print(sum(total), trio_backends.current_backend())

    trio.run(main)
"""


def test_a_program_with_processes_and_threads(backend: str, tmp_path: Path) -> None:
    write(tmp_path / "program.py", MIXED)
    result = start(*OURS, "--backend", backend, "program.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(sum(range(300))), backend]


HTTPX = """
    import sys, httpx, trio, trio_backends

    async def main(url):
        lengths = []
        async with httpx.AsyncClient() as client:

            async def fetch(number):
                for _ in range(20):
                    answer = await client.post(url, content=b"x" * number * 1000)
                    lengths.append(len(answer.content))

            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(fetch, number)
            try:
                await client.get(url + "slow", timeout=0.05)
            except httpx.ReadTimeout:
                print("timed out")
        print(sum(lengths), trio_backends.current_backend())

    trio.run(main, sys.argv[1])
"""


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one piece
    end = threading.Event()

    def do_GET(self) -> None:
        self.end.wait(LONGEST)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def echo_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            Echo.end.set()
            server.shutdown()
            Echo.end.clear()


@pytest.mark.parametrize("streams", [[], ["--streams"]], ids=["sockets", "streams"])
def test_an_httpx_client(streams: list[str], backend: str, tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    write(tmp_path / "program.py", HTTPX)
    with echo_server() as url:
        result = start(*OURS, "--backend", backend, *streams, "program.py", url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["timed", "out", str(20 * 45 * 1000), backend]


APPLICATION = """
    import trio_backends
    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event["body"], event["more_body"]
        body = trio_backends.current_backend().encode() + b" " + body
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""
CLIENTS, REQUESTS = 20, 100


async def load(connect: Callable[[], Awaitable[trio.abc.Stream]], expected: bytes) -> int:
    """Requests of several clients, each with its own connection; how many answers were right."""
    right = 0

    async def client(number: int) -> None:
        nonlocal right
        body = b"%d" % number * 500
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        wanted = b"\r\n\r\n" + expected + b" " + body
        async with await connect() as stream:
            for _ in range(REQUESTS):
                await stream.send_all(request)
                got = b""
                while not got.endswith(wanted):
                    received = await stream.receive_some()
                    assert received, f"the connection ended after {got!r}"
                    got += received
                right += 1

    with trio.fail_after(LONGEST):
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(client, number)
    return right


def test_hypercorn_under_load(backend: str, tmp_path: Path) -> None:
    """Its Trio worker, which it runs in a process that multiprocessing spawns."""
    pytest.importorskip("hypercorn")
    write(tmp_path / "application.py", APPLICATION)
    address = tmp_path / "socket"
    command = [*OURS, "--backend", backend, "-m", "hypercorn", "--worker-class", "trio"]
    command += ["--bind", f"unix:{address}", "application:app"]

    async def connect() -> trio.abc.Stream:
        while True:
            try:
                return await trio.open_unix_socket(str(address))
            except OSError:
                await trio.sleep(0.02)

    log = tmp_path / "log"
    with open(log, "wb") as file:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=file, stderr=file
        )
    try:
        assert trio.run(load, connect, backend.encode()) == CLIENTS * REQUESTS
        server.terminate()
        assert server.wait(LONGEST) == 0, log.read_text()
    finally:
        server.kill()
        server.wait()

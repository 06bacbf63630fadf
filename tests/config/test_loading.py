"""What ``load`` makes of a file: settings, or a list of all that is wrong with it."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from pooler.config import ConfigError, PlainSecret, TcpAddress, UnixAddress, load

GOOD = """
[databases.bench]
[auth]
method = "trust"
"""


class Directory:
    """A directory in which configurations are tried."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def problems(self, text: str) -> list[str]:
        """What is wrong with a configuration, line by line, without the name of the directory."""
        file = self.path / "pooler.toml"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(file)
        lines = [str(problem) for problem in caught.value.problems]
        assert str(caught.value).splitlines() == lines
        return [line.replace(f"{self.path}/", "") for line in lines]

    def problem(self, pooler: str) -> str:
        """The one thing that is wrong with a line of [pooler], without its place."""
        [line] = self.problems(f"[pooler]\n{pooler}\n{GOOD}")
        assert line.startswith("pooler.toml:2: pooler")
        return line.removeprefix("pooler.toml:2: ")


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text('"alice" "hush"\n')
    file = tmp_path / "pooler.toml"
    file.write_text(
        """
        [pooler]
        listen = ["127.0.0.1:6432", "[::1]:6432", "/run/pooler"]
        mode = "session"
        max_servers = 7
        query_wait_timeout = 0.5
        [databases.bench]
        host = "/var/run/postgresql"
        dbname = "pgbench"
        user = "app"
        password = "hush"
        max_servers = 3
        [databases."*"]
        [auth]
        users_file = "users.txt"
        """
    )
    settings = load(str(file))
    assert settings.path == file
    assert settings.secrets == {"alice": PlainSecret(SecretStr("hush"))}
    assert settings.pooler.listen == (
        TcpAddress("127.0.0.1", 6432),
        TcpAddress("::1", 6432),
        UnixAddress("/run/pooler", 6432),
    )
    bench = settings.database("bench")
    assert bench is not None
    assert (bench.dbname, bench.user, bench.mode, bench.max_servers) == (
        "pgbench",
        "app",
        "session",
        3,
    )
    assert bench.password == SecretStr("hush")
    assert bench.query_wait_timeout == 0.5
    assert "hush" not in repr((settings, bench))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "max_clients = 0",
            "pooler.max_clients = 0: expected a whole number of clients from 1 to 1000000",
        ),
        (
            'max_clients = "100"',
            'pooler.max_clients = "100": expected a whole number of clients from 1 to 1000000',
        ),
        (
            "max_clients = true",
            "pooler.max_clients = true: expected a whole number of clients from 1 to 1000000",
        ),
        (
            "server_connect_timeout = 0",
            "pooler.server_connect_timeout = 0: expected a number of seconds above 0, "
            "up to 31536000",
        ),
        (
            "server_lifetime = inf",
            "pooler.server_lifetime = Infinity: expected a number of seconds from 0 to 31536000",
        ),
        (
            "buffer_high_water = 16383",
            "pooler.buffer_high_water = 16383: expected a whole number of bytes from 16384 to "
            "16777216",
        ),
        (
            "max_clients = 0x" + "f" * 5000,
            "pooler.max_clients = …: expected a whole number of clients from 1 to 1000000",
        ),
        ("log_connections = 1", "pooler.log_connections = 1: expected true or false"),
        (
            'mode = "Transacton"',
            'pooler.mode = "Transacton": '
            'expected "session", "transaction", "statement" or "passthrough"; '
            'did you mean "transaction"?',
        ),
        (
            'backend = "iouring"',
            'pooler.backend = "iouring": expected "auto", "io_uring", "kqueue" or "epoll"; '
            'did you mean "io_uring"?',
        ),
        (
            'log_level = "trace"',
            'pooler.log_level = "trace": expected "debug", "info", "warning" or "error"',
        ),
        ("max_client = 5", "pooler.max_client: unknown setting; did you mean max_clients?"),
        ("default_pool_size = 5", "pooler.default_pool_size: unknown setting; "
         "did you mean max_servers?"),
        ("users_file = 5", "pooler.users_file: unknown setting; did you mean auth.users_file?"),
        ("zzz = 5", "pooler.zzz: unknown setting"),
        (
            'listen = "127.0.0.1:6432"',
            'pooler.listen = "127.0.0.1:6432": '
            'expected a list of addresses, such as ["127.0.0.1:6432"]',
        ),
        ("listen = []", "pooler.listen: expected at least one address"),
        (
            "listen = [6432]",
            'pooler.listen[0] = 6432: expected "host:port", "[IPv6 address]:port" or "/directory"',
        ),
        (
            'listen = ["[::1]:1", "x"]',
            'pooler.listen[1] = "x": expected "host:port", "[IPv6 address]:port" or "/directory"',
        ),
        (
            'listen = ["[::1]:1", "[::1]:1"]',
            "pooler.listen: expected each address once; [::1]:1 is there twice",
        ),
        ("min_servers = 21", "pooler.min_servers: min_servers (21) is more than max_servers (20)"),
    ],
)  # fmt: skip
def test_a_bad_setting(directory: Directory, line: str, problem: str) -> None:
    assert directory.problem(line) == problem


def test_all_problems_at_once_in_their_order(directory: Directory) -> None:
    (directory.path / "users.txt").write_text('"a" "b"\n"c" "hush\n')
    assert directory.problems(
        """listen = ["x"]
[pooler]
mode = "query"
max_servers = 5
listen = [
  "127.0.0.1:1",
  "nowhere",
]
[poler]
[databases.one]
hots = "x"
min_servers = 6
[databases."t.w o"]
port = 0
[auth]
users_file = "users.txt"
"""
    ) == [
        "pooler.toml:1: listen: stands in no section; did you mean pooler.listen?",
        'pooler.toml:3: pooler.mode = "query": '
        'expected "session", "transaction", "statement" or "passthrough"',
        'pooler.toml:7: pooler.listen[1] = "nowhere": '
        'expected "host:port", "[IPv6 address]:port" or "/directory"',
        "pooler.toml:9: poler: unknown section; did you mean [pooler]?",
        "pooler.toml:11: databases.one.hots: unknown setting; did you mean host?",
        "pooler.toml:12: databases.one.min_servers: "
        "min_servers (6) is more than max_servers (5)",
        'pooler.toml:14: databases."t.w o".port = 0: expected a whole number from 1 to 65535',
        'users.txt:2: expected "name" "secret", each in quotes, a quote inside written as ""',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[auth]\nmethod = "trust"',
            "pooler.toml: databases: there must be a section [databases.NAME], at least one",
        ),
        (
            "databases = 3\n[auth]\nmethod = 'trust'",
            "pooler.toml:1: databases: expected a section for each database, [databases.NAME]",
        ),
        (
            "[databases]\nbench = 'host=db password=hush'\n[auth]\nmethod = 'trust'",
            "pooler.toml:2: databases.bench: "
            "expected a section for each database, [databases.NAME]",
        ),
        (
            "[database.bench]\n[auth]\nmethod = 'trust'",
            "pooler.toml:1: database: unknown section; did you mean [databases]?",
        ),
        (
            f"{GOOD}[databases.'']",
            'pooler.toml:5: databases."": '
            "expected a name, which is not empty and has no NUL character",
        ),
        (
            "pooler = 'hush'\n" + GOOD,
            "pooler.toml:1: pooler: expected a section, [pooler]",
        ),
        (
            "[databases.bench]",
            'pooler.toml: auth.users_file: is required for method = "scram-sha-256"',
        ),
        (
            '[databases.bench]\n[auth]\nmethod = "md5"',
            'pooler.toml:2: auth.users_file: is required for method = "md5"',
        ),
        (
            f"{GOOD}users_file = 'nowhere.txt'",
            "pooler.toml:5: auth.users_file: nowhere.txt: cannot be read: "
            "No such file or directory",
        ),
        (
            f"{GOOD}[databases.x]\npassword = 'hush'",
            "pooler.toml:6: databases.x.password: "
            "is of no use without the user whose password it is",
        ),
    ],
)
def test_what_no_setting_says_alone(directory: Directory, text: str, problem: str) -> None:
    assert directory.problems(text) == [problem]


@pytest.mark.parametrize(
    "line",
    [
        "password = 1234567",
        "user = 'u'\npassword = ['hush']",
        "pasword = 'hush'",
        "host = 'postgresql://u:hush@db/x'",
        "dbname = {password = 'hush'}",
        "mode = 'host=db password=hush'",
    ],
)
def test_no_password_is_repeated(directory: Directory, line: str) -> None:
    [problem] = directory.problems(f"{GOOD}[databases.x]\n{line}")
    assert "hush" not in problem
    assert "1234567" not in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[pooler]\nmode = transaction",
            "pooler.toml:2: not TOML: invalid value; a text stands in quotes",
        ),
        ("[pooler]\n\n[auth\n", "pooler.toml:3: not TOML: expected"),
        ("[a.'b c']\n[a.'b c']", 'pooler.toml:2: not TOML: section [a."b c"] stands there twice'),
        ("[pooler]\nmode = 1\nmode = 2", "pooler.toml:3: not TOML: cannot overwrite a value"),
        ("a = " + "[" * 5000, "pooler.toml: is nested too deeply"),
        ("a = " + "9" * 5000, "pooler.toml: not TOML: a number is too long"),
    ],
)
def test_what_is_not_toml(directory: Directory, text: str, problem: str) -> None:
    [found] = directory.problems(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[pooler]\nmode = '\xff'", "pooler.toml:2: is not UTF-8 text"),
        (b"#" * ((1 << 20) + 1), "pooler.toml: is larger than 1 MiB"),
    ],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, problem: str) -> None:
    file = tmp_path / "pooler.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == f"{tmp_path}/{problem}"


def test_users_that_are_no_text(directory: Directory) -> None:
    (directory.path / "users.txt").write_bytes(b'"a" "b"\n"c" "\xff"')
    assert directory.problems(f"{GOOD}users_file = 'users.txt'") == [
        "users.txt:2: is not UTF-8 text"
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "nowhere.toml")
    assert str(caught.value) == (
        f"{tmp_path}/nowhere.toml: cannot be read: No such file or directory"
    )


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "pooler.toml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert list(load(file).databases) == ["bench"]


def test_a_bad_value_cannot_forge_a_line(directory: Directory) -> None:
    problem = directory.problem('mode = "a\\nforged\\u001b[2J\\u2028"')
    assert problem.isprintable()

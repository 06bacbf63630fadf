import pytest

from pooler.config import TcpAddress, UnixAddress, parse_listen
from pooler.config.addresses import server_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6432", TcpAddress("127.0.0.1", 6432)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("db-1.example.org:65535", TcpAddress("db-1.example.org", 65535)),
        ("[::1]:6432", TcpAddress("::1", 6432)),
        ("/run/pooler", UnixAddress("/run/pooler", 6432)),
        ("/run/pooler/", UnixAddress("/run/pooler", 6432)),
        ("/run/pooler:5433", UnixAddress("/run/pooler", 5433)),
    ],
)
def test_what_can_be_listened_on(text: str, address: object) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '"host:port"'),
        ("127.0.0.1", '"host:port"'),
        ("::1:6432", '"host:port"'),
        ("run/pooler", '"host:port"'),
        ("localhost:65536", "a port from 0 to 65535"),
        ("localhost:６４３２", '"host:port"'),
        (":6432", "a host name"),
        ("local host:6432", "a host name"),
        ("127.0.0.256:6432", "an IPv4 address"),
        ("[localhost]:6432", "an IPv6 address"),
        ("*:6432", '"0.0.0.0:6432"'),
        ("/run/pooler:0", "a port from 1 to 65535"),
        ("/run/\0pooler", "no NUL"),
        ("/" + "x" * 100, "a shorter directory"),
    ],
)
def test_what_cannot_be_listened_on(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_listen(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("db", TcpAddress("db", 5432)),
        ("10.0.0.1", TcpAddress("10.0.0.1", 5432)),
        ("2001:db8::1", TcpAddress("2001:db8::1", 5432)),
        ("/var/run/postgresql", UnixAddress("/var/run/postgresql", 5432)),
    ],
)
def test_where_a_server_may_be(host: str, address: object) -> None:
    assert server_address(host, 5432) == address


@pytest.mark.parametrize("host", ["db:5432", "postgresql://u:hush@db", "host=db password=hush", ""])
def test_a_host_that_is_none_is_not_repeated(host: str) -> None:
    with pytest.raises(ValueError, match="expected a host") as caught:
        server_address(host, 5432)
    assert "hush" not in str(caught.value)


def test_an_address_reads_as_it_is_written() -> None:
    assert str(TcpAddress("::1", 6432)) == "[::1]:6432"
    assert str(TcpAddress("db", 6432)) == "db:6432"
    assert str(UnixAddress("/run/pooler", 6432)) == "/run/pooler/.s.PGSQL.6432"

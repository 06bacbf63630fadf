"""Where the pooler listens, and where a server does: a TCP port or the file of a Unix socket."""

import ipaddress
import os
import re
from dataclasses import dataclass

DEFAULT_PORT = 6432
# sun_path holds 108 bytes on Linux, 104 on the BSDs and macOS, with the NUL (unix(7), unix(4)).
LONGEST_UNIX_PATH = 103

_TCP = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_UNIX = re.compile(r"(?P<directory>/.*?)(?::(?P<port>[0-9]{1,5}))?", re.ASCII | re.DOTALL)
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name or IP address, IPv6 without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The directory of a Unix socket and the port that is part of the file's name."""

    directory: str
    port: int

    @property
    def path(self) -> str:
        """The socket's file, named as libpq looks for it: ``DIRECTORY/.s.PGSQL.PORT``."""
        return os.path.join(self.directory, f".s.PGSQL.{self.port}")

    def __str__(self) -> str:
        return self.path


Address = TcpAddress | UnixAddress


def parse_listen(text: str) -> Address:
    """``127.0.0.1:6432``, ``localhost:6432``, ``[::1]:6432``, ``/run/dir`` or ``/run/dir:5433``.

    TCP port 0 lets the kernel choose. Raises ValueError that says what is expected.
    """
    if text.startswith("/"):
        return _parse_unix(text)
    if text.startswith("*"):
        raise ValueError('expected an address: "0.0.0.0:6432" and "[::]:6432" are all interfaces')
    match = _TCP.fullmatch(text)
    if match is None:
        raise ValueError('expected "host:port", "[IPv6 address]:port" or "/directory"')
    port = _port(match["port"], lowest=0)
    if match["v6"] is not None:
        if not _is_ip(match["v6"], 6):
            raise ValueError('expected an IPv6 address between the brackets, such as "[::1]:6432"')
        return TcpAddress(match["v6"], port)
    return TcpAddress(_host_name(match["host"]), port)


def server_address(host: str, port: int) -> Address:
    """Where a server listens: *host* is a name, an IP address, or the directory of a Unix socket.

    Raises ValueError that says what is expected, and never repeats *host*: whoever writes a
    connection string there writes a password too.
    """
    if host.startswith("/"):
        return _unix(host, port)
    if "://" in host or "@" in host or "=" in host:
        raise ValueError("expected a host name, an IP address or a directory, no connection string")
    if ":" not in host:
        return TcpAddress(_host_name(host), port)
    if not _is_ip(host, 6):
        raise ValueError("expected a host without a port (which is a setting of its own)")
    return TcpAddress(host, port)


def _parse_unix(text: str) -> UnixAddress:
    match = _UNIX.fullmatch(text)
    if match is None:
        raise ValueError('expected "/directory" or "/directory:port"')
    port = DEFAULT_PORT if match["port"] is None else _port(match["port"], lowest=1)
    return _unix(match["directory"], port)


def _unix(directory: str, port: int) -> UnixAddress:
    if "\0" in directory:
        raise ValueError("expected a directory, which has no NUL character")
    address = UnixAddress(os.path.normpath(directory), port)
    if len(os.fsencode(address.path)) > LONGEST_UNIX_PATH:
        raise ValueError(
            f"expected a shorter directory: the path of a Unix socket, {address.path}, "
            f"may have {LONGEST_UNIX_PATH} bytes"
        )
    return address


def _port(digits: str, *, lowest: int) -> int:
    port = int(digits)
    if not lowest <= port <= 65535:
        raise ValueError(f"expected a port from {lowest} to 65535")
    return port


def _host_name(host: str) -> str:
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("expected a host name, an IP address or a directory")
    # A name of digits and dots only would be taken for something else by every resolver.
    if host.replace(".", "").isdigit() and not _is_ip(host, 4):
        raise ValueError("expected an IPv4 address of four numbers from 0 to 255")
    return host


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False

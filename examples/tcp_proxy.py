"""A TCP proxy: python examples/tcp_proxy.py PORT HOST HOST_PORT

Once two streams are joined no Python runs for their bytes.
"""

import sys
from contextlib import suppress

import trio

import trio_backends


async def main(port: int, host: str, host_port: int) -> None:
    async def proxy(client: trio_backends.EngineStream) -> None:
        with suppress(OSError, trio.BrokenResourceError):  # of one connection, not of the proxy
            async with client, await trio_backends.open_tcp_stream(host, host_port) as server:
                await trio_backends.relay(client, server)

    await trio_backends.serve_tcp(proxy, port)


if __name__ == "__main__":
    trio_backends.run(main, int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

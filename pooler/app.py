"""The composition root: from settings to a running pooler, and the exit status of the process."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator

import structlog
import trio

import trio_backends
from pooler import __version__, logs
from pooler.config import Settings, TcpAddress, UnixAddress
from pooler.service import Service
from trio_backends import BackendUnavailable, ContractBroken, EngineListener

log = structlog.get_logger()

LISTEN_BACKLOG = 4096  # the kernel takes net.core.somaxconn if that is less
# Descriptors beside those of clients: servers, listeners, the engine's own.
SPARE_DESCRIPTORS = 256
# How long PostgreSQL may take to cancel what it does for clients that were ended with the pooler.
ENDING_TIMEOUT = 2.0  # seconds
GC_THRESHOLDS = (50_000, 20, 100)


class StartFailed(Exception):
    """The pooler cannot start; the message is for its operator."""


async def _listen_tcp(address: TcpAddress, high_water: int) -> list[EngineListener]:
    try:
        found = await trio_backends.open_tcp_listeners(
            address.port,
            host=address.host,
            backlog=LISTEN_BACKLOG,
            high_water=high_water,
            until_data=True,
        )
    except OSError as error:
        reason = error.strerror or str(error.__cause__ or error)
        raise StartFailed(f"cannot listen on {address}: {reason}") from None
    return found


async def _listen_unix(address: UnixAddress, high_water: int) -> EngineListener:
    await _remove_stale_socket(address)
    try:
        return await trio_backends.open_unix_listener(
            address.path, mode=0o777, backlog=LISTEN_BACKLOG, high_water=high_water, until_data=True
        )
    except OSError as error:
        raise StartFailed(f"cannot listen on {address}: {error.strerror}") from None


async def _remove_stale_socket(address: UnixAddress) -> None:
    """A socket that nobody listens on is what a killed process left."""
    try:
        if not stat.S_ISSOCK(os.lstat(address.path).st_mode):
            raise StartFailed(f"cannot listen on {address}: there is a file that is no socket")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(address.path)
    except ConnectionRefusedError:
        os.unlink(address.path)
    else:
        raise StartFailed(f"cannot listen on {address}: another process listens there")
    finally:
        probe.close()


async def _listen(settings: Settings) -> list[EngineListener]:
    listeners: list[EngineListener] = []
    high_water = settings.pooler.buffer_high_water
    try:
        for address in settings.pooler.listen:
            if isinstance(address, UnixAddress):
                listeners.append(await _listen_unix(address, high_water))
            else:
                listeners += await _listen_tcp(address, high_water)
    except BaseException:
        _close(listeners)
        raise
    return listeners


def _close(listeners: list[EngineListener]) -> None:
    for listener in listeners:
        listener.close()
        if isinstance(listener.name, str) and listener.name:
            # The next start finds no stale socket.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(listener.name)


def _raise_descriptor_limit(settings: Settings) -> None:
    """Each client and server takes a descriptor; the soft limit is often 1,024."""
    wanted = settings.pooler.max_clients + settings.pooler.max_logins + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    if reachable < wanted:
        log.warning(
            "the limit of open files is too low for max_clients and max_logins",
            limit=reachable,
            wanted=wanted,
        )


def _tune(settings: Settings) -> None:
    """The process: its place in the scheduler, its garbage collector."""
    if settings.pooler.scheduling == "batch" and hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # forbidden in some containers; nothing depends on it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Sessions leave no cycles behind, and there may be tens of thousands: looking through all of
    # them often would cost more than anything else that Python does here.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _announce(listeners: list[EngineListener]) -> None:
    manager = trio_backends.current_manager()
    passed_over = "; ".join(f"no {name}: {why}" for name, why in manager.passed_over.items())
    log.info(
        "trio-pooler is ready",
        version=__version__,
        backend=manager.backend,
        **({"because": passed_over} if passed_over else {}),
        listen=", ".join(_shown(listener) for listener in listeners),
    )


def _shown(listener: EngineListener) -> str:
    name = listener.name
    if isinstance(name, str):
        return name
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


async def _end_on_signals(
    signals: AsyncIterator[int], service: Service, accepting: trio.CancelScope, timeout: float
) -> None:
    """The first signal drains; then, or with the second, whoever is left is ended. Returns then."""
    number = await anext(signals)
    log.info("signal received", signal=signal.Signals(number).name)
    accepting.cancel()
    async with trio.open_nursery() as nursery:

        async def second() -> None:
            number = await anext(signals)
            log.info("second signal received: ending at once", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()

        nursery.start_soon(second)
        with trio.move_on_after(timeout):
            await service.drain()
        nursery.cancel_scope.cancel()
    with trio.move_on_after(ENDING_TIMEOUT):
        await service.end()


async def _main(settings: Settings) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        listeners = await _listen(settings)
        try:
            async with trio.open_nursery() as nursery:
                service = Service(settings, nursery)
                accepting = trio.CancelScope()

                async def accept() -> None:
                    with accepting:
                        await service.run(listeners)
                    _close(listeners)

                nursery.start_soon(accept)
                _announce(listeners)
                timeout = settings.pooler.shutdown_timeout
                await _end_on_signals(signals, service, accepting, timeout)
                service.directory.stop_opening()
                nursery.cancel_scope.cancel()
        finally:
            _close(listeners)
    log.info("trio-pooler has ended")


def run(settings: Settings) -> int:
    """Runs the pooler until a signal ends it; returns the exit status of the process.

    0: it ended in good order; 1: it could not start, which standard error says in one line.
    """
    logs.configure(settings.pooler.log_level, settings.pooler.log_format)
    _raise_descriptor_limit(settings)
    _tune(settings)
    try:
        trio_backends.run(_main, settings, backend=settings.pooler.backend)
    except (BackendUnavailable, ContractBroken, StartFailed) as error:
        print(f"trio-pooler: {error}", file=sys.stderr)
        return 1
    return 0

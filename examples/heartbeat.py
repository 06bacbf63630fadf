"""Ticks and signals: python examples/heartbeat.py [SECONDS]

Says each period what has gone through the engine; SIGTERM and Ctrl-C end it.
"""

import signal
import sys

import trio

import trio_backends


async def beat(seconds: float) -> None:
    async for tick in trio_backends.every(seconds):
        late = trio.current_time() - tick.scheduled
        waits = trio.lowlevel.current_statistics().io_statistics.waits
        print(f"beat {tick.number}: {late:.6f} s late, {tick.missed} missed, {waits} waits")


async def main(seconds: float) -> None:
    with trio_backends.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat, seconds)
            print("ends with", signal.Signals(await anext(signals)).name, flush=True)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio_backends.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)

"""How late the event loop is: what everybody waits who speaks to the aggregator."""

import asyncio

from prometheus_client import Gauge

STEP_S = 0.05
PERIOD_S = 10.0


async def watch_loop(most_seconds: Gauge) -> None:
    """Keep the largest delay of this period and the one before in `most_seconds`, until
    cancelled."""
    loop = asyncio.get_running_loop()
    before = most = 0.0
    began = loop.time()
    while True:
        due = loop.time() + STEP_S
        await asyncio.sleep(STEP_S)
        most = max(most, loop.time() - due)
        most_seconds.set(max(before, most))
        if loop.time() - began > PERIOD_S:
            before, most, began = most, 0.0, loop.time()

"""Looks for what a collector has in the kernel while it runs and after; prints JSON."""

import json
import os
import time
from collections import Counter

from node_agent.collectors.cpu import CpuCollector
from node_agent.kernel.remains import survey

collector = CpuCollector(99, 1000, 10)
before = survey()
collector.start()
running = survey()
collector.stop()
end = time.monotonic() + 300
after = survey()
while not after.is_clean and time.monotonic() < end:
    time.sleep(0.2)  # the kernel frees programs after a grace period
    after = survey()
found = {
    "release": os.uname().release,
    "before": before,
    "running": Counter(remnant.kind for remnant in running.found),
    "events": sum(remnant.id for remnant in running.found if remnant.kind == "events"),
    "is_mine": running.holders == {os.getpid()},
    "after": after,
}
print(json.dumps(found))

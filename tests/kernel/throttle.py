"""Lowers the kernel's limit of samples under a running collector; prints JSON.

Only for a machine of one's own: run inside an emulated one. That may be too busy for the full rate,
so what is more than the limit allows is waited for.
"""

import json
import os
import time

from node_agent.collectors.cpu import CpuCollector
from node_agent.collectors.rate import MAX_SAMPLE_RATE, effective_rate_hz, explain_rate

RATE_HZ = 999
ALLOWED_HZ = 300  # under the limit it is less
LIMIT_S = 300


def measure(collector: CpuCollector) -> float:
    collector.take_interval()
    time.sleep(2)
    return effective_rate_hz(collector.take_interval(), os.cpu_count() or 1)


collector = CpuCollector(RATE_HZ, 10_000, 10)
collector.start()
end = time.monotonic() + LIMIT_S
free = measure(collector)
while free <= ALLOWED_HZ and time.monotonic() < end:
    free = measure(collector)
limit = MAX_SAMPLE_RATE.read_text()
MAX_SAMPLE_RATE.write_text("100")
throttled = measure(collector)
words = explain_rate(RATE_HZ, throttled)
collector.stop()
MAX_SAMPLE_RATE.write_text(limit)  # other probes follow
found = {"release": os.uname().release, "free": free, "throttled": throttled, "words": words}
print(json.dumps(found))

"""Takes the second CPU away under a running collector and brings it back; prints JSON.

Only for a machine of one's own: run inside an emulated one. That may be too busy to interrupt both
CPUs as often as it should, so with both it is waited for.
"""

import json
import os
import time
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector

OF_BOTH_HZ = 130  # more than one CPU gives
LIMIT_S = 300
SWITCH = Path("/sys/devices/system/cpu/cpu1/online")


def interrupts_a_second(collector: CpuCollector) -> float:
    collector.take_interval()
    time.sleep(1)
    interval = collector.take_interval()
    return interval.interrupts / interval.duration_ns * 1e9


collector = CpuCollector(99, 10_000, 10)
collector.start()
rates = []
for state in ("", "0", "1"):
    if state:
        SWITCH.write_text(state)
    limit = time.monotonic() + (0 if state == "0" else LIMIT_S)
    rates.append(interrupts_a_second(collector))
    while rates[-1] <= OF_BOTH_HZ and time.monotonic() < limit:
        rates[-1] = interrupts_a_second(collector)
collector.stop()
print(json.dumps({"release": os.uname().release, "rates": rates}))

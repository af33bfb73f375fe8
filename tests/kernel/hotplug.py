"""Takes the second CPU away under a running collector and brings it back; prints JSON.

Only for a machine of one's own: run inside an emulated one.
"""

import json
import os
import time
from pathlib import Path

from node_agent.collectors.cpu import CpuCollector

SWITCH = Path("/sys/devices/system/cpu/cpu1/online")


def interrupts_a_second(collector: CpuCollector) -> float:
    collector.take_interval()
    time.sleep(1)
    interval = collector.take_interval()
    return interval.interrupts / interval.duration_ns * 1e9


collector = CpuCollector(99, 10_000, 10)
collector.start()
rates = [interrupts_a_second(collector)]
for state in ("0", "1"):
    SWITCH.write_text(state)
    rates.append(interrupts_a_second(collector))
collector.stop()
print(json.dumps({"release": os.uname().release, "rates": rates}))

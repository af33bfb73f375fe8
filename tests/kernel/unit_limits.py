"""Processes that meet the limits of a version 2 control group; prints JSON of what it tells.

Only for a machine of one's own: run inside an emulated one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from node_agent.overhead.unit_limits import LimitTeller, read_unit

ROOT = Path("/sys/fs/cgroup")
GROUP = ROOT / "flamefleet-sampler.service"
LIMITS = {"cpu.max": "20000 100000", "memory.high": str(24 << 20), "memory.max": str(48 << 20)}
LIBRARIES = [path for path in Path("/usr/lib").rglob("*.so*") if path.is_file()]
ENTER = f"open('{GROUP}/cgroup.procs', 'w').write('0'); "
BUSY = ENTER + "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
# what the kernel can take back: beyond memory.high a process is slowed down until it has
READER = ENTER + f"[open(path, 'rb').read() for path in {sorted(map(str, LIBRARIES))}]"
GREEDY = ENTER + "blocks = []\nwhile True: blocks.append(b'1' * (1 << 20))"
# what is lifted before: the quota would only take time, and memory.high would keep from memory.max
STEPS = ((BUSY, ""), (READER, "cpu.max"), (GREEDY, "memory.high"))

for control in ("+cpu", "+memory"):
    (ROOT / "cgroup.subtree_control").write_text(control)
GROUP.mkdir()
for name, value in LIMITS.items():
    (GROUP / name).write_text(value)
teller = LimitTeller("the sampler")
states, told = [read_unit(GROUP)], []
teller.note(states[0], 0.0)
for number, (code, lifted) in enumerate(STEPS, 1):
    if lifted:
        (GROUP / lifted).write_text("max")
    ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
    states.append(read_unit(GROUP))
    met = teller.note(states[-1], number * 1000.0)
    told.append({"ended": ended, "met": {one.reason: one.words for one in met}})
found = {
    "release": os.uname().release,
    "states": [state._asdict() for state in states],
    "told": told,
    "files": {name: (GROUP / name).read_text() for name in ("cpu.stat", "memory.events")},
}
print(json.dumps(found))

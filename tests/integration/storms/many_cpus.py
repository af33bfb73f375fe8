"""The agent on a host of as many CPUs as the first argument says, on one that has fewer.

Real: the kernel program, its maps and ring buffer (as large as that many CPUs would have them),
the interrupts, everything in user space. Simulated: each CPU that is not there is one more
sampling event on one that is, and the budget's denominator. So a real CPU carries the interrupts
of many, and everything that is sampled runs on the real ones.
"""

import sys

import node_agent.collectors.beginning
import node_agent.commands.run  # with it, everything that asks how many CPUs there are
import node_agent.sampler.loop
from node_agent.cli import main
from node_agent.kernel import cpus, perf_event

real = cpus.online_cpus()
simulated = tuple(range(int(sys.argv.pop(1))))
open_real_clock = perf_event.open_cpu_clock


def open_cpu_clock(rate_hz: int, cpu: int, pid: int = -1) -> int:
    return open_real_clock(rate_hz, real[cpu % len(real)] if cpu >= 0 else cpu, pid)


perf_event.open_cpu_clock = open_cpu_clock
# Wherever a module took the name over; what the kernel writes for each CPU stays as it is.
kept = {"node_agent.kernel.cpus", "node_agent.kernel.maps"}
for name, module in list(sys.modules.items()):
    if name.startswith("node_agent.") and name not in kept:
        for counted in ("online_cpus", "possible_cpus"):
            if hasattr(module, counted):
                setattr(module, counted, lambda: simulated)
# The maps' sizes, the events and the governor's denominator are what the storm is about.
assert node_agent.collectors.beginning.possible_cpus() == simulated
assert node_agent.sampler.governing.online_cpus() == simulated
sys.exit(main(sys.argv[1:]))

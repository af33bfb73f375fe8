"""The agent on a host of as many CPUs as the first argument says, on one that has fewer.

Real: the kernel program, its maps and ring buffer (as large as that many CPUs would have them),
the interrupts, everything in user space. Simulated: each CPU that is not there is one more
sampling event on one that is, and the budget's denominator. So a real CPU carries the interrupts
of many, and everything that is sampled runs on the real ones.
"""

import sys

import node_agent.collectors.cpu
import node_agent.overhead.meter
import node_agent.sampler.governing
import node_agent.sampler.intake
import node_agent.sampler.status
from node_agent.cli import main
from node_agent.kernel import cpus, perf_event

real = cpus.online_cpus()
simulated = tuple(range(int(sys.argv.pop(1))))
open_real_clock = perf_event.open_cpu_clock


def open_cpu_clock(rate_hz: int, cpu: int, pid: int = -1) -> int:
    return open_real_clock(rate_hz, real[cpu % len(real)] if cpu >= 0 else cpu, pid)


perf_event.open_cpu_clock = open_cpu_clock
for module in (
    node_agent.collectors.cpu,
    node_agent.overhead.meter,
    node_agent.sampler.governing,
    node_agent.sampler.intake,
    node_agent.sampler.status,
):
    module.online_cpus = lambda: simulated
node_agent.collectors.cpu.possible_cpus = lambda: simulated  # for the maps' sizes
sys.exit(main(sys.argv[1:]))

"""How many samples the kernel really takes: it throttles, and it misses ticks.

Weights stay count / rate as asked for; what was missed is coverage (see docs on overhead), so it
is shown beside the rate and never multiplied in.
"""

from pathlib import Path

from node_agent.collectors.stacks import Interval

MAX_SAMPLE_RATE = Path("/proc/sys/kernel/perf_event_max_sample_rate")
NOTICED_BELOW = 0.9  # of the rate: less is timer noise


def effective_rate_hz(interval: Interval, cpus: int) -> float:
    """Sampling interrupts a second and CPU, those of idle CPUs included."""
    return interval.interrupts / max(interval.duration_ns, 1) * 1e9 / max(cpus, 1)


def explain_rate(rate_hz: int, effective_hz: float) -> str:
    """Why `effective_hz` is below `rate_hz`, in words; empty where it is not."""
    if effective_hz >= NOTICED_BELOW * rate_hz:
        return ""
    shown = f"{effective_hz:.0f} of {rate_hz} samples a second and CPU"
    try:
        limit = int(MAX_SAMPLE_RATE.read_text())
    except (OSError, ValueError):
        limit = rate_hz
    if limit < rate_hz:
        return f"{shown}: the kernel throttles, kernel.perf_event_max_sample_rate is {limit}"
    return f"{shown}: the others never came (CPUs that slept, a busy or an emulated machine)"

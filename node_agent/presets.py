"""Presets: sampling rate, overhead budget and collectors for a kind of environment.

The rates are odd, so that sampling does not march in step with timers of 10, 50 or 100 Hz.
"""

from typing import NamedTuple

from node_agent.errors import ConfigError

CPU_ONLY = ("cpu",)
EVERY_COLLECTOR = ("cpu",)  # grows with the modules of node_agent/collectors
DEFAULT_PRESET = "production"


class Preset(NamedTuple):
    """What a preset decides. The budget is overhead CPU in percent of the host; the head start is
    CPU time for names and unwind rows of a host that is seen for the first time, beyond it."""

    name: str
    rate_hz: int
    budget_percent: float
    head_start_s: float
    collectors: tuple[str, ...]


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("production", 19, 0.5, 0.0, CPU_ONLY),
        Preset("staging", 49, 1.0, 0.0, CPU_ONLY),
        Preset("development", 99, 1.0, 8.0, EVERY_COLLECTOR),
        Preset("debug", 199, 2.0, 8.0, EVERY_COLLECTOR),
    )
}
ALIASES = {"prod": "production", "dev": "development"}


def find_preset(env: str) -> Preset:
    """The preset named `env` (an alias counts, case does not). Raises ConfigError."""
    name = env.strip().lower()
    preset = PRESETS.get(ALIASES.get(name, name))
    if preset is None:
        from difflib import get_close_matches

        near = get_close_matches(name, [*PRESETS, *ALIASES], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"preset is {env!r}; it must be one of {', '.join(PRESETS)} "
            f"(or {', '.join(ALIASES)}){hint}"
        )
    return preset


def recommended_sample_rate(env: str) -> int:
    """Samples a second and CPU for environment `env`. Raises ConfigError when it is unknown."""
    return find_preset(env).rate_hz

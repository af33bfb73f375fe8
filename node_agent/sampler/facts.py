"""What every batch of a run says about how it was sampled."""

import os
from collections.abc import Iterator

from node_agent.collectors.cpu import CpuCollector
from node_agent.config import AgentConfig
from wire.fit import fit_text

MAX_FACT_BYTES = 200


def mode_facts(collector: CpuCollector) -> dict[str, str]:
    """How the program was loaded, and why not in a better way."""
    facts = {"mode": collector.mode}
    if collector.mode_reasons:
        reasons = (f"{mode}: {why}" for mode, why in collector.mode_reasons.items())
        facts["mode_reason"] = clip("; ".join(reasons))
    return facts


def config_facts(config: AgentConfig) -> Iterator[tuple[str, str]]:
    """How it was asked for, and what it runs on."""
    yield "kernel", os.uname().release
    yield "preset", config.preset
    yield "machine", os.uname().machine
    yield "asked_hz", str(config.rate_hz)
    yield "budget_percent", f"{config.budget_percent:g}"
    yield "budget_user_percent", f"{config.budget_user_percent:g}"


def clip(text: str) -> str:
    """At most MAX_FACT_BYTES of `text`, as the centre wants facts."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return fit_text(printable, MAX_FACT_BYTES)

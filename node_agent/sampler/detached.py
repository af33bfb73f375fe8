"""What a run does that the breaker keeps from sampling: it says so, everywhere it can."""

import os
import time
from pathlib import Path

from node_agent import VERSION
from node_agent.breaker import Opened, closes
from node_agent.config import AgentConfig
from node_agent.errors import SpoolError
from node_agent.kernel.cpus import online_cpus
from node_agent.log import Log
from node_agent.sampler.facts import clip
from node_agent.sampler.notify import Notifier
from node_agent.spool import Spool
from wire.schema import Batch, Overhead


def report_detached(
    config: AgentConfig, spool: Spool, opened: Opened, notifier: Notifier, file: Path
) -> None:
    """The log, systemd, the status file, and a batch without samples for the centre. Removing
    `file`, the breaker's memory, closes it too."""
    words = f"stays detached: {opened.words}"
    notifier.send(f"STATUS={words}")
    lines = Log("run")
    remedy = f"{closes(opened)} So does removing {file}."
    lines.error("detached", words, reason=opened.reason, remedy=remedy)
    status = {
        "at": time.time(),
        "pid": os.getpid(),
        "state": "detached",
        "version": VERSION,
        "preset": config.preset,
        "rate_hz": config.rate_hz,
        "interval_s": config.interval_s,
        "breaker": breaker_status(opened),
        "error": words,
    }
    try:
        spool.write_status("sampler", status)
        spool.put_batch(empty_batch(config, breaker_facts(opened)), None)
    except SpoolError as error:
        lines.error("spool", f"not reported: {error}")


def breaker_status(opened: Opened) -> dict[str, str | float]:
    """For the status file."""
    return {
        "reason": opened.reason,
        "words": opened.words,
        "at": opened.at,
        "closes": closes(opened),
    }


def breaker_facts(opened: Opened) -> dict[str, str]:
    """For a batch."""
    return {"breaker": clip(f"{opened.reason}: {opened.words}")}


def empty_batch(config: AgentConfig, facts: dict[str, str]) -> Batch:
    """A run of its own that has seen nothing, for what its facts say."""
    return Batch(
        node=config.name,
        run=os.urandom(16),
        sequence=1,
        start_ns=time.time_ns(),
        duration_ns=1,
        rate_millihertz=config.rate_hz * 1000,
        collector="cpu",
        online_cpus=len(online_cpus()),
        series=[],
        stack_hashes=b"",
        series_index=b"",
        counts=b"",
        lost={},
        overhead=Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0),
        agent_version=VERSION,
        facts={
            "kernel": os.uname().release,
            "preset": config.preset,
            "machine": os.uname().machine,
            **facts,
        },
    )

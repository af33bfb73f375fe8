"""status/sampler.json: what `flamefleet-agent status` shows of the sampler."""

import os
import time
from typing import Any

import msgspec

from node_agent import VERSION
from node_agent.capabilities import degradations, read_sets
from node_agent.collectors.rate import effective_rate_hz, explain_rate
from node_agent.collectors.stacks import Interval
from node_agent.config import AgentConfig
from node_agent.errors import SpoolError
from node_agent.kernel.cpus import online_cpus
from node_agent.log import Log
from node_agent.overhead import ShipperUsage
from node_agent.overhead.meter import get_overhead, note_sampling
from node_agent.sampler.governing import Governing
from node_agent.sampler.intake import Intake
from node_agent.sampler.on_demand import OnDemand
from node_agent.sampler.warnings import UnitWarnings
from node_agent.spool import Spool

MAX_REPORT_BYTES = 64 << 10  # of a shipper: JSON of a megabyte can take forty in memory
MAX_USAGE = 1 << 60  # of a shipper: sums with it still fit the wire's 2**62
FRESH_S = 60.0  # an older report is of a shipper that no longer runs


class SamplerStatus:
    """Collects and writes it; a spool that can't be written is no reason to stop."""

    def __init__(
        self,
        config: AgentConfig,
        spool: Spool,
        intake: Intake,
        governing: Governing,
        on_demand: OnDemand,
        units: UnitWarnings,
    ) -> None:
        self._units = units
        self._log = Log("run")
        self._config = config
        self._spool = spool
        self._intake = intake
        self._governing = governing
        self._on_demand = on_demand
        self._state = "starting"
        self._interval: dict[str, Any] = {}
        self._effective_rate_hz: float | None = None
        self._rate_words = ""
        self._overhead: dict[str, Any] = {}
        self._error = ""
        self._degraded = degradations(read_sets())
        self._samples = 0
        self._lost: dict[str, int] = {}

    def note(self, interval: Interval, interval_rate_hz: int, error: str) -> None:
        """An interval has ended, sampled at `interval_rate_hz`, and its cost is measured."""
        self._state = "sampling"
        self._samples += interval.samples
        for reason, count in interval.lost.items():
            self._lost[reason] = self._lost.get(reason, 0) + count
        self._interval = {
            "samples": interval.samples,
            "rows": len(interval.counts),
            "lost": interval.lost,
            "skipped": interval.skipped,
            "stack_ends": self._intake.stack_ends,
            "duration_ns": interval.duration_ns,
            "kernel_ns": interval.kernel_ns,
        }
        effective_hz = effective_rate_hz(interval, len(online_cpus()))
        self._effective_rate_hz = round(effective_hz, 1)
        self._rate_words = explain_rate(interval_rate_hz, effective_hz)
        given_up = self._governing.status()
        asked_hz, lost = self._governing.asked_hz, interval.lost
        note_sampling(
            asked_hz, self._effective_rate_hz, lost, given_up["shed"], given_up["shed_since"]
        )
        self._overhead = msgspec.to_builtins(get_overhead())
        self._error = error
        self.write()

    def stopped(self) -> None:
        """The last word of this run."""
        self._state = "stopped"
        self.write()

    def write(self) -> None:
        """Write the status file."""
        try:
            self._spool.write_status("sampler", self.content())
        except SpoolError as error:
            self._log.warning("status", f"no status: {error}")

    def content(self) -> dict[str, Any]:
        """The content of the file; times are Unix seconds, counters since the start of the run."""
        intake = self._intake
        return {
            "at": time.time(),
            "pid": os.getpid(),
            "state": self._state,
            "version": VERSION,
            "mode": intake.facts["mode"],
            "mode_reason": intake.facts.get("mode_reason", ""),
            "collectors": ["cpu"],
            "preset": self._config.preset,
            "rate_hz": self._config.rate_hz,
            "asked_rate_hz": self._governing.asked_hz,
            "effective_rate_hz": self._effective_rate_hz,
            "rate_words": self._rate_words,
            "interval_s": self._config.interval_s,
            "run": intake.run.hex(),
            "sequence": intake.sequence,
            "started_at": intake.started_at,
            "samples": self._samples,
            "lost": self._lost | intake.lost,
            "interval": self._interval,
            "overhead": self._overhead,
            "unwind": intake.unwinder.status() if intake.unwinder is not None else None,
            "python": intake.programs.status() if intake.programs is not None else None,
            **self._governing.status(),
            "units": self._units.status(),
            "events": {"waiting": len(intake.events), "dropped": intake.events.dropped},
            "on_demand": self._on_demand.status(),
            "children": intake.children.status(),
            "unplaced": intake.normalizer.counts | intake.registry.lost,
            "faults": dict(intake.faults.counts),
            "labels_folded": intake.identities.folded,
            "definitions_deferred": intake.definitions.deferred,
            "caches": intake.forgetting.lengths(),
            "extracts": {**intake.extractor.counts, "pending": intake.extractor.pending},
            "extract_error": intake.extractor.last_error,
            "dropped": dict(self._spool.dropped),
            "degraded": self._degraded,
            "error": self._error,
        }


def read_shipper_report(spool: Spool) -> dict[str, Any] | None:
    """The shipper's newest report of itself; None when there is none or it is old."""
    status = spool.read_status("shipper", MAX_REPORT_BYTES)
    try:
        if status is None or time.time() - float(status["at"]) > FRESH_S:
            return None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return status


def parse_shipper_usage(report: dict[str, Any] | None) -> ShipperUsage | None:
    """What the shipper uses, as its `report` says; None where it does not."""
    if report is None:
        return None
    try:
        usage = report["usage"]
        numbers = [int(usage[name]) for name in ("pid", "cpu_ns", "memory_bytes")]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    # Another user's words: what no process can have used would not even fit the message.
    return ShipperUsage(*numbers) if all(0 <= number < MAX_USAGE for number in numbers) else None

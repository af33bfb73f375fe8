"""The governor at work: measures, decides, changes what the sampler does, and says so."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from node_agent.capabilities import KERNEL_PROGRAMS, using
from node_agent.collectors.stacks import Interval
from node_agent.config import AgentConfig
from node_agent.kernel.cpus import online_cpus
from node_agent.kernel.errors import KernelError
from node_agent.log import Log
from node_agent.overhead.governor import RATES_HZ, Governor
from node_agent.overhead.levels import Budget, Step
from node_agent.sampler.events import Events
from node_agent.sampler.features import Feature
from node_agent.sampler.spending import Spending
from node_agent.sampler.steps import Steps
from wire.schema import Overhead


class Adjustable(Protocol):
    """What can be changed while it samples (see node_agent.collectors.cpu.CpuCollector)."""

    @property
    def rate_hz(self) -> int: ...

    def set_rate(self, rate_hz: int) -> None: ...

    def drop_interval(self) -> int: ...


class _Request(NamedTuple):
    rate_hz: int
    until_s: float  # monotonic


class Governing:
    """Keeps one run inside its budget. What Spending leaves out stays in the overhead that is
    shown."""

    def __init__(
        self,
        config: AgentConfig,
        collector: Adjustable,
        features: Sequence[Feature] = (),
        events: Events | None = None,
        ceiling_hz: int = RATES_HZ[0],
        log: Log | None = None,
    ) -> None:
        """`features` are what may be given up; every step becomes one of `events`. `ceiling_hz`
        bounds what `ask` may ask for; the configured rate always may."""
        self._features = {feature.name: feature for feature in features}
        self._log = log or Log("run")
        self._steps = Steps(Events() if events is None else events, self._log)
        self.ceiling_hz = max(ceiling_hz, config.rate_hz)
        self._config = config
        budget = Budget(config.budget_percent, config.budget_user_percent)
        self._governor = Governor(
            config.rate_hz, budget, tuple(self._features), cpus=len(online_cpus())
        )
        given_up = [feature.name for feature in features if not feature.is_on]
        self._governor.go_on_at(collector.rate_hz, given_up, time.monotonic())
        self.asked_hz = config.rate_hz  # at present: the configured one, or that of `ask`
        if collector.rate_hz > config.rate_hz:  # for the process before this one: until is_due
            self.asked_hz = collector.rate_hz
            self._governor.ask(collector.rate_hz, time.monotonic())
        self._request: _Request | None = None
        self._collector = collector
        self._spending = Spending(config.interval_s)
        self._dropped = 0  # samples between the end of an interval and a change of the rate

    def ask(self, rate_hz: int | None, until_s: float) -> None:
        """Have `rate_hz`, at most `ceiling_hz`, take the place of the configured rate until
        `until_s` (time.monotonic()); None takes it back. The governor rules it like that one, and
        where something is given up it has to wait for room. It comes into force with the next
        `end_interval`, which is then due (`is_due`)."""
        self._request = (
            None if rate_hz is None else _Request(min(rate_hz, self.ceiling_hz), until_s)
        )

    @property
    def is_due(self) -> bool:
        """Whether the running interval should end now, since another rate is asked for."""
        return self._wanted_hz() != self.asked_hz

    @property
    def interval_s(self) -> float:
        """How long the running interval should be: the maps are made for the configured rate, with
        room for twice as many samples."""
        share = 2 * self._config.rate_hz / self.rate_hz
        return self._config.interval_s * min(1.0, share)

    def _wanted_hz(self) -> int:
        if self._request is not None and time.monotonic() >= self._request.until_s:
            self._request = None
        return self._config.rate_hz if self._request is None else self._request.rate_hz

    @property
    def rate_hz(self) -> int:
        """At which the running interval is sampled; in a pause, the one that is left out."""
        return self._governor.level.rate_hz or self._governor.lowest_hz

    def booked(self, interval: Interval) -> Interval:
        """`interval`, with what a pause and a change of the rate left out counted as lost."""
        missed = {"rate_change": self._dropped} if self._dropped else {}
        self._dropped = 0
        if not self._governor.level.rate_hz:
            ticks = self.rate_hz * len(online_cpus()) * interval.duration_ns / 1e9
            missed["paused"] = round(ticks)
        return replace(interval, lost=interval.lost | missed) if missed else interval

    def end_interval(self, overhead: Overhead, interval: Interval, late_ns: int = 0) -> None:
        """React to what `interval`, which just ended, cost; `late_ns`: see Spending.add."""
        features = self._feature_percents(overhead, interval.duration_ns)
        cost = self._spending.add(overhead, interval.duration_ns, features, late_ns)
        now_s = time.monotonic()
        self._take(
            self._governor.watch_memory(overhead.memory_bytes, now_s)
            if cost is None
            else self._governor.observe(cost, now_s)
        )
        wanted_hz = self._wanted_hz()
        if wanted_hz != self.asked_hz:
            self.asked_hz = wanted_hz
            self._spending.forget()
            self._take(self._governor.ask(wanted_hz, time.monotonic()))

    def _feature_percents(self, overhead: Overhead, duration_ns: int) -> dict[str, float]:
        """Of the host; only what was on all the time, which is what is on now."""
        whole_ns = len(online_cpus()) * max(duration_ns, 1)
        return {
            name: 100 * feature.cost_ns(overhead) / whole_ns
            for name, feature in self._features.items()
            if name not in self._governor.level.shed
        }

    def _take(self, step: Step | None) -> None:
        if step is None:
            return
        try:
            with using(*KERNEL_PROGRAMS):
                self._turn_features(step.before.shed, step.after.shed)
                if step.before.rate_hz != step.after.rate_hz:
                    self._change_rate(step.before.rate_hz, step.after.rate_hz)
        except KernelError as error:
            self._governor.level = step.before
            words = f"the governor cannot go to {step.after.words}: {error}"
            self._log.error("governor_failed", words, remedy=error.remedy)
            return
        self._steps.tell(step)

    def _turn_features(self, before: Sequence[str], after: Sequence[str]) -> None:
        for name in before:
            if name not in after:
                self._features[name].turn(True)
        for name in after:
            if name not in before:
                self._features[name].turn(False)

    def _change_rate(self, before_hz: int, after_hz: int) -> None:
        """Every interval has one rate, by which its samples are weighed: those taken since the
        last one ended (some milliseconds) belong to neither and are dropped, counted."""
        self._collector.set_rate(0)
        self._dropped += self._collector.drop_interval()
        try:
            self._collector.set_rate(after_hz)
        except KernelError:
            self._collector.set_rate(before_hz)
            raise

    @property
    def facts(self) -> dict[str, str]:
        """For the batches, while something is given up."""
        if self._governor.since_s is None:
            return {}
        since_s = self._shed_since() or time.time()
        return self._steps.facts(self._governor.level.words, self._shed(), since_s)

    def status(self) -> dict[str, Any]:
        """For the status file: times are Unix seconds; `shed` is what is given up at present."""
        return {
            "shed": self._shed(),
            "shed_since": self._shed_since(),
            "governor": self._steps.status(),
        }

    def _shed(self) -> list[str]:
        level = self._governor.level
        shed = []
        if level.rate_hz == 0:
            shed.append("sampling (paused)")
        elif level.rate_hz < self.asked_hz:
            shed.append(f"rate ({level.rate_hz} of {self.asked_hz} Hz)")
        return shed + list(level.shed)

    def _shed_since(self) -> float | None:
        since_s = self._governor.since_s
        return None if since_s is None else time.time() - (time.monotonic() - since_s)

"""Profiles on demand: the centre asks for a higher rate for some minutes, this obeys within limits.

A profile begins and ends at a whole PROFILE_STEP_S of Unix time, and the running interval ends
there. The centre files batches by such steps, so the batches between both moments are exactly the
profile's. What it asks for takes the place of the configured rate; the governor rules it as that.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from node_agent.config import AgentConfig
from node_agent.log import Log
from wire.limits import PROFILE_STEP_S
from wire.schema import Event

SOONEST_S = 0.2  # a moment nearer than this is too near to be met
IMMINENT_S = 1.0  # an interval does not end so shortly before one: it would be a scrap
STEPPED_S = 1.0  # a clock that is off by more was set: then the time that went by counts
MISSED_S = 5.0  # later than this (or with a clock that was set) it waits for the next moment
LATE_S = 30.0  # when the governor takes the rate back, whatever happens here
REMEMBERED = 64  # profiles whose outcome is told again when they are asked for again


class Governed(Protocol):
    """Who sets the rate (see node_agent.sampler.governing.Governing)."""

    @property
    def rate_hz(self) -> int: ...

    def ask(self, rate_hz: int | None, until_s: float) -> None: ...


class Moment(NamedTuple):
    """A whole step of Unix time, and what the monotonic clock was expected to say then."""

    unix_s: int
    monotonic_s: float

    def left_s(self, unix_s: float, monotonic_s: float) -> float:
        """Seconds until then. A clock that is slewed is followed, one that was set is not."""
        by_clock, by_time = self.unix_s - unix_s, self.monotonic_s - monotonic_s
        return by_clock if abs(by_clock - by_time) < STEPPED_S else by_time


class _Profile(NamedTuple):
    id: int
    rate_hz: int
    seconds: int
    begin: Moment
    begun: Event | None = None
    cut: str = ""  # why it ends before its time

    @property
    def next(self) -> Moment:
        """When it begins, or when it ends."""
        if self.begun is None:
            return self.begin
        return Moment(self.begin.unix_s + self.seconds, self.begin.monotonic_s + self.seconds)


class OnDemand:
    """At most one profile at a time. `take_events` gives what the centre is to be told."""

    def __init__(
        self,
        config: AgentConfig,
        governed: Governed,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        log: Log | None = None,
    ) -> None:
        self._log = log or Log("run")
        self._max_rate_hz = config.on_demand_max_rate_hz
        self._collectors = config.on_demand_collectors
        self._governed = governed
        self._clock, self._monotonic = clock, monotonic
        self._profile: _Profile | None = None
        self._outcomes: dict[int, Event] = {}
        self._events: list[Event] = []
        self.is_due = False  # whether the running interval is to be ended now

    def obey(self, directive: dict[str, Any]) -> None:
        """Take a checked order of kind "profile" or "profile_end". One that is known already is
        obeyed once; how it ended is told again, for the centre cannot have heard of it."""
        number = int(directive["id"])
        profile = self._profile
        is_own = profile is not None and profile.id == number
        known = profile.begun if profile is not None and is_own else self._outcomes.get(number)
        if directive["kind"] == "profile_end" and number not in self._outcomes:
            self._end_early(number)
        elif known is not None and known not in self._events:
            self._events.append(known)
        elif known is None and not is_own:
            self._take(directive)

    def step(self) -> None:
        """Ask the governor for what has come due; the running interval is then to be ended."""
        profile = self._profile
        if profile is None or self.wait_s > 0:
            return
        if profile.begun is not None:
            self.is_due = True
            self._finish(profile, profile.next.unix_s)
            return
        if abs(self._clock() - profile.begin.unix_s) > MISSED_S:
            self._profile = profile._replace(begin=self._next_moment())
            return
        self.is_due = True
        self._governed.ask(profile.rate_hz, self._monotonic() + profile.seconds + LATE_S)
        words = f"began, {profile.rate_hz} Hz for {profile.seconds} s"
        begun = self._tell(profile.id, "begun", words, profile.begin.unix_s, profile.rate_hz)
        self._profile = profile._replace(begun=begun)

    @property
    def wait_s(self) -> float:
        """Seconds until the next profile begins or the running one ends."""
        if self._profile is None:
            return float("inf")
        return max(0.0, self._profile.next.left_s(self._clock(), self._monotonic()))

    @property
    def is_imminent(self) -> bool:
        return 0 < self.wait_s < IMMINENT_S

    def stop(self) -> None:
        """The sampler stops: so does the profile, and the rate goes back."""
        profile = self._profile
        if profile is not None and profile.begun is None:
            self._conclude(profile.id, "shortened", "the sampler was stopped before it began")
        elif profile is not None:
            now_s = self._clock()
            self._finish(profile._replace(cut="the sampler was stopped"), now_s)

    def take_events(self) -> list[Event]:
        """What happened since the last call, for the batch of the interval that ends now."""
        self.is_due = False
        events, self._events = self._events, []
        return events

    def status(self) -> dict[str, Any]:
        """For the status file; times are Unix seconds."""
        profile = self._profile
        return {
            "max_rate_hz": self._max_rate_hz,
            "collectors": list(self._collectors),
            "profile": None
            if profile is None
            else {
                "id": profile.id,
                "rate_hz": profile.rate_hz,
                "running": profile.begun is not None,
                "begin": profile.begin.unix_s,
                "end": profile.begin.unix_s + profile.seconds,
            },
        }

    def _take(self, directive: dict[str, Any]) -> None:
        now_s, number = self._clock(), int(directive["id"])
        why = self._objection(directive, now_s)
        if why:
            self._conclude(number, "refused", f"refused: {why}")
            return
        self._profile = _Profile(
            number, directive["rate_hz"], directive["seconds"], self._next_moment()
        )

    def _objection(self, directive: dict[str, Any], now_s: float) -> str:
        """Why an order is not obeyed, in words; empty when it is."""
        rate_hz, collector = directive["rate_hz"], directive["collector"]
        if not self._max_rate_hz or not self._collectors:
            return "this node takes no profiles on demand ([agent] on_demand_max_rate_hz)"
        if collector not in self._collectors:
            return f"collector {collector!r} is not offered; there is {', '.join(self._collectors)}"
        if rate_hz > self._max_rate_hz:
            return (
                f"{rate_hz} Hz is above this node's {self._max_rate_hz} Hz "
                "([agent] on_demand_max_rate_hz)"
            )
        if self._profile is not None:
            return f"profile {self._profile.id} is under way"
        if now_s > directive["begin_before_s"]:
            return "the order came too late"
        return ""

    def _end_early(self, number: int) -> None:
        """One that runs ends at the next whole step, so that its batches stay its own."""
        profile = self._profile
        if profile is None or profile.id != number or profile.begun is None:
            self._conclude(number, "shortened", "cancelled before it began")
        elif not profile.cut:
            lasted_s = self._next_moment().unix_s - profile.begin.unix_s
            seconds = max(PROFILE_STEP_S, min(lasted_s, profile.seconds))
            if seconds < profile.seconds:
                self._profile = profile._replace(seconds=seconds, cut="cancelled")

    def _finish(self, profile: _Profile, at_s: float) -> None:
        """End the running profile."""
        seconds = at_s - profile.begin.unix_s
        words = f"{profile.cut or 'ended'} after {seconds:.0f} s"
        rate_hz = self._governed.rate_hz
        if rate_hz < profile.rate_hz:
            words += f", at last at {rate_hz} Hz: more was too dear, or the kernel refused it"
        self._governed.ask(None, 0.0)
        reason = "shortened" if profile.cut else "ended"
        self._remember(profile.id, self._tell(profile.id, reason, words, at_s, seconds))

    def _conclude(self, number: int, reason: str, words: str) -> None:
        """It does not begin."""
        self._remember(number, self._tell(number, reason, words, self._clock(), 0.0))

    def _remember(self, number: int, outcome: Event) -> None:
        if self._profile is not None and self._profile.id == number:
            self._profile = None
        self._outcomes[number] = outcome
        while len(self._outcomes) > REMEMBERED:
            del self._outcomes[next(iter(self._outcomes))]

    def _tell(self, number: int, reason: str, words: str, at_s: float, value: float) -> Event:
        event = Event(round(at_s * 1e9), "profile", reason, f"profile {number}: {words}", value)
        self._events.append(event)
        self._log.info("profile", event.words, reason=event.reason)
        return event

    def _next_moment(self) -> Moment:
        now_s = self._clock()
        unix_s = -int(-(now_s + SOONEST_S) // PROFILE_STEP_S) * PROFILE_STEP_S
        return Moment(unix_s, self._monotonic() + unix_s - now_s)


def on_demand_facts(config: AgentConfig) -> dict[str, str]:
    """For every batch: what the centre may ask of this node. Without them an agent is too old."""
    return {
        "on_demand_max_rate_hz": str(config.on_demand_max_rate_hz),
        "on_demand_collectors": " ".join(config.on_demand_collectors),
    }

"""What is asked of a node, and whether it can be: the body of a request against its facts. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches

import msgspec

from aggregator.on_demand.errors import AgentTooOldError, BadProfileError, NotOfferedError
from wire.limits import MAX_PROFILE_S, MAX_RATE_HZ, PROFILE_STEP_S

RATE_FACT = "on_demand_max_rate_hz"
COLLECTORS_FACT = "on_demand_collectors"
BREAKER_FACT = "breaker"


@dataclass(frozen=True)
class Asked:
    """A profile: `collector` at `rate_hz` for `seconds`, a whole number of PROFILE_STEP_S."""

    seconds: int = 60
    rate_hz: int = 199
    collector: str = "cpu"


def parse_asked(body: bytes) -> Asked:
    """The profile that a body asks for; what is left out is as in Asked. Raises BadProfileError."""
    try:
        given = msgspec.json.decode(body) if body.strip() else {}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadProfileError(f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadProfileError("the body must be a JSON object")
    known = [field.name for field in fields(Asked)]
    for name in given:
        if name not in known:
            raise BadProfileError(f"{name[:40]!r} is unknown{_near(name, known)}")
    asked = Asked(**given)
    seconds = _whole("seconds", asked.seconds, PROFILE_STEP_S, MAX_PROFILE_S)
    _whole("rate_hz", asked.rate_hz, 1, MAX_RATE_HZ)
    if not isinstance(asked.collector, str) or not 1 <= len(asked.collector) <= 32:
        raise BadProfileError("collector must be the name of one")
    steps = -(-seconds // PROFILE_STEP_S)
    return Asked(steps * PROFILE_STEP_S, asked.rate_hz, asked.collector)


def check_offer(
    asked: Asked, node: str, facts: Mapping[str, str], version: str, was_seen: bool
) -> None:
    """Raise the error that says why `node` would refuse, as far as its newest batch tells."""
    if not was_seen:
        return  # what its agent can do shows when it comes
    if BREAKER_FACT in facts:
        raise NotOfferedError(
            silent_sampler(node, version, facts),
            remedy="see what opened the breaker; `flamefleet-agent run --reset-breaker` closes it",
        )
    if RATE_FACT not in facts:
        raise AgentTooOldError(silent_sampler(node, version, facts))
    collectors = facts.get(COLLECTORS_FACT, "").split()
    most_hz = int(facts[RATE_FACT]) if facts[RATE_FACT].isdecimal() else 0
    if not most_hz or not collectors:
        raise NotOfferedError(
            f"{node} takes no profiles on demand",
            remedy="set on_demand_max_rate_hz (and on_demand_collectors) in [agent] of the node's "
            "configuration, and restart its agent",
        )
    if asked.collector not in collectors:
        raise NotOfferedError(
            f"{node} has no collector {asked.collector!r}; it offers {', '.join(collectors)}",
            remedy="ask for one that it offers",
        )
    if asked.rate_hz > most_hz:
        raise NotOfferedError(
            f"{asked.rate_hz} Hz is above the {most_hz} Hz that {node} allows",
            remedy=f"ask for {most_hz} Hz or less, or raise on_demand_max_rate_hz in [agent] of "
            "the node's configuration",
        )


def silent_sampler(node: str, version: str, facts: Mapping[str, str]) -> str:
    """Why an agent whose facts lack RATE_FACT makes no profile."""
    if BREAKER_FACT in facts:
        return f"the agent on {node} samples nothing, its breaker is open: {facts[BREAKER_FACT]}"
    return f"the agent on {node} ({version or 'of an unknown version'}) knows no profiles on demand"


def near_names(name: str, names: Iterable[str]) -> str:
    """The text "; did you mean X, Y?" for the names most like `name`, else ""."""
    return _near(name, names, most=3)


def _near(name: str, names: Iterable[str], most: int = 1) -> str:
    near = get_close_matches(name, list(names), n=most, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadProfileError(
            f"{name} is {str(value)[:40]}; it must be a whole number, {least} to {most}"
        )
    return value

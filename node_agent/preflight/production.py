"""The production checklist: is this host ready to be profiled for years? Pure.

The list follows README's "Production": kernel and BTF, capabilities, rate, configuration, error
handling, monitoring, alerting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node_agent.capabilities import NEEDED, mask_of
from node_agent.config import AgentConfig
from node_agent.errors import EXIT_DETACHED
from node_agent.preflight.answer import Check, State
from node_agent.preflight.facts import Facts, Failure

MAX_RATE_HZ = 50  # below this
SAMPLER_UNIT, SHIPPER_UNIT = "flamefleet-sampler.service", "flamefleet-shipper.service"
_RESTARTS = ("on-failure", "on-abnormal", "always")
_INSTALL = "install the package flamefleet-agent (make deb, or ansible/playbooks/deploy.yml)"


@dataclass(frozen=True)
class ProductionFacts:
    """What the checklist judges beside `Facts`. None: it could not be read, or is not there."""

    config: AgentConfig | None
    config_fault: str  # why there is none
    interpreter: str
    file_capabilities: int | None  # the permitted mask on the private interpreter's file
    units: Mapping[str, Mapping[str, str]]  # systemd's properties by unit; {} where not loaded
    breaker: str | None  # what opened it; None when it is closed
    monitoring: Failure | None  # of asking the aggregator whether it is ready
    webhooks: int | None  # that the aggregator delivers alerts to
    broker_is_closed: bool | None  # the aggregator's Valkey wants a password


def production_checks(checks: Sequence[Check], facts: Facts, more: ProductionFacts) -> list[Check]:
    """The checklist; `checks` are the ordinary ones, of the same `facts`."""
    named = {check.name: check for check in checks}
    return [
        _as_required(named["kernel"]),
        _as_required(named["BTF"]),
        _check_capabilities(facts, more),
        _check_rate(more),
        _check_configuration(more),
        *(_check_unit(more, unit) for unit in (SAMPLER_UNIT, SHIPPER_UNIT)),
        _check_breaker(more),
        _check_monitoring(more),
        _check_broker(more),
        _check_alerting(more),
    ]


def missing(checks: Sequence[Check]) -> list[str]:
    """The names of what a production host still lacks."""
    return [check.name for check in checks if check.state is not State.OK]


def _check(name: str, fault: str, remedy: str, fine: str) -> Check:
    if fault:
        return Check(name, State.MISSING, fault, remedy)
    return Check(name, State.OK, fine)


def _as_required(check: Check) -> Check:
    if check.state is State.OK:
        return check
    return check._replace(state=State.MISSING)


def _check_capabilities(facts: Facts, more: ProductionFacts) -> Check:
    wanted = mask_of(NEEDED)
    name = "capabilities"
    if more.file_capabilities is None:
        held = [one for one in NEEDED if facts.capabilities.holds(one)]
        lacking = [one for one in NEEDED if one not in held]
        fault = f"no {more.interpreter}, and not held: {', '.join(lacking)}" if lacking else ""
        return _check(name, fault, _INSTALL, "all held by this process")
    lacking = [one for one in NEEDED if not more.file_capabilities & mask_of((one,))]
    foreign = more.file_capabilities & ~wanted
    fault = f"{more.interpreter} lacks {', '.join(lacking)}" if lacking else ""
    if foreign and not fault:
        fault = f"{more.interpreter} has more than the five that are needed (mask {foreign:#x})"
    names = ",".join(one.lower() for one in NEEDED)
    remedy = f"setcap {names}=p {more.interpreter}"
    return _check(name, fault, remedy, f"exactly the five on {more.interpreter}")


def _check_rate(more: ProductionFacts) -> Check:
    name, limit = "rate", f"production samples under {MAX_RATE_HZ} Hz"
    if more.config is None:
        return Check(name, State.MISSING, f"no configuration: {limit}", "see configuration")
    rate_hz = more.config.rate_hz
    fault = f"{rate_hz} Hz: {limit}" if rate_hz >= MAX_RATE_HZ else ""
    return _check(name, fault, 'set preset = "production" and no rate_hz', f"{rate_hz} Hz")


def _check_configuration(more: ProductionFacts) -> Check:
    remedy = "correct it, or name another file with --config"
    return _check("configuration", more.config_fault, remedy, "valid")


def _check_unit(more: ProductionFacts, unit: str) -> Check:
    properties = more.units.get(unit, {})
    restart = properties.get("Restart", "")
    prevented = properties.get("RestartPreventExitStatus", "").split()
    fault, remedy = "", f"systemctl enable --now {unit}"
    if properties.get("LoadState") != "loaded":
        fault, remedy = "systemd has no such unit", _INSTALL
    elif restart not in _RESTARTS:
        fault, remedy = f"Restart={restart}: nobody starts it after a crash", "Restart=on-failure"
    elif unit == SAMPLER_UNIT and str(EXIT_DETACHED) not in prevented:
        fault = "it would be started again in spite of its breaker"
        remedy = f"RestartPreventExitStatus={EXIT_DETACHED}"
    elif properties.get("ActiveState") != "active":
        fault = f"it is {properties.get('ActiveState')}"
    return _check(unit.removesuffix(".service"), fault, remedy, f"active, Restart={restart}")


def _check_breaker(more: ProductionFacts) -> Check:
    fault = f"open: {more.breaker}" if more.breaker else ""
    return _check("breaker", fault, "flamefleet-agent run --reset-breaker", "closed")


def _check_monitoring(more: ProductionFacts) -> Check:
    fault = more.monitoring.why if more.monitoring else ""
    remedy = more.monitoring.remedy if more.monitoring else ""
    return _check("monitoring", fault, remedy, "the aggregator is ready (/readyz)")


def _check_alerting(more: ProductionFacts) -> Check:
    remedy = "add [[webhooks]] to the aggregator's configuration"
    if more.webhooks is None and more.monitoring is not None:
        why = "not known, as the aggregator could not be asked"
        return Check("alerting", State.MISSING, why, "mend monitoring first")
    if more.webhooks is None:
        why = "the aggregator did not tell its webhooks: it wants a read token, or is not to be "
        why += "asked under this name (allowed_hosts)"
        remedy = "look for [[webhooks]] in the aggregator's configuration"
        return Check("alerting", State.MISSING, why, remedy)
    fault = "" if more.webhooks else "the aggregator has no webhook: nobody hears its alerts"
    return _check("alerting", fault, remedy, f"{more.webhooks} webhooks at the aggregator")


def _check_broker(more: ProductionFacts) -> Check:
    remedy = "give Valkey a password (requirepass) and name it in the aggregator's broker_url"
    if more.broker_is_closed is None:
        why = "not known, as the aggregator did not tell it"
        return Check("broker", State.MISSING, why, remedy)
    fault = "" if more.broker_is_closed else "the aggregator's Valkey asks nobody for a password"
    return _check("broker", fault, remedy, "the aggregator's Valkey is closed to others")

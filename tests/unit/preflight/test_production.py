import struct
from dataclasses import replace

import pytest

from node_agent.capabilities import NEEDED, CapabilitySets, mask_of
from node_agent.config import load_config
from node_agent.preflight.answer import Check, State
from node_agent.preflight.facts import Facts, Failure
from node_agent.preflight.production import (
    SAMPLER_UNIT,
    SHIPPER_UNIT,
    ProductionFacts,
    missing,
    production_checks,
)
from node_agent.preflight.production_facts import (
    parse_file_capabilities,
    parse_prevented,
    parse_properties,
)
from node_agent.preflight.table import render_production

ALL = mask_of(NEEDED)
FACTS = Facts(
    machine="x86_64",
    kernel_release="6.12.9-amd64",
    btf_bytes=5_500_000,
    user_id=0,
    capabilities=CapabilitySets(ALL, ALL, 0, ALL, False),
    perf_event_paranoid=2,
    kptr_restrict=1,
    kernel_symbols_visible=True,
    lockdown="none",
    command_line="",
    tracefs_mounted=True,
    nested_pid_namespace=False,
    libbpf=None,
    perf_event=None,
    collector=None,
)
UNIT = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "Restart": "on-failure",
    "RestartPreventExitStatus": "4",
}
UNITS = {SAMPLER_UNIT: UNIT, SHIPPER_UNIT: {**UNIT, "RestartPreventExitStatus": ""}}
READY = ProductionFacts(
    config=load_config(None, {}, {"url": "https://centre"}),
    config_fault="",
    interpreter="/opt/python",
    file_capabilities=ALL,
    units=UNITS,
    breaker=None,
    monitoring=None,
    webhooks=2,
    broker_is_closed=True,
)
CHECKS = [Check("kernel", State.OK, "6.12"), Check("BTF", State.OK, "there")]
NOTHING_HELD = CapabilitySets(0, 0, 0, 0, False)


def judged(facts: Facts = FACTS, checks: list[Check] = CHECKS, **changes: object) -> list[Check]:
    return production_checks(checks, facts, replace(READY, **changes))


def test_a_host_that_has_everything_is_ready():
    checks = judged()
    assert missing(checks) == []
    assert {check.remedy for check in checks} == {""}
    assert render_production(checks).endswith("\n\nReady for production.")


def sampler(**changes: str) -> dict[str, dict[str, str]]:
    return {**UNITS, SAMPLER_UNIT: {**UNIT, **changes}}


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({"file_capabilities": 0}, "capabilities", "lacks CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE"),
        ({"file_capabilities": ALL & ~mask_of(("CAP_SYSLOG",))}, "capabilities", "lacks CAP_SYSL"),
        ({"file_capabilities": ALL | 1 << 21}, "capabilities", "more than the five"),
        ({"config": load_config(None, {}, {"rate_hz": 50})}, "rate", "50 Hz: production"),
        ({"config": load_config(None, {}, {"preset": "debug"})}, "rate", "199 Hz: production"),
        ({"units": {SHIPPER_UNIT: UNIT}}, "flamefleet-sampler", "no such unit"),
        ({"units": {**UNITS, SHIPPER_UNIT: {}}}, "flamefleet-shipper", "no such unit"),
        ({"units": sampler(Restart="no")}, "flamefleet-sampler", "nobody starts it"),
        ({"units": sampler(RestartPreventExitStatus="3 44")}, "flamefleet-sampler", "in spite of"),
        ({"units": sampler(ActiveState="failed")}, "flamefleet-sampler", "it is failed"),
        ({"breaker": "3 crashes"}, "breaker", "open: 3 crashes"),
        ({"monitoring": Failure("refused", "start it")}, "monitoring", "refused"),
        ({"webhooks": 0}, "alerting", "no webhook"),
        ({"webhooks": None}, "alerting", "did not tell"),
        ({"broker_is_closed": False}, "broker", "asks nobody for a password"),
        ({"broker_is_closed": None}, "broker", "not known"),
    ],
)
def test_what_is_missing_is_said(changes, name, why):
    checks = judged(**changes)
    assert missing(checks) == [name]
    [check] = [check for check in checks if check.name == name]
    assert why in check.why
    assert check.remedy
    assert f"Not ready for production, missing: {name}." in render_production(checks)


def test_who_cannot_be_asked_is_not_said_to_be_without_webhooks():
    *_, check = judged(webhooks=None, monitoring=Failure("refused", "start it"))
    assert (check.name, check.remedy) == ("alerting", "mend monitoring first")
    assert "not known" in check.why


def test_a_faulty_configuration_has_no_rate_either():
    checks = judged(config=None, config_fault="rate_hz is 'x'; it must be a number")
    assert missing(checks) == ["rate", "configuration"]


@pytest.mark.parametrize("name", ["kernel", "BTF"])
@pytest.mark.parametrize("state", [State.DEGRADED, State.REFUSED])
def test_what_is_merely_degraded_is_missing_in_production(name, state):
    checks = [
        check._replace(state=state, remedy="boot") if check.name == name else check
        for check in CHECKS
    ]
    assert missing(judged(checks=checks)) == [name]


def test_without_a_private_interpreter_the_process_itself_counts():
    assert missing(judged(file_capabilities=None)) == []
    without = replace(FACTS, capabilities=NOTHING_HELD)
    [check] = [c for c in judged(without, file_capabilities=None) if c.state is State.MISSING]
    assert check.name == "capabilities"
    assert "no /opt/python, and not held: CAP_BPF" in check.why


def test_the_attribute_that_getcap_shows():
    low, high = ALL & 0xFFFFFFFF, ALL >> 32
    assert parse_file_capabilities(struct.pack("<5I", 0x02000000, low, 0, high, 0)) == ALL
    assert parse_file_capabilities(struct.pack("<6I", 0x03000000, low, 0, high, 0, 7)) == ALL
    assert parse_file_capabilities(struct.pack("<3I", 0x01000000, 1 << 2, 0)) == 1 << 2


def test_what_systemctl_shows():
    assert parse_properties("Restart=on-failure\nX=a=b\nnoise\n") == {
        "Restart": "on-failure",
        "X": "a=b",
    }
    assert parse_prevented("4 44").split() == ["4", "44"]
    assert parse_prevented("{ 4, 44 }").split() == ["4", "44"]

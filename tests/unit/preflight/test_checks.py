import dataclasses

import pytest

from node_agent.capabilities import NEEDED, NUMBERS, CapabilitySets
from node_agent.preflight import Facts, State, is_possible, run_checks
from node_agent.preflight.checks import parse_kernel
from node_agent.preflight.facts import Failure

ALL = sum(1 << NUMBERS[name] for name in NEEDED)
EVERY_BIT = (1 << 41) - 1


def sets(effective: int, bounding: int = EVERY_BIT, no_new: bool = False) -> CapabilitySets:
    return CapabilitySets(effective, effective, 0, bounding, no_new)


def without(*names: str) -> CapabilitySets:
    return sets(ALL & ~sum(1 << NUMBERS[name] for name in names))


GOOD = Facts(
    machine="x86_64",
    kernel_release="6.12.9-amd64",
    btf_bytes=5_500_000,
    user_id=0,
    capabilities=sets(ALL),
    perf_event_paranoid=2,
    kptr_restrict=1,
    kernel_symbols_visible=True,
    lockdown="none",
    command_line="root=/dev/vda quiet",
    tracefs_mounted=True,
    nested_pid_namespace=False,
    libbpf=None,
    perf_event=None,
    collector=None,
)
NO_BCC = Failure("it is not installed", "apt install python3-bpfcc")
DENIED = Failure("Permission denied", "Lower the rate.")


def judge(name: str, **changes):
    checks = {check.name: check for check in run_checks(dataclasses.replace(GOOD, **changes))}
    return checks[name]


def test_a_good_host_has_nothing_to_mend():
    checks = run_checks(GOOD)
    assert {check.state for check in checks} == {State.OK}
    assert {check.remedy for check in checks} == {""}
    assert is_possible(checks)


@pytest.mark.parametrize(
    ("name", "changes", "state", "why", "remedy"),
    [
        ("machine", {"machine": "aarch64"}, "refused", "aarch64: the programs", "x86_64"),
        ("kernel", {"kernel_release": "5.4.0-200-generic"}, "refused", "5.8 or newer", "boot"),
        ("kernel", {"kernel_release": "4.19.0"}, "refused", "5.8 or newer", "boot"),
        ("kernel", {"kernel_release": "5.8.0"}, "degraded", "unverified", "boot"),
        ("kernel", {"kernel_release": "5.10.0-34-amd64"}, "degraded", "5.15 or newer is", "boot"),
        ("kernel", {"kernel_release": "5.15.0-91-generic"}, "ok", "unverified: no test", ""),
        ("kernel", {"kernel_release": "6.1.0-28-amd64"}, "ok", "6.1.0-28-amd64", ""),
        ("kernel", {"kernel_release": "6.8.0-45-generic"}, "ok", "no test has run on 6.8", ""),
        ("kernel", {"kernel_release": "6.18.44"}, "ok", "6.18.44", ""),
        ("kernel", {"kernel_release": "linux"}, "refused", "no kernel release", "5.15"),
        ("BTF", {"btf_bytes": None}, "degraded", "is missing", "CONFIG_DEBUG_INFO_BTF"),
        ("BTF", {"btf_bytes": 0, "bcc": NO_BCC}, "refused", "is missing", "CONFIG_DEBUG_INFO_BTF"),
        ("mode", {"mode": None}, "ok", "CO-RE", ""),
        ("mode", {"mode": None, "bcc": NO_BCC}, "ok", "CO-RE", ""),
        (
            "mode",
            {"mode": "bcc", "mode_reasons": {"core": "the verifier said no"}},
            "degraded",
            "bcc, which takes seconds and 150 MB at every start; no CO-RE, as the verifier said no",
            "BTF",
        ),
        ("mode", {"mode": None, "btf_bytes": None}, "degraded", "there is no BTF", "BTF"),
        (
            "mode",
            {"mode": None, "btf_bytes": None, "bcc": NO_BCC},
            "refused",
            "none: no CO-RE, as there is no BTF; no bcc, as it is not installed",
            "apt install python3-bpfcc",
        ),
        ("cgroups", {"cgroups": "hybrid"}, "ok", "go by the v2 tree", ""),
        ("cgroups", {"cgroups": "v1"}, "degraded", "v1 only", "unified_cgroup_hierarchy"),
        ("cgroups", {"cgroups": "none"}, "degraded", "no cgroup file system", "mount -t cgroup2"),
        ("libbpf", {"libbpf": Failure("no such file", "apt x")}, "refused", "no such", "apt x"),
        ("lockdown", {"lockdown": "integrity"}, "ok", "integrity", ""),
        ("lockdown", {"lockdown": "confidentiality"}, "refused", "confidentiality", "integrity"),
        ("lockdown", {"lockdown": None}, "ok", "not asked for at boot", ""),
        (
            "lockdown",
            {"lockdown": None, "command_line": "quiet lockdown=confidentiality"},
            "refused",
            "confidentiality",
            "integrity",
        ),
        ("CAP_BPF", {"capabilities": without("CAP_BPF")}, "refused", "not held", "Ambient"),
        (
            "CAP_PERFMON",
            {"capabilities": without("CAP_PERFMON"), "user_id": 1000},
            "refused",
            "not held",
            "sudo flamefleet-agent check",
        ),
        (
            "CAP_PERFMON",
            {"capabilities": sets(0, no_new=True), "user_id": 1000},
            "refused",
            "not held",
            "AmbientCapabilities=CAP_PERFMON",
        ),
        (
            "CAP_BPF",
            {"capabilities": sets(0, bounding=0)},
            "refused",
            "not held",
            "docker run --cap-add BPF",
        ),
        ("CAP_BPF", {"capabilities": sets(1 << NUMBERS["CAP_SYS_ADMIN"])}, "ok", "held", ""),
        (
            "CAP_SYSLOG",
            {"capabilities": sets(1 << NUMBERS["CAP_SYS_ADMIN"])},
            "degraded",
            "kernel frames have no names",
            "Ambient",
        ),
        (
            "CAP_SYS_PTRACE",
            {"capabilities": without("CAP_SYS_PTRACE")},
            "degraded",
            "no mappings",
            "Ambient",
        ),
        (
            "CAP_DAC_READ_SEARCH",
            {"capabilities": without("CAP_DAC_READ_SEARCH")},
            "degraded",
            "no symbols",
            "Ambient",
        ),
        ("perf_event_open", {"perf_event": DENIED}, "refused", "Permission denied", "Lower"),
        (
            "perf_event_open",
            {"perf_event": DENIED, "perf_event_paranoid": 4},
            "refused",
            "tried",
            "sysctl -w kernel.perf_event_paranoid=2",
        ),
        (
            "perf_event_open",
            {"perf_event": DENIED, "capabilities": sets(0), "user_id": 5},
            "refused",
            "tried",
            "sudo",
        ),
        ("perf_event_paranoid", {"perf_event_paranoid": -1}, "ok", "-1", ""),
        ("perf_event_paranoid", {"perf_event_paranoid": 3}, "ok", "3: for others", ""),
        (
            "perf_event_paranoid",
            {"perf_event_paranoid": 4, "perf_event": DENIED},
            "refused",
            "even to CAP_PERFMON",
            "sysctl -w kernel.perf_event_paranoid=2",
        ),
        ("perf_event_paranoid", {"perf_event_paranoid": None}, "refused", "no perf", "CONFIG"),
        (
            "kptr_restrict",
            {"kptr_restrict": 2, "kernel_symbols_visible": False},
            "degraded",
            "no addresses",
            "sysctl -w kernel.kptr_restrict=1",
        ),
        (
            "kptr_restrict",
            {
                "kptr_restrict": 1,
                "kernel_symbols_visible": False,
                "capabilities": without("CAP_SYSLOG"),
            },
            "degraded",
            "no addresses",
            "CAP_SYSLOG",
        ),
        ("kptr_restrict", {"kernel_symbols_visible": False}, "degraded", "no add", "KALLSYMS"),
        ("PID namespace", {"nested_pid_namespace": True}, "degraded", "nested", "--pid=host"),
        ("tracefs", {"tracefs_mounted": False}, "degraded", "not mounted", "mount -t tracefs"),
        ("CPU collector", {"collector": DENIED}, "refused", "tried: Permission", "Lower"),
        (
            "CPU collector",
            {"collector": DENIED, "capabilities": without("CAP_BPF")},
            "refused",
            "CAP_BPF is not held",
            "Ambient",
        ),
    ],
)
def test_a_check_says_state_reason_and_remedy(name, changes, state, why, remedy):
    check = judge(name, **changes)
    assert check.state.value == state
    assert why in check.why
    assert remedy in check.remedy
    assert bool(check.remedy) == (state != "ok")


def test_only_a_refused_check_makes_profiling_impossible():
    degraded = dataclasses.replace(GOOD, tracefs_mounted=False, kptr_restrict=2)
    assert is_possible(run_checks(degraded))
    assert not is_possible(run_checks(dataclasses.replace(GOOD, btf_bytes=None, bcc=NO_BCC)))


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-fc-v669", (6, 18)),
        ("5.10", (5, 10)),
        ("6.1-rc3", (6, 1)),
        ("6.10.3", (6, 10)),
        ("", None),
        ("6", None),
        ("six.one", None),
    ],
)
def test_kernel_releases(release, version):
    assert parse_kernel(release) == version

"""The checks: each judges facts and says why, and which command mends it. Pure."""

from node_agent.capabilities import LOSS, NUMBERS
from node_agent.kernel.perf_event import PARANOID_DENIES
from node_agent.preflight.answer import Check, State
from node_agent.preflight.facts import Facts

NEEDED_KERNEL = (5, 8)
RECOMMENDED_KERNEL = (5, 15)
TESTED_KERNELS = ((5, 10), (6, 1), (6, 12), (6, 18))


def run_checks(facts: Facts) -> list[Check]:
    """Every check, in the order in which they should be mended."""
    return [
        check_machine(facts),
        check_kernel(facts),
        check_btf(facts),
        check_mode(facts),
        check_libbpf(facts),
        check_lockdown(facts),
        *(check_capability(facts, name, loss) for name, loss in LOSS.items()),
        check_perf_event(facts),
        check_paranoid(facts),
        check_kptr_restrict(facts),
        check_pid_namespace(facts),
        check_tracefs(facts),
        check_cgroups(facts),
        check_collector(facts),
    ]


def parse_kernel(release: str) -> tuple[int, int] | None:
    """Major and minor of a release such as `6.1.0-28-amd64`; None when it is no release."""
    parts = release.replace("-", ".").split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        return None
    return int(parts[0]), int(parts[1])


def check_machine(facts: Facts) -> Check:
    if facts.machine == "x86_64":
        return Check("machine", State.OK, facts.machine)
    return Check(
        "machine",
        State.REFUSED,
        f"{facts.machine}: the programs are built for x86_64 only",
        "profile an x86_64 host",
    )


def check_kernel(facts: Facts) -> Check:
    version = parse_kernel(facts.kernel_release)
    upgrade = "boot a newer kernel (Debian, Ubuntu: apt full-upgrade, then reboot)"
    if version is None:
        why = f"{facts.kernel_release!r} is no kernel release that can be read"
        return Check("kernel", State.REFUSED, why, "boot a kernel of 5.15 or newer")
    if version < NEEDED_KERNEL:
        why = f"{facts.kernel_release}: 5.8 or newer is needed"
        return Check("kernel", State.REFUSED, why, upgrade)
    verified = version in TESTED_KERNELS
    note = "" if verified else f" (unverified: no test has run on {version[0]}.{version[1]})"
    if version < RECOMMENDED_KERNEL:
        why = f"{facts.kernel_release}{note}: 5.15 or newer is recommended"
        return Check("kernel", State.DEGRADED, why, upgrade)
    return Check("kernel", State.OK, facts.kernel_release + note)


def check_btf(facts: Facts) -> Check:
    if facts.btf_bytes:
        return Check("BTF", State.OK, f"{facts.btf_bytes / 1e6:.1f} MB of type information (CO-RE)")
    return Check(
        "BTF",
        State.DEGRADED if facts.bcc is None else State.REFUSED,
        "/sys/kernel/btf/vmlinux is missing: the programs cannot be fitted to this kernel",
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution's since 2021)",
    )


def check_mode(facts: Facts) -> Check:
    """How the program is loaded, named before anything starts; why not in a better way."""
    core = facts.mode_reasons.get("core") or "there is no BTF"
    if facts.mode == "core" or (facts.mode is None and facts.btf_bytes):
        return Check("mode", State.OK, "CO-RE: the compiled program is fitted to this kernel")
    if facts.mode == "bcc" or facts.bcc is None:
        return Check(
            "mode",
            State.DEGRADED,
            f"bcc, which takes seconds and 150 MB at every start; no CO-RE, as {core}",
            "boot a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y)",
        )
    why = f"none: no CO-RE, as {core}; no bcc, as {facts.bcc.why}"
    return Check("mode", State.REFUSED, why, facts.bcc.remedy)


def check_libbpf(facts: Facts) -> Check:
    if facts.libbpf is None:
        return Check("libbpf", State.OK, "libbpf.so.1 loads")
    return Check("libbpf", State.REFUSED, facts.libbpf.why, facts.libbpf.remedy)


def check_lockdown(facts: Facts) -> Check:
    mode = facts.lockdown
    if mode is None:
        asked = "lockdown=confidentiality" in facts.command_line.split()
        mode = "confidentiality" if asked else None
    if mode == "confidentiality":
        return Check(
            "lockdown",
            State.REFUSED,
            "confidentiality: the kernel lets no program read its memory",
            "boot with lockdown=integrity",
        )
    known = mode or "not asked for at boot (securityfs is not mounted)"
    return Check("lockdown", State.OK, known)


def check_capability(facts: Facts, name: str, loss: str | None) -> Check:
    """`loss` is what is missed without it; None: nothing works without it."""
    if facts.capabilities.holds(name):
        return Check(name, State.OK, "held")
    state = State.REFUSED if loss is None else State.DEGRADED
    why = f"not held: {loss or 'no program can be loaded and attached'}"
    return Check(name, state, why, capability_remedy(facts, name))


def capability_remedy(facts: Facts, name: str) -> str:
    """What gives this process `name`, by what keeps it away."""
    if not facts.capabilities.bounding >> NUMBERS[name] & 1:
        short = name.removeprefix("CAP_")
        return f"allow it: CapabilityBoundingSet={name}, or docker run --cap-add {short}"
    if facts.user_id == 0 or facts.capabilities.no_new_privileges:  # which cancels setcap and sudo
        return f"give it to the unit: AmbientCapabilities={name}"
    return "sudo flamefleet-agent check"


def check_perf_event(facts: Facts) -> Check:
    failure = facts.perf_event
    if failure is None:
        return Check("perf_event_open", State.OK, "a system-wide sampling event opens")
    if not facts.capabilities.holds("CAP_PERFMON"):
        remedy = capability_remedy(facts, "CAP_PERFMON")
    elif _paranoid_denies(facts):
        remedy = "sysctl -w kernel.perf_event_paranoid=2, as below"
    else:
        remedy = failure.remedy
    return Check("perf_event_open", State.REFUSED, f"tried: {failure.why}", remedy)


def check_paranoid(facts: Facts) -> Check:
    name, level = "perf_event_paranoid", facts.perf_event_paranoid
    if level is None:
        why = "cannot be read: this kernel has no perf events"
        return Check(name, State.REFUSED, why, "boot a kernel with CONFIG_PERF_EVENTS=y")
    if level < PARANOID_DENIES:
        return Check(name, State.OK, str(level))
    if facts.perf_event is None:
        return Check(name, State.OK, f"{level}: for others; this process may")
    return Check(
        name,
        State.REFUSED,
        f"{level}: this distribution's kernel denies perf events"
        + (", even to CAP_PERFMON" if facts.capabilities.holds("CAP_PERFMON") else ""),
        "sysctl -w kernel.perf_event_paranoid=2 (a file in /etc/sysctl.d keeps it over a reboot)",
    )


def check_kptr_restrict(facts: Facts) -> Check:
    name, level = "kptr_restrict", facts.kptr_restrict
    shown = "unknown" if level is None else str(level)
    if facts.kernel_symbols_visible:
        return Check(name, State.OK, f"{shown}: kernel addresses are visible to this process")
    why = f"{shown}: /proc/kallsyms shows no addresses, so kernel frames have no names"
    if level == 2:
        return Check(name, State.DEGRADED, why, "sysctl -w kernel.kptr_restrict=1")
    if not facts.capabilities.holds("CAP_SYSLOG"):
        return Check(name, State.DEGRADED, why, capability_remedy(facts, "CAP_SYSLOG"))
    return Check(name, State.DEGRADED, why, "boot a kernel with CONFIG_KALLSYMS=y")


def check_pid_namespace(facts: Facts) -> Check:
    if not facts.nested_pid_namespace:
        return Check("PID namespace", State.OK, "the initial one: every process is seen")
    return Check(
        "PID namespace",
        State.DEGRADED,
        "nested: only processes of this namespace and below are profiled",
        "run the agent on the host itself (containers: --pid=host)",
    )


def check_tracefs(facts: Facts) -> Check:
    if facts.tracefs_mounted:
        return Check("tracefs", State.OK, "mounted")
    return Check(
        "tracefs",
        State.DEGRADED,
        "not mounted: collectors that need tracepoints stay off (CPU sampling does not)",
        "mount -t tracefs tracefs /sys/kernel/tracing",
    )


def check_cgroups(facts: Facts) -> Check:
    known = {
        "v2": "v2",
        "hybrid": "hybrid: units are named by /proc, exclusions go by the v2 tree",
    }
    if facts.cgroups in known:
        return Check("cgroups", State.OK, known[facts.cgroups])
    why = "v1 only" if facts.cgroups == "v1" else "no cgroup file system is mounted"
    return Check(
        "cgroups",
        State.DEGRADED,
        f"{why}: units that end quickly have no name, and none can be excluded by cgroup",
        "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    )


def check_collector(facts: Facts) -> Check:
    if facts.collector is None:
        return Check("CPU collector", State.OK, "loaded and attached for a moment")
    for name, loss in LOSS.items():
        if loss is None and not facts.capabilities.holds(name):
            remedy = capability_remedy(facts, name)
            why = f"tried: the kernel refused the program, as {name} is not held"
            return Check("CPU collector", State.REFUSED, why, remedy)
    return Check(
        "CPU collector", State.REFUSED, f"tried: {facts.collector.why}", facts.collector.remedy
    )


def _paranoid_denies(facts: Facts) -> bool:
    return facts.perf_event_paranoid is not None and facts.perf_event_paranoid >= PARANOID_DENIES

"""The sampler holds five capabilities, raises them only while in use, and hands on none."""

import os
import time
from pathlib import Path

import pytest

from node_agent.capabilities import CapabilitySets, mask_of, parse_sets
from node_agent.spool.directives import symbols
from wire.codec import decode
from wire.schema import Batch, Definitions, ModuleKind, SymbolExtract

FIVE = mask_of(("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"))
FOR_CHILDREN = mask_of(("CAP_SETUID", "CAP_SETGID"))


def sets_of(pid: int) -> CapabilitySets:
    return parse_sets(Path(f"/proc/{pid}/status").read_text())


def samples(status: dict) -> bool:
    return status.get("samples", 0) > 20


@pytest.mark.parametrize("way", ["root", "setcap", "unit"])
def test_exactly_five_and_none_in_effect_at_rest(make_agent, closed_program, way) -> None:
    agent = make_agent(None) if way == "root" else make_agent(ambient=way == "unit")
    process = agent.run()
    agent.wait_for(samples, "sampling")

    def look() -> list[CapabilitySets]:
        seen = []
        for _ in range(200):
            seen.append(sets_of(process.pid))
            time.sleep(0.005)
        for sets in seen:
            assert sets.permitted == FIVE
            assert sets.inheritable == 0
            assert sets.effective & ~FIVE == 0
        return seen

    # At first it reads what runs on this host, which takes as long as its machine is slow.
    seen = look()
    while sum(sets.effective == 0 for sets in seen) <= len(seen) // 2:
        seen = look()
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "CapAmb:\t0000000000000000" in status
    if way == "root":
        assert seen[0].bounding == FIVE | FOR_CHILDREN
    else:
        assert seen[0].no_new_privileges
    if way == "unit":
        assert seen[0].bounding == FIVE
    assert "Traceback" not in agent.stop()
    assert agent.status()["degraded"] == []


def test_an_interpreter_with_capabilities_samples_outside_any_unit(
    make_agent, closed_program
) -> None:
    """As setcap leaves it (+p), an unprivileged user, no unit: file capabilities alone."""
    assert not parse_sets(Path("/proc/self/status").read_text()).no_new_privileges
    agent = make_agent()
    agent.run()
    agent.wait_for(samples, "sampling")

    def native_modules(_status: dict) -> list:
        return [
            module
            for path in (agent.spool_dir / "batches").glob("*.defs")
            for module in decode(path.read_bytes(), Definitions).modules
            if module.name == "guarded" or module.kind == ModuleKind.KERNEL
        ]

    def both(status: dict) -> dict:
        found = {module.name: module for module in native_modules(status)}
        return found if {"guarded", "vmlinux"} <= set(found) else {}

    modules = agent.wait_for(both, "definitions of another user's program and of the kernel")

    labels = [
        series.labels
        for path in (agent.spool_dir / "batches").glob("*.batch")
        for series in decode(path.read_bytes(), Batch).series
        if series.labels["executable"] == "guarded"
    ]
    assert {one["build_id"] for one in labels} == {modules["guarded"].id.hex()}

    # The symbols of a program that only root may read, and of the kernel, by a child.
    spool = agent.spool()
    for module in modules.values():
        spool.put_directive(symbols(module.kind, module.id))
    for path in (agent.spool_dir / "directives").iterdir():
        path.chmod(0o644)
    agent.wait_for(lambda status: status["extracts"].get("made") == 2, "two extracts")
    extracts = {
        extract.name: extract
        for path in (agent.spool_dir / "extracts").iterdir()
        for extract in [decode(path.read_bytes(), SymbolExtract)]
    }
    assert all(extract.refused == "" for extract in extracts.values()), extracts
    assert b"_text" in extracts["vmlinux"].data
    words = agent.stop()
    assert "Traceback" not in words
    status = agent.status()
    assert "mappings_denied" not in status["unplaced"]
    assert status["degraded"] == []


LOSSES = {
    "sys_ptrace": "no mappings",
    "dac_read_search": "no symbols",
    "syslog": "kernel frames have no names",
}


@pytest.mark.parametrize("missing", ["bpf", "perfmon"])
def test_without_bpf_or_perfmon_it_refuses_in_words(make_agent, missing) -> None:
    rest = ("bpf", "perfmon", "sys_ptrace", "dac_read_search", "syslog")
    agent = make_agent(tuple(name for name in rest if name != missing))

    checked = agent.ask("check")
    ran = agent.ask("run", "--spool-dir", str(agent.spool_dir))

    assert checked.returncode == ran.returncode == 3
    assert "Profiling is impossible here" in checked.stdout
    assert f"CAP_{missing.upper()}" in checked.stdout
    assert "flamefleet-agent check" in ran.stderr or f"CAP_{missing.upper()}" in ran.stderr
    assert "Traceback" not in checked.stderr + ran.stderr
    assert not list((agent.spool_dir / "batches").glob("*.batch"))


@pytest.mark.parametrize("missing", LOSSES)
def test_without_another_it_samples_and_says_what_is_missing(
    make_agent, closed_program, missing
) -> None:
    if missing == "syslog" and not _kernel_hides_addresses():
        pytest.skip("needs a kernel that hides its addresses from unprivileged users")
    rest = ("bpf", "perfmon", "sys_ptrace", "dac_read_search", "syslog")
    agent = make_agent(tuple(name for name in rest if name != missing))
    name = f"CAP_{missing.upper()}"

    checked = agent.ask("check")
    agent.run()
    agent.wait_for(samples, "sampling")
    status = agent.wait_for(lambda status: status["sequence"] > 1 and status, "a batch")
    shown = agent.ask("status", "--spool-dir", str(agent.spool_dir))
    words = agent.stop()

    assert checked.returncode == 0
    line = next(line for line in checked.stdout.splitlines() if line.startswith(name))
    assert "degraded" in line
    assert shown.returncode == 0, shown.stderr
    assert f"{name} is not held: " in shown.stdout
    assert LOSSES[missing] in shown.stdout
    assert "Traceback" not in words + checked.stderr + shown.stderr
    unplaced = status["unplaced"]
    assert ("mappings_denied" in unplaced) == (missing == "sys_ptrace")
    if missing == "dac_read_search":
        assert unplaced["file_unavailable"] > 0
    frames = {
        name.function
        for path in (agent.spool_dir / "batches").glob("*.defs")
        for name in decode(path.read_bytes(), Definitions).names
    }
    assert ("[kernel]" in frames) == (missing == "syslog")


def _kernel_hides_addresses() -> bool:
    restrict = int(Path("/proc/sys/kernel/kptr_restrict").read_text())
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    return restrict == 1 or (restrict == 0 and paranoid > 1)


def test_roots_children_are_nobody_without_capabilities(tmp_path) -> None:
    """What a child of root's sampler is while it parses; really started, from dropped sets."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    import subprocess
    import sys

    child = (
        "from node_agent.children.confine import confine\n"
        "status = open('/proc/self/status')\n"
        "confine(7, 1 << 30, 0, 5, 60)\n"
        "print(status.read())\n"
        "try: open('/etc/shadow'); print('READ')\n"
        "except PermissionError: print('DENIED')\n"
    )
    parent = (
        "import sys, subprocess\n"
        "from node_agent.capabilities import drop_unneeded\n"
        "drop_unneeded()\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, child],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    sets = parse_sets(done.stdout)
    assert sets.permitted == sets.effective == sets.inheritable == 0
    assert sets.no_new_privileges
    assert "Uid:\t65534\t65534\t65534\t65534" in done.stdout
    assert "Gid:\t65534\t65534\t65534\t65534" in done.stdout
    assert "Groups:\t \n" in done.stdout
    assert done.stdout.endswith("DENIED\n")

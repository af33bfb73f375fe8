import pytest

from node_agent.capabilities import parse_sets
from node_agent.kernel.lockdown import is_confidential, parse_lockdown
from node_agent.preflight.facts import parse_cgroups, parse_mounts, parse_visible

STATUS = """Name:\tpython3
NoNewPrivs:\t1
CapInh:\t0000000000000000
CapPrm:\t000000c000080004
CapEff:\t0000000000000000
CapBnd:\t000001ffffffffff
"""


def test_capability_sets():
    sets = parse_sets(STATUS)
    assert sets.no_new_privileges
    assert sets.permitted == 0xC0_0008_0004
    assert not sets.holds("CAP_BPF")
    raised = sets._replace(effective=sets.permitted)
    held = [name for name in ("CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG") if raised.holds(name)]
    assert held == ["CAP_BPF", "CAP_PERFMON"]
    admin = sets._replace(effective=1 << 21)
    assert admin.holds("CAP_BPF")
    assert not admin.holds("CAP_SYSLOG")


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("none [integrity] confidentiality\n", "integrity"),
        ("[none] integrity confidentiality\n", "none"),
        ("", None),
        ("[broken", None),
    ],
)
def test_lockdown(text, mode):
    assert parse_lockdown(text) == mode


@pytest.mark.parametrize(
    ("state", "command_line", "refused"),
    [
        ("none integrity [confidentiality]\n", "quiet", True),
        ("none [integrity] confidentiality\n", "lockdown=confidentiality", False),  # as it is now
        ("", "quiet lockdown=confidentiality\n", True),
        ("", "quiet lockdown=integrity\n", False),
    ],
)
def test_confidentiality_is_known_without_securityfs_too(state, command_line, refused):
    assert is_confidential(state, command_line) == refused


def test_kernel_symbols():
    hidden = "0000000000000000 T _stext\n0000000000000000 t main\n"
    assert not parse_visible(hidden)
    assert not parse_visible("")
    # The first symbols of a per-CPU kernel are at 0 for everybody.
    assert parse_visible(hidden + "ffffffff81000000 T _text\n")


@pytest.mark.parametrize(
    ("kinds", "version"),
    [
        (("cgroup2",), "v2"),
        (("tmpfs", "cgroup", "cgroup2"), "hybrid"),
        (("tmpfs", "cgroup"), "v1"),
        (("tmpfs",), "none"),
    ],
)
def test_cgroups(kinds, version):
    assert parse_cgroups("".join(f"x /sys/fs/cgroup {kind} rw 0 0\n" for kind in kinds)) == version


def test_mounts():
    text = "proc /proc proc rw 0 0\nx /tracefs ext4 rw 0 0\n"
    assert not parse_mounts(text, "tracefs")
    assert parse_mounts(text + "t /sys/kernel/tracing tracefs rw 0 0\n", "tracefs")
    assert not parse_mounts("", "tracefs")

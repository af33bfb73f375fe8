import pytest

from node_agent.kernel.errors import KernelListError
from node_agent.kernel.known_bad import (
    KernelVersion,
    find_bad,
    read_list,
    running_version,
    tell_version,
)

DEBIAN = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-06-01)"


@pytest.mark.parametrize(
    ("release", "version", "signature", "told"),
    [
        ("6.1.0-50-cloud-amd64", DEBIAN, "", (6, 1, 176)),
        (
            "6.2.0-39-generic",
            "#40~22.04.1-Ubuntu SMP",
            "Ubuntu 6.2.0-39.40-generic 6.2.16",
            (6, 2, 16),
        ),
        ("6.2.0-39-generic", "#40-Ubuntu SMP", "", (6, 2, None)),
        ("6.18.44-fc-v669", "#1 SMP", "", (6, 18, 44)),
        ("5.19.0", "#1 SMP", "", (5, 19, 0)),
        ("6.10-rc3", "#1 SMP", "", (6, 10, None)),
        ("linux", "", "", None),
    ],
)
def test_the_version_behind_a_release(release, version, signature, told):
    assert tell_version(release, version, signature) == (told and KernelVersion(*told))


@pytest.mark.parametrize(
    ("version", "is_bad"),
    [
        ((5, 18, 19), False),
        ((5, 19, 0), True),
        ((6, 0, 19), True),
        ((6, 1, 35), True),
        ((6, 1, 36), False),
        ((6, 1, None), False),  # cannot be told: only a line that is bad as a whole counts
        ((6, 2, None), True),
        ((6, 3, 9), True),
        ((6, 3, 10), False),
        ((6, 12, 9), False),
        (None, False),
    ],
)
def test_the_list(version, is_bad):
    found = find_bad(version and KernelVersion(*version), read_list())
    assert bool(found) == is_bad
    if is_bad:
        assert "https://git.kernel.org/" in found


def test_every_entry_says_why_and_where():
    for entry in read_list():
        assert entry.start < entry.end
        assert len(entry.reason) > 20
        assert entry.source.startswith("https://")


@pytest.mark.parametrize("text", ["", "kernel = 7", '[[kernel]]\nfrom = "x"\n', "\0"])
def test_a_damaged_list(tmp_path, text):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(KernelListError, match="cannot be read"):
        read_list(tmp_path / "list.toml")


def test_the_kernel_of_this_machine_is_not_on_it():
    assert running_version() is not None
    assert find_bad(running_version(), read_list()) == ""

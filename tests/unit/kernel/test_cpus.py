"""CPU lists as the kernel writes them."""

import os

import pytest

from node_agent.kernel.cpus import online_cpus, parse_cpu_list, possible_cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0\n", (0,)),
        ("0-3\n", (0, 1, 2, 3)),
        ("0-1,4,6-7\n", (0, 1, 4, 6, 7)),
        ("\n", ()),
    ],
)
def test_lists_and_ranges(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def test_this_machine_has_its_online_cpus_among_the_possible_ones() -> None:
    assert len(online_cpus()) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert set(online_cpus()) <= set(possible_cpus())

"""What a burst leaves behind, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[3]
# Each block is longer than the one before by less than glibc's thresholds grow with it, and small
# objects that stay are allocated while it is held: without a bound the blocks come to lie in the
# heap, each behind what the last one has pinned.
BURST = """
import sys
from node_agent.heap import bound_heap, give_back

def private_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))

if "bound" in sys.argv:
    bound_heap()
before = private_bytes()
bytearray(8 << 20)
kept = []
for _ in range(12):
    block = bytearray(3 << 20)
    kept += [bytes(2000) for _ in range(10)]
    other = bytearray(3 << 20)
    kept += [bytes(2000) for _ in range(10)]
    del block, other
if "give_back" in sys.argv:
    give_back()
print(private_bytes() - before)
"""


def left_bytes(*settings: str) -> int:
    """Private memory after messages of some MB that were all freed, beyond that before them."""
    command = [sys.executable, "-c", BURST, *settings]
    return int(subprocess.check_output(command, cwd=HERE, text=True))


def test_a_burst_leaves_nothing_behind_where_the_heap_is_bounded():
    assert left_bytes("bound") < 1 << 20


@pytest.mark.parametrize("settings", [(), ("bound",)])
def test_what_lies_free_in_the_middle_is_given_back(settings):
    assert left_bytes("give_back", *settings) < 1 << 20

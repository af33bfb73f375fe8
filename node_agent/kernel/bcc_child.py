"""The child that runs bcc: C text and flags in on stdin, instructions out on stdout, as JSON.

Runs on the distribution's interpreter, so it imports only the standard library, bcc, and what
takes its privileges away.
"""

import json
import os
import sys

from node_agent.children.confine import confine

CPU_S = 240
MEMORY_BYTES = 2 << 30  # of address space; 150 MB are resident
OUTPUT_BYTES = 1 << 20
NICENESS = 5
WALL_S = 290


def main() -> None:
    """Compile what is asked for; errors go to stderr, with a status other than 0."""
    confine(CPU_S, MEMORY_BYTES, OUTPUT_BYTES, NICENESS, WALL_S, reads_files=True)
    request = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # bcc and clang print
    from bcc import BPF  # type: ignore[import-not-found]  # the system Python has it

    # Nothing is loaded: that needs capabilities, and is the agent's.
    module = BPF(text=request["text"].encode(), cflags=request["flags"])
    instructions = {
        name: module.dump_func(entry.encode()).hex() for name, entry in request["entries"].items()
    }
    json.dump(instructions, answer)
    answer.close()

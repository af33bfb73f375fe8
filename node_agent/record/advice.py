"""What to do about what a recording could not show. Pure."""

from collections.abc import Mapping

UNNAMED_JIT = "[jit]"
LEAST_PERCENT = 1.0  # below it nobody looks
# By the beginning of a program's name; docs/symbols.md has more.
_RUNTIMES = {
    "node": "node --perf-basic-prof --interpreted-frames-native-stack ...",
    "java": "java -XX:+PreserveFramePointer ..., then at any time: jcmd PID Compiler.perfmap",
    "python": "python3 -X perf ... (from 3.12 on)",
}
_ANY = "a perf map in /tmp/perf-PID.map, which many runtimes write when they are asked to"


def advice(samples: int, unnamed: Mapping[str, int], stack_ends: Mapping[str, int]) -> list[str]:
    """Lines about `samples`: `unnamed` are those with code that a runtime made and nobody named, by
    process; `stack_ends` those with a user part, by how that ended."""
    lines = []
    percent = 100 * sum(unnamed.values()) / max(1, samples)
    if percent >= LEAST_PERCENT:
        names = sorted(unnamed, key=lambda name: (-unnamed[name], name))
        lines.append(
            f"{UNNAMED_JIT} is in {percent:.1f} % of samples ({', '.join(names[:5])}): compiled "
            "while the program ran, and named only by what the program writes. Start it as:"
        )
        hints = dict.fromkeys(_hint(name) for name in names)
        lines += [f"  {hint}" for hint in hints]
    percent = 100 * stack_ends.get("no_room", 0) / max(1, sum(stack_ends.values()))
    if percent >= LEAST_PERCENT:
        lines.append(
            f"no room: {percent:.1f} % of stacks are cut, since the unwind tables of all that runs "
            "need more memory than there is for them; --pid N takes those of one process alone"
        )
    return lines


def _hint(name: str) -> str:
    return next((hint for start, hint in _RUNTIMES.items() if name.startswith(start)), _ANY)

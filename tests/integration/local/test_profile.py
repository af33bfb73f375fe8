"""What the demo shows of known programs: right shares, kernel names, and pprof that opens."""

import math
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest

PROGRAMS = Path(__file__).parents[2] / "data/programs"
RATE_HZ, LOWEST_HZ = 199, 11  # of the preset, and the lowest of the agent's governor
SHARES = {"half": 0.5, "third": 0.3, "fifth": 0.2}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[None]:
    """The program of known shares, and one that spends its time in the kernel.

    The first goes before what else runs here, so that there are soon enough samples of it.
    """
    shares = tmp_path / "shares"
    # A build id of its own: other copies of this program are not to be taken for it.
    flags = ["-O1", "-fno-omit-frame-pointer", f"-Wl,--build-id=0x{uuid4().hex}"]
    subprocess.run(["gcc", *flags, "-o", shares, PROGRAMS / "shares.c"], check=True)
    commands = (
        ["nice", "-n", "-5", str(shares)],
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=64k"],
    )
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    yield
    for process in started:
        process.kill()
        process.wait()


def self_ns_by_function(answer: dict[str, Any]) -> Counter[tuple[str, str]]:
    """CPU nanoseconds by (kind, function name) of a columnar answer."""
    names, functions = answer["strings"], answer["functions"]
    sums: Counter[tuple[str, str]] = Counter()
    for function, self_ns in zip(answer["nodes"]["function"], answer["nodes"]["self"], strict=True):
        kind = answer["kinds"][functions["kind"][function]]
        sums[kind, names[functions["name"][function]]] += self_ns
    return sums


def kernel_weights(answer: dict[str, Any]) -> tuple[int, int]:
    """CPU nanoseconds of kernel functions that have a name, and of all."""
    sums = {name: v for (kind, name), v in self_ns_by_function(answer).items() if kind == "kernel"}
    return sum(v for name, v in sums.items() if "+0x" not in name), sum(sums.values())


@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("programs")
def test_known_programs_have_their_shares_and_names(
    start_up: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    up = start_up("--preset", "debug").wait_ready()

    def flamegraph(executable: str) -> dict[str, Any]:
        query = f'{{executable="{executable}"}}'
        answer = up.get("/api/v1/flamegraph", **{"from": "now-15m", "until": "now", "query": query})
        assert isinstance(answer, dict)
        return answer

    # After 23 s of CPU time at the full rate a share of one half is within 3 points with four
    # standard errors. Where the governor has lowered the rate, samples weigh differently: they are
    # taken for as few as there may be.
    def samples_at_least() -> float:
        answer = flamegraph("shares")
        cpu_s = answer["total_ns"] / 1e9
        has_full_rate = answer["coverage"]["samples"] > 0.97 * RATE_HZ * cpu_s
        if cpu_s < (23 if has_full_rate else 60):
            return 0
        return float(cpu_s * (RATE_HZ if has_full_rate else LOWEST_HZ))

    def named() -> bool:
        shares = {name for _, name in self_ns_by_function(flamegraph("shares"))}
        named_ns, kernel_ns = kernel_weights(flamegraph("dd"))
        return set(SHARES) <= shares and named_ns > 0.95 * kernel_ns > 0

    at_least = wait_until(samples_at_least, "samples of the program", limit_s=1000)
    wait_until(named, "names of its functions")

    of_shares = self_ns_by_function(flamegraph("shares"))
    weights = {name: of_shares["native", name] for name in SHARES}
    for name, share in SHARES.items():
        bound = 4.03 * math.sqrt(share * (1 - share) / at_least)
        assert weights[name] / sum(weights.values()) == pytest.approx(share, abs=bound), weights

    of_dd = flamegraph("dd")
    _, kernel_ns = kernel_weights(of_dd)
    assert kernel_ns > 0.5 * of_dd["total_ns"], "dd copies nothing into nothing: the kernel works"

    profile = tmp_path / "profile.pb.gz"
    url = f"{up.ready['url']}api/v1/flamegraph?from=now-15m&until=now&format=pprof"
    with urlopen(url) as answer:
        profile.write_bytes(answer.read())
    top = subprocess.run(
        ["go", "tool", "pprof", "-top", str(profile)], check=True, capture_output=True, text=True
    ).stdout
    assert "Type: cpu" in top
    assert any(line.endswith(" half") for line in top.splitlines()), top

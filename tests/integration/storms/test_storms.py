"""Loads that make profilers expensive: the tables of the agent stay bounded, it returns into its
budget, and the stacks of what still runs stay whole (docs/overhead.md says what each load is)."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from node_agent.kernel.structs import MAX_KNOWN_PROCESSES
from node_agent.overhead.levels import MEMORY_BYTES, USER_PERCENT
from node_agent.presets import PRESETS
from node_agent.unwind.loading import MAX_WAITING
from wire.schema import Batch

WHOLE_PERCENT = 98.0
RETURN_S = 30.0
JUDGED = 6  # batches after that
LOWEST_HZ = 11
SHIPPER_BYTES = 9 << 20  # of the budget: none runs here (decision 0021 has what it takes)
SETTLED_S = 65.0  # the governor's first minute is more generous
# By name: programs with their arguments; CPUs to simulate (see many_cpus.py); preset.
STORMS: dict[str, tuple[list[tuple[str, ...]], int | None, str]] = {
    "forks": ([("forks", "1000")], None, "production"),
    "forks-debug": ([("forks", "1000")], None, "debug"),
    "idle": ([("idle", "5000", "1000")], None, "debug"),
    "mappings": ([("mappings", "5000")], None, "debug"),
    "stacks-of-64-cpus": ([("stacks",), ("stacks",)], 64, "debug"),
    "forks-of-64-cpus": ([("forks", "1000")], 64, "production"),
}


def check_bounds(status: dict[str, Any]) -> None:
    unwind = status["unwind"]
    assert unwind["processes"] <= MAX_KNOWN_PROCESSES
    assert unwind["processes_waiting"] <= MAX_WAITING
    assert unwind["mappings"] <= unwind["mappings_limit"]
    assert unwind["row_bytes"] <= unwind["row_bytes_limit"]


def costs(batches: list[Batch], children_ns: int) -> tuple[float, float]:
    """Percent of the host and of one core in user space, without the sampler's children."""
    spent = [batch.overhead for batch in batches]
    duration_ns = sum(batch.duration_ns for batch in batches)
    user_ns = sum(cost.sampler_cpu_ns + cost.shipper_cpu_ns for cost in spent) - children_ns
    total_ns = user_ns + sum(cost.kernel_cpu_ns + cost.interrupt_cpu_ns for cost in spent)
    return (
        100 * total_ns / (batches[0].online_cpus * duration_ns),
        100 * user_ns / duration_ns,
    )


def become_whole(
    agent: Any, watched: str, ends_of: Callable[..., Any], until: Callable[..., Any]
) -> None:
    def last_is_whole() -> bool:
        ends = ends_of(agent.take()[-1:], watched)
        return ends["complete"] > 0.9 * max(ends.total(), 1)

    until(last_is_whole, f"{watched} with whole stacks")


@pytest.mark.timeout(1800)
def test_all_storms_at_once_leave_stacks_whole_and_tables_bounded(
    start_agent, start_load, watched, ends_of, until
) -> None:
    """A small edition of each on one agent. Without a budget: on a slow machine it would pause,
    rightly, and nothing would be left to look at."""
    agent = start_agent("development", interval_s=1.0, is_unbound=True)
    become_whole(agent, watched, ends_of, until)
    start_load("forks", "200")
    start_load("idle", "500", "1000")
    start_load("stacks")
    start_load("mappings", "5000")
    during: list[Batch] = []

    def samples() -> int:
        during.extend(agent.take())
        check_bounds(agent.status())
        return ends_of(during, watched).total()

    until(lambda: samples() >= 200, "200 samples of the watched program in the storms")
    until(lambda: agent.status()["unwind"]["lost"].get("mappings_cut"), "mappings counted as cut")
    ends = ends_of(during, watched)
    assert ends["complete"] >= WHOLE_PERCENT / 100 * ends.total(), ends


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", STORMS)
def test_a_storm_ends_inside_the_budget(
    name, start_agent, start_load, watched, ends_of, until, record_property
) -> None:
    """The whole storm. Judged by the agent's own figures over JUDGED intervals, RETURN_S after the
    storm began: they are inside the budget, or nothing is left to give up but sampling itself.
    Children (rows) are left out like the governor leaves them out: a lower rate saves nothing of
    them, and they have a ration of their own."""
    loads, cpus, preset = STORMS[name]
    agent = start_agent(preset, interval_s=5.0, cpus=cpus)
    become_whole(agent, watched, ends_of, until)
    until(lambda: time.time() - agent.status()["started_at"] > SETTLED_S, "a settled agent")
    agent.take()
    for load in loads:
        start_load(*load)
    began_s = time.monotonic()
    until(lambda: time.monotonic() - began_s > RETURN_S, "the time to return")
    during = agent.take()
    children_ns, judged = agent.children_ns(), []
    while len(judged) < JUDGED:
        time.sleep(0.5)
        judged += agent.take()
    children_ns = agent.children_ns() - children_ns
    status = agent.status()
    check_bounds(status)
    ends = ends_of(during + judged, watched)
    host, user = costs(judged, children_ns)
    rate_hz = judged[-1].rate_millihertz // 1000
    memory_bytes = max(batch.overhead.memory_bytes for batch in during + judged)
    print(f"{name}: {host:.3f} % of the host, {user:.2f} % of one core, {rate_hz} Hz,")
    print(f"  {memory_bytes / 2**20:.1f} MiB, ends {dict(ends)}, shed {status['shed']},")
    print(f"  lost {status['lost']}, unwind {status['unwind']['lost']}")
    is_inside = host <= PRESETS[preset].budget_percent and user <= USER_PERCENT
    assert is_inside or rate_hz <= LOWEST_HZ, status["governor"]
    assert memory_bytes + SHIPPER_BYTES <= MEMORY_BYTES, status["overhead"]
    assert ends["complete"] >= WHOLE_PERCENT / 100 * ends.total(), ends

"""The governor in a real sampler: a budget that nothing fits into takes the rate, then the Python
frames, then all; one with room gives all of it back."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node_agent.spool import Spool
from wire.codec import decode
from wire.schema import Batch

# Its waits are short, and what Python frames cost here does not matter.
RUN = """
import sys
from pathlib import Path
from node_agent.config import load_config
from node_agent.overhead import governor
from node_agent.sampler import governing, run_sampler

governor.CALM_S, governor.PAUSE_S, governor.SETTLE_S, governor.WORTH = 0.1, 1.0, 0.0, 0.0


class Budget:
    user_percent_of_core, memory_bytes = 1e6, 1 << 40

    @property
    def cpu_percent(self):
        return 1e4 if Path(sys.argv[2]).exists() else 1e-3


governing.Budget = lambda *limits: Budget()
overrides = {"name": "web-1", "preset": "debug", "interval_s": 0.5}
overrides["spool_dir"] = Path(sys.argv[1])
sys.exit(run_sampler(load_config(None, {}, overrides)))
"""
DEEP = """
def deep(n):
    if n:
        return deep(n - 1)
    while True:
        sum(range(1000))

deep(100)
"""
LIMIT_S = 600


@pytest.fixture
def python_load() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", DEEP])
    yield
    process.kill()
    process.wait()


@pytest.fixture
def sampler(spool: Spool, tmp_path: Path, python_load: None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "spool"), str(tmp_path / "room")],
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.fixture
def wait_for(
    spool: Spool, wait_until: Callable[..., Any]
) -> Callable[[Callable[[dict[str, Any]], bool]], dict[str, Any]]:
    """The sampler's status as soon as it is so."""

    def look(is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        status = spool.read_status("sampler")
        return status if status and is_there(status) else None

    return lambda is_there: wait_until(
        lambda: look(is_there), lambda: f"the sampler says {spool.read_status('sampler')}"
    )


def steps_of(status: dict[str, Any]) -> list[str]:
    return [step["words"] for step in status["governor"]]


def test_everything_is_given_up_in_order_and_comes_back(
    sampler: subprocess.Popen[str],
    tmp_path: Path,
    wait_for: Callable[[Callable[[dict[str, Any]], bool]], dict[str, Any]],
) -> None:
    # GIVEN a budget that nothing fits into, from when the Python frames are read on
    paused = wait_for(lambda status: "sampling (paused)" in status.get("shed", []))
    levels = [words.partition(":")[0] for words in steps_of(paused)]
    assert levels == [
        "199 Hz -> 11 Hz",
        "11 Hz -> 11 Hz without Python frames",
        "11 Hz without Python frames -> paused without Python frames",
    ]
    assert {step["reason"] for step in paused["governor"]} == {"cpu"}
    assert paused["shed"] == ["sampling (paused)", "Python frames"]
    assert paused["shed_since"] is not None

    # WHEN there is room
    (tmp_path / "room").touch()

    # THEN it comes back in the opposite order
    whole = wait_for(lambda status: status.get("shed") == [] and status["python"]["ends"])
    levels = [words.partition(":")[0] for words in steps_of(whole)]
    assert levels[-5:] == [
        "11 Hz without Python frames -> 11 Hz",
        "11 Hz -> 19 Hz",
        "19 Hz -> 49 Hz",
        "49 Hz -> 99 Hz",
        "99 Hz -> 199 Hz",
    ]
    assert whole["shed_since"] is None
    wait_for(lambda status: status["python"]["ends"].get("complete", 0) > 0)
    wait_for(lambda status: status["overhead"]["python_cpu_percent"] > 0)
    sampler.send_signal(signal.SIGTERM)
    log = sampler.communicate(timeout=LIMIT_S)[1]
    assert sampler.returncode == 0

    paths = sorted((tmp_path / "spool" / "batches").glob("*.batch"))
    batches = [decode(path.read_bytes(), Batch) for path in paths]
    rates = [batch.rate_millihertz for batch in batches]
    assert {11_000, 19_000, 49_000, 99_000, 199_000} <= set(rates)
    in_pause = [batch for batch in batches if "paused" in batch.lost]
    assert in_pause
    assert in_pause[0].facts["governor"].startswith(steps_of(paused)[-1])
    assert in_pause[0].counts == b""
    assert "governor" not in batches[0].facts
    assert "governor" not in batches[-1].facts

    # what Python frames cost is counted apart, in the kernel and in the sampler
    costs = [batch.overhead for batch in batches]
    assert sum(cost.python_kernel_cpu_ns for cost in costs) > 0
    assert sum(cost.python_sampler_cpu_ns for cost in costs) > 0
    for cost in costs:
        assert cost.python_kernel_cpu_ns <= cost.kernel_cpu_ns
        assert cost.python_sampler_cpu_ns <= cost.sampler_cpu_ns

    # every step is one event, with its numbers, and one line of the log
    events = [event for batch in batches for event in batch.events]
    assert {event.kind for event in events} == {"governor"}
    told = [event.words for event in events]
    assert told[: len(steps_of(paused))] == steps_of(paused)
    assert told[-5:] == steps_of(whole)[-5:]
    assert events[0].value > events[0].limit == 1e-3
    assert (events[0].before, events[0].after) == ("199 Hz", "11 Hz")
    for words in told:
        assert log.count(words) == told.count(words)

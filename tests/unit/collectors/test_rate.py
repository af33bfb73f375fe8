from pathlib import Path

import pytest

from node_agent.collectors import rate
from node_agent.collectors.rate import effective_rate_hz, explain_rate
from node_agent.collectors.stacks import Interval


def interval(interrupts: int, duration_ns: int) -> Interval:
    return Interval({}, {}, 0, 0, 0, duration_ns, interrupts=interrupts)


def test_the_effective_rate_is_a_second_and_cpu() -> None:
    assert effective_rate_hz(interval(3960, 10_000_000_000), 4) == 99.0
    assert effective_rate_hz(interval(0, 0), 0) == 0.0


@pytest.mark.parametrize(
    ("effective_hz", "limit", "words"),
    [
        (97.0, "50", ""),
        (61.2, "50", "61 of 99 samples a second and CPU: the kernel throttles, kernel.perf"),
        (61.2, "100000", "61 of 99 samples a second and CPU: the others never came"),
        (61.2, "unreadable", "the others never came"),
    ],
)
def test_a_shortfall_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effective_hz: float, limit: str, words: str
) -> None:
    monkeypatch.setattr(rate, "MAX_SAMPLE_RATE", tmp_path / "limit")
    (tmp_path / "limit").write_text(limit)

    said = explain_rate(99, effective_hz)

    assert words in said
    assert bool(said) == bool(words)

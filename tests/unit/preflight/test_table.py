from node_agent.preflight import Check, State, render
from node_agent.preflight.table import wrap

LONG = "a reason that goes on and on until it no longer fits beside the name and the state of it"
CHECKS = [
    Check("kernel", State.OK, "6.12.9"),
    Check("perf_event_paranoid", State.DEGRADED, LONG, "sysctl -w kernel.perf_event_paranoid=2"),
]


def test_every_line_fits_and_the_columns_are_aligned():
    lines = render(CHECKS).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "kernel               ok        6.12.9"
    assert lines[1].startswith("perf_event_paranoid  degraded  a reason")
    assert lines[2].startswith(" " * 31) and lines[2][31] != " "
    assert " " * 31 + "-> sysctl -w kernel.perf_event_paranoid=2" in lines
    assert lines[-2:] == ["", "This host can be profiled; 1 of 2 degraded."]


def test_the_sum():
    assert render(CHECKS[:1]).endswith("\nThis host can be profiled.")
    refused = [*CHECKS, Check("BTF", State.REFUSED, "missing", "boot another")]
    assert render(refused).endswith("Profiling is impossible here: 1 of 3 checks refused.")


def test_colour_only_on_request():
    assert "\x1b[" not in render(CHECKS)
    assert "\x1b[33mdegraded\x1b[0m  a reason" in render(CHECKS, colour=True)


def test_wrap():
    assert wrap("", 10) == [""]
    assert wrap("a bb ccc", 4) == ["a bb", "ccc"]
    assert wrap("unbreakable-word x", 4) == ["unbreakable-word", "x"]

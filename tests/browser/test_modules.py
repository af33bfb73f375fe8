"""The page's pure modules, run by the browser that runs them for people."""

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aggregator.profiles.selector import parse_selector
from aggregator.profiles.times import parse_time

Run = Callable[[str], Awaitable[Any]]

# all ─ web ─ main ─ work ─ main (recursion) ─ work, and beside it work ─ read
ANSWER = {
    "version": 1,
    "total_ns": 100,
    "kinds": ["process", "native", "something new"],
    "strings": ["all", "", "web", "main", "app", "work", "read", "libc"],
    "functions": {
        "name": [0, 2, 3, 5, 6],
        "module": [1, 1, 4, 4, 7],
        "kind": [0, 0, 1, 1, 2],
    },
    "nodes": {
        "function": [0, 1, 2, 3, 2, 4, 3],
        "parent": [-1, 0, 1, 2, 3, 3, 4],
        "total": [100, 100, 100, 90, 50, 30, 20],
        "self": [0, 0, 10, 10, 30, 30, 20],
        "level": [0, 1, 2, 3, 4, 4, 5],
    },
}
# The same with a service in front of it and without the recursion: other indexes, same paths.
LATER = {
    "version": 1,
    "total_ns": 60,
    "kinds": ["process", "native"],
    "strings": ["app", "all", "", "db", "web", "work", "main"],
    "functions": {"name": [1, 3, 4, 5, 6], "module": [2, 2, 2, 0, 0], "kind": [0, 0, 0, 1, 1]},
    "nodes": {
        "function": [0, 1, 2, 4, 3],
        "parent": [-1, 0, 0, 2, 3],
        "total": [60, 20, 40, 40, 25],
        "self": [0, 20, 0, 15, 25],
        "level": [0, 1, 1, 2, 3],
    },
}


async def test_frames_get_positions_and_recursion_counts_once(run: Run) -> None:
    model = await run(
        f"""const {{ decode, KINDS }} = await import("/static/js/model.js");
        const m = decode({json.dumps(ANSWER)});
        return {{ x: [...m.x], depth: m.depth, start: [...m.start], sum: m.sum,
          total: [...m.fnTotal], self: [...m.fnSelf], places: [...m.fnPlaces],
          kinds: m.kinds.map((k) => KINDS[k]) }};"""
    )
    assert model["x"] == [0, 0, 0, 0, 0, 50, 0]
    assert model["depth"] == 6
    assert model["start"] == [0, 1, 2, 3, 4, 6, 7]
    assert model["sum"] == 100
    assert model["total"] == [100, 100, 100, 90, 30]
    assert model["self"] == [0, 0, 40, 30, 30]
    assert model["places"] == [1, 1, 2, 2, 1]
    assert model["kinds"] == ["process", "process", "native", "native", "unknown"]


async def test_what_was_cut_is_no_function(run: Run) -> None:
    kinds = await run(
        """const { decode, KINDS } = await import("/static/js/model.js");
        const level = [0, 1];
        const nodes = { function: [0, 1], parent: [-1, 0], total: [5, 5], self: [0, 5], level };
        const functions = { name: [0, 2], module: [1, 1], kind: [0, 1] };
        const strings = ["all", "", "(other)"];
        const kinds = ["process", "unknown"];
        const m = decode({ version: 1, kinds, strings, functions, nodes });
        return m.kinds.map((k) => KINDS[k]);"""
    )
    assert kinds == ["process", "process"]


async def test_a_place_is_found_again_in_another_answer(run: Run) -> None:
    places = await run(
        f"""const {{ decode, frameOfHash }} = await import("/static/js/model.js");
        const {{ follow, placeOf }} = await import("/static/js/place.js");
        const before = decode({json.dumps(ANSWER)});
        const after = decode({json.dumps(LATER)});
        const gone = follow(after, placeOf(before, 6));
        return {{ work: follow(after, placeOf(before, 3)).frame,
          gone: gone.frame,
          back: follow(before, gone.place).frame,
          root: follow(after, placeOf(before, 0)).frame,
          linked: frameOfHash(after, placeOf(before, 3).at(-1).path),
          distinct: new Set(before.pathHash).size }};"""
    )
    assert places["work"] == 4
    assert places["gone"] == 4, "the deepest caller that is still there"
    assert places["back"] == 6, "and the place itself once it is there again"
    assert places["root"] == 0
    assert places["linked"] == 4
    assert places["distinct"] == 7


async def test_a_frame_has_its_file_and_line_where_they_are_known(run: Run) -> None:
    nodes, strings = ANSWER["nodes"], ANSWER["strings"]
    assert isinstance(nodes, dict)
    assert isinstance(strings, list)
    answer = {
        **ANSWER,
        "strings": [*strings, "/src/app.c"],
        "nodes": {**nodes, "file": [-1, -1, 8, 8, -1, -1, -1], "line": [0, 0, 12, 0, 0, 0, 0]},
    }
    found = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const m = decode({json.dumps(answer)});
        return [0, 2, 3, 4].map((i) => m.place(i));"""
    )
    assert found == ["", "/src/app.c:12", "/src/app.c", ""]
    shown = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ tooltipOf }} = await import("/static/js/panels/details.js");
        const view = {{ m: decode({json.dumps(answer)}), coresOf: () => 1, samples: 100 }};
        return [2, 4].map((i) => tooltipOf(view, i).map((e) => e?.textContent ?? ""));"""
    )
    assert "/src/app.c:12" in shown[0]
    assert not any("app.c" in text for text in shown[1])
    assert (
        await run(
            f"""const {{ decode }} = await import("/static/js/model.js");
            return decode({json.dumps(ANSWER)}).place(2);"""
        )
        == ""
    )


async def test_an_answer_of_another_version_is_refused_in_words(run: Run) -> None:
    message = await run(
        """const { decode } = await import("/static/js/model.js");
        try { decode({ version: 2 }); } catch (error) { return error.message; }"""
    )
    assert "Reload" in message


@pytest.mark.parametrize(
    ("query", "share", "frames"),
    [("WORK", 0.9, 2), ("/^(read|main)$/", 1.0, 3), ("/^w/", 1.0, 3), ("nothing", 0, 0)],
)
async def test_search_counts_nested_matches_once(
    run: Run, query: str, share: float, frames: int
) -> None:
    found = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ match }} = await import("/static/js/search.js");
        return match(decode({json.dumps(ANSWER)}), {json.dumps(query)});"""
    )
    assert found["share"] == pytest.approx(share)
    assert found["frames"] == frames


async def test_a_broken_regex_is_an_error_and_no_query_is_none(run: Run) -> None:
    broken, none = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ match }} = await import("/static/js/search.js");
        const m = decode({json.dumps(ANSWER)});
        return [match(m, "/(/"), match(m, "")];"""
    )
    assert set(broken) == {"error"}
    assert none is None


async def test_callers_and_callees_count_recursion_once(run: Run) -> None:
    found = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ neighbours }} = await import("/static/js/callers.js");
        const m = decode({json.dumps(ANSWER)});
        return {{ main: neighbours(m, 2), work: neighbours(m, 3) }};"""
    )
    assert found["main"] == {"callers": [[1, 100]], "callees": [[3, 90]]}
    assert found["work"] == {"callers": [[2, 90]], "callees": [[2, 50], [4, 30]]}


@pytest.mark.parametrize(("share", "samples"), [(0.032, 60_000), (0.5, 400), (0.95, 1_000)])
async def test_intervals_are_normal_on_the_logit_scale(
    run: Run, share: float, samples: int
) -> None:
    found = await run(
        f"""const {{ interval }} = await import("/static/js/statistics.js");
        return interval({share}, {samples});"""
    )
    relative_variance = (1 - share) / (share * samples)  # V_s with W / period = samples
    half = 1.959964 * math.sqrt(relative_variance) / (1 - share)
    centre = math.log(share / (1 - share))
    assert found["low"] == pytest.approx(1 / (1 + math.exp(half - centre)))
    assert found["high"] == pytest.approx(1 / (1 + math.exp(-half - centre)))


async def test_intervals_below_ten_samples_are_exact_poisson_limits(run: Run) -> None:
    samples = 100_000
    intervals = await run(
        f"""const {{ interval }} = await import("/static/js/statistics.js");
        return Array.from({{ length: 10 }}, (_, k) => interval(k / {samples}, {samples}));"""
    )

    def at_most(k: int, mean: float) -> float:
        return sum(math.exp(-mean) * mean**i / math.factorial(i) for i in range(k + 1))

    for k, found in enumerate(intervals):
        assert at_most(k, found["high"] * samples) == pytest.approx(0.025, abs=2e-5)
        if k:
            assert 1 - at_most(k - 1, found["low"] * samples) == pytest.approx(0.025, abs=1e-4)
        else:
            assert found["low"] == 0


async def test_a_slow_host_keeps_the_interval_honest(run: Run) -> None:
    found = await run(
        """const { samplesBehind: behind } = await import("/static/js/statistics.js");
        return [behind(10e9, 990, 99), behind(10e9, 590, 19), behind(1e9, 5)];"""
    )
    assert found == [990, 190, 5]


MATCHERS = [
    ("service", "=", "nginx"),
    ("host", "=~", "web-.*|db\\.\\d+"),
    ("version", "!=", ""),
    ("quoted", "!~", 'say "hello"\nthere'),
    ("k8s.io/name", "=", "ä;{},"),
    ("with space", "=", "x"),
]


async def test_filters_are_written_as_the_server_reads_them(run: Run) -> None:
    wanted = [{"label": label, "op": op, "value": value} for label, op, value in MATCHERS]
    text, again = await run(
        f"""const {{ parse, print }} = await import("/static/js/selector.js");
        const text = print({json.dumps(wanted)});
        return [text, parse(text)];"""
    )
    assert again == wanted
    selector = parse_selector(text)
    read = {(m.name, m.operator, m.value) for m in (*selector.hosts, *selector.labels)}
    assert read == set(MATCHERS)


async def test_long_names_are_shortened_to_what_tells_them_apart(run: Run) -> None:
    names = {
        "django/urls/resolvers.py:resolve": "resolvers.py:resolve",
        "net/http.(*conn).serve": "http.(*conn).serve",
        "v8::internal::JsonParser<unsigned short>::Parse(v8::Local<v8::Value>)": (
            "Parse(v8::Local<v8::Value>)"
        ),
        "<alloc::vec::Vec<T> as core::iter::FromIterator>::from_iter": "from_iter",
        "(anonymous namespace)::work": "work",
        "do_syscall_64": "do_syscall_64",
        "ends/": "ends/",
        "std::": "std::",
    }
    short = await run(
        f"""const {{ shortName }} = await import("/static/js/format.js");
        return {json.dumps(list(names))}.map(shortName);"""
    )
    assert short == list(names.values())


@pytest.mark.parametrize(
    "text", ["now", "now-15m", "now-36h", "now-2w", "1700000000", "2026-01-31T12:00:00Z"]
)
async def test_times_mean_what_the_server_takes_them_for(run: Run, text: str) -> None:
    now_s = 1_780_000_000.0
    ms = await run(
        f"""const {{ timeMs }} = await import("/static/js/range.js");
        return timeMs({json.dumps(text)}, {now_s * 1000});"""
    )
    assert ms == parse_time("from", text, now_s) * 1000


async def test_steps_move_by_the_width_and_follow_now_at_its_end(run: Run) -> None:
    now = 1_780_000_000_000
    earlier, later, beyond = await run(
        f"""const {{ step }} = await import("/static/js/range.js");
        const earlier = step({{ from: "now-15m", until: "now" }}, -1, {now});
        const twice = step(earlier, -1, {now});
        return [earlier, step(twice, 1, {now}), step(earlier, 1, {now})];"""
    )
    assert parse_time("from", earlier["from"], 0) * 1000 == now - 30 * 60_000
    assert parse_time("until", earlier["until"], 0) * 1000 == now - 15 * 60_000
    assert later == earlier
    assert beyond == {"from": "now-900s", "until": "now"}


async def test_the_view_survives_its_way_through_the_url(run: Run) -> None:
    view, again, broken = await run(
        """const { readView, writeView } = await import("/static/js/view.js");
        const view = { range: { from: "now-1h", until: "now" }, search: "/^x+$/", zoom: 2 ** 51 + 7,
          matchers: [{ label: "service", op: "=", value: "a b" }], live: false, layout: "flame",
          problems: [] };
        return [view, readView(writeView(view)), readView("?from=yesterday&query=nonsense")];"""
    )
    assert again == view
    assert len(broken["problems"]) == 2
    assert broken["range"] == {"from": "now-15m", "until": "now"}
    assert broken["matchers"] == []


async def test_a_host_is_learning_while_that_is_why_it_costs_more(run: Run) -> None:
    names = await run(
        """const { learning } = await import("/static/js/fleet.js");
        const node = (name, pending, percent, budget, state = "reporting") => ({
          name, state, facts: pending ? { learning: pending } : {},
          overhead: percent === null ? null : { cpu_percent: percent },
          budget: { cpu_percent: budget } });
        const nodes = [node("new", "31", 14, 1), node("calm", "2", 0.3, 1),
          node("done", "", 14, 1), node("unmeasured", "31", null, 1),
          node("of no budget", "31", 14, null), node("gone", "31", 14, 1, "offline")];
        return learning(nodes).map((n) => n.name);"""
    )
    assert names == ["new"]

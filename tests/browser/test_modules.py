"""The page's pure modules, run by the browser that runs them for people."""

import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from aggregator.flamegraph.identity import ROOT_PATH, extend_paths
from aggregator.profiles.errors import QueryError
from aggregator.profiles.selector import parse_selector
from aggregator.profiles.times import parse_time

Run = Callable[[str], Awaitable[Any]]


def answer_of(
    frames: list[tuple[str, int, int, int]],
    functions: dict[str, tuple[str, str]],
    **changes: Any,
) -> dict[str, Any]:
    """An answer of frames (function, parent, total, self), breadth first, and of functions by name
    with their module and kind. What functions used is as it is drawn."""
    strings: dict[str, int] = {"": 0}
    names = list(functions)
    kinds = list(dict.fromkeys(kind for _, kind in functions.values()))
    index, parents, totals, selves = (list(column) for column in zip(*frames, strict=True))
    levels: list[int] = []
    for parent in parents:
        levels.append(levels[parent] + 1 if parent >= 0 else 0)

    def callers(frame: int) -> Iterator[str]:
        while (frame := parents[frame]) >= 0:
            yield index[frame]

    frames_of = {name: [i for i, found in enumerate(index) if found == name] for name in names}
    total = [sum(totals[i] for i in frames_of[name] if name not in callers(i)) for name in names]
    own = [sum(selves[i] for i in frames_of[name]) for name in names]
    texts = {
        "name": names,
        "module": [module for module, _ in functions.values()],
        "file": [""] * len(names),
        "build": [""] * len(names),
    }
    columns: dict[str, Any] = {
        key: [strings.setdefault(text, len(strings)) for text in column]
        for key, column in texts.items()
    }
    columns |= {
        "kind": [kinds.index(kind) for _, kind in functions.values()],
        "id": [zlib.crc32("/".join((name, *rest)).encode()) for name, rest in functions.items()],
        "group": [-1] * len(names),
        "members": [0] * len(names),
        "self": own,
        "total": total,
        "places": [len(frames_of[name]) for name in names],
    }
    for key in ("self", "total"):
        columns[f"{key}_low"] = [900_000 * one // totals[0] for one in columns[key]]
        columns[f"{key}_high"] = [1_050_000 * one // totals[0] for one in columns[key]]
    return {
        "version": 2,
        "total_ns": totals[0],
        "kinds": kinds,
        "kind_shares": [],
        "functions_found": len(names),
        "other_ns": 0,
        "strings": list(strings),
        "functions": columns,
        "nodes": {
            "function": [names.index(name) for name in index],
            "parent": parents,
            "total": totals,
            "self": selves,
            "low": [900_000 * one // totals[0] for one in totals],
            "high": [1_050_000 * one // totals[0] for one in totals],
            "level": levels,
            "file": [-1] * len(index),
            "line": [0] * len(index),
        },
        **changes,
    }


FUNCTIONS = {
    "all": ("", "process"),
    "web": ("", "process"),
    "main": ("app", "native"),
    "work": ("app", "native"),
    "read": ("libc", "something new"),
}
# all ─ web ─ main ─ work ─ main (recursion) ─ work, and beside it work ─ read
ANSWER = answer_of(
    [
        *[("all", -1, 100, 0), ("web", 0, 100, 0), ("main", 1, 100, 10), ("work", 2, 90, 10)],
        *[("main", 3, 50, 30), ("read", 3, 30, 30), ("work", 4, 20, 20)],
    ],
    FUNCTIONS,
)
# The same with a service in front of it and without the recursion: other indexes, same paths.
LATER = answer_of(
    [
        *[("all", -1, 60, 0), ("db", 0, 20, 20), ("web", 0, 40, 0)],
        *[("main", 2, 40, 15), ("work", 3, 25, 25)],
    ],
    {"all": ("", "process"), "db": ("", "process"), "web": ("", "process")}
    | {"work": ("app", "native"), "main": ("app", "native")},
)


async def test_frames_get_positions_and_recursion_counts_once(run: Run) -> None:
    model = await run(
        f"""const {{ decode, KINDS }} = await import("/static/js/model.js");
        const m = decode({json.dumps(ANSWER)});
        return {{ x: [...m.x], depth: m.depth, start: [...m.start], sum: m.sum,
          total: m.fnTotal, self: m.fnSelf, places: m.fnPlaces,
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


FOLDED = answer_of(
    [("all", -1, 1000, 0), ("web", 0, 1000, 584), ("(other)", 1, 416, 416)],
    {"all": ("", "process"), "web": ("", "process"), "(other)": ("", "other")},
    other_ns=416,
)


async def test_what_was_cut_is_no_function_and_is_said_with_its_weight(run: Run) -> None:
    found = await run(
        f"""const {{ decode, isFolded, isOther, labelOf }} = await import("/static/js/model.js");
        const m = decode({json.dumps(FOLDED)});
        const rows = m.names.filter((_, f) => m.isRow(f));
        const real = decode({json.dumps(ANSWER)});
        return {{ label: labelOf(m, 2), rows, folded: [0, 1].map((i) => isFolded(m, i)),
          other: isOther(m, 2), real: isFolded(real, 0) }};"""
    )
    assert found["label"] == "other, 41.6 %: too small to draw"
    assert found == {**found, "rows": [], "folded": [True, True], "other": True, "real": False}


async def test_a_service_that_is_called_as_what_was_cut_is_a_service(run: Run) -> None:
    answer = answer_of(
        [("all", -1, 5, 0), ("(other)", 0, 5, 5)],
        {"all": ("", "process"), "(other)": ("", "process")},
    )
    label = await run(
        f"""const {{ decode, labelOf }} = await import("/static/js/model.js");
        return labelOf(decode({json.dumps(answer)}), 1);"""
    )
    assert label == "(other)"


async def test_paths_have_the_numbers_that_the_server_knows_them_by(run: Run) -> None:
    ids = ANSWER["functions"]["id"]
    nodes = ANSWER["nodes"]
    paths = [ROOT_PATH]
    for function, parent in zip(nodes["function"][1:], nodes["parent"][1:], strict=True):
        above = np.array([paths[parent]], np.uint64)
        paths.append(int(extend_paths(above, np.array([ids[function]], np.uint64))[0]))
    found = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        return [...decode({json.dumps(ANSWER)}).pathHash];"""
    )
    assert found == paths


async def test_functions_of_one_name_are_told_apart(run: Run) -> None:
    names = ["all", "run", "run ", "run  ", "run   ", "go", "run    "]
    answer = answer_of(
        [("all", -1, 9, 9)],
        dict.fromkeys(names, ("app", "native")),
    )
    text = answer["strings"]
    functions = answer["functions"]
    text += ["/srv/a.py", "/srv/b.py", "lib", "aabbccddeeff", "112233445566"]
    at = text.index
    functions["name"] = [at("all"), *[at("run")] * 4, at("go"), at("run")]
    functions["module"] = [at("app")] * 4 + [at("lib")] * 2 + [at("lib")]
    functions["file"] = [at(""), at("/srv/a.py"), at("/srv/b.py"), *[at("")] * 4]
    functions["build"] = [*[at("")] * 4, at("aabbccddeeff"), at(""), at("112233445566")]
    apart = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const m = decode({json.dumps(answer)});
        return [m.apart, m.labels[1], m.labels[5]];"""
    )
    assert apart == [
        [
            *["", "app, a.py", "app, b.py", "app"],
            *["lib, build aabbccdd", "", "lib, build 11223344"],
        ],
        "run (app, a.py)",
        "go",
    ]


# Two addresses of libx without a name, which are one row, below a function that has one.
GROUPED = answer_of(
    [
        *[("all", -1, 90, 0), ("web", 0, 90, 0), ("main", 1, 90, 10), ("libx+0x10", 2, 50, 20)],
        *[("libx+0x20", 2, 30, 30), ("libx+0x20", 3, 30, 30)],
    ],
    {"all": ("", "process"), "web": ("", "process"), "main": ("app", "native")}
    | dict.fromkeys(("libx+0x10", "libx+0x20", "[unnamed]"), ("libx", "unknown")),
)
GROUPED["functions"].update(
    group=[-1, -1, -1, 5, 5, -1],
    members=[0, 0, 0, 0, 0, 2],
    total=[90, 90, 90, 50, 60, 80],
    self=[0, 0, 10, 20, 60, 80],
    places=[1, 1, 1, 1, 2, 3],
)


async def test_addresses_without_a_name_are_one_row_a_module(run: Run) -> None:
    found = await run(
        f"""const {{ decode, heaviestFrameOf }} = await import("/static/js/model.js");
        const {{ neighbours }} = await import("/static/js/callers.js");
        const {{ match }} = await import("/static/js/search.js");
        const m = decode({json.dumps(GROUPED)});
        const hits = (text) => [...match(m, text).hit];
        return {{ rows: m.names.map((_, f) => f).filter((f) => m.isRow(f)), label: m.labels[5],
          heaviest: heaviestFrameOf(m, 5), neighbours: neighbours(m, 5),
          one: hits("+0x10"), all: hits("libx: 2") }};"""
    )
    assert found["rows"] == [2, 5]
    assert found["label"] == "libx: 2 addresses without a name"
    assert found["heaviest"] == 3
    assert found["neighbours"] == {"callers": [[2, 80]], "callees": [[5, 30]], "untold": 0}
    assert found["one"] == [0, 0, 0, 1, 0, 1]
    assert found["all"] == [0, 0, 0, 1, 1, 1]


async def test_callers_say_how_much_of_a_function_they_do_not_know(run: Run) -> None:
    answer = json.loads(json.dumps(ANSWER))
    answer["functions"]["total"][4] = 45  # read, of which 30 are drawn
    found = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ neighbours }} = await import("/static/js/callers.js");
        return neighbours(decode({json.dumps(answer)}), 4);"""
    )
    assert found == {"callers": [[3, 30]], "callees": [], "untold": 15}


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
    answer = json.loads(json.dumps(ANSWER))
    answer["strings"].append("/src/app.c")
    place = len(answer["strings"]) - 1
    answer["nodes"]["file"][2:4] = [place, place]
    answer["nodes"]["line"][2] = 12
    found, shown = await run(
        f"""const {{ decode }} = await import("/static/js/model.js");
        const {{ tooltipOf }} = await import("/static/js/panels/details.js");
        const m = decode({json.dumps(answer)});
        const words = (i) =>
          tooltipOf({{ m, coresOf: () => 1 }}, i).map((e) => e?.textContent ?? "");
        return [[0, 2, 3, 4].map((i) => m.place(i)), [2, 4].map(words)];"""
    )
    assert found == ["", "/src/app.c:12", "/src/app.c", ""]
    assert "/src/app.c:12" in shown[0]
    assert not any("app.c" in text for text in shown[1])


async def test_an_answer_of_another_version_is_refused_in_words(run: Run) -> None:
    message = await run(
        """const { decode } = await import("/static/js/model.js");
        try { decode({ version: 1 }); } catch (error) { return error.message; }"""
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
    assert found["main"] == {"callers": [[1, 100]], "callees": [[3, 90]], "untold": 0}
    assert found["work"] == {"callers": [[2, 90]], "callees": [[2, 50], [4, 30]], "untold": 0}


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


SELECTORS = [
    *[
        "",
        " ",
        "{}",
        " { } ",
        '{a="b"}',
        "{a='b'}",
        "{a=`b`}",
        '{a="b",}',
        '{ a = "b" , c != "d" }',
    ],
    *['{"k8s.io/x"="1"}', "{'with space'=~\"x|y\"}", "{`a b`!~`\\d+`}", '{a.b/c-d:e="1"}'],
    *[r'{a="\x41\u00e9"}', r'{a="\n\t\r\\\"\'"}', r"{a='\''}", '{a="ä;{},=~"}', '{a=""}'],
    *['{a="line\nbreak"}', '{host="h",host!="i"}', '{\ta="b"\r\n}', '{a="b"} '],
    *[
        "nonsense",
        "{",
        "}",
        "{a}",
        "{a=b}",
        '{a=="b"}',
        '{="b"}',
        '{a="b" c="d"}',
        '{a="b"}x',
        "{,}",
    ],
    *[
        r'{a="\q"}',
        r'{a="\x4"}',
        r'{a="\u12"}',
        '{a="b',
        "{a=`b}",
        '{a="b",,}',
        '{9a="b"}',
        '{ä="b"}',
    ],
    *['\x1c{a="b"}', '{a\xa0="b"}', '{a="b"}\ufeff', '{a ~="b"}', '{a=!"b"}'],
]


async def test_the_page_reads_every_selector_as_the_server_does(run: Run) -> None:
    def by_server(text: str) -> list[list[str]] | None:
        try:
            selector = parse_selector(text)
        except QueryError:
            return None
        return sorted([m.name, m.operator, m.value] for m in (*selector.hosts, *selector.labels))

    by_page = await run(
        f"""const {{ parse }} = await import("/static/js/selector.js");
        const read = (text) => {{
          try {{ return parse(text).map((m) => [m.label, m.op, m.value]); }}
          catch {{ return null; }} }};
        return {json.dumps(SELECTORS)}.map(read);"""
    )
    found = {
        text: None if read is None else sorted(read)
        for text, read in zip(SELECTORS, by_page, strict=True)
    }
    assert found == {text: by_server(text) for text in SELECTORS}


@pytest.mark.parametrize(
    ("typed", "value", "is_whole"),
    [
        *[("service=api", "api", True), ("service=", "", False), ('service=""', "", True)],
        *[('service="a b"', "a b", True), ("service='a", "a", True), ("service=~a.*", "a.*", True)],
        *[("service", "", False), (r'service="a\"b"', 'a"b', True)],
    ],
)
async def test_what_is_typed_into_the_filter_field(
    run: Run, typed: str, value: str, is_whole: bool
) -> None:
    found = await run(
        f"""const {{ parseTyped }} = await import("/static/js/selector.js");
        return parseTyped({json.dumps(typed)});"""
    )
    assert (found["label"], found["value"], found["isWhole"]) == ("service", value, is_whole)


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


@pytest.mark.parametrize(
    "text",
    [
        *["now - 15m", " now ", "2026-01-31 12:00:00Z", "2026-01-31t12:00:00z", "1700000000.5"],
        *["2026-01-31T12:00:00.123456789+05:30", "2026-01-31", "2026-01-31T12:00:00", "now-15"],
        *["yesterday", "Sat, 31 Jan 2026 12:00:00 GMT", "now+5m", "", "-5", "1e9"],
    ],
)
async def test_times_in_links_are_those_that_the_server_takes(run: Run, text: str) -> None:
    ms = await run(
        f"""const {{ timeMs }} = await import("/static/js/range.js");
        try {{ return timeMs({json.dumps(text)}, 1.78e12); }} catch {{ return null; }}"""
    )
    try:
        expected = parse_time("from", text, 1.78e9)
    except QueryError:
        assert ms is None
    else:
        assert ms == pytest.approx(expected * 1000, abs=1)


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
        const view = { range: { from: "now-1h", until: "now" }, search: "/^x+$/",
          zoom: 2 ** 51 + 7, picked: 2 ** 47 + 3,
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
          name, state, facts: pending ? { learning: pending } : {}, shed: [], alerts: [],
          overhead: percent === null ? null : { cpu_percent: percent },
          budget: { cpu_percent: budget } });
        const nodes = [node("new", "31", 14, 1), node("calm", "2", 0.3, 1),
          node("done", "", 14, 1), node("unmeasured", "31", null, 1),
          node("of no budget", "31", 14, null), node("gone", "31", 14, 1, "offline")];
        return learning(nodes).map((n) => n.name);"""
    )
    assert names == ["new"]

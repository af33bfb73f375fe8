"""Numbers that stay true whatever is drawn: cores, functions, intervals, zooming in."""

import numpy as np
import pytest

from aggregator.flamegraph.identity import ROOT_PATH, extend_paths
from wire.schema import Module, ModuleKind, Name

APP = Module(ModuleKind.NATIVE, b"\x01" * 20, "app")
PYTHON = Module(ModuleKind.NAMED, b"python", "python")
MAIN = (APP, 0x1000)


def functions_of(answer):
    """Columns of each function by (name, file)."""
    text, functions = answer["strings"], answer["functions"]
    return {
        (text[name], text[file]): {key: column[i] for key, column in functions.items()}
        for i, (name, file) in enumerate(zip(functions["name"], functions["file"], strict=True))
    }


def paths_of(answer):
    """The path of each node, as the page makes it."""
    ids, paths = answer["functions"]["id"], [ROOT_PATH]
    nodes = answer["nodes"]
    for function, parent in zip(nodes["function"][1:], nodes["parent"][1:], strict=True):
        above, own = np.array([paths[parent]], np.uint64), np.array([ids[function]], np.uint64)
        paths.append(int(extend_paths(above, own)[0]))
    return paths


async def test_cores_are_those_of_each_host_while_it_was_covered(ask, send_at, minutes_ago):
    start_s = minutes_ago(20)
    for step in range(90):
        await send_at("big", start_s + 10 * step, {(MAIN,): 1_881}, online_cpus=10)
    await send_at("small", start_s, {}, online_cpus=2)
    answer = await ask(**{"from": str(start_s), "until": str(start_s + 900)})
    coverage = answer["coverage"]
    assert coverage["hosts"] == 2
    assert coverage["cores"] == pytest.approx(9.9)
    assert coverage["cpus"] == 12


async def test_intervals_rest_on_the_rates_of_all_hosts(ask, send_at, minutes_ago):
    # 60 hosts at 99 Hz, all of it in main; beyond the 50 that are named one at 1 Hz with most.
    work = (APP, 0x2000)
    for number in range(60):
        samples = {(MAIN,): 99}
        await send_at(f"a-{number:02}", minutes_ago(3), samples, rate_millihertz=99_000)
    await send_at("z", minutes_ago(3), {(MAIN,): 470, (work,): 470}, rate_millihertz=1_000)
    answer = await ask()
    assert len(answer["coverage"]["host_names"]) == 50
    main = functions_of(answer)["app+0x1000", ""]
    share = 530 / 1_000
    assert main["total"] / answer["total_ns"] == pytest.approx(share, abs=1e-6)
    assert main["total_low"] / 1e6 == pytest.approx(share - 0.030, abs=0.002)
    assert main["total_high"] / 1e6 == pytest.approx(share + 0.030, abs=0.002)


async def test_functions_are_summed_before_anything_is_cut(ask, send_at, minutes_ago):
    # One function with all the time itself, at the end of 300 paths.
    leaf = (APP, 0x9000)
    stacks = {((APP, 16 * number), leaf): 19 for number in range(1, 301)}
    await send_at("web-1", minutes_ago(2), stacks)
    whole, small = await ask(), await ask(max_nodes="20")
    assert len(small["nodes"]["total"]) <= 20
    for answer in (whole, small):
        group = functions_of(answer)["[unnamed]", ""]
        assert (group["self"], group["total"]) == (300 * 10**9, 300 * 10**9)
        assert (group["members"], group["places"]) == (301, 600)
        assert [share["self"] for share in answer["kind_shares"]] == [300 * 10**9]
        assert answer["functions_found"] == 1
    assert whole["other_ns"] == 0
    assert small["other_ns"] / small["total_ns"] > 0.9


async def test_zooming_in_draws_what_was_cut(ask, send_at, stack_of, minutes_ago):
    stacks = [stack_of(number, 8) for number in range(60)]
    await send_at("web-1", minutes_ago(2), dict.fromkeys(stacks, 19))
    whole, small = await ask(), await ask(max_nodes="70")
    assert len(whole["nodes"]["total"]) == 2 + 60 * 8
    wanted = paths_of(whole)[2]  # the first frame of one stack
    zoomed = await ask(max_nodes="70", zoom=f"{wanted:x}")
    chain, node = [], 2
    parents = whole["nodes"]["parent"]
    for _ in range(8):
        chain.append(paths_of(whole)[node])
        node = parents.index(node) if node in parents else node
    assert set(chain) <= set(paths_of(zoomed))
    assert not set(chain) <= set(paths_of(small))
    assert zoomed["total_ns"] == whole["total_ns"]
    # A path that there is not changes nothing.
    assert await ask(max_nodes="70", zoom="123") == small


async def test_functions_of_one_name_in_different_files_stay_apart(ask, send_at, minutes_ago):
    a, b = ((PYTHON, Name("run", file, 1)) for file in ("/srv/a.py", "/srv/b.py"))
    await send_at("web-1", minutes_ago(2), {(a,): 19, (b,): 38, (a, b): 57})
    answer = await ask()
    functions = functions_of(answer)
    first, second = functions["run", "/srv/a.py"], functions["run", "/srv/b.py"]
    assert first["id"] != second["id"]
    assert (first["self"], first["total"]) == (10**9, 4 * 10**9)
    assert (second["self"], second["total"]) == (5 * 10**9, 5 * 10**9)
    assert len(set(paths_of(answer))) == len(answer["nodes"]["total"])


@pytest.mark.parametrize("zoom", ["x", "-1", "12345678901234", "0x1", " 1"])
async def test_a_bad_path_is_named(client, zoom):
    async with client.get("/api/v1/flamegraph", params={"zoom": zoom}) as response:
        assert response.status == 400
        assert "is no path" in (await response.json())["error"]["message"]

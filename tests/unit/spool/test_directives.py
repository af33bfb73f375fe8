import msgspec
import pytest

from node_agent.spool import directives
from wire.schema import ProfileDirective

HASH = "ab" * 16
PROFILE = {
    "kind": "profile",
    "id": 7,
    "collector": "cpu",
    "rate_hz": 199,
    "seconds": 60,
    "begin_before_s": 1.8e9,
}


@pytest.mark.parametrize(
    "directive",
    [
        {"kind": "symbols", "module_kind": 0, "build_id": "ab" * 20},
        {"kind": "symbols", "module_kind": 2, "build_id": "ab"},
        {"kind": "define", "hashes": [HASH]},
        PROFILE,
        {"kind": "profile_end", "id": 7},
    ],
)
def test_known_orders_pass(directive):
    assert directives.check(directive | {"extra": "/etc/shadow"}) == directive


@pytest.mark.parametrize(
    "directive",
    [
        None,
        [],
        {},
        {"kind": "exec"},
        {"kind": "symbols"},
        {"kind": "symbols", "module_kind": 3, "build_id": "ab"},
        {"kind": "symbols", "module_kind": "0", "build_id": "ab"},
        {"kind": "symbols", "module_kind": True, "build_id": "ab"},
        {"kind": "symbols", "module_kind": [], "build_id": "ab"},
        {"kind": "symbols", "module_kind": 0, "build_id": ""},
        {"kind": "symbols", "module_kind": 0, "build_id": "../../x"},
        {"kind": "symbols", "module_kind": 0, "build_id": "AB"},
        {"kind": "symbols", "module_kind": 0, "build_id": "ab cd"},
        {"kind": "symbols", "module_kind": 0, "build_id": "ab" * 65},
        {"kind": "symbols", "module_kind": 0, "build_id": b"ab"},
        {"kind": "define", "hashes": []},
        {"kind": "define", "hashes": "ab"},
        {"kind": "define", "hashes": ["ab"]},
        {"kind": "define", "hashes": [HASH, 5]},
        {"kind": "define", "hashes": [HASH] * (directives.MAX_HASHES + 1)},
        {"kind": "profile"},
        PROFILE | {"id": 0},
        PROFILE | {"id": True},
        PROFILE | {"id": "../../x"},
        PROFILE | {"collector": "cpu; reboot"},
        PROFILE | {"collector": None},
        PROFILE | {"rate_hz": 1_001},
        PROFILE | {"rate_hz": 0},
        PROFILE | {"rate_hz": 99.0},
        PROFILE | {"seconds": 610},
        PROFILE | {"seconds": 15},
        PROFILE | {"begin_before_s": float("nan")},
        PROFILE | {"begin_before_s": "soon"},
        PROFILE | {"begin_before_s": 1e300},
        {"kind": "profile_end"},
        {"kind": "profile_end", "id": -1},
    ],
)
def test_anything_else_is_no_order(directive):
    with pytest.raises(ValueError):
        directives.check(directive)


def test_a_profile_has_to_begin_by_this_hosts_clock():
    asked = ProfileDirective(7, "cpu", 199, 60, 300)
    assert directives.profile(asked, 1.8e9) == PROFILE | {"begin_before_s": 1.8e9 + 300}
    for_ever = msgspec.structs.replace(asked, begin_within_s=1 << 60)
    assert directives.profile(for_ever, 0.0)["begin_before_s"] == directives.MAX_BEGIN_WITHIN_S


def test_file_names_of_a_profile_are_its_own_and_its_end_comes_behind():
    begin, end = (directives.file_name(d, 1) for d in (PROFILE, directives.profile_end(7)))
    assert begin == directives.file_name(PROFILE, 2)
    assert begin < end < directives.file_name(directives.profile_end(8), 1)


def test_file_names_repeat_for_the_same_build_id_only():
    one = directives.symbols(0, b"\xab" * 20)
    assert directives.file_name(one, 1) == directives.file_name(one, 2)
    other = directives.define([b"h" * 16])
    assert directives.file_name(other, 1) != directives.file_name(other, 2)

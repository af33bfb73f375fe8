import pytest

from node_agent.spool import directives

HASH = "ab" * 16


@pytest.mark.parametrize(
    "directive",
    [
        {"kind": "symbols", "module_kind": 0, "build_id": "ab" * 20},
        {"kind": "symbols", "module_kind": 2, "build_id": "ab"},
        {"kind": "define", "hashes": [HASH]},
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
    ],
)
def test_anything_else_is_no_order(directive):
    with pytest.raises(ValueError):
        directives.check(directive)


def test_file_names_repeat_for_the_same_build_id_only():
    one = directives.symbols(0, b"\xab" * 20)
    assert directives.file_name(one, 1) == directives.file_name(one, 2)
    other = directives.define([b"h" * 16])
    assert directives.file_name(other, 1) != directives.file_name(other, 2)

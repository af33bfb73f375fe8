"""The Python mirror of bpf/events.h against what the C compiler makes of that header."""

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.stacks import PythonEnd, StackEnd
from node_agent.cpython import structs as python_structs
from node_agent.cpython.offsets import Segments
from node_agent.kernel import structs

HEADER = Path(__file__).parents[2] / "bpf/events.h"
PYTHON_HEADER = HEADER.with_name("python_events.h")
MIRRORS = {
    "sample_key": structs.SampleKeyC,
    "stack_event": structs.StackEventC,
    "control": structs.ControlC,
    "counters": structs.CountersC,
    "settings": structs.SettingsC,
    "exclusion": structs.ExclusionC,
    "row_rule": structs.RowRuleC,
    "row_block": structs.RowBlockC,
    "row_region": structs.RowRegionC,
    "unwind_process": structs.UnwindProcessC,
    "unwind_mapping": structs.UnwindMappingC,
    "python_layout": python_structs.PythonLayoutC,
    "python_process": python_structs.PythonProcessC,
    "python_name": python_structs.PythonNameC,
}
CONSTANTS = (
    *("MAX_STACK_DEPTH", "THREAD_NAME_BYTES", "SAMPLE_KERNEL_THREAD"),
    *("EXCLUDE_USER", "EXCLUDE_UNIT", "EXCLUDE_CGROUP"),
    *("EXCLUDE_EXECUTABLE_NAME", "EXCLUDE_EXECUTABLE_PATH"),
    *("MAX_PATH_PARTS", "MAX_EXCLUDED_BYTES"),
    *("MAX_PYTHON_DEPTH", "PYTHON_WORDS", "MAX_STACK_WORDS", "SAMPLE_PYTHON"),
    *("STACK_END_SHIFT", "STACK_END_MASK", "PYTHON_END_SHIFT", "PYTHON_END_MASK"),
    *("ROW_UNSUPPORTED", "ROW_CFA_RSP", "ROW_CFA_RBP", "ROW_CFA_PLT", "ROW_END", "ROW_SIGNAL"),
    *("ROW_CFA_RSP_DEREF", "ROW_CFA_RBP_DEREF"),
    *("MAPPING_FRAME_POINTER", "MAPPING_NO_ROWS", "MAPPING_NO_ROOM", "MAPPING_PENDING"),
    *("ROW_PAGE_BITS", "ROW_REGION_BITS", "ROW_CELL_BYTES"),
    *("ROW_CELLS_PER_SHARD", "MAPPINGS_PER_SHARD", "MAX_ROW_SHARDS", "MAX_MAPPING_SHARDS"),
    *("MAX_KNOWN_PROCESSES", "MAX_MAPPINGS"),
)
PYTHON_CONSTANTS = (
    *("MAX_PYTHON_PROCESSES", "MAX_PYTHON_LAYOUTS", "MAX_PYTHON_RANGES", "MAX_PYTHON_NAMES"),
    *("PYTHON_NAME_BYTES", "PYTHON_FILE_BYTES", "PYTHON_EVALUATOR_WORD", "PYTHON_GLUE_WORD"),
)
ENDS = {
    **{f"STACK_{end.name}": end for end in StackEnd},
    **{f"PYTHON_{end.name}": end for end in PythonEnd},
    **{f"PYTHON_{segments.name}": segments for segments in Segments},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """{"structs": {name: {"size", "fields": {field: [offset, size]}}}, "constants": {...}}"""
    lines = []
    for name, mirror in MIRRORS.items():
        lines.append(f'printf("\\"{name}\\": {{\\"size\\": %zu, \\"fields\\": {{",')
        lines.append(f"sizeof(struct {name}));")
        for index, (field, _) in enumerate(mirror._fields_):
            comma = ", " if index else ""
            lines.append(f'printf("{comma}\\"{field}\\": [%zu, %zu]", offsetof(struct {name},')
            lines.append(f"{field}), sizeof(((struct {name} *)0)->{field}));")
        lines.append('printf("}},");')
    for name in (*CONSTANTS, *PYTHON_CONSTANTS, *ENDS):
        lines.append(f'printf("\\"{name}\\": %u,", (unsigned)({name}));')
    source = (
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/types.h>\n"
        f'#include "{HEADER}"\n#include "{PYTHON_HEADER}"\n'
        'int main(void) { printf("{"); ' + "\n".join(lines) + ' printf("\\"end\\": 0}"); }\n'
    )
    folder = tmp_path_factory.mktemp("structs")
    (folder / "layout.c").write_text(source)
    subprocess.run(["gcc", "-o", folder / "layout", folder / "layout.c"], check=True)
    found: dict[str, Any] = json.loads(subprocess.check_output([folder / "layout"]))
    return found


@pytest.mark.parametrize("name", MIRRORS)
def test_fields_lie_where_the_compiler_puts_them(compiled: dict[str, Any], name: str) -> None:
    mirror = MIRRORS[name]
    fields = {
        field: [getattr(mirror, field).offset, getattr(mirror, field).size]
        for field, _ in mirror._fields_
    }
    assert {"size": ctypes.sizeof(mirror), "fields": fields} == compiled[name]


@pytest.mark.parametrize("name", MIRRORS)
def test_structs_have_no_field_that_the_mirror_lacks(compiled: dict[str, Any], name: str) -> None:
    end = 0
    for offset, size in compiled[name]["fields"].values():
        assert offset == end  # no hole: a hidden field, or padding that nobody wrote down
        end = offset + size
    assert end == compiled[name]["size"]


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_the_same(compiled: dict[str, Any], name: str) -> None:
    assert compiled[name] == getattr(structs, name)


@pytest.mark.parametrize("name", PYTHON_CONSTANTS)
def test_constants_of_python_are_the_same(compiled: dict[str, Any], name: str) -> None:
    assert compiled[name] == getattr(python_structs, name)


@pytest.mark.parametrize("name", ENDS)
def test_ends_are_the_same(compiled: dict[str, Any], name: str) -> None:
    assert compiled[name] == ENDS[name]


def test_packed_layouts_read_what_the_structs_hold() -> None:
    key = structs.SampleKeyC(1, 2, 3, 4, 5, 6, 0, b"worker")
    event = structs.StackEventC(key, 7, 8, 9, 10)

    assert structs.SAMPLE_KEY.size == ctypes.sizeof(key)
    assert structs.STACK_EVENT_HEADER.size == structs.StackEventC.words.offset
    values = structs.STACK_EVENT_HEADER.unpack_from(bytes(event))
    assert values == (1, 2, 3, 4, 5, 6, b"worker".ljust(16, b"\0"), 7, 8, 9, 10)
    assert structs.SAMPLE_KEY.unpack(bytes(key)) == values[:7]

    rule = structs.RowRuleC(-3, -2, structs.ROW_CFA_RBP)
    block, region = structs.RowBlockC(1, 2, 3, 4), structs.RowRegionC(5, 6)
    process = structs.UnwindProcessC(1, 2, 3, 4, 5)
    mapping = structs.UnwindMappingC(1, 2, 3, 4, 5)
    assert structs.ROW_RULE.unpack(bytes(rule)) == (-3, -2, 2)
    assert structs.ROW_BLOCK.unpack(bytes(block)) == (1, 2, 3, 4)
    assert structs.ROW_REGION.unpack(bytes(region)) == (5, 6)
    assert structs.UNWIND_PROCESS.unpack(bytes(process)) == (1, 2, 3, 4, 5)
    assert structs.UNWIND_MAPPING.unpack(bytes(mapping)) == (1, 2, 3, 4, 5)

    name = python_structs.PythonNameC(0, 1, 2, 3, 4, 1, 2, (0, 0), b"main", b"/a.py")
    assert python_structs.PYTHON_NAME.size == ctypes.sizeof(name)
    texts = b"main".ljust(160, b"\0"), b"/a.py".ljust(256, b"\0")
    assert python_structs.PYTHON_NAME.unpack(bytes(name)) == (1, 2, 3, 4, 1, 2, *texts)

import ctypes
from pathlib import Path

import pytest

from node_agent.kernel.bcc import initializer, main_source
from node_agent.kernel.program import Program


class Inner(ctypes.Structure):
    _fields_ = (("numbers", ctypes.c_uint32 * 2), ("name", ctypes.c_char * 4))


class Outer(ctypes.Structure):
    _fields_ = (("limit", ctypes.c_uint64), ("inner", Inner), ("flag", ctypes.c_uint8))


def test_settings_as_c():
    outer = Outer(1 << 40, Inner((1, 2), b"ab"), 1)
    assert initializer(outer) == "{1099511627776ULL, {{1ULL, 2ULL}, {97, 98}}, 1ULL}"
    with pytest.raises(TypeError):
        initializer(1.5)


def test_the_main_file():
    program = Program(Path("/x/cpu.bpf.o"), ("sample_cpu",), ("counts",), Inner((1, 2), b""))
    lines = main_source(program, {"counts": 7}).splitlines()
    assert lines[0] == "#define FLAMEFLEET_BCC"
    assert "#define MAP_FD_counts 7" in lines
    assert "static const struct settings settings = {{1ULL, 2ULL}, {}};" in lines
    # the settings before the program that reads them, and an entry of its own for bcc
    assert lines[-2] == '#include "cpu.bpf.c"'
    assert "enter_sample_cpu(struct sample_context *ctx) { return sample_cpu(ctx); }" in lines[-1]

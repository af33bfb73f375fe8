"""Names of JIT code, the same for every run and tier."""

import pytest

from node_agent.symbols.perf_map_names import clean_name
from wire.limits import MAX_NAME_BYTES
from wire.schema import Name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # V8, as node 20 and older ones write it
        ("LazyCompile:*foo /path/file.js:10:5", Name("foo", "/path/file.js", 10)),
        ("JS:~inner /srv/hot.js:1:15", Name("inner", "/srv/hot.js", 1)),
        ("JS:^inner /srv/hot.js:1:15", Name("inner", "/srv/hot.js", 1)),
        ("JS:*inner /srv/hot.js:1:15", Name("inner", "/srv/hot.js", 1)),
        ("JS:+'inner /srv/hot.js:1:15", Name("inner", "/srv/hot.js", 1)),
        ("JS:~get side /srv/a b.js:3:50", Name("get side", "/srv/a b.js", 3)),
        ("JS:~ /srv/hot.js:5:116", Name("(anonymous)", "/srv/hot.js", 5)),
        ("JS:*nextTick node:internal/x:104:18", Name("nextTick", "node:internal/x", 104)),
        ("Eval:~ [eval]:1:1", Name("(anonymous)", "[eval]", 1)),
        ("Function:~f file:///srv/m.mjs:2:1", Name("f", "file:///srv/m.mjs", 2)),
        ("JS:*bare", Name("bare")),
        ("RegExp:secret(b+)c", Name("RegExp")),
        ("Builtin:ArrayMap", Name("Builtin:ArrayMap")),
        ("BytecodeHandler:LdaZero", Name("BytecodeHandler:LdaZero")),
        ("JS:*wasm-function[12]-1-turbofan", Name("wasm-function[12]")),
        # CPython
        ("py::hot:/srv/app.py", Name("hot", "/srv/app.py")),
        ("py::A.b.<locals>.<genexpr>:<string>", Name("A.b.<locals>.<genexpr>", "<string>")),
        # HotSpot's own map, and perf-map-agent's
        ("long Hot.inner(int)", Name("Hot.inner(int)")),
        (
            "java.lang.Object[] a.B.c(java.lang.String, int[])",
            Name("a.B.c(java.lang.String, int[])"),
        ),
        ("void java.lang.Object.<init>()", Name("java.lang.Object.<init>()")),
        ("void Hot$$Lambda$1/0x00007f2740000a08.run()", Name("Hot$$Lambda.run()")),
        ("void Hot$$Lambda/0x00007f2740000a08.run()", Name("Hot$$Lambda.run()")),
        ("Ljava/lang/String;::hashCode", Name("java.lang.String::hashCode")),
        ("I2C/C2I adapters", Name("I2C/C2I adapters")),
        ("Interpreter", Name("Interpreter")),
        # others
        ("plain name", Name("plain name")),
        ("tab\there\0", Name("tabhere")),
        ("\x01\x02", Name("[jit]")),
        ("JS:~f /a.js:99999999999999999999:1", Name("f", "/a.js")),  # no file has that line
    ],
)
def test_a_name_is_cleaned(text: str, name: Name) -> None:
    assert clean_name(text) == name


def test_long_names_are_cut_to_what_the_wire_holds() -> None:
    name = clean_name("py::" + "é" * 5_000 + ":/" + "x" * 5_000)
    assert len(name.function.encode()) <= MAX_NAME_BYTES
    assert len(name.file.encode()) <= MAX_NAME_BYTES

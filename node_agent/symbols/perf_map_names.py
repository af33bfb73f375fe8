"""Names of JIT code as people know the function, the same for every run and every tier.

A name becomes (function, file, first line). What changes from run to run would fill the fleet's
dictionary with new names of old functions, so it is left out: the tier that compiled the code,
numbers and addresses of hidden classes, the text of regular expressions (which may hold data).
"""

import re

from wire.fit import fit_name
from wire.limits import MAX_LINE
from wire.schema import Name

# V8: kind, tier (~ interpreted, ^ baseline, + and * optimized), function, place.
_V8 = re.compile(r"(?:JS|Function|LazyCompile|Eval|Script):(?:[~^+*]'?)?(.*):(\d+):\d+", re.S)
# Where the file begins behind a function's name, which may hold blanks ("get size").
_V8_FILE = re.compile(r" (?=/|node:|file:|https?:|evalmachine|wasm:|\[)")
_V8_REGULAR_EXPRESSION = "RegExp:"
_WASM_TIER = re.compile(r"-\d+-(?:liftoff|turbofan)$")
_V8_TIER = re.compile(r"(?:JS|Function|LazyCompile):(?:[~^+*]'?)?")
# CPython: py::<qualified name>:<file>
_PYTHON = re.compile(r"py::([^:]*):(.*)", re.S)
# HotSpot: [return type ]class.method(parameters); perf-map-agent: Lpackage/Class;::method
_JAVA = re.compile(r"[\w.$\[\]]+ ([\w.$/<>+-]+\(.*\))", re.S)
_JAVA_SIGNATURE_END = ";::"
_JAVA_HIDDEN = re.compile(r"(\$\$Lambda)\$?\d*|/0x[0-9a-f]{6,}")
_CONTROL = dict.fromkeys((*range(32), 127))


def clean_name(text: str) -> Name:
    """The name of the function that a line of a perf map calls `text`."""
    text = text.translate(_CONTROL)
    return _v8(text) or _python(text) or _other(text)


def _v8(text: str) -> Name | None:
    if text.startswith(_V8_REGULAR_EXPRESSION):
        return Name("RegExp")
    match = _V8.fullmatch(text)
    if match is None:
        return None
    place, line = match[1], min(int(match[2][:10]), MAX_LINE + 1)
    parts = _V8_FILE.split(place, maxsplit=1)
    if len(parts) == 1:
        parts = place.split(" ", 1)
    function, file = (parts[0], parts[1]) if len(parts) == 2 else (parts[0], "")
    return _name(function or "(anonymous)", file, line)


def _python(text: str) -> Name | None:
    match = _PYTHON.fullmatch(text)
    return _name(match[1], match[2]) if match is not None and match[1] else None


def _other(text: str) -> Name:
    match = _JAVA.fullmatch(text)
    if match is not None:
        text = match[1]
    class_name, signature_end, method = text.partition(_JAVA_SIGNATURE_END)
    if signature_end and class_name.startswith("L"):
        text = f"{class_name[1:].replace('/', '.')}::{method}"
    text = _JAVA_HIDDEN.sub(lambda found: found[1] or "", text)
    text = _WASM_TIER.sub("", _V8_TIER.sub("", text, count=1))
    return _name(text.strip() or "[jit]")


def _name(function: str, file: str = "", line: int = 0) -> Name:
    return fit_name(Name(function, file, line))

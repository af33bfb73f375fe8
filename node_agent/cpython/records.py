"""The kernel program's records of an interpreter and of a process. Pure."""

from node_agent.collectors.stacks import ProcessKey
from node_agent.cpython.errors import UnknownLayoutError
from node_agent.cpython.interpreter import Interpreter
from node_agent.cpython.offsets import Offsets
from node_agent.cpython.structs import (
    MAX_PYTHON_RANGES,
    PythonLayoutC,
    PythonProcessC,
    PythonRangeC,
)

_SAME = (
    *("interpreter_next", "interpreter_threads", "thread_next", "thread_id", "thread_frame"),
    *("cframe_frame", "frame_bytes", "frame_previous", "frame_code", "frame_owner"),
    *("frame_is_entry", "code_start", "code_bytes", "text_ascii", "text_compact", "segments"),
)
_IN_CODE = ("code_first_line", "code_file", "code_name", "code_qualified_name", "code_line_table")
_MAX_ADDRESS = 1 << 32


def make_layout(offsets: Offsets, interpreter: Interpreter) -> PythonLayoutC:
    """struct python_layout. Raises UnknownLayoutError for a file with addresses beyond 4 GiB."""
    ranges = [*interpreter.evaluator, *interpreter.glue][:MAX_PYTHON_RANGES]
    if any(end >= _MAX_ADDRESS for _, end in ranges):
        raise UnknownLayoutError("its code is placed beyond 4 GiB")
    layout = PythonLayoutC(**{name: int(getattr(offsets, name)) for name in _SAME})
    for name in _IN_CODE:
        setattr(layout, name, getattr(offsets, name) - offsets.code_start)
    layout.evaluator_count = len(interpreter.evaluator)
    layout.range_count = len(ranges)
    for number, (start, end) in enumerate(ranges):
        layout.ranges[number] = PythonRangeC(start, end)
    return layout


def make_process(
    key: ProcessKey, bias: int, interpreters: int, salt: int, layout: int
) -> PythonProcessC:
    """struct python_process, with no slot found yet."""
    mask = (1 << 64) - 1
    return PythonProcessC(
        start_ns=key.start_ns,
        bias=bias & mask,
        interpreters=interpreters & mask,
        salt=salt,
        exec_id=key.exec_id,
        layout=layout,
    )

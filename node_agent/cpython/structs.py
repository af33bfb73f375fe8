"""Python mirror of bpf/python_events.h, held equal by tests/contract/test_kernel_structs.py."""

import ctypes
import struct

MAX_PYTHON_PROCESSES = 2048
MAX_PYTHON_LAYOUTS = 64
MAX_PYTHON_RANGES = 16
MAX_PYTHON_NAMES = 8192  # code objects whose name is not sent again
MIN_PYTHON_NAMES = 128
PYTHON_NAME_BYTES = 160
PYTHON_FILE_BYTES = 256
PYTHON_SEGMENT_END = 1 << 63
PYTHON_EVALUATOR_WORD = 1
PYTHON_GLUE_WORD = 2


class PythonRangeC(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint32), ("end", ctypes.c_uint32))


class PythonLayoutC(ctypes.Structure):
    _fields_ = (
        ("interpreter_next", ctypes.c_uint16),
        ("interpreter_threads", ctypes.c_uint16),
        ("thread_next", ctypes.c_uint16),
        ("thread_id", ctypes.c_uint16),
        ("thread_frame", ctypes.c_uint16),
        ("cframe_frame", ctypes.c_int16),
        ("frame_bytes", ctypes.c_uint16),
        ("frame_previous", ctypes.c_uint16),
        ("frame_code", ctypes.c_uint16),
        ("frame_owner", ctypes.c_uint16),
        ("frame_is_entry", ctypes.c_uint16),
        ("code_start", ctypes.c_uint16),
        ("code_bytes", ctypes.c_uint16),
        ("code_first_line", ctypes.c_uint16),
        ("code_file", ctypes.c_uint16),
        ("code_name", ctypes.c_uint16),
        ("code_qualified_name", ctypes.c_uint16),
        ("code_line_table", ctypes.c_uint16),
        ("text_ascii", ctypes.c_uint16),
        ("text_compact", ctypes.c_uint16),
        ("segments", ctypes.c_uint32),
        ("evaluator_count", ctypes.c_uint32),
        ("range_count", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("ranges", PythonRangeC * MAX_PYTHON_RANGES),
    )


class PythonProcessC(ctypes.Structure):
    _fields_ = (
        ("start_ns", ctypes.c_uint64),
        ("bias", ctypes.c_uint64),
        ("interpreters", ctypes.c_uint64),
        ("salt", ctypes.c_uint64),
        ("exec_id", ctypes.c_uint32),
        ("layout", ctypes.c_uint32),
        ("slot", ctypes.c_uint32),
        ("is_slot_sure", ctypes.c_uint32),
        ("slot_thread", ctypes.c_uint64),
    )


class PythonNameC(ctypes.Structure):
    _fields_ = (
        ("is_stack", ctypes.c_uint64),
        ("id", ctypes.c_uint64),
        ("first_line", ctypes.c_uint32),
        ("name_chars", ctypes.c_uint32),
        ("file_chars", ctypes.c_uint32),
        ("name_width", ctypes.c_uint8),
        ("file_width", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 2),
        ("name", ctypes.c_char * PYTHON_NAME_BYTES),
        ("file", ctypes.c_char * PYTHON_FILE_BYTES),
    )


PYTHON_ID_END = PythonNameC.id.offset + PythonNameC.id.size

# The same, to be unpacked; without `is_stack` and `reserved`.
PYTHON_NAME = struct.Struct(f"=8xQIIIBB2x{PYTHON_NAME_BYTES}s{PYTHON_FILE_BYTES}s")

"""Python mirror of bpf/events.h, held equal by tests/contract/test_kernel_structs.py."""

import ctypes
import struct

MAX_STACK_DEPTH = 127
MAX_PYTHON_DEPTH = 192
PYTHON_WORDS = 1
MAX_STACK_WORDS = 2 * MAX_STACK_DEPTH + PYTHON_WORDS * MAX_PYTHON_DEPTH
THREAD_NAME_BYTES = 16
SAMPLE_KERNEL_THREAD = 1 << 0
SAMPLE_PYTHON = 1 << 1
STACK_END_SHIFT = 8
PYTHON_END_SHIFT = 12
STACK_END_MASK = 0xF << STACK_END_SHIFT
PYTHON_END_MASK = 0xF << PYTHON_END_SHIFT
EXCLUDE_USER = 1 << 0
EXCLUDE_UNIT = 1 << 1
EXCLUDE_CGROUP = 1 << 2
EXCLUDE_EXECUTABLE_NAME = 1 << 3
EXCLUDE_EXECUTABLE_PATH = 1 << 4
MAX_PATH_PARTS = 20
MAX_EXCLUDED_BYTES = 126

GIVEN_UP_PYTHON = 1 << 0

# struct row_rule, rule
ROW_UNSUPPORTED = 0
ROW_CFA_RSP = 1
ROW_CFA_RBP = 2
ROW_CFA_PLT = 3
ROW_END = 4
ROW_SIGNAL = 5
ROW_CFA_RSP_DEREF = 6
ROW_CFA_RBP_DEREF = 7
# struct unwind_mapping, first_cell of those without rows
MAPPING_FRAME_POINTER = 1
MAPPING_NO_ROWS = 2
MAPPING_NO_ROOM = 3
MAPPING_PENDING = 4
ROW_PAGE_BITS = 10
ROW_REGION_BITS = 16
ROW_CELL_BYTES = 16
ROW_CELLS_PER_SHARD = 16384
MAPPINGS_PER_SHARD = 4096
MAX_ROW_SHARDS = 64
MAX_MAPPING_SHARDS = 64
MAX_KNOWN_PROCESSES = 5376
MAX_MAPPINGS = 4096


class ExclusionC(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint64),
        ("device", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
    )


class SampleKeyC(ctypes.Structure):
    _fields_ = (
        ("stack_key", ctypes.c_uint64),
        ("start_ns", ctypes.c_uint64),
        ("cgroup_id", ctypes.c_uint64),
        ("tgid", ctypes.c_uint32),
        ("exec_id", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("thread_name", ctypes.c_char * THREAD_NAME_BYTES),
    )


class StackEventC(ctypes.Structure):
    _fields_ = (
        ("key", SampleKeyC),
        ("generation", ctypes.c_uint32),
        ("kernel_depth", ctypes.c_uint16),
        ("user_depth", ctypes.c_uint16),
        ("python_depth", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16 * 3),
        ("words", ctypes.c_uint64 * MAX_STACK_WORDS),
    )


class CountersC(ctypes.Structure):
    _fields_ = (
        ("samples", ctypes.c_uint64),
        ("idle", ctypes.c_uint64),
        ("foreign_namespace", ctypes.c_uint64),
        ("other_process", ctypes.c_uint64),
        ("excluded", ctypes.c_uint64),
        ("silent", ctypes.c_uint64),
        ("count_map_full", ctypes.c_uint64),
        ("stack_error", ctypes.c_uint64),
        ("ring_full", ctypes.c_uint64),
        ("own_ns", ctypes.c_uint64),
        ("python_ns", ctypes.c_uint64),
        ("python_samples", ctypes.c_uint64),
    )


class ControlC(ctypes.Structure):
    _fields_ = (
        ("beat_ns", ctypes.c_uint64),
        ("generation", ctypes.c_uint32),
        ("given_up", ctypes.c_uint32),
        ("interval_start_ns", ctypes.c_uint64),
        ("interval_start_monotonic_ns", ctypes.c_uint64),
        ("booked", CountersC),
    )


class SettingsC(ctypes.Structure):
    _fields_ = (
        ("heartbeat_limit_ns", ctypes.c_uint64),
        ("pid_namespace", ctypes.c_uint32),
        ("only_tgid", ctypes.c_uint32),
        ("cgroup_root_id", ctypes.c_uint64),
        ("v1_cgroup_root_id", ctypes.c_uint64),
        ("v1_hierarchy", ctypes.c_uint32),
        ("exclusions", ctypes.c_uint32),
        ("unwind", ctypes.c_uint32),
        ("python", ctypes.c_uint32),
    )


class RowRuleC(ctypes.Structure):
    _fields_ = (
        ("cfa", ctypes.c_int16),
        ("rbp", ctypes.c_int8),
        ("rule", ctypes.c_uint8),
    )


class RowBlockC(ctypes.Structure):
    _fields_ = (
        ("first_region", ctypes.c_uint32),
        ("region_count", ctypes.c_uint32),
        ("rule_count", ctypes.c_uint32),
        ("short_codes", ctypes.c_uint32),
    )


class RowRegionC(ctypes.Structure):
    _fields_ = (
        ("first", ctypes.c_uint32),
        ("pages", ctypes.c_uint32),
    )


class UnwindProcessC(ctypes.Structure):
    _fields_ = (
        ("start_ns", ctypes.c_uint64),
        ("exec_id", ctypes.c_uint32),
        ("first_mapping", ctypes.c_uint32),
        ("mapping_count", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
    )


class UnwindMappingC(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("bias", ctypes.c_uint64),
        ("first_cell", ctypes.c_uint32),
        ("cell_count", ctypes.c_uint32),
    )


# The same layouts for reading many at once: ten times faster than ctypes field by field.
# The fields come out in the order of the struct, without the reserved ones.
SAMPLE_KEY = struct.Struct(f"=QQQIII4x{THREAD_NAME_BYTES}s")
STACK_EVENT_HEADER = struct.Struct(f"=QQQIII4x{THREAD_NAME_BYTES}sIHHH6x")
ROW_RULE = struct.Struct("=hbB")
ROW_BLOCK = struct.Struct("=IIII")
ROW_REGION = struct.Struct("=II")
UNWIND_PROCESS = struct.Struct("=QIIII")
UNWIND_MAPPING = struct.Struct("=QQQII")
COUNTER_NAMES = tuple(name for name, _ in CountersC._fields_)

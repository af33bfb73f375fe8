"""Python mirror of bpf/events.h, held equal by tests/contract/test_kernel_structs.py."""

import ctypes
import struct

MAX_STACK_DEPTH = 127
THREAD_NAME_BYTES = 16
SAMPLE_KERNEL_THREAD = 1 << 0
EXCLUDE_USER = 1 << 0
EXCLUDE_UNIT = 1 << 1
EXCLUDE_CGROUP = 1 << 2
EXCLUDE_EXECUTABLE_NAME = 1 << 3
EXCLUDE_EXECUTABLE_PATH = 1 << 4
MAX_PATH_PARTS = 20
MAX_EXCLUDED_BYTES = 126


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
        ("addresses", ctypes.c_uint64 * (2 * MAX_STACK_DEPTH)),
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
    )


class ControlC(ctypes.Structure):
    _fields_ = (
        ("beat_ns", ctypes.c_uint64),
        ("generation", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
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
    )


# The same layouts for reading many at once: ten times faster than ctypes field by field.
# The fields come out in the order of the struct, without the reserved one.
SAMPLE_KEY = struct.Struct(f"=QQQIII4x{THREAD_NAME_BYTES}s")
STACK_EVENT_HEADER = struct.Struct(f"=QQQIII4x{THREAD_NAME_BYTES}sIHH")
COUNTER_NAMES = tuple(name for name, _ in CountersC._fields_)

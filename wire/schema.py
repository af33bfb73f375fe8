"""The messages of wire version 1.

Columns are packed little-endian arrays in `bytes`; the width is in the field's comment. Stacks and
their frames run from the root (entry point) to the leaf. All times are nanoseconds; `start_ns` is
Unix time, durations are monotonic.
"""

from enum import IntEnum

import msgspec


class ModuleKind(IntEnum):
    """What a module's offsets are relative to."""

    NATIVE = 0  # an ELF file: `id` is its build id, offsets are file offsets
    KERNEL = 1  # the kernel image: `id` is its build id, offsets are relative to `_stext`
    KERNEL_MODULE = 2  # `id` is its build id, offsets are relative to its load address
    NAMED = 3  # frames known by name only (JIT, interpreter, BPF, markers): offsets index `names`


class Series(msgspec.Struct, frozen=True):
    """The labels that a group of samples carries; the host is the batch's node."""

    labels: dict[str, str]


class Overhead(msgspec.Struct, frozen=True):
    """What the agent itself cost over a batch's duration (definitions: docs/overhead.md)."""

    sampler_cpu_ns: int
    shipper_cpu_ns: int
    kernel_cpu_ns: int  # own nanoseconds of the BPF programs, all CPUs
    interrupt_cpu_ns: int  # calibrated cost of the sampling interrupts, all CPUs
    memory_bytes: int  # anon + kernel of both processes, BPF maps included
    map_bytes: int  # of which BPF maps
    cpu_percent: float  # share of the host: the four parts over online CPUs x duration
    user_percent_of_core: float  # both processes' user space, percent of one core
    event_latency_us: float = 0.0  # mean delay that one sample put on what it interrupted
    interrupt_ns: int = 0  # calibrated cost of one sampling interrupt, without the program on it
    interrupt_spread_ns: int = 0  # half the distance between its quartiles
    shipper_memory_bytes: int = 0  # of memory_bytes; the rest is the sampler's and the maps'
    python_sampler_cpu_ns: int = 0  # of sampler_cpu_ns: naming and placing Python frames
    python_kernel_cpu_ns: int = 0  # of kernel_cpu_ns: reading them


# How the user part of a stack ended, in the order of bpf/events.h's enum stack_end from 1 on.
STACK_ENDS = (
    "complete",  # walked to the entry point
    "truncated",  # deeper than what is kept
    "no_mapping",  # process or mapping not known to the agent (yet)
    "no_rows",  # a mapping without rows to unwind by
    "no_room",  # rows that did not fit in the kernel's maps
    "unsupported_rule",  # a rule that rows cannot hold
    "read_fault",  # the stack's memory could not be read
)
# How the Python part of a stack ended, in the order of enum python_end from 1 on.
PYTHON_ENDS = (
    "complete",  # down to the thread's first Python frame
    "truncated",  # deeper than what is kept
    "no_thread_state",  # not found
    "read_fault",  # memory of the interpreter could not be read
    "off",  # given up for a while, to stay in the agent's budget
)


class Event(msgspec.Struct, frozen=True):
    """Something the agent did or met that an operator should see.

    `kind` says what speaks: "governor" (the agent changed how much it does), "unit_limit" (the
    service ran into a limit of its unit), "profile" (a profile on demand). `value` and `limit` are
    in the unit of the reason, 0 where there is none; `before` and `after` are words for people.
    """

    at_ns: int
    kind: str
    reason: str
    words: str
    value: float = 0.0
    limit: float = 0.0
    before: str = ""
    after: str = ""


class Batch(msgspec.Struct, frozen=True):
    """Samples of one interval of one collector on one node.

    `run` is a random id of one sampler start; `sequence` counts its batches from 1 without gaps.
    Row i says: stack `stack_hashes[i]` was seen `counts[i]` times in `series[series_index[i]]`.
    `stack_ends` says of its samples with a user part how that ended: reason (STACK_ENDS, or a word
    of a later agent) to samples of each series; a reason that did not occur is left out.
    `python_ends` says the same of samples of Python programs and their Python part (PYTHON_ENDS).
    """

    node: str
    run: bytes  # 16 bytes
    sequence: int
    start_ns: int
    duration_ns: int
    rate_millihertz: int
    collector: str
    online_cpus: int
    series: list[Series]
    stack_hashes: bytes  # 16 bytes a row
    series_index: bytes  # u32 a row
    counts: bytes  # u32 a row
    lost: dict[str, int]  # samples lost, by reason
    overhead: Overhead
    agent_version: str
    facts: dict[str, str] = {}  # kernel release, mode, preset: shown on the fleet page
    stack_ends: dict[str, bytes] = {}  # u32 a series
    events: list[Event] = []  # since the batch before, oldest first
    python_ends: dict[str, bytes] = {}  # u32 a series


class Module(msgspec.Struct, frozen=True):
    """The file (or kernel image, or group of names) that frames belong to."""

    kind: int  # ModuleKind
    id: bytes  # build id; for NAMED: the UTF-8 name of the group, e.g. b"[jit]"
    name: str  # base name for people: "libc.so.6", "vmlinux"


class Name(msgspec.Struct, frozen=True):
    """A frame that is known by name only. Its identity is (function, file, first line)."""

    function: str
    file: str = ""
    line: int = 0


class Definitions(msgspec.Struct, frozen=True):
    """The frames of stacks that the aggregator asked for.

    Frame j is (`modules[frame_module[j]]`, `frame_offset[j]`); stack i has `stack_lengths[i]`
    frames, consecutive entries of `stack_frames`, which index the frame columns, root first.
    """

    node: str
    run: bytes
    modules: list[Module]
    names: list[Name]
    frame_module: bytes  # u32 a frame
    frame_offset: bytes  # u64 a frame; for NAMED modules an index into `names`
    stack_hashes: bytes  # 16 bytes a stack
    stack_lengths: bytes  # u16 a stack, 1..MAX_STACK_FRAMES
    stack_frames: bytes  # u32 a frame of a stack


class SymbolDirective(msgspec.Struct, frozen=True, tag="symbols", tag_field="kind"):
    """Ask a node for the symbol extract of a build id that it has already reported."""

    module_kind: int
    build_id: bytes


class ProfileDirective(msgspec.Struct, frozen=True, tag="profile", tag_field="kind"):
    """Ask a node for a profile: `collector` at `rate_hz` for `seconds` (whole PROFILE_STEP_S).

    Only for agents whose facts say `on_demand_max_rate_hz`: older ones know symbols only. Sent
    again with every answer until an event of kind "profile" comes, whose words begin with
    `profile <id>: `.
    """

    id: int
    collector: str
    rate_hz: int
    seconds: int
    begin_within_s: int  # from this answer on; later the node does not begin it


class ProfileEndDirective(msgspec.Struct, frozen=True, tag="profile_end", tag_field="kind"):
    """Ask a node to end a profile, or not to begin it. Sent like a ProfileDirective."""

    id: int


Directive = SymbolDirective | ProfileDirective | ProfileEndDirective


class Answer(msgspec.Struct, frozen=True):
    """The aggregator's answer to a batch, or to definitions ahead of one; sent after the commit."""

    status: str  # "stored" or "duplicate"
    want: bytes = b""  # 16 bytes a hash: stacks of this batch that have no definition yet
    directives: list[Directive] = []
    # Only for agents that asked, for version 2 (wire.short): the numbers of the distinct hashes
    # sent, sorted, and of the sets of labels sent that have rows, in their order. 0: none.
    stack_numbers: bytes = b""  # u32 each
    series_numbers: bytes = b""  # u32 each
    definitions: int = 0  # the newest version of definitions that is taken; 0 says nothing
    defined: int = 0  # in the answer to definitions: stacks that had none before
    refused: dict[str, int] = {}  # in the answer to definitions: stacks not taken, by reason


class SymbolExtract(msgspec.Struct, frozen=True):
    """Symbols of one module, from a node.

    NATIVE: `data` is an ELF file reduced to headers and symbol sections. KERNEL and KERNEL_MODULE:
    `data` is UTF-8 text, one "<hex offset> <name>" a line, sorted by offset.
    An extract that could not be made has empty `data` and a `refused` reason.
    """

    node: str
    module_kind: int
    build_id: bytes
    name: str
    data: bytes
    refused: str = ""


class ExtractView(msgspec.Struct, frozen=True):
    """A `SymbolExtract` as it is decoded where its symbols are only passed on: `data` lies in the
    body, of which it is no copy."""

    node: str
    module_kind: int
    build_id: bytes
    name: str
    data: memoryview
    refused: str = ""

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the kernel and user space share. Fixed widths, explicit padding; the Python mirror is
 * node_agent/kernel/structs.py, held equal by tests/contract/test_kernel_structs.py.
 */
#ifndef FLAMEFLEET_EVENTS_H
#define FLAMEFLEET_EVENTS_H

#define MAX_STACK_DEPTH	  127 /* of each of the two stacks: the kernel's own limit */
#define MAX_PYTHON_DEPTH  192
#define PYTHON_WORDS	  1 /* of each Python frame, see bpf/python_events.h */
#define THREAD_NAME_BYTES 16

/*
 * sample_key.flags: two bits, how the user part of the stack ended (enum stack_end) from
 * STACK_END_SHIFT on, and how its Python part did (enum python_end) from PYTHON_END_SHIFT on.
 */
#define SAMPLE_KERNEL_THREAD (1U << 0)
#define SAMPLE_PYTHON	     (1U << 1) /* Python frames follow the addresses */
#define STACK_END_SHIFT	     8
#define PYTHON_END_SHIFT     12
#define STACK_END_MASK	     (0xfU << STACK_END_SHIFT)
#define PYTHON_END_MASK	     (0xfU << PYTHON_END_SHIFT)

enum stack_end {
	STACK_NO_USER = 0, /* there is no user part */
	STACK_COMPLETE = 1,
	STACK_TRUNCATED = 2,	    /* deeper than MAX_STACK_DEPTH */
	STACK_NO_MAPPING = 3,	    /* process or mapping not known to user space (yet) */
	STACK_NO_ROWS = 4,	    /* code without rows, and no frame pointers in it */
	STACK_NO_ROOM = 5,	    /* a mapping whose rows did not fit */
	STACK_UNSUPPORTED_RULE = 6, /* also: the whole of a 32-bit program */
	STACK_READ_FAULT = 7,
};

enum python_end {
	PYTHON_NONE = 0, /* no Python program */
	PYTHON_COMPLETE = 1,
	PYTHON_TRUNCATED = 2,
	PYTHON_NO_THREAD_STATE = 3,
	PYTHON_READ_FAULT = 4,
	PYTHON_OFF = 5, /* given up by the agent for the time being */
};

/*
 * How to find the caller of a range of code. CFA is the value that the stack pointer has in the
 * caller; the return address always lies just below it.
 */
struct row_rule {
	__s16 cfa; /* in words of 8 bytes */
	__s8 rbp;  /* where the caller's rbp is saved, in words from the CFA; 0: still in rbp */
	__u8 rule; /* enum unwind_rule */
};

enum unwind_rule {
	ROW_UNSUPPORTED = 0, /* cfa 0: a gap; else a rule that a row can't hold */
	ROW_CFA_RSP = 1,     /* CFA = rsp + cfa */
	ROW_CFA_RBP = 2,     /* CFA = rbp + cfa */
	ROW_CFA_PLT = 3,     /* CFA = rsp + 8, or + 16 behind the entry's push: (ip & 15) >= 11 */
	ROW_END = 4,	     /* the return address is undefined: an entry point */
	ROW_SIGNAL = 5,	     /* returns by rt_sigreturn: the registers lie at rsp */
	/*
	 * CFA = *(rsp + cfa) + addend, CFA = *(rbp + cfa) + addend. The field `rbp` is
	 * addend | slot << 3, both in words: addend 0 to 7; the caller's rbp is saved at CFA +
	 * slot, slot -16 to -1; slot 0 means still in rbp for the first rule, saved at *rbp for the
	 * second (the prologue with which GCC realigns the stack).
	 */
	ROW_CFA_RSP_DEREF = 6,
	ROW_CFA_RBP_DEREF = 7,
};

/*
 * ff_processes: key is the tgid in the agent's PID namespace. The mappings of the process are
 * `mapping_count` entries of ff_mappings from `first_mapping` on.
 */
struct unwind_process {
	__u64 start_ns; /* start_ns and exec_id as in sample_key: or the record is another's */
	__u32 exec_id;
	__u32 first_mapping;
	__u32 mapping_count;
	__u32
	    version; /* another whenever the mappings, or the rows that they lead to, are others */
};

/* An executable mapping; those of one process are sorted by `start` and don't overlap. */
struct unwind_mapping {
	__u64 start;
	__u64 end;
	__u64 bias;	  /* pc = address - bias: ELF address less the module's lowest page */
	__u32 first_cell; /* where the module's row_block begins; without: enum mapping_kind */
	__u32 cell_count;
};

enum mapping_kind {
	MAPPING_FRAME_POINTER = 1, /* code that keeps frame pointers: JIT, Go */
	MAPPING_NO_ROWS = 2,
	MAPPING_NO_ROOM = 3,
	MAPPING_PENDING = 4, /* rows are being made; ends as STACK_NO_MAPPING */
};

/*
 * The rows of a module. A row says which rule holds from its pc on, up to the next row; it is a
 * slot of 16 bits: the pc's lowest bits (its place in a page of ROW_PAGE_BITS), above them a code.
 * The commonest rules have a code below `short_codes`. For the others, two slots of the same pc
 * stand together, of codes a and b: rule number short_codes + (b - short_codes) * 64 + a.
 *
 * One behind the other: row_block, its regions and one more for the end, the rules, for each region
 * that has rows the ends of its pages (u16, in slots from the region's first), all slots.
 */
struct row_block {
	__u32 first_region; /* pc >> ROW_REGION_BITS of the first row */
	__u32 region_count;
	__u32 rule_count;
	__u32 short_codes;
};

/* In units of 2 bytes from the row_block on. */
struct row_region {
	__u32 first; /* slot; that of the next row where the region has none */
	__u32 pages; /* the ends of its pages; 0: it has no row */
};

#define ROW_PAGE_BITS	10
#define ROW_REGION_BITS 16

/*
 * Cell i of ff_rows, 16 bytes, lies in shard i / ROW_CELLS_PER_SHARD, which is one value; entry i
 * of ff_mappings in shard i / MAPPINGS_PER_SHARD at i % MAPPINGS_PER_SHARD. User space makes shards
 * as it needs them. What belongs together lies one behind the other and may cross shards.
 */
#define ROW_CELL_BYTES	    16
#define ROW_CELLS_PER_SHARD 16384
#define MAPPINGS_PER_SHARD  4096
#define MAX_ROW_SHARDS	    64
#define MAX_MAPPING_SHARDS  64
#define MAX_KNOWN_PROCESSES 5376
#define MAX_MAPPINGS	    4096 /* of one process */

/*
 * What can be excluded: bits of settings.exclusions, and `kind` of an entry of ff_exclusions.
 * `id` is a user id, or a hash of names as bpf/exclude.h makes it.
 */
#define EXCLUDE_USER		(1U << 0) /* id: real user id */
#define EXCLUDE_UNIT		(1U << 1) /* id: name of the cgroup or of one above it */
#define EXCLUDE_CGROUP		(1U << 2) /* id: path of the cgroup or of one above it */
#define EXCLUDE_EXECUTABLE_NAME (1U << 3) /* id: the file's name */
#define EXCLUDE_EXECUTABLE_PATH (1U << 4) /* id: path inside its file system; device */

#define MAX_PATH_PARTS	   20  /* of a cgroup or of an executable */
#define MAX_EXCLUDED_BYTES 126 /* of one name; longer ones match nothing */

struct exclusion {
	__u64 id;
	__u32 device; /* as the kernel numbers it: major << 20 | minor; 0 where it doesn't apply */
	__u32 kind;
};

/* What samples are counted by. `stack_key` covers the process and both stacks' addresses. */
struct sample_key {
	__u64 stack_key;
	__u64 start_ns; /* boot time at which the group leader started */
	__u64 cgroup_id;
	__u32 tgid;    /* in the agent's PID namespace */
	__u32 exec_id; /* grows with every exec of the process */
	__u32 flags;
	__u32 reserved;
	char thread_name[THREAD_NAME_BYTES];
};

#define MAX_STACK_WORDS (2 * MAX_STACK_DEPTH + PYTHON_WORDS * MAX_PYTHON_DEPTH)

/*
 * Sent through the ring buffer when a key is first seen in a generation; only the words in use are
 * sent: kernel_depth addresses, user_depth addresses, then PYTHON_WORDS for each of python_depth
 * frames; leaf first in each part.
 */
struct stack_event {
	struct sample_key key;
	__u32 generation;
	__u16 kernel_depth;
	__u16 user_depth;
	__u16 python_depth;
	__u16 reserved[3];
	__u64 words[MAX_STACK_WORDS];
};

/* One a CPU, only ever growing. */
struct counters {
	__u64 samples;		 /* counted in a count map */
	__u64 idle;		 /* left out: the CPU was idle */
	__u64 foreign_namespace; /* left out: no id in the agent's PID namespace */
	__u64 other_process;	 /* left out: not the one process asked for */
	__u64 excluded;		 /* left out: the configuration says so; no stack was read */
	__u64 silent;		 /* left out: no beat from user space for too long */
	__u64 count_map_full;	 /* lost */
	__u64 stack_error;	 /* lost: neither stack could be read */
	__u64 ring_full;	 /* counted, but the stack itself could not be sent */
	__u64 own_ns;		 /* time spent in the program, whatever the outcome */
	__u64 python_ns;	 /* of which reading Python frames and names */
	__u64 python_samples;	 /* samples of Python programs, counted in `samples` too */
};

#define GIVEN_UP_PYTHON (1U << 0) /* Python frames are not read; samples end as PYTHON_OFF */

/*
 * Written by user space, read with every sample. Bit 0 of `generation` chooses the count map. What
 * follows it is for the user space that takes over after a restart; the programs don't read it.
 */
struct control {
	__u64 beat_ns; /* CLOCK_MONOTONIC of the last sign of life */
	__u32 generation;
	__u32 given_up;			   /* GIVEN_UP_* */
	__u64 interval_start_ns;	   /* Unix time at which the running interval began */
	__u64 interval_start_monotonic_ns; /* the same as CLOCK_MONOTONIC */
	struct counters booked;		   /* sums over the CPUs at that moment */
};

/* Fixed when the program is loaded. */
struct settings {
	__u64 heartbeat_limit_ns;
	__u32 pid_namespace;	 /* inode of the agent's PID namespace; 0: the initial one */
	__u32 only_tgid;	 /* 0: every process */
	__u64 cgroup_root_id;	 /* of the v2 hierarchy as the agent sees it; paths begin there */
	__u64 v1_cgroup_root_id; /* the same of systemd's own v1 hierarchy, where there is one */
	__u32 v1_hierarchy;	 /* its number; 0: there is none */
	__u32 exclusions;	 /* EXCLUDE_* in use */
	__u32 unwind;		 /* 1: walk user stacks by rows; 0: by frame pointers */
	__u32 python;		 /* 1: read Python frames */
};

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the kernel and user space share. Fixed widths, explicit padding; the Python mirror is
 * node_agent/kernel/structs.py, held equal by tests/contract/test_kernel_structs.py.
 */
#ifndef FLAMEFLEET_EVENTS_H
#define FLAMEFLEET_EVENTS_H

#define MAX_STACK_DEPTH	  127 /* of each of the two stacks: the kernel's own limit */
#define THREAD_NAME_BYTES 16

/* sample_key.flags */
#define SAMPLE_KERNEL_THREAD (1U << 0)

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

/*
 * Sent through the ring buffer when a key is first seen in a generation; only the first
 * kernel_depth + user_depth addresses are sent: kernel ones first, leaf first.
 */
struct stack_event {
	struct sample_key key;
	__u32 generation;
	__u16 kernel_depth;
	__u16 user_depth;
	__u64 addresses[2 * MAX_STACK_DEPTH];
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
};

/*
 * Written by user space, read with every sample. Bit 0 of `generation` chooses the count map. What
 * follows it is for the user space that takes over after a restart; the programs don't read it.
 */
struct control {
	__u64 beat_ns; /* CLOCK_MONOTONIC of the last sign of life */
	__u32 generation;
	__u32 reserved;
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
};

#endif

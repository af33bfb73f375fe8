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

/* Written by user space, read with every sample. Bit 0 of `generation` chooses the count map. */
struct control {
	__u64 beat_ns; /* CLOCK_MONOTONIC of the last sign of life */
	__u32 generation;
	__u32 reserved;
};

/* One a CPU, only ever growing. */
struct counters {
	__u64 samples;		 /* counted in a count map */
	__u64 idle;		 /* left out: the CPU was idle */
	__u64 foreign_namespace; /* left out: no id in the agent's PID namespace */
	__u64 other_process;	 /* left out: not the one process asked for */
	__u64 silent;		 /* left out: no beat from user space for too long */
	__u64 count_map_full;	 /* lost */
	__u64 stack_error;	 /* lost: neither stack could be read */
	__u64 ring_full;	 /* counted, but the stack itself could not be sent */
	__u64 own_ns;		 /* time spent in the program, whatever the outcome */
};

/* Fixed when the program is loaded. */
struct settings {
	__u64 heartbeat_limit_ns;
	__u32 pid_namespace; /* inode of the agent's PID namespace; 0: the initial one */
	__u32 only_tgid;     /* 0: every process */
};

#endif

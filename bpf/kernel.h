/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The few kernel structs that the programs read, reduced to the fields in use. libbpf moves each
 * access to where the running kernel keeps the field (CO-RE), so order and gaps don't matter here.
 * bcc, for kernels without type information, compiles against the kernel's own headers instead.
 */
#ifndef FLAMEFLEET_KERNEL_H
#define FLAMEFLEET_KERNEL_H

#define USER_MODE_SELECTOR 3 /* x86: privilege level bits of cs */

#ifdef FLAMEFLEET_BCC
#include "bcc.h"
#else

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define MAP(name) (&(name))

#define PF_KTHREAD	 0x00200000
#define MAX_PID_NS_LEVEL 32 /* the deepest nesting that the kernel allows */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct kernfs_node {
	struct kernfs_node *parent; /* until 6.14 */
	const char *name;
	__u64 id;
};

struct kernfs_node___rcu {
	struct kernfs_node *__parent; /* since 6.15 */
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct list_head {
	struct list_head *next;
};

/* One for each hierarchy that a css_set is in, chained by cgrp_link. */
struct cgrp_cset_link {
	struct cgroup *cgrp;
	struct list_head cgrp_link;
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in the v2 hierarchy */
	struct list_head cgrp_links;
};

struct qstr {
	const unsigned char *name;
};

struct super_block {
	__u32 s_dev;
};

struct dentry {
	struct dentry *d_parent; /* itself at the root of its file system */
	struct qstr d_name;
	struct super_block *d_sb;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
};

struct mm_struct {
	struct file *exe_file;
};

struct thread_struct {
	unsigned long fsbase; /* x86-64: the thread pointer */
};

struct task_struct {
	unsigned int flags;
	struct thread_struct thread;
	void *stack;
	int tgid;
	struct task_struct *real_parent;
	struct mm_struct *mm;
	struct css_set *cgroups;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	__u64 start_boottime; /* since 5.5, before: real_start_time */
	__u64 self_exec_id;   /* 64 bits since 5.7 */
};

#pragma clang attribute pop

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___rcu *newer = (void *)node;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(node, parent);
}

#endif

/* The context of a perf_event program on x86-64: user API, so not relocated. */
struct sample_context {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	__u64 ip, cs, flags, sp, ss;
	__u64 sample_period, addr;
};

#endif

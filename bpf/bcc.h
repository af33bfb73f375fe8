/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What libbpf's headers and CO-RE give, for a build by bcc: the structs are those of the headers of
 * the running kernel, so nothing has to be relocated. Maps exist already when the source is
 * compiled; MAP_FD_<name> is the descriptor of each (see node_agent/kernel/bcc.py).
 *
 * bcc rewrites the memory accesses of its main file only, which this source is included from.
 */
#ifndef FLAMEFLEET_BCC_H
#define FLAMEFLEET_BCC_H

#include <linux/sched.h>
#include <linux/pid_namespace.h>
#include <linux/cgroup-defs.h>
#include <linux/kernfs.h>
#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/mm_types.h>
#include <linux/version.h>

#undef SEC
#define SEC(name) static __always_inline

#define MAP(name) ((void *)bpf_pseudo_fd(1, MAP_FD_##name))

/* bcc loads what stands in one section: no calls. */
#undef __noinline
#define __noinline __always_inline

#define bpf_core_field_offset(type, field)     offsetof(type, field)
#define bpf_core_type_size(type)	       sizeof(type)
#define __builtin_preserve_access_index(place) (place)

#define barrier_var(variable) asm volatile("" : "+r"(variable))

/* By number: bcc falls back to bpf_probe_read() where its process may not see kernel symbols. */
static long (*read_kernel)(void *, __u32, const void *) = (void *)BPF_FUNC_probe_read_kernel;

#define READ_1(pointer, field)                                                                     \
	({                                                                                         \
		typeof((pointer)->field) value;                                                    \
		read_kernel(&value, sizeof(value), &(pointer)->field);                             \
		value;                                                                             \
	})
#define READ_2(pointer, first, second)	      READ_1(READ_1(pointer, first), second)
#define READ_3(pointer, first, second, third) READ_1(READ_2(pointer, first, second), third)
#define READ_SO_MANY(_1, _2, _3, name, ...)   name
#define BPF_CORE_READ(pointer, ...)                                                                \
	READ_SO_MANY(__VA_ARGS__, READ_3, READ_2, READ_1)(pointer, __VA_ARGS__)

/* Of kernel/cgroup/cgroup-internal.h, which no package of headers has. */
struct cgrp_cset_link {
	struct cgroup *cgrp;
	struct css_set *cset;
	struct list_head cset_link;
	struct list_head cgrp_link;
};

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	return BPF_CORE_READ(node, __parent);
#else
	return BPF_CORE_READ(node, parent);
#endif
}

#endif

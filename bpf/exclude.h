/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who must not be sampled: decided from the task alone, before any stack is read.
 *
 * Cgroups and executables are matched by their names as the kernel holds them at this moment, so a
 * unit that starts again or a file that is replaced is excluded from its first sample on. Nothing
 * here costs anything where nothing is excluded; else at most 3 us a sample with all kinds in use.
 */
#ifndef FLAMEFLEET_EXCLUDE_H
#define FLAMEFLEET_EXCLUDE_H

#define MAX_V1_HIERARCHIES 32
#define NAME_WORDS	   ((MAX_EXCLUDED_BYTES + 2) / 8) /* one more byte tells a longer name */

#ifndef FLAMEFLEET_BCC
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct exclusion);
	__type(value, __u32);
	__uint(max_entries, 1);
} ff_exclusions SEC(".maps");
#endif

static __always_inline bool is_listed(__u32 kind, __u64 id, __u32 device)
{
	struct exclusion key = {.id = id, .device = device, .kind = kind};

	return bpf_map_lookup_elem(MAP(ff_exclusions), &key) != NULL;
}

/* Over words of 8 bytes, zeros behind the end; the same as in node_agent/kernel/exclusions.py. */
static __noinline __u64 hash_name(const void *name)
{
	__u64 words[NAME_WORDS] = {}, hash = 0;

	if (bpf_probe_read_kernel_str(words, sizeof(words), name) <= 0)
		return 0;
	for (int i = 0; i < NAME_WORDS && words[i]; i++)
		hash = mix(hash, words[i]);
	return hash;
}

/* True as well for a cgroup too deep to be told: what may be excluded is not read. */
static __noinline bool is_cgroup_excluded(struct cgroup *cgroup, __u64 root_id)
{
	__u64 names[MAX_PATH_PARTS], hash = 0;
	struct kernfs_node *node = BPF_CORE_READ(cgroup, kn);
	int depth = 0;

	for (; depth < MAX_PATH_PARTS && node; depth++) {
		if (BPF_CORE_READ(node, id) == root_id)
			break;
		names[depth] = hash_name(BPF_CORE_READ(node, name));
		if (settings.exclusions & EXCLUDE_UNIT && is_listed(EXCLUDE_UNIT, names[depth], 0))
			return true;
		node = parent_of(node);
	}
	if (!node) /* outside of the agent's cgroup namespace: it has no path here */
		return false;
	if (BPF_CORE_READ(node, id) != root_id)
		return true;
	if (!(settings.exclusions & EXCLUDE_CGROUP))
		return false;
	for (int i = MAX_PATH_PARTS - 1; i >= 0; i--) {
		if (i >= depth)
			continue;
		hash = mix(hash, names[i]);
		if (is_listed(EXCLUDE_CGROUP, hash, 0))
			return true;
	}
	return false;
}

/* The task's cgroup in the v1 hierarchy that systemd keeps its units in, or NULL. */
static __always_inline struct cgroup *v1_cgroup(struct css_set *set)
{
	struct list_head *next = BPF_CORE_READ(set, cgrp_links.next);

	for (int i = 0; i < MAX_V1_HIERARCHIES; i++) {
		struct cgrp_cset_link *link =
		    (void *)next - bpf_core_field_offset(struct cgrp_cset_link, cgrp_link);
		struct cgroup *cgroup = BPF_CORE_READ(link, cgrp);

		if ((__u32)BPF_CORE_READ(cgroup, root, hierarchy_id) == settings.v1_hierarchy)
			return cgroup;
		next = BPF_CORE_READ(next, next);
	}
	return NULL;
}

static __noinline bool is_executable_excluded(struct dentry *file)
{
	__u64 names[MAX_PATH_PARTS], hash = 0;
	struct dentry *parent;
	int depth = 0;

	if (settings.exclusions & EXCLUDE_EXECUTABLE_NAME &&
	    is_listed(EXCLUDE_EXECUTABLE_NAME, hash_name(BPF_CORE_READ(file, d_name.name)), 0))
		return true;
	if (!(settings.exclusions & EXCLUDE_EXECUTABLE_PATH))
		return false;
	for (; depth < MAX_PATH_PARTS; depth++) {
		parent = BPF_CORE_READ(file, d_parent);
		if (parent == file)
			break;
		names[depth] = hash_name(BPF_CORE_READ(file, d_name.name));
		file = parent;
	}
	for (int i = MAX_PATH_PARTS - 1; i >= 0; i--) {
		if (i < depth)
			hash = mix(hash, names[i]);
	}
	return is_listed(EXCLUDE_EXECUTABLE_PATH, hash, BPF_CORE_READ(file, d_sb, s_dev));
}

static __always_inline bool is_excluded(struct task_struct *task, bool is_kernel_thread)
{
	struct css_set *set;
	struct dentry *file;

	if (settings.exclusions & EXCLUDE_USER &&
	    is_listed(EXCLUDE_USER, (__u32)bpf_get_current_uid_gid(), 0))
		return true;
	if (settings.exclusions & (EXCLUDE_UNIT | EXCLUDE_CGROUP)) {
		set = BPF_CORE_READ(task, cgroups);
		if (is_cgroup_excluded(BPF_CORE_READ(set, dfl_cgrp), settings.cgroup_root_id))
			return true;
		if (settings.v1_hierarchy &&
		    is_cgroup_excluded(v1_cgroup(set), settings.v1_cgroup_root_id))
			return true;
	}
	if (settings.exclusions & (EXCLUDE_EXECUTABLE_NAME | EXCLUDE_EXECUTABLE_PATH) &&
	    !is_kernel_thread) {
		file = BPF_CORE_READ(task, mm, exe_file, f_path.dentry);
		/* A process that ends has given its memory back: who it was can't be told. */
		if (!file || is_executable_excluded(file))
			return true;
	}
	return false;
}

#endif

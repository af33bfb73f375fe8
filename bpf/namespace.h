/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Process ids as the agent sees them. */
#ifndef FLAMEFLEET_NAMESPACE_H
#define FLAMEFLEET_NAMESPACE_H

/*
 * The process id as the agent's own PID namespace numbers it, or 0 where the process has none.
 * bpf_get_ns_current_pid_tgid() refuses tasks of deeper namespaces, so walk the levels.
 */
static __noinline __u32 namespaced_tgid(struct task_struct *leader)
{
	struct pid *pid;
	unsigned int level;

	if (!settings.pid_namespace)
		return BPF_CORE_READ(leader, tgid);
	pid = BPF_CORE_READ(leader, thread_pid);
	level = BPF_CORE_READ(pid, level);
	for (unsigned int i = 0; i < MAX_PID_NS_LEVEL && i <= level; i++) {
		struct upid *upid = (void *)__builtin_preserve_access_index(&pid->numbers) +
				    i * bpf_core_type_size(struct upid);

		if (BPF_CORE_READ(upid, ns, ns.inum) == settings.pid_namespace)
			return BPF_CORE_READ(upid, nr);
	}
	return 0;
}

#endif

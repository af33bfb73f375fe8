/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Where a walk begins: the process that is known, and the registers of its code. */
#ifndef FLAMEFLEET_USER_H
#define FLAMEFLEET_USER_H

#define STACK_NO_USER_PART (-1) /* of find_user() alone: 0 means that the walk goes on */

/*
 * Where the walk of this process begins: its mappings, or those of its parent, when it was forked
 * and runs the same program without a record of its own yet. False where neither is known.
 */
static __always_inline bool find_process(struct unwind_state *state, struct sample_key *key,
					 struct task_struct *task, struct task_struct *leader)
{
	struct unwind_process *process = bpf_map_lookup_elem(&ff_processes, &key->tgid);
	struct task_struct *parent;
	__u64 start_ns = key->start_ns;
	__u32 tgid;

	if (!process || process->start_ns != start_ns || process->exec_id != key->exec_id) {
		parent = BPF_CORE_READ(leader, real_parent, group_leader);
		if (BPF_CORE_READ(parent, mm, exe_file) != BPF_CORE_READ(task, mm, exe_file))
			return false;
		start_ns = BPF_CORE_READ(parent, start_boottime);
		tgid = namespaced_tgid(parent);
		process = bpf_map_lookup_elem(&ff_processes, &tgid);
		if (!process || process->start_ns != start_ns || process->exec_id != key->exec_id)
			return false;
	}
	state->first_mapping = process->first_mapping;
	state->mapping_count = process->mapping_count;
	state->version = process->version;
	state->mapping.end = 0; /* the last one was another process's */
	return true;
}

/*
 * Where the user's code stands, into state->ip, sp, bp; 0, or why the walk ends at once. A sample
 * of kernel code finds the registers where the kernel saved them on entry: it says so itself since
 * 5.15; before, always at the top of the kernel stack (from 6.9 on there may be room for FRED).
 */
static __always_inline int find_user(struct unwind_state *state, struct sample_context *ctx,
				     struct task_struct *task)
{
	struct saved_registers *saved = &state->saved;
	void *place;

	if (ctx->cs & USER_MODE_SELECTOR) {
		state->ip = ctx->ip;
		state->sp = ctx->sp;
		state->bp = ctx->bp;
		state->is_exact = true;
		return ctx->cs == USER_32_BIT_CS ? STACK_UNSUPPORTED_RULE : 0;
	}
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		place = (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	else
		place = BPF_CORE_READ(task, stack) + KERNEL_STACK_BYTES - sizeof(*saved);
	if (!BPF_CORE_READ(task, mm) || bpf_probe_read_kernel(saved, sizeof(*saved), place))
		return STACK_NO_USER_PART;
	state->ip = saved->ip;
	state->sp = saved->sp;
	state->bp = saved->bp;
	state->is_exact = (__s64)saved->orig_ax < 0;	     /* else ip is behind a system call */
	if (!saved->ip || !(saved->cs & USER_MODE_SELECTOR)) /* a worker of io_uring */
		return STACK_NO_USER_PART;
	return saved->cs == USER_32_BIT_CS ? STACK_UNSUPPORTED_RULE : 0;
}

/* Reads the user's part of the stack into the event; returns how it ended (enum stack_end). */
static __always_inline int unwind_user(struct sample_context *ctx, struct stack_event *event,
				       __u32 kernel_depth, struct task_struct *task,
				       struct task_struct *leader)
{
	struct unwind_state *state = unwind_state();
	int end;

	if (!state)
		return STACK_NO_USER;
	state->is_pending = false;
	end = find_user(state, ctx, task);
	if (end)
		return end == STACK_NO_USER_PART ? STACK_NO_USER : end;
	if (!find_process(state, &event->key, task, leader))
		return STACK_NO_MAPPING;
	return walk_user_stack(kernel_depth);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Reading and hashing the stacks of the interrupted task. */
#ifndef FLAMEFLEET_STACK_H
#define FLAMEFLEET_STACK_H

static __always_inline __u64 hash_stack(struct stack_event *event, __u64 depth)
{
	__u64 hash = mix(event->key.start_ns, (__u64)event->key.tgid << 32 | event->key.exec_id);

	hash = mix(hash, event->kernel_depth); /* where the one stack ends and the other begins */
	for (__u64 i = 0; i < MAX_STACK_WORDS; i++) {
		barrier_var(i); /* or the bound takes a form that the verifier can't follow */
		if (i >= depth)
			break;
		hash = mix(hash, event->words[i]);
	}
	return hash;
}

/*
 * The user's part by frame pointers, as the kernel itself walks; returns its depth. 64 bits: of 32,
 * a copy would be checked.
 */
static __always_inline __u64 read_by_frame_pointers(struct sample_context *ctx,
						    struct stack_event *event, __u64 kernel_depth)
{
	long bytes = bpf_get_stack(ctx, &event->words[kernel_depth],
				   MAX_STACK_DEPTH * sizeof(__u64), BPF_F_USER_STACK);

	return bytes > 0 ? (__u64)bytes / sizeof(__u64) : 0;
}

/* Reads both stacks into the event; returns the number of addresses, 0 if none could be read. */
static __always_inline __u64 read_stacks(struct sample_context *ctx, struct stack_event *event,
					 struct task_struct *task, struct task_struct *leader)
{
	__u64 kernel_depth = 0, user_depth = 0;
	int end = STACK_NO_MAPPING;
	long bytes;

	if ((ctx->cs & USER_MODE_SELECTOR) == 0) {
		bytes = bpf_get_stack(ctx, event->words, MAX_STACK_DEPTH * sizeof(__u64), 0);
		if (bytes > 0)
			kernel_depth = (__u64)bytes / sizeof(__u64);
	}
	barrier_var(kernel_depth); /* or the compiler checks another register than it uses */
	if (kernel_depth > MAX_STACK_DEPTH) /* never; the verifier wants to see it */
		return 0;
	event->kernel_depth = kernel_depth;
	event->user_depth = 0;
	if (event->key.flags & SAMPLE_KERNEL_THREAD)
		return kernel_depth;
#ifndef FLAMEFLEET_BCC
	if (settings.unwind)
		end = unwind_user(ctx, event, kernel_depth, task, leader);
	user_depth = event->user_depth;
#endif
	/* The first frame alone is what frame pointers show as well, and perhaps more. */
	if (user_depth < 2 &&
	    (end == STACK_NO_MAPPING || end == STACK_NO_ROWS || end == STACK_UNSUPPORTED_RULE))
		user_depth = read_by_frame_pointers(ctx, event, kernel_depth);
	barrier_var(user_depth);
	if (user_depth > MAX_STACK_DEPTH)
		return 0;
	event->user_depth = user_depth;
	if (user_depth)
		event->key.flags |= (__u32)end << STACK_END_SHIFT;
	return kernel_depth + user_depth;
}

#endif

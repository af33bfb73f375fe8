/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Reading and hashing the stacks of the interrupted task. */
#ifndef FLAMEFLEET_STACK_H
#define FLAMEFLEET_STACK_H

/* One multiplication a word; the shift carries high bits down (as in FNV-1a, 64 bits at a time). */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 32);
}

static __always_inline __u64 hash_stack(struct stack_event *event, __u64 depth)
{
	__u64 hash = mix(event->key.start_ns, (__u64)event->key.tgid << 32 | event->key.exec_id);

	hash = mix(hash, event->kernel_depth); /* where the one stack ends and the other begins */
	for (__u64 i = 0; i < 2 * MAX_STACK_DEPTH; i++) {
		barrier_var(i); /* or the bound takes a form that the verifier can't follow */
		if (i >= depth)
			break;
		hash = mix(hash, event->words[i]);
	}
	return hash;
}

/* Reads both stacks into the event; returns the number of addresses, 0 if none could be read. */
static __always_inline __u64 read_stacks(struct sample_context *ctx, struct stack_event *event)
{
	const __u32 size = MAX_STACK_DEPTH * sizeof(__u64);
	long bytes;
	__u64 kernel_depth = 0, user_depth = 0; /* 64 bits: of 32, a copy would be checked */

	if ((ctx->cs & USER_MODE_SELECTOR) == 0) {
		bytes = bpf_get_stack(ctx, event->words, size, 0);
		if (bytes > 0)
			kernel_depth = (__u64)bytes / sizeof(__u64);
	}
	barrier_var(kernel_depth); /* or the compiler checks another register than it uses */
	if (kernel_depth > MAX_STACK_DEPTH) /* never; the verifier wants to see it */
		return 0;
	if (!(event->key.flags & SAMPLE_KERNEL_THREAD)) {
		bytes = bpf_get_stack(ctx, &event->words[kernel_depth], size, BPF_F_USER_STACK);
		if (bytes > 0)
			user_depth = (__u64)bytes / sizeof(__u64);
	}
	barrier_var(user_depth);
	if (user_depth > MAX_STACK_DEPTH)
		return 0;
	event->kernel_depth = kernel_depth;
	event->user_depth = user_depth;
	return kernel_depth + user_depth;
}

#endif

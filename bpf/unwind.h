/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * User stacks of code without frame pointers, walked by rows that user space made of `.eh_frame`
 * (DWARF 5, section 6.4; System V ABI for AMD64, 3.7).
 *
 * Functions that are not static are verified once each, not once a call; they take numbers only.
 */
#ifndef FLAMEFLEET_UNWIND_H
#define FLAMEFLEET_UNWIND_H

#include "rows.h"

static __always_inline int leave_signal(struct unwind_state *state)
{
	struct signal_registers saved;

	if (bpf_probe_read_user(&saved, sizeof(saved), (void *)(state->sp + SIGNAL_FRAME_RBP)))
		return STACK_READ_FAULT;
	state->ip = saved.ip;
	state->sp = saved.sp;
	state->bp = saved.bp;
	state->is_exact = true;
	return 0;
}

/*
 * CPython 3.12 and 3.13 call the evaluator from JIT code without a frame pointer under `-X perf`
 * (Python/asm_trampoline.S): behind the call are `add $8, %rsp; ret`. True where that was left.
 */
static __always_inline bool leave_trampoline(struct unwind_state *state)
{
	__u64 code = 0, ip;

	if (bpf_probe_read_user(&code, 5, (void *)state->ip) || code != TRAMPOLINE_CODE ||
	    bpf_probe_read_user(&ip, sizeof(ip), (void *)(state->sp + 8)) || !ip)
		return false;
	state->sp += 16;
	state->ip = ip;
	return true;
}

/* One frame up by the frame pointer; `end` is what to say where there is none. */
static __always_inline int leave_by_frame_pointer(struct unwind_state *state, bool is_kept, int end)
{
	__u64 saved[2]; /* the caller's rbp, the return address */

	if (is_kept && !state->is_exact && leave_trampoline(state))
		return 0;
	if (!state->bp) /* the ABI's mark of the outermost frame; in a leaf perhaps just a number */
		return is_kept || !state->is_exact ? STACK_COMPLETE : end;
	if (!is_kept && !state->is_exact) { /* musl has no rows for its return from signals */
		if (!bpf_probe_read_user(saved, 9, (void *)state->ip) &&
		    saved[0] == SIGRETURN_CODE && (__u8)saved[1] == 5)
			return leave_signal(state);
	}
	if (state->bp & 7 || (!is_kept && state->bp < state->sp))
		return end;
	if (bpf_probe_read_user(saved, sizeof(saved), (void *)state->bp))
		return is_kept ? STACK_READ_FAULT : end;
	if (!saved[1])
		return is_kept ? STACK_COMPLETE : end;
	if (!is_kept && !find_mapping(saved[1] - 1))
		return end;
	state->sp = state->bp + sizeof(saved);
	state->bp = saved[0];
	state->ip = saved[1];
	state->is_exact = false;
	return 0;
}

/* One frame up by a rule; 0, or how the walk ends. */
static __always_inline int leave_by_rule(struct unwind_state *state, struct row_rule rule)
{
	__s64 slot = rule.rbp;
	__u64 cfa, saved[2], bp = state->bp;

	switch (rule.rule) {
	case ROW_CFA_RSP:
		cfa = state->sp + rule.cfa * 8LL;
		break;
	case ROW_CFA_RBP:
		cfa = state->bp + rule.cfa * 8LL;
		break;
	case ROW_CFA_PLT:
		cfa = state->sp + ((state->ip & 15) >= 11 ? 16 : 8);
		break;
	case ROW_END:
		return STACK_COMPLETE;
	case ROW_SIGNAL:
		return leave_signal(state);
	case ROW_CFA_RSP_DEREF:
	case ROW_CFA_RBP_DEREF:
		cfa = rule.rule == ROW_CFA_RSP_DEREF ? state->sp : state->bp;
		if (bpf_probe_read_user(&cfa, 8, (void *)(cfa + rule.cfa * 8LL)))
			return STACK_READ_FAULT;
		cfa += (slot & 7) * 8;
		slot >>= 3;
		if (!slot && rule.rule == ROW_CFA_RBP_DEREF &&
		    bpf_probe_read_user(&bp, 8, (void *)bp))
			return STACK_READ_FAULT;
		break;
	default: /* cfa 0: a gap between what is described */
		return leave_by_frame_pointer(state, false,
					      rule.cfa ? STACK_UNSUPPORTED_RULE : STACK_NO_ROWS);
	}
	if (cfa <= state->sp) /* callers lie above: the registers are not what the row is for */
		return STACK_READ_FAULT;
	if (slot == -2) { /* mostly: just below the return address, one read for both */
		if (bpf_probe_read_user(saved, sizeof(saved), (void *)(cfa - sizeof(saved))))
			return STACK_READ_FAULT;
		bp = saved[0];
	} else {
		if (bpf_probe_read_user(&saved[1], 8, (void *)(cfa - 8)))
			return STACK_READ_FAULT;
		if (slot && bpf_probe_read_user(&bp, 8, (void *)(cfa + slot * 8)))
			return STACK_READ_FAULT;
	}
	state->sp = cfa;
	state->bp = bp;
	state->ip = saved[1];
	state->is_exact = false;
	return saved[1] ? 0 : STACK_COMPLETE;
}

static __always_inline int leave_without_rows(struct unwind_state *state)
{
	switch (state->mapping.first_cell) {
	case MAPPING_FRAME_POINTER:
		return leave_by_frame_pointer(state, true, STACK_NO_ROWS);
	case MAPPING_NO_ROWS:
		return leave_by_frame_pointer(state, false, STACK_NO_ROWS);
	case MAPPING_NO_ROOM:
		return STACK_NO_ROOM;
	default:
		state->is_pending = true;
		return STACK_NO_MAPPING;
	}
}

/* From the frame at state->ip to its caller; 0, or how the walk ends (enum stack_end). */
__noinline int leave_frame(void)
{
	struct unwind_state *state = unwind_state();
	struct known_rule *known;
	__u64 ip;

	if (!state)
		return STACK_READ_FAULT;
	ip = state->ip - !state->is_exact;
	known = &state->known[(__u32)mix(state->version, ip) % KNOWN_RULES];
	if (known->address != ip || known->version != state->version) {
		if (!find_mapping(ip))
			return STACK_NO_MAPPING;
		if (!state->mapping.cell_count)
			return leave_without_rows(state);
		if (!find_rule(ip - state->mapping.bias))
			return leave_by_frame_pointer(state, false, STACK_NO_ROWS);
		known->address = ip;
		known->version = state->version;
		known->rule = state->rule;
	}
	return leave_by_rule(state, known->rule);
}

/* Walks from state on, into the event behind its `kernel_depth` addresses. Returns the end. */
__noinline int walk_user_stack(__u32 kernel_depth)
{
	__u32 zero = 0, depth = 0, place;
	struct stack_event *event = bpf_map_lookup_elem(&ff_scratch, &zero);
	struct unwind_state *state = unwind_state();
	int end = 0;

	if (!event || !state)
		return STACK_READ_FAULT;
	while (depth < MAX_STACK_DEPTH && !end) {
		place = kernel_depth + depth;
		barrier_var(place); /* or the compiler counts in pointers, which have no bound */
		if (place >= MAX_STACK_WORDS)
			break;
		event->words[place] = state->ip;
		depth++;
		end = leave_frame();
	}
	event->user_depth = depth;
	return end ? end : STACK_TRUNCATED;
}

#endif

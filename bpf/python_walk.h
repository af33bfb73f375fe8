/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The walk over the frames of the thread whose state bpf/python.h found. */
#ifndef FLAMEFLEET_PYTHON_WALK_H
#define FLAMEFLEET_PYTHON_WALK_H

#define PYTHON_GO_ON  (-1)
#define OWNER_SHIM    3 /* FRAME_OWNED_BY_CSTACK of 3.12 and 3.13; 3 and 4 in 3.14 */
#define STR_HASH      24
#define STACKREF_BITS 7 /* tags in the low bits of a reference since 3.14 */

static __always_inline struct stack_event *python_event(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ff_scratch, &zero);
}

/*
 * The id of a code object: memory of freed ones is used again, so all that it refers to counts, and
 * the hash of its name. 0: could not be read.
 */
static __always_inline __u64 identify_code(struct python_state *state, __u64 code)
{
	__u32 size = state->layout.code_bytes;
	__u64 name, id;

	if (size > sizeof(state->code_words) ||
	    bpf_probe_read_user(state->code_words, size, (void *)(code + state->layout.code_start)))
		return 0;
	name = WORD_AT(state->code_words, state->layout.code_name);
	id = mix(state->salt, code);
	id = mix(id, WORD_AT(state->code_words, state->layout.code_file));
	id = mix(id, WORD_AT(state->code_words, state->layout.code_line_table));
	id = mix(id, name);
	id = mix(id, INT_AT(state->code_words, state->layout.code_first_line));
	id = mix(id, read_user_word(name + STR_HASH));
	return id & ~PYTHON_SEGMENT_END ?: 1;
}

/* Takes the next frame into the event. PYTHON_GO_ON, or the end. */
__noinline int python_step(void)
{
	struct python_state *state = python_state();
	struct stack_event *event = python_event();
	__u64 code, at, previous, depth, flag = 0; /* 64 bits: of 32, a copy would be checked */
	__u32 size;

	if (!state || !event)
		return PYTHON_READ_FAULT;
	if (!state->frame)
		return PYTHON_COMPLETE;
	size = state->layout.frame_bytes;
	if (size > sizeof(state->frame_words) ||
	    bpf_probe_read_user(state->frame_words, size, (void *)state->frame))
		return PYTHON_READ_FAULT;
	previous = WORD_AT(state->frame_words, state->layout.frame_previous);
	depth = state->depth;
	at = state->first + depth;
	if (state->layout.segments == PYTHON_SHIMS &&
	    BYTE_AT(state->frame_words, state->layout.frame_owner) >= OWNER_SHIM) {
		barrier_var(at);
		if (depth && at > 0 && at <= MAX_STACK_WORDS)
			event->words[at - 1] |= PYTHON_SEGMENT_END;
		state->frame = previous;
		return PYTHON_GO_ON;
	}
	code = WORD_AT(state->frame_words, state->layout.frame_code) & ~(__u64)STACKREF_BITS;
	if (code != state->last_code) { /* recursion: once is enough */
		state->last_id = code ? identify_code(state, code) : 0;
		state->last_code = code;
	}
	if (!state->last_id)
		return PYTHON_READ_FAULT;
	if (state->layout.segments == PYTHON_EVERY_FRAME ||
	    (state->layout.segments == PYTHON_ENTRY_FLAG &&
	     BYTE_AT(state->frame_words, state->layout.frame_is_entry)))
		flag = PYTHON_SEGMENT_END;
	barrier_var(at);
	barrier_var(depth);
	if (depth >= MAX_PYTHON_DEPTH || at >= MAX_STACK_WORDS)
		return PYTHON_TRUNCATED;
	event->words[at] = state->last_id | flag;
	state->codes[depth] = code;
	state->depth = depth + 1;
	state->frame = previous;
	return PYTHON_GO_ON;
}

/* Puts a mark in place of a native address that lies in evaluator or glue. */
__noinline int python_mark(__u32 index, __u64 bias, __u32 is_return)
{
	struct python_state *state = python_state();
	struct stack_event *event = python_event();
	__u64 at = index, address;

	barrier_var(at);
	if (!state || !event || at >= MAX_STACK_WORDS)
		return 0;
	address = event->words[at] - bias - !!is_return;
	for (__u32 i = 0; i < MAX_PYTHON_RANGES; i++) {
		if (i >= state->layout.range_count)
			break;
		if (address >= state->layout.ranges[i].start &&
		    address < state->layout.ranges[i].end) {
			event->words[at] = i < state->layout.evaluator_count ? PYTHON_EVALUATOR_WORD
									     : PYTHON_GLUE_WORD;
			return 1;
		}
	}
	return 0;
}

/* All frames into the event. Returns the end. */
__noinline int python_walk(void)
{
	int end = PYTHON_GO_ON;

	for (int i = 0; i < 2 * MAX_PYTHON_DEPTH && end == PYTHON_GO_ON; i++)
		end = python_step();
	return end == PYTHON_GO_ON ? PYTHON_TRUNCATED : end;
}

/* Puts marks in place of all the evaluator's addresses. */
__noinline int python_mark_all(__u32 first, __u32 count, __u64 bias)
{
	for (__u32 i = 0; i < MAX_STACK_DEPTH && i < count; i++)
		python_mark(first + i, bias, i > 0);
	return 0;
}

/*
 * Reads the Python frames of the event's process, behind its kernel_depth + user_depth addresses.
 * Returns the end.
 */
static __always_inline int walk_python(struct task_struct *task, struct stack_event *event,
				       struct python_process *process)
{
	struct python_state *state = python_state();
	__u32 layout_id = process->layout;
	__u64 id = bpf_get_current_pid_tgid();
	struct python_layout *layout;
	int end;

	layout = bpf_map_lookup_elem(&ff_py_layouts, &layout_id);
	if (!state || !layout)
		return PYTHON_NONE;
	state->layout = *layout;
	state->interpreters = process->interpreters;
	state->salt = process->salt;
	state->thread_pointer = BPF_CORE_READ(task, thread.fsbase);
	state->first = event->kernel_depth + event->user_depth;
	state->depth = 0;
	state->last_code = 0;
	end = find_python_thread(state, process, id >> 32 == (__u32)id);
	if (end != PYTHON_COMPLETE)
		return end;
	return python_walk();
}

/* Adds the Python part to the event; returns the number of words that it takes. */
static __always_inline __u64 read_python(struct stack_event *event, struct task_struct *task,
					 struct task_struct *leader, struct counters *counter,
					 __u32 given_up)
{
	__u64 started_ns, depth;
	struct python_process *process;
	struct python_state *state;
	int end;

	event->python_depth = 0;
	if (!settings.python || !event->user_depth)
		return 0;
	process = find_python(&event->key, leader);
	if (!process)
		return 0;
	if (given_up & GIVEN_UP_PYTHON) {
		event->key.flags |= PYTHON_OFF << PYTHON_END_SHIFT;
		counter->python_samples++;
		return 0;
	}
	started_ns = bpf_ktime_get_ns();
	end = walk_python(task, event, process);
	state = python_state();
	depth = state ? state->depth : 0;
	event->python_depth = depth;
	if (depth)
		python_mark_all(event->kernel_depth, event->user_depth, process->bias);
	event->key.flags |= (__u32)end << PYTHON_END_SHIFT | (depth ? SAMPLE_PYTHON : 0);
	counter->python_samples++;
	counter->python_ns += bpf_ktime_get_ns() - started_ns;
	barrier_var(depth);
	return depth > MAX_PYTHON_DEPTH ? 0 : depth;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Names of code objects, sent once each, ahead of the stack that has them first. Read while the
 * thread stands still: later the memory may hold another code object.
 */
#ifndef FLAMEFLEET_PYTHON_NAMES_H
#define FLAMEFLEET_PYTHON_NAMES_H

#define STR_LENGTH  16 /* of every str since 3.3: length, hash, state */
#define STR_STATE   32
#define STR_COMPACT (1U << 5)
#define STR_ASCII   (1U << 6)

/* Code objects whose name was sent. The least recently used give way and are then sent again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, MAX_PYTHON_NAMES);
} ff_py_names SEC(".maps");

/* A python_name is larger than fits on the BPF stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct python_name);
	__uint(max_entries, 1);
} ff_py_name SEC(".maps");

/* Reads a str of any width; its begin, or (of a file) its end where it is longer than `room`. */
static __always_inline __u8 read_text(struct python_state *state, __u64 text, char *into,
				      __u32 room, bool keep_end, __u32 *chars)
{
	__u64 from = text, bytes;
	__u32 flags = read_user_word(text + STR_STATE), size;
	__u8 width = flags >> 2 & 7;

	*chars = read_user_word(text + STR_LENGTH);
	if (!(flags & STR_COMPACT) || (width != 1 && width != 2 && width != 4))
		return 0;
	from += flags & STR_ASCII ? state->layout.text_ascii : state->layout.text_compact;
	bytes = (__u64)*chars * width;
	if (keep_end && bytes > room)
		from += bytes - room;
	size = bytes < room ? bytes : room;
	barrier_var(size);
	if (size > room || bpf_probe_read_user(into, size, (void *)from))
		return 0;
	return width;
}

/* Sends the name of the Python frame `index` of the event, unless that was done before. */
__noinline int python_define(__u32 index)
{
	struct python_state *state = python_state();
	struct stack_event *event = python_event();
	__u32 zero = 0;
	struct python_name *name = bpf_map_lookup_elem(&ff_py_name, &zero);
	__u64 at, code, id, sent = 1, place = index; /* 64 bits: of 32, a copy would be checked */

	barrier_var(place);
	if (!state || !event || !name || place >= MAX_PYTHON_DEPTH)
		return 0;
	at = (__u64)state->first + place;
	barrier_var(at);
	if (at >= MAX_STACK_WORDS)
		return 0;
	code = state->codes[place];
	id = event->words[at] & ~PYTHON_SEGMENT_END;
	if (bpf_map_lookup_elem(&ff_py_names, &id))
		return 0;
	if (state->layout.code_bytes > sizeof(state->code_words) ||
	    bpf_probe_read_user(state->code_words, state->layout.code_bytes,
				(void *)(code + state->layout.code_start)))
		return 0;
	name->is_stack = 0;
	name->id = id;
	name->first_line = INT_AT(state->code_words, state->layout.code_first_line);
	name->name_width =
	    read_text(state, WORD_AT(state->code_words, state->layout.code_qualified_name),
		      name->name, sizeof(name->name), false, &name->name_chars);
	name->file_width = read_text(state, WORD_AT(state->code_words, state->layout.code_file),
				     name->file, sizeof(name->file), true, &name->file_chars);
	if (bpf_ringbuf_output(&ff_stacks, name, sizeof(*name), BPF_RB_NO_WAKEUP))
		return 1;
	bpf_map_update_elem(&ff_py_names, &id, &sent, BPF_ANY);
	return 0;
}

/* Sends the names of the first `count` Python frames; returns how many found no room. */
__noinline int python_define_all(__u32 count)
{
	int lost = 0;

	for (__u32 i = 0; i < MAX_PYTHON_DEPTH && i < count; i++)
		lost += python_define(i);
	return lost;
}

/* Sends the names of a stack that is new. */
static __always_inline void define_python(struct stack_event *event, struct counters *counter)
{
	__u64 started_ns;

	if (!event->python_depth)
		return;
	started_ns = bpf_ktime_get_ns();
	counter->ring_full += python_define_all(event->python_depth);
	counter->python_ns += bpf_ktime_get_ns() - started_ns;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Python frames of the interrupted thread, from CPython's own structs. About 0.3 us a frame; a
 * look-up or two in other programs. Functions without `static` are verified once; they take only
 * numbers, so what they work on lies in per-CPU maps.
 */
#ifndef FLAMEFLEET_PYTHON_H
#define FLAMEFLEET_PYTHON_H

#define MAX_THREAD_STATES 128 /* searched where the slot is not known */
#define READ_WORDS	  32  /* of a frame or code object */
#define SLOT_WORDS	  128 /* of a thread's control block, read at once */
#define SLOT_BYTES	  (2 * SLOT_WORDS * sizeof(__u64))

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct python_process);
	__uint(max_entries, MAX_PYTHON_PROCESSES);
} ff_python SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct python_layout);
	__uint(max_entries, MAX_PYTHON_LAYOUTS);
} ff_py_layouts SEC(".maps");

/*
 * The record of the process, or that of its parent, when it was forked from there and user space
 * has not seen it yet.
 */
static __always_inline struct python_process *find_python(struct sample_key *key,
							  struct task_struct *leader)
{
	struct python_process *process = bpf_map_lookup_elem(&ff_python, &key->tgid);
	struct unwind_process *seen;
	struct task_struct *parent;
	__u32 tgid;

	if (process && process->start_ns == key->start_ns && process->exec_id == key->exec_id)
		return process;
	seen = bpf_map_lookup_elem(&ff_processes, &key->tgid);
	if (seen && seen->start_ns == key->start_ns && seen->exec_id == key->exec_id)
		return NULL;
	parent = BPF_CORE_READ(leader, real_parent, group_leader);
	if (BPF_CORE_READ(parent, mm, exe_file) != BPF_CORE_READ(leader, mm, exe_file))
		return NULL;
	tgid = namespaced_tgid(parent);
	process = bpf_map_lookup_elem(&ff_python, &tgid);
	if (!process || process->exec_id != key->exec_id ||
	    process->start_ns != BPF_CORE_READ(parent, start_boottime))
		return NULL;
	return process;
}

/* Where a walk stands. */
struct python_state {
	struct python_layout layout;
	__u64 interpreters;
	__u64 salt;
	__u64 thread_pointer;
	__u64 thread; /* PyThreadState */
	__u64 frame;  /* the next one to read */
	__u32 first;  /* word of the event that the Python part begins at */
	__u32 depth;
	__u64 last_code; /* that last_id belongs to */
	__u64 last_id;
	__u64 frame_words[READ_WORDS];
	__u64 code_words[READ_WORDS];
	__u64 slot_words[SLOT_WORDS];
	__u64 codes[MAX_PYTHON_DEPTH]; /* addresses of the code objects */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct python_state);
	__uint(max_entries, 1);
} ff_py_state SEC(".maps");

/* Field of what was read: any masked offset is inside READ_WORDS. */
#define WORD_AT(words, offset) (*(__u64 *)((char *)(words) + ((offset)&0xf8)))
#define INT_AT(words, offset)  (*(__u32 *)((char *)(words) + ((offset)&0xfc)))
#define BYTE_AT(words, offset) (*(__u8 *)((char *)(words) + ((offset)&0xff)))

static __always_inline __u64 read_user_word(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)address);
	return word;
}

static __always_inline struct python_state *python_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ff_py_state, &zero);
}

/* Whether `thread` is the running thread's; its frame is then the next one to read. */
static __always_inline bool use_thread(struct python_state *state, __u64 thread)
{
	if (!thread || read_user_word(thread + state->layout.thread_id) != state->thread_pointer)
		return false;
	state->thread = thread;
	state->frame = read_user_word(thread + state->layout.thread_frame);
	if (state->frame && state->layout.cframe_frame >= 0)
		state->frame = read_user_word(state->frame + state->layout.cframe_frame);
	return true;
}

/*
 * The running thread's state among those of all interpreters: its thread_id is what pthread_self()
 * says, the thread pointer. A thread may have one in several interpreters: that with frames.
 */
__noinline int python_search(void)
{
	struct python_state *state = python_state();
	__u64 interpreter, thread, idle = 0;

	if (!state)
		return PYTHON_NO_THREAD_STATE;
	interpreter = read_user_word(state->interpreters);
	if (!interpreter)
		return PYTHON_NO_THREAD_STATE;
	thread = read_user_word(interpreter + state->layout.interpreter_threads);
	for (int i = 0; i < MAX_THREAD_STATES; i++) {
		if (!thread) {
			interpreter = read_user_word(interpreter + state->layout.interpreter_next);
			if (!interpreter)
				break;
			thread = read_user_word(interpreter + state->layout.interpreter_threads);
			continue;
		}
		if (use_thread(state, thread)) {
			if (state->frame)
				return PYTHON_COMPLETE;
			idle = thread;
		}
		thread = read_user_word(thread + state->layout.thread_next);
	}
	state->frame = 0;
	return idle ? PYTHON_COMPLETE : PYTHON_NO_THREAD_STATE;
}

/* Where the thread's control block holds its thread state, in bytes; 0: not found. */
__noinline int python_find_slot(void)
{
	struct python_state *state = python_state();
	int found = 0;

	if (!state)
		return 0;
	for (int part = 0; part < 2; part++) {
		int begin = part * SLOT_WORDS * sizeof(__u64);

		if (bpf_probe_read_user(state->slot_words, sizeof(state->slot_words),
					(void *)(state->thread_pointer + begin)))
			break;
		for (int i = 0; i < SLOT_WORDS; i++) {
			/* The last one: libc's thread-specific data lies behind its own fields. */
			if (state->slot_words[i] == state->thread)
				found = begin + i * sizeof(__u64);
		}
	}
	return found;
}

static __always_inline int find_python_thread(struct python_state *state,
					      struct python_process *process, bool is_main)
{
	__u32 slot = process->slot;
	__u64 thread = 0;
	int end;

	if (slot) {
		thread = read_user_word(state->thread_pointer + slot);
		if (use_thread(state, thread)) {
			if (!process->is_slot_sure && thread != process->slot_thread)
				process->is_slot_sure = 1;
			return PYTHON_COMPLETE;
		}
		/* A thread that no Python ran in yet. The main one may be laid out differently. */
		if (!thread && process->is_slot_sure && !is_main)
			return PYTHON_NONE;
	}
	end = python_search();
	if (end == PYTHON_COMPLETE && !slot) {
		slot = python_find_slot();
		if (slot && slot < SLOT_BYTES) {
			process->slot_thread = state->thread;
			process->slot = slot;
		}
	}
	return end;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the kernel and user space share about CPython programs; the Python mirror is
 * node_agent/cpython/structs.py. Offsets are those of node_agent/cpython/offsets.toml, in bytes.
 */
#ifndef FLAMEFLEET_PYTHON_EVENTS_H
#define FLAMEFLEET_PYTHON_EVENTS_H

#define MAX_PYTHON_PROCESSES 2048
#define MAX_PYTHON_LAYOUTS   64
#define MAX_PYTHON_RANGES    16
#define MAX_PYTHON_NAMES     8192 /* code objects whose name is not sent again */
#define PYTHON_NAME_BYTES    160
#define PYTHON_FILE_BYTES    256

/*
 * A word of the Python part of a stack is the id of a code object: a hash of where it lies, what it
 * refers to and its name, salted by the process. With PYTHON_SEGMENT_END the frame is the outermost
 * of those that one call of the evaluator ran.
 */
#define PYTHON_SEGMENT_END (1ULL << 63)

/* What takes the place of native addresses where Python frames follow. */
#define PYTHON_EVALUATOR_WORD 1 /* a call of the evaluator: stands for one segment */
#define PYTHON_GLUE_WORD      2 /* the interpreter's way from one function to the next */

enum python_segments {
	PYTHON_EVERY_FRAME = 0, /* each frame is a segment */
	PYTHON_ENTRY_FLAG = 1,	/* a segment ends at a frame with is_entry set */
	PYTHON_SHIMS = 2,	/* before a frame of owner 3 or more */
};

/* Addresses of the file that hold evaluator or glue. */
struct python_range {
	__u32 start;
	__u32 end;
};

/* ff_py_layouts: one for each build of an interpreter. */
struct python_layout {
	__u16 interpreter_next;
	__u16 interpreter_threads;
	__u16 thread_next;
	__u16 thread_id;
	__u16 thread_frame;
	__s16 cframe_frame; /* below 0: the thread state holds the frame itself */
	__u16 frame_bytes;
	__u16 frame_previous;
	__u16 frame_code;
	__u16 frame_owner;
	__u16 frame_is_entry;
	__u16 code_start; /* the part of a code object that is read; what follows counts from it */
	__u16 code_bytes;
	__u16 code_first_line;
	__u16 code_file;
	__u16 code_name;
	__u16 code_qualified_name;
	__u16 code_line_table;
	__u16 text_ascii; /* where the characters of a str begin */
	__u16 text_compact;
	__u32 segments; /* enum python_segments */
	__u32 evaluator_count;
	__u32 range_count; /* the evaluator's ranges first, then glue */
	__u32 reserved;
	struct python_range ranges[MAX_PYTHON_RANGES];
};

/* ff_python: key is the tgid in the agent's PID namespace. */
struct python_process {
	__u64 start_ns;	    /* start_ns and exec_id as in sample_key: or the record is another's */
	__u64 bias;	    /* address in memory - address of the file */
	__u64 interpreters; /* address of the head of the list of interpreters */
	__u64 salt;	    /* of the ids; the same in processes forked from one another */
	__u32 exec_id;
	__u32 layout;
	/*
	 * Written by the program: where, from the thread pointer on, a thread keeps its thread
	 * state (0: not known), the first thread state found there, and whether a second one was.
	 */
	__u32 slot;
	__u32 is_slot_sure;
	__u64 slot_thread;
};

/*
 * Sent through the ring buffer of stacks, before the stack that has the code object's id first.
 * Texts as CPython stores them; a name is cut at its end, a file at its begin.
 */
struct python_name {
	__u64 is_stack; /* 0, where a stack has its key */
	__u64 id;
	__u32 first_line;
	__u32 name_chars; /* before cutting */
	__u32 file_chars;
	__u8 name_width; /* bytes a character: 1 (Latin-1), 2, 4; 0: could not be read */
	__u8 file_width;
	__u8 reserved[2];
	char name[PYTHON_NAME_BYTES];
	char file[PYTHON_FILE_BYTES];
};

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * User stacks of code without frame pointers, walked by rows that user space made of `.eh_frame`
 * (DWARF 5, section 6.4; System V ABI for AMD64, 3.7).
 */
#ifndef FLAMEFLEET_UNWIND_H
#define FLAMEFLEET_UNWIND_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct unwind_process);
	__uint(max_entries, MAX_KNOWN_PROCESSES);
} ff_processes SEC(".maps");

/* Shards are made by user space, written by mmap, and of one size, which lets the kernel inline. */
struct mapping_shard {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct unwind_mapping);
	__uint(max_entries, MAPPINGS_PER_SHARD);
	__uint(map_flags, BPF_F_MMAPABLE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, MAX_MAPPING_SHARDS);
	__array(values, struct mapping_shard);
} ff_mappings SEC(".maps");

struct row_shard {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct unwind_row);
	__uint(max_entries, ROWS_PER_SHARD);
	__uint(map_flags, BPF_F_MMAPABLE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, MAX_ROW_SHARDS);
	__array(values, struct row_shard);
} ff_rows SEC(".maps");

/* Where a walk stands. In a map: functions that are verified on their own take only numbers. */
struct unwind_state {
	__u64 ip;
	__u64 sp;
	__u64 bp;
	struct unwind_mapping mapping; /* the last one found */
	struct unwind_row row;	       /* likewise */
	__u32 first_mapping;
	__u32 mapping_count;
	__u32 is_exact; /* ip is where the thread stands, not where a call returns to */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct unwind_state);
	__uint(max_entries, 1);
} ff_unwind SEC(".maps");

#endif

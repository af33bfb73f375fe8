/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What user stacks are walked by: processes, their mappings, and where a walk stands. */
#ifndef FLAMEFLEET_TABLES_H
#define FLAMEFLEET_TABLES_H

#include "registers.h"

#define MAPPING_STEPS 13 /* of a binary search among MAX_MAPPINGS */
#define KNOWN_RULES   1024

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct unwind_process);
	__uint(max_entries, MAX_KNOWN_PROCESSES);
} ff_processes SEC(".maps");

/*
 * Shards are made by user space, written by mmap, and of one size, which lets the kernel inline. No
 * types of keys and values: from 5.15 to 6.2 a shard of a known type is not equal to one without.
 */
struct mapping_shard {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct unwind_mapping));
	__uint(max_entries, MAPPINGS_PER_SHARD);
	__uint(map_flags, BPF_F_MMAPABLE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, MAX_MAPPING_SHARDS);
	__array(values, struct mapping_shard);
} ff_mappings SEC(".maps");

/*
 * The rule of an address that was met before: most are, and finding it again among mappings and
 * rows would cost some ten misses of the processor's caches.
 */
struct known_rule {
	__u64 address;
	__u32 version; /* of the mappings */
	struct row_rule rule;
};

/*
 * A search among the slots of a page. In a map, as the verifier would follow every way that numbers
 * on the stack can go.
 */
struct row_search {
	__u32 low;
	__u32 high;
	__u32 place; /* of the pc in its page */
};

/* Where a walk stands. In a map: functions that are verified on their own take only numbers. */
struct unwind_state {
	__u64 ip;
	__u64 sp;
	__u64 bp;
	struct unwind_mapping mapping; /* the last one found */
	struct row_rule rule;	       /* likewise */
	struct row_search search;
	__u32 first_mapping;
	__u32 mapping_count;
	__u32 is_exact;	  /* ip is where the thread stands, not where a call returns to */
	__u32 version;	  /* of the mappings */
	__u32 is_pending; /* the walk ended in code whose rows are being made */
	__u32 unused;
	struct saved_registers saved; /* of the user's code, in a sample of kernel code */
	struct known_rule known[KNOWN_RULES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct unwind_state);
	__uint(max_entries, 1);
} ff_unwind SEC(".maps");

static __always_inline struct unwind_state *unwind_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ff_unwind, &zero);
}

static __always_inline struct unwind_mapping *mapping_at(__u32 index)
{
	__u32 number = index / MAPPINGS_PER_SHARD, slot = index % MAPPINGS_PER_SHARD;
	void *shard = bpf_map_lookup_elem(&ff_mappings, &number);

	return shard ? bpf_map_lookup_elem(shard, &slot) : NULL;
}

/* Makes state->mapping the mapping of `address`; 0 where there is none. */
__noinline int find_mapping(__u64 address)
{
	struct unwind_state *state = unwind_state();
	struct unwind_mapping *mapping;
	__u32 low, high, middle;

	if (!state)
		return 0;
	if (address >= state->mapping.start && address < state->mapping.end)
		return 1;
	low = state->first_mapping;
	high = low + state->mapping_count;
	for (int i = 0; i < MAPPING_STEPS && low < high; i++) {
		middle = low + (high - low) / 2;
		mapping = mapping_at(middle);
		if (!mapping)
			return 0;
		if (mapping->start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == state->first_mapping)
		return 0;
	mapping = mapping_at(low - 1);
	if (!mapping || address < mapping->start || address >= mapping->end)
		return 0;
	state->mapping = *mapping;
	return 1;
}

#endif

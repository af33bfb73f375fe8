/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The rows of modules, and how the rule for a pc is found in them: see struct row_block. */
#ifndef FLAMEFLEET_ROWS_H
#define FLAMEFLEET_ROWS_H

#include "tables.h"

#define ROW_STEPS  12 /* among the slots of a page, at most two for each of its addresses */
#define ROW_PAGE   (1U << ROW_PAGE_BITS)
#define ROW_REGION (1U << ROW_REGION_BITS)
#define ROW_CODES  (1U << (16 - ROW_PAGE_BITS))

#define ROW_SHARD_BYTES (ROW_CELLS_PER_SHARD * ROW_CELL_BYTES)

/* One value: an array would give each of its entries 8 bytes at least. */
struct row_shard {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, ROW_SHARD_BYTES);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, MAX_ROW_SHARDS);
	__array(values, struct row_shard);
} ff_rows SEC(".maps");

/* Byte `at` of all rows; what lies there has `size` bytes, 2 to 16, and is aligned to that. */
static __always_inline void *rows_at(__u32 at, __u32 size)
{
	__u32 number = at / ROW_SHARD_BYTES, zero = 0;
	void *shard = bpf_map_lookup_elem(&ff_rows, &number), *bytes;

	bytes = shard ? bpf_map_lookup_elem(shard, &zero) : NULL;
	return bytes ? bytes + (at & (ROW_SHARD_BYTES - size)) : NULL;
}

/* Makes search->low the first slot behind `place`. 0 where a shard is missing. */
__noinline int search_page(__u32 at)
{
	struct unwind_state *state = unwind_state();
	struct row_search *search;
	__u32 middle;
	__u16 *slot;

	if (!state)
		return 0;
	search = &state->search;
	for (int i = 0; i < ROW_STEPS && search->low < search->high; i++) {
		middle = search->low + (search->high - search->low) / 2;
		slot = rows_at(at + middle * sizeof(*slot), sizeof(*slot));
		if (!slot)
			return 0;
		if (*slot % ROW_PAGE <= search->place)
			search->low = middle + 1;
		else
			search->high = middle;
	}
	return 1;
}

/* Makes low and high those of page number `page` in a region, whose first slot they are. */
static __always_inline bool narrow(struct row_search *search, __u32 ends_at, __u32 page)
{
	__u16 *end = rows_at(ends_at + page * sizeof(*end), sizeof(*end));

	if (!end)
		return false;
	search->high += *end;
	if (!page)
		return true;
	end = rows_at(ends_at + (page - 1) * sizeof(*end), sizeof(*end));
	if (!end)
		return false;
	search->low += *end;
	return true;
}

/* Makes state->rule that of `pc` in state->mapping; 0 where there is none. */
__noinline int find_rule(__u32 pc)
{
	struct unwind_state *state = unwind_state();
	__u32 at, number, first, low, code, short_codes;
	struct row_region *region;
	struct row_block *block;
	struct row_rule *rule;
	__u16 *slot;

	if (!state)
		return 0;
	at = state->mapping.first_cell * ROW_CELL_BYTES;
	block = rows_at(at, sizeof(*block));
	if (!block || pc >> ROW_REGION_BITS < block->first_region)
		return 0;
	number = (pc >> ROW_REGION_BITS) - block->first_region;
	if (number > block->region_count)
		number = block->region_count; /* behind the last row, which has no end */
	region = rows_at(at + sizeof(*block) + number * sizeof(*region), sizeof(*region));
	if (!region)
		return 0;
	first = region->first;
	state->search.low = state->search.high = first;
	state->search.place = pc % ROW_PAGE;
	if (region->pages && (!narrow(&state->search, at + region->pages * sizeof(*slot),
				      pc % ROW_REGION >> ROW_PAGE_BITS) ||
			      !search_page(at)))
		return 0;
	low = state->search.low;
	if (!number && low == first)
		return 0;
	/* The last row before `pc`, be it in another page: all slots lie one behind the other. */
	slot = rows_at(at + (low - 1) * sizeof(*slot), sizeof(*slot));
	if (!slot)
		return 0;
	code = *slot >> ROW_PAGE_BITS;
	short_codes = block->short_codes;
	if (code >= short_codes) {
		slot = rows_at(at + (low - 2) * sizeof(*slot), sizeof(*slot));
		if (!slot)
			return 0;
		code = short_codes + (code - short_codes) * ROW_CODES + (*slot >> ROW_PAGE_BITS);
	}
	if (code >= block->rule_count)
		return 0;
	at += sizeof(*block) + (block->region_count + 1) * sizeof(*region) + code * sizeof(*rule);
	rule = rows_at(at, sizeof(*rule));
	if (!rule)
		return 0;
	state->rule = *rule;
	return 1;
}

#endif

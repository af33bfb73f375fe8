/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef FLAMEFLEET_HASH_H
#define FLAMEFLEET_HASH_H

/* One multiplication a word; the shift carries high bits down (as in FNV-1a, 64 bits at a time). */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 32);
}

#endif

// SPDX-License-Identifier: GPL-2.0-only
/* Region map: see the essay in region-map.h. Pure: no I/O, no locks. */

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "region-map.h"

/* The bits of the regions [begin, end) that lie in the word of @begin. */
static u32 repl_map_mask(u64 begin, u64 end)
{
	unsigned int first = begin & (REPL_MAP_REGIONS - 1);
	unsigned int nr = min_t(u64, end - begin, REPL_MAP_REGIONS - first);

	return (u32)((1ULL << (2 * nr)) - 1) << (2 * first);
}

/* First region of the next chunk. */
static u64 repl_map_next_chunk(u64 region)
{
	return (region | ((1ULL << REPL_CHUNK_SHIFT) - 1)) + 1;
}

/* First region of the next word. */
static u64 repl_map_next_word(u64 region)
{
	return (region | (REPL_MAP_REGIONS - 1)) + 1;
}

/* The low bit of each state that is not none. */
static u32 repl_map_present(u32 states)
{
	return (states | states >> 1) & REPL_MAP_LOW;
}

static u64 map_nr_words(u64 nr_regions)
{
	return (nr_regions >> REPL_MAP_SHIFT) + 1;
}

static u64 map_nr_chunks(u64 nr_regions)
{
	return (nr_regions >> REPL_CHUNK_SHIFT) + 1;
}

/**
 * repl_map_init() - allocate an empty map
 * @map: map
 * @nr_regions: number of regions, at least 1
 *
 * Context: process, may sleep (constructor).
 * Return: 0, -EINVAL when there are none or too many, or -ENOMEM.
 */
int repl_map_init(struct repl_map *map, u64 nr_regions)
{
	u64 nr_words = map_nr_words(nr_regions);

	if (!nr_regions || nr_words > SIZE_MAX / sizeof(*map->words))
		return -EINVAL;

	map->words = vzalloc(nr_words * sizeof(*map->words));
	map->chunks = vzalloc(map_nr_chunks(nr_regions) * sizeof(*map->chunks));
	if (!map->words || !map->chunks) {
		repl_map_exit(map);
		return -ENOMEM;
	}

	map->nr_regions = nr_regions;
	map->tag = 1;	/* the words are tagged 0 */
	return 0;
}

/**
 * repl_map_exit() - free a map
 * @map: map, may be zeroed
 */
void repl_map_exit(struct repl_map *map)
{
	vfree(map->words);
	vfree(map->chunks);
	map->words = NULL;
	map->chunks = NULL;
}

/**
 * repl_map_empty() - set every region to none
 * @map: map
 *
 * Context: process; nothing else uses the map (invariant 5).
 */
void repl_map_empty(struct repl_map *map)
{
	if (unlikely(++map->tag == 0)) {
		memset(map->words, 0,
		       map_nr_words(map->nr_regions) * sizeof(*map->words));
		memset(map->chunks, 0,
		       map_nr_chunks(map->nr_regions) * sizeof(*map->chunks));
		map->tag = 1;
	}
}

/* Set the regions of @mask to @state; return how many were and are present. */
static int repl_map_set_word(struct repl_map *map, u64 region, u32 mask,
			     enum repl_region_state state)
{
	u64 *p = &map->words[region >> REPL_MAP_SHIFT];
	u32 *chunk = &map->chunks[region >> REPL_CHUNK_SHIFT];
	u32 fill = mask & (REPL_MAP_LOW * state);
	u64 old = READ_ONCE(*p);
	u64 seen;
	u32 states;

	/* Ahead of the word, by the barrier below. */
	if (fill && READ_ONCE(*chunk) != map->tag)
		WRITE_ONCE(*chunk, map->tag);
	for (;;) {
		u64 new;

		states = (old >> 32) == map->tag ? (u32)old : 0;
		new = (u64)map->tag << 32 | (states & ~mask) | fill;
		/* A full barrier: what the state promises was done before. */
		seen = cmpxchg64(p, old, new);
		if (seen == old)
			break;
		old = seen;
	}

	return hweight32(repl_map_present(fill)) -
	       hweight32(repl_map_present(states & mask));
}

/**
 * repl_map_set() - set the state of a range of regions
 * @map: map
 * @begin: first region
 * @end: region after the last
 * @state: new state
 *
 * Atomic for each word, with full barriers.
 *
 * Context: any; no lock.
 * Return: how many regions went from none to a state, or, when @state is none,
 * the other way.
 */
u64 repl_map_set(struct repl_map *map, u64 begin, u64 end,
		 enum repl_region_state state)
{
	s64 changed = 0;

	while (begin < end) {
		changed += repl_map_set_word(map, begin,
					     repl_map_mask(begin, end), state);
		begin = repl_map_next_word(begin);
	}
	return state == REPL_REGION_NONE ? -changed : changed;
}

/**
 * repl_map_run_slow() - repl_map_run() for more than one region
 * @map: map
 * @begin: first region
 * @end: region after the last
 * @present: set to whether region @begin has a state other than none
 *
 * Return: the length of the run.
 */
u64 repl_map_run_slow(const struct repl_map *map, u64 begin, u64 end,
		      bool *present)
{
	u64 region = begin;

	*present = repl_map_get(map, begin) != REPL_REGION_NONE;
	while (region < end) {
		u32 mask = repl_map_mask(region, end) & REPL_MAP_LOW;
		u32 differ = repl_map_present(repl_map_states(map, region));

		if (*present)
			differ = ~differ;
		differ &= mask;
		if (differ) {
			region &= ~(u64)(REPL_MAP_REGIONS - 1);
			region += __ffs(differ) / 2;
			/*
			 * The first region itself can have changed since it
			 * was looked at; it counts as looked at.
			 */
			return max_t(u64, region, begin + 1) - begin;
		}
		region = repl_map_next_word(region);
	}
	return end - begin;
}

/**
 * repl_map_next() - find the next region that is present
 * @map: map
 * @begin: first region to look at
 * @end: region after the last
 *
 * Context: any; no lock.
 * Return: the first region of [@begin, @end) with a state, or @end.
 */
u64 repl_map_next(const struct repl_map *map, u64 begin, u64 end)
{
	while (begin < end) {
		u64 stop = min(end, repl_map_next_chunk(begin));

		if (READ_ONCE(map->chunks[begin >> REPL_CHUNK_SHIFT]) !=
		    map->tag)
			begin = stop;
		while (begin < stop) {
			u32 states = repl_map_present(repl_map_states(map,
								      begin)) &
				     repl_map_mask(begin, stop);

			if (states)
				return (begin & ~(u64)(REPL_MAP_REGIONS - 1)) +
				       __ffs(states) / 2;
			begin = repl_map_next_word(begin);
		}
	}
	return end;
}

/**
 * repl_map_all_slow() - repl_map_all() for more than one region
 * @map: map
 * @begin: first region
 * @end: region after the last
 *
 * Return: true if every region of the range is preserved.
 */
bool repl_map_all_slow(const struct repl_map *map, u64 begin, u64 end)
{
	while (begin < end) {
		u32 mask = repl_map_mask(begin, end);

		if ((repl_map_states(map, begin) & mask) != mask)
			return false;
		begin = repl_map_next_word(begin);
	}
	return true;
}

/**
 * repl_map_bits() - which regions are preserved?
 * @map: map
 * @begin: first region, the first of a word
 * @nr: how many
 * @bits: one bit a region, all 0; set for those that are
 *
 * Regions that change meanwhile may be seen either way.
 *
 * Context: any; no lock.
 * Return: whether there is one.
 */
bool repl_map_bits(const struct repl_map *map, u64 begin, unsigned int nr,
		   u8 *bits)
{
	bool some = false;
	unsigned int i, j;

	for (i = 0; i < nr; i += REPL_MAP_REGIONS) {
		u32 states = repl_map_states(map, begin + i);

		if (!states)
			continue;
		for (j = i; j < nr && j < i + REPL_MAP_REGIONS; j++, states >>= 2)
			if ((states & 3) == REPL_REGION_PRESERVED) {
				bits[j >> 3] |= 1 << (j & 7);
				some = true;
			}
	}
	return some;
}

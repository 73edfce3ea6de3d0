/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Region map: one state per region, epoch-tagged so that emptying the whole
 * map is one increment.
 *
 * A word is a u64: the tag of the epoch that wrote it in the upper 32 bits and
 * the states of 16 regions, 2 bits each, in the lower. A word with any other
 * tag reads as 16 regions of state 0 and is replaced as a whole by the first
 * change. So a map takes 4 bits a region, a checkpoint does not touch it, and
 * readers need no lock: one READ_ONCE gives a consistent word.
 *
 *	 63            32 31                              0
 *	+----------------+--+--+--+--+--+--+--+--+--+--+--+
 *	| tag            |r15 ...                   r1 |r0|
 *	+----------------+--+--+--+--+--+--+--+--+--+--+--+
 *
 * A chunk, 65,536 regions, has the tag of the last epoch that gave one of its
 * regions a state, so that a walk through a map of hundreds of millions passes
 * over what this epoch has not touched.
 *
 * The tag wraps after 2^32 - 1 epochs (3.4 years at 40 checkpoints a second).
 * repl_map_empty() then wipes all of it, so that a word that old is never
 * taken for a new one.
 *
 * Concurrency: repl_map_get(), _run(), _all() and _next() may run at any time
 * in any context. repl_map_set() may race with them and with itself.
 * repl_map_empty() needs the map to itself: gate closed and drained.
 */
#ifndef DM_REPL_REGION_MAP_H
#define DM_REPL_REGION_MAP_H

#include <linux/compiler.h>
#include <linux/minmax.h>
#include <linux/types.h>

#define REPL_MAP_REGIONS	16U	/* in a word */
#define REPL_MAP_SHIFT		4	/* log2 of that */
#define REPL_MAP_LOW		0x55555555U	/* low bit of each state */
#define REPL_CHUNK_SHIFT	16	/* log2 of the regions in a chunk */

/*
 * none -> redirect -> preserved; back to none by a new epoch or by merge
 * (invariant 2), and from redirect if that could not be made durable: the
 * secondary still holds the same. The active map uses none and preserved.
 */
enum repl_region_state {
	REPL_REGION_NONE	= 0,
	REPL_REGION_REDIRECT	= 1,	/* readable in hidden */
	REPL_REGION_PRESERVED	= 3,	/* durable there; may be overwritten */
};

struct repl_map {
	u64 *words;
	u32 *chunks;
	u64 nr_regions;
	u32 tag;
};

int repl_map_init(struct repl_map *map, u64 nr_regions);
void repl_map_exit(struct repl_map *map);
void repl_map_empty(struct repl_map *map);
u64 repl_map_set(struct repl_map *map, u64 begin, u64 end,
		 enum repl_region_state state);
u64 repl_map_run_slow(const struct repl_map *map, u64 begin, u64 end,
		      bool *present);
u64 repl_map_next(const struct repl_map *map, u64 begin, u64 end);
bool repl_map_bits(const struct repl_map *map, u64 begin, unsigned int nr,
		   u8 *bits);
bool repl_map_all_slow(const struct repl_map *map, u64 begin, u64 end);

/* The 16 states of the word that holds @region, as of the map's epoch. */
static inline u32 repl_map_states(const struct repl_map *map, u64 region)
{
	u64 word = READ_ONCE(map->words[region >> REPL_MAP_SHIFT]);

	return likely((word >> 32) == map->tag) ? (u32)word : 0;
}

/**
 * repl_map_get() - the state of one region
 * @map: map
 * @region: region index, below nr_regions
 *
 * Context: any; no lock.
 */
static inline enum repl_region_state repl_map_get(const struct repl_map *map,
						  u64 region)
{
	unsigned int shift = 2 * (region & (REPL_MAP_REGIONS - 1));

	return (repl_map_states(map, region) >> shift) & 3;
}

/**
 * repl_map_run() - how far does the presence of the first region reach?
 * @map: map
 * @begin: first region
 * @end: region after the last; above @begin
 * @present: set to whether region @begin has a state other than none
 *
 * Context: any; no lock.
 * Return: the number of regions from @begin on, at least 1, that are all
 * present or all not.
 */
static inline u64 repl_map_run(const struct repl_map *map, u64 begin, u64 end,
			       bool *present)
{
	if (likely(end - begin == 1)) {
		*present = repl_map_get(map, begin) != REPL_REGION_NONE;
		return 1;
	}
	return repl_map_run_slow(map, begin, end, present);
}

/**
 * repl_map_all() - are all regions of a range preserved?
 * @map: map
 * @begin: first region
 * @end: region after the last; above @begin, at most nr_regions
 *
 * Context: any; no lock. Once true it stays true until the map is emptied or
 * cleared, so it may be acted upon while the caller is inside the gate.
 */
static inline bool repl_map_all(const struct repl_map *map, u64 begin, u64 end)
{
	if (likely(end - begin == 1))
		return repl_map_get(map, begin) == REPL_REGION_PRESERVED;
	return repl_map_all_slow(map, begin, end);
}

#endif

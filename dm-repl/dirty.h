/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Dirty maps: which regions somebody else has not got.
 *
 * repl_bits is one bit a region and a count of those that are set. Setting and
 * clearing are atomic for each word, in any context, without a lock; what is
 * set already costs a look. The count follows the bits: at rest it is exact,
 * meanwhile it may lag, and never counts a change twice.
 *
 * repl_dirty is the list of named maps of a device. The user's own are marked
 * by each write while they are enabled; `peer', `checkpoint' and the like are
 * reserved: their owner registers them, so that they can be looked at, cleared
 * and merged by the same words. Each map has its own granularity, a power of
 * two of sectors, not necessarily that of the regions.
 *
 * A map is frozen for the time of a backup: what is dirty then stays as it is,
 * and a successor takes over what is written from then on.
 *
 *	freeze		frozen = map		map = empty
 *	thaw drop	frozen is forgotten	(the backup has it)
 *	thaw merge	map |= frozen		(it failed or was cancelled)
 *
 * A write marks first and reaches the disk later. So that no write that is on
 * its way is missing from what begins with an add, an enable, a clear or a
 * freeze, these run between the owner's ->close (no write is in flight) and
 * ->open. All that may allocate has allocated before: reclaim may need to
 * write to this very device.
 *
 * Marking walks the list under RCU and takes no lock.
 */
#ifndef DM_REPL_DIRTY_H
#define DM_REPL_DIRTY_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/types.h>

struct repl_bits {
	unsigned long *bits;
	u64 nr;
	atomic64_t count;		/* of set bits */
};

int repl_bits_init(struct repl_bits *b, u64 nr);
void repl_bits_exit(struct repl_bits *b);
bool repl_bits_any(const struct repl_bits *b, u64 begin, u64 end);
bool repl_bits_all(const struct repl_bits *b, u64 begin, u64 end);
u64 repl_bits_set(struct repl_bits *b, u64 begin, u64 end);
u64 repl_bits_clear(struct repl_bits *b, u64 begin, u64 end);
u64 repl_bits_next(const struct repl_bits *b, u64 begin);
u64 repl_bits_find(const struct repl_bits *b, u64 begin, u64 end, bool set);
u64 repl_bits_run(const struct repl_bits *b, u64 begin, u64 end);
bool repl_bits_look(const struct repl_bits *const *maps, unsigned int nr,
		    u64 begin, u64 end, u64 *run);
void repl_bits_merge(struct repl_bits *to, const struct repl_bits *from);
void repl_bits_wipe(struct repl_bits *b);
bool repl_bits_bytes(const struct repl_bits *b, u64 begin, unsigned int nr,
		     u8 *bytes);
void repl_bits_swap(struct repl_bits *a, struct repl_bits *b);

/**
 * repl_bits_test() - is one bit set?
 * @b: bits
 * @nr: which, below b->nr
 *
 * Context: any; no lock, no barrier.
 */
static inline bool repl_bits_test(const struct repl_bits *b, u64 nr)
{
	return READ_ONCE(b->bits[nr / BITS_PER_LONG]) >>
	       (nr % BITS_PER_LONG) & 1;
}

/**
 * repl_bits_count() - how many bits are set
 * @b: bits
 *
 * Never negative. Context: any.
 */
static inline u64 repl_bits_count(const struct repl_bits *b)
{
	s64 count = atomic64_read(&b->count);

	return count > 0 ? count : 0;
}

#define REPL_DIRTY_NAME		32	/* with its end */
#define REPL_DIRTY_MAPS		32U	/* the user's: each write looks at all */
#define REPL_DIRTY_MIN_SHIFT	3	/* 4 KiB */
#define REPL_DIRTY_MAX_SHIFT	17	/* 64 MiB */

/* Where a map is on a metadata device: keep.c's, but for the touch. */
struct repl_kept {
	u64 start;			/* block; 0: it has no place */
	u64 blocks;
	bool enabled;			/* it says so there */
	bool no_room;			/* that has been said */
	bool gone;			/* it is not to have a place any more */
	u16 *saved;			/* of each block the bits in it; or NULL */
	struct repl_bits touched;	/* blocks: it may be more now */
};

struct repl_dirty_map {
	struct list_head list;
	char name[REPL_DIRTY_NAME];
	unsigned int shift;		/* log2 of sectors a bit */
	bool enabled;
	bool reserved;			/* its bits are the owner's */
	struct repl_bits *now;
	struct repl_bits *frozen;	/* or NULL */
	struct repl_kept kept;
};

/**
 * struct repl_dirty_keeper - who keeps the user's maps on a device
 * @alloc: what it needs for a map that is in no list yet. 0 or -ENOMEM
 * @add: one that is new in the list. 0, also where there is no room for it; or a
 *	negative errno, and it is to be taken out again
 * @remove: one that will be taken out of the list. 0, or a negative errno, and it stays
 * @enable: says so. 0 or a negative errno
 * @grown: bits were set that no write has set. 0, or a negative errno: they could not
 *	be written
 * @shrinks: bits are cleared, or have just been: what is known of the device is no
 *	more true. With ->keep_lock
 * @shrunk: they were
 *
 * Context: process, with the lock of the maps, and else without ->keep_lock.
 */
struct repl_dirty_keeper {
	int (*alloc)(void *context, struct repl_dirty_map *map);
	int (*add)(void *context, struct repl_dirty_map *map);
	int (*remove)(void *context, struct repl_dirty_map *map);
	int (*enable)(void *context, struct repl_dirty_map *map, bool enabled);
	int (*grown)(void *context, struct repl_dirty_map *map);
	void (*shrinks)(void *context, struct repl_dirty_map *map);
	void (*shrunk)(void *context, struct repl_dirty_map *map);
};

struct repl_dirty {
	struct mutex lock;		/* messages, one after the other */
	/*
	 * The list, and which bits are a map's, against who saves them. It comes after
	 * ->lock, and is never held where writes are waited for: they may wait
	 * for who saves.
	 */
	struct mutex keep_lock;
	struct list_head maps;		/* reserved ones first */
	unsigned int nr_maps;		/* the user's */
	sector_t sectors;
	unsigned int region_shift;
	int (*close)(void *context);	/* may be NULL, with ->open */
	void (*open)(void *context);
	void *context;
	const struct repl_dirty_keeper *keeper; /* or NULL */
	void *keeper_context;
	bool loading;			/* the maps are not there yet: no messages */
};

int repl_dirty_init(struct repl_dirty *d, sector_t sectors,
		    unsigned int region_shift);
void repl_dirty_exit(struct repl_dirty *d);
void repl_dirty_set_gate(struct repl_dirty *d, int (*close)(void *context),
			 void (*open)(void *context), void *context);
void repl_dirty_set_keeper(struct repl_dirty *d,
			   const struct repl_dirty_keeper *keeper,
			   void *context);
void repl_dirty_unkeep(struct repl_dirty_map *map);
struct repl_dirty_map *repl_dirty_new(struct repl_dirty *d, const char *name,
				      unsigned int shift);
void repl_dirty_free(struct repl_dirty_map *map);
void repl_dirty_insert(struct repl_dirty *d, struct repl_dirty_map *map);
void repl_dirty_unite(struct repl_dirty *d, struct repl_dirty_map *map,
		      const struct repl_bits *regions);
void repl_dirty_reserve(struct repl_dirty *d, struct repl_dirty_map *map,
			const char *name, struct repl_bits *bits);
void repl_dirty_set_frozen(struct repl_dirty_map *map,
			   struct repl_bits *frozen);
int repl_dirty_take_over(struct repl_dirty *d, struct repl_dirty *old);
void repl_dirty_mark_maps(struct repl_dirty *d, sector_t sector, sector_t nr);
int repl_dirty_message(struct repl_dirty *d, unsigned int argc, char **argv,
		       char *result, unsigned int maxlen, const char **why);

/**
 * repl_dirty_mark() - a write is about to change these sectors
 * @d: maps
 * @sector: first sector
 * @nr: how many, at least 1
 *
 * Marks the user's maps that are enabled. Call it inside the gate, before the
 * write is sent anywhere (invariant 7).
 *
 * Context: any; no lock.
 */
static inline void repl_dirty_mark(struct repl_dirty *d, sector_t sector,
				   sector_t nr)
{
	if (unlikely(READ_ONCE(d->nr_maps)))
		repl_dirty_mark_maps(d, sector, nr);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keep: the user's dirty maps, on the metadata device of a primary. format.h says
 * what is there, behind the log.
 *
 * A map's blocks may lag behind the map in memory. What they lack is among the
 * regions that the track has recorded, durably and before each write:
 *
 *	map in memory  <=  its blocks  +  the track's dirty regions
 *
 * So a write costs nothing here. Blocks are written before the track records that
 * regions are clean, or writes all of its map anew: repl_keep_save() comes first.
 * And at once where bits are set that no write has set. After a crash each map
 * begins with the right side: it has no bit too few. After an orderly suspend the
 * blocks are exact, and the directory says so.
 *
 * A write sets its bits, and then touches their blocks; who saves takes the touch
 * away, and then reads the bits:
 *
 *	write				save
 *	-----				----
 *	set in the maps			the block is not touched any more
 *	smp_mb()		[A]	(full barrier)		[B]
 *	is the block touched? else	read its bits
 *	touch it
 *	repl_track_mark()
 *
 * A write that finds its bits set relies on whoever has set them; so it touches,
 * too. Either its bits are read, or the block is touched afterwards: then it comes to
 * the track behind the first look of the round, and its regions do not become
 * clean, or it waits for a record behind that.
 *
 * That the blocks are exact holds for as long as nothing is written behind the log's end
 * of then: who begins to write, also after a suspend, writes a block of the log first
 * (repl_track_open(), repl_track_again()).
 *
 * What cannot be written makes the track fail, where that could lose a bit: then
 * all is dirty after a crash, and all is set here.
 *
 * Lock: repl_dirty.keep_lock, from the outside to the inside: the track's map_lock, this
 * one, I/O. Nobody waits for writes who has it.
 */
#ifndef DM_REPL_KEEP_H
#define DM_REPL_KEEP_H

#include "dirty.h"
#include "store.h"

/* What the blocks are worth when they are read. */
enum repl_keep_trust {
	REPL_KEEP_EXACT,
	REPL_KEEP_UNITED,		/* with what is dirty */
	REPL_KEEP_NOT,			/* all is set */
};

struct repl_keep {
	struct repl_dirty *dirty;
	struct repl_store *store;
	void (*failed)(void *context, int error);
	void *context;
	u8 *buffer;			/* REPL_KEEP_BATCH blocks, and one */

	/* From repl_keep_begin() on */
	bool has_room;			/* for a directory and something to be in it */
	u64 start, end;			/* blocks: of the directories; of the device */
	u64 generation, good;		/* of the last directory; that is there for sure */
	enum repl_keep_trust trust;
	struct repl_disk_kept_dir *found; /* until they are loaded; NULL: none */
	bool all;			/* all is set, whatever is in the blocks: it says so */
	bool stale;			/* the directory is not as it should be */
	u64 gather_block;
	unsigned int gathered;
};

/* Blocks that are read or written together, at most. */
#define REPL_KEEP_BATCH	16

int repl_keep_init(struct repl_keep *keep, struct repl_dirty *dirty,
		   struct repl_store *store,
		   void (*failed)(void *context, int error), void *context);
void repl_keep_exit(struct repl_keep *keep);
int repl_keep_begin(struct repl_keep *keep, bool is_ours, u64 next,
		    const char **why);
int repl_keep_load(struct repl_keep *keep, const struct repl_bits *dirty,
		   bool same, const char **why);
int repl_keep_save(struct repl_keep *keep, const struct repl_bits *leaving);
void repl_keep_leave(struct repl_keep *keep, u64 next);
void repl_keep_doubt(struct repl_keep *keep);
bool repl_keep_has_maps(struct repl_keep *keep);

#endif

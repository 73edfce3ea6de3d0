/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Track: which regions of a primary its peer may lack, on a metadata device.
 *
 * The owner has maps in memory that are exact: what the peer's last checkpoint
 * has not got, and what its disk has not. The track keeps one that is durable
 * and never smaller: its bit is on the metadata device before a write to the
 * region is sent anywhere (invariant 7), and stays a while when it need not, so
 * that most writes pay for one test. After a crash the owner's maps begin with
 * it.
 *
 *	dirty	is on the device, or was: what compaction writes
 *	recent	written in this round: the test of a write; a part of dirty
 *	leaving	of dirty, what may be clean: between the two looks of a round
 *
 * Setting. A write sets its bits in the owner's maps, then looks at recent. If
 * all of its regions are there, it goes on. If they are in dirty only, it puts
 * them there, and takes them out of leaving. Else it waits for an entry of the
 * log: group commit shares the block.
 *
 * Clearing, in a round every few seconds. A region that is in none of the
 * owner's maps has the same on both disks, but what local has in its cache may
 * be lost. So: what is dirty, not recent, and in none of the maps, is leaving;
 * local is flushed; what is leaving still gets a record that it is clean, and
 * is cleared when that is durable. A write that comes then waits for a record
 * that lies behind it.
 *
 *	write				round
 *	-----				-----
 *	set in the owner's maps		recent is emptied
 *	smp_mb()		[A]	smp_mb()		[B]
 *	in recent? go on		in the owner's maps? it stays
 *
 * Metadata that cannot be written must not stop the workload: writes go on
 * unrecorded, repl_track_failed() is true and the owner takes no checkpoint.
 * Before they do, they wait until a superblock says so, or could not be written
 * either: with it, all is dirty after a crash. Without it what is there is
 * believed, and nothing on the device could tell. Each round tries to write the
 * whole map, until that succeeds, and if not that, the superblock.
 *
 * An orderly suspend leaves the exact map, or, where I/O of the metadata has
 * failed since it was opened, one that is larger.
 */
#ifndef DM_REPL_TRACK_H
#define DM_REPL_TRACK_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "dirty.h"
#include "log.h"
#include "store.h"

struct repl_track;

/**
 * struct repl_track_ops - what a track needs of its owner
 * @flush: make what local has written durable; 0 or a negative errno
 * @lacks: are the regions from the first on, at least one and none of them behind
 *	the second, in one of the maps, or in none? How many is that so of? See
 *	repl_track_moving(). Any context.
 * @merge: set in @to what is set in one of the maps
 * @failed: metadata could not be written; process context
 * @begin: the device has been read, and nothing is written yet. Was it ours until now,
 *	with all that was written recorded? And the seq of the next log block. May be
 *	NULL; 0, or a negative errno with @why
 * @save: what else relies on these regions being dirty (NULL: on any) has to be
 *	durable. May be NULL; 0 or a negative errno
 */
struct repl_track_ops {
	int (*flush)(void *context);
	bool (*lacks)(void *context, u64 begin, u64 end, u64 *nr);
	void (*merge)(void *context, struct repl_bits *to);
	void (*failed)(void *context, int error);
	int (*begin)(void *context, bool is_ours, u64 next,
		     const char **why);
	int (*save)(void *context, const struct repl_bits *leaving);
};

/* Runs of regions that become clean together. */
#define REPL_TRACK_RUNS	32

struct repl_track_run {
	struct repl_log_entry log;
	struct repl_track *track;
};

struct repl_track {
	/* What a write looks at. */
	struct repl_bits recent;
	struct repl_bits dirty;
	struct repl_bits leaving;
	spinlock_t lock;		/* to held; runs, order in the log */
	bool recording;
	bool marking;			/* writes wait until a superblock says so */
	struct list_head held;		/* these */
	bool covering;			/* dirty has what is to be written yet */
	bool failed;			/* the device lacks something */
	bool inexact;			/* it may have what is clean */
	unsigned int nr_runs;		/* of which it is recorded that they are clean */
	struct repl_track_run runs[REPL_TRACK_RUNS];

	const struct repl_track_ops *ops;
	void *context;
	struct repl_store *store;
	u64 sectors;
	u32 region_size;
	u64 nr_regions;
	unsigned int moving;		/* odd: the owner's maps change places */

	struct mutex change_lock;	/* state */
	struct repl_meta_state state;	/* as it is on the device */
	bool open;

	struct workqueue_struct *wq;
	struct mutex map_lock;		/* who changes dirty, or all of the log's map */
	atomic_t wanted;		/* by so many: a round makes way */
	struct work_struct mark_work;
	struct delayed_work round;
	atomic_t runs_left;
	struct completion runs_done;

	/* Until it has been read: a secondary's, whose dirty map needs them. */
	struct repl_bits hidden;
	struct repl_bits active;
};

/**
 * struct repl_track_io - a write that may have to wait; in the owner's own
 * @log: private
 * @track: private
 * @done: its regions are recorded, or cannot be: it goes on; process context
 */
struct repl_track_io {
	struct repl_log_entry log;
	struct repl_track *track;
	void (*done)(struct repl_track_io *io);
};

struct repl_track *repl_track_create(struct mapped_device *md,
				     struct block_device *bdev, u64 sectors,
				     u32 region_size,
				     const struct repl_track_ops *ops,
				     void *context, char **error);
void repl_track_destroy(struct repl_track *track);
int repl_track_open(struct repl_track *track, const char **why);
int repl_track_again(struct repl_track *track);
void repl_track_lost(struct repl_track *track, int error);
int repl_track_cover(struct repl_track *track);
int repl_track_fill(struct repl_track *track);
void repl_track_resume(struct repl_track *track);
void repl_track_suspend(struct repl_track *track);
bool repl_track_wait(struct repl_track *track, struct repl_track_io *io,
		     u64 begin, u64 end);
int repl_track_pending(struct repl_track *track, u64 id);
int repl_track_checkpoint(struct repl_track *track, u64 id);
int repl_track_set_lineage(struct repl_track *track, const u8 *lineage);

/* Used by the work, and by tests. */
void repl_track_round(struct repl_track *track);

/**
 * repl_track_mark() - a write is about to be sent
 * @track: track
 * @io: the owner's memory for it, with ->done set
 * @begin: first region; set in the owner's maps already
 * @end: region after the last
 *
 * Context: any.
 * Return: true if it has to wait: ->done is called.
 */
static inline bool repl_track_mark(struct repl_track *track,
				   struct repl_track_io *io, u64 begin, u64 end)
{
	smp_mb();	/* [A], pairs with [B] in track_choose() */
	if (likely(repl_bits_all(&track->recent, begin, end)))
		return false;
	return repl_track_wait(track, io, begin, end);
}

/**
 * repl_track_moving() - the owner's maps are about to change places, or have
 * @track: track
 *
 * Before and after a map is frozen, merged or dropped, so that a region is not
 * looked for in each where it is not. Context: process; one at a time.
 */
static inline void repl_track_moving(struct repl_track *track)
{
	smp_mb();	/* with those of track_lacks() */
	WRITE_ONCE(track->moving, track->moving + 1);
	smp_mb();	/* the count before the maps */
}

/**
 * repl_track_failed() - does the metadata device lack something?
 * @track: track
 */
static inline bool repl_track_failed(const struct repl_track *track)
{
	return READ_ONCE(track->failed);
}

#endif

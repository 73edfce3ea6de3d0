/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Log: makes durable what the maps and the stage say, and says when it is.
 *
 * Three ways in, one block format (format.h):
 *
 * - repl_log_add(): somebody waits. A region that has been copied to hidden
 *   may be overwritten when its entry is done, and one that another copy is to
 *   be told of may be written; a barrier is done when all that was noted
 *   before it is durable. Entries are recorded in their order.
 * - repl_log_note(): nobody waits, or a later barrier does. Notes are written
 *   along with the next entry. If there are too many of them for their buffer,
 *   they are dropped, and a barrier then waits for the maps to be written as a
 *   whole.
 * - repl_log_change(): a change of state: stage, checkpoint id, fence. Always
 *   a block of its own, and the last of its batch: a batch that was written in
 *   part changes nothing but regions.
 *
 * Group commit: one batch is being written while the next one gathers. It is
 * written when some ops have come, or all that are on their way, or after a
 * tick; at once if anything else waits. Before a batch is written, the devices
 * that its records speak of are flushed. Commits have workers of their own, of
 * high priority. They sleep most of the time, each time for one I/O. If the
 * copies shared workers with them, there would be two at least, none of which
 * has run for long; then the scheduler lets each wake-up interrupt whoever
 * writes, and a first write costs a quarter more.
 *
 * The log is a ring. When it is half full it is compacted: either to the last
 * block that emptied the maps, or by writing the maps to the bitmap area that
 * is not in use, while I/O goes on; then the superblock is made to point there.
 * What changes during that is in the log behind the point where it started:
 *
 *	tail		    start		  next
 *	 |<-- in the bitmaps -->|<-- replayed again -->|
 *
 * A map is read after the start was chosen, so each bit of it is a state that
 * the region had at or after the start, and replay from the start brings it to
 * the last one. For that a record must not be durable before the start and in
 * the map after it: entries are done, maps set, between two batches, and so is
 * the start chosen; notes are made after the map was changed. And what a batch
 * that failed may have left at the start would be replayed over bitmaps that
 * are newer: it is overwritten first. Nor may a merge be in a map whose start
 * lies before the failover: what was put into hidden between would be there
 * again, and what was put into active before the start would not. Nor may the
 * dirty map be of after a failover that comes behind the start: a record between
 * may empty it. Such a compaction begins anew.
 *
 * Errors: an entry whose batch could not be written is done with an error, and
 * the next batch goes to the same place. A change that could not be written is
 * written again, then read: if it is there, or if something else is, all is
 * clear. If not even that can be said, repl_log_ambiguous() is true until
 * something has been written to that place.
 *
 * A primary's writes go on when there are no records of them. So that the map is
 * not believed when it is read, a superblock says so, if one can be written:
 * repl_log_distrust(). Each one that is written from then on says it, until one
 * comes with all of the map in it, as it is after repl_log_trust().
 */
#ifndef DM_REPL_LOG_H
#define DM_REPL_LOG_H

#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "meta.h"

struct repl_log;

/* Devices, as bits. */
enum repl_log_dev {
	REPL_LOG_DEV_SECONDARY	= 1,
	REPL_LOG_DEV_HIDDEN	= 2,
	REPL_LOG_DEV_ACTIVE	= 4,
	REPL_LOG_DEV_META	= 8,
};

/**
 * struct repl_log_io - what the log stands on; process context, may wait
 * @append: write blocks of the log; durable on return
 * @reread: read blocks of the log from the device
 * @write: write a superblock or bitmap block; durable after @sync
 * @sync: what was written by @write is durable on return
 * @flush: flush caches of devices, bits of enum repl_log_dev
 * @coming: how many regions are being copied or wait for the log, about; any
 *	context; may be NULL
 * @bits: the durable states of @nr regions of @map from @begin on, as bits
 *	that were all 0; returns whether there is one
 */
struct repl_log_io {
	int (*append)(struct repl_log_io *io, u64 block, unsigned int nr,
		      void *data);
	int (*reread)(struct repl_log_io *io, u64 block, unsigned int nr,
		      void *data);
	int (*write)(struct repl_log_io *io, u64 block, const void *data);
	int (*sync)(struct repl_log_io *io);
	int (*flush)(struct repl_log_io *io, unsigned int devs);
	unsigned int (*coming)(struct repl_log_io *io);
	bool (*bits)(struct repl_log_io *io, enum repl_disk_map map, u64 begin,
		     unsigned int nr, u8 *bits);
};

enum repl_log_kind {
	REPL_LOG_REGIONS,	/* are preserved, or dirty, or clean */
	REPL_LOG_BARRIER,
	REPL_LOG_CHANGE,
};

/**
 * struct repl_log_entry - something that somebody waits for
 * @kind: what
 * @op: of regions: hidden, dirty or clean
 * @begin: first region
 * @end: region after the last
 * @state: new state of a change
 * @flags: of a change: REPL_LOG_EMPTY_*, REPL_LOG_DIRTY_ADD
 * @flush: devices to be flushed before a change
 * @done: called in process context when it is durable, or is not: @error, a
 *	negative errno, and @dev, the device that failed. Must not wait for
 *	the log.
 */
struct repl_log_entry {
	struct list_head list;
	enum repl_log_kind kind;
	enum repl_extent_op op;
	u64 begin;
	u64 end;
	const struct repl_meta_state *state;
	u16 flags;
	unsigned int flush;
	void (*done)(struct repl_log_entry *entry, int error, unsigned int dev);
};

/* As many as fit into two blocks. */
#define REPL_LOG_NOTES	(2 * REPL_LOG_EXTENTS)

struct repl_log_notes {
	unsigned int nr;
	unsigned int flush;		/* devices */
	__le64 extent[REPL_LOG_NOTES];
	u64 end;			/* of the last one, to extend it */
	enum repl_extent_op op;
};

struct repl_log {
	struct repl_log_io *io;
	struct workqueue_struct *wq;	/* commits: short, and many wait */
	struct workqueue_struct *compact_wq; /* compaction: long, few do */
	struct work_struct commit_work;
	struct work_struct compact_work;
	struct delayed_work gather_work;
	bool stopping;

	spinlock_t lock;		/* to the next gap */
	struct list_head entries;
	unsigned int nr_regions;	/* of them, that are regions */
	unsigned int nr_others;		/* of them */
	unsigned int nr_written;	/* regions in the batch under way */
	bool overdue;			/* what has gathered is to be written */
	struct repl_log_notes *notes;	/* to be written next */
	struct repl_log_notes *spare;	/* NULL: being written */
	bool rewrite;			/* lost, and no change makes up for it */
	bool compacting_rewrite;
	bool distrust;			/* superblocks say so */
	bool lost;			/* notes were dropped */
	bool compacting_lost;		/* they are being made up for */
	bool compacting;
	bool compact_awaited;		/* entries wait for its end */
	int compact_error;		/* of one that was, until they know */
	u32 errors;			/* latched, for the next block */

	/* The commit work's, or nobody's. */
	struct repl_meta_state state;	/* durable */
	u64 next;			/* seq */
	u64 link;			/* of the block before that */
	u64 empty;			/* seq of the last that emptied all; 0 */
	u64 empty_prev;
	struct repl_meta_state empty_state; /* before it */
	u64 failover;			/* seq of the last change to that stage; 0 */
	u64 compact_at;			/* seq: not before */
	u8 *buffer;			/* REPL_LOG_BATCH blocks, and as many to reread */
	unsigned int nr_blocks;		/* in it */
	bool ambiguous;
	bool torn;			/* what failed may be at next */

	struct repl_meta meta;		/* superblock as it is on the disk */
	/* The compact work's while compacting. */
	struct repl_meta new;		/* as it will be */
	bool super_pending;		/* all of it but the superblock is written */
	u8 *block;
	u8 *summary;
};

int repl_log_init(struct repl_log *log, struct repl_log_io *io,
		  const struct repl_meta *meta);
void repl_log_stop(struct repl_log *log);
void repl_log_exit(struct repl_log *log);
void repl_log_begin(struct repl_log *log, const struct repl_replayed *from);
void repl_log_add(struct repl_log *log, struct repl_log_entry *entry);
void repl_log_note(struct repl_log *log, enum repl_extent_op op, u64 begin,
		   u64 end);
bool repl_log_noted(struct repl_log *log);
void repl_log_set_errors(struct repl_log *log, u32 errors);
int repl_log_change(struct repl_log *log, const struct repl_meta_state *state,
		    u16 flags, unsigned int flush, unsigned int *dev);
int repl_log_sync(struct repl_log *log);
int repl_log_rewrite(struct repl_log *log);
int repl_log_distrust(struct repl_log *log);
void repl_log_trust(struct repl_log *log);
int repl_log_format(struct repl_log *log);

/* Used by the two works, and by tests. */
bool repl_log_commit(struct repl_log *log);
void repl_log_compact(struct repl_log *log);

/**
 * repl_log_ambiguous() - is it unknown whether the last change took place?
 * @log: log
 *
 * Context: any; after repl_log_change() has failed.
 */
static inline bool repl_log_ambiguous(const struct repl_log *log)
{
	return log->ambiguous;
}

/**
 * repl_log_used() - blocks that a replay would read
 * @log: log
 *
 * Context: any; a value of late.
 */
static inline u64 repl_log_used(const struct repl_log *log)
{
	return READ_ONCE(log->next) - READ_ONCE(log->meta.tail);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Push: a job that brings the peer's disk up to date.
 *
 * It walks the window's map `missed` and copies its regions from local to the
 * peer, while writes go on. A copy and the writes to its regions exclude each
 * other by a claim (window.h): a region that something of the window overlaps
 * is passed over; writes that come after the claim wait in the window, behind
 * it, and the workload waits for nothing.
 *
 *	piece		reads local		[reads the peer, compares: of a MiB
 *						only the pages that differ are sent]
 *			writes the peer, as data or as zeroes
 *			the same for the next MiB of its claim
 *			gives back the claim
 *
 * A copy that fails sets the bits of its claim again. A read that fails ends
 * the job; a write that fails is an error of the peer, and the job ends since
 * there is nobody to push to.
 *
 * What is in the way of a claim leaves the window some time, and then the owner
 * calls repl_job_poke().
 *
 * A peer that hangs holds up the pieces that it has: their claims, their pages,
 * and whoever holds or cancels the job (killably): call that with no lock that
 * a detach needs. Its timeout is the window's.
 *
 * The workload comes first. While it reads or writes, few pieces are in flight,
 * and small ones: its own I/O waits behind them on both disks. While the window
 * is more than half full one, with a pause: then it is the workload's own writes
 * that the peer should get.
 *
 * All memory is allocated when the push is made: 4 MiB of pages, and the pieces
 * that share them.
 */
#ifndef DM_REPL_PUSH_H
#define DM_REPL_PUSH_H

#include <linux/bio.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "job.h"
#include "window.h"

struct repl_push;
struct push_piece;

/**
 * struct repl_push_ops - what a push wants of its owner
 * @ios: reads and writes of the workload so far, any count that grows; process
 *	context
 * @read_error: local could not be read; process context
 * @ended: the job is done or has failed; process context
 */
struct repl_push_ops {
	u64 (*ios)(struct repl_push *push);
	void (*read_error)(struct repl_push *push, int err, sector_t sector);
	void (*ended)(struct repl_push *push, bool done);
};

struct repl_push {
	struct repl_job job;

	/* Set by the owner before repl_push_init(). */
	const struct repl_push_ops *ops;
	struct repl_window *window;
	struct block_device *local;
	sector_t sectors;		/* of the device */
	unsigned int region_shift;	/* of the window's map, from sectors */

	bool compare;			/* read both, send what differs */
	bool no_zeroes;			/* the peer cannot after all */
	atomic64_t pushed;		/* regions of this job, also those that were equal */
	atomic64_t claimed;		/* regions */
	u64 sent;			/* bytes of data, for status; work's */
	u64 ios;			/* of the workload, when looked at last */
	unsigned long busy;		/* jiffies: when that had changed */
	struct mutex start_lock;

	struct workqueue_struct *wq;	/* may hang with the peer */
	struct work_struct work;	/* pieces whose I/O has ended */
	struct work_struct auto_work;
	spinlock_t lock;		/* the rest */
	struct list_head ended;
	struct list_head free;
	struct page **pages;		/* a stack of free ones */
	unsigned int nr_pages;
	unsigned int nr_free;
	struct push_piece *pieces;
	struct bio_vec *vecs;
};

int repl_push_init(struct repl_push *push);
void repl_push_exit(struct repl_push *push);
int repl_push_start(struct repl_push *push, bool full, bool compare);
void repl_push_auto(struct repl_push *push);
void repl_push_take_over(struct repl_push *push, struct repl_push *old);

/**
 * struct repl_push_progress - how far a push is
 * @done: regions that are on the peer since it began
 * @total: @done and those that are still missing; may grow
 */
struct repl_push_progress {
	u64 done;
	u64 total;
};

void repl_push_progress(struct repl_push *push,
			struct repl_push_progress *progress);

#endif

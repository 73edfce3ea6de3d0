/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copy: ranges of one device to another, identity mapped.
 *
 * Two ways, so that copy-before-write is never throttled and never waits
 * behind a job:
 *
 * - repl_job_copy() is kcopyd, for jobs.
 *
 * - The copier is for copies that a bio waits for. kcopyd takes its pages from
 *   the allocator for each copy and gives them back (and the kernel clears
 *   them, where it is built to), allocates 9 job structures where it needs one,
 *   and wakes its thread three times. That is a third of what a first write
 *   costs. The copier owns its pages, reads and writes with one bio, and runs
 *   in its owner's worker: ends of reads and writes gather on a list while the
 *   worker is busy and go on together, in one plug.
 *
 * A copy is cut into pieces of up to 1 MiB. Copies start in order, when there
 * are pages; a copy that fails says whether reading or writing did.
 */
#ifndef DM_REPL_COPY_H
#define DM_REPL_COPY_H

#include <linux/bio.h>
#include <linux/dm-kcopyd.h>
#include <linux/list.h>
#include <linux/spinlock.h>

/**
 * struct repl_copy - one copy; the caller's memory until @fn is called
 * @from: device to read
 * @to: device to write
 * @sector: start on both, in sectors
 * @count: length, in sectors
 * @fn: called from repl_copier_run() at the end, with errors apart
 * @context: for @fn
 *
 * The rest is the copier's.
 */
struct repl_copy {
	struct block_device *from;
	struct block_device *to;
	sector_t sector;
	sector_t count;
	dm_kcopyd_notify_fn fn;
	void *context;

	struct list_head list;
	unsigned int pieces;		/* in flight */
	bool read_error;
	bool write_error;
};

/* All but @done is used by the owner's worker only. */
struct repl_copier {
	struct bio_set bios;
	struct page **pages;		/* a stack of free ones */
	unsigned int nr_pages;
	unsigned int nr_free;
	struct list_head queue;		/* copies with pieces to start */
	void (*kick)(struct repl_copier *copier);
	spinlock_t lock;		/* done */
	struct list_head done;		/* pieces whose I/O has ended */
};

int repl_copier_init(struct repl_copier *copier,
		     void (*kick)(struct repl_copier *copier));
void repl_copier_exit(struct repl_copier *copier);
void repl_copier_add(struct repl_copier *copier, struct repl_copy *copy);
void repl_copier_run(struct repl_copier *copier);

void repl_job_copy(struct dm_kcopyd_client *client,
		   const struct repl_copy *copy);

#endif

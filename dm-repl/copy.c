// SPDX-License-Identifier: GPL-2.0-only
/* Copier: see the essay in copy.h. */

#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "copy.h"

/* Pages in flight (4 MiB). Enough for the largest piece, four times. */
#define REPL_COPIER_PAGES	(SZ_4M >> PAGE_SHIFT)
/* One piece (1 MiB). */
#define REPL_PIECE_PAGES	min_t(unsigned int, SZ_1M >> PAGE_SHIFT, BIO_MAX_VECS)
#define REPL_PIECE_SECTORS	((sector_t)REPL_PIECE_PAGES << PAGE_SECTORS_SHIFT)

/* The bio lies behind it: front_pad of the bio set. */
struct copy_piece {
	struct list_head list;
	struct repl_copy *copy;
	sector_t sector;
	unsigned int bytes;
	bool writing;
	struct bio bio;
};

static struct copy_piece *bio_piece(struct bio *bio)
{
	return container_of(bio, struct copy_piece, bio);
}

/**
 * repl_copier_init() - a copier with nothing to do
 * @copier: copier
 * @kick: called in any context when I/O has ended; makes the owner's worker
 *	call repl_copier_run()
 *
 * Context: process. Return: 0 or -ENOMEM; repl_copier_exit() frees in any case.
 */
int repl_copier_init(struct repl_copier *copier,
		     void (*kick)(struct repl_copier *copier))
{
	int r;

	INIT_LIST_HEAD(&copier->queue);
	INIT_LIST_HEAD(&copier->done);
	spin_lock_init(&copier->lock);
	copier->kick = kick;

	r = bioset_init(&copier->bios, BIO_POOL_SIZE,
			offsetof(struct copy_piece, bio), BIOSET_NEED_BVECS);
	if (r)
		return r;
	copier->pages = kcalloc(REPL_COPIER_PAGES, sizeof(*copier->pages),
				GFP_KERNEL);
	if (!copier->pages)
		return -ENOMEM;
	while (copier->nr_pages < REPL_COPIER_PAGES) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			return -ENOMEM;
		copier->pages[copier->nr_pages++] = page;
	}
	copier->nr_free = copier->nr_pages;
	return 0;
}

/**
 * repl_copier_exit() - free what repl_copier_init() allocated
 * @copier: copier, zeroed or initialised, with nothing in flight since an RCU
 *	grace period ago
 */
void repl_copier_exit(struct repl_copier *copier)
{
	while (copier->nr_pages)
		__free_page(copier->pages[--copier->nr_pages]);
	kfree(copier->pages);
	bioset_exit(&copier->bios);
}

/* Context: any. */
static void piece_endio(struct bio *bio)
{
	struct copy_piece *piece = bio_piece(bio);
	struct repl_copier *copier = bio->bi_private;
	unsigned long flags;
	bool first;

	/* The worker may end the copy at once; then RCU keeps the copier. */
	rcu_read_lock();
	spin_lock_irqsave(&copier->lock, flags);
	first = list_empty(&copier->done);
	list_add_tail(&piece->list, &copier->done);
	spin_unlock_irqrestore(&copier->lock, flags);
	/* The worker takes the whole list: one kick is enough for it. */
	if (first)
		copier->kick(copier);
	rcu_read_unlock();
}

/*
 * Start one more piece of @copy. False: there are no pages or no bio now; some
 * are in flight, and the worker comes again when they end.
 */
static bool piece_start(struct repl_copier *copier, struct repl_copy *copy)
{
	sector_t count = min(copy->count, REPL_PIECE_SECTORS);
	unsigned int bytes = count << SECTOR_SHIFT;
	unsigned int nr = DIV_ROUND_UP(bytes, PAGE_SIZE);
	struct copy_piece *piece;
	struct bio *bio;
	gfp_t gfp;

	if (nr > copier->nr_free)
		return false;
	/*
	 * With some in flight, their end brings us back here. With none, the
	 * reserve is whole and nobody would: GFP_NOIO takes from it.
	 */
	gfp = copier->nr_free == copier->nr_pages ? GFP_NOIO :
						    GFP_NOWAIT | __GFP_NOWARN;
	bio = bio_alloc_bioset(copy->from, nr, REQ_OP_READ | REQ_SYNC, gfp,
			       &copier->bios);
	if (!bio)
		return false;

	piece = bio_piece(bio);
	piece->copy = copy;
	piece->sector = copy->sector;
	piece->bytes = bytes;
	piece->writing = false;
	while (bytes) {
		unsigned int len = min_t(unsigned int, bytes, PAGE_SIZE);

		__bio_add_page(bio, copier->pages[--copier->nr_free], len, 0);
		bytes -= len;
	}
	bio->bi_iter.bi_sector = copy->sector;
	bio->bi_end_io = piece_endio;
	bio->bi_private = copier;

	copy->sector += count;
	copy->count -= count;
	copy->pieces++;
	submit_bio_noacct(bio);
	return true;
}

/* What was read goes out with the same bio and the same pages. */
static void piece_write(struct repl_copier *copier, struct copy_piece *piece)
{
	struct bio *bio = &piece->bio;
	unsigned short nr = bio->bi_vcnt;

	bio_reset(bio, piece->copy->to, REQ_OP_WRITE | REQ_SYNC);
	bio->bi_vcnt = nr;
	bio->bi_iter.bi_sector = piece->sector;
	bio->bi_iter.bi_size = piece->bytes;
	bio->bi_end_io = piece_endio;
	bio->bi_private = copier;
	piece->writing = true;
	submit_bio_noacct(bio);
}

static void piece_free(struct repl_copier *copier, struct copy_piece *piece)
{
	struct bio *bio = &piece->bio;
	unsigned short i;

	for (i = 0; i < bio->bi_vcnt; i++)
		copier->pages[copier->nr_free++] = bio->bi_io_vec[i].bv_page;
	bio_put(bio);
}

/* The I/O of a piece has ended. */
static void piece_done(struct repl_copier *copier, struct copy_piece *piece)
{
	struct repl_copy *copy = piece->copy;

	if (unlikely(piece->bio.bi_status)) {
		if (piece->writing)
			copy->write_error = true;
		else
			copy->read_error = true;
		copy->count = 0;	/* start no more of it */
	} else if (!piece->writing) {
		piece_write(copier, piece);
		return;
	}

	piece_free(copier, piece);
	if (--copy->pieces || copy->count)
		return;
	list_del_init(&copy->list);
	copy->fn(copy->read_error, copy->write_error, copy->context);
}

static void copier_start(struct repl_copier *copier)
{
	struct repl_copy *copy, *next;

	list_for_each_entry_safe(copy, next, &copier->queue, list) {
		while (copy->count)
			if (!piece_start(copier, copy))
				return;
		list_del_init(&copy->list);
	}
}

/**
 * repl_copier_add() - start a copy, or queue it until there are pages
 * @copier: copier
 * @copy: copy, filled in; its memory lives until @fn is called
 *
 * Context: the owner's worker. Does not wait.
 */
void repl_copier_add(struct repl_copier *copier, struct repl_copy *copy)
{
	copy->pieces = 0;
	copy->read_error = false;
	copy->write_error = false;
	list_add_tail(&copy->list, &copier->queue);
	copier_start(copier);
}

/**
 * repl_copier_run() - go on with what has ended
 * @copier: copier
 *
 * Context: the owner's worker, in a plug; calls the @fn of copies that ended.
 */
void repl_copier_run(struct repl_copier *copier)
{
	struct copy_piece *piece, *next;
	LIST_HEAD(done);

	spin_lock_irq(&copier->lock);
	list_splice_init(&copier->done, &done);
	spin_unlock_irq(&copier->lock);

	list_for_each_entry_safe(piece, next, &done, list)
		piece_done(copier, piece);
	copier_start(copier);
}

/**
 * repl_job_copy() - hand a copy of a job to kcopyd
 * @client: the job's client
 * @copy: what to copy; @fn is called in kcopyd's thread
 *
 * Context: process; may wait for earlier copies of this client.
 */
void repl_job_copy(struct dm_kcopyd_client *client,
		   const struct repl_copy *copy)
{
	struct dm_io_region from = {
		.bdev = copy->from, .sector = copy->sector, .count = copy->count,
	};
	struct dm_io_region to = {
		.bdev = copy->to, .sector = copy->sector, .count = copy->count,
	};

	dm_kcopyd_copy(client, &from, 1, &to, 0, copy->fn, copy->context);
}

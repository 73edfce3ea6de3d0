// SPDX-License-Identifier: GPL-2.0-only
/* Push: see the essay in push.h. */

#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "compat.h"
#include "push.h"

/* Pages of all pieces (4 MiB). */
#define PUSH_PAGES		(SZ_4M >> PAGE_SHIFT)
/* One read or write (1 MiB). */
#define PUSH_CHUNK_SECTORS	((sector_t)SZ_1M >> SECTOR_SHIFT)
#define PUSH_CHUNK_PAGES	(SZ_1M >> PAGE_SHIFT)
#define PUSH_PIECES		32
/* Pieces at a time while the workload reads or writes, and their size. */
#define PUSH_POLITE		4
#define PUSH_POLITE_SECTORS	((sector_t)SZ_256K >> SECTOR_SHIFT)
/* It does so until it has not for so long. */
#define PUSH_QUIET		(HZ / 10)

enum push_step {
	PUSH_READ_LOCAL,
	PUSH_READ_PEER,
	PUSH_WRITE,
	PUSH_WRITE_ZEROES,
};

struct push_piece {
	struct list_head list;		/* free or ended */
	struct repl_push *push;
	struct repl_claim claim;
	sector_t begin, end;		/* of the claim */
	sector_t sector;		/* of the chunk */
	unsigned int bytes;		/* of the chunk */
	unsigned int from, len;		/* of these, what is read or written */
	enum push_step step;
	unsigned int nr_pages;		/* that it has */
	struct page *pages[2 * PUSH_CHUNK_PAGES];	/* the peer's behind local's */
	struct bio_vec *vecs;
	struct bio bio;
};

/*
 * ---- Pages and pieces ----
 */

/* A piece with pages for @sectors, or NULL: some are in flight and will be back. */
static struct push_piece *piece_get(struct repl_push *push, sector_t sectors)
{
	unsigned int nr = DIV_ROUND_UP(min(sectors, PUSH_CHUNK_SECTORS) <<
				       SECTOR_SHIFT, PAGE_SIZE);
	struct push_piece *piece = NULL;

	if (push->compare)
		nr *= 2;
	spin_lock_irq(&push->lock);
	if (!list_empty(&push->free) && nr <= push->nr_free) {
		piece = list_first_entry(&push->free, struct push_piece, list);
		list_del(&piece->list);
		for (piece->nr_pages = 0; piece->nr_pages < nr;)
			piece->pages[piece->nr_pages++] =
				push->pages[--push->nr_free];
	}
	spin_unlock_irq(&push->lock);
	return piece;
}

static void piece_put(struct push_piece *piece)
{
	struct repl_push *push = piece->push;

	spin_lock_irq(&push->lock);
	while (piece->nr_pages)
		push->pages[push->nr_free++] = piece->pages[--piece->nr_pages];
	list_add(&piece->list, &push->free);
	spin_unlock_irq(&push->lock);
}

static u64 piece_regions(const struct push_piece *piece)
{
	unsigned int shift = piece->push->region_shift;

	return ((piece->end - 1) >> shift) - (piece->begin >> shift) + 1;
}

/* The copy is over; what was not copied is missing again. */
static void piece_end(struct push_piece *piece, bool error)
{
	struct repl_push *push = piece->push;
	u64 nr = piece_regions(piece);

	if (error)
		repl_window_miss(push->window, piece->begin,
				 piece->end - piece->begin);
	else
		atomic64_add(nr, &push->pushed);
	smp_mb();	/* see repl_push_progress() */
	atomic64_sub(nr, &push->claimed);
	repl_window_unclaim(push->window, &piece->claim);
	piece_put(piece);
	repl_job_done(&push->job, error);
}

/*
 * ---- I/O ----
 */

static void piece_endio(struct bio *bio)
{
	struct push_piece *piece = container_of(bio, struct push_piece, bio);
	struct repl_push *push = piece->push;
	unsigned long flags;

	rcu_read_lock();	/* its end may be dealt with at once, and ours come */
	spin_lock_irqsave(&push->lock, flags);
	list_add_tail(&piece->list, &push->ended);
	spin_unlock_irqrestore(&push->lock, flags);
	queue_work(push->wq, &push->work);
	rcu_read_unlock();
}

static void piece_submit(struct push_piece *piece, struct block_device *bdev,
			 enum push_step step)
{
	static const blk_opf_t ops[] = {
		[PUSH_READ_LOCAL]	= REQ_OP_READ,
		[PUSH_READ_PEER]	= REQ_OP_READ,
		[PUSH_WRITE]		= REQ_OP_WRITE,
		[PUSH_WRITE_ZEROES]	= REQ_OP_WRITE_ZEROES,
	};
	unsigned int first = (piece->from >> PAGE_SHIFT) +
			     (step == PUSH_READ_PEER ? piece->nr_pages / 2 : 0);
	unsigned int left = step == PUSH_WRITE_ZEROES ? 0 : piece->len;
	struct bio *bio = &piece->bio;

	piece->step = step;
	bio_init(bio, bdev, piece->vecs, PUSH_CHUNK_PAGES, ops[step]);
	while (left) {
		unsigned int len = min_t(unsigned int, left, PAGE_SIZE);

		__bio_add_page(bio, piece->pages[first++], len, 0);
		left -= len;
	}
	bio->bi_iter.bi_sector = piece->sector + (piece->from >> SECTOR_SHIFT);
	bio->bi_iter.bi_size = piece->len;
	bio->bi_end_io = piece_endio;
	submit_bio_noacct(bio);
}

/* To or from the peer: false if there is none any more. */
static bool piece_submit_peer(struct push_piece *piece, enum push_step step)
{
	struct repl_window *window = piece->push->window;
	/* Looked at once: it may be detached now. Our claim keeps it open. */
	struct block_device *peer = repl_window_peer(window);

	if (!peer || !repl_window_has_peer(window))
		return false;
	repl_window_claim_sent(window, &piece->claim);
	piece_submit(piece, peer, step);
	return true;
}

static void piece_read(struct push_piece *piece)
{
	sector_t left = piece->end - piece->sector;

	/* The peer's timeout is not for local. */
	WRITE_ONCE(piece->claim.sent, 0);
	piece->bytes = min(left, PUSH_CHUNK_SECTORS) << SECTOR_SHIFT;
	piece->from = 0;
	piece->len = piece->bytes;
	piece_submit(piece, piece->push->local, PUSH_READ_LOCAL);
}

/* Is there nothing but zeroes in what was read from local, and is to be sent? */
static bool piece_is_zero(const struct push_piece *piece)
{
	unsigned int left = piece->len, i;

	for (i = piece->from >> PAGE_SHIFT; left; i++) {
		unsigned int len = min_t(unsigned int, left, PAGE_SIZE);
		void *data = kmap_local_page(piece->pages[i]);
		bool zero = !memchr_inv(data, 0, len);

		kunmap_local(data);
		if (!zero)
			return false;
		left -= len;
	}
	return true;
}

/* Do the two sides differ in the page at byte @at of the chunk? */
static bool piece_differs_at(struct push_piece *piece, unsigned int at)
{
	unsigned int len = min_t(unsigned int, piece->bytes - at, PAGE_SIZE);
	struct page **page = &piece->pages[at >> PAGE_SHIFT];
	void *local = kmap_local_page(page[0]);
	void *peer = kmap_local_page(page[piece->nr_pages / 2]);
	bool differs = memcmp(local, peer, len);

	kunmap_local(peer);
	kunmap_local(local);
	return differs;
}

/* The next pages that differ, behind those that were sent. False: there are none. */
static bool piece_find_difference(struct push_piece *piece)
{
	unsigned int at = piece->from + piece->len;

	while (at < piece->bytes && !piece_differs_at(piece, at))
		at += PAGE_SIZE;
	piece->from = min(at, piece->bytes);
	while (at < piece->bytes && piece_differs_at(piece, at))
		at += PAGE_SIZE;
	piece->len = min(at, piece->bytes) - piece->from;
	return piece->len;
}

/* What was read goes to the peer. */
static bool piece_write(struct push_piece *piece)
{
	struct repl_push *push = piece->push;
	struct block_device *peer = repl_window_peer(push->window);

	if (!push->no_zeroes && peer && bdev_write_zeroes_sectors(peer) &&
	    piece_is_zero(piece))
		return piece_submit_peer(piece, PUSH_WRITE_ZEROES);
	return piece_submit_peer(piece, PUSH_WRITE);
}

/* The chunk is on the peer. */
static void piece_next(struct push_piece *piece)
{
	piece->sector += piece->bytes >> SECTOR_SHIFT;
	if (piece->sector == piece->end)
		piece_end(piece, false);
	else
		piece_read(piece);
}

static bool not_supported(blk_status_t status)
{
	return status == BLK_STS_NOTSUPP || status == BLK_STS_TARGET ||
	       status == REPL_STS_INVAL;
}

static void piece_failed(struct push_piece *piece, blk_status_t status)
{
	struct repl_push *push = piece->push;
	int err = blk_status_to_errno(status);

	if (piece->step == PUSH_READ_LOCAL)
		push->ops->read_error(push, err, piece->sector);
	else
		repl_window_fail(push->window, REPL_PEER_WRITE, err,
				 piece->sector);
	piece_end(piece, true);
}

/* An I/O of a piece has ended: on to its next. */
static void piece_go_on(struct push_piece *piece)
{
	struct repl_push *push = piece->push;
	blk_status_t status = piece->bio.bi_status;
	bool good = true;

	bio_uninit(&piece->bio);
	if (piece->step == PUSH_WRITE_ZEROES && not_supported(status)) {
		push->no_zeroes = true;
		good = piece_submit_peer(piece, PUSH_WRITE);
	} else if (unlikely(status)) {
		piece_failed(piece, status);
	} else if (piece->step == PUSH_READ_LOCAL) {
		good = push->compare ? piece_submit_peer(piece, PUSH_READ_PEER) :
				       piece_write(piece);
	} else {
		if (piece->step == PUSH_WRITE)
			push->sent += piece->len;
		else if (piece->step == PUSH_READ_PEER)
			piece->len = 0;		/* nothing was sent yet */
		if (push->compare && piece_find_difference(piece))
			good = piece_write(piece);
		else
			piece_next(piece);
	}
	if (!good)
		piece_end(piece, true);
}

static void push_work(struct work_struct *work)
{
	struct repl_push *push = container_of(work, struct repl_push, work);
	struct push_piece *piece, *next;
	LIST_HEAD(ended);

	spin_lock_irq(&push->lock);
	list_splice_init(&push->ended, &ended);
	spin_unlock_irq(&push->lock);
	list_for_each_entry_safe(piece, next, &ended, list)
		piece_go_on(piece);
}

/*
 * ---- The job ----
 */

static struct repl_push *job_push(struct repl_job *job)
{
	return container_of(job, struct repl_push, job);
}

/*
 * How many pieces may be in flight: the workload comes first. With a window
 * that is half full it is its own writes that the peer should get.
 */
static unsigned int push_depth(struct repl_push *push)
{
	u64 ios = push->ops->ios(push);

	if (ios != push->ios) {
		push->ios = ios;
		push->busy = jiffies;
	}
	if (repl_window_is_busy(push->window))
		return 1;
	return time_before(jiffies, push->busy + PUSH_QUIET) ? PUSH_POLITE :
							       PUSH_PIECES;
}

/* Regions [begin, end) to sectors. */
static sector_t push_sector(const struct repl_push *push, u64 region)
{
	return min_t(sector_t, (sector_t)region << push->region_shift,
		     push->sectors);
}

/*
 * Claim the regions [begin, *end) that are missing, or, if something overlaps
 * one of them, the first one. False: nor that.
 */
static bool push_claim(struct repl_push *push, struct push_piece *piece,
		       u64 begin, u64 *end)
{
	piece->begin = push_sector(push, begin);
	for (;;) {
		u64 nr = *end - begin;

		piece->end = push_sector(push, *end);
		/* Before their bits are cleared: see repl_push_progress(). */
		atomic64_add(nr, &push->claimed);
		if (repl_window_claim(push->window, &piece->claim, piece->begin,
				      piece->end - piece->begin))
			return true;
		atomic64_sub(nr, &push->claimed);
		if (nr == 1)
			return false;
		*end = begin + 1;
	}
}

/* Claim for @piece what comes next. False: there is nothing that can be had. */
static bool push_find(struct repl_push *push, struct push_piece *piece,
		      u64 chunk)
{
	struct repl_bits *missed = &push->window->missed;
	struct repl_job *job = &push->job;
	bool found = false;

	while (!found) {
		u64 begin = repl_bits_next(missed, job->cursor);
		u64 end;

		job->cursor = begin;
		/* With a cut, or without a peer, each claim would be refused. */
		if (begin >= missed->nr || READ_ONCE(push->window->is_cut) ||
		    repl_window_is_quiesced(push->window) ||
		    !repl_window_has_peer(push->window))
			break;
		/* (One that was cleared since it was found is copied, too.) */
		end = begin + repl_bits_run(missed, begin,
					    min(missed->nr, begin + chunk));
		found = push_claim(push, piece, begin, &end);
		job->cursor = end;
		cond_resched();
	}
	return found;
}

static sector_t push_step(struct repl_job *job)
{
	struct repl_push *push = job_push(job);
	unsigned int depth = push_depth(push);
	sector_t most = depth == PUSH_PIECES ? PUSH_CHUNK_SECTORS :
					       PUSH_POLITE_SECTORS;
	u64 chunk = max_t(u64, most >> push->region_shift, 1);
	struct push_piece *piece;
	sector_t nr;

	/* The end of those in flight comes here again. */
	if (atomic_read(&job->in_flight) > depth)
		return 0;
	if (depth == 1)
		job->not_before = jiffies + 1;
	piece = piece_get(push, push_sector(push, chunk));
	if (!piece)
		return 0;
	if (!push_find(push, piece, chunk)) {
		piece_put(piece);
		return 0;
	}
	nr = piece->end - piece->begin;
	piece->sector = piece->begin;
	piece_read(piece);
	return nr;
}

/* Something was in the way: repl_job_poke() when it has gone. */
static int push_finish(struct repl_job *job)
{
	struct repl_push *push = job_push(job);

	if (!repl_window_has_peer(push->window))
		return -EIO;
	if (!repl_bits_count(&push->window->missed))
		return 0;
	job->cursor = 0;
	/* Or it has gone before the job began to wait. */
	if (repl_window_is_clear(push->window))
		repl_job_poke(job);
	return -EAGAIN;
}

static void push_ended(struct repl_job *job, bool done)
{
	struct repl_push *push = job_push(job);

	/* What was missed since it looked, and found a job under way. */
	if (done && READ_ONCE(push->window->by_itself) &&
	    repl_bits_count(&push->window->missed))
		repl_push_auto(push);
	push->ops->ended(push, done);
}

static const struct repl_job_type push_job = {
	.name = "push",
	.may_cancel = true,
	.step = push_step,
	.finish = push_finish,
	.ended = push_ended,
};

/**
 * repl_push_start() - begin a push
 * @push: push
 * @full: all regions, not only those that are known to be missing
 * @compare: read both sides, and send what differs
 *
 * Context: process.
 * Return: 0; -EBUSY if one is under way, or pieces of one that was cancelled
 * are; -ENOTCONN without a peer.
 */
int repl_push_start(struct repl_push *push, bool full, bool compare)
{
	int r = 0;

	mutex_lock(&push->start_lock);
	if (repl_job_is_active(&push->job) ||
	    atomic_read(&push->job.in_flight))
		r = -EBUSY;
	else if (!repl_window_has_peer(push->window))
		r = -ENOTCONN;
	if (!r) {
		if (full)
			repl_window_miss(push->window, 0, push->sectors);
		push->compare = compare;
		push->no_zeroes = false;
		push->sent = 0;
		push->ios = push->ops->ios(push);
		push->busy = jiffies - PUSH_QUIET;
		atomic64_set(&push->pushed, 0);
		repl_job_start(&push->job, &push_job);
	}
	mutex_unlock(&push->start_lock);
	return r;
}

static void push_auto_work(struct work_struct *work)
{
	struct repl_push *push = container_of(work, struct repl_push,
					      auto_work);

	/* One that is under way goes on, and a peer that has gone needs none. */
	if (repl_push_start(push, false, false) == -EBUSY)
		repl_job_poke(&push->job);
}

/**
 * repl_push_auto() - there is room again: push what was missed for want of it
 * @push: push
 *
 * Context: any.
 */
void repl_push_auto(struct repl_push *push)
{
	queue_work(push->wq, &push->auto_work);
}

/**
 * repl_push_progress() - for the status
 * @push: push
 * @progress: out; done never exceeds total
 *
 * Context: any.
 */
void repl_push_progress(struct repl_push *push,
			struct repl_push_progress *progress)
{
	enum repl_job_state state = READ_ONCE(push->job.state);
	u64 left;

	/*
	 * A region goes from missed to claimed to pushed. Read the other way
	 * round, one that moves on meanwhile counts twice, not never.
	 */
	progress->done = atomic64_read(&push->pushed);
	smp_rmb();	/* with the barrier in piece_end() */
	left = atomic64_read(&push->claimed);
	smp_rmb();	/* with the one of clearing bits */
	left += repl_bits_count(&push->window->missed);

	/* What is missed after a job is over is not its business. */
	if (state == REPL_JOB_NONE || state == REPL_JOB_DONE)
		left = 0;
	progress->total = progress->done + left;
}

/**
 * repl_push_take_over() - another table goes on with the job
 * @push: push of the new table
 * @old: of the old one, held
 *
 * Context: process; both tables are suspended.
 */
void repl_push_take_over(struct repl_push *push, struct repl_push *old)
{
	bool paused = READ_ONCE(old->job.state) == REPL_JOB_PAUSED;
	bool active = repl_job_is_active(&old->job);

	push->job.speed = old->job.speed;
	if (!active) {
		push->job.type = old->job.type;
		push->job.state = old->job.state;
		atomic64_set(&push->pushed, atomic64_read(&old->pushed));
		return;
	}
	if (repl_push_start(push, false, old->compare))
		return;
	atomic64_set(&push->pushed, atomic64_read(&old->pushed));
	if (paused)
		repl_job_pause(&push->job);
}

/*
 * ---- Construction ----
 */

static int push_alloc_pages(struct repl_push *push)
{
	push->pages = kvcalloc(PUSH_PAGES, sizeof(*push->pages), GFP_KERNEL);
	if (!push->pages)
		return -ENOMEM;
	while (push->nr_pages < PUSH_PAGES) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			return -ENOMEM;
		push->pages[push->nr_pages++] = page;
	}
	push->nr_free = push->nr_pages;
	return 0;
}

/**
 * repl_push_init() - a push that has nothing to do
 * @push: zeroed, but for what the owner sets
 *
 * Context: process. Return: 0 or -ENOMEM; repl_push_exit() frees in any case.
 */
int repl_push_init(struct repl_push *push)
{
	unsigned int i;

	mutex_init(&push->start_lock);
	spin_lock_init(&push->lock);
	INIT_LIST_HEAD(&push->ended);
	INIT_LIST_HEAD(&push->free);
	INIT_WORK(&push->work, push_work);
	INIT_WORK(&push->auto_work, push_auto_work);
	push->wq = repl_alloc_workqueue("dm-repl-push", 0);
	push->pieces = kvcalloc(PUSH_PIECES, sizeof(*push->pieces), GFP_KERNEL);
	push->vecs = kvcalloc(PUSH_PIECES * PUSH_CHUNK_PAGES,
			      sizeof(*push->vecs), GFP_KERNEL);
	if (!push->wq || !push->pieces || !push->vecs)
		return -ENOMEM;
	for (i = 0; i < PUSH_PIECES; i++) {
		push->pieces[i].push = push;
		push->pieces[i].vecs = &push->vecs[i * PUSH_CHUNK_PAGES];
		list_add_tail(&push->pieces[i].list, &push->free);
	}
	repl_job_init(&push->job, push->wq, push);
	return push_alloc_pages(push);
}

/**
 * repl_push_exit() - free what repl_push_init() allocated
 * @push: zeroed or initialised; nobody starts anything any more. Its window
 *	is still there.
 *
 * Waits for the pieces in flight. Context: process.
 */
void repl_push_exit(struct repl_push *push)
{
	if (push->job.wq) {
		cancel_work_sync(&push->auto_work);
		repl_job_exit(&push->job);
		flush_work(&push->work);
		synchronize_rcu();	/* see piece_endio() */
	}
	if (push->wq)
		destroy_workqueue(push->wq);
	while (push->nr_pages)
		__free_page(push->pages[--push->nr_pages]);
	kvfree(push->pages);
	kvfree(push->vecs);
	kvfree(push->pieces);
}

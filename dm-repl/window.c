// SPDX-License-Identifier: GPL-2.0-only
/* Window: see the essay in window.h. */

#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/interval_tree_generic.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>

#include "compat.h"
#include "window.h"

#define WINDOW_BIOS	64U		/* in flight to the peer */
#define WINDOW_BATCH	64U		/* entries that are sorted together */
/* Pages for which a sender is woken: with the next write, or at once. */
#define WINDOW_GATHER	2U
#define WINDOW_GATHERED	((u32)(SZ_128K >> PAGE_SHIFT))
/* Pages that go with the next write: for less time than that one takes. */
#define WINDOW_FEW	WINDOW_GATHER
/* With the tick so many at a time: what it has taken nobody else can send. */
#define WINDOW_SOON	8U
#define WINDOW_LOSE	64U		/* entries with interrupts off */
#define WINDOW_REPLACE	64U		/* the same */
#define WINDOW_VECS	min_t(unsigned int, SZ_1M >> PAGE_SHIFT, BIO_MAX_VECS)
/* So that what is in flight to a slow peer takes less than its timeout. */
#define WINDOW_IN_FLIGHT	(SZ_16M >> SECTOR_SHIFT)
#define WINDOW_ZEROES	(SZ_1M >> SECTOR_SHIFT)
#define NO_PAGE		U32_MAX

struct window_page {
	struct page *page;
	u32 next;
};

enum entry_state {
	ENTRY_LOCAL,
	ENTRY_WAITING,
	ENTRY_READY,
	ENTRY_SENDING,
	ENTRY_LOST,
};

struct repl_entry {
	struct repl_range range;
	struct list_head list;		/* of its state */
	struct list_head all;
	struct repl_entry *next;	/* in the same bio, or in zeroes */
	enum entry_state state;
	enum req_op op;
	u32 page;			/* the first one */
	u32 nr_pages;			/* taken, also by one without data */
	u32 waits;			/* for older ranges */
	unsigned long sent;		/* jiffies, 0: not in flight */
	struct bio_list waiters;	/* for its local leg */
};

struct window_bio {
	struct repl_window *window;
	struct list_head list;
	struct repl_entry *first;
	struct bio_vec *vecs;
	struct bio bio;
};

#define RANGE_BEGIN(range)	((range)->begin)
#define RANGE_LAST(range)	((range)->last)
INTERVAL_TREE_DEFINE(struct repl_range, node, sector_t, max, RANGE_BEGIN,
		     RANGE_LAST, static, range_tree);

static unsigned long now(void)
{
	return jiffies ?: 1;
}

static sector_t entry_sectors(const struct repl_entry *e)
{
	return e->range.last - e->range.begin + 1;
}

static struct repl_entry *range_entry(struct repl_range *range)
{
	return container_of(range, struct repl_entry, range);
}

/* Something is sent to the peer. */
static bool window_sends(const struct repl_window *w)
{
	return w->peer && !w->failed && !w->quiesced;
}

static u32 window_used(const struct repl_window *w)
{
	return w->nr_pages - w->nr_free;
}

static void window_wake(struct repl_window *w)
{
	if (wq_has_sleeper(&w->wait))
		wake_up_all(&w->wait);
	w->ops->left(w);
}

static void window_poke(struct repl_window *w)
{
	queue_work(w->send_wq, &w->send_work);
}

/*
 * There is something to be sent, and nobody waits for that: until the next tick it may
 * get neighbours, and the filler is woken once for all of them. If it is a few pages, by
 * the next write: while that one's local leg is under way the CPU has nothing else to do,
 * and at the end of one who wrote would wait for it. It sends a few then: on a kernel
 * that interrupts nobody a longer run would last beyond that end.
 */
static void window_gather(struct repl_window *w, u32 pages)
{
	w->gathered += pages;
	if (w->is_cut || w->gathered >= WINDOW_GATHERED)
		window_poke(w);
	else
		kthread_queue_delayed_work(w->filler, &w->send_soon, 1);
}

/*
 * ---- Missed ----
 */

static u64 region_begin(struct repl_window *w, sector_t sector)
{
	return sector >> w->region_shift;
}

static u64 region_end(struct repl_window *w, sector_t sector, sector_t nr)
{
	return ((sector + nr - 1) >> w->region_shift) + 1;
}

static bool window_is_missed(struct repl_window *w, sector_t sector, sector_t nr)
{
	return repl_bits_any(&w->missed, region_begin(w, sector),
			     region_end(w, sector, nr));
}

/**
 * repl_window_miss() - the peer has not got these sectors
 * @w: window
 * @sector: first sector
 * @nr: how many, at least 1
 *
 * Context: any.
 */
void repl_window_miss(struct repl_window *w, sector_t sector, sector_t nr)
{
	repl_bits_set(&w->missed, region_begin(w, sector),
		      region_end(w, sector, nr));
}

/* The peer is well, and will miss a write nevertheless. */
static void window_will_miss(struct repl_window *w)
{
	if (!w->by_itself && !repl_bits_count(&w->missed))
		w->by_itself = true;
}

/* There is room again. */
static void window_relieve(struct repl_window *w)
{
	if (w->congested && window_used(w) <= w->nr_pages / 2) {
		w->congested = false;
		if (w->by_itself && window_sends(w))
			w->ops->relieved(w);
	}
	if (!w->congested && !bio_list_empty(&w->parked))
		queue_work(w->wq, &w->retry_work);
}

/*
 * ---- Ranges ----
 */

static void range_insert(struct repl_window *w, struct repl_range *range,
			 enum repl_range_kind kind, sector_t sector, sector_t nr)
{
	range->begin = sector;
	range->last = sector + nr - 1;
	range->seq = w->seq++;
	range->kind = kind;
	range_tree_insert(range, &w->tree);
}

static struct repl_range *range_first(struct repl_window *w, sector_t sector,
				      sector_t nr)
{
	return range_tree_iter_first(&w->tree, sector, sector + nr - 1);
}

static struct repl_range *range_next(struct repl_range *other, sector_t sector,
				     sector_t nr)
{
	return range_tree_iter_next(other, sector, sector + nr - 1);
}

/* Its local leg has succeeded and nothing older overlaps it. */
static void entry_sendable(struct repl_window *w, struct repl_entry *e)
{
	bool behind = w->is_cut && e->range.seq >= w->cut;

	e->state = ENTRY_READY;
	list_move_tail(&e->list, behind ? &w->behind : &w->ready);
	if (!behind)
		window_gather(w, e->nr_pages);
}

/* Those that waited for it count down. */
static void range_remove(struct repl_window *w, struct repl_range *range)
{
	struct repl_range *other;

	range_tree_remove(range, &w->tree);
	for (other = range_tree_iter_first(&w->tree, range->begin, range->last);
	     other;
	     other = range_tree_iter_next(other, range->begin, range->last)) {
		struct repl_entry *e = range_entry(other);

		if (other->kind != REPL_RANGE_ENTRY || other->seq < range->seq)
			continue;
		if (!--e->waits && e->state == ENTRY_WAITING)
			entry_sendable(w, e);
	}
}

/*
 * ---- Entries ----
 */

static u32 entry_nr_pages(struct bio *bio)
{
	if (bio_op(bio) != REQ_OP_WRITE)
		return 1;
	return DIV_ROUND_UP(bio->bi_iter.bi_size, PAGE_SIZE);
}

static struct repl_entry *entry_new(struct repl_window *w, struct bio *bio)
{
	struct repl_entry *e = list_first_entry(&w->free_entries,
						struct repl_entry, list);
	sector_t sector = bio->bi_iter.bi_sector;
	sector_t nr = bio_sectors(bio);
	struct repl_range *other;
	u32 i, last;

	e->op = bio_op(bio);
	e->state = ENTRY_LOCAL;
	e->sent = 0;
	e->next = NULL;
	e->nr_pages = entry_nr_pages(bio);
	e->page = w->free;
	for (i = 1, last = w->free; i < e->nr_pages; i++)
		last = w->pages[last].next;
	w->free = w->pages[last].next;
	w->pages[last].next = NO_PAGE;
	w->nr_free -= e->nr_pages;

	e->waits = 0;
	for (other = range_first(w, sector, nr); other;
	     other = range_next(other, sector, nr))
		e->waits++;
	range_insert(w, &e->range, REPL_RANGE_ENTRY, sector, nr);
	list_move_tail(&e->list, &w->local);
	list_add_tail(&e->all, &w->all);
	return e;
}

static void entry_free(struct repl_window *w, struct repl_entry *e)
{
	u32 i, last = e->page;

	WARN_ON_ONCE(!bio_list_empty(&e->waiters));
	range_remove(w, &e->range);
	for (i = 1; i < e->nr_pages; i++)
		last = w->pages[last].next;
	w->pages[last].next = w->free;
	w->free = e->page;
	w->nr_free += e->nr_pages;
	list_del(&e->all);
	list_move(&e->list, &w->free_entries);
	window_relieve(w);
}

/* What the entry holds will not come to the peer. */
static void entry_miss(struct repl_window *w, struct repl_entry *e)
{
	repl_window_miss(w, e->range.begin, entry_sectors(e));
	if (w->is_cut && e->range.seq < w->cut)
		w->broken = true;
}

/*
 * Local has it: what it has overwritten, all of it, and has not been sent yet, need not go
 * any more. If it does not get there itself, more is missed than what it has replaced.
 * (What a discard leaves there nobody knows. And for interrupts' sake not all, if it is much.)
 */
static void entry_replace(struct repl_window *w, struct repl_entry *e)
{
	struct repl_range *range, *next;
	unsigned int nr = 0;

	if (!e->waits || e->op == REQ_OP_DISCARD)
		return;
	for (range = range_first(w, e->range.begin, entry_sectors(e));
	     range && nr < WINDOW_REPLACE; range = next) {
		struct repl_entry *other = range_entry(range);

		next = range_next(range, e->range.begin, entry_sectors(e));
		if (range->kind != REPL_RANGE_ENTRY || range->seq >= e->range.seq ||
		    range->seq < w->barrier ||
		    range->begin < e->range.begin || range->last > e->range.last ||
		    (other->state != ENTRY_WAITING && other->state != ENTRY_READY))
			continue;
		w->forwarded++;
		entry_free(w, other);
		nr++;
	}
}

/* Nothing with a number below @seq is on its way to the peer. */
static bool window_has_passed(struct repl_window *w, u64 seq)
{
	struct repl_entry *e;

	e = list_first_entry_or_null(&w->all, struct repl_entry, all);
	return !e || e->range.seq >= seq;
}

/*
 * Is it time for the flush that a drain waits for? (A peer without a cache flushes at
 * once, whatever it has got.)
 */
static bool window_cut_passed(struct repl_window *w)
{
	return w->is_cut && !w->cut_flush && window_has_passed(w, w->cut);
}

static void entry_copy_vec(struct repl_window *w, struct bio_vec *vec,
			   u32 *page, unsigned int *offset)
{
	char *from = bvec_kmap_local(vec);
	unsigned int done = 0;

	while (done < vec->bv_len) {
		unsigned int len = min_t(unsigned int, vec->bv_len - done,
					 PAGE_SIZE - *offset);

		memcpy_to_page(w->pages[*page].page, *offset, from + done, len);
		done += len;
		*offset += len;
		if (*offset == PAGE_SIZE) {
			*page = w->pages[*page].next;
			*offset = 0;
		}
	}
	kunmap_local(from);
}

/* The bio's owner may change his buffer as soon as the bio has ended. */
static void entry_copy(struct repl_window *w, struct repl_entry *e,
		       struct bio *bio)
{
	unsigned int offset = 0;
	struct bvec_iter iter;
	struct bio_vec vec;
	u32 page = e->page;

	if (e->op != REQ_OP_WRITE)
		return;
	bio_for_each_segment(vec, bio, iter)
		entry_copy_vec(w, &vec, &page, &offset);
}

/*
 * ---- The workload ----
 */

static struct repl_entry *window_find_local(struct repl_window *w,
					    sector_t sector, sector_t nr)
{
	struct repl_range *other;

	for (other = range_first(w, sector, nr); other;
	     other = range_next(other, sector, nr))
		if (other->kind == REPL_RANGE_ENTRY &&
		    range_entry(other)->state == ENTRY_LOCAL)
			return range_entry(other);
	return NULL;
}

static bool window_has_room(struct repl_window *w, u32 need, bool again)
{
	/* He who is mapped again has room kept for him, and none before him. */
	if (again)
		return need <= w->nr_free;
	return !w->congested && need + w->reserved <= w->nr_free;
}

/* No room: the write waits, or is missed. */
static enum repl_verdict window_no_room(struct repl_window *w, struct bio *bio,
					bool again)
{
	w->congested = true;
	if (!w->block || w->stopping) {
		window_will_miss(w);
		return REPL_MISSED;
	}
	if (again)
		bio_list_add_head(&w->parked, bio);
	else
		bio_list_add(&w->parked, bio);
	window_relieve(w);
	return REPL_PARKED;
}

static enum repl_verdict window_decide(struct repl_window *w, struct bio *bio,
				       struct repl_entry **entry, bool again)
{
	sector_t sector = bio->bi_iter.bi_sector;
	sector_t nr = bio_sectors(bio);
	struct repl_entry *other;

	if (!window_sends(w) || window_is_missed(w, sector, nr))
		return REPL_MISSED;
	other = window_find_local(w, sector, nr);
	if (other) {
		bio_list_add(&other->waiters, bio);
		return REPL_PARKED;
	}
	if (!window_has_room(w, entry_nr_pages(bio), again))
		return window_no_room(w, bio, again);
	*entry = entry_new(w, bio);
	return REPL_STREAM;
}

/**
 * repl_window_write() - what becomes of a write of mode async
 * @w: window
 * @bio: write, discard or write-zeroes with sectors, inside the gate; its
 *	sector is that of the peer
 * @entry: set for REPL_STREAM, has the data then
 * @again: called by ops->again()
 *
 * Context: process; does not sleep.
 * Return: REPL_STREAM or REPL_MISSED: send the local leg; then call
 * repl_window_written() or, for a missed one, repl_window_missed(), before the
 * bio ends. REPL_PARKED: the bio is not the caller's any more.
 */
enum repl_verdict repl_window_write(struct repl_window *w, struct bio *bio,
				    struct repl_entry **entry, bool again)
{
	enum repl_verdict verdict;
	unsigned long flags;

	spin_lock_irqsave(&w->lock, flags);
	verdict = window_decide(w, bio, entry, again);
	/* Now: a push that is to start for it must not end before it is there. */
	if (verdict == REPL_MISSED)
		repl_window_miss(w, bio->bi_iter.bi_sector, bio_sectors(bio));
	if (w->gathered >= WINDOW_GATHER)
		kthread_queue_work(w->filler, &w->send_few);
	spin_unlock_irqrestore(&w->lock, flags);

	if (verdict == REPL_STREAM)
		entry_copy(w, *entry, bio);
	return verdict;
}

static bool not_supported(enum req_op op, blk_status_t status)
{
	return op != REQ_OP_WRITE && (status == BLK_STS_NOTSUPP ||
				      status == BLK_STS_TARGET ||
				      status == REPL_STS_INVAL);
}

/* Nobody knows what local holds now. */
static void window_local_failed(struct repl_window *w, sector_t sector,
				sector_t nr)
{
	if (window_sends(w))
		window_will_miss(w);
	repl_window_miss(w, sector, nr);
	if (!w->congested && w->by_itself && window_sends(w))
		w->ops->relieved(w);
}

/**
 * repl_window_local_failed() - the local leg of a write has failed
 * @w: window
 * @sector: first sector
 * @nr: how many, at least 1
 *
 * For writes of mode sync. Context: any.
 */
void repl_window_local_failed(struct repl_window *w, sector_t sector,
			      sector_t nr)
{
	unsigned long flags;

	spin_lock_irqsave(&w->lock, flags);
	window_local_failed(w, sector, nr);
	spin_unlock_irqrestore(&w->lock, flags);
}

/**
 * repl_window_missed() - the local leg of a write that is missed has ended
 * @w: window
 * @sector: first sector
 * @nr: how many, at least 1
 *
 * A copy that began and ended meanwhile may have read what was there before.
 * Whoever has copied believes to be done: ops->relieved().
 *
 * Context: any, before the bio ends.
 */
void repl_window_missed(struct repl_window *w, sector_t sector, sector_t nr)
{
	/* A copy that clears these later reads what is on local now. */
	if (repl_bits_all(&w->missed, region_begin(w, sector),
			  region_end(w, sector, nr)))
		return;
	repl_window_local_failed(w, sector, nr);
}

/**
 * repl_window_written() - the local leg of an entry has ended
 * @w: window
 * @e: entry
 * @status: of the local leg
 *
 * Context: any, before the bio ends. The entry is not the caller's any more.
 */
void repl_window_written(struct repl_window *w, struct repl_entry *e,
			 blk_status_t status)
{
	unsigned long flags;

	spin_lock_irqsave(&w->lock, flags);
	if (!bio_list_empty(&e->waiters)) {
		bio_list_merge(&w->retry, &e->waiters);
		bio_list_init(&e->waiters);
		queue_work(w->wq, &w->retry_work);
	}
	if (e->state == ENTRY_LOST) {
		entry_miss(w, e);
		entry_free(w, e);
	} else if (unlikely(status)) {
		/*
		 * Also zeroes that were refused: a part of them may have been
		 * written. (Who discards does not rely on what is there.)
		 */
		if (e->op != REQ_OP_DISCARD || !not_supported(e->op, status))
			window_local_failed(w, e->range.begin,
					    entry_sectors(e));
		entry_free(w, e);
	} else {
		entry_replace(w, e);
		if (e->waits) {
			e->state = ENTRY_WAITING;
			list_move_tail(&e->list, &w->waiting);
		} else {
			entry_sendable(w, e);
		}
	}
	window_wake(w);
	spin_unlock_irqrestore(&w->lock, flags);
}

/**
 * repl_window_enter() - may a write of mode sync go to the peer?
 * @w: window
 * @range: the caller's, until repl_window_leave()
 * @sector: first sector
 * @nr: how many, at least 1
 *
 * Context: any.
 * Return: true: call repl_window_leave() when both legs have ended. False: it
 * is missed; call repl_window_missed() when the local leg has ended.
 */
bool repl_window_enter(struct repl_window *w, struct repl_range *range,
		       sector_t sector, sector_t nr)
{
	struct repl_range *other = NULL;
	unsigned long flags;
	bool may;

	spin_lock_irqsave(&w->lock, flags);
	may = window_sends(w);
	if (may)
		for (other = range_first(w, sector, nr); other;
		     other = range_next(other, sector, nr))
			if (other->kind == REPL_RANGE_CLAIM)
				break;
	if (other) {
		may = false;
		window_will_miss(w);
	}
	if (may)
		range_insert(w, range, REPL_RANGE_SYNC, sector, nr);
	else
		repl_window_miss(w, sector, nr);
	spin_unlock_irqrestore(&w->lock, flags);
	return may;
}

/**
 * repl_window_leave() - both legs of a write of mode sync have ended
 * @w: window
 * @range: from repl_window_enter()
 *
 * Context: any. What is missed has been set before.
 */
void repl_window_leave(struct repl_window *w, struct repl_range *range)
{
	unsigned long flags;

	spin_lock_irqsave(&w->lock, flags);
	range_remove(w, range);
	window_wake(w);
	spin_unlock_irqrestore(&w->lock, flags);
}

/* The next one that may be mapped again. */
static struct bio *window_pop_parked(struct repl_window *w)
{
	struct bio *bio = bio_list_pop(&w->retry);
	u32 need;

	if (bio)
		return bio;
	bio = bio_list_peek(&w->parked);
	if (!bio)
		return NULL;
	need = entry_nr_pages(bio);
	/* Who will be missed, or must not wait, needs no room. */
	if (window_sends(w) && !w->stopping) {
		if (w->congested || need > w->nr_free)
			return NULL;
		w->reserved = need;
	}
	return bio_list_pop(&w->parked);
}

static void window_retry_work(struct work_struct *work)
{
	struct repl_window *w = container_of(work, struct repl_window,
					     retry_work);
	struct bio *bio;

	for (;;) {
		spin_lock_irq(&w->lock);
		w->reserved = 0;
		bio = window_pop_parked(w);
		spin_unlock_irq(&w->lock);
		if (!bio)
			break;
		w->ops->again(w, bio);
	}
}

/*
 * ---- The sender ----
 */

/* Context: any; the window's lock is held. */
static void entry_done(struct repl_window *w, struct repl_entry *e, bool good)
{
	w->in_flight--;
	w->written++;
	w->sectors_in_flight -= e->op == REQ_OP_WRITE ? entry_sectors(e) : 0;
	if (e->state != ENTRY_LOST) {
		if (likely(good))
			w->forwarded++;
		else
			entry_miss(w, e);
	}
	entry_free(w, e);
}

static void window_arm(struct repl_window *w)
{
	if (w->size)
		queue_delayed_work(w->wq, &w->timeout_work,
				   msecs_to_jiffies(w->timeout) + 1);
}

/* Leave it to window_zero_work(), which may sleep. */
static void entry_zero(struct repl_window *w, struct repl_entry *e)
{
	e->sent = 0;
	e->next = w->zeroes;
	w->zeroes = e;
	queue_work(w->send_wq, &w->zero_work);
}

/*
 * The peer's answer to a bio, or to one that was not sent. rcu_read_lock() keeps
 * the window for who ends the last one: see repl_window_exit().
 */
static void window_bio_done(struct window_bio *b, blk_status_t status)
{
	struct repl_window *w = b->window;
	struct repl_entry *e = b->first, *next;
	unsigned long flags;

	rcu_read_lock();
	bio_uninit(&b->bio);
	if (unlikely(status) && not_supported(e->op, status)) {
		if (e->op == REQ_OP_DISCARD)
			status = BLK_STS_OK;	/* dropped */
	} else if (unlikely(status) && !READ_ONCE(w->failed)) {
		repl_window_fail(w, REPL_PEER_WRITE,
				 blk_status_to_errno(status), e->range.begin);
	}

	spin_lock_irqsave(&w->lock, flags);
	if (unlikely(status) && not_supported(e->op, status)) {
		entry_zero(w, e);
	} else {
		for (; e; e = next) {
			next = e->next;
			entry_done(w, e, !status);
		}
	}
	list_add(&b->list, &w->free_bios);
	w->nr_bios++;
	if (w->held_up || w->flush_wanted != w->flush_started ||
	    window_cut_passed(w))
		window_poke(w);
	window_wake(w);
	spin_unlock_irqrestore(&w->lock, flags);
	rcu_read_unlock();
}

static void window_endio(struct bio *bio)
{
	window_bio_done(container_of(bio, struct window_bio, bio),
			bio->bi_status);
}

static void window_zero_done(struct repl_window *w, struct repl_entry *e, bool good)
{
	rcu_read_lock();
	spin_lock_irq(&w->lock);
	entry_done(w, e, good);
	window_poke(w);
	window_wake(w);
	spin_unlock_irq(&w->lock);
	rcu_read_unlock();
}

static bool window_zero(struct repl_window *w, struct block_device *peer,
			struct repl_entry *e)
{
	sector_t sector, nr;
	int r;

	for (sector = e->range.begin; sector <= e->range.last; sector += nr) {
		nr = min_t(sector_t, WINDOW_ZEROES, e->range.last - sector + 1);
		WRITE_ONCE(e->sent, now());
		window_arm(w);
		if (READ_ONCE(w->failed))
			return false;
		r = blkdev_issue_zeroout(peer, sector, nr, GFP_NOIO, 0);
		if (r) {
			repl_window_fail(w, REPL_PEER_WRITE, r, e->range.begin);
			return false;
		}
	}
	return true;
}

/* Zeroes that the peer cannot write by itself. */
static void window_zero_work(struct work_struct *work)
{
	struct repl_window *w = container_of(work, struct repl_window,
					     zero_work);
	struct block_device *peer;
	struct repl_entry *e;

	for (;;) {
		spin_lock_irq(&w->lock);
		e = w->zeroes;
		if (e)
			w->zeroes = e->next;
		peer = window_sends(w) ? w->peer : NULL;
		spin_unlock_irq(&w->lock);
		if (!e)
			break;
		/* Without a peer, or in a suspend, it is missed, and nobody's fault. */
		window_zero_done(w, e, peer && window_zero(w, peer, e));
	}
}

static int entry_cmp(const void *a, const void *b)
{
	const struct repl_entry *x = *(struct repl_entry * const *)a;
	const struct repl_entry *y = *(struct repl_entry * const *)b;

	return x->range.begin < y->range.begin ? -1 :
	       x->range.begin > y->range.begin;
}

/* Those that go next, @pages or a little more, and a bio for each. */
static unsigned int window_take(struct repl_window *w, struct repl_entry **batch,
				u32 pages, struct block_device **peer)
{
	unsigned int nr = 0;
	struct repl_entry *e;
	u32 taken = 0;

	spin_lock_irq(&w->lock);
	while (taken < pages && window_sends(w) &&
	       nr < WINDOW_BATCH && w->nr_bios &&
	       w->sectors_in_flight < WINDOW_IN_FLIGHT &&
	       !list_empty(&w->ready)) {
		e = list_first_entry(&w->ready, struct repl_entry, list);
		e->state = ENTRY_SENDING;
		e->sent = now();
		e->next = NULL;
		list_move_tail(&e->list, &w->sending);
		w->in_flight++;
		if (e->op == REQ_OP_WRITE)
			w->sectors_in_flight += entry_sectors(e);
		w->nr_bios--;
		taken += e->nr_pages;
		batch[nr++] = e;
	}
	if (taken < pages) {
		w->held_up = !list_empty(&w->ready);
		w->gathered = 0;
	} else {
		/* The rest has the tick. */
		w->gathered -= min(taken, w->gathered);
	}
	*peer = w->peer;
	spin_unlock_irq(&w->lock);
	if (nr)
		window_arm(w);
	return nr;
}

static struct window_bio *window_bio_get(struct repl_window *w)
{
	struct window_bio *b;

	spin_lock_irq(&w->lock);
	b = list_first_entry(&w->free_bios, struct window_bio, list);
	list_del(&b->list);
	spin_unlock_irq(&w->lock);
	return b;
}

/* For those that went in one with their neighbours. */
static void window_spare_bios(struct repl_window *w, unsigned int nr)
{
	spin_lock_irq(&w->lock);
	w->nr_bios += nr;
	if (w->held_up)
		window_poke(w);
	spin_unlock_irq(&w->lock);
}

static void window_bio_add(struct window_bio *b, struct repl_entry *e)
{
	struct repl_window *w = b->window;
	unsigned int left = entry_sectors(e) << SECTOR_SHIFT;
	u32 page;

	for (page = e->page; left; page = w->pages[page].next) {
		unsigned int len = min_t(unsigned int, left, PAGE_SIZE);

		__bio_add_page(&b->bio, w->pages[page].page, len, 0);
		left -= len;
	}
}

static void window_submit(struct repl_window *w, struct window_bio *b)
{
	struct repl_entry *e = b->first;

	if (READ_ONCE(w->failed)) {
		window_bio_done(b, BLK_STS_IOERR);
	} else if (e->op == REQ_OP_DISCARD &&
		   !bdev_max_discard_sectors(b->bio.bi_bdev)) {
		window_bio_done(b, BLK_STS_OK);		/* dropped */
	} else if (e->op == REQ_OP_WRITE_ZEROES &&
		   !bdev_write_zeroes_sectors(b->bio.bi_bdev)) {
		window_bio_done(b, BLK_STS_NOTSUPP);	/* as data */
	} else {
		submit_bio_noacct(&b->bio);
	}
}

/* Neighbours go in one bio. */
static unsigned int window_send_run(struct repl_window *w,
				    struct block_device *peer,
				    struct repl_entry **batch, unsigned int nr)
{
	struct window_bio *b = window_bio_get(w);
	struct repl_entry *e = batch[0];
	unsigned int i = 1;

	bio_init(&b->bio, peer, b->vecs, WINDOW_VECS,
		 e->op | REQ_SYNC | REQ_IDLE);
	b->bio.bi_iter.bi_sector = e->range.begin;
	b->bio.bi_end_io = window_endio;
	b->first = e;
	if (e->op != REQ_OP_WRITE) {
		b->bio.bi_iter.bi_size = entry_sectors(e) << SECTOR_SHIFT;
		window_submit(w, b);
		return 1;
	}

	window_bio_add(b, e);
	while (i < nr && batch[i]->op == REQ_OP_WRITE &&
	       batch[i]->range.begin == e->range.last + 1 &&
	       b->bio.bi_vcnt + batch[i]->nr_pages <= WINDOW_VECS) {
		e->next = batch[i];
		e = batch[i++];
		window_bio_add(b, e);
	}
	window_submit(w, b);
	return i;
}

static void window_flush_endio(struct bio *bio)
{
	struct repl_window *w = container_of(bio, struct repl_window, flush);
	blk_status_t status = bio->bi_status;
	unsigned long flags;

	rcu_read_lock();
	if (unlikely(status))
		repl_window_fail(w, REPL_PEER_FLUSH,
				 blk_status_to_errno(status), 0);
	bio_uninit(bio);
	spin_lock_irqsave(&w->lock, flags);
	w->flush_done = w->flush_started;
	if (likely(!status))
		w->flushed = w->flushing;
	w->flush_sent = 0;
	w->in_flight--;
	window_poke(w);
	window_wake(w);
	spin_unlock_irqrestore(&w->lock, flags);
	rcu_read_unlock();
}

static void window_send_flush(struct repl_window *w)
{
	struct block_device *peer = NULL;

	spin_lock_irq(&w->lock);
	if (window_cut_passed(w)) {
		/* If nothing was written since the last one, that one counts. */
		w->cut_flush = w->written == w->flushed ? w->flush_done :
							  ++w->flush_wanted;
		window_wake(w);
	}
	if (w->flush_wanted != w->flush_started && !w->flush_sent &&
	    window_sends(w)) {
		w->flush_started = w->flush_wanted;
		w->flushing = w->written;
		w->flush_sent = now();
		w->in_flight++;
		peer = w->peer;
	}
	spin_unlock_irq(&w->lock);
	if (!peer)
		return;
	window_arm(w);
	bio_init(&w->flush, peer, NULL, 0,
		 REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
	w->flush.bi_end_io = window_flush_endio;
	submit_bio_noacct(&w->flush);
}

/* False: there was nothing that may be sent now. */
static bool window_send(struct repl_window *w, struct repl_entry **batch,
			u32 pages)
{
	unsigned int nr, i, nr_bios = 0;
	struct block_device *peer;

	nr = window_take(w, batch, pages, &peer);
	sort(batch, nr, sizeof(*batch), entry_cmp, NULL);
	for (i = 0; i < nr; nr_bios++)
		i += window_send_run(w, peer, batch + i, nr - i);
	if (nr_bios < nr)
		window_spare_bios(w, nr - nr_bios);
	return nr;
}

static void window_send_work(struct work_struct *work)
{
	struct repl_window *w = container_of(work, struct repl_window, send_work);
	struct blk_plug plug;

	blk_start_plug(&plug);
	while (window_send(w, w->batch, U32_MAX))
		;
	blk_finish_plug(&plug);
	window_send_flush(w);
}

static void window_send_soon(struct kthread_work *work)
{
	struct repl_window *w = container_of(work, struct repl_window,
					     send_soon.work);

	while (window_send(w, w->batch + WINDOW_BATCH, WINDOW_SOON))
		;
}

static void window_send_few(struct kthread_work *work)
{
	struct repl_window *w = container_of(work, struct repl_window, send_few);

	window_send(w, w->batch + WINDOW_BATCH, WINDOW_FEW);
}

/*
 * ---- The peer ----
 */

static void window_peer_lost(struct repl_window *w)
{
	w->by_itself = false;
	if (w->is_cut)
		w->broken = true;
	queue_work(w->wq, &w->lose_work);
	queue_work(w->wq, &w->retry_work);
	window_wake(w);
}

/**
 * repl_window_fail() - send the peer nothing more
 * @w: window
 * @error: why
 * @err: negative errno
 * @sector: where
 *
 * Context: any. The entries are lost a little later: repl_window_lose().
 */
void repl_window_fail(struct repl_window *w, enum repl_peer_error error,
		      int err, sector_t sector)
{
	unsigned long flags;
	bool there;

	spin_lock_irqsave(&w->lock, flags);
	/* Nobody asks any more how one fares that was detached. */
	there = w->peer;
	/* Before it can be seen that it has failed. */
	if (there)
		w->ops->error(w, error, err, sector);
	if (there && !w->failed) {
		w->failed = true;
		window_peer_lost(w);
		/* What the error has woken may have looked before. */
		w->ops->lost(w);
	}
	spin_unlock_irqrestore(&w->lock, flags);
}

static struct repl_entry *list_entry_of(struct list_head *list)
{
	return list_first_entry_or_null(list, struct repl_entry, list);
}

/* One entry that will not be sent; @all: also those behind the cut. */
static bool window_lose_one(struct repl_window *w, bool all)
{
	struct repl_entry *e = list_entry_of(&w->ready);

	if (!e)
		e = list_entry_of(&w->waiting);
	if (!e && all)
		e = list_entry_of(&w->behind);
	if (e) {
		entry_miss(w, e);
		entry_free(w, e);
		return true;
	}
	/* These are still needed by whoever ends their I/O. */
	e = list_entry_of(&w->local);
	if (!e)
		e = list_entry_of(&w->sending);
	if (!e)
		return false;
	entry_miss(w, e);
	e->state = ENTRY_LOST;
	list_move_tail(&e->list, &w->lost);
	return true;
}

static void window_lose(struct repl_window *w, bool all)
{
	unsigned int i;
	bool more = true;

	while (more) {
		spin_lock_irq(&w->lock);
		for (i = 0; i < WINDOW_LOSE && more; i++)
			more = !window_sends(w) && window_lose_one(w, all);
		window_wake(w);
		spin_unlock_irq(&w->lock);
		cond_resched();
	}
}

/**
 * repl_window_lose() - all that a lost peer has not acknowledged is missed
 * @w: window; its peer is detached or has failed
 *
 * Context: process. On return the map has all of it.
 */
void repl_window_lose(struct repl_window *w)
{
	window_lose(w, true);
}

static void window_lose_work(struct work_struct *work)
{
	struct repl_window *w = container_of(work, struct repl_window,
					     lose_work);

	/* A quiesced window loses what it must by itself. */
	if (!repl_window_has_peer(w))
		repl_window_lose(w);
}

static unsigned long older(unsigned long a, unsigned long b)
{
	if (!a || !b)
		return a ?: b;
	return time_before(a, b) ? a : b;
}

/* When the oldest I/O in flight was sent; 0: there is none. */
static unsigned long window_oldest(struct repl_window *w, sector_t *sector)
{
	unsigned long oldest = w->flush_sent;
	struct repl_claim *claim;
	struct repl_entry *e;

	*sector = 0;
	list_for_each_entry(e, &w->sending, list)
		if (older(oldest, READ_ONCE(e->sent)) != oldest) {
			oldest = e->sent;
			*sector = e->range.begin;
		}
	list_for_each_entry(claim, &w->claims, list)
		if (older(oldest, claim->sent) != oldest) {
			oldest = claim->sent;
			*sector = claim->range.begin;
		}
	return oldest;
}

static void window_timeout_work(struct work_struct *work)
{
	struct repl_window *w = container_of(to_delayed_work(work),
					     struct repl_window, timeout_work);
	unsigned long limit = msecs_to_jiffies(w->timeout);
	unsigned long oldest, age;
	sector_t sector;

	spin_lock_irq(&w->lock);
	oldest = w->failed ? 0 : window_oldest(w, &sector);
	spin_unlock_irq(&w->lock);
	if (!oldest)
		return;
	age = jiffies - oldest;
	if (age > limit)
		repl_window_fail(w, REPL_PEER_TIMEOUT, -ETIMEDOUT, sector);
	else
		queue_delayed_work(w->wq, &w->timeout_work, limit - age + 1);
}

/**
 * repl_window_attach() - a new peer
 * @w: window, idle, with no peer or one that has failed
 * @peer: device, or NULL; stays open until repl_window_is_idle() after
 *	repl_window_detach()
 *
 * Context: process. What is missed is missed by this one too.
 */
void repl_window_attach(struct repl_window *w, struct block_device *peer)
{
	spin_lock_irq(&w->lock);
	w->peer = peer;
	w->peer_nr++;
	w->written++;		/* by others, perhaps */
	w->failed = false;
	w->by_itself = false;
	spin_unlock_irq(&w->lock);
}

/**
 * repl_window_detach() - there is no peer any more
 * @w: window
 *
 * Context: process. The device is in use until repl_window_is_idle().
 */
void repl_window_detach(struct repl_window *w)
{
	spin_lock_irq(&w->lock);
	w->peer = NULL;
	window_peer_lost(w);
	spin_unlock_irq(&w->lock);
	repl_window_lose(w);
}

/**
 * repl_window_is_idle() - is nothing in flight to the peer?
 * @w: window
 *
 * Waiters sleep on @w->wait. Context: any.
 */
bool repl_window_is_idle(struct repl_window *w)
{
	unsigned long flags;
	bool idle;

	spin_lock_irqsave(&w->lock, flags);
	idle = !w->in_flight && !w->nr_claims;
	spin_unlock_irqrestore(&w->lock, flags);
	return idle;
}

/*
 * ---- A copy of regions to the peer ----
 */

/**
 * repl_window_claim() - keep the writes to some regions from the peer
 * @w: window
 * @claim: the caller's, until repl_window_unclaim()
 * @sector: first sector, the begin of a region
 * @nr: whole regions, or up to the end of the device
 *
 * The bits of the regions are cleared. Writes from now on wait, in the window,
 * for the end of the claim; the workload does not. A copy that fails sets the
 * bits again before it gives back the claim: repl_window_miss().
 *
 * Context: any.
 * Return: false if something is on its way to the peer there, if there is no
 * peer that is well, or a cut is not released yet: try again later.
 */
bool repl_window_claim(struct repl_window *w, struct repl_claim *claim,
		       sector_t sector, sector_t nr)
{
	unsigned long flags;
	bool may;

	spin_lock_irqsave(&w->lock, flags);
	may = window_sends(w) && !w->stopping && !w->is_cut &&
	      !range_first(w, sector, nr);
	if (may) {
		claim->sent = 0;
		range_insert(w, &claim->range, REPL_RANGE_CLAIM, sector, nr);
		list_add_tail(&claim->list, &w->claims);
		w->nr_claims++;
		w->ops->claimed(w, sector, nr);
		repl_bits_clear(&w->missed, region_begin(w, sector),
				region_end(w, sector, nr));
	}
	spin_unlock_irqrestore(&w->lock, flags);
	return may;
}

/**
 * repl_window_claim_sent() - I/O of a claim to the peer is about to be sent
 * @w: window
 * @claim: claim
 *
 * From now on the peer's timeout counts for it. Context: any.
 */
void repl_window_claim_sent(struct repl_window *w, struct repl_claim *claim)
{
	unsigned long flags;

	spin_lock_irqsave(&w->lock, flags);
	claim->sent = now();
	spin_unlock_irqrestore(&w->lock, flags);
	window_arm(w);
}

/**
 * repl_window_unclaim() - the copy is over
 * @w: window
 * @claim: claim; the caller's again
 *
 * Context: any.
 */
void repl_window_unclaim(struct repl_window *w, struct repl_claim *claim)
{
	unsigned long flags;

	rcu_read_lock();
	spin_lock_irqsave(&w->lock, flags);
	range_remove(w, &claim->range);
	list_del(&claim->list);
	w->nr_claims--;
	w->written++;
	window_wake(w);
	spin_unlock_irqrestore(&w->lock, flags);
	rcu_read_unlock();
}

/**
 * repl_window_is_clear() - is nothing in the way of a claim?
 * @w: window
 *
 * If there is, ops->left() comes. Context: any.
 */
bool repl_window_is_clear(struct repl_window *w)
{
	unsigned long flags;
	bool clear;

	spin_lock_irqsave(&w->lock, flags);
	clear = window_sends(w) && !w->stopping && !w->is_cut &&
		RB_EMPTY_ROOT(&w->tree.rb_root);
	spin_unlock_irqrestore(&w->lock, flags);
	return clear;
}

/**
 * repl_window_is_busy() - is it more than half full?
 * @w: window
 *
 * Context: any; a hint.
 */
bool repl_window_is_busy(struct repl_window *w)
{
	return READ_ONCE(w->nr_free) < w->nr_pages / 2;
}

/**
 * repl_window_used() - how full is it?
 * @w: window
 *
 * Return: KiB.
 */
unsigned int repl_window_used(struct repl_window *w)
{
	return (w->nr_pages - READ_ONCE(w->nr_free)) * (PAGE_SIZE / SZ_1K);
}

/*
 * ---- Cuts ----
 */

/**
 * repl_window_cut() - what is written from now on waits for the release
 * @w: window; the gate is closed and drained
 *
 * Return: 0, or -EBUSY: the peer is not well or behind, there is a cut, or the
 * device is being suspended.
 */
int repl_window_cut(struct repl_window *w)
{
	int r = -EBUSY;

	spin_lock_irq(&w->lock);
	if (window_sends(w) && !w->is_cut && !w->stopping && !w->nr_claims &&
	    !repl_bits_count(&w->missed)) {
		w->is_cut = true;
		w->broken = false;
		w->cut = w->seq;
		w->barrier = w->seq;
		w->cut_flush = 0;
		window_poke(w);
		window_wake(w);	/* who waits for a flush waits no more */
		r = 0;
	}
	spin_unlock_irq(&w->lock);
	return r;
}

/* Nobody needs to wait for the cut any more. */
static bool window_cut_over(struct repl_window *w)
{
	return !READ_ONCE(w->is_cut) || READ_ONCE(w->broken) ||
	       READ_ONCE(w->stopping);
}

static bool window_cut_flushed(struct repl_window *w)
{
	u64 flush = READ_ONCE(w->cut_flush);

	return flush && READ_ONCE(w->flush_done) >= flush;
}

/**
 * repl_window_drain() - wait until all before the cut is durable on the peer
 * @w: window with a cut
 *
 * The flush was sent when the peer had all of it, whoever waited.
 *
 * Context: process.
 * Return: 0; -ERESTARTSYS if the caller was killed; -EAGAIN if the device is
 * suspended meanwhile; -EINVAL if the cut is gone; -EIO if the peer is lost.
 */
int repl_window_drain(struct repl_window *w)
{
	int r;

	r = wait_event_killable(w->wait, window_cut_over(w) ||
				window_cut_flushed(w));
	if (r)
		return r;
	if (!READ_ONCE(w->is_cut))
		return -EINVAL;
	if (READ_ONCE(w->broken))
		return -EIO;
	return window_cut_flushed(w) ? 0 : -EAGAIN;
}

/**
 * repl_window_release() - what is behind the cut may go
 * @w: window with a cut
 */
void repl_window_release(struct repl_window *w)
{
	spin_lock_irq(&w->lock);
	w->is_cut = false;
	w->broken = false;
	list_splice_tail_init(&w->behind, &w->ready);
	window_poke(w);
	if (!w->congested && w->by_itself && window_sends(w) &&
	    repl_bits_count(&w->missed))
		w->ops->relieved(w);	/* no claim could be had before */
	window_wake(w);
	spin_unlock_irq(&w->lock);
	if (!repl_window_has_peer(w))
		repl_window_lose(w);
}

/*
 * ---- Flush ----
 */

/* Entries and claims with a number below @seq have ended, well or not. */
static bool window_has_ended(struct repl_window *w, u64 seq)
{
	struct repl_claim *claim;
	bool ended;

	spin_lock_irq(&w->lock);
	claim = list_first_entry_or_null(&w->claims, struct repl_claim, list);
	ended = window_has_passed(w, seq) && (!claim || claim->range.seq >= seq);
	spin_unlock_irq(&w->lock);
	return ended;
}

/* It is no use to wait for a flush of this peer any more. */
static bool window_flush_over(struct repl_window *w, u64 peer_nr)
{
	bool over;

	spin_lock_irq(&w->lock);
	over = !window_sends(w) || w->stopping || w->is_cut || w->peer_nr != peer_nr;
	spin_unlock_irq(&w->lock);
	return over;
}

/**
 * repl_window_flush() - wait until the peer has for good what it has been sent by now
 * @w: window
 *
 * Entries and claims that are under way are waited for, too; those that fail are missed
 * then.
 *
 * Context: process.
 * Return: 0; -ERESTARTSYS if the caller was killed; -EBUSY if there is a cut, or the
 * device is suspended; -EIO if the peer is lost, or there is none.
 */
int repl_window_flush(struct repl_window *w)
{
	u64 seq, peer_nr, flush;
	int r;

	spin_lock_irq(&w->lock);
	seq = w->seq;
	if (!w->is_cut)		/* it is refused then */
		w->barrier = seq;
	peer_nr = w->peer_nr;
	window_poke(w);
	spin_unlock_irq(&w->lock);
	r = wait_event_killable(w->wait, window_flush_over(w, peer_nr) ||
				window_has_ended(w, seq));
	if (r)
		return r;
	spin_lock_irq(&w->lock);
	flush = ++w->flush_wanted;
	window_poke(w);
	spin_unlock_irq(&w->lock);
	r = wait_event_killable(w->wait, window_flush_over(w, peer_nr) ||
				READ_ONCE(w->flush_done) >= flush);
	if (r)
		return r;
	/* One that has failed is done, too: the peer has, before. */
	if (!window_flush_over(w, peer_nr))
		return 0;
	return repl_window_has_peer(w) && w->peer_nr == peer_nr ? -EBUSY : -EIO;
}

/*
 * ---- Suspend and reload ----
 */

/* The number before which all can be sent. */
static u64 window_mark(struct repl_window *w)
{
	u64 mark;

	spin_lock_irq(&w->lock);
	mark = w->is_cut ? w->cut : w->seq;
	spin_unlock_irq(&w->lock);
	return mark;
}

static bool window_all_passed(struct repl_window *w, u64 seq)
{
	bool passed;

	spin_lock_irq(&w->lock);
	passed = window_has_passed(w, seq);
	spin_unlock_irq(&w->lock);
	return passed;
}

static bool window_is_sending(struct repl_window *w)
{
	return repl_window_has_peer(w) && !READ_ONCE(w->quiesced);
}

/* As long as the peer may take for one I/O. */
static void window_wait_passed(struct repl_window *w)
{
	u64 mark = window_mark(w);

	wait_event_timeout(w->wait, !window_is_sending(w) ||
			   window_all_passed(w, mark),
			   msecs_to_jiffies(w->timeout) + 1);
}

/**
 * repl_window_stopping() - a suspend begins: no cut and no claim from now on
 * @w: window
 *
 * Nobody waits for room or for a drain any more. Context: process.
 */
void repl_window_stopping(struct repl_window *w)
{
	spin_lock_irq(&w->lock);
	w->stopping = true;
	queue_work(w->wq, &w->retry_work);
	window_wake(w);
	spin_unlock_irq(&w->lock);
}

/**
 * repl_window_stop() - after repl_window_stopping(), with writes still coming
 * @w: window
 *
 * Sends what there is, so that little is left for repl_window_settle(), and
 * waits for a peer that hangs while the workload does not. Context: process.
 */
void repl_window_stop(struct repl_window *w)
{
	if (!w->size)
		return;

	window_wait_passed(w);
	if (!window_is_sending(w)) {
		repl_window_lose(w);
		wait_event(w->wait, repl_window_is_idle(w));
	}
}

/* Nobody queues anything for it any more. */
static void window_stop_filler(struct repl_window *w)
{
	if (IS_ERR_OR_NULL(w->filler))
		return;
	kthread_cancel_delayed_work_sync(&w->send_soon);
	kthread_flush_worker(w->filler);
}

/**
 * repl_window_settle() - after a suspend: nothing is in flight any more
 * @w: window; no write is in flight, and no copy claims any more
 *
 * What cannot be sent in the time of the timeout is missed; what is behind a cut
 * stays. Context: process.
 */
void repl_window_settle(struct repl_window *w)
{
	window_wait_passed(w);
	spin_lock_irq(&w->lock);
	w->quiesced = true;
	if (!list_empty(&w->all) && window_used(w))
		window_will_miss(w);
	spin_unlock_irq(&w->lock);
	window_lose(w, !repl_window_has_peer(w));
	wait_event(w->wait, repl_window_is_idle(w));
	cancel_delayed_work_sync(&w->timeout_work);
	window_stop_filler(w);
	flush_work(&w->send_work);
	flush_work(&w->zero_work);
	flush_work(&w->lose_work);
}

/**
 * repl_window_resume() - go on after repl_window_stop()
 * @w: window
 */
void repl_window_resume(struct repl_window *w)
{
	spin_lock_irq(&w->lock);
	w->stopping = false;
	w->quiesced = false;
	window_poke(w);
	if (!w->congested && w->by_itself && window_sends(w) &&
	    repl_bits_count(&w->missed))
		w->ops->relieved(w);
	spin_unlock_irq(&w->lock);
}

static void window_take_map(struct repl_window *w, struct repl_window *old)
{
	sector_t sector, end;
	u64 nr, run;

	for (nr = repl_bits_next(&old->missed, 0); nr < old->missed.nr;
	     nr = repl_bits_next(&old->missed, nr + run)) {
		run = repl_bits_run(&old->missed, nr, old->missed.nr);
		sector = nr << old->region_shift;
		end = min_t(sector_t, (nr + run) << old->region_shift,
			    w->missed.nr << w->region_shift);
		if (sector < end)
			repl_window_miss(w, sector, end - sector);
	}
}

/**
 * repl_window_hand_over() - the window of a new table takes over from the old
 * @w: window in which nothing has happened yet
 * @old: window, settled
 *
 * What the old one has not sent is missed. Its cut goes on, and its failure if
 * the peer is the same. Context: process.
 */
void repl_window_hand_over(struct repl_window *w, struct repl_window *old)
{
	bool same = w->peer == old->peer;

	old->quiesced = true;
	if (same && !old->failed && !list_empty(&old->all))
		window_will_miss(old);
	window_lose(old, true);
	window_take_map(w, old);
	w->forwarded += old->forwarded;
	w->is_cut = old->is_cut;
	w->broken = old->broken || (old->is_cut && !same);
	w->cut = w->seq;
	w->failed = same && old->failed;
	w->by_itself = same && old->by_itself;
	/* It may be long until it is resumed, or never be. */
	w->quiesced = true;
}

/**
 * repl_window_grown() - there is more than before, and nobody knows what the peer has there
 * @w: window in which nothing has happened yet but repl_window_hand_over()
 * @sector: first sector of it
 * @nr: how many, at least 1
 *
 * Context: process. With a peer that is well it is pushed when the window is resumed.
 */
void repl_window_grown(struct repl_window *w, sector_t sector, sector_t nr)
{
	spin_lock_irq(&w->lock);
	if (w->peer && !w->failed)
		window_will_miss(w);
	repl_window_miss(w, sector, nr);
	spin_unlock_irq(&w->lock);
}

/*
 * ---- Construction ----
 */

static int window_alloc_pages(struct repl_window *w)
{
	u32 nr = ((u64)w->size * SZ_1K) >> PAGE_SHIFT;

	w->pages = kvcalloc(nr, sizeof(*w->pages), GFP_KERNEL);
	w->entries = kvcalloc(nr, sizeof(*w->entries), GFP_KERNEL);
	if (!w->pages || !w->entries)
		return -ENOMEM;
	while (w->nr_pages < nr) {
		struct repl_entry *e = &w->entries[w->nr_pages];
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			return -ENOMEM;
		bio_list_init(&e->waiters);
		list_add_tail(&e->list, &w->free_entries);
		w->pages[w->nr_pages].page = page;
		w->pages[w->nr_pages].next = w->nr_pages + 1;
		w->nr_pages++;
	}
	w->nr_free = nr;
	return 0;
}

static int window_alloc_bios(struct repl_window *w)
{
	unsigned int i;

	w->batch = kcalloc(2 * WINDOW_BATCH, sizeof(*w->batch), GFP_KERNEL);
	w->bios = kcalloc(WINDOW_BIOS, sizeof(*w->bios), GFP_KERNEL);
	w->vecs = kvcalloc(WINDOW_BIOS * WINDOW_VECS, sizeof(*w->vecs),
			   GFP_KERNEL);
	if (!w->batch || !w->bios || !w->vecs)
		return -ENOMEM;
	for (i = 0; i < WINDOW_BIOS; i++) {
		w->bios[i].window = w;
		w->bios[i].vecs = w->vecs + i * WINDOW_VECS;
		list_add_tail(&w->bios[i].list, &w->free_bios);
	}
	w->nr_bios = WINDOW_BIOS;
	return 0;
}

static void window_init_lists(struct repl_window *w)
{
	spin_lock_init(&w->lock);
	w->tree = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&w->all);
	INIT_LIST_HEAD(&w->local);
	INIT_LIST_HEAD(&w->waiting);
	INIT_LIST_HEAD(&w->behind);
	INIT_LIST_HEAD(&w->ready);
	INIT_LIST_HEAD(&w->sending);
	INIT_LIST_HEAD(&w->lost);
	INIT_LIST_HEAD(&w->claims);
	INIT_LIST_HEAD(&w->free_entries);
	INIT_LIST_HEAD(&w->free_bios);
	bio_list_init(&w->parked);
	bio_list_init(&w->retry);
	INIT_WORK(&w->retry_work, window_retry_work);
	INIT_WORK(&w->send_work, window_send_work);
	kthread_init_work(&w->send_few, window_send_few);
	kthread_init_delayed_work(&w->send_soon, window_send_soon);
	INIT_WORK(&w->zero_work, window_zero_work);
	INIT_WORK(&w->lose_work, window_lose_work);
	INIT_DELAYED_WORK(&w->timeout_work, window_timeout_work);
	init_waitqueue_head(&w->wait);
}

/**
 * repl_window_init() - an empty window without a peer
 * @w: window, zeroed but for what the owner sets
 * @sectors: length of the device
 *
 * Context: process. Return: 0 or a negative errno; repl_window_exit() frees in any
 * case.
 */
int repl_window_init(struct repl_window *w, sector_t sectors)
{
	int r;

	window_init_lists(w);
	w->send_wq = repl_alloc_workqueue("dm-repl-send", 0);
	w->wq = repl_alloc_workqueue("dm-repl-window", 0);
	if (!w->send_wq || !w->wq)
		return -ENOMEM;
	r = repl_bits_init(&w->missed, region_end(w, 0, sectors));
	if (r || !w->size)
		return r;
	w->filler = repl_batch_worker("dm-repl-fill");
	if (IS_ERR(w->filler))
		return PTR_ERR(w->filler);
	r = window_alloc_pages(w);
	if (r)
		return r;
	return window_alloc_bios(w);
}

/**
 * repl_window_exit() - free what repl_window_init() allocated
 * @w: window, zeroed or initialised, settled if it ever had a peer
 *
 * Context: process.
 */
void repl_window_exit(struct repl_window *w)
{
	if (w->wq && w->send_wq) {
		/* Who ended the last I/O may still be in here. */
		synchronize_rcu();
		cancel_delayed_work_sync(&w->timeout_work);
		window_stop_filler(w);
		cancel_work_sync(&w->send_work);
	}
	if (!IS_ERR_OR_NULL(w->filler))
		kthread_destroy_worker(w->filler);
	if (w->send_wq)
		destroy_workqueue(w->send_wq);
	if (w->wq)
		destroy_workqueue(w->wq);
	while (w->nr_pages)
		__free_page(w->pages[--w->nr_pages].page);
	kvfree(w->pages);
	kvfree(w->entries);
	kvfree(w->vecs);
	kfree(w->bios);
	kfree(w->batch);
	repl_bits_exit(&w->missed);
}

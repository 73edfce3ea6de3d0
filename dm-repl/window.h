/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Window: what the peer's disk is to get, and in which order.
 *
 * A write of mode async is copied into pages of the window, and the workload
 * waits for its local leg only. The window owns all memory from the start: an
 * entry takes at least one page, so there are as many entries as pages.
 *
 *	entry		local leg	peer
 *	LOCAL		in flight	-
 *	WAITING		succeeded	something older overlaps it
 *	READY		succeeded	the sender takes it next, or when the cut
 *					before it is released
 *	SENDING		succeeded	in flight
 *	LOST		any		not any more: its regions are in `missed`
 *
 * Order. Whatever touches the peer is a range in one tree: entries, claims of a
 * copy (push), writes of mode sync. A range is numbered when it is inserted. An
 * entry counts the older ranges that overlap it, and is sent when there are
 * none; whoever leaves the tree counts down those younger than itself. So the
 * peer gets overlapping writes in the order in which local got them. For local
 * to have one, a write that overlaps an entry in LOCAL is parked until that one
 * has ended. Ranges that do not overlap are sent in any order.
 *
 * Rewrites. An entry whose local leg has succeeded takes the place of those older
 * ones that it covers and that are not in flight: nobody looks at the peer's disk
 * between two cuts. So what is written over and over takes as much room, and as much
 * of the link's time, as what is in flight and one more. What is before the last cut
 * or the begin of the last flush stays: who waits for it is to get it, and not to wait
 * for what comes later.
 *
 * Missed writes. The map `missed` has the regions that the peer's disk has not
 * got. A write goes to local only if any of its regions is there, if there is no
 * peer or it has failed, or if the window has no room; then all its regions are
 * set before its local leg is sent, and again when that has ended: a copy in
 * between may have cleared the bit and read the old content. The first is
 * decided under the window's lock, under which a claim clears the bits, so a
 * copy and the writes to its regions exclude each other: those before the claim
 * are on local only, those behind it wait in the tree. (A write of mode sync
 * cannot wait there: it is missed while a claim is in its way, and goes to the
 * peer otherwise, whether its regions are missed or not.)
 *
 * The workload waits for the peer in congestion=block only. There a write is
 * parked outside its gate, in order, until there is room.
 *
 * A peer that fails, or whose oldest I/O is older than the timeout, gets nothing
 * more. What it has not acknowledged is in `missed` when repl_window_lose() has
 * returned; the pages of what is in flight stay until it comes back.
 *
 * Lock: window->lock, with interrupts off; a leaf but for the owner's errors.
 */
#ifndef DM_REPL_WINDOW_H
#define DM_REPL_WINDOW_H

#include <linux/bio.h>
#include <linux/kthread.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "dirty.h"

struct repl_window;
struct window_page;
struct window_bio;
struct repl_entry;

enum repl_range_kind {
	REPL_RANGE_ENTRY,
	REPL_RANGE_CLAIM,
	REPL_RANGE_SYNC,
};

/* Something that touches the peer; private to window.c. */
struct repl_range {
	struct rb_node node;
	sector_t begin, last;
	sector_t max;			/* last, of the subtree */
	u64 seq;
	enum repl_range_kind kind;
};

enum repl_peer_error {
	REPL_PEER_WRITE,
	REPL_PEER_FLUSH,
	REPL_PEER_TIMEOUT,
};

/**
 * struct repl_window_ops - what the window wants of its owner
 * @error: the peer has failed; any context, under the window's lock
 * @lost: that can be seen now; the same
 * @again: map a parked bio once more, with @again true for
 *	repl_window_write(); process context
 * @relieved: regions were missed by a peer that is well, for want of room or
 *	since local failed, there is room again, and nothing else had been
 *	missed before; any context, perhaps under the window's lock
 * @left: what was in the way of a claim may have gone; the same
 * @claimed: these sectors are to be copied, and what is copied may be in the peer's
 *	cache only, like the writes of the workload; under the window's lock,
 *	before they are not missed any more
 */
struct repl_window_ops {
	void (*error)(struct repl_window *window, enum repl_peer_error error,
		      int err, sector_t sector);
	void (*lost)(struct repl_window *window);
	void (*again)(struct repl_window *window, struct bio *bio);
	void (*relieved)(struct repl_window *window);
	void (*left)(struct repl_window *window);
	void (*claimed)(struct repl_window *window, sector_t sector, sector_t nr);
};

struct repl_window {
	/* Set by the owner before repl_window_init(). */
	const struct repl_window_ops *ops;
	unsigned int region_shift;	/* of @missed, from sectors */
	unsigned int size;		/* KiB; 0: mode sync */
	unsigned int timeout;		/* of the peer, in ms */
	bool block;			/* wait for room */

	struct repl_bits missed;

	spinlock_t lock;		/* to the gap */
	struct block_device *peer;	/* NULL: none */
	u64 peer_nr;			/* a number for each that is attached */
	bool failed;			/* send nothing more */
	bool stopping;			/* let nobody wait */
	bool quiesced;			/* send nothing now */
	bool congested;
	bool by_itself;			/* a peer that is well missed all of it */
	struct rb_root_cached tree;
	u64 seq;
	struct list_head all;		/* entries, oldest first */
	/* By state; behind: READY behind the cut. */
	struct list_head local, waiting, behind, ready, sending, lost;
	u64 cut;			/* number of the first one behind it */
	u64 barrier;			/* none before it is replaced */
	u64 cut_flush;			/* of @flush_wanted: what is before it; 0: not yet */
	bool is_cut;
	bool broken;			/* the peer was lost during the cut */
	unsigned int nr_claims;
	struct list_head claims;
	unsigned int in_flight;		/* entries and a flush */
	u64 sectors_in_flight;
	u32 gathered;			/* pages that wait a moment for others */
	bool held_up;			/* what is ready waits for the end of something */
	u64 forwarded;			/* entries that it acknowledged, or were replaced */

	u32 nr_pages, nr_free;
	u32 free;			/* the first free page */
	u32 reserved;			/* pages, for whom ops->again() maps */
	struct window_page *pages;
	struct repl_entry *entries;
	struct list_head free_entries;

	struct bio_list parked;		/* for room */
	struct bio_list retry;		/* for the local leg of another */
	struct work_struct retry_work;

	struct workqueue_struct *send_wq;	/* may hang with the peer */
	struct workqueue_struct *wq;		/* does not */
	struct kthread_worker *filler;	/* may: sends what nobody waits for */
	struct work_struct send_work;
	struct kthread_work send_few;
	struct kthread_delayed_work send_soon;
	struct work_struct zero_work;
	struct repl_entry *zeroes;	/* to be written as data */
	struct work_struct lose_work;
	struct delayed_work timeout_work;

	unsigned int nr_bios;		/* free ones that nobody has a use for yet */
	struct window_bio *bios;
	struct bio_vec *vecs;
	struct list_head free_bios;
	struct repl_entry **batch;	/* of the queue's, and of the filler's */

	struct bio flush;
	unsigned long flush_sent;	/* jiffies, 0: not in flight */
	u64 flush_wanted, flush_started, flush_done;
	/*
	 * What has been written to this peer, in no unit: grows with each entry and
	 * claim, and for what was there before. Of it, what the flush in flight makes
	 * durable, and what the last good one has.
	 */
	u64 written, flushing, flushed;

	wait_queue_head_t wait;		/* something has left, or will not */
};

/**
 * struct repl_claim - regions that are being copied to the peer
 * @range: private
 * @list: private
 * @sent: see repl_window_claim_sent()
 */
struct repl_claim {
	struct repl_range range;
	struct list_head list;
	unsigned long sent;
};

enum repl_verdict {
	REPL_STREAM,	/* there is an entry */
	REPL_MISSED,	/* local only; the regions are set in `missed` */
	REPL_PARKED,	/* ops->again() comes; the caller has forgotten the bio */
};

int repl_window_init(struct repl_window *window, sector_t sectors);
void repl_window_exit(struct repl_window *window);

/* The workload. */
enum repl_verdict repl_window_write(struct repl_window *window, struct bio *bio,
				    struct repl_entry **entry, bool again);
void repl_window_written(struct repl_window *window, struct repl_entry *entry,
			 blk_status_t status);
bool repl_window_enter(struct repl_window *window, struct repl_range *range,
		       sector_t sector, sector_t nr);
void repl_window_leave(struct repl_window *window, struct repl_range *range);
void repl_window_miss(struct repl_window *window, sector_t sector, sector_t nr);
void repl_window_missed(struct repl_window *window, sector_t sector,
			sector_t nr);
void repl_window_local_failed(struct repl_window *window, sector_t sector,
			      sector_t nr);

/* A copy of regions to the peer. */
bool repl_window_claim(struct repl_window *window, struct repl_claim *claim,
		       sector_t sector, sector_t nr);
void repl_window_claim_sent(struct repl_window *window, struct repl_claim *claim);
void repl_window_unclaim(struct repl_window *window, struct repl_claim *claim);
bool repl_window_is_clear(struct repl_window *window);
bool repl_window_is_busy(struct repl_window *window);

/* The peer. */
void repl_window_attach(struct repl_window *window, struct block_device *peer);
void repl_window_detach(struct repl_window *window);
void repl_window_fail(struct repl_window *window, enum repl_peer_error error,
		      int err, sector_t sector);
void repl_window_lose(struct repl_window *window);
bool repl_window_is_idle(struct repl_window *window);

/* Cuts. */
int repl_window_cut(struct repl_window *window);
int repl_window_drain(struct repl_window *window);
int repl_window_flush(struct repl_window *window);
void repl_window_release(struct repl_window *window);

/* Suspend and reload. */
void repl_window_stopping(struct repl_window *window);
void repl_window_stop(struct repl_window *window);
void repl_window_settle(struct repl_window *window);
void repl_window_resume(struct repl_window *window);
void repl_window_hand_over(struct repl_window *window, struct repl_window *old);
void repl_window_grown(struct repl_window *window, sector_t sector, sector_t nr);

unsigned int repl_window_used(struct repl_window *window);

/**
 * repl_window_peer() - the peer's device
 * @window: window
 *
 * It stays open for who holds a claim; else look at it only.
 */
static inline struct block_device *repl_window_peer(struct repl_window *window)
{
	return READ_ONCE(window->peer);
}

/**
 * repl_window_is_quiesced() - has the device been suspended?
 * @window: window
 */
static inline bool repl_window_is_quiesced(struct repl_window *window)
{
	return READ_ONCE(window->quiesced);
}

/**
 * repl_window_has_peer() - is there a peer that has not failed?
 * @window: window
 */
static inline bool repl_window_has_peer(struct repl_window *window)
{
	return READ_ONCE(window->peer) && !READ_ONCE(window->failed);
}

#endif

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mode sync: a write ends when both legs have.
 *
 * The peer's leg is a clone that lies in the per-bio data and holds one more
 * count on the bio: no allocation, and the bio ends with its last leg.
 */

#include <linux/blkdev.h>

#include "compat.h"
#include "primary.h"

/* The peer's leg is over; the bio may be gone on return. */
static void peer_done(struct bio *peer, blk_status_t status)
{
	struct primary_io *io = container_of(peer, struct primary_io, peer);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));

	if (unlikely(status))
		repl_window_fail(&io->primary->window, io->sectors ?
				 REPL_PEER_WRITE : REPL_PEER_FLUSH,
				 blk_status_to_errno(status), io->sector);
	else
		io->forwarded = true;
	bio_uninit(peer);
	bio_endio(bio);
}

/* Leave the peer's leg to primary_sync_late_work(). */
static void peer_send_late(struct repl_primary *p, struct bio *peer)
{
	unsigned long flags;

	rcu_read_lock();	/* the bio may end at once, and we with it */
	spin_lock_irqsave(&p->late_lock, flags);
	bio_list_add(&p->late, peer);
	spin_unlock_irqrestore(&p->late_lock, flags);
	queue_work(p->wq, &p->late_work);
	rcu_read_unlock();
}

static bool peer_not_supported(blk_status_t status)
{
	return status == BLK_STS_NOTSUPP || status == BLK_STS_TARGET;
}

static void peer_endio(struct bio *peer)
{
	struct primary_io *io = container_of(peer, struct primary_io, peer);
	blk_status_t status = peer->bi_status;

	if (unlikely(peer_not_supported(status))) {
		switch (bio_op(peer)) {
		case REQ_OP_DISCARD:
			status = BLK_STS_OK;	/* dropped */
			break;
		case REQ_OP_WRITE_ZEROES:
			io->as_data = true;
			peer_send_late(io->primary, peer);
			return;
		default:
			break;
		}
	}
	peer_done(peer, status);
}

static void peer_late(struct repl_primary *p, struct bio *peer)
{
	struct primary_io *io = container_of(peer, struct primary_io, peer);
	bool discard = bio_op(peer) == REQ_OP_DISCARD;
	struct block_device *bdev = peer->bi_bdev;
	int r;

	if (discard && !bdev_max_discard_sectors(bdev)) {
		peer_done(peer, BLK_STS_OK);	/* dropped */
	} else if (!discard && (io->as_data ||
				!bdev_write_zeroes_sectors(bdev))) {
		/* Falls back to data, whatever the device had announced. */
		r = blkdev_issue_zeroout(bdev, io->sector, io->sectors,
					 GFP_NOIO, 0);
		peer_done(peer, errno_to_blk_status(r));
	} else {
		submit_bio_noacct(peer);
	}
}

/**
 * primary_sync_late_work() - send the peer's legs that need a process
 * @work: p->late_work
 */
void primary_sync_late_work(struct work_struct *work)
{
	struct repl_primary *p = container_of(work, struct repl_primary,
					      late_work);
	struct bio_list late = BIO_EMPTY_LIST;
	struct bio *peer;

	spin_lock_irq(&p->late_lock);
	bio_list_merge(&late, &p->late);
	bio_list_init(&p->late);
	spin_unlock_irq(&p->late_lock);

	while ((peer = bio_list_pop(&late)))
		peer_late(p, peer);
}

static void peer_prepare(struct bio *peer)
{
	peer->bi_end_io = peer_endio;
	peer->bi_opf &= ~REQ_POLLED;	/* nobody polls the peer */
}

/* Start the peer's leg of @bio. */
static void peer_send(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);

	if (bio_init_clone(repl_window_peer(&p->window), &io->peer, bio,
			   GFP_NOWAIT)) {
		repl_window_fail(&p->window, REPL_PEER_WRITE, -ENOMEM,
				 io->sector);
		return;
	}
	peer_prepare(&io->peer);
	bio_inc_remaining(bio);
	submit_bio_noacct(&io->peer);
}

/**
 * primary_sync_write() - a write or flush inside the gate
 * @p: primary
 * @bio: it; the caller sends the local leg
 *
 * Context: process; does not sleep.
 */
void primary_sync_write(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);

	io->forwarded = false;
	io->ranged = false;
	io->late = bio_op(bio) == REQ_OP_DISCARD ||
		   bio_op(bio) == REQ_OP_WRITE_ZEROES;
	if (!repl_window_has_peer(&p->window))
		return;
	if (io->sectors) {
		io->ranged = repl_window_enter(&p->window, &io->range,
					       io->sector, io->sectors);
		if (!io->ranged)
			return;
	}
	if (likely(!io->late))
		peer_send(p, bio);
}

/*
 * The local disk has discarded or zeroed. Only now may the peer: a disk that
 * cannot says so when asked, and its sender believes that nothing has changed.
 */
static void primary_write_late(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);

	io->late = false;
	io->as_data = false;
	bio_init(&io->peer, repl_window_peer(&p->window), NULL, 0, bio->bi_opf);
	io->peer.bi_iter.bi_sector = io->sector;
	io->peer.bi_iter.bi_size = io->sectors << SECTOR_SHIFT;
	peer_prepare(&io->peer);
	peer_send_late(p, &io->peer);
}

/* Zeroes may have been written in part; who discards does not rely on what is there. */
static bool sync_refused(struct bio *bio, blk_status_t status)
{
	return bio_op(bio) == REQ_OP_DISCARD &&
	       (peer_not_supported(status) || status == REPL_STS_INVAL);
}

/**
 * primary_sync_end() - both legs have ended
 * @p: primary
 * @bio: it
 * @status: of the bio
 *
 * Context: any. Return: false: it has not ended yet, for its peer's leg goes
 * out only now.
 */
bool primary_sync_end(struct repl_primary *p, struct bio *bio,
		      blk_status_t status)
{
	struct primary_io *io = primary_io(bio);

	if (unlikely(io->late && io->ranged && !status &&
		     repl_window_has_peer(&p->window))) {
		primary_write_late(p, bio);
		return false;	/* peer_done() ends it again */
	}
	if (!io->sectors)
		return true;
	if (unlikely(status) && !sync_refused(bio, status))
		repl_window_local_failed(&p->window, io->sector, io->sectors);
	else if (!io->forwarded && !status)
		repl_window_missed(&p->window, io->sector, io->sectors);
	if (io->ranged)
		repl_window_leave(&p->window, &io->range);
	return true;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * repl-primary, as its parts see it:
 *
 *	primary.c		the target: table, data path, suspend, status
 *	primary-sync.c		the peer's leg of mode sync
 *	primary-message.c	attach, detach, cuts, push, dirty maps
 *	    |
 *	window  push  dirty  track  gate
 *
 * Lock order: p->lock (messages) > dirty.lock, push.start_lock, track.map_lock >
 * job.lock > window.lock > error_lock, track.lock > log.lock. A message that
 * waits for the peer does not hold p->lock meanwhile: suspend and the status
 * must not wait for a peer.
 */
#ifndef DM_REPL_PRIMARY_H
#define DM_REPL_PRIMARY_H

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/workqueue.h>

#include "dirty.h"
#include "gate.h"
#include "keep.h"
#include "push.h"
#include "targets.h"
#include "track.h"
#include "window.h"

#define DM_MSG_PREFIX "repl-primary"

/* Classes of latched errors, in the order of the status line. */
enum primary_error {
	PRIMARY_ERR_PEER_WRITE,
	PRIMARY_ERR_PEER_FLUSH,
	PRIMARY_ERR_PEER_TIMEOUT,
	PRIMARY_ERR_PUSH_READ,
	PRIMARY_ERR_METADATA,
	PRIMARY_NR_ERRORS,
};

/*
 *	state	cut hold   cut	      release	abort	10 s
 *	NONE	HELD	   CUT (1)    -		-
 *	HELD	-	   CUT	      -		NONE	NONE
 *	CUT	-	   -	      NONE	NONE
 *
 * With the same id; all else is refused. (1) Not if that one was held, and is no more: other
 * devices may have been held longer, and what is cut now is of another moment.
 */
enum primary_cut {
	PRIMARY_CUT_NONE,
	PRIMARY_CUT_HELD,	/* the gate is closed */
	PRIMARY_CUT_CUT,
};

/* Written by one CPU, summed for status. */
struct primary_count {
	u64 reads;		/* begun; for push only */
	u64 writes;
	u64 forwarded;		/* mode sync; else the window counts */
};

struct repl_primary {
	struct dm_target *ti;
	struct dm_dev *local;
	bool sync;
	struct repl_gate gate;		/* writes pass it */
	struct primary_count __percpu *count;
	struct repl_window window;
	struct repl_push push;

	/* Which regions the peer's last checkpoint has not got. */
	struct repl_bits checkpoint;
	struct repl_bits frozen;	/* those before the cut */
	struct repl_dirty dirty;
	struct repl_dirty_map peer_map, checkpoint_map;
	struct repl_track *track;	/* keeps ahead of them; NULL: no metadata */
	struct repl_keep keep;		/* the user's, where there is a track */
	bool foreign;			/* the table before wrote past its metadata device */
	bool same;			/* it had the same one */
	bool unknown;			/* what it knew is lost */
	struct dm_dev *metadata;
	struct repl_identity identity;	/* without a track */

	struct workqueue_struct *wq;
	struct work_struct late_work;
	spinlock_t late_lock;		/* late */
	struct bio_list late;		/* sync: peer's legs for late_work */

	struct mutex lock;		/* messages */
	struct dm_dev *peer;
	struct dm_dev *leaving;		/* detached, perhaps with I/O in flight */
	bool detached;			/* by message */
	enum primary_cut cut;
	u64 cut_id;
	u64 cut_gone;			/* that was held, and not opened in time; 0: none */
	bool drained;
	bool refused_gate;		/* see primary_dirty_close() */
	struct delayed_work hold_work;

	spinlock_t error_lock;		/* errors, first_*, peer_name */
	char peer_name[16];
	unsigned long errors;
	int first_errno;
	sector_t first_sector;
	struct work_struct event_work;

	struct list_head list;		/* of those that have what a table before had */
	bool loaded;
	bool suspended;			/* its push is held */
	sector_t region_size;
	unsigned int region_shift;	/* from sectors */
	char *features;			/* as given on the table line, or NULL */
};

struct primary_io {
	struct repl_primary *primary;
	sector_t sector;
	unsigned int sectors;
	bool gated;
	bool missed;
	bool again;			/* while it waits for the track */
	struct repl_track_io track;
	struct repl_entry *entry;	/* async */
	/* sync */
	bool ranged;
	bool forwarded;
	bool late;			/* discard or zeroes: local goes first */
	bool as_data;			/* the peer cannot write zeroes */
	struct repl_range range;
	struct bio peer;
};

static inline struct primary_io *primary_io(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct primary_io));
}

/* primary.c */
void primary_latch(struct repl_primary *p, enum primary_error error, int err,
		   sector_t sector);
int primary_close(struct repl_primary *p);
void primary_open(struct repl_primary *p);

/* primary-sync.c */
void primary_sync_write(struct repl_primary *p, struct bio *bio);
bool primary_sync_end(struct repl_primary *p, struct bio *bio,
		      blk_status_t status);
void primary_sync_late_work(struct work_struct *work);

/* primary-message.c */
int primary_message(struct dm_target *ti, unsigned int argc, char **argv,
		    char *result, unsigned int maxlen);
void primary_hold_work(struct work_struct *work);
void primary_end_hold(struct repl_primary *p);
void primary_end_cut(struct repl_primary *p);
int primary_dirty_close(void *context);
void primary_dirty_open(void *context);

#endif

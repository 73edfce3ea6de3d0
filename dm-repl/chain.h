/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Chain: active over hidden over secondary, with its maps, its gate and its
 * stage. The object that repl-secondary and repl-ingest share; it belongs to
 * the secondary device, not to a table, so that it outlives a reload.
 *
 *	ingest.c  secondary.c	 the two targets
 *	       |  |
 *	    origin.c		 who shares a secondary device
 *	        |
 *	     chain.c		 stages, messages, the worker
 *	     /   |   \
 *	cbw.c view.c merge.c	 what moves regions
 *	     \   |   /
 *	gate  readers  region-op  region-map  dirty  copy  job
 *	store > log > meta	 the metadata device; identity
 *
 * Lock order: chain->lock (transitions) > registry_lock (origin.c) > job.lock
 * > ops.lock > deferred_lock, gate.lock, grace_lock, error_lock > log.lock
 * (leaves, irq safe). The steady state takes none of them.
 */
#ifndef DM_REPL_CHAIN_H
#define DM_REPL_CHAIN_H

#include <linux/atomic.h>
#include <linux/device-mapper.h>
#include <linux/mutex.h>
#include <linux/uuid.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "copy.h"
#include "dirty.h"
#include "gate.h"
#include "identity.h"
#include "job.h"
#include "log.h"
#include "readers.h"
#include "region-map.h"
#include "region-op.h"
#include "store.h"

#define DM_MSG_PREFIX "repl"

/* Adjacent regions become one copy up to this many sectors (1 MiB). */
#define REPL_COPY_SECTORS	2048
/* What one bio may have copied at a time, in sectors (8 MiB). */
#define REPL_WINDOW_SECTORS	16384
/*
 * The worker ends ops, so it cannot wait for one to end. When there is none
 * for a bio, some are in flight; it defers the bio and comes again.
 */
#define REPL_GFP_WORKER		(GFP_NOWAIT | __GFP_NOWARN)
/* Regions that a job looks through before it lets others run. */
#define REPL_WALK_REGIONS	65536
/* Bios that the worker sorts together. */
#define REPL_BATCH		64

enum repl_stage {
	REPL_STAGE_NONE,
	REPL_STAGE_RUNNING,
	REPL_STAGE_FAILOVER,
	REPL_STAGE_FAILOVER_FAILED,
	REPL_STAGE_DONE,
	REPL_NR_STAGES,
};

/*
 * Classes of latched errors, in the order of the status line. Their numbers are
 * on the metadata device.
 */
enum repl_error {
	REPL_ERR_CBW_READ,
	REPL_ERR_CBW_WRITE,
	REPL_ERR_SECONDARY_WRITE,
	REPL_ERR_FLUSH,
	REPL_ERR_VIEW_READ,
	REPL_ERR_VIEW_WRITE,
	REPL_ERR_MERGE_READ,
	REPL_ERR_MERGE_WRITE,
	REPL_ERR_MERGE_FLUSH,
	REPL_ERR_METADATA,
	REPL_NR_ERRORS,
};

/* With one of these the secondary may lack something: no checkpoint. */
#define REPL_ERRS_REFUSE (BIT(REPL_ERR_CBW_READ) | BIT(REPL_ERR_CBW_WRITE) | \
			  BIT(REPL_ERR_SECONDARY_WRITE) | BIT(REPL_ERR_FLUSH) | \
			  BIT(REPL_ERR_METADATA))
#define REPL_ERRS_MERGE (BIT(REPL_ERR_MERGE_READ) | \
			 BIT(REPL_ERR_MERGE_WRITE) | BIT(REPL_ERR_MERGE_FLUSH))

/* What becomes of a write to ingest. */
enum repl_ingest_mode {
	REPL_INGEST_PASS,		/* straight through */
	REPL_INGEST_PRESERVE,		/* copy-before-write */
	REPL_INGEST_REFUSE,		/* EIO */
};

/* The first error of a class since it was cleared. */
struct repl_latched {
	ktime_t when;
	int err;			/* positive */
	sector_t sector;
};

struct repl_chain {
	/* What every I/O reads. Changes only behind the closed gate. */
	enum repl_stage stage;
	enum repl_ingest_mode ingest;
	bool fenced;			/* ingest, after a failover */
	unsigned int region_shift;	/* sectors to regions */
	u64 nr_regions;
	struct block_device *secondary;
	struct block_device *hidden;
	struct block_device *active;
	struct repl_map hidden_map;
	struct repl_map active_map;
	struct repl_bits dirty;		/* since a failover; see view_mark() */
	bool dirty_lags;		/* so is what the maps have */
	struct repl_gate gate;
	struct repl_readers readers;

	/* The miss path. */
	struct repl_region_ops ops ____cacheline_aligned;
	spinlock_t deferred_lock;	/* deferred */
	struct bio_list deferred;
	struct workqueue_struct *wq;	/* the worker's alone */
	struct workqueue_struct *slow_wq; /* may wait for the worker */
	struct work_struct worker;
	struct repl_copier copier;
	u64 stream_end;			/* worker's: end of the last miss */
	u64 stream_regions;		/* worker's: length of its stream */
	struct bio *batch[REPL_BATCH];	/* worker's */
	spinlock_t grace_lock;		/* grace_pending */
	struct list_head grace_pending;	/* copied, wait for a grace period */
	struct list_head grace_current;	/* worker's: the one under way */
	atomic_t nr_preserving;		/* ops that a bio waits for */
	atomic64_t nr_hidden;		/* regions present in the maps */
	atomic64_t nr_active;

	/* Jobs. */
	struct dm_kcopyd_client *job_copy;
	struct repl_job job;
	u64 merge_total;		/* regions of both maps at its start */

	/* Transitions. */
	struct mutex lock;
	struct repl_store *store;	/* NULL: maps are in memory only */
	bool loaded;			/* what is in it */
	struct repl_identity identity;
	struct repl_dirty maps;		/* the dirty map by its name */
	struct repl_dirty_map dirty_name;
	u64 checkpoint_id;
	u64 prepared_id;
	u64 pending;			/* what it asked for as a primary; 0: nothing */
	bool prepared;
	bool closed;			/* the gate, by a transition */
	unsigned long errors;		/* bits of enum repl_error */
	struct repl_latched latched[REPL_NR_ERRORS];
	spinlock_t error_lock;		/* errors, latched */
	struct work_struct event_work;
	struct dm_target *ti;		/* of the live table; registry lock */

	/* Identity. */
	struct repl_origin *origin;
	struct list_head list;		/* of the origin's chains */
	struct mapped_device *md;
	unsigned int refs;		/* tables; registry lock */
	sector_t len;
	char name[32];			/* of the view's device, for logs */
};

struct repl_chain_params {
	struct mapped_device *md;	/* the view */
	struct block_device *secondary;
	struct block_device *hidden;
	struct block_device *active;
	struct block_device *metadata;	/* or NULL */
	sector_t len;			/* sectors */
	sector_t region_size;		/* sectors */
	const uuid_t *uuid;		/* of metadata; NULL: any */
	u64 min_checkpoint;		/* that metadata must be of */
};

/* What a bio of either target carries. */
struct repl_io {
	struct repl_chain *chain;	/* whose gate it is counted in */
	struct repl_region_op *op;	/* an overwrite's */
	bool view;
	bool reader;
	bool solo;			/* copy its regions one by one */
	bool latched;			/* its error needs no latching */
	bool flush;			/* without data */
	bool fua;			/* and noted has to be what it relies on */
	u8 gen;				/* a reader's */
	sector_t sector;		/* where it begins */
	struct repl_log_entry log;
};

static inline struct repl_io *repl_io(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct repl_io));
}

static inline void repl_io_init(struct bio *bio, struct repl_chain *chain,
				bool view)
{
	struct repl_io *io = repl_io(bio);

	io->chain = chain;
	io->op = NULL;
	io->view = view;
	io->reader = false;
	io->solo = false;
	io->latched = false;
	io->flush = !bio_sectors(bio);
	io->fua = false;
	io->sector = bio->bi_iter.bi_sector;
}

/* First region of a bio with data, and the region after its last. */
static inline u64 repl_bio_begin(struct repl_chain *chain, struct bio *bio)
{
	return bio->bi_iter.bi_sector >> chain->region_shift;
}

static inline u64 repl_bio_end(struct repl_chain *chain, struct bio *bio)
{
	return ((bio_end_sector(bio) - 1) >> chain->region_shift) + 1;
}

static inline sector_t repl_region_sector(struct repl_chain *chain, u64 region)
{
	return (sector_t)region << chain->region_shift;
}

/* Length of regions [begin, end) in sectors; the last may be partial. */
static inline sector_t repl_region_sectors(struct repl_chain *chain, u64 begin,
					   u64 end)
{
	return min_t(sector_t, repl_region_sector(chain, end), chain->len) -
	       repl_region_sector(chain, begin);
}

/* Regions in so many sectors, at least one. */
static inline u64 repl_regions_in(struct repl_chain *chain, sector_t sectors)
{
	return max_t(u64, sectors >> chain->region_shift, 1);
}

/* Regions have changed in a way that a later flush makes durable. */
static inline void repl_chain_note(struct repl_chain *chain,
				   enum repl_extent_op op, u64 begin, u64 end)
{
	if (chain->store)
		repl_log_note(&chain->store->log, op, begin, end);
}

static inline struct block_device *
repl_chain_metadata(const struct repl_chain *chain)
{
	return chain->store ? chain->store->bdev : NULL;
}

/* origin.c: who shares a secondary device */
struct repl_origin {
	struct list_head list;
	dev_t dev;
	unsigned int refs;
	struct repl_chain __rcu *chain;	/* the one ingest writes through */
	struct list_head chains;	/* of all tables, live or not */
	struct list_head ingests;
};

/* A live repl-ingest: its origin's events are its own too. */
struct repl_ingest {
	struct dm_target *ti;
	struct dm_dev *dev;
	struct repl_origin *origin;
	struct list_head list;
};

struct repl_origin *repl_origin_get(dev_t dev);
void repl_origin_put(struct repl_origin *origin);
void repl_origin_add_ingest(struct repl_ingest *ingest);
void repl_origin_del_ingest(struct repl_ingest *ingest);
struct repl_chain *repl_chain_get(struct dm_target *ti,
				  const struct repl_chain_params *params);
void repl_chain_put(struct repl_chain *chain, struct dm_target *ti, bool held);
int repl_chain_attach(struct repl_chain *chain, struct dm_target *ti);
bool repl_chain_set_running(struct repl_chain *chain);
void repl_chain_event(struct repl_chain *chain);
void repl_chain_event_work(struct work_struct *work);

/* chain.c */
struct repl_chain *repl_chain_create(const struct repl_chain_params *params,
				     char **error);
void repl_chain_destroy(struct repl_chain *chain);
void repl_chain_inherit(struct repl_chain *chain, struct repl_chain *old);
int repl_chain_load(struct repl_chain *chain, struct repl_chain *old);
void repl_chain_loaded(struct repl_chain *chain);
void repl_chain_sync(struct repl_chain *chain);
void repl_chain_inherit_errors(struct repl_chain *chain,
			       struct repl_chain *old);
bool repl_chain_enter(struct repl_chain *chain, struct bio *bio, bool may_trim);
void repl_chain_defer(struct repl_chain *chain, struct bio *bio);
void repl_chain_defer_all(struct repl_chain *chain, struct bio_list *bios);
void repl_chain_latch(struct repl_chain *chain, enum repl_error error,
		      int err, sector_t sector);
void repl_chain_end(struct bio *bio, blk_status_t status);
void repl_chain_barrier(struct bio *bio);
enum repl_error repl_chain_dev_error(struct repl_chain *chain, unsigned int dev);
int repl_chain_end_io(struct bio *bio, blk_status_t status);
void repl_chain_copy(struct repl_region_op *op, struct block_device *from,
		     struct block_device *to, dm_kcopyd_notify_fn fn);
void repl_chain_op_end(struct repl_region_op *op, bool error);
int repl_chain_message(struct repl_chain *chain, unsigned int argc,
		       char **argv, char *result, unsigned int maxlen);
void repl_chain_status(struct repl_chain *chain, char *result,
		       unsigned int maxlen);
void repl_chain_merged(struct repl_job *job, bool done);
const char *repl_stage_name(enum repl_stage stage);

/* cbw.c: the write side of ingest */
int repl_cbw_map(struct repl_chain *chain, struct bio *bio);
void repl_cbw_dispatch(struct repl_chain *chain, struct bio **bios,
		       unsigned int nr);
void repl_cbw_grace(struct repl_chain *chain);
sector_t repl_cbw_fill(struct repl_chain *chain, u64 *cursor, u64 end,
		       bool top);

/* view.c: what a user of the chain sees */
int repl_view_map(struct repl_chain *chain, struct bio *bio, bool may_trim);
void repl_view_trim(struct repl_chain *chain, struct bio *bio);
void repl_view_dispatch(struct repl_chain *chain, struct bio *bio);
void repl_view_overwritten(struct repl_chain *chain, struct repl_region_op *op,
			   blk_status_t status);

/* merge.c: failover's copying back */
extern const struct repl_job_type repl_merge_job;
extern const struct repl_job_type repl_fill_full_job;
extern const struct repl_job_type repl_fill_top_job;
void repl_merge_dispatch(struct repl_chain *chain, struct bio *bio);

#endif

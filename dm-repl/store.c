// SPDX-License-Identifier: GPL-2.0-only
/* Store: see store.h. */

#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "store.h"
#include "stores.h"

/**
 * repl_store_io() - read or write, and wait for it
 * @store: store
 * @opf: what, with its flags
 * @block: first block
 * @nr: how many
 * @data: from vmalloc()
 *
 * Context: process. Return: 0 or a negative errno.
 */
int repl_store_io(struct repl_store *store, blk_opf_t opf, u64 block,
		  unsigned int nr, void *data)
{
	struct dm_io_request req = {
		.bi_opf = opf,
		.mem.type = DM_IO_VMA,
		.mem.ptr.vma = data,
		.client = store->client,
	};
	struct dm_io_region where = {
		.bdev = store->bdev,
		.sector = block * REPL_BLOCK_SECTORS,
		.count = (sector_t)nr * REPL_BLOCK_SECTORS,
	};

	return repl_dm_io(&req, &where);
}

static struct repl_store *io_store(struct repl_log_io *io)
{
	return container_of(io, struct repl_store, io);
}

static int store_append(struct repl_log_io *io, u64 block, unsigned int nr,
			void *data)
{
	return repl_store_io(io_store(io), REQ_OP_WRITE | REQ_FUA | REQ_SYNC |
			   REQ_META, block, nr, data);
}

static int store_reread(struct repl_log_io *io, u64 block, unsigned int nr,
			void *data)
{
	return repl_store_io(io_store(io), REQ_OP_READ | REQ_META, block, nr,
			   data);
}

/* Write what was gathered. */
static int store_put_out(struct repl_store *store)
{
	unsigned int nr = store->gathered;

	store->gathered = 0;
	if (!nr)
		return 0;
	return repl_store_io(store, REQ_OP_WRITE | REQ_META, store->gather_block,
			   nr, store->buffer);
}

static int store_write(struct repl_log_io *io, u64 block, const void *data)
{
	struct repl_store *store = io_store(io);
	int r = 0;

	if (store->gathered == REPL_REPLAY_BLOCKS ||
	    block != store->gather_block + store->gathered)
		r = store_put_out(store);
	/* Nothing is left then that would be written with something else. */
	if (r)
		return r;
	if (!store->gathered)
		store->gather_block = block;
	memcpy(store->buffer + store->gathered * REPL_BLOCK_SIZE, data,
	       REPL_BLOCK_SIZE);
	store->gathered++;
	return 0;
}

static int store_sync(struct repl_log_io *io)
{
	struct repl_store *store = io_store(io);
	int r = store_put_out(store);

	return r ? r : blkdev_issue_flush(store->bdev);
}

static int store_flush(struct repl_log_io *io, unsigned int devs)
{
	struct repl_store *store = io_store(io);
	int r = 0;

	if (devs & REPL_LOG_DEV_META)
		r = blkdev_issue_flush(store->bdev);
	devs &= ~REPL_LOG_DEV_META;
	if (!r && devs)
		r = store->ops->flush(store->context, devs);
	return r;
}

static unsigned int store_coming(struct repl_log_io *io)
{
	struct repl_store *store = io_store(io);

	return store->ops->coming ? store->ops->coming(store->context) : 0;
}

static bool store_bits(struct repl_log_io *io, enum repl_disk_map map,
		       u64 begin, unsigned int nr, u8 *bits)
{
	struct repl_store *store = io_store(io);

	return store->ops->bits(store->context, map, begin, nr, bits);
}

static struct repl_store *reader_store(struct repl_reader *reader)
{
	return container_of(reader, struct repl_store, reader);
}

static int store_read(struct repl_reader *reader, u64 block, unsigned int nr,
		      void *data)
{
	return repl_store_io(reader_store(reader), REQ_OP_READ | REQ_META, block,
			   nr, data);
}

static int store_apply(struct repl_reader *reader, enum repl_apply what,
		       u64 begin, u64 end)
{
	struct repl_store *store = reader_store(reader);

	/* 16 TiB are some thousands of blocks. */
	cond_resched();
	return store->ops->apply(store->context, what, begin, end);
}

/* Is the superblock of the chain that the table speaks of? */
static int store_check(struct repl_store *store, struct repl_meta *meta,
		       u64 sectors, u32 region_size, char **error)
{
	u64 blocks = bdev_nr_sectors(store->bdev) / REPL_BLOCK_SECTORS;
	const char *why;
	int r = repl_meta_load(&store->reader, blocks, store->buffer, meta,
			       &why);

	if (r == -ENODATA) {
		*error = "Metadata device is too small for these sizes";
		r = repl_layout_new(&meta->layout, sectors, region_size,
				    blocks);
		meta->generation = 0;
		meta->unrecorded = false;
		meta->created = ktime_get_real_seconds();
		meta->area = REPL_NO_AREA;
		meta->area_generation = 0;
		meta->tail = 1;
		memset(&meta->state, 0, sizeof(meta->state));
		store->blank = true;
		return r;
	}
	if (r) {
		*error = (char *)why;
		return r;
	}
	if (meta->layout.sectors != sectors) {
		*error = "Metadata belongs to a device of another length";
		return -EINVAL;
	}
	if (meta->layout.region_size != region_size) {
		*error = "Metadata belongs to another region size";
		return -EINVAL;
	}
	return 0;
}

/**
 * repl_store_create() - the metadata device for a chain, or a track
 * @md: the mapped device that it belongs to
 * @bdev: device
 * @sectors: length of the chain
 * @region_size: in sectors
 * @ops: what it needs of the chain
 * @context: for @ops
 * @error: set to what failed
 *
 * Reads the superblock, writes nothing.
 *
 * Context: process.
 * Return: the store, or an ERR_PTR.
 */
struct repl_store *repl_store_create(struct mapped_device *md,
				     struct block_device *bdev, u64 sectors,
				     u32 region_size,
				     const struct repl_store_ops *ops,
				     void *context, char **error)
{
	struct repl_store *store = kzalloc(sizeof(*store), GFP_KERNEL);
	struct repl_meta meta;
	int r = -ENOMEM;

	*error = "Cannot allocate metadata store";
	if (!store)
		return ERR_PTR(r);
	store->ops = ops;
	store->context = context;
	store->bdev = bdev;
	store->io = (struct repl_log_io) {
		.append = store_append, .reread = store_reread,
		.write = store_write, .sync = store_sync,
		.flush = store_flush, .coming = store_coming,
		.bits = store_bits,
	};
	store->reader = (struct repl_reader) {
		.read = store_read, .apply = store_apply,
	};
	store->buffer = vmalloc(REPL_REPLAY_BUFFER);
	store->log.wq = repl_alloc_workqueue("dm-repl-log", WQ_HIGHPRI);
	store->log.compact_wq = repl_alloc_workqueue("dm-repl-compact", 0);
	store->client = dm_io_client_create();
	if (!store->buffer || !store->log.wq || !store->log.compact_wq)
		goto bad;
	if (IS_ERR(store->client)) {
		r = PTR_ERR(store->client);
		goto bad;
	}

	*error = "Metadata device belongs to another device of dm-repl";
	r = repl_stores_add(store, md);
	if (r)
		goto bad;
	r = store_check(store, &meta, sectors, region_size, error);
	if (r)
		goto bad;
	*error = "Cannot allocate metadata log";
	r = repl_log_init(&store->log, &store->io, &meta);
	if (r)
		goto bad;
	return store;
bad:
	repl_store_destroy(store);
	return ERR_PTR(r);
}

/**
 * repl_store_destroy() - end of a store
 * @store: store that nobody uses any more
 *
 * Context: process; waits for what is in flight, writes nothing.
 */
void repl_store_destroy(struct repl_store *store)
{
	repl_stores_del(store);
	if (store->log.io)
		repl_log_stop(&store->log);
	if (store->log.compact_wq)
		destroy_workqueue(store->log.compact_wq);
	if (store->log.wq)
		destroy_workqueue(store->log.wq);
	repl_log_exit(&store->log);
	if (!IS_ERR_OR_NULL(store->client))
		dm_io_client_destroy(store->client);
	vfree(store->buffer);
	kfree(store);
}

/**
 * repl_store_open() - read the metadata, and go on from there
 * @store: store
 * @sectors: length of the chain
 * @region_size: in sectors
 * @state: what it says beside the maps
 * @why: on failure, why
 *
 * A blank device is formatted. The log of a table before ends: of two on one
 * device, one writes.
 *
 * Context: process. Return: 0 or a negative errno.
 */
int repl_store_open(struct repl_store *store, u64 sectors, u32 region_size,
		    struct repl_meta_state *state, const char **why)
{
	struct repl_log *log = &store->log;
	struct repl_replayed replayed;
	struct repl_meta meta;
	int r;

	repl_stores_quiesce(store);
	/*
	 * What is read is gone on from. A block whose write failed, or that was
	 * on its way when the machine died, may be in a cache only: if it were
	 * lost after a later one has become durable, that would be damage.
	 */
	*why = "Cannot flush the metadata device";
	r = blkdev_issue_flush(store->bdev);
	if (r)
		return r;
	/* The live table may have written to it since the constructor read it. */
	r = store_check(store, &meta, sectors, region_size, (char **)why);
	if (r)
		return r;
	log->meta = meta;
	log->distrust = false;

	if (store->blank) {
		*why = "Cannot write the metadata superblock";
		r = repl_log_format(log);
		if (r)
			return r;
		store->blank = false;
	}
	r = repl_replay(&store->reader, &log->meta, store->buffer, &replayed,
			why);
	if (r)
		return r;
	if (replayed.state.checkpoint < store->min_checkpoint) {
		*why = "Metadata is of an older checkpoint than it should be";
		return -ESTALE;
	}
	repl_log_begin(log, &replayed);
	*state = replayed.state;
	store->unrecorded = log->meta.unrecorded;
	return 0;
}

/**
 * repl_store_settle() - that all is dirty is in the map from now on
 * @store: store, opened: if it has been told that writes were not recorded
 * @why: on failure, why
 *
 * Until then it is only the superblock that says so, and then no more.
 *
 * Context: process. Return: 0 or a negative errno.
 */
int repl_store_settle(struct repl_store *store, const char **why)
{
	*why = "Cannot write the metadata bitmaps";
	return store->unrecorded ? repl_log_rewrite(&store->log) : 0;
}

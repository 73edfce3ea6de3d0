/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Store: the metadata device of a chain, with the log that lies on it.
 *
 * All I/O to it is dm-io's, in process context. Not dm-bufio's: bitmaps are
 * written once and read once, and a cache keeps a buffer that could not be
 * written and writes it later, over a newer one or while it is destroyed.
 */
#ifndef DM_REPL_STORE_H
#define DM_REPL_STORE_H

#include <linux/blkdev.h>
#include <linux/dm-io.h>

#include "log.h"

struct mapped_device;

/**
 * struct repl_store_ops - what a store needs of its chain, or track
 * @flush: as repl_log_io.flush, but for the metadata device
 * @coming: as repl_log_io.coming; may be NULL
 * @bits: as repl_log_io.bits
 * @apply: as repl_reader.apply
 */
struct repl_store_ops {
	int (*flush)(void *context, unsigned int devs);
	unsigned int (*coming)(void *context);
	bool (*bits)(void *context, enum repl_disk_map map, u64 begin,
		     unsigned int nr, u8 *bits);
	int (*apply)(void *context, enum repl_apply what, u64 begin, u64 end);
};

struct repl_store {
	struct list_head list;		/* stores.c's */
	struct mapped_device *md;	/* whose it is */
	struct repl_log log;
	struct repl_log_io io;
	struct repl_reader reader;
	const struct repl_store_ops *ops;
	void *context;
	struct block_device *bdev;
	struct dm_io_client *client;
	u8 *buffer;			/* REPL_REPLAY_BUFFER; then to gather writes */
	u64 gather_block;
	unsigned int gathered;
	bool blank;			/* to be formatted */
	u64 min_checkpoint;		/* refuse what is older */
	bool unrecorded;		/* when it was opened: so all is dirty */
};

struct repl_store *repl_store_create(struct mapped_device *md,
				     struct block_device *bdev, u64 sectors,
				     u32 region_size,
				     const struct repl_store_ops *ops,
				     void *context, char **error);
int repl_store_io(struct repl_store *store, blk_opf_t opf, u64 block,
		  unsigned int nr, void *data);
void repl_store_destroy(struct repl_store *store);
int repl_store_open(struct repl_store *store, u64 sectors, u32 region_size,
		    struct repl_meta_state *state, const char **why);
int repl_store_settle(struct repl_store *store, const char **why);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copy: ranges of one device to another with kcopyd. Two clients a chain:
 * copy-before-write is never throttled and never waits behind a job.
 */
#ifndef DM_REPL_COPY_H
#define DM_REPL_COPY_H

#include <linux/blkdev.h>
#include <linux/dm-kcopyd.h>

/**
 * repl_copy() - copy a range, identity mapped
 * @client: kcopyd client
 * @from: device to read
 * @to: device to write
 * @sector: start on both, in sectors
 * @count: length in sectors
 * @fn: called from kcopyd's thread when done, with errors apart
 * @context: for @fn
 *
 * Context: process; may wait for earlier copies of this client.
 */
static inline void repl_copy(struct dm_kcopyd_client *client,
			     struct block_device *from, struct block_device *to,
			     sector_t sector, sector_t count,
			     dm_kcopyd_notify_fn fn, void *context)
{
	struct dm_io_region src = {
		.bdev = from, .sector = sector, .count = count,
	};
	struct dm_io_region dst = {
		.bdev = to, .sector = sector, .count = count,
	};

	dm_kcopyd_copy(client, &src, 1, &dst, 0, fn, context);
}

#endif

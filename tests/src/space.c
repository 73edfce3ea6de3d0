// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hidden and active are thin volumes of one pool, and the pool is full: in the
 * middle of ingest, of the view's writes, and after a failover that failed.
 * The pool grows afterwards, and everything goes on.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

#define REGION 128u			/* sectors; a block of the pool, too */
#define BYTES (REGION * SECTOR)
#define REGIONS 64u
#define SECTORS (REGIONS * REGION)
#define SIZE (SECTORS * SECTOR)

static struct repl_set set;
static uint8_t *view, *secondary, *scratch;
static uint64_t tag;

static uint64_t at(uint64_t region)
{
	return region * BYTES;
}

static void pool_grow(unsigned int blocks)
{
	errno = dm_reload_one("space-pool", blocks * REGION, "thin-pool",
			      "%s %s %u 0 1 error_if_no_space", brd(1), brd(2), REGION);
	need(!errno, "the pool grows to %u blocks", blocks);
}

static void begin(unsigned int blocks)
{
	int metadata = dev_open(brd(1)), disk = dev_open(brd(0));
	const char *pool;

	/* A pool is made where the first block is zero. */
	need(!io_fill(metadata, 0, 4096, 0), "no pool yet");
	close(metadata);
	errno = dm_make("space-pool", blocks * REGION, "thin-pool",
			"%s %s %u 0 1 error_if_no_space", brd(1), brd(2), REGION);
	need(!errno, "a pool of %u blocks", blocks);
	errno = dm_message("space-pool", "create_thin 0") ?:
		dm_message("space-pool", "create_thin 1") ?:
		dm_message("space-pool", "create_thin 2");
	need(!errno, "three thin volumes");
	pool = dm_path("space-pool");
	errno = dm_make("space-thin0", SECTORS, "thin", "%s 0", pool) ?:
		dm_make("space-thin1", SECTORS, "thin", "%s 1", pool) ?:
		dm_make("space-thin2", SECTORS, "thin", "%s 2", pool);
	need(!errno, "their devices");

	stamp(secondary, 0, SECTORS, ++tag);
	memcpy(view, secondary, SIZE);
	need(!io_write(disk, 0, SIZE, secondary), "stamps");
	close(disk);
	set_make(&set, "space", SECTORS, REGION, brd(0), dm_path("space-thin0"),
		 dm_path("space-thin1"));
	errno = dm_message(set.view, "start");
	need(!errno, "start");
}

static void end(void)
{
	set_remove(&set);
	ok_errno(dm_remove("space-thin0") ?: dm_remove("space-thin1") ?:
		 dm_remove("space-thin2") ?: dm_remove("space-pool"), 0, "the pool can be removed");
}

/* Somebody else takes what is left. */
static void fill_up(void)
{
	int err = 0, fd = dev_open(dm_path("space-thin2"));

	for (unsigned int i = 0; i < REGIONS && !err; i++)
		err = io_fill(fd, at(i), 4096, 0xff);
	ok_errno(err, ENOSPC, "the pool is full");
	close(fd);
}

static int put(int fd, uint8_t *model, uint64_t offset, size_t len)
{
	int err;

	stamp(scratch, offset / SECTOR, len / SECTOR, ++tag);
	err = io_write(fd, offset, len, scratch);
	if (!err)
		memcpy(model + offset, scratch, len);
	return err;
}

static int ingest(uint64_t offset, size_t len)
{
	return put(set.ingest_fd, secondary, offset, len);
}

static int view_write(uint64_t offset, size_t len)
{
	return put(set.view_fd, view, offset, len);
}

static void exact(const char *when)
{
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact %s", when);
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is exact %s", when);
}

static void in_ingest(void)
{
	struct repl_status before, after;
	int bad = 0;

	section("no space for hidden");
	begin(32);
	for (unsigned int i = 0; i < 8; i++)
		bad += !!ingest(at(i), 4096);
	ok_u64(bad, 0, "ingest writes while there is space");
	fill_up();
	repl_status(set.view, &before);
	ok_errno(ingest(at(40), 4096), EIO, "the write that finds none gets EIO");
	ok_latched(set.view, "cbw-write", EIO, 40 * REGION);
	exact("with the pool full");
	ok_errno(ingest(at(50), 3 * BYTES), EIO, "so does one of several regions");
	ok_errno(ingest(at(6), 30 * BYTES), EIO, "so does one of which some are preserved");
	exact("after that");
	ok_errno(ingest(at(3), 2 * BYTES), 0, "preserved regions take writes");
	ok_errno(dm_message(set.view, "checkpoint"), EIO, "checkpoint is refused");
	repl_status(set.view, &after);
	ok(after.hidden >= before.hidden && !strcmp(after.stage, "running"),
	   "nothing was dropped");
	exact("after that");

	pool_grow(100);
	ok_errno(ingest(at(40), 4096), 0, "with a larger pool it goes on");
	ok_errno(ingest(at(50), 3 * BYTES), 0, "several regions, too");
	exact("with a larger pool");
	ok_errno(dm_message(set.view, "checkpoint"), EIO, "checkpoint waits for the resync");
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_errno(dm_message(set.view, "checkpoint"), 0, "checkpoint");
	memcpy(view, secondary, SIZE);
	exact("after the checkpoint");
	end();

	section("no space for hidden, then failover");
	begin(32);
	for (unsigned int i = 0; i < 4; i++)
		bad += !!ingest(at(i), BYTES);
	ok_u64(bad, 0, "ingest writes while there is space");
	fill_up();
	ok_errno(ingest(at(40), BYTES), EIO, "the write that finds none gets EIO");
	ok_errno(dm_message(set.view, "failover"), 0, "failover needs no space");
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	exact("after it");
	end();
}

static void in_view(void)
{
	int bad = 0;

	section("no space for active");
	begin(32);
	for (unsigned int i = 0; i < 8; i++)
		bad += !!view_write(at(i) + SECTOR, 4096);
	ok_u64(bad, 0, "the view writes while there is space");
	fill_up();
	ok_errno(view_write(at(8), BYTES), ENOSPC, "a write that finds none gets ENOSPC");
	ok_latched(set.view, "view-write", ENOSPC, 8 * REGION);
	ok_errno(view_write(at(9) + SECTOR, SECTOR), EIO, "one of a part gets EIO");
	exact("with the pool full");
	ok_errno(view_write(at(3), 4 * BYTES), 0, "regions in active take writes");
	exact("after that");
	ok_errno(ingest(at(30), BYTES), EIO, "ingest finds none either");
	exact("after that");

	pool_grow(100);
	ok_errno(view_write(at(9) + SECTOR, SECTOR), 0, "with a larger pool it goes on");
	ok_errno(view_write(at(20), 3 * BYTES), 0, "several regions, too");
	ok_errno(ingest(at(30), BYTES), 0, "ingest, too");
	exact("with a larger pool");
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_errno(dm_message(set.view, "checkpoint"), 0, "checkpoint");
	memcpy(view, secondary, SIZE);
	exact("after the checkpoint");
	end();
}

static void in_failover_failed(void)
{
	int bad = 0;

	section("no space after a failover that failed");
	begin(32);
	for (unsigned int i = 0; i < 4; i++)
		bad += !!ingest(at(i), BYTES);
	ok_u64(bad, 0, "ingest writes four regions");
	ok_errno(view_write(at(40), BYTES), 0, "the view writes one");
	fill_up();
	leg_fail(set.secondary, 0, SECTORS, LEG_WRITES);
	ok_errno(dm_message(set.view, "failover"), 0, "failover");
	ok(wait_stage(set.view, "failover-failed"), "the merge fails");
	exact("with the pool full");
	ok_errno(view_write(at(40) + SECTOR, SECTOR), 0, "a write to a region in active");
	ok_errno(view_write(at(2), BYTES), ENOSPC, "one of a region in hidden");
	ok_errno(view_write(at(3) + SECTOR, SECTOR), EIO, "one of a part of such a region");
	exact("after that");

	pool_grow(100);
	ok_errno(view_write(at(2), BYTES), 0, "with a larger pool it goes on");
	ok_errno(view_write(at(3) + SECTOR, SECTOR), 0, "in part, too");
	exact("with a larger pool");
	leg_heal(set.secondary);
	ok_errno(dm_message(set.view, "retry"), 0, "retry");
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	exact("at the end");
	end();
}

int main(void)
{
	watchdog(580);
	console_quiet();
	brd_load(3, 8 * MIB);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	view = io_alloc(SIZE);
	secondary = io_alloc(SIZE);
	scratch = io_alloc(SIZE);

	in_ingest();
	in_view();
	in_failover_failed();
	return tap_end();
}

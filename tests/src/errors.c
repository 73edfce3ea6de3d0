// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each error does: the table of DESIGN.md section 3, row by row.
 *
 * Under each device lies a leg (tests/lib/dm.h) in which a region can be made
 * to fail. A model holds what the view and what the secondary must contain;
 * both are compared whole, after every case.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

#define SECTORS 2048u			/* 1 MiB */
#define SIZE (SECTORS * SECTOR)
#define REGION 8u			/* sectors */
#define BYTES (REGION * SECTOR)
#define REGIONS (SECTORS / REGION)

static struct repl_set set;
static uint8_t *view, *secondary;	/* the model */
static uint8_t *scratch;
static uint64_t tag;			/* of the next stamps: never twice */

/*
 * The set and its model
 */

static void begin_region(const char *a, const char *b, const char *c,
			 unsigned int region)
{
	set_make(&set, "err", SECTORS, region, a, b, c);
	stamp(secondary, 0, SECTORS, ++tag);
	need(!io_write(set.secondary_fd, 0, SIZE, secondary), "stamps");
	memcpy(view, secondary, SIZE);
	need(!io_fill(set.hidden_fd, 0, SIZE, 0xee), "garbage in hidden");
	need(!io_fill(set.active_fd, 0, SIZE, 0xdd), "garbage in active");
	errno = dm_message(set.view, "start");
	need(!errno, "start");
}

static void begin_on(const char *a, const char *b, const char *c)
{
	begin_region(a, b, c, REGION);
}

static void begin(void)
{
	begin_on(brd(0), brd(1), brd(2));
}

static void end(void)
{
	set_remove(&set);
}

/* Regions as sectors and bytes */
static uint64_t sec(uint64_t region)
{
	return region * REGION;
}

static uint64_t at(uint64_t region)
{
	return region * BYTES;
}

/* Writes stamps; the model follows when @want is success. */
static bool write_stamped(int fd, uint8_t *model, uint64_t offset, size_t len,
			  int want, const char *what)
{
	int err;

	stamp(scratch, offset / SECTOR, len / SECTOR, ++tag);
	err = io_write(fd, offset, len, scratch);
	if (!want)
		memcpy(model + offset, scratch, len);
	return ok_errno(err, want, "%s", what);
}

static bool ingest(uint64_t offset, size_t len, int want, const char *what)
{
	return write_stamped(set.ingest_fd, secondary, offset, len, want, what);
}

static bool view_write(uint64_t offset, size_t len, int want, const char *what)
{
	return write_stamped(set.view_fd, view, offset, len, want, what);
}

static void exact(const char *when)
{
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact %s", when);
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is exact %s", when);
}

static uint64_t checkpoint_id(void)
{
	struct repl_status st;

	repl_status(set.view, &st);
	return st.checkpoint;
}

/* Latched: no checkpoint of any kind; nothing moves. */
static void checkpoint_refused(void)
{
	uint64_t id = checkpoint_id();
	struct repl_status st;

	ok_errno(dm_message(set.view, "checkpoint"), EIO, "checkpoint is refused");
	ok_errno(dm_message(set.view, "checkpoint %llu", (unsigned long long)id + 9),
		 EIO, "checkpoint with an id is refused");
	ok_errno(dm_message(set.view, "checkpoint_prepare %llu",
			    (unsigned long long)id + 1), EIO, "prepare is refused");
	repl_status(set.view, &st);
	ok(st.checkpoint == id && !st.is_prepared && !strcmp(st.stage, "running"),
	   "no checkpoint was made");
}

/* After the resync: the latch opens and everything goes on. */
static void recovered(const char *latched)
{
	uint64_t id = checkpoint_id();

	exact("after the device was mended");
	ok_latched(set.view, latched, EIO, ANY_SECTOR);
	ok_errno(dm_message(set.view, "checkpoint"), EIO, "checkpoint is still refused");
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_latched(set.view, "-", 0, 0);
	ok_errno(dm_message(set.view, "checkpoint"), 0, "checkpoint works again");
	ok_u64(checkpoint_id(), id + 1, "its id is the next one");
	memcpy(view, secondary, SIZE);
	exact("after the checkpoint");
	ingest(at(5), BYTES, 0, "the region that failed takes writes again");
	exact("after that");
}

/*
 * Copy-before-write
 */

static void cbw(const char *class, const char *leg, enum leg_fault fault)
{
	struct repl_status before, after;
	uint64_t writes;

	section("%s", class);
	begin();
	ingest(at(2), BYTES, 0, "an ingest write before");
	view_write(at(3), BYTES, 0, "a view write before");
	leg_fail(leg, sec(5), REGION, fault);
	repl_status(set.view, &before);
	writes = leg_writes(set.secondary);
	ingest(at(5), BYTES, EIO, "the ingest write gets EIO");
	ok_u64(leg_writes(set.secondary), writes, "nothing was sent to the secondary");
	ok_latched(set.view, class, EIO, sec(5));
	repl_status(set.view, &after);
	ok(after.hidden == before.hidden && !after.ops, "the region is not preserved");
	ingest(at(5) + SECTOR, SECTOR, EIO, "so does one of a part of the region");
	ingest(at(4), 3 * BYTES, EIO, "so does one of it and its neighbours");
	ok_u64(leg_writes(set.secondary), writes, "still nothing was sent");
	ok_latched(set.view, class, EIO, sec(5));
	checkpoint_refused();
	ingest(at(4), BYTES, 0, "the region before takes writes");
	ingest(at(6), BYTES, 0, "the region after takes writes");
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is exact");
	if (fault == LEG_WRITES)
		exact("while the device fails");
	leg_heal(leg);
	recovered(class);
	end();

	/* The latch is the secondary's, not the run's: a new start is refused. */
	begin();
	leg_fail(leg, sec(5), REGION, fault);
	ingest(at(5), BYTES, EIO, "the ingest write gets EIO");
	leg_heal(leg);
	ok_errno(dm_message(set.view, "stop"), 0, "stop");
	ok_errno(dm_message(set.view, "start"), EIO, "start before the resync is refused");
	ok_stage(set.view, "done");
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_errno(dm_message(set.view, "start"), 0, "start after it");
	exact("after the start");
	end();

	/* Failover is what such an error must never stand in the way of. */
	begin();
	leg_fail(leg, sec(5), REGION, fault);
	ingest(at(5), BYTES, EIO, "the ingest write gets EIO");
	ingest(at(6), BYTES, 0, "another does not");
	leg_heal(leg);
	ok_errno(dm_message(set.view, "failover"), 0, "failover with a latched error");
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	exact("after it");
	end();
}

/*
 * Many writes at once become one copy; a region that fails has to cost only
 * its own writers.
 */
static void cbw_coalesced(const char *class, const char *leg, enum leg_fault fault)
{
	enum { NR = 32 };
	static struct io_req reqs[NR];
	struct io_batch *batch;
	uint8_t *bytes = io_alloc(NR * BYTES);
	unsigned int bad = 0;

	section("%s in a coalesced copy", class);
	begin();
	/* The first write's copy hangs; what follows gathers behind it. */
	leg_hold(leg);
	stamp(bytes, sec(64), NR * REGION, ++tag);
	for (unsigned int i = 0; i < NR; i++)
		reqs[i] = (struct io_req){
			.write = true, .offset = at(64 + i), .len = BYTES,
			.buf = bytes + at(i),
		};
	batch = io_start(set.ingest_fd, reqs, NR);
	ok_u64(io_poll(batch), 0, "no write comes back while the copies hang");
	leg_fail(leg, sec(64 + 17), REGION, fault);
	io_wait(batch);
	for (unsigned int i = 0; i < NR; i++) {
		if (i == 17)
			continue;
		bad += reqs[i].error != 0;
		memcpy(secondary + at(64 + i), bytes + at(i), BYTES);
	}
	ok_errno(reqs[17].error, EIO, "the region that fails: EIO");
	ok_u64(bad, 0, "all others: success");
	ok_latched(set.view, class, EIO, sec(64 + 17));
	leg_heal(leg);
	exact("afterwards");
	end();

	/* A copy ahead of a stream is nobody's: no error, and no latch. */
	section("%s ahead of a stream", class);
	begin();
	leg_fail(leg, sec(100), REGION, fault);
	stamp(secondary, 0, sec(100), ++tag);
	bad = 0;
	for (unsigned int i = 0; i < 100; i += 4)
		bad += !!io_write(set.ingest_fd, at(i), 4 * BYTES, secondary + at(i));
	ok_u64(bad, 0, "writes up to the region that fails: success");
	ok_latched(set.view, "-", 0, 0);
	ingest(at(100), BYTES, EIO, "the write to it gets EIO");
	ok_latched(set.view, class, EIO, sec(100));
	ingest(at(101), BYTES, 0, "the write after it: success");
	leg_heal(leg);
	exact("afterwards");
	end();
}

/*
 * The write itself
 */

static void secondary_write(void)
{
	section("secondary-write");
	begin();
	ingest(at(7), BYTES, 0, "a write that preserves a region");
	leg_fail(set.secondary, sec(5), 3 * REGION, LEG_WRITES);
	ingest(at(5), BYTES, EIO, "a first write gets EIO");
	ok_latched(set.view, "secondary-write", EIO, sec(5));
	exact("while the device fails");
	ingest(at(6) + SECTOR, SECTOR, EIO, "so does a first write of a part");
	ingest(at(7), BYTES, EIO, "so does a write to a preserved region");
	ok_latched(set.view, "secondary-write", EIO, sec(5));
	exact("while the device fails");
	checkpoint_refused();
	leg_heal(set.secondary);
	recovered("secondary-write");
	end();

	/* The first one is latched, also when it is one of a preserved region */
	begin();
	ingest(at(7), BYTES, 0, "a write that preserves a region");
	leg_fail(set.secondary, sec(7) + 3, 1, LEG_WRITES);
	ingest(at(7) + 2 * SECTOR, 3 * SECTOR, EIO, "a write over a bad sector gets EIO");
	ok_latched(set.view, "secondary-write", EIO, sec(7) + 2);
	/* What of a failed write arrived is not said; put back what was there. */
	leg_heal(set.secondary);
	need(!io_write(set.secondary_fd, at(7), BYTES, secondary + at(7)), "repair");
	exact("afterwards");
	end();

	/* Straight through: not a checkpoint's business, and still latched. */
	section("secondary-write in stage none");
	begin();
	ok_errno(dm_message(set.view, "stop"), 0, "stop");
	leg_fail(set.secondary, sec(5), REGION, LEG_WRITES);
	ingest(at(5), BYTES, EIO, "a write that goes straight through gets EIO");
	ok_latched(set.view, "secondary-write", EIO, sec(5));
	ok_errno(dm_message(set.view, "start"), EIO, "start is refused");
	leg_heal(set.secondary);
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_errno(dm_message(set.view, "start"), 0, "start");
	memcpy(view, secondary, SIZE);
	exact("afterwards");
	end();

	section("ingest reads");
	begin();
	leg_fail(set.secondary, sec(5), REGION, LEG_ALL);
	ok_errno(io_read(set.ingest_fd, at(5), BYTES, scratch), EIO,
		 "a read through the ingest gets EIO");
	ok_latched(set.view, "-", 0, 0);
	end();
}

/* A device that has a write cache, so that flushes are sent to it. */
static const char *cached_disk(void)
{
	static const char *path;

	if (!path)
		path = nullb_make("repl0", 2 * MIB, SECTOR, true, true);
	return path;
}

/* One that can neither discard nor write zeroes, on any kernel (brd can on some). */
static const char *plain_disk(void)
{
	static const char *path;

	if (!path)
		path = nullb_make("repl1", 2 * MIB, SECTOR, false, false);
	return path;
}

static void flush(void)
{
	struct repl_status st;
	uint64_t id;

	section("flush at a checkpoint");
	begin_on(cached_disk(), brd(1), brd(2));
	ingest(at(5), BYTES, 0, "an ingest write");
	view_write(at(9), BYTES, 0, "a view write");
	id = checkpoint_id();
	leg_fail(set.secondary, sec(100), REGION, LEG_WRITES);
	ok_errno(dm_message(set.view, "checkpoint"), EIO, "checkpoint fails");
	ok_latched(set.view, "flush", EIO, ANY_SECTOR);
	repl_status(set.view, &st);
	ok(st.checkpoint == id && !strcmp(st.stage, "running"), "no checkpoint was made");
	exact("after it");
	checkpoint_refused();
	ingest(at(6), BYTES, 0, "ingest goes on");
	view_write(at(6), BYTES, 0, "the view goes on");
	leg_heal(set.secondary);
	recovered("flush");

	section("flush at a prepare");
	id = checkpoint_id();
	leg_fail(set.secondary, sec(100), REGION, LEG_WRITES);
	ok_errno(dm_message(set.view, "checkpoint_prepare %llu",
			    (unsigned long long)id + 1), EIO, "prepare fails");
	repl_status(set.view, &st);
	ok(!st.is_prepared, "nothing is prepared");
	ok_latched(set.view, "flush", EIO, ANY_SECTOR);
	ingest(at(7), BYTES, 0, "ingest is not held");
	view_write(at(7), BYTES, 0, "the view is not held");
	leg_heal(set.secondary);
	recovered("flush");

	section("flush of the sender");
	leg_fail(set.secondary, sec(100), REGION, LEG_WRITES);
	ok_errno(io_flush(set.ingest_fd), EIO, "the sender's flush gets EIO");
	ok_latched(set.view, "flush", EIO, ANY_SECTOR);
	checkpoint_refused();
	leg_heal(set.secondary);
	ok_errno(io_flush(set.ingest_fd), 0, "the next flush is good");
	recovered("flush");
	end();

	section("flush at start");
	set_make(&set, "err", SECTORS, REGION, cached_disk(), brd(1), brd(2));
	leg_fail(set.secondary, sec(100), REGION, LEG_WRITES);
	ok_errno(dm_message(set.view, "start"), EIO, "start fails");
	ok_stage(set.view, "none");
	ok_latched(set.view, "flush", EIO, ANY_SECTOR);
	ok_u64(checkpoint_id(), 0, "no checkpoint was made");
	ok_errno(dm_message(set.view, "start"), EIO, "start again is refused");
	leg_heal(set.secondary);
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_errno(dm_message(set.view, "start"), 0, "start");
	ok_u64(checkpoint_id(), 1, "the first checkpoint");
	end();
}

/*
 * The view
 */

/* An error of the view refuses no checkpoint, and stays until it is cleared. */
static void view_error_only(const char *class, uint64_t sector)
{
	ok_latched(set.view, class, EIO, sector);
	ok_errno(dm_message(set.view, "checkpoint"), 0, "a checkpoint is not refused");
	memcpy(view, secondary, SIZE);
	ok_latched(set.view, class, EIO, sector);
	exact("after the checkpoint");
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_latched(set.view, "-", 0, 0);
}

static void view_read_error(const char *what, const char *leg, uint64_t region)
{
	section("view-read, %s", what);
	begin();
	ingest(at(5), BYTES, 0, "region 5 is in hidden");
	view_write(at(9), BYTES, 0, "region 9 is in active");
	leg_fail(leg, sec(region), REGION, LEG_ALL);
	ok_errno(io_read(set.view_fd, at(region), BYTES, scratch), EIO,
		 "the caller gets EIO");
	ok_latched(set.view, "view-read", EIO, sec(region));
	ok_errno(io_read(set.view_fd, at(region) + SECTOR, SECTOR, scratch), EIO,
		 "so does the next");
	ok_content(set.view_fd, at(region + 1), SIZE - at(region + 1),
		   view + at(region + 1), "what follows is exact");
	leg_heal(leg);
	exact("once mended");
	view_error_only("view-read", sec(region));
	end();
}

static void view_write_error(void)
{
	section("view-write");
	begin();
	view_write(at(9), BYTES, 0, "region 9 is in active");
	leg_fail(set.active, sec(8), 2 * REGION, LEG_WRITES);
	view_write(at(8), BYTES, EIO, "a write that replaces a region gets EIO");
	ok_latched(set.view, "view-write", EIO, sec(8));
	exact("afterwards");
	view_write(at(8) + SECTOR, SECTOR, EIO, "so does one of a part");
	view_write(at(9), BYTES, EIO, "so does one to a region in active");
	exact("afterwards");
	ingest(at(8), BYTES, 0, "ingest does not mind");
	exact("afterwards");
	leg_heal(set.active);
	view_write(at(8) + SECTOR, SECTOR, 0, "a write of a part, once mended");
	exact("afterwards");
	view_error_only("view-write", sec(8));
	end();

	section("view-write, backfill cannot read the secondary");
	begin();
	leg_fail(set.secondary, sec(8), REGION, LEG_READS);
	view_write(at(8) + SECTOR, SECTOR, EIO, "a write of a part gets EIO");
	ok_latched(set.view, "view-read", EIO, sec(8));
	leg_heal(set.secondary);
	exact("once mended");
	leg_fail(set.secondary, sec(8), REGION, LEG_READS);
	view_write(at(8), BYTES, 0, "a write that replaces the region needs no backfill");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	leg_heal(set.secondary);
	exact("once mended");
	view_error_only("view-read", sec(8));
	end();

	section("view-write, backfill cannot read hidden");
	begin();
	ingest(at(8), BYTES, 0, "region 8 is in hidden");
	leg_fail(set.hidden, sec(8), REGION, LEG_READS);
	view_write(at(8) + SECTOR, SECTOR, EIO, "a write of a part gets EIO");
	ok_latched(set.view, "view-read", EIO, sec(8));
	leg_heal(set.hidden);
	exact("once mended");
	end();
}

/* Reads ahead may be dropped: what they meet is nobody's error. */
static void read_ahead(void)
{
	unsigned long long before, after;
	char path[64];
	FILE *f;
	int fd;

	section("read-ahead");
	begin();
	leg_fail(set.secondary, sec(5), REGION, LEG_ALL);
	fd = dev_open_buffered(dm_path(set.view));
	snprintf(path, sizeof(path), "/sys/block/dm-%u/stat", dm_minor(set.view));
	f = fopen(path, "r");
	need(f && fscanf(f, "%*u %*u %llu", &before) == 1, "%s", path);
	fclose(f);
	need(!posix_fadvise(fd, at(4), 3 * BYTES, POSIX_FADV_WILLNEED), "fadvise");
	/* It has ended when the device is suspended. */
	errno = dm_suspend(set.view, 0) ?: dm_resume(set.view);
	need(!errno, "suspend and resume");
	f = fopen(path, "r");
	need(f && fscanf(f, "%*u %*u %llu", &after) == 1, "%s", path);
	fclose(f);
	ok(after > before, "pages were read ahead");
	ok_latched(set.view, "-", 0, 0);
	ok_errno(io_read(fd, at(5), BYTES, scratch), EIO, "a read gets EIO");
	ok_latched(set.view, "view-read", EIO, ANY_SECTOR);
	close(fd);
	leg_heal(set.secondary);
	exact("once mended");
	end();
}

/*
 * Merge
 */

/* hidden: 20, 21, 40; active: 21, 30, 41. */
static void diverge(void)
{
	ingest(at(20), 2 * BYTES, 0, "ingest writes regions 20, 21");
	ingest(at(40) + SECTOR, SECTOR, 0, "ingest writes a part of region 40");
	view_write(at(21), BYTES, 0, "the view writes region 21");
	view_write(at(30), BYTES, 0, "the view writes region 30");
	view_write(at(41) + 2 * SECTOR, SECTOR, 0, "the view writes a part of region 41");
}

static void failover_fails(const char *class, uint64_t sector)
{
	ok_errno(dm_message(set.view, "failover"), 0, "failover");
	ok(wait_stage(set.view, "failover-failed"), "the merge fails");
	ok_latched(set.view, class, EIO, sector);
	ok_ingest(set.ingest, "failover-failed", "bound", "fenced");
}

static void failover_succeeds(void)
{
	struct repl_status st;

	ok_errno(dm_message(set.view, "retry"), 0, "retry");
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	exact("after the merge");
	repl_status(set.view, &st);
	ok_u64(st.hidden + st.active, 0, "nothing is left to merge");
	ok(!strcmp(st.job, "merge") && !strcmp(st.job_state, "done") &&
	   st.job_done == st.job_total, "the job is done, all of it");
	ok_ingest(set.ingest, "done", "bound", "fenced");
	ok_errno(io_write(set.ingest_fd, 0, SECTOR, scratch), EIO, "ingest stays fenced");
	view_write(at(50), 3 * BYTES, 0, "the view writes");
	memcpy(secondary, view, SIZE);
	exact("at the end");
}

static void merge_write(void)
{
	struct repl_status st;

	section("merge-write");
	begin();
	diverge();
	leg_fail(set.secondary, sec(60), REGION, LEG_READS);
	ok_errno(io_read(set.view_fd, at(60), BYTES, scratch), EIO, "a read fails, before");
	leg_heal(set.secondary);
	leg_fail(set.secondary, sec(30), REGION, LEG_WRITES);
	ok_errno(dm_message(set.view, "failover"), 0, "failover");
	ok(wait_stage(set.view, "failover-failed"), "the merge fails");
	ok_latched(set.view, "view-read,merge-write", EIO, sec(60));
	ok_ingest(set.ingest, "failover-failed", "bound", "fenced");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_errno(io_write(set.ingest_fd, 0, SECTOR, scratch), EIO, "ingest is fenced");
	ok_errno(dm_message(set.view, "checkpoint"), EBUSY, "checkpoint");
	ok_errno(dm_message(set.view, "start"), EBUSY, "start");
	ok_errno(dm_message(set.view, "stop"), EBUSY, "stop");
	ok_errno(dm_message(set.view, "failover"), EBUSY, "failover again");
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_latched(set.view, "merge-write", EIO, sec(30));

	ok_errno(dm_message(set.view, "retry"), 0, "retry while it still fails");
	ok(wait_stage(set.view, "failover-failed"), "fails again");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");

	section("merge-write, degraded");
	view_write(at(30) + SECTOR, SECTOR, 0, "a write to the region that cannot be merged");
	view_write(at(60), BYTES, 0, "a write to a region that is on the secondary only");
	ok_content(set.secondary_fd, at(60), BYTES, view + at(60),
		   "it is on the secondary");
	view_write(at(29), 3 * BYTES, 0, "a write across: secondary, active, secondary");
	ok_content(set.secondary_fd, at(29), BYTES, view + at(29), "its start is on the secondary");
	ok_content(set.secondary_fd, at(31), BYTES, view + at(31), "its end is on the secondary");
	ok_content(set.active_fd, at(30), BYTES, view + at(30), "its middle is in active");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	repl_status(set.view, &st);
	ok_str(st.stage, "failover-failed", "the stage is as it was");
	leg_heal(set.secondary);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact once mended");
	failover_succeeds();
	end();
}

/* Everything fails: what hidden alone has is then still in hidden. */
static void merge_write_hidden(void)
{
	struct repl_status before, after;

	section("merge-write, all of the secondary");
	begin();
	diverge();
	leg_fail(set.secondary, 0, SECTORS, LEG_WRITES);
	failover_fails("merge-write", ANY_SECTOR);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is as it was");
	repl_status(set.view, &before);
	ok(before.hidden == 3 && before.active == 3, "nothing was dropped");
	view_write(at(20) + SECTOR, 2 * SECTOR, 0, "a write of a part of a region in hidden");
	repl_status(set.view, &after);
	ok_u64(after.active, before.active + 1, "it went to active");
	ok_content(set.active_fd, at(20), BYTES, view + at(20), "with the rest of its region");
	view_write(at(40), BYTES, 0, "a write of all of a region in hidden");
	view_write(at(21), BYTES, 0, "a write of a region in both");
	view_write(at(60), BYTES, EIO, "a write to the secondary gets EIO");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is as it was");
	leg_heal(set.secondary);
	failover_succeeds();
	end();
}

static void merge_read(const char *what, const char *leg, uint64_t region)
{
	section("merge-read, %s", what);
	begin();
	diverge();
	leg_fail(leg, sec(region), REGION, LEG_ALL);
	failover_fails("merge-read", sec(region));
	ok_errno(io_read(set.view_fd, at(region), BYTES, scratch), EIO,
		 "a read of that region gets EIO, not what lies below");
	ok_content(set.view_fd, 0, at(region), view, "what comes before is exact");
	ok_content(set.view_fd, at(region + 1), SIZE - at(region + 1),
		   view + at(region + 1), "what follows is exact");
	leg_heal(leg);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact once mended");
	failover_succeeds();
	end();
}

static void merge_flush(void)
{
	section("merge-flush");
	begin_on(cached_disk(), brd(1), brd(2));
	diverge();
	leg_fail(set.secondary, sec(100), REGION, LEG_WRITES);
	failover_fails("merge-flush", ANY_SECTOR);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	view_write(at(20), BYTES, 0, "a write");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	leg_heal(set.secondary);
	failover_succeeds();
	end();
}

/* A writer needs a region merged at once, and it cannot be. */
static void merge_for_writer(void)
{
	struct io_req req;
	struct io_batch *batch;

	section("merge for a writer");
	begin();
	diverge();
	leg_fail(set.secondary, sec(30), REGION, LEG_WRITES);
	/* The job sleeps after its first piece: 4 KiB a day. */
	ok_errno(dm_message(set.view, "job speed 1"), 0, "a job that crawls");
	ok_errno(dm_message(set.view, "failover"), 0, "failover");
	ok_errno(dm_message(set.view, "job pause"), 0, "it is held");
	ok_stage(set.view, "failover");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	view_write(at(41) + SECTOR, SECTOR, 0, "a write to a region that can be merged");
	ok_content(set.view_fd, at(41), BYTES, view + at(41), "it reads as written");
	ok_content(set.secondary_fd, at(41), BYTES, view + at(41), "it is on the secondary");
	memcpy(secondary + at(41), view + at(41), BYTES);

	stamp(scratch, sec(30) + 1, 2, ++tag);
	req = (struct io_req){
		.write = true, .offset = at(30) + SECTOR, .len = 2 * SECTOR,
		.buf = scratch,
	};
	batch = io_start(set.view_fd, &req, 1);
	io_wait(batch);
	ok_errno(req.error, 0, "a write to one that cannot waits, and goes to active");
	memcpy(view + at(30) + SECTOR, scratch, 2 * SECTOR);
	ok(wait_stage(set.view, "failover-failed"), "the failover has failed");
	ok_latched(set.view, "merge-write", EIO, sec(30));
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	leg_heal(set.secondary);
	ok_errno(dm_message(set.view, "job speed 0"), 0, "a job that runs");
	failover_succeeds();
	end();
}

/*
 * Writers that wait for the last region to be merged go on just when the stage
 * becomes done: none of their writes may go to active any more.
 */
static void writers_of_the_last_merge(void)
{
	enum { NR = 128, ROUNDS = 30, LEN = NR * SECTOR };
	static struct io_req reqs[NR];
	unsigned int bad = 0, wrong = 0;

	section("writers that wait for the last merge");
	begin_region(brd(0), brd(1), brd(2), NR);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct io_batch *batch;

		stamp(secondary, 0, NR, ++tag);
		bad += !!io_write(set.ingest_fd, 0, LEN, secondary);
		leg_hold(set.secondary);
		errno = dm_message(set.view, "failover");
		need(!errno, "failover");
		/* The job's copy, or the first writer's, hangs: the others wait. */
		stamp(view, 0, NR, ++tag);
		for (unsigned int i = 0; i < NR; i++)
			reqs[i] = (struct io_req){
				.write = true, .offset = i * SECTOR,
				.len = SECTOR, .buf = view + i * SECTOR,
			};
		batch = io_start(set.view_fd, reqs, NR);
		leg_heal(set.secondary);
		io_wait(batch);
		for (unsigned int i = 0; i < NR; i++)
			bad += reqs[i].error != 0;
		need(wait_stage(set.view, "done"), "the merge ends");
		wrong += io_differs(set.view_fd, 0, LEN, view) != -1;
		wrong += io_differs(set.secondary_fd, 0, LEN, view) != -1;
		memcpy(secondary, view, LEN);
		need(!io_write(set.view_fd, 0, LEN, view), "repair");
		errno = dm_message(set.view, "start");
		need(!errno, "start");
	}
	ok_u64(bad, 0, "all writes succeed, %u times", ROUNDS);
	ok_u64(wrong, 0, "all writes are there");
	exact("afterwards");
	end();
}

/*
 * fill
 */

static void fill(void)
{
	struct repl_status st;

	section("fill");
	begin();
	leg_fail(set.hidden, sec(77), REGION, LEG_WRITES);
	ok_errno(dm_message(set.view, "fill full"), 0, "fill");
	ok(wait_job(set.view, "failed"), "it fails");
	repl_status(set.view, &st);
	ok_str(st.stage, "running", "the stage is as it was");
	exact("afterwards");
	ingest(at(77), BYTES, EIO, "the region that could not be preserved: EIO");
	exact("afterwards");
	leg_heal(set.hidden);
	ok_errno(dm_message(set.view, "clear_error"), 0, "clear_error");
	ok_errno(dm_message(set.view, "fill full"), 0, "fill again");
	ok(wait_job(set.view, "done"), "it ends");
	repl_status(set.view, &st);
	ok_u64(st.hidden, REGIONS, "all regions are preserved");
	ok_content(set.hidden_fd, 0, SIZE, view, "hidden is the checkpoint");
	ingest(0, SIZE, 0, "ingest writes everything");
	exact("afterwards");
	end();
}

/*
 * Discard and write-zeroes through ingest
 */

static void zeroes(void)
{
	const char *disk = loop_make(SIZE);

	section("discard and zeroes");
	begin_on(disk, brd(1), brd(2));
	ok_errno(io_discard(set.ingest_fd, at(3) + SECTOR, 5 * BYTES), 0, "discard");
	memset(secondary + at(3) + SECTOR, 0, 5 * BYTES);
	exact("after the discard");
	ok_errno(io_zeroes(set.ingest_fd, at(12) - SECTOR, 9 * BYTES), 0, "write-zeroes");
	memset(secondary + at(12) - SECTOR, 0, 9 * BYTES);
	exact("after the zeroes");
	leg_fail(set.hidden, sec(50), REGION, LEG_WRITES);
	ok_errno(io_discard(set.ingest_fd, at(50), BYTES), EIO,
		 "a discard of what cannot be preserved");
	ok_latched(set.view, "cbw-write", EIO, sec(50));
	exact("afterwards");
	ok_errno(io_zeroes(set.ingest_fd, at(50) + SECTOR, SECTOR), EIO,
		 "zeroes for what cannot be preserved");
	exact("afterwards");
	leg_heal(set.hidden);
	recovered("cbw-write");
	ok(io_discard(set.view_fd, at(1), BYTES) == EOPNOTSUPP,
	   "the view supports no discard");
	exact("afterwards");
	ok_latched(set.view, "-", 0, 0);
	end();

	/* A secondary that can do neither. */
	section("discard and zeroes that are not supported");
	begin_on(plain_disk(), brd(1), brd(2));
	ok_errno(io_discard(set.ingest_fd, at(3), BYTES), EOPNOTSUPP, "discard");
	ok_latched(set.view, "-", 0, 0);
	exact("afterwards");
	ok_errno(io_zeroes(set.ingest_fd, at(3) + SECTOR, BYTES), 0,
		 "zeroes are written as data");
	memset(secondary + at(3) + SECTOR, 0, BYTES);
	ok_latched(set.view, "-", 0, 0);
	exact("afterwards");
	end();
}

/*
 * The primary
 */

static struct primary {
	int fd, local_fd, peer_fd;	/* the target; the backing devices */
	uint8_t *local, *peer;		/* the model */
	bool async;
} primary;

#define PRIMARY "err-primary"
#define LOCAL "err-local"
#define PEER "err-peer"

static void primary_begin(const char *local, const char *peer)
{
	leg_make(LOCAL, local, SECTORS);
	leg_make(PEER, peer, SECTORS);
	errno = dm_make(PRIMARY, SECTORS, "repl-primary", "%s %s - %u 1 sync",
			dm_path(LOCAL), dm_path(PEER), REGION);
	need(!errno, "a repl-primary");
	primary.fd = dev_open(dm_path(PRIMARY));
	primary.local_fd = dev_open(local);
	primary.peer_fd = dev_open(peer);
	primary.local = secondary;
	primary.peer = view;
	primary.async = false;
	stamp(primary.local, 0, SECTORS, ++tag);
	memcpy(primary.peer, primary.local, SIZE);
	need(!io_write(primary.local_fd, 0, SIZE, primary.local), "stamps");
	need(!io_write(primary.peer_fd, 0, SIZE, primary.peer), "stamps");
}

static void primary_end(void)
{
	close(primary.fd);
	close(primary.local_fd);
	close(primary.peer_fd);
	ok_errno(dm_remove(PRIMARY), 0, "the primary can be removed");
	ok_errno(dm_remove(LOCAL), 0, "its local leg can be removed");
	ok_errno(dm_remove(PEER), 0, "its peer leg can be removed");
}

static void primary_write(uint64_t offset, size_t len, bool forwarded, const char *what)
{
	write_stamped(primary.fd, primary.local, offset, len, 0, what);
	if (forwarded)
		memcpy(primary.peer + offset, primary.local + offset, len);
}

/* What local has refused may be in part there: it is pushed, by itself. */
static void primary_caught_up(void)
{
	struct repl_primary_status st;

	for (;;) {
		uint32_t nr = dm_event_nr(PRIMARY);

		repl_primary_status(PRIMARY, &st);
		if (!st.dirty && strcmp(st.job_state, "running"))
			return;
		dm_wait_event(PRIMARY, nr);
	}
}

static void primary_exact(const char *when)
{
	/* In mode async the peer has it when a cut after it is drained. */
	if (primary.async) {
		primary_caught_up();
		errno = dm_message(PRIMARY, "cut 1") ?: dm_message(PRIMARY, "drain 1") ?:
			dm_message(PRIMARY, "release 1");
		need(!errno, "what was sent arrives");
	}
	ok_content(primary.fd, 0, SIZE, primary.local, "the primary is exact %s", when);
	ok_content(primary.local_fd, 0, SIZE, primary.local,
		   "the local disk is exact %s", when);
	ok_content(primary.peer_fd, 0, SIZE, primary.peer, "the peer is exact %s", when);
}

static void primary_is(const char *stage, const char *peer, uint64_t writes,
		       uint64_t forwarded)
{
	struct repl_primary_status st;

	repl_primary_status(PRIMARY, &st);
	ok(!strcmp(st.stage, stage) && !strcmp(st.peer, peer) &&
	   st.writes == writes && st.forwarded == forwarded &&
	   st.missed == writes - forwarded,
	   "%s, peer %s, %llu writes, %llu forwarded%s%s", stage, peer,
	   (unsigned long long)writes, (unsigned long long)forwarded,
	   tap_failures() ? ": " : "", tap_failures() ? st.line : "");
}

static void peer_write(void)
{
	uint32_t events;

	section("peer-write");
	primary_begin(brd(0), brd(1));
	primary_write(at(1), BYTES, true, "a write");
	primary_is("running", "attached", 1, 1);
	events = dm_event_nr(PRIMARY);
	leg_fail(PEER, sec(5), REGION, LEG_ALL);
	primary_write(at(5), BYTES, false, "a write that the peer fails succeeds");
	ok(wait_peer(PRIMARY, "failed"), "the peer has failed");
	/* Raised by a work item: wait, do not look. */
	ok(!dm_wait_event(PRIMARY, events), "an event said so");
	ok_primary_latched(PRIMARY, "peer-write", EIO, sec(5));
	primary_is("none", "failed", 2, 1);
	primary_write(at(6), 2 * BYTES, false, "a write after that");
	primary_is("none", "failed", 3, 1);
	primary_exact("while detached");
	leg_heal(PEER);
	primary_write(at(5), BYTES, false, "a mended peer is not written to");
	primary_exact("while detached");
	ok_primary_latched(PRIMARY, "peer-write", EIO, sec(5));

	ok_errno(dm_message(PRIMARY, "attach %s", dm_path(PEER)), 0, "attach");
	ok_primary_latched(PRIMARY, "-", 0, 0);
	primary_write(at(9), BYTES, true, "a write");
	primary_is("running", "attached", 5, 2);
	primary_exact("while attached");

	leg_fail(PEER, sec(5), REGION, LEG_ALL);
	ok_errno(io_read(primary.fd, at(5), BYTES, scratch), 0, "reads are local");
	ok_primary_latched(PRIMARY, "-", 0, 0);
	primary_is("running", "attached", 5, 2);
	leg_heal(PEER);

	/* A write across: the part that the peer took is not said. */
	leg_fail(PEER, sec(6), REGION, LEG_ALL);
	primary_write(at(5), 3 * BYTES, false, "a write that the peer fails in part");
	ok(wait_peer(PRIMARY, "failed"), "the peer has failed");
	leg_heal(PEER);
	need(!io_write(primary.peer_fd, at(5), 3 * BYTES, primary.peer + at(5)), "repair");
	primary_exact("afterwards");
	ok_errno(dm_message(PRIMARY, "detach"), 0, "detach of a failed peer");
	primary_end();
}

static void peer_flush(void)
{
	section("peer-flush");
	primary_begin(loop_make(SIZE), loop_make(SIZE));
	primary_write(at(1), BYTES, true, "a write");
	ok_errno(io_flush(primary.fd), 0, "a flush");
	primary_is("running", "attached", 1, 1);
	leg_fail(PEER, sec(100), REGION, LEG_WRITES);
	ok_errno(io_flush(primary.fd), 0, "a flush that the peer fails succeeds");
	ok(wait_peer(PRIMARY, "failed"), "the peer has failed");
	ok_primary_latched(PRIMARY, "peer-flush", EIO, ANY_SECTOR);
	primary_is("none", "failed", 1, 1);
	leg_heal(PEER);
	primary_exact("afterwards");

	section("local flush");
	ok_errno(dm_message(PRIMARY, "attach %s", dm_path(PEER)), 0, "attach");
	leg_fail(LOCAL, sec(100), REGION, LEG_WRITES);
	ok_errno(io_flush(primary.fd), EIO, "a flush that the local disk fails fails");
	ok_primary_latched(PRIMARY, "-", 0, 0);
	leg_heal(LOCAL);
	ok_errno(io_flush(primary.fd), 0, "the next is good");
	primary_is("running", "attached", 1, 1);
	primary_end();
}

static void local_error(void)
{
	section("local leg");
	primary_begin(brd(0), brd(1));
	leg_fail(LOCAL, sec(5), REGION, LEG_ALL);
	ok_errno(io_read(primary.fd, at(5), BYTES, scratch), EIO, "a read gets EIO");
	write_stamped(primary.fd, primary.local, at(5), BYTES, EIO, "a write gets EIO");
	/* Nobody knows what is there now: it is copied, as soon as it can be read. */
	ok(wait_push(PRIMARY, "failed"), "the push of its region fails");
	ok_primary_latched(PRIMARY, "push-read", EIO, sec(5));
	primary_write(at(6), BYTES, true, "a write beside it");
	leg_heal(LOCAL);
	write_stamped(primary.fd, primary.local, at(5), BYTES, 0, "a write, once mended");
	memcpy(primary.peer + at(5), primary.local + at(5), BYTES);
	ok_errno(dm_message(PRIMARY, "push dirty"), 0, "push dirty, once mended");
	ok(wait_push(PRIMARY, "done"), "the push is done");
	primary_is("running", "attached", 3, 3);
	primary_exact("afterwards");
	primary_end();
}

/* @attach: the peer comes when the limits of the primary are long decided. */
static void peer_not_supported(bool attach)
{
	int err;

	section("peer without discard and zeroes, %s", attach ? "attached, async" : "in the table");
	primary_begin(loop_make(SIZE), plain_disk());
	if (attach) {
		primary.async = true;
		errno = dm_reload_one(PRIMARY, SECTORS, "repl-primary", "%s - - %u 1 async",
				      dm_path(LOCAL), REGION) ?:
			dm_message(PRIMARY, "attach %s", dm_path(PEER));
		need(!errno, "attach");
	}
	ok_errno(io_discard(primary.fd, at(3), 2 * BYTES), 0, "discard");
	memset(primary.local + at(3), 0, 2 * BYTES);
	primary_exact("after the discard");
	ok_primary_latched(PRIMARY, "-", 0, 0);
	ok_errno(io_zeroes(primary.fd, at(10) + SECTOR, 3 * BYTES), 0, "write-zeroes");
	memset(primary.local + at(10) + SECTOR, 0, 3 * BYTES);
	memset(primary.peer + at(10) + SECTOR, 0, 3 * BYTES);
	primary_exact("after the zeroes");
	err = io_zeroes_or_fail(primary.fd, at(20), SIZE - at(20));
	if (!err) {
		memset(primary.local + at(20), 0, SIZE - at(20));
		memset(primary.peer + at(20), 0, SIZE - at(20));
	} else {
		ok_errno(err, EOPNOTSUPP, "zeroes that must not be written as data");
	}
	primary_exact("after zeroes that must not be written as data");
	ok_primary_latched(PRIMARY, "-", 0, 0);
	ok(wait_peer(PRIMARY, "attached"), "the peer is still attached");
	primary_write(at(3), BYTES, true, "a write");
	primary_exact("afterwards");
	primary_end();
}

/*
 * The local disk can neither discard nor write zeroes any more, and says so: the
 * sender believes that nothing has changed, and on the peer nothing has.
 */
static void local_not_supported(void)
{
	section("local leg that loses discard and zeroes");
	primary_begin(loop_make(SIZE), loop_make(SIZE));
	ok_errno(io_discard(primary.fd, at(3), BYTES), 0, "discard");
	memset(primary.local + at(3), 0, BYTES);
	memset(primary.peer + at(3), 0, BYTES);
	primary_exact("after the discard");
	close(primary.local_fd);
	errno = dm_reload_one(LOCAL, SECTORS, "linear", "%s 0", plain_disk());
	need(!errno, "another disk under the local leg");
	primary.local_fd = dev_open(plain_disk());
	need(!io_write(primary.local_fd, 0, SIZE, primary.local), "stamps");

	ok_errno(io_discard(primary.fd, at(5), BYTES), 0, "discard, a hint only");
	primary_exact("after the discard that the local disk refused");
	ok_errno(io_zeroes_or_fail(primary.fd, at(7), BYTES), EOPNOTSUPP, "write-zeroes");
	primary_exact("after the zeroes that the local disk refused");
	ok_primary_latched(PRIMARY, "-", 0, 0);
	primary_write(at(5), 3 * BYTES, true, "a write");
	primary_exact("afterwards");
	primary_end();
}

int main(void)
{
	watchdog(580);
	console_quiet();
	brd_load(3, SIZE);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	view = io_alloc(SIZE);
	secondary = io_alloc(SIZE);
	scratch = io_alloc(SIZE);

	cbw("cbw-read", "err-secondary", LEG_READS);
	cbw("cbw-write", "err-hidden", LEG_WRITES);
	cbw_coalesced("cbw-read", set.secondary, LEG_READS);
	cbw_coalesced("cbw-write", set.hidden, LEG_WRITES);
	secondary_write();
	flush();
	view_read_error("secondary", "err-secondary", 7);
	view_read_error("hidden", "err-hidden", 5);
	view_read_error("active", "err-active", 9);
	view_write_error();
	read_ahead();
	merge_write();
	merge_write_hidden();
	merge_read("hidden", "err-hidden", 40);
	merge_read("active", "err-active", 30);
	merge_flush();
	merge_for_writer();
	writers_of_the_last_merge();
	fill();
	zeroes();
	peer_write();
	peer_flush();
	local_error();
	peer_not_supported(false);
	peer_not_supported(true);
	local_not_supported();
	return tap_end();
}

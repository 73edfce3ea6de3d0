// SPDX-License-Identifier: GPL-2.0-only
/*
 * A repl-secondary with a metadata device: what it knows after it was removed
 * and made again, what it refuses, and what each error of that device does.
 * What a crash leaves is tests/crash's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "repl.h"

#define SECTORS 2048u			/* 1 MiB */
#define SIZE (SECTORS * SECTOR)
#define REGION 8u			/* sectors */
#define BYTES (REGION * SECTOR)
#define BLOCK 4096u
#define LOG_START 10u			/* block: 2 superblocks, 2 areas of 1 + 3 */

static struct repl_set set;
static uint8_t *view, *secondary;	/* the model */
static uint8_t *scratch;
static uint64_t tag;

static uint64_t sec(uint64_t region)
{
	return region * REGION;
}

static uint64_t at(uint64_t region)
{
	return region * BYTES;
}

static void begin(void)
{
	set_make(&set, "md", SECTORS, REGION, brd(0), brd(1), brd(2));
	stamp(secondary, 0, SECTORS, ++tag);
	need(!io_write(set.secondary_fd, 0, SIZE, secondary), "stamps");
	memcpy(view, secondary, SIZE);
	need(!io_fill(set.hidden_fd, 0, SIZE, 0xee), "garbage in hidden");
	need(!io_fill(set.active_fd, 0, SIZE, 0xdd), "garbage in active");
	errno = dm_message(set.view, "start");
	need(!errno, "start");
}

static void end(void)
{
	set_remove(&set);
}

static void again(const char *what)
{
	set_take_down(&set);
	ok_errno(set_bring_up(&set), 0, "%s: it can be made again", what);
}

static bool write_stamped(int fd, uint8_t *model, uint64_t offset, size_t len, int want,
			  const char *what)
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

static void message(const char *text, int want)
{
	ok_errno(dm_message_text(set.view, text), want, "%s", text);
}

static void ok_state(const char *stage, uint64_t checkpoint, const char *when)
{
	struct repl_status st;

	repl_status(set.view, &st);
	ok_str(st.stage, stage, "the stage %s", when);
	ok_u64(st.checkpoint, checkpoint, "the checkpoint id %s", when);
}

/* What is preserved stays so; what the view wrote does not. */
static void running(void)
{
	uint8_t *base = io_alloc(SIZE);
	struct repl_status st;

	section("running");
	begin();
	memcpy(base, view, SIZE);
	ingest(at(2), BYTES, 0, "an ingest write");
	ingest(at(100) + SECTOR, 3 * BYTES, 0, "one across regions");
	view_write(at(50), 2 * BYTES, 0, "a view write");
	exact("before");
	again("running");
	memcpy(view, base, SIZE);	/* the checkpoint */
	ok_state("running", 1, "afterwards");
	exact("afterwards");
	repl_status(set.view, &st);
	ok_u64(st.active, 0, "active is empty");
	ingest(at(2), BYTES, 0, "a write to a preserved region");
	ingest(at(7), BYTES, 0, "a write to another");
	exact("after more writes");
	again("a second time");
	exact("a second time");

	message("checkpoint 7", 0);
	memcpy(view, secondary, SIZE);
	ingest(at(9), BYTES, 0, "a write after the checkpoint");
	again("after a checkpoint");
	ok_state("running", 7, "after a checkpoint");
	exact("after a checkpoint");
	end();
}

static void prepared(void)
{
	struct repl_status st;

	section("prepared");
	begin();
	ingest(at(2), BYTES, 0, "an ingest write");
	message("checkpoint_prepare 5", 0);
	again("prepared");
	repl_status(set.view, &st);
	ok(st.is_prepared && st.prepared == 5, "it is still prepared");
	ok_state("running", 1, "while it is prepared");
	exact("while it is prepared");
	ingest(at(3), BYTES, EIO, "no ingest write until it is decided");
	ok_latched(set.view, "-", 0, 0);
	exact("after that");
	message("checkpoint", EBUSY);
	message("checkpoint_abort 4", EBUSY);
	message("checkpoint_abort 5", 0);
	ingest(at(3), BYTES, 0, "ingest writes after the abort");
	exact("after the abort");
	message("checkpoint_prepare 6", 0);
	again("prepared again");
	message("checkpoint_commit 6", 0);
	memcpy(view, secondary, SIZE);
	ok_state("running", 6, "after the commit");
	exact("after the commit");
	ingest(at(4), BYTES, 0, "ingest writes after the commit");
	message("checkpoint_prepare 7", 0);
	again("prepared a third time");
	message("failover", 0);
	ok(wait_stage(set.view, "done"), "a failover of what was only prepared");
	memcpy(secondary, view, SIZE);
	exact("after the failover");
	end();
}

/* A failover goes on where it was; nothing is merged over what is newer. */
static void failover(void)
{
	struct repl_status st;

	section("failover");
	begin();
	for (unsigned int i = 0; i < 40; i++)
		need(!io_write(set.ingest_fd, at(3 * i), BYTES, scratch), "ingest writes");
	ingest(at(120), 8 * BYTES, 0, "an ingest write");
	view_write(at(10) + SECTOR, BYTES, 0, "a view write");
	view_write(at(200), 4 * BYTES, 0, "another view write");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact before");
	message("job speed 1", 0);
	message("failover", 0);
	repl_status(set.view, &st);
	ok_str(st.stage, "failover", "the merge takes its time");
	view_write(at(3), BYTES, 0, "a view write to a region that waits");
	view_write(at(6) + SECTOR, SECTOR, 0, "one to a part");
	view_write(at(202), BYTES, 0, "one to what was in active");
	ok_errno(io_flush(set.view_fd), 0, "flush of the view");
	view_write(at(9), BYTES, 0, "one after the flush");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact while it merges");
	again("in the middle of a merge");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact after it");
	ok_errno(io_write(set.ingest_fd, 0, BYTES, scratch), EIO, "ingest is fenced still");
	message("job speed 0", 0);
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	exact("after the merge");
	again("after the merge");
	ok_state("done", 1, "after the merge");
	ok_errno(io_write(set.ingest_fd, 0, BYTES, scratch), EIO, "ingest is fenced still");
	view_write(at(3), 9 * BYTES, 0, "a view write");
	memcpy(secondary, view, SIZE);
	again("after a view write");
	exact("after a view write");
	message("start", 0);
	ingest(at(3), BYTES, 0, "an ingest write of the next run");
	exact("in the next run");
	again("in the next run");
	ok_state("running", 2, "in the next run");
	exact("in the next run, made again");
	message("stop", 0);
	memcpy(view, secondary, SIZE);
	again("stopped");
	ok_state("done", 2, "stopped");
	ingest(at(3), BYTES, 0, "ingest goes straight through");
	memcpy(view, secondary, SIZE);
	exact("stopped");
	end();
}

/*
 * ---- What another copy lacks ----
 */

static bool lacks[SECTORS / REGION];	/* the model of the dirty map */

static void dirty_from(uint64_t region, uint64_t nr)
{
	memset(lacks + region, 1, nr);
}

static const char *dirty_map = "dirty";

/* The map by message, all of it, is the model's. */
static void ok_dirty(const char *when)
{
	static char want[8192], got[8192];
	uint64_t from = 0, end, more = 0, all = 0;
	size_t len = 0, n = 0;
	char text[64];

	want[0] = got[0] = 0;
	for (uint64_t region = 0; region < SECTORS / REGION; region = end) {
		end = region + 1;
		if (!lacks[region])
			continue;
		while (end < SECTORS / REGION && lacks[end])
			end++;
		n += snprintf(want + n, sizeof(want) - n, "%llu %llu\n",
			      (unsigned long long)sec(region),
			      (unsigned long long)sec(end - region));
		all += end - region;
	}
	do {
		char *last;

		snprintf(text, sizeof(text), "dirty extents %s %llu", dirty_map, (unsigned long long)from);
		errno = dm_message_text(set.view, text);
		need(!errno, "%s", text);
		last = strstr(dm_answer, "more ");
		more = 0;
		if (last) {
			more = from = strtoull(last + 5, NULL, 10);
			*last = 0;
		} else if ((last = strstr(dm_answer, "end\n"))) {
			*last = 0;
		}
		len += snprintf(got + len, sizeof(got) - len, "%s", dm_answer);
	} while (more);
	ok_str(got, want, "what is dirty %s", when);
	if (strcmp(dirty_map, "dirty"))
		return;
	errno = dm_message_text(set.view, "dirty list");
	need(!errno, "dirty list");
	snprintf(want, sizeof(want), "dirty %u enabled %llu -\n", REGION, (unsigned long long)all);
	ok_str(dm_answer, want, "how much is dirty %s", when);
}

struct identity {
	char role[16], lineage[40], parent[40];
	unsigned long long parent_checkpoint, checkpoint, dirty, pending;
};

static void get_identity(struct identity *id)
{
	errno = dm_message_text(set.view, "identity");
	need(!errno, "identity");
	memset(id, 0, sizeof(*id));
	need(sscanf(dm_answer, "%15s %39s %39s %llu %llu %llu %llu", id->role, id->lineage,
		    id->parent, &id->parent_checkpoint, &id->checkpoint, &id->dirty,
		    &id->pending) == 7, "an answer of seven words: %s", dm_answer);
}

static void ok_same_identity(const struct identity *was, const char *when)
{
	struct identity now;

	get_identity(&now);
	ok(!strcmp(now.role, was->role) && !strcmp(now.lineage, was->lineage) &&
	   !strcmp(now.parent, was->parent) && now.parent_checkpoint == was->parent_checkpoint,
	   "the identity %s: %s", when, dm_answer);
}

#define LINEAGE "6f1e7c1a-5a0d-4a52-9f0e-3c7d1b2a9e44"
#define OTHER "0b0e5c11-6a1d-4e0f-8a64-52c1f0d8a901"

static void identity(void)
{
	struct identity id;

	section("identity");
	set_make(&set, "md", SECTORS, REGION, brd(0), brd(1), brd(2));
	message("identity", 0);
	ok_str(dm_answer, "none - - 0 0 0 0", "nobody's data");
	kmsg_mark();
	message("lineage", EINVAL);
	message("lineage 1 2", EINVAL);
	message("lineage 6f1e7c1a5a0d4a529f0e3c7d1b2a9e44", EINVAL);
	message("lineage 00000000-0000-0000-0000-000000000000", EINVAL);
	ok(kmsg_find("is not a UUID"), "in words");
	message("identity now", EINVAL);
	message("dirty", EINVAL);
	message("dirty clear dirty", EINVAL);
	message("dirty add mine", EINVAL);
	message("dirty extents mine", ENOENT);
	message("lineage " LINEAGE, 0);
	again("with a lineage");
	message("identity", 0);
	ok_str(dm_answer, "none " LINEAGE " - 0 0 0 0", "a lineage by message");
	message("start", 0);
	message("identity", 0);
	ok_str(dm_answer, "secondary " LINEAGE " - 0 1 0 0", "a start leaves it");
	message("lineage " OTHER, 0);
	message("identity", 0);
	ok_str(dm_answer, "secondary " OTHER " - 0 1 0 0", "the primary's, in stage running");
	message("lineage " LINEAGE, 0);
	message("demote", EBUSY);
	message("checkpoint 8", 0);
	message("checkpoint_prepare 9", 0);
	message("lineage " OTHER, EBUSY);
	message("identity", 0);
	ok_str(dm_answer, "secondary " LINEAGE " - 0 8 0 9", "with what is prepared");
	message("checkpoint_abort 9", 0);
	message("failover", 0);
	get_identity(&id);
	ok(!strcmp(id.role, "secondary") && !strcmp(id.parent, LINEAGE) &&
	   id.parent_checkpoint == 8 && strcmp(id.lineage, LINEAGE) && strlen(id.lineage) == 36,
	   "a failover begins a lineage, and remembers: %s", dm_answer);
	ok(wait_stage(set.view, "done"), "the merge ends");
	ok_same_identity(&id, "after the merge");
	again("after a failover");
	ok_same_identity(&id, "made again");
	message("start", 0);
	again("started again");
	ok_same_identity(&id, "of the next run");
	message("stop", 0);
	ok_same_identity(&id, "after stop");
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	message("lineage " LINEAGE, EIO);
	ok_same_identity(&id, "that could not be changed");
	leg_heal(set.metadata);
	message("lineage " LINEAGE, 0);
	message("identity", 0);
	ok_str(dm_answer, "secondary " LINEAGE " - 0 9 0 0", "another lineage has another past");
	message("start 9", EINVAL);
	message("start x", EINVAL);
	message("start 20 x", EINVAL);
	message("start 20 " LINEAGE " 3", EINVAL);
	ok_state("done", 9, "after words that are wrong");
	message("clear_error", 0);
	message("lineage -", 0);
	message("identity", 0);
	ok_str(dm_answer, "secondary - - 0 9 0 0", "whose data it is can be forgotten");
	again("with it forgotten");
	message("identity", 0);
	ok_str(dm_answer, "secondary - - 0 9 0 0", "and stays so");
	message("start 20 " OTHER, 0);
	ok_state("running", 20, "started with an id");
	again("started with both");
	message("identity", 0);
	ok_str(dm_answer, "secondary " OTHER " - 0 20 0 0", "and with a lineage");
	end();
}

/* From the failover on: what was not of the checkpoint, and what the view writes. */
static void dirty(bool persistent)
{
	const char *metadata = set_metadata;

	section("dirty regions%s", persistent ? "" : ", in memory");
	if (!persistent)
		set_metadata = NULL;
	begin();
	memset(lacks, 0, sizeof(lacks));
	ingest(at(2), BYTES, 0, "an ingest write");
	ingest(at(100) + SECTOR, 3 * BYTES, 0, "one across regions");
	view_write(at(50), 2 * BYTES, 0, "a view write");
	ok_dirty("while it runs");
	message("checkpoint", 0);
	memcpy(view, secondary, SIZE);
	ingest(at(3), BYTES, 0, "an ingest write");
	/* Not so long that it is taken for a stream, with copies ahead of it. */
	ingest(at(30), 10 * BYTES, 0, "a large one");
	ingest(at(80), 10 * BYTES, 0, "another");
	view_write(at(110), 2 * BYTES, 0, "a view write");
	view_write(at(84) + SECTOR, SECTOR, 0, "a small one");
	ok_dirty("while it runs");
	message("job speed 1", 0);
	message("failover", 0);
	dirty_from(3, 1);
	dirty_from(30, 10);
	dirty_from(80, 10);
	dirty_from(110, 2);
	ok_dirty("after the failover");
	view_write(at(31) + SECTOR, SECTOR, 0, "a view write to what is dirty");
	view_write(at(5), BYTES, 0, "one to what is not");
	dirty_from(5, 1);
	view_write(at(88) + SECTOR, 5 * BYTES, 0, "one to both");
	dirty_from(88, 6);
	view_write(at(200) + 3 * SECTOR, 2 * SECTOR, 0, "one to a part of a region");
	dirty_from(200, 1);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_dirty("while it merges");
	if (persistent) {
		again("while it merges");
		ok_dirty("made again while it merges");
	}
	message("job speed 0", 0);
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	exact("after the merge");
	ok_dirty("after the merge");
	view_write(at(202), 20 * BYTES, 0, "a view write");
	dirty_from(202, 20);
	view_write(at(255), BYTES, 0, "one to the last region");
	dirty_from(255, 1);
	memcpy(secondary, view, SIZE);
	if (persistent) {
		again("after the merge");
		ok_dirty("made again after the merge");
	}
	view_write(at(3), BYTES, 0, "a view write to what is dirty");
	view_write(at(0), BYTES, 0, "one to what is not");
	dirty_from(0, 1);
	memcpy(secondary, view, SIZE);
	exact("in the end");
	ok_dirty("in the end");
	message("start", 0);
	memset(lacks, 0, sizeof(lacks));
	ok_dirty("in the next run");
	if (persistent) {
		again("in the next run");
		ok_dirty("made again in the next run");
	}
	message("stop", 0);
	view_write(at(9), BYTES, 0, "a view write after stop");
	ok_dirty("after stop");
	end();
	set_metadata = metadata;
}

/* What cannot be recorded is not written; what is dirty already is. */
static void dirty_fails(void)
{
	uint64_t writes;

	section("a dirty region cannot be recorded");
	begin();
	memset(lacks, 0, sizeof(lacks));
	ingest(at(3), BYTES, 0, "an ingest write");
	message("failover", 0);
	dirty_from(3, 1);
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	writes = leg_writes(set.secondary);
	view_write(at(7), BYTES, EIO, "a view write to another region gets EIO");
	ok_u64(leg_writes(set.secondary), writes, "nothing was sent to the secondary");
	ok_latched(set.view, "metadata", EIO, sec(7));
	view_write(at(3), BYTES, 0, "one to a dirty region passes");
	memcpy(secondary, view, SIZE);
	ok_dirty("while it fails");
	leg_heal(set.metadata);
	view_write(at(7), BYTES, 0, "it works when it was mended");
	dirty_from(7, 1);
	memcpy(secondary, view, SIZE);
	ok_dirty("then");
	message("clear_error", 0);
	exact("then");
	again("mended");
	ok_dirty("made again");
	end();

	/* One that did not take place leaves nothing. */
	begin();
	memset(lacks, 0, sizeof(lacks));
	ingest(at(3), BYTES, 0, "an ingest write");
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	message("failover", EIO);
	ok_dirty("after a failover that could not be recorded");
	leg_heal(set.metadata);
	message("clear_error", 0);
	message("checkpoint", 0);
	memcpy(view, secondary, SIZE);
	message("failover", 0);
	ok_dirty("after one of a new checkpoint");
	ok(wait_stage(set.view, "done"), "the merge ends");
	end();
}

/* One region far from the last one: a block of the log. */
static unsigned int compacted_write(unsigned int i)
{
	unsigned int r = (i * 37) % (SECTORS / REGION);

	stamp(scratch, sec(r), REGION, ++tag);
	memcpy(view + at(r), scratch, BYTES);
	dirty_from(r, 1);
	return io_write(set.view_fd, at(r), BYTES, scratch) != 0;
}

/* More view writes than the log has blocks: the map is compacted, too. */
static void dirty_compaction(void)
{
	struct repl_status st;
	unsigned int bad = 0;

	section("dirty regions, compacted");
	begin();
	memset(lacks, 0, sizeof(lacks));
	message("failover", 0);
	ok(wait_stage(set.view, "done"), "the merge ends");
	for (unsigned int i = 0; i < SECTORS / REGION; i += 2)
		bad += compacted_write(i);
	repl_status(set.view, &st);
	/* That goes on beside the writes: so many more, each a block, as it takes. */
	for (unsigned int i = 1; st.log_used > st.log_blocks / 2 && i < SECTORS / REGION; i += 2) {
		bad += compacted_write(i);
		repl_status(set.view, &st);
	}
	memcpy(secondary, view, SIZE);
	ok_u64(bad, 0, "all writes pass");
	ok(st.log_used <= st.log_blocks / 2, "the log was compacted: %llu of %llu blocks",
	   (unsigned long long)st.log_used, (unsigned long long)st.log_blocks);
	ok_dirty("compacted");
	again("compacted");
	ok_dirty("made again");
	exact("made again");
	end();
}

/* Hidden and active of a failover, and nobody has asked for the dirty map yet. */
static void dirty_unasked_begin(void)
{
	begin();
	memset(lacks, 0, sizeof(lacks));
	ingest(at(3), BYTES, 0, "an ingest write");
	ingest(at(30), 10 * BYTES, 0, "a large one");
	view_write(at(34), 2 * BYTES, 0, "a view write to what is in hidden");
	view_write(at(110), 2 * BYTES, 0, "a view write");
	dirty_from(3, 1);
	dirty_from(30, 10);
	dirty_from(110, 2);
	message("job speed 1", 0);
	message("failover", 0);
}

static bool at_stage(const char *stage)
{
	struct repl_status st;

	repl_status(set.view, &st);
	return !strcmp(st.stage, stage);
}

static void dirty_unasked_end(const char *when)
{
	message("job speed 0", 0);
	ok(wait_stage(set.view, "done"), "the merge ends");
	memcpy(secondary, view, SIZE);
	ok_dirty(when);
	exact(when);
	end();
}

static void dirty_unasked(bool persistent)
{
	const char *metadata = set_metadata;
	struct identity id;

	section("dirty regions, asked for late%s", persistent ? "" : ", in memory");
	if (!persistent)
		set_metadata = NULL;
	dirty_unasked_begin();
	dirty_unasked_end("when all is merged");

	dirty_unasked_begin();
	get_identity(&id);
	ok_u64(id.dirty, 13, "the identity counts them");
	dirty_unasked_end("when it has been counted");

	for (unsigned int i = 0; i < 8; i++) {
		dirty_unasked_begin();
		message("job speed 0", 0);
		do
			get_identity(&id);
		while (!at_stage("done"));
		dirty_unasked_end("when it was counted all the time");
	}

	dirty_unasked_begin();
	if (persistent)
		leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	view_write(at(31) + SECTOR, SECTOR, 0, "a view write to hidden needs no record");
	view_write(at(110), 2 * BYTES, 0, "nor one to active");
	if (persistent) {
		view_write(at(200), BYTES, EIO, "one to neither does");
		leg_heal(set.metadata);
	}
	view_write(at(200), 2 * BYTES, 0, "a view write to neither");
	dirty_from(200, 2);
	if (persistent)
		message("clear_error", 0);
	dirty_unasked_end("when some was merged first");
	set_metadata = metadata;
}

/* The map is compacted while the larger part of it is in hidden and active. */
static void dirty_unasked_compaction(void)
{
	struct repl_status st;
	unsigned int writes = 0;

	section("dirty regions, asked for late, compacted");
	dirty_unasked_begin();
	repl_status(set.view, &st);
	for (uint64_t used = st.log_used; st.log_used >= used; writes++) {
		uint64_t r = 120 + writes;

		need(r < SECTORS / REGION, "the log is compacted at some time");
		used = st.log_used;
		view_write(at(r), BYTES, 0, "a view write");
		dirty_from(r, 1);
		repl_status(set.view, &st);
	}
	again("compacted");
	ok_dirty("made again");
	dirty_unasked_end("compacted, and merged");
}

/* Other devices in stage done: the new chain goes on with it. */
static void dirty_reload(void)
{
	struct identity id;
	char other[24] = "md-more";
	int fd;

	section("dirty regions, a reload");
	begin();
	memset(lacks, 0, sizeof(lacks));
	ingest(at(3), 9 * BYTES, 0, "an ingest write");
	message("failover", 0);
	dirty_from(3, 9);
	ok(wait_stage(set.view, "done"), "the merge ends");
	view_write(at(40), BYTES, 0, "a view write");
	dirty_from(40, 1);
	get_identity(&id);
	errno = dm_reload_one(set.view, SECTORS, "repl-secondary", "%s %s %s %s %u",
			      dm_path(set.secondary), dm_path(set.active), dm_path(set.hidden),
			      dm_path(set.metadata), REGION);
	need(!errno, "hidden and active change places");
	ok_dirty("with the same metadata");
	ok_same_identity(&id, "with the same metadata");
	leg_make(other, brd(4), 2048);
	fd = dev_open(brd(4));
	need(!io_fill(fd, 0, 2 * BLOCK, 0), "blank");
	close(fd);
	errno = dm_reload_one(set.view, SECTORS, "repl-secondary", "%s %s %s %s %u",
			      dm_path(set.secondary), dm_path(set.active), dm_path(set.hidden),
			      dm_path(other), REGION);
	need(!errno, "another metadata device");
	ok_dirty("with blank metadata");
	ok_same_identity(&id, "with blank metadata");
	view_write(at(41), BYTES, 0, "a view write");
	dirty_from(41, 1);
	set_take_down(&set);
	errno = dm_make(set.view, SECTORS, "repl-secondary", "%s %s %s %s %u",
			dm_path(set.secondary), dm_path(set.active), dm_path(set.hidden),
			dm_path(other), REGION);
	need(!errno, "and is made again");
	ok_dirty("made again");
	ok_same_identity(&id, "made again");
	dm_remove(set.view);
	dm_remove(other);
	ok_errno(set_bring_up(&set), 0, "as it was before");
	end();
}

/*
 * ---- The same metadata, of a primary ----
 */

static void ok_dirty_as(const char *map, const char *when)
{
	char text[80];

	dirty_map = map;
	snprintf(text, sizeof(text), "in %s, %s", map, when);
	ok_dirty(text);
	dirty_map = "dirty";
}

static void ok_both(const char *when)
{
	ok_dirty_as("peer", when);
	ok_dirty_as("checkpoint", when);
}

static int as_primary(bool reload)
{
	return (reload ? dm_reload_one : dm_make)(set.view, SECTORS, "repl-primary",
		"%s - %s %u 1 sync", dm_path(set.secondary), dm_path(set.metadata), REGION);
}

/* The device goes, and comes back with what its metadata has. */
static void primary_again(void)
{
	need(!close(set.view_fd), "close");
	errno = dm_remove(set.view);
	need(!errno, "it goes");
	ok_errno(as_primary(false), 0, "it is made again");
	set.view_fd = dev_open(dm_path(set.view));
}

static void primary(void)
{
	struct identity id, now;
	int err;

	section("a primary");
	begin();
	memset(lacks, 0, sizeof(lacks));
	ingest(at(3), 2 * BYTES, 0, "an ingest write");
	kmsg_mark();
	err = dm_make("md-other", SECTORS, "repl-primary", "%s - %s %u 1 sync", brd(4),
		      dm_path(set.metadata), REGION);
	ok_errno(err, EBUSY, "metadata of a live secondary");
	ok(kmsg_find("Metadata device belongs to another device of dm-repl"), "in words");
	set_take_down(&set);
	kmsg_mark();
	ok_errno(as_primary(false), EBUSY, "metadata of a secondary that is not there now");
	ok(kmsg_find("Metadata belongs to a secondary that is in use"), "in words");
	need(!set_bring_up(&set), "it is as it was");
	message("failover", 0);
	dirty_from(3, 2);
	ok(wait_stage(set.view, "done"), "the merge ends");
	view_write(at(20), BYTES, 0, "a view write");
	dirty_from(20, 1);
	get_identity(&id);

	ok_errno(as_primary(true), 0, "the view becomes a primary while it is open");
	ok_both("from the secondary");
	get_identity(&now);
	ok(!strcmp(now.role, "primary") && !strcmp(now.lineage, id.lineage) &&
	   !strcmp(now.parent, id.parent) && now.parent_checkpoint == id.parent_checkpoint,
	   "its identity is the secondary's: %s", dm_answer);
	view_write(at(40) + SECTOR, BYTES, 0, "a write");
	dirty_from(40, 2);
	view_write(at(41), BYTES, 0, "one to what is dirty");
	ok_both("after writes");
	primary_again();
	ok_both("made again");
	get_identity(&now);
	ok(!strcmp(now.role, "primary") && !strcmp(now.lineage, id.lineage), "with its identity");

	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	view_write(at(60), BYTES, 0, "a write whose region cannot be recorded");
	dirty_from(60, 1);
	ok(strstr(dm_status(set.view), " metadata 5 ") != NULL, "is not silent: %s",
	   dm_status(set.view));
	view_write(at(62), BYTES, 0, "another one");
	dirty_from(62, 1);
	leg_heal(set.metadata);
	ok_both("in memory");
	primary_again();
	ok_both("an orderly end has recorded it");
	message("dirty clear peer", 0);
	message("dirty clear checkpoint", 0);
	memset(lacks, 0, sizeof(lacks));
	errno = dm_suspend(set.view, 0);
	need(!errno, "suspend");
	errno = dm_resume(set.view);
	need(!errno, "resume");
	get_identity(&now);
	ok_u64(now.dirty, 0, "a suspend leaves the exact map");
	memcpy(secondary, view, SIZE);
	ok_content(set.view_fd, 0, SIZE, view, "the device is exact");

	/* With a peer, in mode async: what it has committed is recorded. */
	errno = dm_reload_one(set.view, SECTORS, "repl-primary", "%s %s %s %u",
			      dm_path(set.secondary), brd(4), dm_path(set.metadata), REGION);
	need(!errno, "a peer");
	view_write(at(70), BYTES, 0, "a write");
	dirty_from(70, 1);
	message("cut 5", 0);
	message("drain 5", 0);
	ok_dirty_as("checkpoint", "before the release");
	message("release 5", 0);
	memset(lacks, 0, sizeof(lacks));
	ok_dirty_as("checkpoint", "after the release");
	get_identity(&now);
	ok(now.checkpoint == 5 && now.dirty == 1 && !now.pending, "its checkpoint is recorded, more stays dirty: %s",
	   dm_answer);
	view_write(at(71), BYTES, 0, "a write");
	dirty_from(71, 1);
	message("cut 6", 0);
	message("acknowledge 6", EBUSY);
	message("abort 6", 0);
	ok_dirty_as("checkpoint", "after an abort");
	get_identity(&now);
	ok(now.checkpoint == 5 && now.pending == 6, "the peer may have it all the same: %s",
	   dm_answer);
	message("acknowledge 6", 0);
	get_identity(&now);
	ok(now.checkpoint == 6 && !now.pending, "it has: %s", dm_answer);
	ok_dirty_as("checkpoint", "after that");
	message("acknowledge 5", 0);
	message("acknowledge x", EINVAL);
	message("acknowledge", EINVAL);
	get_identity(&now);
	ok_u64(now.checkpoint, 6, "it does not go back");
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	view_write(at(80), BYTES, 0, "a write that cannot be recorded");
	message("cut 7", EIO);
	leg_heal(set.metadata);
	errno = dm_suspend(set.view, 0);
	need(!errno, "suspend");
	errno = dm_resume(set.view);
	need(!errno, "resume");
	message("cut 7", 0);
	message("drain 7", 0);
	message("release 7", 0);
	errno = dm_suspend(set.view, 0);
	need(!errno, "suspend");
	errno = dm_resume(set.view);
	need(!errno, "resume");
	get_identity(&now);
	ok(now.checkpoint == 7 && !now.dirty, "the peer has all: %s", dm_answer);
	memcpy(secondary, view, SIZE);

	errno = dm_reload_one(set.view, SECTORS, "repl-secondary", "%s %s %s %s %u",
			      dm_path(set.secondary), dm_path(set.hidden), dm_path(set.active),
			      dm_path(set.metadata), REGION);
	need(!errno, "a secondary again");
	get_identity(&now);
	ok(!strcmp(now.role, "primary") && !now.dirty, "that was a primary: %s", dm_answer);
	message("start", 0);
	get_identity(&now);
	ok(!strcmp(now.role, "secondary"), "and is none any more: %s", dm_answer);
	end();
}

/* A primary whose map is empty, on the metadata of begin(). */
static void clean_primary(void)
{
	begin();
	message("stop", 0);
	memset(lacks, 0, sizeof(lacks));
	errno = dm_reload_one(set.view, SECTORS, "repl-primary", "%s %s %s %u",
			      dm_path(set.secondary), brd(4), dm_path(set.metadata), REGION);
	need(!errno, "a primary");
}

/* What is on the metadata device now is what a crash would leave there. */
static void crash(const uint8_t *image)
{
	int fd = dev_open(set_metadata);

	need(!close(set.view_fd), "close");
	errno = dm_remove(set.view);
	need(!errno, "it goes");
	need(!io_write(fd, 0, SIZE, image), "the metadata is as it was before");
	close(fd);
	kmsg_mark();
	ok_errno(as_primary(false), 0, "it is made again");
	set.view_fd = dev_open(dm_path(set.view));
}

/* A log that cannot be written: a superblock says that the map is too small. */
static void unrecorded(void)
{
	uint8_t *image = io_alloc(SIZE);
	struct identity now;
	int fd;

	section("writes that go on unrecorded, and a crash");
	clean_primary();
	leg_fail(set.metadata, 16, SECTORS - 16, LEG_ALL);
	view_write(at(60), BYTES, 0, "a write whose region cannot be recorded");
	view_write(at(62), BYTES, 0, "another one");
	fd = dev_open(set_metadata);
	need(!io_read(fd, 0, SIZE, image), "what is on the metadata device");
	close(fd);
	leg_heal(set.metadata);
	crash(image);
	ok(kmsg_find("writes were not recorded: all regions are dirty"), "it says so");
	dirty_from(0, SECTORS / REGION);
	ok_both("after the crash: all");
	memcpy(secondary, view, SIZE);
	ok_content(set.view_fd, 0, SIZE, view, "the device is exact");

	message("dirty clear peer", 0);
	message("dirty clear checkpoint", 0);
	memset(lacks, 0, sizeof(lacks));
	primary_again();
	ok_both("when both disks are the same");

	leg_fail(set.metadata, 16, SECTORS - 16, LEG_ALL);
	view_write(at(64), BYTES, 0, "a write whose region cannot be recorded");
	dirty_from(64, 1);
	leg_heal(set.metadata);
	errno = dm_suspend(set.view, 0);
	need(!errno, "suspend");
	errno = dm_resume(set.view);
	need(!errno, "resume");
	fd = dev_open(set_metadata);
	need(!io_read(fd, 0, SIZE, image), "what is on the metadata device");
	close(fd);
	view_write(at(66), BYTES, 0, "a write that is not there");
	crash(image);
	ok_both("a map that is whole again is believed");
	get_identity(&now);
	ok_u64(now.dirty, 1, "all of it");
	munmap(image, SIZE);
	memcpy(secondary, view, SIZE);
	end();
}

static void checkpoint(unsigned int id)
{
	char text[32];

	for (unsigned int i = 0; i < 3; i++) {
		snprintf(text, sizeof(text), "%s %u", i == 0 ? "cut" : i == 1 ? "drain" : "release",
			 id);
		errno = dm_message_text(set.view, text);
		need(!errno, "%s", text);
	}
}

/*
 * What the metadata device is asked to write. (That a region which is written in each
 * round stays recorded: tests/crash/sim-primary.h.)
 */
static void cost(void)
{
	const unsigned int hot = 16, times = 20;
	uint64_t before;

	section("what a primary's metadata costs");
	clean_primary();
	before = leg_writes(set.metadata);
	view_write(at(10), BYTES, 0, "a first write to a region");
	ok_u64(leg_writes(set.metadata) - before, 1, "is one write of the metadata device");
	view_write(at(10), 512, 0, "a second one");
	ok_u64(leg_writes(set.metadata) - before, 1, "is none");
	view_write(at(20), hot * BYTES, 0, "a first write to many regions");
	ok_u64(leg_writes(set.metadata) - before, 2, "is one");
	for (unsigned int i = 0; i < times * hot; i++)
		need(!io_write(set.view_fd, at(20 + i % hot), 4096, view + at(20 + i % hot)),
		     "a write");
	ok_u64(leg_writes(set.metadata) - before, 2, "%u writes to them are none", times * hot);
	ok_errno(io_read(set.view_fd, 0, SIZE, scratch), 0, "nor are reads");
	ok_u64(leg_writes(set.metadata) - before, 2, "of course");

	before = leg_writes(set.metadata);
	for (unsigned int n = 0; n < times; n++) {
		for (unsigned int i = 0; i < hot; i++)
			need(!io_write(set.view_fd, at(20 + i), 4096, view + at(20 + i)), "a write");
		checkpoint(100 + n);
	}
	ok_u64(leg_writes(set.metadata) - before, 2 * times,
	       "with %u checkpoints in between: two a checkpoint", times);

	before = leg_writes(set.metadata);
	errno = dm_message(set.view, "dirty mark peer %llu 1", (unsigned long long)sec(21));
	need(!errno, "a region is missed");
	message("push dirty", 0);
	need(wait_push(set.view, "done"), "the push is done");
	for (unsigned int i = 0; i < hot; i++)
		need(!io_write(set.view_fd, at(20 + i), 4096, view + at(20 + i)), "a write");
	ok_u64(leg_writes(set.metadata) - before, 0, "a push of what is recorded is none");
	memcpy(secondary, view, SIZE);
	end();
}

/* One that is to be a secondary: what it has written that others lack is kept. */
static void demotion(void)
{
	struct identity was, now;

	section("demotion");
	begin();
	message("stop", 0);
	ok_errno(as_primary(true), 0, "a primary");
	memset(lacks, 0, sizeof(lacks));
	errno = dm_reload_one(set.view, SECTORS, "repl-primary", "%s %s %s %u",
			      dm_path(set.secondary), brd(4), dm_path(set.metadata), REGION);
	need(!errno, "a peer");
	message("cut 7", 0);
	message("drain 7", 0);
	message("release 7", 0);
	view_write(at(30), 3 * BYTES, 0, "a write");
	dirty_from(30, 3);
	memcpy(secondary, view, SIZE);
	message("cut 8", 0);
	message("abort 8", 0);
	get_identity(&was);
	ok(was.checkpoint == 7 && was.pending == 8 && was.dirty >= 3, "a primary: %s", dm_answer);
	again("a secondary of it");
	ok_state("done", 7, "of a primary that was a secondary before");
	ok_same_identity(&was, "of a primary");
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	message("demote", EIO);
	leg_heal(set.metadata);
	message("clear_error", 0);
	ok_same_identity(&was, "if that cannot be recorded");
	message("demote", 0);
	message("demote", 0);
	for (unsigned int i = 0; i < 2; i++) {
		get_identity(&now);
		ok(!strcmp(now.role, "secondary") && !strcmp(now.lineage, was.lineage) &&
		   now.checkpoint == 7 && now.pending == 8 && now.dirty == was.dirty,
		   "demoted%s: %s", i ? ", and made again" : "", dm_answer);
		ok_dirty(i ? "demoted, and made again" : "demoted");
		again("demoted");
	}
	ingest(at(50), BYTES, 0, "what the new primary sends goes through");
	memcpy(view, secondary, SIZE);
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is exact");
	message("start 12 " OTHER, 0);
	message("identity", 0);
	ok_str(dm_answer, "secondary " OTHER " - 0 12 0 0", "it begins as a secondary");
	again("started");
	message("identity", 0);
	ok_str(dm_answer, "secondary " OTHER " - 0 12 0 0", "for good");
	exact("started");
	end();
}

/* A log that is not enough for all of it is compacted, again and again. */
static void compaction(void)
{
	struct repl_status st;
	uint64_t most = 0;
	unsigned int bad = 0;

	section("compaction");
	begin();
	/* One region each time, one block each time: the worst case. */
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < SECTORS / REGION; i += 2) {
			unsigned int r = (i * 37) % (SECTORS / REGION);

			stamp(scratch, sec(r), REGION, ++tag);
			bad += !!io_write(set.ingest_fd, at(r), BYTES, scratch);
			memcpy(secondary + at(r), scratch, BYTES);
			repl_status(set.view, &st);
			if (st.log_used > most)
				most = st.log_used;
		}
		if (round == 1) {
			message("checkpoint", 0);
			memcpy(view, secondary, SIZE);
		}
	}
	ok_u64(bad, 0, "all writes pass");
	ok(most > st.log_blocks / 4 && most <= st.log_blocks - 8,
	   "the log was used, and never full: %llu of %llu blocks",
	   (unsigned long long)most, (unsigned long long)st.log_blocks);
	exact("afterwards");
	again("compacted");
	exact("compacted");
	end();
}

/* An error is not forgotten with the table. */
static void errors_stay(void)
{
	section("errors stay");
	begin();
	leg_fail(set.hidden, sec(5), REGION, LEG_WRITES);
	ingest(at(5), BYTES, EIO, "an ingest write that cannot be preserved");
	ok_latched(set.view, "cbw-write", EIO, sec(5));
	leg_heal(set.hidden);
	/* It is written with the next block at the latest. */
	ingest(at(6), BYTES, 0, "another one");
	again("with an error");
	ok_latched(set.view, "cbw-write", EIO, 0);
	message("checkpoint", EIO);
	message("clear_error", 0);
	message("checkpoint", 0);
	memcpy(view, secondary, SIZE);
	again("after clear_error");
	ok_latched(set.view, "-", 0, 0);
	exact("after clear_error");
	end();
}

/*
 * The metadata device fails: a first write gets EIO and the secondary has not
 * been touched; what is preserved takes writes.
 */
static void first_write(enum leg_fault fault)
{
	uint64_t writes;

	section("metadata fails (%s)", fault == LEG_ALL ? "all" : "writes");
	begin();
	ingest(at(2), BYTES, 0, "an ingest write before");
	leg_fail(set.metadata, 0, 2048, fault);
	writes = leg_writes(set.secondary);
	ingest(at(5), BYTES, EIO, "a first write gets EIO");
	ok_u64(leg_writes(set.secondary), writes, "nothing was sent to the secondary");
	ok_latched(set.view, "metadata", EIO, sec(5));
	ingest(at(2), BYTES, 0, "a write to a preserved region passes");
	view_write(at(30), BYTES, 0, "a view write passes");
	exact("while it fails");
	message("checkpoint", EIO);
	message("checkpoint_prepare 9", EIO);
	leg_heal(set.metadata);
	ingest(at(5), BYTES, 0, "a first write after it was mended");
	exact("after it was mended");
	message("checkpoint", EIO);
	message("clear_error", 0);
	message("checkpoint", 0);
	memcpy(view, secondary, SIZE);
	exact("after the checkpoint");
	again("mended");
	exact("made again");
	end();
}

/*
 * The record of a checkpoint fails. Read again, it is not there: nothing has
 * happened. Where not even that can be said, ingest is refused.
 */
static void record(enum leg_fault fault)
{
	bool ambiguous = fault == LEG_ALL;

	section("the record of a checkpoint fails (%s)", ambiguous ? "all" : "writes");
	begin();
	ingest(at(2), BYTES, 0, "an ingest write before");
	if (!leg_fail(set.metadata, 0, 2048, fault)) {
		skipped("this kernel", "reads alone that fail");
		end();
		return;
	}
	message("checkpoint", EIO);
	ok_state("running", 1, "after it");
	ok_latched(set.view, "metadata", EIO, ANY_SECTOR);
	ingest(at(2), BYTES, ambiguous ? EIO : 0, "a write to a preserved region");
	exact("while it fails");
	message("failover", EIO);
	ok_state("running", 1, "after a failover that could not be recorded");
	if (ambiguous)
		message("clear_error", EIO);
	leg_heal(set.metadata);
	if (ambiguous) {
		ingest(at(2), BYTES, EIO, "still refused when it is mended");
		message("clear_error", 0);
		ingest(at(2), BYTES, 0, "not any more after clear_error");
	}
	exact("after it was mended");
	again("mended");
	ok_state("running", 1, "made again");
	exact("made again");
	end();

	/* A failover needs no clear_error. */
	begin();
	ingest(at(2), BYTES, 0, "an ingest write before");
	leg_fail(set.metadata, 0, 2048, fault);
	message("checkpoint", EIO);
	leg_heal(set.metadata);
	message("failover", 0);
	ok(wait_stage(set.view, "done"), "the failover works when it is mended");
	memcpy(secondary, view, SIZE);
	exact("after the failover");
	again("after the failover");
	exact("made again");
	end();
}

/*
 * Whether the checkpoint was recorded is unknown, until something else takes its place in
 * the log: nobody has to say so. Ingest waits for clear_error all the same.
 */
static void doubt_ends(void)
{
	struct repl_status st;
	uint64_t used;

	section("the record of a checkpoint fails, and another one follows");
	begin();
	ingest(at(2), BYTES, 0, "an ingest write before");
	if (!leg_fail(set.metadata, 0, 2048, LEG_ALL)) {
		skipped("this kernel", "reads alone that fail");
		end();
		return;
	}
	message("checkpoint", EIO);
	leg_heal(set.metadata);
	repl_status(set.view, &st);
	used = st.log_used;
	leg_fail(set.active, sec(50), REGION, LEG_WRITES);
	view_write(at(50), BYTES, EIO, "another error, which is recorded");
	leg_heal(set.active);
	while (st.log_used == used)
		repl_status(set.view, &st);
	ingest(at(2), BYTES, EIO, "still refused");
	message("clear_error", 0);
	ingest(at(2), BYTES, 0, "not any more after clear_error");
	exact("after it was mended");
	again("mended");
	ok_state("running", 1, "made again");
	exact("made again");
	end();
}

/* The end of a merge cannot be recorded: it has failed, and can be tried again. */
static void merge(void)
{
	section("the end of a merge fails");
	begin();
	ingest(at(2), 60 * BYTES, 0, "an ingest write");
	message("job speed 1", 0);
	message("failover", 0);
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	message("job speed 0", 0);
	ok(wait_stage(set.view, "failover-failed"), "it fails");
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_errno(io_flush(set.view_fd), EIO, "a flush of the view says so");
	leg_heal(set.metadata);
	view_write(at(20), BYTES, 0, "a view write");
	ok_errno(io_flush(set.view_fd), 0, "a flush");
	again("after the merge had failed");
	ok(wait_stage(set.view, "done"), "the merge ends when it is made again");
	memcpy(secondary, view, SIZE);
	exact("afterwards");
	end();
}

/*
 * What is refused
 */

static void refused(const char *what, const char *why, int want)
{
	kmsg_mark();
	ok_errno(set_bring_up(&set), want, "%s is refused", what);
	ok(kmsg_find(why), "%s: the kernel says: %s", what, why);
}

static void poke(int fd, uint64_t offset, uint8_t with)
{
	uint64_t block = offset / BLOCK * BLOCK;

	need(!io_read(fd, block, BLOCK, scratch), "read");
	scratch[offset - block] ^= with;
	need(!io_write(fd, block, BLOCK, scratch), "write");
}

static int make(const char *metadata, unsigned int region, uint64_t sectors, const char *features)
{
	return dm_load_one(set.view, sectors, "repl-secondary", "%s %s %s %s %u%s",
			   dm_path(set.secondary), dm_path(set.hidden), dm_path(set.active),
			   metadata, region, features);
}

static void refusals(void)
{
	char other[24] = "md-other";
	int fd;
	char uuid[37];

	section("refused");
	begin();
	ingest(at(2), BYTES, 0, "an ingest write");
	ingest(at(20), BYTES, 0, "another");
	ingest(at(40), BYTES, 0, "a third");
	set_take_down(&set);
	fd = dev_open(set_metadata);
	need(!io_read(fd, 0, BLOCK, scratch), "the superblock");
	snprintf(uuid, sizeof(uuid),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 scratch[8], scratch[9], scratch[10], scratch[11], scratch[12], scratch[13],
		 scratch[14], scratch[15], scratch[16], scratch[17], scratch[18], scratch[19],
		 scratch[20], scratch[21], scratch[22], scratch[23]);

	need(!dm_create(set.view), "a device");
	kmsg_mark();
	ok_errno(make(dm_path(set.metadata), 2 * REGION, SECTORS, ""), EINVAL,
		 "metadata of another region size");
	ok(kmsg_find("Metadata belongs to another region size"), "in words");
	ok_errno(make(dm_path(set.metadata), REGION, SECTORS - REGION, ""), EINVAL,
		 "metadata of another length");
	ok(kmsg_find("Metadata belongs to a device of another length"), "in words");
	ok_errno(make(dm_path(set.metadata), REGION, SECTORS,
		      " 2 uuid 01234567-89ab-4cde-8123-456789abcdef"), EINVAL,
		 "metadata of another device");
	ok(kmsg_find("Metadata belongs to another device"), "in words");
	leg_make(other, set_metadata, 64);
	ok_errno(make(dm_path(other), REGION, SECTORS, ""), ENOSPC,
		 "a metadata device that has become shorter");
	ok(kmsg_find("Metadata device is shorter than it was"), "in words");
	dm_remove(other);
	{
		char features[96];

		snprintf(features, sizeof(features), " 4 uuid %s min_checkpoint 1", uuid);
		ok_errno(make(dm_path(set.metadata), REGION, SECTORS, features), 0,
			 "the right uuid and the right checkpoint");
		ok_errno(dm_resume(set.view), 0, "it resumes");
		ok(strstr(dm_table(set.view), features) != NULL, "the table says so too");
		dm_remove(set.view);
		need(!dm_create(set.view), "a device");
	}
	ok_errno(make(dm_path(set.metadata), REGION, SECTORS, " 2 min_checkpoint 2"), 0,
		 "an older checkpoint than there should be");
	kmsg_mark();
	ok_errno(dm_resume(set.view), ESTALE, "does not resume");
	ok(kmsg_find("Metadata is of an older checkpoint"), "in words");
	dm_remove(set.view);

	/* One superblock is enough; both are not to be missed. */
	poke(fd, 100, 1);
	ok_errno(set_bring_up(&set), 0, "one damaged superblock does no harm");
	exact("with one superblock");
	set_take_down(&set);
	poke(fd, BLOCK + 100, 1);
	refused("damage to both superblocks", "Metadata superblock is damaged", EUCLEAN);
	poke(fd, BLOCK + 100, 1);
	poke(fd, 100, 1);

	/* In the middle of the log: others relied on it. */
	poke(fd, (LOG_START + 3) * BLOCK + 2000, 1);
	refused("a damaged block of the log", "Metadata log has a damaged block", EUCLEAN);
	poke(fd, (LOG_START + 3) * BLOCK + 2000, 1);

	leg_fail(set.metadata, (LOG_START + 2) * REGION, REGION, LEG_ALL);
	refused("a block of the log that cannot be read", "Cannot read the metadata log", EIO);
	leg_heal(set.metadata);
	leg_fail(set.metadata, 0, 16, LEG_ALL);
	refused("a superblock that cannot be read", "Cannot read the metadata superblock", EIO);
	leg_heal(set.metadata);
	leg_fail(set.metadata, 0, 2048, LEG_WRITES);
	refused("a metadata device that cannot be written", "cannot write to the metadata device",
		EIO);
	leg_heal(set.metadata);
	ok_errno(set_bring_up(&set), 0, "after all that it is as it was");
	exact("after all that");

	kmsg_mark();
	ok_errno(dm_make(other, SECTORS, "repl-secondary", "%s %s %s %s %u", brd(4), brd(5),
			 brd(6), dm_path(set.metadata), REGION), EBUSY,
		 "metadata of a live repl-secondary");
	ok(kmsg_find("Metadata device belongs to another repl-secondary"), "in words");
	set_take_down(&set);

	need(!io_fill(fd, 0, 2 * BLOCK, 0x41), "something else");
	refused("a device with something else on it", "Metadata device has no dm-repl superblock",
		EUCLEAN);
	need(!io_fill(fd, 0, 2 * BLOCK, 0), "blank");
	close(fd);
	ok_errno(set_bring_up(&set), 0, "a blank device is formatted");
	ok_state("none", 0, "then");
	end();
}

int main(void)
{
	watchdog(300);
	console_quiet();
	brd_load(7, SIZE);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	view = io_alloc(SIZE);
	secondary = io_alloc(SIZE);
	scratch = io_alloc(SIZE);
	set_metadata = brd(3);

	running();
	prepared();
	failover();
	compaction();
	identity();
	dirty(true);
	dirty(false);
	dirty_fails();
	dirty_compaction();
	dirty_unasked(true);
	dirty_unasked(false);
	dirty_unasked_compaction();
	dirty_reload();
	primary();
	unrecorded();
	cost();
	demotion();
	errors_stay();
	first_write(LEG_WRITES);
	first_write(LEG_ALL);
	record(LEG_WRITES);
	record(LEG_ALL);
	doubt_ends();
	merge();
	refusals();
	return tap_end();
}

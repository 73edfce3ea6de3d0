// SPDX-License-Identifier: GPL-2.0-only
/*
 * The cases of QEMU's unit test of its replication driver (test-replication.c),
 * one function each, but every compare is exact: QEMU's passes when the stale
 * content happens to be smaller.
 *
 *	half 1 and half 2 of the secondary hold 0x11; the ingest writes 0x22 to
 *	half 2, the view 0x33 to half 1.
 */
#include <errno.h>
#include <unistd.h>

#include "repl.h"

static struct repl_set set;
static uint64_t size, half;

static void begin(uint64_t bytes, unsigned int region)
{
	size = bytes;
	half = bytes / 2 / SECTOR * SECTOR;
	set_make(&set, "qemu", bytes / SECTOR, region, brd(0), brd(1), brd(2));
	/* Garbage everywhere else: none of it may ever be seen. */
	need(!io_fill(set.secondary_fd, 0, size, 0x11), "fill of the secondary");
	need(!io_fill(set.hidden_fd, 0, size, 0xee), "fill of hidden");
	need(!io_fill(set.active_fd, 0, size, 0xdd), "fill of active");
}

static void end(void)
{
	set_remove(&set);
}

static void start(void)
{
	ok_errno(dm_message(set.view, "start"), 0, "start");
	ok_stage(set.view, "running");
}

/* Both sides write, and neither sees the other. */
static void diverge(void)
{
	ok_errno(io_fill(set.ingest_fd, half, size - half, 0x22), 0,
		 "the ingest writes half 2");
	ok_filled(set.view_fd, 0, half, 0x11, "the view's half 1 is the checkpoint's");
	ok_filled(set.view_fd, half, size - half, 0x11,
		  "the view's half 2 is still the checkpoint's");
	ok_filled(set.secondary_fd, half, size - half, 0x22,
		  "the secondary's half 2 is the new one");
	ok_errno(io_fill(set.view_fd, 0, half, 0x33), 0, "the view writes half 1");
	ok_filled(set.view_fd, 0, half, 0x33, "the view's half 1 is what it wrote");
	ok_filled(set.view_fd, half, size - half, 0x11,
		  "the view's half 2 is the checkpoint's");
	ok_filled(set.secondary_fd, 0, half, 0x11, "the secondary's half 1 is as it was");
	ok_latched(set.view, "-", 0, 0);
}

static void secondary_not_started(void)
{
	section("not started");
	ok_stage(set.view, "none");
	ok_latched(set.view, "-", 0, 0);
	ok_errno(io_read(set.view_fd, 0, SECTOR, io_alloc(4096)), EIO, "a read fails");
	ok_errno(io_fill(set.view_fd, 0, SECTOR, 0x33), EIO, "a write fails");
	ok_filled(set.secondary_fd, 0, size, 0x11, "the secondary is as it was");
	ok_errno(dm_message(set.view, "checkpoint"), EBUSY, "checkpoint");
	ok_errno(dm_message(set.view, "stop"), EBUSY, "stop");
	ok_errno(dm_message(set.view, "failover"), EBUSY, "failover");
	ok_errno(dm_message(set.view, "retry"), EBUSY, "retry");
	ok_stage(set.view, "none");
	ok_ingest(set.ingest, "none", "bound", "open");
	ok_errno(io_fill(set.ingest_fd, half, SECTOR, 0x44), 0,
		 "an ingest write goes straight through");
	ok_filled(set.secondary_fd, half, SECTOR, 0x44, "it is on the secondary");
	ok_filled(set.hidden_fd, 0, size, 0xee, "nothing is preserved");
	ok_filled(set.active_fd, 0, size, 0xdd, "nothing is in active");
	need(!io_fill(set.secondary_fd, half, SECTOR, 0x11), "0x11 again");
}

static void secondary_start(void)
{
	section("start");
	start();
	ok_errno(dm_message(set.view, "start"), EBUSY, "start again");
	ok_ingest(set.ingest, "running", "bound", "open");
	diverge();
}

static void secondary_stop(void)
{
	section("stop");
	start();
	diverge();
	ok_errno(dm_message(set.view, "stop"), 0, "stop without failover");
	ok_stage(set.view, "done");
	ok_filled(set.view_fd, 0, half, 0x11, "the view's half 1 is the secondary's");
	ok_filled(set.view_fd, half, size - half, 0x22, "the view's half 2 is the secondary's");
	ok_ingest(set.ingest, "done", "bound", "open");
	ok_errno(io_fill(set.ingest_fd, 0, half, 0x55), 0, "the ingest still writes");
	ok_filled(set.view_fd, 0, half, 0x55, "the view sees it");
	ok_errno(io_fill(set.view_fd, half, size - half, 0x66), 0, "the view writes");
	ok_filled(set.secondary_fd, 0, half, 0x55, "half 1 is on the secondary");
	ok_filled(set.secondary_fd, half, size - half, 0x66, "half 2 is on the secondary");
	ok_errno(dm_message(set.view, "stop"), EBUSY, "stop after stop");
	ok_errno(dm_message(set.view, "failover"), EBUSY, "failover after stop");
	ok_latched(set.view, "-", 0, 0);
}

static void secondary_checkpoint(void)
{
	struct repl_status st;

	section("checkpoint");
	start();
	repl_status(set.view, &st);
	ok_u64(st.checkpoint, 1, "the first checkpoint's id");
	diverge();
	ok_errno(dm_message(set.view, "checkpoint"), 0, "checkpoint");
	ok_str(dm_answer, "2", "it answers its id");
	repl_status(set.view, &st);
	ok_u64(st.checkpoint, 2, "the status has the id");
	ok_u64(st.hidden + st.active, 0, "nothing is preserved or active");
	ok_filled(set.view_fd, 0, half, 0x11,
		  "what the view wrote is gone: half 1 is the secondary's");
	ok_filled(set.view_fd, half, size - half, 0x22, "half 2 is what the ingest wrote");
	ok_latched(set.view, "-", 0, 0);
	/* and it goes on */
	ok_errno(io_fill(set.ingest_fd, 0, half, 0x77), 0, "the ingest writes half 1");
	ok_filled(set.view_fd, 0, half, 0x11, "the view's half 1 is the checkpoint's");
}

static void secondary_failover(void)
{
	struct repl_status st;

	section("failover");
	start();
	diverge();
	ok_errno(dm_message(set.view, "failover"), 0, "failover without a checkpoint");
	ok_filled(set.view_fd, 0, half, 0x33, "at once the view's half 1 is its own");
	ok_filled(set.view_fd, half, size - half, 0x11,
		  "at once the view's half 2 is the checkpoint's");
	ok_errno(io_fill(set.ingest_fd, 0, SECTOR, 0x44), EIO, "the ingest is fenced");
	ok(wait_stage(set.view, "done"), "the merge ends");
	ok_ingest(set.ingest, "done", "bound", "fenced");
	ok_filled(set.view_fd, 0, half, 0x33, "the view's half 1 is its own");
	ok_filled(set.view_fd, half, size - half, 0x11, "the view's half 2 is the checkpoint's");
	ok_filled(set.secondary_fd, 0, half, 0x33, "so is the secondary's half 1");
	ok_filled(set.secondary_fd, half, size - half, 0x11, "so is the secondary's half 2");
	ok_errno(io_fill(set.ingest_fd, 0, SECTOR, 0x44), EIO, "the ingest stays fenced");
	repl_status(set.view, &st);
	ok_str(st.job, "merge", "the job was a merge");
	ok_str(st.job_state, "done", "it is done");
	ok_u64(st.job_done, st.job_total, "all of it");
	ok_latched(set.view, "-", 0, 0);
}

static void after_failover(void)
{
	struct repl_status st;
	uint64_t id;

	section("after failover");
	ok_errno(dm_message(set.view, "checkpoint"), EBUSY, "checkpoint");
	ok_errno(dm_message(set.view, "stop"), EBUSY, "stop");
	ok_errno(dm_message(set.view, "failover"), EBUSY, "failover");
	ok_errno(dm_message(set.view, "retry"), EBUSY, "retry");
	repl_status(set.view, &st);
	id = st.checkpoint;
	ok_stage(set.view, "done");
	ok_errno(io_fill(set.view_fd, 0, half, 0x88), 0, "the view writes half 1");
	ok_filled(set.secondary_fd, 0, half, 0x88, "it goes to the secondary");

	/* QEMU's "continuous replication": the same devices once more. */
	start();
	repl_status(set.view, &st);
	ok_u64(st.checkpoint, id + 1, "start commits the next checkpoint");
	ok_ingest(set.ingest, "running", "bound", "open");
	ok_errno(io_fill(set.ingest_fd, half, size - half, 0x99), 0,
		 "the ingest writes half 2");
	ok_filled(set.view_fd, 0, half, 0x88, "the view's half 1 is the checkpoint's");
	ok_filled(set.view_fd, half, size - half, 0x11, "the view's half 2 is the checkpoint's");
	ok_errno(dm_message(set.view, "checkpoint"), 0, "checkpoint");
	ok_filled(set.view_fd, half, size - half, 0x99, "the view's half 2 is the new one");
	ok_latched(set.view, "-", 0, 0);
}

static void secondary(uint64_t bytes, unsigned int region)
{
	static void (*const cases[])(void) = {
		secondary_start, secondary_stop, secondary_checkpoint,
	};

	note("secondary, %llu bytes, regions of %u sectors",
	     (unsigned long long)bytes, region);
	begin(bytes, region);
	secondary_not_started();
	end();
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(bytes, region);
		cases[i]();
		end();
	}
	begin(bytes, region);
	secondary_failover();
	after_failover();
	end();
}

static void primary_status(const char *stage, const char *peer)
{
	struct repl_primary_status st;

	repl_primary_status("qemu-primary", &st);
	ok_str(st.stage, stage, "stage %s", stage);
	ok_str(st.peer, peer, "peer %s", peer);
	ok_primary_latched("qemu-primary", "-", 0, 0);
}

static void primary(uint64_t bytes)
{
	int fd, local = dev_open(brd(0)), peer = dev_open(brd(1));
	struct repl_primary_status st;

	section("primary");
	need(!io_fill(local, 0, bytes, 0x11), "fill of the local disk");
	need(!io_fill(peer, 0, bytes, 0xee), "fill of the peer");
	ok_errno(dm_make("qemu-primary", bytes / SECTOR, "repl-primary", "%s - - 128 1 sync", brd(0)),
		 0, "a repl-primary without a peer");
	fd = dev_open(dm_path("qemu-primary"));

	section("primary, not started");
	primary_status("none", "none");
	ok_filled(fd, 0, bytes, 0x11, "a read is the local disk's");
	ok_errno(io_fill(fd, 0, bytes / 2, 0x22), 0, "a write");
	ok_filled(local, 0, bytes / 2, 0x22, "it is on the local disk");
	ok_filled(peer, 0, bytes, 0xee, "it is not on the peer");
	ok_errno(dm_message("qemu-primary", "detach"), EBUSY, "detach without a peer");
	repl_primary_status("qemu-primary", &st);
	ok(st.writes > 0 && st.missed == st.writes && !st.forwarded, "all of it is missed");

	section("primary, started");
	ok_errno(dm_message("qemu-primary", "attach %s", brd(1)), 0, "attach");
	primary_status("running", "attached");
	ok_errno(dm_message("qemu-primary", "attach %s", brd(1)), EBUSY, "attach again");
	ok_filled(peer, 0, bytes, 0xee, "nothing older is sent");
	ok_errno(io_fill(fd, bytes / 2, bytes / 2, 0x33), 0, "a write");
	ok_filled(local, bytes / 2, bytes / 2, 0x33, "it is on the local disk");
	ok_filled(peer, bytes / 2, bytes / 2, 0x33, "it is on the peer");
	ok_filled(peer, 0, bytes / 2, 0xee, "and nothing else is");
	ok_filled(fd, 0, bytes / 2, 0x22, "half 1 reads as written");
	ok_filled(fd, bytes / 2, bytes / 2, 0x33, "half 2 reads as written");
	primary_status("running", "attached");

	section("primary, checkpoint");
	ok_errno(dm_message("qemu-primary", "cut 1"), EOPNOTSUPP, "cut");
	primary_status("running", "attached");

	section("primary, stopped");
	ok_errno(dm_message("qemu-primary", "detach"), 0, "detach");
	primary_status("none", "detached");
	ok_errno(io_fill(fd, bytes / 2, bytes / 2, 0x44), 0, "a write");
	ok_filled(fd, bytes / 2, bytes / 2, 0x44, "it reads as written");
	ok_filled(peer, bytes / 2, bytes / 2, 0x33, "it is not on the peer");

	close(fd);
	close(local);
	close(peer);
	ok_errno(dm_remove("qemu-primary"), 0, "the primary can be removed");
}

int main(void)
{
	watchdog(580);
	brd_load(3, 8 * MIB);
	at_end(backing_remove_all);
	at_end(dm_remove_all);

	secondary(2 * MIB, 8);
	secondary(2 * MIB, 128);
	/* The last region is partial; the halves meet inside of one. */
	secondary(2 * MIB - 3 * SECTOR, 8);
	secondary(8 * MIB - 3 * SECTOR, 8192);
	primary(2 * MIB);
	return tap_end();
}

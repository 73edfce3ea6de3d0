// SPDX-License-Identifier: GPL-2.0-only
/*
 * Push: the peer's disk is brought up to date while the workload writes.
 *
 * Local and peer are legs (tests/lib/dm.h) over disks that are compared whole, past
 * the targets. What was sent is what the peer's leg counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "repl.h"

#define SIZE (16u * MIB)
#define SECTORS (SIZE / SECTOR)
#define REGION 128u			/* sectors */
#define BYTES (REGION * SECTOR)
#define REGIONS (SECTORS / REGION)

static uint8_t *content, *scratch;
static const char *local_disk, *peer_disk;
static int local_fd, peer_fd, fd;	/* the disks; the primary */
static uint64_t tag;

/*
 * ---- The primary ----
 */

/* Field @nr of its status, counted from 1; a static buffer, one of 4 in turn. */
static const char *field(unsigned int nr)
{
	static char words[4][64];
	static unsigned int turn;
	struct repl_primary_status st;
	char *word, *save;

	repl_primary_status("push", &st);	/* looks at progress, too */
	word = strtok_r(st.line, " \n", &save);
	while (word && --nr)
		word = strtok_r(NULL, " \n", &save);
	turn = (turn + 1) % 4;
	snprintf(words[turn], sizeof(words[turn]), "%s", word ?: "");
	return words[turn];
}

static uint64_t missing(void)
{
	return strtoull(field(12), NULL, 10);
}

/* Regions that the peer has got from the job. */
static uint64_t pushed(void)
{
	return strtoull(field(16), NULL, 10);
}

static void wait_state(const char *state)
{
	for (;;) {
		uint32_t nr = dm_event_nr("push");
		const char *is = field(15);

		if (!strcmp(is, state))
			return;
		need(!strcmp(is, "running") || !strcmp(is, "paused") || !strcmp(is, "-"),
		     "the job is %s, not %s", is, state);
		dm_wait_event("push", nr);
	}
}

static void make(const char *features)
{
	leg_make("push-local", local_disk, SECTORS);
	leg_make("push-peer", peer_disk, SECTORS);
	errno = dm_make("push", SECTORS, "repl-primary", "%s - - %u %s",
			dm_path("push-local"), REGION, features);
	need(!errno, "a primary");
	fd = dev_open(dm_path("push"));
	local_fd = dev_open(local_disk);
	peer_fd = dev_open(peer_disk);
}

static void attach(void)
{
	errno = dm_message("push", "attach %s", dm_path("push-peer"));
	need(!errno, "attach");
}

static void unmake(void)
{
	close(fd);
	close(local_fd);
	close(peer_fd);
	need(!dm_remove("push") && !dm_remove("push-local") && !dm_remove("push-peer"),
	     "all is removed");
}

/* All of local is new, and on nobody else's disk. */
static void fill(void)
{
	stamp(content, 0, SECTORS, ++tag);
	need(!io_write(local_fd, 0, SIZE, content), "local is filled");
	need(!io_fill(peer_fd, 0, SIZE, 0xaa), "the peer's disk is filled");
}

static int put(uint64_t offset, size_t len)
{
	int err;

	stamp(scratch, offset / SECTOR, len / SECTOR, ++tag);
	err = io_write(fd, offset, len, scratch);
	if (!err)
		memcpy(content + offset, scratch, len);
	return err;
}

/* What was written before is on the peer's disk, and nothing is on its way. */
static void settle(void)
{
	static unsigned int id;

	id++;
	ok_errno(dm_message("push", "cut %u", id), 0, "cut %u", id);
	ok_errno(dm_message("push", "drain %u", id), 0, "drain %u", id);
	ok_errno(dm_message("push", "release %u", id), 0, "release %u", id);
}

static void same(const char *when)
{
	ok_content(local_fd, 0, SIZE, content, "local is exact %s", when);
	ok_content(peer_fd, 0, SIZE, content, "the peer's disk is the same %s", when);
	ok_u64(missing(), 0, "and nothing is missing");
}

/* Sectors that were written to the peer. */
static uint64_t sent(void)
{
	char path[64];
	unsigned long long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/dm-%u/stat", dm_minor("push-peer"));
	f = fopen(path, "r");
	need(f && fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &n) == 1, "%s", path);
	fclose(f);
	return n;
}

/* Nobody says "push": it begins by itself, and ends with nothing missing. */
static void wait_pushed(void)
{
	for (;;) {
		uint32_t nr = dm_event_nr("push");
		struct repl_primary_status st;

		repl_primary_status("push", &st);
		if (!st.dirty && !strcmp(st.job_state, "done"))
			return;
		need(strcmp(st.job_state, "failed"), "the push has failed");
		dm_wait_event("push", nr);
	}
}

/* The peer's leg fails, so that it is lost, and is well again. */
static void lose_peer(void)
{
	leg_fail("push-peer", 0, SECTORS, LEG_ALL);
	need(!put(0, 4096), "a write while the peer fails");
	need(wait_peer("push", "failed"), "the peer has failed");
	leg_heal("push-peer");
}

static void reattach(void)
{
	errno = dm_message("push", "detach");
	need(!errno, "detach");
	attach();
}

/*
 * ---- Cases ----
 */

struct writer {
	pthread_t thread;
	atomic_bool stop;
	uint64_t seed, writes;
	int err;
};

/* The workload: anywhere, of any size up to 32 KiB. */
static void *writing(void *arg)
{
	struct writer *w = arg;
	uint8_t *buf = io_alloc(64 * KIB);

	while (!w->stop && !w->err) {
		uint64_t len = (1 + rnd_below(&w->seed, 64)) * SECTOR;
		uint64_t offset = rnd_below(&w->seed, (SIZE - len) / SECTOR) * SECTOR;

		stamp(buf, offset / SECTOR, len / SECTOR, (1ull << 40) + w->writes++);
		w->err = io_write(fd, offset, len, buf);
		if (!w->err)
			memcpy(content + offset, buf, len);
	}
	munmap(buf, 64 * KIB);
	return NULL;
}

static void start_writing(struct writer *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	need(!pthread_create(&w->thread, NULL, writing, w), "a thread");
}

static void stop_writing(struct writer *w)
{
	w->stop = true;
	pthread_join(w->thread, NULL);
	ok_errno(w->err, 0, "the workload has had no error");
	note("%llu writes", (unsigned long long)w->writes);
}

/* In mode sync a write that a copy is in the way of is missed. */
static void first_sync_in_sync(void)
{
	struct writer w;

	section("first sync, mode sync");
	make("1 sync");
	fill();
	attach();
	start_writing(&w, 9);
	ok_errno(dm_message("push", "push full"), 0, "push full, while the workload writes");
	wait_state("done");
	stop_writing(&w);
	wait_pushed();
	same("after a first sync");
	unmake();
}

static void first_sync(void)
{
	struct repl_primary_status st;
	struct writer w;

	section("first sync");
	make("1 async");
	fill();
	ok_errno(dm_message("push", "push full"), ENOTCONN, "without a peer there is no push");
	attach();
	start_writing(&w, 1);
	/* It is not to be over before the next message comes. */
	ok_errno(dm_message("push", "job speed 256"), 0, "slowly");
	ok_errno(dm_message("push", "push full"), 0, "push full, while the workload writes");
	ok_errno(dm_message("push", "push dirty"), EBUSY, "one at a time");
	ok_errno(dm_message("push", "job speed 0"), 0, "as fast as it can");
	wait_state("done");
	stop_writing(&w);
	/* What was in flight when its region was copied goes once more. */
	wait_pushed();
	/* It may be in the peer's cache only: the next checkpoint flushes that. */
	repl_primary_status("push", &st);
	ok_u64(st.checkpoint_regions, st.regions, "no checkpoint has what was pushed");
	need(!io_fill(peer_fd, 100 * BYTES, 7 * BYTES, 0), "the peer loses a part");
	ok_errno(dm_message("push", "dirty merge checkpoint peer"), 0, "dirty merge");
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	settle();
	same("after a first sync");
	ok_str(field(18), "0", "a checkpoint has all");
	ok(sent() >= SECTORS, "all of it was sent");

	section("in sync");
	ok_errno(put(12345 * SECTOR, 5 * SECTOR), 0, "a write");
	settle();
	same("after it");
	unmake();
}

/* What was written while the peer was away, and only that, is sent. */
static void outage(void)
{
	uint64_t before, regions, seed = 7;

	section("outage");
	make("1 async");
	fill();
	attach();
	ok_errno(dm_message("push", "push full"), 0, "push full");
	wait_state("done");
	same("before the outage");
	lose_peer();
	for (unsigned int i = 0; i < 100; i++)
		need(!put(rnd_below(&seed, SECTORS - 8) * SECTOR, 4096), "a write");
	regions = missing();
	ok(regions > 50 && regions <= 202, "%llu regions are missing", (unsigned long long)regions);
	reattach();
	ok_u64(missing(), regions, "attach keeps what is missing");
	ok_errno(put(0, 4096), 0, "a write to what is missing");
	before = sent();
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	settle();
	same("after the resync");
	ok_u64(sent() - before, regions * REGION, "sent are the missing regions");

	section("detach");
	ok_errno(dm_message("push", "detach"), 0, "detach");
	ok_errno(put(40 * BYTES, 2 * BYTES), 0, "a write without a peer");
	attach();
	ok_u64(missing(), 2, "is missing");
	ok_errno(put(80 * BYTES, 4096), 0, "one with the peer");
	ok_u64(missing(), 2, "is not");
	before = sent();
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	settle();
	same("after it");
	ok(sent() - before <= 2 * REGION + 8, "no more than that was sent");
	unmake();
}

/* A copy that begins and ends while a write is on its way to local. */
static void *slow_put(void *arg)
{
	*(int *)arg = put(7 * BYTES, 4096);
	return NULL;
}

static void late_write(void)
{
	pthread_t thread;
	int err;

	section("a write that is late");
	make("1 async");
	fill();
	unmake();
	errno = dm_make("push-local", SECTORS, "delay", "%s 0 0 %s 0 1500", local_disk, local_disk);
	need(!errno, "a disk that writes slowly");
	leg_make("push-peer", peer_disk, SECTORS);
	errno = dm_make("push", SECTORS, "repl-primary", "%s - - %u 1 async",
			dm_path("push-local"), REGION);
	need(!errno, "a primary");
	fd = dev_open(dm_path("push"));
	local_fd = dev_open(local_disk);
	peer_fd = dev_open(peer_disk);
	attach();
	ok_errno(dm_message("push", "dirty mark peer 0 %u", SECTORS), 0, "all is missing");
	need(!pthread_create(&thread, NULL, slow_put, &err), "a thread");
	/* It is counted when it has ended; that it has begun shows here. */
	while (!strcmp(field(18), "0"))
		;
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty, with a write on its way");
	wait_state("done");
	pthread_join(thread, NULL);
	ok_errno(err, 0, "the write");
	wait_pushed();
	settle();
	same("with what was late");
	unmake();
}

/* With a cut nothing is copied. */
static void during_cut(void)
{
	uint64_t before;

	section("a cut");
	make("1 async");
	fill();
	attach();
	ok_errno(dm_message("push", "push full"), 0, "push full");
	wait_state("done");
	ok_errno(dm_message("push", "cut 1000"), 0, "a cut");
	before = sent();
	ok_errno(dm_message("push", "push full"), 0, "push full, before its release");
	ok_errno(dm_message("push", "job pause"), 0, "pause");
	ok_errno(dm_message("push", "job resume"), 0, "resume");
	ok_errno(dm_message("push", "drain 1000"), 0, "drain");
	ok_u64(missing(), REGIONS, "nothing has been copied");
	ok_u64(sent(), before, "nor sent");
	ok_str(field(15), "running", "it waits");
	ok_errno(dm_message("push", "release 1000"), 0, "release");
	wait_state("done");
	same("after the release");
	unmake();
}

static void by_hand(void)
{
	uint64_t left;

	section("pause, speed, cancel");
	make("1 async");
	fill();
	attach();
	ok_errno(dm_message("push", "job pause"), EBUSY, "there is no job");
	ok_errno(dm_message("push", "job speed 256"), 0, "256 KiB/s");
	ok_str(field(17), "256", "it says so");
	ok_errno(dm_message("push", "push full"), 0, "push full");
	ok_errno(dm_message("push", "job pause"), 0, "pause");
	ok_str(field(15), "paused", "it is paused");
	left = missing();
	ok(left > REGIONS / 2, "most is missing");
	ok_errno(dm_message("push", "job resume"), 0, "resume");
	ok_errno(dm_message("push", "job cancel"), 0, "cancel");
	ok_str(field(15), "cancelled", "it is cancelled");
	ok(missing() > REGIONS / 2, "what was not sent is missing still");
	ok_errno(dm_message("push", "cut 1"), EBUSY, "no cut while something is missing");
	ok_errno(dm_message("push", "job speed 0"), 0, "as fast as it can");
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	same("after that");
	ok_errno(dm_message("push", "push"), EINVAL, "push needs a word");
	ok_errno(dm_message("push", "push half"), EINVAL, "a word that it knows");
	ok_errno(dm_message("push", "push full slowly"), EINVAL, "and no other");
	ok_errno(dm_message("push", "job speed x"), EINVAL, "a speed is a number");
	unmake();
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ull + ts.tv_nsec / 1000;
}

/*
 * The bucket is empty at first, and a piece may start as long as it is not in debt: by
 * the time t no more than rate * t and one piece. A machine that is slow is only later.
 */
static void pace(void)
{
	const uint64_t rate = 4 * MIB, piece = MIB;
	uint64_t begin, t, before, done;
	bool bounded = true;

	section("pace");
	make("1 async");
	fill();
	attach();
	ok_errno(dm_message("push", "dirty mark peer 0 %u", 5 * MIB / SECTOR), 0, "5 MiB are missing");
	ok_errno(dm_message("push", "job speed %llu", (unsigned long long)rate / KIB), 0, "4 MiB/s");
	before = sent();
	begin = now_us();
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	do {
		done = (sent() - before) * SECTOR;
		t = now_us() - begin;
		bounded = bounded && done <= rate * t / 1000000 + piece;
	} while (done < 5 * MIB);
	ok(bounded, "no more than what the time allows has been sent, at any time");
	ok(t >= (5 * MIB - piece) * 1000000 / rate, "5 MiB, the first of which is free, take a second");
	wait_state("done");
	ok_errno(dm_message("push", "job speed 0"), 0, "as fast as it can");
	unmake();
}

/* Regions that are being copied: all are missing at first, and the peer is held. */
static uint64_t in_flight(uint64_t at_least)
{
	uint64_t left;

	ok_errno(dm_message("push", "push full"), 0, "push full");
	do
		left = missing();
	while (left > REGIONS - at_least);
	/* Whoever is starting pieces has come to an end then. */
	ok_errno(dm_message("push", "job pause"), 0, "pause");
	return REGIONS - missing();
}

static void end_held(void)
{
	leg_heal("push-peer");
	ok_errno(dm_message("push", "job resume"), 0, "resume");
	wait_state("done");
}

struct reader {
	pthread_t thread;
	atomic_bool stop;
	atomic_uint reads;
	int err;
};

static void *reading(void *arg)
{
	struct reader *r = arg;
	uint8_t *buf = io_alloc(4096);

	while (!r->stop && !r->err) {
		r->err = io_read(fd, 0, 4096, buf);
		r->reads++;
	}
	munmap(buf, 4096);
	return NULL;
}

/* The workload needs the disk. */
static void backs_off(void)
{
	struct reader r = { .err = 0 };
	uint64_t nr, left;
	unsigned int reads;

	section("the workload comes first");
	make("2 async peer_timeout=600000");
	fill();
	attach();
	ok_errno(put(0, 4096), 0, "a write, before the push");
	settle();
	leg_hold("push-peer");
	nr = in_flight(4 * MIB / BYTES);
	ok_u64(nr, 4 * MIB / BYTES, "with nobody else on the disk 4 MiB are copied at a time");
	end_held();

	need(!pthread_create(&r.thread, NULL, reading, &r), "a thread");
	/* It may have had no CPU for the 100 ms after which the disk counts as idle. */
	for (unsigned int i = 0; i < 5; i++) {
		leg_hold("push-peer");
		in_flight(MIB / BYTES);
		leg_heal("push-peer");
		/* What began before the first read was seen has ended, and now one has been. */
		while (pushed() + missing() < REGIONS)
			;
		leg_hold("push-peer");
		left = missing();
		reads = r.reads;
		while (r.reads < reads + 2)
			;
		ok_errno(dm_message("push", "job resume"), 0, "resume");
		while (missing() > left - MIB / BYTES)
			;
		ok_errno(dm_message("push", "job pause"), 0, "pause");
		nr = left - missing();
		end_held();
		if (nr == MIB / BYTES)
			break;
	}
	ok_u64(nr, MIB / BYTES, "while the workload reads, 1 MiB");
	r.stop = true;
	pthread_join(r.thread, NULL);
	ok_errno(r.err, 0, "the reads");
	same("afterwards");
	unmake();
}

/* What is being copied is waited for, too; what is not yet stays missing. */
static void flushes(void)
{
	uint64_t same = 0, left;
	uint8_t *buf = io_alloc(BYTES);

	section("flush during a push");
	make("2 async peer_timeout=600000");
	fill();
	attach();
	leg_hold("push-peer");
	in_flight(MIB / BYTES);
	left = missing();
	leg_heal("push-peer");
	ok_errno(dm_message("push", "flush"), 0, "flush");
	for (unsigned int i = 0; i < REGIONS; i++) {
		need(!io_read(peer_fd, i * BYTES, BYTES, buf), "the peer reads");
		same += !memcmp(buf, content + i * BYTES, BYTES);
	}
	ok_u64(same, REGIONS - left, "all that was being copied is on the peer");
	munmap(buf, BYTES);
	end_held();
	settle();
	unmake();
}

/* A peer that hangs has failed after peer_timeout; what it has is waited for killably. */
static void *cancelling(void *arg)
{
	*(int *)arg = dm_message("push", "job cancel");
	return NULL;
}

static void hangs(void)
{
	pthread_t thread;
	int err = -1;

	section("a peer that hangs during a push");
	make("2 async peer_timeout=300");
	fill();
	attach();
	leg_hold("push-peer");
	ok_errno(dm_message("push", "push full"), 0, "push full");
	need(wait_peer("push", "failed"), "the peer has failed");
	ok_primary_latched("push", "peer-timeout", ETIMEDOUT, ANY_SECTOR);
	ok_errno(put(5 * BYTES, 4096), 0, "the workload goes on");
	ok_str(field(15), "running", "the job waits for what it has sent");
	leg_heal("push-peer");
	wait_state("failed");
	ok(missing() > 0, "what was not copied is missing");
	reattach();
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	settle();
	same("after the peer is well again");

	section("a push to a peer that hangs is cancelled");
	leg_hold("push-peer");
	ok_errno(dm_message("push", "push full"), 0, "push full");
	while (missing() == REGIONS)	/* what has not begun would not be waited for */
		;
	need(!pthread_create(&thread, NULL, cancelling, &err), "a thread");
	wait_state("cancelled");
	ok_errno(put(6 * BYTES, 4096), 0, "the workload goes on");
	need(wait_peer("push", "failed"), "the peer has failed");
	ok_errno(put(7 * BYTES, 4096), 0, "still");
	ok_errno(dm_message("push", "push dirty"), EBUSY, "another push, with copies in flight");
	ok(err == -1, "who cancels waits for them");
	leg_heal("push-peer");
	pthread_join(thread, NULL);
	ok_errno(err, 0, "job cancel");
	ok_str(field(15), "cancelled", "the job is cancelled");
	reattach();
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	settle();
	same("after the peer is well again");
	unmake();
}

static void errors(void)
{
	section("errors");
	make("1 async");
	fill();
	attach();
	leg_fail("push-local", 100 * REGION, REGION, LEG_READS);
	ok_errno(dm_message("push", "push full"), 0, "push full, and local cannot be read");
	wait_state("failed");
	ok_primary_latched("push", "push-read", EIO, ANY_SECTOR);
	ok(missing() > 0, "what was not copied is missing");
	ok_str(field(4), "attached", "the peer is well");
	leg_heal("push-local");
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	same("after local is well again");

	section("the peer fails meanwhile");
	leg_fail("push-peer", 200 * REGION, REGION, LEG_WRITES);
	ok_errno(dm_message("push", "push full"), 0, "push full");
	wait_state("failed");
	ok_str(field(4), "failed", "the peer has failed");
	ok(missing() > 0, "what was not copied is missing");
	ok_errno(dm_message("push", "push dirty"), ENOTCONN, "there is nobody to push to");
	leg_heal("push-peer");
	need(!io_fill(peer_fd, 200 * BYTES, BYTES, 0), "what it lost");
	reattach();
	ok_errno(dm_message("push", "push dirty"), 0, "push dirty");
	wait_state("done");
	same("after the peer is well again");
	unmake();
}

static void zeroes(void)
{
	section("zeroes");
	make("1 async");
	fill();
	memset(content + SIZE / 4, 0, SIZE / 2);
	need(!io_write(local_fd, 0, SIZE, content), "zeroes on local");
	attach();
	ok_u64(loop_used(peer_disk), SIZE, "the peer's disk takes all of its space");
	ok_errno(dm_message("push", "push full"), 0, "push full");
	wait_state("done");
	/* Zeroes that are data take space. */
	ok_u64(loop_used(peer_disk), SIZE / 2, "what was zeroed takes none");
	same("with zeroes in the middle");
	unmake();
}

static void compare(void)
{
	uint64_t before;

	section("compare");
	make("1 async");
	fill();
	attach();
	ok_errno(dm_message("push", "push full"), 0, "push full");
	wait_state("done");
	for (unsigned int i = 0; i < 5; i++)
		need(!io_fill(peer_fd, (i * 50 + 3) * BYTES + 512, 512, 0x55), "a difference");
	/* Two in one chunk, and at the device's end. */
	need(!io_fill(peer_fd, 9 * BYTES, 1024, 0x55), "a difference");
	need(!io_fill(peer_fd, SIZE - 512, 512, 0x55), "a difference");
	before = sent();
	ok_errno(dm_message("push", "push full compare"), 0, "push full compare");
	wait_state("done");
	same("after it");
	/* A chunk of 1 MiB is compared as one. */
	ok(sent() - before <= 7 * 4 * KIB / SECTOR, "sent are the pages that differed: %llu KiB",
	   (unsigned long long)(sent() - before) / 2);
	unmake();
}

static void congestion(void)
{
	uint64_t seed = 3;

	section("congestion");
	make("2 async window=256");
	fill();
	attach();
	ok_errno(dm_message("push", "push full"), 0, "push full");
	wait_state("done");
	leg_hold("push-peer");
	for (unsigned int i = 0; i < 200; i++)
		need(!put(rnd_below(&seed, SECTORS - 32) * SECTOR, 16 * KIB), "a write");
	ok(missing() > 0, "a peer that hangs misses %llu regions", (unsigned long long)missing());
	leg_heal("push-peer");
	wait_pushed();
	ok(true, "there is room again: it is pushed by itself");
	settle();
	same("after the congestion");
	unmake();
}

/* The secondary under a push stays on its last checkpoint. */
static void secondary(void)
{
	static struct repl_set set;
	uint8_t *old = io_alloc(SIZE);
	struct writer w;

	section("a secondary");
	set_make(&set, "pushed", SECTORS, REGION, brd(1), brd(2), brd(3));
	stamp(old, 0, SECTORS, ++tag);
	need(!io_write(set.secondary_fd, 0, SIZE, old), "an image");
	errno = dm_message(set.view, "start");
	need(!errno, "start");

	leg_make("push-local", local_disk, SECTORS);
	errno = dm_make("push", SECTORS, "repl-primary", "%s - - %u 1 async",
			dm_path("push-local"), REGION);
	need(!errno, "a primary");
	fd = dev_open(dm_path("push"));
	local_fd = dev_open(local_disk);
	peer_fd = dup(set.secondary_fd);
	stamp(content, 0, SECTORS, ++tag);
	need(!io_write(local_fd, 0, SIZE, content), "local is filled");
	errno = dm_message("push", "attach %s", dm_path(set.ingest));
	need(!errno, "attach");
	start_writing(&w, 5);
	ok_errno(dm_message("push", "push full"), 0, "push full");
	ok_content(set.view_fd, 0, SIZE, old, "the view is the checkpoint during the push");
	wait_state("done");
	stop_writing(&w);
	settle();
	ok_content(set.view_fd, 0, SIZE, old, "and after it");
	same("under the secondary");
	ok_errno(dm_message(set.view, "checkpoint"), 0, "checkpoint");
	ok_content(set.view_fd, 0, SIZE, content, "then it is what local has");
	close(fd);
	close(local_fd);
	close(peer_fd);
	need(!dm_remove("push") && !dm_remove("push-local"), "the primary is removed");
	set_remove(&set);
	munmap(old, SIZE);
}

/* Maps of the user's: what is written between two questions. */
static void named(void)
{
	section("named maps");
	make("1 async");
	fill();
	ok_errno(dm_message("push", "dirty add backup"), 0, "dirty add");
	ok_errno(dm_message("push", "dirty add fine 8"), 0, "of another granularity");
	ok_errno(put(1000 * SECTOR, 4096), 0, "a write");
	ok_errno(dm_message("push", "dirty freeze backup"), 0, "freeze");
	ok_errno(put(5 * BYTES, 512), 0, "another write");
	ok_errno(dm_message("push", "dirty extents backup"), 0, "extents");
	ok_str(dm_answer, "896 128\nend\n", "of a frozen map are those before");
	ok_errno(dm_message("push", "dirty extents fine"), 0, "extents");
	ok_str(dm_answer, "640 8\n1000 8\nend\n", "in sectors");
	ok_errno(dm_message("push", "dirty thaw backup merge"), 0, "the backup has failed");
	ok_errno(dm_message("push", "dirty extents backup"), 0, "extents");
	ok_str(dm_answer, "640 128\n896 128\nend\n", "of all");
	ok_errno(dm_message("push", "dirty disable fine"), 0, "disable");
	ok_errno(put(0, 512), 0, "a write");
	ok_errno(dm_message("push", "dirty list"), 0, "list");
	ok(strstr(dm_answer, "peer 128 enabled 3 -\n") &&
	   strstr(dm_answer, "checkpoint 128 enabled 3 -\n") &&
	   strstr(dm_answer, "backup 128 enabled 3 -\n") &&
	   strstr(dm_answer, "fine 8 disabled 2 -\n"), "four maps");
	ok_errno(dm_message("push", "dirty remove peer"), EBUSY, "some are the kernel's");
	ok_errno(dm_message("push", "dirty mark peer 0 1 %u 1", SECTORS), EINVAL,
		 "past the end");
	ok_errno(dm_message("push", "dirty mark peer 10000 1"), 0, "another host's");
	ok_u64(missing(), 4, "is missing too");
	unmake();
}

int main(void)
{
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	watchdog(patience_of(300));
	brd_load(4, SIZE);
	content = io_alloc(SIZE);
	scratch = io_alloc(MIB);
	local_disk = brd(0);
	peer_disk = brd(1);
	first_sync();
	first_sync_in_sync();
	late_write();
	during_cut();
	outage();
	by_hand();
	pace();
	backs_off();
	flushes();
	hangs();
	errors();
	compare();
	congestion();
	secondary();
	named();
	peer_disk = loop_make(SIZE);
	zeroes();
	return tap_end();
}

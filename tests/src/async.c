// SPDX-License-Identifier: GPL-2.0-only
/*
 * The asynchronous primary: the workload waits for its own disk only, whatever the
 * peer does, and the peer gets what it is to get, in order.
 *
 * Local and peer are legs (tests/lib/dm.h) over disks that are compared whole, past
 * the targets. A peer that hangs is a leg that is held.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "repl.h"

#define NAME "async"
#define LOCAL "async-local"
#define PEER "async-peer"
#define SIZE (4u * MIB)
#define SECTORS (SIZE / SECTOR)
#define REGION 128u			/* sectors */
#define BYTES (REGION * SECTOR)
#define REGIONS (SECTORS / REGION)

#define at(region) ((uint64_t)(region) * BYTES)

static uint8_t *content, *scratch, *image;
static const char *local_disk, *peer_disk;
static int local_fd, peer_fd, fd;	/* the disks; the primary */
static uint64_t tag;
static struct repl_primary_status st;

/*
 * ---- The primary ----
 */

static void status(void)
{
	repl_primary_status(NAME, &st);
}

/* Both disks are the same at first. */
static void make(const char *features)
{
	leg_make(LOCAL, local_disk, SECTORS);
	leg_make(PEER, peer_disk, SECTORS);
	local_fd = dev_open(local_disk);
	peer_fd = dev_open(peer_disk);
	stamp(content, 0, SECTORS, ++tag);
	need(!io_write(local_fd, 0, SIZE, content), "local is filled");
	need(!io_write(peer_fd, 0, SIZE, content), "the peer is filled");
	errno = dm_make(NAME, SECTORS, "repl-primary", "%s %s - %u %s", dm_path(LOCAL),
			dm_path(PEER), REGION, features);
	need(!errno, "a primary: %s", features);
	fd = dev_open(dm_path(NAME));
}

static void unmake(void)
{
	close(fd);
	close(local_fd);
	close(peer_fd);
	ok_errno(dm_remove(NAME), 0, "the primary can be removed");
	need(!dm_remove(LOCAL) && !dm_remove(PEER), "all is removed");
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

/* Past the primary. */
static int put_image(int disk, uint64_t offset, size_t len)
{
	stamp(content + offset, offset / SECTOR, len / SECTOR, ++tag);
	return io_write(disk, offset, len, content + offset);
}

/* Regions on the metadata device. */
static uint64_t identity_dirty(void)
{
	unsigned long long dirty;

	need(!dm_message(NAME, "identity") &&
	     sscanf(dm_answer, "%*s %*s %*s %*s %*s %llu", &dirty) == 1, "identity");
	return dirty;
}

/* A write to each of these regions. */
static void put_regions(unsigned int first, unsigned int nr)
{
	for (unsigned int i = first; i < first + nr; i++)
		need(!put(at(i) + 8 * SECTOR, 4096), "a write to region %u", i);
}

static unsigned int cut_id = 100;

/* What was written before is on the peer's disk, and nothing is on its way. */
static void settle(void)
{
	cut_id++;
	ok_errno(dm_message(NAME, "cut %u", cut_id), 0, "cut %u", cut_id);
	ok_errno(dm_message(NAME, "drain %u", cut_id), 0, "drain %u", cut_id);
	ok_errno(dm_message(NAME, "release %u", cut_id), 0, "release %u", cut_id);
}

static void same(const char *when)
{
	ok_content(local_fd, 0, SIZE, content, "local is exact %s", when);
	ok_content(peer_fd, 0, SIZE, content, "the peer is the same %s", when);
	status();
	ok_u64(st.dirty, 0, "and nothing is missing");
	ok_u64(st.window_used, 0, "nor in the window");
}

/* Whatever was written, the disks are the same. */
static void equal(const char *when)
{
	need(!io_read(local_fd, 0, SIZE, content), "local reads");
	same(when);
}

static void wait_job_done(void)
{
	for (;;) {
		uint32_t nr = dm_event_nr(NAME);

		status();
		if (!st.dirty && !strcmp(st.job_state, "done"))
			return;
		need(strcmp(st.job_state, "failed"), "the push has failed");
		dm_wait_event(NAME, nr);
	}
}

/* After congestion a push may have begun by itself, or have been and gone. */
static void wait_caught_up(void)
{
	status();
	if (st.dirty || !strcmp(st.job_state, "running"))
		wait_job_done();
}

static void attach_and_push(void)
{
	ok_errno(dm_message(NAME, "attach %s", dm_path(PEER)), 0, "attach");
	ok_primary_latched(NAME, "-", 0, 0);
	ok_errno(dm_message(NAME, "push dirty"), 0, "push dirty");
	wait_job_done();
	settle();
}

/* Nothing tells that the window fills or empties: look. */
static void wait_used(uint64_t min, uint64_t max)
{
	do {
		sched_yield();
		status();
	} while (st.window_used < min || st.window_used > max);
}

/*
 * ---- Threads ----
 */

/* One write or one message, by somebody who may have to wait. */
struct helper {
	pthread_t thread;
	char message[64];		/* "": a write */
	uint64_t offset;
	size_t len;
	int err;
	atomic_int tid;
	atomic_bool ended;
};

static void *helper_run(void *arg)
{
	struct helper *h = arg;
	uint8_t *buf;

	h->tid = gettid();
	if (h->message[0]) {
		h->err = dm_message_text(NAME, h->message);
	} else {
		buf = io_alloc(h->len);
		memcpy(buf, content + h->offset, h->len);
		h->err = io_write(fd, h->offset, h->len, buf);
	}
	h->ended = true;
	return NULL;
}

static void start_put(struct helper *h, uint64_t offset, size_t len)
{
	memset(h, 0, sizeof(*h));
	h->offset = offset;
	h->len = len;
	stamp(content + offset, offset / SECTOR, len / SECTOR, ++tag);
	need(!pthread_create(&h->thread, NULL, helper_run, h), "a thread");
}

static void start_message(struct helper *h, const char *message)
{
	memset(h, 0, sizeof(*h));
	snprintf(h->message, sizeof(h->message), "%s", message);
	need(!pthread_create(&h->thread, NULL, helper_run, h), "a thread");
}

/* It waits in the kernel, killably, for what only the caller will do. */
static void wait_waits(struct helper *h)
{
	char path[64], state = 0;
	FILE *f;

	do {
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", h->tid);
		f = h->tid ? fopen(path, "r") : NULL;
		if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		if (f)
			fclose(f);
	} while (state != 'D');
}

static void end(struct helper *h, int want, const char *what)
{
	pthread_join(h->thread, NULL);
	ok_errno(h->err, want, "%s", what);
}

/*
 * ---- Order ----
 */

#define DEPTH 16u

struct writer {
	pthread_t thread;
	uint64_t seed;
	unsigned int rounds;
	bool zeroes;
	int err;
};

/* Many at once, on a few regions: they overlap each other, and what is queued. */
static void *writing(void *arg)
{
	struct writer *w = arg;
	struct io_req reqs[DEPTH];
	uint8_t *buf = io_alloc(DEPTH * 32 * KIB);

	for (unsigned int i = 0; i < w->rounds && !w->err; i++) {
		for (unsigned int j = 0; j < DEPTH; j++) {
			uint64_t len = (1 + rnd_below(&w->seed, 64)) * SECTOR;
			uint64_t offset = rnd_below(&w->seed, 128) * 4 * SECTOR;

			reqs[j] = (struct io_req){ true, offset, len, buf + j * 32 * KIB };
			stamp(reqs[j].buf, offset / SECTOR, len / SECTOR, rnd(&w->seed));
		}
		io_wait(io_start(fd, reqs, DEPTH));
		for (unsigned int j = 0; j < DEPTH; j++)
			w->err = w->err ?: reqs[j].error;
		if (w->zeroes && i % 4 == 0)
			w->err = w->err ?: io_zeroes(fd, rnd_below(&w->seed, 64) * 4096, 8192);
		if (w->zeroes && i % 4 == 1)
			w->err = w->err ?: io_discard(fd, rnd_below(&w->seed, 64) * 4096, 8192);
	}
	return NULL;
}

static void order(const char *features, bool zeroes)
{
	struct writer w[3];

	section("order, %s%s", features, zeroes ? ", zeroes" : "");
	make(features);
	for (unsigned int i = 0; i < 3; i++) {
		w[i] = (struct writer){ .seed = i + tag, .rounds = 60, .zeroes = zeroes };
		need(!pthread_create(&w[i].thread, NULL, writing, &w[i]), "a thread");
	}
	for (unsigned int i = 0; i < 3; i++) {
		pthread_join(w[i].thread, NULL);
		ok_errno(w[i].err, 0, "the workload has had no error");
	}
	wait_caught_up();
	settle();
	equal("after overlapping writes");
	ok_primary_latched(NAME, "-", 0, 0);
	unmake();
}

/*
 * What is written over and over takes the window's room, and goes to the peer, as often
 * as it must. Behind a cut nothing is sent, so what waits is known.
 */
static void rewrites(void)
{
	struct helper h;
	uint64_t writes;

	section("rewrites");
	make("2 async peer_timeout=600000");
	leg_hold(PEER);
	/* The second waits for the first, whether that one is on its way already or not. */
	need(!put(at(1), 8 * KIB) && !put(at(1) + 4 * KIB, 4 * KIB), "writes");
	ok_errno(dm_message(NAME, "cut 1"), 0, "cut");
	memcpy(image, content, SIZE);
	status();
	ok_u64(st.window_used, 12, "two writes before it");
	for (unsigned int i = 0; i < 100; i++)
		need(!put(at(1) + 4 * KIB, 4 * KIB), "a write");
	status();
	ok_u64(st.window_used, 12 + 4, "a hundred behind it, over the second");
	leg_hold(LOCAL);
	start_put(&h, at(1) + 4 * KIB, 4 * KIB);
	wait_used(20, 20);
	ok_errno(dm_message(NAME, "flush"), EBUSY, "a flush during the cut, one being written");
	leg_heal(LOCAL);
	end(&h, 0, "a write");
	status();
	ok_u64(st.window_used, 12 + 4, "it takes no place but of the one behind the cut");
	need(!put(at(2), 8 * KIB) && !put(at(2) + 4 * KIB, 4 * KIB), "writes");
	status();
	ok_u64(st.window_used, 16 + 12, "one that covers only half of another");
	need(!put(at(3), 4 * KIB) && !put(at(3) + 4 * KIB, 4 * KIB), "writes");
	status();
	ok_u64(st.window_used, 28 + 8, "two beside each other");
	need(!put(at(3), 12 * KIB), "a write");
	status();
	ok_u64(st.window_used, 28 + 12, "one that covers both");
	need(!put(at(4), 8 * KIB) && !io_zeroes_or_fail(fd, at(4), 8 * KIB), "a write and zeroes");
	memset(content + at(4), 0, 8 * KIB);
	status();
	ok_u64(st.window_used, 40 + 4, "zeroes cover, too");
	need(!put(at(5), 8 * KIB) && !io_discard(fd, at(5), 8 * KIB), "a write and a discard");
	need(!io_read(local_fd, at(5), 8 * KIB, content + at(5)), "local reads");
	status();
	ok_u64(st.window_used, 44 + 8 + 4, "a discard does not");
	leg_heal(PEER);
	ok_errno(dm_message(NAME, "drain 1"), 0, "drain");
	ok_content(peer_fd, 0, SIZE, image, "the peer has what was written before the cut");
	writes = leg_writes(PEER);
	ok_errno(dm_message(NAME, "release 1"), 0, "release");
	settle();
	same("after the release");
	status();
	ok_u64(st.missed, 0, "none of the writes was missed");
	writes = leg_writes(PEER) - writes;
	ok(writes <= 7, "six of them, and a discard, went to the peer: %llu",
	   (unsigned long long)writes);

	section("rewrites behind a flush");
	leg_hold(PEER);
	need(!put(at(6), 8 * KIB), "a write");
	for (unsigned int i = 0; i < 10; i++)
		need(!put(at(6) + 4 * KIB, 4 * KIB), "a write that must wait for it");
	status();
	ok_u64(st.window_used, 8 + 4, "the last of ten takes the place of the others");
	start_message(&h, "flush");
	wait_waits(&h);
	for (unsigned int i = 0; i < 10; i++)
		need(!put(at(6) + 4 * KIB, 4 * KIB), "another one");
	status();
	ok_u64(st.window_used, 12 + 4, "and not the place of what a flush waits for");
	leg_heal(PEER);
	end(&h, 0, "flush");
	settle();
	same("afterwards");

	section("rewrites, and a local disk that fails");
	leg_hold(PEER);
	ok_errno(dm_message(NAME, "cut 2"), 0, "cut");
	need(!put(at(7), 4 * KIB), "a write");
	leg_fail(LOCAL, REGION * 7, REGION, LEG_WRITES);
	ok_errno(put(at(7), 4096), EIO, "one in the same place fails");
	status();
	ok_u64(st.window_used, 4, "the one before it stays");
	leg_heal(LOCAL);
	leg_heal(PEER);
	ok_errno(dm_message(NAME, "abort 2"), 0, "abort");
	wait_caught_up();
	settle();
	same("afterwards");
	unmake();
}

static atomic_bool busy_ends;

static void to_cpu_0(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	need(!sched_setaffinity(0, sizeof(set), &set), "to CPU 0");
}

/* Who runs there otherwise is interrupted at any time, for so long. */
static void *busy(void *arg)
{
	const struct sched_param param = { .sched_priority = 1 };
	const long long spin = patience_of(20) * 1000000LL;
	struct timespec from, now, pause = { 0 };
	uint64_t seed = 17;

	to_cpu_0();
	need(!sched_setscheduler(0, SCHED_FIFO, &param), "SCHED_FIFO");
	while (!busy_ends) {
		pause.tv_nsec = 1000000 + rnd_below(&seed, 2000000);
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &from);
		do
			clock_gettime(CLOCK_MONOTONIC, &now);
		while ((now.tv_sec - from.tv_sec) * 1000000000LL + now.tv_nsec - from.tv_nsec <
		       spin);
	}
	return arg;
}

/* Thrice what the window holds. */
static void *writing_much(void *arg)
{
	struct writer *w = arg;
	struct io_req reqs[12];

	to_cpu_0();
	for (unsigned int i = 0; i < 12; i++)
		reqs[i] = (struct io_req){ true, at(rnd_below(&w->seed, REGIONS)), BYTES, scratch };
	io_wait(io_start(fd, reqs, 12));
	for (unsigned int i = 0; i < 12; i++)
		w->err = w->err ?: reqs[i].error;
	return NULL;
}

/*
 * Who is missed may be interrupted between that and its mark in the map, for longer
 * than a push takes that comes for it. (Where kernels are preemptible.)
 */
static void congested_often(void)
{
	const char *old = peer_disk;
	pthread_t other;
	char slow[64];

	section("congestion, over and over");
	errno = dm_make("async-slow", SECTORS, "delay", "%s 0 %u", peer_disk, patience_of(4));
	need(!errno, "a slow peer");
	snprintf(slow, sizeof(slow), "%s", dm_path("async-slow"));
	peer_disk = slow;
	make("2 async window=256");
	busy_ends = false;
	need(!pthread_create(&other, NULL, busy, NULL), "a thread");
	for (unsigned int i = 0; i < 100; i++) {
		struct writer w = { .seed = i + tag };

		stamp(scratch, 0, REGION, ++tag);
		need(!pthread_create(&w.thread, NULL, writing_much, &w), "a thread");
		pthread_join(w.thread, NULL);
		need(!w.err, "the workload has had no error");
		wait_caught_up();
	}
	busy_ends = true;
	pthread_join(other, NULL);
	settle();
	equal("after congestion, over and over");
	ok_primary_latched(NAME, "-", 0, 0);
	unmake();
	need(!dm_remove("async-slow"), "the slow peer is removed");
	peer_disk = old;
}

/* The buffer is its owner's again when the write has ended. */
static void changed_later(void)
{
	section("a buffer that changes");
	make("1 async");
	leg_hold(PEER);
	ok_errno(put(at(3), 2 * BYTES), 0, "a write while the peer hangs");
	memset(scratch, 0xee, 2 * BYTES);
	leg_heal(PEER);
	settle();
	same("as it was when it was written");
	status();
	ok_u64(st.forwarded, st.writes, "all writes were forwarded");
	unmake();
}

/* What the peer cannot do is data, or is dropped. */
static void zeroes_as_data(void)
{
	const char *old = peer_disk;

	section("a peer without zeroes");
	peer_disk = nullb_make("async0", SIZE, SECTOR, false, false);
	make("1 async");
	ok_errno(io_zeroes(fd, at(5) + SECTOR, 3 * BYTES), 0, "write-zeroes");
	memset(content + at(5) + SECTOR, 0, 3 * BYTES);
	ok_errno(put(at(6), 4096), 0, "a write over it");
	settle();
	same("after the zeroes");
	ok_errno(io_discard(fd, at(20), BYTES), 0, "discard");
	settle();
	ok_content(peer_fd, 0, SIZE, content, "a discard is dropped");
	ok_primary_latched(NAME, "-", 0, 0);
	status();
	ok_u64(st.dirty, 0, "nothing is missing");
	unmake();
	peer_disk = old;
}

/*
 * ---- A peer that hangs or fails ----
 */

static void hang_and_detach(void)
{
	struct helper detach;
	uint64_t forwarded;

	section("a peer that hangs, detach");
	make("1 async");
	status();
	forwarded = st.forwarded;
	leg_hold_writes(PEER);
	put_regions(0, 10);
	leg_wait_write(PEER);
	status();
	ok_u64(st.forwarded, forwarded, "the peer has got nothing");
	ok_u64(st.window_used, 40, "ten writes are in the window");
	ok_u64(st.checkpoint_regions, 10, "ten regions are not in the checkpoint");
	ok_u64(st.dirty, 0, "none is missing yet");

	start_message(&detach, "detach");
	need(wait_peer(NAME, "detached"), "it is detached at once");
	status();
	ok_str(st.stage, "none", "and nothing is forwarded");
	put_regions(10, 5);
	ok(!detach.ended, "detach waits for what is in flight");
	ok_errno(dm_message(NAME, "attach %s", dm_path(PEER)), EBUSY, "attach, with that in flight");
	leg_heal(PEER);
	end(&detach, 0, "detach");
	status();
	ok_u64(st.dirty, 15, "15 regions are missing");

	attach_and_push();
	same("after the push");
	unmake();
}

/* Its answers come late. */
static void attach_late(void)
{
	do
		errno = dm_message(NAME, "attach %s", dm_path(PEER));
	while (errno == EBUSY);
	need(!errno, "attach");
}

static void timeout(void)
{
	section("peer_timeout");
	make("2 async peer_timeout=300");
	leg_hold(PEER);
	put_regions(0, 4);
	need(wait_peer(NAME, "failed"), "the peer has failed");
	ok_primary_latched(NAME, "peer-timeout", ETIMEDOUT, ANY_SECTOR);
	put_regions(4, 4);
	ok_content(local_fd, 0, SIZE, content, "the workload goes on");
	ok_errno(dm_message(NAME, "cut 1"), EBUSY, "there is no cut");
	ok_errno(dm_message(NAME, "attach %s", dm_path(PEER)), EBUSY, "attach, with I/O in flight");
	ok_primary_latched(NAME, "peer-timeout", ETIMEDOUT, ANY_SECTOR);
	status();
	ok_str(st.peer, "failed", "that has changed nothing");
	leg_heal(PEER);
	attach_late();
	ok_primary_latched(NAME, "-", 0, 0);
	status();
	ok_u64(st.dirty, 8, "all of it is missing");
	ok_errno(dm_message(NAME, "push dirty"), 0, "push dirty");
	wait_job_done();
	settle();
	same("after the push");
	unmake();
}

/* What a drain waits for begins with the cut, or when all before it has arrived. */
static void cut_flushes(void)
{
	section("a cut, and nobody who drains");
	make("2 async peer_timeout=300");
	leg_hold(PEER);
	ok_errno(dm_message(NAME, "cut 1"), 0, "cut");
	need(wait_peer(NAME, "failed"), "the peer did not answer");
	ok_primary_latched(NAME, "peer-timeout", ETIMEDOUT, ANY_SECTOR);
	status();
	ok_str(st.cut, "1:broken", "to the flush: there was no write");
	ok_errno(dm_message(NAME, "abort 1"), 0, "abort");
	leg_heal(PEER);
	attach_late();

	leg_hold(PEER);
	put_regions(0, 4);
	ok_errno(dm_message(NAME, "cut 2"), 0, "cut, with writes on their way");
	leg_fail(PEER, SECTORS - 8, 8, LEG_WRITES);	/* and flushes */
	need(wait_peer(NAME, "failed"), "the peer has failed");
	ok_primary_latched(NAME, "peer-flush", EIO, ANY_SECTOR);
	ok_errno(dm_message(NAME, "abort 2"), 0, "abort");
	leg_heal(PEER);
	attach_and_push();
	same("after the push");

	/* Flushes fail: so it is seen whether there is one. */
	ok_errno(dm_message(NAME, "cut 3"), 0, "cut, behind the push");
	ok_errno(dm_message(NAME, "drain 3"), 0, "drain");
	ok_errno(dm_message(NAME, "release 3"), 0, "release");
	leg_fail(PEER, SECTORS - 8, 8, LEG_WRITES);
	ok_errno(dm_message(NAME, "cut 4"), 0, "cut, with nothing written since the last flush");
	ok_errno(dm_message(NAME, "drain 4"), 0, "it sends none");
	ok_errno(dm_message(NAME, "release 4"), 0, "release");
	put_regions(8, 1);
	ok_errno(dm_message(NAME, "cut 5"), 0, "cut, with something written");
	ok_errno(dm_message(NAME, "drain 5"), EIO, "it does");
	ok_primary_latched(NAME, "peer-flush", EIO, ANY_SECTOR);
	ok_errno(dm_message(NAME, "abort 5"), 0, "abort");
	leg_heal(PEER);
	attach_and_push();
	same("after the second push");
	unmake();
}

static void failure(void)
{
	section("a peer that fails");
	make("1 async");
	leg_hold(PEER);
	put_regions(0, 20);
	leg_fail(PEER, 0, SECTORS, LEG_ALL);
	need(wait_peer(NAME, "failed"), "the peer has failed");
	ok_primary_latched(NAME, "peer-write", EIO, ANY_SECTOR);
	ok_errno(put(at(30), 4096), 0, "the workload sees nothing of it");
	wait_used(0, 0);
	status();
	ok_u64(st.dirty, 21, "all of it is missing");
	leg_heal(PEER);
	attach_and_push();
	same("after the push");
	unmake();
}

static void local_failure(void)
{
	section("a local disk that fails");
	make("1 async");
	leg_fail(LOCAL, REGION * 3, REGION, LEG_WRITES);
	ok_errno(put(at(3), 4096), EIO, "a write gets EIO");
	ok_errno(put(at(4), 4096), 0, "one beside it does not");
	wait_job_done();
	settle();
	same("for the region was copied");
	ok_primary_latched(NAME, "-", 0, 0);
	leg_heal(LOCAL);
	ok_errno(put(at(3), 4096), 0, "a write, once mended");
	settle();
	same("afterwards");
	unmake();
}

/*
 * ---- A window that is full ----
 */

static void congestion_dirty(void)
{
	section("congestion=dirty");
	make("3 async window=256 peer_timeout=600000");
	leg_hold(PEER);
	for (unsigned int i = 0; i < 4; i++)
		for (unsigned int j = 0; j < REGIONS; j++)
			need(!put(at(j) + i * 16 * KIB, 16 * KIB), "a write");
	status();
	ok_u64(st.window_used, 256, "the window is full");
	ok(st.dirty >= REGIONS - 16, "what had no room is missing");
	ok_str(st.peer, "attached", "the peer hangs, and has not failed");
	ok_content(local_fd, 0, SIZE, content, "the workload did not wait");
	ok_errno(dm_message(NAME, "cut 1"), EBUSY, "no cut of a peer that is behind");
	leg_heal(PEER);
	wait_job_done();
	settle();
	same("after a push by itself");
	unmake();
}

static void congestion_block(void)
{
	struct helper a, b;

	section("congestion=block");
	make("4 async congestion=block window=256 peer_timeout=600000");
	leg_hold(PEER);
	start_put(&a, 0, MIB);
	wait_used(128, 256);
	start_put(&b, 2 * MIB, 4 * BYTES);
	status();
	ok(!a.ended && !b.ended, "writes wait for room");
	ok_u64(st.dirty, 0, "nothing is missed");
	leg_heal(PEER);
	end(&a, 0, "the first write");
	end(&b, 0, "the second");
	settle();
	same("afterwards");
	status();
	ok_u64(st.missed, 0, "all writes were forwarded");
	unmake();

	section("congestion=block, timeout");
	make("4 async congestion=block window=256 peer_timeout=300");
	leg_hold(PEER);
	start_put(&a, 0, MIB);
	end(&a, 0, "a write that waits goes on without the peer");
	ok_primary_latched(NAME, "peer-timeout", ETIMEDOUT, ANY_SECTOR);
	ok_content(local_fd, 0, SIZE, content, "and is on local");
	leg_heal(PEER);
	wait_used(0, 0);
	ok_u64(st.dirty, 16, "all of it is missing");
	unmake();
}

/*
 * ---- Cuts ----
 */

static void cut(void)
{
	section("cut");
	make("1 async");
	put_regions(0, 8);
	ok_errno(dm_message(NAME, "drain 1"), EINVAL, "there is nothing to drain");
	ok_errno(dm_message(NAME, "release 1"), EINVAL, "nor to release");
	ok_errno(dm_message(NAME, "abort 1"), EINVAL, "nor to abort");
	leg_hold(PEER);
	ok_errno(put(at(1), BYTES), 0, "a write before the cut");
	ok_errno(dm_message(NAME, "cut 1"), 0, "a cut does not wait for the peer");
	memcpy(image, content, SIZE);
	status();
	ok_str(st.cut, "1:cut", "there is a cut");
	ok_errno(put(at(1) + SECTOR, BYTES), 0, "a write behind it, over one before it");
	put_regions(4, 10);
	ok_errno(dm_message(NAME, "cut 2"), EBUSY, "one cut at a time");
	ok_errno(dm_message(NAME, "cut 1"), EBUSY, "it is there already");
	leg_heal(PEER);
	ok_errno(dm_message(NAME, "drain 2"), EINVAL, "drain another one");
	ok_errno(dm_message(NAME, "drain 1"), 0, "drain");
	status();
	ok_str(st.cut, "1:drained", "it is drained");
	ok_content(peer_fd, 0, SIZE, image, "the peer has what was written before, and no more");
	ok_content(local_fd, 0, SIZE, content, "local has all");
	ok_errno(dm_message(NAME, "dirty extents checkpoint"), 0, "extents");
	ok_str(dm_answer, "0 1792\nend\n", "what the peer's last checkpoint has not got");
	ok_errno(dm_message(NAME, "release 2"), EINVAL, "release another one");
	ok_errno(dm_message(NAME, "release 1"), 0, "release");
	status();
	ok_str(st.cut, "-", "there is no cut");
	ok_u64(st.checkpoint_regions, 12, "the checkpoint has what was before");
	settle();
	same("after the release");

	section("abort");
	put_regions(0, 3);
	ok_errno(dm_message(NAME, "cut 3"), 0, "cut");
	memcpy(image, content, SIZE);
	put_regions(2, 3);
	ok_errno(dm_message(NAME, "drain 3"), 0, "drain");
	ok_content(peer_fd, 0, SIZE, image, "the peer has what was written before");
	ok_errno(dm_message(NAME, "abort 3"), 0, "abort");
	status();
	ok_str(st.cut, "-", "there is no cut");
	ok_u64(st.checkpoint_regions, 5, "the checkpoint has none of it");
	settle();
	same("after the abort");

	section("all is written, before a cut and behind it");
	put_regions(0, REGIONS);
	ok_errno(dm_message(NAME, "cut 4"), 0, "cut");
	put_regions(0, REGIONS);
	status();
	ok_u64(st.checkpoint_regions, REGIONS, "no more regions than there are wait for a checkpoint");
	ok_errno(dm_message(NAME, "drain 4"), 0, "drain");
	ok_errno(dm_message(NAME, "release 4"), 0, "release");
	settle();
	same("after that");
	unmake();
}

static void hold(void)
{
	struct helper w;

	section("cut and hold");
	make("1 async");
	put_regions(0, 4);
	ok_errno(dm_message(NAME, "cut 5 hold"), 0, "cut 5 hold");
	status();
	ok_str(st.cut, "5:held", "writes are held");
	memcpy(image, content, SIZE);
	start_put(&w, at(2), 4096);
	ok_errno(dm_message(NAME, "drain 5"), 0, "drain");
	ok(!w.ended, "a write waits");
	ok_content(local_fd, 0, SIZE, image, "and is not on local");
	ok_errno(dm_message(NAME, "detach"), EBUSY, "no detach meanwhile");
	ok_errno(dm_message(NAME, "cut 6"), EBUSY, "it is another one");
	ok_errno(dm_message(NAME, "cut 5"), 0, "cut 5");
	end(&w, 0, "the write");
	ok_content(peer_fd, 0, SIZE, image, "the peer has not got it");
	ok_errno(dm_message(NAME, "release 5"), 0, "release");
	settle();
	same("afterwards");

	section("nobody opens");
	ok_errno(dm_message(NAME, "cut 6 hold"), 0, "cut 6 hold");
	start_put(&w, at(7), 4096);
	end(&w, 0, "a write, after 10 s");
	do
		status();
	while (strcmp(st.cut, "-"));
	ok_errno(dm_message(NAME, "drain 6"), EINVAL, "there is no cut to drain");
	ok_errno(dm_message(NAME, "release 6"), EINVAL, "nor to release");
	ok_errno(dm_message(NAME, "cut 6"), ETIMEDOUT, "nor to open: it would be of another moment");
	status();
	ok_str(st.cut, "-", "there is none");
	ok_errno(dm_message(NAME, "cut 6 hold"), 0, "cut 6 hold, once more");
	ok_errno(dm_message(NAME, "cut 6"), 0, "cut 6");
	ok_errno(dm_message(NAME, "abort 6"), 0, "abort");
	settle();
	same("afterwards");
	unmake();
}

/* What was sent before it is on the peer, and nothing that comes later is waited for. */
static void flush(void)
{
	struct helper h;

	section("flush");
	make("2 async peer_timeout=600000");
	leg_hold(PEER);
	put_regions(0, 3);
	start_message(&h, "flush");
	leg_heal(PEER);
	end(&h, 0, "flush");
	ok_content(peer_fd, 0, SIZE, content, "what was written before is on the peer");
	status();
	ok_u64(st.checkpoint_regions, 3, "its checkpoint has not got it");
	ok_errno(dm_message(NAME, "flush"), 0, "flush, with nothing to send");
	ok_errno(dm_message(NAME, "flush 1"), EINVAL, "flush, with a word too many");

	ok_errno(dm_message(NAME, "cut 1"), 0, "cut");
	ok_errno(dm_message(NAME, "flush"), EBUSY, "not during a cut");
	ok_errno(dm_message(NAME, "abort 1"), 0, "abort");
	leg_hold(PEER);
	put_regions(10, 2);
	start_message(&h, "flush");
	wait_waits(&h);
	ok_errno(dm_message(NAME, "cut 2"), 0, "a cut comes before it has ended");
	end(&h, EBUSY, "flush");
	ok_errno(dm_message(NAME, "abort 2"), 0, "abort");
	leg_heal(PEER);
	settle();
	same("after the flush that was refused");

	section("flush, and a peer that fails");
	leg_fail(PEER, SECTORS - 8, 8, LEG_WRITES);	/* and flushes */
	put_regions(20, 1);
	ok_errno(dm_message(NAME, "flush"), EIO, "the flush fails");
	ok_primary_latched(NAME, "peer-flush", EIO, ANY_SECTOR);
	ok_errno(dm_message(NAME, "flush"), EIO, "there is no peer that is well");
	leg_heal(PEER);
	attach_and_push();
	leg_hold(PEER);
	put_regions(30, 2);
	start_message(&h, "flush");
	leg_fail(PEER, 0, SECTORS, LEG_ALL);
	end(&h, EIO, "the write before it fails: flush");
	leg_heal(PEER);
	attach_and_push();
	leg_hold(PEER);
	put_regions(40, 2);
	start_message(&h, "flush");
	leg_heal(PEER);
	ok_errno(dm_message(NAME, "detach"), 0, "detach");
	pthread_join(h.thread, NULL);
	ok(!h.err || h.err == EIO, "who flushes does not wait for ever");
	ok_errno(dm_message(NAME, "flush"), EIO, "there is no peer");
	attach_and_push();
	same("afterwards");
	unmake();

	section("flush in mode sync");
	make("1 sync");
	put_regions(0, 3);
	ok_errno(dm_message(NAME, "flush"), 0, "flush");
	leg_fail(PEER, SECTORS - 8, 8, LEG_WRITES);
	ok_errno(dm_message(NAME, "flush"), EIO, "it fails");
	ok_primary_latched(NAME, "peer-flush", EIO, ANY_SECTOR);
	leg_heal(PEER);
	ok_errno(dm_message(NAME, "attach %s", dm_path(PEER)), 0, "attach");
	equal("afterwards");
	unmake();
}

static void broken(void)
{
	struct helper drain;
	pid_t child;
	int how;

	section("a peer that fails during a cut");
	make("1 async");
	leg_hold(PEER);
	put_regions(0, 4);
	ok_errno(dm_message(NAME, "cut 7"), 0, "cut");
	put_regions(10, 4);
	start_message(&drain, "drain 7");

	child = fork();
	if (!child) {
		dm_message(NAME, "drain 7");
		_exit(0);
	}
	need(child > 0 && !kill(child, SIGKILL), "somebody is killed");
	need(waitpid(child, &how, 0) == child, "waitpid");
	ok(WIFSIGNALED(how), "who drains can be killed");
	ok(!drain.ended, "the other one waits");

	leg_fail(PEER, 0, SECTORS, LEG_ALL);
	end(&drain, EIO, "drain");
	status();
	ok_str(st.cut, "7:broken", "the cut is broken");
	ok_errno(dm_message(NAME, "drain 7"), EIO, "drain again");
	wait_used(0, 0);
	status();
	ok_u64(st.dirty, 8, "what is before and behind it is missing");
	ok_errno(dm_message(NAME, "release 7"), 0, "it can be released");
	status();
	ok_u64(st.checkpoint_regions, 4, "who releases knows");
	leg_heal(PEER);
	attach_and_push();
	same("after the push");

	section("detach during a cut");
	leg_hold(PEER);
	put_regions(0, 4);
	ok_errno(dm_message(NAME, "cut 8"), 0, "cut");
	start_message(&drain, "drain 8");
	leg_heal(PEER);
	end(&drain, 0, "drain");
	put_regions(10, 2);
	ok_errno(dm_message(NAME, "detach"), 0, "detach");
	status();
	ok_str(st.cut, "8:broken", "the cut is broken");
	ok_u64(st.dirty, 2, "what is behind it is missing");
	ok_errno(dm_message(NAME, "abort 8"), 0, "it can be aborted");
	attach_and_push();
	same("after the push");
	unmake();
}

/*
 * ---- Suspend and reload ----
 */

static int reload(const char *features, unsigned int region)
{
	return dm_reload_one(NAME, SECTORS, "repl-primary", "%s %s - %u %s", dm_path(LOCAL),
			     dm_path(PEER), region, features);
}

static void reloads(void)
{
	uint64_t writes;

	section("reload");
	make("1 async");
	ok_errno(dm_message(NAME, "detach"), 0, "detach");
	put_regions(0, 6);
	status();
	writes = st.writes;
	ok_errno(reload("2 async congestion=block", REGION), 0, "with the peer");
	status();
	ok_u64(st.writes, writes, "the counts are kept");
	ok_u64(st.dirty, 6, "what is missing is missing");
	ok_u64(st.checkpoint_regions, 6, "also in the checkpoint");
	ok_errno(reload("1 async", REGION / 2), 0, "with smaller regions");
	status();
	ok_u64(st.dirty, 12, "the same is missing");
	ok_errno(reload("1 async", REGION * 2), 0, "with larger regions");
	status();
	ok_u64(st.dirty, 3, "the same is missing");
	ok_errno(dm_message(NAME, "push dirty"), 0, "push dirty");
	wait_job_done();
	same("after the push");

	section("reload with a cut");
	put_regions(10, 2);
	ok_errno(dm_message(NAME, "cut 9"), 0, "cut");
	memcpy(image, content, SIZE);
	put_regions(1, 4);
	ok_errno(reload("2 async window=1024", REGION), 0, "reload");
	status();
	ok_str(st.cut, "9:cut", "the cut is there");
	put_regions(20, 1);
	ok_errno(dm_message(NAME, "dirty extents checkpoint"), 0, "extents");
	ok_str(dm_answer, "0 768\n1280 256\n2560 128\nend\n", "with what it froze");
	ok_errno(dm_message(NAME, "drain 9"), 0, "drain");
	ok_content(peer_fd, 0, SIZE, image, "the peer has what was written before");
	ok_errno(dm_message(NAME, "release 9"), 0, "release");
	wait_job_done();
	settle();
	same("after a push by itself");

	section("released while suspended, and a reload");
	put_regions(10, 2);
	ok_errno(dm_message(NAME, "cut 10"), 0, "cut");
	put_regions(1, 4);
	ok_errno(dm_message(NAME, "drain 10"), 0, "drain");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_message(NAME, "release 10"), 0, "release");
	ok_errno(reload("1 async", REGION), 0, "reload");
	wait_job_done();
	settle();
	same("after a push by itself");

	section("reload with a cut, to mode sync");
	put_regions(10, 2);
	ok_errno(dm_message(NAME, "cut 11"), 0, "cut");
	put_regions(1, 4);
	ok_errno(reload("1 sync", REGION), 0, "reload");
	status();
	ok_str(st.cut, "-", "the cut is aborted");
	ok_u64(st.checkpoint_regions, 6, "the checkpoint has none of it");
	ok_errno(dm_message(NAME, "release 11"), EOPNOTSUPP, "it cannot be released");
	wait_job_done();
	same("after a push by itself");
	ok_errno(reload("1 async", REGION), 0, "async again");
	settle();
	same("afterwards");

	section("a failed peer");
	leg_fail(PEER, 0, SECTORS, LEG_ALL);
	put_regions(0, 1);
	need(wait_peer(NAME, "failed"), "the peer has failed");
	leg_heal(PEER);
	ok_errno(reload("1 async", REGION), 0, "reload");
	status();
	ok_str(st.peer, "failed", "is failed still");
	ok_primary_latched(NAME, "peer-write", EIO, ANY_SECTOR);
	ok_errno(reload("1 sync", REGION), 0, "sync");
	status();
	ok_str(st.peer, "failed", "is failed still");
	ok_u64(st.dirty, 1, "a region is missing");
	ok_errno(dm_message(NAME, "cut 1"), EOPNOTSUPP, "no cut in mode sync");
	unmake();
}

/* What the old table knew is not lost with it: it is gone by then. */
static void reload_fails(void)
{
	char table[2][160];
	struct dm_seg seg = { 0, SECTORS, "repl-primary", table[0] };

	section("a reload whose resume fails");
	leg_make("async-meta", brd(2), SECTORS);
	local_fd = dev_open(brd(2));
	memset(scratch, 0, MIB);
	need(!io_write(local_fd, 0, MIB, scratch), "no metadata");
	close(local_fd);
	make("1 async");
	ok_errno(dm_message(NAME, "detach"), 0, "detach");
	put_regions(0, 6);
	snprintf(table[0], sizeof(table[0]), "%s - %s %u", dm_path(LOCAL), dm_path("async-meta"),
		 REGION);
	snprintf(table[1], sizeof(table[1]), "%s - - %u", dm_path(LOCAL), REGION);
	leg_fail("async-meta", 0, SECTORS, LEG_WRITES);
	ok_errno(dm_load(NAME, &seg, 1), 0, "a table with metadata");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_resume(NAME), EIO, "resume, and the metadata cannot be written");
	ok_errno(dm_message(NAME, "cut 1"), EBUSY, "no message before it is resumed");
	ok_errno(dm_message(NAME, "lineage -"), EBUSY, "nor this one");
	leg_heal("async-meta");
	ok_errno(dm_resume(NAME), 0, "resume, once more");
	status();
	ok_u64(st.dirty, 6, "what was missing is missing");
	ok_u64(st.checkpoint_regions, 6, "also in the checkpoint");
	ok_u64(identity_dirty(), 6, "and on the metadata device");
	put_regions(10, 2);
	close(fd);
	ok_errno(dm_remove(NAME), 0, "it is removed");
	errno = dm_make(NAME, SECTORS, "repl-primary", "%s", table[0]);
	need(!errno, "and made again");
	fd = dev_open(dm_path(NAME));
	ok_u64(identity_dirty(), 8, "all is there");

	section("a reload whose resume fails, and then another table");
	leg_fail("async-meta", 0, SECTORS, LEG_WRITES);
	seg.params = table[1];
	ok_errno(dm_load(NAME, &seg, 1), 0, "a table without metadata");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_resume(NAME), 0, "resume");
	put_regions(20, 3);
	seg.params = table[0];
	ok_errno(dm_load(NAME, &seg, 1), 0, "the table with metadata");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_resume(NAME), EIO, "resume fails");
	seg.params = table[1];
	ok_errno(dm_load(NAME, &seg, 1), 0, "the table without it once more");
	ok_errno(dm_resume(NAME), 0, "resume");
	status();
	ok_u64(st.dirty, 11, "what was missing is missing");
	leg_heal("async-meta");
	attach_and_push();
	same("after the push");
	unmake();

	section("a reload whose resume fails, during a push");
	make("1 async");
	ok_errno(dm_message(NAME, "detach"), 0, "detach");
	put_regions(0, 30);
	ok_errno(dm_message(NAME, "attach %s", dm_path(PEER)), 0, "attach");
	ok_errno(dm_message(NAME, "job speed 64"), 0, "one region a second");
	ok_errno(dm_message(NAME, "push dirty"), 0, "push dirty");
	snprintf(table[0], sizeof(table[0]), "%s %s %s %u 1 async", dm_path(LOCAL),
		 dm_path(PEER), dm_path("async-meta"), REGION);
	seg.params = table[0];
	leg_fail("async-meta", 0, SECTORS, LEG_WRITES);
	ok_errno(dm_load(NAME, &seg, 1), 0, "a table with metadata");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_resume(NAME), EIO, "resume fails");
	leg_heal("async-meta");
	ok_errno(dm_resume(NAME), 0, "resume, once more");
	put_regions(20, 5);
	ok_errno(dm_message(NAME, "job speed 0"), 0, "as fast as it goes");
	wait_job_done();
	settle();
	same("after the push");
	unmake();
	need(!dm_remove("async-meta"), "the metadata is removed");
}

/* What a device has more than before is on neither disk what the other has. */
static void grows(void)
{
	section("a device that grows");
	make("1 async");
	close(fd);
	ok_errno(dm_remove(NAME), 0, "remove");
	errno = dm_make(NAME, SECTORS / 2, "repl-primary", "%s %s - %u 1 async", dm_path(LOCAL),
			dm_path(PEER), REGION);
	need(!errno, "one of half the length");
	need(!put_image(local_fd, SIZE / 2, SIZE / 2), "local has something behind it");
	ok_errno(reload("1 async", REGION), 0, "reload, with all of the length");
	fd = dev_open(dm_path(NAME));
	status();
	ok_u64(st.checkpoint_regions, REGIONS / 2, "it is not in the checkpoint");
	wait_job_done();
	settle();
	same("after a push by itself");
	unmake();
}

/* Nothing waits behind a cut there: it is as long as the device is suspended. */
static void sync_cut(void)
{
	section("cut in mode sync");
	make("1 sync");
	put_regions(0, 4);
	ok_errno(dm_message(NAME, "cut 1"), EOPNOTSUPP, "cut, not suspended");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_message(NAME, "cut 1 hold"), EINVAL, "there is nothing to hold");
	ok_errno(dm_message(NAME, "cut 1"), 0, "cut");
	ok_errno(dm_message(NAME, "cut 2"), EBUSY, "another one");
	ok_errno(dm_message(NAME, "drain 1"), EOPNOTSUPP, "nothing waits");
	status();
	ok_str(st.cut, "1:cut", "there is a cut");
	ok_u64(st.checkpoint_regions, 4, "four regions wait for the answer");
	ok_errno(dm_message(NAME, "abort 1"), 0, "abort");
	status();
	ok_u64(st.checkpoint_regions, 4, "they are dirty again");
	ok_errno(dm_message(NAME, "cut 2"), 0, "cut");
	ok_errno(dm_message(NAME, "release 2"), 0, "release");
	ok_errno(dm_message(NAME, "release 2"), EINVAL, "it is over");
	ok_errno(dm_resume(NAME), 0, "resume");
	status();
	ok_u64(st.checkpoint_regions, 0, "the checkpoint has them");

	section("cut in mode sync, and a reload to async");
	put_regions(12, 2);
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_message(NAME, "cut 3"), 0, "cut");
	ok_errno(reload("1 async", REGION), 0, "reload");
	status();
	ok_str(st.cut, "-", "the cut is aborted: nothing waits behind it");
	ok_u64(st.checkpoint_regions, 2, "what it froze is dirty again");
	settle();
	ok_errno(reload("1 sync", REGION), 0, "and back");

	section("cut in mode sync, resumed without an answer");
	put_regions(7, 3);
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_message(NAME, "cut 3"), 0, "cut");
	ok_errno(dm_resume(NAME), 0, "resume");
	status();
	ok_str(st.cut, "-", "the cut is aborted");
	ok_u64(st.checkpoint_regions, 3, "what it froze is dirty again");
	put_regions(20, 1);
	ok_errno(dm_message(NAME, "detach"), 0, "detach");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	ok_errno(dm_message(NAME, "cut 3"), EBUSY, "cut without a peer");
	ok_errno(dm_resume(NAME), 0, "resume");
	same("afterwards");
	unmake();
}

/* Who suspends waits for a peer that hangs; the workload does not. */
static void suspend(void)
{
	section("suspend");
	make("2 async peer_timeout=300");
	put_regions(0, 30);
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	status();
	ok_u64(st.window_used, 0, "all is on the peer");
	ok_content(peer_fd, 0, SIZE, content, "exactly");
	ok_errno(dm_resume(NAME), 0, "resume");
	put_regions(5, 30);
	settle();
	same("afterwards");
	unmake();
}

static void *suspending(void *arg)
{
	*(int *)arg = dm_suspend(NAME, 0);
	return NULL;
}

/* Writes must not be held while a suspend waits for them. */
static void cut_while_suspending(void)
{
	struct helper drain;
	pthread_t thread;
	int err = -1;

	section("a cut while the device is being suspended");
	make("2 async peer_timeout=600000");
	leg_hold(PEER);
	put_regions(0, 3);
	ok_errno(dm_message(NAME, "cut 1"), 0, "cut");
	start_message(&drain, "drain 1");
	need(!pthread_create(&thread, NULL, suspending, &err), "a thread");
	end(&drain, EAGAIN, "who drains does not hold up the suspend");
	ok_errno(dm_message(NAME, "release 1"), 0, "release");
	ok_errno(dm_message(NAME, "cut 2 hold"), EBUSY, "no cut now");
	ok_errno(dm_message(NAME, "cut 2"), EBUSY, "nor one that holds nothing");
	put_regions(10, 5);
	ok(err == -1, "the workload writes while the suspend waits for the peer");
	ok_content(local_fd, 0, SIZE, content, "that is on local");
	leg_heal(PEER);
	pthread_join(thread, NULL);
	ok_errno(err, 0, "suspend");
	ok_errno(dm_resume(NAME), 0, "resume");
	wait_caught_up();
	settle();
	same("afterwards");
	unmake();
}

/* A suspend that leaves something is no failure of a peer that is slow. */
static void slow_zeroes(void)
{
	const char *old = peer_disk;

	section("suspend, with zeroes to be written as data to a slow peer");
	errno = dm_make("async-slow", SECTORS, "delay", "%s 0 0 %s 0 500", old, old);
	need(!errno, "a slow disk");
	peer_disk = dm_path("async-slow");
	leg_make(LOCAL, local_disk, SECTORS);
	leg_make(PEER, peer_disk, SECTORS);
	local_fd = dev_open(local_disk);
	peer_fd = dev_open(old);
	stamp(content, 0, SECTORS, ++tag);
	need(!io_write(local_fd, 0, SIZE, content), "local is filled");
	need(!io_write(peer_fd, 0, SIZE, content), "the peer is filled");
	errno = dm_make(NAME, SECTORS, "repl-primary", "%s - - %u 2 async peer_timeout=3000",
			dm_path(LOCAL), REGION);
	need(!errno, "a primary that can write zeroes");
	fd = dev_open(dm_path(NAME));
	ok_errno(dm_message(NAME, "attach %s", dm_path(PEER)), 0, "a peer that cannot");
	for (unsigned int i = 0; i < 24; i++)
		need(!io_zeroes_or_fail(fd, at(i), BYTES), "write-zeroes");
	memset(content, 0, 24 * BYTES);
	status();
	ok(st.window_used && st.window_used <= 24 * 4, "they are not data in the window");
	ok_errno(dm_suspend(NAME, 0), 0, "suspend");
	status();
	ok(st.dirty > 0, "something is missing");
	ok_str(st.peer, "attached", "the peer has not failed");
	ok_primary_latched(NAME, "-", 0, 0);
	ok_errno(dm_resume(NAME), 0, "resume");
	wait_job_done();
	settle();
	same("after a push by itself");
	unmake();
	need(!dm_remove("async-slow"), "the slow disk is removed");
	peer_disk = old;
}

/* A disk of several may have done it in part: who asked believes that nothing has changed. */
static void refused(const char *features)
{
	section("write-zeroes that local refuses, %s", features);
	make(features);
	ok_errno(put(at(3), BYTES), 0, "a write");
	settle();
	status();
	ok_str(st.job, "-", "there was no push");
	ok_errno(io_zeroes(fd, at(3), BYTES), 0, "write-zeroes, as data in the end");
	memset(content + at(3), 0, BYTES);
	wait_job_done();
	ok(true, "what local has there was copied");
	settle();
	same("afterwards");
	unmake();
}

static void metadata_as_peer(void)
{
	section("the metadata device as the peer");
	memset(scratch, 0, MIB);
	local_fd = dev_open(brd(2));
	need(!io_write(local_fd, 0, MIB, scratch), "no metadata");
	close(local_fd);
	errno = dm_make(NAME, SECTORS, "repl-primary", "%s - %s %u", local_disk, brd(2), REGION);
	need(!errno, "a primary");
	ok_errno(dm_message(NAME, "attach %s", brd(2)), EINVAL, "attach");
	status();
	ok_str(st.peer, "none", "there is no peer");
	need(!dm_remove(NAME), "all is removed");
}

static unsigned long available(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
			break;
	need(kib, "/proc/meminfo");
	fclose(f);
	return kib;
}

/* A process that holds all memory but so much. Who must go for want of memory is it. */
static pid_t hog(unsigned long but_kib)
{
	size_t size = (available() - but_kib) * 1024;
	int ready[2];
	char byte;
	pid_t pid;

	need(!pipe(ready), "a pipe");
	pid = fork();
	need(pid >= 0, "fork");
	if (!pid) {
		FILE *f = fopen("/proc/self/oom_score_adj", "w");
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!f || fprintf(f, "1000") < 0 || fclose(f) || p == MAP_FAILED ||
		    mlock(p, size) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	need(read(ready[0], &byte, 1) == 1, "%zu MiB are held", size / MIB);
	close(ready[0]);
	return pid;
}

/*
 * Pages can only be had by writing others, through a primary whose peer does not answer.
 */
static void pressure(bool metadata)
{
	const unsigned int mib = 128;
	uint64_t sectors = (uint64_t)mib * MIB / SECTOR;
	int i, err = 0, status_of_it;
	pid_t pid;

	section("memory pressure, and a peer that hangs%s", metadata ? ", with metadata" : "");
	need(!dm_make("async-zero", sectors, "zero", " "), "a disk that keeps nothing");
	need(!dm_make("async-far", sectors, "zero", " "), "another one");
	need(!metadata || !dm_make("async-meta", sectors, "zero", " "), "a third one");
	leg_make(PEER, dm_path("async-far"), sectors);
	/* It is not to fail in the time that this takes. */
	errno = dm_make(NAME, sectors, "repl-primary", "%s %s %s %u 2 async peer_timeout=%u",
			dm_path("async-zero"), dm_path(PEER),
			metadata ? dm_path("async-meta") : "-", REGION,
			patience_of(120) * 1000);
	need(!errno, "a primary");
	leg_hold(PEER);
	fd = open(dm_path(NAME), O_WRONLY | O_CLOEXEC);
	need(fd >= 0, "it is open, with a cache");
	pid = hog(48 * 1024);
	memset(scratch, 1, MIB);
	for (i = 0; i < (int)mib && !err; i++)
		err = write(fd, scratch, MIB) == MIB ? 0 : errno;
	ok_errno(err, 0, "%u MiB through the page cache, which has %lu of them", mib,
		 available() / 1024);
	ok_errno(fsync(fd) ? errno : 0, 0, "and onto the disk");
	ok(!kill(pid, 0) && waitpid(pid, &status_of_it, WNOHANG) == 0,
	   "there was no memory all the time");
	status();
	ok_str(st.peer, "attached", "the peer is waited for, by nobody");
	ok_u64(st.forwarded, 0, "it has got nothing");
	ok(st.window_used <= st.window_size, "what waits for it is bounded");
	ok(st.dirty > 0, "what has no room there is dirty");
	ok_primary_latched(NAME, "-", 0, 0);
	if (metadata)
		ok_u64(identity_dirty(), sectors / REGION, "and recorded");
	kill(pid, SIGKILL);
	waitpid(pid, &status_of_it, 0);
	leg_heal(PEER);
	close(fd);
	ok_errno(dm_remove(NAME), 0, "the primary can be removed");
	need(!dm_remove(PEER) && !dm_remove("async-zero") && !dm_remove("async-far"),
	     "all is removed");
	need(!metadata || !dm_remove("async-meta"), "the metadata too");
}

int main(void)
{
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	watchdog(600);
	console_quiet();
	brd_load(3, SIZE);
	content = io_alloc(SIZE);
	image = io_alloc(SIZE);
	scratch = io_alloc(MIB);
	local_disk = brd(0);
	peer_disk = brd(1);
	changed_later();
	hang_and_detach();
	timeout();
	failure();
	local_failure();
	congestion_dirty();
	congestion_block();
	cut();
	hold();
	broken();
	sync_cut();
	suspend();
	cut_while_suspending();
	metadata_as_peer();
	reloads();
	reload_fails();
	grows();
	order("1 async", false);
	order("2 async window=256", false);
	order("3 async congestion=block window=256", false);
	congested_often();
	local_disk = loop_make(SIZE);
	slow_zeroes();
	peer_disk = loop_make(SIZE);
	rewrites();
	refused("1 async");
	/* (From here on they do not even announce what they have refused.) */
	zeroes_as_data();
	order("1 async", true);
	pressure(false);
	pressure(true);
	cut_flushes();		/* (the RAM disks have no cache to flush) */
	flush();
	return tap_end();
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checkpoints while writes flood in: each is a consistent cut.
 *
 * Each writer writes its own sectors, neighbours of the others' in the same
 * regions, one write after the other; write n goes to its sector n mod SLOTS.
 * A checkpoint then is one number for each writer: the last write that is in
 * it. It must be consistent:
 *  - all of that writer up to that number are in it, and none after;
 *  - what had completed before the checkpoint was asked for is in it;
 *  - what was issued after it was answered is not;
 *  - if a write is in it, so is each write, of whomever, that had completed
 *    when that one was issued.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rig.h"
#include "stamp.h"

#define WRITERS 6
#define SLOTS 191		/* sectors of each writer */
#define LOG (1 << 20)

static struct repl_set set;
static u64 sectors;
static _Atomic u64 issued[WRITERS], completed[WRITERS];
static u32 (*seen[WRITERS])[WRITERS];	/* what had completed when n was issued */
static atomic_bool stop;
static atomic_uint failures;
static pthread_mutex_t view_writing = PTHREAD_MUTEX_INITIALIZER;
static unsigned int flush_every;

static u64 slot_sector(unsigned int w, u64 n)
{
	return (n % SLOTS) * WRITERS + w;
}

static void *writer(void *arg)
{
	unsigned long w = (unsigned long)arg;
	void *buf = big_alloc(SECTOR);
	u64 n = completed[w];

	while (!stop && n + 1 < LOG) {
		n++;
		for (unsigned int o = 0; o < WRITERS; o++)
			seen[w][n][o] = completed[o];
		issued[w] = n;
		stamp_fill(buf, slot_sector(w, n), 1, stamp_tag(n, w, 1));
		if (io_write(set.ingest_fd, slot_sector(w, n) * SECTOR, SECTOR, buf)) {
			note("write %llu of writer %lu fails: %s", (unsigned long long)n, w,
			     strerror(errno));
			failures++;
			break;
		}
		completed[w] = n;
		if (flush_every && n % flush_every == 0 && io_flush(set.ingest_fd))
			failures++;
		progress();
	}
	free(buf);
	return NULL;
}

/* Writes of the view, to anybody's sectors: gone with the next checkpoint. */
static void *view_writer(void *arg)
{
	u64 seed = 5, n = 0;
	void *buf = big_alloc(64 * SECTOR);

	(void)arg;
	while (!stop) {
		u64 begin = pick(&seed, sectors), nr = 1 + pick(&seed, min(64u, sectors - begin));

		stamp_fill(buf, begin, nr, stamp_tag(++n, 99, 1));
		pthread_mutex_lock(&view_writing);
		if (io_write(set.view_fd, begin * SECTOR, nr * SECTOR, buf))
			failures++;
		pthread_mutex_unlock(&view_writing);
		if (n % 16 == 0)
			usleep(500);	/* lets the checkpoints have the lock */
	}
	free(buf);
	return NULL;
}

/* The last write of @w that the image holds; its sectors must all agree. */
static bool last_of(const char *image, unsigned int w, u64 *last)
{
	u64 tag[SLOTS], max_n = 0;
	char text[200];

	for (u64 s = 0; s < SLOTS; s++) {
		u64 sector = slot_sector(w, s);

		tag[s] = stamp_tag_of(image + sector * SECTOR, sector);
		if (tag[s] == STAMP_BAD || (tag[s] && stamp_writer(tag[s]) != w)) {
			note("sector %llu holds %s", (unsigned long long)sector,
			     stamp_describe(image + sector * SECTOR, text));
			return false;
		}
		max_n = max(max_n, stamp_sequence(tag[s]));
	}
	*last = max_n;
	for (u64 n = max_n; n && n + SLOTS > max_n; n--)
		if (stamp_sequence(tag[n % SLOTS]) != n) {
			note("writer %u: write %llu is there, write %llu is not (its sector has %llu)",
			     w, (unsigned long long)max_n, (unsigned long long)n,
			     (unsigned long long)stamp_sequence(tag[n % SLOTS]));
			return false;
		}
	return true;
}

static bool consistent(const char *image, const u64 *before, const u64 *after)
{
	u64 cut[WRITERS];

	for (unsigned int w = 0; w < WRITERS; w++) {
		if (!last_of(image, w, &cut[w]))
			return false;
		if (cut[w] < before[w] || cut[w] > after[w]) {
			note("writer %u: the checkpoint has %llu, but %llu had completed before and %llu were issued",
			     w, (unsigned long long)cut[w], (unsigned long long)before[w],
			     (unsigned long long)after[w]);
			return false;
		}
	}
	for (unsigned int w = 0; w < WRITERS; w++)
		for (unsigned int o = 0; o < WRITERS && cut[w]; o++)
			if (seen[w][cut[w]][o] > cut[o]) {
				note("write %llu of %u is in it, but not write %u of %u that was before it",
				     (unsigned long long)cut[w], w, seen[w][cut[w]][o], o);
				return false;
			}
	return true;
}

enum how { PLAIN, TWO_PHASES, ABORTED_FIRST };

static bool one_checkpoint(u64 *id, enum how how, char *image)
{
	u64 before[WRITERS], after[WRITERS];
	bool good = true;

	if (how == ABORTED_FIRST) {
		good &= !dm_message(set.view, "checkpoint_prepare %llu",
				    (unsigned long long)*id + 7);
		good &= !dm_message(set.view, "checkpoint_abort %llu",
				    (unsigned long long)*id + 7);
	}
	pthread_mutex_lock(&view_writing);
	for (unsigned int w = 0; w < WRITERS; w++)
		before[w] = completed[w];
	++*id;
	if (how == TWO_PHASES) {
		good &= !dm_message(set.view, "checkpoint_prepare %llu", (unsigned long long)*id);
		/* the cut is made: what is issued from here on is not in it */
		for (unsigned int w = 0; w < WRITERS; w++)
			after[w] = issued[w];
		good &= !dm_message(set.view, "checkpoint_commit %llu", (unsigned long long)*id);
	} else {
		good &= !dm_message(set.view, "checkpoint");
		for (unsigned int w = 0; w < WRITERS; w++)
			after[w] = issued[w];
	}
	/* Nothing of the view's since: all of it is the checkpoint. */
	good &= !io_read(set.view_fd, 0, sectors * SECTOR, image);
	pthread_mutex_unlock(&view_writing);
	if (!good) {
		note("checkpoint %llu or its read fails: %s", (unsigned long long)*id,
		     strerror(errno));
		return false;
	}
	return consistent(image, before, after);
}

static void tear_down(void)
{
	set_remove(&set);
	dm_remove_all();
	backing_remove_all();
}

static void run(unsigned int region, const char *backing, unsigned int flush,
		unsigned int checkpoints)
{
	const char *dev[3];
	pthread_t t[WRITERS + 1];
	unsigned int bad = 0, done = 0;
	u64 id = 1, writes = 0;
	char *image;
	void *zero;

	sectors = WRITERS * SLOTS;
	flush_every = flush;
	for (unsigned int i = 0; i < 3; i++) {
		static const char *const name[] = { "cut_s", "cut_h", "cut_a" };

		dev[i] = !strcmp(backing, "loop") ? loop_make(MIB) :
			nullb_make(name[i], MIB, 512, !strcmp(backing, "cached"), false);
	}
	set_make(&set, "cut", sectors, region, dev[0], dev[1], dev[2]);
	image = big_alloc(sectors * SECTOR);
	zero = big_alloc(sectors * SECTOR);
	memset(zero, 0, sectors * SECTOR);
	need(!io_write(set.secondary_fd, 0, sectors * SECTOR, zero), "the secondary is emptied");
	free(zero);
	need(!dm_message(set.view, "start"), "start");

	stop = false;
	failures = 0;
	for (unsigned int w = 0; w < WRITERS; w++) {
		issued[w] = completed[w] = 0;
		seen[w] = calloc(LOG, sizeof(*seen[w]));
		need(seen[w], "there is memory");
	}
	for (unsigned long w = 0; w <= WRITERS; w++)
		need(!pthread_create(&t[w], NULL, w < WRITERS ? writer : view_writer, (void *)w),
		     "a thread starts");
	for (; done < checkpoints && !bad; done++) {
		bad += !one_checkpoint(&id, done % 3, image);
		progress();
	}
	stop = true;
	for (unsigned int w = 0; w <= WRITERS; w++)
		pthread_join(t[w], NULL);
	for (unsigned int w = 0; w < WRITERS; w++) {
		writes += completed[w];
		free(seen[w]);
	}
	ok(!bad && !failures && writes > checkpoints,
	   "%u checkpoints in %llu writes, regions of %u KiB, %s: each is a consistent cut", done,
	   (unsigned long long)writes, region / 2, backing);
	free(image);
	tear_down();
	memset(&set, 0, sizeof(set));
}

int main(void)
{
	unsigned int n = scaled(60);

	watch_progress(60, NULL);
	run(8, "null", 0, n);
	run(128, "null", 0, n);
	run(8, "cached", 16, n);
	run(128, "loop", 16, n / 2 + 1);
	return tap_end();
}

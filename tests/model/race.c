// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads of the view against the first overwrite of each region.
 *
 * dm-delay lies under the secondary. It holds a read back before the device
 * sees it, so a read of the view that was resolved to the secondary just before
 * the region was preserved is still to come when the write may go. If the write
 * did not wait for it, it would read what the peer wrote after the checkpoint.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"
#include "stamp.h"

#define WRITERS 4
#define READERS 4

static struct repl_set set;
static u64 sectors;
static unsigned int region;
static const char *shape;

static u64 *tag;		/* what the checkpoint has */
static u64 *tag_next;		/* what ingest wrote since */
static unsigned int *order;	/* regions, shuffled */
static unsigned int nr_regions, epoch;
static atomic_uint next_region, overwritten;
static atomic_ulong reads, wrong;

static void complain(u64 sector, const void *data)
{
	char got[200], want[200];

	if (atomic_fetch_add(&wrong, 1) < 3)
		note("epoch %u: view sector %llu (region %llu) holds %s, expected %s", epoch,
		     (unsigned long long)sector, (unsigned long long)(sector / region),
		     stamp_describe(data, got), stamp_name(tag[sector], want));
}

/* Ranges that begin and end anywhere, until all regions are overwritten. */
static void *reader(void *arg)
{
	u64 seed = (unsigned long)arg * 77 + epoch;
	void *buf = big_alloc(128 * SECTOR);

	while (overwritten < nr_regions) {
		/* near the front of the writers: that is where the race is */
		unsigned int at = min(next_region + (unsigned int)pick(&seed, 6), nr_regions - 1);
		u64 begin = (u64)order[at] * region + pick(&seed, region);
		u64 nr = 1 + pick(&seed, 16);

		if (pick(&seed, 8) == 0)
			begin = pick(&seed, sectors), nr = 1 + pick(&seed, 128);
		begin = min(begin, sectors - 1);
		nr = min(nr, sectors - begin);
		if (io_read(set.view_fd, begin * SECTOR, nr * SECTOR, buf)) {
			note("a read of the view fails: %s", strerror(errno));
			wrong++;
			break;
		}
		for (u64 i = 0; i < nr; i++)
			if (stamp_tag_of(buf + i * SECTOR, begin + i) != tag[begin + i])
				complain(begin + i, buf + i * SECTOR);
		reads++;
		progress();
	}
	free(buf);
	return NULL;
}

static void *writer(void *arg)
{
	u64 seed = (unsigned long)arg * 99 + epoch;
	void *buf = big_alloc((size_t)region * SECTOR);
	unsigned int i;

	while ((i = next_region++) < nr_regions) {
		u64 begin = (u64)order[i] * region, end = min(begin + region, sectors);
		u64 t = stamp_tag(epoch * 1000 + i, (unsigned long)arg, epoch);

		/* all of the region, or a part */
		if (pick(&seed, 2)) {
			u64 len = end - begin;

			begin += pick(&seed, len);
			end = begin + 1 + pick(&seed, end - begin - 1);
		}
		stamp_fill(buf, begin, end - begin, t);
		if (io_write(set.ingest_fd, begin * SECTOR, (end - begin) * SECTOR, buf)) {
			note("an ingest write fails: %s", strerror(errno));
			wrong++;
		}
		for (; begin < end; begin++)
			tag_next[begin] = t;
		overwritten++;
		progress();
	}
	free(buf);
	return NULL;
}

static void shuffle(void)
{
	u64 seed = epoch;

	for (unsigned int i = 0; i < nr_regions; i++)
		order[i] = i;
	for (unsigned int i = nr_regions - 1; i; i--) {
		unsigned int j = pick(&seed, i + 1), was = order[i];

		order[i] = order[j];
		order[j] = was;
	}
}

static bool scan(int fd, const u64 *want)
{
	char *buf = big_alloc(sectors * SECTOR);
	bool good = !io_read(fd, 0, sectors * SECTOR, buf);

	for (u64 s = 0; s < sectors && good; s++)
		good = stamp_tag_of(buf + s * SECTOR, s) == want[s];
	free(buf);
	return good;
}

static void one_epoch(void)
{
	pthread_t t[WRITERS + READERS];

	next_region = 0;
	overwritten = 0;
	memcpy(tag_next, tag, sectors * sizeof(*tag));
	shuffle();
	for (unsigned long i = 0; i < WRITERS + READERS; i++)
		need(!pthread_create(&t[i], NULL, i < WRITERS ? writer : reader, (void *)(i + 1)),
		     "a thread starts");
	for (unsigned int i = 0; i < WRITERS + READERS; i++)
		pthread_join(t[i], NULL);
}

static void delay(const char *dev, unsigned int read_ms, unsigned int write_ms)
{
	errno = dm_reload_one(set.secondary, sectors, "delay", "%s 0 %u %s 0 %u", dev, read_ms,
			      dev, write_ms);
	need(!errno, "dm-delay lies under the secondary");
}

static void tear_down(void)
{
	set_remove(&set);
	dm_remove_all();
	backing_remove_all();
}

static void run(unsigned int region_sectors, unsigned int read_ms, unsigned int write_ms,
		unsigned int epochs)
{
	const char *dev[3];
	u64 bytes;
	void *buf;

	region = region_sectors;
	sectors = (region > 8 ? region > 128 ? 20 : 80 : 160) * region + region / 2 + 1;
	nr_regions = (sectors + region - 1) / region;
	bytes = (sectors * SECTOR + MIB - 1) / MIB * MIB;
	dev[0] = nullb_make("race_s", bytes, 512, false, false);
	dev[1] = nullb_make("race_h", bytes, 512, false, false);
	dev[2] = nullb_make("race_a", bytes, 512, false, false);
	set_make(&set, "race", sectors, region, dev[0], dev[1], dev[2]);

	tag = calloc(sectors, sizeof(*tag));
	tag_next = calloc(sectors, sizeof(*tag));
	order = calloc(nr_regions, sizeof(*order));
	buf = big_alloc(sectors * SECTOR);
	for (u64 s = 0; s < sectors; s++)
		tag[s] = stamp_tag(1, 0, 0);
	stamp_fill(buf, 0, sectors, tag[0]);
	need(!io_write(set.secondary_fd, 0, sectors * SECTOR, buf), "the secondary is filled");
	free(buf);

	need(!dm_message(set.view, "start"), "start");
	delay(dev[0], read_ms, write_ms);
	reads = wrong = 0;
	for (epoch = 1; epoch <= epochs; epoch++) {
		u64 *was = tag;

		one_epoch();
		if (!scan(set.view_fd, tag)) {
			note("epoch %u: at its end the view is not the checkpoint", epoch);
			wrong++;
		}
		need(!dm_message(set.view, "checkpoint"), "checkpoint");
		tag = tag_next;
		tag_next = was;
		if (!scan(set.secondary_fd, tag) || !scan(set.view_fd, tag)) {
			note("epoch %u: after the checkpoint the secondary is not what was written",
			     epoch);
			wrong++;
		}
	}
	ok(!wrong, "%s, regions of %u KiB, reads delayed %u ms, writes %u ms: %u overwrites against %lu reads, each as of the checkpoint",
	   shape, region / 2, read_ms, write_ms, epochs * nr_regions, (unsigned long)reads);
	free(tag);
	free(tag_next);
	free(order);
	tear_down();
	memset(&set, 0, sizeof(set));
}

int main(void)
{
	unsigned int epochs = scaled(3);

	if (system("modprobe dm-delay"))
		need(false, "dm-delay loads");
	watch_progress(60, NULL);
	shape = "readers and first overwrites";
	run(8, 3, 0, epochs);
	run(128, 3, 0, epochs);
	run(8, 0, 3, epochs);
	run(128, 2, 5, epochs);
	run(8, 0, 0, epochs * 4);
	run(2048 / 4, 1, 0, epochs);
	return tap_end();
}

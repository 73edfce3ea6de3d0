// SPDX-License-Identifier: GPL-2.0-only
/*
 * Replays the traces of tests/traces (see the README there) and compares every
 * hash.
 *
 * A trace runs once for each region size. A device must be equal, byte for
 * byte, to a model that plays the same steps, which says where a difference
 * is; what was read from the device in the first run is also hashed, and those
 * are the trace's hashes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"
#include "sha256.h"

#define SIZE (8 * MIB)

static struct repl_set set;

/* The model: what is where after the steps so far. */
static uint8_t *view, *secondary;
static bool merged;

/* Images whose hash is still to be taken. */
static struct image {
	uint8_t *bytes;
	unsigned int line;
	char want[65];
} images[SHA256_LANES];
static unsigned int nr_images, good_hashes;
static const char *trace;

static void hash_images(void)
{
	const void *msg[SHA256_LANES];
	char hex[SHA256_LANES][65];

	if (!nr_images)
		return;
	for (unsigned int i = 0; i < SHA256_LANES; i++)
		msg[i] = images[i < nr_images ? i : 0].bytes;
	sha256_lanes(msg, SIZE, hex);
	for (unsigned int i = 0; i < nr_images; i++) {
		if (!strcmp(hex[i], images[i].want))
			good_hashes++;
		else
			ok(false, "%s:%u: hash %s, expected %s", trace,
			   images[i].line, hex[i], images[i].want);
	}
	nr_images = 0;
}

static bool compare(unsigned int line, char dev, const char *want, bool hash)
{
	int fd = dev == 'v' ? set.view_fd : set.secondary_fd;
	struct image *image = &images[nr_images];
	int64_t at;
	int err;

	memset(image->bytes, 0x5a, SIZE);
	err = io_read(fd, 0, SIZE, image->bytes);
	if (err)
		return ok_errno(err, 0, "%s:%u: read", trace, line);
	at = first_difference(image->bytes, dev == 'v' ? view : secondary, SIZE);
	if (at >= 0)
		return ok(false, "%s:%u: byte %lld is 0x%02x, expected 0x%02x", trace,
			  line, (long long)at, image->bytes[at],
			  (dev == 'v' ? view : secondary)[at]);
	if (!hash)
		return true;
	image->line = line;
	snprintf(image->want, sizeof(image->want), "%s", want);
	if (++nr_images == SHA256_LANES)
		hash_images();
	return true;
}

static int step_write(char dev, uint64_t offset, uint64_t len, uint8_t byte)
{
	if (dev == 's') {
		memset(secondary + offset, byte, len);
		if (merged)	/* stopped: both see one disk */
			memset(view + offset, byte, len);
		return io_fill(set.ingest_fd, offset, len, byte);
	}
	memset(view + offset, byte, len);
	if (merged)
		memset(secondary + offset, byte, len);
	return io_fill(set.view_fd, offset, len, byte);
}

static int step(const char *text, unsigned int line, bool hash, unsigned int *compared)
{
	unsigned long long offset, len;
	unsigned int byte;
	char dev, want[65];

	if (sscanf(text, "W %c %llu %llu %u", &dev, &offset, &len, &byte) == 4)
		return step_write(dev, offset, len, byte);
	if (sscanf(text, "H %c %64s", &dev, want) == 2) {
		++*compared;
		compare(line, dev, want, hash);
		return 0;
	}
	switch (text[0]) {
	case 'C':
		memcpy(view, secondary, SIZE);
		return dm_message(set.view, "checkpoint");
	case 'S':
		memcpy(view, secondary, SIZE);
		merged = true;
		return dm_message(set.view, "stop");
	case 'F':
		memcpy(secondary, view, SIZE);
		merged = true;
		return dm_message(set.view, "failover") ?:
			wait_stage(set.view, "done") ? 0 : EIO;
	}
	return EINVAL;
}

static void replay(const char *path, unsigned int region, bool hash)
{
	unsigned int line = 0, compared = 0, before = tap_failures();
	FILE *f = fopen(path, "r");
	char text[256];

	need(f, "%s opens", path);
	trace = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	set_make(&set, "trace", SIZE / SECTOR, region, brd(0), brd(1), brd(2));
	need(!io_fill(set.secondary_fd, 0, SIZE, 0), "the secondary is zero");
	need(!io_fill(set.hidden_fd, 0, SIZE, 0xee), "fill of hidden");
	need(!io_fill(set.active_fd, 0, SIZE, 0xdd), "fill of active");
	memset(view, 0, SIZE);
	memset(secondary, 0, SIZE);
	merged = false;
	good_hashes = 0;
	errno = dm_message(set.view, "start");
	need(!errno, "start");

	while (fgets(text, sizeof(text), f)) {
		int err = step(text, ++line, hash, &compared);

		text[strcspn(text, "\n")] = 0;
		if (err) {
			ok_errno(err, 0, "%s:%u: %s", trace, line, text);
			break;
		}
		if (tap_failures() != before)
			break;
	}
	fclose(f);
	hash_images();
	ok(tap_failures() == before && compared,
	   "%s, regions of %u sectors: %u steps, %u images equal to the model's",
	   trace, region, line, compared);
	if (hash)
		ok_u64(good_hashes, compared, "%s: every hash is the trace's", trace);
	ok_latched(set.view, "-", 0, 0);
	set_remove(&set);
}

int main(int argc, char **argv)
{
	static const unsigned int regions[] = { 8, 128, 8192 };

	watchdog(300);
	brd_load(3, SIZE);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	view = io_alloc(SIZE);
	secondary = io_alloc(SIZE);
	for (unsigned int i = 0; i < SHA256_LANES; i++)
		images[i].bytes = io_alloc(SIZE);

	for (unsigned int r = 0; r < sizeof(regions) / sizeof(regions[0]); r++)
		for (int i = 1; i < argc; i++)
			replay(argv[i], regions[r], r == 0);
	return tap_end();
}

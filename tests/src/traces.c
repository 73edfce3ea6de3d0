// SPDX-License-Identifier: GPL-2.0-only
/*
 * Replays the traces of tests/traces (see the README there). Every hash must
 * match.
 *
 *	traces --model FILE...	plays them on a model, in memory, and compares
 *				every hash; run when this is built, where
 *				hashing is fast
 *	traces FILE...		plays them on devices, once for each region
 *				size; wherever the trace has a hash, the device
 *				must equal the model byte for byte, and the last
 *				image of each trace is hashed once more
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "repl.h"
#include "sha256.h"

#define SIZE (8 * MIB)

static const unsigned int regions[] = { 8, 128, 8192 };	/* sectors */

static struct repl_set set;

/* The model: what is where after the steps so far. */
static uint8_t *view, *secondary;
static bool merged;

/* Images whose hash is still to be taken. */
static struct image {
	uint8_t *bytes;
	const char *trace;
	unsigned int line;
	char want[65];
} images[SHA256_LANES];
static unsigned int nr_images, good_hashes;
static bool model_only;
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
			ok(false, "%s:%u: hash %s, expected %s", images[i].trace,
			   images[i].line, hex[i], images[i].want);
	}
	nr_images = 0;
}

static void hash_later(const void *bytes, unsigned int line, const char *want)
{
	struct image *image = &images[nr_images];

	memcpy(image->bytes, bytes, SIZE);
	image->trace = trace;
	image->line = line;
	snprintf(image->want, sizeof(image->want), "%s", want);
	if (++nr_images == SHA256_LANES)
		hash_images();
}

/* What the device in question held at the last hash. */
static uint8_t *seen;

static int compare(char dev, unsigned int line)
{
	const uint8_t *model = dev == 'v' ? view : secondary;
	int64_t at;
	int err;

	/* A sector that is not read must differ: it holds what was read before. */
	for (size_t i = 0; i < SIZE; i += SECTOR)
		seen[i] = ~seen[i];
	err = io_read(dev == 'v' ? set.view_fd : set.secondary_fd, 0, SIZE, seen);
	if (err)
		return err;
	at = first_difference(seen, model, SIZE);
	if (at >= 0)
		ok(false, "%s:%u: byte %lld is 0x%02x, expected 0x%02x", trace,
		   line, (long long)at, seen[at], model[at]);
	return 0;
}

static int step_write(char dev, uint64_t offset, uint64_t len, uint8_t byte)
{
	if (dev == 's') {
		memset(secondary + offset, byte, len);
		if (merged)	/* stopped: both see one disk */
			memset(view + offset, byte, len);
	} else {
		memset(view + offset, byte, len);
		if (merged)
			memset(secondary + offset, byte, len);
	}
	if (model_only)
		return 0;
	return io_fill(dev == 's' ? set.ingest_fd : set.view_fd, offset, len, byte);
}

static int step_message(const char *text)
{
	return model_only ? 0 : dm_message_text(set.view, text);
}

static int step(const char *text, unsigned int line)
{
	unsigned long long offset, len;
	unsigned int byte;
	char dev, want[65];

	if (sscanf(text, "W %c %llu %llu %u", &dev, &offset, &len, &byte) == 4)
		return step_write(dev, offset, len, byte);
	if (sscanf(text, "H %c %64s", &dev, want) == 2) {
		if (!model_only)
			return compare(dev, line);
		hash_later(dev == 'v' ? view : secondary, line, want);
		return 0;
	}
	switch (text[0]) {
	case 'C':
		memcpy(view, secondary, SIZE);
		return step_message("checkpoint");
	case 'S':
		memcpy(view, secondary, SIZE);
		merged = true;
		return step_message("stop");
	case 'F':
		memcpy(secondary, view, SIZE);
		merged = true;
		return step_message("failover") ?:
			model_only || wait_stage(set.view, "done") ? 0 : EIO;
	}
	return EINVAL;
}

/* Returns how many hashes the trace has. */
static unsigned int play(const char *path, bool hash_last)
{
	unsigned int line = 0, hashes = 0, last = 0, before = tap_failures();
	char text[256], want[65] = "";
	FILE *f = fopen(path, "r");

	need(f, "%s opens", path);
	trace = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	memset(view, 0, SIZE);
	memset(secondary, 0, SIZE);
	merged = false;
	while (tap_failures() == before && fgets(text, sizeof(text), f)) {
		int err;

		text[strcspn(text, "\n")] = 0;
		err = step(text, ++line);
		if (err)
			ok_errno(err, 0, "%s:%u: %s", trace, line, text);
		if (sscanf(text, "H %*c %64s", want) == 1) {
			hashes++;
			last = line;
		}
	}
	fclose(f);
	if (hash_last)
		hash_later(seen, last, want);
	return hashes;
}

static void play_model(int nr, char **paths)
{
	unsigned int hashes = 0;

	model_only = true;
	for (int i = 0; i < nr; i++)
		hashes += play(paths[i], false);
	hash_images();
	if (!hashes || good_hashes != hashes)
		ok_u64(good_hashes, hashes, "every hash is the model's");
}

static void play_devices(const char *path, unsigned int region, unsigned int process)
{
	unsigned int hashes, disk = 3 * process, before = tap_failures();
	bool hash_last = region == regions[0];
	char prefix[16];

	snprintf(prefix, sizeof(prefix), "trace%u", process);
	set_make(&set, prefix, SIZE / SECTOR, region, brd(disk), brd(disk + 1),
		 brd(disk + 2));
	need(!io_fill(set.secondary_fd, 0, SIZE, 0), "the secondary is zero");
	need(!io_fill(set.hidden_fd, 0, SIZE, 0xee), "fill of hidden");
	need(!io_fill(set.active_fd, 0, SIZE, 0xdd), "fill of active");
	errno = dm_message(set.view, "start");
	need(!errno, "start");
	hashes = play(path, hash_last);
	ok(tap_failures() == before && hashes,
	   "%s, regions of %u sectors: all %u images are the model's", trace,
	   region, hashes);
	ok_latched(set.view, "-", 0, 0);
	set_remove(&set);
}

/* One of PROCESSES that have every so many-th trace. */
#define PROCESSES 2

static int play_share(unsigned int process, int nr, char **paths)
{
	unsigned int last_images = 0;

	at_end(dm_remove_all);
	for (int i = process; i < nr; i += PROCESSES) {
		for (unsigned int r = 0; r < sizeof(regions) / sizeof(regions[0]); r++)
			play_devices(paths[i], regions[r], process);
		last_images++;
	}
	hash_images();
	ok_u64(good_hashes, last_images, "the last image of each trace has its hash");
	return tap_end();
}

int main(int argc, char **argv)
{
	watchdog(580);
	view = io_alloc(SIZE);
	secondary = io_alloc(SIZE);
	seen = io_alloc(SIZE);
	for (unsigned int i = 0; i < SHA256_LANES; i++)
		images[i].bytes = io_alloc(SIZE);
	if (argc > 1 && !strcmp(argv[1], "--model")) {
		play_model(argc - 2, argv + 2);
		return tap_end();
	}

	need(argc > 1, "there are traces");
	brd_load(3 * PROCESSES, SIZE);
	for (unsigned int process = 0; process < PROCESSES; process++) {
		pid_t pid = fork();

		need(pid >= 0, "fork");
		if (!pid) {
			watchdog(580);
			return play_share(process, argc - 1, argv + 1);
		}
	}
	at_end(backing_remove_all);
	for (unsigned int process = 0; process < PROCESSES; process++) {
		int status;

		need(wait(&status) > 0, "wait");
		ok(!status, "a process has no failures");
	}
	return tap_end();
}

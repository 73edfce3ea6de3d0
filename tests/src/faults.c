// SPDX-License-Identifier: GPL-2.0-only
/*
 * Failing allocations and failing requests, on a kernel with fault injection.
 *
 * A constructor runs with its n-th allocation failing, n = 1, 2,
 * ... until none is hit any more: each must fail cleanly or succeed. Then I/O
 * with the allocations of the I/O path failing at random: memory comes from
 * mempools, so every write must succeed and the content must be exact.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

#define SECTORS 2048u
#define SIZE (SECTORS * SECTOR)
#define REGION 8u
#define BYTES (REGION * SECTOR)
#define FAILSLAB "/sys/kernel/debug/failslab/"
#define FAILPAGE "/sys/kernel/debug/fail_page_alloc/"

static struct repl_set set;
static uint8_t *view, *secondary;
static uint64_t seed = 35, tag;

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	need(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text),
	     "%s takes %s", path, text);
	close(fd);
}

static void quiet(const char *dir)
{
	char path[128];

	snprintf(path, sizeof(path), "%sverbose", dir);
	put(path, "0");
	snprintf(path, sizeof(path), "%sprobability", dir);
	put(path, "0");
	snprintf(path, sizeof(path), "%stimes", dir);
	put(path, "-1");
}

/* One in so many allocations fails, in percent, of those of named_caches(). */
static void fail_some(unsigned int percent)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", percent);
	put(FAILSLAB "probability", text);
}

/*
 * From whatever thread, but from no other cache: the harness would die of it.
 * Returns whether the module's own is among them.
 */
static bool named_caches(const char *yes)
{
	static const char *const names[] = { "repl_region_op", "kcopyd_job", "io", "bio-", "biovec-" };
	DIR *slab = opendir("/sys/kernel/slab");
	struct dirent *entry;
	bool own = false;

	while (slab && (entry = readdir(slab))) {
		for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			size_t len = strlen(names[i]);
			char path[300];

			if (names[i][len - 1] == '-' ? strncmp(entry->d_name, names[i], len) :
						       strcmp(entry->d_name, names[i]))
				continue;
			snprintf(path, sizeof(path), "/sys/kernel/slab/%s/failslab",
				 entry->d_name);
			put(path, yes);
			own |= !i;
		}
	}
	if (slab)
		closedir(slab);
	put(FAILSLAB "cache-filter", yes);
	return own;
}

static void no_faults(void)
{
	fail_some(0);
	named_caches("0");
}

static int fail_nth_fd;

/* The @n-th allocation of this thread fails. */
static void fail_nth(unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	need(pwrite(fail_nth_fd, text, strlen(text), 0) > 0, "fail-nth is written");
}

/* Whether it was reached; none fails any more. */
static bool was_hit(void)
{
	char text[16] = "";

	need(pread(fail_nth_fd, text, sizeof(text) - 1, 0) > 0, "fail-nth reads");
	fail_nth(0);
	return !atoi(text);
}

/*
 * One table after the other, with one of its allocations failing: each of the
 * first ones, then ever fewer, since most are pages of kcopyd's.
 */
static void constructor(const char *type, const char *params)
{
	unsigned int n, tries = 0, refused = 0;
	bool clean = true;

	section("constructor of %s", type);
	need(!dm_create("fault"), "a device");
	for (n = 1; n < 20000; n += 1 + n / 16, tries++) {
		bool hit;
		int err;

		fail_nth(n);
		err = dm_load_one("fault", SECTORS, type, "%s", params);
		hit = was_hit();
		refused += err != 0;
		if (!err)
			need(!dm_clear("fault"), "the table is dropped");
		else if (!hit)
			clean = false;
		if (!hit)
			break;
	}
	ok(clean && n < 20000, "succeeds when nothing fails");
	ok(refused > 0, "%u failed allocations, %u of them fatal: refused, or done without",
	   tries, refused);
	errno = dm_load_one("fault", SECTORS, type, "%s", params) ?: dm_resume("fault");
	ok_errno(errno, 0, "and works afterwards");
	ok_errno(dm_remove("fault"), 0, "the device can be removed");
}

static void random_io(unsigned int rounds)
{
	unsigned int bad = 0;

	section("I/O");
	set_make(&set, "fault", SECTORS, REGION, brd(0), brd(1), brd(2));
	stamp(secondary, 0, SECTORS, ++tag);
	memcpy(view, secondary, SIZE);
	need(!io_write(set.secondary_fd, 0, SIZE, secondary), "stamps");
	/* A ram disk allocates its pages at their first write. */
	need(!io_fill(set.hidden_fd, 0, SIZE, 0xee) &&
	     !io_fill(set.active_fd, 0, SIZE, 0xdd), "garbage");
	need(!dm_message(set.view, "start"), "start");

	put(FAILSLAB "interval", "1");
	ok(named_caches("1"), "the module's own cache can fail");
	fail_some(50);
	for (unsigned int i = 0; i < rounds; i++) {
		uint64_t sector = rnd_below(&seed, SECTORS - 64);
		unsigned int len = 1 + rnd_below(&seed, 64);
		bool to_view = rnd_below(&seed, 2);
		uint8_t *model = (to_view ? view : secondary) + sector * SECTOR;

		stamp(model, sector, len, ++tag);
		bad += !!io_write(to_view ? set.view_fd : set.ingest_fd,
				  sector * SECTOR, len * SECTOR, model);
	}
	ok_u64(bad, 0, "%u writes with half of the allocations failing", rounds);
	ok_latched(set.view, "-", 0, 0);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is exact");

	ok_errno(dm_message(set.view, "failover"), 0, "failover");
	ok(wait_stage(set.view, "done"), "the merge ends");
	no_faults();
	ok_content(set.secondary_fd, 0, SIZE, view, "the secondary is what the view was");
	set_remove(&set);
}

/* Requests of the disks fail at random: what a sender was told is true. */
static void failing_requests(void)
{
	unsigned int failed = 0, wrong = 0;
	char path[64];

	section("failing requests of hidden");
	if (access("/sys/kernel/debug/fail_make_request", F_OK) ||
	    access("/sys/block/ram1/make-it-fail", F_OK)) {
		skipped("no fault injection", "failing requests");
		return;
	}
	set_make(&set, "fault", SECTORS, REGION, brd(0), brd(1), brd(2));
	stamp(secondary, 0, SECTORS, ++tag);
	memcpy(view, secondary, SIZE);
	need(!io_write(set.secondary_fd, 0, SIZE, secondary), "stamps");
	need(!dm_message(set.view, "start"), "start");
	quiet("/sys/kernel/debug/fail_make_request/");
	snprintf(path, sizeof(path), "/sys/block/ram1/make-it-fail");
	put(path, "1");
	put("/sys/kernel/debug/fail_make_request/probability", "30");
	for (unsigned int i = 0; i < 200; i++) {
		uint64_t region = rnd_below(&seed, SECTORS / REGION);
		uint8_t bytes[BYTES] __attribute__((aligned(4096)));
		int err;

		stamp(bytes, region * REGION, REGION, ++tag);
		err = io_write(set.ingest_fd, region * BYTES, BYTES, bytes);
		failed += err == EIO;
		wrong += err && err != EIO;
		if (!err)
			memcpy(secondary + region * BYTES, bytes, BYTES);
	}
	put("/sys/kernel/debug/fail_make_request/probability", "0");
	put(path, "0");
	ok(failed && !wrong, "%u of 200 ingest writes get EIO, the others succeed", failed);
	ok_latched(set.view, "cbw-write", EIO, ANY_SECTOR);
	ok_content(set.view_fd, 0, SIZE, view, "the view is exact");
	ok_content(set.secondary_fd, 0, SIZE, secondary, "the secondary is exact");
	set_remove(&set);
}

int main(void)
{
	char params[128];

	if (access(FAILSLAB, F_OK) || access("/proc/thread-self/fail-nth", F_OK)) {
		skipped("no fault injection", "failing allocations and requests");
		return tap_end();
	}
	watchdog(580);
	console_quiet();
	brd_load(3, SIZE);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	view = io_alloc(SIZE);
	secondary = io_alloc(SIZE);
	fail_nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	need(fail_nth_fd >= 0, "fail-nth opens");
	at_end(no_faults);
	quiet(FAILSLAB);
	quiet(FAILPAGE);
	/* GFP_KERNEL too, and large pages */
	put(FAILSLAB "ignore-gfp-wait", "N");
	put(FAILPAGE "ignore-gfp-wait", "N");
	put(FAILPAGE "min-order", "0");

	snprintf(params, sizeof(params), "%s %s %s - 8", brd(0), brd(1), brd(2));
	constructor("repl-secondary", params);
	constructor("repl-ingest", brd(0));
	snprintf(params, sizeof(params), "%s %s - 8", brd(0), brd(1));
	constructor("repl-primary", params);
	random_io(400);
	failing_requests();
	return tap_end();
}

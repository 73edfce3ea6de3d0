// SPDX-License-Identifier: GPL-2.0-only
/*
 * A long outage: a primary of 1 TiB whose peer does not answer takes no memory for
 * what it misses.
 *
 * A hundred thousand writes to places at random. Were anything allocated for each, it
 * would be eight bytes at least, the smallest that the kernel's allocator has.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

#define NAME "outage"
#define PEER "outage-peer"
#define TIB ((uint64_t)1 << 40)
#define REGION 128u			/* sectors */
#define METADATA (64u * MIB)
#define DEPTH 1024u
#define SMALLEST 8u			/* bytes */
/* What is written first takes what is taken once. */
#define FIRST (20u * DEPTH)
#define MORE (100u * DEPTH)

static struct repl_primary_status st;
static struct io_req reqs[DEPTH];
static uint64_t seed = 5;
static uint8_t *buf;
static int fd;

static uint64_t of_meminfo(const char *name)
{
	FILE *f = fopen("/proc/meminfo", "r");
	unsigned long long kib;
	size_t len = strlen(name);
	char line[128];

	need(f, "/proc/meminfo");
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && sscanf(line + len, ": %llu", &kib) == 1) {
			fclose(f);
			return kib * 1024;
		}
	give_up("/proc/meminfo has %s", name);
}

/* Free, and in no count of free memory: what each CPU has in hand. */
static uint64_t in_hand(void)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	unsigned long long pages, sum = 0;
	char line[128];

	need(f, "/proc/zoneinfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %llu", &pages) == 1)
			sum += pages;
	fclose(f);
	return sum * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Bytes that the kernel has taken: neither free, nor a cache, nor a process's. */
static int64_t kernel_memory(void)
{
	static const char * const others[] = { "MemFree", "Buffers", "Cached", "AnonPages",
					       "SReclaimable", "PageTables", "KernelStack" };
	int drop = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	int64_t taken;

	need(drop >= 0 && write(drop, "3", 1) == 1, "caches are dropped");
	close(drop);
	taken = of_meminfo("MemTotal") - in_hand();
	for (unsigned int i = 0; i < sizeof(others) / sizeof(*others); i++)
		taken -= of_meminfo(others[i]);
	return taken;
}

static void writes(unsigned int nr)
{
	for (unsigned int done = 0; done < nr; done += DEPTH) {
		for (unsigned int i = 0; i < DEPTH; i++)
			reqs[i] = (struct io_req){ .write = true, .len = 4 * KIB, .buf = buf,
				.offset = rnd_below(&seed, TIB / (4 * KIB)) * 4 * KIB };
		io_wait(io_start(fd, reqs, DEPTH));
		for (unsigned int i = 0; i < DEPTH; i++)
			need(!reqs[i].error, "the workload has had no error");
	}
}

static void outage(const char *metadata)
{
	int64_t before, taken;

	section("1 TiB, a peer that does not answer%s", *metadata == '-' ? "" : ", metadata");
	leg_make(PEER, dm_path("outage-far"), TIB / SECTOR);
	leg_hold(PEER);
	errno = dm_make(NAME, TIB / SECTOR, "repl-primary", "%s %s %s %u 2 async peer_timeout=1000",
			dm_path("outage-near"), dm_path(PEER), metadata, REGION);
	need(!errno, "a primary");
	if (*metadata != '-')
		need(!dm_message(NAME, "dirty clear peer"), "the peer has all");
	fd = dev_open(dm_path(NAME));
	writes(FIRST);
	need(wait_peer(NAME, "failed"), "the peer has failed");
	before = kernel_memory();
	writes(MORE);
	taken = kernel_memory() - before;
	note("%lld KiB", (long long)taken / 1024);
	ok(taken < MORE * SMALLEST, "%u writes that it misses take nothing each", MORE);
	repl_primary_status(NAME, &st);
	ok_u64(st.missed, FIRST + MORE - st.forwarded, "all of them are missed");
	ok(st.dirty > MORE / 2, "and what they wrote is dirty");
	close(fd);
	leg_heal(PEER);
	need(!dm_remove(NAME) && !dm_remove(PEER), "all is removed");
}

int main(void)
{
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	watchdog(300);
	console_quiet();
	buf = io_alloc(4 * KIB);
	need(!dm_make("outage-near", TIB / SECTOR, "zero", " "), "a disk that keeps nothing");
	need(!dm_make("outage-far", TIB / SECTOR, "zero", " "), "another one");
	brd_load(1, METADATA);
	/* A disk in memory takes its own when it is written. */
	fd = dev_open(brd(0));
	for (uint64_t at = 0; at < METADATA; at += MIB)
		need(!io_fill(fd, at, MIB, 0), "the metadata's is written");
	close(fd);
	outage("-");
	outage(brd(0));
	return tap_end();
}

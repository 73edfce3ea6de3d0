// SPDX-License-Identifier: GPL-2.0-only
/*
 * The user's dirty maps of a primary, on its metadata device: what they are after an
 * orderly end, and after a crash. What a crash leaves is what the device has at the moment;
 * what it may lose of that besides is tests/crash's.
 *
 * The model of a map is exact. After an orderly end so is the map. After a crash it has
 * what the model has, and besides nothing but what is in the regions that the peer lacked.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "repl.h"

#define NAME "kept"
#define LEG "kept-md"
#define DISK "kept-disk"
#define SECTORS (1024u * 1024)
#define REGION 128u			/* sectors */
#define SIZE (2 * MIB)			/* of the metadata device */
#define BLOCK 4096u
/* 2 superblocks, 2 areas of 1 + 3, three quarters of the rest of the log */
#define LOG_START 10u
#define DIR (LOG_START + (SIZE / BLOCK - LOG_START) - (SIZE / BLOCK - LOG_START) / 4)
#define DIR_SECTOR (DIR * BLOCK / SECTOR)

/* A map of the user's: 4 KiB granularity has five blocks of bits, the largest one has one. */
struct model {
	const char *name;
	unsigned int piece;		/* sectors */
	bool there, disabled;
	bool bits[SECTORS / 8];
};

static struct model maps[] = {
	{ "fine", 8 }, { "same", REGION }, { "coarse", 131072 }, { "other", 16 },
};
#define NR (sizeof(maps) / sizeof(*maps))
static bool lacks[SECTORS / REGION];	/* by the log */
static uint8_t *image, *buf;
static uint64_t seed = 1;
static int fd = -1;

static void set_bits(struct model *m, uint64_t sector, uint64_t nr)
{
	for (uint64_t bit = sector / m->piece; bit <= (sector + nr - 1) / m->piece; bit++)
		m->bits[bit] = true;
}

static int as_primary(const char *metadata)
{
	int err = dm_make(NAME, SECTORS, "repl-primary", "%s - %s %u 1 sync", dm_path(DISK),
			  metadata, REGION);

	if (!err)
		fd = dev_open(dm_path(NAME));
	return err;
}

static void goes(void)
{
	need(!close(fd), "close");
	fd = -1;
	errno = dm_remove(NAME);
	need(!errno, "it goes");
}

static void message(const char *text)
{
	errno = dm_message_text(NAME, text);
	need(!errno, "%s", text);
}

/* The peer has all: the log has nothing more that the maps could be united with. */
static void peer_has_all(void)
{
	message("dirty clear peer");
	message("dirty clear checkpoint");
	errno = dm_suspend(NAME, 0);
	need(!errno, "suspend");
	errno = dm_resume(NAME);
	need(!errno, "resume");
	memset(lacks, 0, sizeof(lacks));
	errno = dm_message_text(NAME, "identity");
	need(!errno && strstr(dm_answer, "primary "), "identity");
}

static void writes(unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		uint64_t pages = 1 + rnd_below(&seed, 8);
		uint64_t page = rnd_below(&seed, SECTORS / 8 - pages);

		need(!io_write(fd, page * BLOCK, pages * BLOCK, buf), "a write");
		for (unsigned int k = 0; k < NR; k++)
			if (maps[k].there && !maps[k].disabled)
				set_bits(&maps[k], page * 8, pages * 8);
		for (uint64_t r = page * 8 / REGION; r <= ((page + pages) * 8 - 1) / REGION; r++)
			lacks[r] = true;
	}
}

static void add(struct model *m)
{
	char text[64];

	snprintf(text, sizeof(text), "dirty add %s %u", m->name, m->piece);
	message(text);
	memset(m->bits, 0, sizeof(m->bits));
	m->there = true;
	m->disabled = false;
}

/* What the kernel has of it. */
static bool *found_in(const struct model *m)
{
	static bool found[SECTORS / 8];
	unsigned long long from = 0, begin, nr;
	char *line;

	memset(found, 0, sizeof(found));
	for (;;) {
		errno = dm_message(NAME, "dirty extents %s %llu", m->name, from);
		need(!errno, "extents of %s", m->name);
		for (line = strtok(dm_answer, "\n"); line; line = strtok(NULL, "\n")) {
			if (!strcmp(line, "end"))
				return found;
			if (sscanf(line, "more %llu", &from) == 1)
				break;
			need(sscanf(line, "%llu %llu", &begin, &nr) == 2, "an extent: %s", line);
			for (uint64_t bit = begin / m->piece; bit <= (begin + nr - 1) / m->piece; bit++)
				found[bit] = true;
		}
	}
}

static bool lacked(const struct model *m, uint64_t bit)
{
	uint64_t first = bit * m->piece / REGION, last = ((bit + 1) * m->piece - 1) / REGION;

	for (uint64_t r = first; r <= last && r < SECTORS / REGION; r++)
		if (lacks[r])
			return true;
	return false;
}

static void ok_map(const struct model *m, bool crashed, const char *when)
{
	uint64_t few = 0, many = 0, more = 0, nr = (SECTORS - 1) / m->piece + 1;
	const bool *found = found_in(m);

	for (uint64_t bit = 0; bit < nr; bit++) {
		few += m->bits[bit] && !found[bit];
		more += found[bit] && !m->bits[bit];
		many += found[bit] && !m->bits[bit] && !(crashed && lacked(m, bit));
	}
	ok(!few && !many, "%s, %s: %llu too few, %llu too many, %llu that the peer may lack", m->name,
	   when, (unsigned long long)few, (unsigned long long)many, (unsigned long long)more);
}

static void ok_maps(bool crashed, const char *when)
{
	char list[4096], line[80];
	unsigned int nr = 0;

	errno = dm_message_text(NAME, "dirty list");
	need(!errno, "list");
	snprintf(list, sizeof(list), "%s", dm_answer);
	for (unsigned int k = 0; k < NR; k++) {
		if (!maps[k].there)
			continue;
		nr++;
		snprintf(line, sizeof(line), "%s %u %s ", maps[k].name, maps[k].piece,
			 maps[k].disabled ? "disabled" : "enabled");
		if (ok(strstr(list, line), "%s, %s: is there", maps[k].name, when))
			ok_map(&maps[k], crashed, when);
	}
	for (const char *p = list; (p = strchr(p, '\n')); p++)
		nr--;
	ok(nr == (unsigned int)-2, "%s: and no other", when);
}

static void again(const char *when)
{
	goes();
	ok_errno(as_primary(dm_path(LEG)), 0, "%s: it is made again", when);
	ok_maps(false, when);
}

/* What is on the metadata device now is what a crash would leave there. */
static void remember(void)
{
	int md = dev_open(brd(0));

	need(!io_read(md, 0, SIZE, image), "what is on the metadata device");
	close(md);
}

static void crash(void)
{
	int md = dev_open(brd(0));

	goes();
	need(!io_write(md, 0, SIZE, image), "the metadata is as it was before");
	close(md);
	errno = as_primary(dm_path(LEG));
	need(!errno, "it is made again");
}

/* And it goes on from there: what was too many is so for good. */
static void believe(void)
{
	for (unsigned int k = 0; k < NR; k++)
		if (maps[k].there)
			memcpy(maps[k].bits, found_in(&maps[k]), sizeof(maps[k].bits));
}

static void crashes(const char *when)
{
	remember();
	crash();
	ok_maps(true, when);
	believe();
}

static void everything(const char *when)
{
	for (unsigned int k = 0; k < NR; k++)
		if (maps[k].there)
			memset(maps[k].bits, true, sizeof(maps[k].bits));
	ok_maps(false, when);
}

static void begin(void)
{
	int md = dev_open(brd(0));

	need(!io_fill(md, 0, SIZE, 0xa5), "garbage");
	need(!io_fill(md, 0, 2 * BLOCK, 0), "blank");
	close(md);
	memset(lacks, true, sizeof(lacks));
	for (unsigned int k = 0; k < NR; k++)
		maps[k].there = false;
	errno = as_primary(dm_path(LEG));
	need(!errno, "a primary");
	peer_has_all();
}

static void clean_all(void)
{
	for (unsigned int k = 0; k < NR; k++) {
		if (!maps[k].there)
			continue;
		errno = dm_message(NAME, "dirty clear %s", maps[k].name);
		need(!errno, "clear");
		memset(maps[k].bits, 0, sizeof(maps[k].bits));
	}
	peer_has_all();
}

static void ends(void)
{
	section("an orderly end");
	begin();
	again("without maps");
	add(&maps[0]);
	again("with one that is empty");
	add(&maps[1]);
	add(&maps[2]);
	writes(50);
	again("with three");
	ok_maps(false, "and once more");
	again("with nothing new");
	writes(50);
	errno = dm_suspend(NAME, 0);
	need(!errno, "suspend");
	errno = dm_resume(NAME);
	need(!errno, "resume");
	crashes("after a suspend");
	writes(10);
	again("after it");
	errno = dm_reload_one(NAME, SECTORS, "repl-primary", "%s - %s %u 1 sync", dm_path(DISK),
			      dm_path(LEG), REGION);
	need(!errno, "a reload");
	ok_maps(false, "reloaded");
	writes(10);
	again("after a reload");
	message("dirty remove same");
	maps[1].there = false;
	again("one is removed");
	add(&maps[3]);
	add(&maps[1]);
	writes(10);
	again("and two are added");
	goes();
}

static void messages(void)
{
	section("messages");
	begin();
	for (unsigned int k = 0; k < NR; k++)
		add(&maps[k]);
	writes(40);
	peer_has_all();
	message("dirty clear fine");
	memset(maps[0].bits, 0, sizeof(maps[0].bits));
	crashes("clear, and a crash");
	clean_all();
	message("dirty mark fine 80 16 900000 1");
	set_bits(&maps[0], 80, 16);
	set_bits(&maps[0], 900000, 1);
	crashes("mark, and a crash");
	message("dirty merge fine coarse");
	set_bits(&maps[2], 80, 16);
	set_bits(&maps[2], 900000, 1);
	crashes("merge, and a crash");
	message("dirty disable same");
	maps[1].disabled = true;
	writes(10);
	again("disabled");
	writes(10);
	peer_has_all();
	crashes("disabled, and a crash");
	message("dirty enable same");
	maps[1].disabled = false;
	writes(10);
	peer_has_all();
	crashes("enabled, and a crash");

	clean_all();
	writes(10);
	message("dirty freeze fine");
	writes(10);
	peer_has_all();
	crashes("frozen, and a crash: it is one again");
	message("dirty freeze fine");
	memset(maps[0].bits, 0, sizeof(maps[0].bits));
	writes(10);
	message("dirty thaw fine drop");
	again("the backup has it");
	peer_has_all();
	crashes("the same, and a crash");
	message("dirty freeze fine");
	writes(10);
	message("dirty thaw fine merge");
	peer_has_all();
	crashes("the backup has failed, and a crash");
	message("dirty remove coarse");
	maps[2].there = false;
	crashes("removed, and a crash");
	add(&maps[2]);
	crashes("added, and a crash");
	goes();
}

/* Regions become clean: by a suspend, or by a round, which is five seconds. */
static void clean_regions(void)
{
	unsigned int dirty = 1, i;

	section("crashes");
	begin();
	for (unsigned int k = 0; k < NR; k++)
		add(&maps[k]);
	for (i = 0; i < 10; i++) {
		writes(20);
		crashes("in the middle of writes");
		writes(20);
		peer_has_all();
		crashes("when the peer has all");
		clean_all();
	}
	writes(30);
	message("dirty clear peer");
	message("dirty clear checkpoint");
	for (i = 0; i < 300 && dirty; i++) {
		usleep(100000);
		message("identity");
		need(sscanf(dm_answer, "primary %*s %*s %*s %*s %u", &dirty) == 1, "identity: %s",
		     dm_answer);
	}
	ok(!dirty, "the regions become clean by themselves");
	memset(lacks, 0, sizeof(lacks));
	crashes("after a round");
	/* One that is clean is not believed when something else was here since. */
	writes(5);
	goes();
	remember();
	errno = as_primary(dm_path(LEG));
	need(!errno, "it is made again");
	ok_maps(false, "after an orderly end");
	writes(5);
	crashes("after the next writes");
	goes();
}

static void damage(void)
{
	struct model *m = &maps[0];

	section("damage");
	begin();
	add(m);
	writes(20);
	peer_has_all();
	remember();
	/* Its second block: bits from 32256 on. */
	memset(image + (DIR + 3) * BLOCK + 2000, 0x77, 8);
	crash();
	for (unsigned int bit = 32256; bit < 2 * 32256; bit++)
		m->bits[bit] = true;
	ok_maps(false, "a block that is torn");
	again("and is mended");
	remember();
	memset(image + DIR * BLOCK + 100, 0x77, 8);
	crash();
	believe();
	ok_maps(false, "a directory that is torn");
	remember();
	memset(image + (DIR + 1) * BLOCK + 100, 0x77, 8);
	crash();
	ok_maps(true, "the other one");
	believe();
	remember();
	memset(image + DIR * BLOCK, 0, 2 * BLOCK);
	crash();
	m->there = false;
	ok_maps(false, "none");
	goes();
}

/* The metadata device fails: no bit is lost, and nothing waits. */
static void faults(void)
{
	section("faults");
	begin();
	for (unsigned int k = 0; k < 3; k++)
		add(&maps[k]);
	writes(20);
	kmsg_mark();
	leg_fail(LEG, DIR_SECTOR, 16, LEG_WRITES);
	ok_errno(dm_message_text(NAME, "dirty add other"), EIO, "one is added");
	ok(kmsg_find("cannot write it to the metadata device"), "in words");
	ok_errno(dm_message_text(NAME, "dirty remove same"), EIO, "one is removed");
	leg_heal(LEG);
	ok_maps(false, "nothing has changed");
	again("nor on the device");

	peer_has_all();
	leg_fail(LEG, DIR_SECTOR + 16, SIZE / SECTOR - DIR_SECTOR - 16, LEG_WRITES);
	kmsg_mark();
	ok_errno(dm_message_text(NAME, "dirty mark fine 4096 8"), EIO, "bits that cannot be written");
	ok(kmsg_find("it is marked, but that cannot be written to the metadata device"), "in words");
	set_bits(&maps[0], 4096, 8);
	ok_map(&maps[0], false, "in memory");
	ok(strstr(dm_status(NAME), " metadata 5 ") != NULL, "it is latched: %s", dm_status(NAME));
	/* The superblock is written soon: then a write goes on. */
	writes(1);
	remember();
	leg_heal(LEG);
	crash();
	everything("after a crash: all");
	clean_all();
	message("dirty mark fine 4096 8");
	set_bits(&maps[0], 4096, 8);
	ok(strstr(dm_status(NAME), " metadata 5 ") == NULL, "that can be");

	/* After an orderly end, a begin that cannot be recorded: what it said is no more true. */
	peer_has_all();
	errno = dm_suspend(NAME, 0);
	need(!errno, "suspend");
	leg_fail(LEG, 16, SIZE / SECTOR - 16, LEG_WRITES);
	errno = dm_resume(NAME);
	need(!errno, "resume");
	writes(20);
	remember();
	leg_heal(LEG);
	crash();
	everything("a resume that could not be recorded, and a crash: all");
	clean_all();

	leg_fail(LEG, DIR_SECTOR + 16, SIZE / SECTOR - DIR_SECTOR - 16, LEG_WRITES);
	writes(20);
	message("dirty clear peer");
	message("dirty clear checkpoint");
	errno = dm_suspend(NAME, 0);
	need(!errno, "suspend");
	leg_heal(LEG);
	errno = dm_resume(NAME);
	need(!errno, "resume");
	crashes("blocks that a suspend could not write");
	leg_fail(LEG, DIR_SECTOR + 16, SIZE / SECTOR - DIR_SECTOR - 16, LEG_ALL);
	writes(5);
	peer_has_all();
	leg_heal(LEG);
	again("an end that writes them after all");
	leg_fail(LEG, DIR_SECTOR, 16, LEG_WRITES);
	goes();
	leg_heal(LEG);
	errno = as_primary(dm_path(LEG));
	need(!errno, "it is made again");
	ok_maps(true, "an end of which the directory does not know");
	believe();
	leg_fail(LEG, DIR_SECTOR, 16, LEG_WRITES);
	goes();
	ok_errno(as_primary(dm_path(LEG)), 0, "one that cannot be written at the begin");
	ok(strstr(dm_status(NAME), " metadata 5 ") != NULL, "is not silent: %s", dm_status(NAME));
	leg_heal(LEG);
	ok_maps(true, "then");
	believe();
	again("and when it can be");

	/* Nothing can be added before it is known what there is. */
	goes();
	leg_fail(LEG, DIR_SECTOR, 16, LEG_ALL);
	need(!dm_create(NAME), "create");
	errno = dm_load_one(NAME, SECTORS, "repl-primary", "%s - %s %u 1 sync", dm_path(DISK),
			    dm_path(LEG), REGION);
	need(!errno, "load");
	kmsg_mark();
	ok_errno(dm_resume(NAME), EIO, "directories that cannot be read");
	ok(kmsg_find("Cannot read the directory of the dirty maps"), "in words");
	kmsg_mark();
	ok_errno(dm_message_text(NAME, "dirty add fine"), EBUSY, "a message meanwhile");
	ok(kmsg_find("the device has not been resumed yet"), "in words");
	leg_heal(LEG);
	ok_errno(dm_resume(NAME), 0, "when they can be");
	fd = dev_open(dm_path(NAME));
	ok_maps(false, "then");
	goes();
}

static void others(void)
{
	int md = dev_open(brd(1));

	need(!io_fill(md, 0, SIZE, 0), "another metadata device");
	section("other devices, other roles");
	begin();
	for (unsigned int k = 0; k < NR; k++)
		add(&maps[k]);
	writes(20);
	errno = dm_reload_one(NAME, SECTORS, "repl-primary", "%s - %s %u 1 sync", dm_path(DISK),
			      brd(1), REGION);
	need(!errno, "another metadata device");
	ok_maps(false, "another metadata device");
	writes(20);
	goes();
	errno = as_primary(brd(1));
	need(!errno, "it is made again");
	ok_maps(false, "made again with it");
	errno = dm_reload_one(NAME, SECTORS, "repl-primary", "%s - - %u 1 sync", dm_path(DISK),
			      REGION);
	need(!errno, "none");
	writes(20);
	ok_maps(false, "none");
	errno = dm_reload_one(NAME, SECTORS, "repl-primary", "%s - %s %u 1 sync", dm_path(DISK),
			      dm_path(LEG), REGION);
	need(!errno, "the first one");
	ok_maps(false, "the first one");
	again("made again with the first one");

	/* A secondary's disk changes, started or not, and no map hears of it. */
	for (unsigned int i = 0; i < 2; i++) {
		goes();
		errno = dm_make(NAME, SECTORS, "repl-secondary", "%s %s %s %s %u", dm_path(DISK),
				dm_path("kept-hidden"), dm_path("kept-active"), dm_path(LEG), REGION);
		need(!errno, "a secondary");
		if (i) {
			message("start");
			message("stop");
		}
		errno = dm_remove(NAME);
		need(!errno, "it goes");
		errno = as_primary(dm_path(LEG));
		need(!errno, "a primary again");
		everything(i ? "after a secondary that was started" : "after a secondary");
		peer_has_all();
		crashes("and after a crash");
		clean_all();
	}
	goes();

	/* As small as it can be: there is no room. */
	need(!io_fill(md, 0, SIZE, 0), "blank");
	leg_make("kept-small", brd(1), (LOG_START + 64) * BLOCK / SECTOR);
	errno = as_primary(dm_path("kept-small"));
	need(!errno, "a small metadata device");
	for (unsigned int k = 0; k < NR; k++)
		maps[k].there = false;
	kmsg_mark();
	add(&maps[0]);
	ok(kmsg_find("no room for map fine on the metadata device: it is in memory only"),
	   "there is no room: it says so");
	writes(10);
	ok_maps(false, "in memory");
	goes();
	errno = as_primary(dm_path("kept-small"));
	need(!errno, "it is made again");
	maps[0].there = false;
	ok_maps(false, "made again");
	goes();
	need(!dm_remove("kept-small"), "removed");
	close(md);
}

int main(void)
{
	watchdog(patience_of(300));
	console_quiet();
	brd_load(2, SIZE);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	image = io_alloc(SIZE);
	buf = io_alloc(8 * BLOCK);
	need(!dm_make(DISK, SECTORS, "zero", " ") && !dm_make("kept-hidden", SECTORS, "zero", " ") &&
	     !dm_make("kept-active", SECTORS, "zero", " "), "disks that keep nothing");
	leg_make(LEG, brd(0), SIZE / SECTOR);

	ends();
	messages();
	clean_regions();
	damage();
	faults();
	others();
	return tap_end();
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device-mapper by its ioctls: a table, a message or a status costs one or two
 * system calls, so that thousands of them are cheap in an emulated machine.
 *
 * Functions that return int return 0 or a positive errno.
 */
#ifndef TESTS_DM_H
#define TESTS_DM_H

#include <stddef.h>
#include <stdint.h>

#include "tap.h"

struct dm_seg {
	uint64_t start, len;		/* sectors */
	const char *type;
	const char *params;
};

int dm_create(const char *name);
int dm_load(const char *name, const struct dm_seg *segs, unsigned int nr);
int dm_load_one(const char *name, uint64_t sectors, const char *type,
		const char *fmt, ...) printf_like(4, 5);
int dm_clear(const char *name);		/* drops the inactive table */
int dm_resume(const char *name);
#define DM_NOFLUSH 1			/* leave what is queued for the next table */
int dm_suspend(const char *name, unsigned int flags);
int dm_remove(const char *name);

/*
 * dm_reload: suspend (without freezing a file system), load, resume. A table
 * that does not load leaves the device running with the old one.
 */
int dm_reload(const char *name, const struct dm_seg *segs, unsigned int nr);
int dm_reload_one(const char *name, uint64_t sectors, const char *type,
		  const char *fmt, ...) printf_like(4, 5);

/* dm_make: create, load, resume; on failure there is no device. */
int dm_make(const char *name, uint64_t sectors, const char *type,
	    const char *fmt, ...) printf_like(4, 5);

/* Removes whatever this program created and has not removed, last one first. */
void dm_remove_all(void);

/* To the target at sector 0. The answer, or "", is in dm_answer. */
int dm_message(const char *name, const char *fmt, ...) printf_like(2, 3);
int dm_message_text(const char *name, const char *text);
extern char dm_answer[4096];

/* The words of all targets, one line each. "" and a note when it fails. */
const char *dm_status(const char *name);
const char *dm_table(const char *name);
/* The same, but without flushing the device first; by a buffer of one's own. */
int dm_status_to(const char *name, char *buf, size_t size, bool table);

/*
 * Waits until nobody has it open. What asynchronous I/O has held open is closed by a work of
 * the kernel's a moment after that has ended, whenever we have closed it.
 */
void dm_wait_closed(const char *name);
uint32_t dm_event_nr(const char *name);
/* Waits until the event counter is not @nr any more. */
int dm_wait_event(const char *name, uint32_t nr);

/* /dev/dm-N; a static buffer, one of 16 in turn. */
const char *dm_path(const char *name);
unsigned int dm_minor(const char *name);

/*
 * Legs: a linear mapping of a whole device, in which an interval of sectors
 * can be made to fail, and healed.
 */
enum leg_fault {
	LEG_ALL,	/* reads and writes fail; a flush of the leg does not */
	LEG_WRITES,	/* writes and flushes of the leg fail, reads do not */
	LEG_READS,	/* reads fail, writes do not */
};

void leg_make(const char *name, const char *backing, uint64_t sectors);
/*
 * Returns false where the kernel cannot make reads alone fail (before 6.4):
 * writes fail there too.
 */
bool leg_fail(const char *name, uint64_t start, uint64_t len, enum leg_fault fault);
/* How many writes have come back from the leg, failed ones too. */
uint64_t leg_writes(const char *name);
void leg_heal(const char *name);
/* Holds all I/O to the leg, until the next leg_fail() or leg_heal(). */
void leg_hold(const char *name);
/* The same for writes and flushes; those that it holds can be waited for. */
void leg_hold_writes(const char *name);
void leg_wait_write(const char *name);

/*
 * The kernel's log from now on: kmsg_mark(), then kmsg_find(). Returns the text
 * after the first @key in a line since the mark, up to the line's end; NULL if
 * there is none. A static buffer.
 */
void kmsg_mark(void);
const char *kmsg_find(const char *key);

/*
 * Keeps errors that a suite provokes by the thousand off the serial console,
 * which is slow; they are still in the kernel's log, and an oops or a panic
 * turns the console loud again by itself.
 */
void console_quiet(void);

#endif

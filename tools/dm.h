/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device-mapper devices of replctl's own: a thin layer over libdevmapper.
 *
 * Each device that is made here has the dm uuid "DMREPL-<name>". A device of the
 * same name with another uuid belongs to somebody else: every function refuses
 * it (REPL_EXIT_REFUSED) and leaves it as it is.
 *
 * Functions return 0 or -1; on -1 the error is filled in, and errno is the
 * kernel's reason where it gave one (ENOENT: there is no such device).
 * Any thread may call them. What they print goes into the error, never to stderr.
 */
#ifndef REPLCTL_DM_H
#define REPLCTL_DM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define DM_UUID_OURS "DMREPL-"

/* dm_suspend() */
#define DM_FREEZE_FS	1u	/* freeze the file system on it first, as dmsetup does */
#define DM_NOFLUSH	2u	/* leave what is queued for the next table */

struct repl_dm_info {
	bool exists;		/* else all the rest is 0 */
	bool suspended;
	bool has_table;		/* a live one */
	unsigned int open_count;
	uint32_t event_nr;
	unsigned int major, minor;
	uint64_t sectors;	/* of the live table */
	char target[32];	/* its first target, "" without a table */
	char table[1024];	/* that target's words */
};

/**
 * dm_exists() - is there a device of ours of this name?
 * @name: device
 * @error: filled in on -1
 *
 * Return: 1, 0, or -1, also for a device of that name that is not ours.
 */
int dm_exists(const char *name, struct repl_error *error);

/**
 * dm_create() - make a device with one target, live
 * @name: device; must not exist
 * @sectors: length
 * @target: its type
 * @params: the target's words
 * @error: filled in on -1
 *
 * Return: 0 with /dev/mapper/@name there, or -1 with no device left.
 */
int dm_create(const char *name, uint64_t sectors, const char *target,
	      const char *params, struct repl_error *error);

/**
 * dm_reload() - give a device another table, and resume it
 * @name: device
 * @sectors: length
 * @target: its type
 * @params: the target's words
 * @error: filled in on -1
 *
 * Waits for the I/O in flight; freezes no file system.
 *
 * Return: 0, or -1: the old table is still live, or the text says that the
 * device is left suspended.
 */
int dm_reload(const char *name, uint64_t sectors, const char *target,
	      const char *params, struct repl_error *error);

/**
 * dm_remove() - remove a device
 * @name: device
 * @error: filled in on -1
 *
 * For a device that is open it tries for some seconds: udev opens devices too.
 *
 * Return: 0, also if it is gone already; -1 with errno EBUSY if it is in use.
 */
int dm_remove(const char *name, struct repl_error *error);

/**
 * dm_suspend() - stop I/O to a device and wait for what is in flight
 * @name: device
 * @flags: DM_FREEZE_FS, DM_NOFLUSH
 * @error: filled in on -1
 *
 * Return: 0, also if it is suspended already.
 */
int dm_suspend(const char *name, unsigned int flags, struct repl_error *error);

/**
 * dm_resume() - let I/O through again
 * @name: device
 * @error: filled in on -1
 *
 * Return: 0, also if it is not suspended.
 */
int dm_resume(const char *name, struct repl_error *error);

/**
 * dm_info() - what there is to know about a device
 * @name: device
 * @info: out
 * @error: filled in on -1
 *
 * Return: 0, also if it does not exist (@info says so).
 */
int dm_info(const char *name, struct repl_dm_info *info, struct repl_error *error);

/**
 * dm_syncfs() - sync the file system on a device, if one is mounted from it
 * @name: device
 * @error: filled in on -1
 *
 * Return: 0, also if none is, or -1.
 */
int dm_syncfs(const char *name, struct repl_error *error);

/**
 * dm_message() - send a message to a device's target
 * @name: device
 * @message: words
 * @answer: the target's answer, "" if it gave none; may be NULL
 * @size: of @answer, bytes; a longer answer is cut
 * @error: filled in on -1: REPL_EXIT_REFUSED for what is not legal in this stage
 *
 * Return: 0, or -1 with errno as in Documentation/dm-repl.rst.
 */
int dm_message(const char *name, const char *message, char *answer, size_t size,
	       struct repl_error *error);

/**
 * dm_status() - the status line of a device's only target
 * @name: device
 * @line: out, without the target's type: "secondary running 4 ..."
 * @size: of @line, bytes; a longer line is an error
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int dm_status(const char *name, char *line, size_t size, struct repl_error *error);

/**
 * dm_wait_event() - wait for an event of a device
 * @name: device
 * @event_nr: in: the number that is known; out: the number now
 * @error: filled in on -1
 *
 * Blocks until the device's number is another than @event_nr, or the device
 * is removed. Take the number by dm_info(), look at the status, then wait.
 *
 * Return: 0, also when the device has just been removed; or -1: errno is EINTR after
 * a signal, ENOENT if there is no device to wait for.
 */
int dm_wait_event(const char *name, uint32_t *event_nr, struct repl_error *error);

/**
 * dm_module() - see to it that the kernel has the targets
 * @error: filled in on -1
 *
 * Runs modprobe if it has not.
 *
 * Return: 0 or -1.
 */
int dm_module(struct repl_error *error);

/**
 * blockdev_sectors() - length of a block device
 * @path: device
 * @error: filled in on 0
 *
 * Return: sectors, or 0 if @path is no block device, empty, or does not open.
 */
uint64_t blockdev_sectors(const char *path, struct repl_error *error);

/**
 * blockdev_flush() - write back and flush a block device
 * @path: device
 * @error: filled in on -1
 *
 * Return: 0 when the device has its cache on stable storage, or -1.
 */
int blockdev_flush(const char *path, struct repl_error *error);

/**
 * blockdev_set_readonly() - may it be written to by who opens it?
 * @path: device
 * @readonly: it may not
 * @error: filled in on -1
 *
 * Who has it open gets an error for each write(2), too; file systems on it, and devices
 * above it, do not notice.
 *
 * Return: 0 or -1.
 */
int blockdev_set_readonly(const char *path, bool readonly, struct repl_error *error);

/**
 * blockdev_probe() - does a block device answer?
 * @path: device
 * @error: filled in on -1
 *
 * Reads its first 4 KiB, past the page cache; waits as long as the device does.
 *
 * Return: 0 or -1.
 */
int blockdev_probe(const char *path, struct repl_error *error);

#endif

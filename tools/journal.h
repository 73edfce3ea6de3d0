/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Journal: what a daemon that is killed leaves to the next one, in files of the
 * resource below /run. One number, see pair.h; whether hooks hold the workload, which
 * the kernel cannot know; and the peer's boot, up to which the kernel knows what is lost.
 */
#ifndef REPLCTL_JOURNAL_H
#define REPLCTL_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "resource.h"

/**
 * journal_write() - leave a number
 * @resource: resource
 * @id: number; at once, or not at all
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int journal_write(const struct repl_resource *resource, uint64_t id, struct repl_error *error);

/**
 * journal_read() - the number that was left
 * @resource: resource
 *
 * Return: the number; 0: none.
 */
uint64_t journal_read(const struct repl_resource *resource);
void journal_clear(const struct repl_resource *resource);

/**
 * journal_write_peer_boot() - all that the peer had lost by then is known to the kernel
 * @resource: resource; this side is primary
 * @boot: of the peer's host
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int journal_write_peer_boot(const struct repl_resource *resource,
			    const unsigned char boot[FRAME_BOOT_SIZE],
			    struct repl_error *error);

/**
 * journal_peer_boot() - what was written so
 * @resource: resource
 * @boot: out
 *
 * Return: 0, or -1: none was.
 */
int journal_peer_boot(const struct repl_resource *resource,
		      unsigned char boot[FRAME_BOOT_SIZE]);

void journal_mark_held(const struct repl_resource *resource, bool held);
bool journal_is_held(const struct repl_resource *resource);

#endif

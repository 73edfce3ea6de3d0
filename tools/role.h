/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Role: who is primary is a fact of the disks, not of a file. The configuration says it
 * for a pair that is new, or has no metadata; a failover and a return change it.
 */
#ifndef REPLCTL_ROLE_H
#define REPLCTL_ROLE_H

#include "identity.h"
#include "resource.h"

/**
 * role_find() - what is this host?
 * @resource: resource; ->role is set
 * @offline: look at metadata devices, too. Whoever makes devices does; for a moment they
 *	are in use by that.
 * @error: filled in on -1
 *
 * Of each volume: what its device is; if there is none what its metadata says; if it has
 * none nothing. Any that is a secondary makes this host one: a promotion that was cut off
 * between two volumes is not done.
 *
 * Return: 0, or -1: a metadata device could not be read.
 */
int role_find(struct repl_resource *resource, bool offline, struct repl_error *error);

/**
 * role_promote() - what has failed over and is merged becomes the primary
 * @resource: resource; ->role is set
 * @dry_run: print what would be done, and do nothing
 * @error: filled in on -1: REPL_EXIT_REFUSED if it is not that far
 *
 * Under the same names, open or not. None is before all may be; what is one already stays.
 */
int role_promote(struct repl_resource *resource, bool dry_run, struct repl_error *error);

/**
 * role_demote() - what was primary becomes the secondary of the one that took over
 * @resource: resource; ->role is set
 * @discard: what only this side has may be lost
 * @dry_run: print what would be done, and do nothing
 * @error: filled in on -1: REPL_EXIT_REFUSED if it is in use, or would lose something
 */
int role_demote(struct repl_resource *resource, bool discard, bool dry_run,
		struct repl_error *error);

/**
 * role_side() - what this side says of a volume
 * @resource: resource
 * @volume: index
 * @side: out; without metadata there is no lineage
 * @error: filled in on -1
 */
int role_side(const struct repl_resource *resource, unsigned int volume,
	      struct repl_side *side, struct repl_error *error);

/**
 * role_lineage() - the primary's, as it has said when the two met
 * @resource: resource
 * @volume: index
 * @text: out
 * @size: of @text, at least 37 bytes
 * @error: filled in on -1: it has not said any
 */
int role_lineage(const struct repl_resource *resource, unsigned int volume, char *text,
		 size_t size, struct repl_error *error);

/**
 * role_adopt() - what was committed is the primary's history: take its lineage
 * @resource: resource; this side is secondary
 * @error: filled in on -1
 */
int role_adopt(const struct repl_resource *resource, struct repl_error *error);

#endif

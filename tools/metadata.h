/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Metadata: replctl's verbs for metadata devices that nobody uses: make one, see
 * what is on it, check it. The format is in dm-repl/format.h.
 */
#ifndef REPLCTL_METADATA_H
#define REPLCTL_METADATA_H

#include <stdbool.h>
#include <stdio.h>

#include "error.h"
#include "pair.h"

/* Options as typed; NULL: not given. */
struct metadata_options {
	const char *size;		/* of the volume's disk */
	const char *like;		/* or: a device as long */
	const char *region_size;
	const char *uuid;
	bool json, dry_run, force;
};

/**
 * metadata_role() - whose was it last?
 * @name: metadata device, not in use
 * @role: out; none if it is blank
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int metadata_role(const char *name, enum pair_role *role, struct repl_error *error);

/**
 * metadata_verb() - create, dump, check or size
 * @words: the verb, and the device
 * @nr: how many
 * @options: options
 * @to: stream to print to
 * @error: set on failure; REPL_EXIT_DIFFER if check has found something,
 *	REPL_EXIT_REFUSED for a device that is in use, or has something else on it
 *
 * Return: 0 or -1.
 */
int metadata_verb(char **words, int nr, const struct metadata_options *options, FILE *to,
		  struct repl_error *error);

#endif

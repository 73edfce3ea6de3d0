/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Dirty: the dirty maps of a resource's devices, as the kernel gives them
 * (Documentation/dm-repl.rst, "Dirty maps").
 */
#ifndef REPLCTL_DIRTY_H
#define REPLCTL_DIRTY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"
#include "frame.h"
#include "resource.h"

#define DIRTY_NAME_MAX 31

struct repl_dirty_map {
	char name[DIRTY_NAME_MAX + 1];
	uint64_t granularity;		/* sectors a bit */
	bool is_enabled;
	uint64_t bits;			/* that are set */
	bool is_frozen;
	uint64_t frozen;		/* bits that were set then */
};

/**
 * dirty_map_parse() - a line of the answer to "dirty list"
 * @line: line, without its end
 * @map: out
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int dirty_map_parse(const char *line, struct repl_dirty_map *map, struct repl_error *error);

typedef void dirty_range_fn(const struct repl_range *range, void *context);

/**
 * dirty_extents_parse() - an answer to "dirty extents"
 * @answer: answer; it is cut into lines
 * @from: sector that was asked for
 * @fn: hears of each range, in ascending order
 * @context: for @fn
 * @more: out: sector to ask from next; 0: that was all
 * @error: filled in on -1; some ranges may have been given to @fn then
 *
 * Return: 0 or -1.
 */
int dirty_extents_parse(char *answer, uint64_t from, dirty_range_fn *fn, void *context,
			uint64_t *more, struct repl_error *error);

/**
 * dirty_extents() - all that is set in a map, however many answers that takes
 * @name: device
 * @map: map
 * @fn: as above
 * @context: for @fn
 * @error: filled in on -1
 *
 * Each answer is of its own moment: who needs one moment freezes the map before.
 *
 * Return: 0 or -1.
 */
int dirty_extents(const char *name, const char *map, dirty_range_fn *fn, void *context,
		  struct repl_error *error);

/**
 * dirty_find_map() - has a device a map of that name?
 * @name: device
 * @map: its name
 * @found: out: what it is, if there is one
 * @error: filled in on -1
 *
 * Return: 1; 0: it has not; -1.
 */
int dirty_find_map(const char *name, const char *map, struct repl_dirty_map *found,
		   struct repl_error *error);

/**
 * dirty_print_maps() - the maps of all volumes
 * @resource: resource
 * @json: one object in one line
 * @to: stream to print to
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int dirty_print_maps(const struct repl_resource *resource, bool json, FILE *to,
		     struct repl_error *error);

/**
 * dirty_print_extents() - what is set in a map, of all volumes that have it
 * @resource: resource
 * @map: its name
 * @json: one object in one line
 * @to: stream to print to
 * @error: filled in on -1; something may have been printed then
 *
 * Return: 0 or -1.
 */
int dirty_print_extents(const struct repl_resource *resource, const char *map, bool json,
			FILE *to, struct repl_error *error);

#endif

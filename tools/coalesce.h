/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Coalesce: any number of ranges, as no more than so many that cover them.
 *
 * The first half of what is allowed comes out as it went in. If that was not all, gaps
 * between the others are filled as far as they must be: what is left of the volume,
 * divided by what is left of the number. So nothing is ever missing, there may be too
 * much, and one range is all that has to be remembered.
 */
#ifndef REPLCTL_COALESCE_H
#define REPLCTL_COALESCE_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

struct coalesce {
	uint64_t sectors;		/* of the volume */
	unsigned int max, nr;		/* ranges that may come out, that have begun */
	uint64_t gap;			/* sectors: gaps that are not larger are filled */
	struct repl_range last;		/* it may grow yet; sectors 0: there is none */
};

/**
 * coalesce_init() - before the first range
 * @c: coalesce
 * @sectors: length of the volume; ranges do not reach past it
 * @max: ranges that may come out, at least 4
 */
void coalesce_init(struct coalesce *c, uint64_t sectors, unsigned int max);

/**
 * coalesce_add() - a range goes in
 * @c: coalesce
 * @in: range; it begins behind the end of the one before
 * @out: a range that comes out, if the result is true
 *
 * Return: whether one comes out.
 */
bool coalesce_add(struct coalesce *c, const struct repl_range *in, struct repl_range *out);

/**
 * coalesce_end() - that was all
 * @c: coalesce
 * @out: the last range, if the result is true
 *
 * Return: whether there is one.
 */
bool coalesce_end(struct coalesce *c, struct repl_range *out);

#endif

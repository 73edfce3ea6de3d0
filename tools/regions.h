/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Regions: a set of them. Memory goes with what is in it: a word for each 32768
 * regions, and 4 KiB for each such piece that has some.
 */
#ifndef REPLCTL_REGIONS_H
#define REPLCTL_REGIONS_H

#include <stdbool.h>
#include <stdint.h>

struct regions {
	uint64_t nr;			/* that there are */
	uint64_t count;			/* that are in the set */
	uint64_t nr_pieces;
	struct regions_piece **pieces;
};

/**
 * regions_init() - an empty set
 * @set: set
 * @nr: regions that there are
 *
 * Return: 0 or -ENOMEM; regions_free() is to be called after 0.
 */
int regions_init(struct regions *set, uint64_t nr);
void regions_free(struct regions *set);

/**
 * regions_change() - put regions in or take them out
 * @set: set
 * @begin: first region
 * @end: region after the last, at most set->nr
 * @in: in, or out
 *
 * Return: 0 or -ENOMEM.
 */
int regions_change(struct regions *set, uint64_t begin, uint64_t end, bool in);
void regions_empty(struct regions *set);

/**
 * regions_next() - a run of them
 * @set: set
 * @begin: in: where to look from; out: the first region
 * @end: region after the last
 *
 * Return: whether there is one.
 */
bool regions_next(const struct regions *set, uint64_t *begin, uint64_t *end);

#endif

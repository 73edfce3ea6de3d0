// SPDX-License-Identifier: GPL-2.0-only
#include "coalesce.h"

void coalesce_init(struct coalesce *c, uint64_t sectors, unsigned int max)
{
	*c = (struct coalesce){ .sectors = sectors, .max = max };
}

/*
 * @begin: of the first range that is not exact. Of ranges with more than gap sectors
 * between them, no more than sectors / (gap + 1) + 1 fit into so many sectors.
 */
static uint64_t gap_from(const struct coalesce *c, uint64_t begin)
{
	return (c->sectors - begin) / (c->max - c->max / 2 - 1);
}

bool coalesce_add(struct coalesce *c, const struct repl_range *in, struct repl_range *out)
{
	uint64_t end = c->last.sector + c->last.sectors;
	bool any = c->last.sectors;

	if (any && in->sector - end <= c->gap) {
		c->last.sectors = in->sector + in->sectors - c->last.sector;
		return false;
	}
	*out = c->last;
	c->last = *in;
	if (c->nr++ == c->max / 2)
		c->gap = gap_from(c, in->sector);
	return any;
}

bool coalesce_end(struct coalesce *c, struct repl_range *out)
{
	bool any = c->last.sectors;

	*out = c->last;
	c->last.sectors = 0;
	return any;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* What the three target types share: constructors' helpers and main.c's list. */
#ifndef DM_REPL_TARGETS_H
#define DM_REPL_TARGETS_H

#include <linux/device-mapper.h>
#include <linux/sizes.h>

#define REPL_MIN_REGION_SIZE	8U	/* sectors: 4 KiB */
#define REPL_MAX_REGION_SIZE	8192U	/* sectors: 4 MiB */
#define REPL_MAX_DISCARD	(SZ_64M >> SECTOR_SHIFT)

/* Which words of ti->error repl_get_device() uses. */
enum repl_dev {
	REPL_DEV_SECONDARY,
	REPL_DEV_HIDDEN,
	REPL_DEV_ACTIVE,
	REPL_DEV_LOCAL,
	REPL_DEV_PEER,
	REPL_DEV_METADATA,
};

int repl_get_device(struct dm_target *ti, const char *path, enum repl_dev which,
		    struct dm_dev **dev);
bool repl_same_device(const struct dm_dev *a, const struct dm_dev *b);
int repl_parse_region_size(struct dm_target *ti, const char *word,
			   sector_t *region_size);
int repl_parse_nr_features(struct dm_target *ti, unsigned int argc,
			   char **argv);

extern struct target_type repl_secondary_target;
extern struct target_type repl_ingest_target;
extern struct target_type repl_primary_target;

#endif

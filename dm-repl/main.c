// SPDX-License-Identifier: GPL-2.0-only
/* dm-repl: block replication with checkpoints. Registration. */

#include <linux/log2.h>
#include <linux/module.h>

#include "format.h"
#include "region-op.h"
#include "targets.h"

static const char * const dev_unusable[] = {
	[REPL_DEV_SECONDARY]	= "Cannot open secondary device",
	[REPL_DEV_HIDDEN]	= "Cannot open hidden device",
	[REPL_DEV_ACTIVE]	= "Cannot open active device",
	[REPL_DEV_LOCAL]	= "Cannot open local device",
	[REPL_DEV_PEER]		= "Cannot open peer device",
	[REPL_DEV_METADATA]	= "Cannot open metadata device",
};

static const char * const dev_short[] = {
	[REPL_DEV_SECONDARY]	= "Secondary device is too short",
	[REPL_DEV_HIDDEN]	= "Hidden device is too short",
	[REPL_DEV_ACTIVE]	= "Active device is too short",
	[REPL_DEV_LOCAL]	= "Local device is too short",
	[REPL_DEV_PEER]		= "Peer device is too short",
};

static const char * const dev_unaligned[] = {
	[REPL_DEV_SECONDARY]	= "Length is no multiple of the secondary device's blocks",
	[REPL_DEV_HIDDEN]	= "Length is no multiple of the hidden device's blocks",
	[REPL_DEV_ACTIVE]	= "Length is no multiple of the active device's blocks",
	[REPL_DEV_LOCAL]	= "Length is no multiple of the local device's blocks",
	[REPL_DEV_PEER]		= "Length is no multiple of the peer device's blocks",
};

/**
 * repl_get_device() - open a device of a table line and check its size
 * @ti: target; its ->error is set on failure
 * @path: the word
 * @which: what it is
 * @dev: result
 *
 * Context: constructor or message. Return: 0 or a negative errno.
 */
int repl_get_device(struct dm_target *ti, const char *path, enum repl_dev which,
		    struct dm_dev **dev)
{
	unsigned int block;
	int r;

	r = dm_get_device(ti, path, dm_table_get_mode(ti->table), dev);
	if (r) {
		ti->error = (char *)dev_unusable[which];
		return r;
	}

	block = bdev_logical_block_size((*dev)->bdev) >> SECTOR_SHIFT;
	if (which == REPL_DEV_METADATA && block <= REPL_BLOCK_SECTORS)
		return 0;
	if (which == REPL_DEV_METADATA)
		ti->error = "Metadata device has blocks of more than 4 KiB";
	else if (bdev_nr_sectors((*dev)->bdev) < ti->len)
		ti->error = (char *)dev_short[which];
	else if (ti->len & (block - 1))
		ti->error = (char *)dev_unaligned[which];
	else
		return 0;

	dm_put_device(ti, *dev);
	*dev = NULL;
	return -EINVAL;
}

/**
 * repl_same_device() - do two devices share sectors?
 * @a: device
 * @b: device
 *
 * The same device, or a disk and its partition.
 */
bool repl_same_device(const struct dm_dev *a, const struct dm_dev *b)
{
	sector_t a_start = get_start_sect(a->bdev);
	sector_t b_start = get_start_sect(b->bdev);

	return a->bdev->bd_disk == b->bdev->bd_disk &&
	       a_start < b_start + bdev_nr_sectors(b->bdev) &&
	       b_start < a_start + bdev_nr_sectors(a->bdev);
}

/**
 * repl_parse_region_size() - region_size of a table line
 * @ti: target; its ->error is set on failure
 * @word: the word
 * @region_size: result, in sectors
 *
 * Return: 0 or -EINVAL.
 */
int repl_parse_region_size(struct dm_target *ti, const char *word,
			   sector_t *region_size)
{
	unsigned int sectors;

	if (kstrtouint(word, 10, &sectors)) {
		ti->error = "Region size is not a number";
		return -EINVAL;
	}
	if (!is_power_of_2(sectors)) {
		ti->error = "Region size is not a power of two";
		return -EINVAL;
	}
	if (sectors < REPL_MIN_REGION_SIZE || sectors > REPL_MAX_REGION_SIZE) {
		ti->error = "Region size is out of range: 8 to 8192 sectors";
		return -EINVAL;
	}
	*region_size = sectors;
	return 0;
}

/**
 * repl_parse_nr_features() - the number before the features
 * @ti: target; its ->error is set on failure
 * @argc: words that are left, 0 if there is no number
 * @argv: words
 *
 * Return: the number, all of whose words are there, or -EINVAL.
 */
int repl_parse_nr_features(struct dm_target *ti, unsigned int argc, char **argv)
{
	unsigned int nr;

	if (!argc)
		return 0;
	if (kstrtouint(argv[0], 10, &nr)) {
		ti->error = "Number of features is not a number";
		return -EINVAL;
	}
	if (nr != argc - 1) {
		ti->error = "Number of features does not fit the words";
		return -EINVAL;
	}
	return nr;
}

static int __init dm_repl_init(void)
{
	int r = repl_region_op_module_init();

	if (r)
		return r;
	r = dm_register_target(&repl_secondary_target);
	if (r)
		goto bad_secondary;
	r = dm_register_target(&repl_ingest_target);
	if (r)
		goto bad_ingest;
	r = dm_register_target(&repl_primary_target);
	if (r)
		goto bad_primary;
	return 0;

bad_primary:
	dm_unregister_target(&repl_ingest_target);
bad_ingest:
	dm_unregister_target(&repl_secondary_target);
bad_secondary:
	repl_region_op_module_exit();
	return r;
}

static void __exit dm_repl_exit(void)
{
	dm_unregister_target(&repl_primary_target);
	dm_unregister_target(&repl_ingest_target);
	dm_unregister_target(&repl_secondary_target);
	repl_region_op_module_exit();
}

module_init(dm_repl_init);
module_exit(dm_repl_exit);

MODULE_DESCRIPTION("device-mapper block replication with checkpoints");
MODULE_AUTHOR("The dm-repl developers");
MODULE_ALIAS("dm-repl-secondary");
MODULE_ALIAS("dm-repl-ingest");
MODULE_ALIAS("dm-repl-primary");
MODULE_LICENSE("GPL");

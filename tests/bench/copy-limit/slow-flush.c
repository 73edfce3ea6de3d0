// SPDX-License-Identifier: GPL-2.0-only
/*
 * slow-flush: a device whose flushes take their time.
 *
 * A target for measuring only; it is never installed. null_blk delays what is
 * read and written, but a flush of it ends at once, for it has no volatile cache
 * (or one that costs a second copy of all data). This passes everything on and
 * ends a flush after a while. A write with FUA is an I/O like another.
 *
 *	slow-flush <device> <nanoseconds>
 */

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/slab.h>

#define DM_MSG_PREFIX "slow-flush"

struct slow_flush {
	struct dm_dev *dev;
	u64 ns;
};

struct slow_bio {
	struct hrtimer timer;
	struct bio *bio;
};

static enum hrtimer_restart slow_flush_over(struct hrtimer *timer)
{
	bio_endio(container_of(timer, struct slow_bio, timer)->bio);
	return HRTIMER_NORESTART;
}

static int slow_flush_map(struct dm_target *ti, struct bio *bio)
{
	struct slow_flush *slow = ti->private;
	struct slow_bio *wait = dm_per_bio_data(bio, sizeof(*wait));

	bio_set_dev(bio, slow->dev->bdev);
	if (!(bio->bi_opf & REQ_PREFLUSH))
		return DM_MAPIO_REMAPPED;

	wait->bio = bio;
#ifdef REPL_HAVE_HRTIMER_SETUP
	hrtimer_setup(&wait->timer, slow_flush_over, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL);
#else
	hrtimer_init(&wait->timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	wait->timer.function = slow_flush_over;
#endif
	hrtimer_start(&wait->timer, ns_to_ktime(slow->ns), HRTIMER_MODE_REL);
	return DM_MAPIO_SUBMITTED;
}

static int slow_flush_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct slow_flush *slow;
	int r;

	if (argc != 2) {
		ti->error = "Invalid argument count";
		return -EINVAL;
	}
	slow = kzalloc(sizeof(*slow), GFP_KERNEL);
	if (!slow) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	r = kstrtou64(argv[1], 10, &slow->ns);
	if (r) {
		ti->error = "Invalid time";
		goto fail;
	}
	r = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &slow->dev);
	if (r) {
		ti->error = "Device not found";
		goto fail;
	}
	ti->private = slow;
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->per_io_data_size = sizeof(struct slow_bio);
	return 0;
fail:
	kfree(slow);
	return r;
}

static void slow_flush_dtr(struct dm_target *ti)
{
	struct slow_flush *slow = ti->private;

	dm_put_device(ti, slow->dev);
	kfree(slow);
}

static int slow_flush_iterate_devices(struct dm_target *ti,
				      iterate_devices_callout_fn fn, void *data)
{
	struct slow_flush *slow = ti->private;

	return fn(ti, slow->dev, 0, ti->len, data);
}

static struct target_type slow_flush_target = {
	.name = "slow-flush",
	.version = {1, 0, 0},
	.module = THIS_MODULE,
	.ctr = slow_flush_ctr,
	.dtr = slow_flush_dtr,
	.map = slow_flush_map,
	.iterate_devices = slow_flush_iterate_devices,
};

static int __init slow_flush_init(void)
{
	return dm_register_target(&slow_flush_target);
}

static void __exit slow_flush_exit(void)
{
	dm_unregister_target(&slow_flush_target);
}

module_init(slow_flush_init);
module_exit(slow_flush_exit);

MODULE_DESCRIPTION("Flushes that take time, for the benchmark of dm-repl");
MODULE_LICENSE("GPL");

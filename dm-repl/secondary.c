// SPDX-License-Identifier: GPL-2.0-only
/*
 * repl-secondary: the view.
 *
 *	repl-secondary <secondary> <hidden> <active> <metadata|-> <region_size>
 *		       [<#features> <feature>...]
 *
 * A thin target: the chain does the work, and outlives a reload of the table.
 */

#include "chain.h"
#include "targets.h"

struct repl_secondary {
	struct repl_chain *chain;
	struct dm_dev *secondary;
	struct dm_dev *hidden;
	struct dm_dev *active;
	struct dm_dev *metadata;	/* or NULL */
	bool has_uuid;
	uuid_t uuid;			/* that metadata must have */
	u64 min_checkpoint;		/* and be of; 0: any */
	bool held;			/* this table holds the job: suspended */
};

static void secondary_free(struct dm_target *ti, struct repl_secondary *s)
{
	if (s->metadata)
		dm_put_device(ti, s->metadata);
	if (s->active)
		dm_put_device(ti, s->active);
	if (s->hidden)
		dm_put_device(ti, s->hidden);
	if (s->secondary)
		dm_put_device(ti, s->secondary);
	kfree(s);
}

static int secondary_get_devices(struct dm_target *ti, struct repl_secondary *s,
				 char **argv)
{
	int r;

	r = repl_get_device(ti, argv[0], REPL_DEV_SECONDARY, &s->secondary);
	if (r)
		return r;
	r = repl_get_device(ti, argv[1], REPL_DEV_HIDDEN, &s->hidden);
	if (r)
		return r;
	r = repl_get_device(ti, argv[2], REPL_DEV_ACTIVE, &s->active);
	if (r)
		return r;

	if (strcmp(argv[3], "-")) {
		r = repl_get_device(ti, argv[3], REPL_DEV_METADATA,
				    &s->metadata);
		if (r)
			return r;
	}

	if (s->metadata && (repl_same_device(s->metadata, s->secondary) ||
			    repl_same_device(s->metadata, s->hidden) ||
			    repl_same_device(s->metadata, s->active)))
		ti->error = "Metadata device is one of the others";
	else if (repl_same_device(s->secondary, s->hidden))
		ti->error = "Secondary and hidden are the same device";
	else if (repl_same_device(s->secondary, s->active))
		ti->error = "Secondary and active are the same device";
	else if (repl_same_device(s->hidden, s->active))
		ti->error = "Hidden and active are the same device";
	else
		return 0;
	return -EINVAL;
}

/* Copies are made of whole regions. */
static bool secondary_region_fits(struct repl_secondary *s, sector_t region_size)
{
	unsigned int block = max3(bdev_logical_block_size(s->secondary->bdev),
				  bdev_logical_block_size(s->hidden->bdev),
				  bdev_logical_block_size(s->active->bdev));

	return region_size >= block >> SECTOR_SHIFT;
}

/* uuid <UUID>, min_checkpoint <id>: which metadata it must be */
static int secondary_features(struct dm_target *ti, struct repl_secondary *s,
			      unsigned int argc, char **argv)
{
	unsigned int i;

	if (argc && !s->metadata) {
		ti->error = "Features of repl-secondary are about metadata";
		return -EINVAL;
	}
	for (i = 0; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "uuid") &&
		    !uuid_parse(argv[i + 1], &s->uuid)) {
			s->has_uuid = true;
		} else if (!strcmp(argv[i], "min_checkpoint") &&
			   !kstrtou64(argv[i + 1], 10, &s->min_checkpoint)) {
			continue;
		} else {
			break;
		}
	}
	if (i == argc)
		return 0;
	ti->error = "Unknown feature of repl-secondary";
	return -EINVAL;
}

static int secondary_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct repl_chain_params params = { .len = ti->len };
	struct repl_secondary *s;
	int r;

	if (argc < 5) {
		ti->error = "Too few arguments for repl-secondary";
		return -EINVAL;
	}
	r = repl_parse_region_size(ti, argv[4], &params.region_size);
	if (r)
		return r;
	r = repl_parse_nr_features(ti, argc - 5, argv + 5);
	if (r < 0)
		return r;

	s = kzalloc(sizeof(*s), GFP_KERNEL);
	if (!s) {
		ti->error = "Cannot allocate secondary";
		return -ENOMEM;
	}
	r = secondary_get_devices(ti, s, argv);
	if (!r)
		r = secondary_features(ti, s, argc > 5 ? argc - 6 : 0, argv + 6);
	if (r)
		goto bad;

	if (!secondary_region_fits(s, params.region_size)) {
		ti->error = "Region size is smaller than a device's block";
		r = -EINVAL;
		goto bad;
	}

	params.md = dm_table_get_md(ti->table);
	params.secondary = s->secondary->bdev;
	params.hidden = s->hidden->bdev;
	params.active = s->active->bdev;
	params.metadata = s->metadata ? s->metadata->bdev : NULL;
	params.uuid = s->has_uuid ? &s->uuid : NULL;
	params.min_checkpoint = s->min_checkpoint;
	s->chain = repl_chain_get(ti, &params);
	if (IS_ERR(s->chain)) {
		r = PTR_ERR(s->chain);
		goto bad;
	}

	ti->num_flush_bios = s->metadata ? 3 : 2; /* secondary, active */
	ti->flush_supported = true;
	ti->per_io_data_size = sizeof(struct repl_io);
	ti->private = s;
	return 0;

bad:
	secondary_free(ti, s);
	return r;
}

static void secondary_dtr(struct dm_target *ti)
{
	struct repl_secondary *s = ti->private;

	repl_chain_put(s->chain, ti, s->held);
	secondary_free(ti, s);
}

static int secondary_map(struct dm_target *ti, struct bio *bio)
{
	struct repl_secondary *s = ti->private;
	struct repl_chain *chain = s->chain;
	int r;

	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	repl_io_init(bio, chain, true);
	if (unlikely(!repl_chain_enter(chain, bio, true)))
		return DM_MAPIO_SUBMITTED;

	r = repl_view_map(chain, bio, true);
	if (unlikely(r == DM_MAPIO_KILL))
		repl_gate_put(&chain->gate);
	return r;
}

static int secondary_end_io(struct dm_target *ti, struct bio *bio,
			    blk_status_t *error)
{
	return repl_chain_end_io(bio, *error);
}

/* The job stands still with the view (invariant 9). */
static void secondary_presuspend(struct dm_target *ti)
{
	struct repl_secondary *s = ti->private;

	if (!s->held)
		repl_job_hold(&s->chain->job, true);
	s->held = true;
}

static void secondary_postsuspend(struct dm_target *ti)
{
	struct repl_secondary *s = ti->private;

	repl_job_settle(&s->chain->job);
	repl_chain_sync(s->chain);
}

static void secondary_release(struct dm_target *ti)
{
	struct repl_secondary *s = ti->private;

	if (s->held)
		repl_job_hold(&s->chain->job, false);
	s->held = false;
}

static int secondary_preresume(struct dm_target *ti)
{
	struct repl_secondary *s = ti->private;
	int r = repl_chain_attach(s->chain, ti);

	if (r == -EBUSY)
		DMERR("%s: the live table's maps hold something: cannot change its devices",
		      dm_table_device_name(ti->table));
	return r;
}

static int secondary_message(struct dm_target *ti, unsigned int argc,
			     char **argv, char *result, unsigned int maxlen)
{
	struct repl_secondary *s = ti->private;

	return repl_chain_message(s->chain, argc, argv, result, maxlen);
}

static void secondary_status(struct dm_target *ti, status_type_t type,
			     unsigned int flags, char *result,
			     unsigned int maxlen)
{
	struct repl_secondary *s = ti->private;
	unsigned int sz = 0;
	unsigned int nr;

	switch (type) {
	case STATUSTYPE_INFO:
		repl_chain_status(s->chain, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %s %s %llu", s->secondary->name, s->hidden->name,
		       s->active->name, s->metadata ? s->metadata->name : "-",
		       (u64)repl_region_sector(s->chain, 1));
		nr = 2 * (s->has_uuid + !!s->min_checkpoint);
		if (nr)
			DMEMIT(" %u", nr);
		if (s->has_uuid)
			DMEMIT(" uuid %pU", &s->uuid);
		if (s->min_checkpoint)
			DMEMIT(" min_checkpoint %llu", s->min_checkpoint);
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int secondary_iterate_devices(struct dm_target *ti,
				     iterate_devices_callout_fn fn, void *data)
{
	struct repl_secondary *s = ti->private;
	int r;

	r = fn(ti, s->secondary, 0, ti->len, data);
	if (!r)
		r = fn(ti, s->hidden, 0, ti->len, data);
	if (!r)
		r = fn(ti, s->active, 0, ti->len, data);
	return r;
}

struct target_type repl_secondary_target = {
	.name = "repl-secondary",
	.version = {1, 0, 0},
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = secondary_ctr,
	.dtr = secondary_dtr,
	.map = secondary_map,
	.end_io = secondary_end_io,
	.presuspend = secondary_presuspend,
	.presuspend_undo = secondary_release,
	.postsuspend = secondary_postsuspend,
	.preresume = secondary_preresume,
	.resume = secondary_release,
	.message = secondary_message,
	.status = secondary_status,
	.iterate_devices = secondary_iterate_devices,
};

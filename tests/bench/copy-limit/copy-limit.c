// SPDX-License-Identifier: GPL-2.0-only
/*
 * copy-limit: how fast can a first write be?
 *
 * A target for measuring only; it is never installed. A first write is one read
 * of the region, one write of it to hidden and then the write of the new data.
 * This does just that: no map, no lock on a region, no error handling, nothing
 * remembered. What it reaches on a device nobody who keeps the old data reaches
 * more, and the benchmark says how near dm-repl is.
 *
 *	copy-limit <secondary> <hidden> <region_size> <copy_size>
 *
 * Two ways in:
 *
 * - As a target: each write is a first write. Writes that arrive together and
 *   are adjacent share a copy of up to copy_size sectors. It has the same front
 *   end (dm, system calls, the load generator) as what it is compared with.
 *
 * - By message, a loop without any front end:
 *
 *	loop <count> <depth> <write> <stride> <copy> seq|random
 *
 *   count writes of so many sectors, one every stride sectors, depth at a time;
 *   each copy covers copy sectors, aligned, and the writes in them.
 *
 *	kcopyd <count> <extent> <stride>
 *
 *   Plain kcopyd from hidden to secondary: count extents of so many sectors, one
 *   every stride sectors. The limit of a merge.
 *
 *   Both answer the nanoseconds that it took.
 *
 * Completions gather while the worker is busy and go on in one plug: the
 * batching that a good implementation has.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/device-mapper.h>
#include <linux/dm-io.h>
#include <linux/dm-kcopyd.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#define DM_MSG_PREFIX "copy-limit"

/* Most sectors of one copy (1 MiB). */
#define LIMIT_COPY_SECTORS	2048
/* Copies in flight. */
#define LIMIT_OPS		64
/* Newer kernels want to be told what older ones do. */
#ifdef REPL_HAVE_WQ_PERCPU
#define LIMIT_PERCPU		WQ_PERCPU
#else
#define LIMIT_PERCPU		0
#endif
/* kcopyd jobs in flight. */
#define LIMIT_JOBS		64

enum limit_step {
	LIMIT_READ,
	LIMIT_PRESERVE,
	LIMIT_WRITE,
};

struct limit_op {
	struct list_head list;
	struct limit *limit;
	enum limit_step step;
	void *buffer;
	sector_t sector;
	sector_t count;
	struct bio_list bios;		/* target: what waits for the copy */
	unsigned int issued;		/* loop: writes begun and */
	unsigned int left;		/* not yet ended */
};

/* One run of the loop. */
struct limit_loop {
	u64 copies;			/* in all */
	u64 started;
	u64 ended;
	unsigned int depth;
	unsigned int slots;		/* copies in flight, at most */
	unsigned int copying;		/* slots taken */
	unsigned int writing;		/* new data's writes in flight */
	unsigned int writes;		/* of one copy */
	sector_t write;
	sector_t stride;
	sector_t copy;
	u64 step;			/* from one copy to the next, odd */
	struct completion done;
};

struct limit {
	struct dm_dev *secondary;
	struct dm_dev *hidden;
	sector_t region;
	sector_t copy;
	sector_t len;
	struct dm_io_client *io;
	struct dm_kcopyd_client *kcopyd;
	struct workqueue_struct *wq;
	struct workqueue_struct *loop_wq;
	struct work_struct work;

	spinlock_t lock;
	struct bio_list bios;		/* not yet in an op */
	struct list_head done;		/* ops whose step has ended */
	struct list_head free;
	struct list_head ready;		/* worker's: preserved, loop only */
	struct limit_loop loop;
	bool looping;
	unsigned long error;

	struct mutex message_lock;
	void *data;			/* what the loop writes */
	struct limit_op ops[LIMIT_OPS];
};

static int limit_dm_io(struct dm_io_request *request, struct dm_io_region *where)
{
#if REPL_DM_IO_ARGS == 4
	return dm_io(request, 1, where, NULL);
#else
	return dm_io(request, 1, where, NULL, IOPRIO_DEFAULT);
#endif
}

static void limit_io(struct limit *limit, enum req_op op, struct dm_dev *dev,
		     sector_t sector, sector_t count, void *buffer,
		     io_notify_fn fn, void *context)
{
	struct dm_io_region where = {
		.bdev = dev->bdev, .sector = sector, .count = count,
	};
	struct dm_io_request request = {
		.bi_opf = op,
		.mem.type = DM_IO_KMEM,
		.mem.ptr.addr = buffer,
		.notify.fn = fn,
		.notify.context = context,
		.client = limit->io,
	};

	if (WARN_ON_ONCE(limit_dm_io(&request, &where)))
		fn(1, context);
}

static void limit_kick(struct limit *limit)
{
	queue_work(limit->looping ? limit->loop_wq : limit->wq, &limit->work);
}

/* A copy's read or its write to hidden has ended. Context: any. */
static void limit_copied(unsigned long error, void *context)
{
	struct limit_op *op = context;
	struct limit *limit = op->limit;
	unsigned long flags;

	spin_lock_irqsave(&limit->lock, flags);
	limit->error |= error;
	list_add_tail(&op->list, &limit->done);
	spin_unlock_irqrestore(&limit->lock, flags);
	limit_kick(limit);
}

/* A write of the loop has ended. Context: any. */
static void limit_written(unsigned long error, void *context)
{
	struct limit_op *op = context;
	struct limit *limit = op->limit;
	unsigned long flags;

	spin_lock_irqsave(&limit->lock, flags);
	limit->error |= error;
	limit->loop.writing--;
	if (!--op->left) {
		limit->loop.copying--;
		limit->loop.ended++;
		list_add(&op->list, &limit->free);
	}
	spin_unlock_irqrestore(&limit->lock, flags);
	limit_kick(limit);
}

static void limit_start(struct limit_op *op)
{
	op->step = LIMIT_READ;
	limit_io(op->limit, REQ_OP_READ, op->limit->secondary, op->sector,
		 op->count, op->buffer, limit_copied, op);
}

static void limit_preserve(struct limit_op *op)
{
	op->step = LIMIT_PRESERVE;
	limit_io(op->limit, REQ_OP_WRITE, op->limit->hidden, op->sector,
		 op->count, op->buffer, limit_copied, op);
}

static struct limit_op *limit_get(struct limit *limit)
{
	struct limit_op *op;

	spin_lock_irq(&limit->lock);
	op = list_first_entry_or_null(&limit->free, struct limit_op, list);
	if (op)
		list_del(&op->list);
	spin_unlock_irq(&limit->lock);
	return op;
}

static void limit_put(struct limit_op *op)
{
	spin_lock_irq(&op->limit->lock);
	list_add(&op->list, &op->limit->free);
	spin_unlock_irq(&op->limit->lock);
}

/* ------------------------------------------------------------- as a target */

/* Begin copies for the bios that have come, neighbours in one. */
static void limit_start_bios(struct limit *limit)
{
	struct limit_op *op = NULL, *next;
	struct bio_list bios;
	LIST_HEAD(start);
	struct bio *bio;

	spin_lock_irq(&limit->lock);
	bios = limit->bios;
	bio_list_init(&limit->bios);
	spin_unlock_irq(&limit->lock);

	while ((bio = bio_list_pop(&bios))) {
		sector_t mask = limit->region - 1;
		sector_t begin = bio->bi_iter.bi_sector & ~mask;
		sector_t end = min((bio_end_sector(bio) + mask) & ~mask,
				   limit->len);

		if (op && op->sector + op->count == begin &&
		    end - op->sector <= limit->copy) {
			op->count = end - op->sector;
			bio_list_add(&op->bios, bio);
			continue;
		}
		op = limit_get(limit);
		if (!op) {
			/* The worker comes back when one is free. */
			bio_list_add_head(&bios, bio);
			break;
		}
		op->sector = begin;
		op->count = end - begin;
		bio_list_init(&op->bios);
		bio_list_add(&op->bios, bio);
		list_add_tail(&op->list, &start);
	}
	if (!bio_list_empty(&bios)) {
		spin_lock_irq(&limit->lock);
		bio_list_merge_head(&limit->bios, &bios);
		spin_unlock_irq(&limit->lock);
	}
	list_for_each_entry_safe(op, next, &start, list) {
		list_del(&op->list);
		limit_start(op);
	}
}

static void limit_submit_bios(struct limit_op *op)
{
	struct bio_list bios = op->bios;
	struct bio *bio;

	limit_put(op);
	while ((bio = bio_list_pop(&bios)))
		submit_bio_noacct(bio);
}

static int limit_map(struct dm_target *ti, struct bio *bio)
{
	struct limit *limit = ti->private;
	unsigned long flags;

	bio_set_dev(bio, limit->secondary->bdev);
	if (bio_op(bio) != REQ_OP_WRITE || !bio_sectors(bio))
		return DM_MAPIO_REMAPPED;

	spin_lock_irqsave(&limit->lock, flags);
	bio_list_add(&limit->bios, bio);
	spin_unlock_irqrestore(&limit->lock, flags);
	limit_kick(limit);
	return DM_MAPIO_SUBMITTED;
}

/* ------------------------------------------------------------- as a loop */

static void limit_loop_write(struct limit_op *op)
{
	struct limit *limit = op->limit;
	struct limit_loop *loop = &limit->loop;
	sector_t sector = op->sector + op->issued++ * loop->stride;

	limit_io(limit, REQ_OP_WRITE, limit->secondary, sector, loop->write,
		 limit->data, limit_written, op);
}

static void limit_loop_go_on(struct limit *limit)
{
	struct limit_loop *loop = &limit->loop;
	struct limit_op *op;

	for (;;) {
		bool may;

		op = list_first_entry_or_null(&limit->ready, struct limit_op,
					      list);
		if (!op)
			break;
		spin_lock_irq(&limit->lock);
		may = loop->writing < loop->depth;
		loop->writing += may;
		spin_unlock_irq(&limit->lock);
		if (!may)
			break;
		/* Off the list first: its last write may end at once. */
		if (op->issued + 1 == loop->writes)
			list_del(&op->list);
		limit_loop_write(op);
	}

	while (loop->started < loop->copies) {
		u64 n;

		spin_lock_irq(&limit->lock);
		op = NULL;
		if (loop->copying < loop->slots) {
			loop->copying++;
			op = list_first_entry(&limit->free, struct limit_op,
					      list);
			list_del(&op->list);
		}
		spin_unlock_irq(&limit->lock);
		if (!op)
			return;
		/* An odd step reaches each of 2^k places once. */
		n = (loop->started++ * loop->step) & (loop->copies - 1);
		op->sector = n * max(loop->copy, loop->stride);
		op->count = loop->copy;
		op->issued = 0;
		op->left = loop->writes;
		limit_start(op);
	}
	if (READ_ONCE(loop->ended) == loop->copies)
		complete(&loop->done);
}

/* ------------------------------------------------------------- the worker */

static void limit_work(struct work_struct *work)
{
	struct limit *limit = container_of(work, struct limit, work);
	struct limit_op *op, *next;
	struct blk_plug plug;
	LIST_HEAD(done);

	spin_lock_irq(&limit->lock);
	list_splice_init(&limit->done, &done);
	spin_unlock_irq(&limit->lock);

	blk_start_plug(&plug);
	list_for_each_entry_safe(op, next, &done, list) {
		list_del(&op->list);
		if (op->step == LIMIT_READ)
			limit_preserve(op);
		else if (limit->looping)
			list_add_tail(&op->list, &limit->ready);
		else
			limit_submit_bios(op);
	}
	if (limit->looping)
		limit_loop_go_on(limit);
	else
		limit_start_bios(limit);
	blk_finish_plug(&plug);
}

/* ------------------------------------------------------------- messages */

static int limit_parse(char **argv, unsigned int n, u64 *value)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (kstrtou64(argv[i], 10, &value[i]) || !value[i])
			return -EINVAL;
	return 0;
}

static int limit_run_loop(struct limit *limit, u64 count, u64 depth, u64 write,
			  u64 stride, u64 copy, bool random, u64 *ns)
{
	struct limit_loop *loop = &limit->loop;
	u64 begin;

	*loop = (struct limit_loop) {
		.depth = depth, .write = write, .stride = stride, .copy = copy,
		.writes = max_t(u64, copy / stride, 1),
		.step = 1,
	};

	if (depth > LIMIT_OPS || write > copy || copy > LIMIT_COPY_SECTORS ||
	    !is_power_of_2(stride) || !is_power_of_2(copy) || stride < write ||
	    count % loop->writes || count * stride > limit->len)
		return -EINVAL;
	loop->copies = count / loop->writes;
	if (!is_power_of_2(loop->copies))
		return -EINVAL;
	loop->slots = max_t(u64, depth / loop->writes, 1);
	if (random)
		loop->step = (loop->copies * 5 / 8) | 1;
	init_completion(&loop->done);

	limit->error = 0;
	limit->looping = true;
	begin = ktime_get_ns();
	limit_kick(limit);
	wait_for_completion(&loop->done);
	*ns = ktime_get_ns() - begin;
	flush_workqueue(limit->loop_wq);
	limit->looping = false;
	return limit->error ? -EIO : 0;
}

struct limit_jobs {
	struct semaphore room;
	unsigned long error;
};

static void limit_job_done(int read_error, unsigned long write_error,
			   void *context)
{
	struct limit_jobs *jobs = context;

	if (read_error || write_error)
		jobs->error = 1;
	up(&jobs->room);
}

static int limit_run_kcopyd(struct limit *limit, u64 count, u64 extent,
			    u64 stride, u64 *ns)
{
	struct limit_jobs jobs = { .error = 0 };
	u64 begin, i;

	if (stride < extent || count * stride > limit->len)
		return -EINVAL;
	sema_init(&jobs.room, LIMIT_JOBS);
	begin = ktime_get_ns();
	for (i = 0; i < count; i++) {
		struct dm_io_region from = {
			.bdev = limit->hidden->bdev,
			.sector = i * stride, .count = extent,
		};
		struct dm_io_region to = from;

		to.bdev = limit->secondary->bdev;
		down(&jobs.room);
		dm_kcopyd_copy(limit->kcopyd, &from, 1, &to, 0, limit_job_done,
			       &jobs);
	}
	for (i = 0; i < LIMIT_JOBS; i++)
		down(&jobs.room);
	*ns = ktime_get_ns() - begin;
	return jobs.error ? -EIO : 0;
}

static int limit_message(struct dm_target *ti, unsigned int argc, char **argv,
			 char *result, unsigned int maxlen)
{
	struct limit *limit = ti->private;
	unsigned int sz = 0;
	u64 value[5], ns;
	int r = -EINVAL;

	mutex_lock(&limit->message_lock);
	if (argc == 7 && !strcmp(argv[0], "loop") &&
	    !limit_parse(argv + 1, 5, value))
		r = limit_run_loop(limit, value[0], value[1], value[2],
				   value[3], value[4],
				   !strcmp(argv[6], "random"), &ns);
	else if (argc == 4 && !strcmp(argv[0], "kcopyd") &&
		 !limit_parse(argv + 1, 3, value))
		r = limit_run_kcopyd(limit, value[0], value[1], value[2], &ns);
	mutex_unlock(&limit->message_lock);
	if (r)
		return r;
	DMEMIT("%llu", ns);
	return 1;
}

/* ------------------------------------------------------------- the target */

static void limit_dtr(struct dm_target *ti)
{
	struct limit *limit = ti->private;
	unsigned int i;

	if (limit->wq)
		destroy_workqueue(limit->wq);
	if (limit->loop_wq)
		destroy_workqueue(limit->loop_wq);
	if (limit->kcopyd)
		dm_kcopyd_client_destroy(limit->kcopyd);
	if (limit->io)
		dm_io_client_destroy(limit->io);
	for (i = 0; i < LIMIT_OPS; i++)
		if (limit->ops[i].buffer)
			free_pages_exact(limit->ops[i].buffer,
					 LIMIT_COPY_SECTORS << SECTOR_SHIFT);
	if (limit->data)
		free_pages_exact(limit->data,
				 LIMIT_COPY_SECTORS << SECTOR_SHIFT);
	if (limit->hidden)
		dm_put_device(ti, limit->hidden);
	if (limit->secondary)
		dm_put_device(ti, limit->secondary);
	kvfree(limit);
}

static int limit_init(struct dm_target *ti, char **argv)
{
	struct limit *limit = ti->private;
	unsigned int i;
	u64 value[2];
	int r;

	spin_lock_init(&limit->lock);
	mutex_init(&limit->message_lock);
	bio_list_init(&limit->bios);
	INIT_LIST_HEAD(&limit->done);
	INIT_LIST_HEAD(&limit->free);
	INIT_LIST_HEAD(&limit->ready);
	INIT_WORK(&limit->work, limit_work);

	if (limit_parse(argv + 2, 2, value) || !is_power_of_2(value[0]) ||
	    value[0] > value[1] || value[1] > LIMIT_COPY_SECTORS) {
		ti->error = "Invalid region_size or copy_size";
		return -EINVAL;
	}
	limit->region = value[0];
	limit->copy = value[1];
	limit->len = ti->len;

	ti->error = "Device not found";
	r = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table),
			  &limit->secondary);
	if (r)
		return r;
	r = dm_get_device(ti, argv[1], dm_table_get_mode(ti->table),
			  &limit->hidden);
	if (r)
		return r;

	ti->error = "Out of memory";
	limit->data = alloc_pages_exact(LIMIT_COPY_SECTORS << SECTOR_SHIFT,
					GFP_KERNEL | __GFP_ZERO);
	if (!limit->data)
		return -ENOMEM;
	for (i = 0; i < LIMIT_OPS; i++) {
		struct limit_op *op = &limit->ops[i];

		op->limit = limit;
		op->buffer = alloc_pages_exact(LIMIT_COPY_SECTORS << SECTOR_SHIFT,
					       GFP_KERNEL);
		if (!op->buffer)
			return -ENOMEM;
		list_add(&op->list, &limit->free);
	}
	limit->io = dm_io_client_create();
	if (IS_ERR(limit->io)) {
		r = PTR_ERR(limit->io);
		limit->io = NULL;
		return r;
	}
	limit->kcopyd = dm_kcopyd_client_create(NULL);
	if (IS_ERR(limit->kcopyd)) {
		r = PTR_ERR(limit->kcopyd);
		limit->kcopyd = NULL;
		return r;
	}
	/*
	 * Per CPU and of common priority: a worker that preempts who submits
	 * finds one bio at a time, and that costs a third of the speed.
	 */
	limit->wq = alloc_workqueue("copy_limit", WQ_MEM_RECLAIM | LIMIT_PERCPU,
				    1);
	/* Nobody submits to the loop: there it is the other way round. */
	limit->loop_wq = alloc_workqueue("copy_limit_loop", WQ_UNBOUND |
					 WQ_MEM_RECLAIM | WQ_HIGHPRI, 1);
	if (!limit->wq || !limit->loop_wq)
		return -ENOMEM;
	ti->error = NULL;
	return dm_set_target_max_io_len(ti, limit->copy);
}

static int limit_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	int r;

	if (argc != 4) {
		ti->error = "Invalid argument count";
		return -EINVAL;
	}
	ti->private = kvzalloc(sizeof(struct limit), GFP_KERNEL);
	if (!ti->private) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	r = limit_init(ti, argv);
	if (r)
		limit_dtr(ti);
	else
		ti->num_flush_bios = 1;
	return r;
}

static int limit_iterate_devices(struct dm_target *ti,
				 iterate_devices_callout_fn fn, void *data)
{
	struct limit *limit = ti->private;

	return fn(ti, limit->secondary, 0, ti->len, data) ?:
	       fn(ti, limit->hidden, 0, ti->len, data);
}

static struct target_type limit_target = {
	.name = "copy-limit",
	.version = {1, 0, 0},
	.module = THIS_MODULE,
	.ctr = limit_ctr,
	.dtr = limit_dtr,
	.map = limit_map,
	.message = limit_message,
	.iterate_devices = limit_iterate_devices,
};

static int __init limit_module_init(void)
{
	return dm_register_target(&limit_target);
}

static void __exit limit_module_exit(void)
{
	dm_unregister_target(&limit_target);
}

module_init(limit_module_init);
module_exit(limit_module_exit);

MODULE_DESCRIPTION("The limit of a first write, for the benchmark of dm-repl");
MODULE_LICENSE("GPL");

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few differences between the kernels that one source serves (6.1, 6.12,
 * 7.3). Each is chosen by a probe of the headers in Kbuild or by a macro of
 * the headers themselves, never by a version number: the stable branches
 * backport.
 */
#ifndef DM_REPL_COMPAT_H
#define DM_REPL_COMPAT_H

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/dm-io.h>
#include <linux/ioprio.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/sched/prio.h>
#include <linux/workqueue.h>
#include <uapi/linux/sched/types.h>

/**
 * repl_limit_discard() - bound the size of one discard
 * @limits: limits under construction
 * @sectors: largest discard to accept, in sectors
 *
 * Kernels have one, two or three words for it, and use the smallest; a limit
 * of 0 (not supported below) stays 0.
 */
static inline void repl_limit_discard(struct queue_limits *limits,
				      unsigned int sectors)
{
	limits->max_discard_sectors = min(limits->max_discard_sectors, sectors);
	limits->max_hw_discard_sectors =
		min(limits->max_hw_discard_sectors, sectors);
}

/* Newer kernels tell a request that fits no block from an I/O error. */
#ifndef BLK_STS_INVAL
#define REPL_STS_INVAL	BLK_STS_NOTSUPP
#else
#define REPL_STS_INVAL	BLK_STS_INVAL
#endif

/**
 * repl_dm_io() - read or write one range, and wait for it
 * @req: what, with memory and client, no callback
 * @where: range
 *
 * Return: 0 or a negative errno.
 */
static inline int repl_dm_io(struct dm_io_request *req,
			     struct dm_io_region *where)
{
	unsigned long bits = 0;
#if REPL_DM_IO_ARGS == 6
	unsigned long unsupported = 0;

	return dm_io(req, 1, where, &bits, &unsupported, IOPRIO_DEFAULT);
#elif REPL_DM_IO_ARGS == 5
	return dm_io(req, 1, where, &bits, IOPRIO_DEFAULT);
#else
	return dm_io(req, 1, where, &bits);
#endif
}

/**
 * repl_alloc_workqueue() - a queue for work that I/O waits for
 * @name: its name in the process list
 * @flags: WQ_HIGHPRI for short work that much other work waits for, or 0
 *
 * Return: the queue, or NULL.
 */
static inline struct workqueue_struct *
repl_alloc_workqueue(const char *name, unsigned int flags)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM | flags,
			       0, name);
}

/* Newer kernels have another word for one that runs at once. */
#ifndef kthread_run_worker
#define kthread_run_worker kthread_create_worker
#endif

/**
 * repl_batch_worker() - a thread for work that nobody waits for
 * @name: its name in the process list
 *
 * It has its share of the CPU, a small one, but whoever wakes it goes on first, and
 * everybody who becomes ready meanwhile.
 *
 * Return: the worker, or an ERR_PTR.
 */
static inline struct kthread_worker *repl_batch_worker(const char *name)
{
	const struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = SCHED_BATCH,
		.sched_nice = MAX_NICE,
	};
	struct kthread_worker *worker = kthread_run_worker(0, "%s", name);

	if (!IS_ERR(worker))
		sched_setattr_nocheck(worker->task, &attr);
	return worker;
}

#endif

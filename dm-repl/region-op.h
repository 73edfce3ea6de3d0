/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Region ops: the in-flight locks on regions.
 *
 * An op owns a range of neighbouring regions for as long as something moves
 * them: copy-before-write, a backfill of active, a write of the view that
 * replaces whole regions, a merge. Ranges never overlap, so a region is moved
 * by one at a time (invariant 6), and a range is copied as one. Bios that need
 * the outcome wait on the op, in order; a bio waits on one op at a time and
 * looks at the map again when that has ended.
 *
 * The steady state never comes here: the state word in the map answers first.
 * The ops in flight are some hundreds at most, in a tree ordered by region
 * under one lock. (A tree, not hashed buckets: one lookup finds the op that
 * overlaps a range of any length.)
 *
 * Whoever changes the map under an op does so before he removes it; whoever
 * finds a region without its state and without an op, both under the lock, may
 * claim it.
 */
#ifndef DM_REPL_REGION_OP_H
#define DM_REPL_REGION_OP_H

#include <linux/bio.h>
#include <linux/list.h>
#include <linux/mempool.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>

#include "copy.h"
#include "log.h"

struct repl_chain;

/*
 * What an op does: preserve (secondary to hidden, before a write), backfill
 * (chain to active, before a partial write), overwrite (a write of the view
 * replaces all of it), merge (active or hidden to secondary).
 */
struct repl_region_op {
	struct rb_node node;
	struct list_head list;		/* on at most one list of its owner */
	struct bio_list waiters;	/* under repl_region_ops.lock */
	struct repl_chain *chain;
	u64 begin;			/* regions [begin, end) */
	u64 end;
	struct repl_copy copy;
	struct repl_log_entry log;
	bool job;			/* a job's, else somebody waits */
};

struct repl_region_ops {
	spinlock_t lock;		/* root, nr, waiters */
	struct rb_root root;
	unsigned int nr;		/* in flight */
	mempool_t pool;
};

int __init repl_region_op_module_init(void);
void repl_region_op_module_exit(void);

int repl_region_ops_init(struct repl_region_ops *ops);
void repl_region_ops_exit(struct repl_region_ops *ops);

struct repl_region_op *repl_region_op_alloc(struct repl_region_ops *ops,
					    gfp_t gfp);
void repl_region_op_free(struct repl_region_ops *ops,
			 struct repl_region_op *op);
struct repl_region_op *repl_region_op_find(struct repl_region_ops *ops,
					   u64 begin, u64 end);
void repl_region_op_insert(struct repl_region_ops *ops,
			   struct repl_region_op *op);
void repl_region_op_remove(struct repl_region_ops *ops,
			   struct repl_region_op *op, struct bio_list *waiters);

#endif

// SPDX-License-Identifier: GPL-2.0-only
/* Region ops: see the essay in region-op.h. */

#include <linux/bug.h>
#include <linux/slab.h>

#include "region-op.h"

/* With this many the copies can always make progress. */
#define REPL_MIN_OPS 64

static struct kmem_cache *region_op_cache;

int __init repl_region_op_module_init(void)
{
	region_op_cache = KMEM_CACHE(repl_region_op, 0);
	return region_op_cache ? 0 : -ENOMEM;
}

void repl_region_op_module_exit(void)
{
	kmem_cache_destroy(region_op_cache);
}

/**
 * repl_region_ops_init() - no ops in flight, a reserve allocated
 * @ops: ops
 *
 * Return: 0 or -ENOMEM.
 */
int repl_region_ops_init(struct repl_region_ops *ops)
{
	spin_lock_init(&ops->lock);
	ops->root = RB_ROOT;
	ops->nr = 0;
	return mempool_init_slab_pool(&ops->pool, REPL_MIN_OPS,
				      region_op_cache);
}

/**
 * repl_region_ops_exit() - free the reserve
 * @ops: ops, none in flight
 */
void repl_region_ops_exit(struct repl_region_ops *ops)
{
	WARN_ON(!RB_EMPTY_ROOT(&ops->root));
	mempool_exit(&ops->pool);
}

/**
 * repl_region_op_alloc() - a blank op
 * @ops: ops
 * @gfp: GFP_NOWAIT, or GFP_NOIO to wait until another op is freed; then the
 *	caller holds none that only he can finish
 *
 * Context: process for GFP_NOIO, else any.
 * Return: the op; NULL only with GFP_NOWAIT.
 */
struct repl_region_op *repl_region_op_alloc(struct repl_region_ops *ops,
					    gfp_t gfp)
{
	struct repl_region_op *op = mempool_alloc(&ops->pool, gfp);

	if (unlikely(!op))
		return NULL;
	INIT_LIST_HEAD(&op->list);
	bio_list_init(&op->waiters);
	op->job = false;
	return op;
}

/**
 * repl_region_op_free() - give back an op
 * @ops: ops
 * @op: op, not in the tree
 *
 * Context: any.
 */
void repl_region_op_free(struct repl_region_ops *ops, struct repl_region_op *op)
{
	mempool_free(op, &ops->pool);
}

/**
 * repl_region_op_find() - the first op on a range
 * @ops: ops, locked
 * @begin: first region
 * @end: region after the last
 *
 * Return: the op with the lowest region that overlaps [@begin, @end), or NULL.
 */
struct repl_region_op *repl_region_op_find(struct repl_region_ops *ops,
					   u64 begin, u64 end)
{
	struct rb_node *node = ops->root.rb_node;
	struct repl_region_op *found = NULL;

	lockdep_assert_held(&ops->lock);
	while (node) {
		struct repl_region_op *op =
			rb_entry(node, struct repl_region_op, node);

		if (op->end <= begin) {
			node = node->rb_right;
		} else {
			if (op->begin < end)
				found = op;
			node = node->rb_left;
		}
	}
	return found;
}

/**
 * repl_region_op_insert() - claim a range
 * @ops: ops, locked
 * @op: op with its range set; repl_region_op_find() found nothing there
 */
void repl_region_op_insert(struct repl_region_ops *ops,
			   struct repl_region_op *op)
{
	struct rb_node **link = &ops->root.rb_node;
	struct rb_node *parent = NULL;

	lockdep_assert_held(&ops->lock);
	while (*link) {
		struct repl_region_op *other =
			rb_entry(*link, struct repl_region_op, node);

		parent = *link;
		/* Invariant 6. */
		WARN_ON_ONCE(op->begin < other->end && other->begin < op->end);
		link = op->begin < other->begin ? &parent->rb_left :
						  &parent->rb_right;
	}
	rb_link_node(&op->node, parent, link);
	rb_insert_color(&op->node, &ops->root);
	ops->nr++;
}

/**
 * repl_region_op_remove() - release a range
 * @ops: ops, not locked
 * @op: op in the tree; the maps say what became of its regions
 * @waiters: gets the bios that waited, in order
 *
 * Context: any.
 */
void repl_region_op_remove(struct repl_region_ops *ops,
			   struct repl_region_op *op, struct bio_list *waiters)
{
	unsigned long flags;

	spin_lock_irqsave(&ops->lock, flags);
	rb_erase(&op->node, &ops->root);
	ops->nr--;
	bio_list_merge(waiters, &op->waiters);
	bio_list_init(&op->waiters);
	spin_unlock_irqrestore(&ops->lock, flags);
}

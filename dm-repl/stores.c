// SPDX-License-Identifier: GPL-2.0-only
/* Stores: see stores.h. */

#include <linux/errno.h>
#include <linux/list.h>
#include <linux/mutex.h>

#include "store.h"
#include "stores.h"

static DEFINE_MUTEX(stores_lock);
static LIST_HEAD(stores);

/**
 * repl_stores_add() - a metadata device is about to be used
 * @store: store, its bdev set
 * @md: whose it is
 *
 * Context: constructor. Return: 0, or -EBUSY if it is another's.
 */
int repl_stores_add(struct repl_store *store, struct mapped_device *md)
{
	struct repl_store *other;
	int r = 0;

	mutex_lock(&stores_lock);
	list_for_each_entry(other, &stores, list)
		if (other->bdev == store->bdev && other->md != md)
			r = -EBUSY;
	if (!r) {
		store->md = md;
		list_add(&store->list, &stores);
	}
	mutex_unlock(&stores_lock);
	return r;
}

/**
 * repl_stores_del() - it is not used any more
 * @store: store, may never have been added
 */
void repl_stores_del(struct repl_store *store)
{
	mutex_lock(&stores_lock);
	if (store->md)
		list_del(&store->list);
	store->md = NULL;
	mutex_unlock(&stores_lock);
}

/**
 * repl_stores_quiesce() - of the stores of one device this one writes
 * @store: store that is about to be read
 *
 * Those of the other tables of the same mapped device, which are suspended and
 * get no messages, end what they write, and begin no more.
 *
 * Context: ->preresume.
 */
void repl_stores_quiesce(struct repl_store *store)
{
	struct repl_store *other;

	mutex_lock(&stores_lock);
	list_for_each_entry(other, &stores, list)
		if (other != store && other->bdev == store->bdev &&
		    other->log.io)
			repl_log_stop(&other->log);
	mutex_unlock(&stores_lock);
}

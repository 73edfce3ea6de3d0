// SPDX-License-Identifier: GPL-2.0-only
/*
 * Origin: what repl-secondary and repl-ingest of one secondary device share,
 * whichever is loaded first.
 *
 * A chain belongs to the origin, not to a table: while a table is reloaded,
 * the new one's constructor finds the chain of the live one and shares it, so
 * the maps live on. It goes with the last table that uses it.
 *
 * Ingest finds the chain in the data path under RCU: it enters the chain's
 * gate inside the read section. Whoever takes a chain away waits for a grace
 * period, then closes and drains its gate.
 */

#include <linux/slab.h>

#include "chain.h"

static DEFINE_MUTEX(registry_lock);
static LIST_HEAD(registry);

static struct repl_origin *origin_get_locked(dev_t dev)
{
	struct repl_origin *origin;

	list_for_each_entry(origin, &registry, list)
		if (origin->dev == dev) {
			origin->refs++;
			return origin;
		}

	origin = kzalloc(sizeof(*origin), GFP_KERNEL);
	if (!origin)
		return NULL;
	origin->dev = dev;
	origin->refs = 1;
	INIT_LIST_HEAD(&origin->chains);
	INIT_LIST_HEAD(&origin->ingests);
	list_add(&origin->list, &registry);
	return origin;
}

static void origin_put_locked(struct repl_origin *origin)
{
	if (--origin->refs)
		return;
	list_del(&origin->list);
	kfree(origin);
}

/**
 * repl_origin_get() - the origin of a device
 * @dev: number of the secondary device
 *
 * Return: the origin, made if there was none, or NULL without memory.
 */
struct repl_origin *repl_origin_get(dev_t dev)
{
	struct repl_origin *origin;

	mutex_lock(&registry_lock);
	origin = origin_get_locked(dev);
	mutex_unlock(&registry_lock);
	return origin;
}

/**
 * repl_origin_put() - drop what repl_origin_get() gave
 * @origin: origin
 */
void repl_origin_put(struct repl_origin *origin)
{
	mutex_lock(&registry_lock);
	origin_put_locked(origin);
	mutex_unlock(&registry_lock);
}

/**
 * repl_origin_add_ingest() - let a live ingest hear of the chain's events
 * @ingest: ingest; twice does no harm
 */
void repl_origin_add_ingest(struct repl_ingest *ingest)
{
	mutex_lock(&registry_lock);
	if (list_empty(&ingest->list))
		list_add(&ingest->list, &ingest->origin->ingests);
	mutex_unlock(&registry_lock);
}

/**
 * repl_origin_del_ingest() - the ingest goes away
 * @ingest: ingest
 */
void repl_origin_del_ingest(struct repl_ingest *ingest)
{
	mutex_lock(&registry_lock);
	list_del_init(&ingest->list);
	mutex_unlock(&registry_lock);
}

static bool chain_fits(struct repl_chain *chain,
		       const struct repl_chain_params *params)
{
	return chain->hidden == params->hidden &&
	       chain->active == params->active &&
	       repl_chain_metadata(chain) == params->metadata && chain->len == params->len &&
	       repl_region_sector(chain, 1) == params->region_size;
}

/* Is the chain in a stage in which its maps hold nothing? */
static bool chain_is_idle(struct repl_chain *chain)
{
	enum repl_stage stage = READ_ONCE(chain->stage);

	return stage == REPL_STAGE_NONE || stage == REPL_STAGE_DONE;
}

/* Another chain of the same view, on whichever secondary. */
static struct repl_chain *chain_of_view(struct mapped_device *md,
					struct repl_chain *but)
{
	struct repl_origin *origin;
	struct repl_chain *chain;

	list_for_each_entry(origin, &registry, list)
		list_for_each_entry(chain, &origin->chains, list)
			if (chain->md == md && chain != but)
				return chain;
	return NULL;
}

static bool chain_uses(struct repl_chain *chain, struct block_device *bdev)
{
	return chain->secondary == bdev || chain->hidden == bdev ||
	       chain->active == bdev || repl_chain_metadata(chain) == bdev;
}

/*
 * What one view preserves the other would overwrite: no two of them share a
 * device. Says which, or NULL.
 */
static char *chain_taken(struct mapped_device *md,
			 const struct repl_chain_params *params)
{
	struct repl_origin *origin;
	struct repl_chain *chain;

	list_for_each_entry(origin, &registry, list)
		list_for_each_entry(chain, &origin->chains, list) {
			if (chain->md == md)
				continue;
			if (chain_uses(chain, params->secondary))
				return "Secondary device has a repl-secondary already";
			if (chain_uses(chain, params->hidden))
				return "Hidden device belongs to another repl-secondary";
			if (chain_uses(chain, params->active))
				return "Active device belongs to another repl-secondary";
			if (params->metadata &&
			    chain_uses(chain, params->metadata))
				return "Metadata device belongs to another repl-secondary";
		}
	return NULL;
}

static struct repl_chain *chain_get_locked(struct dm_target *ti,
					   const struct repl_chain_params *params,
					   struct repl_origin *origin)
{
	struct mapped_device *md = dm_table_get_md(ti->table);
	struct repl_chain *chain;

	ti->error = chain_taken(md, params);
	if (ti->error)
		return ERR_PTR(-EBUSY);

	list_for_each_entry(chain, &origin->chains, list)
		if (chain_fits(chain, params)) {
			chain->refs++;
			return chain;
		}

	chain = chain_of_view(md, NULL);
	if (chain && !chain_is_idle(chain)) {
		ti->error = "Other devices or sizes only in stage none or done";
		return ERR_PTR(-EBUSY);
	}

	chain = repl_chain_create(params, &ti->error);
	if (IS_ERR(chain))
		return chain;
	chain->md = md;
	chain->refs = 1;
	strscpy(chain->name, dm_table_device_name(ti->table),
		sizeof(chain->name));
	chain->origin = origin;
	origin->refs++;
	list_add_tail(&chain->list, &origin->chains);
	return chain;
}

/**
 * repl_chain_get() - the chain for a table that is being constructed
 * @ti: target; its ->error is set on failure
 * @params: devices and sizes
 *
 * The live table's chain if it is the same in everything, else a new one.
 *
 * Return: the chain, or an ERR_PTR.
 */
struct repl_chain *repl_chain_get(struct dm_target *ti,
				  const struct repl_chain_params *params)
{
	struct repl_origin *origin;
	struct repl_chain *chain;

	mutex_lock(&registry_lock);
	origin = origin_get_locked(params->secondary->bd_dev);
	if (origin) {
		chain = chain_get_locked(ti, params, origin);
		origin_put_locked(origin);
	} else {
		ti->error = "Cannot allocate origin";
		chain = ERR_PTR(-ENOMEM);
	}
	mutex_unlock(&registry_lock);
	return chain;
}

/**
 * repl_chain_put() - a table that used the chain is destroyed
 * @chain: chain; freed with the last table
 * @ti: target of that table
 * @held: the table holds the chain's job
 *
 * Context: process; waits for ingest writes in flight. Starts no I/O.
 */
void repl_chain_put(struct repl_chain *chain, struct dm_target *ti, bool held)
{
	struct repl_origin *origin = chain->origin;
	struct repl_ingest *ingest;
	bool last;

	mutex_lock(&registry_lock);
	if (chain->ti == ti)
		chain->ti = NULL;
	last = !--chain->refs;
	if (last) {
		list_del(&chain->list);
		if (rcu_access_pointer(origin->chain) == chain) {
			RCU_INIT_POINTER(origin->chain, NULL);
			list_for_each_entry(ingest, &origin->ingests, list)
				dm_table_event(ingest->ti->table);
		}
	}
	if (!last && held)
		repl_job_hold(&chain->job, false);
	mutex_unlock(&registry_lock);

	if (last) {
		synchronize_rcu();
		repl_chain_destroy(chain);
		repl_origin_put(origin);
	}
}

/**
 * repl_chain_attach() - a table that uses the chain becomes the live one
 * @chain: chain
 * @ti: target of that table
 *
 * Context: ->preresume: the view has no I/O in flight.
 * Return: 0, or -EBUSY if another chain holds something.
 */
int repl_chain_attach(struct repl_chain *chain, struct dm_target *ti)
{
	struct repl_origin *origin = chain->origin;
	struct repl_chain *old;
	int r = 0;

	mutex_lock(&registry_lock);
	old = rcu_dereference_protected(origin->chain,
					lockdep_is_held(&registry_lock));
	mutex_unlock(&registry_lock);
	/*
	 * The end of a merge opens the gate. The old one's table is suspended,
	 * and goes after this.
	 */
	if (old && old != chain)
		repl_job_settle(&old->job);
	if (old != chain) {
		if (old && !chain_is_idle(old))
			return -EBUSY;
		r = repl_chain_load(chain, old);
		if (r)
			return r;
	}

	mutex_lock(&registry_lock);
	if (old != chain) {
		if (old && !chain_is_idle(old)) {
			r = -EBUSY;
			goto out;
		}
		rcu_assign_pointer(origin->chain, chain);
		if (old) {
			/* What went through the old one must have landed. */
			synchronize_rcu();
			repl_gate_close(&old->gate);
			repl_gate_drain_all(&old->gate);
			repl_chain_inherit_errors(chain, old);
		}
		repl_chain_loaded(chain);
	}
	chain->ti = ti;
out:
	mutex_unlock(&registry_lock);
	if (!r)
		repl_chain_event(chain);
	return r;
}

/**
 * repl_chain_set_running() - enter stage running, unless about to be replaced
 * @chain: chain; its lock is held and its gate closed and drained
 *
 * A table with other devices can only be loaded while the maps hold nothing;
 * once it is, they must stay so.
 *
 * Return: whether the stage is running now.
 */
bool repl_chain_set_running(struct repl_chain *chain)
{
	bool alone;

	mutex_lock(&registry_lock);
	alone = list_is_singular(&chain->origin->chains) &&
		!chain_of_view(chain->md, chain);
	if (alone)
		chain->stage = REPL_STAGE_RUNNING;
	mutex_unlock(&registry_lock);
	return alone;
}

/**
 * repl_chain_event() - raise a dm event on the view and its ingests
 * @chain: chain
 *
 * Context: any.
 */
void repl_chain_event(struct repl_chain *chain)
{
	queue_work(chain->slow_wq, &chain->event_work);
}

/**
 * repl_chain_event_work() - dm_table_event() may sleep: the work for it
 * @work: event_work of a chain
 */
void repl_chain_event_work(struct work_struct *work)
{
	struct repl_chain *chain = container_of(work, struct repl_chain,
						event_work);
	struct repl_ingest *ingest;

	mutex_lock(&registry_lock);
	if (chain->ti) {
		dm_table_event(chain->ti->table);
		list_for_each_entry(ingest, &chain->origin->ingests, list)
			dm_table_event(ingest->ti->table);
	}
	mutex_unlock(&registry_lock);
}

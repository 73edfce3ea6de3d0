// SPDX-License-Identifier: GPL-2.0-only
/* Messages to repl-primary. */

#include <linux/blkdev.h>
#include <linux/sizes.h>

#include "identity.h"
#include "primary.h"

/* How long writes may be held for the cuts of other devices. */
#define PRIMARY_HOLD_MS		10000

struct primary_message {
	struct repl_primary *p;
	const char *name;		/* of the device */
	unsigned int argc;		/* words behind the first */
	char **argv;
	char *result;
	unsigned int maxlen;
};

static void message_event(struct repl_primary *p)
{
	queue_work(p->wq, &p->event_work);
}

/*
 * ---- Attach and detach ----
 */

/* The device that was detached, once nothing of it is in flight. */
static void primary_put_leaving(struct repl_primary *p)
{
	if (p->leaving && repl_window_is_idle(&p->window)) {
		dm_put_device(p->ti, p->leaving);
		p->leaving = NULL;
	}
}

static void primary_set_peer(struct repl_primary *p, struct dm_dev *dev)
{
	p->peer = dev;
	p->detached = !dev;
	spin_lock_irq(&p->error_lock);
	if (dev)
		p->errors = 0;
	strscpy(p->peer_name, dev ? dev->name : "-", sizeof(p->peer_name));
	spin_unlock_irq(&p->error_lock);
}

/* Nothing is forwarded any more. In mode sync its legs have ended. */
static int primary_let_go(struct repl_primary *p)
{
	struct dm_dev *old = p->peer;
	int r = 0;

	if (p->sync)
		r = primary_close(p);
	if (!r) {
		/* Before there is none: it is seen as detached at once. */
		WRITE_ONCE(p->detached, true);
		repl_window_detach(&p->window);
		primary_set_peer(p, NULL);
		p->leaving = old;
	}
	if (p->sync)
		primary_open(p);
	return r;
}

static bool primary_is_held(const struct primary_message *m)
{
	if (m->p->cut != PRIMARY_CUT_HELD)
		return false;
	DMERR("%s: %s: a cut is held", m->name, m->argv[-1]);
	return true;
}

static int primary_take_peer(const struct primary_message *m, struct dm_dev *dev)
{
	struct repl_primary *p = m->p;
	int r = 0;

	if (!repl_window_is_idle(&p->window)) {
		DMERR("%s: attach: I/O to the last peer is in flight still",
		      m->name);
		return -EBUSY;
	}
	/* One that has failed goes first. */
	if (p->peer)
		r = primary_let_go(p);
	if (r)
		return r;
	primary_put_leaving(p);
	if (p->sync)
		r = primary_close(p);
	if (!r) {
		primary_set_peer(p, dev);
		repl_window_attach(&p->window, dev->bdev);
	}
	if (p->sync)
		primary_open(p);
	return r;
}

static int message_attach(struct primary_message *m)
{
	struct repl_primary *p = m->p;
	struct dm_dev *dev;
	int r;

	if (m->argc != 1)
		return -ENOMSG;
	if (primary_is_held(m))
		return -EBUSY;
	if (repl_window_has_peer(&p->window)) {
		DMERR("%s: attach: there is a peer: detach it first", m->name);
		return -EBUSY;
	}
	r = repl_get_device(p->ti, m->argv[0], REPL_DEV_PEER, &dev);
	if (r) {
		DMERR("%s: attach %s: %s", m->name, m->argv[0], p->ti->error);
		return r;
	}
	r = -EINVAL;
	if (repl_same_device(dev, p->local))
		DMERR("%s: attach %s: local and peer are the same device",
		      m->name, m->argv[0]);
	else if (p->metadata && repl_same_device(dev, p->metadata))
		DMERR("%s: attach %s: peer and metadata are the same device",
		      m->name, m->argv[0]);
	else if (bdev_logical_block_size(dev->bdev) >
		 queue_logical_block_size(dm_disk(dm_table_get_md(p->ti->table))->queue))
		DMERR("%s: attach %s: its blocks are larger than this device's",
		      m->name, m->argv[0]);
	else
		r = primary_take_peer(m, dev);
	if (r)
		dm_put_device(p->ti, dev);
	else
		message_event(p);
	return r;
}

/* Writes go on while what is in flight to the peer comes to its end. */
static int message_detach(struct primary_message *m)
{
	struct repl_primary *p = m->p;
	int r;

	if (m->argc)
		return -ENOMSG;
	if (primary_is_held(m))
		return -EBUSY;
	if (!p->peer) {
		DMERR("%s: detach: there is no peer", m->name);
		return -EBUSY;
	}
	if (p->leaving) {	/* the one before it hangs */
		primary_put_leaving(p);
		if (p->leaving)
			return -EBUSY;
	}
	r = primary_let_go(p);
	if (r)
		return r;
	message_event(p);
	mutex_unlock(&p->lock);
	wait_event_killable(p->window.wait, repl_window_is_idle(&p->window));
	mutex_lock(&p->lock);
	/* Who was killed leaves it to the next attach. */
	primary_put_leaving(p);
	return 0;
}

/*
 * ---- Cuts ----
 */

static bool cut_is(const struct repl_primary *p, u64 id)
{
	return p->cut != PRIMARY_CUT_NONE && p->cut_id == id;
}

/* The cut is over: what it froze is forgotten, or dirty again. */
static void cut_end(struct repl_primary *p, bool merge)
{
	if (p->track)
		repl_track_moving(p->track);
	if (merge)
		repl_bits_merge(&p->checkpoint, &p->frozen);
	repl_dirty_set_frozen(&p->checkpoint_map, NULL);
	repl_bits_wipe(&p->frozen);
	if (p->track)
		repl_track_moving(p->track);
	WRITE_ONCE(p->cut, PRIMARY_CUT_NONE);
	repl_window_release(&p->window);
	message_event(p);
}

/* With the gate closed and drained; mode sync: suspended until the cut ends. */
static int cut_begin(struct repl_primary *p, u64 id, bool hold)
{
	int r;

	if (!p->sync)
		r = repl_window_cut(&p->window);
	else
		r = repl_window_has_peer(&p->window) &&
		    !repl_bits_count(&p->window.missed) ? 0 : -EBUSY;

	if (r)
		return r;
	if (p->track)
		repl_track_moving(p->track);
	repl_bits_swap(&p->checkpoint, &p->frozen);
	if (p->track)
		repl_track_moving(p->track);
	repl_dirty_set_frozen(&p->checkpoint_map, &p->frozen);
	WRITE_ONCE(p->cut_id, id);
	WRITE_ONCE(p->drained, false);
	WRITE_ONCE(p->cut, hold ? PRIMARY_CUT_HELD : PRIMARY_CUT_CUT);
	return 0;
}

static int cut_open(struct repl_primary *p)
{
	cancel_delayed_work(&p->hold_work);
	WRITE_ONCE(p->cut, PRIMARY_CUT_CUT);
	primary_open(p);
	message_event(p);
	return 0;
}

static int message_id(const struct primary_message *m, u64 *id)
{
	/* What is written behind a cut has nowhere to wait. */
	if (m->p->sync && !repl_window_is_quiesced(&m->p->window)) {
		DMERR("%s: %s: in mode sync only while suspended", m->name,
		      m->argv[-1]);
		return -EOPNOTSUPP;
	}
	if (!m->argc)
		return -ENOMSG;
	if (kstrtou64(m->argv[0], 10, id) || !*id) {
		DMERR("%s: %s: the id is no number from 1 on", m->name,
		      m->argv[-1]);
		return -EINVAL;
	}
	return 0;
}

static int message_cut(struct primary_message *m)
{
	struct repl_primary *p = m->p;
	bool hold = m->argc == 2 && !strcmp(m->argv[1], "hold");
	u64 id;
	int r = message_id(m, &id);

	if (r)
		return r;
	if (m->argc > 2 || (m->argc == 2 && (!hold || p->sync)))
		return -ENOMSG;
	if (!hold && cut_is(p, id) && p->cut == PRIMARY_CUT_HELD)
		return cut_open(p);
	if (p->cut != PRIMARY_CUT_NONE) {
		DMERR("%s: cut: cut %llu is not released", m->name, p->cut_id);
		return -EBUSY;
	}
	if (!hold && p->cut_gone == id) {
		DMERR("%s: cut: writes are not held any more", m->name);
		p->cut_gone = 0;
		return -ETIMEDOUT;
	}
	p->cut_gone = 0;
	if (p->track && repl_track_failed(p->track)) {
		DMERR("%s: cut: the metadata device could not be written",
		      m->name);
		return -EIO;
	}
	/* Whoever finds the disks later knows that the peer may have it. */
	if (p->track && repl_track_pending(p->track, id)) {
		primary_latch(p, PRIMARY_ERR_METADATA, -EIO, 0);
		return -EIO;
	}
	r = primary_close(p);
	if (!r) {
		r = cut_begin(p, id, hold);
		if (r)
			DMERR("%s: cut: suspended, or the peer has not got all",
			      m->name);
	}
	if (r || !hold) {
		primary_open(p);
		if (!r)
			message_event(p);
		return r;
	}
	queue_delayed_work(p->wq, &p->hold_work,
			   msecs_to_jiffies(PRIMARY_HOLD_MS));
	message_event(p);
	return 0;
}

static int message_drain(struct primary_message *m)
{
	struct repl_primary *p = m->p;
	u64 id;
	int r = message_id(m, &id);

	if (r)
		return r;
	if (m->argc != 1)
		return -ENOMSG;
	if (!cut_is(p, id)) {
		DMERR("%s: drain: there is no cut %llu", m->name, id);
		return -EINVAL;
	}
	if (p->sync) {
		DMERR("%s: drain: not in mode sync: flush the peer", m->name);
		return -EOPNOTSUPP;
	}
	mutex_unlock(&p->lock);
	r = repl_window_drain(&p->window);
	mutex_lock(&p->lock);
	if (r)
		return r == -ERESTARTSYS ? -EINTR : r;
	if (!cut_is(p, id))
		return -EINVAL;		/* released or aborted meanwhile */
	WRITE_ONCE(p->drained, true);
	message_event(p);
	return 0;
}

static int message_end(struct primary_message *m, bool release)
{
	struct repl_primary *p = m->p;
	u64 id;
	int r = message_id(m, &id);

	if (r)
		return r;
	if (m->argc != 1)
		return -ENOMSG;
	if (!cut_is(p, id)) {
		DMERR("%s: %s: there is no cut %llu", m->name, m->argv[-1], id);
		return -EINVAL;
	}
	if (release && primary_is_held(m))
		return -EBUSY;
	if (p->cut == PRIMARY_CUT_HELD)
		cut_open(p);
	/* The peer has it, also if that cannot be recorded. */
	if (release && p->track)
		repl_track_checkpoint(p->track, id);
	cut_end(p, !release);
	return 0;
}

/* Its answer was lost, and has come another way. What was dirty stays so. */
static int message_acknowledge(struct primary_message *m)
{
	struct repl_primary *p = m->p;
	u64 id;

	if (m->argc != 1)
		return -ENOMSG;
	if (kstrtou64(m->argv[0], 10, &id) || !id) {
		DMERR("%s: acknowledge: the id is no number from 1 on", m->name);
		return -EINVAL;
	}
	if (p->cut != PRIMARY_CUT_NONE) {
		DMERR("%s: acknowledge: cut %llu is not released", m->name,
		      p->cut_id);
		return -EBUSY;
	}
	return p->track && repl_track_checkpoint(p->track, id) ? -EIO : 0;
}

/*
 * What the peer has been sent by now, by whatever way, it has for good afterwards. Whoever
 * remembers what it has not (a dirty map that begins before, with `peer' merged into it
 * before and after) need not send the rest again.
 */
static int message_flush(struct primary_message *m)
{
	struct repl_primary *p = m->p;
	int r;

	if (m->argc)
		return -ENOMSG;
	mutex_unlock(&p->lock);
	r = repl_window_flush(&p->window);
	mutex_lock(&p->lock);
	if (r == -EBUSY)
		DMERR("%s: flush: suspended, or there is a cut", m->name);
	else if (r == -EIO)
		DMERR("%s: flush: there is no peer that is well", m->name);
	return r == -ERESTARTSYS ? -EINTR : r;
}

static int message_release(struct primary_message *m)
{
	return message_end(m, true);
}

static int message_abort(struct primary_message *m)
{
	return message_end(m, false);
}

/* The cut that is held, if one is: the workload goes on, the cut is not. */
static void hold_abort(struct repl_primary *p, const char *why)
{
	if (p->cut != PRIMARY_CUT_HELD)
		return;
	DMERR("%s: cut %llu is aborted: %s", dm_table_device_name(p->ti->table),
	      p->cut_id, why);
	p->cut_gone = p->cut_id;
	cut_open(p);
	cut_end(p, true);
}

/**
 * primary_hold_work() - writes have been held for too long
 * @work: p->hold_work
 */
void primary_hold_work(struct work_struct *work)
{
	struct repl_primary *p = container_of(to_delayed_work(work),
					      struct repl_primary, hold_work);

	mutex_lock(&p->lock);
	hold_abort(p, "writes were held for 10 s");
	mutex_unlock(&p->lock);
}

/**
 * primary_end_hold() - the device is to be suspended, and its writes are held
 * @p: primary
 *
 * Context: process.
 */
void primary_end_hold(struct repl_primary *p)
{
	mutex_lock(&p->lock);
	hold_abort(p, "the device is suspended");
	mutex_unlock(&p->lock);
}

/**
 * primary_end_cut() - the device goes on, and mode sync has no cut then
 * @p: primary
 *
 * Context: process.
 */
void primary_end_cut(struct repl_primary *p)
{
	mutex_lock(&p->lock);
	/* Nor has a cut of mode sync a window behind it, whatever the mode is now. */
	if (p->cut != PRIMARY_CUT_NONE && (p->sync || !p->window.is_cut)) {
		DMERR("%s: cut %llu is aborted: resumed %s mode sync",
		      dm_table_device_name(p->ti->table), p->cut_id,
		      p->sync ? "in" : "behind");
		cut_end(p, true);
	}
	mutex_unlock(&p->lock);
}

/*
 * ---- Push and dirty maps ----
 */

/* Bits that no write has set are to be recorded, too; an error is latched. */
static void message_cover(struct repl_primary *p)
{
	if (p->track)
		repl_track_cover(p->track);
}

static int message_push(struct primary_message *m)
{
	bool full, compare;
	int r;

	if (!m->argc || m->argc > 2)
		return -ENOMSG;
	full = !strcmp(m->argv[0], "full");
	compare = m->argc == 2;
	if ((!full && strcmp(m->argv[0], "dirty")) ||
	    (compare && strcmp(m->argv[1], "compare")))
		return -ENOMSG;
	/* Nobody knows what the peer has: so it must be known here. */
	if (full && m->p->track && repl_track_fill(m->p->track))
		return -EIO;
	r = repl_push_start(&m->p->push, full, compare);
	/* A round may have found some clean, before they were missed. */
	if (!r && full)
		message_cover(m->p);
	if (r)
		DMERR("%s: push: %s", m->name, r == -EBUSY ?
		      "one is under way" : "there is no peer that is well");
	else
		message_event(m->p);
	return r;
}

static int message_speed(struct primary_message *m)
{
	u64 speed;

	if (kstrtou64(m->argv[1], 10, &speed) || speed > U32_MAX) {
		DMERR("%s: job speed must be a number of KiB/s up to %u",
		      m->name, U32_MAX);
		return -EINVAL;
	}
	repl_job_set_speed(&m->p->push.job, speed * SZ_1K);
	return 0;
}

/* Its pieces may hang with the peer. */
static int message_cancel(struct repl_primary *p)
{
	int r;

	mutex_unlock(&p->lock);
	r = repl_job_cancel(&p->push.job);
	mutex_lock(&p->lock);
	return r;
}

static int message_job(struct primary_message *m)
{
	struct repl_job *job = &m->p->push.job;
	int r;

	if (m->argc == 2 && !strcmp(m->argv[0], "speed"))
		return message_speed(m);
	if (m->argc != 1)
		return -ENOMSG;
	if (!strcmp(m->argv[0], "pause"))
		r = repl_job_pause(job);
	else if (!strcmp(m->argv[0], "resume"))
		r = repl_job_resume(job);
	else if (!strcmp(m->argv[0], "cancel"))
		r = message_cancel(m->p);
	else
		return -ENOMSG;
	if (r)
		DMERR("%s: job %s: there is none to %s", m->name, m->argv[0],
		      m->argv[0]);
	else
		message_event(m->p);
	return r;
}

/**
 * primary_dirty_close() - a map begins anew: no write is to be on its way
 * @context: primary, with p->lock held
 *
 * Return: as primary_close(); -EBUSY if writes are held for a cut.
 */
int primary_dirty_close(void *context)
{
	struct repl_primary *p = context;

	p->refused_gate = p->cut == PRIMARY_CUT_HELD;
	return p->refused_gate ? -EBUSY : primary_close(p);
}

/**
 * primary_dirty_open() - the counterpart
 * @context: primary, with p->lock held
 */
void primary_dirty_open(void *context)
{
	struct repl_primary *p = context;

	if (!p->refused_gate)
		primary_open(p);
	p->refused_gate = false;
}

static int message_dirty(struct primary_message *m)
{
	const char *why;
	int r = repl_dirty_message(&m->p->dirty, m->argc + 1, m->argv - 1,
				   m->result, m->maxlen, &why);

	if (r < 0)
		DMERR("%s: dirty: %s", m->name, why);
	else if (!r)
		message_cover(m->p);
	return r;
}

/* As repl_identity_show() */
static int message_identity(struct primary_message *m)
{
	struct repl_track *track = m->p->track;

	if (m->argc)
		return -ENOMSG;
	return repl_identity_show(track ? &track->state.identity :
					  &m->p->identity,
				  track ? track->state.checkpoint : 0,
				  repl_bits_count(track ? &track->dirty :
							  &m->p->checkpoint),
				  track ? track->state.prepared : 0,
				  m->result, m->maxlen);
}

static int message_lineage(struct primary_message *m)
{
	u8 lineage[REPL_UUID_SIZE];

	if (m->argc != 1)
		return -ENOMSG;
	if (repl_lineage_parse(m->argv[0], lineage)) {
		DMERR("%s: lineage: '%s' is not a UUID", m->name, m->argv[0]);
		return -EINVAL;
	}
	if (m->p->track)
		return repl_track_set_lineage(m->p->track, lineage) ? -EIO : 0;
	repl_identity_set_lineage(&m->p->identity, lineage);
	return 0;
}

static const struct {
	const char *word;
	int (*run)(struct primary_message *m);
} primary_messages[] = {
	{ "attach",	message_attach },
	{ "detach",	message_detach },
	{ "cut",	message_cut },
	{ "drain",	message_drain },
	{ "release",	message_release },
	{ "acknowledge", message_acknowledge },
	{ "abort",	message_abort },
	{ "flush",	message_flush },
	{ "push",	message_push },
	{ "job",	message_job },
	{ "dirty",	message_dirty },
	{ "identity",	message_identity },
	{ "lineage",	message_lineage },
};

static bool is_dirty_list(unsigned int argc, char **argv)
{
	return argc == 2 && !strcmp(argv[0], "dirty") && !strcmp(argv[1], "list");
}

/**
 * primary_message() - a message to the target
 * @ti: target
 * @argc: number of words, at least 1
 * @argv: words
 * @result: for an answer
 * @maxlen: its size
 *
 * Context: process; may wait for writes in flight, or for the peer.
 * Return: 1 with an answer, 0, or a negative errno.
 */
int primary_message(struct dm_target *ti, unsigned int argc, char **argv,
		    char *result, unsigned int maxlen)
{
	struct repl_primary *p = ti->private;
	struct primary_message m = {
		.p = p, .name = dm_table_device_name(ti->table),
		.argc = argc - 1, .argv = argv + 1,
		.result = result, .maxlen = maxlen,
	};
	int r = -ENOMSG;
	unsigned int i;

	/* Its resume has failed: there is nothing to go by, and nothing may be written. */
	if (!READ_ONCE(p->loaded) && !is_dirty_list(argc, argv)) {
		DMERR("%s: %s: the device has not been resumed yet", m.name, argv[0]);
		return -EBUSY;
	}
	if (mutex_lock_killable(&p->lock))
		return -EINTR;
	for (i = 0; i < ARRAY_SIZE(primary_messages); i++)
		if (!strcmp(argv[0], primary_messages[i].word))
			r = primary_messages[i].run(&m);
	mutex_unlock(&p->lock);
	if (r == -ENOMSG) {
		DMERR("%s: unknown or malformed message '%s'", m.name, argv[0]);
		r = -EINVAL;
	}
	return r;
}

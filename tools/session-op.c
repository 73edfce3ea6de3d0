// SPDX-License-Identifier: GPL-2.0-only
/* Session: what takes time in the kernel, in its worker, and hold and release. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session-i.h"

/* What the worker does beside pair.c's actions. */
enum {
	OP_RELEASE_GOOD = PAIR_NR_ACTIONS,	/* the peer has committed it */
	OP_RESYNC,
	OP_EXPORT,
	OP_SYNCFS,				/* before the hold */
};

struct op {
	struct session *s;
	enum pair_action_type type;
	uint64_t id;
	unsigned int tries;
	/* The configuration may change meanwhile: what is done is what was begun. */
	unsigned int running;		/* that the worker does, or the hook in its place */
	bool hook;			/* it is a hook */
	bool hooked;			/* the release hook has run */
	bool synced;			/* OP_SYNCFS has */
};

/* In the worker. */
static int op_run(void *arg, unsigned int what, uint64_t id, struct repl_error *error)
{
	const struct session *s = arg;
	const struct repl_resource *resource = &s->resource;

	switch (what) {
	case PAIR_HOLD:
		return resource_hold(resource, id, error);
	case PAIR_FLUSH:
		return resource_flush(resource, id, error);
	case PAIR_DETACH:
		return resource_detach(resource, error);
	case PAIR_RELEASE:
		return resource_release(resource, id, false, error);
	case OP_RELEASE_GOOD:
		return resource_release(resource, id, true, error);
	case OP_EXPORT:
		return resource_export(resource, error);
	case OP_SYNCFS:
		return resource_syncfs(resource, error);
	case OP_RESYNC:
		return resource_resync(resource, false, false, error);
	case PAIR_PREPARE:
		return resource_prepare(resource, id, error);
	case PAIR_COMMIT:
		return resource_commit(resource, id, error);
	case PAIR_ABORT:
		return resource_abort(resource, error);
	case PAIR_FAILOVER:
		return resource_failover(resource, error);
	default:
		return error_set(error, REPL_EXIT_FAILED, "no such operation");
	}
}

/**
 * op_worker() - what does the operations of a session
 * @s: session that has its lock
 *
 * Return: worker, or NULL without memory.
 */
struct repl_worker *op_worker(struct session *s)
{
	return worker_new(s->event, op_run, s, s->lock);
}

static void op_go(struct op *op);

static int op_again(sd_event_source *source, uint64_t usec, void *arg)
{
	sd_event_source_unref(source);
	op_go(arg);
	return 0;
}

/* These must succeed before anything else may happen. */
static bool op_must(enum pair_action_type type)
{
	return type == PAIR_RELEASE || type == PAIR_DETACH || type == PAIR_ABORT ||
	       type == PAIR_COMMIT;
}

static void op_after(struct op *op, uint64_t usec)
{
	sd_event_source *source;

	if (sd_event_add_time_relative(op->s->event, &source, CLOCK_MONOTONIC, usec, 1000,
				       op_again, op) < 0)
		abort();	/* no memory, and the workload may be held: start anew */
}

static void released(struct session *s)
{
	journal_mark_held(&s->resource, false);
	journal_clear(&s->resource);
	if (s->held)
		s->last_pause = now_us() - s->held;
	s->held = 0;
}

/* Does it begin with the file systems? The pause does not. */
static bool op_syncs(const struct op *op)
{
	const struct repl_config *config = op->s->config;

	return op->type == PAIR_HOLD && !op->synced && !config->hold && !config->sync &&
	       config->syncfs;
}

static void op_ended(bool good, const struct repl_error *error, void *context)
{
	struct op *op = context;
	struct session *s = op->s;
	struct pair_event event = { .type = PAIR_DONE, .done = op->type, .good = good };

	if (!good)
		session_failed(s, error->text);
	if (good && op->running == OP_SYNCFS) {
		op->synced = true;
		s->held = now_us();
		op_go(op);
		return;
	}
	/* The hook lets the workload go on; what waits behind the cut is ours. */
	if (good && op->type == PAIR_RELEASE && op->hook) {
		op->hooked = true;
		op_go(op);
		return;
	}
	/* A commit may be beyond help: a volume was made anew, say. */
	if (!good && op_must(op->type) && (op->type != PAIR_COMMIT || op->tries++ < 10)) {
		op_after(op, 1000000);
		return;
	}
	/* Without a hook, and with mode async, that was all of the pause. */
	if (op->type == PAIR_HOLD && good && !op->hook && !s->config->sync) {
		s->last_pause = now_us() - s->held;
		s->held = 0;
	} else if (op->type == PAIR_HOLD) {
		s->held = now_us();
	}
	if (op->type == PAIR_RELEASE)
		released(s);
	if (op->type == PAIR_COMMIT || op->type == PAIR_ABORT)
		journal_clear(&s->resource);
	if (op->type == PAIR_FAILOVER) {
		tell_text(s, good ? "failover" : "failover_failed", NULL, NULL);
		answer(s, WAIT_FAILOVER, 0, good ? REPL_EXIT_OK : REPL_EXIT_FAILED,
		       good ? NULL : error->text, NULL);
	}
	free(op);
	session_feed(s, &event);
}

/*
 * The configuration may change in the middle of a checkpoint: what was held is released
 * in the same way, by the hook of that time.
 */
static void hold_begins(struct session *s)
{
	free(s->release);
	s->release = s->config->hold ? strdup(s->config->release) : NULL;
	if (!s->config->hold)
		return;
	if (!s->release)
		abort();
	journal_mark_held(&s->resource, true);
}

static void op_go(struct op *op)
{
	struct session *s = op->s;
	const char *hook = op->type == PAIR_HOLD ? s->config->hold :
			   op->type == PAIR_RELEASE && !op->hooked ? s->release : NULL;
	unsigned int what = op->type;
	char resource[80], number[48], *env[3];
	struct repl_error error;
	int r;

	if (!hook && op->type == PAIR_RELEASE && op->id && s->pair.last == op->id)
		what = OP_RELEASE_GOOD;
	else if (op_syncs(op))
		what = OP_SYNCFS;
	op->running = what;
	op->hook = hook;
	if (op->type == PAIR_HOLD && what != OP_SYNCFS)
		hold_begins(s);
	session_hook_env(s, resource, number, env);
	r = hook ? work_hook(s->event, op->type == PAIR_HOLD ? "the hold hook" :
			     "the release hook", hook, env, -1, -1,
			     s->config->checkpoint_timeout, op_ended, op, NULL, &error) :
		   worker_call(s->worker, what, op->id, op_ended, op, &error);
	if (r) {
		say(s, 3, "%s", error.text);
		op_after(op, 100000);	/* for want of memory or processes */
	}
}

/**
 * op_start() - begin an action that takes time; PAIR_DONE follows
 * @s: session
 * @type: which
 * @id: of the checkpoint
 */
void op_start(struct session *s, enum pair_action_type type, uint64_t id)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		abort();
	op->s = s;
	op->type = type;
	op->id = id;
	if (type == PAIR_HOLD)
		s->held = now_us();
	op_go(op);
}

/*
 * ---- Resync ----
 */

static void export_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->resyncing = false;
	say(s, 4, "a server of the data leg had died: %s", good ? "it is there again" :
	    error->text);
	if (s->leaving)
		session_leave(s);
}

/**
 * op_export() - the secondary's: is the peer served?
 * @s: session
 *
 * Tried again by the clock.
 */
void op_export(struct session *s)
{
	struct pair *pair = &s->pair;
	struct repl_error error;

	if (s->resyncing || s->leaving || pair->role != PAIR_SECONDARY || pair->over ||
	    pair->fail_over || pair->phase != PAIR_IDLE || pair->busy ||
	    resource_exported(&s->resource))
		return;
	s->resyncing = !worker_call(s->worker, OP_EXPORT, 0, export_ended, s, &error);
}

/* The kernel knows now what the peer lacks, whatever its last reboot has cost. */
static void resync_began(struct session *s)
{
	struct repl_error error;

	say(s, 5, "the peer missed writes: they are sent");
	if (journal_write_peer_boot(&s->resource, s->resync_boot, &error))
		say(s, 3, "%s", error.text);
	/* Or it has been rebooted once more meanwhile: once more, then. */
	else if (!memcmp(s->resync_boot, s->peer_boot, FRAME_BOOT_SIZE))
		session_feed_type(s, PAIR_RESYNCED);
}

static void resync_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->resyncing = false;
	if (!good && strcmp(s->why_behind, error->text))
		say(s, 4, "resync: %s", error->text);
	else if (good)
		resync_began(s);
	snprintf(s->why_behind, sizeof(s->why_behind), "%.250s", good ? "" : error->text);
	if (s->leaving)
		session_leave(s);
	else
		session_look(s);
}

/**
 * op_resync() - the peer is back, and has missed writes: send them
 * @s: session
 *
 * Or its host was rebooted. Only where a leg was attached before: then the kernel knows
 * all that the peer has missed. Tried again by the clock as long as it is needed.
 */
void op_resync(struct session *s)
{
	struct pair *pair = &s->pair;
	struct pair_kernel kernel;
	struct repl_error error;

	if (s->resyncing || s->leaving || pair->role != PAIR_PRIMARY || !pair->degraded ||
	    !pair->connected || !pair->running || pair->diverged || pair->stale ||
	    pair->phase != PAIR_IDLE || pair->busy)
		return;
	if (resource_kernel(&s->resource, &kernel, &error) || kernel.never ||
	    (!kernel.lost && !pair->rebooted))
		return;
	memcpy(s->resync_boot, s->peer_boot, FRAME_BOOT_SIZE);
	s->resyncing = !worker_call(s->worker, OP_RESYNC, 0, resync_ended, s, &error);
}

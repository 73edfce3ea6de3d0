// SPDX-License-Identifier: GPL-2.0-only
/* Session: what takes time in the kernel, in its worker, and hold and release. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "role.h"
#include "session-i.h"

/* What the worker does beside pair.c's actions. */
enum {
	OP_RELEASE_GOOD = PAIR_NR_ACTIONS,	/* the peer has committed it */
	OP_IMPORT,
	OP_RESYNC,
	OP_RESYNC_FIRST,			/* a first sync that was broken off */
	OP_EXPORT,
	OP_ANEW,
	OP_CUT,					/* while a hook holds the workload */
	OP_UNEXPORT,				/* after a failover */
	OP_PROMOTE,				/* what has failed over and is merged */
	OP_ADOPT,				/* after a commit: the primary's lineage */
	OP_SETTLE,
	OP_UNSETTLE,
};

/*
 * An action of pair.c is done in steps, which are decided when it begins: the configuration
 * may change meanwhile.
 */
#define OP_STEPS 3

#define HOLD_WAIT_MS 10000	/* that a checkpoint waits for a peer that catches up */
#define HOLD_LOOK_MS 20
#define RESYNC_WAIT 2000	/* ms: after a resync that the peer has not taken; doubled */
#define RESYNC_WAIT_MAX 30000
#define SETTLE_MS 10000		/* so much of a resync may be sent twice, and a little more */

enum step_kind { STEP_WORK, STEP_HOLD_HOOK, STEP_RELEASE_HOOK };

struct op {
	struct session *s;
	enum pair_action_type type;
	uint64_t id;
	struct {
		enum step_kind kind;
		unsigned int work;	/* STEP_WORK: what the worker does */
	} step[OP_STEPS];
	unsigned int nr, at;
	char *hold;			/* hook, or NULL */
	unsigned int tries;
};

/*
 * Since somebody has looked, the window was full, and the peer has got behind: there is no cut
 * then. The workload goes on, for the other volumes may have one. Is it worth another try, before
 * @end? If the peer is not behind (any more), one is: @again.
 */
static bool catches_up(const struct session *s, uint64_t id, uint64_t end, bool *again)
{
	struct pair_kernel kernel;
	struct repl_error ignored;
	bool waited = false;

	if (resource_release(&s->resource, id, false, &ignored))
		return false;
	while (now_ms() < end && !resource_kernel(&s->resource, &kernel, &ignored) &&
	       kernel.coming) {
		if (kernel.attached && !waited) {
			waited = *again;
			*again = false;
		}
		if (kernel.attached)
			return waited;
		waited = true;
		usleep(HOLD_LOOK_MS * 1000);
	}
	return false;
}

/* The pause begins behind the syncfs. @began: us */
static int op_hold(const struct session *s, uint64_t id, uint64_t *began,
		   struct repl_error *error)
{
	uint64_t wait = s->config->checkpoint_timeout / 2;
	uint64_t end = now_ms() + (wait < HOLD_WAIT_MS ? wait : HOLD_WAIT_MS);
	bool again = true;

	if (!s->config->sync && s->config->syncfs && resource_syncfs(&s->resource, error))
		return -1;
	do {
		*began = now_us();
		if (!resource_hold(&s->resource, id, error))
			return 0;
	} while (catches_up(s, id, end, &again));
	return -1;
}

/* In the worker. */
static int op_run(void *arg, unsigned int what, uint64_t id, uint64_t *value,
		  struct repl_error *error)
{
	const struct session *s = arg;
	const struct repl_resource *resource = &s->resource;
	const struct repl_resync by_itself = {
		.rate = RESYNC_RATE_CONFIG, .settled = id, .first = what == OP_RESYNC_FIRST,
	};
	struct repl_resource promoted;

	switch (what) {
	case PAIR_HOLD:
		return op_hold(s, id, value, error);
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
	case OP_ANEW:
		return resource_export_anew(resource, id, error);
	case OP_PROMOTE:
		promoted = *resource;
		return role_promote(&promoted, false, error);
	case OP_ADOPT:
		return role_adopt(resource, error);
	case OP_UNEXPORT:
		return resource_unexport(resource, error);
	case OP_CUT:
		return resource_cut(resource, id, error);
	case OP_IMPORT:
		return resource_import(resource, id, error);
	case OP_RESYNC:
	case OP_RESYNC_FIRST:
		return resource_resync(resource, &by_itself, error);
	case OP_SETTLE:
		*value = id;
		return resource_settle(resource, value, error);
	case OP_UNSETTLE:
		return resource_unsettle(resource, error);
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

/* The workload goes on. */
static void workload_opened(struct session *s)
{
	if (s->held)
		s->last_pause = now_us() - s->held;
	s->held = 0;
}

static void release_hook_ran(struct session *s)
{
	workload_opened(s);
	journal_mark_held(&s->resource, false);
	free(s->release);
	s->release = NULL;
}

/* The view can be written from now on, if it is good. */
static void tell_failover(struct session *s, bool good, const char *why)
{
	tell_text(s, good ? "failover" : "failover_failed", NULL, NULL);
	answer(s, WAIT_FAILOVER, 0, good ? REPL_EXIT_OK : REPL_EXIT_FAILED, why, NULL);
}

static void step_good(struct op *op)
{
	struct session *s = op->s;

	if (op->step[op->at].kind == STEP_RELEASE_HOOK)
		release_hook_ran(s);
	else if (op->step[op->at].work == PAIR_HOLD)
		s->held = worker_value(s->worker);
	else if (op->step[op->at].work == OP_ADOPT)
		s->adopt = false;
	else if (op->step[op->at].work == OP_UNSETTLE)
		s->unsettle = false;
	/* Mode async, and no hook: that was all of the pause. */
	if (op->type == PAIR_HOLD && !op->hold && !s->config->sync)
		workload_opened(s);
}

static void op_finished(struct op *op, bool good)
{
	struct pair_event event = { .type = PAIR_DONE, .done = op->type, .good = good };
	struct session *s = op->s;

	if (op->type == PAIR_RELEASE) {
		workload_opened(s);
		journal_mark_held(&s->resource, false);	/* its hook may be gone */
		journal_clear(&s->resource);
	}
	if (op->type == PAIR_COMMIT || op->type == PAIR_ABORT)
		journal_clear(&s->resource);
	free(op->hold);
	free(op);
	session_feed(s, &event);
}

static void op_ended(bool good, const struct repl_error *error, void *context)
{
	struct op *op = context;

	if (!good)
		session_failed(op->s, error->text);
	if (op->type == PAIR_FAILOVER) {
		session_new_life(op->s);
		tell_failover(op->s, good, good ? NULL : error->text);
		op->s->unexport = true;
	}
	/* The commit is made; the lineage can be taken with the next, or the map be forgotten. */
	if (good || op->step[op->at].work == OP_ADOPT || op->step[op->at].work == OP_UNSETTLE) {
		if (good)
			step_good(op);
		if (++op->at < op->nr)
			op_go(op);
		else
			op_finished(op, true);
		return;
	}
	/* A commit may be beyond help: a volume was made anew, say. */
	if (op_must(op->type) && (op->type != PAIR_COMMIT || op->tries++ < 10))
		op_after(op, 1000000);
	else
		op_finished(op, false);
}

static void op_go(struct op *op)
{
	enum step_kind kind = op->step[op->at].kind;
	struct session *s = op->s;
	char resource[80], number[48], *env[3];
	struct repl_error error;
	int r;

	session_hook_env(s, resource, number, env);
	if (kind == STEP_WORK)
		r = worker_call(s->worker, op->step[op->at].work, op->id, op_ended, op, &error);
	else
		r = work_hook(s->event, kind == STEP_HOLD_HOOK ? "the hold hook" :
			      "the release hook", kind == STEP_HOLD_HOOK ? op->hold :
			      s->release, env, -1, -1, s->config->checkpoint_timeout,
			      op_ended, op, NULL, &error);
	if (r) {
		say(s, 3, "%s", error.text);
		op_after(op, 100000);	/* for want of memory or processes */
	}
}

static void op_add(struct op *op, enum step_kind kind, unsigned int work)
{
	op->step[op->nr].kind = kind;
	op->step[op->nr++].work = work;
}

static char *copy(const char *text)
{
	char *p = text ? strdup(text) : NULL;

	if (text && !p)
		abort();
	return p;
}

/*
 * With hooks, what was held is released by the hook of that time. It can be as soon as
 * there is a cut, but for a state that is to be saved: that one belongs to the cut.
 */
static void plan_hold(struct op *op)
{
	const struct repl_config *config = op->s->config;
	struct session *s = op->s;

	op->hold = copy(config->hold);
	free(s->release);
	s->release = copy(config->hold ? config->release : NULL);
	s->early = config->hold && !config->sync && !config->save;
	s->held = now_us();
	if (!config->hold) {
		op_add(op, STEP_WORK, PAIR_HOLD);
		return;
	}
	journal_mark_held(&s->resource, true);
	op_add(op, STEP_HOLD_HOOK, 0);
	if (s->early) {
		op_add(op, STEP_WORK, OP_CUT);
		op_add(op, STEP_RELEASE_HOOK, 0);
	}
}

static void plan_release(struct op *op)
{
	struct session *s = op->s;

	if (s->release)
		op_add(op, STEP_RELEASE_HOOK, 0);
	if (!op->id || s->pair.last != op->id) {
		op_add(op, STEP_WORK, PAIR_RELEASE);
		return;
	}
	op_add(op, STEP_WORK, OP_RELEASE_GOOD);
	/* The checkpoint has all of it. */
	if (s->unsettle)
		op_add(op, STEP_WORK, OP_UNSETTLE);
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
		plan_hold(op);
	else if (type == PAIR_RELEASE)
		plan_release(op);
	else
		op_add(op, STEP_WORK, type);
	if (type == PAIR_COMMIT && s->adopt)
		op_add(op, STEP_WORK, OP_ADOPT);
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

/* Why it does not go on: said once, and kept for the status, until it does. */
static void tell_behind(struct session *s, const char *what, bool good,
			const struct repl_error *error)
{
	if (!good && strcmp(s->why_behind, error->text))
		say(s, 4, "%s%s", what, error->text);
	snprintf(s->why_behind, sizeof(s->why_behind), "%.250s", good ? "" : error->text);
}

static void anew_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;
	bool same = s->conn && s->open && s->connection == s->anew_on;

	s->resyncing = false;
	/* By another connection it is asked for once more, if it must be. */
	if (good && same)
		send_frame(s, FRAME_ANEW, s->anew_now, NULL, 0);
	else if (same)
		s->anew |= s->anew_now;
	tell_behind(s, "", good, error);
	if (s->leaving)
		session_leave(s);
	else if (good)
		op_anew(s);
}

/**
 * op_anew() - the secondary's: the primary is about to connect a data leg again
 * @s: session
 *
 * What it sent by the old connection may still be on its way, in the network, a socket or a
 * server, and would be written over what it sends from now on. Tried again by the clock.
 */
void op_anew(struct session *s)
{
	struct pair *pair = &s->pair;
	struct repl_error error;

	if (!s->anew || s->resyncing || s->leaving || pair->role != PAIR_SECONDARY ||
	    pair->over || pair->fail_over || pair->phase != PAIR_IDLE || pair->busy)
		return;
	s->anew_now = s->anew;
	s->anew_on = s->connection;
	s->resyncing = !worker_call(s->worker, OP_ANEW, s->anew_now, anew_ended, s, &error);
	if (s->resyncing)
		s->anew = 0;
}

static void unexport_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->resyncing = false;
	s->unexport = !good;
	tell_behind(s, "", good, error);
	if (s->leaving)
		session_leave(s);
}

/**
 * op_unexport() - after a failover: the servers are of no use any more
 * @s: session
 *
 * The fence is what counts, and the view's first I/O has the CPU for itself. Tried again
 * by the clock.
 */
void op_unexport(struct session *s)
{
	struct repl_error error;

	if (!s->unexport || s->resyncing || s->leaving || s->pair.busy)
		return;
	s->resyncing = !worker_call(s->worker, OP_UNEXPORT, 0, unexport_ended, s, &error);
}

static void promote_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->resyncing = false;
	/* Taken up again as the primary. Refused: it merges still. */
	if (good)
		s->leaving = true;
	else if (error->exit != REPL_EXIT_REFUSED)
		say(s, 3, "%s", error->text);
	s->switching = !good;
	if (s->leaving)
		session_leave(s);
}

/**
 * op_promote() - a planned switch: become the primary, when the merge is over
 * @s: session
 *
 * Tried at each event of a device, and by the clock.
 */
void op_promote(struct session *s)
{
	struct repl_error error;

	if (!s->switching || !s->pair.over || s->resyncing || s->leaving || s->pair.busy)
		return;
	s->resyncing = !worker_call(s->worker, OP_PROMOTE, 0, promote_ended, s, &error);
}

/*
 * A peer that answers, and does not take what it is sent (its disk is full, say), is not
 * sent all again every two seconds: each time longer is waited, until a checkpoint shows
 * that it has taken it, or the last attempt is long ago.
 */
static void resync_count(struct session *s)
{
	uint64_t now = now_ms();

	if (!s->resync_wait || now - s->resync_began > 2 * RESYNC_WAIT_MAX)
		s->resync_wait = RESYNC_WAIT;
	else if (2 * s->resync_wait <= RESYNC_WAIT_MAX)
		s->resync_wait *= 2;
	else
		s->resync_wait = RESYNC_WAIT_MAX;
	s->resync_began = now;
	s->resync_took = false;
}

/* The kernel knows now what the peer lacks, whatever its last reboot has cost. */
static void resync_began(struct session *s)
{
	struct repl_error error;

	say(s, 5, "the peer missed writes: they are sent");
	resync_count(s);
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
	if (good)
		resync_began(s);
	/* What could not be connected has been told, and is so still. */
	if (!s->not_imported)
		tell_behind(s, "resync: ", good, error);
	if (s->leaving)
		session_leave(s);
	else
		session_look_now(s);
}

/* What a resync that was broken off has brought to the peer for good it has still; volumes. */
static uint64_t settled(const struct session *s)
{
	return s->peer_life && s->peer_life == s->settled_life ? s->settled : 0;
}

/* The first sync of a secondary: that it had all of it is nothing that goes by itself. */
static bool goes_on_first(const struct session *s)
{
	return s->meet.blank && s->settled_first && settled(s);
}

/* Of the peer that is there, what it has missed is known, and sent as soon as it can be. */
static bool resync_is_due(const struct session *s, const struct pair_kernel *kernel)
{
	const struct pair *pair = &s->pair;

	return pair->role == PAIR_PRIMARY && pair->connected &&
	       (pair->running || goes_on_first(s)) && !pair->diverged && !pair_apart(pair) &&
	       !s->leaving && !kernel->never && (kernel->lost || pair->rebooted);
}

/**
 * op_resync_comes() - is what the peer misses about to be sent?
 * @s: session
 * @kernel: what the kernel says
 *
 * One that has failed comes again, too, but who waits for it might wait for ever. If all of
 * the last one was sent, the next is worth waiting for; and the checkpoint behind it tells
 * whether the peer takes it.
 */
bool op_resync_comes(const struct session *s, const struct pair_kernel *kernel)
{
	return resync_is_due(s, kernel) && !s->why_behind[0] &&
	       (!s->resync_wait || s->resync_took);
}

static bool may_resync(const struct session *s)
{
	struct pair_kernel kernel;
	struct repl_error error;

	return s->pair.degraded && !s->resyncing && !s->meet.fetching &&
	       s->pair.phase == PAIR_IDLE && !s->pair.busy &&
	       !resource_kernel(&s->resource, &kernel, &error) &&
	       resync_is_due(s, &kernel);
}

/*
 * While the data legs were being connected, or waited for, another host may have come to the
 * peer's address: nothing is sent before the peer of this connection has said once more that
 * it is there. What could not be connected does not keep the rest from it.
 */
static void import_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->resyncing = false;
	s->not_imported = !good;
	if (!good)
		tell_behind(s, "resync: ", false, error);
	if (s->leaving)
		session_leave(s);
	else if (s->pair.connected && s->connection == s->resync_on)
		s->resync_pong = peer_ping(s);
}

/**
 * op_ask_anew() - let nothing of before write on the peer
 * @s: session; primary, connected, nothing of the kind is under way: op_legs_idle()
 * @error: filled in on -1
 *
 * Return: 1: op_fresh() is called when that is so; 0: there is no need; or -1.
 */
int op_ask_anew(struct session *s, struct repl_error *error)
{
	uint64_t volumes;

	if (resource_lost_legs(&s->resource, &volumes, error))
		return -1;
	if (!volumes)
		return 0;
	s->anew_asked = volumes;
	send_frame(s, FRAME_ANEW, volumes, NULL, 0);
	return 1;
}

/**
 * op_legs_idle() - does nobody connect data legs just now?
 * @s: session
 */
bool op_legs_idle(const struct session *s)
{
	return !s->resyncing && !s->anew_asked && !s->resync_pong &&
	       now_ms() >= s->legs_until;
}

/* @volumes: whose servers of old have ended */
static void op_import(struct session *s, uint64_t volumes)
{
	struct repl_error error;

	s->resync_pong = 0;
	s->resync_on = s->connection;
	s->resyncing = !worker_call(s->worker, OP_IMPORT, volumes, import_ended, s, &error);
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
	struct repl_error error;
	int asked;

	if (!may_resync(s) || !op_legs_idle(s) ||
	    now_ms() - s->resync_began < s->resync_wait)
		return;
	asked = op_ask_anew(s, &error);
	s->anew_resync = asked > 0;
	if (!asked)
		op_import(s, 0);
}

/**
 * op_fresh() - nothing of before can be written on the peer any more
 * @s: session
 */
void op_fresh(struct session *s)
{
	uint64_t volumes = s->anew_asked;

	s->anew_asked = 0;
	if (!s->anew_resync)
		ask_fresh(s);
	else if (may_resync(s))
		op_import(s, volumes);
	s->anew_resync = false;
}

/**
 * op_pong() - the peer is there
 * @s: session
 */
void op_pong(struct session *s)
{
	struct repl_error error;

	if (!s->resync_pong || s->pongs < s->resync_pong)
		return;
	s->resync_pong = 0;
	if (!may_resync(s))
		return;
	memcpy(s->resync_boot, s->peer_boot, FRAME_BOOT_SIZE);
	s->first_sync = !s->pair.running;
	/* What the reboot has lost of it nobody knows. */
	s->resyncing = !worker_call(s->worker, s->first_sync ? OP_RESYNC_FIRST : OP_RESYNC,
				    s->pair.rebooted ? 0 : settled(s), resync_ended, s,
				    &error);
}

/*
 * ---- What a resync has brought to the peer for good ----
 */

static void settle_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->resyncing = false;
	s->settling = false;
	s->settled = worker_value(s->worker);
	/* (That the leg has failed the kernel's event says, and a push has another end.) */
	if (good && s->settled)
		tell_text(s, "settled", NULL, NULL);
	if (s->leaving)
		session_leave(s);
	else
		session_look_now(s);
}

static uint64_t settle_ms(void)
{
	const char *test = getenv("REPLCTL_TEST_SETTLE_MS");

	return test ? strtoul(test, NULL, 10) : SETTLE_MS;
}

/**
 * op_settle() - the primary's: a resync that is broken off goes on where it was
 * @s: session
 *
 * By the clock. After a checkpoint there is nothing to remember: plan_release().
 */
void op_settle(struct session *s)
{
	const struct pair *pair = &s->pair;
	struct repl_error error;

	if (s->leaving || pair->role != PAIR_PRIMARY || pair->phase != PAIR_IDLE ||
	    pair->busy || !op_legs_idle(s))
		return;
	if (!pair->degraded || !pair->coming || !pair->connected || pair->rebooted ||
	    pair_apart(pair) || s->meet.fetching || !s->peer_life ||
	    now_ms() - s->settled_at < settle_ms())
		return;
	s->settled_at = now_ms();
	s->settled = settled(s);
	s->settled_life = s->peer_life;
	s->settled_first = s->meet.blank && !pair->running;
	s->resyncing = !worker_call(s->worker, OP_SETTLE, s->settled, settle_ended, s, &error);
	s->settling = s->resyncing;
}

/**
 * op_first_synced() - the primary's: has a first sync been gone on with, to its end?
 * @s: session, idle
 *
 * By the clock. Whoever had begun with it has been told that it was broken off.
 */
void op_first_synced(struct session *s)
{
	if (!s->first_sync || s->pair.degraded || !goes_on_first(s))
		return;
	s->first_sync = false;
	meet_synced(s);
}

// SPDX-License-Identifier: GPL-2.0-only
/* Pair: see the essay in pair.h. */

#include <string.h>

#include "pair.h"

static const char * const phase_names[PAIR_NR_PHASES] = {
	[PAIR_IDLE]		= "idle",
	[PAIR_HOLDING]		= "holding",
	[PAIR_FLUSHING]		= "flushing",
	[PAIR_SAVING]		= "saving",
	[PAIR_SENT]		= "sent",
	[PAIR_RECEIVED]		= "received",
	[PAIR_DETACHING]	= "detaching",
	[PAIR_RELEASING]	= "releasing",
	[PAIR_REQUESTED]	= "requested",
	[PAIR_COLLECTING]	= "collecting",
	[PAIR_LOADING]		= "loading",
	[PAIR_COMMITTING]	= "committing",
	[PAIR_ABORTING]		= "aborting",
};

/**
 * pair_phase_name() - word for status and logs
 * @phase: phase
 */
const char *pair_phase_name(enum pair_phase phase)
{
	return phase_names[phase];
}

/**
 * pair_init() - a pair of which nothing is known yet
 * @pair: pair; PAIR_START comes next
 * @role: this host's
 */
void pair_init(struct pair *pair, enum pair_role role)
{
	memset(pair, 0, sizeof(*pair));
	pair->role = role;
}

/*
 * ---- Actions ----
 */

static struct pair_action *act(struct pair_actions *actions,
			       enum pair_action_type type, uint64_t id)
{
	/* No event has more; the last slot is overwritten rather than another. */
	unsigned int i = actions->nr < PAIR_MAX_ACTIONS ? actions->nr++ :
							  PAIR_MAX_ACTIONS - 1;
	struct pair_action *action = &actions->action[i];

	memset(action, 0, sizeof(*action));
	action->type = type;
	action->id = id;
	return action;
}

static void begin(struct pair *pair, struct pair_actions *actions,
		  enum pair_action_type type)
{
	pair->busy |= 1u << type;
	act(actions, type, pair->id);
}

static bool busy(const struct pair *pair, enum pair_action_type type)
{
	return pair->busy & 1u << type;
}

static void send(struct pair *pair, struct pair_actions *actions,
		 enum repl_frame_type frame, const char *why)
{
	struct pair_action *action;

	if (!pair->opened)
		return;
	action = act(actions, PAIR_SEND, pair->id);
	action->frame = frame;
	action->why = why;
}

/* What was said on a connection means nothing on the next. */
static void forget_peer(struct pair *pair, bool opened)
{
	pair->opened = opened;
	pair->greeted = false;
	pair->connected = false;
	pair->peer_ready = false;
	pair->peer_wants = false;
	pair->told = 0;
}

static void close_peer(struct pair *pair, struct pair_actions *actions,
		       const char *why)
{
	act(actions, PAIR_CLOSE, 0)->why = why;
	forget_peer(pair, false);
}

static void result(struct pair *pair, struct pair_actions *actions, bool good,
		   const char *why)
{
	struct pair_action *action = act(actions, PAIR_RESULT, pair->id);

	action->good = good;
	action->why = why;
}

/*
 * ---- The primary ----
 */

/* HELLO says what has been committed: not before that is certain. */
static void greet(struct pair *pair, struct pair_actions *actions)
{
	if (!pair->opened || pair->greeted)
		return;
	pair->greeted = true;
	send(pair, actions, FRAME_HELLO, NULL);
}

/* One that is not even begun: without an id, for that of another may be in doubt. */
static void primary_refuse(struct pair *pair, struct pair_actions *actions,
			   const char *why)
{
	struct pair_action *action;

	pair->wanted = false;
	act(actions, PAIR_RESULT, 0)->why = why;
	if (!pair->peer_wants || !pair->greeted)
		return;
	pair->peer_wants = false;
	action = act(actions, PAIR_SEND, 0);
	action->frame = FRAME_FAILED;
	action->why = why;
}

static void primary_next(struct pair *pair, struct pair_actions *actions)
{
	greet(pair, actions);
	if ((!pair->wanted && !pair->peer_wants) || pair->phase != PAIR_IDLE || pair->busy)
		return;
	if (pair->diverged) {
		primary_refuse(pair, actions, "the peer has failed over");
		return;
	}
	if (pair_apart(pair)) {
		primary_refuse(pair, actions,
			       "the peer's checkpoint is not the last one: 'replctl sync --full'");
		return;
	}
	if (pair->degraded && !pair->coming) {
		primary_refuse(pair, actions,
			       "the peer has missed writes: it needs a resync");
		return;
	}
	if (!pair->connected)
		return;
	if (!pair->running) {
		primary_refuse(pair, actions,
			       "the secondary has no first checkpoint: 'replctl sync --full' here, or 'replctl up --in-sync' there");
		return;
	}
	/* It can be taken when it is there; so long it waits. */
	if (pair->degraded || !pair->peer_ready)
		return;
	pair->wanted = false;
	pair->peer_wants = false;
	pair->peer_ready = false;
	pair->failed = false;
	/* Of one that begins the disk itself is one, too. */
	pair->id = (pair->last > pair->floor ? pair->last : pair->floor) + (pair->blank ? 2 : 1);
	pair->phase = PAIR_HOLDING;
	send(pair, actions, FRAME_REQUEST, NULL);
	begin(pair, actions, PAIR_HOLD);
}

static void primary_release(struct pair *pair, struct pair_actions *actions)
{
	pair->phase = PAIR_RELEASING;
	begin(pair, actions, PAIR_RELEASE);
}

/* It cannot be finished; its end is not in doubt, for the state is not complete. */
static void primary_fail(struct pair *pair, struct pair_actions *actions,
			 const char *why)
{
	if (!pair->failed) {
		pair->failed = true;
		result(pair, actions, false, why);
	}
	switch (pair->phase) {
	case PAIR_SAVING:
		if (busy(pair, PAIR_SAVE)) {
			act(actions, PAIR_CANCEL, pair->id);
			break;
		}
		/* fall through */
	case PAIR_HOLDING:
	case PAIR_FLUSHING:
	case PAIR_SENT:
	case PAIR_RECEIVED:
		if (!busy(pair, PAIR_HOLD) && !busy(pair, PAIR_FLUSH))
			primary_release(pair, actions);
		break;
	default:
		break;
	}
}

/* The connection is gone. */
static void primary_alone(struct pair *pair, struct pair_actions *actions)
{
	switch (pair->phase) {
	case PAIR_SENT:
		/* Has it made the cut? What comes now must not get there. */
		pair->ambiguous = true;
		pair->phase = PAIR_DETACHING;
		pair->degraded = true;
		begin(pair, actions, PAIR_DETACH);
		break;
	case PAIR_RECEIVED:
		pair->ambiguous = true;
		primary_release(pair, actions);
		break;
	case PAIR_DETACHING:
	case PAIR_RELEASING:
	case PAIR_IDLE:
		break;
	default:
		primary_fail(pair, actions, "the connection to the peer is lost");
	}
}

static void primary_hello(struct pair *pair, const struct pair_hello *hello,
			  struct pair_actions *actions)
{
	if (hello->over) {
		pair->diverged = true;
		pair->degraded = true;
		if (pair->ambiguous) {
			pair->ambiguous = false;
			result(pair, actions, false, "the peer has failed over");
		}
		close_peer(pair, actions, "the peer has failed over");
		return;
	}
	pair->diverged = false;		/* or no more: somebody has said that it may follow */
	pair->connected = true;
	pair->running = hello->running;
	pair->blank = hello->blank;
	pair->floor = hello->floor;
	if (hello->rebooted) {
		pair->rebooted = true;
		pair->degraded = true;
	}
	if (hello->restored)
		pair->stale = true;
	pair->foreign = hello->foreign;
	if (hello->foreign) {
		/* Its ids say nothing of ours; if it is to be our peer, they go on. */
		if (pair->ambiguous)
			result(pair, actions, false, "the peer is another one");
		pair->ambiguous = false;
		if (hello->checkpoint > pair->floor)
			pair->floor = hello->checkpoint;
		return;
	}
	if (hello->blank) {
		/* What it had taken over is nothing to this life of it. */
		if (pair->ambiguous)
			result(pair, actions, false, "the peer begins anew");
		pair->ambiguous = false;
		pair->stale = false;
		pair->last = hello->checkpoint;
		return;
	}
	if (pair->ambiguous) {
		pair->ambiguous = false;
		if (hello->checkpoint >= pair->id) {
			result(pair, actions, true, NULL);
		} else {
			result(pair, actions, false,
			       "the peer did not commit it");
		}
	} else if (hello->checkpoint < pair->last) {
		pair->stale = true;
	}
	pair->last = hello->checkpoint;
}

static void primary_frame(struct pair *pair, const struct pair_event *event,
			  struct pair_actions *actions)
{
	bool ours = event->id == pair->id;

	switch (event->frame) {
	case FRAME_READY:
		pair->peer_ready = true;
		break;
	case FRAME_WANT:
		pair->peer_wants = true;
		pair->told = event->id;
		break;
	case FRAME_STATE_RECEIVED:
		if (pair->phase == PAIR_SENT && ours)
			pair->phase = PAIR_RECEIVED;
		break;
	case FRAME_STATE_LOADED:
		if (pair->phase != PAIR_RECEIVED || !ours)
			break;
		pair->last = pair->id;
		pair->blank = false;
		result(pair, actions, true, NULL);
		primary_release(pair, actions);
		break;
	case FRAME_FAILED:
		/* (It answers our own FAILED, too, when that is over.) */
		if (ours && pair->phase != PAIR_IDLE)
			primary_fail(pair, actions, "the peer could not take it");
		break;
	default:
		close_peer(pair, actions, "the peer sent a frame that a secondary never sends");
		primary_alone(pair, actions);
	}
}

static void primary_done(struct pair *pair, const struct pair_event *event,
			 struct pair_actions *actions)
{
	bool good = event->good && !pair->failed;

	switch (event->done) {
	case PAIR_HOLD:
		if (good) {
			pair->phase = PAIR_FLUSHING;
			begin(pair, actions, PAIR_FLUSH);
			return;
		}
		break;
	case PAIR_FLUSH:
		if (good) {
			pair->phase = PAIR_SAVING;
			send(pair, actions, FRAME_STATE_SEND, NULL);
			begin(pair, actions, PAIR_SAVE);
			return;
		}
		break;
	case PAIR_SAVE:
		if (good) {
			pair->phase = PAIR_SENT;
			return;
		}
		if (event->good && pair->opened) {
			/* Given up, and all the same the state is out. */
			pair->phase = PAIR_SENT;
			close_peer(pair, actions, "no answer to the checkpoint");
			primary_alone(pair, actions);
			return;
		}
		break;
	case PAIR_DETACH:
		primary_release(pair, actions);
		return;
	case PAIR_RELEASE:
		pair->phase = PAIR_IDLE;
		pair->failed = false;
		return;
	default:
		return;
	}
	/* The peer waits for the rest: tell it, unless it knows. */
	send(pair, actions, FRAME_FAILED, "the primary gave up");
	primary_fail(pair, actions, event->done == PAIR_HOLD ?
		     "the workload could not be held" : event->done == PAIR_FLUSH ?
		     "the data leg could not be flushed" : "the save hook failed");
}

static void primary_timeout(struct pair *pair, struct pair_actions *actions)
{
	switch (pair->phase) {
	case PAIR_SENT:
	case PAIR_RECEIVED:
		close_peer(pair, actions, "no answer to the checkpoint");
		primary_alone(pair, actions);
		break;
	case PAIR_HOLDING:
	case PAIR_FLUSHING:
	case PAIR_SAVING:
		primary_fail(pair, actions, "it took too long");
		break;
	default:
		break;
	}
}

static void primary_event(struct pair *pair, const struct pair_event *event,
			  struct pair_actions *actions)
{
	switch (event->type) {
	case PAIR_START:
		pair->degraded = !event->kernel.attached;
		pair->coming = event->kernel.coming;
		if (!event->kernel.held)
			break;
		/* A daemon before us was in the middle of it. */
		pair->id = event->journal;
		if (event->journal) {
			pair->phase = PAIR_SENT;
			primary_alone(pair, actions);
		} else {
			primary_release(pair, actions);
		}
		break;
	case PAIR_KERNEL:
		pair->coming = event->kernel.coming;
		if (!event->kernel.attached)
			pair->degraded = true;
		else if (!pair->ambiguous && pair->phase == PAIR_IDLE && !pair->diverged &&
			 !pair->rebooted)
			pair->degraded = false;
		break;
	case PAIR_RESYNCED:
		pair->rebooted = false;
		break;
	case PAIR_CLOSED:
		primary_alone(pair, actions);
		break;
	case PAIR_FRAME:
		if (event->frame == FRAME_HELLO)
			primary_hello(pair, &event->hello, actions);
		else
			primary_frame(pair, event, actions);
		break;
	case PAIR_DONE:
		primary_done(pair, event, actions);
		break;
	case PAIR_TRIGGER:
		pair->wanted = true;
		break;
	case PAIR_TIMEOUT:
		primary_timeout(pair, actions);
		break;
	default:
		break;
	}
	primary_next(pair, actions);
}

/*
 * ---- The secondary ----
 */

/* A checkpoint that is wanted here: a REQUEST brings it. */
static void secondary_want(struct pair *pair, struct pair_actions *actions)
{
	if (pair->answered == pair->wish)
		return;
	if (pair->over) {
		pair->answered = pair->wish;
		act(actions, PAIR_RESULT, 0)->why = "this side has failed over";
	} else if (pair->connected && pair->told != pair->wish) {
		pair->told = pair->wish;
		act(actions, PAIR_SEND, pair->wish)->frame = FRAME_WANT;
	}
}

static void secondary_next(struct pair *pair, struct pair_actions *actions)
{
	if (pair->phase != PAIR_IDLE || pair->busy)
		return;
	if (pair->fail_over && !pair->over) {
		pair->fail_over = false;
		begin(pair, actions, PAIR_FAILOVER);
		return;
	}
	greet(pair, actions);
	if (pair->connected && !pair->peer_ready && !pair->over &&
	    (pair->running || pair->blank)) {
		/* peer_ready: it has been told */
		pair->peer_ready = true;
		pair->id = 0;
		send(pair, actions, FRAME_READY, NULL);
	}
	secondary_want(pair, actions);
}

static void secondary_idle(struct pair *pair)
{
	pair->phase = PAIR_IDLE;
	pair->prepared = false;
	pair->collected = false;
	pair->failed = false;
	pair->peer_ready = false;
}

/* It has failed, and nothing of it is left. On a new connection HELLO says it. */
static void secondary_failed(struct pair *pair, struct pair_actions *actions)
{
	if (pair->greeted)
		send(pair, actions, FRAME_FAILED, "the secondary could not take it");
	result(pair, actions, false, NULL);
	secondary_idle(pair);
}

/* The checkpoint cannot be: undo what was done for it. */
static void secondary_fail(struct pair *pair, struct pair_actions *actions)
{
	pair->failed = true;
	if (busy(pair, PAIR_PREPARE))
		return;		/* its end brings us back */
	act(actions, PAIR_DROP_STATE, pair->id);
	if (pair->prepared) {
		pair->phase = PAIR_ABORTING;
		begin(pair, actions, PAIR_ABORT);
		return;
	}
	secondary_failed(pair, actions);
}

/* Prepared, and all of the state is here: from now on nothing stops it. */
static void secondary_received(struct pair *pair, struct pair_actions *actions)
{
	if (!pair->prepared || !pair->collected)
		return;
	pair->phase = PAIR_LOADING;
	send(pair, actions, FRAME_STATE_RECEIVED, NULL);
	begin(pair, actions, PAIR_LOAD);
}

static void secondary_frame(struct pair *pair, const struct pair_event *event,
			    struct pair_actions *actions)
{
	bool ours = event->id == pair->id;

	switch (event->frame) {
	case FRAME_REQUEST:
		if (pair->phase != PAIR_IDLE || pair->busy || pair->over ||
		    !pair->connected)
			break;
		pair->id = event->id;
		if (event->id <= pair->last) {
			send(pair, actions, FRAME_FAILED, "that checkpoint is older than the last");
			pair->peer_ready = false;
			break;
		}
		pair->phase = PAIR_REQUESTED;
		if (event->wish > pair->answered && event->wish <= pair->wish)
			pair->answered = event->wish;
		break;
	case FRAME_STATE_SEND:
		if (pair->phase != PAIR_REQUESTED || !ours)
			break;
		pair->phase = PAIR_COLLECTING;
		begin(pair, actions, PAIR_PREPARE);
		break;
	case FRAME_STATE_END:
		if (pair->phase != PAIR_COLLECTING || !ours || pair->failed)
			break;
		if (event->good) {
			pair->collected = true;
			secondary_received(pair, actions);
		} else {
			secondary_fail(pair, actions);
		}
		break;
	case FRAME_FAILED:
		if (!event->id && pair->answered != pair->wish) {
			pair->answered = pair->wish;
			act(actions, PAIR_RESULT, 0);
		} else if ((pair->phase == PAIR_REQUESTED || pair->phase == PAIR_COLLECTING) &&
			   ours) {
			secondary_fail(pair, actions);
		}
		break;
	default:
		close_peer(pair, actions, "the peer sent a frame that a primary never sends");
	}
}

static void secondary_done(struct pair *pair, const struct pair_event *event,
			   struct pair_actions *actions)
{
	switch (event->done) {
	case PAIR_PREPARE:
		/* Badly: some volumes may be, so abort. */
		pair->prepared = true;
		if (!event->good || pair->failed)
			secondary_fail(pair, actions);
		else
			secondary_received(pair, actions);
		break;
	case PAIR_LOAD:
		if (event->good) {
			pair->phase = PAIR_COMMITTING;
			begin(pair, actions, PAIR_COMMIT);
		} else {
			secondary_fail(pair, actions);
		}
		break;
	case PAIR_COMMIT:
		if (!event->good) {
			secondary_fail(pair, actions);
			break;
		}
		pair->last = pair->id;
		act(actions, PAIR_DROP_STATE, pair->id);
		/* On a new connection HELLO says it. */
		if (pair->greeted)
			send(pair, actions, FRAME_STATE_LOADED, NULL);
		result(pair, actions, true, NULL);
		secondary_idle(pair);
		break;
	case PAIR_ABORT:
		secondary_failed(pair, actions);
		break;
	case PAIR_FAILOVER:
		pair->id = 0;
		pair->over = event->good;
		if (event->good)
			close_peer(pair, actions, "this side has failed over");
		else
			act(actions, PAIR_RESULT, 0)->why = "the failover failed";
		break;
	default:
		break;
	}
}

static void secondary_start(struct pair *pair, const struct pair_event *event,
			    struct pair_actions *actions)
{
	const struct pair_kernel *kernel = &event->kernel;

	pair->last = kernel->checkpoint;
	pair->over = kernel->over;
	pair->running = kernel->running;
	pair->blank = kernel->blank;
	if (!kernel->prepared || kernel->over)
		return;
	/* A daemon before us was in the middle of it. */
	pair->id = kernel->prepared;
	pair->prepared = true;
	if (kernel->checkpoint == kernel->prepared ||
	    event->journal == kernel->prepared) {
		pair->phase = PAIR_COMMITTING;
		begin(pair, actions, PAIR_COMMIT);
	} else {
		pair->phase = PAIR_ABORTING;
		begin(pair, actions, PAIR_ABORT);
	}
}

/*
 * Somebody has made a checkpoint by hand ('start'): HELLO has said another one. It is
 * said anew on the next connection.
 */
static void secondary_moved(struct pair *pair, const struct pair_kernel *kernel,
			    struct pair_actions *actions)
{
	if (pair->phase != PAIR_IDLE || pair->busy || kernel->checkpoint == pair->last)
		return;
	pair->last = kernel->checkpoint;
	if (pair->greeted)
		close_peer(pair, actions, "the secondary begins anew");
}

static void secondary_event(struct pair *pair, const struct pair_event *event,
			    struct pair_actions *actions)
{
	switch (event->type) {
	case PAIR_START:
		secondary_start(pair, event, actions);
		break;
	case PAIR_KERNEL:
		pair->over |= event->kernel.over;
		pair->running = event->kernel.running;
		pair->blank = event->kernel.blank;
		secondary_moved(pair, &event->kernel, actions);
		break;
	case PAIR_CLOSED:
		if (pair->phase == PAIR_REQUESTED || pair->phase == PAIR_COLLECTING)
			secondary_fail(pair, actions);
		break;
	case PAIR_FRAME:
		if (event->frame == FRAME_HELLO)
			pair->connected = !pair->over;
		else
			secondary_frame(pair, event, actions);
		break;
	case PAIR_DONE:
		secondary_done(pair, event, actions);
		break;
	case PAIR_TRIGGER:
		pair->wish++;
		break;
	case PAIR_ASK_FAILOVER:
		pair->fail_over = !pair->over;
		/* One that loads is waited for; others make way. */
		if (pair->phase == PAIR_REQUESTED || pair->phase == PAIR_COLLECTING)
			secondary_fail(pair, actions);
		break;
	default:
		break;
	}
	secondary_next(pair, actions);
}

/**
 * pair_event() - something has happened
 * @pair: pair
 * @event: what
 * @actions: filled with what to do now, in this order
 */
void pair_event(struct pair *pair, const struct pair_event *event,
		struct pair_actions *actions)
{
	actions->nr = 0;
	switch (event->type) {
	case PAIR_OPENED:
		forget_peer(pair, true);
		break;
	case PAIR_CLOSED:
		forget_peer(pair, false);
		break;
	case PAIR_FRAME:
		if (!pair->opened)
			return;		/* from before it was closed */
		if (event->frame == FRAME_HELLO &&
		    (event->hello.role == pair->role ||
		     event->hello.role == PAIR_NO_ROLE)) {
			close_peer(pair, actions, pair->role == PAIR_PRIMARY ?
				   "both hosts are primary: 'replctl demote --discard-local' on the one whose newest writes may be lost" :
				   "both hosts have the same role");
			return;
		}
		break;
	case PAIR_DONE:
		pair->busy &= ~(1u << event->done);
		break;
	default:
		break;
	}

	if (pair->role == PAIR_PRIMARY)
		primary_event(pair, event, actions);
	else
		secondary_event(pair, event, actions);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Explorer: two pairs (tools/pair.c, the source that the daemon runs), their
 * kernels and the connection between them, in every order of everything that can
 * happen: frames delivered or lost with the connection, actions that end well or
 * badly, timeouts, daemons killed at any point and started again, either host's power
 * cut, the secondary's host coming back without what its cache held, failovers with and
 * without a fence. Breadth first, every state once.
 *
 * In mode async the workload goes on while a checkpoint is taken: what it writes then
 * waits behind the cut. All else that it has written comes to the peer some time. What
 * there was no room for comes later, and until then there is no checkpoint.
 *
 * What must hold is in check_*(). A state that breaks it is printed with the way
 * that led there.
 *
 *	explore [WRITES TRIGGERS FAULTS [async]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pair.h"

#define VOLUMES 2
#define QUEUE 5
#define IDS 6
#define WISHES 4		/* triggers at most, and one more */

struct wire {
	uint8_t frame;
	uint8_t id;
	uint8_t good;
	uint8_t over, running, checkpoint, boot;	/* of HELLO */
	uint8_t wish;		/* of REQUEST */
};

struct link {
	struct wire q[QUEUE];
	uint8_t nr;
};

struct volume {
	uint8_t checkpoint, prepared;
	uint8_t content;	/* writes in the checkpoint */
	uint8_t cut;		/* writes when it was prepared */
};

/* All of it; no padding is ever written, so that memcmp() compares. */
struct state {
	struct pair p, s;
	struct link to_s, to_p;
	uint8_t link_up;	/* neither side has closed it */
	uint8_t p_up, s_up;	/* hosts have power */
	uint8_t held, attached, writes, arrived;
	uint8_t behind;		/* the window was full: the rest comes when there is room */
	uint8_t flushed;	/* of these: on the secondary's disk, not in its cache */
	uint8_t hole;		/* some of these are lost with its cache */
	uint8_t boot, known;	/* of the secondary's host; which one the primary's journal has */
	uint8_t hold_at[IDS];	/* writes when the workload was held for an id */
	uint8_t was_held[IDS];
	struct volume v[VOLUMES];
	uint8_t over;		/* secondary has failed over */
	uint8_t fenced;		/* with a fence: the primary was off */
	uint8_t loaded;		/* journal of the secondary's daemon; a reboot loses it */
	uint8_t ever_loaded;
	uint8_t sent;		/* journal of the primary's */
	uint8_t state_for;	/* id whose state is complete here */
	uint8_t told_good[IDS];	/* results that the primary gave */
	uint8_t told_never[IDS];
	uint8_t wish_at[WISHES];	/* writes when the secondary's daemon was asked for one */
	uint8_t triggers, faults, asked;
};

static unsigned int max_writes = 2, max_triggers = 2, max_faults = 2;
static bool async;

#include "states.h"

/* --------------------------------------------------------------- the rules */

static void check_commit(const struct state *s, unsigned int volume, unsigned int id)
{
	rule(id < IDS && s->was_held[id], "a checkpoint is committed that the workload was never held for");
	rule(id < IDS && s->v[volume].cut == s->hold_at[id],
	     "a checkpoint is the disk as it was when the workload was held");
	rule(!s->told_never[id], "a checkpoint of which it was said that it is not, is");
	rule(s->ever_loaded == id, "a checkpoint is committed only when its state is loaded");
}

static void check_state(const struct state *s)
{
	if (s->s_up)
		for (unsigned int i = 0; i < VOLUMES; i++)
			for (unsigned int id = 0; id < IDS; id++)
				rule(!s->told_good[id] || s->v[i].checkpoint >= id,
				     "an acknowledged checkpoint is not lost");
	rule(!(s->fenced && s->p_up), "two hosts write at once after a fenced failover");
}

/* Nothing moves any more but for faults and what users ask. */
static void check_quiet(const struct state *s)
{
	rule(!s->p_up || !s->held, "the workload is held for ever");
	rule(!s->p_up || s->p.phase == PAIR_IDLE, "the primary's checkpoint never ends");
	rule(!s->s_up || s->s.phase == PAIR_IDLE, "the secondary's checkpoint never ends");
	for (unsigned int i = 0; i < VOLUMES && s->s_up; i++) {
		rule(s->over || !s->v[i].prepared, "a volume stays prepared for ever");
		rule(s->over || s->v[i].checkpoint == s->v[0].checkpoint,
		     "the volumes have different checkpoints");
	}
	rule(!s->s_up || !s->asked || s->over, "a failover that was asked for never comes");
	rule(!s->p_up || !s->s_up || !s->p.connected || !s->attached || s->over ||
	     s->p.stale || s->p.degraded || (!s->hole && s->arrived == s->writes),
	     "the peer lacks something, and nobody knows");
	rule(!s->p_up || !s->s_up || !s->p.connected || s->over || s->p.stale || !s->p.degraded,
	     "the peer lacks something, and nobody sends it");
	rule(!s->p_up || !s->s_up || !s->p.connected || !s->s.connected ||
	     s->s.answered == s->s.wish,
	     "the secondary's wish for a checkpoint is never answered");
	rule(!s->p_up || !s->s_up || !s->p.connected || !s->s.connected ||
	     (!s->p.wanted && !s->p.peer_wants),
	     "a trigger is forgotten");
}

/* ------------------------------------------------------------ what happens */

static void feed(struct state *s, bool primary, const struct pair_event *event);

static bool put(struct link *link, struct wire wire)
{
	if (link->nr == QUEUE) {
		rule(false, "the explorer's queue is too short");
		return false;
	}
	link->q[link->nr++] = wire;
	return true;
}

static void kernel_of(const struct state *s, bool primary, struct pair_kernel *k)
{
	memset(k, 0, sizeof(*k));
	k->attached = s->attached && !s->behind;
	k->coming = s->attached;
	k->held = s->held;
	if (primary)
		return;
	k->oldest = UINT64_MAX;
	for (unsigned int i = 0; i < VOLUMES; i++) {
		if (s->v[i].checkpoint > k->checkpoint)
			k->checkpoint = s->v[i].checkpoint;
		if (s->v[i].checkpoint < k->oldest)
			k->oldest = s->v[i].checkpoint;
		if (s->v[i].prepared)
			k->prepared = s->v[i].prepared;
	}
	k->running = !s->over;
	k->over = s->over;
}

static void hello(struct state *s, bool primary)
{
	struct pair_kernel k;
	struct wire w = { .frame = FRAME_HELLO };

	kernel_of(s, primary, &k);
	w.over = k.over;
	w.running = k.running;
	w.checkpoint = primary ? 0 : k.oldest;
	w.boot = primary ? 0 : s->boot;
	put(primary ? &s->to_s : &s->to_p, w);
}

static void perform(struct state *s, bool primary, const struct pair_actions *actions)
{
	struct pair *pair = primary ? &s->p : &s->s;

	for (unsigned int i = 0; i < actions->nr; i++) {
		const struct pair_action *a = &actions->action[i];
		struct wire w = { .frame = a->frame, .id = a->id, .good = 1 };

		rule(actions->nr < PAIR_MAX_ACTIONS, "an event has too many actions");
		switch (a->type) {
		case PAIR_SEND:
			if (a->frame == FRAME_REQUEST) {
				s->told_never[a->id % IDS] = 0;
				w.wish = s->p.told;
			}
			if (s->link_up && a->frame == FRAME_HELLO)
				hello(s, primary);
			else if (s->link_up)
				put(primary ? &s->to_s : &s->to_p, w);
			break;
		case PAIR_CLOSE: {
			struct pair_event e = { .type = PAIR_CLOSED };

			s->link_up = 0;
			/* What was on its way to us is not read any more. */
			memset(primary ? &s->to_p : &s->to_s, 0, sizeof(struct link));
			feed(s, primary, &e);
			break;
		}
		case PAIR_RESULT:
			if (primary && !a->good && a->why &&
			    !strcmp(a->why, "the peer did not commit it"))
				s->told_never[a->id % IDS] = 1;
			if (primary && a->good) {
				rule(a->id < IDS, "the explorer has enough ids");
				rule(a->id, "something is good that nobody can name");
				s->told_good[a->id % IDS] = 1;
			}
			if (!primary && a->good)
				rule(s->v[0].content >= s->wish_at[s->s.answered % WISHES],
				     "what was there before the wish is not in its checkpoint");
			break;
		case PAIR_DROP_STATE:
			s->state_for = 0;
			break;
		case PAIR_CANCEL:
			rule(pair->busy, "something is cancelled that does not run");
			break;
		default:
			break;	/* async: their ends are in step_done() */
		}
	}
}

static void feed(struct state *s, bool primary, const struct pair_event *event)
{
	struct pair_actions actions;

	pair_event(primary ? &s->p : &s->s, event, &actions);
	perform(s, primary, &actions);
}

static void done(struct state *s, bool primary, enum pair_action_type what, bool good)
{
	struct pair_event e = { .type = PAIR_DONE, .done = what, .good = good };

	feed(s, primary, &e);
}

/* How far an action over the volumes gets. */
static void do_prepare(struct state *s, unsigned int volumes, unsigned int id)
{
	for (unsigned int i = 0; i < volumes; i++) {
		rule(!s->v[i].prepared, "a volume is prepared twice");
		s->v[i].prepared = id;
		s->v[i].cut = s->hole ? UINT8_MAX : s->arrived;
	}
}

static void do_commit(struct state *s, unsigned int volumes)
{
	for (unsigned int i = 0; i < volumes; i++) {
		if (!s->v[i].prepared)
			continue;
		check_commit(s, i, s->v[i].prepared);
		s->v[i].checkpoint = s->v[i].prepared;
		s->v[i].content = s->v[i].cut;
		s->v[i].prepared = 0;
	}
}

static void do_abort(struct state *s)
{
	for (unsigned int i = 0; i < VOLUMES; i++)
		s->v[i].prepared = 0;
}

/* The workload goes on; what waited behind the cut may go, too. */
static void do_release(struct state *s)
{
	s->held = 0;
	s->sent = 0;
}

/* Can a write come to the secondary's disk now? */
static bool passes(const struct state *s)
{
	bool parked = false;

	for (unsigned int i = 0; i < VOLUMES; i++)
		parked |= s->v[i].prepared;
	return s->attached && s->s_up && !s->over && !parked;
}

static void do_flush(struct state *s)
{
	s->arrived = s->hold_at[s->p.id % IDS];
	s->flushed = s->arrived;
}

/* As op_resync() decides. */
static bool may_resync(const struct state *s)
{
	const struct pair *p = &s->p;

	return s->p_up && s->s_up && s->link_up && p->connected && p->running &&
	       p->degraded && !p->stale && !p->diverged && p->phase == PAIR_IDLE &&
	       !p->busy && (!s->attached || p->rebooted) && !s->over;
}

/* As session_look(). */
static void look(struct state *s)
{
	struct pair_event e = { .type = PAIR_KERNEL };

	kernel_of(s, true, &e.kernel);
	feed(s, true, &e);
}

/* A checkpoint has ended, and the kernel said meanwhile that the peer has all. */
static bool may_look(const struct state *s)
{
	const struct pair *p = &s->p;

	return s->p_up && p->degraded && p->phase == PAIR_IDLE && !p->busy && s->attached &&
	       !s->behind && !p->rebooted && !p->diverged;
}

/* What was written and is not behind a cut is on its way. */
static bool may_arrive(const struct state *s)
{
	return s->p_up && !s->behind && !s->held && s->arrived < s->writes && passes(s);
}

/* There is room again, and what the peer lacks is sent. */
static bool may_catch_up(const struct state *s)
{
	return s->p_up && s->behind && !s->held && passes(s);
}

/* What the kernel does not know is told to it, then all is sent. */
static void do_resync(struct state *s)
{
	struct pair_event e = { .type = PAIR_RESYNCED };

	s->attached = 1;
	s->behind = 0;
	s->arrived = s->writes;
	s->hole = 0;
	s->known = s->boot;
	feed(s, true, &e);
	look(s);
	rule(!s->p.degraded, "a resync does not end");
}

static bool step_primary_done(const struct state *now)
{
	const struct pair *p = &now->p;

	if (p->busy & 1u << PAIR_HOLD) {
		/* (A cut is refused where the peer lacks something.) */
		if (now->attached && !now->behind)
			TRY("hold", s->held = 1; s->was_held[p->id % IDS] = 1;
			    s->hold_at[p->id % IDS] = s->writes; done(s, true, PAIR_HOLD, true););
		TRY("hold fails", s->held = 1; done(s, true, PAIR_HOLD, false););
	}
	if (p->busy & 1u << PAIR_FLUSH) {
		if (passes(now))
			TRY("flush", do_flush(s); done(s, true, PAIR_FLUSH, true););
		TRY("flush fails", done(s, true, PAIR_FLUSH, false););
	}
	if (p->busy & 1u << PAIR_SAVE) {
		TRY("save", s->sent = p->id; struct wire w = { .frame = FRAME_STATE_END, .id = p->id, .good = 1 };
		    if (s->link_up) put(&s->to_s, w); done(s, true, PAIR_SAVE, true););
		TRY("save, damaged on its way", s->sent = p->id;
		    struct wire w = { .frame = FRAME_STATE_END, .id = p->id };
		    if (s->link_up) put(&s->to_s, w); done(s, true, PAIR_SAVE, true););
		TRY("save fails", done(s, true, PAIR_SAVE, false););
	}
	if (p->busy & 1u << PAIR_DETACH)
		TRY("detach", s->attached = 0; done(s, true, PAIR_DETACH, true););
	if (p->busy & 1u << PAIR_RELEASE)
		TRY("release", do_release(s); done(s, true, PAIR_RELEASE, true););
	return true;
}

static bool step_secondary_done(const struct state *now)
{
	const struct pair *p = &now->s;

	if (p->busy & 1u << PAIR_PREPARE) {
		TRY("prepare", do_prepare(s, VOLUMES, p->id);
		    done(s, false, PAIR_PREPARE, true););
		TRY("prepare fails", done(s, false, PAIR_PREPARE, false););
		TRY("prepare fails, some prepared", do_prepare(s, 1, p->id);
		    done(s, false, PAIR_PREPARE, false););
	}
	if (p->busy & 1u << PAIR_LOAD) {
		TRY("load", rule(s->state_for == p->id, "a state is loaded that is not complete");
		    s->loaded = s->ever_loaded = p->id;
		    done(s, false, PAIR_LOAD, true););
		TRY("load fails", done(s, false, PAIR_LOAD, false););
	}
	if (p->busy & 1u << PAIR_COMMIT)
		TRY("commit", do_commit(s, VOLUMES); done(s, false, PAIR_COMMIT, true););
	if (p->busy & 1u << PAIR_ABORT)
		TRY("abort", do_abort(s); done(s, false, PAIR_ABORT, true););
	if (p->busy & 1u << PAIR_FAILOVER)
		TRY("failover", rule(!s->s.prepared || s->s.phase == PAIR_IDLE,
				     "a failover comes in the middle of a checkpoint");
		    do_abort(s); s->over = 1; done(s, false, PAIR_FAILOVER, true););
	return true;
}

static bool deliver(const struct state *now, bool primary)
{
	const struct link *link = primary ? &now->to_p : &now->to_s;
	bool here = primary ? now->p.opened : now->s.opened;

	if (!link->nr || !here)
		return true;
	TRY(primary ? "frame to the primary" : "frame to the secondary",
	    struct link *l = primary ? &s->to_p : &s->to_s;
	    struct wire w = l->q[0];
	    rule(w.frame == FRAME_HELLO || (primary ? s->p : s->s).connected ||
		 (primary ? s->p : s->s).diverged, "a frame comes before HELLO");
	    struct pair_event e = { .type = PAIR_FRAME, .frame = w.frame, .id = w.id,
				    .good = w.good, .wish = w.wish };
	    memmove(l->q, l->q + 1, sizeof(l->q) - sizeof(l->q[0]));
	    memset(&l->q[--l->nr], 0, sizeof(l->q[0]));
	    e.hello.role = primary ? PAIR_SECONDARY : PAIR_PRIMARY;
	    e.hello.over = w.over;
	    e.hello.running = w.running;
	    e.hello.checkpoint = w.checkpoint;
	    e.hello.rebooted = primary && w.frame == FRAME_HELLO && w.boot != s->known;
	    if (!primary && w.frame == FRAME_STATE_END && w.good &&
		s->s.phase == PAIR_COLLECTING && s->s.id == w.id)
		    s->state_for = w.id;
	    feed(s, primary, &e););
	return true;
}

static void restart(struct state *s, bool primary)
{
	struct pair_event e = { .type = PAIR_START };

	s->link_up = 0;
	memset(primary ? &s->to_p : &s->to_s, 0, sizeof(struct link));
	if (!primary) {
		s->state_for = 0;
		s->asked = s->over;	/* who asked has seen it die */
		memset(s->wish_at, 0, sizeof(s->wish_at));
	}
	pair_init(primary ? &s->p : &s->s, primary ? PAIR_PRIMARY : PAIR_SECONDARY);
	kernel_of(s, primary, &e.kernel);
	e.journal = primary ? s->sent : s->loaded;
	feed(s, primary, &e);
}

/* Things that go on by themselves; false: a rule is broken. */
static bool steps(const struct state *now, bool *moved)
{
	unsigned int was = nr_nodes;
	bool p = now->p_up, s_ = now->s_up;

	if (p && !step_primary_done(now))
		return false;
	if (s_ && !step_secondary_done(now))
		return false;
	if (p && !deliver(now, true))
		return false;
	if (s_ && !deliver(now, false))
		return false;
	/* A side notices that the connection is gone; frames may get lost. */
	if (p && now->p.opened && (!now->link_up || !s_))
		TRY("the primary notices", struct pair_event e = { .type = PAIR_CLOSED };
		    memset(&s->to_p, 0, sizeof(s->to_p)); feed(s, true, &e););
	if (s_ && now->s.opened && (!now->link_up || !p))
		TRY("the secondary notices", struct pair_event e = { .type = PAIR_CLOSED };
		    memset(&s->to_s, 0, sizeof(s->to_s)); feed(s, false, &e););
	if (p && s_ && !now->link_up && !now->p.opened && !now->s.opened && !now->over)
		TRY("connect", struct pair_event e = { .type = PAIR_OPENED };
		    memset(&s->to_p, 0, sizeof(s->to_p)); memset(&s->to_s, 0, sizeof(s->to_s));
		    s->link_up = 1; feed(s, true, &e); feed(s, false, &e););
	if (p)
		TRY("the primary looks at its kernel", look(s););
	if (may_arrive(now))
		TRY("what was written arrives", s->arrived = s->writes;);
	if (may_catch_up(now))
		TRY("what there was no room for arrives", s->behind = 0;
		    s->arrived = s->writes; look(s););
	if (may_resync(now))
		TRY("resync", do_resync(s););
	*moved = nr_nodes != was;
	return true;
}

/* A checkpoint that even its timeout does not move. */
static bool stuck(const struct state *now)
{
	struct pair_event e = { .type = PAIR_TIMEOUT };
	struct state next = *now;

	feed(&next, true, &e);
	return !memcmp(&next, now, sizeof(next));
}

static bool quiet(const struct state *now)
{
	return !(now->p_up && (now->p.busy || (now->p.opened && (!now->link_up || !now->s_up)))) &&
	       !(now->s_up && (now->s.busy || (now->s.opened && (!now->link_up || !now->p_up)))) &&
	       !(now->p_up && now->p.opened && now->to_p.nr) &&
	       !(now->s_up && now->s.opened && now->to_s.nr) &&
	       !(now->p_up && now->p.phase != PAIR_IDLE && !stuck(now)) &&
	       !may_resync(now) && !may_look(now) && !may_catch_up(now) && !may_arrive(now);
}

/* What users, workloads and bad luck do. */
static bool faults(const struct state *now)
{
	/* Where it does not arrive, the data leg fails, or hangs in a prepared secondary. */
	if (now->p_up && (!now->held || async) && now->writes < max_writes &&
	    (async || !now->attached || !now->s_up || now->over || passes(now)))
		TRY("write", s->writes++;
		    if (s->attached && !s->held && (!s->s_up || s->over)) s->attached = 0;
		    if (!async && s->attached) s->arrived = s->writes;);
	if (now->p_up && now->triggers < max_triggers)
		TRY("trigger", s->triggers++; struct pair_event e = { .type = PAIR_TRIGGER };
		    feed(s, true, &e););
	if (now->s_up && now->triggers < max_triggers)
		TRY("the secondary wants one", s->triggers++;
		    s->wish_at[(s->s.wish + 1) % WISHES] = s->writes;
		    struct pair_event e = { .type = PAIR_TRIGGER }; feed(s, false, &e););
	if (now->p_up && now->p.phase != PAIR_IDLE)
		TRY("timeout", struct pair_event e = { .type = PAIR_TIMEOUT };
		    feed(s, true, &e););
	if (now->s_up && !now->asked && !now->p_up)
		TRY("fenced failover", s->asked = 1; s->fenced = 1;
		    struct pair_event e = { .type = PAIR_ASK_FAILOVER }; feed(s, false, &e););
	if (now->s_up && !now->asked)
		TRY("failover", s->asked = 1;
		    struct pair_event e = { .type = PAIR_ASK_FAILOVER }; feed(s, false, &e););
	if (!now->s_up && now->boot < 2)
		for (unsigned int lost = 0; lost <= (now->arrived > now->flushed); lost++)
			TRY(lost ? "the secondary comes back without its cache" :
			    "the secondary comes back",
			    s->s_up = 1; s->boot++; s->loaded = 0; s->hole |= lost;
			    restart(s, false););
	if (now->faults == max_faults)
		return true;
	if (now->link_up)
		TRY("the connection is cut", s->faults++; s->link_up = 0;);
	if (now->p_up) {
		TRY("the primary's power is cut", s->faults++; s->p_up = 0;);
		TRY("the primary's daemon is killed", s->faults++; restart(s, true););
		if (now->p.busy & 1u << PAIR_HOLD)
			TRY("the primary's daemon is killed while it holds", s->faults++;
			    s->held = 1; restart(s, true););
		if (now->p.busy & 1u << PAIR_RELEASE)
			TRY("the primary's daemon is killed, having released", s->faults++;
			    do_release(s); restart(s, true););
		if (now->p.busy & 1u << PAIR_DETACH)
			TRY("the primary's daemon is killed, having detached", s->faults++;
			    s->attached = 0; restart(s, true););
		if (now->p.busy & 1u << PAIR_SAVE)
			TRY("the primary's daemon is killed, having sent", s->faults++;
			    s->sent = s->p.id;
			    struct wire w = { .frame = FRAME_STATE_END, .id = s->p.id, .good = 1 };
			    if (s->link_up) put(&s->to_s, w); restart(s, true););
		if (now->attached)
			TRY("the data leg is cut", s->faults++; s->attached = 0;);
		if (async && now->attached && !now->behind)
			TRY("the window is full", s->faults++; s->behind = 1; look(s););
	}
	if (now->s_up) {
		TRY("the secondary's power is cut", s->faults++; s->s_up = 0;);
		TRY("the secondary's daemon is killed", s->faults++; restart(s, false););
		if (now->s.busy & 1u << PAIR_PREPARE)
			for (unsigned int n = 1; n <= VOLUMES; n++)
				TRY("the secondary's daemon is killed, some prepared",
				    s->faults++; do_prepare(s, n, s->s.id); restart(s, false););
		if (now->s.busy & 1u << PAIR_COMMIT)
			for (unsigned int n = 1; n <= VOLUMES; n++)
				TRY("the secondary's daemon is killed, some committed",
				    s->faults++; do_commit(s, n); restart(s, false););
	}
	return true;
}

static void print_way(unsigned int i)
{
	const struct state *s = &nodes[i].state;

	if (i)
		print_way(nodes[i].parent);
	printf("# %-44s p %s%s%s s %s%s writes %u arrived %u v %u/%u %u/%u\n", nodes[i].how,
	       pair_phase_name(s->p.phase), s->held ? " held" : "",
	       s->attached ? "" : " detached", pair_phase_name(s->s.phase),
	       s->over ? " over" : "", s->writes, s->arrived, s->v[0].checkpoint,
	       s->v[0].prepared, s->v[1].checkpoint, s->v[1].prepared);
}

int main(int argc, char **argv)
{
	struct state first;
	unsigned int nr_quiet = 0, committed = 0, failed_over = 0;

	async = argc == 5 && !strcmp(argv[4], "async");
	if (argc >= 4) {
		max_writes = atoi(argv[1]);
		max_triggers = atoi(argv[2]);
		max_faults = atoi(argv[3]);
	}
	memset(&first, 0, sizeof(first));
	first.p_up = first.s_up = first.attached = 1;
	restart(&first, true);
	restart(&first, false);
	visit(&first, 0, "start");
	for (from = 0; from < nr_nodes; from++) {
		struct state now = nodes[from].state;
		bool moved = false;
		bool good = steps(&now, &moved) && faults(&now);

		if (good && quiet(&now)) {
			broken = NULL;
			check_quiet(&now);
			nr_quiet++;
			good = !broken;
			if (!good)
				visit(&now, from, "nothing moves");
		}
		if (!good) {
			printf("not ok - explore: %s\n", broken);
			print_way(broken && nodes[nr_nodes - 1].parent == from &&
				  !quiet(&now) ? nr_nodes - 1 : from);
			return 1;
		}
		committed += now.v[0].checkpoint > 0;
		failed_over += now.over;
	}
	printf("ok - explore: %s, %u states with %u writes, %u triggers, %u faults; %u at rest, %u with a checkpoint, %u after a failover\n",
	       async ? "async" : "sync", nr_nodes, max_writes, max_triggers, max_faults, nr_quiet, committed, failed_over);
	return !(nr_quiet && committed && failed_over);
}

// SPDX-License-Identifier: GPL-2.0-only
/* Session: what people and programs of this host ask for, and what they are told. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "session-i.h"

#define ANEW_MS 2000		/* beside data_timeout, for who connects the legs */
#define SYNC_MS 10000		/* who was demoted, or let go of, connects in this time */

/*
 * ---- Events for whoever listens ----
 */

/**
 * tell() - an event has happened
 * @s: session
 * @event: of event_new(); freed
 */
void tell(struct session *s, struct json_object *event)
{
	for (unsigned int i = 0; i < s->nr_waiters; i++)
		if (s->waiter[i].what == WAIT_EVENTS)
			control_line(s->waiter[i].client, event);
	json_object_put(event);
}

struct json_object *event_new(const char *name)
{
	struct json_object *event = json_object_new_object();
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	json_object_object_add(event, "event", json_object_new_string(name));
	json_object_object_add(event, "time",
			       json_object_new_double(t.tv_sec + t.tv_nsec / 1e9));
	return event;
}

/**
 * tell_text() - an event with one word more, or none
 * @s: session
 * @name: of the event
 * @key: of the word, or NULL
 * @text: word
 */
void tell_text(struct session *s, const char *name, const char *key, const char *text)
{
	struct json_object *event = event_new(name);

	if (key)
		json_object_object_add(event, key, json_object_new_string(text));
	tell(s, event);
}

/*
 * ---- Who waits ----
 */

/**
 * answer() - end all requests of a kind that the @nr-th answers
 * @s: session
 * @what: kind
 * @nr: of the checkpoint that has ended, counted from the session's start
 * @exit: how
 * @text: words, or NULL
 * @line: for them before that, or NULL
 */
void answer(struct session *s, unsigned int what, uint64_t nr, enum repl_exit exit,
	    const char *text, struct json_object *line)
{
	for (unsigned int i = 0; i < s->nr_waiters;) {
		if (s->waiter[i].what != what || s->waiter[i].from > nr) {
			i++;
			continue;
		}
		if (line)
			control_line(s->waiter[i].client, line);
		control_end(s->waiter[i].client, exit, text);
		s->waiter[i] = s->waiter[--s->nr_waiters];
	}
}

/**
 * answer_all() - nobody gets what he waits for any more
 * @s: session
 * @exit: how
 * @text: why
 */
void answer_all(struct session *s, enum repl_exit exit, const char *text)
{
	while (s->nr_waiters)
		control_end(s->waiter[--s->nr_waiters].client, exit, text);
}

/* Return: false: it cannot, and has been told so. */
static bool wait_for(struct session *s, struct repl_client *client, unsigned int what)
{
	if (s->nr_waiters == MAX_WAITERS) {
		control_end(client, REPL_EXIT_FAILED, "too many requests wait already");
		return false;
	}
	s->waiter[s->nr_waiters].client = client;
	/* One that is under way has made its cut, or may have. */
	s->waiter[s->nr_waiters].from = what != WAIT_CHECKPOINT ? 0 :
		s->pair.role == PAIR_PRIMARY ? s->begun + 1 : s->pair.wish + 1;
	s->waiter[s->nr_waiters++].what = what;
	return true;
}

void session_client_gone(struct session *s, struct repl_client *client)
{
	for (unsigned int i = 0; i < s->nr_waiters; i++)
		if (s->waiter[i].client == client) {
			s->waiter[i] = s->waiter[--s->nr_waiters];
			return;
		}
}

/*
 * ---- Requests ----
 */

static const char *connection_word(const struct session *s)
{
	if (s->pair.connected)
		return "connected";
	if (s->pair.diverged)
		return "diverged";
	return s->conn ? "connecting" : "disconnected";
}

static struct json_object *status_object(struct session *s)
{
	struct json_object *o = json_object_new_object();
	const struct pair *pair = &s->pair;
	bool primary = pair->role == PAIR_PRIMARY;

	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "resource", json_object_new_string(s->config->name));
	json_object_object_add(o, "role", json_object_new_string(primary ? "primary" :
								 "secondary"));
	json_object_object_add(o, "connection",
			       json_object_new_string(connection_word(s)));
	json_object_object_add(o, "disconnected_because", s->pair.connected ||
			       !s->why_lost[0] ? NULL : json_object_new_string(s->why_lost));
	json_object_object_add(o, "phase", json_object_new_string(pair_phase_name(pair->phase)));
	json_object_object_add(o, "paused", json_object_new_boolean(s->paused));
	json_object_object_add(o, "degraded", json_object_new_boolean(pair->degraded));
	json_object_object_add(o, "catching_up",
			       json_object_new_boolean(pair->degraded && pair->coming));
	json_object_object_add(o, "behind_because", pair->degraded && s->why_behind[0] ?
			       json_object_new_string(s->why_behind) : NULL);
	json_object_object_add(o, "stale", json_object_new_boolean(pair_apart(pair)));
	json_object_object_add(o, "failed_over",
			       json_object_new_boolean(primary ? pair->diverged : pair->over));
	json_object_object_add(o, "checkpoint", json_object_new_uint64(pair->last));
	json_object_object_add(o, "checkpoint_time", s->last_when ?
			       json_object_new_double(s->last_when) : NULL);
	json_object_object_add(o, "checkpoint_seconds", s->last_duration && primary ?
			       json_object_new_double(s->last_duration / 1e6) : NULL);
	json_object_object_add(o, "pause_seconds", s->last_pause && primary ?
			       json_object_new_double(s->last_pause / 1e6) : NULL);
	json_object_object_add(o, "apart", s->why_apart[0] ?
			       json_object_new_string(s->why_apart) : NULL);
	json_object_object_add(o, "last_error", s->last_error[0] ?
			       json_object_new_string(s->last_error) : NULL);
	return o;
}

static void ask_status(struct session *s, struct repl_client *client, bool events)
{
	struct json_object *status = status_object(s);

	if (events)
		json_object_object_add(status, "event", json_object_new_string("status"));
	control_line(client, status);
	json_object_put(status);
	if (events)
		wait_for(s, client, WAIT_EVENTS);
	else
		control_end(client, REPL_EXIT_OK, NULL);
}

static void ask_checkpoint(struct session *s, struct repl_client *client)
{
	if (s->pair.role == PAIR_SECONDARY && s->pair.over) {
		control_end(client, REPL_EXIT_REFUSED, "this side has failed over");
		return;
	}
	if (!s->pair.connected && !s->pair.diverged) {
		control_end(client, REPL_EXIT_PEER, s->why_lost[0] ? s->why_lost :
			    "the peer is not connected");
		return;
	}
	/* As of now: what the peer misses and is about to get is waited for. */
	session_look_now(s);
	if (s->leaving) {
		control_end(client, REPL_EXIT_FAILED, "it is not up any more");
		return;
	}
	wait_for(s, client, WAIT_CHECKPOINT);
	session_feed_type(s, PAIR_TRIGGER);
}

static void ask_failover(struct session *s, struct repl_client *client)
{
	if (s->pair.role != PAIR_SECONDARY) {
		control_end(client, REPL_EXIT_REFUSED, "a failover is asked for on the secondary");
		return;
	}
	if (s->pair.over) {
		control_end(client, REPL_EXIT_OK, NULL);
		return;
	}
	wait_for(s, client, WAIT_FAILOVER);
	session_feed_type(s, PAIR_ASK_FAILOVER);
}

static void ask_pause(struct session *s, struct repl_client *client, bool pause)
{
	if (s->pair.role != PAIR_PRIMARY) {
		control_end(client, REPL_EXIT_REFUSED,
			    "on the secondary there is a merge to pause only after a failover");
		return;
	}
	s->paused = pause;
	s->next = now_ms();
	control_end(client, REPL_EXIT_OK, NULL);
}

/* The workload has ended, and the last checkpoint has all of it: the peer takes over. */
static void ask_switch(struct session *s, struct repl_client *client)
{
	const struct pair *pair = &s->pair;

	if (pair->role != PAIR_PRIMARY) {
		control_end(client, REPL_EXIT_REFUSED, "a switch is asked for on the primary");
	} else if (!pair->connected) {
		control_end(client, REPL_EXIT_PEER, "the peer is not connected");
	} else if (pair->phase != PAIR_IDLE || pair->busy) {
		/* Who asked for that checkpoint has been told; it is being released. */
		wait_for(s, client, WAIT_SWITCH);
	} else if (pair->degraded || pair_apart(pair) || !pair->running) {
		control_end(client, REPL_EXIT_REFUSED,
			    "the peer has not got all: a checkpoint comes first");
	} else {
		s->let_go = now_ms();
		s->rejoin = true;
		send_frame(s, FRAME_SWITCH, 0, NULL, 0);
		control_end(client, REPL_EXIT_OK, NULL);
	}
}

/**
 * ask_idle() - no checkpoint is under way any more
 * @s: session
 */
void ask_idle(struct session *s)
{
	for (unsigned int i = 0; i < s->nr_waiters;) {
		struct repl_client *client = s->waiter[i].client;

		if (s->waiter[i].what != WAIT_SWITCH) {
			i++;
			continue;
		}
		s->waiter[i] = s->waiter[--s->nr_waiters];
		ask_switch(s, client);
	}
}

/*
 * May something be sent to the peer's disk? What is there is known only as long as the two
 * are connected, and one that is silent may be another by now; so who asks waits for a sign
 * of life, but not for long.
 */
static void may_sync(struct session *s, struct repl_client *client, bool full)
{
	const struct pair *pair = &s->pair;
	struct json_object *line;
	char text[256];

	if (pair->connected && ((pair->running && !pair_apart(pair)) ||
				(full && meet_may_full(s)))) {
		control_end(client, REPL_EXIT_OK, NULL);
		return;
	}
	if (!s->why_apart[0]) {
		control_end(client, REPL_EXIT_REFUSED, pair->diverged ?
			    "the peer has failed over" : !pair->connected ?
			    "the peer is no secondary of this host" : pair_apart(pair) ?
			    "the peer's checkpoint is not the last one: 'replctl sync --full'" :
			    "the secondary has no first checkpoint: 'replctl sync --full'");
		return;
	}
	line = json_object_new_object();
	json_object_object_add(line, "apart", json_object_new_string(s->why_apart));
	control_line(client, line);
	json_object_put(line);
	snprintf(text, sizeof(text), "nothing is sent to the peer: %.*s",
		 (int)strcspn(s->why_apart, "\n"), s->why_apart);
	control_end(client, REPL_EXIT_REFUSED, text);
}

static void ask_sync(struct session *s, struct repl_client *client, bool full)
{
	if (s->pair.role != PAIR_PRIMARY) {
		control_end(client, REPL_EXIT_REFUSED, "sync is for the primary");
		return;
	}
	if (!wait_for(s, client, full ? WAIT_SYNC_FULL : WAIT_SYNC))
		return;
	s->waiter[s->nr_waiters - 1].from = now_ms() + SYNC_MS;
	s->waiter[s->nr_waiters - 1].pong = s->pair.connected ? peer_ping(s) : UINT64_MAX;
	s->not_before = 0;
}

/**
 * ask_met() - the primary knows whom it has met, or that it is still there
 * @s: session
 * @anew: it has met it
 */
void ask_met(struct session *s, bool anew)
{
	for (unsigned int i = 0; i < s->nr_waiters;) {
		struct waiter waiter = s->waiter[i];

		if ((waiter.what != WAIT_SYNC && waiter.what != WAIT_SYNC_FULL) ||
		    (!anew && waiter.pong > s->pongs)) {
			i++;
			continue;
		}
		s->waiter[i] = s->waiter[--s->nr_waiters];
		may_sync(s, waiter.client, waiter.what == WAIT_SYNC_FULL);
	}
}

/**
 * ask_fresh() - nothing of before is on its way to the peer any more
 * @s: session
 *
 * So the first who wants that connects the legs now, and has so long for it.
 */
void ask_fresh(struct session *s)
{
	for (unsigned int i = 0; i < s->nr_waiters; i++) {
		if (s->waiter[i].what != WAIT_ANEW)
			continue;
		s->legs_until = now_ms() + s->config->data_timeout + ANEW_MS;
		control_end(s->waiter[i].client, REPL_EXIT_OK, NULL);
		s->waiter[i] = s->waiter[--s->nr_waiters];
		return;
	}
}

/* One after the other, and not while the daemon does it. */
static void ask_turn(struct session *s)
{
	struct repl_error error;
	bool any = false;

	for (unsigned int i = 0; i < s->nr_waiters; i++)
		any |= s->waiter[i].what == WAIT_ANEW;
	if (any && s->pair.connected && op_legs_idle(s) && !op_ask_anew(s, &error))
		ask_fresh(s);
}

/**
 * ask_tick() - nobody was met
 * @s: session
 */
void ask_tick(struct session *s)
{
	char text[300];

	ask_turn(s);
	snprintf(text, sizeof(text), "nobody knows whose disk the peer's is: %.250s",
		 s->why_lost[0] ? s->why_lost : "it is not connected");
	answer(s, WAIT_SYNC, now_ms(), REPL_EXIT_PEER, text, NULL);
	answer(s, WAIT_SYNC_FULL, now_ms(), REPL_EXIT_PEER, text, NULL);
	answer(s, WAIT_ANEW, now_ms(), REPL_EXIT_PEER,
	       "the peer does not say that its servers of before have ended", NULL);
}

/* Who is about to connect the data legs: nothing of before may be on its way to the peer. */
static void ask_anew(struct session *s, struct repl_client *client)
{
	if (s->pair.role != PAIR_PRIMARY || !s->pair.connected) {
		control_end(client, REPL_EXIT_PEER, "the peer is not connected");
		return;
	}
	if (!wait_for(s, client, WAIT_ANEW))
		return;
	s->waiter[s->nr_waiters - 1].from = now_ms() + SYNC_MS + s->config->data_timeout;
	ask_turn(s);
}

/* A full resync has ended: what the peer had lost it has again. */
static void ask_synced(struct session *s, struct repl_client *client)
{
	/* Its next checkpoint makes that so. */
	s->first_wanted |= pair_apart(&s->pair);
	s->pair.stale = false;
	s->pair.foreign = false;
	s->why_apart[0] = 0;
	session_look_now(s);
	meet_synced(s);
	control_end(client, REPL_EXIT_OK, NULL);
}

void session_request(struct session *s, struct repl_client *client, const char *verb)
{
	if (!strcmp(verb, "status"))
		ask_status(s, client, false);
	else if (!strcmp(verb, "events"))
		ask_status(s, client, true);
	else if (s->leaving)
		control_end(client, REPL_EXIT_REFUSED, "the daemon lets go of it just now");
	else if (!strcmp(verb, "checkpoint"))
		ask_checkpoint(s, client);
	else if (!strcmp(verb, "failover"))
		ask_failover(s, client);
	else if (!strcmp(verb, "pause") || !strcmp(verb, "resume"))
		ask_pause(s, client, !strcmp(verb, "pause"));
	else if (!strcmp(verb, "switch"))
		ask_switch(s, client);
	else if (!strcmp(verb, "sync") || !strcmp(verb, "sync-full"))
		ask_sync(s, client, !strcmp(verb, "sync-full"));
	else if (!strcmp(verb, "anew"))
		ask_anew(s, client);
	else if (!strcmp(verb, "synced"))
		ask_synced(s, client);
	else
		control_end(client, REPL_EXIT_USAGE, "no such request");
}

// SPDX-License-Identifier: GPL-2.0-only
/* Session: its life, the clock, and what pair.c wants done. See session.h. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "reload.h"
#include "role.h"
#include "session-i.h"
#include "units.h"

#define RETRY_MS 1000		/* until the next attempt to connect */
#define LOOK_MS 100		/* between two looks at the kernel, for its events' sake */
#define RESYNC_MS 2000		/* until the next attempt to send what was missed */

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

uint64_t now_ms(void)
{
	return now_us() / 1000;
}

/**
 * session_failed() - something of a checkpoint has failed: for the log and the status
 * @s: session
 * @why: words
 */
void session_failed(struct session *s, const char *why)
{
	say(s, 3, "%s", why);
	snprintf(s->last_error, sizeof(s->last_error), "%.250s", why);
}

/**
 * session_hook_env() - the environment of a hook of a checkpoint
 * @s: session
 * @resource: memory
 * @id: memory
 * @env: out; points to the two above
 */
void session_hook_env(struct session *s, char resource[80], char id[48], char *env[3])
{
	snprintf(resource, 80, "REPL_RESOURCE=%s", s->config->name);
	snprintf(id, 48, "REPL_CHECKPOINT=%llu", (unsigned long long)s->pair.id);
	env[0] = resource;
	env[1] = id;
	env[2] = NULL;
}

/*
 * ---- The protocol's actions ----
 */

static void act_result(struct session *s, const struct pair_action *action)
{
	struct json_object *event = event_new("checkpoint");
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	json_object_object_add(event, "checkpoint", json_object_new_uint64(action->id));
	json_object_object_add(event, "good", json_object_new_boolean(action->good));
	if (action->good) {
		s->last_when = t.tv_sec + t.tv_nsec / 1e9;
		if (s->began)
			s->last_duration = now_us() - s->began;
		s->last_error[0] = 0;
		s->resync_wait = 0;
		s->unsettle |= s->settled_at;
		s->settled_at = 0;
		s->settled = 0;
		s->why_apart[0] = 0;	/* it was believed, or all of it has been sent */
		say(s, 6, "checkpoint %llu", (unsigned long long)action->id);
	} else {
		if (!action->id && action->why)
			s->last_error[0] = 0;
		if (action->why)
			snprintf(s->last_error + strlen(s->last_error),
				 sizeof(s->last_error) - strlen(s->last_error), "%s%s",
				 s->last_error[0] ? "; " : "", action->why);
		json_object_object_add(event, "why", json_object_new_string(s->last_error));
		say(s, 4, "checkpoint %llu failed: %s", (unsigned long long)action->id,
		    s->last_error);
	}
	answer(s, WAIT_CHECKPOINT, !action->id ? UINT64_MAX :
	       s->pair.role == PAIR_PRIMARY ? s->begun : s->pair.answered,
	       action->good ? REPL_EXIT_OK : !action->id ? REPL_EXIT_REFUSED :
	       REPL_EXIT_FAILED, action->good ? NULL : s->last_error, event);
	tell(s, event);
}

static void act_send(struct session *s, const struct pair_action *action)
{
	unsigned char payload[FRAME_REPLY_MAX];

	switch (action->frame) {
	case FRAME_HELLO:
		send_hello(s);
		break;
	case FRAME_FAILED:
		send_frame(s, FRAME_FAILED, action->id, payload,
			   reply_encode(1, s->last_error[0] ? s->last_error : action->why,
					payload));
		break;
	case FRAME_REQUEST:
		s->begun++;
		s->late = false;
		s->began = now_us();
		s->next = now_ms() + s->config->interval;
		s->last_error[0] = 0;
		send_frame(s, FRAME_REQUEST, action->id, payload,
			   request_encode(s->pair.told, payload));
		break;
	default:
		send_frame(s, action->frame, action->id, NULL, 0);
	}
}

static void perform(struct session *s, const struct pair_action *action)
{
	switch (action->type) {
	case PAIR_SEND:
		act_send(s, action);
		break;
	case PAIR_SAVE:
		save_start(s);
		break;
	case PAIR_LOAD:
		load_start(s);
		break;
	case PAIR_DROP_STATE:
		state_drop(s);
		break;
	case PAIR_CANCEL:
		save_abort(s);
		break;
	case PAIR_CLOSE:
		if (s->conn)
			conn_close(s->conn, action->why);
		break;
	case PAIR_RESULT:
		act_result(s, action);
		break;
	default:
		op_start(s, action->type, action->id);
	}
}

/*
 * For tests/replctl: die when that phase begins ("sent"), or when what it begins with
 * has been started as well ("sent+"); or have the host's power cut by a command.
 */
static void test_kill(enum pair_phase phase, const char *when)
{
	const char *at = getenv("REPLCTL_TEST_KILL_AT"), *how = getenv("REPLCTL_TEST_KILL_BY");
	size_t n = strlen(pair_phase_name(phase));

	if (!at || strncmp(at, pair_phase_name(phase), n) || strcmp(at + n, when))
		return;
	if (!how)
		raise(SIGKILL);
	else if (!system(how))
		pause();
}

/**
 * session_feed() - an event for pair.c
 * @s: session
 * @event: event; what it leads to is done or begun before this returns
 */
void session_feed(struct session *s, const struct pair_event *event)
{
	enum pair_phase before = s->pair.phase;
	struct pair_actions actions;

	pair_event(&s->pair, event, &actions);
	if (s->pair.phase != before)
		test_kill(s->pair.phase, "");
	if (s->pair.phase == PAIR_REQUESTED && before != PAIR_REQUESTED)
		s->last_error[0] = 0;
	if (s->pair.phase == PAIR_COLLECTING && before != PAIR_COLLECTING)
		state_begin(s);
	for (unsigned int i = 0; i < actions.nr; i++)
		perform(s, &actions.action[i]);
	if (s->pair.phase != before)
		test_kill(s->pair.phase, "+");
	/* What the kernel said while a checkpoint was under way was not listened to. */
	if (s->pair.phase != before && s->pair.phase == PAIR_IDLE && s->pair.degraded)
		session_look_now(s);
	else if (s->pair.phase == PAIR_IDLE && s->unheard)
		session_look(s);
	/* The first checkpoint of a secondary that begins, when it lacks nothing. */
	if (s->first_wanted && s->pair.connected && !s->pair.degraded) {
		s->first_wanted = false;
		session_feed_type(s, PAIR_TRIGGER);
	}
	if (s->pair.phase == PAIR_IDLE && !s->pair.busy)
		ask_idle(s);
	if (s->leaving)
		session_leave(s);
}

/**
 * session_feed_type() - an event that has nothing but its type
 * @s: session
 * @type: type
 */
void session_feed_type(struct session *s, enum pair_event_type type)
{
	struct pair_event event = { .type = type };

	session_feed(s, &event);
}

/*
 * ---- Time ----
 */

static bool idle(const struct session *s)
{
	return s->pair.phase == PAIR_IDLE && !s->pair.busy && !s->resyncing;
}

static void tick_peer(struct session *s, uint64_t now)
{
	if (s->conn && s->open && now - s->pinged >= s->config->heartbeat) {
		/* Twice: it may be us who slept, and what it sent is not read yet. */
		if (now - s->heard > s->config->dead_after && ++s->silent > 1)
			conn_close(s->conn, "the peer is silent");
		else
			peer_ping(s);
	}
	if (!s->conn && s->pair.role == PAIR_PRIMARY && now - s->tried >= RETRY_MS &&
	    now >= s->not_before && !s->leaving)
		peer_connect(s);
	/* It may have been lost just now, after @now. */
	if (s->lost && s->had_peer && !s->policy_ran && !s->leaving &&
	    now >= s->lost && now - s->lost >= s->config->dead_after)
		peer_loss(s);
}

/* A periodic checkpoint; with a link that is too slow at times, as soon as the peer has caught up. */
static bool is_due(const struct session *s)
{
	const struct pair *pair = &s->pair;

	return s->config->interval && pair->role == PAIR_PRIMARY && !s->paused && !s->leaving &&
	       now_ms() >= s->next && !(pair->connected && pair->degraded && pair->coming);
}

static void tick_checkpoint(struct session *s)
{
	uint64_t now = now_ms();

	if (s->pair.phase != PAIR_IDLE && s->began && !s->late &&
	    now > s->began / 1000 + s->config->checkpoint_timeout) {
		s->late = true;
		session_feed_type(s, PAIR_TIMEOUT);
	}
	if (!is_due(s))
		return;
	s->next = now + s->config->interval;
	if (s->pair.connected && !s->pair.degraded)
		session_feed_type(s, PAIR_TRIGGER);
}

/* One that has failed is not all: the secondary has none yet. */
static void tick_first(struct session *s)
{
	if (idle(s) && !s->leaving)
		op_first_synced(s);
	if (s->pair.role == PAIR_PRIMARY && s->pair.blank && s->pair.running &&
	    s->pair.connected && !s->pair.degraded && idle(s) && !s->leaving)
		session_feed_type(s, PAIR_TRIGGER);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg)
{
	struct session *s = arg;
	uint64_t now = now_ms(), step = s->config->heartbeat;

	tick_peer(s, now);
	if (now - s->resynced >= RESYNC_MS) {
		s->resynced = now;
		op_resync(s);
		op_settle(s);
		op_anew(s);
		op_export(s);
		op_promote(s);
		op_unexport(s);
		tick_first(s);
	}
	ask_tick(s);
	if (s->pair.role == PAIR_PRIMARY)
		tick_checkpoint(s);
	if (s->left)
		return 0;
	if (s->config->interval && s->config->interval < step)
		step = s->config->interval;
	if (step > RETRY_MS)
		step = RETRY_MS;
	sd_event_source_set_time_relative(source, step * 1000);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/**
 * session_look_now() - what does the kernel say?
 * @s: session; it may have left when this returns
 */
void session_look_now(struct session *s)
{
	struct pair_event event = { .type = PAIR_KERNEL };
	struct repl_error error;

	if (s->left)
		return;
	s->looked = now_ms();
	s->unheard = s->pair.phase != PAIR_IDLE;
	sd_event_source_set_enabled(s->look, SD_EVENT_OFF);
	if (!resource_kernel(&s->resource, &event.kernel, &error)) {
		event.kernel.coming |= op_resync_comes(s, &event.kernel);
		/* The worker waits for the peer: a checkpoint would wait for the worker. */
		event.kernel.attached &= !s->settling;
		if (event.kernel.partly_over)
			session_new_life(s);
		session_feed(s, &event);
		s->resync_took |= !s->pair.degraded;
		if (!s->pair.degraded)
			s->why_behind[0] = 0;	/* whoever has sent it */
		tell_text(s, "changed", NULL, NULL);
		op_promote(s);
		if (!s->left && is_due(s))
			sd_event_source_set_time_relative(s->tick, 0);
	} else if (idle(s) && !s->leaving) {
		say(s, 5, "is not up any more: %s", error.text);
		session_leave(s);
	}
}

static int on_look(sd_event_source *source, uint64_t usec, void *arg)
{
	session_look_now(arg);
	return 0;
}

/* Each checkpoint has events of its own, and each look costs as much as a part of one. */
void session_look(struct session *s)
{
	int on = 0;

	if (s->left || (sd_event_source_get_enabled(s->look, &on) >= 0 && on))
		return;
	if (s->pair.phase == PAIR_IDLE && now_ms() - s->looked >= LOOK_MS) {
		session_look_now(s);
		return;
	}
	sd_event_source_set_time_relative(s->look, LOOK_MS * 1000);
	sd_event_source_set_enabled(s->look, SD_EVENT_ONESHOT);
}

/*
 * ---- Another configuration ----
 */

static void take_keys(struct session *s, unsigned char keys[2][KEY_SIZE], unsigned int nr)
{
	memcpy(s->keys, keys, sizeof(s->keys));
	s->nr_keys = nr;
}

/* Counted from the last one: it may be due now. */
static void new_interval(struct session *s, uint64_t was)
{
	uint64_t last = s->next > was ? s->next - was : 0;

	if (s->config->interval != was)
		s->next = (was ? last : now_ms()) + s->config->interval;
}

int session_reload(struct session *s, struct repl_config *fresh,
		   void (*note)(const char *text, void *context), void *context,
		   struct repl_error *error)
{
	bool plaintext = s->config->plaintext;
	uint64_t interval = s->config->interval;
	unsigned char keys[2][KEY_SIZE] = { 0 };
	unsigned int nr;
	int r = peer_keys(fresh, keys, &nr, error);

	if (!r) {
		reload_fixed(s->config, fresh, note, context);
		if (plaintext == fresh->plaintext)
			take_keys(s, keys, nr);
		reload_take(s->config, fresh);
		worker_renew(s->worker);
		new_interval(s, interval);
		sd_event_source_set_time_relative(s->tick, 0);
	}
	key_wipe(keys[0]);
	key_wipe(keys[1]);
	config_free(fresh);
	return r;
}

/*
 * ---- Begin and end ----
 */

/* Which boot of this host it is; if that cannot be had, each start of us counts. */
static void our_boot(unsigned char boot[FRAME_BOOT_SIZE])
{
	const char *path = getenv("REPLCTL_TEST_BOOT_ID");
	FILE *f = fopen(path ? path : "/proc/sys/kernel/random/boot_id", "re");
	char text[64] = "";

	if (f && fgets(text, sizeof(text), f))
		text[strcspn(text, "\n")] = 0;
	if (f)
		fclose(f);
	if (uuid_parse(text, boot) && getrandom(boot, FRAME_BOOT_SIZE, 0) != FRAME_BOOT_SIZE)
		memset(boot, 0, FRAME_BOOT_SIZE);
}

/**
 * session_new_life() - what the peer knows of our disk may not be so any more
 * @s: session
 */
void session_new_life(struct session *s)
{
	if (getrandom(&s->life, sizeof(s->life), 0) != sizeof(s->life))
		s->life = 0;	/* one that is never the same */
}

static int begin(struct session *s, struct repl_error *error)
{
	int r = peer_keys(s->config, s->keys, &s->nr_keys, error);

	if (!r)
		r = resource_lock(&s->resource, &s->lock, error);
	if (!r)
		r = resource_kernel(&s->resource, &s->first, error);
	if (r)
		return r;
	s->worker = op_worker(s);
	if (!s->worker)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	if (s->config->release && journal_is_held(&s->resource)) {
		s->release = strdup(s->config->release);
		if (!s->release)
			return error_set(error, REPL_EXIT_FAILED, "out of memory");
	}
	r = sd_event_add_time_relative(s->event, &s->tick, CLOCK_MONOTONIC, 0, 1000, on_tick, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->tick, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(s->event, &s->look, CLOCK_MONOTONIC, 0, 1000,
					       on_look, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->look, SD_EVENT_OFF);
	return r < 0 ? error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r)) : 0;
}

int session_new(sd_event *event, struct repl_config *config, unsigned int here,
		const struct session_ops *ops, void *context, struct session **session,
		struct repl_error *error)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	s->event = event;
	s->ops = ops;
	s->context = context;
	s->config = config;
	s->resource.config = config;
	s->resource.here = here;
	s->lock = -1;
	s->save_fd = -1;
	s->state_fd = -1;
	our_boot(s->boot);
	session_new_life(s);
	r = role_find(&s->resource, false, error);
	pair_init(&s->pair, resource_role(&s->resource));
	if (!r)
		r = begin(s, error);
	if (r) {
		s->config = NULL;	/* the caller's */
		session_free(s);
		return r;
	}
	*session = s;
	return 0;
}

void session_start(struct session *s)
{
	struct pair_event event = { .type = PAIR_START, .kernel = s->first };

	say(s, 6, "%s", s->pair.role == PAIR_PRIMARY ? "primary" : "secondary");
	s->unexport = s->first.partly_over;
	s->unsettle = s->pair.role == PAIR_PRIMARY;	/* what a daemon before us has left */
	event.journal = journal_read(&s->resource);
	event.kernel.held |= journal_is_held(&s->resource);
	if (!event.kernel.held && !event.kernel.prepared) {
		journal_clear(&s->resource);	/* of something that is over */
		event.journal = 0;
	}
	sd_event_source_set_enabled(s->tick, SD_EVENT_ONESHOT);
	session_feed(s, &event);
}

static int on_left(sd_event_source *source, void *arg)
{
	struct session *s = arg;

	s->ops->left(s, s->context);
	return 0;
}

void session_leave(struct session *s)
{
	struct repl_conn *conn;

	s->leaving = true;
	if (s->policy)
		work_cancel(s->policy);		/* its end brings us back */
	if (!idle(s) || s->policy || s->left)
		return;
	if (sd_event_add_defer(s->event, &s->left, on_left, s) < 0)
		abort();
	/* The peer is told, so that it does not take us for dead. */
	send_frame(s, FRAME_BYE, 0, NULL, 0);
	conn = s->conn;
	s->conn = NULL;
	conn_free(conn);
	s->open = false;
	meet_reset(s);
	answer_all(s, REPL_EXIT_FAILED, "the daemon has let go of the resource");
	sd_event_source_set_enabled(s->tick, SD_EVENT_OFF);
	sd_event_source_set_enabled(s->look, SD_EVENT_OFF);
	say(s, 6, "ends");
}

void session_free(struct session *s)
{
	if (!s)
		return;
	conn_free(s->conn);
	meet_reset(s);
	save_close(s);
	state_drop(s);
	key_wipe(s->keys[0]);
	key_wipe(s->keys[1]);
	sd_event_source_disable_unref(s->tick);
	sd_event_source_disable_unref(s->look);
	sd_event_source_disable_unref(s->left);
	worker_free(s->worker);
	/* Closing is enough, but for a worker that is busy: that is its purpose. */
	if (s->lock >= 0)
		close(s->lock);
	free(s->release);
	config_free(s->config);
	free(s);
}

const struct repl_config *session_config(const struct session *s)
{
	return s->config;
}

const struct repl_address *session_address(const struct session *s)
{
	const struct repl_address *address = &s->config->host[s->resource.here].address;

	/* A primary hears of another one so. */
	return !s->leaving && (s->pair.role == PAIR_SECONDARY || address->type == REPL_TCP) ?
	       address : NULL;
}

bool session_must_listen(const struct session *s)
{
	return s->pair.role == PAIR_SECONDARY;
}

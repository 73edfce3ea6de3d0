// SPDX-License-Identifier: GPL-2.0-only
/* Session: the connection to the peer, and what is done when the peer is lost. */
#include <stdio.h>
#include <string.h>

#include "session-i.h"

#define PROTOCOL 6	/* what we speak: Documentation/protocol.rst, HELLO */

/*
 * ---- Keys ----
 */

/**
 * peer_keys() - read the keys of a configuration
 * @config: configuration
 * @keys: out, for key_wipe()
 * @nr: out: how many; 0: plaintext
 * @error: filled in on -1, as by key_load()
 */
int peer_keys(const struct repl_config *config, unsigned char keys[2][KEY_SIZE],
	      unsigned int *nr, struct repl_error *error)
{
	*nr = 0;
	if (config->plaintext)
		return 0;
	if (key_load(config->key, keys[0], error))
		return -1;
	*nr = 1;
	if (!config->old_key)
		return 0;
	if (key_load(config->old_key, keys[1], error)) {
		key_wipe(keys[0]);
		return -1;
	}
	*nr = 2;
	return 0;
}

bool session_keys(const struct session *s, struct repl_conn_tls *tls)
{
	tls->resource = s->config->name;
	tls->keys = s->keys;
	tls->nr_keys = s->nr_keys;
	return s->nr_keys;
}

/* During a rotation the peer may have the other one only. */
static void swap_keys(struct session *s)
{
	unsigned char key[KEY_SIZE];

	memcpy(key, s->keys[0], KEY_SIZE);
	memcpy(s->keys[0], s->keys[1], KEY_SIZE);
	memcpy(s->keys[1], key, KEY_SIZE);
	key_wipe(key);
}

/*
 * ---- Sending ----
 */

/**
 * send_frame() - to the peer, if it is there
 * @s: session
 * @type: of the frame
 * @id: of the checkpoint, or 0
 * @payload: bytes
 * @length: of @payload
 */
void send_frame(struct session *s, enum repl_frame_type type, uint64_t id,
		const void *payload, size_t length)
{
	struct repl_frame frame = {
		.type = type, .id = id, .length = length, .payload = payload,
	};
	struct repl_error error;

	if (s->conn && s->open && conn_send(s->conn, &frame, &error))
		conn_close(s->conn, error.text);
}

/**
 * send_hello() - PAIR_SEND of HELLO: with what the kernel says now
 * @s: session
 */
void send_hello(struct session *s)
{
	unsigned char payload[FRAME_HELLO_SIZE];
	struct repl_hello hello = {
		.protocol_min = PROTOCOL, .protocol_max = PROTOCOL,
		.role = s->pair.role == PAIR_PRIMARY ? HELLO_PRIMARY : HELLO_SECONDARY,
		.nr_volumes = s->config->volumes,
	};
	struct pair_kernel kernel;
	struct repl_error error;

	if (resource_kernel(&s->resource, &kernel, &error)) {
		say(s, 3, "%s", error.text);
		if (s->conn)
			conn_close(s->conn, "our devices are not up");
		return;
	}
	if (s->pair.role == PAIR_SECONDARY) {
		hello.checkpoint = kernel.oldest;
		hello.prepared = kernel.prepared;
		hello.life = s->life;
		hello.stage = kernel.partly_over ? HELLO_STAGE_FAILOVER : kernel.running ?
			      HELLO_STAGE_RUNNING : kernel.blank ? HELLO_STAGE_NONE :
			      HELLO_STAGE_DONE;
	}
	memcpy(hello.boot, s->boot, sizeof(hello.boot));
	snprintf(hello.resource, sizeof(hello.resource), "%s", s->config->name);
	snprintf(hello.host, sizeof(hello.host), "%s",
		 s->config->host[s->resource.here].name);
	hello_encode(&hello, payload);
	send_frame(s, FRAME_HELLO, 0, payload, sizeof(payload));
	meet_greeted(s);
}

/*
 * ---- The connection ----
 */

/**
 * peer_ping() - is the peer of this connection still there?
 * @s: session
 *
 * Return: the number of the PONG that says so.
 */
uint64_t peer_ping(struct session *s)
{
	s->pinged = now_ms();
	send_frame(s, FRAME_PING, 0, NULL, 0);
	return ++s->pings;
}

static void peer_opened(struct repl_conn *conn, void *context)
{
	struct session *s = context;

	/* A peer that connects anew has given up the old connection. */
	if (s->conn && s->conn != conn)
		conn_close(s->conn, "the peer has connected again");
	meet_reset(s);
	s->conn = conn;
	s->open = true;
	s->heard = now_ms();
	s->silent = 0;
	s->connection++;
	s->pings = 0;
	s->pongs = 0;
	s->resync_pong = 0;
	s->anew = 0;
	s->anew_asked = 0;
	s->anew_resync = false;
	session_feed_type(s, PAIR_OPENED);
}

static void peer_closed(struct repl_conn *conn, const char *why, void *context)
{
	struct session *s = context;
	bool open = s->open, news = !s->lost || strcmp(s->why_lost, why);

	/* One that refuses us, or that we refuse, is tried again each second. */
	if (news)
		say(s, 4, "peer: %s", why);
	snprintf(s->why_lost, sizeof(s->why_lost), "%.250s", why);
	if (conn_key_refused(conn) && s->nr_keys == 2)
		swap_keys(s);
	conn_free(s->conn);
	s->conn = NULL;
	s->open = false;
	meet_reset(s);
	if (!s->lost)
		s->lost = now_ms();
	/* It has taken over, and says so in its next HELLO: until then nobody works. */
	if (s->rejoin) {
		s->rejoin = false;
		s->tried = 0;
		sd_event_source_set_time_relative(s->tick, 0);
	}
	if (s->save_source)	/* nobody will read on: let the hook see that */
		sd_event_source_set_enabled(s->save_source, SD_EVENT_ON);
	if (open && news)
		tell_text(s, "disconnected", "why", why);
	if (open)
		session_feed_type(s, PAIR_CLOSED);
}

/* It is not our peer: it hears why. */
static void peer_refuse(struct session *s, const char *why)
{
	unsigned char payload[FRAME_REPLY_MAX];

	send_frame(s, FRAME_FAILED, 0, payload, reply_encode(1, why, payload));
	if (s->conn)
		conn_close(s->conn, why);
}

/*
 * Has the peer's host been rebooted since the kernel here knew all that it lacks? The
 * first that is ever heard of counts for that one: up and resync have seen to it.
 */
static bool peer_rebooted(struct session *s)
{
	unsigned char boot[FRAME_BOOT_SIZE];
	struct repl_error error;

	if (!journal_peer_boot(&s->resource, boot))
		return memcmp(boot, s->peer_boot, sizeof(boot));
	if (journal_write_peer_boot(&s->resource, s->peer_boot, &error))
		say(s, 3, "%s", error.text);
	return false;
}

/*
 * The two meet each few seconds while one of them has failed over: that is news for the log
 * and for the hooks the first time.
 */
static bool known_apart(const struct session *s, const struct pair_hello *hello)
{
	return s->lost && (s->pair.over || (s->pair.diverged && hello->over));
}

static void peer_met(struct session *s, const char *host)
{
	if (s->lost || !s->had_peer) {
		s->resync_wait = 0;
		say(s, 6, "connected to %s", host);
		tell_text(s, "connected", "host", host);
	}
	s->lost = 0;
	s->why_lost[0] = 0;
	s->had_peer = true;
	s->policy_ran = false;
}

static void peer_hello(struct session *s, const struct repl_frame *frame)
{
	struct pair_event event = { .type = PAIR_FRAME, .frame = FRAME_HELLO };
	struct repl_error error;
	struct repl_hello hello;

	if (hello_decode(frame, &hello, &error)) {
		conn_close(s->conn, error.text);
		return;
	}
	if (hello.protocol_min > PROTOCOL || hello.protocol_max < PROTOCOL) {
		peer_refuse(s, hello.protocol_max < PROTOCOL ?
			    "the peer speaks an older protocol only: it needs this version of replctl" :
			    "the peer speaks a newer protocol only: this host needs its version of replctl");
		return;
	}
	if (strcmp(hello.resource, s->config->name)) {
		peer_refuse(s, "the peer has another resource at this address");
		return;
	}
	if (strcmp(hello.host, s->config->host[!s->resource.here].name) ||
	    hello.nr_volumes != s->config->volumes) {
		peer_refuse(s, "the peer has another configuration");
		return;
	}
	event.hello.role = hello.role == HELLO_PRIMARY ? PAIR_PRIMARY :
			   hello.role == HELLO_SECONDARY ? PAIR_SECONDARY : PAIR_NO_ROLE;
	event.hello.running = hello.stage == HELLO_STAGE_RUNNING;
	event.hello.over = hello.stage == HELLO_STAGE_FAILOVER ||
			   hello.stage == HELLO_STAGE_FAILOVER_FAILED;
	event.hello.checkpoint = hello.checkpoint;
	memcpy(s->peer_boot, hello.boot, sizeof(s->peer_boot));
	s->peer_life = hello.life;
	event.hello.rebooted = s->pair.role == PAIR_PRIMARY && peer_rebooted(s);
	if (event.hello.rebooted && !s->pair.rebooted)
		say(s, 5, "%s has been rebooted: what was written since the last checkpoint is sent again",
		    hello.host);
	if (!known_apart(s, &event.hello))
		peer_met(s, hello.host);
	meet_hello(s, &event, hello.stage == HELLO_STAGE_NONE);
}

static void peer_failed(struct session *s, const struct repl_frame *frame,
			struct pair_event *event)
{
	struct repl_reply reply;
	struct repl_error error;
	char why[300];

	if (reply_decode(frame, &reply, &error)) {
		conn_close(s->conn, error.text);
		return;
	}
	/* Of no checkpoint: it does not want us, or not what we asked for. */
	if (!frame->id && !(s->pair.connected && s->pair.role == PAIR_SECONDARY)) {
		snprintf(why, sizeof(why), "refused by the peer: %.250s", reply.text);
		conn_close(s->conn, why);
		return;
	}
	snprintf(s->last_error, sizeof(s->last_error), "peer: %.200s", reply.text);
	session_feed(s, event);
}

static void peer_anew(struct session *s, const struct repl_frame *frame)
{
	unsigned int volumes = s->config->volumes;

	if (!frame->id || (volumes < 64 && frame->id >> volumes)) {
		conn_close(s->conn, "the peer sent an ANEW of no volume");
	} else if (s->pair.role == PAIR_SECONDARY) {
		s->anew |= frame->id;
		op_anew(s);
	} else if (frame->id != s->anew_asked) {
		conn_close(s->conn, "the peer sent an ANEW that nobody waits for");
	} else {
		op_fresh(s);
	}
}

static void peer_frame(struct repl_conn *conn, const struct repl_frame *frame, void *context)
{
	struct pair_event event = { .type = PAIR_FRAME, .id = frame->id, .good = true };
	struct session *s = context;
	struct repl_state_end end;
	struct repl_error error;

	s->heard = now_ms();
	s->silent = 0;
	if (!s->pair.connected && frame->type != FRAME_HELLO && frame->type != FRAME_PING &&
	    frame->type != FRAME_PONG && (frame->type != FRAME_FAILED || frame->id) &&
	    (frame->type != FRAME_IDENTITY || !s->meet.heard)) {
		conn_close(conn, "the peer did not say HELLO first");
		return;
	}
	if (meet_frame(s, frame))
		return;
	event.frame = frame->type;
	switch (frame->type) {
	case FRAME_HELLO:
		peer_hello(s, frame);
		return;
	case FRAME_PING:
		send_frame(s, FRAME_PONG, 0, NULL, 0);
		return;
	case FRAME_PONG:
		s->pongs++;
		ask_met(s, false);
		op_pong(s);
		return;
	case FRAME_REPLY:
	case FRAME_STATE_SIZE:
	case FRAME_PAUSED:
	case FRAME_RELEASED:
		return;
	case FRAME_BYE:
		s->policy_ran = true;	/* it is not lost: somebody has ended it */
		conn_close(conn, "the peer's daemon was ended");
		return;
	case FRAME_REQUEST:
		if (request_decode(frame, &event.wish, &error)) {
			conn_close(conn, error.text);
			return;
		}
		break;
	case FRAME_WANT:
		session_look_now(s);
		if (s->leaving)
			return;
		break;
	case FRAME_SWITCH:
		if (s->pair.role != PAIR_SECONDARY) {
			conn_close(conn, "the peer sent a frame that a secondary never sends");
			return;
		}
		say(s, 5, "the primary lets go: taking over");
		s->switching = true;
		session_feed_type(s, PAIR_ASK_FAILOVER);
		return;
	case FRAME_ANEW:
		peer_anew(s, frame);
		return;
	case FRAME_STATE_DATA:
		if (s->pair.phase == PAIR_COLLECTING && frame->id == s->pair.id)
			state_add(s, frame->payload, frame->length);
		return;
	case FRAME_STATE_END:
		if (state_end_decode(frame, &end, &error)) {
			conn_close(conn, error.text);
			return;
		}
		event.good = state_whole(s, &end);
		break;
	case FRAME_FAILED:
		peer_failed(s, frame, &event);
		return;
	default:
		break;
	}
	session_feed(s, &event);
}

static void peer_writable(struct repl_conn *conn, void *context)
{
	struct session *s = context;

	if (s->save_source && !s->save_eof)
		sd_event_source_set_enabled(s->save_source, SD_EVENT_ON);
	meet_writable(s);
}

static const struct repl_conn_ops peer_ops = {
	.opened = peer_opened,
	.frame = peer_frame,
	.closed = peer_closed,
	.writable = peer_writable,
};

void session_accept(struct session *s, struct repl_conn *conn,
		    const struct repl_frame *hello)
{
	/* Two primaries, who connect to each other: one connection is enough for that. */
	if (s->pair.role == PAIR_PRIMARY && s->conn && (s->open || !s->resource.here)) {
		conn_close(conn, "this primary has a connection");
		return;
	}
	conn_set_ops(conn, &peer_ops, s);
	peer_opened(conn, s);
	if (hello && s->conn == conn)
		peer_frame(conn, hello, s);
}

/**
 * peer_connect() - the primary's: begin to connect
 * @s: session
 */
void peer_connect(struct session *s)
{
	const struct repl_address *address = &s->config->host[!s->resource.here].address;
	struct repl_conn_tls tls;
	struct repl_error error;

	s->tried = now_ms();
	if (!conn_connect(s->event, address, session_keys(s, &tls) ? &tls : NULL,
			  s->config->dead_after, &peer_ops, s, &s->conn, &error))
		return;
	s->conn = NULL;
	if (strcmp(s->why_lost, error.text)) {
		say(s, 4, "peer: %s", error.text);
		snprintf(s->why_lost, sizeof(s->why_lost), "%.250s", error.text);
	}
}

/*
 * ---- The peer is lost ----
 */

static void fenced(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->policy = NULL;
	if (s->leaving) {
		session_leave(s);
		return;
	}
	if (!good) {
		say(s, 3, "no failover: %s", error->text);
		tell_text(s, "fence_failed", "why", error->text);
		return;
	}
	say(s, 5, "the primary is fenced: failing over");
	session_feed_type(s, PAIR_ASK_FAILOVER);
}

static void hook_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	s->policy = NULL;
	if (!good)
		say(s, 4, "%s", error->text);
	if (s->leaving)
		session_leave(s);
}

/**
 * peer_loss() - it has been away for longer than dead_after: do as configured
 * @s: session
 */
void peer_loss(struct session *s)
{
	char name[80], why[300], *env[] = { name, why, NULL };
	const struct repl_config *config = s->config;
	struct repl_error error;
	int r = 0;

	s->policy_ran = true;
	tell_text(s, "peer_lost", "why", s->why_lost);
	snprintf(name, sizeof(name), "REPL_RESOURCE=%s", config->name);
	snprintf(why, sizeof(why), "REPL_WHY=%s", s->why_lost);
	if (s->policy)
		say(s, 4, "the peer is lost again, and a hook for that runs still");
	else if (config->peer_loss == REPL_PEER_LOSS_HOOK)
		r = work_hook(s->event, "the peer_loss hook", config->peer_loss_hook, env,
			      -1, -1, config->checkpoint_timeout, hook_ended, s, &s->policy,
			      &error);
	else if (config->peer_loss == REPL_PEER_LOSS_FAILOVER &&
		 s->pair.role == PAIR_SECONDARY && !s->pair.over)
		r = work_hook(s->event, "the fence hook", config->fence, env, -1, -1,
			      config->checkpoint_timeout, fenced, s, &s->policy, &error);
	if (r)
		say(s, 3, "%s", error.text);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of a session share, and nobody else sees:
 *
 *	session.c	its life, the clock, what pair.c wants done
 *	session-op.c	what takes time in the kernel
 *	session-state.c	the save and load hooks, and what they give and take
 *	session-peer.c	the connection
 *	session-meet.c	whose history either side has, and what follows from that
 *	session-ask.c	requests, and events for whoever listens
 */
#ifndef REPLCTL_SESSION_I_H
#define REPLCTL_SESSION_I_H

#include <stdio.h>

#include "coalesce.h"
#include "identity.h"
#include "journal.h"
#include "log.h"
#include "pair.h"
#include "resource.h"
#include "session.h"
#include "work.h"

#define MAX_WAITERS 64

struct waiter {
	struct repl_client *client;
	enum {
		WAIT_CHECKPOINT, WAIT_FAILOVER, WAIT_EVENTS, WAIT_SWITCH, WAIT_SYNC,
		WAIT_SYNC_FULL, WAIT_ANEW,
	} what;
	uint64_t from;			/* WAIT_CHECKPOINT: not one that began before */
					/* WAIT_SYNC..., WAIT_ANEW: ms: not longer */
	uint64_t pong;			/* WAIT_SYNC...: not before that one */
};

struct session {
	sd_event *event;
	const struct session_ops *ops;
	void *context;
	struct repl_config *config;	/* changes in place: see session_reload() */
	struct repl_resource resource;
	struct pair_kernel first;	/* what it said at the start */
	struct pair pair;
	int lock;
	bool leaving;
	sd_event_source *left;		/* left() is on its way */

	/* session-peer.c */
	struct repl_conn *conn;
	bool open;			/* conn's handshake is over */
	uint64_t heard;			/* ms: last byte of the peer */
	unsigned int silent;		/* ticks since it should have been heard */
	uint64_t pinged;		/* ms */
	uint64_t connection;		/* a number for each */
	uint64_t pings, pongs;		/* on this one: sent, and answered */
	uint64_t tried;			/* ms: last attempt to connect */
	uint64_t not_before;		/* ms: the next one */
	uint64_t lost;			/* ms: since when there is no peer; 0: there is */
	bool had_peer;
	bool policy_ran;
	struct repl_work *policy;	/* the hook of peer_loss or fence */
	char why_lost[256];
	unsigned char keys[2][KEY_SIZE];
	unsigned int nr_keys;		/* 0: plaintext */
	unsigned char boot[FRAME_BOOT_SIZE];
	unsigned char peer_boot[FRAME_BOOT_SIZE];	/* as HELLO said */

	/* session-meet.c */
	struct {
		bool greeted;		/* our HELLO is out on this connection */
		bool heard;		/* the peer's has come, and waits for its IDENTITYs */
		bool told;		/* ours are out */
		bool blank;		/* as the secondary's HELLO says */
		unsigned int nr;	/* of the peer's that have come */
		struct pair_event hello;
		struct repl_side ours[CONFIG_VOLUMES_MAX], theirs[CONFIG_VOLUMES_MAX];
		unsigned int volume;	/* whose changes are asked for, or given */
		bool fetching;		/* primary: not all is here */
		FILE *file;		/* what has come of them */
		unsigned int ranges;	/* in it */
		uint64_t sectors;	/* of that volume */
		sd_event_source *give;	/* secondary */
		uint64_t from;		/* sector */
		struct coalesce coalesce;
	} meet;
	char why_apart[2048];		/* why the two do not begin by themselves */
	bool adopt;			/* the lineage: after the next commit */
	uint64_t let_go;		/* ms: when the peer was told to take over; 0: never */
	bool first_wanted;		/* primary: a checkpoint, as soon as there can be one */

	/* session-state.c */
	struct repl_work *work;		/* the save or load hook */
	int save_fd;
	sd_event_source *save_source;
	bool save_eof, save_ended, save_good;
	int state_fd;			/* secondary: what was collected */
	bool state_bad;
	uint64_t state_size;
	uint32_t state_crc;

	/* session-op.c */
	struct repl_worker *worker;
	bool resyncing;			/* the worker does that, or op_export() */
	uint64_t anew;			/* secondary: the primary wants that; volumes */
	uint64_t anew_now;		/* what the worker does of it */
	uint64_t anew_on;		/* and for which connection */
	uint64_t anew_asked;		/* primary: the secondary was asked; volumes */
	bool anew_resync;		/* and a resync waits for it, not a client */
	uint64_t legs_until;		/* ms: till then somebody else connects them */
	unsigned char resync_boot[FRAME_BOOT_SIZE];	/* what the resync is for */
	uint64_t resync_on;		/* connection on which the import for it began */
	bool not_imported;		/* that one has failed, at least for one volume */
	uint64_t resync_pong;		/* the peer's disk is connected: behind that; 0: it is not */
	bool switching;			/* the primary wants us to take over: op_promote() */
	bool rejoin;			/* primary: the peer was told to; it will hang up */
	bool unexport;			/* there was a failover: op_unexport() */
	char why_behind[256];		/* that, or the last resync, could not begin */
	uint64_t resynced;		/* ms: when that was tried last */
	uint64_t life, peer_life;	/* of the secondary: see struct repl_hello */
	uint64_t settled;		/* volumes of which resource_settle() has something */
	uint64_t settled_life;		/* the peer's, then */
	bool settled_first;		/* of a secondary without a checkpoint */
	uint64_t settled_at;		/* ms: when it was begun last; 0: not since a checkpoint */
	bool settling;			/* the worker does that */
	bool unsettle;			/* there may be what it has left */
	bool first_sync;		/* the resync goes on with that one */
	uint64_t resync_began, resync_wait;	/* ms: the last one that did; until the next */
	bool resync_took;		/* and all of it was sent since */
	char *release;			/* the hook that the last hold needs still, or NULL */
	bool early;			/* that one's is before the state: none is saved */
	uint64_t held;			/* us: since when */

	sd_event_source *tick;
	sd_event_source *look;		/* session_look() is to be done, a moment later */
	uint64_t looked;		/* ms: when the kernel was last looked at */
	bool unheard;			/* in the middle of a checkpoint, which has no ear for it */
	uint64_t next;			/* ms: next periodic checkpoint */
	bool paused;
	uint64_t begun;			/* primary: how many checkpoints have */
	uint64_t began;			/* us: the one under way */
	bool late;			/* it has been told so */
	uint64_t last_duration, last_pause;	/* us */
	double last_when;		/* seconds since 1970 */
	char last_error[256];

	/* session-ask.c */
	struct waiter waiter[MAX_WAITERS];
	unsigned int nr_waiters;
};

#define say(s, level, ...) log_say(level, (s)->config->name, __VA_ARGS__)

uint64_t now_us(void);
uint64_t now_ms(void);

/* session.c */
void session_feed(struct session *s, const struct pair_event *event);
void session_feed_type(struct session *s, enum pair_event_type type);
void session_failed(struct session *s, const char *why);
void session_look_now(struct session *s);
void session_new_life(struct session *s);
void session_hook_env(struct session *s, char resource[80], char id[48], char *env[3]);

/* session-op.c */
struct repl_worker *op_worker(struct session *s);
void op_export(struct session *s);
void op_anew(struct session *s);
int op_ask_anew(struct session *s, struct repl_error *error);
bool op_legs_idle(const struct session *s);
void op_fresh(struct session *s);
bool op_resync_comes(const struct session *s, const struct pair_kernel *kernel);
void op_resync(struct session *s);
void op_settle(struct session *s);
void op_first_synced(struct session *s);
void op_pong(struct session *s);
void op_unexport(struct session *s);
void op_promote(struct session *s);
void op_start(struct session *s, enum pair_action_type type, uint64_t id);

/* session-state.c */
void save_start(struct session *s);
void save_abort(struct session *s);
void save_close(struct session *s);
void load_start(struct session *s);
void state_begin(struct session *s);
void state_add(struct session *s, const void *data, size_t size);
bool state_whole(const struct session *s, const struct repl_state_end *end);
void state_drop(struct session *s);

/* session-peer.c */
void send_frame(struct session *s, enum repl_frame_type type, uint64_t id,
		const void *payload, size_t length);
void send_hello(struct session *s);
uint64_t peer_ping(struct session *s);
void peer_connect(struct session *s);
void peer_loss(struct session *s);
int peer_keys(const struct repl_config *config, unsigned char keys[2][KEY_SIZE],
	      unsigned int *nr, struct repl_error *error);

/* session-meet.c */
void meet_reset(struct session *s);
void meet_greeted(struct session *s);
void meet_hello(struct session *s, const struct pair_event *event, bool blank);
void meet_synced(struct session *s);
bool meet_frame(struct session *s, const struct repl_frame *frame);
void meet_writable(struct session *s);
bool meet_may_full(const struct session *s);

/* session-ask.c */
struct json_object *event_new(const char *name);
void tell(struct session *s, struct json_object *event);
void tell_text(struct session *s, const char *name, const char *key, const char *text);
void answer(struct session *s, unsigned int what, uint64_t nr, enum repl_exit exit,
	    const char *text, struct json_object *line);
void answer_all(struct session *s, enum repl_exit exit, const char *text);
void ask_idle(struct session *s);
void ask_fresh(struct session *s);
void ask_met(struct session *s, bool anew);
void ask_tick(struct session *s);

#endif

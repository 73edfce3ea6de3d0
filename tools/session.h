/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Session: one resource, as the daemon serves it. It carries out what pair.c says and
 * finds the events that pair.c wants to hear of: frames and the end of the connection
 * (conn.h), the ends of operations and hooks (work.h), timers, requests (control.h).
 * Nothing in it blocks, and nothing in it knows of other resources: those are serve.c's.
 *
 *	session_new() --- session_start() --- session_leave() --- left() --- session_free()
 *
 * A session exists while the resource's devices do. When they are taken down it leaves;
 * when they come back, a new one begins with what the kernel says then.
 *
 * All state that matters is the kernel's. A daemon that is killed leaves two things to
 * the next: the journal (journal.h) and the lock, a file of the resource's that its
 * worker shares. No session begins before it has that lock, and none looks at the
 * kernel's state before that: what a worker was doing there must have ended. It also
 * keeps two daemons, or a daemon and 'replctl down', from one resource.
 */
#ifndef REPLCTL_SESSION_H
#define REPLCTL_SESSION_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "config.h"
#include "conn.h"
#include "control.h"

struct session;

struct session_ops {
	/* Once, from the loop: it has left, and is the callee's to free. */
	void (*left)(struct session *session, void *context);
};

/**
 * session_new() - take a resource
 * @event: the loop
 * @config: its configuration; on 0 the session's, to be freed with it
 * @here: index of this host
 * @ops: callbacks
 * @context: for them
 * @session: the result
 * @error: filled in unless 0: REPL_EXIT_CONFIG, REPL_EXIT_REFUSED (keys),
 *	REPL_EXIT_FAILED (the devices are not there)
 *
 * Return: 0; 1: somebody else has the lock, try again; -1.
 */
int session_new(sd_event *event, struct repl_config *config, unsigned int here,
		const struct session_ops *ops, void *context, struct session **session,
		struct repl_error *error);

/**
 * session_start() - begin: settle what a daemon before us left, connect
 * @s: new session, whose connections can be accepted
 */
void session_start(struct session *s);

/**
 * session_leave() - let go of the resource
 * @s: session
 *
 * A checkpoint under way comes to its end first, good or bad; the peer is told. Then
 * left() is called. Requests that wait are refused. Can be repeated.
 */
void session_leave(struct session *s);

/**
 * session_free() - forget it
 * @s: session that has left, or of a process that ends; or NULL
 */
void session_free(struct session *s);

/**
 * session_reload() - go on with another configuration
 * @s: session
 * @fresh: of the same resource; the session's, also on failure
 * @note: told of each thing that cannot change now, and keeps its value
 * @context: for @note
 * @error: filled in on -1
 *
 * What can change does so at once: times, hooks, keys. A checkpoint that holds the
 * workload is released by the hook that belongs to the one that held it.
 *
 * Return: 0, or -1 and nothing has changed.
 */
int session_reload(struct session *s, struct repl_config *fresh,
		   void (*note)(const char *text, void *context), void *context,
		   struct repl_error *error);

const struct repl_config *session_config(const struct session *s);

/**
 * session_address() - where does it wait for its peer?
 * @s: session
 *
 * Return: the address; NULL: it does not, for it is primary, and has no port.
 */
const struct repl_address *session_address(const struct session *s);

/**
 * session_must_listen() - is it of no use without its address?
 * @s: session
 *
 * Return: true for a secondary.
 */
bool session_must_listen(const struct session *s);

/**
 * session_keys() - whose handshakes are good
 * @s: session
 * @tls: out
 *
 * Return: false: it is plaintext.
 */
bool session_keys(const struct session *s, struct repl_conn_tls *tls);

/**
 * session_accept() - the peer has connected
 * @s: session
 * @conn: open connection; the session's now
 * @hello: a frame that has come on it already, or NULL
 */
void session_accept(struct session *s, struct repl_conn *conn,
		    const struct repl_frame *hello);

/**
 * session_look() - some device has had an event
 * @s: session
 */
void session_look(struct session *s);

/**
 * session_request() - somebody asks for something
 * @s: session
 * @client: who; control_end() comes at once or later
 * @verb: what
 */
void session_request(struct session *s, struct repl_client *client, const char *verb);

/**
 * session_client_gone() - whoever asked does not wait any more
 * @s: session
 * @client: who; may be unknown here
 */
void session_client_gone(struct session *s, struct repl_client *client);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connection: frames to and from the peer, over sd-event. Nothing here blocks.
 *
 *	CONNECTING ----> HANDSHAKE ----> OPEN ----> CLOSED
 *	     |               |                         ^
 *	     +---------------+-------------------------+
 *
 * CONNECTING and HANDSHAKE (which takes no time in plaintext) have a deadline;
 * a peer that is silent once the connection is open is the owner's to notice.
 * No byte from the peer is parsed as a frame before the handshake is over.
 *
 * A connection has an owner from the start: who called conn_connect(), or the
 * listener's accept(). The owner frees it with conn_free(). Every callback may
 * call every function here, conn_free() of its own connection too.
 *
 * TLS is 1.3 with ECDHE-PSK and nothing else. The identity that a client sends
 * is the resource that it is about, and a mark of its key: so one listener
 * serves many resources, each with keys of its own, and knows which one is
 * meant. A client has one key at a time, the first.
 */
#ifndef REPLCTL_CONN_H
#define REPLCTL_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "address.h"
#include "error.h"
#include "frame.h"
#include "key.h"

#define CONN_QUEUE_MAX		(1024 * 1024)	/* bytes of frames that wait to be sent */
#define CONN_QUEUE_LOW		(256 * 1024)	/* bytes: writable() is called below it */
#define CONN_HANDSHAKES_MAX	8		/* of a listener, at a time */
#define CONN_KEYS_MAX		2

struct repl_conn;
struct repl_conn_listener;

/* Any of them may be NULL. All are called from the event loop but closed(). */
struct repl_conn_ops {
	/* The handshake is over: conn_send() works from now on. */
	void (*opened)(struct repl_conn *conn, void *context);
	/* The payload is gone after the call. */
	void (*frame)(struct repl_conn *conn, const struct repl_frame *frame, void *context);
	/* Once, also after conn_close(), but not after conn_free(). */
	void (*closed)(struct repl_conn *conn, const char *why, void *context);
	/* The queue was above CONN_QUEUE_LOW, and is not any more. */
	void (*writable)(struct repl_conn *conn, void *context);
};

struct repl_conn_tls {
	const char *resource;			/* a client's: copied */
	const unsigned char (*keys)[KEY_SIZE];	/* copied */
	unsigned int nr_keys;			/* 1 to CONN_KEYS_MAX */
};

/*
 * A client wants to speak of @resource, a good name: @tls gets its keys. False: it is
 * not served here.
 */
typedef bool conn_keys_fn(const char *resource, struct repl_conn_tls *tls, void *context);

/**
 * conn_connect() - begin to connect to the peer
 * @event: the loop; a reference is kept
 * @address: where; copied. A host of REPL_TCP must be a number, because
 *	looking up a name would block. The descriptor of REPL_FD is duplicated; it
 *	must be a stream socket that is connected, and becomes non-blocking and
 *	close-on-exec.
 * @tls: keys, as a TLS client; NULL: plaintext
 * @timeout_ms: for all until opened(), not 0
 * @ops: must live as long as the connection
 * @context: for @ops
 * @conn: the result, for conn_free()
 * @error: set on failure: REPL_EXIT_CONFIG (not a number), REPL_EXIT_PEER (it
 *	failed at once), REPL_EXIT_FAILED
 *
 * The command of REPL_EXEC gets a session of its own, and SIGTERM when the
 * connection ends.
 *
 * Return: 0, and then either opened() or closed() follows, from the loop; or -1.
 */
int conn_connect(sd_event *event, const struct repl_address *address,
		 const struct repl_conn_tls *tls, unsigned int timeout_ms,
		 const struct repl_conn_ops *ops, void *context, struct repl_conn **conn,
		 struct repl_error *error);

/*
 * There is a new connection; the handshake comes next. It is the callee's now,
 * who calls conn_set_ops(), or conn_free() if it is not wanted. Until conn_keep() it
 * counts as in handshake.
 */
typedef void conn_accept_fn(struct repl_conn *conn, void *context);

/**
 * conn_listen() - wait for the peer
 * @event: the loop; a reference is kept
 * @address: where; copied, and as for conn_connect(); but not REPL_EXEC. The
 *	socket of REPL_UNIX gets mode 0600; one that is there already is replaced
 *	if nobody listens on it. REPL_FD may be a listening socket, or one that is
 *	connected: then that is the one connection.
 * @keys: looks up the keys of a TLS server; NULL: plaintext
 * @timeout_ms: for each handshake, and until conn_keep(); not 0
 * @accept: called for each connection
 * @context: for @keys and @accept
 * @listener: the result, for conn_listener_free()
 * @error: set on failure: REPL_EXIT_CONFIG, REPL_EXIT_FAILED
 *
 * There are at most CONN_HANDSHAKES_MAX connections in handshake: one more, and
 * the oldest is closed. So whoever floods us delays the peer, but cannot keep
 * it out by holding connections.
 *
 * Return: 0, or -1.
 */
int conn_listen(sd_event *event, const struct repl_address *address,
		conn_keys_fn *keys, unsigned int timeout_ms, conn_accept_fn *accept,
		void *context, struct repl_conn_listener **listener, struct repl_error *error);

/**
 * conn_listener_wait() - give handshakes from now on at least so long
 * @listener: listener
 * @timeout_ms: for each
 */
void conn_listener_wait(struct repl_conn_listener *listener, unsigned int timeout_ms);

/**
 * conn_listener_free() - listen no more
 * @listener: or NULL
 *
 * Closes the connections that are in handshake; leaves the others alone.
 * Removes the socket of REPL_UNIX if it is still this listener's.
 */
void conn_listener_free(struct repl_conn_listener *listener);

/**
 * conn_set_ops() - whom to call
 * @conn: any
 * @ops: must live as long as the connection
 * @context: for @ops
 */
void conn_set_ops(struct repl_conn *conn, const struct repl_conn_ops *ops, void *context);

/**
 * conn_keep() - a connection that was accepted is somebody's
 * @conn: any; nothing happens to one that was not accepted
 *
 * It does not count as in handshake any more, and has no deadline.
 */
void conn_keep(struct repl_conn *conn);

/**
 * conn_resource() - what has the client's key let it speak of?
 * @conn: one that was accepted
 *
 * Return: the resource, with whose key the handshake was done; NULL: it is not over,
 * or it is plaintext.
 */
const char *conn_resource(const struct repl_conn *conn);

/**
 * conn_send() - queue a frame
 * @conn: any
 * @frame: what; copied
 * @error: set on failure: REPL_EXIT_PEER (not open), REPL_EXIT_FAILED (the
 *	queue is full, or it is no frame)
 *
 * Calls nothing back. What is queued goes out from the loop.
 *
 * Return: 0, or -1 and nothing of it is queued.
 */
int conn_send(struct repl_conn *conn, const struct repl_frame *frame, struct repl_error *error);

/**
 * conn_queued() - how much waits to be sent?
 * @conn: any
 *
 * Return: bytes, with headers, that the kernel (or GnuTLS) has not taken yet.
 */
size_t conn_queued(const struct repl_conn *conn);

/**
 * conn_is_open() - would conn_send() be worth trying?
 * @conn: any
 *
 * Return: true after opened() and before closed().
 */
bool conn_is_open(const struct repl_conn *conn);

/**
 * conn_key_refused() - did the handshake fail because our key is not the peer's?
 * @conn: closed
 *
 * For a client with two keys: only then is it worth connecting with the other.
 *
 * Return: true if so.
 */
bool conn_key_refused(const struct repl_conn *conn);

/**
 * conn_peer() - where the connection comes from or goes to, for logs
 * @conn: any
 *
 * Return: for example "tcp:[::1]:40000"; lives as long as the connection.
 */
const char *conn_peer(const struct repl_conn *conn);

/**
 * conn_close() - end a connection
 * @conn: any; nothing happens if it is closed
 * @why: one line, for closed(), which is called before this returns
 *
 * What is queued goes out as far as it can without waiting; so a last word (BYE,
 * FAILED) reaches a peer that reads, and is lost to one that does not.
 */
void conn_close(struct repl_conn *conn, const char *why);

/**
 * conn_free() - end and forget a connection
 * @conn: or NULL
 *
 * As conn_close(), but closed() is not called.
 */
void conn_free(struct repl_conn *conn);

#endif

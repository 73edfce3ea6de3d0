// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "port.h"

#define REFUSAL_S 60	/* until the same refusal is worth another line */
#define REFUSALS 16

struct port {
	struct ports *ports;
	struct port *next;
	struct repl_address address;
	bool plaintext;
	unsigned int users;
	struct repl_conn_listener *listener;
};

struct ports {
	sd_event *event;
	port_find_fn *find;
	void *context;
	struct port *first;
	struct {
		char why[256];
		time_t when;	/* s; 0: never */
	} refusal[REFUSALS];	/* the last ones that got a line */
};

/* A peer that is set up wrong tries again each second: one line for it. */
static void refused(struct ports *ports, const struct repl_conn *conn, const char *why)
{
	unsigned int oldest = 0;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	for (unsigned int i = 0; i < REFUSALS; i++) {
		if (ports->refusal[i].when && now.tv_sec - ports->refusal[i].when < REFUSAL_S &&
		    !strncmp(ports->refusal[i].why, why, sizeof(ports->refusal[i].why) - 1))
			return;
		if (ports->refusal[i].when < ports->refusal[oldest].when)
			oldest = i;
	}
	ports->refusal[oldest].when = now.tv_sec;
	snprintf(ports->refusal[oldest].why, sizeof(ports->refusal[oldest].why), "%s", why);
	log_say(4, NULL, "%s: %s", conn_peer(conn), why);
}

/*
 * ---- Guests ----
 */

static void hand_over(struct session *session, struct repl_conn *conn,
		      const struct repl_frame *hello)
{
	conn_keep(conn);
	session_accept(session, conn, hello);
}

static void guest_opened(struct repl_conn *conn, void *context)
{
	struct port *port = context;
	const char *name = conn_resource(conn);
	struct session *session;

	if (!name)
		return;		/* plaintext: HELLO tells */
	session = port->ports->find(port, name, port->ports->context);
	if (session)
		hand_over(session, conn, NULL);
	else
		conn_close(conn, "the resource is not served here any more");
}

/* In plaintext only: with TLS it was handed over before its first frame. */
static void guest_frame(struct repl_conn *conn, const struct repl_frame *frame, void *context)
{
	struct port *port = context;
	unsigned char payload[FRAME_REPLY_MAX];
	struct repl_frame failed = { .type = FRAME_FAILED, .payload = payload };
	struct session *session;
	struct repl_error error;
	struct repl_hello hello;

	if (frame->type == FRAME_PING || frame->type == FRAME_PONG)
		return;
	if (frame->type != FRAME_HELLO) {
		conn_close(conn, "the peer did not say HELLO first");
		return;
	}
	if (hello_decode(frame, &hello, &error)) {
		conn_close(conn, error.text);
		return;
	}
	session = port->ports->find(port, hello.resource, port->ports->context);
	if (session) {
		hand_over(session, conn, frame);
		return;
	}
	error_set(&error, REPL_EXIT_PEER, "%s is not served here", hello.resource);
	failed.length = reply_encode(1, error.text, payload);
	conn_send(conn, &failed, NULL);
	conn_close(conn, error.text);
}

static void guest_closed(struct repl_conn *conn, const char *why, void *context)
{
	struct port *port = context;

	refused(port->ports, conn, why);
	conn_free(conn);
}

static const struct repl_conn_ops guest_ops = {
	.opened = guest_opened,
	.frame = guest_frame,
	.closed = guest_closed,
};

static void guest_accepted(struct repl_conn *conn, void *context)
{
	conn_set_ops(conn, &guest_ops, context);
}

static bool guest_keys(const char *resource, struct repl_conn_tls *tls, void *context)
{
	struct port *port = context;
	struct session *session = port->ports->find(port, resource, port->ports->context);

	return session && session_keys(session, tls);
}

/*
 * ---- Ports ----
 */

static int listen_at(struct port *port, const struct session *session,
		     struct repl_error *error)
{
	return conn_listen(port->ports->event, &port->address,
			   port->plaintext ? NULL : guest_keys,
			   session_config(session)->dead_after, guest_accepted, port,
			   &port->listener, error);
}

static int port_new(struct ports *ports, const struct session *session, struct port **result,
		    struct repl_error *error)
{
	struct port *port = calloc(1, sizeof(*port));

	if (!port || address_copy(session_address(session), &port->address)) {
		free(port);
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	}
	port->ports = ports;
	port->plaintext = session_config(session)->plaintext;
	if (listen_at(port, session, error)) {
		address_free(&port->address);
		free(port);
		return -1;
	}
	port->next = ports->first;
	ports->first = port;
	*result = port;
	return 0;
}

int port_get(struct ports *ports, const struct session *session, struct port **result,
	     struct repl_error *error)
{
	const struct repl_address *address = session_address(session);
	struct port *port;

	/* A descriptor is one resource's. */
	for (port = ports->first; port; port = port->next)
		if (address->type != REPL_FD && address_same(&port->address, address))
			break;
	if (port && port->plaintext != session_config(session)->plaintext)
		return error_set(error, REPL_EXIT_CONFIG,
				 "its address is that of another resource, and one of them is plaintext");
	if (!port && port_new(ports, session, &port, error))
		return -1;
	port->users++;
	port_wait(port, session);
	*result = port;
	return 0;
}

void port_wait(struct port *port, const struct session *session)
{
	if (port)
		conn_listener_wait(port->listener, session_config(session)->dead_after);
}

void port_put(struct port *port)
{
	struct port **at;

	if (!port || --port->users)
		return;
	for (at = &port->ports->first; *at != port;)
		at = &(*at)->next;
	*at = port->next;
	conn_listener_free(port->listener);	/* guests go with it */
	address_free(&port->address);
	free(port);
}

struct ports *ports_new(sd_event *event, port_find_fn *find, void *context)
{
	struct ports *ports = calloc(1, sizeof(*ports));

	if (!ports)
		return NULL;
	ports->event = event;
	ports->find = find;
	ports->context = context;
	return ports;
}

/**
 * ports_free() - the daemon ends
 * @ports: ports, or NULL; those that are left are closed
 */
void ports_free(struct ports *ports)
{
	while (ports && ports->first) {
		ports->first->users = 1;
		port_put(ports->first);
	}
	free(ports);
}

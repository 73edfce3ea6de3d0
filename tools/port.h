/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Port: where the daemon listens for peers. Resources whose own address is the same
 * share one. Who has connected is told by what the handshake has proved: with TLS the
 * client names a resource and shows that it has its key; in plaintext, which never
 * leaves this machine, its HELLO says which. Before that it is a guest: it has a
 * deadline, there are few at a time, and nothing it sends is looked at.
 */
#ifndef REPLCTL_PORT_H
#define REPLCTL_PORT_H

#include <systemd/sd-event.h>

#include "conn.h"
#include "session.h"

struct port;
struct ports;

/* The session of a resource by that name that listens at @port; NULL: there is none. */
typedef struct session *port_find_fn(const struct port *port, const char *name,
				     void *context);

/**
 * ports_new() - a daemon's ports
 * @event: the loop
 * @find: looks up sessions
 * @context: for @find
 *
 * Return: ports, for ports_free(); NULL: out of memory.
 */
struct ports *ports_new(sd_event *event, port_find_fn *find, void *context);
void ports_free(struct ports *ports);

/**
 * port_get() - listen where a session wants it
 * @ports: ports
 * @session: one that has session_address()
 * @port: the result, for port_put()
 * @error: filled in on -1, as by conn_listen(), or REPL_EXIT_CONFIG
 *
 * Return: 0 or -1.
 */
int port_get(struct ports *ports, const struct session *session, struct port **port,
	     struct repl_error *error);

/**
 * port_put() - one session less; the last one's end is the port's
 * @port: or NULL
 */
void port_put(struct port *port);

/**
 * port_wait() - a session's handshakes may take so long now
 * @port: its port, or NULL
 * @session: session
 */
void port_wait(struct port *port, const struct session *session);

#endif

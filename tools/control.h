/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Control: how a replctl that a person runs talks to the daemon on this host. A UNIX
 * socket, mode 0600, root (or the daemon's user) only. One request, a line of JSON
 * {"verb": ..., "resource": ...}; then lines of JSON until one with the key "exit" ends
 * it:
 *
 *	{"exit": 0, "text": null}
 */
#ifndef REPLCTL_CONTROL_H
#define REPLCTL_CONTROL_H

#include <json-c/json.h>
#include <systemd/sd-event.h>

#include "error.h"

#define CONTROL_LINE_MAX 65536	/* bytes, of a request */
#define CONTROL_NO_DAEMON "no daemon is running"	/* the error begins with it */

struct repl_control;
struct repl_client;

struct repl_control_ops {
	/* @client is open until control_end() or ->gone. */
	void (*request)(struct repl_client *client, struct json_object *request,
			void *context);
	void (*gone)(struct repl_client *client, void *context);
};

/**
 * control_listen() - take requests
 * @event: loop
 * @path: of the socket; one that nobody listens on is replaced
 * @ops: callbacks
 * @context: for them
 * @control: out
 * @error: filled in on -1; REPL_EXIT_REFUSED: somebody listens there
 */
int control_listen(sd_event *event, const char *path,
		   const struct repl_control_ops *ops, void *context,
		   struct repl_control **control, struct repl_error *error);
void control_free(struct repl_control *control);

/**
 * control_line() - send one line to a client
 * @client: client; one that reads too slowly is cut off, not waited for
 * @line: object; the caller keeps its reference
 */
void control_line(struct repl_client *client, struct json_object *line);

/**
 * control_end() - end a request
 * @client: client; gone afterwards, without ->gone
 * @exit: exit status for the program
 * @text: what to say, or NULL
 */
void control_end(struct repl_client *client, enum repl_exit exit, const char *text);

/**
 * control_call() - the other side: send a request and read the answer
 * @path: of the socket
 * @request: object; the caller keeps its reference
 * @timeout: ms for all of it, or -1
 * @line: called for each line but the last; may be NULL
 * @context: for @line
 * @error: filled in on -1: what the daemon said, or REPL_EXIT_TIMEOUT, or that no
 *	daemon is there
 *
 * Return: 0 or -1.
 */
int control_call(const char *path, struct json_object *request, int timeout,
		 void (*line)(struct json_object *line, void *context), void *context,
		 struct repl_error *error);

#endif

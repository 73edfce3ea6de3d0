// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "unixsock.h"

#define MAX_CLIENTS 256
#define MAX_QUEUED (1024 * 1024)

struct repl_client {
	struct repl_client *next;
	struct repl_control *control;
	sd_event_source *source;
	int fd;
	char *in;
	size_t nr_in;
	char *out;
	size_t nr_out;
	bool asked;		/* its request is being dealt with */
	bool ending;		/* closed when all is written */
};

struct repl_control {
	const struct repl_control_ops *ops;
	void *context;
	sd_event *event;
	sd_event_source *source;
	int fd;
	struct unix_socket socket;
	struct repl_client *clients;
	unsigned int nr_clients;
};

static void client_free(struct repl_client *client)
{
	struct repl_client **at = &client->control->clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	client->control->nr_clients--;
	sd_event_source_disable_unref(client->source);
	close(client->fd);
	free(client->in);
	free(client->out);
	free(client);
}

static void client_gone(struct repl_client *client)
{
	if (client->asked && !client->ending)
		client->control->ops->gone(client, client->control->context);
	client_free(client);
}

/* Writes what it can; false: the client is gone. */
static bool client_flush(struct repl_client *client)
{
	while (client->nr_out) {
		ssize_t n = send(client->fd, client->out, client->nr_out, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return false;
		client->nr_out -= n;
		memmove(client->out, client->out + n, client->nr_out);
	}
	sd_event_source_set_io_events(client->source,
				      EPOLLIN | (client->nr_out ? EPOLLOUT : 0));
	return client->nr_out || !client->ending;
}

static void client_request(struct repl_client *client, char *line)
{
	struct json_object *request = json_tokener_parse(line);

	client->asked = true;
	if (!json_object_is_type(request, json_type_object))
		control_end(client, REPL_EXIT_USAGE, "a request must be a JSON object");
	else
		client->control->ops->request(client, request, client->control->context);
	json_object_put(request);
}

static int client_io(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct repl_client *client = arg;
	char *end;
	ssize_t n;

	if (events & EPOLLOUT && !client_flush(client)) {
		client_gone(client);
		return 0;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return 0;
	if (client->asked) {
		char rest[256];

		/* It has said all that it may: only its end is of interest. */
		n = recv(fd, rest, sizeof(rest), 0);
		if (!n || (n < 0 && errno != EAGAIN))
			client_gone(client);
		return 0;
	}
	n = recv(fd, client->in + client->nr_in, CONTROL_LINE_MAX - client->nr_in, 0);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0 || memchr(client->in + client->nr_in, 0, n)) {
		client_gone(client);
		return 0;
	}
	client->nr_in += n;
	client->in[client->nr_in] = 0;
	end = strchr(client->in, '\n');
	if (end) {
		*end = 0;
		client_request(client, client->in);
	} else if (client->nr_in == CONTROL_LINE_MAX) {
		client_gone(client);
	}
	return 0;
}

static bool client_may(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) &&
	       (!who.uid || who.uid == geteuid());
}

static int control_accept(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct repl_control *control = arg;
	struct repl_client *client;
	int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (s < 0)
		return 0;
	client = calloc(1, sizeof(*client));
	if (client)
		client->in = malloc(CONTROL_LINE_MAX + 1);
	if (!client || !client->in || control->nr_clients == MAX_CLIENTS || !client_may(s) ||
	    sd_event_add_io(control->event, &client->source, s, EPOLLIN, client_io,
			    client) < 0) {
		close(s);
		if (client)
			free(client->in);
		free(client);
		return 0;
	}
	client->fd = s;
	client->control = control;
	client->next = control->clients;
	control->clients = client;
	control->nr_clients++;
	return 0;
}

int control_listen(sd_event *event, const char *path,
		   const struct repl_control_ops *ops, void *context,
		   struct repl_control **out, struct repl_error *error)
{
	struct repl_control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	control->event = event;
	control->ops = ops;
	control->context = context;
	control->fd = unix_socket_listen(&control->socket, path, 16, error);
	if (control->fd < 0) {
		if (error && error->exit == REPL_EXIT_REFUSED)
			error_set(error, REPL_EXIT_REFUSED, "%s: a daemon is running", path);
		goto bad;
	}
	r = sd_event_add_io(event, &control->source, control->fd, EPOLLIN, control_accept,
			    control);
	if (r < 0) {
		error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(-r));
		goto bad;
	}
	*out = control;
	return 0;
bad:
	control_free(control);
	return -1;
}

void control_free(struct repl_control *control)
{
	if (!control)
		return;
	while (control->clients)
		client_free(control->clients);
	sd_event_source_disable_unref(control->source);
	if (control->fd >= 0)
		close(control->fd);
	unix_socket_remove(&control->socket);
	free(control);
}

void control_line(struct repl_client *client, struct json_object *line)
{
	const char *text = json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN);
	size_t len = strlen(text);
	char *more;

	if (client->ending || client->nr_out > MAX_QUEUED)
		return;
	more = realloc(client->out, client->nr_out + len + 1);
	if (!more)
		return;
	client->out = more;
	memcpy(more + client->nr_out, text, len);
	more[client->nr_out + len] = '\n';
	client->nr_out += len + 1;
	if (client->nr_out > MAX_QUEUED)	/* it sees the end, and no exit */
		shutdown(client->fd, SHUT_RDWR);
	else
		sd_event_source_set_io_events(client->source, EPOLLIN | EPOLLOUT);
}

void control_end(struct repl_client *client, enum repl_exit exit, const char *text)
{
	struct json_object *line = json_object_new_object();

	json_object_object_add(line, "exit", json_object_new_int(exit));
	json_object_object_add(line, "text", text ? json_object_new_string(text) : NULL);
	control_line(client, line);
	json_object_put(line);
	client->ending = true;
}

/*
 * ---- The caller's side ----
 */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* 1: the last line came, @error says how it ended; 0: not yet. */
static int call_line(const char *text, void (*line)(struct json_object *, void *),
		     void *context, struct repl_error *error)
{
	struct json_object *object = json_tokener_parse(text), *value;
	int last = 0;

	error->exit = REPL_EXIT_OK;
	if (json_object_object_get_ex(object, "exit", &value)) {
		int exit = json_object_get_int(value);

		last = 1;
		if (json_object_object_get_ex(object, "text", &value) && value)
			error_set(error, exit, "%s", json_object_get_string(value));
		else
			error_set(error, exit, "failed");
	} else if (line) {
		line(object, context);
	}
	json_object_put(object);
	return last;
}

static int call_read(int fd, int64_t end, void (*line)(struct json_object *, void *),
		     void *context, struct repl_error *error)
{
	size_t nr = 0, room = 65536;
	char *buf = malloc(room), *at;
	struct repl_error how = { REPL_EXIT_OK, "" };
	int r = -1;

	while (buf) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = end < 0 ? -1 : end - now_ms();
		ssize_t n;

		if (end >= 0 && left <= 0) {
			error_set(error, REPL_EXIT_TIMEOUT, "no answer in the time given");
			goto out;
		}
		if (poll(&p, 1, left) <= 0)
			continue;
		if (nr + 1 == room) {
			at = realloc(buf, room *= 2);
			if (!at)
				break;
			buf = at;
		}
		n = recv(fd, buf + nr, room - nr - 1, 0);
		if (n <= 0) {
			error_set(error, REPL_EXIT_FAILED, "the daemon has ended");
			goto out;
		}
		nr += n;
		buf[nr] = 0;
		while ((at = strchr(buf, '\n'))) {
			*at++ = 0;
			if (call_line(buf, line, context, &how)) {
				r = how.exit ? error_set(error, how.exit, "%s", how.text) : 0;
				goto out;
			}
			nr -= at - buf;
			memmove(buf, at, nr + 1);
		}
	}
	error_set(error, REPL_EXIT_FAILED, "out of memory");
out:
	free(buf);
	return r;
}

int control_call(const char *path, struct json_object *request, int timeout,
		 void (*line)(struct json_object *line, void *context), void *context,
		 struct repl_error *error)
{
	const char *text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);
	int64_t end = timeout < 0 ? -1 : now_ms() + timeout;
	struct sockaddr_un address;
	int fd, r = -1;

	if (unix_socket_address(path, &address, error))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(error, REPL_EXIT_FAILED, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			error_set(error, REPL_EXIT_FAILED,
				  CONTROL_NO_DAEMON ": start 'replctl serve'");
		else
			error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	} else if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text) ||
		   send(fd, "\n", 1, MSG_NOSIGNAL) != 1) {
		error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	} else {
		r = call_read(fd, end, line, context, error);
	}
	close(fd);
	return r;
}

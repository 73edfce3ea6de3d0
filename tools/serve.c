// SPDX-License-Identifier: GPL-2.0-only
/*
 * Serve: the daemon of all resources of this host.
 *
 * One loop, which nothing blocks, one control socket, and a port for each address. Each
 * resource has a seat: as long as it can be served there is a session in it (session.h).
 * If it cannot, because its file or its key is bad, its devices are not up, or another
 * daemon has it, the seat says why, and it is tried again each second. What goes wrong
 * with one is nothing to the others.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "port.h"
#include "resource.h"
#include "serve.h"
#include "session.h"

#define RETRY_MS 1000		/* until a resource that cannot be served is tried again */
#define LOCK_MS 100		/* the same, if only its lock is missing */
#define RELEASED_MS 3000	/* until one that was released is taken again */
#define DM_EVENTS_MS 100	/* all events of devices in so long a time are one */

struct seat {
	struct daemon *daemon;
	struct seat *next;
	char name[CONFIG_NAME_MAX + 1];
	char path[512];
	struct session *session;	/* NULL: it is not served now */
	struct port *port;		/* where it waits for its peer, or NULL */
	char trouble[512];		/* why it is not served */
	uint64_t retry;			/* ms: not before */
	bool gone;			/* its file is */
	struct repl_client *releasing;	/* waits until the session has left */
};

struct daemon {
	sd_event *event;
	bool all;			/* of the folder, not by name */
	bool must;			/* the only one has not begun yet */
	struct repl_error *error;	/* why it could not */
	struct seat *seats;
	struct ports *ports;
	struct repl_control *control;
	sd_event_source *timer, *dm_source;
	int dm_fd;
	bool stopping;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

static struct seat *find_seat(struct daemon *d, const char *name)
{
	struct seat *seat;

	for (seat = d->seats; seat; seat = seat->next)
		if (!strcmp(seat->name, name))
			break;
	return seat;
}

/* For "systemctl status". */
static void notify(struct daemon *d, const char *more)
{
	unsigned int served = 0, all = 0;
	const struct seat *bad = NULL;

	for (const struct seat *seat = d->seats; seat; seat = seat->next) {
		all++;
		served += !!seat->session;
		bad = seat->session ? bad : seat;
	}
	sd_notifyf(0, "%sSTATUS=%u of %u resources served%s%s%s%.300s", more, served, all,
		   bad ? "; " : "", bad ? bad->name : "", bad ? ": " : "",
		   bad ? bad->trouble : "");
}

/*
 * ---- Seats ----
 */

static void wake_at(struct daemon *d, uint64_t when)
{
	sd_event_source_set_time(d->timer, when * 1000);
	sd_event_source_set_enabled(d->timer, SD_EVENT_ONESHOT);
}

/* The timer is for those that are not served. */
static void plan(struct daemon *d)
{
	uint64_t first = UINT64_MAX;

	for (const struct seat *seat = d->seats; seat; seat = seat->next)
		if (!seat->session && seat->retry < first)
			first = seat->retry;
	if (first != UINT64_MAX && !d->stopping)
		wake_at(d, first);
	else
		sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
}

static void not_served(struct seat *seat, const char *why, uint64_t ms)
{
	seat->retry = now_ms() + ms;
	if (!strcmp(seat->trouble, why))
		return;
	log_say(4, seat->name, "is not served: %s", why);
	snprintf(seat->trouble, sizeof(seat->trouble), "%s", why);
	notify(seat->daemon, "");
}

static void seat_left(struct session *session, void *context);

static const struct session_ops seat_ops = { .left = seat_left };

/* Return: 0; 1: not now; -1. */
static int seat_begin(struct seat *seat, struct repl_error *error)
{
	struct daemon *d = seat->daemon;
	struct repl_config *config = config_load(seat->path, error);
	struct session *session;
	int here, r;

	if (!config)
		return -1;
	here = config_this_host(config, NULL, error);
	r = here < 0 ? -1 : session_new(d->event, config, here, &seat_ops, seat, &session,
					error);
	if (r) {
		config_free(config);
		return r;
	}
	if (session_address(session) && port_get(d->ports, session, &seat->port, error)) {
		if (session_must_listen(session)) {
			session_free(session);
			return -1;
		}
		log_say(4, seat->name, "%s; another primary would not be heard of", error->text);
	}
	seat->session = session;
	return 0;
}

static void seat_try(struct seat *seat)
{
	struct daemon *d = seat->daemon;
	struct repl_error error;
	int r = seat_begin(seat, &error);

	if (!r) {
		seat->trouble[0] = '\0';
		session_start(seat->session);
		notify(d, d->must ? "READY=1\n" : "");
		d->must = false;
		return;
	}
	if (r < 0 && d->must) {
		*d->error = error;
		sd_event_exit(d->event, 1);
		return;
	}
	not_served(seat, error.text, r > 0 ? LOCK_MS : RETRY_MS);
}

static void seat_free(struct seat *seat)
{
	struct seat **at = &seat->daemon->seats;

	while (*at != seat)
		at = &(*at)->next;
	*at = seat->next;
	session_free(seat->session);
	port_put(seat->port);
	free(seat);
}

static void seat_forget(struct seat *seat)
{
	log_say(5, seat->name, "%s is gone, and so is the resource", seat->path);
	seat_free(seat);
}

static bool any_session(const struct daemon *d)
{
	const struct seat *seat;

	for (seat = d->seats; seat && !seat->session;)
		seat = seat->next;
	return seat;
}

static void seat_left(struct session *session, void *context)
{
	struct seat *seat = context;
	struct daemon *d = seat->daemon;

	session_free(session);
	seat->session = NULL;
	port_put(seat->port);
	seat->port = NULL;
	if (seat->releasing)
		control_end(seat->releasing, REPL_EXIT_OK, NULL);
	seat->retry = now_ms() + (seat->releasing ? RELEASED_MS : RETRY_MS);
	snprintf(seat->trouble, sizeof(seat->trouble), "it was let go");
	seat->releasing = NULL;
	if (!d->stopping)
		notify(d, "");
	if (seat->gone)
		seat_forget(seat);
	if (d->stopping && !any_session(d))
		sd_event_exit(d->event, 0);
	plan(d);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct daemon *d = arg;
	uint64_t now = now_ms();

	for (struct seat *seat = d->seats; seat; seat = seat->next)
		if (!seat->session && seat->retry <= now)
			seat_try(seat);
	plan(d);
	return 0;
}

/*
 * ---- Which resources there are ----
 */

static int add_seat(struct daemon *d, const char *path, struct repl_error *error)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	struct seat *seat = calloc(1, sizeof(*seat)), **at = &d->seats;
	size_t n = strlen(base);

	if (!seat)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	seat->daemon = d;
	snprintf(seat->path, sizeof(seat->path), "%s", path);
	if (n > 5 && n <= CONFIG_NAME_MAX + 5 && !strcmp(base + n - 5, ".conf"))
		snprintf(seat->name, sizeof(seat->name), "%.*s", (int)n - 5, base);
	if (!config_name_good(seat->name) || find_seat(d, seat->name)) {
		error_set(error, REPL_EXIT_USAGE, "%s: %s", path, seat->name[0] &&
			  find_seat(d, seat->name) ? "another resource has that name" :
			  "the file's name is not NAME.conf");
		free(seat);
		return -1;
	}
	while (*at)
		at = &(*at)->next;
	*at = seat;
	return 0;
}

/* New files get a seat; seats without a file are marked. */
static void scan(struct daemon *d)
{
	const char *folder = getenv("REPLCTL_CONFIG_DIR") ?: CONFIG_DIR;
	DIR *dir = opendir(folder);
	char path[512], name[300];
	struct dirent *file;
	struct seat *seat;

	for (seat = d->seats; seat; seat = seat->next)
		seat->gone = access(seat->path, F_OK) && errno == ENOENT;
	while (dir && (file = readdir(dir))) {
		size_t n = strlen(file->d_name);

		if (n <= 5 || strcmp(file->d_name + n - 5, ".conf"))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)n - 5, file->d_name);
		if (!config_name_good(name) || find_seat(d, name))
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", folder, file->d_name) <
		    (int)sizeof(path))
			add_seat(d, path, NULL);
	}
	if (dir)
		closedir(dir);
	else
		log_say(4, NULL, "%s: %s", folder, strerror(errno));
}

/*
 * ---- Other configurations ----
 */

struct reload {
	struct seat *seat;
	struct repl_client *client;	/* who asked, or NULL */
};

static void reload_note(const char *text, void *context)
{
	struct reload *reload = context;
	struct json_object *line = json_object_new_object();

	log_say(4, reload->seat->name, "%s", text);
	json_object_object_add(line, "note", json_object_new_string(text));
	if (reload->client)
		control_line(reload->client, line);
	json_object_put(line);
}

static int reload_session(struct seat *seat, struct repl_client *client,
			  struct repl_error *error)
{
	struct repl_config *fresh = config_load(seat->path, error);
	struct reload reload = { seat, client };

	if (!fresh)
		return -1;
	if (config_this_host(fresh, NULL, error) < 0) {
		config_free(fresh);
		return -1;
	}
	if (session_reload(seat->session, fresh, reload_note, &reload, error))
		return -1;
	port_wait(seat->port, seat->session);
	return 0;
}

static int seat_reload(struct seat *seat, struct repl_client *client, struct repl_error *error)
{
	if (!seat->session) {
		seat_try(seat);
		return seat->session ? 0 : error_set(error, REPL_EXIT_FAILED,
						     "is not served: %s", seat->trouble);
	}
	if (reload_session(seat, client, error)) {
		log_say(3, seat->name, "%s; it goes on as before", error->text);
		return error_wrap(error, "the daemon goes on as before");
	}
	log_say(6, seat->name, "the configuration was read again");
	return 0;
}

static void reload_all(struct daemon *d)
{
	struct repl_error error;
	struct seat *seat, *next;

	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", now_ms() * 1000ULL);
	if (d->all)
		scan(d);
	for (seat = d->seats; seat; seat = next) {
		next = seat->next;
		if (seat->gone && !seat->session)
			seat_forget(seat);
		else if (seat->gone)
			log_say(4, seat->name,
				"%s is gone: served as before, until its devices are taken down",
				seat->path);
		else
			seat_reload(seat, NULL, &error);
	}
	plan(d);
	notify(d, "READY=1\n");
}

/*
 * ---- Requests ----
 */

static void ask_reload(struct daemon *d, struct repl_client *client, const char *name)
{
	struct repl_error error;
	struct seat *seat;

	if (d->all)
		scan(d);
	seat = find_seat(d, name);
	if (!seat)
		control_end(client, REPL_EXIT_FAILED, "the daemon that runs does not serve it");
	else if (seat_reload(seat, client, &error))
		control_end(client, error.exit, error.text);
	else
		control_end(client, REPL_EXIT_OK, NULL);
	plan(d);
}

/* Somebody wants to work on the devices, and has the lock before we try again. */
static void ask_release(struct daemon *d, struct repl_client *client, const char *name)
{
	struct seat *seat = find_seat(d, name);

	if (seat && seat->releasing) {
		control_end(client, REPL_EXIT_REFUSED, "somebody else waits for that already");
	} else if (seat && seat->session) {
		seat->releasing = client;
		session_leave(seat->session);
	} else {
		if (seat)
			seat->retry = now_ms() + RELEASED_MS;
		plan(d);
		control_end(client, REPL_EXIT_OK, NULL);
	}
}

static void ask_session(struct daemon *d, struct repl_client *client, const char *name,
			const char *verb)
{
	struct seat *seat = find_seat(d, name);
	char text[600];

	if (seat && seat->session) {
		session_request(seat->session, client, verb);
		return;
	}
	snprintf(text, sizeof(text), "not served: %s", seat ? seat->trouble :
		 "the daemon that runs does not know it");
	control_end(client, REPL_EXIT_FAILED, text);
}

static const char *word(struct json_object *request, const char *key)
{
	struct json_object *value;
	const char *text = NULL;

	if (json_object_object_get_ex(request, key, &value))
		text = json_object_get_string(value);
	return text ? text : "";
}

static void on_request(struct repl_client *client, struct json_object *request, void *context)
{
	const char *verb = word(request, "verb"), *name = word(request, "resource");
	struct daemon *d = context;

	if (d->stopping)
		control_end(client, REPL_EXIT_FAILED, "the daemon ends");
	else if (!strcmp(verb, "reload"))
		ask_reload(d, client, name);
	else if (!strcmp(verb, "release"))
		ask_release(d, client, name);
	else
		ask_session(d, client, name, verb);
}

static void on_client_gone(struct repl_client *client, void *context)
{
	struct daemon *d = context;

	for (struct seat *seat = d->seats; seat; seat = seat->next) {
		if (seat->releasing == client)
			seat->releasing = NULL;
		if (seat->session)
			session_client_gone(seat->session, client);
	}
}

static const struct repl_control_ops control_ops = {
	.request = on_request,
	.gone = on_client_gone,
};

/*
 * ---- Events ----
 */

static struct session *find_session(const struct port *port, const char *name, void *context)
{
	struct seat *seat = find_seat(context, name);

	return seat && seat->session && seat->port == port && session_address(seat->session) ?
	       seat->session : NULL;
}

/* The kernel says once that some dm device has had an event since it was asked. */
static int dm_arm(struct daemon *d)
{
	struct dm_ioctl dmi = {
		.version = { DM_VERSION_MAJOR, 0, 0 },
		.data_size = sizeof(dmi),
	};

	return ioctl(d->dm_fd, DM_DEV_ARM_POLL, &dmi);
}

static int on_dm_event(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct daemon *d = arg;

	dm_arm(d);		/* before looking: nothing is missed */
	for (struct seat *seat = d->seats; seat; seat = seat->next)
		if (seat->session)
			session_look(seat->session);
	return 0;
}

static int on_end(sd_event_source *source, const struct signalfd_siginfo *si, void *arg)
{
	struct daemon *d = arg;

	sd_notify(0, "STOPPING=1");
	/* Checkpoints under way come to their end; a second signal does not wait. */
	if (d->stopping || !any_session(d))
		return sd_event_exit(d->event, 0);
	d->stopping = true;
	plan(d);
	for (struct seat *seat = d->seats; seat; seat = seat->next)
		if (seat->session)
			session_leave(seat->session);
	return 0;
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *si, void *arg)
{
	struct daemon *d = arg;

	if (!d->stopping)
		reload_all(d);
	return 0;
}

/*
 * ---- Begin and end ----
 */

static int begin_loop(struct daemon *d, struct repl_error *error)
{
	sigset_t mask;
	int r;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_default(&d->event);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGTERM, on_end, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGINT, on_end, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGHUP, on_reload, d);
	if (r >= 0)
		r = sd_event_add_time(d->event, &d->timer, CLOCK_MONOTONIC, 0, 1000, on_timer,
				      d);
	if (r >= 0)
		r = sd_event_set_watchdog(d->event, true);
	d->dm_fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (r >= 0 && d->dm_fd >= 0 && !dm_arm(d))
		r = sd_event_add_io(d->event, &d->dm_source, d->dm_fd, EPOLLIN, on_dm_event,
				    d);
	/* Each checkpoint has some of these events: what waits for it comes first. */
	if (r >= 0 && d->dm_source)
		r = sd_event_source_set_priority(d->dm_source, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0 && d->dm_source)
		r = sd_event_source_set_ratelimit(d->dm_source, DM_EVENTS_MS * 1000, 1);
	if (r < 0)
		return error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r));
	d->ports = ports_new(d->event, find_session, d);
	return d->ports ? 0 : error_set(error, REPL_EXIT_FAILED, "out of memory");
}

static int find_resources(struct daemon *d, char *const names[], unsigned int nr,
			  struct repl_error *error)
{
	char path[512];

	for (unsigned int i = 0; i < nr; i++)
		if (config_path(names[i], path, sizeof(path), error) ||
		    add_seat(d, path, error))
			return -1;
	d->all = !nr;
	d->must = nr == 1;
	if (d->all)
		scan(d);
	return 0;
}

static int begin(struct daemon *d, char *const names[], unsigned int nr,
		 struct repl_error *error)
{
	char path[256];

	resource_run_path(REPL_CONTROL_FILE, path, sizeof(path));
	if (find_resources(d, names, nr, error) || begin_loop(d, error) ||
	    control_listen(d->event, path, &control_ops, d, &d->control, error))
		return -1;
	for (struct seat *seat = d->seats; seat; seat = seat->next) {
		bool must = d->must;

		seat_try(seat);
		if (must && d->must && !seat->trouble[0])
			return -1;	/* in @error */
	}
	plan(d);
	return 0;
}

int serve(char *const names[], unsigned int nr, struct repl_error *error)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int r = -1;

	if (!d)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	d->dm_fd = -1;
	d->error = error;
	if (!begin(d, names, nr, error)) {
		if (!d->must)
			notify(d, "READY=1\n");
		r = sd_event_loop(d->event);
		if (r < 0)
			error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r));
	}
	control_free(d->control);
	while (d->seats)
		seat_free(d->seats);
	ports_free(d->ports);
	sd_event_source_unref(d->dm_source);
	if (d->dm_fd >= 0)
		close(d->dm_fd);
	sd_event_source_unref(d->timer);
	sd_event_unref(d->event);
	free(d);
	return r ? -1 : 0;
}

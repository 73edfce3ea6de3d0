// SPDX-License-Identifier: GPL-2.0-only
/*
 * Serve: the daemon of one resource on this host.
 *
 * One loop, which nothing blocks. The protocol is pair.c's; here its actions are
 * carried out and the events it hears of are found: frames and the end of connections
 * (conn.h), the ends of children (work.h), dm events, timers, requests (control.h).
 *
 * All state that matters is the kernel's. A daemon that is killed leaves two things
 * to the next: the journal, one number (see pair.h), and the lock, which its children
 * share. The next one waits for that lock before it looks at the kernel's state, for
 * what a child was doing there must have ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "conn.h"
#include "control.h"
#include "crc32c.h"
#include "frame.h"
#include "key.h"
#include "pair.h"
#include "resource.h"
#include "serve.h"
#include "work.h"

#define RETRY_MS 1000		/* until the next attempt to connect */
#define MAX_WAITERS 64

struct waiter {
	struct repl_client *client;
	enum { WAIT_CHECKPOINT, WAIT_FAILOVER, WAIT_EVENTS } what;
	uint64_t from;			/* WAIT_CHECKPOINT: not one that began before */
};

struct daemon {
	sd_event *event;
	const struct repl_config *config;
	struct repl_resource resource;
	struct pair pair;
	int lock;

	struct repl_conn_listener *listener;
	struct repl_conn *conn;
	bool open;			/* conn's handshake is over */
	uint64_t heard;			/* ms: last byte of the peer */
	unsigned int silent;		/* ticks since it should have been heard */
	uint64_t pinged;		/* ms */
	uint64_t tried;			/* ms: last attempt to connect */
	uint64_t lost;			/* ms: since when there is no peer; 0: there is */
	bool had_peer;
	bool policy_ran;
	char why_lost[256];
	unsigned char keys[2][KEY_SIZE];
	struct repl_conn_tls tls;
	unsigned char instance[FRAME_INSTANCE_SIZE];

	struct repl_work *work;		/* the save or load hook */
	int save_fd;
	sd_event_source *save_source;
	bool save_eof, save_ended, save_good;
	int state_fd;			/* secondary: what was collected */
	bool state_bad;
	uint64_t state_size;
	uint32_t state_crc;

	sd_event_source *tick;
	int dm_fd;
	uint64_t next;			/* ms: next periodic checkpoint */
	bool paused;
	bool leaving;
	uint64_t begun;			/* how many checkpoints have */
	uint64_t began, held;		/* us: of the checkpoint under way */
	bool late;			/* it has been told so */
	uint64_t last_duration, last_pause;	/* us */
	double last_when;		/* seconds since 1970 */
	char last_error[256];

	struct repl_control *control;
	struct waiter waiter[MAX_WAITERS];
	unsigned int nr_waiters;
};

static void feed(struct daemon *d, const struct pair_event *event);

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

static uint64_t now_ms(void)
{
	return now_us() / 1000;
}

static void say(int level, const char *fmt, ...) printf_like(2, 3);
static void say(int level, const char *fmt, ...)
{
	va_list args;

	if (getenv("JOURNAL_STREAM"))
		fprintf(stderr, "<%d>", level);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

/*
 * ---- Events for whoever listens ----
 */

static void tell(struct daemon *d, struct json_object *event)
{
	for (unsigned int i = 0; i < d->nr_waiters; i++)
		if (d->waiter[i].what == WAIT_EVENTS)
			control_line(d->waiter[i].client, event);
	json_object_put(event);
}

static struct json_object *event_new(const char *name)
{
	struct json_object *event = json_object_new_object();
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	json_object_object_add(event, "event", json_object_new_string(name));
	json_object_object_add(event, "time",
			       json_object_new_double(t.tv_sec + t.tv_nsec / 1e9));
	return event;
}

static void tell_text(struct daemon *d, const char *name, const char *key, const char *text)
{
	struct json_object *event = event_new(name);

	if (key)
		json_object_object_add(event, key, json_object_new_string(text));
	tell(d, event);
}

/* Ends all requests of a kind that the @nr-th answers. */
static void answer(struct daemon *d, unsigned int what, uint64_t nr, enum repl_exit exit,
		   const char *text)
{
	for (unsigned int i = 0; i < d->nr_waiters;) {
		if (d->waiter[i].what != what || d->waiter[i].from > nr) {
			i++;
			continue;
		}
		control_end(d->waiter[i].client, exit, text);
		d->waiter[i] = d->waiter[--d->nr_waiters];
	}
}

/*
 * ---- The journal ----
 */

static bool journal_write(struct daemon *d, uint64_t id)
{
	char path[256], temp[256];
	bool good;
	int fd;

	resource_runtime(&d->resource, "journal", path, sizeof(path));
	resource_runtime(&d->resource, "journal.new", temp, sizeof(temp));
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	good = fd >= 0 && dprintf(fd, "%llu\n", (unsigned long long)id) > 0 &&
	       rename(temp, path) == 0;
	if (!good)
		say(3, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return good;
}

/* With hooks of the user's the kernel does not know that the workload is held. */
static void mark_held(struct daemon *d, bool held)
{
	char path[256];
	int fd;

	resource_runtime(&d->resource, "held", path, sizeof(path));
	if (!held) {
		unlink(path);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
}

static bool is_held(struct daemon *d)
{
	char path[256];

	resource_runtime(&d->resource, "held", path, sizeof(path));
	return !access(path, F_OK);
}

static uint64_t journal_read(struct daemon *d)
{
	unsigned long long id = 0;
	char path[256];
	FILE *f;

	resource_runtime(&d->resource, "journal", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu", &id) != 1)
		id = 0;
	fclose(f);
	return id;
}

static void journal_clear(struct daemon *d)
{
	char path[256];

	resource_runtime(&d->resource, "journal", path, sizeof(path));
	unlink(path);
}

/*
 * ---- Sending ----
 */

static void send_frame(struct daemon *d, enum repl_frame_type type, uint64_t id,
		       const void *payload, size_t length)
{
	struct repl_frame frame = {
		.type = type, .id = id, .length = length, .payload = payload,
	};
	struct repl_error error;

	if (d->conn && d->open && conn_send(d->conn, &frame, &error))
		conn_close(d->conn, error.text);
}

static void send_hello(struct daemon *d)
{
	unsigned char payload[FRAME_HELLO_SIZE];
	struct repl_hello hello = {
		.protocol_min = 1, .protocol_max = 1,
		.role = d->pair.role == PAIR_PRIMARY ? HELLO_PRIMARY : HELLO_SECONDARY,
		.nr_volumes = d->config->volumes,
	};
	struct pair_kernel kernel;
	struct repl_error error;

	if (resource_kernel(&d->resource, &kernel, &error)) {
		say(3, "%s", error.text);
		if (d->conn)
			conn_close(d->conn, "our devices are not up");
		return;
	}
	if (d->pair.role == PAIR_SECONDARY) {
		hello.checkpoint = kernel.oldest;
		hello.prepared = kernel.prepared;
		hello.stage = kernel.partly_over ? HELLO_STAGE_FAILOVER : kernel.running ?
			      HELLO_STAGE_RUNNING : HELLO_STAGE_NONE;
	}
	memcpy(hello.instance, d->instance, sizeof(hello.instance));
	snprintf(hello.resource, sizeof(hello.resource), "%s", d->config->name);
	snprintf(hello.host, sizeof(hello.host), "%s",
		 d->config->host[d->resource.here].name);
	hello_encode(&hello, payload);
	send_frame(d, FRAME_HELLO, 0, payload, sizeof(payload));
}

/*
 * ---- Actions that take time ----
 */

struct op {
	struct daemon *d;
	enum pair_action_type type;
	uint64_t id;
	unsigned int tries;
};

static int op_run(void *arg, struct repl_error *error)
{
	struct op *op = arg;
	const struct repl_resource *resource = &op->d->resource;

	switch (op->type) {
	case PAIR_HOLD:
		return resource_hold(resource, error);
	case PAIR_FLUSH:
		return resource_flush(resource, error);
	case PAIR_DETACH:
		return resource_detach(resource, error);
	case PAIR_RELEASE:
		return resource_release(resource, error);
	case PAIR_PREPARE:
		return resource_prepare(resource, op->id, error);
	case PAIR_COMMIT:
		return resource_commit(resource, op->id, error);
	case PAIR_ABORT:
		return resource_abort(resource, error);
	case PAIR_FAILOVER:
		return resource_failover(resource, error);
	default:
		return error_set(error, REPL_EXIT_FAILED, "no such operation");
	}
}

static void op_go(struct op *op);

static int op_again(sd_event_source *source, uint64_t usec, void *arg)
{
	sd_event_source_unref(source);
	op_go(arg);
	return 0;
}

/* These must succeed before anything else may happen. */
static bool op_must(enum pair_action_type type)
{
	return type == PAIR_RELEASE || type == PAIR_DETACH || type == PAIR_ABORT ||
	       type == PAIR_COMMIT;
}

static void op_after(struct op *op, uint64_t usec)
{
	sd_event_source *source;

	if (sd_event_add_time_relative(op->d->event, &source, CLOCK_MONOTONIC, usec, 1000,
				       op_again, op) < 0)
		abort();	/* no memory, and the workload may be held: start anew */
}

static void op_ended(bool good, const struct repl_error *error, void *context)
{
	struct op *op = context;
	struct daemon *d = op->d;
	struct pair_event event = { .type = PAIR_DONE, .done = op->type, .good = good };

	if (!good) {
		say(3, "%s", error->text);
		snprintf(d->last_error, sizeof(d->last_error), "%.250s", error->text);
	}
	/* A commit may be beyond help: a volume was made anew, say. */
	if (!good && op_must(op->type) && (op->type != PAIR_COMMIT || op->tries++ < 10)) {
		op_after(op, 1000000);
		return;
	}
	if (op->type == PAIR_HOLD)
		d->held = now_us();
	if (op->type == PAIR_RELEASE) {
		mark_held(d, false);
		journal_clear(d);
		if (d->held)
			d->last_pause = now_us() - d->held;
		d->held = 0;
	}
	if (op->type == PAIR_COMMIT || op->type == PAIR_ABORT)
		journal_clear(d);
	if (op->type == PAIR_FAILOVER) {
		tell_text(d, good ? "failover" : "failover_failed", NULL, NULL);
		answer(d, WAIT_FAILOVER, 0, good ? REPL_EXIT_OK : REPL_EXIT_FAILED,
		       good ? NULL : error->text);
	}
	free(op);
	feed(d, &event);
}

static void hook_env(struct daemon *d, char resource[80], char id[48], char *env[3])
{
	snprintf(resource, 80, "REPL_RESOURCE=%s", d->config->name);
	snprintf(id, 48, "REPL_CHECKPOINT=%llu", (unsigned long long)d->pair.id);
	env[0] = resource;
	env[1] = id;
	env[2] = NULL;
}

static void op_go(struct op *op)
{
	struct daemon *d = op->d;
	const char *hook = op->type == PAIR_HOLD ? d->config->hold :
			   op->type == PAIR_RELEASE ? d->config->release : NULL;
	char resource[80], number[48], *env[3];
	struct repl_error error;
	int r;

	if (op->type == PAIR_HOLD && hook)
		mark_held(d, true);
	hook_env(d, resource, number, env);
	r = hook ? work_hook(d->event, op->type == PAIR_HOLD ? "the hold hook" :
			     "the release hook", hook, env, -1, -1,
			     d->config->checkpoint_timeout, op_ended, op, NULL, &error) :
		   work_call(d->event, op_run, op, op_ended, op, &error);
	if (r) {
		say(3, "%s", error.text);
		op_after(op, 100000);	/* for want of memory or processes */
	}
}

static void op_start(struct daemon *d, enum pair_action_type type, uint64_t id)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		abort();
	op->d = d;
	op->type = type;
	op->id = id;
	if (type == PAIR_HOLD)
		d->held = now_us();
	op_go(op);
}

/*
 * ---- The state: save and load hooks ----
 */

static void hook_done(struct daemon *d, enum pair_action_type type, bool good)
{
	struct pair_event event = { .type = PAIR_DONE, .done = type, .good = good };

	d->work = NULL;
	feed(d, &event);
}

/* All of it is on its way: one step with the end of the save, see pair.h. */
static bool state_end(struct daemon *d)
{
	unsigned char payload[FRAME_STATE_END_SIZE];
	struct repl_state_end end = { .size = d->state_size, .crc = d->state_crc };

	if (!d->open || !journal_write(d, d->pair.id))
		return false;
	state_end_encode(&end, payload);
	send_frame(d, FRAME_STATE_END, d->pair.id, payload, sizeof(payload));
	return true;
}

static void save_close(struct daemon *d)
{
	d->save_source = sd_event_source_disable_unref(d->save_source);
	if (d->save_fd >= 0)
		close(d->save_fd);
	d->save_fd = -1;
}

static void save_check(struct daemon *d)
{
	if (!d->save_ended || (!d->save_eof && d->save_good))
		return;
	save_close(d);
	hook_done(d, PAIR_SAVE, d->save_good && state_end(d));
}

/* It must end, and badly; if the hook has ended already, now. */
static void save_abort(struct daemon *d)
{
	d->save_good = false;
	if (d->work) {
		work_cancel(d->work);
		return;
	}
	if (!d->save_ended)
		return;			/* save_now() is on its way */
	save_close(d);
	hook_done(d, PAIR_SAVE, false);
}

static int save_readable(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	static unsigned char buf[FRAME_DATA_MAX];
	struct daemon *d = arg;
	ssize_t n;

	if (!d->conn || !d->open) {
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		return 0;		/* PAIR_CANCEL comes, or has come */
	}
	if (conn_queued(d->conn) > CONN_QUEUE_LOW) {
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		return 0;		/* conn_writable() goes on */
	}
	n = read(fd, buf, sizeof(buf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		d->save_eof = true;
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		save_check(d);
		return 0;
	}
	d->state_size += n;
	if (d->state_size > d->config->max_state) {
		say(3, "the save hook gives more than max_state");
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		save_abort(d);
		return 0;
	}
	d->state_crc = crc32c(d->state_crc, buf, n);
	send_frame(d, FRAME_STATE_DATA, d->pair.id, buf, n);
	return 0;
}

static void save_ended(bool good, const struct repl_error *error, void *context)
{
	struct daemon *d = context;

	if (!good) {
		say(3, "%s", error->text);
		snprintf(d->last_error, sizeof(d->last_error), "%.250s", error->text);
	}
	d->work = NULL;
	d->save_ended = true;
	d->save_good = good && d->state_size <= d->config->max_state;
	save_check(d);
}

static int save_now(sd_event_source *source, void *arg)
{
	struct daemon *d = arg;

	hook_done(d, PAIR_SAVE, state_end(d));
	return 0;
}

static void save_start(struct daemon *d)
{
	char resource[80], id[48], *env[3];
	struct repl_error error = { REPL_EXIT_FAILED, "pipe" };
	int fd[2] = { -1, -1 };

	d->state_size = 0;
	d->state_crc = 0;
	d->save_eof = d->save_ended = d->save_good = false;
	if (!d->config->save) {
		if (sd_event_add_defer(d->event, NULL, save_now, d) < 0)
			abort();
		return;
	}
	hook_env(d, resource, id, env);
	if (pipe2(fd, O_CLOEXEC) < 0)
		goto bad;
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	d->save_fd = fd[0];
	if (sd_event_add_io(d->event, &d->save_source, fd[0], EPOLLIN, save_readable, d) < 0 ||
	    work_hook(d->event, "the save hook", d->config->save, env, -1, fd[1], 0,
		      save_ended, d, &d->work, &error))
		goto bad;
	close(fd[1]);
	return;
bad:
	say(3, "%s", error.text);
	if (fd[1] >= 0)
		close(fd[1]);
	save_close(d);
	hook_done(d, PAIR_SAVE, false);
}

static void state_drop(struct daemon *d)
{
	if (d->state_fd >= 0)
		close(d->state_fd);
	d->state_fd = -1;
}

static void state_failed(struct daemon *d, const char *why)
{
	d->state_bad = true;
	say(3, "%s", why);
	snprintf(d->last_error, sizeof(d->last_error), "%.250s", why);
}

/* A file without a name, where there is room. */
static void state_begin(struct daemon *d)
{
	const char *dir = getenv("REPLCTL_STATE_DIR");
	char path[256];

	dir = dir ? dir : "/var/tmp";
	state_drop(d);
	d->state_size = 0;
	d->state_crc = 0;
	d->state_bad = false;
	d->state_fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (d->state_fd >= 0)
		return;
	/* Not every file system has that. */
	snprintf(path, sizeof(path), "%s/dm-repl.XXXXXX", dir);
	d->state_fd = mkostemp(path, O_CLOEXEC);
	if (d->state_fd < 0)
		state_failed(d, "there is no place for the state");
	else
		unlink(path);
}

static void state_add(struct daemon *d, const void *data, size_t size)
{
	if (d->state_bad)
		return;
	d->state_size += size;
	if (d->state_size > d->config->max_state) {
		state_failed(d, "the state is larger than max_state");
		return;
	}
	if (write(d->state_fd, data, size) != (ssize_t)size) {
		state_failed(d, "there is no room for the state");
		return;
	}
	d->state_crc = crc32c(d->state_crc, data, size);
}

static void load_ended(bool good, const struct repl_error *error, void *context)
{
	struct daemon *d = context;

	if (!good)
		state_failed(d, error->text);
	hook_done(d, PAIR_LOAD, good && journal_write(d, d->pair.id));
}

static int load_now(sd_event_source *source, void *arg)
{
	load_ended(true, NULL, arg);
	return 0;
}

static void load_start(struct daemon *d)
{
	char resource[80], id[48], *env[3];
	struct repl_error error;

	if (!d->config->load) {
		if (sd_event_add_defer(d->event, NULL, load_now, d) < 0)
			abort();
		return;
	}
	hook_env(d, resource, id, env);
	lseek(d->state_fd, 0, SEEK_SET);
	if (work_hook(d->event, "the load hook", d->config->load, env, d->state_fd, -1,
		      d->config->checkpoint_timeout, load_ended, d, &d->work, &error))
		load_ended(false, &error, d);
}

/*
 * ---- The protocol's actions ----
 */

static void act_result(struct daemon *d, const struct pair_action *action)
{
	struct json_object *event = event_new("checkpoint");
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	json_object_object_add(event, "checkpoint", json_object_new_uint64(action->id));
	json_object_object_add(event, "good", json_object_new_boolean(action->good));
	if (action->good) {
		d->last_when = t.tv_sec + t.tv_nsec / 1e9;
		if (d->began)
			d->last_duration = now_us() - d->began;
		d->last_error[0] = 0;
		say(6, "checkpoint %llu", (unsigned long long)action->id);
	} else {
		if (!action->id)
			d->last_error[0] = 0;
		if (action->why)
			snprintf(d->last_error + strlen(d->last_error),
				 sizeof(d->last_error) - strlen(d->last_error), "%s%s",
				 d->last_error[0] ? "; " : "", action->why);
		json_object_object_add(event, "why", json_object_new_string(d->last_error));
		say(4, "checkpoint %llu failed: %s", (unsigned long long)action->id,
		    d->last_error);
	}
	tell(d, event);
	if (d->pair.role == PAIR_PRIMARY)
		answer(d, WAIT_CHECKPOINT, action->id ? d->begun : UINT64_MAX,
		       action->good ? REPL_EXIT_OK : !action->id ? REPL_EXIT_REFUSED : REPL_EXIT_FAILED,
		       action->good ? NULL : d->last_error);
}

static void act_send(struct daemon *d, const struct pair_action *action)
{
	unsigned char payload[FRAME_REPLY_MAX];

	switch (action->frame) {
	case FRAME_HELLO:
		send_hello(d);
		break;
	case FRAME_REPLY:
		d->last_error[0] = 0;
		send_frame(d, FRAME_REPLY, action->id, payload,
			   reply_encode(0, NULL, payload));
		break;
	case FRAME_FAILED:
		send_frame(d, FRAME_FAILED, action->id, payload,
			   reply_encode(1, d->last_error[0] ? d->last_error : action->why,
					payload));
		break;
	case FRAME_REQUEST:
		d->begun++;
		d->late = false;
		d->began = now_us();
		d->last_error[0] = 0;
		/* fall through */
	default:
		send_frame(d, action->frame, action->id, NULL, 0);
	}
}

static void perform(struct daemon *d, const struct pair_action *action)
{
	switch (action->type) {
	case PAIR_SEND:
		act_send(d, action);
		break;
	case PAIR_SAVE:
		save_start(d);
		break;
	case PAIR_LOAD:
		load_start(d);
		break;
	case PAIR_DROP_STATE:
		state_drop(d);
		break;
	case PAIR_CANCEL:
		save_abort(d);
		break;
	case PAIR_CLOSE:
		if (d->conn)
			conn_close(d->conn, action->why);
		break;
	case PAIR_RESULT:
		act_result(d, action);
		break;
	default:
		op_start(d, action->type, action->id);
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

/* The peer is told, so that it does not take us for dead. */
static int leave(struct daemon *d)
{
	if (d->pair.phase == PAIR_IDLE)
		send_frame(d, FRAME_BYE, 0, NULL, 0);
	return sd_event_exit(d->event, 0);
}

static void feed(struct daemon *d, const struct pair_event *event)
{
	enum pair_phase before = d->pair.phase;
	struct pair_actions actions;

	pair_event(&d->pair, event, &actions);
	if (d->pair.phase != before)
		test_kill(d->pair.phase, "");
	if (d->pair.phase == PAIR_COLLECTING && before != PAIR_COLLECTING)
		state_begin(d);
	for (unsigned int i = 0; i < actions.nr; i++)
		perform(d, &actions.action[i]);
	if (d->pair.phase != before)
		test_kill(d->pair.phase, "+");
	if (d->leaving && d->pair.phase == PAIR_IDLE && !d->pair.busy)
		leave(d);
}

static void feed_type(struct daemon *d, enum pair_event_type type)
{
	struct pair_event event = { .type = type };

	feed(d, &event);
}

/*
 * ---- The peer ----
 */

static void peer_opened(struct repl_conn *conn, void *context)
{
	struct daemon *d = context;

	/* A peer that connects anew has given up the old connection. */
	if (d->conn && d->conn != conn)
		conn_close(d->conn, "the peer has connected again");
	d->conn = conn;
	d->open = true;
	d->heard = now_ms();
	d->silent = 0;
	feed_type(d, PAIR_OPENED);
}

static void peer_closed(struct repl_conn *conn, const char *why, void *context)
{
	struct daemon *d = context;
	bool open = d->open;

	if (conn != d->conn) {
		/* It never got as far as being the peer. */
		say(4, "%s: %s", conn_peer(conn), why);
		conn_free(conn);
		return;
	}
	if (open || strcmp(d->why_lost, why))
		say(4, "peer: %s", why);
	snprintf(d->why_lost, sizeof(d->why_lost), "%.250s", why);
	if (conn_key_refused(conn) && d->tls.nr_keys == 2) {
		unsigned char key[KEY_SIZE];

		/* During a rotation the peer may have the other one only. */
		memcpy(key, d->keys[0], KEY_SIZE);
		memcpy(d->keys[0], d->keys[1], KEY_SIZE);
		memcpy(d->keys[1], key, KEY_SIZE);
		key_wipe(key);
	}
	conn_free(d->conn);
	d->conn = NULL;
	d->open = false;
	if (!d->lost)
		d->lost = now_ms();
	if (d->save_source)	/* nobody will read on: let the hook see that */
		sd_event_source_set_enabled(d->save_source, SD_EVENT_ON);
	if (open) {
		tell_text(d, "disconnected", "why", why);
		feed_type(d, PAIR_CLOSED);
	}
}

static void peer_hello(struct daemon *d, const struct repl_frame *frame)
{
	struct pair_event event = { .type = PAIR_FRAME, .frame = FRAME_HELLO };
	struct repl_error error;
	struct repl_hello hello;

	if (hello_decode(frame, &hello, &error)) {
		conn_close(d->conn, error.text);
		return;
	}
	if (hello.protocol_min > 1) {
		conn_close(d->conn, "the peer speaks a newer protocol only");
		return;
	}
	if (strcmp(hello.resource, d->config->name)) {
		conn_close(d->conn, "the peer has another resource at this address");
		return;
	}
	if (strcmp(hello.host, d->config->host[!d->resource.here].name) ||
	    hello.nr_volumes != d->config->volumes) {
		conn_close(d->conn, "the peer has another configuration");
		return;
	}
	event.hello.role = hello.role == HELLO_PRIMARY ? PAIR_PRIMARY :
			   hello.role == HELLO_SECONDARY ? PAIR_SECONDARY : PAIR_NO_ROLE;
	event.hello.running = hello.stage == HELLO_STAGE_RUNNING;
	event.hello.over = hello.stage == HELLO_STAGE_FAILOVER ||
			   hello.stage == HELLO_STAGE_FAILOVER_FAILED;
	event.hello.checkpoint = hello.checkpoint;
	if (d->lost || !d->had_peer) {
		say(6, "connected to %s", hello.host);
		tell_text(d, "connected", "host", hello.host);
	}
	d->lost = 0;
	d->why_lost[0] = 0;
	d->had_peer = true;
	d->policy_ran = false;
	feed(d, &event);
}

static void peer_frame(struct repl_conn *conn, const struct repl_frame *frame, void *context)
{
	struct pair_event event = { .type = PAIR_FRAME, .id = frame->id, .good = true };
	struct daemon *d = context;
	struct repl_state_end end;
	struct repl_reply reply;
	struct repl_error error;

	d->heard = now_ms();
	d->silent = 0;
	if (!d->pair.connected && frame->type != FRAME_HELLO && frame->type != FRAME_PING &&
	    frame->type != FRAME_PONG) {
		conn_close(conn, "the peer did not say HELLO first");
		return;
	}
	event.frame = frame->type;
	switch (frame->type) {
	case FRAME_HELLO:
		peer_hello(d, frame);
		return;
	case FRAME_PING:
		send_frame(d, FRAME_PONG, 0, NULL, 0);
		return;
	case FRAME_PONG:
	case FRAME_STATE_SIZE:
	case FRAME_PAUSED:
	case FRAME_RELEASED:
		return;
	case FRAME_BYE:
		d->policy_ran = true;	/* it is not lost: somebody has ended it */
		conn_close(conn, "the peer's daemon was ended");
		return;
	case FRAME_STATE_DATA:
		if (d->pair.phase == PAIR_COLLECTING && frame->id == d->pair.id)
			state_add(d, frame->payload, frame->length);
		return;
	case FRAME_STATE_END:
		if (state_end_decode(frame, &end, &error)) {
			conn_close(conn, error.text);
			return;
		}
		event.good = !d->state_bad && end.size == d->state_size &&
			     end.crc == d->state_crc;
		break;
	case FRAME_FAILED:
		if (reply_decode(frame, &reply, &error)) {
			conn_close(conn, error.text);
			return;
		}
		snprintf(d->last_error, sizeof(d->last_error), "peer: %.200s", reply.text);
		break;
	default:
		break;
	}
	feed(d, &event);
}

static void peer_writable(struct repl_conn *conn, void *context)
{
	struct daemon *d = context;

	if (d->save_source && !d->save_eof)
		sd_event_source_set_enabled(d->save_source, SD_EVENT_ON);
}

static const struct repl_conn_ops peer_ops = {
	.opened = peer_opened,
	.frame = peer_frame,
	.closed = peer_closed,
	.writable = peer_writable,
};

static void peer_accepted(struct repl_conn *conn, void *context)
{
	conn_set_ops(conn, &peer_ops, context);
}

static void peer_connect(struct daemon *d)
{
	const struct repl_address *address = &d->config->host[!d->resource.here].address;
	struct repl_error error;

	d->tried = now_ms();
	if (!conn_connect(d->event, address, d->tls.nr_keys ? &d->tls : NULL,
			  d->config->dead_after, &peer_ops, d, &d->conn, &error))
		return;
	d->conn = NULL;
	if (strcmp(d->why_lost, error.text)) {
		say(4, "peer: %s", error.text);
		snprintf(d->why_lost, sizeof(d->why_lost), "%.250s", error.text);
	}
}

/*
 * ---- Time ----
 */

static void fenced(bool good, const struct repl_error *error, void *context)
{
	struct daemon *d = context;

	if (!good) {
		say(3, "no failover: %s", error->text);
		tell_text(d, "fence_failed", "why", error->text);
		return;
	}
	say(5, "the primary is fenced: failing over");
	feed_type(d, PAIR_ASK_FAILOVER);
}

static void hook_ended(bool good, const struct repl_error *error, void *context)
{
	if (!good)
		say(4, "%s", error->text);
}

/* The primary has been away for longer than dead_after. */
static void peer_loss(struct daemon *d)
{
	char name[80], why[300], *env[] = { name, why, NULL };
	const struct repl_config *config = d->config;
	struct repl_error error;
	int r = 0;

	d->policy_ran = true;
	tell_text(d, "peer_lost", "why", d->why_lost);
	snprintf(name, sizeof(name), "REPL_RESOURCE=%s", config->name);
	snprintf(why, sizeof(why), "REPL_WHY=%s", d->why_lost);
	if (config->peer_loss == REPL_PEER_LOSS_HOOK)
		r = work_hook(d->event, "the peer_loss hook", config->peer_loss_hook, env,
			      -1, -1, config->checkpoint_timeout, hook_ended, d, NULL,
			      &error);
	else if (config->peer_loss == REPL_PEER_LOSS_FAILOVER &&
		 d->pair.role == PAIR_SECONDARY && !d->pair.over)
		r = work_hook(d->event, "the fence hook", config->fence, env, -1, -1,
			      config->checkpoint_timeout, fenced, d, NULL, &error);
	if (r)
		say(3, "%s", error.text);
}

static void look_at_kernel(struct daemon *d)
{
	struct pair_event event = { .type = PAIR_KERNEL };
	struct repl_error error;

	if (!resource_kernel(&d->resource, &event.kernel, &error))
		feed(d, &event);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg)
{
	struct daemon *d = arg;
	uint64_t now = now_ms(), step = d->config->heartbeat;

	if (d->conn && d->open && now - d->pinged >= d->config->heartbeat) {
		d->pinged = now;
		/* Twice: it may be us who slept, and what it sent is not read yet. */
		if (now - d->heard > d->config->dead_after && ++d->silent > 1)
			conn_close(d->conn, "the peer is silent");
		else
			send_frame(d, FRAME_PING, 0, NULL, 0);
	}
	if (!d->conn && d->pair.role == PAIR_PRIMARY && now - d->tried >= RETRY_MS &&
	    !d->leaving && !d->pair.diverged)
		peer_connect(d);
	if (d->lost && d->had_peer && !d->policy_ran && now - d->lost >= d->config->dead_after)
		peer_loss(d);
	if (d->pair.phase != PAIR_IDLE && d->began && d->pair.role == PAIR_PRIMARY &&
	    !d->late && now - d->began / 1000 > d->config->checkpoint_timeout) {
		d->late = true;
		feed_type(d, PAIR_TIMEOUT);
	}
	if (d->pair.role == PAIR_PRIMARY && d->config->interval && !d->paused &&
	    now >= d->next && !d->leaving) {
		d->next = now + d->config->interval;
		if (d->pair.connected && !d->pair.degraded)
			feed_type(d, PAIR_TRIGGER);
	}
	if (d->config->interval && d->config->interval < step)
		step = d->config->interval;
	if (step > RETRY_MS)
		step = RETRY_MS;
	sd_event_source_set_time_relative(source, step * 1000);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
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
	look_at_kernel(d);
	tell_text(d, "changed", NULL, NULL);
	return 0;
}

/*
 * ---- Requests ----
 */

static const char *connection_word(const struct daemon *d)
{
	if (d->pair.connected)
		return "connected";
	if (d->pair.diverged)
		return "diverged";
	return d->conn ? "connecting" : "disconnected";
}

static struct json_object *status_object(struct daemon *d)
{
	struct json_object *o = json_object_new_object();
	const struct pair *pair = &d->pair;
	bool primary = pair->role == PAIR_PRIMARY;

	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "resource", json_object_new_string(d->config->name));
	json_object_object_add(o, "role", json_object_new_string(primary ? "primary" :
								 "secondary"));
	json_object_object_add(o, "connection",
			       json_object_new_string(connection_word(d)));
	json_object_object_add(o, "disconnected_because", d->pair.connected ||
			       !d->why_lost[0] ? NULL : json_object_new_string(d->why_lost));
	json_object_object_add(o, "phase", json_object_new_string(pair_phase_name(pair->phase)));
	json_object_object_add(o, "paused", json_object_new_boolean(d->paused));
	json_object_object_add(o, "degraded", json_object_new_boolean(pair->degraded));
	json_object_object_add(o, "stale", json_object_new_boolean(pair->stale));
	json_object_object_add(o, "failed_over",
			       json_object_new_boolean(primary ? pair->diverged : pair->over));
	json_object_object_add(o, "checkpoint", json_object_new_uint64(pair->last));
	json_object_object_add(o, "checkpoint_time", d->last_when ?
			       json_object_new_double(d->last_when) : NULL);
	json_object_object_add(o, "checkpoint_seconds", d->last_duration && primary ?
			       json_object_new_double(d->last_duration / 1e6) : NULL);
	json_object_object_add(o, "pause_seconds", d->last_pause && primary ?
			       json_object_new_double(d->last_pause / 1e6) : NULL);
	json_object_object_add(o, "last_error", d->last_error[0] ?
			       json_object_new_string(d->last_error) : NULL);
	return o;
}

static void wait_for(struct daemon *d, struct repl_client *client, unsigned int what)
{
	if (d->nr_waiters == MAX_WAITERS) {
		control_end(client, REPL_EXIT_FAILED, "too many requests wait already");
		return;
	}
	d->waiter[d->nr_waiters].client = client;
	/* One that is under way has made its cut, or may have. */
	d->waiter[d->nr_waiters].from = what == WAIT_CHECKPOINT ? d->begun + 1 : 0;
	d->waiter[d->nr_waiters++].what = what;
}

static void ask_checkpoint(struct daemon *d, struct repl_client *client)
{
	if (d->pair.role != PAIR_PRIMARY) {
		control_end(client, REPL_EXIT_REFUSED,
			    "a checkpoint is asked for on the primary");
		return;
	}
	if (!d->pair.connected && !d->pair.diverged) {
		control_end(client, REPL_EXIT_PEER, d->why_lost[0] ? d->why_lost :
			    "the peer is not connected");
		return;
	}
	wait_for(d, client, WAIT_CHECKPOINT);
	feed_type(d, PAIR_TRIGGER);
}

static void ask_failover(struct daemon *d, struct repl_client *client)
{
	if (d->pair.role != PAIR_SECONDARY) {
		control_end(client, REPL_EXIT_REFUSED, "a failover is asked for on the secondary");
		return;
	}
	if (d->pair.over) {
		control_end(client, REPL_EXIT_OK, NULL);
		return;
	}
	wait_for(d, client, WAIT_FAILOVER);
	feed_type(d, PAIR_ASK_FAILOVER);
}

static void on_request(struct repl_client *client, struct json_object *request, void *context)
{
	struct daemon *d = context;
	struct json_object *value;
	const char *verb = "";

	if (json_object_object_get_ex(request, "verb", &value))
		verb = json_object_get_string(value);
	if (!verb)
		verb = "";
	if (!strcmp(verb, "status")) {
		value = status_object(d);
		control_line(client, value);
		json_object_put(value);
		control_end(client, REPL_EXIT_OK, NULL);
	} else if (!strcmp(verb, "events")) {
		value = status_object(d);
		json_object_object_add(value, "event", json_object_new_string("status"));
		control_line(client, value);
		json_object_put(value);
		wait_for(d, client, WAIT_EVENTS);
	} else if (!strcmp(verb, "checkpoint")) {
		ask_checkpoint(d, client);
	} else if (!strcmp(verb, "failover")) {
		ask_failover(d, client);
	} else if (!strcmp(verb, "pause") || !strcmp(verb, "resume")) {
		if (d->pair.role != PAIR_PRIMARY) {
			control_end(client, REPL_EXIT_REFUSED,
				    "on the secondary there is a merge to pause only after a failover");
			return;
		}
		d->paused = !strcmp(verb, "pause");
		d->next = now_ms();
		control_end(client, REPL_EXIT_OK, NULL);
	} else {
		control_end(client, REPL_EXIT_USAGE, "no such request");
	}
}

static void on_client_gone(struct repl_client *client, void *context)
{
	struct daemon *d = context;

	for (unsigned int i = 0; i < d->nr_waiters; i++)
		if (d->waiter[i].client == client) {
			d->waiter[i] = d->waiter[--d->nr_waiters];
			return;
		}
}

static const struct repl_control_ops control_ops = {
	.request = on_request,
	.gone = on_client_gone,
};

/*
 * ---- Begin and end ----
 */

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *arg)
{
	struct daemon *d = arg;

	sd_notify(0, "STOPPING=1");
	d->leaving = true;
	/* A checkpoint under way comes to its end first; a second signal does not wait. */
	if ((d->pair.phase == PAIR_IDLE && !d->pair.busy) || d->tried == UINT64_MAX)
		return leave(d);
	d->tried = UINT64_MAX;
	return 0;
}

static int take_lock(struct daemon *d, struct repl_error *error)
{
	char path[256];

	resource_runtime(&d->resource, "lock", path, sizeof(path));
	d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock < 0)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (!flock(d->lock, LOCK_EX | LOCK_NB))
		return 0;
	say(5, "waiting for a daemon, or what one left behind, to end");
	while (flock(d->lock, LOCK_EX))
		if (errno != EINTR)
			return error_set(error, REPL_EXIT_FAILED, "%s: %s", path,
					 strerror(errno));
	return 0;
}

static int load_keys(struct daemon *d, struct repl_error *error)
{
	if (d->config->plaintext)
		return 0;
	if (key_load(d->config->key, d->keys[0], error))
		return -1;
	d->tls.nr_keys = 1;
	if (d->config->old_key) {
		if (key_load(d->config->old_key, d->keys[1], error))
			return -1;
		d->tls.nr_keys = 2;
	}
	d->tls.keys = (const unsigned char (*)[KEY_SIZE])d->keys;
	return 0;
}

static int begin_loop(struct daemon *d, struct repl_error *error)
{
	sigset_t mask;
	int r;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_default(&d->event);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGTERM, on_signal, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGINT, on_signal, d);
	if (r >= 0)
		r = sd_event_add_time_relative(d->event, &d->tick, CLOCK_MONOTONIC, 0, 1000,
					       on_tick, d);
	if (r >= 0)
		r = sd_event_set_watchdog(d->event, true);
	d->dm_fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (r >= 0 && d->dm_fd >= 0 && !dm_arm(d))
		r = sd_event_add_io(d->event, NULL, d->dm_fd, EPOLLIN, on_dm_event, d);
	if (r < 0)
		return error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r));
	return 0;
}

static int begin(struct daemon *d, struct repl_error *error)
{
	struct pair_event event = { .type = PAIR_START };
	char path[256];

	if (load_keys(d, error) || take_lock(d, error) || begin_loop(d, error) ||
	    resource_kernel(&d->resource, &event.kernel, error))
		return -1;
	resource_runtime(&d->resource, "control", path, sizeof(path));
	if (control_listen(d->event, path, &control_ops, d, &d->control, error))
		return -1;
	if (d->pair.role == PAIR_SECONDARY &&
	    conn_listen(d->event, &d->config->host[d->resource.here].address,
			d->tls.nr_keys ? &d->tls : NULL, d->config->dead_after,
			peer_accepted, d, &d->listener, error))
		return -1;
	event.journal = journal_read(d);
	event.kernel.held |= is_held(d);
	if (!event.kernel.held && !event.kernel.prepared) {
		journal_clear(d);	/* of something that is over */
		event.journal = 0;
	}
	feed(d, &event);
	return 0;
}

int serve(const struct repl_config *config, unsigned int here, struct repl_error *error)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int r = -1;

	if (!d)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	d->config = config;
	d->resource.config = config;
	d->resource.here = here;
	d->lock = d->save_fd = d->state_fd = d->dm_fd = -1;
	if (getrandom(d->instance, sizeof(d->instance), 0) != sizeof(d->instance))
		memset(d->instance, 0, sizeof(d->instance));
	pair_init(&d->pair, resource_role(&d->resource));

	if (!begin(d, error)) {
		say(6, "%s: %s", config->name, d->pair.role == PAIR_PRIMARY ? "primary" :
		    "secondary");
		sd_notify(0, "READY=1");
		r = sd_event_loop(d->event);
		if (r < 0)
			error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r));
		else
			say(6, "%s: ends", config->name);
	}
	control_free(d->control);
	conn_listener_free(d->listener);
	conn_free(d->conn);
	save_close(d);
	state_drop(d);
	key_wipe(d->keys[0]);
	key_wipe(d->keys[1]);
	if (d->dm_fd >= 0)
		close(d->dm_fd);
	if (d->lock >= 0)
		close(d->lock);
	sd_event_unref(d->event);
	free(d);
	return r < 0 ? -1 : 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Session: the state of a checkpoint on its way from the save hook of one host to the
 * load hook of the other. Pieces go out as they come; the other side collects them in
 * a file, and the load hook gets it when it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "crc32c.h"
#include "session-i.h"

static void hook_done(struct session *s, enum pair_action_type type, bool good)
{
	struct pair_event event = { .type = PAIR_DONE, .done = type, .good = good };

	s->work = NULL;
	session_feed(s, &event);
}

static bool journal(struct session *s)
{
	struct repl_error error;

	if (!journal_write(&s->resource, s->pair.id, &error))
		return true;
	say(s, 3, "%s", error.text);
	return false;
}

/*
 * ---- Save ----
 */

/* All of it is on its way: one step with the end of the save, see pair.h. */
static bool state_end(struct session *s)
{
	unsigned char payload[FRAME_STATE_END_SIZE];
	struct repl_state_end end = { .size = s->state_size, .crc = s->state_crc };

	if (!s->open || !journal(s))
		return false;
	state_end_encode(&end, payload);
	send_frame(s, FRAME_STATE_END, s->pair.id, payload, sizeof(payload));
	return true;
}

/**
 * save_close() - read no more of the save hook
 * @s: session
 */
void save_close(struct session *s)
{
	s->save_source = sd_event_source_disable_unref(s->save_source);
	if (s->save_fd >= 0)
		close(s->save_fd);
	s->save_fd = -1;
}

static void save_check(struct session *s)
{
	if (!s->save_ended || (!s->save_eof && s->save_good))
		return;
	save_close(s);
	hook_done(s, PAIR_SAVE, s->save_good && state_end(s));
}

/**
 * save_abort() - it must end, and badly; if the hook has ended already, now
 * @s: session
 */
void save_abort(struct session *s)
{
	s->save_good = false;
	if (s->work) {
		work_cancel(s->work);
		return;
	}
	if (!s->save_ended)
		return;			/* save_now() is on its way */
	save_close(s);
	hook_done(s, PAIR_SAVE, false);
}

static int save_readable(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	static unsigned char buf[FRAME_DATA_MAX];
	struct session *s = arg;
	ssize_t n;

	if (!s->conn || !s->open) {
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		return 0;		/* PAIR_CANCEL comes, or has come */
	}
	if (conn_queued(s->conn) > CONN_QUEUE_LOW) {
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		return 0;		/* writable() goes on */
	}
	n = read(fd, buf, sizeof(buf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		s->save_eof = true;
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		save_check(s);
		return 0;
	}
	s->state_size += n;
	if (s->state_size > s->config->max_state) {
		say(s, 3, "the save hook gives more than max_state");
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		save_abort(s);
		return 0;
	}
	s->state_crc = crc32c(s->state_crc, buf, n);
	send_frame(s, FRAME_STATE_DATA, s->pair.id, buf, n);
	return 0;
}

static void save_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	if (!good)
		session_failed(s, error->text);
	s->work = NULL;
	s->save_ended = true;
	s->save_good = good && s->state_size <= s->config->max_state;
	save_check(s);
}

static int save_now(sd_event_source *source, void *arg)
{
	struct session *s = arg;

	hook_done(s, PAIR_SAVE, state_end(s));
	return 0;
}

/**
 * save_start() - PAIR_SAVE: send the state; without a hook there is none
 * @s: session
 */
void save_start(struct session *s)
{
	char resource[80], id[48], *env[3];
	struct repl_error error = { REPL_EXIT_FAILED, "pipe" };
	int fd[2] = { -1, -1 };

	s->state_size = 0;
	s->state_crc = 0;
	s->save_eof = false;
	s->save_ended = false;
	s->save_good = false;
	/* (A hook that has come in meanwhile: the workload has gone on already.) */
	if (!s->config->save || s->early) {
		if (sd_event_add_defer(s->event, NULL, save_now, s) < 0)
			abort();
		return;
	}
	session_hook_env(s, resource, id, env);
	if (pipe2(fd, O_CLOEXEC) < 0)
		goto bad;
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	s->save_fd = fd[0];
	if (sd_event_add_io(s->event, &s->save_source, fd[0], EPOLLIN, save_readable, s) < 0 ||
	    work_hook(s->event, "the save hook", s->config->save, env, -1, fd[1], 0,
		      save_ended, s, &s->work, &error))
		goto bad;
	close(fd[1]);
	return;
bad:
	say(s, 3, "%s", error.text);
	if (fd[1] >= 0)
		close(fd[1]);
	save_close(s);
	hook_done(s, PAIR_SAVE, false);
}

/*
 * ---- Load ----
 */

/**
 * state_drop() - PAIR_DROP_STATE: forget what was collected
 * @s: session
 */
void state_drop(struct session *s)
{
	if (s->state_fd >= 0)
		close(s->state_fd);
	s->state_fd = -1;
}

static void state_failed(struct session *s, const char *why)
{
	s->state_bad = true;
	session_failed(s, why);
}

/**
 * state_begin() - a state is about to come
 * @s: session
 */
void state_begin(struct session *s)
{
	state_drop(s);
	s->state_size = 0;
	s->state_crc = 0;
	s->state_bad = false;
}

/* Its place: a file without a name, where there is room. An empty state has none. */
static bool state_file(struct session *s)
{
	const char *dir = getenv("REPLCTL_STATE_DIR");
	char path[256];

	if (s->state_fd >= 0)
		return true;
	dir = dir ? dir : "/var/tmp";
	s->state_fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->state_fd >= 0)
		return true;
	/* Not every file system has that. */
	snprintf(path, sizeof(path), "%s/dm-repl.XXXXXX", dir);
	s->state_fd = mkostemp(path, O_CLOEXEC);
	if (s->state_fd < 0)
		return false;
	unlink(path);
	return true;
}

/**
 * state_add() - a piece has come
 * @s: session
 * @data: piece
 * @size: of @data, bytes
 */
void state_add(struct session *s, const void *data, size_t size)
{
	if (s->state_bad)
		return;
	s->state_size += size;
	if (s->state_size > s->config->max_state) {
		state_failed(s, "the state is larger than max_state");
		return;
	}
	if (!state_file(s)) {
		state_failed(s, "there is no place for the state");
		return;
	}
	if (write(s->state_fd, data, size) != (ssize_t)size) {
		state_failed(s, "there is no room for the state");
		return;
	}
	s->state_crc = crc32c(s->state_crc, data, size);
}

/**
 * state_whole() - is it what the peer has sent?
 * @s: session
 * @end: what the peer says
 *
 * Return: true if so.
 */
bool state_whole(const struct session *s, const struct repl_state_end *end)
{
	return !s->state_bad && end->size == s->state_size && end->crc == s->state_crc;
}

static void load_ended(bool good, const struct repl_error *error, void *context)
{
	struct session *s = context;

	if (!good)
		state_failed(s, error->text);
	hook_done(s, PAIR_LOAD, good && journal(s));
}

static int load_now(sd_event_source *source, void *arg)
{
	load_ended(true, NULL, arg);
	return 0;
}

/**
 * load_start() - PAIR_LOAD: give the state to the hook, if there is one
 * @s: session
 */
void load_start(struct session *s)
{
	char resource[80], id[48], *env[3];
	struct repl_error error;

	if (!s->config->load) {
		if (sd_event_add_defer(s->event, NULL, load_now, s) < 0)
			abort();
		return;
	}
	session_hook_env(s, resource, id, env);
	if (s->state_fd >= 0)
		lseek(s->state_fd, 0, SEEK_SET);
	if (work_hook(s->event, "the load hook", s->config->load, env, s->state_fd, -1,
		      s->config->checkpoint_timeout, load_ended, s, &s->work, &error))
		load_ended(false, &error, s);
}

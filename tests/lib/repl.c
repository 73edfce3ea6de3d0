// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

/* Exactly @want words, one space between them: anything else is no status. */
static unsigned int split(char *line, char **words, unsigned int max)
{
	unsigned int nr = 0;
	char *word;

	if (!line[0] || isspace(line[0]))
		return 0;
	while ((word = strsep(&line, " "))) {
		if (!word[0] || nr == max)
			return 0;
		words[nr++] = word;
	}
	return nr;
}

static uint64_t number(const char *word, const char *line)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(word, &end, 10);
	need(isdigit(word[0]) && !*end && !errno, "'%s' is a number in '%s'", word, line);
	return n;
}

static bool maybe_number(const char *word, const char *line, uint64_t *n)
{
	*n = 0;
	if (!strcmp(word, "-"))
		return false;
	*n = number(word, line);
	return true;
}

static bool one_of(const char *word, const char *words)
{
	const char *at = words;
	size_t len = strlen(word);

	while ((at = strstr(at, word))) {
		if ((at == words || at[-1] == ' ') && (!at[len] || at[len] == ' '))
			return true;
		at++;
	}
	return false;
}

/* Classes in the documented order, each at most once. */
static bool classes_in_order(const char *errors, const char *order)
{
	char copy[256], *rest = copy, *class;

	if (!strcmp(errors, "-"))
		return true;
	snprintf(copy, sizeof(copy), "%s", errors);
	while ((class = strsep(&rest, ","))) {
		const char *at = order;
		size_t len = strlen(class);

		for (;;) {
			at = len ? strstr(at, class) : NULL;
			if (!at)
				return false;
			if ((at == order || at[-1] == ' ') && (!at[len] || at[len] == ' '))
				break;
			at++;
		}
		order = at + len;
	}
	return true;
}

#define COPY(to, word) snprintf(to, sizeof(to), "%s", word)

void repl_status(const char *view, struct repl_status *st)
{
	char copy[512], *w[REPL_WORDS + 2], *slash;
	int err;

	memset(st, 0, sizeof(*st));
	err = dm_status_to(view, st->line, sizeof(st->line), false);
	errno = err;
	need(!err, "%s has a status", view);
	strcpy(copy, st->line);
	need(split(copy, w, REPL_WORDS + 1) == REPL_WORDS, "%d words in '%s'", REPL_WORDS,
	     st->line);
	need(!strcmp(w[0], "secondary"), "the role in '%s'", st->line);
	need(one_of(w[1], "none running failover failover-failed done"),
	     "the stage in '%s'", st->line);
	need(one_of(w[9], "- merge fill"), "the job in '%s'", st->line);
	need(one_of(w[10], "- running paused done failed cancelled"),
	     "the job's state in '%s'", st->line);
	COPY(st->stage, w[1]);
	st->checkpoint = number(w[2], st->line);
	st->is_prepared = maybe_number(w[3], st->line, &st->prepared);
	st->region_size = number(w[4], st->line);
	st->regions = number(w[5], st->line);
	st->hidden = number(w[6], st->line);
	st->active = number(w[7], st->line);
	st->ops = number(w[8], st->line);
	COPY(st->job, w[9]);
	COPY(st->job_state, w[10]);
	slash = strchr(w[11], '/');
	need(slash, "the job's progress in '%s'", st->line);
	*slash = 0;
	st->job_done = number(w[11], st->line);
	st->job_total = number(slash + 1, st->line);
	st->job_speed = number(w[12], st->line);
	COPY(st->errors, w[13]);
	st->error = number(w[14], st->line);
	st->has_sector = maybe_number(w[15], st->line, &st->sector);
	st->has_log = strcmp(w[16], "-");
	if (st->has_log) {
		slash = strchr(w[16], '/');
		need(slash, "what the log uses in '%s'", st->line);
		*slash = 0;
		st->log_used = number(w[16], st->line);
		st->log_blocks = number(slash + 1, st->line);
	}

	need(!st->has_log || st->log_used <= st->log_blocks,
	     "no more than all of the log in '%s'", st->line);
	need(st->job_done <= st->job_total, "progress up to 100 %% in '%s'", st->line);
	need(st->hidden <= st->regions && st->active <= st->regions,
	     "no more than all regions in '%s'", st->line);
	need(classes_in_order(st->errors, "cbw-read cbw-write secondary-write flush view-read view-write merge-read merge-write merge-flush metadata"),
	     "the latched classes in '%s'", st->line);
}

void repl_primary_status(const char *primary, struct repl_primary_status *st)
{
	char copy[512], *w[PRIMARY_WORDS + 1];
	unsigned long long a, b;
	int err, n = 0;

	memset(st, 0, sizeof(*st));
	err = dm_status_to(primary, st->line, sizeof(st->line), false);
	errno = err;
	need(!err, "%s has a status", primary);
	strcpy(copy, st->line);
	need(split(copy, w, PRIMARY_WORDS + 1) == PRIMARY_WORDS, "%d words in '%s'",
	     PRIMARY_WORDS, st->line);
	need(!strcmp(w[0], "primary"), "the role in '%s'", st->line);
	need(one_of(w[1], "none running"), "the stage in '%s'", st->line);
	need(one_of(w[3], "none attached detached failed"), "the peer in '%s'", st->line);
	COPY(st->stage, w[1]);
	COPY(st->mode, w[2]);
	COPY(st->peer, w[3]);
	st->writes = number(w[4], st->line);
	st->forwarded = number(w[5], st->line);
	st->missed = number(w[6], st->line);
	COPY(st->errors, w[7]);
	st->error = number(w[8], st->line);
	st->has_sector = maybe_number(w[9], st->line, &st->sector);

	need(sscanf(w[10], "%llu/%llu%n", &a, &b, &n) == 2 && !w[10][n] && a <= b,
	     "the window in '%s'", st->line);
	st->window_used = a;
	st->window_size = b;
	need(sscanf(w[11], "%llu/%llu%n", &a, &b, &n) == 2 && !w[11][n] && a <= b,
	     "the dirty regions in '%s'", st->line);
	st->dirty = a;
	st->regions = b;
	COPY(st->cut, w[12]);
	COPY(st->job, w[13]);
	COPY(st->job_state, w[14]);
	need(one_of(st->job, "- push"), "the job in '%s'", st->line);
	need(one_of(st->job_state, "- running paused done failed cancelled"),
	     "the job's state in '%s'", st->line);
	need(sscanf(w[15], "%llu/%llu%n", &a, &b, &n) == 2 && !w[15][n] && a <= b,
	     "the progress in '%s'", st->line);
	st->job_done = a;
	st->job_total = b;
	st->job_speed = number(w[16], st->line);
	st->checkpoint_regions = number(w[17], st->line);

	need(st->writes == st->forwarded + st->missed,
	     "each write is forwarded or missed in '%s'", st->line);
	need(classes_in_order(st->errors, "peer-write peer-flush peer-timeout push-read metadata"),
	     "the latched classes in '%s'", st->line);
}

bool ok_ingest(const char *ingest, const char *stage, const char *bound,
	       const char *fence)
{
	char want[128];

	snprintf(want, sizeof(want), "ingest %s %s %s", stage, bound, fence);
	return ok_str(dm_status(ingest), want, "the ingest is %s, %s, %s",
		      stage, bound, fence);
}

bool ok_stage(const char *view, const char *stage)
{
	struct repl_status st;

	repl_status(view, &st);
	return ok_str(st.stage, stage, "stage %s", stage);
}

static bool latched(const char *line, const char *got, unsigned int got_error,
		    bool has_sector, uint64_t got_sector, const char *errors,
		    int error, uint64_t sector)
{
	bool none = !strcmp(errors, "-");
	bool good = !strcmp(got, errors) && got_error == (unsigned int)error;

	if (none)
		good = good && !has_sector && !error;
	else if (sector != ANY_SECTOR)
		good = good && has_sector && got_sector == sector;
	if (none)
		return ok(good, "no error is latched%s%s", good ? "" : " in ",
			  good ? "" : line);
	return ok(good, "%s is latched, errno %d%s%s", errors, error,
		  good ? "" : " in ", good ? "" : line);
}

bool ok_latched(const char *view, const char *errors, int error, uint64_t sector)
{
	struct repl_status st;

	repl_status(view, &st);
	return latched(st.line, st.errors, st.error, st.has_sector, st.sector,
		       errors, error, sector);
}

bool ok_primary_latched(const char *primary, const char *errors, int error,
			uint64_t sector)
{
	struct repl_primary_status st;

	repl_primary_status(primary, &st);
	return latched(st.line, st.errors, st.error, st.has_sector, st.sector,
		       errors, error, sector);
}

bool wait_stage(const char *view, const char *stage)
{
	for (;;) {
		uint32_t nr = dm_event_nr(view);
		struct repl_status st;

		repl_status(view, &st);
		if (!strcmp(st.stage, stage))
			return true;
		if (strcmp(st.stage, "failover")) {
			note("waiting for %s: %s", stage, st.line);
			return false;
		}
		if (dm_wait_event(view, nr))
			return false;
	}
}

bool wait_job(const char *view, const char *state)
{
	for (;;) {
		uint32_t nr = dm_event_nr(view);
		struct repl_status st;

		repl_status(view, &st);
		if (!strcmp(st.job_state, state))
			return true;
		if (strcmp(st.job_state, "running") && strcmp(st.job_state, "paused")) {
			note("waiting for a job that is %s: %s", state, st.line);
			return false;
		}
		if (dm_wait_event(view, nr))
			return false;
	}
}

bool wait_peer(const char *primary, const char *peer)
{
	for (;;) {
		uint32_t nr = dm_event_nr(primary);
		struct repl_primary_status st;

		repl_primary_status(primary, &st);
		if (!strcmp(st.peer, peer))
			return true;
		if (strcmp(st.peer, "attached"))
			return false;
		if (dm_wait_event(primary, nr))
			return false;
	}
}

bool wait_push(const char *primary, const char *state)
{
	for (;;) {
		uint32_t nr = dm_event_nr(primary);
		struct repl_primary_status st;

		repl_primary_status(primary, &st);
		if (!strcmp(st.job_state, state))
			return true;
		if (strcmp(st.job_state, "-") && strcmp(st.job_state, "running") &&
		    strcmp(st.job_state, "paused"))
			return false;
		if (dm_wait_event(primary, nr))
			return false;
	}
}

/*
 * Sets
 */

const char *set_metadata;

void set_make(struct repl_set *set, const char *prefix, uint64_t sectors,
	      unsigned int region, const char *secondary, const char *hidden,
	      const char *active)
{
	memset(set, 0, sizeof(*set));
	set->sectors = sectors;
	set->region = region;
	snprintf(set->view, sizeof(set->view), "%s-view", prefix);
	snprintf(set->ingest, sizeof(set->ingest), "%s-ingest", prefix);
	snprintf(set->secondary, sizeof(set->secondary), "%s-secondary", prefix);
	snprintf(set->hidden, sizeof(set->hidden), "%s-hidden", prefix);
	snprintf(set->active, sizeof(set->active), "%s-active", prefix);

	leg_make(set->secondary, secondary, sectors);
	leg_make(set->hidden, hidden, sectors);
	leg_make(set->active, active, sectors);
	if (set_metadata) {
		int fd = dev_open(set_metadata);

		snprintf(set->metadata, sizeof(set->metadata), "%s-metadata", prefix);
		leg_make(set->metadata, set_metadata, lseek(fd, 0, SEEK_END) / SECTOR);
		need(!io_fill(fd, 0, 8192, 0), "a blank metadata device");
		close(fd);
	}
	errno = set_bring_up(set);
	need(!errno, "a repl-secondary and a repl-ingest");

	set->secondary_fd = dev_open(secondary);
	set->hidden_fd = dev_open(hidden);
	set->active_fd = dev_open(active);
}

int set_bring_up(struct repl_set *set)
{
	int err = dm_make(set->view, set->sectors, "repl-secondary", "%s %s %s %s %u",
			  dm_path(set->secondary), dm_path(set->hidden), dm_path(set->active),
			  *set->metadata ? dm_path(set->metadata) : "-", set->region);

	if (err)
		return err;
	err = dm_make(set->ingest, set->sectors, "repl-ingest", "%s", dm_path(set->secondary));
	need(!err, "a repl-ingest");
	set->view_fd = dev_open(dm_path(set->view));
	set->ingest_fd = dev_open(dm_path(set->ingest));
	return 0;
}

static void close_it(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int remove_closed(const char *name)
{
	dm_wait_closed(name);
	return dm_remove(name);
}

void set_take_down(struct repl_set *set)
{
	int err;

	close_it(&set->view_fd);
	close_it(&set->ingest_fd);
	err = remove_closed(set->ingest);
	need(!err, "the ingest can be removed");
	err = remove_closed(set->view);
	need(!err, "the view can be removed");
}

void set_remove(struct repl_set *set)
{
	static const char *const what[] = {
		"ingest", "view", "active", "hidden", "secondary", "metadata"
	};
	const char *names[] = {
		set->ingest, set->view, set->active, set->hidden, set->secondary,
		set->metadata
	};

	close_it(&set->view_fd);
	close_it(&set->ingest_fd);
	close_it(&set->secondary_fd);
	close_it(&set->hidden_fd);
	close_it(&set->active_fd);
	for (unsigned int i = 0; i < 6; i++) {
		int err = *names[i] ? remove_closed(names[i]) : 0;

		if (err)
			ok_errno(err, 0, "the %s can be removed", what[i]);
	}
}

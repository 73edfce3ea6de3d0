// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <inttypes.h>
#include <json.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define SECTOR 512u
#define KIB 1024u
#define NS_PER_SECOND 1000000000u
#define MIN_REGION 8u			/* sectors */
#define MAX_REGION 8192u
#define MAX_REGIONS (UINT64_MAX / SECTOR / MAX_REGION)	/* any of which has bytes */
#define MAX_ERRNO 4095u

/*
 * Words
 */

static const char *const roles[] = { "secondary", "ingest", "primary" };
static const char *const stages[] = {
	"none", "running", "failover", "failover-failed", "done",
};
static const char *const jobs[] = { "-", "merge", "fill", "push" };
static const char *const job_states[] = {
	"-", "running", "paused", "done", "failed", "cancelled",
};
static const char *const modes[] = { "sync", "async" };
static const char *const peers[] = { "none", "attached", "detached", "failed" };
static const char *const cuts[] = { "-", "held", "cut", "drained", "broken" };
static const char *const binds[] = { "unbound", "bound" };
static const char *const fences[] = { "open", "fenced" };

/* What it means that a class is latched, and what to do about it. */
struct class {
	const char *name;
	const char *what;
	const char *todo;
	bool is_flush;			/* its sector says nothing */
};

#define THEN_SYNC ", then resync: the primary does it by itself, or at once by `replctl sync %s` there"
#define THEN_AGAIN ", then resync: `replctl retry %s`, and the primary sends all since the last checkpoint again (with a data leg of your own: first `replctl sync --full %s` there)"
#define THEN_CLEAR ", then `replctl retry %s`"
#define THEN_PUSH ", then resync: `replctl sync %s`"
#define THEN_RETRY ", then `replctl retry %s`: the merge goes on"

static const struct class classes[] = {
	[REPL_CBW_READ] = {
		"cbw-read", "the secondary disk cannot be read, so old content was not preserved; no checkpoint until a resync",
		"check the secondary disk or replace it" THEN_SYNC },
	[REPL_CBW_WRITE] = {
		"cbw-write", "the hidden device cannot be written, so old content was not preserved; no checkpoint until a resync",
		"make space for the hidden device or replace it" THEN_SYNC },
	[REPL_SECONDARY_WRITE] = {
		"secondary-write", "the secondary disk cannot be written; no checkpoint until a resync",
		"check the secondary disk or replace it" THEN_SYNC },
	[REPL_FLUSH] = {
		"flush", "the secondary disk cannot be flushed; no checkpoint until a resync",
		"check the secondary disk or replace it" THEN_AGAIN, true },
	[REPL_VIEW_READ] = {
		"view-read", "a read of the view failed; its reader got the error",
		"check active, hidden and the secondary disk" THEN_CLEAR },
	[REPL_VIEW_WRITE] = {
		"view-write", "a write of the view failed; its writer got the error",
		"make space for active, or check the devices under the view" THEN_CLEAR },
	[REPL_MERGE_READ] = {
		"merge-read", "the merge cannot read the active or the hidden device; nothing is lost",
		"repair the active or hidden device" THEN_RETRY },
	[REPL_MERGE_WRITE] = {
		"merge-write", "the merge cannot write the secondary disk; nothing is lost",
		"repair the secondary disk" THEN_RETRY },
	[REPL_MERGE_FLUSH] = {
		"merge-flush", "the merge cannot flush the secondary disk at its end",
		"repair the secondary disk" THEN_RETRY, true },
	[REPL_METADATA] = {
		"metadata", "the metadata device cannot be written, so a write or a checkpoint could not be recorded; no checkpoint until a resync",
		"check the metadata device (`replctl metadata check`) or replace it" THEN_CLEAR THEN_SYNC },
	[REPL_PEER_WRITE] = {
		"peer-write", "the peer did not take a write; nothing is forwarded any more",
		"repair the connection or the peer" THEN_PUSH },
	[REPL_PEER_FLUSH] = {
		"peer-flush", "the peer did not flush; nothing is forwarded any more",
		"repair the connection or the peer" THEN_PUSH, true },
	[REPL_PEER_TIMEOUT] = {
		"peer-timeout", "the peer did not answer within peer_timeout; nothing is forwarded any more",
		"repair the connection or the peer" THEN_PUSH },
	[REPL_PUSH_READ] = {
		"push-read", "the disk could not be read for the resync, which has ended",
		"check the disk or replace it" THEN_PUSH },
	[REPL_PRIMARY_METADATA] = {
		"metadata", "the metadata device could not be written: until all of the map is there again there is no checkpoint, and after a crash of this host all counts as missed, or, if no superblock could be written either, nobody knows",
		"check the metadata device (`replctl metadata check`) or replace it" },
};

#define FAILOVER_FAILED_TODO "repair the devices" THEN_RETRY

const char *status_role_name(enum repl_role role)
{
	return roles[role];
}

const char *status_stage_name(enum repl_stage stage)
{
	return stages[stage];
}

const char *status_job_name(enum repl_job_type job)
{
	return jobs[job];
}

const char *status_job_state_name(enum repl_job_state state)
{
	return job_states[state];
}

const char *status_peer_name(enum repl_peer peer)
{
	return peers[peer];
}

const char *status_cut_name(enum repl_cut cut)
{
	return cuts[cut];
}

const char *status_class_name(enum repl_class class)
{
	return classes[class].name;
}

/*
 * Parser
 */

/* A line that is read word by word. The first mistake sticks. */
struct reader {
	char line[1024];
	char *next;			/* NULL: at the end */
	unsigned int nr;		/* of the word that was read last, from 1 */
	struct repl_error *error;
	bool failed;
};

static int bad(struct reader *r, const char *what, const char *word)
{
	char shown[48];
	size_t i;

	if (r->failed)
		return -1;
	r->failed = true;
	for (i = 0; word && word[i] && i < sizeof(shown) - 1; i++)
		shown[i] = isprint((unsigned char)word[i]) ? word[i] : '?';
	shown[i] = 0;
	return error_set(r->error, REPL_EXIT_FAILED,
			 "the module's status is not understood: field %u (%s) is %s%s%s; do module and replctl belong together?",
			 r->nr, what, word ? "'" : "missing", shown, word ? "'" : "");
}

/* Never NULL: "" at a mistake. */
static char *next_word(struct reader *r, const char *what)
{
	static char nothing[1];
	char *word = r->next;

	r->nr++;
	if (r->failed || !word || !word[0]) {
		nothing[0] = 0;
		bad(r, what, word);
		return nothing;
	}
	strsep(&r->next, " ");
	if (!word[0])
		bad(r, what, word);
	return word;
}

static uint64_t to_number(struct reader *r, const char *what, const char *word,
			  uint64_t max)
{
	const char *at = word;
	uint64_t n = 0;

	if (!*at || (at[0] == '0' && at[1]))
		goto bad;
	for (; *at; at++) {
		if (*at < '0' || *at > '9' ||
		    __builtin_mul_overflow(n, (uint64_t)10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*at - '0'), &n))
			goto bad;
	}
	if (n <= max)
		return n;
bad:
	bad(r, what, word);
	return 0;
}

static uint64_t number(struct reader *r, const char *what, uint64_t max)
{
	return to_number(r, what, next_word(r, what), max);
}

/* "-": false, and 0 */
static bool maybe_number(struct reader *r, const char *what, uint64_t *n)
{
	char *word = next_word(r, what);

	*n = 0;
	if (!strcmp(word, "-"))
		return false;
	*n = to_number(r, what, word, UINT64_MAX);
	return true;
}

static unsigned int one_of(struct reader *r, const char *what,
			   const char *const *words, unsigned int nr)
{
	char *word = next_word(r, what);
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(word, words[i]))
			return i;
	bad(r, what, word);
	return 0;
}

/* Each class at most once, in their order, from @first to @last. */
static unsigned int to_classes(struct reader *r, char *word, unsigned int first,
			       unsigned int last)
{
	unsigned int found = 0, i = first;
	char shown[256], *name;

	if (!strcmp(word, "-"))
		return 0;
	snprintf(shown, sizeof(shown), "%s", word);
	while ((name = strsep(&word, ","))) {
		while (i <= last && strcmp(name, classes[i].name))
			i++;
		if (i > last) {
			bad(r, "errors", shown);
			return 0;
		}
		found |= 1u << i++;
	}
	return found;
}

static unsigned int flush_classes(void)
{
	unsigned int mask = 0, i;

	for (i = 0; i < REPL_NR_CLASSES; i++)
		if (classes[i].is_flush)
			mask |= 1u << i;
	return mask;
}

static void read_latched(struct reader *r, struct repl_latched *l,
			 unsigned int first, unsigned int last)
{
	l->classes = to_classes(r, next_word(r, "errors"), first, last);
	l->first_errno = number(r, "first errno", MAX_ERRNO);
	if (!l->classes != !l->first_errno)
		bad(r, "first errno", l->first_errno ? "an errno without an error" : "0");
	l->has_first_sector = maybe_number(r, "first sector", &l->first_sector);
	if (!l->classes != !l->has_first_sector)
		bad(r, "first sector", l->has_first_sector ? "a sector without an error" : "-");
	if (!(l->classes & ~flush_classes())) {
		l->has_first_sector = false;
		l->first_sector = 0;
	}
}

/* "12/34", the first not more than the second */
static void fraction(struct reader *r, const char *what, char *word, uint64_t max,
		     uint64_t *part, uint64_t *all)
{
	char *slash = strchr(word, '/');

	*part = *all = 0;
	if (!slash) {
		bad(r, what, word);
		return;
	}
	*slash++ = 0;
	*all = to_number(r, what, slash, max);
	*part = to_number(r, what, word, *all);
}

/* One of those between @first and @last, or none. */
static void read_job(struct reader *r, struct repl_job_status *job,
		     enum repl_job_type first, enum repl_job_type last)
{
	job->type = one_of(r, "job", jobs, ARRAY_SIZE(jobs));
	if (job->type != REPL_JOB_NONE && (job->type < first || job->type > last))
		bad(r, "job", jobs[job->type]);
	job->state = one_of(r, "job state", job_states, ARRAY_SIZE(job_states));
	if (job->type == REPL_JOB_NONE && job->state != REPL_JOB_IDLE)
		bad(r, "job state", job_states[job->state]);
	fraction(r, "job progress", next_word(r, "job progress"), UINT64_MAX, &job->done,
		 &job->total);
	job->speed = number(r, "job speed", UINT64_MAX / KIB);
}

static bool read_metadata(struct reader *r, uint64_t *used, uint64_t *blocks)
{
	char *word = next_word(r, "metadata");

	if (!strcmp(word, "-"))
		return false;
	fraction(r, "metadata", word, UINT64_MAX, used, blocks);
	return true;
}

static void read_secondary(struct reader *r, struct repl_status *status)
{
	struct repl_secondary_status *s = &status->secondary;

	s->checkpoint = number(r, "checkpoint id", UINT64_MAX);
	s->is_prepared = maybe_number(r, "prepared id", &s->prepared);
	s->region_size = number(r, "region_size", MAX_REGION);
	if (s->region_size < MIN_REGION || (s->region_size & (s->region_size - 1)))
		bad(r, "region_size", "not a power of two from 8 to 8192");
	/* So that any number of regions is one of bytes too. */
	s->regions = number(r, "regions", UINT64_MAX / SECTOR / (s->region_size ?: 1));
	s->hidden = number(r, "hidden regions", s->regions);
	s->active = number(r, "active regions", s->regions);
	s->ops = number(r, "ops", UINT64_MAX);
	read_job(r, &status->job, REPL_JOB_MERGE, REPL_JOB_FILL);
	read_latched(r, &status->latched, REPL_CBW_READ, REPL_METADATA);
	if (r->next)	/* a module before metadata devices says nothing */
		s->has_metadata = read_metadata(r, &s->log_used, &s->log_blocks);
}

static void read_ingest(struct reader *r, struct repl_status *status)
{
	status->ingest.is_bound = one_of(r, "bound", binds, ARRAY_SIZE(binds));
	status->ingest.is_fenced = one_of(r, "fence", fences, ARRAY_SIZE(fences));
}

/* "-" or "7:drained" */
static void read_cut(struct reader *r, struct repl_primary_status *p)
{
	char *word = next_word(r, "cut"), *state = strchr(word, ':');

	if (!strcmp(word, "-"))
		return;
	if (state)
		*state++ = 0;
	p->cut_id = to_number(r, "cut", word, UINT64_MAX);
	for (p->cut = REPL_CUT_HELD; state && p->cut < ARRAY_SIZE(cuts); p->cut++)
		if (!strcmp(state, cuts[p->cut]))
			break;
	if (!p->cut_id || !state || p->cut == ARRAY_SIZE(cuts)) {
		bad(r, "cut", state ? state : word);
		p->cut = REPL_CUT_NONE;
	}
}

static void read_primary(struct reader *r, struct repl_status *status)
{
	struct repl_primary_status *p = &status->primary;

	if (status->stage > REPL_STAGE_RUNNING)
		bad(r, "stage", stages[status->stage]);
	p->mode = one_of(r, "mode", modes, ARRAY_SIZE(modes));
	p->peer = one_of(r, "peer", peers, ARRAY_SIZE(peers));
	p->writes = number(r, "writes", UINT64_MAX);
	p->forwarded = number(r, "forwarded", UINT64_MAX);
	p->missed = number(r, "missed", UINT64_MAX);
	read_latched(r, &status->latched, REPL_PEER_WRITE, REPL_PRIMARY_METADATA);
	fraction(r, "window", next_word(r, "window"), UINT64_MAX / KIB, &p->window_used,
		 &p->window);
	fraction(r, "dirty regions", next_word(r, "dirty regions"), MAX_REGIONS, &p->dirty,
		 &p->regions);
	read_cut(r, p);
	read_job(r, &status->job, REPL_JOB_PUSH, REPL_JOB_PUSH);
	p->newer = number(r, "checkpoint regions", p->regions);
	p->has_metadata = read_metadata(r, &p->log_used, &p->log_blocks);
}

int status_parse(const char *line, struct repl_status *status, struct repl_error *error)
{
	struct reader r = { .error = error };

	memset(status, 0, sizeof(*status));
	if (strlen(line) >= sizeof(r.line))
		return error_set(error, REPL_EXIT_FAILED,
				 "the module's status is too long to be one");
	strcpy(r.line, line);
	r.next = r.line;
	status->role = one_of(&r, "role", roles, ARRAY_SIZE(roles));
	status->stage = one_of(&r, "stage", stages, ARRAY_SIZE(stages));
	switch (status->role) {
	case REPL_SECONDARY:
		read_secondary(&r, status);
		break;
	case REPL_INGEST:
		read_ingest(&r, status);
		break;
	case REPL_PRIMARY:
		read_primary(&r, status);
		break;
	}
	while (r.next && !r.failed)
		next_word(&r, "of a newer module");
	return r.failed ? -1 : 0;
}

/*
 * Rate
 */

void rate_add(struct repl_rate *rate, uint64_t time, uint64_t done)
{
	if (rate->nr && time <= rate->time[rate->nr - 1])
		return;
	if (rate->nr && done < rate->done[rate->nr - 1])
		rate->nr = 0;
	if (rate->nr == 2) {
		rate->time[0] = rate->time[1];
		rate->done[0] = rate->done[1];
		rate->nr = 1;
	}
	rate->time[rate->nr] = time;
	rate->done[rate->nr++] = done;
}

bool rate_get(const struct repl_rate *rate, double *per_second)
{
	*per_second = 0;
	if (!rate || rate->nr < 2)
		return false;
	*per_second = (double)(rate->done[1] - rate->done[0]) * NS_PER_SECOND /
		      (double)(rate->time[1] - rate->time[0]);
	return true;
}

bool rate_eta(const struct repl_rate *rate, uint64_t total, uint64_t *seconds)
{
	double per_second, left;

	*seconds = 0;
	if (rate && rate->nr && rate->done[rate->nr - 1] >= total)
		return true;
	if (!rate_get(rate, &per_second) || per_second <= 0)
		return false;
	left = (double)(total - rate->done[1]) / per_second;
	if (left > UINT32_MAX)		/* a century: it does not move */
		return false;
	*seconds = left;
	*seconds += *seconds < left;
	return true;
}

/* Sectors; 0 if unknown */
static uint64_t region_size(const struct repl_report *report)
{
	return report->status->role == REPL_SECONDARY ?
	       report->status->secondary.region_size : report->region_size;
}

/* A rate of regions as one of bytes. */
static bool bytes_per_second(const struct repl_report *report, uint64_t *bytes)
{
	double per_second;

	*bytes = 0;
	if (!region_size(report) || !rate_get(report->rate, &per_second))
		return false;
	per_second *= (double)(region_size(report) * SECTOR);
	*bytes = per_second < 1e18 ? (uint64_t)per_second : (uint64_t)1e18;
	return true;
}

/* The last region may be partial. */
static uint64_t region_bytes(const struct repl_report *report, uint64_t regions)
{
	uint64_t bytes = regions * region_size(report) * SECTOR;
	uint64_t length = report->sectors < UINT64_MAX / SECTOR ?
			  report->sectors * SECTOR : UINT64_MAX;

	return length && bytes > length ? length : bytes;
}

/*
 * What to do
 */

/* @todo comes from the table above: each %s in it is the resource. */
static void advice(FILE *to, const char *todo, const char *resource)
{
	const char *at;

	for (; (at = strstr(todo, "%s")); todo = at + 2)
		fprintf(to, "%.*s%s", (int)(at - todo), todo, resource);
	fputs(todo, to);
}

/* Is it the first latched class with this advice? */
static bool is_new_advice(unsigned int latched, unsigned int class)
{
	unsigned int i;

	for (i = 0; i < class; i++)
		if ((latched & 1u << i) && !strcmp(classes[i].todo, classes[class].todo))
			return false;
	return true;
}

bool status_what_to_do(const struct repl_report *report, char *text, size_t size)
{
	unsigned int latched = report->status->latched.classes, i;
	bool any = false;
	FILE *to;

	text[0] = 0;
	to = fmemopen(text, size, "w");
	if (!to)
		return false;
	for (i = 0; i < REPL_NR_CLASSES; i++) {
		if (!(latched & 1u << i) || !is_new_advice(latched, i))
			continue;
		if (any)
			fputs("; ", to);
		advice(to, classes[i].todo, report->resource);
		any = true;
	}
	if (!any && report->status->role == REPL_SECONDARY &&
	    report->status->stage == REPL_STAGE_FAILOVER_FAILED) {
		advice(to, FAILOVER_FAILED_TODO, report->resource);
		any = true;
	}
	if (!any && report->ingest && !report->ingest->ingest.is_bound) {
		fprintf(to, "the ingest has no repl-secondary: `replctl adjust %s`",
			report->resource);
		any = true;
	}
	fclose(to);
	text[size - 1] = 0;
	return any;
}

/*
 * JSON
 */

static void add(struct json_object *to, const char *key, struct json_object *value)
{
	json_object_object_add(to, key, value);
}

static void add_string(struct json_object *to, const char *key, const char *value)
{
	add(to, key, value ? json_object_new_string(value) : NULL);
}

static void add_number(struct json_object *to, const char *key, uint64_t value)
{
	add(to, key, json_object_new_uint64(value));
}

/* null if it is not known */
static void add_maybe(struct json_object *to, const char *key, bool known, uint64_t value)
{
	add(to, key, known ? json_object_new_uint64(value) : NULL);
}

static void json_latched(const struct repl_report *report, struct json_object *to)
{
	const struct repl_latched *l = &report->status->latched;
	struct json_object *list = json_object_new_array();
	char todo[1024];
	unsigned int i;

	for (i = 0; list && i < REPL_NR_CLASSES; i++)
		if (l->classes & 1u << i)
			json_object_array_add(list, json_object_new_string(classes[i].name));
	add(to, "errors", list);
	add_maybe(to, "first_errno", l->first_errno, l->first_errno);
	add_maybe(to, "first_sector", l->has_first_sector, l->first_sector);
	add_string(to, "what_to_do",
		   status_what_to_do(report, todo, sizeof(todo)) ? todo : NULL);
}

static struct json_object *json_job(const struct repl_report *report)
{
	const struct repl_job_status *s = &report->status->job;
	bool moves = s->state == REPL_JOB_RUNNING, known;
	struct json_object *job;
	uint64_t n;

	if (s->type == REPL_JOB_NONE)
		return NULL;
	job = json_object_new_object();
	if (!job)
		return NULL;
	add_string(job, "type", jobs[s->type]);
	add_string(job, "state", s->state == REPL_JOB_IDLE ? NULL :
				 job_states[s->state]);
	add_number(job, "done", s->done);
	add_number(job, "total", s->total);
	add(job, "fraction", s->total ?
	    json_object_new_double((double)s->done / (double)s->total) : NULL);
	known = bytes_per_second(report, &n);
	add_maybe(job, "rate_bytes_per_second", moves && known, n);
	known = rate_eta(report->rate, s->total, &n);
	add_maybe(job, "eta_seconds", moves && known, n);
	return job;
}

static struct json_object *json_ingest(const struct repl_status *status)
{
	struct json_object *ingest = json_object_new_object();

	if (!ingest)
		return NULL;
	add_string(ingest, "stage", stages[status->stage]);
	add(ingest, "bound", json_object_new_boolean(status->ingest.is_bound));
	add(ingest, "fenced", json_object_new_boolean(status->ingest.is_fenced));
	return ingest;
}

static struct json_object *json_metadata(uint64_t used, uint64_t blocks)
{
	struct json_object *metadata = json_object_new_object();

	if (!metadata)
		return NULL;
	add_number(metadata, "log_blocks_used", used);
	add_number(metadata, "log_blocks", blocks);
	return metadata;
}

static void json_speed(const struct repl_report *report, struct json_object *to)
{
	uint64_t speed = report->status->job.speed;

	add_maybe(to, "job_speed_limit_bytes_per_second", speed, speed * KIB);
}

static void json_secondary(const struct repl_report *report, struct json_object *to)
{
	const struct repl_secondary_status *s = &report->status->secondary;

	add_maybe(to, "checkpoint", s->checkpoint, s->checkpoint);
	add_maybe(to, "prepared", s->is_prepared, s->prepared);
	add_number(to, "region_size_bytes", s->region_size * SECTOR);
	add_number(to, "regions", s->regions);
	add_number(to, "hidden_regions", s->hidden);
	add_number(to, "active_regions", s->active);
	add_number(to, "hidden_bytes", region_bytes(report, s->hidden));
	add_number(to, "active_bytes", region_bytes(report, s->active));
	add_number(to, "ops", s->ops);
	add(to, "job", json_job(report));
	json_speed(report, to);
	add(to, "ingest", report->ingest ? json_ingest(report->ingest) : NULL);
	add(to, "metadata", s->has_metadata ?
	    json_metadata(s->log_used, s->log_blocks) : NULL);
}

static void json_primary(const struct repl_report *report, struct json_object *to)
{
	const struct repl_primary_status *p = &report->status->primary;

	add_string(to, "mode", modes[p->mode]);
	add_string(to, "peer", peers[p->peer]);
	add_number(to, "writes", p->writes);
	add_number(to, "forwarded", p->forwarded);
	add_number(to, "missed", p->missed);
	add_maybe(to, "window_bytes", p->window, p->window * KIB);
	add_maybe(to, "window_used_bytes", p->window, p->window_used * KIB);
	add_maybe(to, "region_size_bytes", report->region_size, report->region_size * SECTOR);
	add_number(to, "regions", p->regions);
	add_number(to, "dirty_regions", p->dirty);
	add_maybe(to, "dirty_bytes", report->region_size, region_bytes(report, p->dirty));
	add_number(to, "newer_regions", p->newer);
	add_maybe(to, "newer_bytes", report->region_size, region_bytes(report, p->newer));
	add_maybe(to, "cut", p->cut_id, p->cut_id);
	add_string(to, "cut_state", p->cut_id ? cuts[p->cut] : NULL);
	add(to, "job", json_job(report));
	json_speed(report, to);
	add(to, "metadata", p->has_metadata ?
	    json_metadata(p->log_used, p->log_blocks) : NULL);
}

struct json_object *status_json(const struct repl_report *report)
{
	const struct repl_status *status = report->status;
	struct json_object *to = json_object_new_object();

	if (!to)
		return NULL;
	add_string(to, "volume", report->volume);
	add_maybe(to, "size_bytes",
		  report->sectors && report->sectors <= UINT64_MAX / SECTOR,
		  report->sectors * SECTOR);
	add_string(to, "role", roles[status->role]);
	add_string(to, "stage", stages[status->stage]);
	switch (status->role) {
	case REPL_SECONDARY:
		json_secondary(report, to);
		json_latched(report, to);
		break;
	case REPL_PRIMARY:
		json_primary(report, to);
		json_latched(report, to);
		break;
	case REPL_INGEST:
		add(to, "bound", json_object_new_boolean(status->ingest.is_bound));
		add(to, "fenced", json_object_new_boolean(status->ingest.is_fenced));
		break;
	}
	return to;
}

/*
 * Text
 */

/* "1.5 GiB"; rounded down */
static const char *size_text(char *text, size_t size, uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int unit = 0;
	uint64_t tenths = 0;

	while (bytes >= KIB) {
		tenths = bytes % KIB * 10 / KIB;
		bytes /= KIB;
		unit++;
	}
	if (unit)
		snprintf(text, size, "%" PRIu64 ".%" PRIu64 " %s", bytes, tenths, units[unit]);
	else
		snprintf(text, size, "%" PRIu64 " B", bytes);
	return text;
}

static const char *time_text(char *text, size_t size, uint64_t seconds)
{
	if (seconds < 60)
		snprintf(text, size, "%" PRIu64 " s", seconds);
	else if (seconds < 3600)
		snprintf(text, size, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
	else if (seconds < 86400)
		snprintf(text, size, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600,
			 seconds % 3600 / 60);
	else
		snprintf(text, size, "%" PRIu64 " d %" PRIu64 " h", seconds / 86400,
			 seconds % 86400 / 3600);
	return text;
}

static unsigned int per_mille(uint64_t done, uint64_t total)
{
	if (done >= total)
		return 1000;
	return (unsigned __int128)done * 1000 / total;
}

void status_bar(char *text, size_t size, unsigned int width, uint64_t done,
		uint64_t total)
{
	const unsigned int percent = strlen("100.0 %"), frame = strlen("[] ");
	unsigned int part = per_mille(done, total), full;
	char bar[256];

	if (width > sizeof(bar))
		width = sizeof(bar);
	if (width < percent + frame + 4) {
		snprintf(text, size, "%u.%u %%", part / 10, part % 10);
		return;
	}
	width -= percent + frame;
	full = (unsigned long long)width * part / 1000;
	memset(bar, ' ', width);
	memset(bar, '=', full);
	if (full < width)
		bar[full] = '>';
	snprintf(text, size, "[%.*s] %3u.%u %%", (int)width, bar, part / 10, part % 10);
}

static const char *secondary_stage_words(const struct repl_status *status)
{
	switch (status->stage) {
	case REPL_STAGE_NONE:
		return "not started: no image to read yet, writes of the peer go straight through";
	case REPL_STAGE_RUNNING:
		return "replicating";
	case REPL_STAGE_FAILOVER:
		return "failed over: the view is writable, the merge goes on";
	case REPL_STAGE_FAILOVER_FAILED:
		return "failed over, but the merge has stopped: the view works on, nothing is lost";
	case REPL_STAGE_DONE:
		break;
	}
	return "the secondary disk alone is the image; active and hidden are not needed";
}

static void words_job(const struct repl_report *report, unsigned int width, FILE *to)
{
	const struct repl_job_status *s = &report->status->job;
	char bar[300], text[64];
	uint64_t n;

	if (s->type == REPL_JOB_NONE)
		return;
	/* "  merge cancelled " and what is behind the bar leave half the line. */
	status_bar(bar, sizeof(bar), width / 2, s->done, s->total);
	fprintf(to, "  %s %s", jobs[s->type],
		s->state == REPL_JOB_IDLE ? "begins" : job_states[s->state]);
	if (s->total)
		fprintf(to, " %s", bar);
	if (s->state == REPL_JOB_RUNNING) {
		if (bytes_per_second(report, &n))
			fprintf(to, ", %s/s", size_text(text, sizeof(text), n));
		else
			fputs(", rate unknown", to);
		if (rate_eta(report->rate, s->total, &n))
			fprintf(to, ", %s left", time_text(text, sizeof(text), n));
		if (s->speed)
			fprintf(to, " (limit %s/s)",
				size_text(text, sizeof(text), s->speed * KIB));
	}
	fputc('\n', to);
}

static void words_secondary(const struct repl_report *report, unsigned int width, FILE *to)
{
	const struct repl_secondary_status *s = &report->status->secondary;
	const struct repl_status *ingest = report->ingest;
	char text[64];

	fprintf(to, "  %s\n", secondary_stage_words(report->status));
	if (s->is_prepared)
		fprintf(to, "  checkpoint %" PRIu64 " is prepared: all I/O waits until it is committed or aborted\n",
			s->prepared);
	if (report->status->stage != REPL_STAGE_NONE &&
	    report->status->stage != REPL_STAGE_DONE) {
		fprintf(to, "  hidden %s", size_text(text, sizeof(text),
						     region_bytes(report, s->hidden)));
		fprintf(to, ", active %s", size_text(text, sizeof(text),
						     region_bytes(report, s->active)));
		fprintf(to, " of %s\n", size_text(text, sizeof(text),
						  region_bytes(report, s->regions)));
	}
	if (!s->has_metadata && report->status->stage != REPL_STAGE_DONE)
		fputs("  no metadata device: a crash of this host loses the checkpoint\n", to);
	words_job(report, width, to);
	if (ingest && !ingest->ingest.is_bound)
		fputs("  ingest has no repl-secondary: all its I/O fails\n", to);
	else if (ingest && ingest->ingest.is_fenced)
		fputs("  ingest is fenced: writes of the old primary are refused\n", to);
}

/* How much the peer has not got: in bytes, where one can know. */
static void words_behind(const struct repl_report *report, uint64_t regions, FILE *to)
{
	char text[64];

	if (report->region_size)
		fputs(size_text(text, sizeof(text), region_bytes(report, regions)), to);
	else
		fprintf(to, "%" PRIu64 " regions", regions);
}

static void words_peer(const struct repl_report *report, FILE *to)
{
	const struct repl_primary_status *p = &report->status->primary;

	switch (p->peer) {
	case REPL_PEER_ATTACHED:
		if (!p->dirty) {
			fprintf(to, "  every write goes to the peer too (%s)\n", modes[p->mode]);
			break;
		}
		fputs("  the peer is ", to);
		words_behind(report, p->dirty, to);
		fputs(" behind: no checkpoint until it has caught up\n", to);
		break;
	case REPL_PEER_FAILED:
		fputs("  the peer's leg has failed: the workload goes on, nothing is replicated\n", to);
		break;
	case REPL_PEER_NONE:
	case REPL_PEER_DETACHED:
		fputs("  no peer is attached: nothing is replicated\n", to);
		break;
	}
}

static const char *cut_words(enum repl_cut cut)
{
	switch (cut) {
	case REPL_CUT_HELD:
		return "all I/O waits until the other volumes have theirs";
	case REPL_CUT_MADE:
		return "what is before it goes to the peer, newer writes wait here";
	case REPL_CUT_DRAINED:
		return "all before it is on the peer, newer writes wait here";
	default:
		return "the peer was lost meanwhile";
	}
}

static void words_primary(const struct repl_report *report, unsigned int width, FILE *to)
{
	const struct repl_primary_status *p = &report->status->primary;
	char text[2][64];

	words_peer(report, to);
	fprintf(to, "  %" PRIu64 " writes, %" PRIu64 " forwarded, %" PRIu64 " missed\n",
		p->writes, p->forwarded, p->missed);
	if (p->dirty && p->peer != REPL_PEER_ATTACHED) {
		fputs("  the peer has not got ", to);
		words_behind(report, p->dirty, to);
		fputc('\n', to);
	}
	if (p->window_used)
		fprintf(to, "  %s of the window of %s wait for the peer\n",
			size_text(text[0], sizeof(text[0]), p->window_used * KIB),
			size_text(text[1], sizeof(text[1]), p->window * KIB));
	if (p->cut_id)
		fprintf(to, "  cut for checkpoint %" PRIu64 ": %s\n", p->cut_id,
			cut_words(p->cut));
	words_job(report, width, to);
}

static void words_latched(const struct repl_report *report, FILE *to)
{
	const struct repl_latched *l = &report->status->latched;
	unsigned int i;

	for (i = 0; i < REPL_NR_CLASSES; i++) {
		if (!(l->classes & 1u << i))
			continue;
		fprintf(to, "  error %s: %s\n", classes[i].name, classes[i].what);
		fputs("    what to do: ", to);
		advice(to, classes[i].todo, report->resource);
		fputc('\n', to);
	}
	if (!l->first_errno)
		return;
	fprintf(to, "  the first error was %s", strerror(l->first_errno));
	if (l->has_first_sector)
		fprintf(to, " at sector %" PRIu64, l->first_sector);
	fputc('\n', to);
}

void status_words(const struct repl_report *report, unsigned int width, FILE *to)
{
	const struct repl_status *status = report->status;
	char todo[1024];

	fprintf(to, "%s: %s, %s", report->volume, roles[status->role], stages[status->stage]);
	if (status->role == REPL_SECONDARY && status->secondary.checkpoint)
		fprintf(to, ", checkpoint %" PRIu64, status->secondary.checkpoint);
	fputc('\n', to);
	switch (status->role) {
	case REPL_SECONDARY:
		words_secondary(report, width, to);
		break;
	case REPL_PRIMARY:
		words_primary(report, width, to);
		break;
	case REPL_INGEST:
		fprintf(to, "  %s, %s\n", binds[status->ingest.is_bound],
			fences[status->ingest.is_fenced]);
		break;
	}
	words_latched(report, to);
	if (!status->latched.classes && status_what_to_do(report, todo, sizeof(todo)))
		fprintf(to, "    what to do: %s\n", todo);
}

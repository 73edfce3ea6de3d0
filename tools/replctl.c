// SPDX-License-Identifier: GPL-2.0-only
/* replctl: what a person types. See Documentation/replctl.8. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "dirty.h"
#include "dm.h"
#include "key.h"
#include "metadata.h"
#include "plan.h"
#include "resource.h"
#include "role.h"
#include "serve.h"
#include "status.h"
#include "steps.h"
#include "units.h"

struct options {
	bool json, dry_run, force, in_sync, watch, full, checksum, discard;
	int64_t timeout;		/* ms; -1: none */
	int64_t rate;			/* bytes a second; RESYNC_RATE_CONFIG */
	const char *extents;		/* of which map; NULL: no */
	struct metadata_options metadata;
};

struct command {
	struct options *options;
	struct repl_config *config;	/* NULL for verbs without a resource */
	struct repl_resource resource;
	char **words;			/* behind the resource, or the verb */
	int nr_words;
	int lock;			/* after take_lock() */
	struct repl_error *error;
	struct json_object *result;	/* --json, of the verbs that say no more than this */
};

static void usage(FILE *f)
{
	fputs("usage: replctl VERB [OPTION]... RESOURCE\n"
	      "\n"
	      "  up, adjust    make the devices and the data leg; what is there stays\n"
	      "  down          take them down\n"
	      "  serve [RESOURCE]...: be the daemon, of all (systemd: dm-repl.service)\n"
	      "  status        what is going on, and what to do about it\n"
	      "  events        the same as JSON lines, as it changes\n"
	      "  wait RESOURCE [connected|merged|synced]: for the peer, the merge, the resync\n"
	      "  sync          on the primary: send what the peer has missed, now\n"
	      "  dirty         the dirty maps: what somebody else has not got\n"
	      "  checkpoint    now; ends when the peer has it\n"
	      "  pause, resume periodic checkpoints; on the secondary, the merge\n"
	      "  job pause|resume|cancel, job speed RATE: the resync that runs; the merge\n"
	      "  failover      on the secondary: take over\n"
	      "  promote       what has failed over and is merged becomes the primary\n"
	      "  demote        what was primary becomes the secondary of who took over\n"
	      "  switch        primary: the workload has ended: the two change places\n"
	      "  retry         on the secondary: what failed is repaired: forget the errors, and\n"
	      "                go on with a merge that has stopped\n"
	      "  stop          on the secondary: keep the disk as it is now, end replication\n"
	      "  key generate FILE\n"
	      "  metadata create|dump|check DEVICE, metadata size\n"
	      "  config-check  is the configuration good?\n"
	      "\n"
	      "  --json        for programs\n"
	      "  --dry-run     say what would be done\n"
	      "  --timeout T   500ms, 10s, 2m\n"
	      "  --in-sync     up, adjust: both disks hold the same now\n"
	      "  --full        sync: all of the disks\n"
	      "  --checksum    sync: read all of both sides, and send what differs\n"
	      "  --force       down: also where that gives up a checkpoint\n"
	      "  --discard-local\n"
	      "                demote: what only this side has may be lost\n"
	      "  --rate RATE   sync: 512KiB/s, 10MiB/s, unlimited; of each volume\n"
	      "  --extents MAP dirty: which sectors are set in it\n"
	      "  --watch       status: again and again\n"
	      "  --size SIZE, --like DEVICE, --region-size SIZE, --uuid UUID\n"
	      "                metadata create, metadata size\n"
	      "\n"
	      "RESOURCE is NAME of /etc/dm-repl/NAME.conf, or the path of such a file.\n"
	      "Exit status: 0 done, 1 failed, 2 usage, 3 peer unreachable, 4 refused for\n"
	      "safety, 5 timeout, 6 damage found, 10 configuration. Examples are in replctl(8).\n", f);
}

static int ask(struct command *c, const char *verb,
	       void (*line)(struct json_object *, void *), void *context)
{
	struct json_object *request = json_object_new_object();
	char path[256];
	int r;

	resource_run_path(REPL_CONTROL_FILE, path, sizeof(path));
	json_object_object_add(request, "verb", json_object_new_string(verb));
	json_object_object_add(request, "resource", json_object_new_string(c->config->name));
	r = control_call(path, request, c->options->timeout, line, context, c->error);
	json_object_put(request);
	return r;
}

/*
 * ---- Verbs ----
 */

static int verb_up(struct command *c)
{
	return resource_up(&c->resource, c->options->in_sync, c->options->dry_run, c->error);
}

static void keep_line(struct json_object *line, void *context)
{
	json_object_put(*(struct json_object **)context);
	*(struct json_object **)context = json_object_get(line);
}

static void print_note(struct json_object *line, void *context)
{
	struct json_object *value;

	if (json_object_object_get_ex(line, "note", &value) && value)
		fprintf(stderr, "replctl: %s\n", json_object_get_string(value));
}

/* The daemon takes the file as it is now, too. Without one there is nothing to do. */
static int verb_adjust(struct command *c)
{
	struct repl_error why = { REPL_EXIT_OK, "" }, *keep = c->error;
	int r = verb_up(c), told;

	if (c->options->dry_run)
		return r;
	c->error = &why;
	told = ask(c, "reload", print_note, NULL);
	c->error = keep;
	if (r || !told || !strncmp(why.text, CONTROL_NO_DAEMON, strlen(CONTROL_NO_DAEMON)))
		return r;
	*c->error = why;
	return -1;
}

#define LOCK_TRIES 100		/* of 100 ms */

/*
 * Nobody else works on it from now on: neither a daemon, nor what one left behind. A
 * daemon that has let go takes it again after a while, if we are slow.
 */
static int take_lock(struct command *c)
{
	struct repl_error ignored, *keep = c->error;
	int r = 1, fd = -1;

	for (unsigned int i = 0; r > 0 && i < LOCK_TRIES; i++) {
		if (i)
			usleep(100000);
		if (i % 10 == 0) {
			c->error = &ignored;
			ask(c, "release", NULL, NULL);
			c->error = keep;
		}
		r = resource_lock(&c->resource, &fd, c->error);
		if (r > 0)
			close(fd);
	}
	c->lock = fd;
	return r ? -1 : 0;
}

static void drop_lock(struct command *c)
{
	close(c->lock);
}

static int verb_down(struct command *c)
{
	bool force = c->options->force;

	/* Before the daemon has to let go of it for nothing. */
	if (!c->options->dry_run && (resource_may_go(&c->resource, force, c->error) ||
				     take_lock(c)))
		return -1;
	return resource_down(&c->resource, force, c->options->dry_run, c->error);
}

/* The daemon, if there is one, takes it up again as what it is now. */
static int change_role(struct command *c, bool demote)
{
	struct repl_error ignored, *keep = c->error;
	int r;

	if (!c->options->dry_run && take_lock(c))
		return -1;
	r = demote ? role_demote(&c->resource, c->options->discard, c->options->dry_run,
				 c->error) :
		     role_promote(&c->resource, c->options->dry_run, c->error);
	if (c->options->dry_run)
		return r;
	drop_lock(c);
	c->error = &ignored;
	ask(c, "reload", NULL, NULL);
	c->error = keep;
	return r;
}

static int verb_promote(struct command *c)
{
	return change_role(c, false);
}

static int verb_demote(struct command *c)
{
	return change_role(c, true);
}

static int verb_serve(struct command *c)
{
	return serve(c->words, c->nr_words, c->error);
}

/* What the daemon says it is like, for plans. */
static int present(struct command *c, struct json_object **status)
{
	*status = NULL;
	if (!ask(c, "status", keep_line, status))
		return 0;
	json_object_put(*status);
	return -1;
}

static int dry(struct command *c, int (*plan)(const struct repl_resource *resource,
					      struct json_object *status,
					      struct repl_error *error))
{
	struct json_object *status;
	int r;

	if (present(c, &status))
		return -1;
	r = plan(&c->resource, status, c->error);
	json_object_put(status);
	return r;
}

/* The id of the one that has ended, for programs. */
static void keep_checkpoint(struct json_object *line, void *context)
{
	struct command *c = context;
	struct json_object *value;

	if (c->result && json_object_object_get_ex(line, "checkpoint", &value))
		json_object_object_add(c->result, "checkpoint", json_object_get(value));
}

/* Nobody has said anything in the time given: what it waits for. */
static void why_no_checkpoint(struct command *c)
{
	struct json_object *status = NULL;
	struct repl_error *keep = c->error, ignored;

	c->options->timeout = 1000;
	c->error = &ignored;
	if (!ask(c, "status", keep_line, &status))
		plan_awaited(status, keep);
	c->error = keep;
	json_object_put(status);
}

static int verb_checkpoint(struct command *c)
{
	int r;

	if (c->options->dry_run)
		return dry(c, plan_checkpoint);
	r = ask(c, "checkpoint", keep_checkpoint, c);
	if (r && c->error->exit == REPL_EXIT_TIMEOUT)
		why_no_checkpoint(c);
	return r;
}

static int verb_failover(struct command *c)
{
	if (c->options->dry_run)
		return dry(c, plan_failover);
	if (!ask(c, "failover", NULL, NULL))
		return 0;
	if (c->error->exit == REPL_EXIT_TIMEOUT)
		error_set(c->error, REPL_EXIT_TIMEOUT,
			  "it goes on, and is not done in the time given: 'replctl status %s'",
			  c->config->name);
	return -1;
}

static bool merging(struct command *c)
{
	struct pair_kernel kernel;

	return resource_role(&c->resource) == PAIR_SECONDARY &&
	       !resource_kernel(&c->resource, &kernel, NULL) && kernel.over;
}

static int pause_or_resume(struct command *c, const char *verb, const char *message)
{
	bool merge = merging(c);

	if (c->options->dry_run) {
		step(true, "%s the %s", verb, merge ? "merge of all volumes" :
		     "periodic checkpoints");
		return 0;
	}
	return merge ? resource_message(&c->resource, message, c->error) :
		       ask(c, verb, NULL, NULL);
}

static int verb_pause(struct command *c)
{
	return pause_or_resume(c, "pause", "job pause");
}

static int verb_resume(struct command *c)
{
	return pause_or_resume(c, "resume", "job resume");
}

static int verb_stop(struct command *c)
{
	if (resource_role(&c->resource) != PAIR_SECONDARY)
		return error_set(c->error, REPL_EXIT_REFUSED, "stop is for the secondary");
	if (c->options->dry_run) {
		step(true, "drop active and hidden, and keep the secondary disk as it is now");
		return 0;
	}
	return resource_message(&c->resource, "stop", c->error);
}

static int verb_retry(struct command *c)
{
	if (resource_role(&c->resource) != PAIR_SECONDARY)
		return error_set(c->error, REPL_EXIT_REFUSED,
				 "retry is for the secondary; on the primary: 'replctl sync %s'",
				 c->config->name);
	return resource_retry(&c->resource, c->options->dry_run, c->error);
}

static int verb_config_check(struct command *c)
{
	const char *host = c->config->host[c->resource.here].name;
	const char *role = resource_role(&c->resource) == PAIR_PRIMARY ? "primary" : "secondary";

	if (!c->result) {
		printf("%s: good; this host is %s, the %s\n", c->config->name, host, role);
		return 0;
	}
	json_object_object_add(c->result, "host", json_object_new_string(host));
	json_object_object_add(c->result, "role", json_object_new_string(role));
	return 0;
}

static int verb_key(struct command *c)
{
	if (c->nr_words != 2 || strcmp(c->words[0], "generate"))
		return error_set(c->error, REPL_EXIT_USAGE, "usage: replctl key generate FILE");
	if (c->options->dry_run) {
		step(true, "make a new key in %s", c->words[1]);
		return 0;
	}
	return key_generate(c->words[1], c->error);
}

static int verb_metadata(struct command *c)
{
	struct metadata_options options = c->options->metadata;

	options.json = c->options->json;
	options.dry_run = c->options->dry_run;
	options.force = c->options->force;
	return metadata_verb(c->words, c->nr_words, &options, stdout, c->error);
}

/*
 * ---- Status ----
 */

/* A value as text; NULL for null and for no such key. */
static const char *string_of(struct json_object *o, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(o, key, &value) && value ?
	       json_object_get_string(value) : NULL;
}

static const char *word_of(struct json_object *o, const char *key)
{
	const char *word = string_of(o, key);

	return word ? word : "-";
}

/* One volume, as status_json() and status_words() want it. */
struct volume {
	char name[128];
	struct repl_status status, ingest;
	struct repl_report report;
};

/* Of merges and resyncs: from one look of --watch to the next. */
static struct repl_rate rates[CONFIG_VOLUMES_MAX];

/* One look at each. */
static struct volume looks[CONFIG_VOLUMES_MAX];

/* Sectors; a primary's table has it, and its status has not. */
static uint64_t region_size_of(const struct repl_status *status, const char *table)
{
	unsigned long long sectors;

	return status->role == REPL_PRIMARY &&
	       sscanf(table, "%*s %*s %*s %llu", &sectors) == 1 ? sectors : 0;
}

#define SYNC_FIRST_MS 2000	/* a sync without a terminal says how far it is, for the first time */
#define SYNC_LINE_MS 10000	/* and then so often */
#define LOOK_US 500000		/* between two looks that are to give a rate */

static int volume_get(struct command *c, unsigned int i)
{
	struct volume *v = &looks[i];
	struct repl_dm_info info;
	struct repl_error ignored;
	struct timespec t;
	char name[128], line[1024];

	resource_device(&c->resource, i, false, v->name, sizeof(v->name));
	if (dm_info(v->name, &info, c->error) ||
	    dm_status(v->name, line, sizeof(line), c->error) ||
	    status_parse(line, &v->status, c->error))
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &t);
	if (v->status.role != REPL_INGEST)
		rate_add(&rates[i], t.tv_sec * 1000000000ULL + t.tv_nsec, v->status.job.done);
	memset(&v->report, 0, sizeof(v->report));
	v->report.resource = c->config->name;
	v->report.volume = c->config->volume[i].name;
	v->report.sectors = info.sectors;
	v->report.region_size = region_size_of(&v->status, info.table);
	v->report.status = &v->status;
	v->report.rate = &rates[i];
	if (v->status.role == REPL_SECONDARY) {
		resource_device(&c->resource, i, true, name, sizeof(name));
		if (!dm_status(name, line, sizeof(line), &ignored) &&
		    !status_parse(line, &v->ingest, &ignored))
			v->report.ingest = &v->ingest;
	}
	return 0;
}

static int add_volumes(struct command *c, struct json_object *status)
{
	struct json_object *volumes = json_object_new_array();

	json_object_object_add(status, "volumes", volumes);
	for (unsigned int i = 0; i < c->config->volumes; i++) {
		struct json_object *o;

		if (volume_get(c, i))
			return -1;
		o = status_json(&looks[i].report);
		if (!o)
			return error_set(c->error, REPL_EXIT_FAILED, "out of memory");
		json_object_object_add(o, "device", json_object_new_string(looks[i].name));
		json_object_array_add(volumes, o);
	}
	return 0;
}

/* Without a daemon too: the kernel goes on. */
static struct json_object *status_get(struct command *c)
{
	struct json_object *status = NULL;
	struct repl_error error = { REPL_EXIT_OK, "" }, *keep = c->error;
	int r;

	c->error = &error;
	r = ask(c, "status", keep_line, &status);
	c->error = keep;
	if (r || !status) {
		status = json_object_new_object();
		json_object_object_add(status, "schema", json_object_new_int(1));
		json_object_object_add(status, "resource",
				       json_object_new_string(c->config->name));
		json_object_object_add(status, "role", json_object_new_string(
			resource_role(&c->resource) == PAIR_PRIMARY ? "primary" : "secondary"));
		json_object_object_add(status, "connection", NULL);
		json_object_object_add(status, "daemon", json_object_new_string(error.text));
	}
	if (add_volumes(c, status)) {
		json_object_put(status);
		return NULL;
	}
	return status;
}

static void print_lines(const char *text)
{
	while (*text) {
		int n = strcspn(text, "\n");

		printf("  %.*s\n", n, text);
		text += n + (text[n] == '\n');
	}
}

/* @when: seconds since 1970; a clock that was set back since makes it no event to come */
static double seconds_since(const char *when)
{
	struct timespec t;
	double since;

	clock_gettime(CLOCK_REALTIME, &t);
	since = t.tv_sec + t.tv_nsec / 1e9 - atof(when);
	return since > 0 ? since : 0;
}

static void print_status(struct command *c, struct json_object *status)
{
	const char *connection = string_of(status, "connection");
	const char *why = string_of(status, "disconnected_because");
	const char *when = string_of(status, "checkpoint_time");
	const char *error = string_of(status, "last_error");

	printf("%s: %s, %s%s%s\n", c->config->name, word_of(status, "role"),
	       connection ? connection : word_of(status, "daemon"), why ? ": " : "",
	       why ? why : "");
	if (connection) {
		printf("  last checkpoint: %s", word_of(status, "checkpoint"));
		if (when)
			printf(", %.0f s ago", seconds_since(when));
		if (string_of(status, "checkpoint_seconds"))
			printf(", took %.0f ms", 1000 * atof(string_of(status, "checkpoint_seconds")));
		if (string_of(status, "pause_seconds"))
			printf(", workload held %.0f ms",
			       1000 * atof(string_of(status, "pause_seconds")));
		printf("\n");
		if (strcmp(word_of(status, "phase"), "idle"))
			printf("  a checkpoint is under way: %s\n", word_of(status, "phase"));
		if (error)
			printf("  last error: %s\n", error);
		if (string_of(status, "apart"))
			print_lines(string_of(status, "apart"));
		if (!strcmp(word_of(status, "degraded"), "true"))
			printf("  degraded: the peer misses writes%s; no checkpoints until it is in sync again\n",
			       strcmp(word_of(status, "catching_up"), "true") ? "" :
			       ", which are on their way");
		if (string_of(status, "behind_because"))
			printf("  it cannot be sent them: %s\n",
			       word_of(status, "behind_because"));
	}
	for (unsigned int i = 0; i < c->config->volumes; i++)
		status_words(&looks[i].report, isatty(1) ? 60 : 0, stdout);
	fflush(stdout);
}

/* How fast a job is takes two looks; with --watch the one before is the first. */
static int first_look(struct command *c)
{
	bool runs = false;

	for (unsigned int i = 0; i < c->config->volumes; i++) {
		if (volume_get(c, i))
			return -1;
		runs |= looks[i].status.job.state == REPL_JOB_RUNNING;
	}
	if (runs)
		usleep(LOOK_US);
	return 0;
}

static int verb_status(struct command *c)
{
	if (!c->options->watch && first_look(c))
		return -1;
	do {
		struct json_object *status = status_get(c);

		if (!status)
			return -1;
		if (c->options->watch && isatty(1))
			printf("\033[H\033[J");
		if (c->options->json)
			printf("%s\n", json_object_to_json_string_ext(status,
				JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
		else
			print_status(c, status);
		json_object_put(status);
		fflush(stdout);
		if (c->options->watch)
			sleep(1);
	} while (c->options->watch);
	return 0;
}

static void print_line(struct json_object *line, void *context)
{
	printf("%s\n", json_object_to_json_string_ext(line,
		JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	fflush(stdout);
}

static int verb_events(struct command *c)
{
	return ask(c, "events", print_line, NULL);
}

/* Return: 1: all are; 0: not yet; -1. */
static int is_merged(struct command *c)
{
	char name[128], line[1024];
	int all = 1;

	for (unsigned int i = 0; i < c->config->volumes; i++) {
		resource_device(&c->resource, i, false, name, sizeof(name));
		if (dm_status(name, line, sizeof(line), c->error))
			return -1;
		/* A primary has been promoted since, or was one all the time. */
		all &= !strncmp(line, "secondary done ", 15) || !strncmp(line, "primary ", 8);
		if (!strncmp(line, "secondary failover-failed ", 26))
			return error_set(c->error, REPL_EXIT_FAILED,
					 "volume %s: the merge has failed",
					 c->config->volume[i].name);
	}
	return all;
}

/* As above; with a timeout a daemon that is only starting is waited for too. */
static int is_connected(struct command *c)
{
	struct json_object *status = NULL;
	struct pair_kernel kernel;
	const char *why, *connection;
	int there;

	c->error->text[0] = 0;
	if (ask(c, "status", keep_line, &status) && c->options->timeout < 0)
		return -1;
	connection = status ? string_of(status, "connection") : NULL;
	why = status ? string_of(status, "disconnected_because") : NULL;
	if (why)
		error_set(c->error, REPL_EXIT_TIMEOUT, "%s", why);
	there = connection && !strcmp(connection, "connected") &&
		!resource_kernel(&c->resource, &kernel, NULL);
	json_object_put(status);
	return there;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int is_synced(struct command *c);

/* Until it is so, or the timeout, or SIGINT. */
static int verb_wait(struct command *c)
{
	const char *what = c->nr_words ? c->words[0] : "connected";
	int (*is)(struct command *c) = !strcmp(what, "connected") ? is_connected :
				       !strcmp(what, "merged") ? is_merged :
				       !strcmp(what, "synced") ? is_synced : NULL;
	int64_t begin = now_ms();
	struct repl_error why;
	int r;

	if (!is)
		return error_set(c->error, REPL_EXIT_USAGE, "wait for connected, merged or synced");
	while (!(r = is(c))) {
		if (c->options->timeout >= 0 && now_ms() - begin > c->options->timeout) {
			why = *c->error;
			return error_set(c->error, REPL_EXIT_TIMEOUT,
					 "not %s in the time given%s%.300s", what,
					 why.text[0] ? ": " : "", why.text);
		}
		usleep(100000);
	}
	return r < 0 ? -1 : 0;
}

/* Return: 1: the peers of all volumes have all; 0: not yet; -1. */
static int is_synced(struct command *c)
{
	int all = 1;

	for (unsigned int i = 0; i < c->config->volumes; i++) {
		const struct repl_status *status = &looks[i].status;

		if (volume_get(c, i))
			return -1;
		if (status->role != REPL_PRIMARY)
			return error_set(c->error, REPL_EXIT_REFUSED, "sync is for the primary");
		/* What waits may find that there is nobody any more. */
		all &= status->primary.peer == REPL_PEER_ATTACHED && !status->primary.dirty &&
		       !status->primary.window_used && status->job.state != REPL_JOB_RUNNING;
	}
	return all;
}

/* Why the resync of some volume goes on no more, or NULL. */
static const char *sync_broken(struct command *c)
{
	for (unsigned int i = 0; i < c->config->volumes; i++) {
		const struct repl_status *status = &looks[i].status;

		if (status->primary.peer != REPL_PEER_ATTACHED)
			return "the peer is lost: when it is back it goes on, or the status says why not";
		if (status->job.state == REPL_JOB_FAILED)
			return "it has failed: see 'replctl status'";
		if (status->job.state == REPL_JOB_CANCELLED)
			return "it was cancelled";
	}
	return NULL;
}

/* A bar; or, without a terminal, a line now and then. @told: ms, when there was one */
static void sync_progress(struct command *c, int64_t *told)
{
	uint64_t done = 0, total = 0;
	bool terminal = isatty(2);
	char bar[64];

	if (c->options->json || (!terminal && now_ms() - *told < SYNC_LINE_MS))
		return;
	for (unsigned int i = 0; i < c->config->volumes; i++) {
		done += looks[i].status.job.done;
		total += looks[i].status.job.total;
	}
	status_bar(bar, sizeof(bar), terminal ? 40 : 0, done, total);
	fprintf(stderr, terminal ? "\r%s" : "%s\n", bar);
	*told = now_ms();
}

static void print_apart(struct json_object *line, void *context)
{
	struct command *c = context;
	const char *text = string_of(line, "apart");

	if (text && c->result)
		json_object_object_add(c->result, "apart", json_object_new_string(text));
	else if (text)
		fprintf(stderr, "%s\n", text);
}

/* Whose disk the peer's is only the daemons know, as long as they are connected. */
static int may_sync(struct command *c)
{
	if (!ask(c, c->options->full ? "sync-full" : "sync", print_apart, c))
		return 0;
	if (!strncmp(c->error->text, CONTROL_NO_DAEMON, strlen(CONTROL_NO_DAEMON)))
		error_set(c->error, REPL_EXIT_REFUSED,
			  "without a daemon nobody knows whose disk the peer's is: 'systemctl start dm-repl'");
	return -1;
}

/*
 * A leg that is dead when we come to it, and was not known to be, is detached then, and no more:
 * the peer has to end its server first. So it is asked once more. @why: filled in on 1: not all
 * could be connected. Else 0, or -1.
 */
static int connect_legs(struct command *c, struct repl_error *why)
{
	uint64_t lost, volumes = 0;
	int r;

	do {
		if (resource_lost_legs(&c->resource, &lost, c->error))
			return -1;
		volumes |= lost;
		if (ask(c, "anew", NULL, NULL))
			return -1;
		r = resource_import(&c->resource, volumes, why);
	} while (r && !resource_lost_legs(&c->resource, &lost, c->error) && (lost & ~volumes));
	return r ? 1 : 0;
}

/* To connect the disk may take a while: is it still the one? What is connected begins. */
static int begin_sync(struct command *c, const struct repl_resync *how)
{
	struct repl_error why;
	int r = connect_legs(c, &why);

	if (r < 0 || may_sync(c))
		return -1;
	if (!resource_resync(&c->resource, how, c->error))
		return 0;
	if (r)
		*c->error = why;
	return -1;
}

/* Until all is there. Who does not wait for the end finds it in the status. */
static int verb_sync(struct command *c)
{
	const struct options *options = c->options;
	const struct repl_resync how = {
		.full = options->full, .compare = options->checksum, .rate = options->rate,
	};
	int64_t begin = now_ms(), told = begin + SYNC_FIRST_MS - SYNC_LINE_MS;
	struct repl_error ignored, *keep = c->error;
	const char *why;
	int r;

	if (resource_role(&c->resource) != PAIR_PRIMARY)
		return error_set(c->error, REPL_EXIT_REFUSED, "sync is for the primary");
	if (may_sync(c))
		return -1;
	if (options->dry_run) {
		step(true, "attach what is not, and send %s", options->checksum ?
		     "what differs, of all of the disks" : options->full ?
		     "all of the disks" : "what the peer may have missed");
		return 0;
	}
	if (begin_sync(c, &how))
		return -1;
	while (!(r = is_synced(c))) {
		sync_progress(c, &told);
		why = sync_broken(c);
		if (why)
			return error_set(c->error, REPL_EXIT_FAILED, "%s", why);
		if (options->timeout >= 0 && now_ms() - begin > options->timeout)
			return error_set(c->error, REPL_EXIT_TIMEOUT,
					 "it goes on, and is not done in the time given: 'replctl status %s'",
					 c->config->name);
		usleep(100000);
	}
	if (r < 0)
		return -1;
	if (isatty(2) && !options->json) {
		sync_progress(c, &told);
		fputc('\n', stderr);
	}
	/* A daemon that has taken the peer for stale hears that it is not. */
	c->error = &ignored;
	if (options->full)
		ask(c, "synced", NULL, NULL);
	c->error = keep;
	return 0;
}

/* What the kernel moves in the background: here the resync, on a secondary the merge. */
static int verb_job(struct command *c)
{
	const char *what = c->nr_words ? c->words[0] : "";
	bool speed = !strcmp(what, "speed");
	uint64_t rate;

	if (c->nr_words != 1 + speed || (!speed && strcmp(what, "pause") &&
					 strcmp(what, "resume") && strcmp(what, "cancel")))
		return error_set(c->error, REPL_EXIT_USAGE,
				 "usage: replctl job pause|resume|cancel|speed RATE RESOURCE");
	if (speed && rate_parse(c->words[1], &rate, c->error)) {
		c->error->exit = REPL_EXIT_USAGE;
		return -1;
	}
	if (c->options->dry_run) {
		step(true, "%s%s%s the jobs of all volumes", speed ? "have " : what,
		     speed ? c->words[1] : "", speed ? " at most for" : "");
		return 0;
	}
	return speed ? resource_job_speed(&c->resource, rate, c->error) :
		       resource_job(&c->resource, what, c->error);
}

static int verb_dirty(struct command *c)
{
	const char *map = c->options->extents;

	return map ? dirty_print_extents(&c->resource, map, c->options->json, stdout, c->error) :
		     dirty_print_maps(&c->resource, c->options->json, stdout, c->error);
}

static int may_switch(struct command *c)
{
	char name[128];

	if (resource_role(&c->resource) != PAIR_PRIMARY)
		return error_set(c->error, REPL_EXIT_REFUSED, "a switch is asked for on the primary");
	for (unsigned int i = 0; i < c->config->volumes; i++) {
		const struct repl_volume_on *on = &c->config->volume[i].on[c->resource.here];
		struct repl_dm_info info;

		resource_device(&c->resource, i, false, name, sizeof(name));
		if (!on->hidden || !on->active)
			return error_set(c->error, REPL_EXIT_CONFIG,
					 "volume %s: a secondary needs hidden and active, and none are configured for this host",
					 c->config->volume[i].name);
		if (dm_info(name, &info, c->error))
			return -1;
		if (info.open_count)
			return error_set(c->error, REPL_EXIT_REFUSED,
					 "%s is in use: end the workload first", name);
	}
	return 0;
}

/* Return: 1: it has; 0: not yet; -1. */
static int has_taken_over(struct command *c)
{
	struct json_object *status = NULL, *over;
	int r = ask(c, "status", keep_line, &status);

	if (!r && json_object_object_get_ex(status, "failed_over", &over))
		r = json_object_get_boolean(over);
	json_object_put(status);
	return r;
}

/* How many writes there have been, of all volumes. */
static int writes_of(struct command *c, uint64_t *writes)
{
	*writes = 0;
	for (unsigned int i = 0; i < c->config->volumes; i++) {
		if (volume_get(c, i))
			return -1;
		*writes += looks[i].status.primary.writes;
	}
	return 0;
}

/* @when: "before" or "after" the peer takes over */
static int has_written(struct command *c, uint64_t writes, const char *when)
{
	const char *peer = c->config->host[!c->resource.here].name;
	uint64_t now;

	if (writes_of(c, &now))
		return -1;
	if (now == writes)
		return 0;
	if (!strcmp(when, "before"))
		return error_set(c->error, REPL_EXIT_REFUSED,
				 "somebody has written to this side behind the checkpoint: end that first");
	return error_set(c->error, REPL_EXIT_REFUSED,
			 "somebody has written to this side while %s took over: 'replctl demote --discard-local %s' gives that up, and makes this side the secondary",
			 peer, c->config->name);
}

static int set_readonly(struct command *c, bool readonly, struct repl_error *error)
{
	int r = 0;

	for (unsigned int i = 0; i < c->config->volumes; i++) {
		char name[128], path[160];

		resource_device(&c->resource, i, false, name, sizeof(name));
		snprintf(path, sizeof(path), "/dev/mapper/%s", name);
		r |= blockdev_set_readonly(path, readonly, error);
	}
	return r;
}

/* For tests/replctl/switch: what somebody does just then. */
static int test_switch(struct command *c, const char *when)
{
	const char *what = getenv("REPLCTL_TEST_SWITCH");

	setenv("REPLCTL_TEST_WHEN", when, 1);
	return what && system(what) ? error_set(c->error, REPL_EXIT_FAILED,
						"REPLCTL_TEST_SWITCH") : 0;
}

/*
 * Until the peer has taken over; who has had enough is told what there is then. It may take
 * over still: so nothing can be written here before somebody knows that it does not.
 */
static int wait_for_peer(struct command *c, int64_t begin, const sigset_t *signals)
{
	int64_t limit = c->options->timeout < 0 ? 60000 : c->options->timeout;
	const struct timespec pause = { .tv_nsec = 10000000 };
	const char *peer = c->config->host[!c->resource.here].name;
	int r;

	/* The daemon may be started anew just now. */
	while ((r = has_taken_over(c)) <= 0) {
		bool late = now_ms() - begin > limit;

		if (late || sigtimedwait(signals, NULL, &pause) > 0)
			return error_set(c->error, late ? REPL_EXIT_TIMEOUT : REPL_EXIT_FAILED,
					 "%s has not taken over %s, and may do so still: so nothing can be written here. See 'replctl status %s' there; if it has not, and is not going to: 'blockdev --setrw /dev/mapper/%s-...' for each volume",
					 peer, late ? "in the time given" : "yet", c->config->name,
					 c->config->name);
	}
	return 0;
}

/* The daemon has not said that it did not ask the peer to take over. */
static bool may_have_asked(const struct repl_error *error)
{
	return error->exit != REPL_EXIT_REFUSED && error->exit != REPL_EXIT_PEER &&
	       strncmp(error->text, CONTROL_NO_DAEMON, strlen(CONTROL_NO_DAEMON));
}

static int is_late(struct command *c, int64_t begin)
{
	return c->options->timeout >= 0 && now_ms() - begin > c->options->timeout ?
	       error_set(c->error, REPL_EXIT_TIMEOUT,
			 "no time is left to take over: the checkpoint took too long; nothing was given up") : 0;
}

/*
 * Nothing may be written here from the moment on at which the pause begins. As long as
 * the peer has not been told to take over, this side can be written again if it fails.
 */
static int hand_over(struct command *c, int64_t begin, uint64_t writes, double *pause)
{
	struct repl_error ignored;
	sigset_t signals, was;
	bool unknown = false;
	int64_t since;
	int r;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, &was);
	since = now_ms();
	r = set_readonly(c, true, c->error);
	if (!r)
		r = may_switch(c) || has_written(c, writes, "before") || is_late(c, begin);
	if (!r) {
		r = ask(c, "switch", NULL, NULL);
		if (!r || may_have_asked(c->error)) {
			r = wait_for_peer(c, c->options->timeout < 0 ? now_ms() : begin, &signals);
			unknown = r;
		}
	}
	*pause = (now_ms() - since) / 1e3;
	if (!r)
		r = test_switch(c, "taken") || has_written(c, writes, "after");
	if (r && !unknown)
		set_readonly(c, false, &ignored);
	sigprocmask(SIG_SETMASK, &was, NULL);
	return r ? -1 : 0;
}

/* The workload has ended. Nothing is lost: the last checkpoint has all, and nobody writes. */
static int verb_switch(struct command *c)
{
	const char *peer = c->config->host[!c->resource.here].name;
	struct options discard = *c->options, *keep = c->options;
	int64_t begin = now_ms();
	uint64_t writes;
	double pause;
	int r;

	if (may_switch(c) || writes_of(c, &writes))
		return -1;
	if (c->options->dry_run) {
		step(true, "take a checkpoint, and have %s take over", peer);
	} else if (ask(c, "checkpoint", NULL, NULL) || test_switch(c, "checkpointed") ||
		   hand_over(c, begin, writes, &pause)) {
		return -1;
	} else if (c->result) {
		json_object_object_add(c->result, "switch_pause_seconds",
				       json_object_new_double(pause));
	} else {
		step(false, "%s has taken over: for %.3f s neither side could be written", peer,
		     pause);
	}
	discard.discard = true;
	c->options = &discard;
	r = change_role(c, true);
	c->options = keep;
	return r;
}

/*
 * ---- main ----
 */

static const struct verb {
	const char *name;
	int (*fn)(struct command *c);
	bool no_resource;
	bool no_result;		/* it prints what it has to say itself */
} verbs[] = {
	{ "up", verb_up, false, false },
	{ "adjust", verb_adjust, false, false },
	{ "down", verb_down, false, false },
	{ "serve", verb_serve, true, true },
	{ "status", verb_status, false, true },
	{ "events", verb_events, false, true },
	{ "wait", verb_wait, false, false },
	{ "sync", verb_sync, false, false },
	{ "dirty", verb_dirty, false, true },
	{ "checkpoint", verb_checkpoint, false, false },
	{ "pause", verb_pause, false, false },
	{ "resume", verb_resume, false, false },
	{ "job", verb_job, false, false },
	{ "failover", verb_failover, false, false },
	{ "promote", verb_promote, false, false },
	{ "demote", verb_demote, false, false },
	{ "switch", verb_switch, false, false },
	{ "retry", verb_retry, false, false },
	{ "stop", verb_stop, false, false },
	{ "key", verb_key, true, false },
	{ "metadata", verb_metadata, true, true },
	{ "config-check", verb_config_check, false, false },
};

static bool changes_devices(const struct verb *verb)
{
	return verb->fn == verb_up || verb->fn == verb_adjust || verb->fn == verb_promote ||
	       verb->fn == verb_demote || verb->fn == verb_switch;
}

static int run(const struct verb *verb, struct command *c)
{
	struct repl_error why;
	bool last = verb->fn == verb_job;	/* the resource is the last word */
	char path[512];

	if (verb->no_resource)
		return verb->fn(c);
	if (!c->nr_words)
		return error_set(c->error, REPL_EXIT_USAGE, "which resource?");
	if (config_path(c->words[last ? c->nr_words - 1 : 0], path, sizeof(path), c->error))
		return -1;
	c->config = config_load(path, c->error);
	if (!c->config)
		return -1;
	c->resource.config = c->config;
	c->words += !last;
	c->nr_words--;
	int here = config_this_host(c->config, NULL, c->error);

	if (here < 0)
		return -1;
	c->resource.here = here;
	/* Whoever makes devices must know; others take what the configuration says. */
	if (role_find(&c->resource, changes_devices(verb), &why) && changes_devices(verb) &&
	    !c->options->dry_run) {
		*c->error = why;
		return -1;
	}
	if (c->nr_words && verb->fn != verb_wait && !last)
		return error_set(c->error, REPL_EXIT_USAGE, "'%s': one resource at a time",
				 c->words[0]);
	return verb->fn(c);
}

/* With --json: what has been done, or would be, goes in as it comes. */
static struct json_object *result_new(const struct verb *verb, const struct options *options)
{
	struct json_object *o = json_object_new_object(), *steps = json_object_new_array();

	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "verb", json_object_new_string(verb->name));
	json_object_object_add(o, "resource", NULL);
	json_object_object_add(o, "dry_run", json_object_new_boolean(options->dry_run));
	json_object_object_add(o, "steps", steps);
	steps_keep(steps);
	return o;
}

static const char *result_word(enum repl_exit exit)
{
	static const char * const words[] = {
		[REPL_EXIT_OK] = "done",
		[REPL_EXIT_USAGE] = "usage",
		[REPL_EXIT_PEER] = "peer_unreachable",
		[REPL_EXIT_REFUSED] = "refused",
		[REPL_EXIT_TIMEOUT] = "timeout",
		[REPL_EXIT_DIFFER] = "damage_found",
		[REPL_EXIT_CONFIG] = "bad_configuration",
	};

	return exit < sizeof(words) / sizeof(words[0]) && words[exit] ? words[exit] : "failed";
}

/* One object: on standard output, or, if it went wrong, on standard error. */
static void print_result(struct command *c, int r)
{
	struct json_object *o = c->result ? json_object_get(c->result) : NULL;
	enum repl_exit exit = !r ? REPL_EXIT_OK : c->error->exit ? c->error->exit :
			      REPL_EXIT_FAILED;

	if (!r && !o)
		return;
	if (!o)
		o = json_object_new_object();
	if (c->config)
		json_object_object_add(o, "resource", json_object_new_string(c->config->name));
	json_object_object_add(o, "result", json_object_new_string(result_word(exit)));
	json_object_object_add(o, "error", r ? json_object_new_string(c->error->text) : NULL);
	json_object_object_add(o, "exit", json_object_new_int(exit));
	fprintf(r ? stderr : stdout, "%s\n", json_object_to_json_string_ext(o,
		JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static int parse_options(int argc, char **argv, struct options *options,
			 struct repl_error *error)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "dry-run", no_argument, NULL, 'n' },
		{ "force", no_argument, NULL, 'f' },
		{ "in-sync", no_argument, NULL, 's' },
		{ "watch", no_argument, NULL, 'w' },
		{ "full", no_argument, NULL, 'F' },
		{ "checksum", no_argument, NULL, 'C' },
		{ "compare", no_argument, NULL, 'C' },	/* the same, for scripts */
		{ "discard-local", no_argument, NULL, 'D' },
		{ "timeout", required_argument, NULL, 't' },
		{ "rate", required_argument, NULL, 'r' },
		{ "extents", required_argument, NULL, 'E' },
		{ "size", required_argument, NULL, 'S' },
		{ "like", required_argument, NULL, 'L' },
		{ "region-size", required_argument, NULL, 'R' },
		{ "uuid", required_argument, NULL, 'U' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t ms, rate;
	int o;

	while ((o = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (o) {
		case 'j':
			options->json = true;
			break;
		case 'n':
			options->dry_run = true;
			break;
		case 'f':
			options->force = true;
			break;
		case 's':
			options->in_sync = true;
			break;
		case 'w':
			options->watch = true;
			break;
		case 'F':
			options->full = true;
			break;
		case 'C':
			options->checksum = true;
			options->full = true;
			break;
		case 'D':
			options->discard = true;
			break;
		case 't':
			if (duration_parse(optarg, &ms, error))
				return -1;
			options->timeout = ms;
			break;
		case 'r':
			if (rate_parse(optarg, &rate, error))
				return -1;
			options->rate = rate;
			break;
		case 'E':
			options->extents = optarg;
			break;
		case 'S':
			options->metadata.size = optarg;
			break;
		case 'L':
			options->metadata.like = optarg;
			break;
		case 'R':
			options->metadata.region_size = optarg;
			break;
		case 'U':
			options->metadata.uuid = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(REPL_EXIT_OK);
		default:
			return error_set(error, REPL_EXIT_USAGE, "see replctl --help");
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct repl_error error = { REPL_EXIT_FAILED, "" };
	struct options options = { .timeout = -1, .rate = RESYNC_RATE_CONFIG };
	struct command c = { .options = &options, .error = &error };
	const struct verb *verb = NULL;
	int r;

	/* Programs of ours are there, whatever the caller's PATH is. */
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (parse_options(argc, argv, &options, &error)) {
		fprintf(stderr, "replctl: %s\n", error.text);
		return REPL_EXIT_USAGE;
	}
	for (unsigned int i = 0; optind < argc && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (!strcmp(argv[optind], verbs[i].name))
			verb = &verbs[i];
	if (!verb) {
		usage(stderr);
		return REPL_EXIT_USAGE;
	}
	c.words = argv + optind + 1;
	c.nr_words = argc - optind - 1;
	if (options.json && !verb->no_result)
		c.result = result_new(verb, &options);
	r = run(verb, &c);
	if (options.json)
		print_result(&c, r);
	else if (r)
		fprintf(stderr, "replctl: %s\n", error.text);
	json_object_put(c.result);
	config_free(c.config);
	return !r ? REPL_EXIT_OK : error.exit ? error.exit : REPL_EXIT_FAILED;
}

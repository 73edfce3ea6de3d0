// SPDX-License-Identifier: GPL-2.0-only
/* Status lines: every field, every way to be wrong, rates, JSON, words. */
#include <json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "status.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SECOND 1000000000ull
#define U64_MAX "18446744073709551615"

#define GOOD_SECONDARY "secondary running 4 - 128 1000 10 20 3 - - 0/0 0 - 0 -"
#define REST "0/8192 0/1000 - - - 0/0 0 0 -"	/* what a primary says last */
#define GOOD_PRIMARY "primary running sync attached 100 90 10 - 0 - " REST

static struct repl_status parsed(const char *line)
{
	struct repl_error error = { 0 };
	struct repl_status s;

	if (status_parse(line, &s, &error))
		fail_msg("'%s': %s", line, error.text);
	return s;
}

static void refused(const char *line)
{
	struct repl_error error = { 0 };
	struct repl_status s;

	if (!status_parse(line, &s, &error))
		fail_msg("'%s' is taken", line);
	assert_int_equal(error.exit, REPL_EXIT_FAILED);
	assert_true(error.text[0]);
	for (const char *c = error.text; *c; c++)
		assert_true(*c >= ' ' && *c <= '~');
	assert_int_equal(status_parse(line, &s, NULL), -1);
}

static void secondary_fields(void **state)
{
	struct repl_status s = parsed("secondary failover 7 9 8 1000 10 20 3 merge paused 12/34 56 "
				      "cbw-read,merge-write 28 4096");

	assert_int_equal(s.role, REPL_SECONDARY);
	assert_int_equal(s.stage, REPL_STAGE_FAILOVER);
	assert_int_equal(s.secondary.checkpoint, 7);
	assert_true(s.secondary.is_prepared);
	assert_int_equal(s.secondary.prepared, 9);
	assert_int_equal(s.secondary.region_size, 8);
	assert_int_equal(s.secondary.regions, 1000);
	assert_int_equal(s.secondary.hidden, 10);
	assert_int_equal(s.secondary.active, 20);
	assert_int_equal(s.secondary.ops, 3);
	assert_int_equal(s.job.type, REPL_JOB_MERGE);
	assert_int_equal(s.job.state, REPL_JOB_PAUSED);
	assert_int_equal(s.job.done, 12);
	assert_int_equal(s.job.total, 34);
	assert_int_equal(s.job.speed, 56);
	assert_int_equal(s.latched.classes, 1u << REPL_CBW_READ | 1u << REPL_MERGE_WRITE);
	assert_int_equal(s.latched.first_errno, 28);
	assert_true(s.latched.has_first_sector);
	assert_int_equal(s.latched.first_sector, 4096);
	assert_false(parsed(GOOD_SECONDARY).secondary.is_prepared);
	assert_int_equal(parsed(GOOD_SECONDARY).latched.classes, 0);
}

static void words_of_fields(void **state)
{
	static const char *const stages[] = {
		"none", "running", "failover", "failover-failed", "done" };
	static const char *const states[] = {
		"-", "running", "paused", "done", "failed", "cancelled" };
	static const char *const peers[] = { "none", "attached", "detached", "failed" };
	char line[256];

	for (unsigned int i = 0; i < ARRAY_SIZE(stages); i++) {
		snprintf(line, sizeof(line), "secondary %s 4 - 128 9 1 2 3 - - 0/0 0 - 0 -", stages[i]);
		assert_int_equal(parsed(line).stage, i);
		assert_string_equal(status_stage_name(i), stages[i]);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++) {
		snprintf(line, sizeof(line),
			 "secondary done 4 - 128 9 1 2 3 fill %s 0/0 0 - 0 -", states[i]);
		assert_int_equal(parsed(line).job.type, REPL_JOB_FILL);
		assert_int_equal(parsed(line).job.state, i);
		assert_string_equal(status_job_state_name(i), states[i]);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(peers); i++) {
		snprintf(line, sizeof(line), "primary none async %s 1 0 1 - 0 - " REST, peers[i]);
		assert_int_equal(parsed(line).primary.peer, i);
		assert_int_equal(parsed(line).primary.mode, REPL_MODE_ASYNC);
		assert_string_equal(status_peer_name(i), peers[i]);
	}
	for (unsigned int i = 0; i < REPL_NR_CLASSES; i++) {
		bool flush = strstr(status_class_name(i), "flush");

		snprintf(line, sizeof(line), i < REPL_PEER_WRITE ?
			 "secondary none 4 - 128 9 1 2 3 - - 0/0 0 %s 5 64" :
			 "primary none sync failed 1 0 1 %s 5 64 " REST, status_class_name(i));
		assert_int_equal(parsed(line).latched.classes, 1u << i);
		assert_int_equal(parsed(line).latched.has_first_sector, !flush);
	}
	assert_string_equal(status_role_name(REPL_INGEST), "ingest");
	assert_string_equal(status_job_name(REPL_JOB_MERGE), "merge");
}

static void ingest_fields(void **state)
{
	struct repl_status s = parsed("ingest done bound fenced");

	assert_int_equal(s.role, REPL_INGEST);
	assert_int_equal(s.stage, REPL_STAGE_DONE);
	assert_true(s.ingest.is_bound && s.ingest.is_fenced);
	s = parsed("ingest none unbound open");
	assert_false(s.ingest.is_bound || s.ingest.is_fenced);
}

static void primary_fields(void **state)
{
	struct repl_status s = parsed("primary none sync failed 81240 81203 37 "
				      "peer-write,peer-flush 5 40960 256/8192 12/1000 "
				      "7:drained push running 3/15 2048 20 5/100");

	assert_int_equal(s.role, REPL_PRIMARY);
	assert_int_equal(s.primary.window_used, 256);
	assert_int_equal(s.primary.window, 8192);
	assert_int_equal(s.primary.dirty, 12);
	assert_int_equal(s.primary.regions, 1000);
	assert_int_equal(s.primary.cut_id, 7);
	assert_int_equal(s.primary.cut, REPL_CUT_DRAINED);
	assert_int_equal(s.job.type, REPL_JOB_PUSH);
	assert_int_equal(s.job.state, REPL_JOB_RUNNING);
	assert_int_equal(s.job.done, 3);
	assert_int_equal(s.job.total, 15);
	assert_int_equal(s.job.speed, 2048);
	assert_int_equal(s.primary.newer, 20);
	assert_true(s.primary.has_metadata);
	assert_int_equal(s.primary.log_used, 5);
	assert_int_equal(s.primary.log_blocks, 100);
	assert_int_equal(s.stage, REPL_STAGE_NONE);
	assert_int_equal(s.primary.mode, REPL_MODE_SYNC);
	assert_int_equal(s.primary.peer, REPL_PEER_FAILED);
	assert_int_equal(s.primary.writes, 81240);
	assert_int_equal(s.primary.forwarded, 81203);
	assert_int_equal(s.primary.missed, 37);
	assert_int_equal(s.latched.classes, 1u << REPL_PEER_WRITE | 1u << REPL_PEER_FLUSH);
	assert_int_equal(s.latched.first_sector, 40960);
}

static void newer_kernels(void **state)
{
	parsed(GOOD_SECONDARY " 1/2 more words-of 17 its/own");
	assert_false(parsed(GOOD_SECONDARY " -").secondary.has_metadata);
	assert_false(parsed(GOOD_SECONDARY).secondary.has_metadata);
	assert_true(parsed(GOOD_SECONDARY " 17/4088").secondary.has_metadata);
	assert_int_equal(parsed(GOOD_SECONDARY " 17/4088").secondary.log_used, 17);
	assert_int_equal(parsed(GOOD_SECONDARY " 17/4088").secondary.log_blocks, 4088);
	refused(GOOD_SECONDARY " 17");
	refused(GOOD_SECONDARY " 3/2");
	refused(GOOD_SECONDARY " /2");
	parsed(GOOD_PRIMARY " 5");
	parsed("ingest none bound open x");
	refused(GOOD_SECONDARY " ");
	refused(GOOD_SECONDARY "  x");
	refused(GOOD_PRIMARY " x ");
}

/* Each prefix of a good line that is not the line lacks something. */
static void too_short(void **state)
{
	static const char *const good[] = { GOOD_SECONDARY, GOOD_PRIMARY, "ingest none bound open" };
	char line[256];

	for (unsigned int i = 0; i < ARRAY_SIZE(good); i++)
		for (size_t len = 0; len < strlen(good[i]); len++) {
			snprintf(line, sizeof(line), "%.*s", (int)len, good[i]);
			refused(line);
		}
}

/* Each word of a good line replaced by each of these. */
static void bad_words(void **state)
{
	static const char *const good[] = { GOOD_SECONDARY, GOOD_PRIMARY, "ingest none bound open" };
	static const char *const bad[] = {
		"", "x", "-1", "+1", "0x10", "1.5", "01", "18446744073709551616",
		"99999999999999999999999", "1/2/3", "Running", "\n", "\x80\xff", "1,2", ",", "/",
		"nonexistent", "--", "%s%n",
	};
	char line[512], *copy, *word, *rest;

	for (unsigned int i = 0; i < ARRAY_SIZE(good); i++)
		for (unsigned int field = 0; ; field++) {
			unsigned int nr = 0;

			for (unsigned int b = 0; b < ARRAY_SIZE(bad); b++) {
				copy = rest = strdup(good[i]);
				line[0] = 0;
				for (nr = 0; (word = strsep(&rest, " ")); nr++)
					snprintf(line + strlen(line), sizeof(line) - strlen(line),
						 "%s%s", nr ? " " : "", nr == field ? bad[b] : word);
				free(copy);
				if (field < nr)
					refused(line);
			}
			if (field >= nr)
				break;
		}
}

static void contradictions(void **state)
{
	static const char *const lines[] = {
		"secondary running 4 - 0 1000 10 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 7 1000 10 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 4 1000 10 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 24 1000 10 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 16384 1000 10 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 128 1000 1001 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 128 1000 10 1001 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 8 " U64_MAX " 10 20 3 - - 0/0 0 - 0 -",
		"secondary running 4 - 128 1000 10 20 3 - running 0/0 0 - 0 -",
		"secondary running 4 - 128 1000 10 20 3 fill running 2/1 0 - 0 -",
		"secondary running 4 - 128 1000 10 20 3 fill running /1 0 - 0 -",
		"secondary running 4 - 128 1000 10 20 3 fill running 1/ 0 - 0 -",
		"secondary running 4 - 128 1000 10 20 3 fill running 1 0 - 0 -",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 " U64_MAX " - 0 -",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 - 5 -",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 - 0 5",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 flush 0 0",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 flush 5 -",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 flush 4096 0",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 flush,cbw-read 5 0",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 flush,flush 5 0",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 flush, 5 0",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 ,flush 5 0",
		"secondary running 4 - 128 1000 10 20 3 - - 0/0 0 peer-write 5 0",
		"primary none sync failed 1 0 1 flush 5 0",
		"primary failover sync attached 1 1 0 - 0 -",
		" " GOOD_SECONDARY,
		"snapshot 1/2 3",
		"Invalid",
	};
	char *long_line = malloc(5001);

	for (unsigned int i = 0; i < ARRAY_SIZE(lines); i++)
		refused(lines[i]);
	memset(long_line, 'a', 5000);
	long_line[5000] = 0;
	refused(long_line);
	memcpy(long_line, GOOD_SECONDARY " ", strlen(GOOD_SECONDARY) + 1);
	refused(long_line);
	free(long_line);
}

static void extremes(void **state)
{
	struct repl_status s = parsed(
		"secondary running " U64_MAX " " U64_MAX " 8192 4398046511103 4398046511103 "
		"4398046511103 " U64_MAX " merge running " U64_MAX "/" U64_MAX
		" 18014398509481983 cbw-read,cbw-write,secondary-write,flush,view-read,view-write,merge-read,merge-write,merge-flush,metadata 4095 "
		U64_MAX " " U64_MAX "/" U64_MAX);
	struct repl_report report = { .resource = "r", .volume = "v", .status = &s,
				      .sectors = UINT64_MAX };
	struct json_object *o = status_json(&report);
	char *text;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(o);
	assert_non_null(strstr(json_object_to_json_string(o), U64_MAX));
	json_object_put(o);
	status_words(&report, 100000, to);
	fclose(to);
	assert_non_null(strstr(text, "merge-flush"));
	free(text);
}

static void rates(void **state)
{
	struct repl_rate r = { 0 };
	uint64_t eta;
	double d;

	assert_false(rate_get(NULL, &d));
	assert_false(rate_eta(NULL, 1, &eta));
	assert_false(rate_get(&r, &d));
	rate_add(&r, SECOND, 100);
	assert_false(rate_get(&r, &d));
	assert_false(rate_eta(&r, 200, &eta));
	assert_true(rate_eta(&r, 100, &eta));
	assert_int_equal(eta, 0);
	rate_add(&r, 3 * SECOND, 120);
	assert_true(rate_get(&r, &d));
	assert_true(d == 10);
	assert_true(rate_eta(&r, 221, &eta));
	assert_int_equal(eta, 11);		/* 10.1 s */
	assert_true(rate_eta(&r, 50, &eta));	/* past the end */
	assert_int_equal(eta, 0);
	/* Time that stands still or runs backwards says nothing. */
	rate_add(&r, 3 * SECOND, 1000);
	rate_add(&r, SECOND, 1000);
	assert_true(rate_get(&r, &d) && d == 10);
	/* It does not move. */
	rate_add(&r, 4 * SECOND, 120);
	assert_true(rate_get(&r, &d) && d == 0);
	assert_false(rate_eta(&r, 200, &eta));
	/* A new job: never negative. */
	rate_add(&r, 5 * SECOND, 3);
	assert_false(rate_get(&r, &d));
	rate_add(&r, 6 * SECOND, 5);
	assert_true(rate_get(&r, &d) && d == 2);
	/* A century is "nobody knows". */
	assert_false(rate_eta(&r, UINT64_MAX, &eta));
	rate_add(&r, 6 * SECOND + 1, UINT64_MAX);
	assert_true(rate_get(&r, &d) && d > 0);
	rate_add(&r, UINT64_MAX, UINT64_MAX);
	assert_true(rate_get(&r, &d) && d == 0);
}

static void bars(void **state)
{
	char text[300];

	status_bar(text, sizeof(text), 20, 0, 10);
	assert_string_equal(text, "[>         ]   0.0 %");
	status_bar(text, sizeof(text), 20, 5, 10);
	assert_string_equal(text, "[=====>    ]  50.0 %");
	status_bar(text, sizeof(text), 20, 10, 10);
	assert_string_equal(text, "[==========] 100.0 %");
	status_bar(text, sizeof(text), 20, 99999999, 100000000);
	assert_string_equal(text, "[=========>]  99.9 %");
	status_bar(text, sizeof(text), 20, 11, 10);
	assert_string_equal(text, "[==========] 100.0 %");
	status_bar(text, sizeof(text), 0, 1, 3);
	assert_string_equal(text, "33.3 %");
	status_bar(text, sizeof(text), 20, UINT64_MAX - 1, UINT64_MAX);
	assert_non_null(strstr(text, "99.9 %"));
	for (unsigned int width = 0; width < 400; width++) {
		status_bar(text, sizeof(text), width, 1, 2);
		assert_true(strlen(text) <= (width < 14 ? 7 : width));
	}
	status_bar(text, 5, 20, 1, 2);
	assert_int_equal(strlen(text), 4);
}

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, key, &value))
		fail_msg("no key %s", key);
	return value;
}

static void json(void **state)
{
	struct repl_status s = parsed("secondary failover 7 - 128 100 10 20 3 merge running 50/200 1024 "
				      "cbw-write 28 4096");
	struct repl_status ingest = parsed("ingest failover bound fenced");
	struct repl_rate rate = { 0 };
	struct repl_report report = { .resource = "r", .volume = "v", .status = &s,
				      .ingest = &ingest, .rate = &rate, .sectors = 12801 };
	struct json_object *o, *job;

	rate_add(&rate, SECOND, 30);
	rate_add(&rate, 2 * SECOND, 50);
	o = status_json(&report);
	job = get(o, "job");
	assert_string_equal(json_object_get_string(get(o, "volume")), "v");
	assert_string_equal(json_object_get_string(get(o, "stage")), "failover");
	assert_int_equal(json_object_get_uint64(get(o, "checkpoint")), 7);
	assert_null(get(o, "prepared"));
	assert_int_equal(json_object_get_uint64(get(o, "region_size_bytes")), 65536);
	assert_int_equal(json_object_get_uint64(get(o, "hidden_bytes")), 655360);
	assert_int_equal(json_object_get_uint64(get(o, "active_bytes")), 1310720);
	assert_int_equal(json_object_get_uint64(get(o, "ops")), 3);
	assert_int_equal(json_object_get_uint64(get(o, "job_speed_limit_bytes_per_second")), 1048576);
	assert_true(json_object_get_double(get(job, "fraction")) == 0.25);
	assert_int_equal(json_object_get_uint64(get(job, "rate_bytes_per_second")), 20 * 65536);
	assert_int_equal(json_object_get_uint64(get(job, "eta_seconds")), 8);
	assert_string_equal(json_object_get_string(get(job, "type")), "merge");
	assert_int_equal(json_object_array_length(get(o, "errors")), 1);
	assert_int_equal(json_object_get_uint64(get(o, "first_errno")), 28);
	assert_int_equal(json_object_get_uint64(get(o, "first_sector")), 4096);
	assert_non_null(strstr(json_object_get_string(get(o, "what_to_do")), "make space"));
	assert_true(json_object_get_boolean(get(get(o, "ingest"), "fenced")));
	json_object_put(o);
}

static void json_unknown_is_null(void **state)
{
	static const char *const nulls[] = {
		"checkpoint", "prepared", "job", "job_speed_limit_bytes_per_second", "ingest",
		"first_errno", "first_sector", "what_to_do", "size_bytes" };
	struct repl_status s = parsed("secondary none 0 - 128 100 0 0 0 - - 0/0 0 - 0 -");
	struct repl_report report = { .resource = "r", .volume = "v", .status = &s };
	struct json_object *o = status_json(&report);

	for (unsigned int i = 0; i < ARRAY_SIZE(nulls); i++)
		assert_null(get(o, nulls[i]));
	assert_int_equal(json_object_array_length(get(o, "errors")), 0);
	json_object_put(o);
	s = parsed("secondary none 1 - 128 100 0 0 0 fill paused 0/0 0 - 0 -");
	o = status_json(&report);
	assert_null(get(get(o, "job"), "fraction"));
	assert_null(get(get(o, "job"), "rate_bytes_per_second"));
	assert_null(get(get(o, "job"), "eta_seconds"));
	json_object_put(o);
	/* The last region is partial: no more bytes than the device has. */
	s = parsed("secondary running 1 - 128 2 2 0 0 - - 0/0 0 - 0 -");
	report.sectors = 129;
	o = status_json(&report);
	assert_int_equal(json_object_get_uint64(get(o, "hidden_bytes")), 129 * 512);
	json_object_put(o);
	s = parsed("primary none sync failed 5 3 2 peer-flush 5 0 " REST);
	o = status_json(&report);
	assert_string_equal(json_object_get_string(get(o, "peer")), "failed");
	assert_int_equal(json_object_get_uint64(get(o, "missed")), 2);
	assert_null(get(o, "first_sector"));
	json_object_put(o);
}

static char *words(const char *line, const char *ingest_line, const struct repl_rate *rate)
{
	struct repl_status s = parsed(line), ingest;
	struct repl_report report = { .resource = "res", .volume = "vol", .status = &s,
				      .rate = rate };
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (ingest_line) {
		ingest = parsed(ingest_line);
		report.ingest = &ingest;
	}
	status_words(&report, 60, to);
	fclose(to);
	return text;
}

static void says(const char *line, const char *ingest, const char *what)
{
	char *text = words(line, ingest, NULL);

	if (!strstr(text, what))
		fail_msg("'%s' is not in:\n%s", what, text);
	/* No format left over. */
	assert_null(strchr(text, '%') && strstr(text, "%s") ? text : NULL);
	free(text);
}

static void text(void **state)
{
	struct repl_rate rate = { 0 };
	char line[256], *all;

	says("secondary none 0 - 128 9 0 0 0 - - 0/0 0 - 0 -", NULL, "not started");
	says(GOOD_SECONDARY, NULL, "vol: secondary, running, checkpoint 4\n  replicating\n");
	says(GOOD_SECONDARY, NULL, "hidden 640.0 KiB, active 1.2 MiB of 62.5 MiB");
	says("secondary running 4 5 128 9 0 0 0 - - 0/0 0 - 0 -", NULL, "checkpoint 5 is prepared");
	says("secondary failover 4 - 128 9 0 0 0 - - 0/0 0 - 0 -", NULL, "the merge goes on");
	says("secondary failover-failed 4 - 128 9 0 0 0 - - 0/0 0 - 0 -", NULL, "replctl retry res");
	says("secondary done 4 - 128 9 0 0 0 - - 0/0 0 - 0 -", NULL, "not needed");
	says(GOOD_SECONDARY, "ingest none unbound open", "replctl adjust res");
	says(GOOD_SECONDARY, "ingest done bound fenced", "fenced");
	says(GOOD_SECONDARY, NULL, "no metadata device");
	says(GOOD_SECONDARY " -", NULL, "no metadata device");
	says(GOOD_PRIMARY, NULL, "100 writes, 90 forwarded, 10 missed");
	says("primary none sync failed 1 0 1 peer-write 5 8 " REST, NULL, "Input/output error at sector 8");
	says("primary none sync detached 1 0 1 - 0 - " REST, NULL, "no peer is attached");
	for (unsigned int i = 0; i < REPL_NR_CLASSES; i++) {
		snprintf(line, sizeof(line), i < REPL_PEER_WRITE ?
			 "secondary running 4 - 128 9 1 2 3 - - 0/0 0 %s 5 64" :
			 "primary none sync failed 1 0 1 %s 5 64 " REST, status_class_name(i));
		says(line, NULL, status_class_name(i));
		says(line, NULL, "what to do: ");
		says(line, NULL, i == REPL_PRIMARY_METADATA ? "metadata check" :
				 i <= REPL_FLUSH || i >= REPL_METADATA ? "then resync" :
				 "then `replctl retry res`");
	}
	rate_add(&rate, SECOND, 0);
	rate_add(&rate, 2 * SECOND, 16);
	all = words("secondary failover 4 - 128 9 0 0 0 merge running 16/1616 2048 - 0 -", NULL, &rate);
	assert_non_null(strstr(all, "merge running [>"));
	assert_non_null(strstr(all, "1.0 MiB/s, 1 min 40 s left (limit 2.0 MiB/s)"));
	free(all);
}

static void advice(void **state)
{
	struct repl_status s = parsed("secondary running 4 - 128 9 1 2 3 - - 0/0 0 "
				      "cbw-read,secondary-write 5 64");
	struct repl_report report = { .resource = "res", .volume = "vol", .status = &s };
	char todo[1024], small[8];

	/* Two classes, one thing to do. */
	assert_true(status_what_to_do(&report, todo, sizeof(todo)));
	assert_null(strchr(todo, ';'));
	assert_true(status_what_to_do(&report, small, sizeof(small)));
	assert_true(strlen(small) < sizeof(small));
	s = parsed(GOOD_SECONDARY);
	assert_false(status_what_to_do(&report, todo, sizeof(todo)));
	assert_string_equal(todo, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secondary_fields),
		cmocka_unit_test(words_of_fields),
		cmocka_unit_test(ingest_fields),
		cmocka_unit_test(primary_fields),
		cmocka_unit_test(newer_kernels),
		cmocka_unit_test(too_short),
		cmocka_unit_test(bad_words),
		cmocka_unit_test(contradictions),
		cmocka_unit_test(extremes),
		cmocka_unit_test(rates),
		cmocka_unit_test(bars),
		cmocka_unit_test(json),
		cmocka_unit_test(json_unknown_is_null),
		cmocka_unit_test(text),
		cmocka_unit_test(advice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

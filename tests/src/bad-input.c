// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tables and messages that are malformed in every way that the parser tells
 * apart, then thousands of random ones. What is refused must change nothing,
 * and must say why: another reason, another text.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

#define SIZE (4 * MIB)
#define SECTORS (SIZE / SECTOR)
#define REGION 8u

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t seed;
static bool default_seed;

/*
 * Tables. $0 to $3 are disks of SECTORS, $s one that is too short, $b one
 * with blocks of 4096 bytes. Lines of one group must get one text, lines of
 * two groups two.
 */

struct bad_table {
	const char *group;
	const char *type;
	const char *params;
	uint64_t sectors;	/* 0: SECTORS */
};

static const struct bad_table bad_tables[] = {
	{ "secondary: few words", "repl-secondary", "" },
	{ "secondary: few words", "repl-secondary", "$0" },
	{ "secondary: few words", "repl-secondary", "$0 $1 $2 8" },
	{ "secondary: few words", "repl-secondary", "$0 $1 $2 -" },
	{ "metadata is another", "repl-secondary", "$0 $1 $2 $0 8" },
	{ "metadata is another", "repl-secondary", "$0 $1 $2 $1 8" },
	{ "metadata is another", "repl-secondary", "$0 $1 $2 $2 8" },
	{ "metadata: open", "repl-secondary", "$0 $1 $2 none 8" },
	{ "metadata: open", "repl-secondary", "$0 $1 $2 /dev/nothing 8" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - x" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - -" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - -8" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - 8k" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - 0x8" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - 8.0" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - 4294967304" },
	{ "region size: no number", "repl-secondary", "$0 $1 $2 - 18446744073709551624" },
	{ "region size: not a power", "repl-secondary", "$0 $1 $2 - 0" },
	{ "region size: not a power", "repl-secondary", "$0 $1 $2 - 12" },
	{ "region size: not a power", "repl-secondary", "$0 $1 $2 - 8193" },
	{ "region size: range", "repl-secondary", "$0 $1 $2 - 1" },
	{ "region size: range", "repl-secondary", "$0 $1 $2 - 4" },
	{ "region size: range", "repl-secondary", "$0 $1 $2 - 16384" },
	{ "region size: range", "repl-secondary", "$0 $1 $2 - 2147483648" },
	{ "features: no number", "repl-secondary", "$0 $1 $2 - 8 x" },
	{ "features: no number", "repl-secondary", "$0 $1 $2 - 8 -1 x" },
	{ "features: no number", "repl-secondary", "$0 $1 $2 - 8 sync" },
	{ "features: wrong number", "repl-secondary", "$0 $1 $2 - 8 1" },
	{ "features: wrong number", "repl-secondary", "$0 $1 $2 - 8 0 sync" },
	{ "features: wrong number", "repl-secondary", "$0 $1 $2 - 8 2 sync" },
	{ "features: wrong number", "repl-secondary", "$0 $1 $2 - 8 4294967295" },
	{ "secondary: features of none", "repl-secondary", "$0 $1 $2 - 8 1 sync" },
	{ "secondary: features of none", "repl-secondary", "$0 $1 $2 - 8 2 min_checkpoint 1" },
	{ "secondary: unknown feature", "repl-secondary", "$0 $1 $2 $3 8 1 sync" },
	{ "secondary: unknown feature", "repl-secondary", "$0 $1 $2 $3 8 2 a b" },
	{ "secondary: unknown feature", "repl-secondary", "$0 $1 $2 $3 8 1 uuid" },
	{ "secondary: unknown feature", "repl-secondary", "$0 $1 $2 $3 8 2 uuid 1" },
	{ "secondary: unknown feature", "repl-secondary", "$0 $1 $2 $3 8 2 min_checkpoint -1" },
	{ "secondary: unknown feature", "repl-secondary", "$0 $1 $2 $3 8 4 min_checkpoint 1 uuid 1" },
	{ "secondary: open", "repl-secondary", "/dev/nothing $1 $2 - 8" },
	{ "secondary: open", "repl-secondary", "- $1 $2 - 8" },
	{ "secondary: open", "repl-secondary", "/dev/null $1 $2 - 8" },
	{ "secondary: open", "repl-secondary", "/ $1 $2 - 8" },
	{ "secondary: open", "repl-secondary", "240:77 $1 $2 - 8" },
	{ "hidden: open", "repl-secondary", "$0 /dev/nothing $2 - 8" },
	{ "hidden: open", "repl-secondary", "$0 - $2 - 8" },
	{ "active: open", "repl-secondary", "$0 $1 /dev/nothing - 8" },
	{ "active: open", "repl-secondary", "$0 $1 - - 8" },
	{ "secondary: short", "repl-secondary", "$s $1 $2 - 8" },
	{ "hidden: short", "repl-secondary", "$0 $s $2 - 8" },
	{ "active: short", "repl-secondary", "$0 $1 $s - 8" },
	{ "secondary: short", "repl-secondary", "$0 $1 $2 - 8", SECTORS + 1 },
	{ "secondary: blocks", "repl-secondary", "$b $1 $2 - 8", SECTORS - 1 },
	{ "hidden: blocks", "repl-secondary", "$0 $b $2 - 8", SECTORS - 1 },
	{ "active: blocks", "repl-secondary", "$0 $1 $b - 8", SECTORS - 1 },
	{ "secondary is hidden", "repl-secondary", "$0 $0 $2 - 8" },
	{ "secondary is active", "repl-secondary", "$0 $1 $0 - 8" },
	{ "hidden is active", "repl-secondary", "$0 $1 $1 - 8" },
	{ "ingest: words", "repl-ingest", "" },
	{ "ingest: words", "repl-ingest", "$0 $1" },
	{ "ingest: words", "repl-ingest", "$0 0" },
	{ "secondary: open", "repl-ingest", "/dev/nothing" },
	{ "secondary: open", "repl-ingest", "-" },
	{ "secondary: short", "repl-ingest", "$s" },
	{ "secondary: blocks", "repl-ingest", "$b", SECTORS - 1 },
	{ "primary: few words", "repl-primary", "" },
	{ "primary: few words", "repl-primary", "$0" },
	{ "primary: few words", "repl-primary", "$0 - -" },
	{ "metadata is another", "repl-primary", "$0 $1 $0 8" },
	{ "metadata is another", "repl-primary", "$0 $1 $1 8" },
	{ "metadata: open", "repl-primary", "$0 $1 none 8" },
	{ "region size: no number", "repl-primary", "$0 $1 - x" },
	{ "region size: not a power", "repl-primary", "$0 $1 - 9" },
	{ "region size: range", "repl-primary", "$0 $1 - 4" },
	{ "features: no number", "repl-primary", "$0 $1 - 8 sync" },
	{ "features: wrong number", "repl-primary", "$0 $1 - 8 0 sync" },
	{ "features: wrong number", "repl-primary", "$0 $1 - 8 2 sync" },
	{ "primary: unknown feature", "repl-primary", "$0 $1 - 8 1 rsync" },
	{ "primary: unknown feature", "repl-primary", "$0 $1 - 8 2 sync Sync" },
	{ "primary: feature twice", "repl-primary", "$0 $1 - 8 2 sync sync" },
	{ "primary: feature twice", "repl-primary", "$0 $1 - 8 2 async async" },
	{ "primary: feature twice", "repl-primary", "$0 $1 - 8 2 window=512 window=512" },
	{ "primary: both modes", "repl-primary", "$0 $1 - 8 2 sync async" },
	{ "primary: needs async", "repl-primary", "$0 $1 - 8 2 sync window=512" },
	{ "primary: needs async", "repl-primary", "$0 $1 - 8 2 congestion=block sync" },
	{ "primary: needs async", "repl-primary", "$0 $1 - 8 2 sync peer_timeout=500" },
	{ "primary: congestion", "repl-primary", "$0 $1 - 8 1 congestion=wait" },
	{ "primary: congestion", "repl-primary", "$0 $1 - 8 2 async congestion=" },
	{ "primary: window", "repl-primary", "$0 $1 - 8 1 window=" },
	{ "primary: window", "repl-primary", "$0 $1 - 8 1 window=255" },
	{ "primary: window", "repl-primary", "$0 $1 - 8 1 window=1048577" },
	{ "primary: window", "repl-primary", "$0 $1 - 8 1 window=1M" },
	{ "primary: timeout", "repl-primary", "$0 $1 - 8 1 peer_timeout=99" },
	{ "primary: timeout", "repl-primary", "$0 $1 - 8 1 peer_timeout=600001" },
	{ "primary: timeout", "repl-primary", "$0 $1 - 8 1 peer_timeout=1s" },
	{ "local: open", "repl-primary", "/dev/nothing $1 - 8" },
	{ "local: open", "repl-primary", "- $1 - 8" },
	{ "peer: open", "repl-primary", "$0 /dev/nothing - 8" },
	{ "local: short", "repl-primary", "$s $1 - 8" },
	{ "peer: short", "repl-primary", "$0 $s - 8" },
	{ "local: blocks", "repl-primary", "$b $1 - 8", SECTORS - 1 },
	{ "peer: blocks", "repl-primary", "$0 $b - 8", SECTORS - 1 },
	{ "local is peer", "repl-primary", "$0 $0 - 8" },
};

static const char *big_blocks;

static void expand(char *out, size_t size, const char *in)
{
	size_t used = 0;

	for (; *in; in++) {
		const char *word = NULL;

		if (*in == '$') {
			in++;
			word = *in == 's' ? dm_path("bad-short") :
			       *in == 'b' ? big_blocks : brd(*in - '0');
		}
		if (word)
			used += snprintf(out + used, size - used, "%s", word);
		else
			out[used++] = *in;
		need(used < size, "room for '%s'", in);
	}
	out[used] = 0;
}

/* What the kernel's log says of the table that was just refused. */
static bool refusal(const char *type, char *text, size_t size)
{
	char key[64], *end;
	const char *found;

	snprintf(key, sizeof(key), ": %s: ", type);
	found = kmsg_find(key);
	if (!found)
		return false;
	snprintf(text, size, "%s", found);
	end = strstr(text, " (-");
	if (end)
		*end = 0;
	return true;
}

static void refused_tables(void)
{
	static struct { const char *group; char text[128]; } seen[COUNT(bad_tables)];
	unsigned int nr = 0;

	section("tables");
	need(!dm_create("bad"), "a device");
	for (unsigned int i = 0; i < COUNT(bad_tables); i++) {
		const struct bad_table *bad = &bad_tables[i];
		char params[512], text[128] = "";
		unsigned int g;
		int err;

		expand(params, sizeof(params), bad->params);
		kmsg_mark();
		err = dm_load_one("bad", bad->sectors ?: SECTORS, bad->type, "%s", params);
		if (!ok(err && refusal(bad->type, text, sizeof(text)) && text[0],
			"%s '%s' is refused: %s", bad->type, bad->params, text))
			continue;
		for (g = 0; g < nr && strcmp(seen[g].group, bad->group); g++)
			;
		if (g < nr) {
			if (strcmp(seen[g].text, text))
				ok(false, "%s: one reason, one text: '%s', '%s'",
				   bad->group, seen[g].text, text);
			continue;
		}
		for (g = 0; g < nr; g++)
			if (!strcmp(seen[g].text, text))
				ok(false, "%s and %s: two reasons, two texts: '%s'",
				   bad->group, seen[g].group, text);
		seen[nr].group = bad->group;
		strcpy(seen[nr++].text, text);
	}
	ok(nr > 30, "%u different reasons", nr);
	ok_errno(dm_remove("bad"), 0, "the device without a table can be removed");
}

/* Refusals that need another live device, or more than one target. */
static void refused_beside_others(void)
{
	const char *dev[4] = { brd(0), brd(1), brd(2), brd(3) };
	char line[128], taken[128] = "", other[128] = "";
	struct dm_seg segs[2];

	section("tables beside others");
	snprintf(line, sizeof(line), "%s %s %s - 8", dev[0], dev[1], dev[2]);
	need(!dm_make("bad-live", SECTORS, "repl-secondary", "%s", line), "a view");
	need(!dm_create("bad"), "a device");
	kmsg_mark();
	ok_errno(dm_load_one("bad", SECTORS, "repl-secondary", "%s", line), EBUSY,
		 "a second repl-secondary on one secondary");
	ok(refusal("repl-secondary", taken, sizeof(taken)), "it says why: %s", taken);

	need(!dm_message("bad-live", "start"), "start");
	kmsg_mark();
	ok_errno(dm_load_one("bad-live", SECTORS, "repl-secondary", "%s %s %s - 8",
			     dev[0], dev[3], dev[2]), EBUSY,
		 "another hidden device while running");
	ok(refusal("repl-secondary", other, sizeof(other)), "it says why: %s", other);
	ok(strcmp(taken, other), "two reasons, two texts");
	ok_errno(dm_load_one("bad-live", SECTORS, "repl-secondary", "%s %s %s - 16",
			     dev[0], dev[1], dev[2]), EBUSY,
		 "another region size while running");
	ok_errno(dm_load_one("bad-live", SECTORS - 8, "repl-secondary", "%s", line), EBUSY,
		 "another length while running");
	ok_stage("bad-live", "running");
	ok_str(dm_table("bad-live"), "1:0 1:1 1:2 - 8", "the table is as it was");

	ok_errno(dm_remove("bad-live"), 0, "the view can be removed");
	segs[0] = (struct dm_seg){ 0, SECTORS, "repl-secondary", line };
	segs[1] = (struct dm_seg){ SECTORS, 8, "error", "" };
	ok_errno(dm_load("bad", segs, 2), EINVAL, "a target beside repl-secondary");
	segs[0].type = "repl-ingest";
	segs[0].params = dev[0];
	ok_errno(dm_load("bad", segs, 2), EINVAL, "a target beside repl-ingest");
	segs[0].type = "repl-primary";
	segs[0].params = line;
	snprintf(line, sizeof(line), "%s - - 8", dev[3]);
	ok_errno(dm_load("bad", segs, 2), EINVAL, "a target beside repl-primary");
	ok_errno(dm_load("bad", segs, 1), 0, "alone it is good");
	ok_errno(dm_remove("bad"), 0, "a device with a table that never was live");
}

/*
 * Random tables: a good line, changed in up to three places, against a parser
 * of our own.
 */

static const char *const words[] = {
	"$0", "$1", "$2", "$3", "$s", "1:0", "/dev/null", "/dev/nothing", "-", "8",
	"16", "8192", "7", "0", "4", "16384", "+8", "08", "8k", "1", "2",
	"sync", "async", "junk", "18446744073709551616", "--", "$0$1",
};

/* As kstrtouint(word, 10, ) reads it. */
static bool parse_uint(const char *word, uint64_t *n)
{
	*n = 0;
	word += *word == '+';
	if (!isdigit(*word))
		return false;
	for (; isdigit(*word); word++) {
		*n = *n * 10 + *word - '0';
		if (*n > UINT32_MAX)
			return false;
	}
	return !*word;
}

/* The number of the disk of SECTORS that a word names, or -1. */
static int disk_of(const char *word)
{
	if (!strncmp(word, "1:", 2) && word[2] >= '0' && word[2] < '4' && !word[3])
		return word[2] - '0';
	for (int i = 0; i < 4; i++)
		if (!strcmp(word, brd(i)))
			return i;
	return -1;
}

static bool good_region(const char *word)
{
	uint64_t n;

	return parse_uint(word, &n) && n >= 8 && n <= 8192 && !(n & (n - 1));
}

static bool good_table(const char *type, char **w, unsigned int nr)
{
	uint64_t features;

	if (!strcmp(type, "repl-ingest"))
		return nr == 1 && disk_of(w[0]) >= 0;
	if (!strcmp(type, "repl-primary"))
		return nr >= 4 && disk_of(w[0]) >= 0 &&
		       (!strcmp(w[1], "-") ||
			(disk_of(w[1]) >= 0 && disk_of(w[0]) != disk_of(w[1]))) &&
		       !strcmp(w[2], "-") && good_region(w[3]) &&
		       (nr == 4 ||
			(parse_uint(w[4], &features) && features == nr - 5 &&
			 (nr == 5 || (nr == 6 && (!strcmp(w[5], "sync") ||
						  !strcmp(w[5], "async"))))));
	return nr >= 5 && disk_of(w[0]) >= 0 && disk_of(w[1]) >= 0 &&
	       disk_of(w[2]) >= 0 && disk_of(w[0]) != disk_of(w[1]) &&
	       disk_of(w[0]) != disk_of(w[2]) && disk_of(w[1]) != disk_of(w[2]) &&
	       !strcmp(w[3], "-") && good_region(w[4]) &&
	       (nr == 5 || (nr == 6 && parse_uint(w[5], &features) && !features));
}

static void random_tables(unsigned int rounds)
{
	static const struct { const char *type, *words[8]; } starts[] = {
		{ "repl-secondary", { "$0", "$1", "$2", "-", "8" } },
		{ "repl-secondary", { "$0", "$1", "$2", "-", "8", "0" } },
		{ "repl-ingest", { "$0" } },
		{ "repl-primary", { "$0", "$1", "-", "8" } },
		{ "repl-primary", { "$0", "-", "-", "8", "1", "sync" } },
	};
	unsigned int good = 0, wrong = 0;

	section("random tables");
	need(!dm_create("bad"), "a device");
	for (unsigned int round = 0; round < rounds; round++) {
		unsigned int start = rnd_below(&seed, COUNT(starts)), nr = 0;
		char expanded[12][64], *w[12], line[1024] = "";
		const char *in[12];
		bool want;
		int err;

		while (nr < 8 && starts[start].words[nr]) {
			in[nr] = starts[start].words[nr];
			nr++;
		}
		for (unsigned int change = 1 + rnd_below(&seed, 4); change--; ) {
			unsigned int at = rnd_below(&seed, nr + 1);
			const char *word = words[rnd_below(&seed, COUNT(words))];

			switch (rnd_below(&seed, 4)) {
			case 0:		/* drop */
				if (at >= nr)
					break;
				nr--;
				memmove(in + at, in + at + 1, (nr - at) * sizeof(*in));
				break;
			case 1:		/* insert */
				if (nr == COUNT(in))
					break;
				memmove(in + at + 1, in + at, (nr - at) * sizeof(*in));
				in[at] = word;
				nr++;
				break;
			default:	/* replace */
				if (at < nr)
					in[at] = word;
			}
		}
		for (unsigned int i = 0; i < nr; i++) {
			expand(expanded[i], sizeof(expanded[i]), in[i]);
			w[i] = expanded[i];
			sprintf(line + strlen(line), "%s%s", i ? " " : "", w[i]);
		}
		/* What is on it decides, and that is not in the model. */
		if (!strcmp(starts[start].type, "repl-primary") && nr > 2 && strcmp(w[2], "-"))
			continue;
		want = good_table(starts[start].type, w, nr);
		err = dm_load_one("bad", SECTORS, starts[start].type, "%s", line);
		if (want != !err) {
			wrong++;
			ok(false, "%s '%s': %s, expected to be %s", starts[start].type,
			   line, err ? strerror(err) : "taken", want ? "taken" : "refused");
		}
		if (err)
			continue;
		good++;
		need(!dm_clear("bad"), "the table is dropped");
	}
	ok(!wrong, "%u random tables, of which %u are good: taken or refused as they must",
	   rounds, good);
	ok(good > rounds / 32 && good < rounds / 2, "enough of both");
	ok_errno(dm_remove("bad"), 0, "the device can be removed");
}

/*
 * Messages
 */

static struct repl_set set;

static unsigned int split(char *text, char **w, unsigned int max)
{
	unsigned int nr = 0;

	for (char *word; (word = strsep(&text, " ")); )
		if (*word && nr < max)
			w[nr++] = word;
	return nr;
}

static bool parse_u64(const char *word, uint64_t *n)
{
	*n = 0;
	word += *word == '+';
	if (!isdigit(*word))
		return false;
	for (; isdigit(*word); word++)
		if (__builtin_mul_overflow(*n, 10, n) ||
		    __builtin_add_overflow(*n, *word - '0', n))
			return false;
	return !*word;
}

static bool active(const struct repl_status *st)
{
	return !strcmp(st->job_state, "running") || !strcmp(st->job_state, "paused");
}

#define LINEAGE "6f1e7c1a-5a0d-4a52-9f0e-3c7d1b2a9e44"

/* Errors that refuse a checkpoint. */
static bool refuses(const struct repl_status *st)
{
	return strstr(st->errors, "cbw-") || strstr(st->errors, "secondary-write") ||
	       (strstr(st->errors, "flush") && strcmp(st->errors, "merge-flush"));
}

static int expect_job(const struct repl_status *st, char **w, unsigned int nr)
{
	uint64_t n;

	if (!strcmp(w[1], "speed"))
		return nr == 3 && parse_u64(w[2], &n) && n <= INT64_MAX / 1024 ? 0 : EINVAL;
	if (nr != 2)
		return EINVAL;
	if (!strcmp(w[1], "pause"))
		return strcmp(st->job_state, "running") ? EBUSY : 0;
	if (!strcmp(w[1], "resume"))
		return strcmp(st->job_state, "paused") ? EBUSY : 0;
	if (!strcmp(w[1], "cancel"))
		return !active(st) ? EBUSY : strcmp(st->job, "merge") ? 0 : EOPNOTSUPP;
	return EINVAL;
}

static int expect_fill(const struct repl_status *st, char **w, unsigned int nr)
{
	if (!strcmp(w[1], "dirty"))
		return nr == 3 ? EOPNOTSUPP : EINVAL;
	if (nr != 2 || (strcmp(w[1], "full") && strcmp(w[1], "top")))
		return EINVAL;
	return active(st) ? EBUSY : 0;
}

/* The errno of a message, by the documentation, from the status before it. */
static int expect(const struct repl_status *st, char **w, unsigned int nr)
{
	static const struct { const char *name, *stages; unsigned int min, max; bool prepared; }
	known[] = {
		{ "start", "none done", 1, 3, false },
		{ "demote", "none done", 1, 1, false },
		{ "checkpoint", "running", 1, 2, false },
		{ "checkpoint_prepare", "running", 2, 2, false },
		{ "checkpoint_commit", "running", 2, 2, true },
		{ "checkpoint_abort", "running", 2, 2, true },
		{ "stop", "running", 1, 1, false },
		{ "failover", "running", 1, 1, true },
		{ "retry", "failover-failed", 1, 1, false },
		{ "clear_error", NULL, 1, 1, true },
		{ "job", NULL, 2, 3, true },
		{ "fill", "running", 2, 3, false },
	};
	unsigned int i = 0;
	const char *at;
	uint64_t id;

	while (i < COUNT(known) && (!nr || strcmp(w[0], known[i].name)))
		i++;
	if (i == COUNT(known) || nr < known[i].min || nr > known[i].max)
		return EINVAL;
	if (known[i].stages) {
		at = strstr(known[i].stages, st->stage);
		if (!at || isalnum(at[strlen(st->stage)]) || at[strlen(st->stage)] == '-')
			return EBUSY;
	}
	if (st->is_prepared && !known[i].prepared)
		return EBUSY;
	if (!strcmp(w[0], "job"))
		return expect_job(st, w, nr);
	if (!strcmp(w[0], "fill"))
		return expect_fill(st, w, nr);
	if (!strncmp(w[0], "checkpoint_c", 12) || !strncmp(w[0], "checkpoint_a", 12)) {
		if (!parse_u64(w[1], &id))
			return EINVAL;
		return st->is_prepared && st->prepared == id ? 0 : EBUSY;
	}
	if (!strncmp(w[0], "checkpoint", 10)) {
		if (nr == 2 && (!parse_u64(w[1], &id) || id <= st->checkpoint))
			return EINVAL;
		return refuses(st) ? EIO : 0;
	}
	if (!strcmp(w[0], "start")) {
		if (nr >= 2 && (!parse_u64(w[1], &id) || id <= st->checkpoint))
			return EINVAL;
		if (nr == 3 && strcmp(w[2], LINEAGE))
			return EINVAL;
		return refuses(st) ? EIO : 0;
	}
	return 0;
}

/* What a message that was taken has to have done. */
static bool took_effect(const struct repl_status *was, const struct repl_status *is,
			char **w, unsigned int nr)
{
	uint64_t n = 0;

	if (nr > 1)
		parse_u64(w[strcmp(w[0], "start") ? nr - 1 : 1], &n);
	if (!strcmp(w[0], "start"))
		return !strcmp(is->stage, "running") &&
		       is->checkpoint == (nr > 1 ? n : was->checkpoint + 1);
	if (!strcmp(w[0], "demote"))
		return !strcmp(is->stage, "none") && is->checkpoint == was->checkpoint;
	if (!strcmp(w[0], "checkpoint"))
		return is->checkpoint == (nr == 2 ? n : was->checkpoint + 1) &&
		       !is->hidden && !is->active;
	if (!strcmp(w[0], "checkpoint_prepare"))
		return is->is_prepared && is->prepared == n &&
		       is->checkpoint == was->checkpoint;
	if (!strcmp(w[0], "checkpoint_commit"))
		return !is->is_prepared && is->checkpoint == n && !is->hidden && !is->active;
	if (!strcmp(w[0], "checkpoint_abort"))
		return !is->is_prepared && is->checkpoint == was->checkpoint;
	if (!strcmp(w[0], "stop"))
		return !strcmp(is->stage, "done") && !is->hidden && !is->active;
	if (!strcmp(w[0], "failover") || !strcmp(w[0], "retry"))
		return strcmp(is->stage, "running") && !is->is_prepared &&
		       !strcmp(is->job, "merge");
	if (!strcmp(w[0], "clear_error"))
		return !strcmp(is->errors, "-") || !strncmp(is->errors, "merge", 5);
	if (!strcmp(w[0], "job") && !strcmp(w[1], "speed"))
		return is->job_speed == n;
	if (!strcmp(w[0], "job") && !strcmp(w[1], "cancel"))
		return !strcmp(is->job_state, "cancelled");
	if (!strcmp(w[0], "fill"))
		return !strcmp(is->job, "fill");
	return true;
}

/* Nothing moves by itself any more: the job is over or held. */
static void settle(void)
{
	struct repl_status st;

	for (;;) {
		uint32_t nr = dm_event_nr(set.view);

		repl_status(set.view, &st);
		if (!strcmp(st.job_state, "running")) {
			dm_message(set.view, "job pause");
			continue;
		}
		if (!strcmp(st.stage, "failover") &&
		    (strcmp(st.job_state, "paused") || strstr(st.errors, "merge-"))) {
			/* The merge is over or fails, and the stage follows. */
			need(!dm_wait_event(set.view, nr), "an event");
			continue;
		}
		if (!st.ops)
			return;
	}
}

static unsigned int sent, taken, wrong;

static void send(const char *text)
{
	struct repl_status before, after;
	char copy[512], *w[16];
	unsigned int nr;
	int err, want;

	repl_status(set.view, &before);
	snprintf(copy, sizeof(copy), "%s", text);
	nr = split(copy, w, COUNT(w));
	want = expect(&before, w, nr);
	err = dm_message_text(set.view, text);
	sent++;
	if (err != want) {
		wrong++;
		ok_errno(err, want, "'%s' with '%s'", text, before.line);
	}
	if (err) {
		repl_status(set.view, &after);
		if (strcmp(before.line, after.line)) {
			wrong++;
			ok_str(after.line, before.line, "'%s' changes nothing", text);
		}
		return;
	}
	taken++;
	repl_status(set.view, &after);
	if (!took_effect(&before, &after, w, nr)) {
		wrong++;
		ok(false, "'%s' does what it says: '%s' before, '%s' after", text,
		   before.line, after.line);
	}
	settle();
}

/* Gives the maps something to hold, and now and then an error. */
static void disturb(void)
{
	struct repl_status st;
	bool fail = !rnd_below(&seed, 3);

	repl_status(set.view, &st);
	leg_heal(set.secondary);
	if (!strcmp(st.stage, "running") && !st.is_prepared) {
		io_fill(set.ingest_fd, 5 * REGION * SECTOR, REGION * SECTOR, rnd(&seed));
		io_fill(set.view_fd, 7 * REGION * SECTOR, REGION * SECTOR, rnd(&seed));
	}
	if (fail)
		leg_fail(set.secondary, 5 * REGION, REGION, LEG_WRITES);
	if (fail && !strcmp(st.stage, "running") && !st.is_prepared &&
	    !rnd_below(&seed, 3))
		io_fill(set.ingest_fd, 5 * REGION * SECTOR, REGION * SECTOR, 1);
}

static void fixed_messages(void)
{
	static const char *const texts[] = {
		"nonsense", "START", "Start", "star", "starts", "start start",
		"checkpoint x", "checkpoint 0", "checkpoint -1", "checkpoint 1 2",
		"checkpoint 18446744073709551616", "checkpoint 0x10",
		"checkpoint_prepare", "checkpoint_prepare x", "checkpoint_prepare 0",
		"checkpoint_prepare 1 2", "checkpoint_commit", "checkpoint_commit x",
		"checkpoint_commit 1", "checkpoint_abort", "checkpoint_abort x",
		"checkpoint_abort 1", "stop now", "failover now", "retry", "retry 1",
		"clear_error all", "job", "job x", "job pause", "job pause 1",
		"job resume", "job cancel", "job cancel x", "job speed", "job speed x",
		"job speed -1", "job speed 1 2", "job speed 9007199254740992",
		"job speed 18446744073709551616", "fill", "fill x", "fill full x",
		"fill top x", "fill dirty", "fill dirty a b", "fill dirty a", "@x",
		"checkpoint 1\xff", "a b c d e f g h i j",
	};

	for (unsigned int i = 0; i < COUNT(texts); i++)
		send(texts[i]);
}

/* $n: an id that may be next; $p: the prepared one. */
static const char *const good_messages[] = {
	"start", "start", "start $n", "start $n " LINEAGE, "demote", "checkpoint",
	"checkpoint $n", "checkpoint_prepare $n",
	"checkpoint_commit $p", "checkpoint_abort $p", "stop", "failover", "retry",
	"clear_error", "job pause", "job resume", "job cancel", "job speed 0",
	"job speed 5", "fill full", "fill top",
};

static void good_message(char *text, size_t size, const struct repl_status *st)
{
	const char *in = good_messages[rnd_below(&seed, COUNT(good_messages))];
	const char *id = strchr(in, '$');

	if (!id)
		snprintf(text, size, "%s", in);
	else
		snprintf(text, size, "%.*s%llu%s", (int)(id - in), in,
			 (unsigned long long)(id[1] == 'p' ? st->prepared :
					      st->checkpoint + 1 + rnd_below(&seed, 3)),
			 id + 2);
}

static void random_message(char *text, size_t size)
{
	static const char *const first[] = {
		"start", "checkpoint", "checkpoint", "checkpoint_prepare",
		"checkpoint_commit", "checkpoint_abort", "stop", "failover", "retry",
		"clear_error", "job", "job", "fill", "checkpoin", "jobs", "-", "demote",
	};
	static const char *const next[] = {
		"pause", "resume", "cancel", "speed", "full", "top", "dirty", "0", "1",
		"5", "x", "-1", "+3", "007", "18446744073709551616",
	};

	snprintf(text, size, "%s", first[rnd_below(&seed, COUNT(first))]);
	for (unsigned int more = rnd_below(&seed, 4); more; more--)
		snprintf(text + strlen(text), size - strlen(text), " %s",
			 next[rnd_below(&seed, COUNT(next))]);
}

static void random_messages(unsigned int rounds)
{
	static const char *const stages[] = {
		"none", "running", "failover", "failover-failed", "done",
	};
	bool met[COUNT(stages)] = { false }, prepared = false, refusing = false;
	bool all = !default_seed;
	char text[256];

	/*
	 * With the seed that is always run all is met; another may be out of luck. How
	 * far a merge gets between two messages is chance, and so how many it takes.
	 */
	for (unsigned int round = 0; round < rounds || (!all && round < 50 * rounds); round++) {
		struct repl_status st;

		if (!(round % 16))
			disturb();
		repl_status(set.view, &st);
		for (unsigned int i = 0; i < COUNT(stages); i++)
			met[i] |= !strcmp(st.stage, stages[i]);
		prepared |= st.is_prepared;
		refusing |= refuses(&st);
		all |= prepared && refusing && met[1] && met[2] && met[3] && met[4];
		if (rnd_below(&seed, 2))
			good_message(text, sizeof(text), &st);
		else
			random_message(text, sizeof(text));
		send(text);
	}
	if (!default_seed)
		return;
	for (unsigned int i = 1; i < COUNT(stages); i++)
		ok(met[i], "stage %s was met", stages[i]);
	ok(prepared && refusing, "so were a prepared checkpoint and errors that refuse one");
}

static void messages(void)
{
	static const char *const stages[] = {
		"none", "running", "prepared", "failover", "failover-failed", "done",
	};

	section("messages");
	for (unsigned int i = 0; i < COUNT(stages); i++) {
		struct repl_status st;

		set_make(&set, "bad", SECTORS, REGION, brd(0), brd(1), brd(2));
		if (i) {
			need(!dm_message(set.view, "start"), "start");
			need(!io_fill(set.ingest_fd, 5 * REGION * SECTOR,
				      REGION * SECTOR, 0x11), "a write");
		}
		if (i == 2)
			need(!dm_message(set.view, "checkpoint_prepare 9"), "prepare");
		if (i == 4)
			leg_fail(set.secondary, 5 * REGION, REGION, LEG_WRITES);
		if (i == 3)	/* More than one piece, and time for one only. */
			need(!io_fill(set.view_fd, 0, SIZE, 0x22) &&
			     !dm_message(set.view, "job speed 1"), "a long merge");
		if (i >= 3)
			need(!dm_message(set.view, "failover"), "failover");
		if (i >= 4)
			need(wait_stage(set.view, stages[i]), "stage %s", stages[i]);
		settle();
		sent = wrong = 0;
		fixed_messages();
		if (i == 4) {	/* A retry was taken, and may have been held. */
			dm_message(set.view, "job resume");
			need(wait_stage(set.view, stages[i]), "it fails again");
		}
		ok(!wrong, "%s: %u messages get the errno they must, and those refused change nothing",
		   stages[i], sent);
		repl_status(set.view, &st);
		ok_str(st.stage, i == 2 ? "running" : stages[i], "the stage is as it was");
		set_remove(&set);
	}
}

static void many_messages(unsigned int rounds)
{
	section("random messages");
	set_make(&set, "bad", SECTORS, REGION, brd(0), brd(1), brd(2));
	/* Begins in the stage that it would meet only if a merge is slow enough. */
	need(!dm_message(set.view, "start") &&
	     !io_fill(set.ingest_fd, 5 * REGION * SECTOR, REGION * SECTOR, 0x11), "a write");
	leg_fail(set.secondary, 5 * REGION, REGION, LEG_WRITES);
	need(!dm_message(set.view, "failover") && wait_stage(set.view, "failover-failed"),
	     "stage failover-failed");
	settle();
	sent = taken = wrong = 0;
	random_messages(rounds);
	ok(!wrong, "%u random messages, of which %u were taken: each with the errno it must",
	   sent, taken);
	ok(taken > rounds / 16 && taken < rounds * 3 / 4, "enough of both");
	set_remove(&set);
}

static void ingest_messages(void)
{
	char before[256];

	section("messages to repl-ingest");
	need(!dm_make("bad", SECTORS, "repl-ingest", "%s", brd(0)), "an ingest");
	snprintf(before, sizeof(before), "%s", dm_status("bad"));
	ok_str(before, "ingest none unbound open", "it is unbound");
	ok_errno(dm_message("bad", "start"), EINVAL, "start");
	ok_errno(dm_message("bad", "nonsense"), EINVAL, "nonsense");
	ok_str(dm_status("bad"), before, "nothing has changed");
	ok_errno(dm_remove("bad"), 0, "it can be removed");
}

static int expect_cut(const struct repl_primary_status *st, char **w, unsigned int nr)
{
	bool cut = strcmp(st->cut, "-");
	uint64_t id;

	if (nr != 2 || !parse_u64(w[1], &id) || !id)
		return EINVAL;
	if (!strcmp(w[0], "cut"))
		return cut || strcmp(st->peer, "attached") || st->dirty ? EBUSY : 0;
	if (!cut || strtoull(st->cut, NULL, 10) != id)
		return EINVAL;
	return !strcmp(w[0], "drain") && strstr(st->cut, ":broken") ? EIO : 0;
}

/* The errno of a message to repl-primary; -1: any but success. */
static int expect_primary(const struct repl_primary_status *st, char **w, unsigned int nr)
{
	static const char *const cuts[] = { "cut", "drain", "release", "abort" };

	for (unsigned int i = 0; nr && i < COUNT(cuts); i++)
		if (!strcmp(w[0], cuts[i]))
			return expect_cut(st, w, nr);
	if (nr == 2 && !strcmp(w[0], "attach")) {
		if (!strcmp(st->peer, "attached"))
			return EBUSY;
		return disk_of(w[1]) > 0 ? 0 : -1;	/* disk 0 is local */
	}
	if (nr == 1 && !strcmp(w[0], "detach"))
		return strcmp(st->peer, "attached") ? EBUSY : 0;
	return EINVAL;
}

static void primary_messages(unsigned int rounds)
{
	static const char *const first[] = {
		"attach", "attach", "attach", "detach", "cut", "cut", "drain", "release",
		"abort", "push", "job", "dirty", "attac", "Detach",
	};
	unsigned int nr_taken = 0, bad = 0;

	section("messages to repl-primary");
	need(!dm_make("bad", SECTORS, "repl-primary", "%s - - 8", brd(0)), "a primary");
	for (unsigned int round = 0; round < rounds; round++) {
		struct repl_primary_status before, after;
		char text[256], copy[256], *w[8];
		int err, want;

		if (rnd_below(&seed, 2))
			snprintf(text, sizeof(text), "%s", rnd_below(&seed, 2) ? "detach" :
				 rnd_below(&seed, 3) ? "attach /dev/ram1" :
				 rnd_below(&seed, 2) ? "attach 1:2" : "cut 8");
		else
			snprintf(text, sizeof(text), "%s",
				 first[rnd_below(&seed, COUNT(first))]);
		for (unsigned int more = strchr(text, ' ') ? 0 : rnd_below(&seed, 8) / 3; more; more--) {
			char word[64];

			expand(word, sizeof(word), words[rnd_below(&seed, COUNT(words))]);
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s", word);
		}
		strcpy(copy, text);
		repl_primary_status("bad", &before);
		want = expect_primary(&before, w, split(copy, w, COUNT(w)));
		err = dm_message_text("bad", text);
		if (want < 0 ? !err || err == EBUSY : err != want) {
			bad++;
			ok_errno(err, want, "'%s' with '%s'", text, before.line);
		}
		repl_primary_status("bad", &after);
		if (err && strcmp(before.line, after.line)) {
			bad++;
			ok_str(after.line, before.line, "'%s' changes nothing", text);
		}
		nr_taken += !err;
	}
	ok(!bad, "%u random messages, of which %u were taken: each with the errno it must",
	   rounds, nr_taken);
	ok(nr_taken > rounds / 16, "enough were taken");
	ok_errno(dm_remove("bad"), 0, "it can be removed");
}

int main(int argc, char **argv)
{
	watchdog(580);
	default_seed = argc < 2;
	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 20;
	note("seed %llu", (unsigned long long)seed);
	console_quiet();
	brd_load(4, SIZE);
	at_end(backing_remove_all);
	at_end(dm_remove_all);
	big_blocks = nullb_make("replbig", SIZE, 4096, false, false);
	need(!dm_make("bad-short", SECTORS - 8, "linear", "%s 0", brd(3)), "a short device");

	refused_tables();
	ok_errno(dm_remove("bad-short"), 0, "a device that was refused is free");
	refused_beside_others();
	need(!dm_make("bad-short", SECTORS - 8, "linear", "%s 0", big_blocks),
	     "a short device");
	random_tables(2000);
	messages();
	many_messages(4000);
	ingest_messages();
	primary_messages(600);
	return tap_end();
}

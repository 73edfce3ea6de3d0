// SPDX-License-Identifier: GPL-2.0-only
/* Dirty: the module's answers about dirty maps, as ranges, as text and as JSON. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <json.h>

#include "dirty.h"
#include "dm.h"

static struct repl_error error;

/*
 * ---- The module: a volume with a map of 3 ranges, in answers of one each ----
 */

static unsigned int asked;

int __wrap_dm_message(const char *name, const char *message, char *answer, size_t size,
		      struct repl_error *e);
int __wrap_dm_info(const char *name, struct repl_dm_info *info, struct repl_error *e);

int __wrap_dm_message(const char *name, const char *message, char *answer, size_t size,
		      struct repl_error *e)
{
	static const char * const pages[] = {
		"0 8\nmore 64\n", "64 128\nmore 4000\n", "4000 8\nend\n",
	};
	static const int from[] = { 0, 64, 4000 };

	if (!strcmp(message, "dirty list")) {
		snprintf(answer, size, "%s", strcmp(name, "r-b") ?
			 "peer 128 enabled 3 -\ncheckpoint 128 enabled 0 2\nmine 8 disabled 9999 -\n" :
			 "peer 128 enabled 0 -");
		return 0;
	}
	if (!strncmp(message, "dirty extents peer ", 19)) {
		snprintf(answer, size, "end\n");
		return 0;
	}
	assert_int_equal(strncmp(message, "dirty extents mine ", 19), 0);
	assert_int_equal(atoi(message + 19), from[asked]);
	snprintf(answer, size, "%s", pages[asked++]);
	return 0;
}

int __wrap_dm_info(const char *name, struct repl_dm_info *info, struct repl_error *e)
{
	*info = (struct repl_dm_info){ .exists = true, .sectors = 4096 };
	return 0;
}

/*
 * ---- Parsers ----
 */

static void maps(void **state)
{
	struct repl_dirty_map map;

	assert_int_equal(dirty_map_parse("peer 128 enabled 7 -", &map, &error), 0);
	assert_string_equal(map.name, "peer");
	assert_int_equal(map.granularity, 128);
	assert_true(map.is_enabled);
	assert_int_equal(map.bits, 7);
	assert_false(map.is_frozen);
	assert_int_equal(dirty_map_parse("my.backup-1 8 disabled 0 12", &map, &error), 0);
	assert_false(map.is_enabled);
	assert_true(map.is_frozen);
	assert_int_equal(map.frozen, 12);
	/* Frozen with nothing in it is frozen all the same. */
	assert_int_equal(dirty_map_parse("a 8 enabled 0 0", &map, &error), 0);
	assert_true(map.is_frozen);
}

static void bad_maps(void **state)
{
	static const char * const lines[] = {
		"", "peer", "peer 128 enabled 7", "peer 128 enabled 7 - 1", "peer 0 enabled 7 -",
		"peer 128 perhaps 7 -", "peer x enabled 7 -", "peer 128 enabled -7 -",
		"peer 128 enabled 7 x", "peer 128 enabled 99999999999999999999 -",
		"a-name-that-no-map-can-have-for-it-is-too-long 8 enabled 0 -",
	};
	struct repl_dirty_map map;

	for (unsigned int i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(dirty_map_parse(lines[i], &map, &error), -1);
		assert_non_null(strstr(error.text, "not understood"));
	}
}

static uint64_t sum, calls;

static void add(const struct repl_range *range, void *context)
{
	assert_ptr_equal(context, &sum);
	sum += range->sector * 1000 + range->sectors;
	calls++;
}

static int extents(const char *text, uint64_t from, uint64_t *more)
{
	char answer[256];

	sum = 0;
	calls = 0;
	snprintf(answer, sizeof(answer), "%s", text);
	return dirty_extents_parse(answer, from, add, &sum, more, &error);
}

static void answers(void **state)
{
	uint64_t more = 5;

	assert_int_equal(extents("end\n", 0, &more), 0);
	assert_int_equal(more, 0);
	assert_int_equal(calls, 0);
	assert_int_equal(extents("0 8\n16 8\nmore 24\n", 0, &more), 0);
	assert_int_equal(more, 24);
	assert_int_equal(calls, 2);
	assert_int_equal(sum, 16016);
	/* (dmsetup takes the last newline off, and somebody else may, too.) */
	assert_int_equal(extents("32 8\nend", 24, &more), 0);
	assert_int_equal(more, 0);
	assert_int_equal(extents("more 24", 0, &more), 0);
	assert_int_equal(calls, 0);
}

static void bad_answers(void **state)
{
	static const char * const texts[] = {
		"", "0 8\n", "0 8\n16", "0 8\n16 8 8\nend\n", "0 0\nend\n", "x 8\nend\n",
		"0 8\nmore\n", "0 8\nmore x\n", "16 8\n8 8\nend\n", "0 8\n4 8\nend\n",
		"18446744073709551615 8\nend\n", "more 0\n", "0 8\nmore 4\n", "ending\n",
	};
	uint64_t more;

	for (unsigned int i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (!extents(texts[i], 0, &more))
			fail_msg("'%s' was taken", texts[i]);
		assert_non_null(strstr(error.text, "not understood"));
	}
	/* Or it would be asked for ever. */
	assert_int_equal(extents("more 8\n", 8, &more), -1);
}

/*
 * ---- What is printed ----
 */

static char resource_name[] = "r", a[] = "a", b[] = "b";
static struct repl_volume volumes[] = { { .name = a }, { .name = b } };
static struct repl_config config = { .name = resource_name, .volumes = 2, .volume = volumes };

static const struct repl_resource resource = { .config = &config };

/* @map: NULL: the maps. The text is the caller's. */
static char *printed(const char *map, bool json, int expect)
{
	size_t size;
	char *text;
	FILE *to = open_memstream(&text, &size);

	asked = 0;
	assert_int_equal(map ? dirty_print_extents(&resource, map, json, to, &error) :
			       dirty_print_maps(&resource, json, to, &error), expect);
	fclose(to);
	return text;
}

static void list(void **state)
{
	char *text = printed(NULL, false, 0);

	assert_non_null(strstr(text, "a               peer            64 KiB      enabled   192 KiB      -\n"));
	assert_non_null(strstr(text, "a               checkpoint      64 KiB      enabled   0 bytes      128 KiB\n"));
	/* No more than the volume has. */
	assert_non_null(strstr(text, "a               mine            4 KiB       disabled  2 MiB        -\n"));
	assert_non_null(strstr(text, "b               peer "));
	free(text);
	text = printed(NULL, true, 0);
	assert_string_equal(text,
		"{\"schema\":1,\"resource\":\"r\",\"volumes\":["
		"{\"volume\":\"a\",\"device\":\"r-a\",\"maps\":["
		"{\"map\":\"peer\",\"granularity_bytes\":65536,\"enabled\":true,\"dirty_bytes\":196608,\"frozen\":false,\"frozen_bytes\":null},"
		"{\"map\":\"checkpoint\",\"granularity_bytes\":65536,\"enabled\":true,\"dirty_bytes\":0,\"frozen\":true,\"frozen_bytes\":131072},"
		"{\"map\":\"mine\",\"granularity_bytes\":4096,\"enabled\":false,\"dirty_bytes\":2097152,\"frozen\":false,\"frozen_bytes\":null}]},"
		"{\"volume\":\"b\",\"device\":\"r-b\",\"maps\":["
		"{\"map\":\"peer\",\"granularity_bytes\":65536,\"enabled\":true,\"dirty_bytes\":0,\"frozen\":false,\"frozen_bytes\":null}]}]}\n");
	free(text);
}

static void ranges(void **state)
{
	struct json_object *o;
	char *text = printed("mine", false, 0);

	assert_string_equal(text, "a 0 8\na 64 128\na 4000 8\n");
	assert_int_equal(asked, 3);
	free(text);
	text = printed("mine", true, 0);
	assert_string_equal(text,
		"{\"schema\":1,\"resource\":\"r\",\"map\":\"mine\",\"volumes\":["
		"{\"volume\":\"a\",\"device\":\"r-a\",\"extents\":["
		"{\"sector\":0,\"sectors\":8},{\"sector\":64,\"sectors\":128},"
		"{\"sector\":4000,\"sectors\":8}]}]}\n");
	free(text);
	text = printed("peer", true, 0);
	o = json_tokener_parse(text);
	assert_non_null(o);
	json_object_put(o);
	assert_non_null(strstr(text, "\"device\":\"r-b\",\"extents\":[]"));
	free(text);
	text = printed("nobody's", true, -1);
	assert_string_equal(text, "");
	assert_string_equal(error.text, "no volume has a map 'nobody's'");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps),
		cmocka_unit_test(bad_maps),
		cmocka_unit_test(answers),
		cmocka_unit_test(bad_answers),
		cmocka_unit_test(list),
		cmocka_unit_test(ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

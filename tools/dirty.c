// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdlib.h>
#include <string.h>

#include "dirty.h"
#include "dm.h"
#include "image.h"

#define SECTOR 512u
#define ANSWER_SIZE 32768		/* of ranges */
#define ANSWER_LIST 8192		/* of maps, of which there are 34 at most */

/*
 * ---- Answers of the kernel ----
 */

static int not_understood(const char *line, struct repl_error *error)
{
	return error_set(error, REPL_EXIT_FAILED,
			 "the module's answer is not understood: '%.100s'; do module and replctl belong together?",
			 line);
}

/* Digits only, and one that fits. */
static bool to_number(const char *word, uint64_t *n)
{
	char *end;

	errno = 0;
	*n = strtoull(word, &end, 10);
	return *word >= '0' && *word <= '9' && !*end && !errno;
}

int dirty_map_parse(const char *line, struct repl_dirty_map *map, struct repl_error *error)
{
	char granularity[24], enabled[16], bits[24], frozen[24], more;

	memset(map, 0, sizeof(*map));
	if (sscanf(line, "%31s %23s %15s %23s %23s %c", map->name, granularity, enabled, bits,
		   frozen, &more) != 5)
		return not_understood(line, error);
	map->is_enabled = !strcmp(enabled, "enabled");
	map->is_frozen = strcmp(frozen, "-");
	if ((!map->is_enabled && strcmp(enabled, "disabled")) ||
	    !to_number(granularity, &map->granularity) || !map->granularity ||
	    !to_number(bits, &map->bits) ||
	    (map->is_frozen && !to_number(frozen, &map->frozen)))
		return not_understood(line, error);
	return 0;
}

int dirty_extents_parse(char *answer, uint64_t from, dirty_range_fn *fn, void *context,
			uint64_t *more, struct repl_error *error)
{
	uint64_t at = from;
	char *line, *rest;

	*more = 0;
	for (line = strtok_r(answer, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char a[24], b[24], word;
		struct repl_range range;

		if (!strcmp(line, "end"))
			return 0;
		if (sscanf(line, "%23s %23s %c", a, b, &word) != 2)
			return not_understood(line, error);
		if (!strcmp(a, "more")) {
			/* Or we would ask for ever. */
			if (!to_number(b, more) || *more <= from || *more < at)
				return not_understood(line, error);
			return 0;
		}
		if (!to_number(a, &range.sector) || !to_number(b, &range.sectors) ||
		    !range.sectors || range.sector < at ||
		    __builtin_add_overflow(range.sector, range.sectors, &at))
			return not_understood(line, error);
		fn(&range, context);
	}
	return not_understood("it has no end", error);
}

int dirty_extents(const char *name, const char *map, dirty_range_fn *fn, void *context,
		  struct repl_error *error)
{
	char message[128], *answer;
	uint64_t from, more = 0;
	int r;

	answer = malloc(ANSWER_SIZE);
	if (!answer)
		return error_set(error, REPL_EXIT_FAILED, "out of memory");
	do {
		from = more;
		snprintf(message, sizeof(message), "dirty extents %.31s %" PRIu64, map, from);
		r = dm_message(name, message, answer, ANSWER_SIZE, error);
		if (!r)
			r = dirty_extents_parse(answer, from, fn, context, &more, error);
	} while (!r && more);
	free(answer);
	return r;
}

/*
 * ---- For people and programs ----
 */

/* In bytes; the last bit may stand for less, at the device's end. */
static uint64_t bytes(const struct repl_dirty_map *map, uint64_t bits, uint64_t sectors)
{
	uint64_t n;

	if (__builtin_mul_overflow(bits, map->granularity, &n) || n > sectors)
		n = sectors;
	return n * SECTOR;
}

static void print_map(const char *volume, const struct repl_dirty_map *map, uint64_t sectors,
		      FILE *to)
{
	char granularity[IMAGE_SIZE_TEXT], dirty[IMAGE_SIZE_TEXT], frozen[IMAGE_SIZE_TEXT];

	image_size_text(map->granularity * SECTOR, granularity);
	image_size_text(bytes(map, map->bits, sectors), dirty);
	image_size_text(bytes(map, map->frozen, sectors), frozen);
	fprintf(to, "%-15s %-15s %-11s %-9s %-12s %s\n", volume, map->name, granularity,
		map->is_enabled ? "enabled" : "disabled", dirty, map->is_frozen ? frozen : "-");
}

static struct json_object *json_map(const struct repl_dirty_map *map, uint64_t sectors)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "map", json_object_new_string(map->name));
	json_object_object_add(o, "granularity_bytes",
			       json_object_new_uint64(map->granularity * SECTOR));
	json_object_object_add(o, "enabled", json_object_new_boolean(map->is_enabled));
	json_object_object_add(o, "dirty_bytes",
			       json_object_new_uint64(bytes(map, map->bits, sectors)));
	json_object_object_add(o, "frozen", json_object_new_boolean(map->is_frozen));
	json_object_object_add(o, "frozen_bytes", map->is_frozen ?
			       json_object_new_uint64(bytes(map, map->frozen, sectors)) : NULL);
	return o;
}

/* @maps: NULL: as text, to @to */
static int volume_maps(const char *volume, const char *name, struct json_object *maps, FILE *to,
		       struct repl_error *error)
{
	char answer[ANSWER_LIST], *line, *rest;
	struct repl_dirty_map map;
	struct repl_dm_info info;

	if (dm_info(name, &info, error) ||
	    dm_message(name, "dirty list", answer, sizeof(answer), error))
		return -1;
	for (line = strtok_r(answer, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (dirty_map_parse(line, &map, error))
			return -1;
		if (maps)
			json_object_array_add(maps, json_map(&map, info.sectors));
		else
			print_map(volume, &map, info.sectors, to);
	}
	return 0;
}

int dirty_print_maps(const struct repl_resource *resource, bool json, FILE *to,
		     struct repl_error *error)
{
	struct json_object *all = json_object_new_object(), *volumes = json_object_new_array();
	const struct repl_config *config = resource->config;
	int r = 0;

	json_object_object_add(all, "schema", json_object_new_int(1));
	json_object_object_add(all, "resource", json_object_new_string(config->name));
	json_object_object_add(all, "volumes", volumes);
	if (!json)
		fprintf(to, "%-15s %-15s %-11s %-9s %-12s %s\n", "volume", "map", "granularity",
			"state", "dirty", "frozen");
	for (unsigned int i = 0; i < config->volumes && !r; i++) {
		struct json_object *o = json_object_new_object(), *maps = json_object_new_array();
		char name[128];

		resource_device(resource, i, false, name, sizeof(name));
		json_object_object_add(o, "volume", json_object_new_string(config->volume[i].name));
		json_object_object_add(o, "device", json_object_new_string(name));
		json_object_object_add(o, "maps", maps);
		json_object_array_add(volumes, o);
		r = volume_maps(config->volume[i].name, name, json ? maps : NULL, to, error);
		if (r)
			error_wrap(error, "volume %s", config->volume[i].name);
	}
	if (json && !r)
		fprintf(to, "%s\n", json_object_to_json_string_ext(all,
			JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(all);
	return r;
}

/* There may be more of them than fit into memory: they are printed as they come. */
struct printer {
	FILE *to;
	bool json;
	const char *volume;
	uint64_t nr;
};

static void print_range(const struct repl_range *range, void *context)
{
	struct printer *p = context;

	if (p->json)
		fprintf(p->to, "%s{\"sector\":%" PRIu64 ",\"sectors\":%" PRIu64 "}",
			p->nr ? "," : "", range->sector, range->sectors);
	else
		fprintf(p->to, "%s %" PRIu64 " %" PRIu64 "\n", p->volume, range->sector,
			range->sectors);
	p->nr++;
}

int dirty_find_map(const char *name, const char *map, struct repl_dirty_map *found,
		   struct repl_error *error)
{
	char answer[ANSWER_LIST], *line, *rest;

	if (dm_message(name, "dirty list", answer, sizeof(answer), error))
		return -1;
	for (line = strtok_r(answer, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (dirty_map_parse(line, found, error))
			return -1;
		if (!strcmp(found->name, map))
			return 1;
	}
	return 0;
}

static int volume_extents(const char *volume, const char *name, const char *map, bool json,
			  FILE *to, struct repl_error *error)
{
	struct printer p = { .to = to, .json = json, .volume = volume };

	if (json)
		fprintf(to, "{\"volume\":\"%s\",\"device\":\"%s\",\"extents\":[", volume, name);
	if (dirty_extents(name, map, print_range, &p, error))
		return -1;
	if (json)
		fputs("]}", to);
	return 0;
}

/* Names need no quoting: the configuration and the module allow letters and the like. */
int dirty_print_extents(const struct repl_resource *resource, const char *map, bool json,
			FILE *to, struct repl_error *error)
{
	const struct repl_config *config = resource->config;
	unsigned int found = 0;

	for (unsigned int i = 0; i < config->volumes; i++) {
		const char *volume = config->volume[i].name;
		struct repl_dirty_map is;
		char name[128];
		int r;

		resource_device(resource, i, false, name, sizeof(name));
		r = dirty_find_map(name, map, &is, error);
		if (r > 0 && json && !found)
			fprintf(to, "{\"schema\":1,\"resource\":\"%s\",\"map\":\"%s\",\"volumes\":[",
				config->name, map);
		else if (r > 0 && json)
			fputs(",", to);
		if (r < 0 || (r && volume_extents(volume, name, map, json, to, error)))
			return error_wrap(error, "volume %s", volume);
		found += r;
	}
	if (!found)
		return error_set(error, REPL_EXIT_FAILED, "no volume has a map '%.40s'", map);
	if (json)
		fputs("]}\n", to);
	return 0;
}

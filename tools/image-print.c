// SPDX-License-Identifier: GPL-2.0-only
/* Image, in words and as JSON: see image.h. */
#include <inttypes.h>
#include <json.h>
#include <string.h>
#include <time.h>

#include "image.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define SCHEMA 1

static const char *const levels[] = { "note", "warning", "error" };
static const char *const stages[] = { "none", "running", "failover", "done" };
static const char *const roles[] = { "none", "secondary", "primary" };
static const char *const ops[] = { "hidden", "active", "merged", "dirty", "clean" };
static const char *const slots[] = {
	[IMAGE_BLANK] = "blank", [IMAGE_LIVE] = "live", [IMAGE_REFUSED] = "refused",
	[IMAGE_OLD] = "old", [IMAGE_STALE] = "stale", [IMAGE_ORPHAN] = "orphan",
	[IMAGE_MISPLACED] = "misplaced", [IMAGE_DAMAGED] = "damaged",
	[IMAGE_OTHERS] = "others", [IMAGE_FOREIGN] = "foreign",
	[IMAGE_UNREADABLE] = "unreadable",
};
static const char *const dirs[] = {
	[IMAGE_DIR_BLANK] = "blank", [IMAGE_DIR_GOOD] = "good",
	[IMAGE_DIR_DAMAGED] = "damaged", [IMAGE_DIR_INSANE] = "insane",
	[IMAGE_DIR_FOREIGN] = "foreign", [IMAGE_DIR_UNREADABLE] = "unreadable",
};
/* Bits of repl_disk_state.errors. */
static const char *const errors[] = {
	"cbw-read", "cbw-write", "secondary-write", "flush", "view-read", "view-write",
	"merge-read", "merge-write", "merge-flush", "metadata",
};

void image_size_text(uint64_t bytes, char *text)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int unit = 0;
	double value = bytes;

	for (; value >= 1024 && unit < 6; unit++)
		value /= 1024;
	snprintf(text, IMAGE_SIZE_TEXT, value == (uint64_t)value ? "%.0f %s" : "%.1f %s", value,
		 units[unit]);
}

void image_uuid_text(const uint8_t *uuid, char *text)
{
	unsigned int i;

	for (i = 0; i < REPL_UUID_SIZE; i++)
		text += sprintf(text, "%02x%s", uuid[i],
				i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
}

static void time_text(uint64_t seconds, char *text, size_t size)
{
	time_t t = seconds;
	struct tm tm;

	if (!seconds || t < 0 || (uint64_t)t != seconds || !gmtime_r(&t, &tm) ||
	    !strftime(text, size, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(text, size, "unknown");
}

/*
 * ---- JSON ----
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

static void add_bool(struct json_object *to, const char *key, bool value)
{
	add(to, key, json_object_new_boolean(value));
}

/* Not as a number: those lose bits in most readers of JSON. */
static void add_link(struct json_object *to, const char *key, uint64_t link)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, link);
	add_string(to, key, text);
}

static void add_uuid(struct json_object *to, const char *key, const uint8_t *uuid)
{
	char text[IMAGE_UUID_TEXT];

	image_uuid_text(uuid, text);
	add_string(to, key, text);
}

static bool is_uuid(const uint8_t *uuid)
{
	static const uint8_t none[REPL_UUID_SIZE];

	return memcmp(uuid, none, REPL_UUID_SIZE);
}

/* Whose data it is. null: that is not known, or it has no parent. */
static void identity_json(const struct repl_identity *id, struct json_object *to)
{
	bool parent = is_uuid(id->parent);

	add_string(to, "role", roles[id->role]);
	if (is_uuid(id->lineage))
		add_uuid(to, "lineage", id->lineage);
	else
		add(to, "lineage", NULL);
	if (parent)
		add_uuid(to, "parent", id->parent);
	else
		add(to, "parent", NULL);
	add(to, "parent_checkpoint", parent ? json_object_new_uint64(id->parent_checkpoint) :
					      NULL);
}

static void put(struct json_object *object, const char *before, const char *after, FILE *to)
{
	fprintf(to, "%s%s%s", before,
		json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN |
					       JSON_C_TO_STRING_NOSLASHESCAPE), after);
	json_object_put(object);
}

static struct json_object *state_json(const struct repl_meta_state *state)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	unsigned int i;

	add_number(o, "checkpoint", state->checkpoint);
	add(o, "prepared", state->flags & REPL_STATE_PREPARED ?
	    json_object_new_uint64(state->prepared) : NULL);
	add_string(o, "stage", stages[state->stage]);
	add_bool(o, "fenced", state->flags & REPL_STATE_FENCED);
	identity_json(&state->identity, o);
	for (i = 0; i < 32; i++)
		if (state->errors >> i & 1)
			json_object_array_add(list, i < ARRAY_SIZE(errors) ?
					      json_object_new_string(errors[i]) :
					      json_object_new_uint64(i));
	add(o, "errors", list);
	return o;
}

static struct json_object *super_json(const struct image *image, unsigned int nr)
{
	const struct image_super *super = &image->super[nr];
	const struct repl_meta *meta = &super->meta;
	struct json_object *o = json_object_new_object();

	add_number(o, "block", nr);
	add_bool(o, "good", !super->status);
	add_string(o, "why", super->status ? super->why : NULL);
	add_bool(o, "current", !image->load && image->current == nr);
	if (super->status)
		return o;
	add_number(o, "version", super->version);
	add_number(o, "compatible", super->compatible);
	add_number(o, "incompatible", super->incompatible);
	add_number(o, "generation", meta->generation);
	add(o, "area", meta->area == REPL_NO_AREA ? NULL : json_object_new_uint64(meta->area));
	add_number(o, "area_generation", meta->area_generation);
	add_number(o, "tail", meta->tail);
	add_link(o, "tail_prev", meta->tail_prev);
	add(o, "state", state_json(&meta->state));
	return o;
}

static void layout_json(const struct repl_layout *layout, struct json_object *to)
{
	struct json_object *o = json_object_new_object();

	add_number(to, "size_bytes", layout->sectors * 512);
	add_number(to, "region_size_bytes", (uint64_t)layout->region_size * 512);
	add_number(to, "regions", layout->nr_regions);
	add_number(to, "metadata_bytes", layout->blocks * REPL_BLOCK_SIZE);
	add_number(o, "block_bytes", REPL_BLOCK_SIZE);
	add_number(o, "area_0", layout->area_start[0]);
	add_number(o, "area_1", layout->area_start[1]);
	add_number(o, "area_blocks", layout->area_blocks);
	add_number(o, "summary_blocks", layout->summary_blocks);
	add_number(o, "map_blocks", layout->map_blocks);
	add_number(o, "log", layout->log_start);
	add_number(o, "log_blocks", layout->log_blocks);
	add(to, "layout", o);
}

static struct json_object *map_json(const struct image_map *map)
{
	struct json_object *o = json_object_new_object();

	add_string(o, "name", map->name);
	add_number(o, "granularity_bytes", map->granularity);
	add_bool(o, "enabled", map->enabled);
	add_number(o, "block", map->start);
	add_number(o, "blocks", map->blocks);
	add_number(o, "bits", map->bits);
	add_number(o, "bits_set", map->set);
	add_number(o, "damaged_blocks", map->damaged + map->unreadable);
	return o;
}

/* null: nothing is kept, since there is no room. */
static struct json_object *kept_json(const struct image *image)
{
	const struct image_kept *kept = &image->kept;
	struct json_object *o, *list;
	unsigned int i;

	if (kept->room < 2)
		return NULL;
	o = json_object_new_object();
	list = json_object_new_array();
	for (i = 0; i < 2; i++)
		json_object_array_add(list, json_object_new_string(dirs[kept->dirs[i]]));
	add(o, "directories", list);
	add_number(o, "block", image->meta.layout.blocks);
	add_number(o, "room_bytes", (kept->room - 2) * REPL_BLOCK_SIZE);
	add(o, "current", kept->good ? json_object_new_uint64(kept->current) : NULL);
	list = json_object_new_array();
	add(o, "maps", list);
	if (!kept->good)
		return o;
	add_number(o, "generation", kept->generation);
	add_bool(o, "clean", kept->flags & REPL_KEPT_CLEAN);
	add_bool(o, "all", kept->flags & REPL_KEPT_ALL);
	add_number(o, "next", kept->next);
	add(o, "clean_holds", image_usable(image) ? json_object_new_boolean(kept->exact) : NULL);
	add_bool(o, "all_set", kept->all);
	for (i = 0; i < kept->nr; i++)
		json_object_array_add(list, map_json(&kept->maps[i]));
	return o;
}

/* What both verbs begin with. */
static struct json_object *head_json(const struct image *image, const char *name)
{
	struct json_object *o = json_object_new_object();
	bool usable = image_usable(image);

	add_number(o, "schema", SCHEMA);
	add_string(o, "device", name);
	add_bool(o, "usable", usable);
	add_string(o, "why", usable ? NULL : image->why);
	if (image->load)
		return o;
	add_uuid(o, "uuid", image->meta.uuid);
	add(o, "created", image->meta.created ? json_object_new_uint64(image->meta.created) :
						NULL);
	layout_json(&image->meta.layout, o);
	add(o, "state", usable ? state_json(&image->end.state) : NULL);
	add(o, "hidden_regions", usable ? json_object_new_uint64(image->hidden.count) : NULL);
	add(o, "active_regions", usable ? json_object_new_uint64(image->active.count) : NULL);
	add(o, "dirty_regions", usable ? json_object_new_uint64(image->dirty.count) : NULL);
	add(o, "dirty_maps", kept_json(image));
	return o;
}

static struct json_object *regions_json(const struct regions *set)
{
	struct json_object *list = json_object_new_array();
	uint64_t begin = 0, end, nr = 0;

	for (; nr < 1000 && regions_next(set, &begin, &end); begin = end, nr++) {
		struct json_object *run = json_object_new_array();

		json_object_array_add(run, json_object_new_uint64(begin));
		json_object_array_add(run, json_object_new_uint64(end));
		json_object_array_add(list, run);
	}
	return list;
}

static struct json_object *extent_json(uint64_t begin, uint64_t end, unsigned int op)
{
	struct json_object *o = json_object_new_object();

	add_string(o, "op", op < REPL_NR_EXTENT_OPS ? ops[op] : NULL);
	add_number(o, "begin", begin);
	add_number(o, "end", end);
	return o;
}

static struct json_object *slot_json(const struct image *image, uint64_t index,
				     enum image_slot slot, const struct repl_disk_log *log)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	unsigned int i, nr, flags;
	struct repl_meta_state state;

	add_number(o, "block", image->meta.layout.log_start + index);
	add_string(o, "kind", slots[slot]);
	if (slot < IMAGE_LIVE || slot > IMAGE_MISPLACED) {
		json_object_put(list);
		return o;
	}
	nr = le16toh(log->nr);
	flags = le16toh(log->flags);
	add_number(o, "seq", le64toh(log->seq));
	add_number(o, "first", le64toh(log->first));
	add_link(o, "link", le64toh(log->link));
	add_link(o, "prev", le64toh(log->prev));
	add(o, "state", repl_state_decode(&log->state, &state) ? state_json(&state) : NULL);
	add_bool(o, "empties_hidden", flags & REPL_LOG_EMPTY_HIDDEN);
	add_bool(o, "empties_active", flags & REPL_LOG_EMPTY_ACTIVE);
	add_bool(o, "empties_dirty", flags & REPL_LOG_EMPTY_DIRTY);
	add_bool(o, "adds_to_dirty", flags & REPL_LOG_DIRTY_ADD);
	for (i = 0; i < nr && i < REPL_LOG_EXTENTS; i++) {
		enum repl_extent_op op;
		u64 begin, end;

		repl_extent_decode(log->extents[i], UINT64_MAX, &begin, &end, &op);
		json_object_array_add(list, extent_json(begin, end, op));
	}
	add(o, "extents", list);
	return o;
}

static void dump_json(struct image *image, const char *name, FILE *to)
{
	struct json_object *o = head_json(image, name), *list = json_object_new_array();
	uint64_t i, nr = image->load ? 0 : image->meta.layout.log_blocks;
	bool more = false;
	char *text;

	json_object_array_add(list, super_json(image, 0));
	json_object_array_add(list, super_json(image, 1));
	add(o, "superblocks", list);
	if (image_usable(image)) {
		add(o, "hidden", regions_json(&image->hidden));
		add(o, "active", regions_json(&image->active));
		add(o, "dirty", regions_json(&image->dirty));
	}
	if (!image->load)
		add_number(o, "bitmap_blocks", image->bitmap_blocks);
	/* Block by block: all of them as objects would take some gigabytes. */
	text = strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
						     JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	if (!text)
		return;
	fprintf(to, "%.*s,\"log\":[", (int)strlen(text) - 1, text);
	free(text);
	for (i = 0; i < nr; i++) {
		const struct repl_disk_log *log;
		enum image_slot slot = image_slot(image, i, &log);

		if (slot == IMAGE_BLANK)
			continue;
		put(slot_json(image, i, slot, log), more ? "," : "", "", to);
		more = true;
	}
	fprintf(to, "]}\n");
}

static void report_json(const struct image *image, const char *name, FILE *to)
{
	struct json_object *o = head_json(image, name), *list = json_object_new_array();
	unsigned int i;

	add_number(o, "errors", image->levels[IMAGE_ERROR]);
	add_number(o, "warnings", image->levels[IMAGE_WARNING]);
	for (i = 0; i < image->nr_findings; i++) {
		struct json_object *finding = json_object_new_object();

		add_string(finding, "level", levels[image->findings[i].level]);
		add_string(finding, "text", image->findings[i].text);
		json_object_array_add(list, finding);
	}
	add(o, "findings", list);
	put(o, "", "\n", to);
}

/*
 * ---- Words ----
 */

static void print_state(const struct repl_meta_state *state, FILE *to)
{
	unsigned int i;

	fprintf(to, "%s, checkpoint %" PRIu64, stages[state->stage], state->checkpoint);
	if (state->flags & REPL_STATE_PREPARED)
		fprintf(to, ", prepared %" PRIu64, state->prepared);
	if (state->flags & REPL_STATE_FENCED)
		fprintf(to, ", fenced");
	if (state->identity.role)
		fprintf(to, ", role %s", roles[state->identity.role]);
	for (i = 0; i < 32; i++)
		if (state->errors >> i & 1) {
			if (i < ARRAY_SIZE(errors))
				fprintf(to, ", error %s", errors[i]);
			else
				fprintf(to, ", error number %u", i);
		}
}

static void print_identity(const struct repl_identity *id, FILE *to)
{
	char uuid[IMAGE_UUID_TEXT];

	image_uuid_text(id->lineage, uuid);
	fprintf(to, "lineage      %s\n", is_uuid(id->lineage) ? uuid : "none yet");
	if (!is_uuid(id->parent))
		return;
	image_uuid_text(id->parent, uuid);
	fprintf(to, "  left       %s, checkpoint %" PRIu64 "\n", uuid, id->parent_checkpoint);
}

static void print_super(const struct image *image, unsigned int nr, FILE *to)
{
	const struct image_super *super = &image->super[nr];
	const struct repl_meta *meta = &super->meta;

	fprintf(to, "superblock %u ", nr);
	if (super->status) {
		fprintf(to, "%s\n", super->why);
		return;
	}
	fprintf(to, "generation %" PRIu64 "%s, version %u, features %#x and %#x\n",
		meta->generation, !image->load && image->current == nr ? ", current" : "",
		super->version, super->compatible, super->incompatible);
	if (meta->area == REPL_NO_AREA)
		fprintf(to, "  bitmaps    none\n");
	else
		fprintf(to, "  bitmaps    area %u, generation %" PRIu64 "\n", meta->area,
			meta->area_generation);
	fprintf(to, "  log from   %" PRIu64 ", behind link %016" PRIx64 "\n  state      ",
		meta->tail, meta->tail_prev);
	print_state(&meta->state, to);
	fprintf(to, "\n");
}

static void print_layout(const struct repl_meta *meta, FILE *to)
{
	const struct repl_layout *layout = &meta->layout;
	char text[IMAGE_SIZE_TEXT], region[IMAGE_SIZE_TEXT], when[64];

	time_text(meta->created, when, sizeof(when));
	image_size_text(layout->sectors * 512, text);
	image_size_text((uint64_t)layout->region_size * 512, region);
	fprintf(to, "created      %s\n", when);
	fprintf(to, "for          %s (%" PRIu64 " bytes) in regions of %s: %" PRIu64 "\n", text,
		layout->sectors * 512, region, layout->nr_regions);
	image_size_text(layout->blocks * REPL_BLOCK_SIZE, text);
	fprintf(to, "uses         %s: %" PRIu64 " blocks of 4 KiB\n"
		"  0          superblocks\n"
		"  %-10" PRIu64 " bitmap area 0: %" PRIu64 " blocks, %" PRIu64
		" for summaries, %" PRIu64 " for each map\n"
		"  %-10" PRIu64 " bitmap area 1\n"
		"  %-10" PRIu64 " log: %" PRIu64 " blocks\n",
		text, layout->blocks, layout->area_start[0], layout->area_blocks,
		layout->summary_blocks, layout->map_blocks, layout->area_start[1],
		layout->log_start, layout->log_blocks);
}

static void print_extents(const struct repl_disk_log *log, FILE *to)
{
	unsigned int nr = le16toh(log->nr), i;
	int column = 0;

	for (i = 0; i < nr && i < REPL_LOG_EXTENTS; i++) {
		enum repl_extent_op op;
		char text[64];
		u64 begin, end;

		repl_extent_decode(log->extents[i], UINT64_MAX, &begin, &end, &op);
		snprintf(text, sizeof(text), "%s %" PRIu64 "-%" PRIu64,
			 op < REPL_NR_EXTENT_OPS ? ops[op] : "unknown", (uint64_t)begin,
			 (uint64_t)end - 1);
		if (column + strlen(text) > 76)
			column = 0;
		column += fprintf(to, "%s%s", column ? ", " : i ? "\n    " : "    ", text);
	}
	if (nr)
		fprintf(to, "\n");
}

static void print_log_block(const struct repl_disk_log *log, uint64_t nr,
			    enum image_slot slot, FILE *to)
{
	unsigned int flags = le16toh(log->flags);
	struct repl_meta_state state;

	fprintf(to, "  %-10" PRIu64 " %s: %" PRIu64 ", written with %" PRIu64
		", link %016" PRIx64 " behind %016" PRIx64 "; ", nr, slots[slot],
		(uint64_t)le64toh(log->seq), (uint64_t)le64toh(log->first),
		(uint64_t)le64toh(log->link), (uint64_t)le64toh(log->prev));
	if (repl_state_decode(&log->state, &state))
		print_state(&state, to);
	else
		fprintf(to, "a state that cannot be");
	if (flags & REPL_LOG_DIRTY_ADD)
		fprintf(to, "; adds hidden and active to dirty");
	if (flags & REPL_LOG_EMPTY_HIDDEN)
		fprintf(to, "; empties hidden");
	if (flags & REPL_LOG_EMPTY_ACTIVE)
		fprintf(to, "; empties active");
	if (flags & REPL_LOG_EMPTY_DIRTY)
		fprintf(to, "; empties dirty");
	fprintf(to, "\n");
	print_extents(log, to);
}

static void print_log(struct image *image, FILE *to)
{
	const struct repl_layout *layout = &image->meta.layout;
	uint64_t i;

	fprintf(to, "log          from %" PRIu64 " to before %" PRIu64 ": %" PRIu64 " of %" PRIu64
		" blocks are in use\n", image->meta.tail, image->end.next, image->end.blocks,
		layout->log_blocks);
	for (i = 0; i < layout->log_blocks; i++) {
		const struct repl_disk_log *log;
		enum image_slot slot = image_slot(image, i, &log);

		if (slot >= IMAGE_LIVE && slot <= IMAGE_MISPLACED)
			print_log_block(log, layout->log_start + i, slot, to);
		else if (slot != IMAGE_BLANK)
			fprintf(to, "  %-10" PRIu64 " %s\n", layout->log_start + i, slots[slot]);
	}
}

static void print_regions(const struct regions *set, const char *name, FILE *to)
{
	uint64_t begin = 0, end, nr = 0;
	int column = 0;

	fprintf(to, "%-12s %" PRIu64 " regions\n", name, set->count);
	for (; nr < 1000 && regions_next(set, &begin, &end); begin = end, nr++) {
		if (column > 66)
			column = 0;
		column += fprintf(to, "%s%" PRIu64 "-%" PRIu64,
				  column ? ", " : nr ? "\n  " : "  ", begin, end - 1);
	}
	if (nr)
		fprintf(to, "%s\n", nr == 1000 ? ", and more" : "");
}

static void print_map(const struct image_map *map, FILE *to)
{
	char text[IMAGE_SIZE_TEXT];

	image_size_text(map->granularity, text);
	fprintf(to, "  %-10s %s a bit, %s, at block %" PRIu64 ": %" PRIu64 " blocks, %" PRIu64
		" of %" PRIu64 " bits are set", map->name, text,
		map->enabled ? "enabled" : "disabled", map->start, map->blocks, map->set,
		map->bits);
	if (map->damaged + map->unreadable)
		fprintf(to, ", with all of %" PRIu64 " damaged blocks",
			map->damaged + map->unreadable);
	fprintf(to, "\n");
}

static void print_kept(const struct image *image, FILE *to)
{
	const struct image_kept *kept = &image->kept;
	char text[IMAGE_SIZE_TEXT];
	unsigned int i;

	fprintf(to, "dirty maps   ");
	if (kept->room < 2) {
		fprintf(to, "are not kept: there is no room\n");
		return;
	}
	image_size_text((kept->room - 2) * REPL_BLOCK_SIZE, text);
	fprintf(to, "%u, room for %s; directories at block %" PRIu64 ": %s, %s\n", kept->nr, text,
		image->meta.layout.blocks, dirs[kept->dirs[0]], dirs[kept->dirs[1]]);
	if (!kept->good)
		return;
	fprintf(to, "  directory  %u, generation %" PRIu64, kept->current, kept->generation);
	if (!(kept->flags & REPL_KEPT_CLEAN))
		fprintf(to, ", in use");
	else
		fprintf(to, ", clean before log block %" PRIu64 "%s", kept->next,
			!image_usable(image) ? "" : kept->exact ? ", and that holds" :
			", and used since");
	if (kept->all)
		fprintf(to, "; all bits are set: %s", kept->all);
	fprintf(to, "\n");
	for (i = 0; i < kept->nr; i++)
		print_map(&kept->maps[i], to);
	if (kept->nr && !kept->exact && !kept->all)
		fprintf(to, "  enabled ones have what is dirty by the log as well\n");
}

static void dump_words(struct image *image, const char *name, FILE *to)
{
	char uuid[IMAGE_UUID_TEXT];

	fprintf(to, "device       %s\n", name);
	if (!image->load) {
		image_uuid_text(image->meta.uuid, uuid);
		fprintf(to, "uuid         %s\n", uuid);
		print_layout(&image->meta, to);
	}
	print_super(image, 0, to);
	print_super(image, 1, to);
	if (image->load)
		return;
	if (image->meta.area != REPL_NO_AREA)
		fprintf(to, "bitmaps      %" PRIu64 " of %" PRIu64 " blocks are written\n",
			image->bitmap_blocks, REPL_NR_DISK_MAPS * image->meta.layout.map_blocks);
	print_log(image, to);
	print_kept(image, to);
	if (!image_usable(image))
		return;
	fprintf(to, "in the end   ");
	print_state(&image->end.state, to);
	fprintf(to, "\n");
	print_identity(&image->end.state.identity, to);
	print_regions(&image->hidden, "hidden", to);
	print_regions(&image->active, "active", to);
	print_regions(&image->dirty, "dirty", to);
}

static void report_words(const struct image *image, const char *name, FILE *to)
{
	uint64_t kept = image->nr_findings, all = 0;
	char uuid[IMAGE_UUID_TEXT];
	unsigned int i;

	for (i = 0; i < image->nr_findings; i++)
		fprintf(to, "%s: %s\n", levels[image->findings[i].level],
			image->findings[i].text);
	for (i = 0; i < IMAGE_NR_LEVELS; i++)
		all += image->levels[i];
	if (all > kept)
		fprintf(to, "and %" PRIu64 " more\n", all - kept);
	if (!image_usable(image))
		return;
	image_uuid_text(image->meta.uuid, uuid);
	fprintf(to, "%s: uuid %s, ", name, uuid);
	print_state(&image->end.state, to);
	fprintf(to, "; %" PRIu64 " regions in hidden, %" PRIu64 " in active, %" PRIu64
		" dirty; %" PRIu64 " of %" PRIu64 " log blocks in use\n", image->hidden.count,
		image->active.count, image->dirty.count, image->end.blocks,
		image->meta.layout.log_blocks);
}

void image_dump(struct image *image, const char *name, bool json, FILE *to)
{
	if (json)
		dump_json(image, name, to);
	else
		dump_words(image, name, to);
}

void image_report(const struct image *image, const char *name, bool json, FILE *to)
{
	if (json)
		report_json(image, name, to);
	else
		report_words(image, name, to);
}

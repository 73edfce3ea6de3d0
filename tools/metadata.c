// SPDX-License-Identifier: GPL-2.0-only
#include <blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image.h"
#include "metadata.h"
#include "units.h"

#define SECTOR 512u
#define SCHEMA 1
/* Of the same granularity, that the best size has room for. */
#define BEST_MAPS 4
#define TOO_MANY "too many regions: make them larger, --region-size"

/*
 * ---- Devices ----
 */

struct device {
	struct image_source source;
	const char *name;
	uint64_t bytes;
	int fd;
};

static int device_read(struct image_source *source, uint64_t block, unsigned int nr,
		       void *data)
{
	struct device *device = (struct device *)source;
	size_t size = (size_t)nr * REPL_BLOCK_SIZE, done = 0;

	while (done < size) {
		ssize_t n = pread(device->fd, (char *)data + done, size - done,
				  block * REPL_BLOCK_SIZE + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += n;
	}
	return 0;
}

static int device_write(struct device *device, uint64_t block, const void *data,
			struct repl_error *error)
{
	size_t done = 0;

	while (done < REPL_BLOCK_SIZE) {
		ssize_t n = pwrite(device->fd, (const char *)data + done,
				   REPL_BLOCK_SIZE - done, block * REPL_BLOCK_SIZE + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(error, REPL_EXIT_FAILED, "%s: cannot write: %s",
					 device->name, strerror(n ? errno : EIO));
		done += n;
	}
	if (fsync(device->fd))
		return error_set(error, REPL_EXIT_FAILED, "%s: cannot write: %s", device->name,
				 strerror(errno));
	return 0;
}

static int device_length(const char *name, int fd, uint64_t *bytes, struct repl_error *error)
{
	struct stat st;

	if (fstat(fd, &st))
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", name, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		*bytes = st.st_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return error_set(error, REPL_EXIT_FAILED,
				 "%s is neither a block device nor a file", name);
	if (ioctl(fd, BLKGETSIZE64, bytes))
		return error_set(error, REPL_EXIT_FAILED, "%s: cannot read its size: %s", name,
				 strerror(errno));
	return 0;
}

/*
 * O_EXCL: of a block device that is mounted or that device-mapper holds there is
 * nothing to see that would hold, and nothing must be written to it.
 */
static int device_open(struct device *device, const char *name, bool write,
		       struct repl_error *error)
{
	struct stat st;
	bool block;

	*device = (struct device) { .source.read = device_read, .name = name, .fd = -1 };
	/* A look before: an open may wait, or do something, on what is neither. */
	if (stat(name, &st))
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", name, strerror(errno));
	block = S_ISBLK(st.st_mode);
	if (!block && !S_ISREG(st.st_mode))
		return error_set(error, REPL_EXIT_FAILED,
				 "%s is neither a block device nor a file", name);
	device->fd = open(name, (write ? O_RDWR : O_RDONLY) | (block ? O_EXCL : 0) |
			  O_NONBLOCK | O_CLOEXEC);
	if (device->fd < 0 && errno == EBUSY)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is in use: it is mounted, or another device stands on it (lsblk shows which); take that down first",
				 name);
	if (device->fd < 0)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", name, strerror(errno));
	if (device_length(name, device->fd, &device->bytes, error)) {
		close(device->fd);
		device->fd = -1;
		return -1;
	}
	/* What was read before the module wrote to it is not of interest. */
	posix_fadvise(device->fd, 0, 0, POSIX_FADV_DONTNEED);
	device->source.blocks = device->bytes / REPL_BLOCK_SIZE;
	return 0;
}

static void device_close(struct device *device)
{
	if (device->fd >= 0)
		close(device->fd);
}

/*
 * ---- What the metadata is for ----
 */

static int usage(struct repl_error *error, const char *text)
{
	return error_set(error, REPL_EXIT_USAGE, "%s", text);
}

/* Words of a command line, not of a configuration. */
static int size_option(const char *name, const char *text, uint64_t *bytes,
		       struct repl_error *error)
{
	if (!size_parse(text, bytes, error))
		return 0;
	error_wrap(error, "%s", name);
	if (error)
		error->exit = REPL_EXIT_USAGE;
	return -1;
}

static int region_size_option(const struct metadata_options *options, uint64_t *bytes,
			      struct repl_error *error)
{
	if (!options->region_size)
		return usage(error, "how large are the regions? --region-size SIZE");
	if (size_option("--region-size", options->region_size, bytes, error))
		return -1;
	if (*bytes < 4096 || *bytes > 4 << 20 || *bytes & (*bytes - 1))
		return error_set(error, REPL_EXIT_USAGE,
				 "--region-size: \"%s\" is not a power of two from 4KiB to 4MiB",
				 options->region_size);
	return 0;
}

/* Length of a device that may be in use. */
static int like_option(const char *name, uint64_t *bytes, struct repl_error *error)
{
	struct stat st;
	int r, fd;

	if (stat(name, &st))
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", name, strerror(errno));
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return error_set(error, REPL_EXIT_FAILED,
				 "%s is neither a block device nor a file", name);
	fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", name, strerror(errno));
	r = device_length(name, fd, bytes, error);
	close(fd);
	return r;
}

/* Layout on a blank device of @blocks, from the options; -ENOSPC is no error here. */
static int layout_of(const struct metadata_options *options, uint64_t blocks,
		     struct repl_layout *layout, int *status, struct repl_error *error)
{
	uint64_t bytes, region;

	if (!options->size == !options->like)
		return usage(error, "how long is the disk? Either --size SIZE or --like DEVICE");
	if (options->like ? like_option(options->like, &bytes, error) :
			    size_option("--size", options->size, &bytes, error))
		return -1;
	if (region_size_option(options, &region, error))
		return -1;
	if (bytes < SECTOR || bytes % SECTOR)
		return error_set(error, REPL_EXIT_USAGE,
				 "a disk of %" PRIu64 " bytes? It has sectors of %u", bytes,
				 SECTOR);
	*status = repl_layout_new(layout, bytes / SECTOR, region / SECTOR, blocks);
	return 0;
}

/*
 * ---- size ----
 */

/* Two maps of 4 bits a region, and one of 1. */
static uint64_t memory_of(const struct repl_layout *layout)
{
	return layout->nr_regions + (layout->nr_regions + 7) / 8;
}

/* Of a user's dirty map, with a bit for each region. */
static uint64_t map_of(const struct repl_layout *layout)
{
	return layout->map_blocks * REPL_BLOCK_SIZE;
}

/* What the maps have on a device of @blocks, behind their directories. */
static uint64_t room_of(const struct repl_layout *layout, uint64_t blocks)
{
	uint64_t begin = layout->blocks + 2;

	return blocks > begin ? (blocks - begin) * REPL_BLOCK_SIZE : 0;
}

/* The log as long as it can be, behind which repl_layout_new() leaves room; for some maps. */
static uint64_t best_blocks(const struct repl_layout *layout)
{
	uint64_t log = REPL_LOG_MAX_BLOCKS * 4 / 3;
	uint64_t maps = REPL_LOG_MAX_BLOCKS + 2 + BEST_MAPS * layout->map_blocks;

	return layout->log_start + (log > maps ? log : maps);
}

/* @used: what is called metadata; @blocks: of the device */
static struct json_object *size_json(const struct repl_layout *layout, uint64_t used,
				     uint64_t blocks)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_int(SCHEMA));
	json_object_object_add(o, "size_bytes",
			       json_object_new_uint64(layout->sectors * SECTOR));
	json_object_object_add(o, "region_size_bytes",
			       json_object_new_uint64((uint64_t)layout->region_size * SECTOR));
	json_object_object_add(o, "regions", json_object_new_uint64(layout->nr_regions));
	json_object_object_add(o, "metadata_bytes",
			       json_object_new_uint64(used * REPL_BLOCK_SIZE));
	json_object_object_add(o, "metadata_min_bytes",
			       json_object_new_uint64((layout->log_start +
						       REPL_LOG_MIN_BLOCKS) * REPL_BLOCK_SIZE));
	json_object_object_add(o, "map_bytes", json_object_new_uint64(map_of(layout)));
	json_object_object_add(o, "maps_room_bytes",
			       json_object_new_uint64(room_of(layout, blocks)));
	json_object_object_add(o, "memory_bytes", json_object_new_uint64(memory_of(layout)));
	return o;
}

static void put_json(struct json_object *o, FILE *to)
{
	fprintf(to, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
							   JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static struct json_object *best_json(const struct repl_layout *layout)
{
	uint64_t best = best_blocks(layout);

	return size_json(layout, best, best);
}

static void size_row(const struct repl_layout *layout, FILE *to)
{
	char size[IMAGE_SIZE_TEXT], region[IMAGE_SIZE_TEXT], best[IMAGE_SIZE_TEXT];
	char least[IMAGE_SIZE_TEXT], map[IMAGE_SIZE_TEXT], memory[IMAGE_SIZE_TEXT];

	image_size_text(layout->sectors * SECTOR, size);
	image_size_text((uint64_t)layout->region_size * SECTOR, region);
	image_size_text(best_blocks(layout) * REPL_BLOCK_SIZE, best);
	image_size_text((layout->log_start + REPL_LOG_MIN_BLOCKS) * REPL_BLOCK_SIZE, least);
	image_size_text(map_of(layout), map);
	image_size_text(memory_of(layout), memory);
	fprintf(to, "%-9s  %-9s  %15" PRIu64 "  %-9s  %15" PRIu64 "  %-9s  %-9s  %-9s\n", size,
		region, best_blocks(layout) * REPL_BLOCK_SIZE, best,
		(layout->log_start + REPL_LOG_MIN_BLOCKS) * REPL_BLOCK_SIZE, least, map, memory);
}

static void size_title(FILE *to)
{
	fprintf(to, "%-9s  %-9s  %15s  %-9s  %15s  %-9s  %-9s  %-9s\n", "disk", "regions",
		"metadata, bytes", "", "at least", "", "a map", "memory");
}

/* The table of Documentation/on-disk-format.rst. */
static void size_table(bool json, FILE *to)
{
	static const uint64_t sizes[] = { 1, 16, 64 }, regions[] = { 4, 64 };
	struct json_object *list = json_object_new_array(), *o;
	struct repl_layout layout;
	unsigned int i;

	if (!json)
		size_title(to);
	for (i = 0; i < 6; i++) {
		repl_layout_new(&layout, (sizes[i / 2] << 40) / SECTOR,
				(regions[i % 2] << 10) / SECTOR, UINT64_MAX);
		if (json)
			json_object_array_add(list, best_json(&layout));
		else
			size_row(&layout, to);
	}
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_int(SCHEMA));
	json_object_object_add(o, "sizes", list);
	if (json)
		put_json(o, to);
	else
		json_object_put(o);
}

static int metadata_size(const struct metadata_options *options, FILE *to,
			 struct repl_error *error)
{
	struct repl_layout layout;
	int status;

	if (!options->size && !options->like && !options->region_size) {
		size_table(options->json, to);
		return 0;
	}
	if (layout_of(options, UINT64_MAX, &layout, &status, error))
		return -1;
	if (status)
		return error_set(error, REPL_EXIT_REFUSED, TOO_MANY);
	if (options->json) {
		put_json(best_json(&layout), to);
	} else {
		size_title(to);
		size_row(&layout, to);
	}
	return 0;
}

/*
 * ---- create ----
 */

static int uuid_option(const char *text, uint8_t *uuid, struct repl_error *error)
{
	static const uint8_t none[REPL_UUID_SIZE];

	if (!uuid_parse(text, uuid) && memcmp(uuid, none, REPL_UUID_SIZE))
		return 0;
	return error_set(error, REPL_EXIT_USAGE,
			 "--uuid: \"%s\" is not a UUID, like 0b3c9a52-9d4e-4d1c-8f4e-2a6d1f0c7b35",
			 text);
}

static int random_bytes(void *data, size_t size, struct repl_error *error)
{
	if (getrandom(data, size, 0) != (ssize_t)size)
		return error_set(error, REPL_EXIT_FAILED, "no random numbers: %s",
				 strerror(errno));
	return 0;
}

/* The name of something that libblkid knows, or NULL. */
static const char *probe_name(blkid_probe probe, const char **kind)
{
	const char *name;

	*kind = "a partition table";
	if (!blkid_probe_lookup_value(probe, "PTTYPE", &name, NULL))
		return name;
	if (blkid_probe_lookup_value(probe, "TYPE", &name, NULL))
		return NULL;
	*kind = "a signature";
	const char *use;

	if (blkid_probe_lookup_value(probe, "USAGE", &use, NULL))
		return name;
	if (!strcmp(use, "filesystem"))
		*kind = "a file system";
	else if (!strcmp(use, "raid"))
		*kind = "a part of a volume group or RAID";
	else if (!strcmp(use, "crypto"))
		*kind = "an encrypted volume";
	return name;
}

static int probe_others(const struct device *device, struct repl_error *error)
{
	blkid_probe probe = blkid_new_probe();
	const char *name, *kind;
	int r = -1;

	if (probe && !blkid_probe_set_device(probe, device->fd, 0, 0)) {
		blkid_probe_enable_superblocks(probe, 1);
		blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE |
						  BLKID_SUBLKS_USAGE | BLKID_SUBLKS_BADCSUM);
		blkid_probe_enable_partitions(probe, 1);
		r = blkid_do_safeprobe(probe);
	}
	if (r == 0) {
		name = probe_name(probe, &kind);
		error_set(error, REPL_EXIT_REFUSED,
			  "%s has %s on it (%s): wipefs(8) takes it away, --force makes metadata all the same",
			  device->name, name ? kind : "something", name ? name : "unknown");
	} else if (r == -2) {
		error_set(error, REPL_EXIT_REFUSED,
			  "%s has more than one thing on it: see wipefs(8); --force makes metadata all the same",
			  device->name);
	} else if (r < 0) {
		error_set(error, REPL_EXIT_FAILED, "%s: cannot look what is on it",
			  device->name);
	}
	blkid_free_probe(probe);
	return r == 1 ? 0 : -1;
}

/* Is there anything in the first two blocks? */
static int probe_ours(struct device *device, struct repl_error *error)
{
	static const uint8_t zeroes[2 * REPL_BLOCK_SIZE];
	uint8_t blocks[2 * REPL_BLOCK_SIZE];
	const struct repl_disk_super *super = (void *)blocks;
	unsigned int i;

	if (device_read(&device->source, 0, 2, blocks))
		return error_set(error, REPL_EXIT_FAILED, "%s: cannot be read", device->name);
	for (i = 0; i < 2; i++)
		if (le32toh(super[i].head.magic) == REPL_MAGIC_SUPER)
			return error_set(error, REPL_EXIT_REFUSED,
					 "%s has metadata of dm-repl on it already (replctl metadata dump shows it); --force makes it new",
					 device->name);
	if (memcmp(blocks, zeroes, sizeof(zeroes)))
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is not blank: there is something unknown in its first 8 KiB; --force makes metadata all the same",
				 device->name);
	return 0;
}

/*
 * Log blocks of the same UUID would be taken for what comes after the new
 * superblock, or for a sign that something was lost.
 */
static int probe_uuid(struct device *device, const struct repl_meta *meta,
		      struct repl_error *error)
{
	uint8_t blocks[REPL_REPLAY_BLOCKS * REPL_BLOCK_SIZE];
	uint64_t nr, begin = meta->layout.log_start, end = begin + meta->layout.log_blocks;
	unsigned int i, most;

	for (nr = begin; nr < end; nr += most) {
		most = end - nr < REPL_REPLAY_BLOCKS ? end - nr : REPL_REPLAY_BLOCKS;
		if (device_read(&device->source, nr, most, blocks))
			return error_set(error, REPL_EXIT_FAILED, "%s: cannot be read",
					 device->name);
		for (i = 0; i < most; i++) {
			const struct repl_disk_log *log =
				(void *)(blocks + i * REPL_BLOCK_SIZE);

			if (le32toh(log->head.magic) == REPL_MAGIC_LOG &&
			    !memcmp(log->head.uuid, meta->uuid, REPL_UUID_SIZE))
				return error_set(error, REPL_EXIT_REFUSED,
						 "%s has a log with this UUID: new metadata needs another one",
						 device->name);
		}
	}
	return 0;
}

static int create_check(struct device *device, const struct metadata_options *options,
			const struct repl_meta *meta, struct repl_error *error)
{
	if (!options->force &&
	    (probe_others(device, error) || probe_ours(device, error)))
		return -1;
	return options->uuid ? probe_uuid(device, meta, error) : 0;
}

/*
 * As repl_log_format() does it: the second superblock first. But before them go what may
 * be directories of dirty maps, for --uuid may make them valid.
 */
static int create_write(struct device *device, struct repl_meta *meta,
			struct repl_error *error)
{
	uint8_t block[REPL_BLOCK_SIZE] = { };
	uint64_t dirs = meta->layout.blocks;
	unsigned int i;

	for (i = 0; i < 2 && dirs + i < device->source.blocks; i++)
		if (device_write(device, dirs + i, block, error))
			return -1;
	for (i = 1; i <= 2; i++) {
		meta->generation = i;
		repl_super_encode(meta, block);
		if (device_write(device, i & 1, block, error))
			return -1;
	}
	return 0;
}

static void create_print(const struct device *device, const struct metadata_options *options,
			 const struct repl_meta *meta, FILE *to)
{
	char uuid[IMAGE_UUID_TEXT], size[IMAGE_SIZE_TEXT], region[IMAGE_SIZE_TEXT];
	char used[IMAGE_SIZE_TEXT], all[IMAGE_SIZE_TEXT];
	char maps[IMAGE_SIZE_TEXT], map[IMAGE_SIZE_TEXT];
	const struct repl_layout *layout = &meta->layout;
	uint64_t room = room_of(layout, device->source.blocks);

	image_uuid_text(meta->uuid, uuid);
	if (options->json) {
		struct json_object *o = size_json(layout, layout->blocks, device->source.blocks);

		json_object_object_add(o, "device", json_object_new_string(device->name));
		json_object_object_add(o, "device_bytes", json_object_new_uint64(device->bytes));
		/* A dry run's is not the one that it will have. */
		json_object_object_add(o, "uuid", options->dry_run && !options->uuid ? NULL :
						  json_object_new_string(uuid));
		put_json(o, to);
		return;
	}
	image_size_text(layout->sectors * SECTOR, size);
	image_size_text((uint64_t)layout->region_size * SECTOR, region);
	image_size_text(layout->blocks * REPL_BLOCK_SIZE, used);
	image_size_text(device->bytes, all);
	fprintf(to, "%s%s: for %s in regions of %s, uses %s of %s%s\n",
		options->dry_run ? "would make metadata on " : "", device->name, size, region,
		used, all, layout->log_blocks < REPL_LOG_MAX_BLOCKS ?
		" (and more if there were more)" : "");
	image_size_text(room, maps);
	image_size_text(map_of(layout), map);
	if (room)
		fprintf(to, "dirty maps: room for %s, a map of these regions takes %s\n", maps, map);
	else
		fprintf(to, "dirty maps: no room, they are in memory only\n");
	if (!options->dry_run)
		fprintf(to, "uuid %s\n", uuid);
}

static int create_on(struct device *device, const struct metadata_options *options, FILE *to,
		     struct repl_error *error)
{
	struct repl_meta meta = {
		.created = time(NULL), .area = REPL_NO_AREA, .tail = 1,
	};
	char needs[IMAGE_SIZE_TEXT];
	int status;

	if (layout_of(options, device->source.blocks, &meta.layout, &status, error))
		return -1;
	if (status == -ENOSPC) {
		image_size_text(meta.layout.blocks * REPL_BLOCK_SIZE, needs);
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is too small: it has %" PRIu64
				 " bytes, and must have at least %" PRIu64
				 " (%s); replctl metadata size says how many are best",
				 device->name, device->bytes,
				 meta.layout.blocks * REPL_BLOCK_SIZE, needs);
	}
	if (status)
		return error_set(error, REPL_EXIT_REFUSED, TOO_MANY);
	if (random_bytes(meta.uuid, sizeof(meta.uuid), error) ||
	    random_bytes(&meta.tail_prev, sizeof(meta.tail_prev), error))
		return -1;
	meta.uuid[6] = (meta.uuid[6] & 0x0f) | 0x40;
	meta.uuid[8] = (meta.uuid[8] & 0x3f) | 0x80;
	if (options->uuid && uuid_option(options->uuid, meta.uuid, error))
		return -1;
	if (create_check(device, options, &meta, error))
		return -1;
	if (!options->dry_run && create_write(device, &meta, error))
		return -1;
	create_print(device, options, &meta, to);
	return 0;
}

static int metadata_create(const char *name, const struct metadata_options *options, FILE *to,
			   struct repl_error *error)
{
	struct device device;
	int r;

	if (device_open(&device, name, !options->dry_run, error))
		return -1;
	r = create_on(&device, options, to, error);
	device_close(&device);
	return r;
}

/*
 * ---- dump, check ----
 */

static int metadata_look(const char *name, bool check, const struct metadata_options *options,
			 FILE *to, struct repl_error *error)
{
	struct device device;
	struct image image;
	int r;

	if (device_open(&device, name, false, error))
		return -1;
	r = image_read(&image, &device.source, error);
	if (!r && check)
		image_report(&image, name, options->json, to);
	else if (!r)
		image_dump(&image, name, options->json, to);
	if (!r && !image_usable(&image))
		r = error_set(error, check ? REPL_EXIT_DIFFER : REPL_EXIT_FAILED, "%s: %s",
			      name, image.why);
	else if (!r && check && image.levels[IMAGE_WARNING])
		r = error_set(error, REPL_EXIT_DIFFER,
			      "%s: the module takes it, but not all is as it should be", name);
	image_free(&image);
	device_close(&device);
	return r;
}

int metadata_role(const char *name, enum pair_role *role, struct repl_error *error)
{
	struct device device;
	struct image image;
	int r;

	*role = PAIR_NO_ROLE;
	if (device_open(&device, name, false, error))
		return -1;
	r = image_read(&image, &device.source, error);
	if (!r && image_usable(&image))
		*role = image.end.state.identity.role == REPL_ROLE_PRIMARY ? PAIR_PRIMARY :
			image.end.state.identity.role == REPL_ROLE_SECONDARY ? PAIR_SECONDARY :
			PAIR_NO_ROLE;
	/* What it does not take the module refuses, in words. */
	image_free(&image);
	device_close(&device);
	return r;
}

int metadata_verb(char **words, int nr, const struct metadata_options *options, FILE *to,
		  struct repl_error *error)
{
	const char *verb = nr ? words[0] : "";

	if (nr == 1 && !strcmp(verb, "size"))
		return metadata_size(options, to, error);
	if (nr == 2 && !strcmp(verb, "create"))
		return metadata_create(words[1], options, to, error);
	if (nr == 2 && (!strcmp(verb, "dump") || !strcmp(verb, "check")))
		return metadata_look(words[1], *verb == 'c', options, to, error);
	return usage(error, "usage: replctl metadata create|dump|check DEVICE, metadata size");
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Image: what is on a metadata device, seen from outside.
 *
 * Whether it is good is not decided here, but by the module's own source
 * (meta.h): what repl_meta_load() and repl_replay() refuse is an error, and
 * nothing else is. What is found beside that is for a person who wants to know
 * why, or whether more than a power cut has happened:
 *
 *	error	the module refuses it
 *	warning	the module takes it, but something is not as the module leaves
 *		it, whenever the power fails; or a superblock of two is lost
 *	note	as it may be
 */
#ifndef REPLCTL_IMAGE_H
#define REPLCTL_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "../dm-repl/meta.h"
#include "error.h"
#include "regions.h"

/**
 * struct image_source - where it is read from
 * @read: read @nr blocks from @block on; 0 or a negative errno
 * @blocks: size
 */
struct image_source {
	int (*read)(struct image_source *source, uint64_t block, unsigned int nr,
		    void *data);
	uint64_t blocks;
};

/* What one of the two superblocks is. */
struct image_super {
	int status;			/* repl_super_decode()'s, or -EIO */
	const char *why;		/* if it is not 0 */
	uint32_t version, compatible, incompatible;
	struct repl_meta meta;		/* if it is 0 */
};

/* What a block of the log's ring is. */
enum image_slot {
	IMAGE_BLANK,		/* all zeroes */
	IMAGE_LIVE,		/* replayed */
	IMAGE_REFUSED,		/* the next one, but it cannot be */
	IMAGE_OLD,		/* before the tail */
	IMAGE_STALE,		/* of a batch that was not completed */
	IMAGE_ORPHAN,		/* others before it were there, and are not now */
	IMAGE_MISPLACED,	/* good, but not where its number belongs */
	IMAGE_DAMAGED,		/* ours, but its checksum is wrong */
	IMAGE_OTHERS,		/* of another dm-repl metadata */
	IMAGE_FOREIGN,		/* nothing that we know */
	IMAGE_UNREADABLE,
	IMAGE_NR_SLOTS,
};

enum image_level { IMAGE_NOTE, IMAGE_WARNING, IMAGE_ERROR, IMAGE_NR_LEVELS };

struct image_finding {
	enum image_level level;
	char *text;
};

/* What one of the two directories of the user's dirty maps is. */
enum image_dir {
	IMAGE_DIR_BLANK,	/* all zeroes */
	IMAGE_DIR_GOOD,
	IMAGE_DIR_DAMAGED,	/* ours, but its checksum is wrong */
	IMAGE_DIR_INSANE,	/* the checksum is good, but it says what cannot be */
	IMAGE_DIR_FOREIGN,	/* of a use before, or nothing that we know */
	IMAGE_DIR_UNREADABLE,
	IMAGE_NR_DIRS,
};

struct image_map {
	char name[REPL_KEPT_NAME];
	uint64_t granularity;		/* bytes a bit */
	bool enabled;
	uint64_t start, blocks;
	uint64_t bits, set;		/* by its blocks, all of one that is damaged */
	uint64_t damaged, unreadable;	/* blocks */
};

/**
 * struct image_kept - the user's dirty maps
 * @room: blocks behind the log; below 2 nothing is kept, and all else is 0
 * @dirs: what the directories are
 * @good: is there a directory that counts?
 * @current: its number, if so
 * @generation: and what it says
 * @next: ...
 * @flags: ...
 * @exact: it was an orderly end, and nothing has used the device since; known only
 *	if the image is usable
 * @all: why all bits of all maps are set, or NULL
 * @nr: maps
 * @maps: they
 */
struct image_kept {
	uint64_t room;
	enum image_dir dirs[2];
	bool good;
	unsigned int current;
	uint64_t generation, next;
	uint32_t flags;
	bool exact;
	const char *all;
	unsigned int nr;
	struct image_map maps[REPL_KEPT_MAPS];
};

struct image {
	struct image_source *source;
	struct image_super super[2];
	int load;			/* repl_meta_load()'s */
	struct repl_meta meta;		/* the one that counts, if that is 0 */
	unsigned int current;		/* its number */
	int replay;			/* repl_replay()'s, if so */
	const char *why;		/* if one of them is not 0 */
	struct repl_replayed end;	/* as far as it came */
	struct regions hidden, active, dirty; /* there */
	uint64_t bitmap_blocks;		/* written in the current area */
	bool area_bad, log_bad;
	uint64_t slots[IMAGE_NR_SLOTS];
	struct image_kept kept;

	struct image_finding *findings;
	unsigned int nr_findings;
	uint64_t levels[IMAGE_NR_LEVELS]; /* findings, also those not kept */

	uint8_t *buffer;		/* REPL_REPLAY_BUFFER */
	uint64_t buffered;
	unsigned int nr_buffered;
};

/**
 * image_read() - look at it
 * @image: result; image_free() is to be called in any case
 * @source: source, which must stay as it is and live as long
 * @error: set if there is no memory; what is wrong with the image is no failure
 *
 * Return: 0 or -1.
 */
int image_read(struct image *image, struct image_source *source,
	       struct repl_error *error);
void image_free(struct image *image);

/* Would the module take it? */
static inline bool image_usable(const struct image *image)
{
	return !image->load && !image->replay;
}

/**
 * image_dump() - all of it
 * @image: image
 * @name: of the device
 * @json: as one line of JSON, not as text
 * @to: stream
 */
void image_dump(struct image *image, const char *name, bool json, FILE *to);

/**
 * image_report() - what is wrong with it, and how it ends
 * @image: image
 * @name: of the device
 * @json: as one line of JSON, not as text
 * @to: stream
 */
void image_report(const struct image *image, const char *name, bool json, FILE *to);

/**
 * image_slot() - a block of the log's ring
 * @image: image whose superblock could be had
 * @index: which, below meta.layout.log_blocks
 * @log: the block, until the next call; NULL if it cannot be read
 */
enum image_slot image_slot(struct image *image, uint64_t index,
			   const struct repl_disk_log **log);

/* For who makes an image: "16 TiB", "1.5 MiB", and a UUID's 36 characters. */
#define IMAGE_SIZE_TEXT 32
#define IMAGE_UUID_TEXT 37
void image_size_text(uint64_t bytes, char *text);
void image_uuid_text(const uint8_t *uuid, char *text);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Meta: reading and making the blocks of format.h. Pure: the module, replctl
 * and the tests use the same source.
 *
 * Nothing here allocates or waits, but for what the reader's functions do.
 */
#ifndef DM_REPL_META_H
#define DM_REPL_META_H

#ifdef __KERNEL__
#include <linux/kernel.h>
#else
#include "user.h"
#endif

#include "format.h"

/* Whose data it is, and where that has come from. */
struct repl_identity {
	enum repl_disk_role role;
	u8 lineage[REPL_UUID_SIZE];
	u8 parent[REPL_UUID_SIZE];
	u64 parent_checkpoint;
};

struct repl_meta_state {
	u64 checkpoint;
	u64 prepared;
	enum repl_disk_stage stage;
	u8 flags;
	bool kept;			/* by a primary that keeps the user's maps */
	u32 errors;
	struct repl_identity identity;
};

/* Where things are, in blocks of the metadata device. */
struct repl_layout {
	u64 sectors;			/* of the chain */
	u32 region_size;		/* sectors */
	u64 nr_regions;
	u64 map_blocks;			/* bitmap blocks of one map */
	u64 summary_blocks;
	u64 area_blocks;
	u64 area_start[2];
	u64 log_start;
	u64 log_blocks;
	u64 blocks;			/* used in all */
};

/* A superblock. */
struct repl_meta {
	u8 uuid[REPL_UUID_SIZE];
	struct repl_layout layout;
	u64 created;			/* seconds since 1970 */
	u64 generation;
	bool unrecorded;		/* all is dirty, whatever the log says */
	unsigned int area;
	u64 area_generation;
	u64 tail;
	u64 tail_prev;
	struct repl_meta_state state;
};

/* What applying a record does to the maps. */
enum repl_apply {
	REPL_APPLY_HIDDEN,		/* regions are preserved */
	REPL_APPLY_ACTIVE,		/* regions are in active */
	REPL_APPLY_MERGED,		/* regions are in neither */
	REPL_APPLY_DIRTY,		/* regions are dirty */
	REPL_APPLY_CLEAN,		/* regions are not */
	REPL_APPLY_EMPTY_HIDDEN,	/* no region is */
	REPL_APPLY_EMPTY_ACTIVE,
	REPL_APPLY_EMPTY_DIRTY,
	REPL_APPLY_DIRTY_ADD,		/* what hidden or active has is dirty */
};

/**
 * struct repl_reader - what reading metadata needs
 * @read: read @nr blocks from @block on; 0 or a negative errno
 * @apply: @what for regions [@begin, @end); 0 or a negative errno
 */
struct repl_reader {
	int (*read)(struct repl_reader *reader, u64 block, unsigned int nr,
		    void *data);
	int (*apply)(struct repl_reader *reader, enum repl_apply what,
		     u64 begin, u64 end);
};

/* What replay ends with. */
struct repl_replayed {
	struct repl_meta_state state;
	u64 next;			/* seq of the next block */
	u64 link;			/* of the last one */
	u64 blocks;			/* replayed */
};

/* Blocks that replay reads at a time, and the buffer it needs. */
#define REPL_REPLAY_BLOCKS	32
#define REPL_REPLAY_BUFFER	((REPL_REPLAY_BLOCKS + 1) * REPL_BLOCK_SIZE)

int repl_layout_init(struct repl_layout *layout, u64 sectors, u32 region_size,
		     u64 device_blocks);

int repl_layout_new(struct repl_layout *layout, u64 sectors, u32 region_size,
		    u64 device_blocks);

void repl_block_seal(void *block, u32 magic, const u8 *uuid, u64 nr);
bool repl_block_ok(const void *block, u32 magic, const u8 *uuid, u64 nr);

void repl_super_encode(const struct repl_meta *meta, void *block);
int repl_super_decode(const void *block, u64 nr, struct repl_meta *meta,
		      const char **why);
int repl_meta_load(struct repl_reader *reader, u64 device_blocks, void *buffer,
		   struct repl_meta *meta, const char **why);

u64 repl_log_block(const struct repl_layout *layout, u64 seq);
void repl_state_encode(const struct repl_meta_state *state,
		       struct repl_disk_state *disk);
bool repl_state_decode(const struct repl_disk_state *disk,
		       struct repl_meta_state *state);
__le64 repl_extent_encode(u64 begin, u64 nr, enum repl_extent_op op);
bool repl_extent_decode(__le64 extent, u64 nr_regions, u64 *begin, u64 *end,
			enum repl_extent_op *op);

u64 repl_kept_blocks(u64 sectors, unsigned int shift);
bool repl_kept_dir_ok(const struct repl_disk_kept_dir *dir, unsigned int slot,
		      const struct repl_meta *meta, u64 device_blocks);
const struct repl_disk_kept_dir *
repl_kept_choose(const struct repl_disk_kept_dir *dirs,
		 const struct repl_meta *meta, u64 device_blocks);
int repl_kept_bits_ok(const struct repl_disk_bits *bits, const u8 *uuid, u64 nr,
		      u64 index, u64 nr_bits);

int repl_replay(struct repl_reader *reader, const struct repl_meta *meta,
		void *buffer, struct repl_replayed *result, const char **why);

#endif

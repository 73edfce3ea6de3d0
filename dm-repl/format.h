/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * On-disk format of the metadata device, shared with tools/; field by field in
 * Documentation/on-disk-format.rst.
 *
 *	block	0	1	2 ..	.. ..	.. ..	       .. ..
 *		+------+------+--------+--------+--------------+-----------------+
 *		| superblock  | area 0 | area 1 | log, a ring  | the user's maps |
 *		+------+------+--------+--------+--------------+-----------------+
 *
 * Little endian, blocks of 4 KiB. Each begins with struct repl_block_head: a
 * block that was torn, is another's or lies elsewhere is not taken.
 *
 * A change that an older module would misread sets a bit of incompatible (it
 * refuses the device); one that it may ignore sets a bit of compatible. The
 * version changes only if the superblock itself cannot be read by the old.
 */
#ifndef DM_REPL_FORMAT_H
#define DM_REPL_FORMAT_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/types.h>
#else
#include <assert.h>
#include <linux/types.h>
#endif

#define REPL_META_VERSION	1
#define REPL_BLOCK_SIZE		4096
#define REPL_BLOCK_SECTORS	8
#define REPL_UUID_SIZE		16

/* repl_block_head.magic: "RpSB", "RpLG", "RpSM", "RpBM" on the disk */
#define REPL_MAGIC_SUPER	0x42537052U
#define REPL_MAGIC_LOG		0x474c7052U
#define REPL_MAGIC_SUMMARY	0x4d537052U
#define REPL_MAGIC_BITMAP	0x4d427052U
/* And behind the log: "RpKD", "RpKM" */
#define REPL_MAGIC_KEPT		0x444b7052U
#define REPL_MAGIC_KEPT_BITS	0x4d4b7052U

struct repl_block_head {
	__le32 crc;		/* crc32c of all of the block behind it */
	__le32 magic;
	__u8 uuid[REPL_UUID_SIZE]; /* of the metadata device */
	__le64 block;		/* its own number */
};

/* repl_disk_state.stage */
enum repl_disk_stage {
	REPL_DISK_NONE		= 0,
	REPL_DISK_RUNNING	= 1,
	REPL_DISK_FAILOVER	= 2,	/* merging, or to be merged again */
	REPL_DISK_DONE		= 3,
	REPL_NR_DISK_STAGES,
};

/* repl_disk_state.flags */
#define REPL_STATE_FENCED	1	/* ingest, for good */
/* .prepared may be committed: in stage running here, else by the peer */
#define REPL_STATE_PREPARED	2
#define REPL_STATE_FLAGS	3

/* repl_disk_state.role: whose the device is; it keeps what the other has left */
enum repl_disk_role {
	REPL_ROLE_NONE		= 0,
	REPL_ROLE_SECONDARY	= 1,
	REPL_ROLE_PRIMARY	= 2,
	REPL_NR_ROLES,
};

/* What there is to know beside the maps. */
struct repl_disk_state {
	__le64 checkpoint;	/* id of the last committed one: the epoch */
	__le64 prepared;
	__u8 stage;
	__u8 flags;
	__u8 role;
	__u8 kept;		/* 1: by who keeps the user's maps; others write 0 */
	__le32 errors;		/* bits of enum repl_error, latched */
	__u8 lineage[REPL_UUID_SIZE];	/* of the data; zero: none yet */
	__u8 parent[REPL_UUID_SIZE];	/* that it has left; zero: none */
	__le64 parent_checkpoint;	/* the last one that they share */
};

/* A superblock: number generation & 1 of the two. */
struct repl_disk_super {
	struct repl_block_head head;
	__le32 version;
	__le32 compatible;
	__le32 incompatible;
	__le32 region_size;	/* sectors */
	__le64 sectors;		/* of the chain */
	__le64 blocks;		/* of the metadata device that are used */
	__le64 area_blocks;	/* of each bitmap area */
	__le64 log_start;	/* block */
	__le64 log_blocks;
	__le64 created;		/* seconds since 1970; 0: unknown */
	__le64 generation;	/* of the superblock */
	__le64 area;		/* 0 or 1: the bitmaps; REPL_NO_AREA: empty */
	__le64 area_generation;	/* of the blocks in it */
	__le64 tail;		/* sequence of the first log block to replay */
	__le64 tail_prev;	/* link of the block before it */
	struct repl_disk_state state;	/* before it */
	__u8 reserved[REPL_BLOCK_SIZE - 200];
};

/*
 * repl_disk_super.incompatible: writes have gone on that the log does not have.
 * All regions are dirty when it has been replayed.
 */
#define REPL_INCOMPAT_UNRECORDED 1

#define REPL_NO_AREA		2

/*
 * repl_disk_log.flags: to be done before its extents are, DIRTY_ADD before the
 * others: all that is in hidden or active is dirty, too
 */
#define REPL_LOG_EMPTY_HIDDEN	1
#define REPL_LOG_EMPTY_ACTIVE	2
#define REPL_LOG_EMPTY_DIRTY	4
#define REPL_LOG_DIRTY_ADD	8
#define REPL_LOG_FLAGS		15
/* An epoch ends: what was copied in it counts no more. */
#define REPL_LOG_EMPTY_EPOCH	(REPL_LOG_EMPTY_HIDDEN | REPL_LOG_EMPTY_ACTIVE)
/* And no copy of this lineage lacks anything. */
#define REPL_LOG_EMPTY_ALL	(REPL_LOG_EMPTY_EPOCH | REPL_LOG_EMPTY_DIRTY)

/* What an extent says: its lowest three bits. */
enum repl_extent_op {
	REPL_EXTENT_HIDDEN	= 0,	/* preserved in hidden */
	REPL_EXTENT_ACTIVE	= 1,	/* in active */
	REPL_EXTENT_MERGED	= 2,	/* in neither any more */
	REPL_EXTENT_DIRTY	= 3,	/* another copy may lack it */
	REPL_EXTENT_CLEAN	= 4,	/* none does */
	REPL_NR_EXTENT_OPS,
};

/* An extent: begin << 24 | (length - 1) << 3 | op, in regions. */
#define REPL_EXTENT_BEGIN_SHIFT	24
#define REPL_EXTENT_SHIFT	3
#define REPL_EXTENT_MAX		0x200000U	/* regions */
#define REPL_MAX_REGIONS	0x10000000000ULL

#define REPL_LOG_EXTENTS	495	/* in a block */
#define REPL_LOG_BATCH		16	/* blocks written together, at most */

struct repl_disk_log {
	struct repl_block_head head;
	__le64 seq;		/* one more than that of the block before it */
	__le64 first;		/* seq of the first block written with it */
	__le64 link;		/* at random */
	__le64 prev;		/* link of the block before it */
	struct repl_disk_state state;	/* from this block on */
	__le16 flags;
	__le16 nr;		/* extents */
	__le32 reserved;
	__le64 extents[REPL_LOG_EXTENTS];
};

#define REPL_BITMAP_BYTES	(REPL_BLOCK_SIZE - 64)
#define REPL_BITMAP_BITS	(8 * REPL_BITMAP_BYTES)

/* The maps, in the order of their bitmaps. */
enum repl_disk_map {
	REPL_DISK_DIRTY		= 0,
	REPL_DISK_HIDDEN	= 1,
	REPL_DISK_ACTIVE	= 2,
	REPL_NR_DISK_MAPS,
};

/*
 * A block of bits, in a bitmap area: first the summaries, one bit for each
 * bitmap block; then the bitmaps of the maps, one bit a region, in the order
 * of enum repl_disk_map. A bitmap block without a bit in it is not written,
 * and its summary bit is 0.
 */
struct repl_disk_bits {
	struct repl_block_head head;
	__le64 generation;	/* the superblock's area_generation */
	__le64 index;		/* in its area */
	__u8 reserved[16];
	__u8 bits[REPL_BITMAP_BYTES];
};

/*
 * Behind the last block that the superblock counts: the maps of a primary's user.
 * Two directories, in the first two blocks; the one with the higher generation
 * counts. Then for each map a run of struct repl_disk_bits, one bit for each piece
 * of the map's granularity, with generation 0 and an index of its own run; a block
 * of zeroes has no bit, and all of one that is damaged are set.
 *
 * A map is no more than what its blocks have, together with the regions that are
 * dirty by the log. That is what it begins with after a crash; after an orderly end,
 * which the directory speaks of, the blocks alone are it.
 */
#define REPL_KEPT_MAPS		32
#define REPL_KEPT_NAME		32	/* with its end; zeroes behind it */
#define REPL_KEPT_MIN_SHIFT	3
#define REPL_KEPT_MAX_SHIFT	17

/* repl_disk_kept.flags */
#define REPL_KEPT_ENABLED	1

struct repl_disk_kept {
	__u8 name[REPL_KEPT_NAME];
	__u8 shift;		/* log2 of sectors a bit */
	__u8 flags;
	__u8 reserved[6];
	__le64 start;		/* block */
	__le64 blocks;
	__u8 reserved2[8];
};

/* repl_disk_kept_dir.flags */
#define REPL_KEPT_CLEAN		1	/* the blocks are exact, if .next is right */
#define REPL_KEPT_ALL		2	/* all is set, whatever the blocks say */
#define REPL_KEPT_FLAGS		3

struct repl_disk_kept_dir {
	struct repl_block_head head;
	__le64 generation;	/* lies in directory generation & 1 */
	__le64 next;		/* clean: seq of the next log block, then */
	__le32 flags;
	__le32 nr;		/* maps */
	__u8 reserved[8];
	struct repl_disk_kept map[REPL_KEPT_MAPS];
	__u8 reserved2[REPL_BLOCK_SIZE - 64 - 64 * REPL_KEPT_MAPS];
};

static_assert(sizeof(struct repl_disk_kept) == 64, "struct repl_disk_kept");
static_assert(sizeof(struct repl_disk_kept_dir) == REPL_BLOCK_SIZE, "struct repl_disk_kept_dir");
static_assert(sizeof(struct repl_block_head) == 32, "struct repl_block_head");
static_assert(sizeof(struct repl_disk_state) == 64, "struct repl_disk_state");
static_assert(sizeof(struct repl_disk_super) == REPL_BLOCK_SIZE, "struct repl_disk_super");
static_assert(sizeof(struct repl_disk_log) == REPL_BLOCK_SIZE, "struct repl_disk_log");
static_assert(sizeof(struct repl_disk_bits) == REPL_BLOCK_SIZE, "struct repl_disk_bits");

/* Fewer log blocks than that are not worth their compaction. */
#define REPL_LOG_MIN_BLOCKS	64
/* More than that take too long to replay. */
#define REPL_LOG_MAX_BLOCKS	16384
/* Left free by all but changes of state, which therefore never wait. */
#define REPL_LOG_RESERVE	8

#endif

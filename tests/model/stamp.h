/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a sector holds. A tag (u64) says which write it was; the 512 bytes are
 * a function of the sector's number and the tag: magic, sector, sequence and
 * writer, checkpoint, filling, checksum. So one u64 a sector is all a model
 * has to keep, and every compare is of all 512 bytes. Tag 0 is zeroes.
 */
#ifndef TESTS_MODEL_STAMP_H
#define TESTS_MODEL_STAMP_H

#include "rig.h"

#define STAMP_SEQ_BITS 40

/* Not the content of any write. */
#define STAMP_BAD (~0ULL)

static inline u64 stamp_tag(u64 sequence, unsigned int writer, unsigned int checkpoint)
{
	return sequence | (u64)(writer & 0xff) << STAMP_SEQ_BITS | (u64)(checkpoint & 0x7fff) << 48;
}

static inline u64 stamp_sequence(u64 tag)
{
	return tag & ((1ULL << STAMP_SEQ_BITS) - 1);
}

static inline unsigned int stamp_writer(u64 tag)
{
	return tag >> STAMP_SEQ_BITS & 0xff;
}

static inline unsigned int stamp_checkpoint(u64 tag)
{
	return tag >> 48;
}

/* Writes @nr sectors' content for @tag to @buf; the first is @sector. */
void stamp_fill(void *buf, u64 sector, u64 nr, u64 tag);
/* The tag of a sector's 512 bytes, each of them compared; or STAMP_BAD. */
u64 stamp_tag_of(const void *buf, u64 sector);
/* For messages: @text (200 bytes) says what the bytes are. */
const char *stamp_describe(const void *buf, char *text);
const char *stamp_name(u64 tag, char *text);

#endif

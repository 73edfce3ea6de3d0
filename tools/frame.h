/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frame: what two daemons say to each other, as bytes. Pure: no I/O, and no
 * allocation at all, so that nothing the peer announces is ever allocated.
 *
 * A frame is a header and a payload. Little endian; each has its CRC-32C. What
 * is not understood (magic, version, type, flags, a length past frame_max()) is
 * an error that ends the connection: a stream that is wrong once cannot be
 * trusted to begin a frame anywhere.
 *
 * Frames are only parsed on a connection whose handshake is over (conn.h).
 */
#ifndef REPLCTL_FRAME_H
#define REPLCTL_FRAME_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "identity.h"

/*
 * What is on the wire.
 */
#define FRAME_MAGIC		0x4c504552u	/* the bytes "REPL" */
#define FRAME_VERSION		1
#define FRAME_DATA_MAX		65536		/* bytes of payload: STATE_DATA */
#define FRAME_OTHER_MAX		4096		/* bytes of payload: all others */

struct repl_frame_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t length;	/* of the payload, in bytes */
	uint32_t flags;		/* 0 */
	uint64_t id;
	uint32_t payload_crc;
	uint32_t header_crc;	/* of what is before it */
} __attribute__((packed));

static_assert(sizeof(struct repl_frame_header) == 32, "the header has 32 bytes");
static_assert(offsetof(struct repl_frame_header, header_crc) == 28, "the header's crc is last");

#define FRAME_HEADER_SIZE	sizeof(struct repl_frame_header)
#define FRAME_SIZE_MAX		(FRAME_HEADER_SIZE + FRAME_DATA_MAX)

enum repl_frame_type {
	FRAME_HELLO = 1,	/* struct repl_hello */
	FRAME_PING,
	FRAME_PONG,
	FRAME_READY,
	FRAME_REQUEST,		/* a uint64_t: the newest WANT that it answers, by its id */
	FRAME_REPLY,		/* reserved */
	FRAME_STATE_SEND,
	FRAME_STATE_SIZE,	/* reserved */
	FRAME_STATE_DATA,	/* bytes of the state */
	FRAME_STATE_END,	/* struct repl_state_end */
	FRAME_STATE_RECEIVED,
	FRAME_STATE_LOADED,
	FRAME_FAILED,		/* struct repl_reply */
	FRAME_PAUSED,		/* reserved for notices */
	FRAME_BYE,
	FRAME_RELEASED,
	FRAME_WANT,		/* id: of the wish */
	FRAME_IDENTITY,		/* struct repl_side; id: the volume */
	FRAME_DIRTY_WANT,	/* what have you changed? id: the volume */
	FRAME_DIRTY,		/* struct repl_range each; id: the volume */
	FRAME_DIRTY_END,	/* that was all; id: the volume */
	FRAME_SWITCH,		/* take over */
	FRAME_ANEW,		/* let nothing of before write; id: the volumes, a bit each */
	FRAME_NR_TYPES,		/* one more than the last */
};

/*
 * Payloads, as the program sees them. Text ends in NUL.
 */
#define FRAME_NAME_MAX		48	/* bytes: resource, host */
#define FRAME_BOOT_SIZE		16	/* bytes */
#define FRAME_TEXT_MAX		480	/* bytes */

enum repl_hello_role {
	HELLO_NO_ROLE,
	HELLO_PRIMARY,
	HELLO_SECONDARY,
	HELLO_NR_ROLES,
};

/* The kernel's enum repl_stage, in its order. */
enum repl_hello_stage {
	HELLO_STAGE_NONE,
	HELLO_STAGE_RUNNING,
	HELLO_STAGE_FAILOVER,
	HELLO_STAGE_FAILOVER_FAILED,
	HELLO_STAGE_DONE,
	HELLO_NR_STAGES,
};

struct repl_hello {
	uint32_t protocol_min;	/* 1 <= min <= max */
	uint32_t protocol_max;
	uint8_t role;		/* enum repl_hello_role */
	uint8_t stage;		/* enum repl_hello_stage */
	uint16_t nr_volumes;
	uint64_t checkpoint;	/* id of the newest that is committed */
	uint64_t prepared;	/* id; 0: none */
	uint64_t life;		/* secondary: random, and another one if its disk may have gone back */
	uint8_t boot[FRAME_BOOT_SIZE];	/* of the host, random */
	char resource[FRAME_NAME_MAX + 1];
	char host[FRAME_NAME_MAX + 1];
};

struct repl_reply {
	uint32_t code;		/* 0: yes */
	char text[FRAME_TEXT_MAX + 1];
};

struct repl_state_end {
	uint64_t size;		/* bytes in all STATE_DATA */
	uint32_t crc;		/* crc32c() of them */
};

struct repl_range {
	uint64_t sector;
	uint64_t sectors;
};

/* Bytes of each payload on the wire. */
#define FRAME_HELLO_SIZE	150
#define FRAME_REQUEST_SIZE	8
#define FRAME_REPLY_MIN		4
#define FRAME_REPLY_MAX		(FRAME_REPLY_MIN + FRAME_TEXT_MAX)
#define FRAME_STATE_END_SIZE	12
#define FRAME_IDENTITY_SIZE	72
#define FRAME_RANGE_SIZE	16
#define FRAME_RANGES_MAX	(FRAME_OTHER_MAX / FRAME_RANGE_SIZE)	/* in one DIRTY */

struct repl_frame {
	enum repl_frame_type type;
	uint64_t id;		/* of the checkpoint, or 0 */
	uint32_t length;	/* of the payload, in bytes */
	const void *payload;	/* not aligned; NULL is fine if @length is 0 */
};

/**
 * frame_name() - a type's name, for logs
 * @type: any number
 *
 * Return: for example "STATE_SEND"; "?" for what is no type.
 */
const char *frame_name(unsigned int type);

/**
 * frame_max() - how much payload may a type have?
 * @type: any number
 *
 * Return: bytes; 0 for what is no type.
 */
size_t frame_max(unsigned int type);

/**
 * frame_encode() - put a frame into bytes
 * @buf: where to; must not overlap the payload
 * @size: bytes at @buf; FRAME_SIZE_MAX is always enough
 * @frame: what
 *
 * Return: bytes written; 0 if @size is too small, or if no peer would take
 * @frame (type, length).
 */
size_t frame_encode(void *buf, size_t size, const struct repl_frame *frame);

/*
 * A reader takes a stream apart, however it is cut:
 *
 *	space = frame_reader_space(&reader, &size);
 *	n = read(fd, space, size);		at most size
 *	frame_reader_added(&reader, n);
 *	while ((r = frame_reader_next(&reader, &frame, &error)) > 0)
 *		use(&frame);
 *
 * Once frame_reader_next() has returned 0 there is always space. Once it has
 * returned -1 it returns nothing else, with the same words.
 */
struct repl_frame_reader {
	unsigned char *buffer;	/* the caller's */
	size_t size;
	size_t start, end;	/* what is in it and not taken yet */
	struct repl_error error;
	int failed;
};

/**
 * frame_reader_init() - begin a stream
 * @reader: the reader; there is nothing to free
 * @buffer: of the caller; must live as long as the reader
 * @size: bytes at @buffer; at least FRAME_SIZE_MAX
 */
void frame_reader_init(struct repl_frame_reader *reader, void *buffer, size_t size);

/**
 * frame_reader_space() - where do the next bytes go?
 * @reader: the reader
 * @size: the result: bytes there
 *
 * The payload of the last frame is gone after this.
 *
 * Return: where.
 */
void *frame_reader_space(struct repl_frame_reader *reader, size_t *size);

/**
 * frame_reader_added() - bytes were put there
 * @reader: the reader
 * @len: bytes; not more than frame_reader_space() said
 */
void frame_reader_added(struct repl_frame_reader *reader, size_t len);

/**
 * frame_reader_next() - take the next frame
 * @reader: the reader
 * @frame: the result; its payload is in the reader's buffer, until the next
 *	call of this function or frame_reader_space()
 * @error: set on -1: REPL_EXIT_FAILED
 *
 * Return: 1: a frame; 0: more bytes are needed; -1: this is no stream of ours.
 */
int frame_reader_next(struct repl_frame_reader *reader, struct repl_frame *frame,
		      struct repl_error *error);

/**
 * frame_reader_partial() - bytes of a frame that is not complete
 * @reader: the reader, after frame_reader_next() returned 0
 *
 * Return: bytes; 0 if the stream may end here.
 */
size_t frame_reader_partial(const struct repl_frame_reader *reader);

/**
 * hello_encode() - payload of HELLO
 * @hello: what; see hello_decode() for what it must be
 * @buf: FRAME_HELLO_SIZE bytes
 *
 * Return: FRAME_HELLO_SIZE.
 */
size_t hello_encode(const struct repl_hello *hello, void *buf);

/**
 * hello_decode() - payload of HELLO
 * @frame: of type FRAME_HELLO
 * @hello: the result: roles and stages are ones we know, names have 1 to
 *	FRAME_NAME_MAX letters, digits, '_', '-', '.', none of the last two first
 * @error: set on failure: REPL_EXIT_FAILED
 *
 * Return: 0, or -1 (and @hello is not to be used).
 */
int hello_decode(const struct repl_frame *frame, struct repl_hello *hello,
		 struct repl_error *error);

/**
 * reply_encode() - payload of REPLY and FAILED
 * @code: 0: yes
 * @text: why, UTF-8; cut at a character if it is longer than FRAME_TEXT_MAX;
 *	NULL: none
 * @buf: FRAME_REPLY_MAX bytes
 *
 * Return: bytes at @buf.
 */
size_t reply_encode(uint32_t code, const char *text, void *buf);

/**
 * reply_decode() - payload of FAILED
 * @frame: of type FRAME_FAILED
 * @reply: the result; the text can be shown on a terminal: what is not UTF-8,
 *	or controls the terminal or the direction of writing, has become '?'
 * @error: set on failure: REPL_EXIT_FAILED
 *
 * Return: 0, or -1.
 */
int reply_decode(const struct repl_frame *frame, struct repl_reply *reply,
		 struct repl_error *error);

/**
 * request_encode() - payload of REQUEST
 * @wish: the newest WANT that has been heard, by its id; 0: none
 * @buf: FRAME_REQUEST_SIZE bytes
 *
 * Return: FRAME_REQUEST_SIZE.
 */
size_t request_encode(uint64_t wish, void *buf);

/**
 * request_decode() - payload of REQUEST
 * @frame: of type FRAME_REQUEST
 * @wish: the result
 * @error: set on failure: REPL_EXIT_FAILED
 *
 * Return: 0, or -1.
 */
int request_decode(const struct repl_frame *frame, uint64_t *wish, struct repl_error *error);

/**
 * state_end_encode() - payload of STATE_END
 * @end: what
 * @buf: FRAME_STATE_END_SIZE bytes
 *
 * Return: FRAME_STATE_END_SIZE.
 */
size_t state_end_encode(const struct repl_state_end *end, void *buf);

/**
 * state_end_decode() - payload of STATE_END
 * @frame: of type FRAME_STATE_END
 * @end: the result
 * @error: set on failure: REPL_EXIT_FAILED
 *
 * Return: 0, or -1.
 */
int state_end_decode(const struct repl_frame *frame, struct repl_state_end *end,
		     struct repl_error *error);

/**
 * identity_encode() - payload of IDENTITY
 * @identity: what
 * @buf: FRAME_IDENTITY_SIZE bytes
 *
 * Return: FRAME_IDENTITY_SIZE.
 */
size_t identity_encode(const struct repl_side *identity, void *buf);

/**
 * identity_decode() - payload of IDENTITY
 * @frame: of type FRAME_IDENTITY
 * @identity: the result
 * @error: set on failure: REPL_EXIT_FAILED; also for flags that we do not know
 *
 * Return: 0, or -1.
 */
int identity_decode(const struct repl_frame *frame, struct repl_side *identity,
		    struct repl_error *error);

/**
 * ranges_encode() - payload of DIRTY
 * @ranges: what
 * @nr: of them; at most FRAME_RANGES_MAX
 * @buf: FRAME_OTHER_MAX bytes
 *
 * Return: bytes at @buf.
 */
size_t ranges_encode(const struct repl_range *ranges, unsigned int nr, void *buf);

/**
 * ranges_decode() - payload of DIRTY
 * @frame: of type FRAME_DIRTY
 * @sectors: length of the volume
 * @ranges: the result: FRAME_RANGES_MAX of them; none is empty or reaches past the end
 * @error: set on failure: REPL_EXIT_FAILED
 *
 * Return: how many, or -1.
 */
int ranges_decode(const struct repl_frame *frame, uint64_t sectors,
		  struct repl_range *ranges, struct repl_error *error);

#endif

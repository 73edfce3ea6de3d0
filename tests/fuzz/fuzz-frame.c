// SPDX-License-Identifier: GPL-2.0-only
/*
 * Any bytes as a stream of frames. The first byte says how:
 *
 *	bit 0	the checksums are made right before the stream is read, so
 *		that what is behind them is reached; otherwise as it comes
 *	others	the length of the pieces in which the stream arrives
 *
 * The stream is read twice, in pieces and at once, with the same result; a frame
 * that was accepted is encoded to the same bytes; and the payload goes to every
 * decoder, whose promises are asserted.
 */
#include <assert.h>
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As far as headers make sense. */
static void mend(uint8_t *data, size_t size)
{
	struct repl_frame_header header;

	while (size >= sizeof(header)) {
		memcpy(&header, data, sizeof(header));
		if (le32toh(header.length) <= size - sizeof(header))
			header.payload_crc = htole32(crc32c(0, data + sizeof(header),
							    le32toh(header.length)));
		header.header_crc = htole32(crc32c(0, &header, 28));
		memcpy(data, &header, sizeof(header));
		if (le32toh(header.length) > size - sizeof(header))
			return;
		data += sizeof(header) + le32toh(header.length);
		size -= sizeof(header) + le32toh(header.length);
	}
}

static void check_hello(const struct repl_frame *frame)
{
	struct repl_hello hello;
	unsigned char again[FRAME_HELLO_SIZE];

	if (hello_decode(frame, &hello, NULL) < 0)
		return;
	assert(frame->length == FRAME_HELLO_SIZE && frame->type == FRAME_HELLO);
	assert(hello.role < HELLO_NR_ROLES && hello.stage < HELLO_NR_STAGES);
	assert(hello.protocol_min && hello.protocol_min <= hello.protocol_max);
	assert(strlen(hello.resource) && strlen(hello.resource) <= FRAME_NAME_MAX);
	assert(strlen(hello.host) && strlen(hello.host) <= FRAME_NAME_MAX);
	assert(!strpbrk(hello.resource, "/ \n\\\"'$`") && !strpbrk(hello.host, "/ \n\\\"'$`"));
	hello_encode(&hello, again);
	assert(!memcmp(again, frame->payload, sizeof(again)));
}

static void check_reply(const struct repl_frame *frame)
{
	struct repl_reply reply, second;
	unsigned char again[FRAME_REPLY_MAX];
	struct repl_frame copy = { FRAME_FAILED, 0, 0, again };
	const char *p;

	if (reply_decode(frame, &reply, NULL) < 0)
		return;
	assert(strlen(reply.text) <= FRAME_TEXT_MAX);
	for (p = reply.text; *p; p++)
		assert((unsigned char)*p >= 0x20 && *p != 0x7f);
	/* Clean text stays as it is. */
	copy.length = reply_encode(reply.code, reply.text, again);
	assert(!reply_decode(&copy, &second, NULL));
	assert(second.code == reply.code && !strcmp(second.text, reply.text));
}

static void check_frame(const struct repl_frame *frame)
{
	struct repl_range ranges[FRAME_RANGES_MAX];
	struct repl_side identity;
	struct repl_state_end end;
	uint64_t wish;
	int nr;

	assert(frame_max(frame->type) && frame->length <= frame_max(frame->type));
	check_hello(frame);
	check_reply(frame);
	if (!request_decode(frame, &wish, NULL))
		assert(frame->length == FRAME_REQUEST_SIZE);
	if (!state_end_decode(frame, &end, NULL))
		assert(frame->length == FRAME_STATE_END_SIZE);
	if (!identity_decode(frame, &identity, NULL))
		assert(frame->length == FRAME_IDENTITY_SIZE);
	nr = ranges_decode(frame, 1000000, ranges, NULL);
	for (int i = 0; i < nr; i++)
		assert(ranges[i].sectors && ranges[i].sector + ranges[i].sectors <= 1000000);
}

struct result {
	unsigned int frames;
	uint32_t crc;		/* of all that was accepted */
	int last;
};

static struct result read_stream(const uint8_t *data, size_t size, size_t piece)
{
	static unsigned char again[FRAME_SIZE_MAX];
	unsigned char *buffer = malloc(FRAME_SIZE_MAX);
	struct repl_frame_reader reader;
	struct result result = { 0 };
	struct repl_frame frame;
	struct repl_error error;
	size_t space, len;
	void *to;

	frame_reader_init(&reader, buffer, FRAME_SIZE_MAX);
	while (size && result.last >= 0) {
		to = frame_reader_space(&reader, &space);
		assert(space);
		len = piece < size ? piece : size;
		len = len < space ? len : space;
		memcpy(to, data, len);
		frame_reader_added(&reader, len);
		data += len;
		size -= len;
		while ((result.last = frame_reader_next(&reader, &frame, &error)) > 0) {
			check_frame(&frame);
			len = frame_encode(again, sizeof(again), &frame);
			assert(len == FRAME_HEADER_SIZE + frame.length);
			result.crc = crc32c(result.crc, again, len);
			result.frames++;
		}
	}
	if (result.last < 0)
		assert(*error.text && !strchr(error.text, '\n'));
	free(buffer);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct result pieces, whole;
	size_t piece;
	uint8_t *copy;

	if (size < 2)
		return 0;
	piece = 1 + (data[0] >> 1);
	/* A copy of its own size, so that reading past its end is seen. */
	copy = malloc(size - 1);
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		mend(copy, size - 1);
	pieces = read_stream(copy, size - 1, piece);
	whole = read_stream(copy, size - 1, size);
	assert(pieces.frames == whole.frames && pieces.crc == whole.crc);
	assert(pieces.last == whole.last);
	free(copy);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/* Frames: every way in which they are refused, and streams cut anywhere. */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crc32c.h"
#include "frame.h"

static unsigned char wire[2 * FRAME_SIZE_MAX];
static struct repl_frame_reader reader;
static struct repl_error error;

/* On the heap, so that the sanitizer sees its ends. */
static int setup(void **state)
{
	void *buffer = malloc(FRAME_SIZE_MAX);

	*state = buffer;
	memset(&error, 0, sizeof(error));
	frame_reader_init(&reader, buffer, FRAME_SIZE_MAX);
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void feed(const void *data, size_t len)
{
	size_t size;
	void *space = frame_reader_space(&reader, &size);

	assert_true(size >= len);
	memcpy(space, data, len);
	frame_reader_added(&reader, len);
}

static void crc_vectors(void **state)
{
	unsigned char buf[48];
	uint32_t crc;
	size_t i;

	assert_int_equal(crc32c(0, NULL, 0), 0);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	memset(buf, 0, 32);
	assert_int_equal(crc32c(0, buf, 32), 0x8a9136aa);	/* RFC 3720, B.4 */
	memset(buf, 0xff, 32);
	assert_int_equal(crc32c(0, buf, 32), 0x62a8ab43);
	for (i = 0; i < 32; i++)
		buf[i] = i;
	assert_int_equal(crc32c(0, buf, 32), 0x46dd794e);
	for (i = 0; i < 32; i++)
		buf[i] = 31 - i;
	assert_int_equal(crc32c(0, buf, 32), 0x113fdb5c);
	for (i = 0; i <= 32; i++) {
		crc = crc32c(0, buf, i);
		assert_int_equal(crc32c(crc, buf + i, 32 - i), 0x113fdb5c);
	}
}

static void types(void **state)
{
	unsigned int type;

	assert_int_equal(FRAME_RELEASED, 16);
	assert_int_equal(FRAME_WANT, 17);
	assert_int_equal(FRAME_DIRTY_END, 21);
	assert_int_equal(FRAME_SWITCH, 22);
	assert_int_equal(FRAME_ANEW, 23);
	for (type = 1; type < FRAME_NR_TYPES; type++) {
		assert_string_not_equal(frame_name(type), "?");
		assert_int_equal(frame_max(type), type == FRAME_STATE_DATA ? 65536 : 4096);
	}
	assert_string_equal(frame_name(0), "?");
	assert_string_equal(frame_name(FRAME_NR_TYPES), "?");
	assert_int_equal(frame_max(0), 0);
	assert_int_equal(frame_max(FRAME_NR_TYPES), 0);
	assert_int_equal(frame_max(~0u), 0);
}

/* The bytes do not change from one release to the next. */
static void layout(void **state)
{
	static const unsigned char expected[] = {
		'R', 'E', 'P', 'L', 1, 0, 10, 0, 12, 0, 0, 0, 0, 0, 0, 0,
		0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
	};
	struct repl_state_end end = { 0x0102030405060708, 0xa1a2a3a4 };
	struct repl_frame frame = { FRAME_STATE_END, 0x1122334455667788, 12, wire + 100 };
	uint32_t crc;

	assert_int_equal(state_end_encode(&end, wire + 100), 12);
	assert_memory_equal(wire + 100, "\x08\x07\x06\x05\x04\x03\x02\x01\xa4\xa3\xa2\xa1", 12);
	assert_int_equal(frame_encode(wire, 44, &frame), 44);
	assert_memory_equal(wire, expected, sizeof(expected));
	memcpy(&crc, wire + 24, 4);
	assert_int_equal(le32toh(crc), crc32c(0, wire + 100, 12));
	memcpy(&crc, wire + 28, 4);
	assert_int_equal(le32toh(crc), crc32c(0, wire, 28));
	assert_memory_equal(wire + 32, wire + 100, 12);
	assert_int_equal(request_encode(0x0102030405060708, wire), FRAME_REQUEST_SIZE);
	assert_memory_equal(wire, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
}

static void encode_refuses(void **state)
{
	struct repl_frame frame = { FRAME_PING, 1, 4, "ping" };
	static char big[FRAME_DATA_MAX + 1];

	assert_int_equal(frame_encode(wire, 36, &frame), 36);
	assert_int_equal(frame_encode(wire, 35, &frame), 0);
	assert_int_equal(frame_encode(wire, 31, &frame), 0);
	assert_int_equal(frame_encode(wire, 0, &frame), 0);
	frame = (struct repl_frame){ FRAME_PING, 1, FRAME_OTHER_MAX + 1, big };
	assert_int_equal(frame_encode(wire, sizeof(wire), &frame), 0);
	frame.type = FRAME_STATE_DATA;
	assert_int_equal(frame_encode(wire, sizeof(wire), &frame), 32 + FRAME_OTHER_MAX + 1);
	frame.length = FRAME_DATA_MAX + 1;
	assert_int_equal(frame_encode(wire, sizeof(wire), &frame), 0);
	frame.length = ~0u;
	assert_int_equal(frame_encode(wire, sizeof(wire), &frame), 0);
	frame = (struct repl_frame){ 0 };
	assert_int_equal(frame_encode(wire, sizeof(wire), &frame), 0);
	frame.type = FRAME_NR_TYPES;
	assert_int_equal(frame_encode(wire, sizeof(wire), &frame), 0);
}

/* Three frames, cut in two at every byte; then byte by byte. */
static void cut_anywhere(void **state)
{
	static const struct repl_frame frames[] = {
		{ FRAME_PING, 0, 0, NULL },
		{ FRAME_STATE_DATA, 7, 100, wire + 1000 },
		{ FRAME_BYE, ~0ull, 3, "bye" },
	};
	size_t len = 0, cut, at, i, step;
	struct repl_frame frame;
	int r = 0;

	for (i = 0; i < 100; i++)
		wire[1000 + i] = i * 7;
	for (i = 0; i < 3; i++)
		len += frame_encode(wire + len, 1000 - len, &frames[i]);
	for (cut = 0; cut <= len; cut++) {
		for (at = 0, i = 0; at < len; at += step) {
			step = !cut ? 1 : at < cut ? cut : len - cut;
			feed(wire + at, step);
			while ((r = frame_reader_next(&reader, &frame, &error)) > 0) {
				assert_int_equal(frame.type, frames[i].type);
				assert_int_equal(frame.id, frames[i].id);
				assert_int_equal(frame.length, frames[i].length);
				if (frame.length)
					assert_memory_equal(frame.payload, frames[i].payload,
							    frame.length);
				i++;
			}
			assert_int_equal(r, 0);
		}
		assert_int_equal(i, 3);
		assert_int_equal(frame_reader_partial(&reader), 0);
	}
}

/* The longest frame fits, and there is always space for more of it. */
static void longest(void **state)
{
	static unsigned char data[FRAME_DATA_MAX];
	struct repl_frame frame = { FRAME_STATE_DATA, 1, sizeof(data), data };
	size_t len, at, size, step, count = 0;
	void *space;

	memset(data, 0x5a, sizeof(data));
	len = frame_encode(wire, sizeof(wire), &frame);
	assert_int_equal(len, FRAME_SIZE_MAX);
	memcpy(wire + len, wire, sizeof(wire) - len);
	for (at = 0; at < sizeof(wire); at += step) {
		space = frame_reader_space(&reader, &size);
		assert_true(size > 0);
		step = size < 50000 ? size : 50000;
		step = step < sizeof(wire) - at ? step : sizeof(wire) - at;
		memcpy(space, wire + at, step);
		frame_reader_added(&reader, step);
		while (frame_reader_next(&reader, &frame, &error) > 0) {
			assert_int_equal(frame.length, sizeof(data));
			assert_memory_equal(frame.payload, data, sizeof(data));
			count++;
		}
	}
	assert_int_equal(count, 2);
	assert_string_equal(error.text, "");
}

static void expect_error(const char *words)
{
	struct repl_frame frame;
	int again;

	for (again = 0; again < 2; again++) {
		memset(&error, 0, sizeof(error));
		assert_int_equal(frame_reader_next(&reader, &frame, &error), -1);
		assert_string_equal(error.text, words);
		assert_int_equal(error.exit, REPL_EXIT_FAILED);
	}
	assert_int_equal(frame_reader_next(&reader, &frame, NULL), -1);
}

/* A good PING with "abcd", of which one field is changed; then the header's crc is right. */
static void feed_changed(size_t offset, uint32_t value, size_t size)
{
	struct repl_frame frame = { FRAME_PING, 1, 4, "abcd" };
	uint32_t crc;

	frame_encode(wire, sizeof(wire), &frame);
	value = htole32(value);
	memcpy(wire + offset, &value, size);
	crc = htole32(crc32c(0, wire, 28));
	if (offset < 28)
		memcpy(wire + 28, &crc, 4);
	feed(wire, 32);
}

#define field(name) offsetof(struct repl_frame_header, name)

static void bad_version(void **state)
{
	feed_changed(field(version), 2, 2);
	expect_error("the peer sent a frame of version 2, we know version 1");
}

static void bad_type_zero(void **state)
{
	feed_changed(field(type), 0, 2);
	expect_error("the peer sent a frame of type 0, which we do not know");
}

static void bad_type_new(void **state)
{
	feed_changed(field(type), FRAME_NR_TYPES, 2);
	expect_error("the peer sent a frame of type 24, which we do not know");
}

static void bad_flags(void **state)
{
	feed_changed(field(flags), 0x80000000, 4);
	expect_error("the peer sent a PING with flags 0x80000000, which we do not know");
}

/* Refused by the header alone: none of the payload is there. */
static void bad_length(void **state)
{
	feed_changed(field(length), 70000, 4);
	expect_error("the peer sent a frame of 70000 bytes, 4096 is the most (PING)");
}

static void bad_length_all_ones(void **state)
{
	feed_changed(field(length), ~0u, 4);
	expect_error("the peer sent a frame of 4294967295 bytes, 4096 is the most (PING)");
}

static void bad_length_data(void **state)
{
	struct repl_frame frame = { FRAME_STATE_DATA, 1, 0, NULL };
	uint32_t value = htole32(FRAME_DATA_MAX + 1);

	frame_encode(wire, sizeof(wire), &frame);
	memcpy(wire + field(length), &value, 4);
	value = htole32(crc32c(0, wire, 28));
	memcpy(wire + 28, &value, 4);
	feed(wire, 32);
	expect_error("the peer sent a frame of 65537 bytes, 65536 is the most (STATE_DATA)");
}

static void bad_header_crc(void **state)
{
	feed_changed(field(header_crc), 0, 4);
	expect_error("the peer sent a frame whose header has a wrong checksum");
}

static void bad_payload_crc(void **state)
{
	struct repl_frame frame;

	feed_changed(field(payload_crc), 0, 4);
	assert_int_equal(frame_reader_next(&reader, &frame, &error), 0);
	assert_int_equal(frame_reader_partial(&reader), 32);
	feed("abcd", 4);
	expect_error("the peer sent a PING whose payload has a wrong checksum");
}

/* Each bit of a frame counts: nothing changed is ever accepted. */
static void each_bit(void **state)
{
	struct repl_frame frame = { FRAME_FAILED, 77, 9, "\0\0\0\0hello" };
	size_t bit, len = frame_encode(wire, sizeof(wire), &frame);

	for (bit = 0; bit < len * 8; bit++) {
		frame_reader_init(&reader, *state, FRAME_SIZE_MAX);
		wire[bit / 8] ^= 1 << bit % 8;
		feed(wire, len);
		assert_int_equal(frame_reader_next(&reader, &frame, &error), -1);
		wire[bit / 8] ^= 1 << bit % 8;
	}
}

static void bad_magic(void **state)
{
	feed("GET / HTTP/1.1\r\n", 16);
	expect_error("the peer does not speak our protocol: no frame begins here");
}

static void bad_magic_early(void **state)
{
	struct repl_frame frame;

	feed("RE", 2);
	assert_int_equal(frame_reader_next(&reader, &frame, &error), 0);
	feed("P!", 2);
	expect_error("the peer does not speak our protocol: no frame begins here");
}

static void bad_tls(void **state)
{
	feed("\x16\x03\x01\x02\x00", 5);
	expect_error("the peer speaks TLS, and we are set to plaintext");
}

static void bad_second(void **state)
{
	struct repl_frame frame = { FRAME_PONG, 5, 0, NULL };
	size_t len = frame_encode(wire, sizeof(wire), &frame);

	feed(wire, len);
	feed("x", 1);
	assert_int_equal(frame_reader_next(&reader, &frame, &error), 1);
	expect_error("the peer does not speak our protocol: no frame begins here");
}

static const struct repl_hello good_hello = {
	.protocol_min = 1,
	.protocol_max = 3,
	.role = HELLO_SECONDARY,
	.stage = HELLO_STAGE_DONE,
	.nr_volumes = 0x1234,
	.checkpoint = 0x0102030405060708,
	.prepared = 42,
	.life = ~0ull,
	.boot = { 1, 2, 3, [15] = 255 },
	.resource = "data.A-1_b",
	.host = "h",
};

static void hello_round(void **state)
{
	struct repl_frame frame = { FRAME_HELLO, 0, FRAME_HELLO_SIZE, wire };
	struct repl_hello hello;

	memset(&hello, 0xff, sizeof(hello));
	assert_int_equal(hello_encode(&good_hello, wire), FRAME_HELLO_SIZE);
	assert_int_equal(hello_decode(&frame, &hello, &error), 0);
	assert_int_equal(hello.protocol_min, 1);
	assert_int_equal(hello.protocol_max, 3);
	assert_int_equal(hello.role, HELLO_SECONDARY);
	assert_int_equal(hello.stage, HELLO_STAGE_DONE);
	assert_int_equal(hello.nr_volumes, 0x1234);
	assert_int_equal(hello.checkpoint, 0x0102030405060708);
	assert_int_equal(hello.prepared, 42);
	assert_true(hello.life == ~0ull);
	assert_memory_equal(hello.boot, good_hello.boot, 16);
	assert_string_equal(hello.resource, "data.A-1_b");
	assert_string_equal(hello.host, "h");
	assert_memory_equal(wire, "\1\0\0\0\3\0\0\0\2\4\x34\x12", 12);
	assert_memory_equal(wire + 12, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
}

static void hello_refused(struct repl_hello hello, const char *words)
{
	struct repl_frame frame = { FRAME_HELLO, 0, FRAME_HELLO_SIZE, wire };

	hello_encode(&hello, wire);
	assert_int_equal(hello_decode(&frame, &hello, &error), -1);
	assert_string_equal(error.text, words);
}

#define with(member, value) \
	({ struct repl_hello h = good_hello; h.member = (value); h; })

static void hello_values(void **state)
{
	hello_refused(with(protocol_min, 0), "the peer's HELLO has protocols 0 to 3");
	hello_refused(with(protocol_min, 4), "the peer's HELLO has protocols 4 to 3");
	hello_refused(with(role, 3), "the peer's HELLO has role 3");
	hello_refused(with(stage, 5), "the peer's HELLO has stage 5");
}

static void hello_names(void **state)
{
	static const char *const bad[] = {
		"", "-x", ".x", "a/b", "a b", "a\n", "\xc3\xa4", "a\x80", "a\x1b[", "a:b", "a'b",
	};
	struct repl_frame frame = { FRAME_HELLO, 0, FRAME_HELLO_SIZE, wire };
	struct repl_hello hello;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		hello = good_hello;
		memset(hello.resource, 0, sizeof(hello.resource));
		strcpy(hello.resource, bad[i]);
		hello_refused(hello, "the peer's HELLO has a resource that is no name");
		hello = good_hello;
		memset(hello.host, 0, sizeof(hello.host));
		strcpy(hello.host, bad[i]);
		hello_refused(hello, "the peer's HELLO has a host that is no name");
	}
	/* Something behind the NUL; no NUL at all. */
	hello_encode(&good_hello, wire);
	wire[FRAME_HELLO_SIZE - 1] = 'x';
	assert_int_equal(hello_decode(&frame, &hello, &error), -1);
	memset(wire + FRAME_HELLO_SIZE - 49, 'x', 49);
	assert_int_equal(hello_decode(&frame, &hello, &error), -1);
	wire[FRAME_HELLO_SIZE - 1] = 0;
	assert_int_equal(hello_decode(&frame, &hello, &error), 0);
	assert_int_equal(strlen(hello.host), 48);
}

/* Neither shorter nor longer, and only from the right frame. */
static void exact_lengths(void **state)
{
	struct repl_state_end end;
	struct repl_hello hello;
	struct repl_reply reply;
	struct repl_frame frame = { .payload = wire };
	uint64_t size;

	hello_encode(&good_hello, wire);
	for (frame.length = 0; frame.length < 1000; frame.length++) {
		frame.type = FRAME_HELLO;
		assert_int_equal(hello_decode(&frame, &hello, NULL),
				 frame.length == FRAME_HELLO_SIZE ? 0 : -1);
		frame.type = FRAME_REQUEST;
		assert_int_equal(request_decode(&frame, &size, NULL),
				 frame.length == 8 ? 0 : -1);
		frame.type = FRAME_STATE_END;
		assert_int_equal(state_end_decode(&frame, &end, NULL),
				 frame.length == 12 ? 0 : -1);
		frame.type = FRAME_FAILED;
		assert_int_equal(reply_decode(&frame, &reply, NULL),
				 frame.length >= 4 && frame.length <= 484 ? 0 : -1);
	}
	frame.type = FRAME_HELLO;
	frame.length = 1;
	assert_int_equal(hello_decode(&frame, &hello, &error), -1);
	assert_string_equal(error.text, "the peer sent a HELLO of 1 bytes, it has 150");
	frame.type = FRAME_PING;
	frame.length = FRAME_HELLO_SIZE;
	assert_int_equal(hello_decode(&frame, &hello, &error), -1);
	assert_string_equal(error.text, "the peer sent a PING where a HELLO belongs");
	frame.length = 8;
	assert_int_equal(request_decode(&frame, &size, &error), -1);
	assert_int_equal(reply_decode(&frame, &reply, &error), -1);
	assert_string_equal(error.text, "the peer sent a PING where a FAILED belongs");
	frame.length = 12;
	assert_int_equal(state_end_decode(&frame, &end, &error), -1);
}

static void numbers_round(void **state)
{
	struct repl_frame frame = { FRAME_REQUEST, 0, 8, wire };
	struct repl_state_end end = { 1ull << 40, 7 };
	uint64_t size;

	assert_int_equal(request_encode(~0ull - 1, wire), 8);
	assert_int_equal(request_decode(&frame, &size, &error), 0);
	assert_true(size == ~0ull - 1);
	frame.type = FRAME_STATE_END;
	frame.length = state_end_encode(&end, wire);
	memset(&end, 0, sizeof(end));
	assert_int_equal(state_end_decode(&frame, &end, &error), 0);
	assert_true(end.size == 1ull << 40 && end.crc == 7);
}

static void identity_round(void **state)
{
	struct repl_frame frame = { FRAME_IDENTITY, 0, 0, wire };
	struct repl_side it = {
		.lineage = "lineage", .parent = "parent", .fork = 1ull << 40,
		.checkpoint = ~0ull, .pending = 3, .dirty = 4, .discard = true,
	}, got;

	frame.length = identity_encode(&it, wire);
	assert_int_equal(frame.length, 72);
	memset(&got, 0, sizeof(got));
	assert_int_equal(identity_decode(&frame, &got, &error), 0);
	assert_memory_equal(&got, &it, offsetof(struct repl_side, discard));
	assert_true(got.discard);
	wire[64] ^= 2;		/* a flag */
	assert_int_equal(identity_decode(&frame, &got, &error), -1);
	wire[64] ^= 2;
	wire[68] = 1;		/* reserved */
	assert_int_equal(identity_decode(&frame, &got, &error), -1);
	wire[68] = 0;
	frame.length--;
	assert_int_equal(identity_decode(&frame, &got, &error), -1);
	frame.length++;
	frame.type = FRAME_PING;
	assert_int_equal(identity_decode(&frame, &got, &error), -1);
}

static void ranges_round(void **state)
{
	struct repl_range ranges[FRAME_RANGES_MAX], got[FRAME_RANGES_MAX];
	struct repl_frame frame = { FRAME_DIRTY, 0, 0, wire };

	for (unsigned int i = 0; i < FRAME_RANGES_MAX; i++)
		ranges[i] = (struct repl_range){ i * 8, 8 };
	frame.length = ranges_encode(ranges, FRAME_RANGES_MAX, wire);
	assert_int_equal(frame.length, FRAME_OTHER_MAX);
	assert_int_equal(ranges_decode(&frame, FRAME_RANGES_MAX * 8, got, &error),
			 FRAME_RANGES_MAX);
	assert_memory_equal(got, ranges, sizeof(ranges));
	assert_int_equal(ranges_decode(&frame, FRAME_RANGES_MAX * 8 - 1, got, &error), -1);
	assert_string_equal(error.text, "the peer's DIRTY reaches past the volume's end");
	frame.length = 0;
	assert_int_equal(ranges_decode(&frame, 8, got, &error), 0);
	frame.length = 17;
	assert_int_equal(ranges_decode(&frame, 8, got, &error), -1);
	ranges[0] = (struct repl_range){ 1, ~0ull };
	frame.length = ranges_encode(ranges, 1, wire);
	assert_int_equal(ranges_decode(&frame, 8, got, &error), -1);
	ranges[0] = (struct repl_range){ 1, 0 };
	frame.length = ranges_encode(ranges, 1, wire);
	assert_int_equal(ranges_decode(&frame, 8, got, &error), -1);
}

static void text(const char *from, size_t len, const char *to)
{
	struct repl_frame frame = { FRAME_FAILED, 0, 4 + len, NULL };
	struct repl_reply reply;
	/* On the heap: what is read past the end is seen. */
	unsigned char *payload = malloc(4 + len);

	memcpy(payload, "\x05\0\0\0", 4);
	memcpy(payload + 4, from, len);
	frame.payload = payload;
	assert_int_equal(reply_decode(&frame, &reply, &error), 0);
	assert_int_equal(reply.code, 5);
	assert_string_equal(reply.text, to);
	free(payload);
}

static void reply_text(void **state)
{
	text("", 0, "");
	text("plain text", 10, "plain text");
	text("\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7", 11,
	     "\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7");
	text("a\0b\nc\x1b[31m\x7f", 11, "a?b?c?[31m?");
	text("\xc2\x9b" "31m", 5, "?31m");			/* C1 */
	text("\xe2\x80\xae" "x", 4, "?x");			/* right to left */
	text("\xef\xbb\xbf", 3, "?");				/* BOM */
	text("\xff\xfe", 2, "??");
	text("\xc0\x80", 2, "??");				/* overlong */
	text("\xe0\x80\x80", 3, "???");
	text("\xed\xa0\x80", 3, "???");				/* surrogate */
	text("\xf4\x90\x80\x80", 4, "????");			/* past the last */
	text("\xe2\x82", 2, "??");				/* cut */
	text("\xf0\x9f\x90", 3, "???");
	text("\xe2" "ab", 3, "?ab");
}

static void reply_round(void **state)
{
	struct repl_frame frame = { FRAME_FAILED, 0, 0, wire };
	struct repl_reply reply;
	char longer[600];

	frame.length = reply_encode(0, NULL, wire);
	assert_int_equal(frame.length, 4);
	assert_int_equal(reply_decode(&frame, &reply, &error), 0);
	assert_string_equal(reply.text, "");
	frame.length = reply_encode(0xfffefdfc, "no", wire);
	assert_int_equal(reply_decode(&frame, &reply, &error), 0);
	assert_int_equal(reply.code, 0xfffefdfc);
	assert_string_equal(reply.text, "no");
	/* 479 letters, then one of two bytes: it is not torn. */
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	memcpy(longer + 479, "\xc3\xbc", 2);
	frame.length = reply_encode(1, longer, wire);
	assert_int_equal(frame.length, 4 + 479);
	longer[479] = 'b';
	longer[480] = 'c';
	frame.length = reply_encode(1, longer, wire);
	assert_int_equal(frame.length, FRAME_REPLY_MAX);
	assert_int_equal(reply_decode(&frame, &reply, &error), 0);
	assert_int_equal(strlen(reply.text), 480);
	assert_int_equal(reply.text[479], 'b');
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(crc_vectors), test(types), test(layout), test(encode_refuses),
		test(cut_anywhere), test(longest), test(bad_version), test(bad_type_zero),
		test(bad_type_new), test(bad_flags), test(bad_length), test(bad_length_all_ones),
		test(bad_length_data), test(bad_header_crc), test(bad_payload_crc),
		test(each_bit), test(bad_magic), test(bad_magic_early), test(bad_tls),
		test(bad_second), test(hello_round), test(hello_values), test(hello_names),
		test(exact_lengths), test(numbers_round), test(identity_round),
		test(ranges_round), test(reply_text), test(reply_round),
	};

	return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}

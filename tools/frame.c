// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <endian.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "crc32c.h"
#include "frame.h"

static const char *const names[FRAME_NR_TYPES] = {
	[FRAME_HELLO] = "HELLO",
	[FRAME_PING] = "PING",
	[FRAME_PONG] = "PONG",
	[FRAME_READY] = "READY",
	[FRAME_REQUEST] = "REQUEST",
	[FRAME_REPLY] = "REPLY",
	[FRAME_STATE_SEND] = "STATE_SEND",
	[FRAME_STATE_SIZE] = "STATE_SIZE",
	[FRAME_STATE_DATA] = "STATE_DATA",
	[FRAME_STATE_END] = "STATE_END",
	[FRAME_STATE_RECEIVED] = "STATE_RECEIVED",
	[FRAME_STATE_LOADED] = "STATE_LOADED",
	[FRAME_FAILED] = "FAILED",
	[FRAME_PAUSED] = "PAUSED",
	[FRAME_BYE] = "BYE",
	[FRAME_RELEASED] = "RELEASED",
	[FRAME_WANT] = "WANT",
	[FRAME_IDENTITY] = "IDENTITY",
	[FRAME_DIRTY_WANT] = "DIRTY_WANT",
	[FRAME_DIRTY] = "DIRTY",
	[FRAME_DIRTY_END] = "DIRTY_END",
	[FRAME_SWITCH] = "SWITCH",
	[FRAME_ANEW] = "ANEW",
};

const char *frame_name(unsigned int type)
{
	return type < FRAME_NR_TYPES && names[type] ? names[type] : "?";
}

size_t frame_max(unsigned int type)
{
	if (type == FRAME_STATE_DATA)
		return FRAME_DATA_MAX;
	return type < FRAME_NR_TYPES && names[type] ? FRAME_OTHER_MAX : 0;
}

size_t frame_encode(void *buf, size_t size, const struct repl_frame *frame)
{
	struct repl_frame_header header = {
		.magic = htole32(FRAME_MAGIC),
		.version = htole16(FRAME_VERSION),
		.type = htole16(frame->type),
		.length = htole32(frame->length),
		.id = htole64(frame->id),
	};

	if (!frame_max(frame->type) || frame->length > frame_max(frame->type) ||
	    size < sizeof(header) || size - sizeof(header) < frame->length)
		return 0;
	header.payload_crc = htole32(crc32c(0, frame->payload, frame->length));
	header.header_crc = htole32(crc32c(0, &header,
					   offsetof(struct repl_frame_header, header_crc)));
	memcpy(buf, &header, sizeof(header));
	if (frame->length)
		memcpy((char *)buf + sizeof(header), frame->payload, frame->length);
	return sizeof(header) + frame->length;
}

/*
 * The reader.
 */
void frame_reader_init(struct repl_frame_reader *reader, void *buffer, size_t size)
{
	assert(size >= FRAME_SIZE_MAX);
	*reader = (struct repl_frame_reader){ .buffer = buffer, .size = size };
}

void *frame_reader_space(struct repl_frame_reader *reader, size_t *size)
{
	if (reader->start) {
		memmove(reader->buffer, reader->buffer + reader->start,
			reader->end - reader->start);
		reader->end -= reader->start;
		reader->start = 0;
	}
	*size = reader->size - reader->end;
	return reader->buffer + reader->end;
}

void frame_reader_added(struct repl_frame_reader *reader, size_t len)
{
	assert(len <= reader->size - reader->end);
	reader->end += len;
}

size_t frame_reader_partial(const struct repl_frame_reader *reader)
{
	return reader->end - reader->start;
}

/* Who sends other bytes than our magic is told so before a header is there. */
static int check_magic(const unsigned char *p, size_t len, struct repl_error *error)
{
	static const unsigned char magic[4] = "REPL";

	if (!memcmp(p, magic, len < sizeof(magic) ? len : sizeof(magic)))
		return 0;
	/* A TLS record: its type, then the major version. */
	if (p[0] >= 0x14 && p[0] <= 0x17 && (len < 2 || p[1] == 0x03))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer speaks TLS, and we are set to plaintext");
	return error_set(error, REPL_EXIT_FAILED,
			 "the peer does not speak our protocol: no frame begins here");
}

static int check_header(const struct repl_frame_header *header, struct repl_error *error)
{
	unsigned int type = le16toh(header->type);
	uint32_t length = le32toh(header->length);

	/* Another version may have its checksum somewhere else. */
	if (le16toh(header->version) != FRAME_VERSION)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a frame of version %u, we know version %u",
				 le16toh(header->version), FRAME_VERSION);
	if (le32toh(header->header_crc) !=
	    crc32c(0, header, offsetof(struct repl_frame_header, header_crc)))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a frame whose header has a wrong checksum");
	if (!frame_max(type))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a frame of type %u, which we do not know", type);
	if (header->flags)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a %s with flags 0x%x, which we do not know",
				 names[type], (unsigned int)le32toh(header->flags));
	if (length > frame_max(type))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a frame of %" PRIu32 " bytes, %zu is the most (%s)",
				 length, frame_max(type), names[type]);
	return 0;
}

static int take(struct repl_frame_reader *reader, struct repl_frame *frame,
		struct repl_error *error)
{
	const unsigned char *p = reader->buffer + reader->start;
	size_t len = reader->end - reader->start;
	struct repl_frame_header header;

	if (!len)
		return 0;
	if (check_magic(p, len, error) < 0)
		return -1;
	if (len < sizeof(header))
		return 0;
	memcpy(&header, p, sizeof(header));
	if (check_header(&header, error) < 0)
		return -1;
	frame->type = le16toh(header.type);
	frame->id = le64toh(header.id);
	frame->length = le32toh(header.length);
	frame->payload = p + sizeof(header);
	if (len - sizeof(header) < frame->length)
		return 0;
	if (crc32c(0, frame->payload, frame->length) != le32toh(header.payload_crc))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a %s whose payload has a wrong checksum",
				 names[frame->type]);
	reader->start += sizeof(header) + frame->length;
	return 1;
}

int frame_reader_next(struct repl_frame_reader *reader, struct repl_frame *frame,
		      struct repl_error *error)
{
	int r = -1;

	if (!reader->failed) {
		r = take(reader, frame, &reader->error);
		reader->failed = r < 0;
	}
	if (r < 0 && error)
		*error = reader->error;
	return r;
}

/*
 * Payloads. The packed structures are the wire's.
 */
struct wire_hello {
	uint32_t protocol_min;
	uint32_t protocol_max;
	uint8_t role;
	uint8_t stage;
	uint16_t nr_volumes;
	uint64_t checkpoint;
	uint64_t prepared;
	uint64_t life;
	uint8_t boot[FRAME_BOOT_SIZE];
	char resource[FRAME_NAME_MAX + 1];
	char host[FRAME_NAME_MAX + 1];
} __attribute__((packed));

static_assert(sizeof(struct wire_hello) == FRAME_HELLO_SIZE, "HELLO's payload");

struct wire_state_end {
	uint64_t size;
	uint32_t crc;
} __attribute__((packed));

static_assert(sizeof(struct wire_state_end) == FRAME_STATE_END_SIZE, "STATE_END's payload");

#define IDENTITY_DISCARD	1u	/* wire_identity.flags */

struct wire_identity {
	uint8_t lineage[LINEAGE_SIZE];
	uint8_t parent[LINEAGE_SIZE];
	uint64_t fork;
	uint64_t checkpoint;
	uint64_t pending;
	uint64_t dirty;
	uint32_t flags;
	uint32_t reserved;	/* 0 */
} __attribute__((packed));

static_assert(sizeof(struct wire_identity) == FRAME_IDENTITY_SIZE, "IDENTITY's payload");
static_assert(sizeof(struct repl_range) == FRAME_RANGE_SIZE, "an element of DIRTY");

static int check_type(const struct repl_frame *frame, enum repl_frame_type type,
		      struct repl_error *error)
{
	if (frame->type == type)
		return 0;
	return error_set(error, REPL_EXIT_FAILED, "the peer sent a %s where a %s belongs",
			 frame_name(frame->type), names[type]);
}

/* A payload of exactly @size bytes goes to @to. */
static int get(const struct repl_frame *frame, enum repl_frame_type type, void *to, size_t size,
	       struct repl_error *error)
{
	if (check_type(frame, type, error) < 0)
		return -1;
	if (frame->length != size)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a %s of %" PRIu32 " bytes, it has %zu",
				 names[type], frame->length, size);
	memcpy(to, frame->payload, size);
	return 0;
}

/* A name, then NULs to the end. It ends up in paths and in arguments. */
static bool name_good(const char *name)
{
	size_t i, len = strnlen(name, FRAME_NAME_MAX + 1);

	if (!len || len > FRAME_NAME_MAX || *name == '-' || *name == '.')
		return false;
	for (i = 0; i < len; i++)
		if (!strchr("_-.", name[i]) &&
		    (!isascii((unsigned char)name[i]) || !isalnum((unsigned char)name[i])))
			return false;
	for (; i <= FRAME_NAME_MAX; i++)
		if (name[i])
			return false;
	return true;
}

size_t hello_encode(const struct repl_hello *hello, void *buf)
{
	struct wire_hello wire = {
		.protocol_min = htole32(hello->protocol_min),
		.protocol_max = htole32(hello->protocol_max),
		.role = hello->role,
		.stage = hello->stage,
		.nr_volumes = htole16(hello->nr_volumes),
		.checkpoint = htole64(hello->checkpoint),
		.prepared = htole64(hello->prepared),
		.life = htole64(hello->life),
	};

	memcpy(wire.boot, hello->boot, sizeof(wire.boot));
	memcpy(wire.resource, hello->resource, strnlen(hello->resource, FRAME_NAME_MAX));
	memcpy(wire.host, hello->host, strnlen(hello->host, FRAME_NAME_MAX));
	memcpy(buf, &wire, sizeof(wire));
	return sizeof(wire);
}

static int check_hello(const struct repl_hello *hello, struct repl_error *error)
{
	if (!hello->protocol_min || hello->protocol_min > hello->protocol_max)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer's HELLO has protocols %" PRIu32 " to %" PRIu32,
				 hello->protocol_min, hello->protocol_max);
	if (hello->role >= HELLO_NR_ROLES)
		return error_set(error, REPL_EXIT_FAILED, "the peer's HELLO has role %u",
				 hello->role);
	if (hello->stage >= HELLO_NR_STAGES)
		return error_set(error, REPL_EXIT_FAILED, "the peer's HELLO has stage %u",
				 hello->stage);
	if (!name_good(hello->resource))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer's HELLO has a resource that is no name");
	if (!name_good(hello->host))
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer's HELLO has a host that is no name");
	return 0;
}

int hello_decode(const struct repl_frame *frame, struct repl_hello *hello,
		 struct repl_error *error)
{
	struct wire_hello wire;

	if (get(frame, FRAME_HELLO, &wire, sizeof(wire), error) < 0)
		return -1;
	hello->protocol_min = le32toh(wire.protocol_min);
	hello->protocol_max = le32toh(wire.protocol_max);
	hello->role = wire.role;
	hello->stage = wire.stage;
	hello->nr_volumes = le16toh(wire.nr_volumes);
	hello->checkpoint = le64toh(wire.checkpoint);
	hello->prepared = le64toh(wire.prepared);
	hello->life = le64toh(wire.life);
	memcpy(hello->boot, wire.boot, sizeof(hello->boot));
	memcpy(hello->resource, wire.resource, sizeof(hello->resource));
	memcpy(hello->host, wire.host, sizeof(hello->host));
	return check_hello(hello, error);
}

/* Length of the UTF-8 character at @p, and which it is; 0 if there is none. */
static size_t utf8(const unsigned char *p, size_t len, uint32_t *point)
{
	static const uint32_t first[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t i, n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;

	if (!n || n > len)
		return 0;
	*point = n == 1 ? *p : *p & (0x7f >> n);
	for (i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		*point = *point << 6 | (p[i] & 0x3f);
	}
	if (*point < first[n] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
		return 0;
	return n;
}

/* Controls (C0, DEL, C1), line separators, direction of writing, BOM, tags, no characters. */
static bool printable(uint32_t point)
{
	return point >= 0x20 && !(point >= 0x7f && point <= 0x9f) && point != 0x61c &&
	       !(point >= 0x200b && point <= 0x200f) && !(point >= 0x2028 && point <= 0x202e) &&
	       !(point >= 0x2060 && point <= 0x206f) && point != 0xfeff &&
	       !(point >= 0xfff0 && point <= 0xfffb) && !(point >= 0xe0000 && point <= 0xe0fff) &&
	       (point & 0xfffe) != 0xfffe;
}

/* Writes no more than @len bytes: a '?' is never longer than what it stands for. */
static void sanitize(const unsigned char *from, size_t len, char *to)
{
	uint32_t point;
	size_t n;

	for (; len; from += n, len -= n) {
		n = utf8(from, len, &point);
		if (n && printable(point)) {
			memcpy(to, from, n);
			to += n;
		} else {
			*to++ = '?';
			n = n ?: 1;
		}
	}
	*to = '\0';
}

size_t reply_encode(uint32_t code, const char *text, void *buf)
{
	size_t len = text ? strlen(text) : 0;

	if (len > FRAME_TEXT_MAX)
		for (len = FRAME_TEXT_MAX; len && (unsigned char)text[len] >> 6 == 2;)
			len--;
	code = htole32(code);
	memcpy(buf, &code, sizeof(code));
	if (len)
		memcpy((char *)buf + sizeof(code), text, len);
	return sizeof(code) + len;
}

int reply_decode(const struct repl_frame *frame, struct repl_reply *reply,
		 struct repl_error *error)
{
	uint32_t code;

	if (check_type(frame, FRAME_FAILED, error) < 0)
		return -1;
	if (frame->length < FRAME_REPLY_MIN || frame->length > FRAME_REPLY_MAX)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a %s of %" PRIu32 " bytes, it has %d to %d",
				 names[frame->type], frame->length, FRAME_REPLY_MIN,
				 FRAME_REPLY_MAX);
	memcpy(&code, frame->payload, sizeof(code));
	reply->code = le32toh(code);
	sanitize((const unsigned char *)frame->payload + sizeof(code),
		 frame->length - sizeof(code), reply->text);
	return 0;
}

size_t request_encode(uint64_t wish, void *buf)
{
	wish = htole64(wish);
	memcpy(buf, &wish, sizeof(wish));
	return sizeof(wish);
}

int request_decode(const struct repl_frame *frame, uint64_t *wish, struct repl_error *error)
{
	uint64_t wire = 0;

	if (get(frame, FRAME_REQUEST, &wire, sizeof(wire), error) < 0)
		return -1;
	*wish = le64toh(wire);
	return 0;
}

size_t state_end_encode(const struct repl_state_end *end, void *buf)
{
	struct wire_state_end wire = { htole64(end->size), htole32(end->crc) };

	memcpy(buf, &wire, sizeof(wire));
	return sizeof(wire);
}

int state_end_decode(const struct repl_frame *frame, struct repl_state_end *end,
		     struct repl_error *error)
{
	struct wire_state_end wire;

	if (get(frame, FRAME_STATE_END, &wire, sizeof(wire), error) < 0)
		return -1;
	end->size = le64toh(wire.size);
	end->crc = le32toh(wire.crc);
	return 0;
}

size_t identity_encode(const struct repl_side *identity, void *buf)
{
	struct wire_identity wire = {
		.fork = htole64(identity->fork),
		.checkpoint = htole64(identity->checkpoint),
		.pending = htole64(identity->pending),
		.dirty = htole64(identity->dirty),
		.flags = htole32(identity->discard ? IDENTITY_DISCARD : 0),
	};

	memcpy(wire.lineage, identity->lineage, LINEAGE_SIZE);
	memcpy(wire.parent, identity->parent, LINEAGE_SIZE);
	memcpy(buf, &wire, sizeof(wire));
	return sizeof(wire);
}

int identity_decode(const struct repl_frame *frame, struct repl_side *identity,
		    struct repl_error *error)
{
	struct wire_identity wire;

	if (get(frame, FRAME_IDENTITY, &wire, sizeof(wire), error) < 0)
		return -1;
	if (le32toh(wire.flags) & ~IDENTITY_DISCARD || wire.reserved)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer's IDENTITY has flags that nobody knows here");
	memcpy(identity->lineage, wire.lineage, LINEAGE_SIZE);
	memcpy(identity->parent, wire.parent, LINEAGE_SIZE);
	identity->fork = le64toh(wire.fork);
	identity->checkpoint = le64toh(wire.checkpoint);
	identity->pending = le64toh(wire.pending);
	identity->dirty = le64toh(wire.dirty);
	identity->discard = le32toh(wire.flags) & IDENTITY_DISCARD;
	return 0;
}

size_t ranges_encode(const struct repl_range *ranges, unsigned int nr, void *buf)
{
	struct repl_range wire;

	for (unsigned int i = 0; i < nr; i++) {
		wire.sector = htole64(ranges[i].sector);
		wire.sectors = htole64(ranges[i].sectors);
		memcpy((char *)buf + i * sizeof(wire), &wire, sizeof(wire));
	}
	return nr * sizeof(wire);
}

int ranges_decode(const struct repl_frame *frame, uint64_t sectors,
		  struct repl_range *ranges, struct repl_error *error)
{
	unsigned int nr = frame->length / sizeof(*ranges);

	if (check_type(frame, FRAME_DIRTY, error) < 0)
		return -1;
	if (frame->length % sizeof(*ranges) || nr > FRAME_RANGES_MAX)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer sent a DIRTY of %" PRIu32 " bytes", frame->length);
	if (nr)
		memcpy(ranges, frame->payload, frame->length);
	for (unsigned int i = 0; i < nr; i++) {
		struct repl_range *range = &ranges[i];

		range->sector = le64toh(range->sector);
		range->sectors = le64toh(range->sectors);
		if (!range->sectors || range->sector >= sectors ||
		    range->sectors > sectors - range->sector)
			return error_set(error, REPL_EXIT_FAILED,
					 "the peer's DIRTY reaches past the volume's end");
	}
	return nr;
}

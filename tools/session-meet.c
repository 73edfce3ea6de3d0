// SPDX-License-Identifier: GPL-2.0-only
/*
 * Session: two hosts meet. After HELLO each says of each volume whose history it has
 * (IDENTITY, see identity.h), and only when all of that has come does pair.c hear of the
 * HELLO. So what is done with a secondary that has no checkpoint of this life is decided
 * in one place, from what both disks say:
 *
 *	old primary that returns	its changes are asked for (DIRTY_WANT) and sent
 *					over with ours; then comes its first checkpoint
 *	anything else			words for a person: only he knows. If he has all
 *					of it sent over, that comes to the same
 *
 * A secondary in stage running takes checkpoints as ever; with the first it commits it
 * takes over the primary's lineage. But if one side's image is older than the other knows it
 * to be, or the secondary goes on with the history of a third host, what they differ by is
 * in nobody's map: nothing is sent by itself, and no checkpoint before all is sent over.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dirty.h"
#include "dm.h"
#include "role.h"
#include "session-i.h"
#include "units.h"

#define APART_MS 3000		/* until two that have nothing for each other meet again */
#define SWITCH_MS 60000		/* so long a failover is the one that we have asked for */
#define RANGES_MAX 1000000	/* of one volume; the primary has them in /run, which is memory */

/**
 * meet_reset() - another connection, or none
 * @s: session
 */
void meet_reset(struct session *s)
{
	if (s->meet.file)
		fclose(s->meet.file);
	sd_event_source_disable_unref(s->meet.give);
	memset(&s->meet, 0, sizeof(s->meet));
}

/* What both have said is out: ours, once. */
static void tell_identities(struct session *s)
{
	unsigned char payload[FRAME_IDENTITY_SIZE];
	struct repl_error error;

	if (!s->meet.greeted || !s->meet.heard || s->meet.told)
		return;
	s->meet.told = true;
	for (unsigned int i = 0; i < s->config->volumes; i++) {
		if (role_side(&s->resource, i, &s->meet.ours[i], &error)) {
			say(s, 3, "%s", error.text);
			if (s->conn)
				conn_close(s->conn, "our devices are not up");
			return;
		}
		identity_encode(&s->meet.ours[i], payload);
		send_frame(s, FRAME_IDENTITY, i, payload, sizeof(payload));
	}
}

/**
 * meet_greeted() - our HELLO is out
 * @s: session
 */
void meet_greeted(struct session *s)
{
	s->meet.greeted = true;
	tell_identities(s);
}

/**
 * meet_hello() - the peer's HELLO has come
 * @s: session
 * @event: for pair.c, when the peer's IDENTITYs are here
 * @blank: the secondary is in stage none
 */
void meet_hello(struct session *s, const struct pair_event *event, bool blank)
{
	s->meet.heard = true;
	s->meet.blank = blank;
	s->meet.hello = *event;
	s->meet.nr = 0;
	tell_identities(s);
}

/*
 * ---- The verdict ----
 */

static unsigned int rank(enum repl_decision decision)
{
	return decision == DECIDE_REFUSE ? 3 : decision == DECIDE_FULL ? 2 :
	       decision == DECIDE_INCREMENTAL ? 1 : 0;
}

/* Of one volume: what the primary says, and the secondary, whichever of them is here. */
static const struct repl_side *primary_side(const struct session *s, unsigned int volume)
{
	return s->pair.role == PAIR_PRIMARY ? &s->meet.ours[volume] : &s->meet.theirs[volume];
}

static const struct repl_side *secondary_side(const struct session *s, unsigned int volume)
{
	return s->pair.role == PAIR_PRIMARY ? &s->meet.theirs[volume] : &s->meet.ours[volume];
}

/* @running: the secondary has a checkpoint of this life */
static bool all_may_full(const struct session *s, bool running)
{
	bool may = true;

	for (unsigned int i = 0; i < s->config->volumes; i++) {
		const struct repl_side *one = primary_side(s, i), *other = secondary_side(s, i);
		struct repl_verdict verdict;

		identity_decide(one, other, &verdict);
		may &= identity_may_full(one, other, &verdict, running);
	}
	return may;
}

/**
 * meet_may_full() - may all of our disks be sent to the secondary of this connection?
 * @s: session; primary, and connected
 *
 * Return: false: not before its host has agreed.
 */
bool meet_may_full(const struct session *s)
{
	return all_may_full(s, !s->meet.blank);
}

static struct repl_meeting meeting_of(const struct session *s, bool running)
{
	const struct repl_config *config = s->config;
	unsigned int here = s->resource.here;
	bool primary = s->pair.role == PAIR_PRIMARY;
	struct repl_meeting meeting = {
		.resource = config->name,
		.primary_host = config->host[primary ? here : !here].name,
		.secondary_host = config->host[primary ? !here : here].name,
		.running = running,
		.must_agree = !all_may_full(s, running),
	};

	for (unsigned int i = 0; i < config->volumes; i++) {
		uint64_t size = config->volume[i].region_size;

		meeting.primary_changed += primary_side(s, i)->dirty * size;
		meeting.secondary_changed += secondary_side(s, i)->dirty * size;
	}
	return meeting;
}

/* Of all volumes: may replication begin by itself? @worst: the strictest one's words */
static bool meet_decide(struct session *s, char *worst, size_t size)
{
	struct repl_meeting meeting = meeting_of(s, false);
	unsigned int highest = 0;
	bool may = true;

	for (unsigned int i = 0; i < s->config->volumes; i++) {
		const struct repl_side *one = primary_side(s, i), *other = secondary_side(s, i);
		struct repl_verdict verdict;
		unsigned int mine;

		identity_decide(one, other, &verdict);
		mine = rank(identity_may(&verdict, false, false));
		may &= mine < 2;
		if (i && mine <= highest)
			continue;
		highest = mine;
		identity_explain(&meeting, one, other, &verdict, worst, size);
	}
	return may;
}

/*
 * Somebody has said that both hold the same, or it is the one that we have been sending to.
 * (A leg may be dead, and nobody has noticed yet: but of another boot nothing is believed.)
 */
static bool believed(const struct session *s)
{
	struct pair_kernel kernel;
	struct repl_error error;

	return !resource_kernel(&s->resource, &kernel, &error) && kernel.attached;
}

/*
 * Of a secondary in stage running: can the two go on? If not, @text says why. (Whether it is
 * believed only the primary knows; a secondary hears it by the next checkpoint.)
 */
static bool meet_running(struct session *s, struct pair_hello *hello, char *text, size_t size)
{
	struct repl_meeting meeting = meeting_of(s, true);

	for (unsigned int i = 0; i < s->config->volumes; i++) {
		const struct repl_side *one = primary_side(s, i), *other = secondary_side(s, i);
		struct repl_verdict verdict;

		identity_decide(one, other, &verdict);
		hello->restored = identity_restored(&verdict);
		hello->foreign = identity_foreign(one, &verdict) &&
				 (s->pair.role != PAIR_PRIMARY || hello->rebooted ||
				  !believed(s));
		if (!hello->restored && !hello->foreign)
			continue;
		identity_explain(&meeting, one, other, &verdict, text, size);
		return false;
	}
	return true;
}

/* One that was asked for ('replctl switch') has words of its own. */
static bool planned(const struct session *s)
{
	return s->pair.role == PAIR_PRIMARY ? s->let_go && now_ms() - s->let_go < SWITCH_MS :
					      s->switching;
}

/* It has failed over, some volume at least: that one's words. */
static void meet_over(struct session *s, char *text, size_t size)
{
	struct repl_meeting meeting = meeting_of(s, false);
	struct repl_verdict verdict;
	unsigned int i = 0;

	meeting.over = true;
	do {
		identity_decide(primary_side(s, i), secondary_side(s, i), &verdict);
	} while (verdict.kinship != KIN_SECONDARY_LEFT && ++i < s->config->volumes);
	i %= s->config->volumes;
	identity_decide(primary_side(s, i), secondary_side(s, i), &verdict);
	identity_explain(&meeting, primary_side(s, i), secondary_side(s, i), &verdict, text,
			 size);
}

/* When it was that the two had the same; as far as this daemon has been there. */
static void add_when(const struct session *s, char *text, size_t size)
{
	time_t when = s->last_when;
	size_t used = strlen(text);
	struct tm tm;

	if (!when || !gmtime_r(&when, &tm) || used >= size)
		return;
	if (!strftime(text + used, size - used,
		      "\nthe last checkpoint was at %F %T UTC, by the clock here", &tm))
		text[used] = 0;		/* no room */
}

/*
 * Line by line, once: the two meet again and again, and what either has changed grows
 * meanwhile. The status has it as it is now.
 */
static void explain(struct session *s, char *text, size_t size)
{
	size_t n = strcspn(text, "\n");
	bool known = !strncmp(s->why_apart, text, n) && s->why_apart[n] == '\n';

	add_when(s, text, size);
	snprintf(s->why_apart, sizeof(s->why_apart), "%s", text);
	for (char *line = text, *next; line && !known; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		say(s, 4, "%s", line);
	}
}

/* The primary knows what there is to know of this peer; so does who waits to hear it. */
static void met(struct session *s)
{
	session_feed(s, &s->meet.hello);
	ask_met(s, true);
}

/* Each side can say it: a person is looked for, and no other connection for a while. */
static void two_primaries(struct session *s)
{
	struct repl_meeting meeting = meeting_of(s, false);
	char text[sizeof(s->why_apart)];
	struct repl_verdict verdict;

	identity_explain_two(&meeting, &s->meet.ours[0], &s->meet.theirs[0], text,
			     sizeof(text));
	if (!planned(s))
		explain(s, text, sizeof(text));
	s->not_before = now_ms() + APART_MS;
	/* It was our secondary, and has failed over: that is all there is to know. */
	identity_decide(&s->meet.ours[0], &s->meet.theirs[0], &verdict);
	if (verdict.kinship == KIN_SECONDARY_LEFT) {
		s->meet.hello.hello.role = PAIR_SECONDARY;
		s->meet.hello.hello.over = true;
	}
	met(s);
}

/* Where the secondary's worker finds them; they last as long as its kernel's memory. */
static void keep_lineages(struct session *s)
{
	char path[256];
	FILE *f;

	s->adopt = false;
	for (unsigned int i = 0; i < s->config->volumes; i++) {
		const uint8_t *l = s->meet.theirs[i].lineage;
		char text[37];

		resource_volume_file(&s->resource, i, "lineage", path, sizeof(path));
		if (!memcmp(l, (uint8_t[LINEAGE_SIZE]){ 0 }, LINEAGE_SIZE)) {
			unlink(path);
			continue;
		}
		s->adopt |= memcmp(l, s->meet.ours[i].lineage, LINEAGE_SIZE) != 0;
		uuid_format(l, text);
		f = fopen(path, "we");
		if (!f || fprintf(f, "%s\n", text) < 0)
			say(s, 3, "%s: %s", path, strerror(errno));
		if (f)
			fclose(f);
	}
}

static void want_dirty(struct session *s, unsigned int volume)
{
	char path[256];

	s->meet.volume = volume;
	s->meet.ranges = 0;
	s->meet.sectors = blockdev_sectors(s->config->volume[volume].on[s->resource.here].disk,
					   NULL);
	resource_volume_file(&s->resource, volume, "missing.new", path, sizeof(path));
	s->meet.file = fopen(path, "we");
	if (!s->meet.file) {
		say(s, 3, "%s: %s", path, strerror(errno));
		conn_close(s->conn, "there is no place for what the peer has changed");
		return;
	}
	send_frame(s, FRAME_DIRTY_WANT, volume, NULL, 0);
}

/* The newest id that our disks know of; @asked: also those without an answer */
static uint64_t newest_of_ours(const struct session *s, bool asked)
{
	uint64_t newest = 0;

	for (unsigned int i = 0; i < s->config->volumes; i++) {
		const struct repl_side *ours = &s->meet.ours[i];

		if (ours->checkpoint > newest)
			newest = ours->checkpoint;
		if (asked && ours->pending > newest)
			newest = ours->pending;
	}
	return newest;
}

/* The secondary may begin: with what our next checkpoint is. */
static void begins(struct session *s)
{
	struct pair_hello *hello = &s->meet.hello.hello;

	s->why_apart[0] = 0;
	s->first_wanted = true;
	hello->running = true;
	hello->blank = true;
	/* An id that was asked for may be on a disk that is away. */
	if (newest_of_ours(s, true) > hello->checkpoint)
		hello->checkpoint = newest_of_ours(s, true);
}

/**
 * meet_synced() - somebody had all of the disks sent over, and that has ended
 * @s: session
 *
 * So whatever the secondary of this connection was, it can begin.
 */
void meet_synced(struct session *s)
{
	if (s->pair.role != PAIR_PRIMARY || !s->pair.connected || !s->meet.blank ||
	    s->pair.running)
		return;
	begins(s);
	s->meet.hello.hello.rebooted = false;
	session_feed(s, &s->meet.hello);
}

static void meet_primary(struct session *s)
{
	struct pair_hello *hello = &s->meet.hello.hello;
	char text[sizeof(s->why_apart)];

	if (hello->over) {
		if (!planned(s)) {
			meet_over(s, text, sizeof(text));
			explain(s, text, sizeof(text));
		}
		/* It may come back as a secondary, by somebody's word. */
		s->not_before = now_ms() + APART_MS;
		met(s);
		return;
	}
	if (!s->meet.blank) {
		hello->floor = newest_of_ours(s, false);
		if (meet_running(s, hello, text, sizeof(text)))
			s->why_apart[0] = 0;
		else
			explain(s, text, sizeof(text));
		met(s);
		return;
	}
	if (!meet_decide(s, text, sizeof(text))) {
		explain(s, text, sizeof(text));
		met(s);
		return;
	}
	/* Its disk and ours differ by what either has changed: send that, then begin. */
	say(s, 5, "%s: what either side has changed is sent", text[0] ? strtok(text, "\n") : "");
	begins(s);
	hello->rebooted = true;
	s->meet.fetching = true;
	met(s);
	if (s->conn)
		want_dirty(s, 0);
}

/* Both sides say the same; a person may sit at either. */
static void meet_secondary(struct session *s)
{
	char text[sizeof(s->why_apart)];
	struct pair_hello ignored = { 0 };
	struct pair_kernel kernel;
	struct repl_error error;
	bool good = true;

	keep_lineages(s);
	if (resource_kernel(&s->resource, &kernel, &error)) {
		say(s, 3, "%s", error.text);
	} else if (!kernel.partly_over) {
		good = kernel.blank ? meet_decide(s, text, sizeof(text)) :
		       meet_running(s, &ignored, text, sizeof(text));
	} else if (!planned(s)) {
		good = false;
		meet_over(s, text, sizeof(text));
	}
	if (good)
		s->why_apart[0] = 0;
	else
		explain(s, text, sizeof(text));
	session_feed(s, &s->meet.hello);
}

static void meet_identity(struct session *s, const struct repl_frame *frame)
{
	struct repl_error error;

	if (!s->meet.heard || s->meet.nr >= s->config->volumes || frame->id != s->meet.nr) {
		conn_close(s->conn, "the peer sent an IDENTITY that nobody waits for");
		return;
	}
	if (identity_decode(frame, &s->meet.theirs[s->meet.nr], &error)) {
		conn_close(s->conn, error.text);
		return;
	}
	if (++s->meet.nr < s->config->volumes)
		return;
	if (!s->meet.told) {
		conn_close(s->conn, "the peer sent IDENTITYs before it had our HELLO");
		return;
	}
	if (s->pair.role == PAIR_PRIMARY && s->meet.hello.hello.role == PAIR_PRIMARY)
		two_primaries(s);
	else if (s->pair.role == PAIR_PRIMARY)
		meet_primary(s);
	else
		meet_secondary(s);
}

/*
 * ---- What the other has changed ----
 */

static void fetched(struct session *s)
{
	char path[256], temp[256];
	bool good = !ferror(s->meet.file);

	good &= !fclose(s->meet.file);
	s->meet.file = NULL;
	resource_volume_file(&s->resource, s->meet.volume, "missing", path, sizeof(path));
	resource_volume_file(&s->resource, s->meet.volume, "missing.new", temp, sizeof(temp));
	if (!good || rename(temp, path)) {
		say(s, 3, "%s: %s", path, strerror(errno));
		conn_close(s->conn, "there is no room for what the peer has changed");
		return;
	}
	if (s->meet.volume + 1 < s->config->volumes) {
		want_dirty(s, s->meet.volume + 1);
		return;
	}
	s->meet.fetching = false;
	op_resync(s);
}

static void meet_dirty(struct session *s, const struct repl_frame *frame)
{
	static struct repl_range ranges[FRAME_RANGES_MAX];
	struct repl_error error;
	int nr;

	if (!s->meet.file || frame->id != s->meet.volume) {
		conn_close(s->conn, "the peer sent changes that nobody waits for");
		return;
	}
	if (frame->type == FRAME_DIRTY_END) {
		fetched(s);
		return;
	}
	nr = ranges_decode(frame, s->meet.sectors, ranges, &error);
	if (nr < 0) {
		conn_close(s->conn, error.text);
		return;
	}
	s->meet.ranges += nr;
	if (s->meet.ranges > RANGES_MAX) {
		conn_close(s->conn, "the peer's changes are in too many pieces");
		return;
	}
	for (int i = 0; i < nr; i++)
		fprintf(s->meet.file, "%" PRIu64 " %" PRIu64 "\n", ranges[i].sector,
			ranges[i].sectors);
}

/* Ranges on their way to the peer. */
struct parcel {
	struct session *s;
	struct repl_range ranges[FRAME_RANGES_MAX];
	unsigned int nr;
};

static void parcel_send(struct parcel *parcel)
{
	unsigned char payload[FRAME_OTHER_MAX];

	if (parcel->nr)
		send_frame(parcel->s, FRAME_DIRTY, parcel->s->meet.volume, payload,
			   ranges_encode(parcel->ranges, parcel->nr, payload));
	parcel->nr = 0;
}

static void parcel_add(struct parcel *parcel, const struct repl_range *range)
{
	parcel->ranges[parcel->nr++] = *range;
	if (parcel->nr == FRAME_RANGES_MAX)
		parcel_send(parcel);
}

static void give_range(const struct repl_range *range, void *context)
{
	struct parcel *parcel = context;
	struct repl_range out;

	if (coalesce_add(&parcel->s->meet.coalesce, range, &out))
		parcel_add(parcel, &out);
}

/* An answer of the kernel's; from where on is asked next is in meet.from then, 0: that was all. */
static int send_answer(struct session *s, char *answer, struct repl_error *error)
{
	struct parcel parcel = { .s = s };
	struct repl_range last;

	if (dirty_extents_parse(answer, s->meet.from, give_range, &parcel, &s->meet.from, error))
		return -1;
	if (!s->meet.from && coalesce_end(&s->meet.coalesce, &last))
		parcel_add(&parcel, &last);
	parcel_send(&parcel);
	return 0;
}

/* A piece each time: the loop has other things to do, and the peer reads as it can. */
static int give(sd_event_source *source, void *arg)
{
	static char answer[32768];
	struct session *s = arg;
	char name[128], message[64];
	struct repl_error error;

	if (!s->conn || !s->open)
		return 0;
	if (conn_queued(s->conn) > CONN_QUEUE_LOW)
		return 0;		/* meet_writable() goes on */
	resource_device(&s->resource, s->meet.volume, false, name, sizeof(name));
	snprintf(message, sizeof(message), "dirty extents dirty %" PRIu64, s->meet.from);
	if (dm_message(name, message, answer, sizeof(answer), &error) ||
	    send_answer(s, answer, &error)) {
		conn_close(s->conn, error.text);
		return 0;
	}
	if (s->meet.from)
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	else
		send_frame(s, FRAME_DIRTY_END, s->meet.volume, NULL, 0);
	return 0;
}

/**
 * meet_writable() - the peer has read some
 * @s: session
 */
void meet_writable(struct session *s)
{
	if (s->meet.give && s->meet.from)
		sd_event_source_set_enabled(s->meet.give, SD_EVENT_ONESHOT);
}

static void meet_want(struct session *s, const struct repl_frame *frame)
{
	struct repl_error error;
	uint64_t sectors;

	if (s->pair.role != PAIR_SECONDARY || frame->id >= s->config->volumes) {
		conn_close(s->conn, "the peer asks for changes that there cannot be");
		return;
	}
	sectors = blockdev_sectors(s->config->volume[frame->id].on[s->resource.here].disk,
				   &error);
	if (!sectors) {
		conn_close(s->conn, error.text);
		return;
	}
	s->meet.volume = frame->id;
	s->meet.from = 0;
	coalesce_init(&s->meet.coalesce, sectors, RANGES_MAX);
	if (!s->meet.give && sd_event_add_defer(s->event, &s->meet.give, give, s) < 0)
		abort();
	sd_event_source_set_enabled(s->meet.give, SD_EVENT_ONESHOT);
}

/**
 * meet_frame() - is it a frame of ours?
 * @s: session
 * @frame: frame
 *
 * Return: true, and it has been dealt with.
 */
bool meet_frame(struct session *s, const struct repl_frame *frame)
{
	switch (frame->type) {
	case FRAME_IDENTITY:
		meet_identity(s, frame);
		return true;
	case FRAME_DIRTY_WANT:
		meet_want(s, frame);
		return true;
	case FRAME_DIRTY:
	case FRAME_DIRTY_END:
		meet_dirty(s, frame);
		return true;
	default:
		return false;
	}
}

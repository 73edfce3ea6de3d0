// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a chain with a metadata device is after a crash, at any moment of a
 * random workload.
 *
 * Secondary, hidden, active and metadata are nbd devices with one server, a
 * thread here: it keeps the content in memory and records each request as it
 * arrives and as it is answered, in one order over all devices.
 * (dm-log-writes records a write only with the next flush: one that overtakes
 * the record that should come before it cannot be seen. And on one device a
 * flush of hidden would be a flush of active too.)
 *
 * Then for many moments: what had been answered, and flushed or written with
 * FUA, is there, and a random part of the rest; the server serves that, the
 * chain is activated, and all of the view is compared with the model. After a
 * failover each region that has a write of the view, or was not of the
 * checkpoint, must be in the dirty map.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rig.h"
#include "stamp.h"

#define REGION	 8u				/* sectors */
#define REGIONS	 160u
#define SECTORS	 (REGIONS * REGION - 3)		/* the last one is partial */
#define PART	 (REGIONS * REGION)
#define META	 (3 * PART)
#define META_SECTORS ((2 + 2 * 4 + 64) * 8u)
#define ALL	 (META + META_SECTORS)
#define BYTES	 ((size_t)ALL * SECTOR)

#define VIEW	"cr-view"
#define INGEST	"cr-ingest"
static const char *const part_name[] = { "cr-secondary", "cr-hidden", "cr-active", "cr-metadata" };

/* ------------------------------------------------------------ the server */

enum what { ARRIVED, ANSWERED };
enum type { WRITE, FLUSH };

struct request {
	enum type type;
	u8 dev;
	bool fua, answered, durable;
	u32 sector, nr;
	u8 *data;
	u32 answered_at;	/* for a flush that arrived after that */
};

struct event {
	enum what what;
	u32 request;
};

static struct request *requests;
static struct event *events;
static u32 nr_requests, max_requests;
static _Atomic u32 nr_events;
static u32 max_events;
static u8 *content;			/* what is served */
static _Atomic bool recording;
static _Atomic int fail_region = -1;	/* its writes to the secondary fail */
static int server_fd[4], nbd_fd[4];
static u64 server_seed = 1;
/* While set, no flush of hidden and nothing of metadata is answered. */
static _Atomic bool keep_log;
static _Atomic bool kept;		/* there is something that waits for that */

static void record(enum what what, u32 request)
{
	if (nr_events == max_events) {
		max_events = max_events ? 2 * max_events : 65536;
		events = realloc(events, max_events * sizeof(*events));
		need(events, "memory for events");
	}
	events[nr_events] = (struct event) { what, request };
	nr_events++;
}

static u32 new_request(enum type type, unsigned int dev, bool fua, u32 sector, u32 nr)
{
	if (nr_requests == max_requests) {
		max_requests = max_requests ? 2 * max_requests : 32768;
		requests = realloc(requests, max_requests * sizeof(*requests));
		need(requests, "memory for requests");
	}
	requests[nr_requests] = (struct request) {
		.type = type, .dev = dev, .fua = fua, .sector = sector, .nr = nr,
	};
	return nr_requests++;
}

static void read_all(unsigned int dev, void *buf, size_t len)
{
	u8 *p = buf;

	while (len) {
		ssize_t n = read(server_fd[dev], p, len);

		if (n <= 0)
			pthread_exit(NULL);
		p += n;
		len -= n;
	}
}

static void write_all(unsigned int dev, const void *buf, size_t len)
{
	const u8 *p = buf;

	while (len) {
		ssize_t n = write(server_fd[dev], p, len);

		if (n <= 0)
			pthread_exit(NULL);
		p += n;
		len -= n;
	}
}

/* Answers wait here, and leave in any order. */
static struct held {
	struct nbd_reply reply;
	unsigned int dev;
	u32 request;		/* or ~0 */
	u32 sector, nr;		/* of a read */
} held[64];
static unsigned int nr_held;

static void answer(unsigned int i)
{
	struct held h = held[i];

	held[i] = held[--nr_held];
	if (h.request != ~0U && recording) {
		requests[h.request].answered = !h.reply.error;
		record(ANSWERED, h.request);
	}
	write_all(h.dev, &h.reply, sizeof(h.reply));
	if (h.nr && !h.reply.error)
		write_all(h.dev, content + (size_t)h.sector * SECTOR, (size_t)h.nr * SECTOR);
}

/* One that may be answered, @first or one behind it; or -1 */
static int answerable(unsigned int first)
{
	for (unsigned int i = 0; i < nr_held; i++) {
		struct held *h = &held[(first + i) % nr_held];

		if (!keep_log || h->request == ~0U ||
		    (h->dev != 3 && !(h->dev == 1 && requests[h->request].type == FLUSH)))
			return (first + i) % nr_held;
		kept = true;
	}
	return -1;
}

static void take_request(unsigned int dev)
{
	struct nbd_request rq;
	struct held *h;
	u32 type, sector, nr;

	read_all(dev, &rq, sizeof(rq));
	need(rq.magic == htobe32(NBD_REQUEST_MAGIC), "nbd's magic");
	type = be32toh(rq.type) & 0xffff;
	sector = dev * PART + be64toh(rq.from) / SECTOR;
	nr = be32toh(rq.len) / SECTOR;
	if (type == NBD_CMD_DISC)
		pthread_exit(NULL);
	h = &held[nr_held++];
	*h = (struct held) { .dev = dev, .request = ~0U };
	h->reply.magic = htobe32(NBD_REPLY_MAGIC);
	memcpy(h->reply.handle, rq.handle, sizeof(rq.handle));
	if (type == NBD_CMD_READ) {
		h->sector = sector;
		h->nr = nr;
	} else if (type == NBD_CMD_WRITE) {
		static u8 buf[4 * MIB];
		int bad = fail_region;

		read_all(dev, buf, (size_t)nr * SECTOR);
		if (bad >= 0 && sector < (bad + 1) * REGION && sector + nr > bad * REGION) {
			h->reply.error = htobe32(EIO);
			return;
		}
		memcpy(content + (size_t)sector * SECTOR, buf, (size_t)nr * SECTOR);
		if (recording) {
			h->request = new_request(WRITE, dev, be32toh(rq.type) & NBD_CMD_FLAG_FUA,
						 sector, nr);
			requests[h->request].data = malloc((size_t)nr * SECTOR);
			memcpy(requests[h->request].data, buf, (size_t)nr * SECTOR);
			record(ARRIVED, h->request);
		}
	} else if (type == NBD_CMD_FLUSH) {
		if (recording) {
			h->request = new_request(FLUSH, dev, false, 0, 0);
			record(ARRIVED, h->request);
		}
	} else {
		h->reply.error = htobe32(EINVAL);
	}
}

static void *serve(void *arg)
{
	struct pollfd fds[4];

	for (unsigned int i = 0; i < 4; i++)
		fds[i] = (struct pollfd) { .fd = server_fd[i], .events = POLLIN };
	for (;;) {
		int next = nr_held ? answerable(recording ? pick(&server_seed, nr_held) : 0) : -1;

		/* What is held is answered when there is no more. */
		if (nr_held < 50 && poll(fds, 4, next >= 0 ? 0 : nr_held ? 1 : -1) > 0) {
			for (unsigned int i = 0; i < 4; i++)
				if (fds[i].revents & POLLIN)
					take_request(i);
		} else if (next >= 0) {
			answer(next);
		}
		while (recording && nr_held > 8) {
			next = answerable(pick(&server_seed, nr_held));
			if (next < 0)
				break;
			answer(next);
		}
	}
	return arg;
}

static void *nbd_do_it(void *arg)
{
	ioctl(*(int *)arg, NBD_DO_IT);
	return arg;
}

static void start_server(void)
{
	pthread_t thread;

	content = big_alloc(BYTES);
	need(!system("modprobe nbd nbds_max=4 max_part=0"), "nbd");
	for (unsigned int i = 0; i < 4; i++) {
		unsigned long sectors = i < 3 ? PART : META_SECTORS;
		char path[16];
		int fds[2];

		snprintf(path, sizeof(path), "/dev/nbd%u", i);
		nbd_fd[i] = open(path, O_RDWR);
		need(nbd_fd[i] >= 0, "%s", path);
		need(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds), "socketpair");
		server_fd[i] = fds[1];
		need(!ioctl(nbd_fd[i], NBD_SET_BLKSIZE, 512UL) &&
		     !ioctl(nbd_fd[i], NBD_SET_SIZE_BLOCKS, sectors) &&
		     !ioctl(nbd_fd[i], NBD_SET_FLAGS, (unsigned long)(NBD_FLAG_HAS_FLAGS |
			    NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA)) &&
		     !ioctl(nbd_fd[i], NBD_SET_SOCK, (unsigned long)fds[0]), "nbd is set up");
	}
	need(!pthread_create(&thread, NULL, serve, NULL), "a thread");
	for (unsigned int i = 0; i < 4; i++)
		need(!pthread_create(&thread, NULL, nbd_do_it, &nbd_fd[i]), "a thread");
	usleep(200000);
}

/* ------------------------------------------------------------- the model */

/* A state of the chain: from when it may be found, from when it must be. */
struct state {
	char stage[20];
	u64 checkpoint;
	u32 from, since;		/* events; since: ~0 while unknown */
	bool later;			/* writes of the view count */
	bool must[REGIONS];		/* be dirty, of a failover */
	u64 image[SECTORS];		/* tags */
};

#define MAX_STATES 256
static struct state *states[MAX_STATES];
static unsigned int nr_states;

/* A write of the view, while it counts. */
struct vwrite {
	u32 sector;
	u32 from, since;		/* sent, acknowledged */
	u64 tag;
};

/* A flush of the view. */
struct vflush {
	u32 from, since;
};

#define MAX_VWRITES 65536
static struct vwrite *vwrites;
static struct vflush vflushes[1024];
static unsigned int nr_vwrites, nr_vflushes;

static u64 seed, sequence;
static u64 ingest_tag[SECTORS], view_tag[SECTORS];
static bool in_active[REGIONS], in_hidden[REGIONS];	/* at least that */
static u64 checkpoint;
static bool counting;			/* the view's writes */
static int view_fd = -1, ingest_fd = -1;

static struct state *new_state(const char *stage, u64 id, bool later, const u64 *image)
{
	struct state *s = malloc(sizeof(*s));

	need(s && nr_states < MAX_STATES, "memory for a state");
	snprintf(s->stage, sizeof(s->stage), "%s", stage);
	s->checkpoint = id;
	s->later = later;
	s->from = nr_events;
	s->since = ~0U;
	memcpy(s->image, image, sizeof(s->image));
	return states[nr_states++] = s;
}

/* ----------------------------------------------------------- the devices */

static int make_view(void)
{
	return dm_make(VIEW, SECTORS, "repl-secondary", "%s %s %s %s %u", dm_path(part_name[0]),
		       dm_path(part_name[1]), dm_path(part_name[2]), dm_path(part_name[3]), REGION);
}

static void make_parts(void)
{
	for (unsigned int i = 0; i < 4; i++) {
		errno = dm_make(part_name[i], i < 3 ? SECTORS : META_SECTORS, "linear",
				"/dev/nbd%u 0", i);
		need(!errno, "%s", part_name[i]);
	}
}

static void make_chain(void)
{
	errno = make_view();
	need(!errno, "a repl-secondary");
	errno = dm_make(INGEST, SECTORS, "repl-ingest", "%s", dm_path(part_name[0]));
	need(!errno, "a repl-ingest");
	view_fd = dev_open(dm_path(VIEW));
	ingest_fd = dev_open(dm_path(INGEST));
}

static void remove_chain(void)
{
	close(ingest_fd);
	close(view_fd);
	ingest_fd = view_fd = -1;
	errno = dm_remove(INGEST);
	need(!errno, "ingest goes");
	errno = dm_remove(VIEW);
	need(!errno, "the view goes");
}

static const char *stage_now(u64 *id)
{
	static char stage[32];
	unsigned long long n = 0;

	stage[0] = 0;
	need(sscanf(dm_status(VIEW), "secondary %31s %llu", stage, &n) == 2, "a status: %s",
	     dm_status(VIEW));
	if (id)
		*id = n;
	return stage;
}

static bool is_stage(const char *stage)
{
	return !strcmp(stage_now(NULL), stage);
}

static void message(const char *text)
{
	errno = dm_message_text(VIEW, text);
	need(!errno, "message %s in stage %s", text, stage_now(NULL));
}

/* ----------------------------------------------------------- the workload */

#define MAX_BATCH 16

/* Writes that do not overlap, at once; @view: of the view. */
static void write_some(bool view, unsigned int most)
{
	struct io_req req[MAX_BATCH] = { 0 };
	unsigned int nr = 1 + pick(&seed, most), i, j;
	unsigned int first = pick(&seed, SECTORS), span = pick(&seed, 3) ? 200 : SECTORS;
	struct io_batch *batch[2];
	u64 tag[MAX_BATCH];
	u32 from;

	for (i = 0; i < nr; i++) {
		u32 sector, len;
retry:
		sector = (first + pick(&seed, span)) % SECTORS;
		if (!pick(&seed, 3))
			sector -= sector % REGION;
		len = pick(&seed, 4) ? 1 + pick(&seed, REGION) : 1 + pick(&seed, 5 * REGION);
		len = min(len, SECTORS - sector);
		for (j = 0; j < i; j++)
			if (req[j].offset / SECTOR < sector + len &&
			    sector < (req[j].offset + req[j].len) / SECTOR)
				goto retry;
		req[i].write = true;
		req[i].offset = (u64)sector * SECTOR;
		req[i].len = (size_t)len * SECTOR;
		req[i].buf = big_alloc(req[i].len);
		tag[i] = stamp_tag(++sequence, view ? 2 : 1, checkpoint);
		stamp_fill(req[i].buf, sector, len, tag[i]);
	}
	from = nr_events;
	for (i = 0; counting && view && i < nr; i++)
		for (j = 0; j < req[i].len / SECTOR; j++) {
			need(nr_vwrites < MAX_VWRITES, "room for writes");
			vwrites[nr_vwrites++] = (struct vwrite) {
				.sector = req[i].offset / SECTOR + j, .from = from, .since = ~0U,
				.tag = tag[i],
			};
		}
	/* Those of the second half may find what the first have begun. */
	j = nr / 2;
	batch[0] = io_start(view ? view_fd : ingest_fd, req, nr - j);
	if (j) {
		usleep(pick(&seed, 4) * 500);
		batch[1] = io_start(view ? view_fd : ingest_fd, req + nr - j, j);
		io_wait(batch[1]);
	}
	io_wait(batch[0]);
	for (i = 0; i < nr; i++) {
		u32 sector = req[i].offset / SECTOR, len = req[i].len / SECTOR;

		need(!req[i].error, "a write of %s succeeds: %s", view ? "the view" : "ingest",
		     strerror(req[i].error));
		for (j = sector; j < sector + len; j++) {
			(view ? view_tag : ingest_tag)[j] = tag[i];
			(view ? in_active : in_hidden)[j / REGION] = true;
		}
		free(req[i].buf);
	}
	/* After the last answer: from then on a flush makes it durable. */
	for (i = nr_vwrites; counting && view && i-- && vwrites[i].from == from &&
	     vwrites[i].since == ~0U;)
		vwrites[i].since = nr_events;
}

/* When a second write came to a region whose record was on its way. */
static struct race {
	u32 from, to;
} races[64];
static unsigned int nr_races;

static struct io_batch *write_sector(struct io_req *req, u32 sector, u64 *tag)
{
	*tag = stamp_tag(++sequence, 1, checkpoint);
	*req = (struct io_req) { .write = true, .offset = (u64)sector * SECTOR, .len = SECTOR };
	req->buf = big_alloc(SECTOR);
	stamp_fill(req->buf, sector, 1, *tag);
	return io_start(ingest_fd, req, 1);
}

/*
 * Two writes to one region, the second while the record of the first is not durable:
 * what it overwrites is in hidden, and after a crash nobody would know.
 */
static void race_record(void)
{
	u32 region = pick(&seed, REGIONS - 1), sector = region * REGION;
	struct io_req req[2];
	struct io_batch *batch[2];
	u64 tag[2];

	if (in_hidden[region] || nr_races == 64)
		return;
	kept = false;
	keep_log = true;
	batch[0] = write_sector(&req[0], sector, &tag[0]);
	for (int i = 0; i < 1000 && !kept; i++)
		usleep(200);
	races[nr_races].from = nr_events;
	batch[1] = write_sector(&req[1], sector + 1 + pick(&seed, REGION - 1), &tag[1]);
	/* One that does not wait for the record has arrived by then. */
	for (u32 i = 0, n = nr_events; i < 100 && nr_events == n; i++)
		usleep(200);
	keep_log = false;
	for (int i = 0; i < 2; i++) {
		io_wait(batch[i]);
		need(!req[i].error, "a write of ingest succeeds: %s", strerror(req[i].error));
		ingest_tag[req[i].offset / SECTOR] = tag[i];
		free(req[i].buf);
	}
	in_hidden[region] = true;
	races[nr_races++].to = nr_events;
}

static void check_live(void)
{
	u8 *buf = big_alloc((size_t)SECTORS * SECTOR);
	char a[200], b[200];

	need(!io_read(view_fd, 0, (size_t)SECTORS * SECTOR, buf), "the view can be read");
	for (u32 s = 0; s < SECTORS; s++)
		need(stamp_tag_of(buf + s * SECTOR, s) == view_tag[s],
		     "sector %u of the live view is %s, and should be %s", s,
		     stamp_describe(buf + s * SECTOR, a), stamp_name(view_tag[s], b));
	free(buf);
}

static void flush_view(void)
{
	struct vflush *f = &vflushes[nr_vflushes];
	u32 from = nr_events;
	int err = io_flush(view_fd);

	need(!err, "a flush of the view");
	if (!counting)
		return;
	need(nr_vflushes < 1024, "room for flushes");
	f->from = from;
	f->since = nr_events;
	nr_vflushes++;
}

static void transition(const char *text, const char *stage, u64 id, bool later, const u64 *image)
{
	struct state *s = new_state(stage, id, later, image);

	memset(s->must, 0, sizeof(s->must));
	for (u32 i = 0; i < REGIONS && !strcmp(stage, "failover"); i++)
		s->must[i] = in_hidden[i] || in_active[i];
	message(text);
	s->since = nr_events;
}

static void new_epoch(void)
{
	memcpy(view_tag, ingest_tag, sizeof(view_tag));
	memset(in_active, 0, sizeof(in_active));
	memset(in_hidden, 0, sizeof(in_hidden));
}

static void start_chain(void)
{
	if (counting)
		memcpy(ingest_tag, view_tag, sizeof(ingest_tag));
	transition("start", "running", checkpoint + 1, false, ingest_tag);
	counting = false;
	checkpoint++;
	new_epoch();
}

static void take_checkpoint(void)
{
	char text[64];

	if (pick(&seed, 3)) {
		transition("checkpoint", "running", checkpoint + 1, false, ingest_tag);
	} else {
		snprintf(text, sizeof(text), "checkpoint_prepare %llu",
			 (unsigned long long)checkpoint + 1);
		message(text);
		if (!pick(&seed, 3)) {
			snprintf(text, sizeof(text), "checkpoint_abort %llu",
				 (unsigned long long)checkpoint + 1);
			message(text);
			return;
		}
		snprintf(text, sizeof(text), "checkpoint_commit %llu",
			 (unsigned long long)checkpoint + 1);
		transition(text, "running", checkpoint + 1, false, ingest_tag);
	}
	checkpoint++;
	new_epoch();
}

static void stop_chain(void)
{
	need(!io_flush(ingest_fd), "a flush of ingest");
	transition("stop", "done", checkpoint, true, ingest_tag);
	memcpy(view_tag, ingest_tag, sizeof(view_tag));
	counting = true;
}

/* Writes and flushes of the view until @stage is left. */
static void use_view(unsigned int times)
{
	while (times--) {
		write_some(true, 6);
		if (!pick(&seed, 3))
			flush_view();
		if (!pick(&seed, 6))
			check_live();
	}
}

static void resume_chain(void)
{
	if (pick(&seed, 2)) {
		errno = dm_suspend(VIEW, 0);
		need(!errno, "suspend");
		errno = dm_resume(VIEW);
		need(!errno, "resume");
		return;
	}
	remove_chain();
	make_chain();
	if (is_stage("running")) {	/* what the view wrote is gone */
		memcpy(view_tag, states[nr_states - 1]->image, sizeof(view_tag));
		memset(in_active, 0, sizeof(in_active));
	}
	check_live();
}

/* Hidden and active change places, which gets a new chain; the maps are empty. */
static void reload(unsigned int hidden, unsigned int active)
{
	errno = dm_reload_one(VIEW, SECTORS, "repl-secondary", "%s %s %s %s %u",
			      dm_path(part_name[0]), dm_path(part_name[hidden]),
			      dm_path(part_name[active]), dm_path(part_name[3]), REGION);
	need(!errno, "reload");
}

static void fail_over(bool bad)
{
	int region = -1;

	if (bad) {
		unsigned int n = pick(&seed, REGIONS);

		while (region < 0 && n < 2 * REGIONS) {
			if (in_hidden[n % REGIONS] || in_active[n % REGIONS])
				region = n % REGIONS;
			n++;
		}
	}
	if (pick(&seed, 2))
		write_some(true, 6);	/* not flushed */
	message(pick(&seed, 3) ? "job speed 200" : "job speed 0");
	fail_region = region;
	transition("failover", "failover", checkpoint, true, view_tag);
	counting = true;
	/* Then only the view merges, and removals find notes that wait. */
	if (region < 0 && pick(&seed, 2))
		dm_message_text(VIEW, "job pause");
	if (region >= 0) {
		need(wait_for((bool (*)(void *))is_stage, "failover-failed", 30),
		     "the merge fails");
		use_view(2 + pick(&seed, 5));
		flush_view();
		if (!pick(&seed, 3)) {
			fail_region = -1;
			resume_chain();		/* if it is made again: merges at once */
			if (is_stage("failover-failed"))
				message("retry");
		} else {
			fail_region = -1;
			message("retry");
		}
	}
	for (int i = 0; i < 3; i++) {
		use_view(pick(&seed, 4));
		if (pick(&seed, 2))
			resume_chain();
	}
	message("job speed 0");
	dm_message_text(VIEW, "job resume");	/* if it is paused */
	need(wait_for((bool (*)(void *))is_stage, "done", 60), "the merge ends");
	check_live();
	use_view(pick(&seed, 4));
}

static void workload(void)
{
	unsigned int i, n = 10 + pick(&seed, 12);

	make_chain();
	transition("start", "running", 1, false, ingest_tag);
	checkpoint = 1;
	new_epoch();
	for (i = 0; i < n; i++) {
		write_some(false, MAX_BATCH);
		if (!pick(&seed, 3))
			race_record();
		if (pick(&seed, 2))
			write_some(true, 6);
		if (!pick(&seed, 4))
			flush_view();
		if (!pick(&seed, 5))
			need(!io_flush(ingest_fd), "a flush of ingest");
		if (!pick(&seed, 3))
			take_checkpoint();
		if (!pick(&seed, 8))
			resume_chain();
		if (!pick(&seed, 8))
			check_live();
		if (!pick(&seed, 9)) {
			stop_chain();
			use_view(pick(&seed, 3));
			if (pick(&seed, 2)) {
				reload(2, 1);
				use_view(pick(&seed, 3));
				reload(1, 2);
			}
			start_chain();
		}
	}
	fail_over(pick(&seed, 2));
	check_live();
	start_chain();
	for (i = 0; i < 3; i++) {
		write_some(false, MAX_BATCH);
		take_checkpoint();
	}
	check_live();
	remove_chain();
}

/* ------------------------------------------------------------ the moments */

static u8 *durable;
static u32 *durable_by;			/* by sector: 1 + the request it is of */
static u32 *pending, nr_pending;	/* writes that are not durable, in order */

static void make_durable(u32 r)
{
	struct request *q = &requests[r];

	q->durable = true;
	for (u32 i = 0; i < q->nr; i++)
		if (durable_by[q->sector + i] <= r) {
			durable_by[q->sector + i] = r + 1;
			memcpy(durable + (size_t)(q->sector + i) * SECTOR, q->data + i * SECTOR,
			       SECTOR);
		}
}

static void forget_durable(void)
{
	u32 i, k = 0;

	for (i = 0; i < nr_pending; i++)
		if (!requests[pending[i]].durable)
			pending[k++] = pending[i];
	nr_pending = k;
}

/* Event @e has happened. */
static void advance(u32 e)
{
	struct event *ev = &events[e];
	struct request *q = &requests[ev->request];
	u32 i;

	if (ev->what == ARRIVED) {
		if (q->type == WRITE)
			pending[nr_pending++] = ev->request;
		else
			q->answered_at = e;
		return;
	}
	if (!q->answered)
		return;
	if (q->type == WRITE) {
		q->answered_at = e;
		if (q->fua)
			make_durable(ev->request);
	} else {
		for (i = 0; i < nr_pending; i++) {
			struct request *w = &requests[pending[i]];

			if (w->dev == q->dev && w->answered_at &&
			    w->answered_at < q->answered_at)
				make_durable(pending[i]);
		}
	}
	forget_durable();
}

/* What is on the medium: all that is durable, and part of the rest. */
static void build(void)
{
	static const unsigned int parts[] = { 0, 25, 50, 50, 75, 100 };
	unsigned int part = parts[pick(&seed, 6)];
	bool torn = !pick(&seed, 3);

	memcpy(content, durable, BYTES);
	for (u32 i = 0; i < nr_pending; i++) {
		struct request *w = &requests[pending[i]];
		bool all = pick(&seed, 100) < part;

		for (u32 j = 0; j < w->nr; j++)
			if ((torn ? pick(&seed, 100) < part : all) &&
			    durable_by[w->sector + j] <= pending[i])
				memcpy(content + (size_t)(w->sector + j) * SECTOR,
				       w->data + j * SECTOR, SECTOR);
	}
}

/* Tags that sector may have, if @s was found after event @e. */
static u64 sure[SECTORS];
static bool good_tag(const struct state *s, u32 e, u32 sector, u64 tag, const u32 *first)
{
	if (sure[sector] == tag)
		return true;
	for (u32 i = first[sector]; s->later && i < nr_vwrites; i++)
		if (vwrites[i].sector == sector && vwrites[i].from < e && vwrites[i].tag == tag)
			return true;
	return false;
}

static u32 after_sure[SECTORS];

static void prepare_sure(const struct state *s, u32 e)
{
	u32 flushed = 0;

	memcpy(sure, s->image, sizeof(sure));
	memset(after_sure, 0, sizeof(after_sure));
	if (!s->later)
		return;
	for (u32 i = 0; i < nr_vflushes; i++)
		if (vflushes[i].since <= e && vflushes[i].from > flushed)
			flushed = vflushes[i].from;
	for (u32 i = 0; i < nr_vwrites; i++) {
		struct vwrite *w = &vwrites[i];

		if (w->from < s->from)
			after_sure[w->sector] = i + 1;
		else if (w->since <= flushed) {
			sure[w->sector] = w->tag;
			after_sure[w->sector] = i + 1;
		}
	}
}

/* Is the view in @buf what it may be in state @s? The first sector that is not. */
static u32 compare(const struct state *s, u32 e, const u64 *tags)
{
	u32 sector;

	prepare_sure(s, e);
	for (sector = 0; sector < SECTORS; sector++)
		if (!good_tag(s, e, sector, tags[sector], after_sure))
			break;
	return sector;
}

static bool same_stage(const struct state *s, const char *stage, u64 id)
{
	if (s->checkpoint != id)
		return false;
	if (!strcmp(s->stage, "failover"))
		return !strncmp(stage, "failover", 8) || !strcmp(stage, "done");
	return !strcmp(s->stage, stage);
}

/* What the dirty map has: false if it is not to be had. */
static bool get_dirty(bool *dirty)
{
	unsigned long long sector, nr;
	const char *line = dm_answer;
	int n;

	memset(dirty, 0, REGIONS * sizeof(*dirty));
	errno = dm_message_text(VIEW, "dirty extents dirty");
	if (errno)
		return false;
	for (; sscanf(line, "%llu %llu\n%n", &sector, &nr, &n) == 2; line += n)
		for (u32 s = sector; s < sector + nr; s++)
			dirty[s / REGION] = true;
	return !strcmp(line, "end\n");
}

/*
 * What another copy lacks is in the dirty map: what was not of the checkpoint,
 * and what of the view's writes has arrived. Before a failover nothing is.
 */
static bool good_dirty(const struct state *s, u32 e, const u64 *tags)
{
	bool must[REGIONS] = { false }, dirty[REGIONS];
	bool after = !strcmp(s->stage, "failover");

	if (!get_dirty(dirty)) {
		note("after event %u: dirty extents: %s", e, dm_answer);
		return false;
	}
	if (after)
		memcpy(must, s->must, sizeof(must));
	for (u32 i = 0; after && i < nr_vwrites; i++)
		if (vwrites[i].from >= s->from && vwrites[i].from < e &&
		    vwrites[i].tag == tags[vwrites[i].sector])
			must[vwrites[i].sector / REGION] = true;
	for (u32 i = 0; i < REGIONS; i++)
		if (must[i] ? !dirty[i] : dirty[i] && !after) {
			note("after event %u of %u: state %s: region %u is%s dirty", e, nr_events,
			     s->stage, i, dirty[i] ? "" : " not");
			return false;
		}
	return true;
}

static bool try_point(u32 e)
{
	static u64 tags[SECTORS];
	const struct state *found = NULL;
	char stage[32], text[2][200];
	u32 bad = 0;
	bool good = true;
	u64 id;
	u8 *buf;

	build();
	errno = make_view();
	if (errno) {
		note("after event %u: refused: %s", e, strerror(errno));
		return false;
	}
	snprintf(stage, sizeof(stage), "%s", stage_now(&id));
	view_fd = dev_open(dm_path(VIEW));
	if (strcmp(stage, "none")) {
		buf = big_alloc((size_t)SECTORS * SECTOR);
		errno = io_read(view_fd, 0, (size_t)SECTORS * SECTOR, buf);
		need(!errno, "the view can be read");
		for (u32 s = 0; s < SECTORS; s++)
			tags[s] = stamp_tag_of(buf + s * SECTOR, s);
		for (unsigned int i = 0; i < nr_states && !found; i++) {
			bool over = i + 1 < nr_states && states[i + 1]->since <= e;

			if (states[i]->from >= e || over || !same_stage(states[i], stage, id))
				continue;
			bad = compare(states[i], e, tags);
			if (bad == SECTORS)
				found = states[i];
			else
				snprintf(text[0], sizeof(text[0]), "%s",
					 stamp_name(sure[bad], text[1]));
		}
		if (!found) {
			good = false;
			note("after event %u of %u: stage %s, checkpoint %llu: sector %u of the view is %s, not %s",
			     e, nr_events, stage, (unsigned long long)id, bad,
			     bad < SECTORS ? stamp_describe(buf + bad * SECTOR, text[1]) : "?",
			     text[0]);
		} else {
			good = good_dirty(found, e, tags);
		}
		free(buf);
	} else if (nr_states && states[0]->since <= e) {
		note("after event %u: stage none", e);
		good = false;
	}
	close(view_fd);
	errno = dm_remove(VIEW);
	need(!errno, "the view goes");
	return good;
}

/* At the end of a flush or a FUA write, or where one arrives. */
static bool boundary(u32 e)
{
	const struct request *q = &requests[events[e].request];

	return q->type == FLUSH || q->fua;
}

/* Boundaries count most, what comes soon after a failover, and races. */
static unsigned int weight_of(u32 e)
{
	unsigned int w = boundary(e) ? 10 : 1;

	for (unsigned int i = 0; i < nr_states; i++)
		if (!strcmp(states[i]->stage, "failover") && e >= states[i]->from &&
		    e < states[i]->from + 100)
			w *= 4;
	for (unsigned int i = 0; i < nr_races; i++)
		if (e >= races[i].from && e < races[i].to)
			w *= 4;
	return w;
}

static u64 nr_bad, nr_tried, most_events, nr_boundaries;

static double begin;

static void explore(u64 points)
{
	u32 total = nr_events, e, n = 0;
	u64 weight = 0, step, next = 0;

	for (e = 0; e < total; e++) {
		n += boundary(e);
		weight += weight_of(e);
	}
	nr_boundaries += n;
	most_events += total;
	step = max(weight / points, 1);
	durable = calloc(1, BYTES);
	for (u32 s = 0; s < SECTORS; s++)
		stamp_fill(durable + (size_t)s * SECTOR, s, 1, stamp_tag(1, 0, 0));
	memset(durable + (size_t)PART * SECTOR, 0xa5, 2 * (size_t)PART * SECTOR);
	durable_by = calloc(ALL, sizeof(*durable_by));
	pending = calloc(nr_requests + 1, sizeof(*pending));
	nr_pending = 0;
	weight = 0;
	next = pick(&seed, step);
	for (e = 0; e < total; e++) {
		advance(e);
		weight += weight_of(e);
		while (weight > next && nr_bad < 5) {
			next += step;
			nr_tried++;
			if (!try_point(e + 1))
				nr_bad++;
			progress();
			if (nr_tried % 500 == 0)
				note("%llu points, %llu bad; %.0f s", (unsigned long long)nr_tried,
				     (unsigned long long)nr_bad, now() - begin);
		}
	}
	free(durable);
	free(durable_by);
	free(pending);
}

static void round_of(u64 this, u64 points)
{
	seed = server_seed = this;
	sequence = 1;
	checkpoint = 0;
	counting = false;
	for (u32 s = 0; s < SECTORS; s++)
		ingest_tag[s] = view_tag[s] = stamp_tag(1, 0, 0);
	memset(content, 0, BYTES);
	for (u32 s = 0; s < SECTORS; s++)
		stamp_fill(content + (size_t)s * SECTOR, s, 1, stamp_tag(1, 0, 0));
	memset(content + (size_t)PART * SECTOR, 0xa5, 2 * (size_t)PART * SECTOR);
	memset(in_active, 0, sizeof(in_active));
	memset(in_hidden, 0, sizeof(in_hidden));

	recording = true;
	workload();
	recording = false;
	explore(points);

	for (u32 i = 0; i < nr_requests; i++)
		free(requests[i].data);
	for (unsigned int i = 0; i < nr_states; i++)
		free(states[i]);
	nr_requests = nr_events = nr_states = nr_vwrites = nr_vflushes = nr_races = 0;
}

static void tear_down(void)
{
	dm_remove_all();
	for (unsigned int i = 0; i < 4; i++)
		if (nbd_fd[i] > 0) {
			ioctl(nbd_fd[i], NBD_DISCONNECT);
			close(nbd_fd[i]);
		}
}

int main(int argc, char **argv)
{
	u64 points = 200, first = 1, each = 100, round;

	begin = now();
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--points"))
			points = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			first = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--each"))
			each = strtoull(argv[i + 1], NULL, 0);
	}
	section("crash");
	watch_progress(patience_of(120), NULL);
	at_end(tear_down);
	console_quiet();
	vwrites = calloc(MAX_VWRITES, sizeof(*vwrites));
	start_server();
	make_parts();
	for (round = 0; nr_tried < points && nr_bad < 5; round++) {
		u64 bad = nr_bad, tried = nr_tried;

		round_of(first + round, min(each, points - nr_tried));
		if (nr_bad != bad)
			note("replay: explore --seed %llu --points %llu",
			     (unsigned long long)(first + round),
			     (unsigned long long)(nr_tried - tried));
	}
	ok(!nr_bad, "%llu points in %llu workloads from seed %llu (%llu events, %llu ends of a flush or FUA write): the view is what it was; %.0f s",
	   (unsigned long long)nr_tried, (unsigned long long)round, (unsigned long long)first,
	   (unsigned long long)most_events, (unsigned long long)nr_boundaries, now() - begin);
	return tap_end();
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * A random test of a chain against a model.
 *
 * Threads issue I/O on all paths (ingest, view, the secondary beneath), several
 * requests in flight each, at any alignment; thread 0 also sends the messages
 * and suspends, resumes and reloads the devices while that I/O is in flight.
 * The model knows for each sector what the secondary and the view must hold.
 *
 * Two requests on the same sectors of the same image exclude each other, so
 * that their order is known; requests on the same region do not, nor do an
 * ingest write and a read of the view at the same sector: those are the races.
 *
 * Usually a sector can hold one content only. A checkpoint with I/O in flight
 * leaves two: before the write, or after. So a cell of the model is a set of
 * tags; the first read outside the race reduces it to one, for good.
 *
 * All that a thread issues follows from the seed and its number. With one
 * thread the whole run does.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "rig.h"
#include "stamp.h"

#define MAX_THREADS 8
#define MAX_DEPTH 32
#define MAX_SECTORS 3072u	/* of one request: 1.5 MiB */

/* ------------------------------------------------------------ options */

static u64 seed = 1;
static u64 steps = 1000;	/* of each thread */
static unsigned int threads = 4;
static unsigned int depth = 8;
static unsigned int region = 8;	/* sectors */
static unsigned int block = 512;
static u64 sectors;
static const char *backing = "null";
static bool metadata;			/* on a device */
static bool quiet_checkpoints;
static unsigned int delay;	/* of reads of the secondary, ms */

static struct repl_set set;

/* -------------------------------------------------------------- model */

#define CELL_MAX 8

struct cell {
	u64 tag[CELL_MAX];
	unsigned int nr;
};

static struct cell *secondary;	/* what ingest sees */
static struct cell *view;
static struct cell *view_before;	/* while a checkpoint is under way */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

enum stage { NONE, RUNNING, FAILOVER, FAILED, DONE };
static const char *const stage_name[] = {
	"none", "running", "failover", "failover-failed", "done"
};

static enum stage stage = NONE;
static bool one_image = true;	/* secondary and view are the same: use view */
static bool fenced;
static bool faulty;		/* writes to the secondary fail */
static bool was_faulty;		/* errors may be latched */
static bool checkpointing;	/* a checkpoint races with what is in flight */
static bool failing_over;
static bool quiesce;		/* all but thread 0 wait */
static unsigned int waiting;	/* how many do */
static unsigned int alive;
static u64 checkpoint;
static u64 nr_control;
static atomic_bool stop;	/* something failed, or all is done */

static void cell_set(struct cell *c, u64 tag)
{
	c->tag[0] = tag;
	c->nr = 1;
}

static bool cell_has(const struct cell *c, u64 tag)
{
	for (unsigned int i = 0; i < c->nr; i++)
		if (c->tag[i] == tag)
			return true;
	return false;
}

static void cell_add(struct cell *c, u64 tag)
{
	if (cell_has(c, tag))
		return;
	if (c->nr == CELL_MAX)
		abort();	/* op_may_go() lets no more than half of it fill */
	c->tag[c->nr++] = tag;
}

/* ---------------------------------------------------------- operations */

enum kind {
	INGEST_WRITE, VIEW_WRITE, VIEW_READ, INGEST_READ, SECONDARY_READ,
	INGEST_DISCARD, INGEST_ZEROOUT, INGEST_PUNCH, VIEW_ZEROOUT,
	INGEST_FLUSH, VIEW_FLUSH, VIEW_DISCARD, NR_KINDS
};

static const char *const kind_name[] = {
	"ingest write", "view write", "view read", "ingest read", "secondary read",
	"ingest discard", "ingest zeroout", "ingest punch", "view zeroout",
	"ingest flush", "view flush", "view discard"
};

static const unsigned int weight[] = { 30, 20, 22, 6, 5, 4, 3, 3, 2, 2, 2, 1 };

enum outcome { SUCCEEDS, FAILS, EITHER, ANYTHING };

struct op {
	struct iocb iocb;
	struct iovec iov[4];
	enum kind kind;
	u64 sector, nr, tag;
	bool fua;
	struct cell *cells;
	enum outcome outcome;
	bool raced;		/* a checkpoint was under way */
	bool active;
	void *buf;
	u64 *tags;
};

struct worker {
	unsigned int id;
	u64 rnd, control_rnd;
	u64 issued, sequence;
	aio_context_t aio;
	unsigned int in_flight;
	struct op op[MAX_DEPTH];
};

static struct worker worker[MAX_THREADS];

static bool is_view(enum kind k)
{
	return k == VIEW_WRITE || k == VIEW_READ || k == VIEW_ZEROOUT ||
	       k == VIEW_FLUSH || k == VIEW_DISCARD;
}

static bool is_write(enum kind k)
{
	return k == INGEST_WRITE || k == VIEW_WRITE || k == INGEST_DISCARD ||
	       k == INGEST_ZEROOUT || k == INGEST_PUNCH || k == VIEW_ZEROOUT;
}

static bool is_read(enum kind k)
{
	return k == VIEW_READ || k == INGEST_READ || k == SECONDARY_READ;
}

static bool is_ingest_write(enum kind k)
{
	return is_write(k) && !is_view(k);
}

/* ---------------------------------------------------- what happened when */

struct event {
	double when;
	char what[12];
	int worker, kind, result;
	u64 sector, nr, tag;
	bool raced;
};

#define NR_EVENTS 65536
static struct event events[NR_EVENTS];
static u64 nr_events;
static double started;

/* Locked. */
static void log_op(const char *what, int id, const struct op *op, int result)
{
	struct event *e = &events[nr_events++ % NR_EVENTS];

	e->when = now() - started;
	snprintf(e->what, sizeof(e->what), "%s", what);
	e->worker = id;
	e->kind = op->kind;
	e->sector = op->sector;
	e->nr = op->nr;
	e->tag = op->tag;
	e->raced = op->raced;
	e->result = result;
}

static void log_control(const char *what, int result)
{
	struct event *e = &events[nr_events++ % NR_EVENTS];

	e->when = now() - started;
	snprintf(e->what, sizeof(e->what), "%s", what);
	e->kind = -1;
	e->result = result;
	e->tag = checkpoint;
}

static void dump_events(u64 sector, unsigned int last)
{
	u64 from = nr_events > NR_EVENTS ? nr_events - NR_EVENTS : 0;
	u64 of_region = sector / region;
	char name[200];

	/* Controls and what touched the region; only the last of them. */
	for (unsigned int pass = 0, matches = 0, skip = 0; pass < 2; pass++) {
		if (pass && matches > last)
			skip = matches - last;
		for (u64 i = from; i < nr_events; i++) {
			struct event *e = &events[i % NR_EVENTS];

			if (e->kind >= 0 && (e->sector / region > of_region ||
					     (e->sector + e->nr - 1) / region < of_region))
				continue;
			if (!pass) {
				matches++;
				continue;
			}
			if (skip) {
				skip--;
				continue;
			}
			if (e->kind < 0)
				note("%.6f %s: %d (checkpoint %llu)", e->when, e->what, e->result,
				     (unsigned long long)e->tag);
			else
				note("%.6f %d %s %s [%llu, %llu)%s: %d %s%s", e->when, e->worker,
				     e->what, kind_name[e->kind], (unsigned long long)e->sector,
				     (unsigned long long)(e->sector + e->nr),
				     e->sector <= sector && sector < e->sector + e->nr ? "*" : "",
				     e->result,
				     is_write(e->kind) ? stamp_name(e->tag, name) : "",
				     e->raced ? " (raced)" : "");
		}
	}
}

static void print_replay(void)
{
	note("replay: model --seed %llu --steps %llu --threads %u --depth %u --region %u --block %u --backing %s --sectors %llu --delay %u%s%s",
	     (unsigned long long)seed, (unsigned long long)steps, threads, depth, region,
	     block, backing, (unsigned long long)sectors, delay,
	     metadata ? " --metadata" : "", quiet_checkpoints ? " --quiet-checkpoints" : "");
}

/* Locked. The first failure counts; then everything stops. */
static void fail(u64 sector, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(u64 sector, const char *fmt, ...)
{
	char text[1000];
	va_list args;

	if (atomic_exchange(&stop, true))
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	ok(false, "seed %llu: %s", (unsigned long long)seed, text);
	print_replay();
	note("stage %s, checkpoint %llu%s%s%s", stage_name[stage], (unsigned long long)checkpoint,
	     checkpointing ? ", checkpoint under way" : "", failing_over ? ", failing over" : "",
	     faulty ? ", the secondary fails writes" : "");
	note("status: %s", dm_status(set.view));
	if (sector < sectors)
		note("what touched region %llu (* this sector):",
		     (unsigned long long)(sector / region));
	dump_events(sector, 60);
	pthread_cond_broadcast(&changed);
}

static void explain(void)
{
	print_replay();
	note("stage %s, checkpoint %llu, control %llu", stage_name[stage],
	     (unsigned long long)checkpoint, (unsigned long long)nr_control);
	for (unsigned int w = 0; w < threads; w++)
		for (unsigned int i = 0; i < depth; i++) {
			struct op *op = &worker[w].op[i];

			if (op->active)
				note("in flight: %u %s [%llu, %llu)", w, kind_name[op->kind],
				     (unsigned long long)op->sector,
				     (unsigned long long)(op->sector + op->nr));
		}
	dump_events(~0ULL, 20);
	note("status: %s", dm_status(set.view));
}

/* ----------------------------------------------- the rules of the model */

/* Locked. What the stage says about this request. */
static enum outcome op_outcome(const struct op *op)
{
	enum kind k = op->kind;

	if (k == VIEW_DISCARD)
		return FAILS;
	if (k == SECONDARY_READ)
		return failing_over || stage == FAILOVER || stage == FAILED ? ANYTHING : SUCCEEDS;
	if (is_view(k)) {
		/* (The block layer itself answers a flush where no cache is.) */
		if (stage == NONE)
			return k == VIEW_FLUSH ? EITHER : FAILS;
		return faulty && !is_read(k) ? EITHER : SUCCEEDS;
	}
	if (failing_over)
		return is_write(k) ? EITHER : ANYTHING;
	if (!fenced)
		return SUCCEEDS;
	/* The fence is for writes; what a fenced ingest reads is not promised. */
	return is_write(k) ? FAILS : ANYTHING;
}

static bool overlap(const struct op *a, const struct op *b)
{
	return a->cells == b->cells && a->sector < b->sector + b->nr &&
	       b->sector < a->sector + a->nr && a->nr && b->nr &&
	       (is_write(a->kind) || is_write(b->kind));
}

/* Locked. Claims the op's sectors if nobody has them. */
static bool op_may_go(struct op *op)
{
	op->cells = is_view(op->kind) || one_image ? view : secondary;
	for (unsigned int w = 0; w < threads; w++)
		for (unsigned int i = 0; i < depth; i++)
			if (worker[w].op[i].active && overlap(op, &worker[w].op[i]))
				return false;
	if (checkpointing && is_write(op->kind))
		for (u64 s = op->sector; s < op->sector + op->nr; s++)
			if (max(view[s].nr, view_before[s].nr) >= CELL_MAX / 2)
				return false;

	op->outcome = op_outcome(op);
	op->raced = checkpointing;
	op->active = true;
	if (op->raced && is_ingest_write(op->kind))
		for (u64 s = op->sector; s < op->sector + op->nr; s++)
			cell_add(&view[s], op->tag);
	return true;
}

/* Locked. */
static void check_content(struct worker *w, struct op *op)
{
	char got[200], want[1000];
	size_t at = 0;

	for (u64 i = 0; i < op->nr; i++) {
		u64 s = op->sector + i, tag = op->tags[i];
		struct cell *c = &op->cells[s];
		bool racing = op->raced && is_view(op->kind);

		if (cell_has(c, tag)) {
			if (!racing)
				cell_set(c, tag);
			continue;
		}
		if (racing && cell_has(&view_before[s], tag))
			continue;
		for (unsigned int j = 0; j < c->nr; j++)
			at += snprintf(want + at, sizeof(want) - at, "%s%s", j ? " or " : "",
				       stamp_name(c->tag[j], got));
		fail(s, "%s of thread %u [%llu, %llu): sector %llu holds %s, expected %s%s",
		     kind_name[op->kind], w->id, (unsigned long long)op->sector,
		     (unsigned long long)(op->sector + op->nr), (unsigned long long)s,
		     stamp_describe(op->buf + i * SECTOR, got), want, racing ? " (raced)" : "");
		return;
	}
}

/* Locked. A write to @op's sectors did, or may have, happened. */
static void apply_write(struct op *op, bool certain)
{
	if (op->cells == secondary && one_image)
		return;		/* from before the failover: that image is gone */
	for (u64 s = op->sector; s < op->sector + op->nr; s++) {
		if (!certain || (op->raced && is_view(op->kind)))
			cell_add(&op->cells[s], op->tag);
		else
			cell_set(&op->cells[s], op->tag);
		/* A read may see it before the checkpoint, and be late to say so. */
		if (op->raced && is_view(op->kind))
			cell_add(&view_before[s], op->tag);
	}
}

static void op_done(struct worker *w, struct op *op, int error)
{
	bool tagged = is_read(op->kind) && !error && op->outcome != ANYTHING;

	if (tagged)
		for (u64 i = 0; i < op->nr; i++)
			op->tags[i] = stamp_tag_of(op->buf + i * SECTOR, op->sector + i);

	pthread_mutex_lock(&lock);
	log_op("done", w->id, op, error);
	if (op->outcome == SUCCEEDS && error)
		fail(op->sector, "%s of thread %u [%llu, %llu) fails: %s", kind_name[op->kind],
		     w->id, (unsigned long long)op->sector,
		     (unsigned long long)(op->sector + op->nr), strerror(error));
	else if (op->outcome == FAILS && !error)
		fail(op->sector, "%s of thread %u [%llu, %llu) succeeds in stage %s%s",
		     kind_name[op->kind], w->id, (unsigned long long)op->sector,
		     (unsigned long long)(op->sector + op->nr), stage_name[stage],
		     fenced ? ", fenced" : "");
	else if (error && error != (op->kind == VIEW_DISCARD ? EOPNOTSUPP : EIO))
		fail(op->sector, "%s of thread %u [%llu, %llu) fails with %s", kind_name[op->kind],
		     w->id, (unsigned long long)op->sector,
		     (unsigned long long)(op->sector + op->nr), strerror(error));
	else if (is_write(op->kind) && op->outcome != FAILS)
		apply_write(op, !error);
	else if (tagged && op->outcome != ANYTHING)
		check_content(w, op);
	op->active = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	progress();
}

/* ----------------------------------------------------------------- I/O */

/* Waits for at least @min requests of this thread and settles them. */
static void reap(struct worker *w, unsigned int min_nr)
{
	struct io_event done[MAX_DEPTH];

	if (!w->in_flight)
		return;
	long n = syscall(SYS_io_getevents, w->aio, (long)min_nr, (long)MAX_DEPTH, done, NULL);

	if (n < 0 && errno == EINTR)
		return;
	need(n >= (long)min_nr, "requests come back");
	for (long i = 0; i < n; i++) {
		struct op *op = (void *)(uintptr_t)done[i].data;
		long long res = done[i].res;

		w->in_flight--;
		if (res >= 0 && (u64)res != op->nr * SECTOR)
			res = -EIO;	/* cut short by a failing part */
		op_done(w, op, res < 0 ? -res : 0);
	}
}

static void reap_all(struct worker *w)
{
	while (w->in_flight)
		reap(w, w->in_flight);
}

/* Locked; may unlock. Others than thread 0 stop here for a quiet moment. */
static void stand_still(struct worker *w)
{
	if (w->in_flight) {
		pthread_mutex_unlock(&lock);
		reap_all(w);
		pthread_mutex_lock(&lock);
	}
	waiting++;
	pthread_cond_broadcast(&changed);
	while (quiesce && !stop)
		pthread_cond_wait(&changed, &lock);
	waiting--;
}

static void claim(struct worker *w, struct op *op)
{
	pthread_mutex_lock(&lock);
	for (;;) {
		if (quiesce && w->id && !stop) {
			stand_still(w);
			continue;
		}
		if (op_may_go(op))
			break;
		if (w->in_flight) {
			pthread_mutex_unlock(&lock);
			reap(w, 1);
			pthread_mutex_lock(&lock);
		} else {
			pthread_cond_wait(&changed, &lock);
		}
	}
	log_op("issue", w->id, op, 0);
	pthread_mutex_unlock(&lock);
}

static int fd_of(enum kind k)
{
	return is_view(k) ? set.view_fd : k == SECONDARY_READ ? set.secondary_fd : set.ingest_fd;
}

static int sync_op(const struct op *op)
{
	u64 range[2] = { op->sector * SECTOR, op->nr * SECTOR };
	int fd = fd_of(op->kind), r;

	switch (op->kind) {
	case INGEST_DISCARD:
	case VIEW_DISCARD:
		r = ioctl(fd, BLKDISCARD, range);
		break;
	case INGEST_ZEROOUT:
	case VIEW_ZEROOUT:
		r = ioctl(fd, BLKZEROOUT, range);
		break;
	case INGEST_PUNCH:
		/* write-zeroes, where there is such a thing */
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range[0], range[1]);
		if (r && errno == EOPNOTSUPP)
			r = ioctl(fd, BLKZEROOUT, range);
		break;
	default:
		r = fsync(fd);
	}
	return r ? errno : 0;
}

/* In up to four pieces that do not begin on a page, for bios of all shapes. */
static void vectors(struct worker *w, struct op *op)
{
	unsigned int nr = 1 + pick(&w->rnd, ARRAY_SIZE(op->iov)), i;
	u64 lb = block / SECTOR, left = op->nr / lb;
	char *at = op->buf;

	for (i = 0; i < nr && left; i++) {
		u64 blocks = i == nr - 1 ? left : 1 + pick(&w->rnd, left);

		op->iov[i].iov_base = at;
		op->iov[i].iov_len = blocks * block;
		at += blocks * block;
		left -= blocks;
	}
	op->iocb.aio_lio_opcode = is_read(op->kind) ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV;
	op->iocb.aio_buf = (uintptr_t)op->iov;
	op->iocb.aio_nbytes = i;
}

static void submit(struct worker *w, struct op *op)
{
	struct iocb *iocb = &op->iocb;

	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_data = (uintptr_t)op;
	iocb->aio_fildes = fd_of(op->kind);
	iocb->aio_offset = op->sector * SECTOR;
	if (!pick(&w->rnd, 3)) {
		vectors(w, op);
	} else {
		iocb->aio_lio_opcode = is_read(op->kind) ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
		iocb->aio_buf = (uintptr_t)op->buf;
		iocb->aio_nbytes = op->nr * SECTOR;
	}
	iocb->aio_rw_flags = op->fua ? RWF_DSYNC : 0;
	need(syscall(SYS_io_submit, w->aio, 1L, &iocb) == 1, "a request is taken");
	w->in_flight++;
}

static void choose_range(struct worker *w, struct op *op)
{
	u64 *r = &w->rnd, lb = block / SECTOR, blocks = sectors / lb, size;
	u64 per_region = region / lb, begin;

	switch (pick(r, 20)) {
	case 0:
		size = 1024 / lb + pick(r, (MAX_SECTORS - 1024) / lb);
		break;
	case 1: case 2:
		size = 1 + pick(r, 512 / lb);
		break;
	case 3: case 4: case 5:
		size = per_region * (1 + pick(r, 4));
		break;
	case 6: case 7: case 8: case 9: case 10:
		size = 1 + pick(r, 128 / lb);
		break;
	default:
		size = 1 + pick(r, 8);
	}
	size = min(size, min((u64)MAX_SECTORS / lb, blocks));

	if (pick(r, 2))		/* where others are as well */
		begin = pick(r, min(blocks, max(per_region * 12, 512u)));
	else
		begin = pick(r, blocks);
	switch (pick(r, 8)) {
	case 0: case 1:
		begin -= begin % per_region;
		break;
	case 2:			/* around a boundary of regions */
		begin -= begin % per_region;
		begin = begin > size / 2 ? begin - size / 2 : 0;
		break;
	case 3:			/* the last region, partial */
		begin = blocks - size;
		break;
	}
	if (begin + size > blocks)
		begin = blocks - size;
	op->sector = begin * lb;
	op->nr = size * lb;
}

static void one_step(struct worker *w)
{
	unsigned int r, k = 0;
	struct op *op;

	while (w->in_flight >= depth)
		reap(w, 1);
	for (op = w->op; op->active; op++)
		;

	for (r = pick(&w->rnd, 100); r >= weight[k]; k++)
		r -= weight[k];
	op->kind = k;
	choose_range(w, op);
	op->fua = (k == INGEST_WRITE || k == VIEW_WRITE) && !pick(&w->rnd, 10);
	op->tag = 0;
	if (k == INGEST_WRITE || k == VIEW_WRITE) {
		op->tag = stamp_tag(++w->sequence, w->id + 1, checkpoint);
		stamp_fill(op->buf, op->sector, op->nr, op->tag);
	}
	if (is_read(k))		/* what is not read is no zeroes either */
		memset(op->buf, 0xa5, op->nr * SECTOR);
	if (k == INGEST_FLUSH || k == VIEW_FLUSH)
		op->sector = op->nr = 0;

	claim(w, op);
	if (is_read(k) || k == INGEST_WRITE || k == VIEW_WRITE)
		submit(w, op);
	else
		op_done(w, op, sync_op(op));
	w->issued++;
}

/* ------------------------------------------------------- thread 0: control */

static void quiet(struct worker *w)
{
	reap_all(w);
	pthread_mutex_lock(&lock);
	quiesce = true;
	pthread_cond_broadcast(&changed);
	while (waiting < alive - 1)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void go_on(void)
{
	pthread_mutex_lock(&lock);
	quiesce = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* Everything, with nothing in flight. */
static void verify_image(struct worker *w, enum kind kind)
{
	static struct op all;

	if (!all.buf) {
		all.buf = big_alloc(MAX_SECTORS * SECTOR);
		all.tags = big_alloc(MAX_SECTORS * 8);
	}
	for (u64 s = 0; s < sectors && !stop; s += MAX_SECTORS) {
		u64 nr = min((u64)MAX_SECTORS, sectors - s);
		int err;

		memset(all.buf, 0xa5, nr * SECTOR);
		err = io_read(fd_of(kind), s * SECTOR, nr * SECTOR, all.buf);

		pthread_mutex_lock(&lock);
		all.kind = kind;
		all.sector = s;
		all.nr = nr;
		all.cells = is_view(kind) || one_image ? view : secondary;
		all.outcome = SUCCEEDS;
		pthread_mutex_unlock(&lock);
		op_done(w, &all, err);
	}
}

static void verify(struct worker *w)
{
	if (stage != FAILOVER && stage != FAILED)
		verify_image(w, SECONDARY_READ);
	if (stage != NONE)
		verify_image(w, VIEW_READ);
	if (!fenced)
		verify_image(w, INGEST_READ);
}

static void result(const char *what, int got, int want)
{
	pthread_mutex_lock(&lock);
	log_control(what, got);
	if (got != want)
		fail(~0ULL, "%s in stage %s: %s, expected %s", what, stage_name[stage],
		     got ? strerror(got) : "success", want ? strerror(want) : "success");
	pthread_mutex_unlock(&lock);
	progress();
}

static void send_to_view(const char *message, int want)
{
	result(message, dm_message_text(set.view, message), want);
}

/* What status says about things that do not depend on timing. */
static void check_status(void)
{
	struct repl_status st;

	repl_status(set.view, &st);
	pthread_mutex_lock(&lock);
	if (strcmp(st.stage, stage_name[stage]) &&
	    !(stage == FAILOVER && (!strcmp(st.stage, "done") || faulty)))
		fail(~0ULL, "the stage is %s, expected %s", st.stage, stage_name[stage]);
	else if (st.checkpoint != checkpoint)
		fail(~0ULL, "the checkpoint is %llu, expected %llu",
		     (unsigned long long)st.checkpoint, (unsigned long long)checkpoint);
	else if (st.is_prepared)
		fail(~0ULL, "a checkpoint is prepared: %s", st.line);
	else if (st.regions != (sectors + region - 1) / region)
		fail(~0ULL, "number of regions: %s", st.line);
	else if (!was_faulty && strcmp(st.errors, "-"))
		fail(~0ULL, "an error is latched: %s", st.line);
	pthread_mutex_unlock(&lock);
}

/* The window in which requests may be before or after the checkpoint. */
static void checkpoint_begins(struct worker *w)
{
	bool raced;

	if (quiet_checkpoints)
		quiet(w);
	pthread_mutex_lock(&lock);
	for (;;) {
		/* view_before serves one checkpoint at a time */
		raced = false;
		for (unsigned int t = 0; t < threads; t++)
			for (unsigned int i = 0; i < depth; i++)
				raced |= worker[t].op[i].active && worker[t].op[i].raced;
		if (!raced)
			break;
		if (w->in_flight) {
			pthread_mutex_unlock(&lock);
			reap(w, 1);
			pthread_mutex_lock(&lock);
		} else {
			pthread_cond_wait(&changed, &lock);
		}
	}
	memcpy(view_before, view, sectors * sizeof(*view));
	memcpy(view, secondary, sectors * sizeof(*view));
	for (unsigned int t = 0; t < threads; t++)
		for (unsigned int i = 0; i < depth; i++) {
			struct op *op = &worker[t].op[i];

			if (!op->active)
				continue;
			op->raced = true;
			if (is_ingest_write(op->kind))
				for (u64 s = op->sector; s < op->sector + op->nr; s++)
					cell_add(&view[s], op->tag);
		}
	checkpointing = true;
	log_control("checkpoint {", 0);
	pthread_mutex_unlock(&lock);
}

static void checkpoint_ends(u64 id)
{
	pthread_mutex_lock(&lock);
	checkpointing = false;
	checkpoint = id;
	log_control("}", 0);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	if (quiet_checkpoints)
		go_on();
}

static void do_checkpoint(struct worker *w, u64 *r)
{
	u64 id = checkpoint + 1;
	char message[64] = "checkpoint", want[32];

	if (!pick(r, 4)) {
		id += pick(r, 3);
		snprintf(message, sizeof(message), "checkpoint %llu", (unsigned long long)id);
	}
	checkpoint_begins(w);
	send_to_view(message, 0);
	snprintf(want, sizeof(want), "%llu", (unsigned long long)id);
	if (!stop && strcmp(dm_answer, want)) {
		pthread_mutex_lock(&lock);
		fail(~0ULL, "%s answers '%s', expected %s", message, dm_answer, want);
		pthread_mutex_unlock(&lock);
	}
	checkpoint_ends(id);
}

static void do_prepare(struct worker *w, u64 *r, bool commit)
{
	u64 id = checkpoint + 1 + pick(r, 2);
	char message[64];
	struct repl_status st;

	if (commit)
		checkpoint_begins(w);
	snprintf(message, sizeof(message), "checkpoint_prepare %llu", (unsigned long long)id);
	send_to_view(message, 0);
	repl_status(set.view, &st);
	if (!stop && (!st.is_prepared || st.prepared != id)) {
		pthread_mutex_lock(&lock);
		fail(~0ULL, "not prepared %llu: %s", (unsigned long long)id, st.line);
		pthread_mutex_unlock(&lock);
	}
	if (!pick(r, 3))
		send_to_view("checkpoint", EBUSY);
	if (!pick(r, 3))
		send_to_view("stop", EBUSY);
	if (pick(r, 2))
		usleep(pick(r, 3000));	/* I/O collects at the gate */
	snprintf(message, sizeof(message), "checkpoint_%s %llu", commit ? "commit" : "abort",
		 (unsigned long long)id);
	send_to_view(message, 0);
	if (commit)
		checkpoint_ends(id);
}

static void do_suspend(const char *name, unsigned int flags, u64 *r)
{
	result(flags ? "suspend -f" : "suspend", dm_suspend(name, flags), 0);
	usleep(pick(r, 2000));	/* I/O collects */
	result("resume", dm_resume(name), 0);
}

static void do_reload(const char *name, const char *type)
{
	char table[1024];
	struct dm_seg seg = { 0, sectors, type, table };

	result("table", dm_status_to(name, table, sizeof(table), true), 0);
	result(name == set.view ? "reload view" : "reload ing", dm_reload(name, &seg, 1), 0);
}

static void do_start(struct worker *w)
{
	quiet(w);
	verify(w);
	send_to_view("start", 0);
	memcpy(secondary, view, sectors * sizeof(*view));
	one_image = false;
	fenced = false;
	stage = RUNNING;
	checkpoint++;
	check_status();
	go_on();
}

static void do_stop(struct worker *w)
{
	quiet(w);
	verify(w);
	send_to_view("stop", 0);
	memcpy(view, secondary, sectors * sizeof(*view));
	one_image = true;
	stage = DONE;
	check_status();
	verify(w);
	go_on();
}

static unsigned int failover_steps;

static void set_fault(bool on)
{
	if (on) {
		pthread_mutex_lock(&lock);
		faulty = was_faulty = true;
		for (unsigned int t = 0; t < threads; t++)
			for (unsigned int i = 0; i < depth; i++) {
				struct op *op = &worker[t].op[i];

				if (op->active && is_view(op->kind) && !is_read(op->kind) &&
				    op->outcome == SUCCEEDS)
					op->outcome = EITHER;
			}
		pthread_mutex_unlock(&lock);
		leg_fail(set.secondary, 0, sectors, LEG_WRITES);
	} else {
		leg_heal(set.secondary);
		pthread_mutex_lock(&lock);
		faulty = false;
		pthread_mutex_unlock(&lock);
	}
	result(on ? "fault" : "heal", 0, 0);
}

static void do_failover(u64 *r)
{
	bool fault = !pick(r, 3);
	char message[32];

	/* slow enough that views writes come before the merge */
	snprintf(message, sizeof(message), "job speed %llu",
		 fault ? 1ULL : (unsigned long long)(64 << pick(r, 8)));
	send_to_view(message, 0);

	pthread_mutex_lock(&lock);
	failing_over = true;
	for (unsigned int t = 0; t < threads; t++)
		for (unsigned int i = 0; i < depth; i++) {
			struct op *op = &worker[t].op[i];

			if (op->active && !is_view(op->kind))
				op->outcome = is_write(op->kind) ? EITHER : ANYTHING;
		}
	log_control("failover {", 0);
	pthread_mutex_unlock(&lock);

	send_to_view("failover", 0);

	pthread_mutex_lock(&lock);
	failing_over = false;
	stage = FAILOVER;
	fenced = true;
	one_image = true;
	log_control("}", 0);
	pthread_mutex_unlock(&lock);
	failover_steps = 1 + pick(r, 4);
	if (fault)
		set_fault(true);
}

static void do_finish(struct worker *w, u64 *r)
{
	struct repl_status st;

	send_to_view("job speed 0", 0);
	repl_status(set.view, &st);
	if (!strcmp(st.job_state, "paused"))
		send_to_view("job resume", 0);
	wait_stage(set.view, "done");
	repl_status(set.view, &st);
	if (!strcmp(st.stage, "failover-failed")) {
		pthread_mutex_lock(&lock);
		stage = FAILED;
		log_control("merge fails", 0);
		if (!faulty)
			fail(~0ULL, "the merge fails, although no device does: %s", st.line);
		pthread_mutex_unlock(&lock);
		failover_steps = 1 + pick(r, 3);
		return;
	}
	if (faulty) {
		set_fault(false);
		send_to_view("clear_error", 0);
	}
	quiet(w);
	stage = DONE;
	send_to_view("clear_error", 0);
	was_faulty = false;
	check_status();
	verify(w);
	go_on();
}

static void do_retry(void)
{
	set_fault(false);
	pthread_mutex_lock(&lock);
	stage = FAILOVER;
	pthread_mutex_unlock(&lock);
	send_to_view("retry", 0);
	send_to_view("clear_error", 0);
}

static void control_running(struct worker *w, u64 *r)
{
	unsigned int what = pick(r, 100);

	if (what < 36)
		do_checkpoint(w, r);
	else if (what < 44)
		do_prepare(w, r, true);
	else if (what < 50)
		do_prepare(w, r, false);
	else if (what < 57)
		do_suspend(set.view, 0, r);
	else if (what < 64)
		do_suspend(set.ingest, 0, r);
	else if (what < 67)
		do_suspend(set.view, DM_NOFLUSH, r);
	else if (what < 70)
		do_suspend(set.ingest, DM_NOFLUSH, r);
	else if (what < 76)
		do_reload(set.view, "repl-secondary");
	else if (what < 82)
		do_reload(set.ingest, "repl-ingest");
	else if (what < 86)
		send_to_view(pick(r, 2) ? "start" : "retry", EBUSY);
	else if (what < 88)
		send_to_view("clear_error", 0);
	else if (what < 90) {
		quiet(w);
		verify(w);
		go_on();
	} else if (what < 94) {
		/* a fill may still be under way */
		struct repl_status st;

		repl_status(set.view, &st);
		if (strcmp(st.job_state, "running") && strcmp(st.job_state, "paused"))
			send_to_view(pick(r, 2) ? "fill full" : "fill top", 0);
	} else if (what < 97)
		do_stop(w);
	else
		do_failover(r);
}

static void control_failover(struct worker *w, u64 *r)
{
	struct repl_status st;

	if (!failover_steps--) {
		failover_steps = 0;
		if (stage == FAILED)
			do_retry();
		else
			do_finish(w, r);
		return;
	}
	switch (pick(r, 6)) {
	case 0:
		do_suspend(set.view, 0, r);
		break;
	case 1:
		do_reload(set.view, "repl-secondary");
		break;
	case 2:
		do_suspend(set.ingest, 0, r);
		break;
	case 3:
		/* EBUSY if the merge is over by now */
		repl_status(set.view, &st);
		dm_message_text(set.view, strcmp(st.job_state, "paused") ? "job pause" : "job resume");
		break;
	case 4:
		send_to_view("checkpoint", EBUSY);
		break;
	default:
		send_to_view("stop", EBUSY);
	}
}

static void control(struct worker *w)
{
	u64 *r = &w->control_rnd;

	nr_control++;
	switch (stage) {
	case NONE:
	case DONE:
		switch (pick(r, 8)) {
		case 0:
			do_reload(set.view, "repl-secondary");
			break;
		case 1:
			do_suspend(set.ingest, 0, r);
			break;
		case 2:
			send_to_view("checkpoint", EBUSY);
			break;
		case 3:
			send_to_view("failover", EBUSY);
			break;
		default:
			do_start(w);
		}
		break;
	case RUNNING:
		control_running(w, r);
		break;
	case FAILOVER:
	case FAILED:
		control_failover(w, r);
	}
	if (!stop)
		check_status();
}

/* ---------------------------------------------------------------- main */

static void *work(void *arg)
{
	struct worker *w = arg;

	while (w->issued < steps && !stop) {
		one_step(w);
		if (!w->id && !(w->issued % 16) && !stop)
			control(w);
	}
	reap_all(w);
	if (!w->id && !stop) {
		/* Ends in every stage that there is; a merge is waited for. */
		while ((stage == FAILOVER || stage == FAILED) && !stop)
			control_failover(w, &w->control_rnd);
		quiet(w);
		if (!stop)
			verify(w);
		go_on();
	}
	pthread_mutex_lock(&lock);
	alive--;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void tear_down(void)
{
	if (set.view[0])
		set_remove(&set);
	dm_remove_all();
	backing_remove_all();
}

static const char *make_backing(const char *name, u64 bytes)
{
	if (!strcmp(backing, "loop") && block == 512)
		return loop_make(bytes);
	return nullb_make(name, bytes, block, !strcmp(backing, "cached"), true);
}

/* So that a mistake is not hidden by zeroes. */
static void prefill(int fd, u64 tag, struct cell *cells)
{
	void *buf = big_alloc(MAX_SECTORS * SECTOR);

	for (u64 s = 0; s < sectors; s += MAX_SECTORS) {
		u64 nr = min((u64)MAX_SECTORS, sectors - s);

		stamp_fill(buf, s, nr, tag);
		errno = io_write(fd, s * SECTOR, nr * SECTOR, buf);
		need(!errno, "the backing devices are filled");
		for (u64 i = s; cells && i < s + nr; i++)
			cell_set(&cells[i], tag);
	}
	free(buf);
}

static void set_up(void)
{
	const char *dev[3];
	u64 bytes;

	if (!sectors) {
		/* the last region is partial, and whole logical blocks */
		sectors = max((u64)region * 3, 16384u) + 5 * (block / SECTOR);
		if (region > 64)
			sectors += region / 2;
	}
	bytes = (sectors * SECTOR + MIB - 1) / MIB * MIB;
	at_end(tear_down);
	dev[0] = make_backing("mt_secondary", bytes);
	dev[1] = make_backing("mt_hidden", bytes);
	dev[2] = make_backing("mt_active", bytes);
	if (delay) {
		/* reads of the view stay in flight, while writes come */
		need(!system("modprobe dm-delay"), "dm-delay loads");
		errno = dm_make("mt-delay", sectors, "delay", "%s 0 %u %s 0 0", dev[0], delay, dev[0]);
		need(!errno, "dm-delay lies under the secondary");
		dev[0] = path_of("mt-delay");
	}
	if (metadata)
		set_metadata = make_backing("mt_metadata", MIB);
	set_make(&set, "mt", sectors, region, dev[0], dev[1], dev[2]);

	secondary = big_alloc(sectors * sizeof(struct cell));
	view = big_alloc(sectors * sizeof(struct cell));
	view_before = big_alloc(sectors * sizeof(struct cell));
	prefill(set.secondary_fd, stamp_tag(1, 251, 0), view);
	prefill(set.hidden_fd, stamp_tag(1, 252, 0), NULL);
	prefill(set.active_fd, stamp_tag(1, 253, 0), NULL);

	for (unsigned int t = 0; t < threads; t++) {
		struct worker *w = &worker[t];

		w->id = t;
		w->rnd = seed * 1000003 + t;
		w->control_rnd = ~seed;
		need(!syscall(SYS_io_setup, (long)depth, &w->aio), "asynchronous I/O");
		for (unsigned int i = 0; i < depth; i++) {
			w->op[i].buf = big_alloc(MAX_SECTORS * SECTOR);
			w->op[i].tags = malloc(MAX_SECTORS * sizeof(u64));
		}
	}
}

static void options(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' }, { "steps", 1, NULL, 'n' }, { "threads", 1, NULL, 't' },
		{ "depth", 1, NULL, 'd' }, { "region", 1, NULL, 'r' }, { "block", 1, NULL, 'b' },
		{ "backing", 1, NULL, 'k' }, { "sectors", 1, NULL, 'z' },
		{ "quiet-checkpoints", 0, NULL, 'q' }, { "delay", 1, NULL, 'y' },
		{ "metadata", 0, NULL, 'm' }, { }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0)
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'n': steps = strtoull(optarg, NULL, 0); break;
		case 't': threads = atoi(optarg); break;
		case 'd': depth = atoi(optarg); break;
		case 'r': region = atoi(optarg); break;
		case 'b': block = atoi(optarg); break;
		case 'k': backing = optarg; break;
		case 'z': sectors = strtoull(optarg, NULL, 0); break;
		case 'y': delay = atoi(optarg); break;
		case 'q': quiet_checkpoints = true; break;
		case 'm': metadata = true; break;
		default: goto usage;
		}
	if (optind == argc && threads - 1 < MAX_THREADS && depth - 1 < MAX_DEPTH)
		return;
usage:
	fprintf(stderr, "usage: model [--seed N] [--steps N] [--threads 1..8] [--depth 1..32]\n"
			"  [--region SECTORS] [--block 512|4096] [--backing null|cached|loop]\n"
			"  [--sectors N] [--quiet-checkpoints] [--delay MS] [--metadata]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	pthread_t t[MAX_THREADS];

	options(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	set_up();
	started = now();
	watch_progress(60, explain);

	alive = threads;
	for (unsigned int i = 0; i < threads; i++)
		need(!pthread_create(&t[i], NULL, work, &worker[i]), "a thread starts");
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	if (!tap_failures())
		ok(true, "model, seed %llu: %u x %llu steps, depth %u, regions of %u KiB, blocks of %u, %s: %llu controls, checkpoint %llu, %.1f s",
		   (unsigned long long)seed, threads, (unsigned long long)steps, depth,
		   region / 2, block, backing, (unsigned long long)nr_control,
		   (unsigned long long)checkpoint, now() - started);
	return tap_end();
}

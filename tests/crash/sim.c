// SPDX-License-Identifier: GPL-2.0-only
/*
 * The metadata device's log (log.c, store.c, meta.c and region-map.c of the
 * module, as they are) over four simulated disks, with crashes.
 *
 * A disk has what a reader sees, what survives a loss of power, and the writes
 * in between, of which any part survives. A write or flush can fail, with all,
 * a part or nothing of it done. Metadata is torn at 512 bytes.
 *
 * On top are the rules of chain.c, cbw.c, view.c and merge.c, in short: what
 * is copied, recorded and written, in which order. The log's two works are
 * fibers that stop at each I/O, while everything else goes on. The model says
 * what the view must show: always while it lives, and after each crash.
 *
 * Each fourth world is a primary's: see sim-primary.h.
 *
 * A world has new disks and a seed of its own; "replay:" names it.
 */
#include "shim.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>
#include <ucontext.h>

#include "identity.h"
#include "region-map.h"
#include "store.h"
#include "track.h"
#include "keep.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- Random numbers, output ---- */

static u64 rng;
static u64 world_seed;
static u64 world_step, total_steps, nr_crashes, nr_restarts, nr_cleans, nr_refused;
static u64 nr_checkpoints, nr_failovers, nr_ambiguous, nr_corrupted;
static bool verbose;

u64 sim_random(void)
{
	u64 x = rng += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static unsigned int rnd(unsigned int n)
{
	return sim_random() % n;
}

static bool chance(unsigned int per_mille)
{
	return per_mille && rnd(1000) < per_mille;
}

static void trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void trace(const char *fmt, ...)
{
	va_list ap;

	if (!verbose)
		return;
	printf("# %llu: ", (unsigned long long)world_step);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *fmt, ...)
{
	va_list ap;

	printf("not ok - crash sim: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" (step %llu; replay: --worlds 1 --seed %llu)\n",
	       (unsigned long long)world_step, (unsigned long long)world_seed);
	fflush(stdout);
	_Exit(1);
}

/* ---- Memory that a crash frees ---- */

#define MAX_ALLOCS 64
static void *allocs[MAX_ALLOCS];

void *sim_alloc(size_t n)
{
	void *p = calloc(1, n);

	for (int i = 0; i < MAX_ALLOCS; i++)
		if (!allocs[i])
			return allocs[i] = p;
	fail("memory leaks");
}

void sim_free(void *p)
{
	if (!p)
		return;
	for (int i = 0; i < MAX_ALLOCS; i++)
		if (allocs[i] == p)
			allocs[i] = NULL;
	free(p);
}

/* ---- Fibers: the log's works ---- */

#define STACK (256 * 1024)

struct fiber {
	ucontext_t ctx;
	char *stack;
	void *fake;
	struct work_struct *work;
	bool running;
};

#define NFIBERS 6			/* commit, compact, gather; round, mark, cover */
static struct fiber fibers[NFIBERS];
static struct fiber *current;		/* NULL: main */
static ucontext_t main_ctx;
static bool crashed;
static jmp_buf crash_jmp;
#ifdef __SANITIZE_ADDRESS__
static void *main_fake;
static const void *main_stack;
static size_t main_size;
#endif

static void to_main(void)
{
	struct fiber *f = current;

#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(&f->fake, main_stack, main_size);
#endif
	swapcontext(&f->ctx, &main_ctx);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(f->fake, &main_stack, &main_size);
#endif
}

static void fiber_main(void)
{
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(NULL, &main_stack, &main_size);
#endif
	for (;;) {
		current->work->func(current->work);
		current->running = false;
		to_main();
	}
}

static void fiber_reset(struct fiber *f)
{
	if (!f->stack)
		f->stack = malloc(STACK);
#ifdef __SANITIZE_ADDRESS__
	__asan_unpoison_memory_region(f->stack, STACK);
#endif
	getcontext(&f->ctx);
	f->ctx.uc_stack.ss_sp = f->stack;
	f->ctx.uc_stack.ss_size = STACK;
	f->fake = NULL;
	f->work = NULL;
	f->running = false;
	makecontext(&f->ctx, fiber_main, 0);
}

static void fiber_run(struct fiber *f)
{
	if (!f->running) {
		f->running = true;
		f->work->pending = false;
	}
	current = f;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(&main_fake, f->stack, STACK);
#endif
	swapcontext(&main_ctx, &f->ctx);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(main_fake, NULL, NULL);
#endif
	current = NULL;
	if (crashed)
		longjmp(crash_jmp, 1);
}

static bool fiber_can_run(const struct fiber *f)
{
	return f->work && (f->running || f->work->pending);
}

/* How much happens between two blocks of a compaction, or two steps of a round. */
static unsigned int slowness;
static bool is_slow(const struct work_struct *work);

/* Some work goes on to its next I/O. False: there is none, or it takes its time. */
static bool fibers_step(bool waits)
{
	unsigned int first = rnd(NFIBERS);
	struct fiber *slow = NULL;

	for (unsigned int i = 0; i < NFIBERS; i++) {
		struct fiber *f = &fibers[(first + i) % NFIBERS];

		if (!fiber_can_run(f))
			continue;
		if (slowness && is_slow(f->work) && rnd(slowness)) {
			slow = f;
			continue;
		}
		fiber_run(f);
		return true;
	}
	if (!waits || !slow)
		return false;
	fiber_run(slow);
	return true;
}

void queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	(void)wq;
	for (int i = 0; i < NFIBERS; i++)
		if (fibers[i].work == work) {
			work->pending = true;
			return;
		}
	for (int i = 0; i < NFIBERS; i++) {
		if (!fibers[i].work)
			fibers[i].work = work;
		if (fibers[i].work == work) {
			work->pending = true;
			return;
		}
	}
	fail("one work more");
}

void cancel_work_sync(struct work_struct *work)
{
	for (int i = 0; i < NFIBERS; i++) {
		struct fiber *f = &fibers[i];

		if (f->work != work)
			continue;
		work->pending = false;
		/* What it waits for may be another one's. */
		while (f->running) {
			fiber_run(f);
			work->pending = false;
			if (f->running)
				fibers_step(true);
		}
		work->pending = false;
		f->work = NULL;
	}
}

static void show_in_flight(void);
bool sim_wait(void)
{
	if (current) {
		to_main();
	} else if (!fibers_step(true)) {
		show_in_flight();
		fail("the log does nothing, and somebody waits");
	}
	return true;
}

void wait_for_completion(struct completion *c)
{
	while (!c->done)
		sim_wait();
}

void flush_work(struct work_struct *work)
{
	for (int i = 0; i < NFIBERS; i++)
		while (fibers[i].work == work && fiber_can_run(&fibers[i]))
			sim_wait();
}

void sim_yield(void)
{
	if (current && rnd(3))
		to_main();
}

/* ---- Crashes ---- */

enum end { END_POWER, END_RESTART, END_CLEAN };

static u64 crash_in;		/* I/Os and steps */
static bool was_corrupted;

static bool crash_due(void)
{
	return crash_in && !--crash_in;
}

static void crash_now(void) __attribute__((noreturn));
static void crash_now(void)
{
	crashed = true;
	if (current) {
		to_main();
		abort();
	}
	longjmp(crash_jmp, 1);
}

/* ---- Disks ---- */

#define SLOTS	24		/* regions that are used */
#define SPR	2		/* sectors in one of them, as modelled */
#define NSEC	(SLOTS * SPR)

enum { SEC, HID, ACT, META, NDEV };
static const char * const dev_names[NDEV] = { "secondary", "hidden", "active", "metadata" };

/* Of a thousand. */
static struct weather {
	unsigned int read[NDEV], write[NDEV], flush[NDEV];
	unsigned int append, area, super;	/* writes of the metadata device */
} weather;

#define MAX_CACHED 512
struct disk {
	u32 cur[NSEC], dur[NSEC];
	unsigned int nr;
	struct {
		u16 s;
		u32 v;
	} cached[MAX_CACHED];
} disks[3];

#define META_SECTORS	((2 + 2 * 10 + 64 + 60) * 8)
#define MAX_META_CACHED	2048
static struct meta_disk {
	u8 cur[META_SECTORS][512], dur[META_SECTORS][512];
	u16 nr_of[META_SECTORS];
	unsigned int nr;
	struct {
		u16 s;
		u8 data[512];
	} cached[MAX_META_CACHED];
} *meta;
static u64 meta_blocks;

static void disk_persist(struct disk *d, unsigned int i)
{
	u16 s = d->cached[i].s;
	unsigned int j, k;

	d->dur[s] = d->cached[i].v;
	for (j = k = 0; j < d->nr; j++)
		if (j > i || d->cached[j].s != s)
			d->cached[k++] = d->cached[j];
	d->nr = k;
}

static void disk_flush_all(struct disk *d)
{
	memcpy(d->dur, d->cur, sizeof(d->dur));
	d->nr = 0;
}

/* Writes reach the medium in any order, but never an older one after a newer. */
static void disk_flush_some(struct disk *d, unsigned int per_mille)
{
	unsigned int i = 0;

	while (i < d->nr) {
		unsigned int before = d->nr;

		if (chance(per_mille)) {
			disk_persist(d, i);
			i -= before - d->nr - 1;
		} else {
			i++;
		}
	}
}

static void disk_power_loss(struct disk *d, unsigned int per_mille)
{
	disk_flush_some(d, per_mille);
	memcpy(d->cur, d->dur, sizeof(d->cur));
	d->nr = 0;
}

static void disk_put(struct disk *d, unsigned int s, u32 v, bool fua)
{
	if (d->nr == MAX_CACHED)
		disk_persist(d, rnd(d->nr));
	d->cur[s] = v;
	d->cached[d->nr].s = s;
	d->cached[d->nr++].v = v;
	if (fua)
		disk_persist(d, d->nr - 1);
}

/* Main only: nothing else happens meanwhile. */
static int disk_write(int dev, unsigned int s, unsigned int nr, const u32 *v, bool fua)
{
	bool crash = crash_due(), bad = !crash && chance(weather.write[dev]);
	unsigned int i, part = crash || bad ? rnd(3) * 500 : 1000;

	trace("%u to %u of %s: %u...", s, s + nr, dev_names[dev], v[0]);
	for (i = 0; i < nr; i++)
		if (part == 1000 || chance(part))
			disk_put(&disks[dev], s + i, v[i], fua && (!bad || rnd(2)));
	if (crash)
		crash_now();
	if (bad)
		trace("write of %s %u fails, %u", dev_names[dev], s, part);
	return bad ? -EIO : 0;
}

static int disk_read(int dev, unsigned int s, unsigned int nr, u32 *v)
{
	if (crash_due())
		crash_now();
	if (chance(weather.read[dev]))
		return -EIO;
	memcpy(v, disks[dev].cur + s, nr * sizeof(*v));
	return 0;
}

static int disk_flush(int dev)
{
	bool bad, crash;

	sim_yield();
	crash = crash_due();
	bad = !crash && chance(weather.flush[dev]);
	if (!bad && !crash)
		disk_flush_all(&disks[dev]);
	else
		disk_flush_some(&disks[dev], rnd(3) * 500);
	if (crash)
		crash_now();
	trace("flush of %s: %d", dev_names[dev], bad);
	sim_yield();
	return bad ? -EIO : 0;
}

static void meta_persist(unsigned int i)
{
	u16 s = meta->cached[i].s;
	unsigned int j, k;

	memcpy(meta->dur[s], meta->cached[i].data, 512);
	for (j = k = 0; j < meta->nr; j++) {
		if (j <= i && meta->cached[j].s == s) {
			meta->nr_of[s]--;
			continue;
		}
		if (j != k)
			meta->cached[k] = meta->cached[j];
		k++;
	}
	meta->nr = k;
}

static void meta_flush_all(void)
{
	for (unsigned int i = 0; i < meta->nr; i++) {
		memcpy(meta->dur[meta->cached[i].s], meta->cached[i].data, 512);
		meta->nr_of[meta->cached[i].s] = 0;
	}
	meta->nr = 0;
}

static void meta_flush_some(unsigned int per_mille)
{
	unsigned int i = 0;

	while (i < meta->nr) {
		unsigned int before = meta->nr;

		if (chance(per_mille)) {
			meta_persist(i);
			i -= before - meta->nr - 1;
		} else {
			i++;
		}
	}
}

static void meta_power_loss(unsigned int per_mille)
{
	meta_flush_some(per_mille);
	for (unsigned int i = 0; i < meta->nr; i++) {
		u16 s = meta->cached[i].s;

		memcpy(meta->cur[s], meta->dur[s], 512);
		meta->nr_of[s] = 0;
	}
	meta->nr = 0;
}

static void meta_put(u64 s, const u8 *data, bool fua)
{
	memcpy(meta->cur[s], data, 512);
	if (fua && !meta->nr_of[s]) {
		memcpy(meta->dur[s], data, 512);
		return;
	}
	if (meta->nr == MAX_META_CACHED)
		meta_persist(rnd(meta->nr));
	meta->cached[meta->nr].s = s;
	memcpy(meta->cached[meta->nr++].data, data, 512);
	meta->nr_of[s]++;
	if (fua)
		meta_persist(meta->nr - 1);
}

static struct block_device meta_bdev;
static struct repl_store *store;
static u64 log_start;

int repl_dm_io(struct dm_io_request *req, struct dm_io_region *where)
{
	bool crash, bad, write = req->bi_opf & REQ_OP_WRITE, fua = req->bi_opf & REQ_FUA;
	unsigned int p, part;
	u8 *data = req->mem.ptr.vma;

	if (where->sector + where->count > meta_blocks * 8)
		fail("I/O behind the end of the metadata device");
	sim_yield();
	crash = crash_due();
	if (!write) {
		if (crash)
			crash_now();
		if (chance(weather.read[META])) {
			trace("read of metadata block %llu fails",
			      (unsigned long long)where->sector / 8);
			return -EIO;
		}
		memcpy(data, meta->cur[where->sector], where->count * 512);
		return 0;
	}
	p = where->sector < 16 ? weather.super :
	    where->sector < log_start * 8 ? weather.area : weather.append;
	bad = !crash && chance(p);
	part = crash || bad ? rnd(4) * 334 : 1000;
	for (unsigned int i = 0; i < where->count; i++)
		if (part >= 1000 || chance(part))
			meta_put(where->sector + i, data + i * 512, fua && (!bad || rnd(2)));
	trace("write of metadata block %llu, %llu%s: %s (tail %llu, next %llu, lost %d %d)",
	      (unsigned long long)where->sector / 8, (unsigned long long)where->count / 8,
	      fua ? ", FUA" : "", crash ? "crash" : bad ? "fails" : "good",
	      (unsigned long long)store->log.meta.tail, (unsigned long long)store->log.next,
	      store->log.lost, store->log.compacting_lost);
	if (crash)
		crash_now();
	sim_yield();
	return bad ? -EIO : 0;
}

int blkdev_issue_flush(struct block_device *bdev)
{
	bool bad, crash;

	(void)bdev;
	sim_yield();
	crash = crash_due();
	bad = !crash && chance(weather.flush[META]);
	if (!bad && !crash)
		meta_flush_all();
	else
		meta_flush_some(rnd(3) * 500);
	if (crash)
		crash_now();
	sim_yield();
	return bad ? -EIO : 0;
}

/* ---- The model ---- */

/* A state that may be found after a crash, and what the view shows then. */
struct expected {
	struct repl_meta_state state;
	bool later;		/* or any of what was written later, by sector */
	u32 image[NSEC];
	bool must[SLOTS];	/* are dirty, besides those written later */
};

static struct expected acked;
static struct expected maybe[16];	/* it is not known whether these were recorded */
static unsigned int nr_maybe;
static bool changing;

#define MAX_LATER 40
static struct {
	u32 v;
	u64 when;
} later[NSEC][MAX_LATER];
static unsigned int nr_later[NSEC];
static bool wrote[SLOTS];		/* by the view since a failover */
static bool asked[SLOTS];		/* of the log: to be dirty, or all were by a failover */
static u64 writes;			/* of the view, so far */
static u32 view_now[NSEC];
static u32 next_value;

static void forget_later(void)
{
	memset(nr_later, 0, sizeof(nr_later));
}

static void push_later(unsigned int s, u32 v)
{
	if (!acked.later && !nr_maybe) {
		nr_later[s] = 0;
		return;
	}
	if (nr_later[s] == MAX_LATER)
		fail("the model is too small");
	later[s][nr_later[s]].v = v;
	later[s][nr_later[s]++].when = ++writes;
}

static bool later_room(unsigned int s)
{
	if (!acked.later && !nr_maybe)
		nr_later[s] = 0;
	return nr_later[s] + 4 < MAX_LATER;
}

/* What was written to the sector up to then is durable. */
static void settle(unsigned int s, u64 when)
{
	unsigned int i, k = 0;

	for (i = 0; i < nr_later[s] && later[s][i].when <= when; i++)
		for (unsigned int j = 0; j <= nr_maybe; j++)
			(j ? &maybe[j - 1] : &acked)->image[s] = later[s][i].v;
	while (i < nr_later[s])
		later[s][k++] = later[s][i++];
	nr_later[s] = k;
}

/* ---- The chain ---- */

enum stage { NONE, RUNNING, FAILOVER, FAILED, DONE };
static const enum repl_disk_stage disk_stage[] = {
	REPL_DISK_NONE, REPL_DISK_RUNNING, REPL_DISK_FAILOVER, REPL_DISK_FAILOVER, REPL_DISK_DONE
};
enum { PASS, PRESERVE, REFUSE };
enum { ERR_CBW = 1, ERR_WRITE = 2, ERR_FLUSH = 4, ERR_META = 8, ERR_VIEW = 16 };

static struct {
	enum stage stage;
	int ingest;
	bool fenced, prepared, closed, loaded;
	bool merge_failed;
	u64 id, prepared_id;
	u32 errors;
	struct repl_identity identity;
} c;

static struct repl_map hidden_map, active_map;
static u64 nr_regions, first_region;	/* of the slots */
static bool marked[SLOTS];		/* the dirty map */
static bool dirty[NSEC];		/* the sender has to send again */

enum kind { OP_CBW, OP_BACKFILL, OP_OVERWRITE, OP_MERGE };
struct op {
	bool used;
	enum kind kind;
	unsigned int begin, end;	/* slots */
	int phase;
	struct repl_log_entry log;
};

#define MAX_OPS 16
static struct op ops[MAX_OPS];

struct request {
	bool used, view, fua, held;
	bool marking;			/* waits for the log */
	unsigned int s, nr;		/* sectors */
	u32 v[NSEC];
	struct repl_log_entry log;
};

#define MAX_BIOS 12
static struct request bios[MAX_BIOS];

/* A flush of the view, or the barrier behind a FUA write. */
struct flush {
	bool used, fua, bad;
	bool secondary, active, waits;	/* still to be done */
	bool sent;
	u64 when;
	unsigned int s, nr;
	struct repl_log_entry log;
};

#define MAX_FLUSHES 4
static struct flush flushes[MAX_FLUSHES];

static enum repl_region_state get(struct repl_map *map, unsigned int slot)
{
	return repl_map_get(map, first_region + slot);
}

static void set(struct repl_map *map, unsigned int begin, unsigned int end,
		enum repl_region_state state)
{
	repl_map_set(map, first_region + begin, first_region + end, state);
}

static bool some(struct repl_map *map)
{
	return repl_map_next(map, 0, nr_regions) < nr_regions;
}

static void note(enum repl_extent_op op, unsigned int begin, unsigned int end)
{
	trace("note %u: slots %u to %u", op, begin, end);
	repl_log_note(&store->log, op, first_region + begin, first_region + end);
}

/* Of a slot, as they are now. */
static void add_to_dirty(bool *map)
{
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		map[slot] |= get(&hidden_map, slot) || get(&active_map, slot);
}

static void latch(u32 error)
{
	c.errors |= error;
	if (c.loaded)
		repl_log_set_errors(&store->log, c.errors);
}

static struct op *find_op(unsigned int begin, unsigned int end)
{
	for (int i = 0; i < MAX_OPS; i++)
		if (ops[i].used && ops[i].begin < end && begin < ops[i].end)
			return &ops[i];
	return NULL;
}

static struct op *claim(enum kind kind, unsigned int begin, unsigned int end)
{
	for (int i = 0; i < MAX_OPS; i++)
		if (!ops[i].used) {
			ops[i] = (struct op) {
				.used = true, .kind = kind, .begin = begin, .end = end,
			};
			return &ops[i];
		}
	return NULL;
}

/* The device that has the slot, as the view reads it. */
static int where(unsigned int slot)
{
	if (c.stage == DONE)
		return SEC;
	return get(&active_map, slot) ? ACT : get(&hidden_map, slot) ? HID : SEC;
}

static u32 view_peek(unsigned int s)
{
	return disks[where(s / SPR)].cur[s];
}

static void check_view(const char *when)
{
	if (c.stage == NONE)
		return;
	for (unsigned int s = 0; s < NSEC; s++)
		if (view_peek(s) != view_now[s])
			fail("%s: sector %u of the view is %u and should be %u",
			     when, s, view_peek(s), view_now[s]);
}

/* A write of the view begins. */
static void view_writes(unsigned int s, unsigned int nr, const u32 *v)
{
	for (unsigned int i = 0; i < nr; i++)
		push_later(s + i, v[i]);
}

static void view_wrote(unsigned int s, unsigned int nr, const u32 *v)
{
	for (unsigned int i = 0; i < nr; i++) {
		view_now[s + i] = v[i];
		push_later(s + i, v[i]);
	}
}

/* A write of the view failed: each sector may be either, now or later. */
static void view_torn(unsigned int s, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		view_now[s + i] = view_peek(s + i);
		push_later(s + i, view_now[s + i]);
	}
	latch(ERR_VIEW);
}

static void flush_done(struct repl_log_entry *entry, int error, unsigned int dev)
{
	struct flush *f = container_of(entry, struct flush, log);

	(void)dev;
	f->waits = false;
	f->bad |= !!error;
	if (error)
		latch(ERR_META);
}

static struct flush *new_flush(void)
{
	for (int i = 0; i < MAX_FLUSHES; i++)
		if (!flushes[i].used) {
			memset(&flushes[i], 0, sizeof(flushes[i]));
			flushes[i].used = true;
			flushes[i].when = writes;
			flushes[i].log.kind = REPL_LOG_BARRIER;
			flushes[i].log.done = flush_done;
			return &flushes[i];
		}
	return NULL;
}

static bool view_flush(void)
{
	struct flush *f;

	if (c.stage == NONE || !(f = new_flush()))
		return false;
	f->nr = NSEC;
	f->secondary = c.stage != RUNNING;
	f->active = c.stage != DONE;
	f->waits = c.stage == FAILOVER || c.stage == FAILED;
	return true;
}

static bool flush_step(struct flush *f)
{
	unsigned int i;

	if (!f->secondary && !f->active && !f->waits) {
		f->used = false;
		if (!f->bad && acked.later)
			for (i = 0; i < f->nr; i++)
				settle(f->s + i, f->when);
		trace("flush up to %llu ends, %s", (unsigned long long)f->when,
		      f->bad ? "failed" : "good");
		return true;
	}
	/* In any order. */
	i = rnd(3);
	for (int n = 0; n < 3; n++, i = (i + 1) % 3) {
		if (i == 0 && f->secondary) {
			f->secondary = false;
			f->bad |= !!disk_flush(SEC);
			return true;
		}
		if (i == 1 && f->active) {
			f->active = false;
			f->bad |= !!disk_flush(ACT);
			return true;
		}
		if (i == 2 && f->waits && !f->sent) {
			f->sent = true;
			repl_log_add(&store->log, &f->log);
			return true;
		}
	}
	return false;
}

/* A write of the view has gone to a device. */
static void view_write(struct request *b, int dev)
{
	struct flush *f;

	view_writes(b->s, b->nr, b->v);
	if (c.fenced)
		wrote[b->s / SPR] = true;
	if (disk_write(dev, b->s, b->nr, b->v, b->fua)) {
		view_torn(b->s, b->nr);
		goto out;
	}
	view_wrote(b->s, b->nr, b->v);
	trace("view writes %u, %u to %s%s", b->s, b->nr, dev_names[dev], b->fua ? ", FUA" : "");
	if (!b->fua || c.stage == RUNNING)
		goto out;
	if (c.stage == DONE || !repl_log_noted(&store->log)) {
		for (unsigned int i = 0; i < b->nr; i++)
			settle(b->s + i, writes);
		trace("that is durable");
	} else if ((f = new_flush())) {
		f->fua = true;
		f->s = b->s;
		f->nr = b->nr;
		f->waits = true;
	}
out:
	b->used = false;
}

static bool covers(const struct request *b)
{
	return b->nr == SPR && b->s % SPR == 0;
}

static void view_marked(struct repl_log_entry *entry, int error, unsigned int dev)
{
	struct request *b = container_of(entry, struct request, log);

	(void)dev;
	b->marking = false;
	if (error) {
		latch(ERR_META);
		b->used = false;
	} else {
		marked[b->s / SPR] = true;
	}
}

/* After a failover: before a write, who else has this data must be told. */
static bool view_mark(struct request *b)
{
	unsigned int slot = b->s / SPR;

	if (!c.fenced || marked[slot])
		return false;
	asked[slot] = true;
	b->marking = true;
	b->log = (struct repl_log_entry) {
		.kind = REPL_LOG_REGIONS, .op = REPL_EXTENT_DIRTY,
		.begin = first_region + slot, .end = first_region + slot + 1,
		.done = view_marked,
	};
	repl_log_add(&store->log, &b->log);
	return true;
}

static bool view_dispatch(struct request *b)
{
	unsigned int slot = b->s / SPR;
	int from = where(slot);

	if (b->held || b->marking)
		return false;
	if (view_mark(b))
		return true;
	switch (c.stage) {
	case NONE:
		b->used = false;
		return true;
	case DONE:
		view_write(b, SEC);
		return true;
	case FAILOVER:
		if (from == SEC) {
			view_write(b, SEC);
			return true;
		}
		return !find_op(slot, slot + 1) && claim(OP_MERGE, slot, slot + 1);
	case FAILED:
		if (from == SEC) {
			view_write(b, SEC);
			return true;
		}
		break;
	default:
		break;
	}
	if (from == ACT) {
		view_write(b, ACT);
		return true;
	}
	return !find_op(slot, slot + 1) &&
	       claim(covers(b) ? OP_OVERWRITE : OP_BACKFILL, slot, slot + 1);
}

static bool ingest_dispatch(struct request *b)
{
	unsigned int begin = b->s / SPR, end = (b->s + b->nr - 1) / SPR + 1, slot;
	bool all = true, did = false;

	if (c.ingest == REFUSE) {
		for (unsigned int i = 0; i < b->nr; i++)
			dirty[b->s + i] = true;
		b->used = false;
		return true;
	}
	for (slot = begin; c.ingest == PRESERVE && slot < end; slot++) {
		unsigned int last = slot;

		if (get(&hidden_map, slot) == REPL_REGION_PRESERVED)
			continue;
		all = false;
		while (last < end && !get(&hidden_map, last) && !find_op(last, last + 1))
			last++;
		if (last > slot && claim(OP_CBW, slot, last)) {
			did = true;
			slot = last - 1;
		}
	}
	if (!all)
		return did;
	for (unsigned int i = 0; i < b->nr; i++)
		dirty[b->s + i] = false;
	if (c.stage == DONE)
		view_writes(b->s, b->nr, b->v);
	if (disk_write(SEC, b->s, b->nr, b->v, false)) {
		for (unsigned int i = 0; i < b->nr; i++)
			dirty[b->s + i] = true;
		latch(ERR_WRITE);
		if (c.stage == DONE)
			view_torn(b->s, b->nr);
	} else if (c.stage == DONE) {
		view_wrote(b->s, b->nr, b->v);
	}
	b->used = false;
	return true;
}

static void cbw_fail(struct op *op)
{
	latch(ERR_CBW);
	for (int i = 0; i < MAX_BIOS; i++) {
		struct request *b = &bios[i];

		if (!b->used || b->view || b->s >= op->end * SPR ||
		    b->s + b->nr <= op->begin * SPR)
			continue;
		for (unsigned int j = 0; j < b->nr; j++)
			dirty[b->s + j] = true;
		b->used = false;
	}
	op->used = false;
}

static void cbw_logged(struct repl_log_entry *entry, int error, unsigned int dev)
{
	struct op *op = container_of(entry, struct op, log);

	(void)dev;
	trace("slots %u to %u are%s recorded", op->begin, op->end, error ? " not" : "");
	set(&hidden_map, op->begin, op->end,
	    error ? REPL_REGION_NONE : REPL_REGION_PRESERVED);
	if (error)
		cbw_fail(op);
	op->used = false;
}

static int copy(struct op *op, int from, int to)
{
	u32 v[NSEC];
	unsigned int s = op->begin * SPR, nr = (op->end - op->begin) * SPR;
	int r = disk_read(from, s, nr, v);

	return r ? r : disk_write(to, s, nr, v, false);
}

static bool cbw_step(struct op *op)
{
	if (op->phase == 0) {
		if (copy(op, SEC, HID)) {
			cbw_fail(op);
			return true;
		}
		set(&hidden_map, op->begin, op->end, REPL_REGION_REDIRECT);
		trace("slots %u to %u are copied to hidden", op->begin, op->end);
	} else if (op->phase == 1) {
		op->log = (struct repl_log_entry) {
			.kind = REPL_LOG_REGIONS, .begin = first_region + op->begin,
			.end = first_region + op->end, .done = cbw_logged,
		};
		op->phase++;
		repl_log_add(&store->log, &op->log);
		return true;
	} else {
		return false;
	}
	op->phase++;
	return true;
}

static void merge_step(struct op *op)
{
	if (copy(op, where(op->begin), SEC)) {
		trace("merge of %u fails", op->begin);
		c.merge_failed = true;
		for (int i = 0; i < MAX_BIOS; i++)
			if (bios[i].used && bios[i].view && bios[i].s / SPR >= op->begin &&
			    bios[i].s / SPR < op->end)
				bios[i].held = true;
	} else {
		set(&hidden_map, op->begin, op->end, REPL_REGION_NONE);
		set(&active_map, op->begin, op->end, REPL_REGION_NONE);
		note(REPL_EXTENT_MERGED, op->begin, op->end);
	}
	op->used = false;
}

static void fill_active(struct op *op)
{
	struct request *b = NULL;

	for (int i = 0; i < MAX_BIOS && !b; i++)
		if (bios[i].used && bios[i].view && bios[i].s / SPR == op->begin)
			b = &bios[i];
	op->used = false;
	if (op->kind == OP_OVERWRITE && b && covers(b)) {
		/* As in chain.c: the note, then what waits for it. */
		u32 v[SPR];

		memcpy(v, b->v, sizeof(v));
		if (disk_write(ACT, b->s, b->nr, v, b->fua)) {
			latch(ERR_VIEW);
			b->used = false;
			return;
		}
		set(&active_map, op->begin, op->end, REPL_REGION_PRESERVED);
		note(REPL_EXTENT_ACTIVE, op->begin, op->end);
		view_write(b, ACT);
		return;
	}
	if (copy(op, get(&hidden_map, op->begin) ? HID : SEC, ACT)) {
		latch(ERR_VIEW);
		if (b)
			b->used = false;
		return;
	}
	set(&active_map, op->begin, op->end, REPL_REGION_PRESERVED);
	note(REPL_EXTENT_ACTIVE, op->begin, op->end);
}

static bool op_step(struct op *op)
{
	switch (op->kind) {
	case OP_CBW:
		return cbw_step(op);
	case OP_MERGE:
		merge_step(op);
		return true;
	default:
		fill_active(op);
		return true;
	}
}

/* Something in flight goes on. False: nothing can. */
static bool io_step(void)
{
	unsigned int i, from = rnd(MAX_OPS + MAX_BIOS + MAX_FLUSHES);

	if (rnd(3) == 0 && fibers_step(false))
		return true;
	for (i = 0; i < MAX_OPS + MAX_BIOS + MAX_FLUSHES; i++) {
		unsigned int j = (from + i) % (MAX_OPS + MAX_BIOS + MAX_FLUSHES);

		if (j < MAX_OPS) {
			if (ops[j].used && op_step(&ops[j]))
				return true;
			continue;
		}
		j -= MAX_OPS;
		if (j < MAX_BIOS) {
			struct request *b = &bios[j];

			if (b->used && (b->view ? view_dispatch(b) : ingest_dispatch(b)))
				return true;
			continue;
		}
		j -= MAX_BIOS;
		if (flushes[j].used && flush_step(&flushes[j]))
			return true;
	}
	return fibers_step(false);
}

static bool in_flight(void)
{
	for (int i = 0; i < MAX_OPS; i++)
		if (ops[i].used)
			return true;
	for (int i = 0; i < MAX_BIOS; i++)
		if (bios[i].used && !bios[i].held)
			return true;
	for (int i = 0; i < MAX_FLUSHES; i++)
		if (flushes[i].used)
			return true;
	return false;
}

static void show_in_flight(void)
{
	struct repl_log *log = &store->log;

	printf("# stage %u, ingest %d, closed %d, prepared %d\n", c.stage, c.ingest, c.closed,
	       c.prepared);
	for (int i = 0; i < MAX_OPS; i++)
		if (ops[i].used)
			printf("# op %d, slots %u to %u, phase %d\n", ops[i].kind, ops[i].begin,
			       ops[i].end, ops[i].phase);
	for (int i = 0; i < MAX_BIOS; i++)
		if (bios[i].used)
			printf("# write of %s, sectors %u, %u%s\n", bios[i].view ? "view" : "ingest",
			       bios[i].s, bios[i].nr, bios[i].held ? ", held back" : "");
	for (int i = 0; i < MAX_FLUSHES; i++)
		if (flushes[i].used)
			printf("# flush: secondary %d, active %d, waits %d, sent %d\n",
			       flushes[i].secondary, flushes[i].active, flushes[i].waits,
			       flushes[i].sent);
	printf("# log: tail %llu, next %llu of %llu, entries %d, lost %d, compacting %d (lost %d, awaited %d), pending %d %d\n",
	       (unsigned long long)log->meta.tail, (unsigned long long)log->next,
	       (unsigned long long)log->meta.layout.log_blocks, !list_empty(&log->entries),
	       log->lost, log->compacting, log->compacting_lost, log->compact_awaited,
	       log->commit_work.pending, log->compact_work.pending);
}

static void drain(void)
{
	while (in_flight())
		if (!io_step() && !fibers_step(true)) {
			show_in_flight();
			fail("nothing goes on, and I/O is in flight");
		}
}

/* ---- Transitions ---- */

static void set_ingest(void)
{
	bool ambiguous = repl_log_ambiguous(&store->log);

	if (c.fenced || ambiguous)
		c.ingest = REFUSE;
	else if (c.stage != RUNNING)
		c.ingest = PASS;
	else
		c.ingest = c.prepared ? REFUSE : PRESERVE;
}

static void get_state(struct repl_meta_state *state)
{
	*state = (struct repl_meta_state) {
		.checkpoint = c.id, .stage = disk_stage[c.stage],
		.flags = c.fenced ? REPL_STATE_FENCED : 0,
		.identity = c.identity,
	};
	if (c.prepared) {
		state->prepared = c.prepared_id;
		state->flags |= REPL_STATE_PREPARED;
	}
}

static int record(const struct repl_meta_state *state, u16 flags, unsigned int flush,
		  const u32 *image, bool is_later)
{
	struct expected want = { .state = *state, .later = is_later };
	unsigned int dev;
	int r;

	if (image)
		memcpy(want.image, image, sizeof(want.image));
	if (flags & REPL_LOG_DIRTY_ADD)
		add_to_dirty(want.must);
	else if (!(flags & REPL_LOG_EMPTY_DIRTY))
		memcpy(want.must, acked.must, sizeof(want.must));
	if (!nr_maybe && !acked.later)
		forget_later();
	if (nr_maybe == 16)
		return -EBUSY;
	maybe[nr_maybe++] = want;
	changing = true;
	r = repl_log_change(&store->log, state, flags, flush, &dev);
	changing = false;
	trace("change to stage %u, checkpoint %llu, prepared %llu: %d%s", state->stage,
	      (unsigned long long)state->checkpoint, (unsigned long long)state->prepared, r,
	      r && repl_log_ambiguous(&store->log) ? ", ambiguous" : "");
	if (!r) {
		acked = want;
		nr_maybe = 0;
	} else {
		nr_ambiguous += repl_log_ambiguous(&store->log);
		latch(ERR_META);
	}
	return r;
}

static int record_empty(enum stage stage, bool fenced, u64 id, const u32 *image, bool is_later)
{
	struct repl_meta_state state = {
		.stage = disk_stage[stage], .checkpoint = id,
		.flags = fenced ? REPL_STATE_FENCED : 0,
		.identity = c.identity,
	};

	state.identity.role = REPL_ROLE_SECONDARY;
	/* The end of a merge leaves what is dirty. */
	return record(&state, fenced ? REPL_LOG_EMPTY_EPOCH : REPL_LOG_EMPTY_ALL, 0, image,
		      is_later);
}

static void set_view(const u32 *image)
{
	memcpy(view_now, image, sizeof(view_now));
	forget_later();
}

static bool any_dirty(void)
{
	for (int s = 0; s < NSEC; s++)
		if (dirty[s])
			return true;
	return false;
}

static bool point_in_time(void)
{
	if ((c.errors & ~ERR_VIEW) || any_dirty())
		return false;
	drain();
	if ((c.errors & ~ERR_VIEW) || any_dirty())
		return false;
	if (disk_flush(SEC)) {
		latch(ERR_FLUSH);
		return false;
	}
	return true;
}

static void committed(u64 id)
{
	repl_map_empty(&hidden_map);
	repl_map_empty(&active_map);
	c.id = id;
	set_view(acked.image);
	nr_checkpoints++;
}

static void do_start(void)
{
	if (!point_in_time())
		return;
	/* If that is ambiguous, the view goes on in what may be a checkpoint. */
	if (!record_empty(RUNNING, false, c.id + 1, disks[SEC].cur, c.stage == DONE)) {
		acked.later = false;
		c.identity.role = REPL_ROLE_SECONDARY;
		c.fenced = false;
		c.stage = RUNNING;
		memset(marked, 0, sizeof(marked));
		memset(wrote, 0, sizeof(wrote));
		memset(asked, 0, sizeof(asked));
		committed(c.id + 1);
	}
	set_ingest();
}

static void do_checkpoint(void)
{
	u64 id = c.id + 1 + rnd(2);

	if (!point_in_time())
		return;
	if (!record_empty(RUNNING, false, id, disks[SEC].cur, false))
		committed(id);
	set_ingest();
}

static void do_prepare(void)
{
	struct repl_meta_state state;

	if (!point_in_time())
		return;
	get_state(&state);
	state.prepared = c.id + 1 + rnd(3);
	state.flags |= REPL_STATE_PREPARED;
	if (!record(&state, 0, 0, acked.image, false)) {
		c.prepared = true;
		c.prepared_id = state.prepared;
		c.closed = true;
	} else {
		set_ingest();
	}
}

static void do_settle(bool commit)
{
	bool was_closed = c.closed;
	int r;

	drain();
	if (commit) {
		r = record_empty(RUNNING, false, c.prepared_id, disks[SEC].cur, false);
	} else {
		struct repl_meta_state state;

		get_state(&state);
		state.prepared = 0;
		state.flags &= ~REPL_STATE_PREPARED;
		r = record(&state, 0, 0, acked.image, false);
	}
	if (!r) {
		c.prepared = false;
		if (commit)
			committed(c.prepared_id);
	}
	if (!r || !was_closed) {
		c.closed = false;
		set_ingest();
	}
}

static void do_stop(void)
{
	drain();
	/* The module does not flush; then nothing could be said of the result. */
	if (disk_flush(SEC))
		return;
	if (!record_empty(DONE, false, c.id, disks[SEC].cur, false)) {
		acked.later = true;
		repl_map_empty(&hidden_map);
		repl_map_empty(&active_map);
		c.stage = DONE;
		memset(dirty, 0, sizeof(dirty));
		set_view(acked.image);
	}
	set_ingest();
}

static void do_failover(void)
{
	struct repl_meta_state state = {
		.stage = REPL_DISK_FAILOVER, .flags = REPL_STATE_FENCED, .checkpoint = c.id,
		.identity = c.identity,
	};
	bool was_closed = c.closed;
	u32 image[NSEC];

	drain();
	memcpy(state.identity.parent, c.identity.lineage, REPL_UUID_SIZE);
	state.identity.parent_checkpoint = c.id;
	get_random_bytes(state.identity.lineage, REPL_UUID_SIZE);
	memcpy(image, view_now, sizeof(image));
	/* Before the record: it may be compacted as soon as it is there. */
	add_to_dirty(marked);
	add_to_dirty(asked);
	if (record(&state, REPL_LOG_DIRTY_ADD, some(&active_map) ? REPL_LOG_DEV_ACTIVE : 0,
		   image, true)) {
		memset(marked, 0, sizeof(marked));
		if (!was_closed)
			set_ingest();
		return;
	}
	nr_failovers++;
	c.identity = state.identity;
	memset(wrote, 0, sizeof(wrote));
	forget_later();
	c.closed = false;
	c.prepared = false;
	c.fenced = true;
	c.stage = FAILOVER;
	c.merge_failed = false;
	memset(dirty, 0, sizeof(dirty));
	set_ingest();
}

static void merge_ends(bool done)
{
	u32 image[NSEC];

	drain();
	memcpy(image, acked.image, sizeof(image));
	if (done && record_empty(DONE, c.fenced, c.id, image, true))
		done = false;
	c.stage = done ? DONE : FAILED;
	trace("merge ends: %s", done ? "done" : "failed");
	c.merge_failed = false;
	for (int i = 0; i < MAX_BIOS; i++)
		bios[i].held = false;
	set_ingest();
}

static void merge_job(void)
{
	u64 region, end;
	unsigned int slot;

	if (c.merge_failed) {
		merge_ends(false);
		return;
	}
	region = min(repl_map_next(&active_map, 0, nr_regions),
		     repl_map_next(&hidden_map, 0, nr_regions));
	if (region == nr_regions) {
		if (in_flight())
			return;
		if (disk_flush(SEC))
			c.merge_failed = true;
		else
			merge_ends(true);
		return;
	}
	slot = rnd(SLOTS);
	for (end = slot; end < SLOTS && end < slot + 4 && where(end) != SEC &&
	     where(end) == where(slot) && !find_op(end, end + 1); end++)
		;
	if (end > slot)
		claim(OP_MERGE, slot, end);
}

static void do_clear_error(void)
{
	struct repl_meta_state state;

	if (repl_log_ambiguous(&store->log)) {
		bool was_closed = c.closed;
		int r;

		drain();
		get_state(&state);
		r = record(&state, 0, 0, acked.image, acked.later);
		if (!was_closed)
			set_ingest();
		if (r)
			return;
	}
	c.errors = 0;
	repl_log_set_errors(&store->log, 0);
}

/* ---- New I/O ---- */

static struct request *new_bio(void)
{
	for (int i = 0; i < MAX_BIOS; i++)
		if (!bios[i].used) {
			memset(&bios[i], 0, sizeof(bios[i]));
			bios[i].used = true;
			return &bios[i];
		}
	return NULL;
}

static void new_ingest(void)
{
	struct request *b;
	unsigned int s = rnd(NSEC), nr = 1 + rnd(rnd(4) ? 3 : 10);

	nr = min(nr, NSEC - s);
	for (int i = 0; i < MAX_BIOS; i++)	/* a sender that sends in order */
		if (bios[i].used && bios[i].s < s + nr && s < bios[i].s + bios[i].nr)
			return;
	for (unsigned int i = 0; i < nr; i++)
		if (!later_room(s + i))
			return;
	b = new_bio();
	if (!b)
		return;
	b->s = s;
	b->nr = nr;
	for (unsigned int i = 0; i < nr; i++)
		b->v[i] = ++next_value;
}

/* Errors are forgotten when all that failed has been sent again. */
static void resync(void)
{
	if (c.closed)
		return;
	if (repl_log_ambiguous(&store->log) || (c.prepared && c.errors)) {
		do_clear_error();
		return;
	}
	drain();
	for (unsigned int s = 0; s < NSEC; s++)
		if (dirty[s] && later_room(s)) {
			struct request *b = new_bio();

			if (!b)
				break;
			b->s = s;
			b->nr = 1;
			b->v[0] = ++next_value;
		}
	drain();
	if (!any_dirty())
		do_clear_error();
}

static void new_view(void)
{
	unsigned int slot = rnd(SLOTS), first = rnd(SPR);
	struct request *b;

	if (c.stage == NONE)
		return;
	for (int i = 0; i < MAX_BIOS; i++)
		if (bios[i].used && bios[i].s < (slot + 1) * SPR &&
		    slot * SPR < bios[i].s + bios[i].nr && (bios[i].view || c.stage == DONE))
			return;
	for (unsigned int i = 0; i < SPR; i++)
		if (!later_room(slot * SPR + i)) {
			view_flush();
			return;
		}
	b = new_bio();
	if (!b)
		return;
	b->view = true;
	b->fua = !rnd(4);
	b->s = slot * SPR;
	b->nr = SPR;
	if (rnd(2)) {
		b->s += first;
		b->nr = 1;
	}
	for (unsigned int i = 0; i < b->nr; i++)
		b->v[i] = ++next_value;
}

/* ---- Life ---- */

static bool alive;
static enum end last_end;
static unsigned int attempts;

static int chain_flush(void *context, unsigned int devs)
{
	int r = 0;

	(void)context;
	if (devs & REPL_LOG_DEV_SECONDARY)
		r = disk_flush(SEC);
	if (!r && (devs & REPL_LOG_DEV_HIDDEN))
		r = disk_flush(HID);
	if (!r && (devs & REPL_LOG_DEV_ACTIVE))
		r = disk_flush(ACT);
	return r;
}

static bool chain_bits(void *context, enum repl_disk_map map, u64 begin, unsigned int nr,
		       u8 *bits)
{
	bool any = false;

	(void)context;
	sim_yield();
	if (map != REPL_DISK_DIRTY)
		return repl_map_bits(map == REPL_DISK_ACTIVE ? &active_map : &hidden_map, begin,
				     nr, bits);
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		u64 bit = first_region + slot - begin;

		if (!marked[slot] || first_region + slot < begin || bit >= nr)
			continue;
		bits[bit >> 3] |= 1 << (bit & 7);
		any = true;
	}
	return any;
}

static void mark(u64 begin, u64 end, bool as)
{
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		if (begin <= first_region + slot && first_region + slot < end)
			marked[slot] = as;
}

static int chain_apply(void *context, enum repl_apply what, u64 begin, u64 end)
{
	(void)context;
	if (end > nr_regions || begin >= end)
		fail("replay: regions %llu to %llu", (unsigned long long)begin,
		     (unsigned long long)end);
	switch (what) {
	case REPL_APPLY_HIDDEN:
		repl_map_set(&hidden_map, begin, end, REPL_REGION_PRESERVED);
		break;
	case REPL_APPLY_ACTIVE:
		repl_map_set(&active_map, begin, end, REPL_REGION_PRESERVED);
		break;
	case REPL_APPLY_MERGED:
		repl_map_set(&hidden_map, begin, end, REPL_REGION_NONE);
		repl_map_set(&active_map, begin, end, REPL_REGION_NONE);
		break;
	case REPL_APPLY_DIRTY:
		mark(begin, end, true);
		break;
	case REPL_APPLY_CLEAN:
	case REPL_APPLY_EMPTY_DIRTY:
		mark(begin, end, false);
		break;
	case REPL_APPLY_DIRTY_ADD:
		add_to_dirty(marked);
		break;
	case REPL_APPLY_EMPTY_HIDDEN:
		repl_map_empty(&hidden_map);
		break;
	case REPL_APPLY_EMPTY_ACTIVE:
		repl_map_empty(&active_map);
		break;
	}
	return 0;
}

/* Now and then more is said to come than does. */
static unsigned int chain_coming(void *context)
{
	return rnd(12);
}

static const struct repl_store_ops store_ops = {
	.coming = chain_coming,
	.flush = chain_flush, .bits = chain_bits, .apply = chain_apply,
};

static bool is_of_map(const struct repl_map *map, const void *p)
{
	return p == map->words || p == map->chunks;
}

static void forget_memory(void)
{
	for (int i = 0; i < MAX_ALLOCS; i++)
		if (allocs[i] && !is_of_map(&hidden_map, allocs[i]) &&
		    !is_of_map(&active_map, allocs[i])) {
			free(allocs[i]);
			allocs[i] = NULL;
		}
	for (int i = 0; i < NFIBERS; i++)
		fiber_reset(&fibers[i]);
	store = NULL;
	memset(ops, 0, sizeof(ops));
	memset(bios, 0, sizeof(bios));
	memset(flushes, 0, sizeof(flushes));
	memset(&c, 0, sizeof(c));
	alive = false;
	attempts = 0;
}

static bool same_identity(const struct repl_identity *a, const struct repl_identity *b)
{
	return a->role == b->role && a->parent_checkpoint == b->parent_checkpoint &&
	       !memcmp(a->lineage, b->lineage, REPL_UUID_SIZE) &&
	       !memcmp(a->parent, b->parent, REPL_UUID_SIZE);
}

static bool same_state(const struct repl_meta_state *a, const struct repl_meta_state *b)
{
	return a->stage == b->stage && a->checkpoint == b->checkpoint &&
	       a->flags == b->flags &&
	       same_identity(&a->identity, &b->identity) &&
	       (!(a->flags & REPL_STATE_PREPARED) || a->prepared == b->prepared);
}

static bool may_be(const struct expected *e, unsigned int s, u32 v)
{
	if (e->image[s] == v)
		return true;
	for (unsigned int i = 0; e->later && i < nr_later[s]; i++)
		if (later[s][i].v == v)
			return true;
	return false;
}

/* The first sector of the view that cannot be, or NSEC. */
static unsigned int differs(const struct expected *e)
{
	unsigned int s;

	if (c.stage == NONE)
		return NSEC;
	for (s = 0; s < NSEC; s++)
		if (!may_be(e, s, view_peek(s)))
			break;
	return s;
}

/* What another copy may lack must be known, and nothing else than was asked for. */
static void check_dirty(const struct expected *found)
{
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		bool must = c.fenced && (found->must[slot] || wrote[slot]);

		if (must && !marked[slot])
			fail("activated in stage %u: slot %u was written after the failover%s, and is not dirty",
			     c.stage, slot, wrote[slot] ? "" : ", or is from before it");
		if (marked[slot] && !(c.fenced && asked[slot]))
			fail("activated in stage %u: slot %u is dirty, and nobody has asked for that",
			     c.stage, slot);
	}
}

static void check_activated(const struct repl_meta_state *state)
{
	const struct expected *found = NULL, *closest = NULL;

	if (same_state(state, &acked.state))
		closest = &acked;
	if (closest && differs(&acked) == NSEC)
		found = &acked;
	for (unsigned int i = 0; !found && i < nr_maybe; i++)
		if (same_state(state, &maybe[i].state)) {
			closest = &maybe[i];
			if (differs(&maybe[i]) == NSEC)
				found = &maybe[i];
		}
	if (last_end == END_CLEAN && found && found != &acked && !same_state(state, &acked.state))
		closest = found = NULL;
	if (!found && !closest)
		fail("activated in stage %u, checkpoint %llu, flags %u; the last one was stage %u, checkpoint %llu, flags %u",
		     state->stage, (unsigned long long)state->checkpoint, state->flags,
		     acked.state.stage, (unsigned long long)acked.state.checkpoint,
		     acked.state.flags);
	if (!found) {
		unsigned int s = differs(closest);

		fail("activated in stage %u, checkpoint %llu: sector %u of the view, in %s, is %u, not %u%s",
		     state->stage, (unsigned long long)state->checkpoint, s,
		     dev_names[where(s / SPR)], view_peek(s),
		     closest->image[s], closest->later ? " or later" : "");
	}
	if (last_end == END_CLEAN && found->later)
		check_view("after a clean end");
	check_dirty(found);
	/* A failover that was ambiguous has taken place, or not. */
	if (!c.fenced) {
		memset(wrote, 0, sizeof(wrote));
		memset(asked, 0, sizeof(asked));
	}

	/*
	 * A start was ambiguous, the view went on in stage done, and now it is
	 * a checkpoint after all. The module does not flush what was written
	 * since; here it is, or another crash could change that checkpoint.
	 */
	if (c.stage == RUNNING && found->later)
		disk_flush_all(&disks[SEC]);
	if (found != &acked)
		acked = *found;
	nr_maybe = 0;
	acked.later = c.stage == FAILOVER || c.stage == DONE;
	if (c.stage != NONE)
		for (unsigned int s = 0; s < NSEC; s++)
			view_now[s] = view_peek(s);
	if (!acked.later || last_end == END_POWER) {
		memcpy(acked.image, view_now, sizeof(view_now));
		forget_later();
	} else {
		for (unsigned int s = 0; s < NSEC; s++)
			if (later_room(s))
				push_later(s, view_now[s]);
	}
}

static void refused(const char *why, int r)
{
	trace("refused: %s, %d", why, r);
	nr_refused++;
	if (store)
		repl_store_destroy(store);
	store = NULL;
	memset(&c, 0, sizeof(c));
}

/* One attempt. False: this world is over, and rightly. */
static bool activate(void)
{
	static const enum stage stages[] = { NONE, RUNNING, FAILOVER, DONE };
	struct repl_meta_state state;
	const char *why = "?";
	char *error = "?";
	unsigned int dev;
	u16 flags = 0;
	int r;

	if (attempts++ > 2)
		memset(&weather, 0, sizeof(weather));
	store = repl_store_create(NULL, &meta_bdev, nr_regions * 8, 8, &store_ops, NULL, &error);
	if (IS_ERR(store)) {
		r = PTR_ERR(store);
		store = NULL;
		why = error;
		goto bad;
	}
	repl_map_empty(&hidden_map);
	repl_map_empty(&active_map);
	memset(marked, 0, sizeof(marked));
	r = repl_store_open(store, nr_regions * 8, 8, &state, &why);
	if (!r)
		r = repl_store_settle(store, &why);
	if (r)
		goto bad;
	log_start = store->log.meta.layout.log_start;

	memset(&c, 0, sizeof(c));
	c.stage = stages[state.stage];
	c.id = state.checkpoint;
	c.fenced = state.flags & REPL_STATE_FENCED;
	c.prepared = state.flags & REPL_STATE_PREPARED;
	c.prepared_id = state.prepared;
	c.errors = state.errors;
	c.identity = state.identity;
	if (c.stage == RUNNING)
		flags = REPL_LOG_EMPTY_ACTIVE | REPL_LOG_EMPTY_DIRTY;
	else if (c.stage != FAILOVER)
		flags = REPL_LOG_EMPTY_EPOCH;
	if (flags & REPL_LOG_EMPTY_DIRTY)
		memset(marked, 0, sizeof(marked));
	if (flags & REPL_LOG_EMPTY_ACTIVE)
		repl_map_empty(&active_map);
	if (flags & REPL_LOG_EMPTY_HIDDEN)
		repl_map_empty(&hidden_map);
	get_state(&state);
	repl_log_set_errors(&store->log, c.errors);
	why = "cannot write to the metadata device";
	r = repl_log_change(&store->log, &state, flags, 0, &dev);
	if (r)
		goto bad;
	c.loaded = true;
	set_ingest();
	trace("activated: stage %u, checkpoint %llu, prepared %llu", c.stage,
	      (unsigned long long)c.id, (unsigned long long)(c.prepared ? c.prepared_id : 0));
	check_activated(&state);
	was_corrupted = false;
	alive = true;
	attempts = 0;
	return true;
bad:
	if (attempts > 4 && !was_corrupted)
		fail("refused: %s (%d)", why, r);
	refused(why, r);
	return !was_corrupted || attempts <= 4;
}

/* A view that is removed in an orderly way, and made again. */
static void do_remove(void)
{
	bool clean = true;

	drain();
	for (int i = 0; i < MAX_BIOS; i++)
		if (bios[i].used)
			return;		/* held back: it could not be suspended */
	if (c.closed)
		return;
	if (c.stage != RUNNING && repl_log_noted(&store->log))
		clean = !repl_log_sync(&store->log);
	repl_store_destroy(store);
	store = NULL;
	last_end = clean ? END_CLEAN : END_RESTART;
	if (nr_maybe)
		last_end = END_RESTART;
	trace("removed, %s", clean ? "clean" : "not synced");
	forget_memory();
	nr_cleans++;
}

/* Damage to what is relied on, but not to the end of the log, which looks torn. */
static void corrupt(void)
{
	const struct repl_meta *m = &store->log.meta;
	u64 block, used = store->log.next - m->tail;

	if (rnd(3) == 0 && used > 2 * REPL_LOG_BATCH + 4)
		block = repl_log_block(&m->layout, m->tail + rnd(used - 2 * REPL_LOG_BATCH));
	else if (rnd(2) && m->area != REPL_NO_AREA)
		block = m->layout.area_start[m->area] + rnd(m->layout.area_blocks);
	else if (c.stage == FAILOVER || c.stage == FAILED)
		return;		/* notes that were lost are in its bitmaps only */
	else
		block = m->generation & 1;
	trace("block %llu is damaged", (unsigned long long)block);
	for (unsigned int i = 0; i < 8; i++) {
		u8 *p = meta->dur[block * 8 + i];

		p[rnd(512)] ^= 1 + rnd(255);
		memcpy(meta->cur[block * 8 + i], p, 512);
	}
	was_corrupted = true;
	nr_corrupted++;
}

static void after_crash(void)
{
	bool hit = alive && store && rnd(50) == 0;

	crashed = false;
	current = NULL;
	last_end = END_RESTART;
	if (rnd(5)) {
		unsigned int part = rnd(5) * 250;

		last_end = END_POWER;
		for (int i = 0; i < 3; i++)
			disk_power_loss(&disks[i], part);
		meta_power_loss(part);
		if (hit)
			corrupt();
	}
	nr_crashes += last_end == END_POWER;
	nr_restarts += last_end == END_RESTART;
	trace("crash: %s", last_end == END_POWER ? "power" : "restart");
	forget_memory();
}

static void change_weather(void)
{
	int dev = rnd(NDEV);

	slowness = rnd(2) ? 0 : rnd(2) ? 30 : 1000;
	memset(&weather, 0, sizeof(weather));
	switch (rnd(14)) {
	case 0:
		for (dev = 0; dev < NDEV; dev++)
			weather.read[dev] = weather.write[dev] = weather.flush[dev] = 30;
		weather.append = weather.area = weather.super = 30;
		break;
	case 1:
		weather.append = 500;
		break;
	case 2:		/* changes become ambiguous */
		weather.append = 700;
		weather.read[META] = 500;
		break;
	case 3:
		weather.append = weather.flush[META] = 400;
		break;
	case 4:
		weather.area = 1000;
		break;
	case 5:
		weather.super = 800;
		break;
	case 6:
		weather.flush[dev] = 700;
		break;
	case 7:		/* nothing is ever compacted */
		weather.flush[ACT] = 1000;
		break;
	case 8:
		weather.write[SEC] = 300;
		break;
	case 9:
		weather.append = 300;
		weather.super = weather.area = 1000;
		weather.read[META] = 100;
		break;
	}
}

static void step(void)
{
	unsigned int i = rnd(1000);

	world_step++;
	if (crash_due())
		crash_now();
	if (nr_maybe && !changing && !repl_log_ambiguous(&store->log))
		nr_maybe = 0;
	if (c.closed) {
		switch (rnd(4)) {
		case 0:
			do_settle(rnd(2));
			break;
		case 1:
			if (!rnd(20))
				do_failover();
			break;
		default:
			fibers_step(true);
		}
		return;
	}
	if (i < 150) {
		new_ingest();
	} else if (i < 300) {
		new_view();
	} else if (i < 320) {
		view_flush();
	} else if (i < 332 || c.merge_failed) {
		switch (c.stage) {
		case NONE:
			do_start();
			break;
		case RUNNING:
			if (c.prepared)
				do_settle(rnd(2));
			else if (i % 3 == 0)
				do_prepare();
			else
				do_checkpoint();
			break;
		case FAILOVER:
			merge_job();
			break;
		case FAILED:
			c.stage = FAILOVER;
			set_ingest();
			break;
		case DONE:
			if (rnd(3) == 0)
				do_start();
			break;
		}
	} else if (i < 335) {
		/* What a compaction has read is then half of before, half of after. */
		if (c.stage == RUNNING && (rnd(3) == 0 || store->log.compacting))
			do_failover();
		else if (c.stage == RUNNING && !c.prepared && rnd(4) == 0)
			do_stop();
	} else if (i < 345) {
		if (c.errors || any_dirty() || repl_log_ambiguous(&store->log))
			resync();
	} else if (i < 347) {
		do_remove();
	} else if (i < 352) {
		change_weather();
	} else if (i < 400 && c.stage == FAILOVER) {
		merge_job();
	} else {
		io_step();
	}
	if (alive && !(world_step & 3))
		check_view("alive");
}

static void new_world(u64 seed)
{
	rng = world_seed = seed;
	world_step = 0;
	forget_memory();
	repl_map_exit(&hidden_map);
	repl_map_exit(&active_map);
	/* Some worlds have regions on both sides of the end of a bitmap block. */
	nr_regions = rnd(8) ? SLOTS : 70000;
	first_region = nr_regions == SLOTS ? 0 : REPL_BITMAP_BITS - SLOTS / 2;
	if (repl_map_init(&hidden_map, nr_regions) || repl_map_init(&active_map, nr_regions))
		fail("no memory");
	memset(disks, 0, sizeof(disks));
	memset(meta, 0, sizeof(*meta));
	meta_blocks = 2 + 2 * (1 + REPL_NR_DISK_MAPS * (nr_regions == SLOTS ? 1 : 3)) + 64 + (rnd(4) ? 0 : 30);
	meta_bdev.sectors = meta_blocks * 8;
	log_start = 2;
	memset(&acked, 0, sizeof(acked));
	nr_maybe = 0;
	changing = false;
	memset(dirty, 0, sizeof(dirty));
	memset(wrote, 0, sizeof(wrote));
	memset(asked, 0, sizeof(asked));
	memset(view_now, 0, sizeof(view_now));
	memset(&weather, 0, sizeof(weather));
	forget_later();
	was_corrupted = false;
	slowness = 0;
	next_value = 0;
	writes = 0;
	for (int dev = 0; dev < 3; dev++)
		for (int s = 0; s < NSEC; s++)
			disks[dev].cur[s] = disks[dev].dur[s] = dev == SEC ? ++next_value :
									     0xdead0000 + s;
	last_end = END_POWER;
	crash_in = 1 + rnd(300);
}

static void hangs(int sig)
{
	(void)sig;
	fail("no end");
}

/* A failover while the log is compacted: when all has its end, no more than half is used. */
static void last_compaction(void)
{
	struct repl_log *log = &store->log;

	memset(&weather, 0, sizeof(weather));
	drain();
	if (c.stage != RUNNING || c.prepared || c.errors || repl_log_ambiguous(log))
		return;
	for (unsigned int i = 1; !log->compacting && i <= log->meta.layout.log_blocks; i++) {
		repl_log_set_errors(log, i & 1);
		while (!log->compacting && fibers_step(true))
			;
	}
	repl_log_set_errors(log, 0);
	/* One that failed lately waits until it is needed. */
	if (!log->compacting)
		return;
	do_failover();
	drain();
	while (fibers_step(true))
		;
	if (log->next - log->meta.tail > log->meta.layout.log_blocks / 2)
		fail("the log is not compacted");
}

static void world(u64 seed, u64 steps)
{
	signal(SIGALRM, hangs);
	alarm(30);
	new_world(seed);
	if (setjmp(crash_jmp)) {
		after_crash();
		/* Often soon after the last one, sometimes late. */
		crash_in = 1 + rnd(rnd(3) ? 100 : 2000);
	}
	while (world_step < steps) {
		if (alive)
			step();
		else if (!activate())
			break;
		if (!crash_in)
			crash_in = 1 + rnd(2000);
	}
	crash_in = 0;
	total_steps += world_step;
	if (alive)
		last_compaction();
}

#include "sim-primary.h"

static bool is_slow(const struct work_struct *work)
{
	return work == &store->log.compact_work || (track && work == &track->round.work);
}

/* Compaction fails, and the log fills up with errors: a failover takes place. */
static void reserve(void)
{
	new_world(1);
	crash_in = 0;
	if (!activate())
		fail("no world");
	do_start();
	weather.super = weather.area = 1000;
	for (unsigned int i = 0; i < 300; i++) {
		repl_log_set_errors(&store->log, i & 1);
		while (fibers_step(true))
			;
	}
	drain();
	do_failover();
	if (c.stage != FAILOVER)
		fail("no block is kept back for a change of state");
	repl_store_destroy(store);
	forget_memory();
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	u64 seed = 1, first, worlds = 0, steps = 4000;
	double seconds = 10, start = now();

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-v"))
			verbose = true;
		else if (i + 1 < argc && !strcmp(argv[i], "--seed"))
			seed = strtoull(argv[++i], NULL, 0);
		else if (i + 1 < argc && !strcmp(argv[i], "--worlds"))
			worlds = strtoull(argv[++i], NULL, 0);
		else if (i + 1 < argc && !strcmp(argv[i], "--steps"))
			steps = strtoull(argv[++i], NULL, 0);
		else if (i + 1 < argc && !strcmp(argv[i], "--seconds"))
			seconds = strtod(argv[++i], NULL);
		else
			return printf("sim [--seed N] [--seconds S | --worlds N] [--steps N] [-v]\n"), 2;
	}
	meta = calloc(1, sizeof(*meta));
	first = seed;
	if (!verbose) {
		reserve();
		primary_cost();
	}
	for (; worlds ? seed < first + worlds : now() - start < seconds; seed++)
		if (seed & 3)
			world(seed, steps);
		else
			primary_world(seed, steps);
	if (shim_warnings)
		fail("warnings");
	printf("ok - crash sim: %llu steps in %llu worlds from seed %llu: %llu losses of power, %llu restarts, %llu removals, %llu checkpoints, %llu failovers, %llu releases, %llu writes that waited, %llu rounds, %llu healed, %llu marked, %llu too small, %llu ambiguous changes, %llu blocks damaged, %llu refusals; %.0f s\n",
	       (unsigned long long)total_steps, (unsigned long long)(seed - first),
	       (unsigned long long)first, (unsigned long long)nr_crashes,
	       (unsigned long long)nr_restarts, (unsigned long long)nr_cleans,
	       (unsigned long long)nr_checkpoints, (unsigned long long)nr_failovers,
	       (unsigned long long)nr_released, (unsigned long long)nr_waits,
	       (unsigned long long)nr_cleared, (unsigned long long)nr_healed,
	       (unsigned long long)nr_marked, (unsigned long long)nr_too_small,
	       (unsigned long long)nr_ambiguous, (unsigned long long)nr_corrupted,
	       (unsigned long long)nr_refused, now() - start);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What log.c and store.c need of the kernel, on top of the unit tests' shim.
 * There is one thread. A work that is queued runs as a fiber of sim.c, which
 * decides when it goes on; I/O ends in sim.c's devices.
 */
#ifndef CRASH_SHIM_H
#define CRASH_SHIM_H

#include "../unit/shim/kernel.h"

#include <endian.h>
#include <linux/types.h>

/* compat.h is replaced: */
#define DM_REPL_COMPAT_H
/* One store at a time: */
#define DM_REPL_STORES_H
#define repl_stores_add(store, md)	0
#define repl_stores_del(store)
#define repl_stores_quiesce(store)

#define cpu_to_le16(x)	htole16(x)
#define cpu_to_le32(x)	htole32(x)
#define cpu_to_le64(x)	htole64(x)
#define le16_to_cpu(x)	le16toh(x)
#define le32_to_cpu(x)	le32toh(x)
#define le64_to_cpu(x)	le64toh(x)
#define clamp(v, lo, hi)	min(max(v, lo), hi)
#define DIV_ROUND_UP(a, b) (((a) + (b) - 1) / (b))

/* A crash frees all of it. */
void *sim_alloc(size_t n);
void sim_free(void *p);

#define kmemdup(p, n, g)	memcpy(sim_alloc(n), p, n)
#define U16_MAX			0xffff
#define DMWARN(...)		do { } while (0)
#undef vzalloc
#undef kzalloc
#undef kvcalloc
#undef kfree
#undef vfree
#undef kvfree
#define vzalloc(n)	sim_alloc(n)
#define kvcalloc(n, s, g) sim_alloc((n) * (s))
#define kvzalloc(n, g)	sim_alloc(n)
#define kzalloc(n, g)	sim_alloc(n)
#define vmalloc(n)	sim_alloc(n)
#define vfree(p)	sim_free(p)
#define kvfree(p)	sim_free(p)
#define kfree(p)	sim_free(p)

u64 sim_random(void);
#define get_random_u64() sim_random()

static inline void get_random_bytes(void *buf, size_t n)
{
	for (u8 *p = buf; n--; p++)
		*p = sim_random();
}

typedef struct {
	int counter;
} atomic_t;
#define atomic_set(v, n)	((v)->counter = (n))
#define atomic_read(v)		((v)->counter)
#define atomic_inc(v)		((v)->counter++)
#define atomic_dec(v)		((v)->counter--)
#define atomic_dec_and_test(v)	(!--(v)->counter)

#ifndef synchronize_rcu
#define synchronize_rcu() do { } while (0)
#endif

/* uuids */
typedef struct {
	u8 b[16];
} uuid_t;
#define generate_random_uuid(p)	get_random_bytes(p, 16)
#define uuid_parse(word, uuid)	(-EINVAL)
#define uuid_is_null(uuid)	false

static inline void *memchr_inv(const void *data, int c, size_t n)
{
	for (const u8 *p = data; n--; p++)
		if (*p != c)
			return (void *)p;
	return NULL;
}

/* lists */
static inline bool list_empty(const struct list_head *l)
{
	return l->next == l;
}

static inline void list_add_tail(struct list_head *e, struct list_head *l)
{
	e->prev = l->prev;
	e->next = l;
	l->prev->next = e;
	l->prev = e;
}

static inline void list_del_init(struct list_head *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	INIT_LIST_HEAD(e);
}

#ifndef LIST_HEAD
#define LIST_HEAD(name)	struct list_head name = { &(name), &(name) }
#endif

static inline void list_splice_tail_init(struct list_head *from, struct list_head *l)
{
	while (!list_empty(from))
		list_move_tail(from->next, l);
}

/* works, completions */
#define INIT_WORK(w, f) do { (w)->func = (f); (w)->pending = false; } while (0)
#define repl_alloc_workqueue(name, flags) ((struct workqueue_struct *)sim_alloc(1))
#define destroy_workqueue(q) sim_free(q)
void queue_work(struct workqueue_struct *wq, struct work_struct *work);
void cancel_work_sync(struct work_struct *work);
void flush_work(struct work_struct *work);
/* A tick may be over before, or long after, anything else. */
#define INIT_DELAYED_WORK(w, f)	INIT_WORK(&(w)->work, f)
#define queue_delayed_work(wq, w, ticks) queue_work(wq, &(w)->work)
#define HZ 1
#define cancel_delayed_work_sync(w) cancel_work_sync(&(w)->work)
#define to_delayed_work(w)	container_of(w, struct delayed_work, work)

struct completion {
	bool done;
};
#define init_completion(c)	((c)->done = false)
#define complete(c)		((c)->done = true)
void wait_for_completion(struct completion *c);
void sim_yield(void);
/* Who waits for one lets the others go on. */
bool sim_wait(void);
#undef mutex_lock
#define mutex_lock(m)	do { } while (pthread_mutex_trylock(&(m)->mutex) && sim_wait())
#undef cond_resched
#define cond_resched()	sim_yield()

/* block devices: dm-io, waiting for the end */
typedef unsigned int blk_opf_t;
#define REQ_OP_READ	0
#define REQ_OP_WRITE	1
#define REQ_FUA		2
#define REQ_SYNC	0
#define REQ_META	0
#define DM_IO_VMA	0

struct block_device {
	u64 sectors;
};
struct dm_io_client;

struct dm_io_request {
	blk_opf_t bi_opf;
	struct {
		int type;
		struct {
			void *vma;
		} ptr;
	} mem;
	struct dm_io_client *client;
};

struct dm_io_region {
	struct block_device *bdev;
	u64 sector;
	u64 count;
};

#define bdev_nr_sectors(b) ((b)->sectors)
#define ktime_get_real_seconds() 1700000000
#define dm_io_client_create() ((struct dm_io_client *)sim_alloc(1))
#define dm_io_client_destroy(c) sim_free(c)
int repl_dm_io(struct dm_io_request *req, struct dm_io_region *where);
int blkdev_issue_flush(struct block_device *bdev);

#define IS_ERR(p)		((uintptr_t)(p) >= (uintptr_t)-4095)
#define IS_ERR_OR_NULL(p)	(!(p) || IS_ERR(p))
#define PTR_ERR(p)		((int)(intptr_t)(p))
#define ERR_PTR(e)		((void *)(intptr_t)(e))

#endif

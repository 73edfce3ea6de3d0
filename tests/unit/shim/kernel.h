/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of the kernel as the pure parts of the module need, in user space.
 * The Makefile makes each linux/NAME.h an include of this file.
 *
 * A thread is a CPU: shim_cpu is its number. this_cpu_inc() is a plain
 * increment, as on x86 in the kernel, so that a missing barrier shows.
 */
#ifndef UNIT_SHIM_KERNEL_H
#define UNIT_SHIM_KERNEL_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef u64 sector_t;
typedef unsigned int gfp_t;

#define __init
#define __exit
#define __percpu
#define __must_check
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define container_of(p, type, member) \
	((type *)((char *)(p) - offsetof(type, member)))

#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v)	(*(volatile __typeof__(x) *)&(x) = (v))
#define barrier()		__asm__ __volatile__("" ::: "memory")
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
/* What a test does between two reads that are to be in order, or NULL. */
extern void (*shim_between_reads)(void);
#define smp_rmb()		do {					\
	if (shim_between_reads)						\
		shim_between_reads();					\
	__atomic_thread_fence(__ATOMIC_ACQUIRE);			\
} while (0)
#define smp_wmb()		__atomic_thread_fence(__ATOMIC_RELEASE)
#define smp_store_release(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define cmpxchg64(p, old, new)	__sync_val_compare_and_swap(p, old, new)
#define cmpxchg(p, old, new)	__sync_val_compare_and_swap(p, old, new)

#define min_t(t, a, b)	((t)(a) < (t)(b) ? (t)(a) : (t)(b))
#define max_t(t, a, b)	((t)(a) > (t)(b) ? (t)(a) : (t)(b))
#define min(a, b)	((a) < (b) ? (a) : (b))
#define max(a, b)	((a) > (b) ? (a) : (b))

#define hweight8(x)	((unsigned int)__builtin_popcount((u8)(x)))
#define div_u64(a, b)	((u64)(a) / (u32)(b))
#define hweight32(x)	((unsigned int)__builtin_popcount(x))
#define hweight64(x)	((unsigned int)__builtin_popcountll(x))
#define __ffs(x)	((unsigned long)__builtin_ctzl(x))

#define hweight_long(x)	((unsigned int)__builtin_popcountl(x))
#define BITS_PER_LONG	64
#define U32_MAX	0xffffffffU
#define SZ_4M	0x400000
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define swap(a, b) \
	do { __typeof__(a) __t = (a); (a) = (b); (b) = __t; } while (0)
#define is_power_of_2(n)	((n) && !((n) & ((n) - 1)))
#define ilog2(n)	(63 - __builtin_clzll(n))
#define cond_resched()	((void)0)

/* atomics: all with full barriers */
typedef struct {
	s64 counter;
} atomic64_t;
typedef struct {
	long counter;
} atomic_long_t;

#define atomic64_read(v)	__atomic_load_n(&(v)->counter, __ATOMIC_RELAXED)
#define atomic64_set(v, n)	__atomic_store_n(&(v)->counter, n, __ATOMIC_RELAXED)
#define atomic64_add(n, v)	((void)__sync_fetch_and_add(&(v)->counter, n))
#define atomic64_sub(n, v)	((void)__sync_fetch_and_sub(&(v)->counter, n))
#define atomic_long_fetch_or(n, v)	__sync_fetch_and_or(&(v)->counter, n)
#define atomic_long_fetch_andnot(n, v)	__sync_fetch_and_and(&(v)->counter, ~(n))

/* text; formats are not checked: u64 is another type there */

static inline int scnprintf(char *to, size_t size, const char *fmt, ...)
{
	va_list args;
	int n;

	if (!size)
		return 0;
	va_start(args, fmt);
	n = vsnprintf(to, size, fmt, args);
	va_end(args);
	return n < (int)size ? n : (int)size - 1;
}

static inline void strscpy(char *to, const char *from, size_t size)
{
	snprintf(to, size, "%s", from);
}

static inline int kstrtou64(const char *s, unsigned int base, u64 *to)
{
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	*to = strtoull(s, &end, (int)base);
	return *end ? -EINVAL : -errno;
}

#define ERESTARTSYS 512

/* A warning of the module is a failure of the test. */
extern unsigned int shim_warnings;
#define WARN_ON(c) ({							\
	bool __c = (c);							\
	if (__c) {							\
		shim_warnings++;					\
		printf("not ok - WARN_ON(%s) in %s\n", #c, __func__);	\
	}								\
	__c; })
#define WARN_ON_ONCE(c) WARN_ON(c)

/* Memory: shim_fail_alloc = 1 makes the next allocation fail. */
extern int shim_fail_alloc;

static inline void *shim_alloc(size_t n)
{
	if (shim_fail_alloc) {
		shim_fail_alloc--;
		return NULL;
	}
	return calloc(1, n);
}

#ifndef memalloc_noio_save
#define memalloc_noio_save()	0
#define memalloc_noio_restore(flags) ((void)(flags))
#endif
#define GFP_KERNEL	0
#define GFP_NOIO	1
#define GFP_NOWAIT	2
#define __GFP_NOWARN	0
#define kzalloc(n, g)		shim_alloc(n)
#define kfree(p)		free(p)
#define vzalloc(n)		shim_alloc(n)
#define kvcalloc(n, s, g)	shim_alloc((n) * (s))
#define vfree(p)		free(p)
#define kvfree(p)		free(p)

/* per-CPU */
#define SHIM_CPUS	16
#define SHIM_STRIDE	256
extern __thread int shim_cpu;

#define alloc_percpu(type) ({						\
	_Static_assert(sizeof(type) <= SHIM_STRIDE, "stride");		\
	(type *)shim_alloc(SHIM_CPUS * SHIM_STRIDE); })
#define free_percpu(p)	free(p)
#define per_cpu_ptr(p, cpu) \
	((__typeof__(p))((char *)(p) + (size_t)(cpu) * SHIM_STRIDE))
#define this_cpu_inc(field) do {					\
	volatile __typeof__(field) *__p = per_cpu_ptr(&(field), shim_cpu); \
	*__p = *__p + 1;						\
} while (0)
#define for_each_possible_cpu(cpu) for (cpu = 0; cpu < SHIM_CPUS; cpu++)

/*
 * RCU: what is freed here is freed when all threads are gone; or, for those
 * that wait for readers while these run, with a lock. That would be the very
 * barrier that the litmus tests must not have.
 */
#ifdef SHIM_RCU_LOCK
extern pthread_rwlock_t shim_rcu;
#define rcu_read_lock()		pthread_rwlock_rdlock(&shim_rcu)
#define rcu_read_unlock()	pthread_rwlock_unlock(&shim_rcu)
#define synchronize_rcu() do {						\
	pthread_rwlock_wrlock(&shim_rcu);				\
	pthread_rwlock_unlock(&shim_rcu);				\
} while (0)
#else
#define rcu_read_lock()		barrier()
#define rcu_read_unlock()	barrier()
#endif

/* locks */
typedef struct {
	pthread_mutex_t mutex;
	bool held;
} spinlock_t;

static inline void spin_lock_init(spinlock_t *l)
{
	pthread_mutex_init(&l->mutex, NULL);
	l->held = false;
}

static inline void spin_lock(spinlock_t *l)
{
	pthread_mutex_lock(&l->mutex);
	l->held = true;
}

static inline void spin_unlock(spinlock_t *l)
{
	l->held = false;
	pthread_mutex_unlock(&l->mutex);
}

#define spin_lock_irqsave(l, f)		do { (f) = 0; spin_lock(l); } while (0)
#define spin_unlock_irqrestore(l, f)	do { (void)(f); spin_unlock(l); } while (0)
#define spin_lock_irq(l)		spin_lock(l)
#define spin_unlock_irq(l)		spin_unlock(l)
#define lockdep_assert_held(l)		((void)WARN_ON(!(l)->held))

struct mutex {
	pthread_mutex_t mutex;
};

#define mutex_init(m)	pthread_mutex_init(&(m)->mutex, NULL)
#define mutex_lock(m)	pthread_mutex_lock(&(m)->mutex)
#define mutex_unlock(m)	pthread_mutex_unlock(&(m)->mutex)

/* wait queues; shim_killed: a fatal signal is pending for this thread */
typedef struct {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
} wait_queue_head_t;

extern __thread bool shim_killed;

static inline void init_waitqueue_head(wait_queue_head_t *q)
{
	pthread_mutex_init(&q->mutex, NULL);
	pthread_cond_init(&q->cond, NULL);
}

static inline void wake_up(wait_queue_head_t *q)
{
	pthread_mutex_lock(&q->mutex);
	pthread_cond_broadcast(&q->cond);
	pthread_mutex_unlock(&q->mutex);
}
#define wake_up_all(q) wake_up(q)

#define wait_event(q, c) do {						\
	pthread_mutex_lock(&(q).mutex);					\
	smp_mb();							\
	while (!(c))							\
		pthread_cond_wait(&(q).cond, &(q).mutex);		\
	pthread_mutex_unlock(&(q).mutex);				\
} while (0)

#define wait_event_killable(q, c) ({					\
	int __r = 0;							\
	pthread_mutex_lock(&(q).mutex);					\
	smp_mb();							\
	while (!(c)) {							\
		if (shim_killed) {					\
			__r = -ERESTARTSYS;				\
			break;						\
		}							\
		pthread_cond_wait(&(q).cond, &(q).mutex);		\
	}								\
	pthread_mutex_unlock(&(q).mutex);				\
	__r; })

/* bios: only their links */
struct bio {
	struct bio *bi_next;
	int id;
};

struct bio_list {
	struct bio *head, *tail;
};

static inline void bio_list_init(struct bio_list *l)
{
	l->head = l->tail = NULL;
}

static inline bool bio_list_empty(const struct bio_list *l)
{
	return !l->head;
}

static inline void bio_list_add(struct bio_list *l, struct bio *bio)
{
	bio->bi_next = NULL;
	if (l->tail)
		l->tail->bi_next = bio;
	else
		l->head = bio;
	l->tail = bio;
}

static inline void bio_list_merge(struct bio_list *l, struct bio_list *from)
{
	if (!from->head)
		return;
	if (l->tail)
		l->tail->bi_next = from->head;
	else
		l->head = from->head;
	l->tail = from->tail;
}

static inline struct bio *bio_list_pop(struct bio_list *l)
{
	struct bio *bio = l->head;

	if (bio) {
		l->head = bio->bi_next;
		if (!l->head)
			l->tail = NULL;
		bio->bi_next = NULL;
	}
	return bio;
}

/* lists */
struct list_head {
	struct list_head *next, *prev;
};

#define INIT_LIST_HEAD(l) ((l)->next = (l)->prev = (l))
#define list_entry(p, t, m)	container_of(p, t, m)
#define list_for_each_entry(p, head, m)					\
	for (p = list_entry(READ_ONCE((head)->next), __typeof__(*p), m); \
	     &p->m != (head);						\
	     p = list_entry(READ_ONCE(p->m.next), __typeof__(*p), m))
#define list_for_each_entry_rcu(p, head, m) list_for_each_entry(p, head, m)
#define list_for_each_entry_safe(p, n, head, m)				\
	for (p = list_entry((head)->next, __typeof__(*p), m),		\
	     n = list_entry(p->m.next, __typeof__(*p), m);		\
	     &p->m != (head);						\
	     p = n, n = list_entry(n->m.next, __typeof__(*n), m))

static inline void list_del_rcu(struct list_head *e)
{
	e->next->prev = e->prev;
	WRITE_ONCE(e->prev->next, e->next);
}
#define list_del(e) list_del_rcu(e)

static inline void list_add_tail_rcu(struct list_head *e, struct list_head *head)
{
	e->prev = head->prev;
	e->next = head;
	smp_store_release(&head->prev->next, e);
	head->prev = e;
}

static inline void list_move_tail(struct list_head *e, struct list_head *head)
{
	list_del(e);
	list_add_tail_rcu(e, head);
}

/* work: only its structures */
struct workqueue_struct;
struct work_struct {
	void (*func)(struct work_struct *work);
	bool pending;
};
struct delayed_work {
	struct work_struct work;
};

/* slabs and pools */
struct kmem_cache {
	size_t size;
};

struct shim_pool {
	struct kmem_cache *cache;
	unsigned int out;
};
typedef struct shim_pool mempool_t;

static inline struct kmem_cache *shim_cache(size_t size)
{
	struct kmem_cache *c = shim_alloc(sizeof(*c));

	if (c)
		c->size = size;
	return c;
}

#define KMEM_CACHE(s, flags)	shim_cache(sizeof(struct s))
#define kmem_cache_destroy(c)	free(c)

static inline int mempool_init_slab_pool(mempool_t *pool, int min_nr,
					 struct kmem_cache *cache)
{
	(void)min_nr;
	if (shim_fail_alloc) {
		shim_fail_alloc--;
		return -ENOMEM;
	}
	pool->cache = cache;
	pool->out = 0;
	return 0;
}

/* What the caller does not initialise is not zero. */
static inline void *mempool_alloc(mempool_t *pool, gfp_t gfp)
{
	void *p;

	if (gfp == GFP_NOWAIT && shim_fail_alloc) {
		shim_fail_alloc--;
		return NULL;
	}
	p = malloc(pool->cache->size);
	memset(p, 0xa5, pool->cache->size);
	pool->out++;
	return p;
}

static inline void mempool_free(void *p, mempool_t *pool)
{
	pool->out--;
	free(p);
}

static inline void mempool_exit(mempool_t *pool)
{
	WARN_ON(pool->out);
}

/* Trees: ordered, but not balanced. */
struct rb_node {
	struct rb_node *rb_parent, *rb_left, *rb_right;
};

struct rb_root {
	struct rb_node *rb_node;
};

#define RB_ROOT			((struct rb_root){ NULL })
#define RB_EMPTY_ROOT(r)	(!(r)->rb_node)
#define rb_entry(p, t, m)	container_of(p, t, m)

static inline void rb_link_node(struct rb_node *n, struct rb_node *parent,
				struct rb_node **link)
{
	n->rb_parent = parent;
	n->rb_left = n->rb_right = NULL;
	*link = n;
}

#define rb_insert_color(n, r) ((void)(n), (void)(r))

static inline void shim_rb_replace(struct rb_root *r, struct rb_node *old,
				   struct rb_node *new)
{
	struct rb_node *p = old->rb_parent;

	if (!p)
		r->rb_node = new;
	else if (p->rb_left == old)
		p->rb_left = new;
	else
		p->rb_right = new;
	if (new)
		new->rb_parent = p;
}

static inline void rb_erase(struct rb_node *n, struct rb_root *r)
{
	struct rb_node *next;

	if (!n->rb_left) {
		shim_rb_replace(r, n, n->rb_right);
	} else if (!n->rb_right) {
		shim_rb_replace(r, n, n->rb_left);
	} else {
		for (next = n->rb_right; next->rb_left; next = next->rb_left)
			;
		shim_rb_replace(r, next, next->rb_right);
		next->rb_left = n->rb_left;
		next->rb_right = n->rb_right;
		next->rb_left->rb_parent = next;
		if (next->rb_right)
			next->rb_right->rb_parent = next;
		shim_rb_replace(r, n, next);
	}
}

/* What the structures of copy.h need; nothing here copies. */
typedef void (*dm_kcopyd_notify_fn)(int read_err, unsigned long write_err,
				    void *context);
struct dm_kcopyd_client;
struct block_device;
struct page;
struct bio_set {
	int unused;
};

#endif

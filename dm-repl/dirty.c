// SPDX-License-Identifier: GPL-2.0-only
/* Dirty maps: see the essay in dirty.h. */

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "dirty.h"
#include "format.h"

/* Bits that are looked at between two chances for somebody else. */
#define DIRTY_WALK_BITS ((u64)SZ_4M)

/*
 * ---- Bits ----
 */

/* The bits of [begin, end) that lie in the word of @begin. */
static unsigned long bits_mask(u64 begin, u64 end)
{
	unsigned int first = begin % BITS_PER_LONG;
	unsigned int nr = min_t(u64, end - begin, BITS_PER_LONG - first);

	return (~0UL >> (BITS_PER_LONG - nr)) << first;
}

/* First bit of the next word. */
static u64 bits_next_word(u64 bit)
{
	return (bit | (BITS_PER_LONG - 1)) + 1;
}

static unsigned long bits_word(const struct repl_bits *b, u64 bit)
{
	return READ_ONCE(b->bits[bit / BITS_PER_LONG]);
}

static atomic_long_t *bits_atomic(struct repl_bits *b, u64 bit)
{
	return (atomic_long_t *)&b->bits[bit / BITS_PER_LONG];
}

/**
 * repl_bits_init() - allocate bits, none of them set
 * @b: bits
 * @nr: how many, at least 1
 *
 * Context: process, may sleep.
 * Return: 0, -EINVAL when there are none or too many, or -ENOMEM.
 */
int repl_bits_init(struct repl_bits *b, u64 nr)
{
	u64 words = nr / BITS_PER_LONG + 1;

	b->bits = NULL;
	b->nr = nr;
	atomic64_set(&b->count, 0);
	if (!nr || words > SIZE_MAX / sizeof(*b->bits))
		return -EINVAL;
	b->bits = kvcalloc(words, sizeof(*b->bits), GFP_KERNEL | __GFP_NOWARN);
	return b->bits ? 0 : -ENOMEM;
}

/**
 * repl_bits_exit() - free bits
 * @b: bits, may be zeroed
 */
void repl_bits_exit(struct repl_bits *b)
{
	kvfree(b->bits);
	b->bits = NULL;
}

/**
 * repl_bits_any() - is a bit of a range set?
 * @b: bits
 * @begin: first bit
 * @end: bit after the last, at most b->nr
 *
 * Context: any; no lock.
 */
bool repl_bits_any(const struct repl_bits *b, u64 begin, u64 end)
{
	for (; begin < end; begin = bits_next_word(begin))
		if (bits_word(b, begin) & bits_mask(begin, end))
			return true;
	return false;
}

/**
 * repl_bits_all() - are all bits of a range set?
 * @b: bits
 * @begin: first bit
 * @end: bit after the last, at most b->nr
 *
 * Context: any; no lock.
 */
bool repl_bits_all(const struct repl_bits *b, u64 begin, u64 end)
{
	for (; begin < end; begin = bits_next_word(begin))
		if (~bits_word(b, begin) & bits_mask(begin, end))
			return false;
	return true;
}

/**
 * repl_bits_set() - set a range
 * @b: bits
 * @begin: first bit
 * @end: bit after the last, at most b->nr
 *
 * Atomic for each word; a full barrier where a bit was not set, none where
 * all were.
 *
 * Context: any; no lock.
 * Return: how many were not set before.
 */
u64 repl_bits_set(struct repl_bits *b, u64 begin, u64 end)
{
	u64 fresh = 0;

	for (; begin < end; begin = bits_next_word(begin)) {
		unsigned long mask = bits_mask(begin, end);
		unsigned long old;

		if ((bits_word(b, begin) & mask) == mask)
			continue;
		old = atomic_long_fetch_or(mask, bits_atomic(b, begin));
		fresh += hweight_long(mask & ~old);
	}
	if (fresh)
		atomic64_add(fresh, &b->count);
	return fresh;
}

/**
 * repl_bits_clear() - clear a range
 * @b: bits
 * @begin: first bit
 * @end: bit after the last, at most b->nr
 *
 * Atomic for each word; a full barrier where a bit was set.
 *
 * Context: any; no lock.
 * Return: how many were set.
 */
u64 repl_bits_clear(struct repl_bits *b, u64 begin, u64 end)
{
	u64 gone = 0;

	for (; begin < end; begin = bits_next_word(begin)) {
		unsigned long mask = bits_mask(begin, end);
		unsigned long old;

		if (!(bits_word(b, begin) & mask))
			continue;
		old = atomic_long_fetch_andnot(mask, bits_atomic(b, begin));
		gone += hweight_long(mask & old);
	}
	if (gone)
		atomic64_sub(gone, &b->count);
	return gone;
}

/**
 * repl_bits_find() - find the next bit of a value
 * @b: bits
 * @begin: first bit to look at
 * @end: bit after the last, at most b->nr
 * @set: the value
 *
 * Context: any; no lock.
 * Return: the first of [@begin, @end) that has it, or @end.
 */
u64 repl_bits_find(const struct repl_bits *b, u64 begin, u64 end, bool set)
{
	while (begin < end) {
		unsigned long word = bits_word(b, begin);

		word = (set ? word : ~word) & bits_mask(begin, end);
		if (word)
			return (begin & ~(u64)(BITS_PER_LONG - 1)) +
			       __ffs(word);
		begin = bits_next_word(begin);
	}
	return end;
}

/**
 * repl_bits_next() - find the next bit that is set
 * @b: bits
 * @begin: first bit to look at
 *
 * Context: any; no lock.
 * Return: the first of [@begin, b->nr) that is set, or b->nr.
 */
u64 repl_bits_next(const struct repl_bits *b, u64 begin)
{
	return repl_bits_find(b, begin, b->nr, true);
}

/**
 * repl_bits_run() - how far does the value of the first bit reach?
 * @b: bits
 * @begin: first bit
 * @end: bit after the last, above @begin, at most b->nr
 *
 * Context: any; no lock.
 * Return: the number of bits from @begin on, at least 1, that are all set or
 * all not.
 */
u64 repl_bits_run(const struct repl_bits *b, u64 begin, u64 end)
{
	bool set = repl_bits_test(b, begin);

	/* The first one counts as looked at, whatever it is by now. */
	return repl_bits_find(b, begin + 1, end, !set) - begin;
}

/**
 * repl_bits_look() - is a bit set in one of several maps?
 * @maps: in the order in which a bit goes from one to the next: it is set in the
 *	next one before it is cleared
 * @nr: how many
 * @begin: the bit
 * @end: bit after the last one to look at, above @begin
 * @run: out: so many bits from @begin on, at least 1, are set in one of them, or
 *	none of them is in any
 *
 * One that goes from one to the next meanwhile is seen.
 *
 * Context: any; no lock.
 */
bool repl_bits_look(const struct repl_bits *const *maps, unsigned int nr,
		    u64 begin, u64 end, u64 *run)
{
	u64 first = end, last = begin + 1;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		first = repl_bits_find(maps[i], begin, first, true);
		smp_rmb();	/* pairs with clearing it */
	}
	*run = first - begin;
	if (first > begin)
		return false;
	for (i = 0; i < nr; i++)
		last = max(last, repl_bits_find(maps[i], begin, end, false));
	*run = last - begin;
	return true;
}

/**
 * repl_bits_merge() - set all that are set elsewhere
 * @to: bits
 * @from: as many bits
 *
 * Context: process.
 */
void repl_bits_merge(struct repl_bits *to, const struct repl_bits *from)
{
	u64 bit;

	for (bit = 0; bit < to->nr; bit = bits_next_word(bit)) {
		unsigned long word = bits_word(from, bit);
		unsigned long old;

		if (bit % DIRTY_WALK_BITS == 0)
			cond_resched();
		if (!(word & ~bits_word(to, bit)))
			continue;
		old = atomic_long_fetch_or(word, bits_atomic(to, bit));
		atomic64_add(hweight_long(word & ~old), &to->count);
	}
}

/**
 * repl_bits_wipe() - clear all
 * @b: bits
 *
 * What is set meanwhile is set afterwards, or not: each bit is exact, and so
 * is the count.
 *
 * Context: process.
 */
void repl_bits_wipe(struct repl_bits *b)
{
	u64 bit;

	for (bit = 0; bit < b->nr; bit = bits_next_word(bit)) {
		if (bit % DIRTY_WALK_BITS == 0)
			cond_resched();
		if (bits_word(b, bit))
			repl_bits_clear(b, bit, min_t(u64, b->nr,
						      bits_next_word(bit)));
	}
}

/**
 * repl_bits_bytes() - bits as they are on a disk
 * @b: bits
 * @begin: first bit
 * @nr: how many
 * @bytes: all 0; the lowest bit of a byte is the first
 *
 * Bits that change meanwhile may be seen either way.
 *
 * Context: any; no lock. Return: whether one is set.
 */
bool repl_bits_bytes(const struct repl_bits *b, u64 begin, unsigned int nr,
		     u8 *bytes)
{
	bool some = false;
	unsigned int i, j;

	for (i = 0; i < nr; i += BITS_PER_LONG) {
		unsigned int end = min_t(unsigned int, i + BITS_PER_LONG, nr);

		if (!repl_bits_any(b, begin + i, begin + end))
			continue;
		for (j = i; j < end; j++)
			if (repl_bits_test(b, begin + j)) {
				bytes[j >> 3] |= 1 << (j & 7);
				some = true;
			}
	}
	return some;
}

/**
 * repl_bits_swap() - exchange two maps
 * @a: bits
 * @b: as many bits
 *
 * Context: any; nothing else uses either (gate closed and drained).
 */
void repl_bits_swap(struct repl_bits *a, struct repl_bits *b)
{
	s64 count = atomic64_read(&a->count);

	swap(a->bits, b->bits);
	atomic64_set(&a->count, atomic64_read(&b->count));
	atomic64_set(&b->count, count);
}

static struct repl_bits *bits_new(u64 nr)
{
	struct repl_bits *b = kzalloc(sizeof(*b), GFP_KERNEL);

	if (b && repl_bits_init(b, nr)) {
		kfree(b);
		b = NULL;
	}
	return b;
}

static void bits_free(struct repl_bits *b)
{
	if (b)
		repl_bits_exit(b);
	kfree(b);
}

/*
 * ---- Named maps ----
 */

/**
 * repl_dirty_init() - no maps
 * @d: maps
 * @sectors: length of the device, at least 1
 * @region_shift: log2 of the region size in sectors: the granularity of
 *	reserved maps, and of others unless they are given one
 *
 * Return: 0 or -EINVAL.
 */
int repl_dirty_init(struct repl_dirty *d, sector_t sectors,
		    unsigned int region_shift)
{
	mutex_init(&d->lock);
	mutex_init(&d->keep_lock);
	INIT_LIST_HEAD(&d->maps);
	d->nr_maps = 0;
	d->sectors = sectors;
	d->region_shift = region_shift;
	d->close = NULL;
	d->open = NULL;
	d->context = NULL;
	d->keeper = NULL;
	d->keeper_context = NULL;
	d->loading = false;
	if (!sectors || region_shift < REPL_DIRTY_MIN_SHIFT ||
	    region_shift > REPL_DIRTY_MAX_SHIFT)
		return -EINVAL;
	return 0;
}

static u64 dirty_nr_bits(const struct repl_dirty *d, unsigned int shift)
{
	return ((d->sectors - 1) >> shift) + 1;
}

/**
 * repl_dirty_unkeep() - nobody keeps it any more
 * @map: map
 */
void repl_dirty_unkeep(struct repl_dirty_map *map)
{
	kvfree(map->kept.saved);
	repl_bits_exit(&map->kept.touched);
	memset(&map->kept, 0, sizeof(map->kept));
}

/**
 * repl_dirty_new() - a user's map, in no list yet
 * @d: maps
 * @name: its name, valid
 * @shift: log2 of sectors a bit, valid
 *
 * Enabled, and nothing is set. Context: process, may sleep. Return: it, or NULL.
 */
struct repl_dirty_map *repl_dirty_new(struct repl_dirty *d, const char *name,
				      unsigned int shift)
{
	struct repl_dirty_map *map = kzalloc(sizeof(*map), GFP_KERNEL);

	if (map)
		map->now = bits_new(dirty_nr_bits(d, shift));
	if (!map || !map->now) {
		kfree(map);
		return NULL;
	}
	strscpy(map->name, name, sizeof(map->name));
	map->shift = shift;
	map->enabled = true;
	return map;
}

/**
 * repl_dirty_free() - the counterpart, for one that is in no list
 * @map: map
 */
void repl_dirty_free(struct repl_dirty_map *map)
{
	repl_dirty_unkeep(map);
	bits_free(map->now);
	bits_free(map->frozen);
	kfree(map);
}

/**
 * repl_dirty_insert() - writes mark it from now on, if it is enabled
 * @d: maps
 * @map: user's map
 *
 * Context: with d->lock and d->keep_lock.
 */
void repl_dirty_insert(struct repl_dirty *d, struct repl_dirty_map *map)
{
	list_add_tail_rcu(&map->list, &d->maps);
	WRITE_ONCE(d->nr_maps, d->nr_maps + 1);
}

/* The counterpart, with d->lock: nobody marks it any more. */
static void dirty_take_out(struct repl_dirty *d, struct repl_dirty_map *map)
{
	mutex_lock(&d->keep_lock);
	WRITE_ONCE(d->nr_maps, d->nr_maps - 1);
	list_del_rcu(&map->list);
	mutex_unlock(&d->keep_lock);
	synchronize_rcu();
	repl_dirty_free(map);
}

/**
 * repl_dirty_exit() - free the user's maps
 * @d: maps, initialised; nobody marks any more
 */
void repl_dirty_exit(struct repl_dirty *d)
{
	struct repl_dirty_map *map, *next;

	list_for_each_entry_safe(map, next, &d->maps, list) {
		list_del(&map->list);
		if (!map->reserved)
			repl_dirty_free(map);
	}
	d->nr_maps = 0;
}

/**
 * repl_dirty_set_gate() - who stops the writes when a map begins anew
 * @d: maps
 * @close: let no write start and wait until none is in flight; return 0, or a
 *	negative errno when that was given up: the message fails with it.
 *	@open is called in either case.
 * @open: let them go on
 * @context: for both
 *
 * Context: constructor. They are called in process context, under d->lock.
 */
void repl_dirty_set_gate(struct repl_dirty *d, int (*close)(void *context),
			 void (*open)(void *context), void *context)
{
	d->close = close;
	d->open = open;
	d->context = context;
}

/**
 * repl_dirty_set_keeper() - who keeps the user's maps on a device
 * @d: maps
 * @keeper: they, or NULL
 * @context: for them
 *
 * Context: no write is in flight.
 */
void repl_dirty_set_keeper(struct repl_dirty *d,
			   const struct repl_dirty_keeper *keeper,
			   void *context)
{
	d->keeper = keeper;
	d->keeper_context = context;
}

/**
 * repl_dirty_reserve() - make a map of the owner known by a name
 * @d: maps
 * @map: memory for it, the owner's, as long-lived as @d
 * @name: reserved from now on
 * @bits: its bits, one a region, as long-lived; the owner sets them
 *
 * Context: constructor.
 */
void repl_dirty_reserve(struct repl_dirty *d, struct repl_dirty_map *map,
			const char *name, struct repl_bits *bits)
{
	strscpy(map->name, name, sizeof(map->name));
	map->shift = d->region_shift;
	map->enabled = true;
	map->reserved = true;
	map->now = bits;
	map->frozen = NULL;
	memset(&map->kept, 0, sizeof(map->kept));
	list_add_tail_rcu(&map->list, &d->maps);
}

/**
 * repl_dirty_set_frozen() - a reserved map has been frozen, or thawed
 * @map: reserved map
 * @frozen: its frozen bits, as long-lived as the map; NULL: no more
 *
 * Only for what is shown of it: the owner freezes. Context: any.
 */
void repl_dirty_set_frozen(struct repl_dirty_map *map, struct repl_bits *frozen)
{
	WRITE_ONCE(map->frozen, frozen);
}

/* For who keeps them: these blocks may be more now. With rcu_read_lock(). */
static void dirty_touch(struct repl_dirty *d, sector_t sector, sector_t nr)
{
	struct repl_dirty_map *map;

	smp_mb();	/* [A], pairs with [B] in keep_save_map() */
	list_for_each_entry_rcu(map, &d->maps, list) {
		u64 first = sector >> map->shift;
		u64 last = (sector + nr - 1) >> map->shift;

		if (!map->reserved && map->kept.saved)
			repl_bits_set(&map->kept.touched,
				      div_u64(first, REPL_BITMAP_BITS),
				      div_u64(last, REPL_BITMAP_BITS) + 1);
	}
}

/**
 * repl_dirty_mark_maps() - repl_dirty_mark() when there are maps
 * @d: maps
 * @sector: first sector
 * @nr: how many, at least 1
 */
void repl_dirty_mark_maps(struct repl_dirty *d, sector_t sector, sector_t nr)
{
	struct repl_dirty_map *map;

	rcu_read_lock();
	list_for_each_entry_rcu(map, &d->maps, list)
		if (!map->reserved && READ_ONCE(map->enabled))
			repl_bits_set(READ_ONCE(map->now), sector >> map->shift,
				      ((sector + nr - 1) >> map->shift) + 1);
	if (d->keeper)
		dirty_touch(d, sector, nr);
	rcu_read_unlock();
}

static struct repl_dirty_map *dirty_find(struct repl_dirty *d, const char *name)
{
	struct repl_dirty_map *map;

	list_for_each_entry(map, &d->maps, list)
		if (!strcmp(map->name, name))
			return map;
	return NULL;
}

static int dirty_close(struct repl_dirty *d, const char **why)
{
	int r = d->close ? d->close(d->context) : 0;

	if (r)
		*why = r == -EBUSY ? "writes are held" :
		       "interrupted while it waited for writes in flight";
	return r;
}

static void dirty_open(struct repl_dirty *d)
{
	if (d->open)
		d->open(d->context);
}

/*
 * ---- Reload ----
 */

/* @old with @nr bits: what is new is dirty. Nobody else uses @old. */
static struct repl_bits *bits_resized(const struct repl_bits *old, u64 nr)
{
	struct repl_bits *b = bits_new(nr);
	u64 both = min(nr, old->nr);
	u64 bit = 0;

	if (!b)
		return NULL;
	while ((bit = repl_bits_find(old, bit, both, true)) < both) {
		u64 run = repl_bits_run(old, bit, both);

		repl_bits_set(b, bit, bit + run);
		bit += run;
	}
	repl_bits_set(b, both, nr);
	return b;
}

/* Give @map bits for the length of @d. */
static int dirty_resize(struct repl_dirty *d, struct repl_dirty_map *map)
{
	u64 nr = dirty_nr_bits(d, map->shift);
	struct repl_bits *now, *frozen = NULL;

	if (map->now->nr == nr)
		return 0;
	repl_dirty_unkeep(map);
	now = bits_resized(map->now, nr);
	if (now && map->frozen)
		frozen = bits_resized(map->frozen, nr);
	if (!now || (map->frozen && !frozen)) {
		bits_free(now);
		return -ENOMEM;
	}
	bits_free(map->now);
	bits_free(map->frozen);
	map->now = now;
	map->frozen = frozen;
	return 0;
}

/**
 * repl_dirty_take_over() - the user's maps go on in another table
 * @d: maps of the new table, none of them the user's
 * @old: maps of the old one
 *
 * Of a device that has grown, what is new is dirty. On failure each map is
 * still in @old.
 *
 * Context: process; both are suspended. May allocate when the lengths differ:
 * call it in memalloc_noio_save().
 * Return: 0 or -ENOMEM.
 */
int repl_dirty_take_over(struct repl_dirty *d, struct repl_dirty *old)
{
	struct repl_dirty_map *map, *next;
	int r = 0;

	mutex_lock(&d->lock);
	list_for_each_entry(map, &old->maps, list)
		if (!r && !map->reserved)
			r = dirty_resize(d, map);
	list_for_each_entry_safe(map, next, &old->maps, list)
		if (!r && !map->reserved)
			list_move_tail(&map->list, &d->maps);
	if (!r) {
		d->nr_maps += old->nr_maps;
		old->nr_maps = 0;
	}
	mutex_unlock(&d->lock);
	return r;
}

/*
 * ---- Messages ----
 *
 * Each has looked at all it is given before it changes anything.
 */

struct dirty_request {
	struct repl_dirty *d;
	unsigned int argc;		/* words after the name of the map */
	char **argv;
	struct repl_dirty_map *map;	/* NULL for add */
	const char *name;
	char *result;
	unsigned int maxlen;
	const char **why;
};

static int dirty_refuse(const struct dirty_request *q, int r, const char *why)
{
	*q->why = why;
	return r;
}

static const char dirty_letters[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

static bool dirty_name_is_valid(const char *name)
{
	size_t n = strlen(name);

	return n && n < REPL_DIRTY_NAME && *name != '-' &&
	       strspn(name, dirty_letters) == n;
}

static int dirty_parse_granularity(struct dirty_request *q, unsigned int *shift)
{
	u64 sectors;

	*shift = q->d->region_shift;
	if (!q->argc)
		return 0;
	if (kstrtou64(q->argv[0], 10, &sectors))
		return dirty_refuse(q, -EINVAL, "granularity is not a number");
	if (!is_power_of_2(sectors))
		return dirty_refuse(q, -EINVAL,
				    "granularity is not a power of two");
	if (sectors < 1ULL << REPL_DIRTY_MIN_SHIFT ||
	    sectors > 1ULL << REPL_DIRTY_MAX_SHIFT)
		return dirty_refuse(q, -EINVAL,
				    "granularity is out of range: 8 to 131072 sectors");
	*shift = ilog2(sectors);
	return 0;
}

static int dirty_add(struct dirty_request *q)
{
	struct repl_dirty *d = q->d;
	struct repl_dirty_map *map;
	unsigned int shift;
	int r;

	if (q->map)
		return q->map->reserved ?
		       dirty_refuse(q, -EBUSY, "the name is reserved") :
		       dirty_refuse(q, -EEXIST, "there is such a map already");
	if (!dirty_name_is_valid(q->name))
		return dirty_refuse(q, -EINVAL,
				    "a map's name is 1 to 31 of A-Z a-z 0-9 . _ - and starts with no -");
	r = dirty_parse_granularity(q, &shift);
	if (r)
		return r;
	if (d->nr_maps == REPL_DIRTY_MAPS)
		return dirty_refuse(q, -ENOSPC, "there are 32 maps already");

	map = repl_dirty_new(d, q->name, shift);
	if (!map || (d->keeper && d->keeper->alloc(d->keeper_context, map))) {
		if (map)
			repl_dirty_free(map);
		return dirty_refuse(q, -ENOMEM, "no memory for the map");
	}

	mutex_lock(&d->keep_lock);
	repl_dirty_insert(d, map);
	mutex_unlock(&d->keep_lock);
	r = d->keeper ? d->keeper->add(d->keeper_context, map) : 0;
	if (r)
		*q->why = "cannot write it to the metadata device";
	if (!r) {
		/* What has not marked it is over; the rest does. */
		r = dirty_close(d, q->why);
		dirty_open(d);
		if (r && d->keeper)
			d->keeper->remove(d->keeper_context, map);
	}
	if (r)
		dirty_take_out(d, map);
	return r;
}

static int dirty_remove(struct dirty_request *q)
{
	struct repl_dirty *d = q->d;

	if (q->map->frozen)
		return dirty_refuse(q, -EBUSY, "the map is frozen: thaw it first");
	if (d->keeper && d->keeper->remove(d->keeper_context, q->map))
		return dirty_refuse(q, -EIO,
				    "cannot write that to the metadata device");
	dirty_take_out(d, q->map);
	return 0;
}

/* It is larger now, whether that can be written or not. */
static int dirty_grown(struct dirty_request *q, struct repl_dirty_map *map)
{
	struct repl_dirty *d = q->d;
	int r = 0;

	if (d->keeper && !map->reserved)
		r = d->keeper->grown(d->keeper_context, map);
	if (!r)
		return 0;
	return dirty_refuse(q, r,
			    "it is marked, but that cannot be written to the metadata device");
}

static void dirty_shrunk(struct dirty_request *q)
{
	if (q->d->keeper && !q->map->reserved)
		q->d->keeper->shrunk(q->d->keeper_context, q->map);
}

static int dirty_keep_enabled(struct dirty_request *q, bool enabled)
{
	const struct repl_dirty_keeper *keeper = q->d->keeper;

	return keeper ? keeper->enable(q->d->keeper_context, q->map, enabled) : 0;
}

/* Of `checkpoint' while it is frozen: what came after. The cut keeps the rest. */
static int dirty_clear(struct dirty_request *q)
{
	int r;

	if (q->map->frozen && !q->map->reserved)
		return dirty_refuse(q, -EBUSY, "the map is frozen: thaw it first");
	r = dirty_close(q->d, q->why);
	if (!r)
		repl_bits_wipe(q->map->now);
	dirty_open(q->d);
	if (!r)
		dirty_shrunk(q);
	return r;
}

static int dirty_enable(struct dirty_request *q)
{
	bool was = q->map->enabled;
	int r;

	if (dirty_keep_enabled(q, true))
		return dirty_refuse(q, -EIO,
				    "cannot write that to the metadata device");
	r = dirty_close(q->d, q->why);
	if (!r)
		WRITE_ONCE(q->map->enabled, true);
	dirty_open(q->d);
	if (r && !was)
		dirty_keep_enabled(q, false);
	return r;
}

/* Where that cannot be written, it is enabled after the next activation. */
static int dirty_disable(struct dirty_request *q)
{
	WRITE_ONCE(q->map->enabled, false);
	dirty_keep_enabled(q, false);
	return 0;
}

static int dirty_freeze(struct dirty_request *q)
{
	struct repl_bits *successor;
	int r;

	if (q->map->frozen)
		return dirty_refuse(q, -EBUSY, "the map is frozen already");
	successor = bits_new(q->map->now->nr);
	if (!successor)
		return dirty_refuse(q, -ENOMEM, "no memory for the successor");

	r = dirty_close(q->d, q->why);
	if (!r) {
		WRITE_ONCE(q->map->frozen, q->map->now);
		smp_wmb();	/* pairs with keep_gather(): it misses neither */
		WRITE_ONCE(q->map->now, successor);
	}
	dirty_open(q->d);
	if (r)
		bits_free(successor);
	else
		synchronize_rcu();	/* without a gate: no late mark in it */
	return r;
}

static int dirty_thaw(struct dirty_request *q)
{
	struct repl_bits *frozen = q->map->frozen;
	bool merge = !strcmp(q->argv[0], "merge");

	if (!merge && strcmp(q->argv[0], "drop"))
		return dirty_refuse(q, -EINVAL, "thaw needs drop or merge");
	if (!frozen)
		return dirty_refuse(q, -EINVAL, "the map is not frozen");
	if (merge)
		repl_bits_merge(q->map->now, frozen);
	mutex_lock(&q->d->keep_lock);
	WRITE_ONCE(q->map->frozen, NULL);
	if (!merge && q->d->keeper)
		q->d->keeper->shrinks(q->d->keeper_context, q->map);
	mutex_unlock(&q->d->keep_lock);
	bits_free(frozen);
	if (!merge)
		dirty_shrunk(q);
	return 0;
}

/* Set in @to what is set in @from, of another granularity. */
static void dirty_merge_bits(struct repl_dirty *d, struct repl_dirty_map *to,
			     const struct repl_bits *from, unsigned int shift)
{
	u64 bit = 0;

	if (to->shift == shift) {
		repl_bits_merge(to->now, from);
		return;
	}
	while (bit < from->nr) {
		u64 end = min(from->nr, bit + DIRTY_WALK_BITS);
		u64 found = repl_bits_find(from, bit, end, true);

		cond_resched();
		bit = found;
		if (found == end)
			continue;
		bit += repl_bits_run(from, found, end);
		repl_bits_set(to->now, (found << shift) >> to->shift,
			      (min_t(u64, (bit << shift) - 1, d->sectors - 1) >>
			       to->shift) + 1);
	}
}

/**
 * repl_dirty_unite() - what is set in regions is set in a map
 * @d: maps
 * @map: one of them
 * @regions: one bit for each region
 *
 * Context: process.
 */
void repl_dirty_unite(struct repl_dirty *d, struct repl_dirty_map *map,
		      const struct repl_bits *regions)
{
	dirty_merge_bits(d, map, regions, d->region_shift);
}

/* Of a frozen map all: what it had, and what came since. */
static int dirty_merge(struct dirty_request *q)
{
	struct repl_dirty_map *to = dirty_find(q->d, q->argv[0]);
	const struct repl_bits *frozen = READ_ONCE(q->map->frozen);

	if (!to)
		return dirty_refuse(q, -ENOENT, "there is no such map");
	if (to == q->map)
		return dirty_refuse(q, -EINVAL, "a map cannot merge into itself");
	if (frozen)
		dirty_merge_bits(q->d, to, frozen, q->map->shift);
	dirty_merge_bits(q->d, to, q->map->now, q->map->shift);
	return dirty_grown(q, to);
}

/* What another host has changed, in pairs of sector and length; all or none. */
static int dirty_mark_words(struct dirty_request *q, bool set)
{
	unsigned int shift = q->map->shift, i;
	u64 sector, nr;

	for (i = 0; i < q->argc; i += 2) {
		if (kstrtou64(q->argv[i], 10, &sector) ||
		    kstrtou64(q->argv[i + 1], 10, &nr))
			return dirty_refuse(q, -EINVAL,
					    "a range is not two numbers");
		if (!nr || sector >= q->d->sectors ||
		    nr > q->d->sectors - sector)
			return dirty_refuse(q, -EINVAL,
					    "a range reaches past the end of the device");
		if (set)
			repl_bits_set(q->map->now, sector >> shift,
				      ((sector + nr - 1) >> shift) + 1);
	}
	return 0;
}

static int dirty_mark(struct dirty_request *q)
{
	int r;

	if (q->argc % 2)
		return dirty_refuse(q, -EINVAL, "wrong number of words");
	r = dirty_mark_words(q, false);
	if (r)
		return r;
	dirty_mark_words(q, true);
	return dirty_grown(q, q->map);
}

/* <name> <granularity> <enabled|disabled> <dirty bits> <-|frozen bits> */
static int dirty_list(struct repl_dirty *d, char *result, unsigned int maxlen)
{
	struct repl_dirty_map *map;
	unsigned int sz = 0;

	result[0] = '\0';
	list_for_each_entry(map, &d->maps, list) {
		const struct repl_bits *frozen = READ_ONCE(map->frozen);

		sz += scnprintf(result + sz, maxlen - sz, "%s %llu %s %llu ",
				map->name, 1ULL << map->shift,
				map->enabled ? "enabled" : "disabled",
				repl_bits_count(map->now));
		sz += frozen ? scnprintf(result + sz, maxlen - sz, "%llu\n",
					 repl_bits_count(frozen)) :
			       scnprintf(result + sz, maxlen - sz, "-\n");
	}
	return 1;
}

/*
 * What extents shows. Of the user's frozen map that is what was frozen: the
 * backup wants it. Of a reserved one it is both: neither has arrived.
 */
struct dirty_view {
	const struct repl_bits *a;
	const struct repl_bits *b;	/* or NULL */
};

static struct dirty_view dirty_view(const struct repl_dirty_map *map)
{
	const struct repl_bits *frozen = READ_ONCE(map->frozen);

	if (frozen && map->reserved)
		return (struct dirty_view){ map->now, frozen };
	return (struct dirty_view){ frozen ? frozen : map->now, NULL };
}

static bool view_test(const struct dirty_view *v, u64 bit)
{
	return repl_bits_test(v->a, bit) || (v->b && repl_bits_test(v->b, bit));
}

/* The first bit of [begin, end) that is set in one of them, or @end. */
static u64 view_next(const struct dirty_view *v, u64 begin, u64 end)
{
	while (begin < end) {
		u64 stop = min(end, begin + DIRTY_WALK_BITS);
		u64 found = repl_bits_find(v->a, begin, stop, true);

		if (v->b)
			found = repl_bits_find(v->b, begin, found, true);
		if (found < stop)
			return found;
		begin = stop;
		cond_resched();
	}
	return end;
}

/* The end of the run of set bits that starts at @begin. */
static u64 view_run_end(const struct dirty_view *v, u64 begin, u64 end)
{
	u64 bit = begin;

	while (bit < end && view_test(v, bit)) {
		u64 stop = min(end, bit + DIRTY_WALK_BITS);
		u64 next = repl_bits_find(v->a, bit, stop, false);

		if (v->b)
			next = max(next, repl_bits_find(v->b, bit, stop, false));
		/* Cleared since it was looked at. */
		if (next == bit)
			break;
		bit = next;
		cond_resched();
	}
	return max(bit, begin + 1);
}

/* The last line, with its end: more <20 digits> */
#define DIRTY_LAST_LINE 27U
/* Any other: two numbers. */
#define DIRTY_LINE 43U

static int dirty_extents(struct dirty_request *q)
{
	const struct dirty_view view = dirty_view(q->map);
	u64 sectors = q->d->sectors;
	unsigned int shift = q->map->shift;
	unsigned int sz = 0;
	u64 from = 0, end = view.a->nr, bit;

	if (q->argc && kstrtou64(q->argv[0], 10, &from))
		return dirty_refuse(q, -EINVAL, "start is not a number");
	if (from >= sectors)
		return dirty_refuse(q, -EINVAL,
				    "start is past the end of the device");

	q->result[0] = '\0';
	bit = view_next(&view, from >> shift, end);
	while (bit < end && sz + DIRTY_LINE + DIRTY_LAST_LINE < q->maxlen) {
		u64 stop = view_run_end(&view, bit, end);
		u64 first = max(from, bit << shift);

		sz += scnprintf(q->result + sz, q->maxlen - sz, "%llu %llu\n",
				first, min(sectors, stop << shift) - first);
		bit = view_next(&view, stop, end);
	}
	if (bit < end)
		scnprintf(q->result + sz, q->maxlen - sz, "more %llu\n",
			  max(from, bit << shift));
	else
		scnprintf(q->result + sz, q->maxlen - sz, "end\n");
	return 1;
}

static const struct dirty_word {
	const char *word;
	unsigned int min, max;		/* words after the name */
	bool reserved;			/* legal for a reserved map */
	int (*run)(struct dirty_request *q);
} dirty_words[] = {
	{ "add",	0, 1, true,	dirty_add },
	{ "remove",	0, 0, false,	dirty_remove },
	{ "clear",	0, 0, true,	dirty_clear },
	{ "enable",	0, 0, false,	dirty_enable },
	{ "disable",	0, 0, false,	dirty_disable },
	{ "merge",	1, 1, true,	dirty_merge },
	{ "mark",	2, U32_MAX, true, dirty_mark },
	{ "freeze",	0, 0, false,	dirty_freeze },
	{ "thaw",	1, 1, false,	dirty_thaw },
	{ "extents",	0, 1, true,	dirty_extents },
};

static int dirty_run(struct dirty_request *q, const struct dirty_word *w)
{
	if (q->argc < w->min || q->argc > w->max)
		return dirty_refuse(q, -EINVAL, "wrong number of words");
	q->map = dirty_find(q->d, q->name);
	if (w->run == dirty_add)
		return dirty_add(q);
	if (!q->map)
		return dirty_refuse(q, -ENOENT, "there is no such map");
	if (q->map->reserved && !w->reserved)
		return dirty_refuse(q, -EBUSY, "the map is reserved");
	return w->run(q);
}

/**
 * repl_dirty_message() - ``dirty`` message
 * @d: maps
 * @argc: number of words
 * @argv: words, the first is "dirty"
 * @result: for the answer
 * @maxlen: its size, at least 128
 * @why: set on failure: what is wrong, for the log
 *
 * Context: process; may wait for writes in flight (see repl_dirty_set_gate()).
 * Return: 1 when there is an answer, 0, or a negative errno after which
 * nothing has changed.
 */
int repl_dirty_message(struct repl_dirty *d, unsigned int argc, char **argv,
		       char *result, unsigned int maxlen, const char **why)
{
	struct dirty_request q = {
		.d = d, .result = result, .maxlen = maxlen, .why = why,
	};
	unsigned int i, noio;
	int r;

	*why = "unknown word after dirty";
	if (argc < 2)
		return -EINVAL;
	if (!strcmp(argv[1], "list")) {
		if (argc != 2)
			return dirty_refuse(&q, -EINVAL, "wrong number of words");
		mutex_lock(&d->lock);
		r = dirty_list(d, result, maxlen);
		mutex_unlock(&d->lock);
		return r;
	}
	for (i = 0; i < ARRAY_SIZE(dirty_words); i++)
		if (!strcmp(argv[1], dirty_words[i].word))
			break;
	if (i == ARRAY_SIZE(dirty_words))
		return -EINVAL;
	if (argc < 3)
		return dirty_refuse(&q, -EINVAL, "wrong number of words");

	q.name = argv[2];
	q.argc = argc - 3;
	q.argv = argv + 3;
	mutex_lock(&d->lock);
	/* Who saves may need the lock, and reclaim a write that waits for him. */
	noio = memalloc_noio_save();
	r = d->loading ? dirty_refuse(&q, -EBUSY, "the maps are not loaded yet") :
			 dirty_run(&q, &dirty_words[i]);
	memalloc_noio_restore(noio);
	mutex_unlock(&d->lock);
	return r;
}

// SPDX-License-Identifier: GPL-2.0-only
/* region-map.c against a map that is an array of states. */
#include "unit.h"

#include "region-map.h"

#define MAX 67

static u8 naive[MAX];
static struct repl_map map;

static bool same(void)
{
	for (u64 i = 0; i < map.nr_regions; i++)
		if (repl_map_get(&map, i) != naive[i])
			return false;
	return true;
}

static u64 naive_run(u64 begin, u64 end)
{
	u64 i = begin;

	while (i < end && !naive[i] == !naive[begin])
		i++;
	return i - begin;
}

static u64 naive_next(u64 begin, u64 end)
{
	while (begin < end && !naive[begin])
		begin++;
	return begin;
}

static bool naive_all(u64 begin, u64 end)
{
	while (begin < end && naive[begin] == REPL_REGION_PRESERVED)
		begin++;
	return begin == end;
}

/* All questions about all ranges. */
static bool questions(void)
{
	for (u64 b = 0; b < map.nr_regions; b++)
		for (u64 e = b + 1; e <= map.nr_regions; e++) {
			bool present;

			if (repl_map_run(&map, b, e, &present) != naive_run(b, e) ||
			    present != !!naive[b] ||
			    repl_map_next(&map, b, e) != naive_next(b, e) ||
			    repl_map_all(&map, b, e) != naive_all(b, e))
				return false;
		}
	return true;
}

static u64 naive_set(u64 begin, u64 end, u8 state)
{
	u64 n = 0;

	for (; begin < end; begin++) {
		n += !naive[begin] != !state;
		naive[begin] = state;
	}
	return n;
}

static void fill(u64 *seed, unsigned int how)
{
	static const u8 states[] = { 0, REPL_REGION_REDIRECT, REPL_REGION_PRESERVED };

	repl_map_empty(&map);
	memset(naive, 0, sizeof(naive));
	for (u64 i = 0; i < map.nr_regions; i++) {
		u8 s = how < 3 ? states[how] : states[rnd(seed) % 3];

		naive_set(i, i + 1, s);
		repl_map_set(&map, i, i + 1, s);
	}
}

/* Every range, to every state, from four contents; all questions after it. */
static void exhaustive(u64 nr)
{
	static const u8 states[] = { 0, REPL_REGION_REDIRECT, REPL_REGION_PRESERVED };
	bool good = !repl_map_init(&map, nr), counts = true, answers = true;
	u64 seed = nr;

	memset(naive, 0, sizeof(naive));
	good &= same();
	for (unsigned int how = 0; how < 4; how++)
		for (u64 b = 0; b < nr; b++)
			for (u64 e = b; e <= nr; e++)
				for (unsigned int s = 0; s < 3; s++) {
					fill(&seed, how);
					counts &= repl_map_set(&map, b, e, states[s]) ==
						  naive_set(b, e, states[s]);
					good &= same();
					/* all of them for all would take minutes */
					if (nr <= 20 || rnd(&seed) % 64 == 0)
						answers &= questions();
				}
	ok(good, "%llu regions: every range set to every state", (unsigned long long)nr);
	ok(counts, "%llu regions: set counts what appears and disappears", (unsigned long long)nr);
	ok(answers, "%llu regions: run, next and all of every range", (unsigned long long)nr);
	repl_map_exit(&map);
}

static void random_steps(void)
{
	static const u8 states[] = { 0, REPL_REGION_REDIRECT, REPL_REGION_PRESERVED };
	bool good = true;
	u64 seed = 4711;

	repl_map_init(&map, MAX);
	memset(naive, 0, sizeof(naive));
	for (unsigned int i = 0; i < 20000 && good; i++) {
		u64 b = rnd(&seed) % MAX, e = b + rnd(&seed) % (MAX - b) + 1;
		u8 s = states[rnd(&seed) % 3];

		if (rnd(&seed) % 50 == 0) {
			repl_map_empty(&map);
			memset(naive, 0, sizeof(naive));
		}
		good = repl_map_set(&map, b, e, s) == naive_set(b, e, s) && same() &&
		       (i % 16 || questions());
	}
	ok(good, "20000 random changes, emptied now and then");
	repl_map_exit(&map);
}

static void wrap(void)
{
	bool good = true;

	repl_map_init(&map, MAX);
	memset(naive, 0, sizeof(naive));
	/* Words of the first epochs are still there when the tag comes round. */
	repl_map_set(&map, 0, MAX, REPL_REGION_PRESERVED);
	repl_map_empty(&map);
	repl_map_set(&map, 20, 30, REPL_REGION_REDIRECT);
	map.tag = UINT32_MAX - 1;
	good &= same();
	ok(good, "words of old epochs read as none");

	repl_map_set(&map, 3, 4, REPL_REGION_PRESERVED);
	repl_map_empty(&map);
	ok(map.tag == UINT32_MAX && same(), "the last tag");
	naive_set(40, 50, REPL_REGION_PRESERVED);
	ok(repl_map_set(&map, 40, 50, REPL_REGION_PRESERVED) == 10 && same() && questions(),
	   "the last tag is a tag like others");

	memset(naive, 0, sizeof(naive));
	repl_map_empty(&map);
	good = same() && map.tag != 0;
	for (unsigned int i = 0; i < 5; i++) {
		repl_map_empty(&map);
		good &= same();
	}
	ok(good, "after the wrap no word of an earlier epoch comes back");
	repl_map_set(&map, 0, MAX, REPL_REGION_PRESERVED);
	ok(repl_map_all(&map, 0, MAX), "and the map works");
	repl_map_exit(&map);
}

/* A walk reads the words of the chunks that this epoch has touched, and no others. */
static void chunks(void)
{
	const u64 chunk = 1ULL << REPL_CHUNK_SHIFT, nr = 5 * chunk + 77;
	const u64 set[] = { 0, chunk - 1, chunk, 3 * chunk - 1, 5 * chunk, nr - 1 };
	const unsigned int nr_set = sizeof(set) / sizeof(set[0]);
	u64 seed = 99, word;
	bool good = true;

	repl_map_init(&map, nr);
	ok(repl_map_next(&map, 0, nr) == nr, "chunks: an empty map has none");
	for (unsigned int i = 0; i < nr_set; i++)
		repl_map_set(&map, set[i], set[i] + 1, REPL_REGION_PRESERVED);
	for (unsigned int i = 0; i < 100000; i++) {
		/* about an edge, half of the time */
		u64 b = i & 1 ? rnd(&seed) % nr : set[rnd(&seed) % nr_set] - 8 + rnd(&seed) % 16;
		u64 e, want;
		unsigned int k = 0;

		b = b < nr ? b : nr - 1;
		e = b + 1 + rnd(&seed) % (nr - b);
		while (k < nr_set && set[k] < b)
			k++;
		want = k < nr_set && set[k] < e ? set[k] : e;
		good &= repl_map_next(&map, b, e) == want;
	}
	ok(good, "chunks: next, from and to anywhere");

	/* What no set has brought there is not found: nobody looked. */
	word = map.words[(3 * chunk) >> REPL_MAP_SHIFT];
	map.words[(3 * chunk) >> REPL_MAP_SHIFT] = (u64)map.tag << 32 | UINT32_MAX;
	ok(repl_map_next(&map, 2 * chunk, nr) == 3 * chunk - 1 &&
	   repl_map_next(&map, 3 * chunk, nr) == 5 * chunk,
	   "chunks: one that was not touched is passed over");
	map.words[(3 * chunk) >> REPL_MAP_SHIFT] = word;

	repl_map_set(&map, 0, nr, REPL_REGION_NONE);
	ok(repl_map_next(&map, 0, nr) == nr, "chunks: all are cleared");
	map.words[0] = (u64)(map.tag + 1) << 32 | UINT32_MAX;
	repl_map_empty(&map);
	ok(repl_map_next(&map, 0, nr) == nr, "chunks: none is touched in a new epoch");
	repl_map_set(&map, 0, nr, REPL_REGION_NONE);
	ok(repl_map_next(&map, chunk, nr) == nr && map.chunks[1] != map.tag,
	   "chunks: clearing touches none");
	repl_map_set(&map, chunk - 1, chunk + 1, REPL_REGION_REDIRECT);
	ok(repl_map_next(&map, chunk, nr) == chunk, "chunks: a range over an edge touches both");
	repl_map_exit(&map);
}

static void limits(void)
{
	struct repl_map m = { 0 };

	ok(repl_map_init(&m, 0) == -EINVAL, "a map of no regions is refused");
	ok(repl_map_init(&m, UINT64_MAX) < 0, "a map that no memory can hold is refused");
	shim_fail_alloc = 1;
	ok(repl_map_init(&m, 5) == -ENOMEM, "out of memory");
	ok(!m.words && !m.chunks, "and nothing is left of it");
	repl_map_exit(&m);
	ok(!m.words, "exit of a map that never was");
}

/* Threads change neighbouring regions of the same words. */

#define THREADS 4
#define REGIONS 512
#define ROUNDS 300

static pthread_barrier_t barrier_;
static u64 counted[THREADS];
static unsigned int wrong;

static void *changer(void *arg)
{
	unsigned long me = (unsigned long)arg;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier_);
		/* everybody wants all: each change is counted once */
		for (u64 i = 0; i < REGIONS; i += 8)
			counted[me] += repl_map_set(&map, i, i + 8, REPL_REGION_REDIRECT);
		pthread_barrier_wait(&barrier_);
		/* each its own, none disturbs the neighbour */
		for (u64 i = me; i < REGIONS; i += THREADS)
			repl_map_set(&map, i, i + 1, me & 1 ? REPL_REGION_PRESERVED :
							      REPL_REGION_NONE);
		pthread_barrier_wait(&barrier_);
		for (u64 i = 0; i < REGIONS; i++)
			if (repl_map_get(&map, i) != (i % THREADS & 1 ? REPL_REGION_PRESERVED :
									REPL_REGION_NONE))
				__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		pthread_barrier_wait(&barrier_);
		if (!me)
			repl_map_empty(&map);
	}
	return NULL;
}

static unsigned int done;

static void *asker(void *arg)
{
	u64 seed = 7;

	(void)arg;
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		u64 b = rnd(&seed) % REGIONS, e = b + 1 + rnd(&seed) % (REGIONS - b), n;
		bool present;

		n = repl_map_run(&map, b, e, &present);
		if (n < 1 || n > e - b)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		n = repl_map_next(&map, b, e);
		if (n < b || n > e)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void concurrent(void)
{
	pthread_t t[THREADS], a;
	u64 sum = 0;

	repl_map_init(&map, REGIONS);
	pthread_barrier_init(&barrier_, NULL, THREADS);
	pthread_create(&a, NULL, asker, NULL);
	for (unsigned long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, changer, (void *)i);
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		sum += counted[i];
	}
	__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
	pthread_join(a, NULL);
	ok(sum == (u64)REGIONS * ROUNDS, "%d threads set the same regions: each is counted once",
	   THREADS);
	ok(!wrong, "%d threads set neighbours in one word: none is lost, no answer is out of range",
	   THREADS);
	repl_map_exit(&map);
}

int main(void)
{
	static const u64 sizes[] = { 1, 2, 3, 15, 16, 17, 31, 32, 33, 40 };

	section("map");
	limits();
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		exhaustive(sizes[i]);
	random_steps();
	wrap();
	chunks();
	concurrent();
	return unit_end();
}

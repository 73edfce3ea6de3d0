// SPDX-License-Identifier: GPL-2.0-only
/* dirty.c: bits against an array, named maps against what each message says. */
#include <time.h>

#include "unit.h"

#include "dirty.h"

/*
 * ---- Bits ----
 */

#define MAX 200

static u8 naive[MAX];
static struct repl_bits bits;

static bool same(void)
{
	u64 count = 0;

	for (u64 i = 0; i < bits.nr; i++) {
		if (repl_bits_test(&bits, i) != naive[i])
			return false;
		count += naive[i];
	}
	/* none past the end, where a search of a whole word might see it */
	for (u64 i = bits.nr; i % BITS_PER_LONG; i++)
		if (repl_bits_test(&bits, i))
			return false;
	return repl_bits_count(&bits) == count;
}

static u64 naive_put(u64 begin, u64 end, u8 to)
{
	u64 n = 0;

	for (; begin < end; begin++) {
		n += naive[begin] != to;
		naive[begin] = to;
	}
	return n;
}

static u64 naive_find(u64 begin, u64 end, u8 value)
{
	while (begin < end && naive[begin] != value)
		begin++;
	return begin;
}

/* All questions about all ranges. */
static bool questions(void)
{
	for (u64 b = 0; b <= bits.nr; b++) {
		if (repl_bits_next(&bits, b) != naive_find(b, bits.nr, 1))
			return false;
		for (u64 e = b; e <= bits.nr; e++) {
			if (repl_bits_any(&bits, b, e) != (naive_find(b, e, 1) < e) ||
			    repl_bits_all(&bits, b, e) != (naive_find(b, e, 0) == e))
				return false;
			if (b < e && repl_bits_run(&bits, b, e) !=
				     naive_find(b, e, !naive[b]) - b)
				return false;
		}
	}
	return true;
}

static void every_range(u64 nr)
{
	bool good = !repl_bits_init(&bits, nr), counts = true, answers = true;
	u64 seed = nr;

	memset(naive, 0, sizeof(naive));
	good &= same() && questions();
	for (unsigned int how = 0; how < 3; how++)
		for (u64 b = 0; b < nr; b++)
			for (u64 e = b; e <= nr; e++)
				for (u8 to = 0; to < 2; to++) {
					repl_bits_wipe(&bits);
					memset(naive, 0, sizeof(naive));
					good &= same();
					for (u64 i = 0; i < nr; i++)
						if (how == 1 || (how == 2 && rnd(&seed) % 2)) {
							naive[i] = 1;
							repl_bits_set(&bits, i, i + 1);
						}
					counts &= (to ? repl_bits_set(&bits, b, e) :
						   repl_bits_clear(&bits, b, e)) ==
						  naive_put(b, e, to);
					good &= same();
					if (rnd(&seed) % (nr <= 10 ? 1 : 512) == 0)
						answers &= questions();
				}
	ok(good, "%llu bits: every range set and cleared", (unsigned long long)nr);
	ok(counts, "%llu bits: each change is counted", (unsigned long long)nr);
	ok(answers, "%llu bits: next, run, any and all of every range", (unsigned long long)nr);
	repl_bits_exit(&bits);
}

static void bits_merge(void)
{
	struct repl_bits from;
	bool good = true;
	u64 seed = 3;

	need(!repl_bits_init(&bits, MAX) && !repl_bits_init(&from, MAX), "bits");
	for (unsigned int round = 0; round < 200; round++) {
		u64 count = 0;

		repl_bits_wipe(&bits);
		repl_bits_wipe(&from);
		memset(naive, 0, sizeof(naive));
		for (u64 i = 0; i < MAX; i++) {
			if (rnd(&seed) % 3 == 0) {
				repl_bits_set(&bits, i, i + 1);
				naive[i] = 1;
			}
			if (rnd(&seed) % 3 == 0) {
				repl_bits_set(&from, i, i + 1);
				naive[i] = 1;
				count++;
			}
		}
		repl_bits_merge(&bits, &from);
		good &= same() && repl_bits_count(&from) == count;
	}
	ok(good, "merge sets what is set in one of them, and counts it once");

	repl_bits_wipe(&from);
	repl_bits_swap(&bits, &from);
	memset(naive, 0, sizeof(naive));
	good = same();
	repl_bits_swap(&bits, &from);
	for (u64 i = 0; i < MAX; i++)
		naive[i] = repl_bits_test(&bits, i);
	ok(good && same() && repl_bits_count(&bits), "swap takes the counts with it");
	repl_bits_exit(&bits);
	repl_bits_exit(&from);
}

static void limits(void)
{
	struct repl_bits b = { 0 };

	ok(repl_bits_init(&b, 0) == -EINVAL, "no bits are refused");
	ok(repl_bits_init(&b, UINT64_MAX) < 0, "more than memory can hold are refused");
	shim_fail_alloc = 1;
	ok(repl_bits_init(&b, 5) == -ENOMEM, "out of memory");
	repl_bits_exit(&b);
	ok(!b.bits, "exit of bits that never were");
}

/* Threads change neighbouring bits of the same words. */

#define THREADS 4
#define ROUNDS 300
#define WIDE 1024

static pthread_barrier_t barrier_;
static u64 set[THREADS], cleared[THREADS];
static unsigned int wrong;

static void *changer(void *arg)
{
	unsigned long me = (unsigned long)arg;
	u64 seed = me;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier_);
		/* everybody wants all: each change is counted once */
		for (u64 i = 0; i < WIDE; i += 96)
			set[me] += repl_bits_set(&bits, i, min(i + 96, (u64)WIDE));
		pthread_barrier_wait(&barrier_);
		if (!repl_bits_all(&bits, 0, WIDE) || repl_bits_count(&bits) != WIDE)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		pthread_barrier_wait(&barrier_);
		/* each its own, none disturbs the neighbour */
		for (u64 i = me; i < WIDE; i += THREADS)
			if (me & 1)
				cleared[me] += repl_bits_clear(&bits, i, i + 1);
		pthread_barrier_wait(&barrier_);
		for (u64 i = 0; i < WIDE; i++)
			if (repl_bits_test(&bits, i) != !(i % THREADS & 1))
				__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		pthread_barrier_wait(&barrier_);
		/* anything goes: the count is that of the bits */
		for (unsigned int i = 0; i < 50; i++) {
			u64 b = rnd(&seed) % WIDE, e = b + rnd(&seed) % (WIDE - b) + 1;

			if (rnd(&seed) % 2)
				set[me] += repl_bits_set(&bits, b, e);
			else
				cleared[me] += repl_bits_clear(&bits, b, e);
			if (repl_bits_run(&bits, b, e) - 1 > e - b - 1)
				__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		}
		pthread_barrier_wait(&barrier_);
		if (me == 2)
			cleared[me] += repl_bits_clear(&bits, 0, WIDE);
	}
	return NULL;
}

static void bits_concurrent(void)
{
	pthread_t t[THREADS];
	u64 in = 0, out = 0;

	need(!repl_bits_init(&bits, WIDE), "bits");
	pthread_barrier_init(&barrier_, NULL, THREADS);
	for (unsigned long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, changer, (void *)i);
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		in += set[i];
		out += cleared[i];
	}
	ok(in == out && !repl_bits_count(&bits), "%d threads: what was set was cleared, each once",
	   THREADS);
	ok(!wrong, "%d threads set and clear neighbours in one word: none is lost", THREADS);
	repl_bits_exit(&bits);
}

/*
 * ---- Named maps ----
 */

#define SECTORS 10003		/* the last region is short */
#define REGION_SHIFT 5

static struct repl_dirty dirty;
static char answer[4096];
static const char *why;
static unsigned int closed, opened;
static int close_error;

static int gate_close(void *context)
{
	ok(context == &dirty && closed == opened, "the gate is closed once");
	closed++;
	return close_error;
}

static void gate_open(void *context)
{
	(void)context;
	opened++;
}

/* Words separated by one space; the answer goes to answer[]. */
static int message_of(unsigned int maxlen, const char *words)
{
	char copy[256], *argv[16], *save;
	unsigned int argc = 0;

	need(maxlen <= sizeof(answer), "an answer of %u bytes", maxlen);
	strcpy(copy, words);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	memset(answer, 'x', sizeof(answer));
	why = NULL;
	return repl_dirty_message(&dirty, argc, argv, answer, maxlen, &why);
}

static int message(const char *words)
{
	return message_of(sizeof(answer), words);
}

static void does(const char *words)
{
	ok(message(words) == 0, "%s", words);
}

static void answers(const char *words, const char *want)
{
	int r = message(words);

	ok_str(r == 1 ? answer : "no answer", want, "%s", words);
}

/* Refused with @err, and the list is as before. */
static void refused(const char *words, int err)
{
	char before[sizeof(answer)];
	int r;

	message("dirty list");
	strcpy(before, answer);
	r = message(words);
	ok(why && *why, "'%s' says why", words);
	ok_errno(-r, err, "'%s' is refused", words);
	message("dirty list");
	ok(!strcmp(answer, before), "'%s' changed nothing", words);
}

static void dirty_begin(void)
{
	need(!repl_dirty_init(&dirty, SECTORS, REGION_SHIFT), "maps");
}

static void marks(void)
{
	section("named maps");
	dirty_begin();
	answers("dirty list", "");
	repl_dirty_mark(&dirty, 0, 1);
	does("dirty add a");
	does("dirty add fine 8");
	does("dirty add coarse 1024");
	answers("dirty list",
		"a 32 enabled 0 -\nfine 8 enabled 0 -\ncoarse 1024 enabled 0 -\n");
	answers("dirty extents a", "end\n");

	repl_dirty_mark(&dirty, 0, 1);
	repl_dirty_mark(&dirty, 31, 2);
	repl_dirty_mark(&dirty, 4096, 128);
	answers("dirty extents a", "0 64\n4096 128\nend\n");
	answers("dirty extents fine", "0 8\n24 16\n4096 128\nend\n");
	answers("dirty extents coarse", "0 1024\n4096 1024\nend\n");
	answers("dirty list",
		"a 32 enabled 6 -\nfine 8 enabled 19 -\ncoarse 1024 enabled 2 -\n");

	does("dirty disable fine");
	repl_dirty_mark(&dirty, SECTORS - 1, 1);
	answers("dirty extents fine", "0 8\n24 16\n4096 128\nend\n");
	answers("dirty extents a", "0 64\n4096 128\n9984 19\nend\n");
	answers("dirty extents coarse", "0 1024\n4096 1024\n9216 787\nend\n");
	does("dirty enable fine");
	repl_dirty_mark(&dirty, SECTORS - 1, 1);
	answers("dirty extents fine", "0 8\n24 16\n4096 128\n10000 3\nend\n");

	does("dirty clear fine");
	answers("dirty list",
		"a 32 enabled 7 -\nfine 8 enabled 0 -\ncoarse 1024 enabled 3 -\n");
	does("dirty remove fine");
	answers("dirty list", "a 32 enabled 7 -\ncoarse 1024 enabled 3 -\n");
	repl_dirty_mark(&dirty, 100, 1);
	does("dirty remove a");
	does("dirty remove coarse");
	answers("dirty list", "");
	repl_dirty_exit(&dirty);
}

static void freeze(void)
{
	section("freeze");
	dirty_begin();
	repl_dirty_set_gate(&dirty, gate_close, gate_open, &dirty);
	close_error = 0;
	does("dirty add b");
	repl_dirty_mark(&dirty, 0, 32);
	repl_dirty_mark(&dirty, 640, 32);
	does("dirty freeze b");
	answers("dirty list", "b 32 enabled 0 2\n");
	repl_dirty_mark(&dirty, 320, 1);
	repl_dirty_mark(&dirty, 640, 1);
	answers("dirty list", "b 32 enabled 2 2\n");
	answers("dirty extents b", "0 32\n640 32\nend\n");
	refused("dirty freeze b", EBUSY);
	refused("dirty remove b", EBUSY);
	refused("dirty clear b", EBUSY);
	refused("dirty thaw b", EINVAL);
	refused("dirty thaw b keep", EINVAL);

	does("dirty thaw b merge");
	answers("dirty list", "b 32 enabled 3 -\n");
	answers("dirty extents b", "0 32\n320 32\n640 32\nend\n");
	refused("dirty thaw b merge", EINVAL);
	refused("dirty thaw b drop", EINVAL);

	does("dirty freeze b");
	repl_dirty_mark(&dirty, 1024, 1);
	does("dirty thaw b drop");
	answers("dirty extents b", "1024 32\nend\n");

	does("dirty freeze b");
	repl_dirty_mark(&dirty, 64, 1);
	does("dirty add c");
	does("dirty merge b c");
	answers("dirty extents c", "64 32\n1024 32\nend\n");
	ok(closed == 5 && opened == 5, "add and freeze waited for writes in flight");

	section("freeze that is interrupted");
	close_error = -EINTR;
	refused("dirty add d", EINTR);
	refused("dirty clear c", EINTR);
	refused("dirty enable c", EINTR);
	refused("dirty freeze c", EINTR);
	ok(closed == 9 && opened == 9, "the gate is open again");
	close_error = 0;
	shim_fail_alloc = 1;
	refused("dirty add d", ENOMEM);
	shim_fail_alloc = 1;
	refused("dirty freeze c", ENOMEM);
	ok(closed == 9, "and is not closed for what has no memory");
	repl_dirty_exit(&dirty);	/* one is frozen: nothing leaks */
}

/* Merge between each two granularities, against sectors. */
static void merge(void)
{
	static const unsigned int grans[] = { 8, 16, 32, 256, 4096, 131072 };
	static u8 from[SECTORS], to[SECTORS];
	bool good = true;
	u64 seed = 11;

	section("merge");
	for (unsigned int f = 0; f < ARRAY_SIZE(grans); f++)
		for (unsigned int t = 0; t < ARRAY_SIZE(grans); t++) {
			char words[64];
			char *line, *save;

			dirty_begin();
			snprintf(words, sizeof(words), "dirty add from %u", grans[f]);
			need(!message(words), "%s", words);
			snprintf(words, sizeof(words), "dirty add to %u", grans[t]);
			need(!message(words), "%s", words);
			memset(from, 0, sizeof(from));
			memset(to, 0, sizeof(to));
			for (unsigned int i = 0; i < 12; i++) {
				u64 b = rnd(&seed) % SECTORS;
				u64 n = 1 + rnd(&seed) % min((u64)SECTORS - b, (u64)90);

				if (i < 8)
					message("dirty disable to");
				if (i == 4)
					message("dirty freeze from");
				if (i == 8) {
					message("dirty disable from");
					message("dirty enable to");
				}
				repl_dirty_mark(&dirty, b, n);
				for (u64 s = b; s < b + n; s++)
					(i < 8 ? from : to)[s] = 1;
			}
			for (u64 s = 0; s < SECTORS; s += grans[f]) {
				u64 end = min(s + grans[f], (u64)SECTORS);

				if (memchr(from + s, 1, end - s))
					memset(from + s, 1, end - s);
			}
			for (u64 s = 0; s < SECTORS; s += grans[t]) {
				u64 end = min(s + grans[t], (u64)SECTORS);

				if (memchr(from + s, 1, end - s) || memchr(to + s, 1, end - s))
					memset(to + s, 1, end - s);
			}
			good &= !message("dirty merge from to");
			good &= message("dirty extents to") == 1;
			for (line = strtok_r(answer, "\n", &save); line && strcmp(line, "end");
			     line = strtok_r(NULL, "\n", &save)) {
				unsigned long long b, n;

				good &= sscanf(line, "%llu %llu", &b, &n) == 2;
				for (u64 s = b; s < b + n && s < SECTORS; s++)
					to[s] ^= 1;
				good &= b + n <= SECTORS;
			}
			good &= !memchr(to, 1, SECTORS) && line;
			repl_dirty_exit(&dirty);
		}
	ok(good, "from each granularity to each: what is dirty in one of them, rounded out");
}

static void reserved(void)
{
	struct repl_dirty_map peer_map, checkpoint_map;
	struct repl_bits peer, checkpoint, frozen;
	u64 nr = (SECTORS + 31) / 32;

	section("reserved maps");
	dirty_begin();
	need(!repl_bits_init(&peer, nr) && !repl_bits_init(&checkpoint, nr) &&
	     !repl_bits_init(&frozen, nr), "bits");
	repl_dirty_reserve(&dirty, &peer_map, "peer", &peer);
	repl_dirty_reserve(&dirty, &checkpoint_map, "checkpoint", &checkpoint);
	repl_bits_set(&peer, 1, 2);
	repl_bits_set(&checkpoint, 1, 5);
	repl_bits_set(&checkpoint, nr - 1, nr);
	does("dirty add u 64");
	repl_dirty_mark(&dirty, 0, 1);
	answers("dirty list", "peer 32 enabled 1 -\ncheckpoint 32 enabled 5 -\nu 64 enabled 1 -\n");
	answers("dirty extents peer", "32 32\nend\n");
	answers("dirty extents checkpoint", "32 128\n9984 19\nend\n");
	refused("dirty add peer", EBUSY);
	refused("dirty add checkpoint 8", EBUSY);
	refused("dirty remove peer", EBUSY);
	refused("dirty enable peer", EBUSY);
	refused("dirty disable checkpoint", EBUSY);
	refused("dirty freeze checkpoint", EBUSY);
	refused("dirty thaw checkpoint merge", EBUSY);
	does("dirty merge peer u");
	answers("dirty extents u", "0 64\nend\n");
	does("dirty merge u peer");
	answers("dirty extents peer", "0 64\nend\n");
	does("dirty clear peer");
	answers("dirty extents peer", "end\n");

	repl_bits_swap(&checkpoint, &frozen);
	repl_dirty_set_frozen(&checkpoint_map, &frozen);
	repl_bits_set(&checkpoint, 5, 7);
	repl_bits_set(&checkpoint, 20, 21);
	answers("dirty list", "peer 32 enabled 0 -\ncheckpoint 32 enabled 3 5\nu 64 enabled 1 -\n");
	answers("dirty extents checkpoint", "32 192\n640 32\n9984 19\nend\n");
	does("dirty merge checkpoint peer");
	answers("dirty extents peer", "32 192\n640 32\n9984 19\nend\n");
	does("dirty clear checkpoint");
	answers("dirty list", "peer 32 enabled 8 -\ncheckpoint 32 enabled 0 5\nu 64 enabled 1 -\n");
	repl_dirty_exit(&dirty);
	repl_bits_exit(&peer);
	repl_bits_exit(&checkpoint);
	repl_bits_exit(&frozen);
}

static void bad_input(void)
{
	static const char * const malformed[] = {
		"dirty", "dirty lists", "dirty list a", "dirty add", "dirty remove",
		"dirty clear", "dirty enable", "dirty disable", "dirty freeze", "dirty thaw",
		"dirty merge", "dirty merge m", "dirty extents", "dirty add n 32 32",
		"dirty remove m m", "dirty clear m m", "dirty enable m m", "dirty disable m m",
		"dirty freeze m m", "dirty thaw m drop drop", "dirty merge m m m",
		"dirty extents m 0 0", "dirty extents m -1", "dirty extents m 1x",
		"dirty extents m 10003", "dirty extents m 18446744073709551616", "dirty merge m m",
		"dirty add n 0", "dirty add n 4", "dirty add n 12", "dirty add n 262144",
		"dirty add n -8", "dirty add n 8k", "dirty add n 18446744073709551616",
		"dirty add n 4294967304", "dirty add n 4294967296",
		"dirty add -n", "dirty add a/b", "dirty add a,b",
		"dirty add abcdefghijklmnopqrstuvwxyz123456",
		"dirty mark m", "dirty mark m 0", "dirty mark m 0 8 16", "dirty mark m 0 0",
		"dirty mark m x 8", "dirty mark m 0 x", "dirty mark m 0 8 10003 1",
		"dirty mark m 0 10004", "dirty mark m 1 18446744073709551615",
	};
	static const char * const unknown[] = {
		"dirty remove n", "dirty clear n", "dirty enable n", "dirty disable n",
		"dirty freeze n", "dirty thaw n drop", "dirty merge n m", "dirty merge m n",
		"dirty extents n", "dirty extents M",
	};
	char words[64];

	section("bad input");
	ok(repl_dirty_init(&dirty, 0, 5) == -EINVAL && repl_dirty_init(&dirty, 8, 2) == -EINVAL &&
	   repl_dirty_init(&dirty, 8, 18) == -EINVAL, "no sectors, or regions out of range");
	dirty_begin();
	does("dirty add m");
	repl_dirty_mark(&dirty, 0, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(malformed); i++)
		refused(malformed[i], EINVAL);
	for (unsigned int i = 0; i < ARRAY_SIZE(unknown); i++)
		refused(unknown[i], ENOENT);
	refused("dirty add m", EEXIST);
	refused("dirty add m 8", EEXIST);
	/* Of a range that is refused nothing is marked; of others all. */
	answers("dirty extents m", "0 32\nend\n");
	does("dirty mark m 40 1 9990 13");
	answers("dirty extents m", "0 64\n9984 19\nend\n");
	does("dirty add abcdefghijklmnopqrstuvwxyz12345");
	for (unsigned int i = 2; i < REPL_DIRTY_MAPS; i++) {
		snprintf(words, sizeof(words), "dirty add m%u", i);
		need(!message(words), "%s", words);
	}
	refused("dirty add one-more", ENOSPC);
	ok(message("dirty list") == 1 && strlen(answer) < sizeof(answer) - 1,
	   "a list of all maps fits");
	ok(message_of(128, "dirty list") == 1 && strlen(answer) == 127,
	   "where it does not, the buffer is full: who asked knows it");
	repl_dirty_exit(&dirty);
}

/* All of them, in answers of any size, from any sector. */
static void extents(void)
{
	static u8 want[SECTORS], got[SECTORS];
	bool good = true;
	u64 seed = 5;

	section("extents");
	dirty_begin();
	does("dirty add e 8");
	for (unsigned int i = 0; i < 400; i++) {
		u64 b = rnd(&seed) % SECTORS;

		repl_dirty_mark(&dirty, b, 1);
		memset(want + b / 8 * 8, 1, min((u64)8, SECTORS - b / 8 * 8));
	}
	for (unsigned int maxlen = 128; maxlen < 2000; maxlen += 97)
		for (u64 start = 0; start < SECTORS; start += 1 + rnd(&seed) % 999) {
			unsigned long long from = start, last = start;
			bool more = true;

			memset(got, 0, sizeof(got));
			while (more && good) {
				char words[64], *line, *save;
				int lines = 0;

				snprintf(words, sizeof(words), "dirty extents e %llu", from);
				good &= message_of(maxlen, words) == 1 &&
					strlen(answer) < maxlen - 1;
				line = strtok_r(answer, "\n", &save);
				for (;;) {
					unsigned long long b, n;

					if (!strcmp(line, "end")) {
						more = false;
						break;
					}
					if (sscanf(line, "more %llu", &from) == 1)
						break;
					good &= sscanf(line, "%llu %llu", &b, &n) == 2 &&
						b >= last && n && b + n <= SECTORS;
					if (!good)
						break;
					memset(got + b, 1, n);
					last = b + n;
					lines++;
					line = strtok_r(NULL, "\n", &save);
				}
				good &= !strtok_r(NULL, "\n", &save) && (lines || !more);
			}
			good &= !memcmp(got + start, want + start, SECTORS - start) &&
				!memchr(got, 1, start);
		}
	ok(good, "answers of each size, from any sector, give each dirty sector once");
	repl_dirty_exit(&dirty);
}

/* The maps move to another table; what it is longer is dirty. */
static void take_over(void)
{
	struct repl_dirty_map peer_map;
	struct repl_dirty old;
	struct repl_bits peer;

	section("reload");
	dirty_begin();
	need(!repl_bits_init(&peer, (SECTORS + 31) / 32), "bits");
	repl_dirty_reserve(&dirty, &peer_map, "peer", &peer);
	does("dirty add a");
	does("dirty add b 1024");
	repl_dirty_mark(&dirty, 64, 32);
	does("dirty freeze a");
	repl_dirty_mark(&dirty, 9990, 1);
	does("dirty disable b");

	/* A list head cannot be copied: the head of the copy takes the maps. */
	old = dirty;
	old.maps.next->prev = &old.maps;
	old.maps.prev->next = &old.maps;

	need(!repl_dirty_init(&dirty, SECTORS, REGION_SHIFT), "maps");
	ok(!repl_dirty_take_over(&dirty, &old), "a table of the same length");
	answers("dirty list", "a 32 enabled 1 1\nb 1024 disabled 2 -\n");
	repl_dirty_exit(&old);
	ok(old.nr_maps == 0, "the old one has none");

	old = dirty;
	old.maps.next->prev = &old.maps;
	old.maps.prev->next = &old.maps;
	need(!repl_dirty_init(&dirty, 12000, REGION_SHIFT), "maps");
	shim_fail_alloc = 1;
	ok_errno(-repl_dirty_take_over(&dirty, &old), ENOMEM, "no memory");
	answers("dirty list", "");
	ok(!repl_dirty_take_over(&dirty, &old), "a longer table, again");
	answers("dirty list", "a 32 enabled 63 63\nb 1024 disabled 4 -\n");
	answers("dirty extents a", "64 32\n10016 1984\nend\n");
	does("dirty thaw a drop");
	answers("dirty extents a", "9984 2016\nend\n");

	old = dirty;
	old.maps.next->prev = &old.maps;
	old.maps.prev->next = &old.maps;
	need(!repl_dirty_init(&dirty, 10001, REGION_SHIFT), "maps");
	ok(!repl_dirty_take_over(&dirty, &old), "a shorter table");
	answers("dirty extents a", "9984 17\nend\n");
	repl_dirty_mark(&dirty, 10000, 1);
	answers("dirty list", "a 32 enabled 1 -\nb 1024 disabled 2 -\n");
	repl_dirty_exit(&dirty);
	repl_dirty_exit(&old);
	repl_bits_exit(&peer);
}

/* Writers mark, each sector once, while maps come and go. */

static unsigned int done;

static void *marker(void *arg)
{
	for (u64 bit = (unsigned long)arg; bit < SECTORS / 8; bit += THREADS) {
		struct timespec t = { .tv_nsec = 1000000 };

		repl_dirty_mark(&dirty, bit * 8, 1);
		nanosleep(&t, NULL);
	}
	__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void maps_concurrent(void)
{
	unsigned int rounds = 0;
	pthread_t t[THREADS];
	bool good = true;

	section("maps and writers");
	dirty_begin();
	need(!message("dirty add stays 8"), "a map");
	for (unsigned long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, marker, (void *)i);
	while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < THREADS) {
		good &= !message("dirty add goes 16");
		good &= !message("dirty freeze goes");
		good &= message("dirty extents goes") == 1;
		good &= !message(rounds++ % 2 ? "dirty thaw goes drop" : "dirty thaw goes merge");
		good &= !message("dirty freeze stays") && !message("dirty thaw stays merge");
		good &= !message("dirty merge stays goes");
		good &= !message("dirty clear goes") && !message("dirty disable goes");
		good &= !message("dirty remove goes");
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	ok(good && rounds > 100, "maps come, are frozen, thawed, merged, cleared and go");
	note("%u times", rounds);
	answers("dirty extents stays", "0 10000\nend\n");
	answers("dirty list", "stays 8 enabled 1250 -\n");
	repl_dirty_exit(&dirty);
}

/* Three maps of all contents of 3 bits: what one and a run of them say. */
static void look(void)
{
	struct repl_bits maps[3];
	const struct repl_bits *all[3] = { &maps[0], &maps[1], &maps[2] };
	unsigned int bad = 0;

	for (unsigned int content = 0; content < 512; content++) {
		unsigned int any = (content | content >> 3 | content >> 6) & 7;

		for (unsigned int i = 0; i < 3; i++) {
			need(!repl_bits_init(&maps[i], 70), "bits");
			for (unsigned int j = 0; j < 3; j++)
				if (content >> (3 * i + j) & 1)
					repl_bits_set(&maps[i], 62 + j, 63 + j);
		}
		for (unsigned int j = 0; j < 3; j++) {
			bool want = any >> j & 1;
			u64 run = 0;

			bad += repl_bits_look(all, 3, 62 + j, 65, &run) != want || run < 1 ||
			       62 + j + run > 65;
			for (unsigned int k = j; k < j + run && k < 3; k++)
				bad += (any >> k & 1) != want;
			/* All of it, if none is set. */
			bad += !want && j + run < 3 && !(any >> (j + run) & 1);
		}
		for (unsigned int i = 0; i < 3; i++)
			repl_bits_exit(&maps[i]);
	}
	ok(!bad, "look: each content of three maps (%u bad)", bad);
}

static struct repl_bits going[3];
static unsigned int looks, goes_at, gone_from;

/* Behind that many reads it goes on: it is set in the next one before it is cleared. */
static void goes_on(void)
{
	if (looks++ != goes_at)
		return;
	repl_bits_set(&going[gone_from + 1], 5, 6);
	repl_bits_clear(&going[gone_from], 5, 6);
}

static void look_meanwhile(void)
{
	const struct repl_bits *maps[] = { &going[0], &going[1], &going[2] };
	unsigned int seen = 0;
	u64 run;

	for (unsigned int from = 0; from < 2; from++)
		for (unsigned int at = 0; at < 3; at++) {
			for (unsigned int i = 0; i < 3; i++)
				need(!repl_bits_init(&going[i], 64), "bits");
			repl_bits_set(&going[from], 5, 6);
			gone_from = from;
			goes_at = at;
			looks = 0;
			shim_between_reads = goes_on;
			seen += repl_bits_look(maps, 3, 5, 6, &run);
			shim_between_reads = NULL;
			for (unsigned int i = 0; i < 3; i++)
				repl_bits_exit(&going[i]);
		}
	ok_u64(seen, 6, "look: a bit that goes on to the next map meanwhile is seen");
}

int main(void)
{
	static const u64 sizes[] = { 1, 2, 10, 63, 64, 65, 130 };

	section("bits");
	limits();
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++)
		every_range(sizes[i]);
	bits_merge();
	bits_concurrent();
	look();
	look_meanwhile();
	marks();
	freeze();
	merge();
	reserved();
	bad_input();
	extents();
	take_over();
	maps_concurrent();
	return unit_end();
}

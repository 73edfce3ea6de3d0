/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two threads, released at the same instant, again and again, each a little
 * earlier or later than the other: that is how a barrier is seen to be missing.
 */
#ifndef UNIT_LITMUS_H
#define UNIT_LITMUS_H

#include <sched.h>
#include <time.h>

#include "unit.h"

struct litmus {
	void (*left)(void);
	void (*right)(void);
	void (*after)(void);	/* judges, and makes all as before */
	double seconds;
	unsigned int round, left_done, stop;
	unsigned long long rounds;
};

static inline double litmus_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static inline void litmus_until(unsigned int *p, unsigned int value)
{
	for (unsigned int spins = 0; __atomic_load_n(p, __ATOMIC_ACQUIRE) != value; )
		if (++spins % 4096 == 0)
			sched_yield();
}

/*
 * Stores to cold memory hold up, in the CPU's store buffer, the one that
 * follows: without a barrier it is seen hundreds of nanoseconds late.
 */
static volatile char litmus_cold[64 << 20];

__attribute__((no_sanitize("address", "undefined"), noinline))
static void litmus_hold_up(u64 *seed)
{
	size_t at[12];

	for (unsigned int i = 0; i < 12; i++)
		at[i] = rnd(seed) % sizeof(litmus_cold);
	for (unsigned int i = 0; i < 12; i++)
		litmus_cold[at[i]] = 1;
}

static inline void litmus_wait(u64 *seed)
{
	for (unsigned int n = rnd(seed) % 40; n; n--)
		barrier();
}

static void *litmus_left(void *arg)
{
	struct litmus *l = arg;
	u64 seed = 1;

	shim_cpu = 1;
	for (unsigned int round = 1; ; round++) {
		litmus_until(&l->round, round);
		if (__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE))
			return NULL;
		litmus_wait(&seed);
		litmus_hold_up(&seed);
		l->left();
		__atomic_store_n(&l->left_done, round, __ATOMIC_RELEASE);
	}
}

static inline void litmus_run(struct litmus *l)
{
	double end = litmus_now() + l->seconds;
	u64 seed = 2;
	pthread_t t;

	pthread_create(&t, NULL, litmus_left, l);
	for (unsigned int round = 1; ; round++) {
		bool last = round % 256 == 0 && litmus_now() > end;

		__atomic_store_n(&l->stop, last, __ATOMIC_RELEASE);
		__atomic_store_n(&l->round, round, __ATOMIC_RELEASE);
		if (last)
			break;
		litmus_wait(&seed);
		l->right();
		litmus_until(&l->left_done, round);
		l->after();
		l->rounds++;
	}
	pthread_join(t, NULL);
}

#endif

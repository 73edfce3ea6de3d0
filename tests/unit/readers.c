// SPDX-License-Identifier: GPL-2.0-only
/*
 * readers.c with threads for CPUs: a reader that found the region in state
 * none must never see what is written after the grace period.
 */
#include "litmus.h"
#include "unit.h"

#include "readers.h"

static struct repl_readers readers;
static unsigned int kicks;

static void count_kick(struct repl_readers *r)
{
	(void)r;
	__atomic_add_fetch(&kicks, 1, __ATOMIC_RELAXED);
}

static void alone(void)
{
	int a, b;

	shim_fail_alloc = 1;
	ok(repl_readers_init(&readers, count_kick) == -ENOMEM, "out of memory");
	ok(!repl_readers_init(&readers, count_kick), "init");
	ok(repl_readers_idle(&readers), "idle at first");
	repl_readers_begin(&readers);
	ok(repl_readers_poll(&readers), "no readers: over at once");

	a = repl_readers_enter(&readers);
	ok(!repl_readers_idle(&readers), "not idle with a reader");
	repl_readers_begin(&readers);
	ok(!repl_readers_poll(&readers), "a reader from before: not over");
	b = repl_readers_enter(&readers);
	ok(a != b, "who comes now is in the other generation");
	ok(!repl_readers_poll(&readers), "still not");
	kicks = 0;
	repl_readers_leave(&readers, a);
	ok(kicks == 1, "who leaves kicks");
	ok(repl_readers_poll(&readers), "over, although a newer one reads");
	kicks = 0;

	/* the next grace period waits for that one */
	repl_readers_begin(&readers);
	ok(!repl_readers_poll(&readers), "the newer one counts for the next grace period");
	shim_cpu = 5;
	repl_readers_leave(&readers, b);
	shim_cpu = 0;
	ok(repl_readers_poll(&readers), "over when it left, on another CPU");
	kicks = 0;
	a = repl_readers_enter(&readers);
	repl_readers_leave(&readers, a);
	ok(!kicks && repl_readers_idle(&readers), "nobody waits: no kick");
	repl_readers_exit(&readers);
}

#define THREADS 3
#define ROUNDS 20000

enum { NONE, REDIRECT };

static int state;
static unsigned long data;	/* what is in the secondary */
static unsigned int newer, reads, finished;

static pthread_mutex_t poll_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t kicked = PTHREAD_COND_INITIALIZER;
static unsigned int kick_seq;

static void kick(struct repl_readers *r)
{
	(void)r;
	pthread_mutex_lock(&poll_lock);
	kick_seq++;
	pthread_cond_signal(&kicked);
	pthread_mutex_unlock(&poll_lock);
}

static void *reader(void *arg)
{
	u64 seed = (unsigned long)arg;

	shim_cpu = (unsigned long)arg + 1;
	while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
		int gen = repl_readers_enter(&readers);

		if (READ_ONCE(state) == NONE) {
			unsigned long first = READ_ONCE(data);

			/* the read takes a while */
			for (unsigned int i = rnd(&seed) % 64; i; i--)
				if (READ_ONCE(data) != first)
					__atomic_add_fetch(&newer, 1, __ATOMIC_RELAXED);
			__atomic_add_fetch(&reads, 1, __ATOMIC_RELAXED);
		}
		repl_readers_leave(&readers, gen);
		if (rnd(&seed) % 256 == 0)
			sched_yield();
	}
	return NULL;
}

static void together(void)
{
	pthread_t t[THREADS];
	unsigned long long waits = 0;
	double deadline = litmus_now() + 5;
	unsigned int i;

	ok(!repl_readers_init(&readers, kick), "init");
	for (unsigned long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, reader, (void *)i);
	for (i = 0; i < ROUNDS && litmus_now() < deadline; i++) {
		unsigned int seen;

		/* catch one, but do not insist */
		for (unsigned int n = 0; n < 50 && repl_readers_idle(&readers); n++)
			sched_yield();
		WRITE_ONCE(state, REDIRECT);
		if (i % 2 || !repl_readers_idle(&readers)) {
			seen = __atomic_load_n(&kick_seq, __ATOMIC_ACQUIRE);
			repl_readers_begin(&readers);
			while (!repl_readers_poll(&readers)) {
				/* no timeout: a kick that is lost is a hang */
				pthread_mutex_lock(&poll_lock);
				while (kick_seq == seen)
					pthread_cond_wait(&kicked, &poll_lock);
				seen = kick_seq;
				pthread_mutex_unlock(&poll_lock);
				waits++;
			}
		}
		WRITE_ONCE(data, data + 1);
		/* behind the gate of a checkpoint: no reader is inside */
		smp_mb();
		while (!repl_readers_idle(&readers))
			sched_yield();
		WRITE_ONCE(state, NONE);
	}
	__atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
	for (unsigned int n = 0; n < THREADS; n++)
		pthread_join(t[n], NULL);
	ok(!newer, "no reader sees the overwrite: %d threads, %u overwrites, %u reads, %llu waits",
	   THREADS, i, reads, waits);
	ok(reads && waits, "there were readers to wait for");
	repl_readers_exit(&readers);
}

/* Either the reader sees redirect, or the other side sees the reader. */
static bool missed, unseen;
static unsigned int both;
static int entered;

static void read_it(void)
{
	entered = repl_readers_enter(&readers);
	missed = READ_ONCE(state) == NONE;
}

static void redirect_it(void)
{
	WRITE_ONCE(state, REDIRECT);
	unseen = repl_readers_idle(&readers);
}

static void redirect_slowly(void)
{
	WRITE_ONCE(state, REDIRECT);
	repl_readers_begin(&readers);
	unseen = repl_readers_poll(&readers);
}

static void judge(void)
{
	both += missed && unseen;
	repl_readers_leave(&readers, entered);
	if (readers.waiting && !repl_readers_poll(&readers))
		both++;
	state = NONE;
}

static void at_once(void)
{
	struct litmus idle = {
		.left = read_it, .right = redirect_it, .after = judge, .seconds = 1.5
	};
	struct litmus poll = {
		.left = read_it, .right = redirect_slowly, .after = judge, .seconds = 1.5
	};

	ok(!repl_readers_init(&readers, count_kick), "init");
	litmus_run(&idle);
	ok(!both, "reading and redirecting at the same instant, idle: one sees the other (%u of %llu)",
	   both, idle.rounds);
	both = 0;
	litmus_run(&poll);
	ok(!both, "reading and redirecting at the same instant, poll: one sees the other (%u of %llu)",
	   both, poll.rounds);
	repl_readers_exit(&readers);
}

int main(void)
{
	section("readers");
	watchdog(120);
	alone();
	at_once();
	together();
	return unit_end();
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * gate.c with threads for CPUs. What is behind a closed and drained gate is
 * plain memory: if anybody is inside, he sees it change.
 */
#include "litmus.h"
#include "unit.h"

#include "gate.h"

static struct repl_gate gate;

static void alone(void)
{
	struct bio a = { .id = 1 }, b = { .id = 2 };
	struct bio_list out;

	shim_fail_alloc = 1;
	ok(repl_gate_init(&gate) == -ENOMEM, "out of memory");
	ok(!repl_gate_init(&gate), "init");
	ok(repl_gate_enter(&gate), "an open gate lets in");
	repl_gate_close(&gate);
	ok(!repl_gate_is_drained(&gate), "closed with one inside: not drained");
	ok(!repl_gate_enter(&gate), "a closed gate lets nobody in");
	ok(repl_gate_park(&gate, &a), "who comes now is parked");
	shim_killed = true;
	ok(repl_gate_drain(&gate) == -ERESTARTSYS, "who waits for the drain can be killed");
	shim_killed = false;
	repl_gate_get(&gate);
	repl_gate_put(&gate);
	ok(!repl_gate_is_drained(&gate), "started inside and ended: the first is still there");
	repl_gate_hold_back(&gate, &b);
	ok(repl_gate_is_drained(&gate) && !repl_gate_drain(&gate), "drained when it is held back");
	bio_list_init(&out);
	repl_gate_open(&gate, &out);
	ok(bio_list_pop(&out) == &a && bio_list_pop(&out) == &b && bio_list_empty(&out),
	   "the parked come out in order");
	ok(!repl_gate_park(&gate, &a), "an open gate parks nobody");
	ok(repl_gate_enter(&gate), "and lets in again");

	/* an I/O that ends on another CPU than it began on */
	shim_cpu = 3;
	repl_gate_put(&gate);
	shim_cpu = 0;
	repl_gate_close(&gate);
	ok(repl_gate_is_drained(&gate), "drained although it ended on another CPU");
	repl_gate_open(&gate, &out);
	repl_gate_exit(&gate);
}

#define THREADS 4

static unsigned long secret[8];		/* plain: that is the test */
static unsigned int saw_change, not_served;
static unsigned int finished;

/* What waits for another thread to end it. */
static pthread_mutex_t pass_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int passed[THREADS];

static void look(void)
{
	unsigned long first = READ_ONCE(secret[0]);

	for (unsigned int i = 1; i < 8; i++)
		if (READ_ONCE(secret[i]) != first)
			__atomic_add_fetch(&saw_change, 1, __ATOMIC_RELAXED);
}

struct request {
	struct bio bio;
	unsigned int done;
};

static void serve(struct request *r)
{
	while (!repl_gate_enter(&gate))
		if (repl_gate_park(&gate, &r->bio))
			return;		/* whoever opens goes on with it */
	look();
	__atomic_store_n(&r->done, 1, __ATOMIC_RELEASE);
	repl_gate_put(&gate);
}

/* End what others have begun: also while waiting, the gate may wait for it. */
static void end_passed(unsigned long me)
{
	pthread_mutex_lock(&pass_lock);
	for (; passed[me]; passed[me]--) {
		look();
		repl_gate_put(&gate);
	}
	pthread_mutex_unlock(&pass_lock);
}

static double deadline;		/* on a machine that has other things to do */

static void *passer(void *arg)
{
	unsigned long me = (unsigned long)arg;

	shim_cpu = me + 1;
	for (unsigned int i = 0; i < 60000 && litmus_now() < deadline; i++) {
		struct request r = { .done = 0 };

		serve(&r);
		while (!__atomic_load_n(&r.done, __ATOMIC_ACQUIRE)) {
			end_passed(me);
			sched_yield();
		}

		/* enter here, end in the neighbour */
		if (i % 8 == 0 && repl_gate_enter(&gate)) {
			look();
			pthread_mutex_lock(&pass_lock);
			passed[(me + 1) % THREADS]++;
			pthread_mutex_unlock(&pass_lock);
		}
		end_passed(me);
	}
	__atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
	/* until all have ended: another may still pass one on */
	while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < THREADS) {
		end_passed(me);
		sched_yield();
	}
	end_passed(me);
	return NULL;
}

static void together(void)
{
	pthread_t t[THREADS];
	unsigned int closings = 0;
	struct bio_list out;
	struct bio *bio;
	unsigned long long parked = 0;

	ok(!repl_gate_init(&gate), "init");
	deadline = litmus_now() + 5;
	for (unsigned long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, passer, (void *)i);
	while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < THREADS) {
		repl_gate_close(&gate);
		if (closings % 8 == 0)
			sched_yield();		/* some come meanwhile */
		if (closings & 1)
			repl_gate_drain_all(&gate);
		else if (repl_gate_drain(&gate))
			not_served++;
		for (unsigned int i = 0; i < 8; i++)
			WRITE_ONCE(secret[i], secret[i] + 1);
		bio_list_init(&out);
		repl_gate_open(&gate, &out);
		while ((bio = bio_list_pop(&out))) {
			parked++;
			serve(container_of(bio, struct request, bio));
		}
		closings++;
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	repl_gate_close(&gate);
	ok(repl_gate_is_drained(&gate), "all that entered has ended");
	ok(!saw_change && !not_served,
	   "nobody is inside a drained gate: %d threads, %u closings, %llu parked", THREADS,
	   closings, parked);
	ok(closings > 10, "the gate was closed while they came");
	repl_gate_exit(&gate);
}

/* Either the one who enters sees closed, or the one who closes sees him. */
static bool inside, drained;
static unsigned int both;

static void enter_it(void)
{
	inside = repl_gate_enter(&gate);
}

static void close_it(void)
{
	repl_gate_close(&gate);
	drained = repl_gate_is_drained(&gate);
}

static void judge(void)
{
	struct bio_list out;

	both += inside && drained;
	if (inside)
		repl_gate_put(&gate);
	bio_list_init(&out);
	repl_gate_open(&gate, &out);
}

static void at_once(void)
{
	struct litmus l = { .left = enter_it, .right = close_it, .after = judge, .seconds = 1.5 };

	ok(!repl_gate_init(&gate), "init");
	litmus_run(&l);
	ok(!both, "entering and closing at the same instant: never inside and drained (%u of %llu)",
	   both, l.rounds);
	repl_gate_exit(&gate);
}

int main(void)
{
	section("gate");
	watchdog(120);
	alone();
	at_once();
	together();
	return unit_end();
}

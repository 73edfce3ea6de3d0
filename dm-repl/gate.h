/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Gate: the valve that every I/O of a chain passes. Closing it and waiting
 * until it is drained gives a point in time.
 *
 * Two per-CPU counters only ever grow: started and ended. Passing costs one
 * increment and one barrier, leaving another; no cache line is shared. A
 * single signed counter would not do: an I/O may start on one CPU and end on
 * another, and a sum taken while it moves can be zero although it is there.
 *
 *	enter				close and drain
 *	-----				---------------
 *	started++			closed = 1
 *	smp_mb()		[A]	smp_mb()		[B]
 *	closed? ended++, park		sum of ended
 *					smp_mb()		[C]
 *					sum of started, equal?
 *
 * Either the enterer sees closed, or the closer sees started ([A] with [B]).
 * ended is summed first: an I/O that ends in between is then missing from the
 * first sum and the gate counts as not drained, never the other way round.
 *
 * The park list holds the bios that came while the gate was closed; opening
 * hands them to the caller, who maps them again.
 *
 * Counting in RCU read sections lets the owner free the gate one grace period
 * after it was drained.
 */
#ifndef DM_REPL_GATE_H
#define DM_REPL_GATE_H

#include <linux/bio.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

struct repl_gate_count {
	unsigned long started;
	unsigned long ended;
};

struct repl_gate {
	struct repl_gate_count __percpu *count;
	int closed;
	spinlock_t lock;		/* parked, and closed against it */
	struct bio_list parked;
	wait_queue_head_t drained;
};

int repl_gate_init(struct repl_gate *gate);
void repl_gate_exit(struct repl_gate *gate);
void repl_gate_close(struct repl_gate *gate);
bool repl_gate_is_drained(struct repl_gate *gate);
int repl_gate_drain(struct repl_gate *gate);
void repl_gate_drain_all(struct repl_gate *gate);
void repl_gate_open(struct repl_gate *gate, struct bio_list *parked);
bool repl_gate_park(struct repl_gate *gate, struct bio *bio);
void repl_gate_hold_back(struct repl_gate *gate, struct bio *bio);

/**
 * repl_gate_get() - count one more I/O
 * @gate: gate
 *
 * For a caller that is counted already and starts something that outlives
 * itself. Context: any.
 */
static inline void repl_gate_get(struct repl_gate *gate)
{
	this_cpu_inc(gate->count->started);
}

/**
 * repl_gate_put() - an I/O has ended
 * @gate: gate
 *
 * All that the I/O did is visible to whoever finds the gate drained.
 * Context: any.
 */
static inline void repl_gate_put(struct repl_gate *gate)
{
	rcu_read_lock();
	smp_rmb();	/* release: earlier loads before the count, */
	smp_wmb();	/* and earlier stores */
	this_cpu_inc(gate->count->ended);
	/* Pairs with the barrier of prepare_to_wait() in repl_gate_drain(). */
	smp_mb();
	if (unlikely(READ_ONCE(gate->closed)))
		wake_up(&gate->drained);
	rcu_read_unlock();
}

/**
 * repl_gate_enter() - pass, if the gate is open
 * @gate: gate
 *
 * Context: any.
 * Return: true if the caller is counted and must call repl_gate_put(); false
 * if the gate is closed: call repl_gate_park().
 */
static inline bool repl_gate_enter(struct repl_gate *gate)
{
	repl_gate_get(gate);
	smp_mb();	/* [A], pairs with [B] in repl_gate_close() */
	/* Acquire: what was changed while it was closed is seen as changed. */
	if (likely(!smp_load_acquire(&gate->closed)))
		return true;
	repl_gate_put(gate);
	return false;
}

#endif

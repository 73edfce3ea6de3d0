/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Readers: the reads of the secondary that the view has in flight.
 *
 * A read that was resolved to the secondary must finish before a write
 * overwrites its region (invariant 4), and neither side may take a lock for
 * it. So reads are counted in one of two generations, per CPU, like in SRCU:
 *
 *	reader				copy-before-write
 *	------				-----------------
 *	started[gen]++			region -> redirect
 *	smp_mb()		[A]	smp_mb()		[B]
 *	region none? read secondary	both generations drained, one after
 *	else ended[gen]++, read hidden	the other? the region may be
 *	...				overwritten
 *	ended[gen]++
 *
 * Either the reader sees redirect and goes to hidden, or the other side sees
 * the reader. New readers enter the other generation as soon as the older one
 * is drained, so that a stream of reads does not starve a write.
 *
 * Nobody polls: while somebody waits, each reader that ends calls ->kick.
 */
#ifndef DM_REPL_READERS_H
#define DM_REPL_READERS_H

#include <linux/percpu.h>

struct repl_readers_count {
	unsigned long started[2];
	unsigned long ended[2];
};

struct repl_readers {
	struct repl_readers_count __percpu *count;
	int gen;		/* the one new readers enter: 0 or 1 */
	int waiting;		/* a grace period is under way */
	int step;		/* of repl_readers_poll(); its caller's */
	void (*kick)(struct repl_readers *readers);
};

int repl_readers_init(struct repl_readers *readers,
		      void (*kick)(struct repl_readers *readers));
void repl_readers_exit(struct repl_readers *readers);
bool repl_readers_idle(struct repl_readers *readers);
void repl_readers_begin(struct repl_readers *readers);
bool repl_readers_poll(struct repl_readers *readers);

/**
 * repl_readers_waiting() - is a grace period under way?
 * @readers: readers
 *
 * Context: serialised with repl_readers_poll() by the caller.
 */
static inline bool repl_readers_waiting(struct repl_readers *readers)
{
	return readers->waiting;
}

/**
 * repl_readers_enter() - announce a read of the secondary
 * @readers: readers
 *
 * The caller must look at the state of its regions after this, not before.
 *
 * Context: any.
 * Return: the generation, for repl_readers_leave().
 */
static inline int repl_readers_enter(struct repl_readers *readers)
{
	int gen = READ_ONCE(readers->gen);

	this_cpu_inc(readers->count->started[gen]);
	smp_mb();	/* [A], pairs with [B] before the sums */
	return gen;
}

/**
 * repl_readers_leave() - the read has ended, or goes elsewhere
 * @readers: readers
 * @gen: what repl_readers_enter() returned
 *
 * Context: any; the caller is inside a gate that keeps the readers allocated.
 */
static inline void repl_readers_leave(struct repl_readers *readers, int gen)
{
	smp_rmb();	/* release: the read itself before the count */
	smp_wmb();	/* (both kinds of access) */
	this_cpu_inc(readers->count->ended[gen]);
	smp_mb();	/* pairs with the one in repl_readers_begin() */
	if (unlikely(READ_ONCE(readers->waiting)))
		readers->kick(readers);
}

#endif

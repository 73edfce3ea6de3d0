// SPDX-License-Identifier: GPL-2.0-only
/* Readers of the secondary: see the essay in readers.h. */

#include <linux/errno.h>

#include "readers.h"

enum { READERS_IDLE, READERS_OLD, READERS_CURRENT };

/**
 * repl_readers_init() - no readers
 * @readers: readers
 * @kick: called when a reader leaves while a grace period is under way; in any
 *	context; makes somebody call repl_readers_poll()
 *
 * Return: 0 or -ENOMEM.
 */
int repl_readers_init(struct repl_readers *readers,
		      void (*kick)(struct repl_readers *readers))
{
	readers->count = alloc_percpu(struct repl_readers_count);
	if (!readers->count)
		return -ENOMEM;

	readers->gen = 0;
	readers->waiting = 0;
	readers->step = READERS_IDLE;
	readers->kick = kick;
	return 0;
}

/**
 * repl_readers_exit() - free what repl_readers_init() allocated
 * @readers: readers; the last has left
 */
void repl_readers_exit(struct repl_readers *readers)
{
	free_percpu(readers->count);
	readers->count = NULL;
}

static bool readers_drained(struct repl_readers *readers, int gen)
{
	unsigned long started = 0, ended = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		ended += READ_ONCE(per_cpu_ptr(readers->count, cpu)->ended[gen]);
	smp_mb();	/* ended before started, as in the gate */
	for_each_possible_cpu(cpu)
		started += READ_ONCE(per_cpu_ptr(readers->count,
						 cpu)->started[gen]);

	return started == ended;
}

/**
 * repl_readers_idle() - are there no readers at all?
 * @readers: readers
 *
 * True means that every region that was set to redirect before the call may
 * be overwritten: no grace period is needed.
 *
 * Context: any.
 */
bool repl_readers_idle(struct repl_readers *readers)
{
	smp_mb();	/* [B], pairs with [A] in repl_readers_enter() */
	return readers_drained(readers, 0) && readers_drained(readers, 1);
}

/**
 * repl_readers_begin() - start a grace period
 * @readers: readers; no grace period is under way
 *
 * Covers the regions that were set to redirect before the call.
 *
 * Context: any, serialised with repl_readers_poll() by the caller.
 */
void repl_readers_begin(struct repl_readers *readers)
{
	readers->step = READERS_OLD;
	WRITE_ONCE(readers->waiting, 1);
	/*
	 * [B], pairs with [A] in repl_readers_enter(), and with the barrier in
	 * repl_readers_leave(): either the poll that follows sees ended, or
	 * the reader sees waiting and kicks.
	 */
	smp_mb();
}

/**
 * repl_readers_poll() - is the grace period over?
 * @readers: readers; repl_readers_begin() was called
 *
 * Context: any, serialised by the caller. If false, ->kick is called when
 * it pays to ask again.
 */
bool repl_readers_poll(struct repl_readers *readers)
{
	if (readers->step == READERS_OLD) {
		/* Nobody enters this one now, but for stragglers. */
		if (!readers_drained(readers, !readers->gen))
			return false;
		WRITE_ONCE(readers->gen, !readers->gen);
		readers->step = READERS_CURRENT;
	}
	if (!readers_drained(readers, !readers->gen))
		return false;

	readers->step = READERS_IDLE;
	WRITE_ONCE(readers->waiting, 0);
	return true;
}

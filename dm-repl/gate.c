// SPDX-License-Identifier: GPL-2.0-only
/* Gate: see the essay in gate.h. */

#include <linux/errno.h>

#include "gate.h"

/**
 * repl_gate_init() - an open gate with nothing inside
 * @gate: gate
 *
 * Return: 0 or -ENOMEM.
 */
int repl_gate_init(struct repl_gate *gate)
{
	gate->count = alloc_percpu(struct repl_gate_count);
	if (!gate->count)
		return -ENOMEM;

	gate->closed = 0;
	spin_lock_init(&gate->lock);
	bio_list_init(&gate->parked);
	init_waitqueue_head(&gate->drained);
	return 0;
}

/**
 * repl_gate_exit() - free what repl_gate_init() allocated
 * @gate: gate, drained at least one RCU grace period ago
 */
void repl_gate_exit(struct repl_gate *gate)
{
	free_percpu(gate->count);
	gate->count = NULL;
}

/**
 * repl_gate_close() - let nobody in any more
 * @gate: gate; the caller is the only one who closes and opens it
 *
 * Context: any. Those inside are still inside: see repl_gate_drain().
 */
void repl_gate_close(struct repl_gate *gate)
{
	WRITE_ONCE(gate->closed, 1);
	smp_mb();	/* [B], pairs with [A] in repl_gate_enter() */
}

/**
 * repl_gate_is_drained() - is nobody inside?
 * @gate: gate, closed
 *
 * Once true nobody is inside until the gate is opened; a later call may still
 * return false while somebody is being refused.
 */
bool repl_gate_is_drained(struct repl_gate *gate)
{
	unsigned long started = 0, ended = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		ended += READ_ONCE(per_cpu_ptr(gate->count, cpu)->ended);
	smp_mb();	/* [C]: ended before started, see gate.h */
	for_each_possible_cpu(cpu)
		started += READ_ONCE(per_cpu_ptr(gate->count, cpu)->started);

	return started == ended;
}

/**
 * repl_gate_drain() - wait until nobody is inside
 * @gate: gate, closed
 *
 * Context: process; sleeps as long as the slowest I/O takes.
 * Return: 0, or -ERESTARTSYS if the caller was killed first.
 */
int repl_gate_drain(struct repl_gate *gate)
{
	return wait_event_killable(gate->drained, repl_gate_is_drained(gate));
}

/**
 * repl_gate_drain_all() - repl_gate_drain() that cannot be interrupted
 * @gate: gate, closed
 *
 * Context: process.
 */
void repl_gate_drain_all(struct repl_gate *gate)
{
	wait_event(gate->drained, repl_gate_is_drained(gate));
}

/**
 * repl_gate_open() - open the gate again
 * @gate: gate, closed
 * @parked: list to which the parked bios are appended; the caller maps them
 *
 * Context: process or atomic.
 */
void repl_gate_open(struct repl_gate *gate, struct bio_list *parked)
{
	unsigned long flags;

	spin_lock_irqsave(&gate->lock, flags);
	/* Pairs with the acquire in repl_gate_enter(). */
	smp_store_release(&gate->closed, 0);
	bio_list_merge(parked, &gate->parked);
	bio_list_init(&gate->parked);
	spin_unlock_irqrestore(&gate->lock, flags);
}

/**
 * repl_gate_park() - wait for the gate to open
 * @gate: gate
 * @bio: bio that repl_gate_enter() refused
 *
 * Context: any.
 * Return: true if the bio is parked; false if the gate has been opened in the
 * meantime: call repl_gate_enter() again.
 */
bool repl_gate_park(struct repl_gate *gate, struct bio *bio)
{
	unsigned long flags;
	bool closed;

	spin_lock_irqsave(&gate->lock, flags);
	closed = gate->closed;
	if (closed)
		bio_list_add(&gate->parked, bio);
	spin_unlock_irqrestore(&gate->lock, flags);
	return closed;
}

/**
 * repl_gate_hold_back() - put a bio outside, to be mapped at the next opening
 * @gate: gate
 * @bio: bio that is counted
 *
 * For a bio that can only go on in another stage. The caller makes sure that
 * the gate will be closed and opened again.
 *
 * Context: any.
 */
void repl_gate_hold_back(struct repl_gate *gate, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&gate->lock, flags);
	bio_list_add(&gate->parked, bio);
	spin_unlock_irqrestore(&gate->lock, flags);
	repl_gate_put(gate);
}

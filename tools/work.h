/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work: what must not block the daemon's loop is done in a child, and the loop hears
 * of its end. There are two kinds: hooks, each a command in a child of its own, and
 * workers, each a child that lasts and does one operation after the other. A child
 * dies with the daemon; what the kernel does for a worker then ends first, for a daemon
 * that follows waits for the resource's lock, which the worker shares (see session.h).
 */
#ifndef REPLCTL_WORK_H
#define REPLCTL_WORK_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "error.h"

struct repl_work;
struct repl_worker;

/* @error: how it went wrong, if @good is false. The work is freed afterwards. */
typedef void (*work_done_fn)(bool good, const struct repl_error *error, void *context);

/**
 * typedef worker_fn - one operation, in the worker
 * @arg: as given to worker_new()
 * @what: which operation
 * @id: a number for it
 * @value: out: for worker_value(); 0 if it is not set
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
typedef int (*worker_fn)(void *arg, unsigned int what, uint64_t id, uint64_t *value,
			 struct repl_error *error);

/**
 * worker_new() - a worker; its process begins with the first operation
 * @event: loop
 * @fn: what it runs
 * @arg: for @fn; the process has a copy of all memory, as it was when it began
 * @lock: descriptor that the process shares until it ends. All others but its standard
 *	ones and devices are closed: the next daemon must be able to listen and to lock
 *	other resources while it is stuck, and a peer must see at once that we died
 *
 * Return: worker, or NULL without memory.
 */
struct repl_worker *worker_new(sd_event *event, worker_fn fn, void *arg, int lock);

/**
 * worker_call() - have an operation done
 * @worker: worker that has nothing to do
 * @what: for its function
 * @id: for its function
 * @done: called from the loop, once; badly also if the process died meanwhile
 * @context: for @done
 * @error: filled in on -1
 *
 * Return: 0, or -1 and nothing was begun: it can be tried again soon.
 */
int worker_call(struct repl_worker *worker, unsigned int what, uint64_t id,
		work_done_fn done, void *context, struct repl_error *error);

/**
 * worker_value() - what the last operation left
 * @worker: worker
 *
 * Return: its @value; 0 if the process has died.
 */
uint64_t worker_value(const struct repl_worker *worker);

/**
 * worker_renew() - memory has changed: the next operation is to see it
 * @worker: worker; an operation under way ends first, and does not see it
 */
void worker_renew(struct repl_worker *worker);

/**
 * worker_free() - end its process
 * @worker: worker or NULL. If it has nothing to do its process has ended, and shares
 *	the lock no more, when this returns; else it is killed, and not waited for
 */
void worker_free(struct repl_worker *worker);

/**
 * work_hook() - run a command of the user's, by /bin/sh -c
 * @event: loop
 * @what: its name for errors: "save hook"
 * @command: command
 * @env: NULL or "NAME=value" strings, NULL at the end, added to the environment
 * @in: its stdin, or -1 for none
 * @out: its stdout, or -1 for our stderr
 * @timeout: ms until it is killed, with all that it started; 0: none
 * @done: called from the loop, once: good if it exited with 0
 * @context: for @done
 * @work: out: for work_cancel(); may be NULL
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int work_hook(sd_event *event, const char *what, const char *command,
	      char *const env[], int in, int out, uint64_t timeout, work_done_fn done,
	      void *context, struct repl_work **work, struct repl_error *error);

/**
 * work_cancel() - kill it; @done is called when it is dead
 * @work: work that is under way
 */
void work_cancel(struct repl_work *work);

#endif

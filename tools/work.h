/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work: what must not block the daemon's loop is done in a child, and the loop hears
 * of its end. A child dies with the daemon; what the kernel does for it then ends
 * first, for a daemon that follows waits for the resource's lock, which the child that
 * works on it shares (see session.h).
 */
#ifndef REPLCTL_WORK_H
#define REPLCTL_WORK_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "error.h"

struct repl_work;

/* @error: how it went wrong, if @good is false. The work is freed afterwards. */
typedef void (*work_done_fn)(bool good, const struct repl_error *error, void *context);

/**
 * work_call() - run a function in a child
 * @event: loop
 * @fn: returns 0 or -1 with the error
 * @arg: its argument; the child has a copy of all memory
 * @lock: descriptor that the child shares until it ends. All others but its standard
 *	ones and devices are closed: the next daemon must be able to listen and to lock
 *	other resources while a child is stuck, and a peer must see at once that we died
 * @done: called from the loop, once
 * @context: for @done
 * @error: filled in on -1
 *
 * Return: 0 or -1.
 */
int work_call(sd_event *event, int (*fn)(void *arg, struct repl_error *error),
	      void *arg, int lock, work_done_fn done, void *context,
	      struct repl_error *error);

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

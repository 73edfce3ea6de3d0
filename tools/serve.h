/* SPDX-License-Identifier: GPL-2.0-only */
/* The daemon: see serve.c. */
#ifndef REPLCTL_SERVE_H
#define REPLCTL_SERVE_H

#include "error.h"

/**
 * serve() - be the daemon, until SIGTERM
 * @names: resources, or paths of their files; with none all *.conf of the
 *	configuration's folder, also those that come later
 * @nr: how many
 * @error: filled in on -1
 *
 * What is wrong with one resource is said, and does not stop the others; but if there is
 * one name only, it has to begin.
 *
 * Return: 0 after SIGTERM or SIGINT, -1 if it could not begin.
 */
int serve(char *const names[], unsigned int nr, struct repl_error *error);

#endif

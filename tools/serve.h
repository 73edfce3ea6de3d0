/* SPDX-License-Identifier: GPL-2.0-only */
/* The daemon: see serve.c. */
#ifndef REPLCTL_SERVE_H
#define REPLCTL_SERVE_H

#include "config.h"

/**
 * serve() - be the daemon of one resource, until SIGTERM
 * @config: configuration
 * @here: index of this host
 * @error: filled in on -1
 *
 * Return: 0 after SIGTERM or SIGINT, -1 if it could not begin.
 */
int serve(const struct repl_config *config, unsigned int here, struct repl_error *error);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/* Log: the daemon's lines, on its standard error; the journal gets priorities. */
#ifndef REPLCTL_LOG_H
#define REPLCTL_LOG_H

#include "error.h"

/**
 * log_say() - one line
 * @level: of syslog(3): 3 error, 4 warning, 5 notice, 6 information
 * @resource: which one it is about, or NULL
 * @fmt: words, without a newline
 */
void log_say(int level, const char *resource, const char *fmt, ...) printf_like(3, 4);

#endif

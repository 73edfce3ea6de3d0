/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Error: what went wrong, in words for a person, and the exit status that
 * replctl ends with. Functions that can fail take one and return 0 or
 * -1; on -1 it is filled in. NULL is fine for who does not want to know.
 */
#ifndef REPLCTL_ERROR_H
#define REPLCTL_ERROR_H

#include <stdarg.h>

enum repl_exit {
	REPL_EXIT_OK = 0,
	REPL_EXIT_FAILED = 1,
	REPL_EXIT_USAGE = 2,
	REPL_EXIT_PEER = 3,		/* peer unreachable */
	REPL_EXIT_REFUSED = 4,		/* for safety */
	REPL_EXIT_TIMEOUT = 5,
	REPL_EXIT_DIFFER = 6,
	REPL_EXIT_CONFIG = 10,
};

struct repl_error {
	enum repl_exit exit;
	char text[512];			/* one line, no newline, no secrets */
};

#define printf_like(f, a) __attribute__((format(printf, f, a)))

/**
 * error_set() - say what went wrong
 * @error: where, or NULL
 * @exit: exit status
 * @fmt: one line, no newline
 *
 * Return: -1, so that a caller can return it.
 */
int error_set(struct repl_error *error, enum repl_exit exit, const char *fmt, ...)
	printf_like(3, 4);

/**
 * error_wrap() - put words before what is there already
 * @error: error that is set, or NULL
 * @fmt: for example "volume data"; ": " is added
 *
 * Return: -1.
 */
int error_wrap(struct repl_error *error, const char *fmt, ...) printf_like(2, 3);

#endif

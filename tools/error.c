// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "error.h"

int error_set(struct repl_error *error, enum repl_exit exit, const char *fmt, ...)
{
	va_list args;

	if (!error)
		return -1;
	error->exit = exit;
	va_start(args, fmt);
	vsnprintf(error->text, sizeof(error->text), fmt, args);
	va_end(args);
	return -1;
}

int error_wrap(struct repl_error *error, const char *fmt, ...)
{
	char was[sizeof(error->text)];
	va_list args;
	size_t at;

	if (!error)
		return -1;
	strcpy(was, error->text);
	va_start(args, fmt);
	vsnprintf(error->text, sizeof(error->text), fmt, args);
	va_end(args);
	at = strlen(error->text);
	snprintf(error->text + at, sizeof(error->text) - at, ": %s", was);
	return -1;
}

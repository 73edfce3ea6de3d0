// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

static unsigned int failures;
static char where[128];
static void (*clean_ups[16])(void);
static unsigned int nr_clean_ups;

static void line(bool good, const char *fmt, va_list ap, const char *more)
{
	if (!good)
		failures++;
	printf("%sok - %s%s", good ? "" : "not ", where, where[0] ? ": " : "");
	vprintf(fmt, ap);
	printf("%s\n", more);
	fflush(stdout);
}

bool ok(bool good, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line(good, fmt, ap, "");
	va_end(ap);
	return good;
}

static const char *errno_name(int err)
{
	return err ? strerrorname_np(err) ?: "an unknown errno" : "success";
}

bool ok_errno(int got, int want, const char *fmt, ...)
{
	char more[128] = "";
	va_list ap;

	if (got != want)
		snprintf(more, sizeof(more), " (%s, expected %s)",
			 errno_name(got), errno_name(want));
	va_start(ap, fmt);
	line(got == want, fmt, ap, more);
	va_end(ap);
	return got == want;
}

bool ok_u64(uint64_t got, uint64_t want, const char *fmt, ...)
{
	char more[128] = "";
	va_list ap;

	if (got != want)
		snprintf(more, sizeof(more), " (%llu, expected %llu)",
			 (unsigned long long)got, (unsigned long long)want);
	va_start(ap, fmt);
	line(got == want, fmt, ap, more);
	va_end(ap);
	return got == want;
}

bool ok_str(const char *got, const char *want, const char *fmt, ...)
{
	bool good = !strcmp(got, want);
	char more[1024] = "";
	va_list ap;

	if (!good)
		snprintf(more, sizeof(more), " ('%.400s', expected '%.400s')", got, want);
	va_start(ap, fmt);
	line(good, fmt, ap, more);
	va_end(ap);
	return good;
}

void skipped(const char *why, const char *fmt, ...)
{
	char more[256];
	va_list ap;

	snprintf(more, sizeof(more), " # SKIP %s", why);
	va_start(ap, fmt);
	line(true, fmt, ap, more);
	va_end(ap);
}

void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("# ");
	vprintf(fmt, ap);
	printf("\n");
	fflush(stdout);
	va_end(ap);
}

void section(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(where, sizeof(where), fmt, ap);
	va_end(ap);
}

void at_end(void (*clean_up)(void))
{
	if (nr_clean_ups == sizeof(clean_ups) / sizeof(clean_ups[0]))
		abort();
	clean_ups[nr_clean_ups++] = clean_up;
}

static void clean(void)
{
	while (nr_clean_ups)
		clean_ups[--nr_clean_ups]();
}

void give_up(const char *fmt, ...)
{
	char more[64];
	va_list ap;

	snprintf(more, sizeof(more), " (%s); giving up", errno_name(errno));
	va_start(ap, fmt);
	line(false, fmt, ap, more);
	va_end(ap);
	clean();
	exit(1);
}

static void expired(int sig)
{
	static const char text[] = "not ok - the suite's watchdog expired after: ";

	(void)sig;
	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 ||
	    write(STDOUT_FILENO, where, strlen(where)) < 0 ||
	    write(STDOUT_FILENO, "\n", 1) < 0)
		_exit(3);
	_exit(2);
}

unsigned int patience_of(unsigned int seconds)
{
	const char *kernel = getenv("REPL_KERNEL");

	/* With KASAN and lockdep, and without KVM, it is as much slower. */
	return kernel && !strcmp(kernel, "debug") ? seconds * 5 / 2 : seconds;
}

void watchdog(unsigned int seconds)
{
	signal(SIGALRM, expired);
	alarm(patience_of(seconds));
}

unsigned int tap_failures(void)
{
	return failures;
}

int tap_end(void)
{
	where[0] = 0;
	clean();
	return failures != 0;
}

uint64_t rnd(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

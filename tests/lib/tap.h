/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every suite prints: a line "ok - ..." or "not ok - ..." per check.
 *
 * A check that the suite cannot go on without is a need(): when it fails, the
 * clean-up of the suite runs and the program ends.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdbool.h>
#include <stdint.h>

#define printf_like(f, a) __attribute__((format(printf, f, a)))

/* Prints the line of one check; returns @good. */
bool ok(bool good, const char *fmt, ...) printf_like(2, 3);

/* @got and @want are errno values, 0 for success. */
bool ok_errno(int got, int want, const char *fmt, ...) printf_like(3, 4);

bool ok_u64(uint64_t got, uint64_t want, const char *fmt, ...) printf_like(3, 4);
bool ok_str(const char *got, const char *want, const char *fmt, ...) printf_like(3, 4);

/* A check that cannot be made here. */
void skipped(const char *why, const char *fmt, ...) printf_like(2, 3);

/* A line "# ..." for who reads the output of a failure. */
void note(const char *fmt, ...) printf_like(1, 2);

/*
 * need(good, fmt, ...) ends the program, as a failure that also shows errno,
 * when @good is false; else it prints nothing.
 */
#define need(good, ...) ((good) ? (void)0 : give_up(__VA_ARGS__))
void give_up(const char *fmt, ...) printf_like(1, 2) __attribute__((noreturn));

/* @what: for a later failure to say where it was; part of every line. */
void section(const char *fmt, ...) printf_like(1, 2);

/* Runs before the program ends, last one first; also when need() ends it. */
void at_end(void (*clean_up)(void));

/* How long to wait here for what takes @seconds at most on a stock kernel. */
unsigned int patience_of(unsigned int seconds);

/* No suite hangs: after @seconds the program ends as a failure. */
void watchdog(unsigned int seconds);

unsigned int tap_failures(void);

/* Cleans up; returns the program's exit status. */
int tap_end(void);

/* Seeded numbers (splitmix64), the same everywhere. */
uint64_t rnd(uint64_t *seed);
static inline uint64_t rnd_below(uint64_t *seed, uint64_t n)
{
	return rnd(seed) % n;
}

#endif

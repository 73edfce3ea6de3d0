/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs of this folder share on top of tests/lib. */
#ifndef TESTS_MODEL_RIG_H
#define TESTS_MODEL_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repl.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define min(a, b) ({ __auto_type a_ = (a); __auto_type b_ = (b); a_ < b_ ? a_ : b_; })
#define max(a, b) ({ __auto_type a_ = (a); __auto_type b_ = (b); a_ > b_ ? a_ : b_; })

/* 0 .. n - 1; 0 if n is 0 */
static inline u64 pick(u64 *seed, u64 n)
{
	return n ? rnd_below(seed, n) : 0;
}

/* Seconds, monotonic. */
double now(void);
/* Waits until @done(@arg), looking every millisecond. False after @seconds. */
bool wait_for(bool (*done)(void *arg), void *arg, double seconds);

/*
 * Ends the program with "not ok" when nobody called progress() for @seconds.
 * @explain (may be NULL) prints who hangs.
 */
void watch_progress(unsigned int seconds, void (*explain)(void));
void progress(void);

/* A copy of dm_path() that stays. */
char *path_of(const char *name);

/* In huge pages: only then can one bio be larger than 1 MiB. */
void *big_alloc(size_t bytes);

/* Steps as scaled by $REPL_STEPS: a factor such as 10 or 0.5. */
u64 scaled(u64 steps);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Units: numbers with their unit, as people write them. All of them refuse
 * signs, blanks, fractions and what does not fit; they set REPL_EXIT_CONFIG.
 */
#ifndef REPLCTL_UNITS_H
#define REPLCTL_UNITS_H

#include <stdint.h>

#include "error.h"

/* A year: it fits everybody's clock, in microseconds too. */
#define DURATION_MAX_MS (365ULL * 24 * 3600 * 1000)

/**
 * number_parse() - decimal number
 * @text: digits only
 * @min: smallest that is good
 * @max: largest that is good
 * @number: the result
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Return: 0, or -1.
 */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *number,
		 struct repl_error *error);

/**
 * duration_parse() - "500ms", "10s", "5m", "1h", or "0"
 * @text: a unit is needed, except for 0
 * @ms: the result in milliseconds, at most DURATION_MAX_MS
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Return: 0, or -1.
 */
int duration_parse(const char *text, uint64_t *ms, struct repl_error *error);

/**
 * size_parse() - "64KiB", "1GiB", or bytes without a unit
 * @text: units: KiB, MiB, GiB, TiB
 * @bytes: the result, at most INT64_MAX
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Return: 0, or -1.
 */
int size_parse(const char *text, uint64_t *bytes, struct repl_error *error);

/* What the module takes: 2^32 - 1 KiB. */
#define RATE_MAX (UINT32_MAX * 1024ULL)

/**
 * rate_parse() - "10MiB" or "10MiB/s", of a second, or "unlimited"
 * @text: units as of a size
 * @bytes: the result, in whole KiB, rounded up; at most RATE_MAX; 0: unlimited
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Return: 0, or -1.
 */
int rate_parse(const char *text, uint64_t *bytes, struct repl_error *error);

#define UUID_SIZE 16

/**
 * uuid_parse() - 36 characters, like 0b3c9a52-9d4e-4d1c-8f4e-2a6d1f0c7b35
 * @text: nothing but that
 * @uuid: the result, in the order of @text
 *
 * Return: 0, or -1.
 */
int uuid_parse(const char *text, uint8_t uuid[UUID_SIZE]);
void uuid_format(const uint8_t uuid[UUID_SIZE], char text[2 * UUID_SIZE + 5]);

#endif

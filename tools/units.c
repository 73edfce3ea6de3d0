// SPDX-License-Identifier: GPL-2.0-only
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "units.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/*
 * Digits, and where they end. A number that does not fit saturates, so that
 * the range check that follows refuses it in its own words.
 */
static bool scan(const char *text, const char **end, uint64_t *number)
{
	uint64_t value = 0;
	const char *p;

	for (p = text; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, *p - '0', &value)) {
			p += strspn(p, "0123456789");
			value = UINT64_MAX;
			break;
		}
	*end = p;
	*number = value;
	return p > text;
}

/* Scale by the unit that @name is; false if it is none of them. */
static bool scale(const struct unit *unit, const char *name, uint64_t *number)
{
	for (; unit->name; unit++)
		if (!strcmp(unit->name, name)) {
			if (__builtin_mul_overflow(*number, unit->factor, number))
				*number = UINT64_MAX;
			return true;
		}
	return false;
}

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *number,
		 struct repl_error *error)
{
	const char *end;

	if (!scan(text, &end, number) || *end)
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is not a number", text);
	if (*number < min || *number > max)
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is not from %ju to %ju", text,
				 (uintmax_t)min, (uintmax_t)max);
	return 0;
}

int duration_parse(const char *text, uint64_t *ms, struct repl_error *error)
{
	static const struct unit units[] = {
		{ "ms", 1 },
		{ "s", 1000 },
		{ "m", 60 * 1000 },
		{ "h", 3600 * 1000 },
		{ NULL, 0 },
	};
	const char *end;

	if (!scan(text, &end, ms) || (!scale(units, end, ms) && (*end || *ms)))
		return error_set(error, REPL_EXIT_CONFIG,
				 "\"%s\" is not a duration, like 500ms, 10s, 5m or 1h", text);
	if (*ms > DURATION_MAX_MS)
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is more than a year", text);
	return 0;
}

int size_parse(const char *text, uint64_t *bytes, struct repl_error *error)
{
	static const struct unit units[] = {
		{ "", 1 },
		{ "KiB", 1ULL << 10 },
		{ "MiB", 1ULL << 20 },
		{ "GiB", 1ULL << 30 },
		{ "TiB", 1ULL << 40 },
		{ NULL, 0 },
	};
	const char *end;

	if (!scan(text, &end, bytes) || !scale(units, end, bytes))
		return error_set(error, REPL_EXIT_CONFIG,
				 "\"%s\" is not a size, like 65536, 64KiB, 16MiB, 1GiB or 1TiB",
				 text);
	if (*bytes > INT64_MAX)
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is too large", text);
	return 0;
}

int rate_parse(const char *text, uint64_t *bytes, struct repl_error *error)
{
	size_t length = strlen(text);
	char size[32] = "";

	*bytes = 0;
	if (!strcmp(text, "unlimited"))
		return 0;
	if (length > 2 && !strcmp(text + length - 2, "/s"))
		length -= 2;
	if (length < sizeof(size))
		memcpy(size, text, length);
	if (size_parse(size, bytes, NULL))
		return error_set(error, REPL_EXIT_CONFIG,
				 "\"%s\" is not a rate, like 512KiB/s, 10MiB/s or unlimited", text);
	if (*bytes > RATE_MAX)
		return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is too large", text);
	*bytes = (*bytes + 1023) / 1024 * 1024;
	return 0;
}

int uuid_parse(const char *text, uint8_t uuid[UUID_SIZE])
{
	unsigned int i, at = 0;

	for (i = 0; i < UUID_SIZE; i++) {
		char pair[3] = "";

		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (text[at] != '-' || !text[++at])
				return -1;
		memcpy(pair, text + at, strnlen(text + at, 2));
		if (strspn(pair, "0123456789abcdefABCDEF") != 2)
			return -1;
		uuid[i] = strtoul(pair, NULL, 16);
		at += 2;
	}
	return text[at] ? -1 : 0;
}

/**
 * uuid_format() - the same, the other way round
 * @uuid: bytes
 * @text: out: 37 bytes, lower case
 */
void uuid_format(const uint8_t uuid[UUID_SIZE], char text[2 * UUID_SIZE + 5])
{
	for (unsigned int i = 0; i < UUID_SIZE; i++)
		text += sprintf(text, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
				uuid[i]);
}

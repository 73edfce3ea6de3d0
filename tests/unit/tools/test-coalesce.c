// SPDX-License-Identifier: GPL-2.0-only
/* Coalesce: nothing is missing, it is exact up to half of what is allowed, and no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coalesce.h"

#define SECTORS 4096u

static uint8_t in[SECTORS], out[SECTORS];
static unsigned int nr_out;
static uint64_t end_out;

static void take(const struct repl_range *range)
{
	assert_true(range->sectors);
	assert_true(range->sector >= end_out);
	end_out = range->sector + range->sectors;
	assert_true(end_out <= SECTORS);
	memset(out + range->sector, 1, range->sectors);
	nr_out++;
}

/* What is set in @in goes through. */
static unsigned int run(unsigned int max)
{
	struct repl_range range;
	struct coalesce c;
	unsigned int nr = 0;

	memset(out, 0, sizeof(out));
	nr_out = 0;
	end_out = 0;
	coalesce_init(&c, SECTORS, max);
	for (unsigned int at = 0, end; at < SECTORS; at = end + 1) {
		for (end = at; end < SECTORS && in[end];)
			end++;
		if (end == at)
			continue;
		nr++;
		if (coalesce_add(&c, &(struct repl_range){ at, end - at }, &range))
			take(&range);
	}
	if (coalesce_end(&c, &range))
		take(&range);
	assert_false(coalesce_end(&c, &range));
	for (unsigned int i = 0; i < SECTORS; i++)
		assert_true(out[i] >= in[i]);
	assert_true(nr_out <= max);
	return nr;
}

static void none(void **state)
{
	memset(in, 0, sizeof(in));
	run(4);
	assert_int_equal(nr_out, 0);
}

static void at_random(void **state)
{
	srand(1);
	for (unsigned int i = 0; i < 20000; i++) {
		unsigned int max = 4 + rand() % 100, nr = rand() % 200, exact;

		memset(in, 0, sizeof(in));
		while (nr--) {
			/* All over it, or at one of its ends. */
			unsigned int from = i % 3 == 1 ? SECTORS - 400 : 0;
			unsigned int at = from + rand() % (i % 3 ? 400 : SECTORS);
			unsigned int len = 1 + rand() % 8;

			memset(in + at, 1, at + len > SECTORS ? SECTORS - at : len);
		}
		exact = run(max);
		if (exact <= max / 2) {
			assert_int_equal(nr_out, exact);
			assert_memory_equal(in, out, SECTORS);
		}
	}
}

/* As many as there can be. */
static void every_second(void **state)
{
	for (unsigned int i = 0; i < SECTORS; i++)
		in[i] = i % 2;
	for (unsigned int max = 4; max < SECTORS; max++)
		run(max);
}

/* Ranges that touch are one. */
static void neighbours(void **state)
{
	struct repl_range range;
	struct coalesce c;

	coalesce_init(&c, SECTORS, 4);
	assert_false(coalesce_add(&c, &(struct repl_range){ 8, 8 }, &range));
	assert_false(coalesce_add(&c, &(struct repl_range){ 16, 8 }, &range));
	assert_true(coalesce_add(&c, &(struct repl_range){ 25, 1 }, &range));
	assert_int_equal(range.sector, 8);
	assert_int_equal(range.sectors, 16);
	assert_true(coalesce_end(&c, &range));
	assert_int_equal(range.sector, 25);
	assert_int_equal(range.sectors, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(none),
		cmocka_unit_test(at_random),
		cmocka_unit_test(every_second),
		cmocka_unit_test(neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The data leg without devices: nbdkit is a script of the test's own.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"
#include "dataleg.h"

static char dir[] = "/tmp/test-dataleg-XXXXXX";
static struct repl_config config;
static struct repl_resource resource = { .config = &config, .here = 1 };

static void program(const char *name, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int setup(void **state)
{
	char path[4096];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s:%s", dir, getenv("PATH"));
	setenv("PATH", path, 1);
	setenv("REPLCTL_RUN_DIR", dir, 1);
	config.name = strdup("r0");
	config.volume = calloc(1, sizeof(*config.volume));
	config.volume[0].name = strdup("data");
	return 0;
}

static int teardown(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/nbdkit", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/r0", dir);
	rmdir(path);
	return rmdir(dir);
}

/* It stays when we are gone: a shell's descriptor on the view would keep the view busy. */
static void callers_files(void **state)
{
	struct repl_error error = { };
	int null = open("/dev/null", O_RDONLY);

	program("nbdkit", "#!/bin/sh\n[ ! -e /proc/self/fd/77 ] || { echo 77 is open; exit 1; }\n");
	assert_int_equal(dup2(null, 77), 77);
	if (dataleg_export(&resource, 0, &error))
		fail_msg("%s", error.text);
	assert_int_equal(fcntl(77, F_GETFD), 0);
	close(77);
	close(null);
}

static void its_words(void **state)
{
	struct repl_error error = { };

	program("nbdkit", "#!/bin/sh\necho first >&2; echo the last line >&2; exit 1\n");
	assert_int_equal(dataleg_export(&resource, 0, &error), -1);
	assert_string_equal(error.text, "nbdkit: the last line");
}

/* It leads from whoever is primary now to the other. */
static void whose_import(void **state)
{
	static char path[] = "/dev/nvme0n1";
	struct repl_resource r = resource;

	config.volume[0].on[0].import = path;
	for (r.here = 0; r.here < 2; r.here++) {
		r.role = r.here == 0 ? PAIR_PRIMARY : PAIR_SECONDARY;
		assert_string_equal(dataleg_external(&r, 0), path);
		r.role = r.here == 0 ? PAIR_SECONDARY : PAIR_PRIMARY;
		assert_null(dataleg_external(&r, 0));
	}
	config.volume[0].on[0].import = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(callers_files), cmocka_unit_test(its_words),
		cmocka_unit_test(whose_import),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

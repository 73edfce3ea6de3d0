// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "rig.h"

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

bool wait_for(bool (*done)(void *arg), void *arg, double seconds)
{
	double end = now() + patience_of(seconds);

	while (!done(arg)) {
		if (now() > end)
			return false;
		usleep(1000);
	}
	return true;
}

static unsigned long steps;
static void (*explain_hang)(void);
static unsigned int patience;

void progress(void)
{
	__atomic_add_fetch(&steps, 1, __ATOMIC_RELAXED);
}

static void *watch(void *unused)
{
	unsigned long seen = 0;
	double since = now();
	int fd;

	(void)unused;
	for (;;) {
		unsigned long s = __atomic_load_n(&steps, __ATOMIC_RELAXED);

		if (s != seen) {
			seen = s;
			since = now();
		} else if (now() - since > patience) {
			break;
		}
		usleep(200000);
	}
	printf("not ok - it hangs: nothing happened for %u s\n", patience);
	if (explain_hang)
		explain_hang();
	/* Who sleeps where: into the kernel's log. */
	fd = open("/proc/sysrq-trigger", O_WRONLY);
	if (fd < 0 || write(fd, "w", 1) != 1)
		printf("# no sysrq\n");
	fflush(stdout);
	_exit(2);
}

void watch_progress(unsigned int seconds, void (*explain)(void))
{
	pthread_t t;

	patience = patience_of(seconds);
	explain_hang = explain;
	need(!pthread_create(&t, NULL, watch, NULL), "a thread starts");
	pthread_detach(t);
}

char *path_of(const char *name)
{
	struct stat st;
	char *path = strdup(dm_path(name));

	need(path && !stat(path, &st) && S_ISBLK(st.st_mode), "%s is a block device", name);
	return path;
}

void *big_alloc(size_t bytes)
{
	void *p = NULL;

	need(!posix_memalign(&p, 2u << 20, bytes), "there is memory");
	madvise(p, bytes, MADV_HUGEPAGE);
	memset(p, 0, bytes);
	return p;
}

u64 scaled(u64 steps)
{
	const char *factor = getenv("REPL_STEPS");

	return factor ? max((u64)(steps * atof(factor)), 1u) : steps;
}

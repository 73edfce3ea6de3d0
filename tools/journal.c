// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"

int journal_write(const struct repl_resource *resource, uint64_t id, struct repl_error *error)
{
	char path[256], temp[256];
	int fd, r = 0;

	resource_runtime(resource, "journal", path, sizeof(path));
	resource_runtime(resource, "journal.new", temp, sizeof(temp));
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || dprintf(fd, "%llu\n", (unsigned long long)id) <= 0 || rename(temp, path))
		r = error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return r;
}

uint64_t journal_read(const struct repl_resource *resource)
{
	unsigned long long id = 0;
	char path[256];
	FILE *f;

	resource_runtime(resource, "journal", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu", &id) != 1)
		id = 0;
	fclose(f);
	return id;
}

/**
 * journal_clear() - leave no number
 * @resource: resource
 */
void journal_clear(const struct repl_resource *resource)
{
	char path[256];

	resource_runtime(resource, "journal", path, sizeof(path));
	unlink(path);
}

/**
 * journal_mark_held() - hooks hold the workload, or have released it
 * @resource: resource
 * @held: which
 */
void journal_mark_held(const struct repl_resource *resource, bool held)
{
	char path[256];
	int fd;

	resource_runtime(resource, "held", path, sizeof(path));
	if (!held) {
		unlink(path);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
}

/**
 * journal_is_held() - had hooks begun to hold the workload, and not released it?
 * @resource: resource
 *
 * Return: true if so.
 */
bool journal_is_held(const struct repl_resource *resource)
{
	char path[256];

	resource_runtime(resource, "held", path, sizeof(path));
	return !access(path, F_OK);
}

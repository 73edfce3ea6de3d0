// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"

/* The file @name gets one line, at once, or not at all. */
static int write_line(const struct repl_resource *resource, const char *name,
		      const char *line, struct repl_error *error)
{
	char path[256], temp[256], file[64];
	int fd, r = 0;

	snprintf(file, sizeof(file), "%s.new", name);
	resource_runtime(resource, name, path, sizeof(path));
	resource_runtime(resource, file, temp, sizeof(temp));
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || dprintf(fd, "%s\n", line) <= 0 || rename(temp, path))
		r = error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return r;
}

int journal_write(const struct repl_resource *resource, uint64_t id, struct repl_error *error)
{
	char line[32];

	snprintf(line, sizeof(line), "%llu", (unsigned long long)id);
	return write_line(resource, "journal", line, error);
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

int journal_write_peer_boot(const struct repl_resource *resource,
			    const unsigned char boot[FRAME_BOOT_SIZE],
			    struct repl_error *error)
{
	char line[2 * FRAME_BOOT_SIZE + 1];

	for (unsigned int i = 0; i < FRAME_BOOT_SIZE; i++)
		snprintf(line + 2 * i, 3, "%02x", boot[i]);
	return write_line(resource, "peer-boot", line, error);
}

int journal_peer_boot(const struct repl_resource *resource,
		      unsigned char boot[FRAME_BOOT_SIZE])
{
	unsigned int nr = 0;
	char path[256];
	FILE *f;

	resource_runtime(resource, "peer-boot", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (nr < FRAME_BOOT_SIZE && fscanf(f, "%2hhx", &boot[nr]) == 1)
		nr++;
	fclose(f);
	return nr == FRAME_BOOT_SIZE ? 0 : -1;
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

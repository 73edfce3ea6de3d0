// SPDX-License-Identifier: GPL-2.0-only
/*
 * timing: what the benchmark measures with a finer clock than fio's, and
 * without the start of a process in it. Durations are printed in nanoseconds.
 *
 *	timing message DEVICE WORD...	a message's ioctl; then its answer
 *	timing dirty DEVICE REGION COUNT
 *					writes the first COUNT regions (bytes each)
 *	timing failover VIEW SECTOR	the message; until a write of 4 KiB
 *					at SECTOR has been done as well
 *	timing merge VIEW		the message; until its merge has ended
 *	timing push PRIMARY		a push of all regions, until it has ended
 *	timing settle VIEW		waits for the end of the merge
 *	timing mark NUMBER		says NUMBER to the profiler
 *
 * DEVICE, VIEW and PRIMARY are names of device-mapper devices.
 */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define WRITE_MAX	(1 << 20)
#define SMALL		4096

/* Where the profiler looks for marks; see instructions.c. */
#define MARK_ADDRESS	0x5ead00000000

static int control;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static char request[16384];

static struct dm_ioctl *dm(const char *name)
{
	struct dm_ioctl *io = (struct dm_ioctl *)request;

	memset(request, 0, sizeof(request));
	io->version[0] = DM_VERSION_MAJOR;
	io->data_size = sizeof(request);
	io->data_start = sizeof(*io);
	snprintf(io->name, sizeof(io->name), "%s", name);
	return io;
}

static uint64_t message(const char *name, char **words, int nr)
{
	struct dm_ioctl *io = dm(name);
	struct dm_target_msg *msg = (void *)(request + io->data_start);
	size_t room = sizeof(request) - io->data_start - sizeof(*msg);
	uint64_t begin;
	int i;

	for (i = 0; i < nr; i++) {
		if (i)
			strncat(msg->message, " ", room - strlen(msg->message) - 1);
		strncat(msg->message, words[i], room - strlen(msg->message) - 1);
	}
	begin = now();
	if (ioctl(control, DM_TARGET_MSG, io))
		err(1, "message %s to %s", words[0], name);
	return now() - begin;
}

static uint64_t one_word(const char *name, char *word)
{
	return message(name, &word, 1);
}

/* A word of a status line, from 1 on, and the number of events until then. */
static const char *status_word(const char *name, unsigned int nr, uint32_t *event)
{
	struct dm_ioctl *io = dm(name);
	struct dm_target_spec *spec = (void *)(request + io->data_start);
	char *word;

	if (ioctl(control, DM_TABLE_STATUS, io))
		err(1, "status of %s", name);
	*event = io->event_nr;
	for (word = strtok((char *)(spec + 1), " "); word && --nr;)
		word = strtok(NULL, " ");
	if (!word)
		errx(1, "the status of %s is too short", name);
	return word;
}

static void wait_event(const char *name, uint32_t event)
{
	struct dm_ioctl *io = dm(name);

	io->event_nr = event;
	if (ioctl(control, DM_DEV_WAIT, io) && errno != EINTR)
		err(1, "waiting for %s", name);
}

static void settle(const char *name)
{
	uint32_t event;
	const char *where;

	while (!strcmp(where = status_word(name, 2, &event), "failover"))
		wait_event(name, event);
	if (strcmp(where, "done"))
		errx(1, "%s is in stage %s after the merge", name, where);
}

static int device(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static void *buffer(size_t size)
{
	void *memory;

	if (posix_memalign(&memory, SMALL, size))
		errx(1, "out of memory");
	memset(memory, 0x5a, size);
	return memory;
}

static void put(int fd, void *data, size_t size, uint64_t offset)
{
	ssize_t n = pwrite(fd, data, size, offset);

	if (n != (ssize_t)size)
		err(1, "write of %zu bytes at %" PRIu64, size, offset);
}

static void dirty(const char *name, uint64_t region, uint64_t count)
{
	uint64_t size = region * count, offset = 0;
	void *data = buffer(WRITE_MAX);
	int fd = device(name);

	while (offset < size) {
		uint64_t n = size - offset < WRITE_MAX ? size - offset : WRITE_MAX;

		put(fd, data, n, offset);
		offset += n;
	}
}

static void failover(const char *name, uint64_t sector)
{
	void *data = buffer(SMALL);
	int fd = device(name);
	uint64_t begin = now(), told, wrote;

	told = one_word(name, "failover");
	put(fd, data, SMALL, sector * 512);
	wrote = now() - begin;
	printf("%" PRIu64 " %" PRIu64 "\n", told, wrote);
}

static void merge(const char *name)
{
	uint64_t begin = now();

	one_word(name, "failover");
	settle(name);
	printf("%" PRIu64 "\n", now() - begin);
}

static void push(const char *name)
{
	char *words[] = { (char *)"push", (char *)"full" };
	uint64_t begin = now();
	const char *state;
	uint32_t event;

	message(name, words, 2);
	while (!strcmp(state = status_word(name, 15, &event), "running"))
		wait_event(name, event);
	if (strcmp(state, "done"))
		errx(1, "the push of %s is %s", name, state);
	printf("%" PRIu64 "\n", now() - begin);
}

/* A call of this address is seen by the profiler; nothing else is there. */
static void mark(unsigned int number)
{
	unsigned char *code = mmap((void *)MARK_ADDRESS, 1 << 16,
				   PROT_READ | PROT_WRITE | PROT_EXEC,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (code == MAP_FAILED)
		err(1, "mmap");
	code += (number & 0xff) * 16;
	*code = 0xc3;		/* ret */
	((void (*)(void))code)();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "mark") && argc == 3) {
		mark(strtoul(argv[2], NULL, 0));
		return 0;
	}
	control = open("/dev/mapper/control", O_RDWR);
	if (control < 0)
		err(1, "/dev/mapper/control");

	if (!strcmp(what, "message") && argc >= 4) {
		struct dm_ioctl *io = (struct dm_ioctl *)request;
		uint64_t ns = message(argv[2], argv + 3, argc - 3);

		printf("%" PRIu64 "\n", ns);
		if (io->flags & DM_DATA_OUT_FLAG)
			printf("%s\n", request + io->data_start);
	} else if (!strcmp(what, "dirty") && argc == 5) {
		dirty(argv[2], strtoull(argv[3], NULL, 0),
		      strtoull(argv[4], NULL, 0));
	} else if (!strcmp(what, "failover") && argc == 4) {
		failover(argv[2], strtoull(argv[3], NULL, 0));
	} else if (!strcmp(what, "merge") && argc == 3) {
		merge(argv[2]);
	} else if (!strcmp(what, "push") && argc == 3) {
		push(argv[2]);
	} else if (!strcmp(what, "settle") && argc == 3) {
		settle(argv[2]);
	} else {
		errx(2, "usage: timing message|dirty|failover|merge|push|settle|mark ...");
	}
	return 0;
}

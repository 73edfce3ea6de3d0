// SPDX-License-Identifier: GPL-2.0-only
/*
 * stamp write DEVICE N	every sector says that it is sector s of image N
 * stamp check DEVICE	prints N if the device is image N, all of it and only it
 *
 * Both take FIRST NR at the end: these MiB only.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1 << 20)
#define WORDS 64		/* of a sector */

static void fill(uint64_t *w, uint64_t sector, uint64_t image)
{
	w[0] = 0x504d415453ULL;
	w[1] = sector;
	w[2] = image;
	for (unsigned int i = 3; i < WORDS; i++)
		w[i] = (sector * 0x9e3779b97f4a7c15ULL ^ image) * (2 * i + 1);
}

static int fail(const char *what, uint64_t sector)
{
	printf("%s at sector %llu\n", what, (unsigned long long)sector);
	return 1;
}

static int check(const uint64_t *buf, size_t len, uint64_t sector, uint64_t *image)
{
	uint64_t want[WORDS];

	for (size_t at = 0; at < len / 8; at += WORDS, sector++) {
		if (*image == UINT64_MAX)
			*image = buf[at + 2];
		fill(want, sector, *image);
		if (!memcmp(buf + at, want, sizeof(want)))
			continue;
		printf("sector %llu of image %llu at sector %llu, among image %llu\n",
		       (unsigned long long)buf[at + 1], (unsigned long long)buf[at + 2],
		       (unsigned long long)sector, (unsigned long long)*image);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t *buf, sector = 0, image = UINT64_MAX;
	int write_it = argc > 3 && !strcmp(argv[1], "write");
	int fd = argc > 2 ? open(argv[2], (write_it ? O_RDWR : O_RDONLY) | O_DIRECT) : -1;
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END), at = 0;

	if (size <= 0 || posix_memalign((void **)&buf, 4096, CHUNK))
		return fail("cannot open", 0);
	if (argc > 4) {
		at = atoll(argv[argc - 2]) * CHUNK;
		sector = at / 512;
		if (at + atoll(argv[argc - 1]) * CHUNK < size)
			size = at + atoll(argv[argc - 1]) * CHUNK;
	}
	while (at < size) {
		size_t len = size - at < CHUNK ? size - at : CHUNK;

		if (write_it) {
			for (size_t i = 0; i < len / 512; i++)
				fill(buf + i * WORDS, sector + i, strtoull(argv[3], NULL, 10));
			if (pwrite(fd, buf, len, at) != (ssize_t)len)
				return fail("cannot write", sector);
		} else {
			if (pread(fd, buf, len, at) != (ssize_t)len)
				return fail("cannot read", sector);
			if (check(buf, len, sector, &image))
				return 1;
		}
		at += len;
		sector += len / 512;
	}
	if (write_it)
		return fsync(fd) ? fail("cannot flush", 0) : 0;
	printf("%llu\n", (unsigned long long)image);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * O_DIRECT I/O with exact compares. Offsets and lengths are bytes. Functions
 * that return int return 0 or a positive errno; a short read or write is EIO's
 * neighbour ENODATA, never success.
 */
#ifndef TESTS_IO_H
#define TESTS_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u
#define KIB 1024u
#define MIB (1024u * 1024u)

/* Opens a block device O_RDWR | O_DIRECT; anything else ends the program. */
int dev_open(const char *path);
/* The same, but through the page cache. */
int dev_open_buffered(const char *path);

/* Page aligned memory; ends the program when there is none. */
void *io_alloc(size_t size);

int io_read(int fd, uint64_t offset, size_t len, void *buf);
int io_write(int fd, uint64_t offset, size_t len, const void *buf);
/* @fd: O_DIRECT; the buffer is the library's own (up to 16 MiB). */
int io_fill(int fd, uint64_t offset, size_t len, uint8_t byte);
int io_flush(int fd);
int io_discard(int fd, uint64_t offset, uint64_t len);
int io_zeroes(int fd, uint64_t offset, uint64_t len);
/* The same, but fails where the device cannot do it by itself. */
int io_zeroes_or_fail(int fd, uint64_t offset, uint64_t len);

/*
 * io_differs: reads and compares. -1: equal; -2: the read failed (errno);
 * else the offset, from @offset, of the first byte that differs.
 */
int64_t io_differs(int fd, uint64_t offset, size_t len, const void *want);
bool ok_content(int fd, uint64_t offset, size_t len, const void *want,
		const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool ok_filled(int fd, uint64_t offset, size_t len, uint8_t byte,
	       const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* The offset of the first difference, or -1. */
int64_t first_difference(const void *a, const void *b, size_t len);

/*
 * Stamps: each 512 bytes hold their own sector number, a tag and a checksum,
 * so that content from another place or another time is told apart.
 */
void stamp(void *buf, uint64_t sector, size_t sectors, uint64_t tag);

/*
 * Several at once: io_submit(2). The requests of one batch are handed over in
 * one call and plugged together.
 */
struct io_req {
	bool write;
	uint64_t offset;
	size_t len;
	void *buf;
	int error;		/* out: 0 or a positive errno */
	bool done;		/* out */
};

struct io_batch;
struct io_batch *io_start(int fd, struct io_req *reqs, unsigned int nr);
/* How many of the batch have come back by now; waits for none. */
unsigned int io_poll(struct io_batch *batch);
void io_wait(struct io_batch *batch);		/* waits for all, frees */

/*
 * Backing devices, undone by backing_remove_all(). Their /dev paths are in
 * static buffers that stay.
 */
const char *brd(unsigned int nr);		/* of those that brd_load made */
void brd_load(unsigned int nr, uint64_t bytes_each);
/* A file without a name under a loop device: has a write cache, can discard. */
const char *loop_make(uint64_t bytes);
uint64_t loop_used(const char *path);	/* bytes that its file takes */
/* null_blk with memory; @cache: has a volatile write cache that a flush empties. */
const char *nullb_make(const char *name, uint64_t bytes, unsigned int block,
		       bool cache, bool discard);
void backing_remove_all(void);

#endif

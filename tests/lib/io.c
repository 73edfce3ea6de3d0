// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"
#include "tap.h"

#define SCRATCH (16 * MIB)

static __thread uint8_t *scratch_mem;

static uint8_t *scratch(size_t len)
{
	need(len <= SCRATCH, "no more than %u MiB at a time", SCRATCH / MIB);
	if (!scratch_mem)
		scratch_mem = io_alloc(SCRATCH);
	return scratch_mem;
}

void *io_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "%zu bytes of memory", size);
	return p;
}

static int open_block(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | flags);
	struct stat st;

	need(fd >= 0, "%s opens", path);
	/* Without a device node a write would make a regular file. */
	need(!fstat(fd, &st) && S_ISBLK(st.st_mode), "%s is a block device", path);
	return fd;
}

int dev_open(const char *path)
{
	return open_block(path, O_DIRECT);
}

int dev_open_buffered(const char *path)
{
	return open_block(path, 0);
}

int io_read(int fd, uint64_t offset, size_t len, void *buf)
{
	ssize_t n = pread(fd, buf, len, offset);

	return n < 0 ? errno : (size_t)n == len ? 0 : ENODATA;
}

int io_write(int fd, uint64_t offset, size_t len, const void *buf)
{
	ssize_t n = pwrite(fd, buf, len, offset);

	return n < 0 ? errno : (size_t)n == len ? 0 : ENODATA;
}

int io_fill(int fd, uint64_t offset, size_t len, uint8_t byte)
{
	uint8_t *p = scratch(len);

	memset(p, byte, len);
	return io_write(fd, offset, len, p);
}

int io_flush(int fd)
{
	return fsync(fd) ? errno : 0;
}

static int range_ioctl(int fd, unsigned long cmd, uint64_t offset, uint64_t len)
{
	uint64_t range[2] = { offset, len };

	return ioctl(fd, cmd, range) ? errno : 0;
}

int io_discard(int fd, uint64_t offset, uint64_t len)
{
	return range_ioctl(fd, BLKDISCARD, offset, len);
}

int io_zeroes(int fd, uint64_t offset, uint64_t len)
{
	return range_ioctl(fd, BLKZEROOUT, offset, len);
}

int io_zeroes_or_fail(int fd, uint64_t offset, uint64_t len)
{
	/* On a block device this zeroes, and never falls back to writing data. */
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len) ?
		errno : 0;
}

int64_t first_difference(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a, *y = b;
	size_t at = 0;

	if (!memcmp(x, y, len))
		return -1;
	while (x[at] == y[at])
		at++;
	return at;
}

int64_t io_differs(int fd, uint64_t offset, size_t len, const void *want)
{
	uint8_t *p = scratch(len);

	/* Nothing that was there before may pass for what was read. */
	memset(p, ~*(const uint8_t *)want, len);
	errno = io_read(fd, offset, len, p);
	if (errno)
		return -2;
	return first_difference(p, want, len);
}

static bool report(int64_t at, uint64_t offset, size_t len, const uint8_t *want,
		   const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	if (at == -1)
		return ok(true, "%s", text);
	if (at == -2)
		return ok(false, "%s (read of %zu at %llu: %s)", text, len,
			  (unsigned long long)offset, strerror(errno));
	return ok(false, "%s (at byte %llu: 0x%02x, expected 0x%02x)", text,
		  (unsigned long long)(offset + at), scratch_mem[at], want[at]);
}

bool ok_content(int fd, uint64_t offset, size_t len, const void *want,
		const char *fmt, ...)
{
	int64_t at = io_differs(fd, offset, len, want);
	va_list ap;
	bool good;

	va_start(ap, fmt);
	good = report(at, offset, len, want, fmt, ap);
	va_end(ap);
	return good;
}

bool ok_filled(int fd, uint64_t offset, size_t len, uint8_t byte,
	       const char *fmt, ...)
{
	static __thread uint8_t *want;
	va_list ap;
	int64_t at;
	bool good;

	if (!want)
		want = io_alloc(SCRATCH);
	need(len <= SCRATCH, "no more than %u MiB at a time", SCRATCH / MIB);
	memset(want, byte, len);
	at = io_differs(fd, offset, len, want);
	va_start(ap, fmt);
	good = report(at, offset, len, want, fmt, ap);
	va_end(ap);
	return good;
}

void stamp(void *buf, uint64_t sector, size_t sectors, uint64_t tag)
{
	uint64_t *w = buf;

	for (; sectors--; sector++) {
		uint64_t seed = sector * 0x100000001b3ULL ^ tag;

		w[0] = sector;
		w[1] = tag;
		for (unsigned int i = 2; i < SECTOR / 8; i++)
			w[i] = rnd(&seed);
		w += SECTOR / 8;
	}
}

/*
 * Batches
 */

struct io_batch {
	aio_context_t ctx;
	unsigned int nr, done;
	struct iocb *iocbs;
	struct io_req *reqs;
};

struct io_batch *io_start(int fd, struct io_req *reqs, unsigned int nr)
{
	struct io_batch *b = calloc(1, sizeof(*b));
	struct iocb **list = calloc(nr, sizeof(*list));
	unsigned int sent = 0;

	need(b && list, "memory for a batch");
	b->nr = nr;
	b->reqs = reqs;
	b->iocbs = calloc(nr, sizeof(*b->iocbs));
	need(b->iocbs, "memory for a batch");
	need(!syscall(SYS_io_setup, nr, &b->ctx), "io_setup");
	for (unsigned int i = 0; i < nr; i++) {
		struct iocb *cb = &b->iocbs[i];

		reqs[i].done = false;
		reqs[i].error = 0;
		cb->aio_data = i;
		cb->aio_lio_opcode = reqs[i].write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		cb->aio_fildes = fd;
		cb->aio_buf = (uintptr_t)reqs[i].buf;
		cb->aio_nbytes = reqs[i].len;
		cb->aio_offset = reqs[i].offset;
		list[i] = cb;
	}
	while (sent < nr) {
		long n = syscall(SYS_io_submit, b->ctx, nr - sent, list + sent);

		need(n > 0, "io_submit");
		sent += n;
	}
	free(list);
	return b;
}

static void reap(struct io_batch *b, unsigned int at_least, struct timespec *timeout)
{
	struct io_event events[64];

	for (;;) {
		long n = syscall(SYS_io_getevents, b->ctx, at_least, 64, events, timeout);

		if (n < 0 && errno == EINTR)
			continue;
		need(n >= 0, "io_getevents");
		for (long i = 0; i < n; i++) {
			struct io_req *req = &b->reqs[events[i].data];

			req->done = true;
			if (events[i].res < 0)
				req->error = -events[i].res;
			else if ((uint64_t)events[i].res != req->len)
				req->error = ENODATA;
		}
		b->done += n;
		return;
	}
}

unsigned int io_poll(struct io_batch *b)
{
	struct timespec now = { 0 };

	reap(b, 0, &now);
	return b->done;
}

void io_wait(struct io_batch *b)
{
	while (b->done < b->nr)
		reap(b, 1, NULL);
	syscall(SYS_io_destroy, b->ctx);
	free(b->iocbs);
	free(b);
}

/*
 * Backing devices
 */

static bool brd_loaded;
static char brd_path[32][16];
static char loop_path[16][24];
static int loop_file[16];
static unsigned int nr_loops;
static char nullb_name[16][32], nullb_path[16][48];
static unsigned int nr_nullbs;

static void run(const char *command)
{
	need(!system(command), "%s", command);
}

void brd_load(unsigned int nr, uint64_t bytes_each)
{
	char command[128];

	need(nr <= 32, "no more than 32 ram disks");
	snprintf(command, sizeof(command), "modprobe brd rd_nr=%u rd_size=%llu max_part=0",
		 nr, (unsigned long long)bytes_each / KIB);
	run(command);
	brd_loaded = true;
	for (unsigned int i = 0; i < nr; i++) {
		int fd;
		uint64_t size;

		snprintf(brd_path[i], sizeof(brd_path[i]), "/dev/ram%u", i);
		fd = dev_open(brd_path[i]);
		need(!ioctl(fd, BLKGETSIZE64, &size) && size == bytes_each,
		     "ram disk %u has the size that was asked for", i);
		close(fd);
	}
}

const char *brd(unsigned int nr)
{
	need(nr < 32 && brd_path[nr][0], "there is a ram disk %u", nr);
	return brd_path[nr];
}

const char *loop_make(uint64_t bytes)
{
	struct loop_config config = { .block_size = SECTOR };
	int control, fd, file, nr;

	run("modprobe -q loop");
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	need(control >= 0, "/dev/loop-control opens");
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	need(nr >= 0 && nr_loops < 16, "a free loop device");
	close(control);
	file = memfd_create("dm-repl-test", MFD_CLOEXEC);
	need(file >= 0 && !ftruncate(file, bytes), "a file in memory");
	snprintf(loop_path[nr_loops], sizeof(loop_path[0]), "/dev/loop%d", nr);
	fd = open(loop_path[nr_loops], O_RDWR | O_CLOEXEC);
	config.fd = file;
	need(fd >= 0 && !ioctl(fd, LOOP_CONFIGURE, &config), "%s is set up",
	     loop_path[nr_loops]);
	close(fd);
	loop_file[nr_loops] = file;
	return loop_path[nr_loops++];
}

uint64_t loop_used(const char *path)
{
	struct stat st;
	unsigned int nr = 0;

	while (nr < nr_loops && strcmp(loop_path[nr], path))
		nr++;
	need(nr < nr_loops && !fstat(loop_file[nr], &st), "%s has a file", path);
	return st.st_blocks * 512ull;
}

static void put(const char *dir, const char *attribute, const char *fmt, ...)
{
	char path[128], text[64];
	va_list ap;
	int fd;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", dir, attribute);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	need(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text),
	     "%s takes %s", path, text);
	close(fd);
}

const char *nullb_make(const char *name, uint64_t bytes, unsigned int block,
		       bool cache, bool discard)
{
	char dir[64];

	if (access("/sys/kernel/config/nullb", F_OK))
		run("modprobe null_blk nr_devices=0");
	need(nr_nullbs < 16, "no more than 16 null_blk devices");
	snprintf(dir, sizeof(dir), "/sys/kernel/config/nullb/%s", name);
	need(!mkdir(dir, 0755), "%s is made", dir);
	snprintf(nullb_name[nr_nullbs], sizeof(nullb_name[0]), "%s", name);
	snprintf(nullb_path[nr_nullbs], sizeof(nullb_path[0]), "/dev/%s", name);
	put(dir, "size", "%llu", (unsigned long long)bytes / MIB);
	put(dir, "blocksize", "%u", block);
	put(dir, "memory_backed", "1");
	if (cache)
		put(dir, "cache_size", "%llu", (unsigned long long)bytes / MIB);
	if (discard)
		put(dir, "discard", "1");
	put(dir, "power", "1");
	return nullb_path[nr_nullbs++];
}

void backing_remove_all(void)
{
	while (nr_loops) {
		int fd = open(loop_path[--nr_loops], O_RDWR | O_CLOEXEC);

		close(loop_file[nr_loops]);
		if (fd < 0 || ioctl(fd, LOOP_CLR_FD))
			ok(false, "%s can be freed", loop_path[nr_loops]);
		close(fd);
	}
	while (nr_nullbs) {
		char dir[64];

		snprintf(dir, sizeof(dir), "/sys/kernel/config/nullb/%s",
			 nullb_name[--nr_nullbs]);
		put(dir, "power", "0");
		if (rmdir(dir))
			ok(false, "%s can be removed", dir);
	}
	if (brd_loaded && system("rmmod brd"))
		ok(false, "brd can be unloaded");
	brd_loaded = false;
}

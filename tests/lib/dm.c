// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dm.h"

#define BUF_SIZE 65536
#define MAX_DEVICES 64

char dm_answer[4096];

static char created[MAX_DEVICES][DM_NAME_LEN];
static unsigned int nr_created;

/* One a thread: a thread may sit in DM_DEV_WAIT while others work. */
static __thread union {
	struct dm_ioctl io;
	char bytes[BUF_SIZE];
} buf;

static int control(void)
{
	static int fd = -1;

	if (fd < 0) {
		fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
		need(fd >= 0, "/dev/mapper/control opens");
	}
	return fd;
}

static struct dm_ioctl *request(const char *name, uint32_t flags)
{
	struct dm_ioctl *io = &buf.io;

	memset(io, 0, sizeof(*io));
	io->version[0] = 4;
	io->data_size = BUF_SIZE;
	io->data_start = sizeof(*io);
	io->flags = flags;
	if (name)
		snprintf(io->name, sizeof(io->name), "%s", name);
	return io;
}

static int submit(unsigned long cmd)
{
	return ioctl(control(), cmd, &buf) < 0 ? errno : 0;
}

static void forget(const char *name)
{
	for (unsigned int i = nr_created; i-- > 0; ) {
		if (strcmp(created[i], name))
			continue;
		nr_created--;
		memmove(created[i], created[i + 1], (nr_created - i) * DM_NAME_LEN);
		return;
	}
}

int dm_create(const char *name)
{
	int err;

	request(name, 0);
	err = submit(DM_DEV_CREATE);
	if (!err) {
		need(nr_created < MAX_DEVICES, "no more than %d devices", MAX_DEVICES);
		strcpy(created[nr_created++], buf.io.name);
	}
	return err;
}

int dm_load(const char *name, const struct dm_seg *segs, unsigned int nr)
{
	struct dm_ioctl *io = request(name, 0);
	char *at = buf.bytes + sizeof(*io);

	io->target_count = nr;
	for (unsigned int i = 0; i < nr; i++) {
		struct dm_target_spec *spec = (void *)at;
		size_t len = strlen(segs[i].params) + 1;
		size_t whole = (sizeof(*spec) + len + 7) & ~(size_t)7;

		need(at + whole <= buf.bytes + BUF_SIZE, "a table fits");
		memset(spec, 0, sizeof(*spec));
		spec->sector_start = segs[i].start;
		spec->length = segs[i].len;
		spec->next = whole;
		snprintf(spec->target_type, sizeof(spec->target_type), "%s", segs[i].type);
		memcpy(at + sizeof(*spec), segs[i].params, len);
		at += whole;
	}
	return submit(DM_TABLE_LOAD);
}

int dm_load_one(const char *name, uint64_t sectors, const char *type,
		const char *fmt, ...)
{
	struct dm_seg seg = { .len = sectors, .type = type };
	char params[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	seg.params = params;
	return dm_load(name, &seg, 1);
}

int dm_clear(const char *name)
{
	request(name, 0);
	return submit(DM_TABLE_CLEAR);
}

int dm_resume(const char *name)
{
	request(name, 0);
	return submit(DM_DEV_SUSPEND);
}

int dm_suspend(const char *name, unsigned int flags)
{
	request(name, DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG |
		(flags & DM_NOFLUSH ? DM_NOFLUSH_FLAG : 0));
	return submit(DM_DEV_SUSPEND);
}

int dm_remove(const char *name)
{
	int err;

	request(name, 0);
	err = submit(DM_DEV_REMOVE);
	if (!err)
		forget(name);
	return err;
}

int dm_reload(const char *name, const struct dm_seg *segs, unsigned int nr)
{
	int err = dm_load(name, segs, nr);

	if (err)
		return err;
	err = dm_suspend(name, 0);
	if (err)
		return err;
	return dm_resume(name);
}

int dm_reload_one(const char *name, uint64_t sectors, const char *type,
		  const char *fmt, ...)
{
	struct dm_seg seg = { .len = sectors, .type = type };
	char params[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	seg.params = params;
	return dm_reload(name, &seg, 1);
}

int dm_make(const char *name, uint64_t sectors, const char *type,
	    const char *fmt, ...)
{
	struct dm_seg seg = { .len = sectors, .type = type };
	char params[4096];
	va_list ap;
	int err;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	seg.params = params;

	err = dm_create(name);
	if (err)
		return err;
	err = dm_load(name, &seg, 1);
	if (!err)
		err = dm_resume(name);
	if (err)
		dm_remove(name);
	return err;
}

/* A suite that gives up leaves devices open; they could not be removed. */
static void close_block_devices(void)
{
	struct stat st;

	for (int fd = 3; fd < 1024; fd++)
		if (!fstat(fd, &st) && S_ISBLK(st.st_mode))
			close(fd);
}

void dm_remove_all(void)
{
	char left[MAX_DEVICES][DM_NAME_LEN];
	unsigned int nr = nr_created;

	close_block_devices();
	memcpy(left, created, sizeof(left));
	while (nr-- > 0) {
		int err = dm_remove(left[nr]);

		if (err)
			ok_errno(err, 0, "%s can be removed", left[nr]);
	}
}

int dm_message_text(const char *name, const char *text)
{
	struct dm_ioctl *io = request(name, 0);
	struct dm_target_msg *msg = (void *)(buf.bytes + sizeof(*io));
	int err;

	msg->sector = 0;
	strcpy(msg->message, text);
	io->data_size = BUF_SIZE;
	dm_answer[0] = 0;
	err = submit(DM_TARGET_MSG);
	if (!err && (io->flags & DM_DATA_OUT_FLAG))
		snprintf(dm_answer, sizeof(dm_answer), "%.4000s",
			 buf.bytes + io->data_start);
	return err;
}

int dm_message(const char *name, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return dm_message_text(name, text);
}

int dm_status_to(const char *name, char *out, size_t size, bool table)
{
	struct dm_ioctl *io = request(name, DM_NOFLUSH_FLAG |
				      (table ? DM_STATUS_TABLE_FLAG : 0));
	char *start, *at;
	size_t used = 0;
	int err = submit(DM_TABLE_STATUS);

	out[0] = 0;
	if (err)
		return err;
	start = at = buf.bytes + io->data_start;
	for (unsigned int i = 0; i < io->target_count; i++) {
		struct dm_target_spec *spec = (void *)at;

		used += snprintf(out + used, size - used, "%s%s", i ? "\n" : "",
				 at + sizeof(*spec));
		if (used >= size)
			return ENOSPC;
		at = start + spec->next;
	}
	return 0;
}

static const char *status_or_table(const char *name, bool table)
{
	static char text[2][4096];
	int err = dm_status_to(name, text[table], sizeof(text[table]), table);

	if (err)
		note("%s of %s: %s", table ? "table" : "status", name, strerror(err));
	return text[table];
}

const char *dm_status(const char *name)
{
	return status_or_table(name, false);
}

const char *dm_table(const char *name)
{
	return status_or_table(name, true);
}

static void info(const char *name)
{
	request(name, 0);
	errno = submit(DM_DEV_STATUS);
	need(!errno, "%s exists", name);
}

uint32_t dm_event_nr(const char *name)
{
	info(name);
	return buf.io.event_nr;
}

void dm_wait_closed(const char *name)
{
	do
		request(name, 0);
	while (!submit(DM_DEV_STATUS) && buf.io.open_count && !sched_yield());
}

int dm_wait_event(const char *name, uint32_t nr)
{
	struct dm_ioctl *io = request(name, DM_NOFLUSH_FLAG);

	io->event_nr = nr;
	return submit(DM_DEV_WAIT);
}

unsigned int dm_minor(const char *name)
{
	info(name);
	return minor(buf.io.dev);
}

const char *dm_path(const char *name)
{
	static char path[16][32];
	static unsigned int turn;
	char *p = path[turn++ % 16];

	snprintf(p, sizeof(path[0]), "/dev/dm-%u", dm_minor(name));
	return p;
}

/*
 * Legs
 */

static struct leg {
	char name[32], backing[64], slow[40];
	uint64_t sectors;
} legs[32];

static struct leg *leg_find(const char *name)
{
	for (unsigned int i = 0; i < 32; i++)
		if (!strcmp(legs[i].name, name))
			return &legs[i];
	need(false, "there is a leg '%s'", name);
	return NULL;
}

void leg_make(const char *name, const char *backing, uint64_t sectors)
{
	struct leg *leg = legs;

	while (leg->name[0] && strcmp(leg->name, name))
		leg++;
	need(leg < legs + 32, "no more than 32 legs");
	snprintf(leg->name, sizeof(leg->name), "%s", name);
	snprintf(leg->backing, sizeof(leg->backing), "%s", backing);
	leg->sectors = sectors;
	errno = dm_make(name, sectors, "linear", "%s 0", backing);
	need(!errno, "leg %s on %s", name, backing);
}

static void leg_switch(const char *name, const struct dm_seg *segs, unsigned int nr)
{
	errno = dm_load(name, segs, nr);
	need(!errno, "leg %s gets a table", name);
	/* What a held leg has queued goes to the new table. */
	errno = dm_suspend(name, DM_NOFLUSH);
	need(!errno, "leg %s suspends", name);
	errno = dm_resume(name);
	need(!errno, "leg %s resumes", name);
}

bool leg_fail(const char *name, uint64_t start, uint64_t len, enum leg_fault fault)
{
	struct leg *leg = leg_find(name);
	char params[3][128] = { "" };
	struct dm_seg segs[3], *bad;
	unsigned int nr = 0;
	bool exact = true;

	if (start) {
		snprintf(params[nr], sizeof(params[0]), "%s 0", leg->backing);
		segs[nr] = (struct dm_seg){ 0, start, "linear", params[nr] };
		nr++;
	}
	bad = &segs[nr];
	*bad = (struct dm_seg){ start, len, "error", params[nr] };
	if (fault != LEG_ALL) {
		bad->type = "flakey";
		snprintf(params[nr], sizeof(params[0]), "%s %llu 0 1 1 %s",
			 leg->backing, (unsigned long long)start,
			 fault == LEG_WRITES ? "error_writes" : "error_reads");
	}
	nr++;
	if (start + len < leg->sectors) {
		snprintf(params[nr], sizeof(params[0]), "%s %llu", leg->backing,
			 (unsigned long long)(start + len));
		segs[nr] = (struct dm_seg){ start + len, leg->sectors - start - len,
					    "linear", params[nr] };
		nr++;
	}
	if (fault == LEG_READS && dm_load(name, segs, nr) == EINVAL) {
		/* Before 6.4 dm-flakey knows no error_reads. */
		bad->type = "error";
		bad->params = "";
		exact = false;
	}
	leg_switch(name, segs, nr);
	return exact;
}

uint64_t leg_writes(const char *name)
{
	unsigned long long writes = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/dm-%u/stat", dm_minor(name));
	f = fopen(path, "r");
	need(f && fscanf(f, "%*u %*u %*u %*u %llu", &writes) == 1, "%s reads", path);
	fclose(f);
	return writes;
}

void leg_heal(const char *name)
{
	struct leg *leg = leg_find(name);
	char params[128];
	struct dm_seg seg = { 0, leg->sectors, "linear", params };

	snprintf(params, sizeof(params), "%s 0", leg->backing);
	if (leg->slow[0])
		leg_switch(leg->slow, &seg, 1);		/* and it lets go of what it holds */
	leg_switch(name, &seg, 1);
	if (leg->slow[0])
		need(!dm_remove(leg->slow), "%s is removed", leg->slow);
	leg->slow[0] = 0;
}

/* A leg over a device that delays, which does not count what it holds: the leg does. */
void leg_hold_writes(const char *name)
{
	struct leg *leg = leg_find(name);
	struct dm_seg seg = { 0, leg->sectors, "linear", NULL };
	char params[160];

	snprintf(leg->slow, sizeof(leg->slow), "%s-slow", name);
	errno = dm_make(leg->slow, leg->sectors, "delay", "%s 0 0 %s 0 100000000",
			leg->backing, leg->backing);
	need(!errno, "%s is slow", leg->slow);
	snprintf(params, sizeof(params), "%s 0", dm_path(leg->slow));
	seg.params = params;
	leg_switch(name, &seg, 1);
}

void leg_wait_write(const char *name)
{
	unsigned int writes = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/dm-%u/inflight", dm_minor(name));
	while (!writes) {
		f = fopen(path, "r");
		need(f && fscanf(f, "%*u %u", &writes) == 1, "%s reads", path);
		fclose(f);
		sched_yield();
	}
}

void leg_hold(const char *name)
{
	errno = dm_suspend(name, DM_NOFLUSH);
	need(!errno, "leg %s suspends", name);
}

/*
 * The kernel's log
 */

static int kmsg = -1;

void kmsg_mark(void)
{
	if (kmsg < 0)
		kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	need(kmsg >= 0, "/dev/kmsg opens");
	need(lseek(kmsg, 0, SEEK_END) != (off_t)-1, "/dev/kmsg seeks");
}

const char *kmsg_find(const char *key)
{
	static char text[8192];

	for (;;) {
		ssize_t n = read(kmsg, text, sizeof(text) - 1);
		char *end, *hit;

		if (n < 0 && errno == EPIPE)	/* overtaken: go on with the oldest */
			continue;
		if (n <= 0)
			return NULL;
		text[n] = 0;
		end = strchr(text, '\n');
		if (end)
			*end = 0;
		hit = strstr(text, key);
		if (hit)
			return hit + strlen(key);
	}
}

static char console_level[16];

static int printk_level(const char *level)
{
	int fd = open("/proc/sys/kernel/printk", O_WRONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : write(fd, level, strlen(level));

	close(fd);
	return n < 0 ? -1 : 0;
}

static void console_restore(void)
{
	if (printk_level(console_level))
		ok(false, "the console's level can be put back");
}

void console_quiet(void)
{
	FILE *f = fopen("/proc/sys/kernel/printk", "r");

	need(f && fscanf(f, "%15s", console_level) == 1, "the console's level");
	fclose(f);
	need(!printk_level("1"), "a quiet console");
	at_end(console_restore);
}

// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <libdevmapper.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dm.h"

#define DM_NAME_MAX 127		/* DM_NAME_LEN with its 0 */
#define SECTOR_SHIFT 9

static const char *const targets[] = { "repl-secondary", "repl-ingest", "repl-primary" };

/*
 * libdevmapper's words
 */

/* Its first complaint about the task at hand: the later ones follow from it. */
static __thread char said[256];

static void log_line(int level, const char *file, int line, int errno_or_class,
		     const char *fmt, ...) printf_like(5, 6);

static void log_line(int level, const char *file, int line, int errno_or_class,
		     const char *fmt, ...)
{
	va_list args;

	/* 1 fatal, 2 error, 3 also "print", which is no complaint but is rare */
	if ((level & 7) > 3 || said[0])
		return;
	va_start(args, fmt);
	vsnprintf(said, sizeof(said), fmt, args);
	va_end(args);
	said[strcspn(said, "\n")] = 0;
}

static void library_start(void)
{
	dm_log_with_errno_init(log_line);
}

/*
 * Tasks
 */

/* A task of libdevmapper's and what it is for. */
struct task {
	struct dm_task *dmt;
	const char *name;
	bool has_cookie;
	uint32_t cookie;
};

static int no_memory(const char *name, struct repl_error *error)
{
	error_set(error, REPL_EXIT_FAILED, "%s: %s", name,
		  said[0] ? said : "no memory for a request to device-mapper");
	errno = ENOMEM;
	return -1;
}

static int task_make(struct task *task, int type, const char *name,
		     struct repl_error *error)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, library_start);
	said[0] = 0;
	memset(task, 0, sizeof(*task));
	task->name = name;
	task->dmt = dm_task_create(type);
	if (!task->dmt)
		return no_memory(name, error);
	if (name[0] && !dm_task_set_name(task->dmt, name)) {
		dm_task_destroy(task->dmt);
		return no_memory(name, error);
	}
	/* Status and wait must not write back a device's cache first. */
	if (type == DM_DEVICE_STATUS || type == DM_DEVICE_TABLE ||
	    type == DM_DEVICE_WAITEVENT)
		dm_task_no_flush(task->dmt);
	return 0;
}

/* With udev its rules make the nodes; the cookie is how to wait for them. */
static int task_add_cookie(struct task *task, struct repl_error *error)
{
	if (!dm_task_set_cookie(task->dmt, &task->cookie, 0)) {
		dm_task_destroy(task->dmt);
		return no_memory(task->name, error);
	}
	task->has_cookie = true;
	return 0;
}

/* 0 or a positive errno. The task is there until task_end(). */
static int task_run(struct task *task)
{
	int err = 0;

	if (!dm_task_run(task->dmt))
		err = dm_task_get_errno(task->dmt) ?: EIO;
	if (task->has_cookie)
		dm_udev_wait(task->cookie);	/* also makes the nodes without udev */
	return err;
}

static void task_end(struct task *task)
{
	int saved = errno;

	dm_task_destroy(task->dmt);
	errno = saved;
}

/* -1 with the words "NAME: cannot WHAT: reason" and errno. */
static int failed(const char *name, const char *what, int err, const char *hint,
		  struct repl_error *error)
{
	/* The ioctl was not even sent: only the library knows why. */
	bool unsent = said[0] && !strstr(said, "ioctl on") && !strstr(said, "ioctl failed");

	error_set(error, REPL_EXIT_FAILED, "%s: cannot %s: %s%s%s", name, what,
		  unsent ? said : strerror(err), hint ? "; " : "", hint ?: "");
	errno = err;
	return -1;
}

static int absent(const char *name, struct repl_error *error)
{
	error_set(error, REPL_EXIT_FAILED,
		  "%s: there is no such device; `replctl up` makes it", name);
	errno = ENOENT;
	return -1;
}

static int run_simple(struct task *task, const char *what, const char *hint,
		      struct repl_error *error)
{
	int err = task_run(task);

	if (err)
		failed(task->name, what, err, hint, error);
	task_end(task);
	return err ? -1 : 0;
}

/*
 * Whose is it?
 */

static bool is_ours(struct dm_task *dmt, const char *name)
{
	const char *uuid = dm_task_get_uuid(dmt);
	size_t prefix = strlen(DM_UUID_OURS);

	return uuid && !strncmp(uuid, DM_UUID_OURS, prefix) && !strcmp(uuid + prefix, name);
}

static int check_name(const char *name, struct repl_error *error)
{
	/* The uuid is longer than the name, and of the same size in the kernel. */
	if (name[0] && strlen(name) + strlen(DM_UUID_OURS) <= DM_NAME_MAX &&
	    !strchr(name, '/'))
		return 0;
	error_set(error, REPL_EXIT_FAILED, "'%.140s' cannot be a device's name", name);
	errno = EINVAL;
	return -1;
}

/* 1 with @info filled in, 0 if there is none, -1 also if it is not ours. */
static int look(const char *name, struct dm_info *info, struct repl_error *error)
{
	struct task task;
	int r = -1, err;

	memset(info, 0, sizeof(*info));
	if (check_name(name, error) || task_make(&task, DM_DEVICE_INFO, name, error))
		return -1;
	err = task_run(&task);
	if (err == ENXIO || (!err && (!dm_task_get_info(task.dmt, info) || !info->exists))) {
		r = 0;
	} else if (err) {
		failed(name, "look at it", err, NULL, error);
	} else if (!is_ours(task.dmt, name)) {
		error_set(error, REPL_EXIT_REFUSED,
			  "%s: a device of this name exists and is not replctl's; remove or rename it",
			  name);
		errno = EEXIST;
	} else {
		r = 1;
	}
	task_end(&task);
	return r;
}

static int must_exist(const char *name, struct dm_info *info, struct repl_error *error)
{
	int r = look(name, info, error);

	return r > 0 ? 0 : r < 0 ? -1 : absent(name, error);
}

/*
 * A task for a device of ours and no other: it is named by its uuid. If there is none
 * that ends with ENXIO (but a status, see there), and not_ours() has the words.
 */
static int task_ours(struct task *task, int type, const char *name,
		     struct repl_error *error)
{
	char uuid[DM_NAME_MAX + 1];

	if (check_name(name, error) || task_make(task, type, "", error))
		return -1;
	task->name = name;
	snprintf(uuid, sizeof(uuid), DM_UUID_OURS "%s", name);
	if (dm_task_set_uuid(task->dmt, uuid))
		return 0;
	task_end(task);
	return no_memory(name, error);
}

static int not_ours(const char *name, struct repl_error *error)
{
	struct dm_info info;

	return must_exist(name, &info, error) ?: absent(name, error);
}

/* For what is done to a device of ours. */
static int run_ours(struct task *task, const char *what, const char *hint,
		    struct repl_error *error)
{
	int err = task_run(task);

	if (err == ENXIO)
		not_ours(task->name, error);
	else if (err)
		failed(task->name, what, err, hint, error);
	task_end(task);
	return err ? -1 : 0;
}

int dm_exists(const char *name, struct repl_error *error)
{
	struct dm_info info;

	return look(name, &info, error);
}

/*
 * Tables
 */

static int table_load(const char *name, uint64_t sectors, const char *target,
		      const char *params, struct repl_error *error)
{
	struct task task;

	if (task_make(&task, DM_DEVICE_RELOAD, name, error))
		return -1;
	if (!dm_task_add_target(task.dmt, 0, sectors, target, params)) {
		task_end(&task);
		return no_memory(name, error);
	}
	return run_simple(&task, "load its table", "dmesg has the reason", error);
}

static int resume(const char *name, struct repl_error *error)
{
	struct task task;

	if (task_make(&task, DM_DEVICE_RESUME, name, error) ||
	    task_add_cookie(&task, error))
		return -1;
	return run_simple(&task, "resume it", "dmesg has the reason", error);
}

static int drop_inactive_table(const char *name)
{
	struct task task;
	int saved = errno;

	if (!task_make(&task, DM_DEVICE_CLEAR, name, NULL))
		run_simple(&task, "drop a table", NULL, NULL);
	errno = saved;
	return -1;
}

static int remove_device(const char *name, bool retry, struct repl_error *error)
{
	struct task task;
	int err;

	if (task_make(&task, DM_DEVICE_REMOVE, name, error))
		return -1;
	if (retry)
		dm_task_retry_remove(task.dmt);
	if (task_add_cookie(&task, error))
		return -1;
	err = task_run(&task);
	task_end(&task);
	if (!err || err == ENXIO)
		return 0;
	if (err != EBUSY)
		return failed(name, "remove it", err, NULL, error);
	error_set(error, REPL_EXIT_FAILED,
		  "%s is in use; stop what uses /dev/mapper/%s (unmount, end the export) and try again",
		  name, name);
	errno = err;
	return -1;
}

int dm_create(const char *name, uint64_t sectors, const char *target,
	      const char *params, struct repl_error *error)
{
	char uuid[DM_NAME_MAX + 1];
	struct dm_info info;
	struct task task;
	int r, saved;

	r = look(name, &info, error);
	if (r < 0)
		return -1;
	if (r) {
		error_set(error, REPL_EXIT_FAILED, "%s: the device exists already", name);
		errno = EEXIST;
		return -1;
	}
	snprintf(uuid, sizeof(uuid), DM_UUID_OURS "%s", name);
	if (task_make(&task, DM_DEVICE_CREATE, name, error))
		return -1;
	if (!dm_task_set_uuid(task.dmt, uuid)) {
		task_end(&task);
		return no_memory(name, error);
	}
	/* EBUSY: the name was free a moment ago, so it is the uuid or a race. */
	if (run_simple(&task, "create it", NULL, error))
		return -1;
	if (!table_load(name, sectors, target, params, error) && !resume(name, error))
		return 0;
	saved = errno;
	remove_device(name, false, NULL);
	errno = saved;
	return -1;
}

int dm_reload(const char *name, uint64_t sectors, const char *target,
	      const char *params, struct repl_error *error)
{
	struct dm_info info;
	int saved;

	if (must_exist(name, &info, error) ||
	    table_load(name, sectors, target, params, error))
		return -1;
	if (dm_suspend(name, 0, error))
		return drop_inactive_table(name);
	if (!resume(name, error))
		return 0;
	saved = errno;
	if (error)
		error_wrap(error, "the device is left suspended");
	errno = saved;
	return -1;
}

int dm_remove(const char *name, struct repl_error *error)
{
	struct dm_info info;
	int r = look(name, &info, error);

	return r > 0 ? remove_device(name, true, error) : r;
}

int dm_suspend(const char *name, unsigned int flags, struct repl_error *error)
{
	struct task task;

	if (task_ours(&task, DM_DEVICE_SUSPEND, name, error))
		return -1;
	if (!(flags & DM_FREEZE_FS))
		dm_task_skip_lockfs(task.dmt);
	if (flags & DM_NOFLUSH)
		dm_task_no_flush(task.dmt);
	return run_ours(&task, "suspend it", NULL, error);
}

/* Without a cookie: no node changes, so there is nothing to wait for udev for. */
int dm_resume(const char *name, struct repl_error *error)
{
	struct task task;

	return task_ours(&task, DM_DEVICE_RESUME, name, error) ?:
	       run_ours(&task, "resume it", "dmesg has the reason", error);
}

/*
 * Questions
 */

/* The first target of a table or status, and the length of all of them. */
struct first_target {
	uint64_t sectors;
	const char *type, *params;	/* the task's; NULL without a table */
	unsigned int nr;
};

static void task_targets(struct dm_task *dmt, struct first_target *first)
{
	void *next = NULL;

	memset(first, 0, sizeof(*first));
	do {
		uint64_t start, length;
		char *type, *params;

		next = dm_get_next_target(dmt, next, &start, &length, &type, &params);
		if (!type)
			break;
		if (!first->nr++) {
			first->type = type;
			first->params = params;
		}
		first->sectors += length;
	} while (next);
}

int dm_info(const char *name, struct repl_dm_info *out, struct repl_error *error)
{
	struct first_target first;
	struct dm_info info;
	struct task task;
	int err;

	memset(out, 0, sizeof(*out));
	if (task_ours(&task, DM_DEVICE_TABLE, name, error))
		return -1;
	err = task_run(&task);
	if (err == ENXIO) {
		task_end(&task);
		return look(name, &info, error) < 0 ? -1 : 0;
	}
	if (err || !dm_task_get_info(task.dmt, &info)) {
		failed(name, "read its table", err ?: EIO, NULL, error);
		task_end(&task);
		return -1;
	}
	task_targets(task.dmt, &first);
	out->exists = true;
	out->suspended = info.suspended;
	out->has_table = info.live_table;
	out->open_count = info.open_count > 0 ? info.open_count : 0;
	out->event_nr = info.event_nr;
	out->major = info.major;
	out->minor = info.minor;
	out->sectors = first.sectors;
	snprintf(out->target, sizeof(out->target), "%s", first.type ?: "");
	snprintf(out->table, sizeof(out->table), "%s", first.params ?: "");
	task_end(&task);
	return 0;
}

static int message_failed(const char *name, const char *message, int err,
			  struct repl_error *error)
{
	enum repl_exit exit = REPL_EXIT_FAILED;
	const char *why;

	switch (err) {
	case EBUSY:
		exit = REPL_EXIT_REFUSED;
		why = "it is not legal in this stage; `replctl status` shows the stage";
		break;
	case EIO:
		why = "an error is latched, or its own I/O failed; see `replctl status`";
		break;
	case EINVAL:
		why = "it is unknown, or its arguments are wrong; dmesg has the reason";
		break;
	case EOPNOTSUPP:
		why = "this version of the module cannot do it";
		break;
	case ENXIO:
		return not_ours(name, error);
	default:
		why = "dmesg may have the reason";
	}
	error_set(error, exit, "%s refuses '%.100s': %s (%s)", name, message, why,
		  strerror(err));
	errno = err;
	return -1;
}

/* Where it is mounted, by the kernel's list; false: nowhere that we can see. */
static bool mounted_at(unsigned int major, unsigned int minor, char *path, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	unsigned int a, b;
	char *line = NULL;
	size_t n = 0;
	bool found = false;
	int begin, end;

	while (f && !found && getline(&line, &n, f) > 0)
		if (sscanf(line, "%*u %*u %u:%u %*s %n%*s%n", &a, &b, &begin, &end) == 2 &&
		    a == major && b == minor)
			found = snprintf(path, size, "%.*s", end - begin, line + begin) <
				(int)size;
	free(line);
	if (f)
		fclose(f);
	return found;
}

/* A blank, a tab, a line's end or a backslash is there as three octal digits. */
static void unescape(char *path)
{
	char *to = path;

	for (; *path; path++) {
		if (path[0] == '\\' && path[1] >= '0' && path[1] <= '3' && path[2] && path[3]) {
			*to++ = (path[1] - '0') << 6 | (path[2] - '0') << 3 | (path[3] - '0');
			path += 3;
		} else {
			*to++ = *path;
		}
	}
	*to = 0;
}

int dm_syncfs(const char *name, struct repl_error *error)
{
	struct repl_dm_info info;
	char path[4096];
	int fd, r;

	if (dm_info(name, &info, error))
		return -1;
	if (!info.open_count || !mounted_at(info.major, info.minor, path, sizeof(path)))
		return 0;
	unescape(path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
	/* It may have been unmounted meanwhile. */
	if (fd < 0)
		return 0;
	r = syncfs(fd);
	if (r)
		error_set(error, REPL_EXIT_FAILED, "%s: sync: %s", path, strerror(errno));
	close(fd);
	return r ? -1 : 0;
}

int dm_message(const char *name, const char *message, char *answer, size_t size,
	       struct repl_error *error)
{
	const char *response;
	struct task task;
	int err;

	if (answer && size)
		answer[0] = 0;
	if (task_ours(&task, DM_DEVICE_TARGET_MSG, name, error))
		return -1;
	if (!dm_task_set_sector(task.dmt, 0) || !dm_task_set_message(task.dmt, message)) {
		task_end(&task);
		return no_memory(name, error);
	}
	err = task_run(&task);
	if (!err && answer) {
		response = dm_task_get_message_response(task.dmt);
		snprintf(answer, size, "%s", response ?: "");
	}
	task_end(&task);
	return err ? message_failed(name, message, err, error) : 0;
}

int dm_status(const char *name, char *line, size_t size, struct repl_error *error)
{
	struct first_target first;
	struct dm_info info;
	struct task task;
	int err;

	if (task_ours(&task, DM_DEVICE_STATUS, name, error))
		return -1;
	err = task_run(&task);
	/* Here the library takes it for a success that there is none. */
	if (!err && (!dm_task_get_info(task.dmt, &info) || !info.exists))
		err = ENXIO;
	if (err) {
		task_end(&task);
		return err == ENXIO ? not_ours(name, error) :
				      failed(name, "read its status", err, NULL, error);
	}
	task_targets(task.dmt, &first);
	if (first.nr != 1 || !first.params) {
		error_set(error, REPL_EXIT_FAILED, "%s: has %s; `replctl adjust` makes it anew",
			  name, first.nr ? "more than one target" : "no table");
		err = ENODATA;
	} else if (strlen(first.params) >= size) {
		error_set(error, REPL_EXIT_FAILED, "%s: its status is too long", name);
		err = EOVERFLOW;
	} else {
		strcpy(line, first.params);
	}
	task_end(&task);
	errno = err;
	return err ? -1 : 0;
}

int dm_wait_event(const char *name, uint32_t *event_nr, struct repl_error *error)
{
	struct dm_info info;
	struct task task;
	int err;

	if (must_exist(name, &info, error) ||
	    task_make(&task, DM_DEVICE_WAITEVENT, name, error))
		return -1;
	if (!dm_task_set_event_nr(task.dmt, *event_nr)) {
		task_end(&task);
		return no_memory(name, error);
	}
	err = task_run(&task);
	if (!err && !dm_task_get_info(task.dmt, &info))
		err = EIO;
	task_end(&task);
	if (err == ENXIO || (!err && !info.exists))
		return absent(name, error);
	if (err)
		return failed(name, "wait for an event", err, NULL, error);
	*event_nr = info.event_nr;
	return 0;
}

/*
 * The module
 */

/* 1: all three targets are there. */
static int targets_are_there(struct repl_error *error)
{
	struct dm_versions *at, *next;
	unsigned int found = 0, i;
	struct task task;
	int err;

	if (task_make(&task, DM_DEVICE_LIST_VERSIONS, "", error))
		return -1;
	err = task_run(&task);
	if (err) {
		failed("device-mapper", "list its targets", err, NULL, error);
		task_end(&task);
		return -1;
	}
	for (next = dm_task_get_versions(task.dmt); next;) {
		at = next;
		for (i = 0; i < DM_ARRAY_SIZE(targets); i++)
			if (!strcmp(at->name, targets[i]))
				found |= 1u << i;
		next = at->next ? (void *)((char *)at + at->next) : NULL;
	}
	task_end(&task);
	return found == (1u << DM_ARRAY_SIZE(targets)) - 1;
}

/* 0, or the errno or -1 when it ran and failed. */
static int modprobe(void)
{
	static const char *const paths[] = { "/sbin/modprobe", "/usr/sbin/modprobe" };
	static char *const argv[] = { "modprobe", "-q", "dm-repl", NULL };
	static char *const envp[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	sigset_t none;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (!pid) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		for (unsigned int i = 0; i < DM_ARRAY_SIZE(paths); i++)
			execve(paths[i], argv, envp);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -1;
}

int dm_module(struct repl_error *error)
{
	int err = 0, there = targets_are_there(NULL);

	if (there <= 0) {
		err = modprobe();
		/* An error of its own: no /dev/mapper/control, no permission. */
		there = targets_are_there(error);
	}
	if (there > 0)
		return 0;
	if (!there)
		error_set(error, REPL_EXIT_FAILED,
			  "the kernel has no dm-repl module (modprobe dm-repl: %s); install it for this kernel, dmesg may have the reason",
			  err > 0 ? strerror(err) : err ? "failed" : "not all targets are there");
	errno = ENOENT;
	return -1;
}

/*
 * Any block device
 */

static int blockdev_open(const char *path, struct repl_error *error)
{
	struct stat st;
	int fd;

	/* Look before: opening something else may block or have effects. */
	if (stat(path, &st)) {
		error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
		return -1;
	}
	if (!S_ISBLK(st.st_mode)) {
		error_set(error, REPL_EXIT_REFUSED, "%s is not a block device", path);
		errno = ENOTBLK;
		return -1;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		error_set(error, REPL_EXIT_FAILED, "%s: cannot open it: %s", path,
			  strerror(errno));
	return fd;
}

uint64_t blockdev_sectors(const char *path, struct repl_error *error)
{
	uint64_t bytes = 0;
	int fd = blockdev_open(path, error);

	if (fd < 0)
		return 0;
	/* Also refuses what has taken the block device's place since the look. */
	if (ioctl(fd, BLKGETSIZE64, &bytes)) {
		error_set(error, REPL_EXIT_FAILED, "%s: cannot read its size: %s", path,
			  strerror(errno));
		bytes = 0;
	} else if (!(bytes >> SECTOR_SHIFT)) {
		error_set(error, REPL_EXIT_FAILED, "%s is empty: its size is 0", path);
	}
	close(fd);
	return bytes >> SECTOR_SHIFT;
}

int blockdev_flush(const char *path, struct repl_error *error)
{
	int r, saved, fd = blockdev_open(path, error);

	if (fd < 0)
		return -1;
	r = fsync(fd);
	saved = errno;
	if (r)
		error_set(error, REPL_EXIT_FAILED, "%s: cannot flush it: %s", path,
			  strerror(saved));
	close(fd);
	errno = saved;
	return r;
}

int blockdev_set_readonly(const char *path, bool readonly, struct repl_error *error)
{
	int value = readonly, r, saved, fd = blockdev_open(path, error);

	if (fd < 0)
		return -1;
	r = ioctl(fd, BLKROSET, &value);
	saved = errno;
	if (r)
		error_set(error, REPL_EXIT_FAILED, "%s: cannot make it %s: %s", path,
			  readonly ? "read-only" : "writable", strerror(saved));
	close(fd);
	errno = saved;
	return r;
}

int blockdev_probe(const char *path, struct repl_error *error)
{
	static char block[4096] __attribute__((aligned(4096)));
	ssize_t got = -1;
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd >= 0)
		got = pread(fd, block, sizeof(block), 0);
	if (got < 0)
		error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return got < 0 ? -1 : 0;
}

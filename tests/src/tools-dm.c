// SPDX-License-Identifier: GPL-2.0-only
/*
 * replctl's layer over libdevmapper (tools/dm.c), on real devices: each function
 * where it works, where it must refuse, and what it leaves behind.
 *
 * It is linked without tests/lib/dm.c, whose functions have the same names.
 */
#include <errno.h>
#include <fcntl.h>
#include <libdevmapper.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../tools/dm.h"
#include "../../tools/status.h"
#include "io.h"
#include "tap.h"

#define SECTORS 16384ull		/* 8 MiB */
#define FOREIGN "tdm-foreign"
#define VIEW "tdm-view"
#define INGEST "tdm-ingest"

static struct repl_error error;

static bool good(int r, const char *what)
{
	if (ok(!r, "%s", what))
		return true;
	note("%s", error.text);
	return false;
}

/* Refused with this exit status and errno, and with these words. */
static void bad(int r, enum repl_exit exit, int err, const char *words, const char *what)
{
	int got = errno;

	if (!ok(r == -1 && error.exit == exit && got == err && strstr(error.text, words),
		"%s", what))
		note("%d, exit %d, errno %d (%s): %s", r, error.exit, got, strerror(got),
		     error.text);
}

/* By hand, as somebody else would: without a uuid. */
static int foreign(int type)
{
	struct dm_task *task = dm_task_create(type);
	int r = task && dm_task_set_name(task, FOREIGN);

	if (type == DM_DEVICE_CREATE)
		r = r && dm_task_add_target(task, 0, 8, "error", "");
	r = r && dm_task_run(task);
	if (task)
		dm_task_destroy(task);
	dm_task_update_nodes();
	return r ? 0 : -1;
}

static void clean_up(void)
{
	dm_resume(INGEST, NULL);
	dm_resume(VIEW, NULL);
	dm_remove(INGEST, NULL);
	dm_remove(VIEW, NULL);
	foreign(DM_DEVICE_REMOVE);
}

static void somebody_elses(void)
{
	struct repl_dm_info info;
	char text[64];
	uint32_t nr = 0;
	const int exit = REPL_EXIT_REFUSED;

	section("a foreign device");
	need(!foreign(DM_DEVICE_CREATE), "a device of somebody else's");
	bad(dm_exists(FOREIGN, &error), exit, EEXIST, "not replctl's", "exists");
	bad(dm_create(FOREIGN, 8, "error", "", &error), exit, EEXIST, "not replctl's", "create");
	bad(dm_reload(FOREIGN, 8, "error", "", &error), exit, EEXIST, "not replctl's", "reload");
	bad(dm_suspend(FOREIGN, 0, &error), exit, EEXIST, "not replctl's", "suspend");
	bad(dm_resume(FOREIGN, &error), exit, EEXIST, "not replctl's", "resume");
	bad(dm_remove(FOREIGN, &error), exit, EEXIST, "not replctl's", "remove");
	bad(dm_info(FOREIGN, &info, &error), exit, EEXIST, "not replctl's", "info");
	bad(dm_message(FOREIGN, "x", NULL, 0, &error), exit, EEXIST, "not replctl's", "message");
	bad(dm_status(FOREIGN, text, sizeof(text), &error), exit, EEXIST, "not replctl's", "status");
	bad(dm_wait_event(FOREIGN, &nr, &error), exit, EEXIST, "not replctl's", "wait");
	ok(!access("/dev/mapper/" FOREIGN, F_OK), "it is still there");
	need(!foreign(DM_DEVICE_REMOVE), "it goes");
}

static void no_device(void)
{
	struct repl_dm_info info;
	char text[64], name[200];
	uint32_t nr = 0;

	section("no device");
	ok(dm_exists(VIEW, &error) == 0, "does not exist");
	good(dm_remove(VIEW, &error), "is removed already");
	good(dm_info(VIEW, &info, &error), "info");
	ok(!info.exists, "info says that it does not exist");
	bad(dm_suspend(VIEW, 0, &error), REPL_EXIT_FAILED, ENOENT, VIEW, "suspend");
	bad(dm_resume(VIEW, &error), REPL_EXIT_FAILED, ENOENT, VIEW, "resume");
	bad(dm_reload(VIEW, 8, "error", "", &error), REPL_EXIT_FAILED, ENOENT, VIEW, "reload");
	bad(dm_message(VIEW, "x", NULL, 0, &error), REPL_EXIT_FAILED, ENOENT, VIEW, "message");
	bad(dm_status(VIEW, text, sizeof(text), &error), REPL_EXIT_FAILED, ENOENT, VIEW, "status");
	bad(dm_wait_event(VIEW, &nr, &error), REPL_EXIT_FAILED, ENOENT, VIEW, "wait");
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	bad(dm_exists(name, &error), REPL_EXIT_FAILED, EINVAL, "name", "a name that is too long");
	bad(dm_exists("", &error), REPL_EXIT_FAILED, EINVAL, "name", "no name");
	bad(dm_exists("a/b", &error), REPL_EXIT_FAILED, EINVAL, "name", "a name with a slash");
}

static void making(const char *table)
{
	struct repl_dm_info info;

	section("making");
	bad(dm_create(VIEW, SECTORS, "repl-secondary", "nonsense", &error), REPL_EXIT_FAILED,
	    EINVAL, "dmesg", "a table that does not load");
	ok(dm_exists(VIEW, &error) == 0, "leaves no device");
	ok(access("/dev/mapper/" VIEW, F_OK), "and no node");
	bad(dm_create(VIEW, SECTORS, "no-such-target", "", &error), REPL_EXIT_FAILED,
	    EINVAL, "dmesg", "a target that does not exist");
	ok(dm_exists(VIEW, &error) == 0, "leaves no device");
	need(good(dm_create(VIEW, SECTORS, "repl-secondary", table, &error), "a view"), "it");
	need(good(dm_create(INGEST, SECTORS, "repl-ingest", brd(0), &error), "an ingest"), "it");
	ok(dm_exists(VIEW, &error) == 1, "exists");
	ok(blockdev_sectors("/dev/mapper/" VIEW, &error) == SECTORS, "its node has its length");
	bad(dm_create(VIEW, SECTORS, "error", "", &error), REPL_EXIT_FAILED, EEXIST, "exists",
	    "a second one");
	good(dm_info(VIEW, &info, &error), "info");
	ok(info.exists && info.has_table && !info.suspended && !info.open_count, "its state");
	ok_u64(info.sectors, SECTORS, "its length");
	ok_str(info.target, "repl-secondary", "its target");
	ok(info.major && strstr(info.table, " - 128"), "its table '%s'", info.table);
}

static void stage_is(enum repl_stage stage)
{
	struct repl_status status;
	char line[1024];

	good(dm_status(VIEW, line, sizeof(line), &error), "status");
	good(status_parse(line, &status, &error), line);
	ok(status.role == REPL_SECONDARY && status.stage == stage, "stage %s",
	   status_stage_name(stage));
}

static void messages(void)
{
	char answer[32], line[1024];

	section("messages");
	stage_is(REPL_STAGE_NONE);
	bad(dm_message(VIEW, "checkpoint", NULL, 0, &error), REPL_EXIT_REFUSED, EBUSY, "stage",
	    "one that is not legal in this stage");
	bad(dm_message(VIEW, "nonsense", NULL, 0, &error), REPL_EXIT_FAILED, EINVAL, "unknown",
	    "one that is unknown");
	good(dm_message(VIEW, "start", answer, sizeof(answer), &error), "start");
	ok_str(answer, "1", "its answer");
	bad(dm_message(VIEW, "fill dirty x", NULL, 0, &error), REPL_EXIT_FAILED, EOPNOTSUPP,
	    "cannot do it", "one that is not supported");
	good(dm_message(VIEW, "job speed 5", answer, sizeof(answer), &error), "one without an answer");
	ok_str(answer, "", "which is empty");
	good(dm_message(VIEW, "checkpoint 1234567", answer, 4, &error), "a long answer");
	ok_str(answer, "123", "is cut");
	stage_is(REPL_STAGE_RUNNING);
	bad(dm_status(VIEW, line, 8, &error), REPL_EXIT_FAILED, EOVERFLOW, "too long",
	    "a status that does not fit");
	good(dm_status(INGEST, line, sizeof(line), &error), "the ingest's status");
	ok_str(line, "ingest running bound open", "says so");
}

static void suspending(const char *table)
{
	struct repl_dm_info info;

	section("suspend");
	for (unsigned int flags = 0; flags <= (DM_FREEZE_FS | DM_NOFLUSH); flags++) {
		good(dm_suspend(VIEW, flags, &error), "suspend");
		good(dm_suspend(VIEW, flags, &error), "again");
		ok(!dm_info(VIEW, &info, &error) && info.suspended, "flags %u: it is", flags);
		good(dm_resume(VIEW, &error), "resume");
		good(dm_resume(VIEW, &error), "again");
		ok(!dm_info(VIEW, &info, &error) && !info.suspended, "flags %u: not any more", flags);
	}
	section("reload");
	good(dm_reload(VIEW, SECTORS, "repl-secondary", table, &error), "the same table");
	stage_is(REPL_STAGE_RUNNING);
	bad(dm_reload(VIEW, SECTORS, "repl-secondary", "nonsense", &error), REPL_EXIT_FAILED,
	    EINVAL, "dmesg", "a bad one");
	ok(!dm_info(VIEW, &info, &error) && !info.suspended &&
	   !strcmp(info.target, "repl-secondary"), "the old table is live");
	stage_is(REPL_STAGE_RUNNING);
}

static uint64_t checkpoint_now(void)
{
	struct repl_status status;
	char line[1024];

	need(!dm_status(VIEW, line, sizeof(line), &error) &&
	     !status_parse(line, &status, &error), "a status");
	return status.secondary.checkpoint;
}

/* An event of what came before may still be on its way: not every one is ours. */
static int wait_for_checkpoint(uint32_t nr, uint64_t id)
{
	do {
		uint32_t was = nr;

		if (dm_wait_event(VIEW, &nr, NULL) || nr == was)
			return 1;
	} while (checkpoint_now() != id);
	return 0;
}

/* In a child, as it is meant. */
static void events(void)
{
	struct repl_dm_info info, later;
	int status = -1;
	uint64_t before = checkpoint_now();
	uint32_t nr;
	pid_t pid;

	section("events");
	need(!dm_info(VIEW, &info, &error), "info");
	nr = info.event_nr - 1;
	good(dm_wait_event(VIEW, &nr, &error), "one that was missed");
	/* (One of what came before may come meanwhile.) */
	need(!dm_info(VIEW, &later, &error), "info");
	ok(nr >= info.event_nr && nr <= later.event_nr, "the number now");
	pid = fork();
	need(pid >= 0, "a child");
	if (!pid)
		_exit(wait_for_checkpoint(nr, before + 1));
	ok(waitpid(pid, &status, WNOHANG) == 0, "the child waits");
	good(dm_message(VIEW, "checkpoint", NULL, 0, &error), "a checkpoint");
	ok(waitpid(pid, &status, 0) == pid && !status, "wakes it, with another number");
}

static void removing(void)
{
	int fd;

	section("remove");
	fd = open("/dev/mapper/" VIEW, O_RDONLY);
	need(fd >= 0, "the view opens");
	bad(dm_remove(VIEW, &error), REPL_EXIT_FAILED, EBUSY, "is in use", "an open device");
	close(fd);
	good(dm_remove(INGEST, &error), "the ingest");
	good(dm_remove(VIEW, &error), "the view");
	ok(dm_exists(VIEW, &error) == 0 && access("/dev/mapper/" VIEW, F_OK), "it is gone");
	good(dm_remove(VIEW, &error), "again");
}

static void block_devices(void)
{
	section("block devices");
	ok_u64(blockdev_sectors(brd(0), &error), SECTORS, "length");
	good(blockdev_flush(brd(0), &error), "flush");
	bad(blockdev_sectors("/dev/null", &error) ? 0 : -1, REPL_EXIT_REFUSED, ENOTBLK,
	    "not a block device", "length of a character device");
	bad(blockdev_flush("/tmp", &error), REPL_EXIT_REFUSED, ENOTBLK, "not a block device",
	    "flush of a folder");
	bad(blockdev_flush("/dev/no-such", &error), REPL_EXIT_FAILED, ENOENT, "/dev/no-such",
	    "flush of nothing");
}

int main(void)
{
	char table[256];

	watchdog(patience_of(120));
	brd_load(3, SECTORS * SECTOR);
	at_end(backing_remove_all);
	at_end(clean_up);
	snprintf(table, sizeof(table), "%s %s %s - 128", brd(0), brd(1), brd(2));

	/* The suite has not loaded the module. */
	need(access("/sys/module/dm_repl", F_OK), "no module yet");
	good(dm_module(&error), "the module is loaded");
	ok(!access("/sys/module/dm_repl", F_OK), "it is there");
	good(dm_module(&error), "again");
	somebody_elses();
	no_device();
	making(table);
	messages();
	suspending(table);
	events();
	removing();
	block_devices();
	return tap_end();
}

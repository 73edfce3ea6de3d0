// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading, suspending, reloading, removing: in every order, in every stage, with
 * I/O running; events; and messages that are killed while they wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rig.h"
#include "stamp.h"

#define REGION 16u
#define SECTORS (300u * REGION + 5)
#define WRITERS 3

static const char *dev[4];	/* secondary, hidden, active, another secondary */
static const char *leg[4] = { "lc-secondary", "lc-hidden", "lc-active", "lc-other" };
#define VIEW "lc-view"
#define INGEST "lc-ingest"

static int load_view(unsigned int region)
{
	return dm_load_one(VIEW, SECTORS, "repl-secondary", "%s %s %s - %u", dm_path(leg[0]),
			   dm_path(leg[1]), dm_path(leg[2]), region);
}

static void make_view(void)
{
	errno = dm_make(VIEW, SECTORS, "repl-secondary", "%s %s %s - %u", dm_path(leg[0]),
			dm_path(leg[1]), dm_path(leg[2]), REGION);
	need(!errno, "a repl-secondary");
}

static void make_ingest(void)
{
	errno = dm_make(INGEST, SECTORS, "repl-ingest", "%s", dm_path(leg[0]));
	need(!errno, "a repl-ingest");
}

static void make_legs(void)
{
	static const char *const name[] = { "lc_s", "lc_h", "lc_a", "lc_o" };

	for (unsigned int i = 0; i < 4; i++) {
		dev[i] = nullb_make(name[i], 4 * MIB, 512, true, false);
		leg_make(leg[i], dev[i], SECTORS);
	}
}

static void tear_down(void)
{
	dm_remove_all();
	backing_remove_all();
}

static int message(const char *text)
{
	int err = dm_message_text(VIEW, text);

	progress();
	return err;
}

/* One sector, any way; returns 0 or an errno. */
static int touch(const char *name, bool write, u64 sector)
{
	static _Atomic u64 n;
	void *buf = big_alloc(4096);
	int fd = dev_open(dm_path(name)), err;

	if (write) {
		stamp_fill(buf, sector, 1, stamp_tag(++n, 9, 0));
		err = io_write(fd, sector * SECTOR, SECTOR, buf);
	} else {
		err = io_read(fd, sector * SECTOR, SECTOR, buf);
	}
	close(fd);
	free(buf);
	progress();
	return err;
}

/* ------------------------------------------------------ I/O that runs on */

enum side { INGEST_SIDE, VIEW_SIDE };

struct runner {
	pthread_t thread;
	enum side side;
	unsigned int id;
	int fd;
	u64 *acked;		/* by sector; a sector belongs to one writer */
};

static struct runner runner[WRITERS * 2];
static unsigned int nr_runners;
static atomic_bool runners_stop;
static atomic_ulong io_good, io_bad, io_odd;	/* odd: another errno than EIO */
static u64 acked[2][SECTORS];

static void *run_io(void *arg)
{
	struct runner *r = arg;
	u64 seed = r->id, n = 0;
	void *buf = big_alloc(32 * SECTOR);

	while (!runners_stop) {
		u64 begin = pick(&seed, SECTORS / WRITERS) * WRITERS + r->id % WRITERS, tag;
		int err;

		if (begin >= SECTORS)
			continue;
		if (pick(&seed, 3)) {
			tag = stamp_tag(++n, r->id + 1, 0);
			stamp_fill(buf, begin, 1, tag);
			err = io_write(r->fd, begin * SECTOR, SECTOR, buf);
			if (!err)
				acked[r->side][begin] = tag;
		} else {
			u64 nr = min(1 + pick(&seed, 32), SECTORS - begin);

			err = io_read(r->fd, begin * SECTOR, nr * SECTOR, buf);
		}
		if (!err)
			io_good++;
		else if (err == EIO)
			io_bad++;
		else if (!io_odd++)
			note("a request at sector %llu of %s ends with errno %d",
			     (unsigned long long)begin, r->side ? "the view" : "ingest", err);
		if (err)
			usleep(200);	/* a fenced ingest answers at once */
		progress();
	}
	close(r->fd);
	free(buf);
	return NULL;
}

static void runners_start(bool ingest, bool view)
{
	runners_stop = false;
	io_good = io_bad = io_odd = 0;
	nr_runners = 0;
	for (unsigned int i = 0; i < WRITERS * 2; i++) {
		struct runner *r = &runner[nr_runners];

		r->side = i < WRITERS ? INGEST_SIDE : VIEW_SIDE;
		r->id = i;
		if (r->side == INGEST_SIDE ? !ingest : !view)
			continue;
		r->fd = dev_open(dm_path(r->side == INGEST_SIDE ? INGEST : VIEW));
		need(!pthread_create(&r->thread, NULL, run_io, r), "a thread starts");
		nr_runners++;
	}
}

static bool more_good(void *arg)
{
	return io_good >= *(unsigned long *)arg;
}

static bool more_io(void *arg)
{
	return io_good + io_bad >= *(unsigned long *)arg;
}

/* Waits until the I/O has got on, or ended in errors where it must. */
static bool io_runs(void)
{
	unsigned long want = io_good + io_bad + 20;

	return wait_for(more_io, &want, 20);
}

static bool io_succeeds(void)
{
	unsigned long want = io_good + 20;

	return wait_for(more_good, &want, 20);
}

static void runners_end(void)
{
	runners_stop = true;
	for (unsigned int i = 0; i < nr_runners; i++)
		pthread_join(runner[i].thread, NULL);
	nr_runners = 0;
}

/* Each sector that was ever acknowledged holds what was acknowledged last. */
static bool image_is(const char *path, enum side side)
{
	char *buf = big_alloc(SECTORS * SECTOR), text[200];
	int fd = dev_open(path);
	bool good = !io_read(fd, 0, SECTORS * SECTOR, buf);

	close(fd);
	for (u64 s = 0; s < SECTORS && good; s++)
		if (acked[side][s] && stamp_tag_of(buf + s * SECTOR, s) != acked[side][s]) {
			note("sector %llu holds %s", (unsigned long long)s,
			     stamp_describe(buf + s * SECTOR, text));
			note("acknowledged: %s", stamp_name(acked[side][s], text));
			good = false;
		}
	free(buf);
	return good;
}

/* ------------------------------------------------------------- the order */

static void ok_io(int want, const char *when)
{
	ok_errno(touch(INGEST, false, 3), want, "ingest read, %s", when);
	ok_errno(touch(INGEST, true, 3), want, "ingest write, %s", when);
}

static void order(void)
{
	section("order");
	make_ingest();
	ok_ingest(INGEST, "none", "unbound", "open");
	ok_io(EIO, "no repl-secondary yet");
	make_view();
	ok_ingest(INGEST, "none", "bound", "open");
	ok_io(0, "the repl-secondary came second");
	ok_errno(dm_make("lc-second", SECTORS, "repl-secondary", "%s %s %s - %u", dm_path(leg[0]),
			 dm_path(leg[1]), dm_path(leg[3]), REGION),
		 EBUSY, "a second repl-secondary on the same device");
	ok_errno(dm_make("lc-second", SECTORS, "repl-secondary", "%s %s %s - %u", dm_path(leg[3]),
			 dm_path(leg[1]), dev[3], REGION),
		 EBUSY, "another one with the same hidden");
	ok_errno(dm_make("lc-second", SECTORS, "repl-secondary", "%s %s %s - %u", dm_path(leg[3]),
			 dev[3], dm_path(leg[2]), REGION),
		 EBUSY, "another one with the same active");
	ok_errno(dm_make("lc-second", SECTORS, "repl-secondary", "%s %s %s - %u", dm_path(leg[3]),
			 dm_path(leg[0]), dev[3], REGION),
		 EBUSY, "another one whose hidden is this one's secondary");
	ok_errno(message("start"), 0, "start");
	ok_errno(touch(VIEW, false, 3), 0, "view read");
	ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary, ingest stays");
	ok_ingest(INGEST, "none", "unbound", "open");
	ok_io(EIO, "the repl-secondary is gone");
	make_view();
	ok_stage(VIEW, "none");
	ok_io(0, "it is back");
	ok_errno(dm_remove(INGEST), 0, "remove ingest, the repl-secondary stays");
	ok_errno(message("start"), 0, "start without ingest");
	make_ingest();
	ok_ingest(INGEST, "running", "bound", "open");
	ok_io(0, "ingest came second");

	/* ingest moves to a device that has no repl-secondary, and back */
	ok_errno(dm_reload_one(INGEST, SECTORS, "repl-ingest", "%s", dm_path(leg[3])), 0,
		 "reload ingest onto another device");
	ok_ingest(INGEST, "none", "unbound", "open");
	ok_io(EIO, "no repl-secondary on that device");
	ok_errno(dm_reload_one(INGEST, SECTORS, "repl-ingest", "%s", dm_path(leg[0])), 0,
		 "reload it back");
	ok_ingest(INGEST, "running", "bound", "open");
	ok_io(0, "back");
	ok_errno(dm_remove(INGEST), 0, "remove ingest");
	ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary");
}

static void unload(void)
{
	long r;

	section("unload");
	make_view();
	r = syscall(SYS_delete_module, "dm_repl", O_NONBLOCK);
	ok(r && (errno == EWOULDBLOCK || errno == EBUSY), "the module does not unload in use");
	ok_errno(dm_remove(VIEW), 0, "remove");
	r = syscall(SYS_delete_module, "dm_repl", O_NONBLOCK);
	ok(!r, "the module unloads when nobody uses it");
	need(!system("modprobe dm-repl"), "the module loads again");
}

/* ------------------------------------------------------------ each stage */

enum where { NONE, RUNNING, PREPARED, FAILOVER, FAILED, DONE, STOPPED, NR_WHERE };

static const char *const where_name[] = {
	"none", "running", "prepared", "failover", "failover-failed", "done", "stopped"
};
static const char *const where_stage[] = {
	"none", "running", "running", "failover", "failover-failed", "done", "done"
};

/* From a fresh chain; nothing else runs. */
static void go_to(enum where w)
{
	int err = 0;

	if (w == NONE)
		return;
	err |= message("start");
	for (u64 s = 0; s < SECTORS; s += 7 * REGION) {
		err |= touch(INGEST, true, s);
		err |= touch(VIEW, true, SECTORS - 1 - s);
	}
	switch (w) {
	case PREPARED:
		err |= message("checkpoint_prepare 10");
		break;
	case STOPPED:
		err |= message("stop");
		break;
	case FAILOVER:
		/* it stays there */
		err |= message("job speed 1") | message("failover") | message("job pause");
		break;
	case FAILED:
		leg_fail(leg[0], 0, SECTORS, LEG_WRITES);
		err |= message("failover");
		err |= !wait_stage(VIEW, "failover-failed");
		leg_heal(leg[0]);
		break;
	case DONE:
		err |= message("failover");
		err |= !wait_stage(VIEW, "done");
		break;
	default:
		break;
	}
	need(!err, "stage %s is reached", where_name[w]);
}

/* A new chain on old devices. */
static void fresh(enum where w)
{
	memset(acked, 0, sizeof(acked));
	make_view();
	make_ingest();
	go_to(w);
	section("%s", where_name[w]);
}

/* Is it as it was, and does I/O go on? */
static void still(enum where w, const char *what)
{
	struct repl_status st;

	repl_status(VIEW, &st);
	ok(!strcmp(st.stage, where_stage[w]) && st.is_prepared == (w == PREPARED) &&
	   (w == PREPARED || io_runs()) && !io_odd,
	   "%s with I/O running: the stage stays, I/O goes on", what);
}

struct resuming {
	const char *name;
	unsigned int flags;
	int err;
};

static void *do_suspend(void *arg)
{
	struct resuming *s = arg;

	s->err = dm_suspend(s->name, s->flags);
	return NULL;
}

/*
 * Suspend, alone or both. What is parked by a prepared checkpoint is in flight:
 * then suspend waits for commit or abort.
 */
static void suspend_both(enum where w)
{
	static const char *const name[] = { VIEW, INGEST };
	static const char *const what[] = { "suspend the view", "suspend ingest",
					    "suspend the view without flush",
					    "suspend ingest without flush" };
	int err = 0;

	for (unsigned int i = 0; i < 4; i++) {
		err = dm_suspend(name[i % 2], i < 2 ? 0 : DM_NOFLUSH);
		err |= dm_resume(name[i % 2]);
		if (err)
			ok_errno(err, 0, "%s", what[i]);
		still(w, what[i]);
	}
	/* Nothing of the one waits for the other: in both orders. */
	for (unsigned int i = 0; i < 2; i++) {
		err = dm_suspend(name[i], 0);
		usleep(2000);	/* the other's I/O goes on meanwhile */
		err |= dm_suspend(name[!i], 0);
		err |= dm_resume(name[i]);
		usleep(2000);
		err |= dm_resume(name[!i]);
		if (err)
			ok_errno(err, 0, "suspend both");
		still(w, i ? "suspend ingest, then the view" : "suspend the view, then ingest");
	}
}

static void reloads(enum where w)
{
	bool idle = w == NONE || w == DONE || w == STOPPED;
	char table[256];
	struct dm_seg seg = { 0, SECTORS, NULL, table };
	int err;

	need(!dm_status_to(VIEW, table, sizeof(table), true), "a table");
	seg.type = "repl-secondary";
	err = dm_reload(VIEW, &seg, 1);
	if (err)
		ok_errno(err, 0, "reload the view");
	still(w, "reload the view");

	need(!dm_status_to(INGEST, table, sizeof(table), true), "a table");
	seg.type = "repl-ingest";
	err = dm_reload(INGEST, &seg, 1);
	if (err)
		ok_errno(err, 0, "reload ingest");
	still(w, "reload ingest");

	/* Loaded and never resumed: nothing happened. */
	err = load_view(REGION);
	if (!err)
		err = dm_clear(VIEW);
	if (err)
		ok_errno(err, 0, "load and clear");
	still(w, "load the view's table and clear it");

	err = load_view(REGION * 2);
	ok_errno(err, idle ? 0 : EBUSY, "load another region size");
	if (!err) {
		struct repl_status st;

		err = dm_suspend(VIEW, 0);
		err |= dm_resume(VIEW);
		repl_status(VIEW, &st);
		ok(!err && st.region_size == REGION * 2, "and resume it");
		still(w, "another region size");
		/* Each makes a new chain; the fence must have no gap between them. */
		for (unsigned int i = 0; i < 40 && !err; i++) {
			err = load_view(i % 2 ? REGION * 2 : REGION);
			err |= dm_suspend(VIEW, 0);
			err |= dm_resume(VIEW);
		}
		ok_errno(err, 0, "to and fro");
		err = load_view(REGION);
		err |= dm_suspend(VIEW, 0);
		err |= dm_resume(VIEW);
		ok_errno(err, 0, "and the first one again");
	}
}

/* Ingest I/O in flight and to come while the repl-secondary goes. */
static void remove_view(enum where w)
{
	ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary under ingest's I/O");
	ok(io_runs(), "what was in flight has ended, what comes now ends too");
	ok_ingest(INGEST, "none", "unbound", "open");
	make_view();
	ok_stage(VIEW, "none");
	ok(io_succeeds(), "a new repl-secondary, ingest's I/O passes");
	runners_end();
	ok(!io_odd, "nothing but success and EIO");
	/* (The merge of a failover changes what ingest wrote.) */
	if (w != FAILOVER && w != FAILED && w != DONE)
		ok(image_is(dev[0], INGEST_SIDE), "the secondary holds all that was acknowledged");
}

static void each_stage(void)
{
	for (enum where w = 0; w < NR_WHERE; w++) {
		fresh(w);
		if (w != PREPARED) {
			runners_start(true, true);
			ok(io_runs(), "I/O runs");
			suspend_both(w);
			reloads(w);
			ok_errno(dm_remove(VIEW), EBUSY, "an open view is not removed");
			ok_errno(dm_remove(INGEST), EBUSY, "an open ingest is not removed");
			runners_end();
			if (w == NONE || w == RUNNING)
				ok(image_is(dev[0], INGEST_SIDE),
				   "the secondary holds what ingest acknowledged");
			if (w == RUNNING)
				ok(image_is(dm_path(VIEW), VIEW_SIDE),
				   "the view holds what it acknowledged");
			if (w == FAILOVER) {
				ok_errno(message("job resume"), 0, "the merge may go on");
				ok_errno(message("job speed 0"), 0, "at full speed");
				ok(wait_stage(VIEW, "done"), "done");
			}
			if (w == FAILOVER || w == DONE)
				ok(image_is(dm_path(VIEW), VIEW_SIDE) &&
				   image_is(dev[0], VIEW_SIDE),
				   "view and secondary hold what the view acknowledged");
		}
		/* remove, with the one side's I/O in flight */
		memset(acked, 0, sizeof(acked));
		runners_start(true, false);
		if (w != PREPARED)
			io_runs();
		else
			usleep(20000);	/* it parks at the gate */
		remove_view(w);
		ok_errno(dm_remove(INGEST), 0, "remove ingest");
		ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary");
	}
}

/* The view's table is replaced by one that fails, as remove --force does. */
static void replaced(void)
{
	fresh(RUNNING);
	section("replaced by error");
	runners_start(true, true);
	io_runs();
	ok_errno(dm_reload_one(VIEW, SECTORS, "error", "%s", ""), 0,
		 "the view becomes an error target under I/O");
	ok(io_runs(), "I/O ends in errors");
	ok_ingest(INGEST, "none", "unbound", "open");
	ok_errno(load_view(REGION), 0, "load repl-secondary again");
	dm_suspend(VIEW, 0);
	dm_resume(VIEW);
	ok_ingest(INGEST, "none", "bound", "open");
	ok(io_succeeds(), "ingest I/O passes again");
	runners_end();
	ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary");
	ok_errno(dm_remove(INGEST), 0, "remove ingest");
}

/* Suspending waits for what a prepared checkpoint holds; a commit frees it. */
static void suspend_prepared(void)
{
	static const char *const name[] = { VIEW, INGEST };

	for (unsigned int i = 0; i < 4; i++) {
		struct resuming s = { name[i % 2], 0, -1 };
		pthread_t t;

		fresh(PREPARED);
		section("suspend %s while prepared", i % 2 ? "ingest" : "the view");
		runners_start(true, true);
		usleep(20000);		/* I/O parks */
		need(!pthread_create(&t, NULL, do_suspend, &s), "a thread starts");
		usleep(20000);
		ok_errno(message(i < 2 ? "checkpoint_commit 10" : "checkpoint_abort 10"), 0,
			 i < 2 ? "commit goes through" : "abort goes through");
		pthread_join(t, NULL);
		ok_errno(s.err, 0, "then the suspend comes to its end");
		ok_errno(dm_resume(s.name), 0, "resume");
		ok(io_succeeds(), "I/O goes on");
		runners_end();
		ok(!io_bad && !io_odd, "no request has failed");
		ok_errno(dm_remove(INGEST), 0, "remove ingest");
		ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary");
	}
}

/* --------------------------------------------------------------- events */

struct listener {
	pthread_t thread;
	const char *name;
	u32 nr;
	atomic_bool heard;
};

static struct listener listener[2] = { { .name = VIEW }, { .name = INGEST } };

static void *listen_(void *arg)
{
	struct listener *l = arg;

	if (!dm_wait_event(l->name, l->nr))
		l->heard = true;
	return NULL;
}

static bool settled(void *arg)
{
	static u32 last[2];
	static double since;
	u32 nr[2] = { dm_event_nr(VIEW), dm_event_nr(INGEST) };

	(void)arg;
	if (memcmp(nr, last, sizeof(nr))) {
		memcpy(last, nr, sizeof(nr));
		since = now();
	}
	return now() - since > 0.02;
}

static void on_signal(int sig)
{
	(void)sig;
}

/* Earlier events are over; from here on one is waited for. */
static void expect_event(void)
{
	wait_for(settled, NULL, 5);
	for (unsigned int i = 0; i < 2; i++) {
		listener[i].nr = dm_event_nr(listener[i].name);
		listener[i].heard = false;
		need(!pthread_create(&listener[i].thread, NULL, listen_, &listener[i]),
		     "a thread starts");
	}
}

static void ok_event(const char *what)
{
	struct timespec end;

	for (unsigned int i = 0; i < 2; i++) {
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += 5;
		if (pthread_timedjoin_np(listener[i].thread, NULL, &end)) {
			pthread_kill(listener[i].thread, SIGUSR1);
			pthread_join(listener[i].thread, NULL);
		}
	}
	ok(listener[0].heard && listener[1].heard, "%s wakes who waits on the view%s and on ingest%s",
	   what, listener[0].heard ? "" : " (not)", listener[1].heard ? "" : " (not)");
}

static void event_of(const char *text)
{
	expect_event();
	ok_errno(message(text), 0, "%s", text);
	ok_event(text);
}

static void events(void)
{
	struct sigaction act = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &act, NULL);
	fresh(NONE);
	section("events");
	event_of("start");
	event_of("checkpoint");
	event_of("checkpoint_prepare 7");
	event_of("checkpoint_abort 7");
	event_of("checkpoint_prepare 8");
	event_of("checkpoint_commit 8");
	event_of("stop");
	event_of("start");

	leg_fail(leg[1], 0, SECTORS, LEG_ALL);
	expect_event();
	ok_errno(touch(INGEST, true, 0), EIO, "copy-before-write fails");
	ok_event("an error that is latched");
	leg_heal(leg[1]);
	event_of("clear_error");

	/* A merge that hangs below the secondary, until it is let go. */
	ok_errno(touch(INGEST, true, 100), 0, "a region is preserved");
	leg_hold(leg[0]);
	event_of("failover");
	expect_event();
	leg_fail(leg[0], 0, SECTORS, LEG_WRITES);
	ok(wait_stage(VIEW, "failover-failed"), "the merge fails");
	ok_event("its failure");
	leg_heal(leg[0]);
	leg_hold(leg[0]);
	event_of("retry");
	event_of("job pause");
	event_of("job resume");
	expect_event();
	leg_heal(leg[0]);
	ok(wait_stage(VIEW, "done"), "the merge is done");
	ok_event("its end");
	ok_errno(dm_remove(INGEST), 0, "remove ingest");
	ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary");
}

/* -------------------------------------------------------------- signals */

/* In an uninterruptible sleep: that is how one that can be killed shows too. */
static bool sleeps(void *arg)
{
	char path[64], stat[256] = "", *state;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", *(pid_t *)arg);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, stat, sizeof(stat) - 1) < 0)
		stat[0] = 0;
	close(fd);
	state = strrchr(stat, ')');
	return state && state[2] == 'D';
}

static void *one_write(void *arg)
{
	*(int *)arg = touch(INGEST, true, 5 * REGION);
	return NULL;
}

static bool gone(void *arg)
{
	return waitpid(*(pid_t *)arg, NULL, WNOHANG) != 0;
}

/* A message waits for a write that hangs below; SIGKILL ends it. */
static void killed(const char *text)
{
	struct repl_status before, after;
	pthread_t t;
	pid_t child;
	int err = -1;
	bool died;

	fresh(RUNNING);
	section("kill '%s'", text);
	/* region 5 is preserved, 6 in active: these pass */
	ok_errno(touch(INGEST, true, 5 * REGION), 0, "a region is preserved");
	ok_errno(touch(VIEW, true, 6 * REGION), 0, "another is in active");
	repl_status(VIEW, &before);

	leg_hold(leg[0]);
	need(!pthread_create(&t, NULL, one_write, &err), "a thread starts");
	usleep(50000);		/* its write hangs below the secondary now */

	child = fork();
	if (!child) {
		dm_message_text(VIEW, text);
		_exit(0);
	}
	need(child > 0, "a process starts");
	ok(wait_for(sleeps, &child, 10), "it waits for the drain");
	repl_status(VIEW, &after);
	ok(!strcmp(after.stage, "running"), "status answers meanwhile");
	kill(child, SIGKILL);
	died = wait_for(gone, &child, 10);
	ok(died, "SIGKILL ends it, although the drain is not over");
	if (died) {
		repl_status(VIEW, &after);
		ok(!strcmp(after.stage, "running") && after.checkpoint == before.checkpoint &&
		   !after.is_prepared && after.hidden == before.hidden &&
		   after.active == before.active && !strcmp(after.errors, "-"),
		   "nothing has changed");
		ok_errno(touch(VIEW, false, 5 * REGION), 0, "the gate is open: a read of hidden");
		ok_errno(touch(VIEW, true, 6 * REGION), 0, "a write to active");
	}
	leg_heal(leg[0]);
	pthread_join(t, NULL);
	ok_errno(err, 0, "the write ends well");
	if (!died)
		gone(&child);
	ok_errno(message("checkpoint"), 0, "the next checkpoint works");
	ok_errno(dm_remove(INGEST), 0, "remove ingest");
	ok_errno(dm_remove(VIEW), 0, "remove the repl-secondary");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	at_end(tear_down);
	watch_progress(60, NULL);
	make_legs();
	order();
	unload();
	each_stage();
	replaced();
	suspend_prepared();
	events();
	killed("checkpoint");
	killed("checkpoint_prepare 30");
	killed("failover");
	killed("stop");
	section("end");
	return tap_end();
}

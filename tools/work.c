// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

struct repl_work {
	sd_event_source *source, *timer;
	pid_t pid;
	int report;		/* the child's error, read when it has ended; -1: a hook */
	bool cancelled, late;
	char what[64];
	work_done_fn done;
	void *context;
};

static void work_free(struct repl_work *work)
{
	sd_event_source_disable_unref(work->source);
	sd_event_source_disable_unref(work->timer);
	if (work->report >= 0)
		close(work->report);
	free(work);
}

static int work_ended(sd_event_source *source, const siginfo_t *si, void *arg)
{
	struct repl_work *work = arg;
	struct repl_error error = { REPL_EXIT_FAILED, "" };
	bool good = si->si_code == CLD_EXITED && si->si_status == 0;

	if (work->cancelled) {
		good = false;
		error_set(&error, REPL_EXIT_FAILED, work->late ? "%s took too long" :
			  "%s was cancelled", work->what);
	} else if (si->si_code != CLD_EXITED) {
		error_set(&error, REPL_EXIT_FAILED, "%s was killed by signal %d",
			  work->what, si->si_status);
	} else if (!good && work->report >= 0) {
		ssize_t n = read(work->report, &error, sizeof(error));

		if (n != (ssize_t)sizeof(error))
			error_set(&error, REPL_EXIT_FAILED, "%s ended without a word",
				  work->what);
		error.text[sizeof(error.text) - 1] = 0;
	} else if (!good) {
		error_set(&error, REPL_EXIT_FAILED, "%s ended with status %d", work->what,
			  si->si_status);
	}
	work->done(good, &error, work->context);
	work_free(work);
	return 0;
}

static int work_late(sd_event_source *source, uint64_t usec, void *arg)
{
	struct repl_work *work = arg;

	work->late = true;
	work_cancel(work);
	return 0;
}

/* In the child: a process of its own group that dies with us. */
static void child_begin(pid_t parent)
{
	sigset_t none;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
}

static int work_watch(sd_event *event, struct repl_work *work, struct repl_work **out,
		      struct repl_error *error)
{
	int r = sd_event_add_child(event, &work->source, work->pid, WEXITED, work_ended,
				   work);

	if (r < 0) {
		kill(work->pid, SIGKILL);
		waitpid(work->pid, NULL, 0);
		work_free(work);
		return error_set(error, REPL_EXIT_FAILED, "cannot watch a child: %s",
				 strerror(-r));
	}
	if (out)
		*out = work;
	return 0;
}

static struct repl_work *work_new(const char *what, work_done_fn done, void *context,
				  struct repl_error *error)
{
	struct repl_work *work = calloc(1, sizeof(*work));

	if (!work) {
		error_set(error, REPL_EXIT_FAILED, "out of memory");
		return NULL;
	}
	snprintf(work->what, sizeof(work->what), "%s", what);
	work->report = -1;
	work->done = done;
	work->context = context;
	return work;
}

/* See work_call(). Devices stay: libdevmapper keeps its own open. */
static void child_close(int lock, int report)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	struct stat st;
	int fd;

	while (dir && (entry = readdir(dir))) {
		fd = atoi(entry->d_name);
		if (fd > STDERR_FILENO && fd != lock && fd != report && fd != dirfd(dir) &&
		    !fstat(fd, &st) && !S_ISCHR(st.st_mode))
			close(fd);
	}
	if (dir)
		closedir(dir);
}

int work_call(sd_event *event, int (*fn)(void *arg, struct repl_error *error),
	      void *arg, int lock, work_done_fn done, void *context,
	      struct repl_error *error)
{
	struct repl_work *work = work_new("an operation", done, context, error);
	pid_t parent = getpid();
	int fd[2];

	if (!work)
		return -1;
	if (pipe2(fd, O_CLOEXEC) < 0) {
		work_free(work);
		return error_set(error, REPL_EXIT_FAILED, "pipe: %s", strerror(errno));
	}
	work->report = fd[0];
	work->pid = fork();
	if (work->pid < 0) {
		close(fd[1]);
		work_free(work);
		return error_set(error, REPL_EXIT_FAILED, "fork: %s", strerror(errno));
	}
	if (!work->pid) {
		struct repl_error why = { REPL_EXIT_FAILED, "" };

		child_begin(parent);
		child_close(lock, fd[1]);
		if (!fn(arg, &why))
			_exit(0);
		/* One write of less than a pipe's atomic size. */
		_exit(write(fd[1], &why, sizeof(why)) == (ssize_t)sizeof(why) ? 1 : 2);
	}
	close(fd[1]);
	return work_watch(event, work, NULL, error);
}

static void child_hook(const char *command, char *const env[], int in, int out)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (unsigned int i = 0; env && env[i]; i++)
		putenv(env[i]);
	if (dup2(in >= 0 ? in : null, STDIN_FILENO) < 0 ||
	    dup2(out >= 0 ? out : STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(126);
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

int work_hook(sd_event *event, const char *what, const char *command,
	      char *const env[], int in, int out, uint64_t timeout, work_done_fn done,
	      void *context, struct repl_work **result, struct repl_error *error)
{
	struct repl_work *work = work_new(what, done, context, error);
	pid_t parent = getpid();

	if (!work)
		return -1;
	work->pid = fork();
	if (work->pid < 0) {
		work_free(work);
		return error_set(error, REPL_EXIT_FAILED, "fork: %s", strerror(errno));
	}
	if (!work->pid) {
		child_begin(parent);
		child_hook(command, env, in, out);
	}
	if (timeout && sd_event_add_time_relative(event, &work->timer, CLOCK_MONOTONIC,
						  timeout * 1000, 0, work_late, work) < 0)
		work->timer = NULL;	/* then it may take as long as it likes */
	return work_watch(event, work, result, error);
}

void work_cancel(struct repl_work *work)
{
	work->cancelled = true;
	/* The group: a shell and what it started. It may not have one yet. */
	if (kill(-work->pid, SIGKILL) < 0)
		kill(work->pid, SIGKILL);
}

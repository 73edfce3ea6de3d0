// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

#define HOOK_WORDS 32

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

/*
 * ---- Workers ----
 */

struct request {
	uint64_t sequence, id;
	unsigned int what;
};

struct answer {
	uint64_t sequence, value;
	bool good;
	struct repl_error error;
};

struct repl_worker {
	sd_event *event;
	worker_fn fn;
	void *arg;
	int lock;
	pid_t pid;			/* 0: there is no process */
	int fd;				/* to it: a request or an answer is a packet */
	sd_event_source *answers, *death;
	bool stale;			/* it has an old copy of our memory */
	uint64_t sequence;		/* of the last request */
	uint64_t value;			/* of the last answer */
	work_done_fn done;		/* of the operation under way, or NULL */
	void *context;
};

/* See worker_new(). Devices stay: libdevmapper keeps its own open. */
static void child_close(int lock, int fd)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	struct stat st;
	int i;

	while (dir && (entry = readdir(dir))) {
		i = atoi(entry->d_name);
		if (i > STDERR_FILENO && i != lock && i != fd && i != dirfd(dir) &&
		    !fstat(i, &st) && !S_ISCHR(st.st_mode))
			close(i);
	}
	if (dir)
		closedir(dir);
}

/* The process. It ends when the other end of the socket does, if it was not killed. */
static void worker_serve(const struct repl_worker *worker, int fd)
{
	struct request request;
	struct answer answer;
	ssize_t n;

	for (;;) {
		n = recv(fd, &request, sizeof(request), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != (ssize_t)sizeof(request))
			_exit(0);
		memset(&answer, 0, sizeof(answer));
		answer.sequence = request.sequence;
		answer.error.exit = REPL_EXIT_FAILED;
		answer.good = !worker->fn(worker->arg, request.what, request.id,
					  &answer.value, &answer.error);
		if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			_exit(1);
	}
}

/* Forget the process, which has ended or does not matter any more. */
static void worker_drop(struct repl_worker *worker)
{
	worker->answers = sd_event_source_disable_unref(worker->answers);
	worker->death = sd_event_source_disable_unref(worker->death);
	if (worker->fd >= 0)
		close(worker->fd);
	worker->fd = -1;
	worker->pid = 0;
	worker->stale = false;
}

/* It waits for a request, so that it dies at once. */
static void worker_end(struct repl_worker *worker)
{
	pid_t pid = worker->pid;

	worker_drop(worker);
	if (!pid)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void worker_done(struct repl_worker *worker, bool good,
			const struct repl_error *error)
{
	work_done_fn done = worker->done;

	worker->done = NULL;
	if (worker->stale)
		worker_end(worker);
	if (done)
		done(good, error, worker->context);	/* it may call again, or free us */
}

/* Return: there is an answer to what was asked. */
static bool worker_take(struct repl_worker *worker, struct answer *answer)
{
	ssize_t n = recv(worker->fd, answer, sizeof(*answer), MSG_DONTWAIT);

	if (n != (ssize_t)sizeof(*answer) || answer->sequence != worker->sequence)
		return false;
	answer->error.text[sizeof(answer->error.text) - 1] = 0;
	worker->value = answer->value;
	return true;
}

static int worker_answers(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct repl_worker *worker = arg;
	struct answer answer;

	if (worker_take(worker, &answer))
		worker_done(worker, answer.good, &answer.error);
	else if (events & (EPOLLHUP | EPOLLERR))	/* worker_died() comes */
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
	return 0;
}

static int worker_died(sd_event_source *source, const siginfo_t *si, void *arg)
{
	struct repl_worker *worker = arg;
	struct answer answer;

	/* Its last word may be unread. */
	if (!worker_take(worker, &answer)) {
		answer.good = false;
		error_set(&answer.error, REPL_EXIT_FAILED, si->si_code == CLD_EXITED ?
			  "an operation ended with status %d" :
			  "an operation was killed by signal %d", si->si_status);
	}
	worker_drop(worker);
	worker_done(worker, answer.good, &answer.error);
	return 0;
}

static int worker_begin(struct repl_worker *worker, struct repl_error *error)
{
	pid_t parent = getpid();
	int fd[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0)
		return error_set(error, REPL_EXIT_FAILED, "socketpair: %s", strerror(errno));
	worker->pid = fork();
	if (!worker->pid) {
		child_begin(parent);
		child_close(worker->lock, fd[1]);
		worker_serve(worker, fd[1]);
	}
	close(fd[1]);
	worker->fd = fd[0];
	if (worker->pid < 0) {
		r = -errno;
		worker->pid = 0;
		worker_drop(worker);
		return error_set(error, REPL_EXIT_FAILED, "fork: %s", strerror(-r));
	}
	r = sd_event_add_child(worker->event, &worker->death, worker->pid, WEXITED,
			       worker_died, worker);
	if (r >= 0)
		r = sd_event_add_io(worker->event, &worker->answers, worker->fd, EPOLLIN,
				    worker_answers, worker);
	if (r >= 0)
		return 0;
	worker_end(worker);
	return error_set(error, REPL_EXIT_FAILED, "cannot watch a child: %s", strerror(-r));
}

struct repl_worker *worker_new(sd_event *event, worker_fn fn, void *arg, int lock)
{
	struct repl_worker *worker = calloc(1, sizeof(*worker));

	if (!worker)
		return NULL;
	worker->event = event;
	worker->fn = fn;
	worker->arg = arg;
	worker->lock = lock;
	worker->fd = -1;
	return worker;
}

int worker_call(struct repl_worker *worker, unsigned int what, uint64_t id,
		work_done_fn done, void *context, struct repl_error *error)
{
	struct request request;

	if (worker->done)
		return error_set(error, REPL_EXIT_FAILED, "an operation is under way");
	if (!worker->pid && worker_begin(worker, error))
		return -1;
	memset(&request, 0, sizeof(request));
	request.sequence = ++worker->sequence;
	request.id = id;
	request.what = what;
	/* One that has just died takes nothing: the loop hears of that soon. */
	if (send(worker->fd, &request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return error_set(error, REPL_EXIT_FAILED, "an operation cannot be begun: %s",
				 strerror(errno));
	worker->value = 0;
	worker->done = done;
	worker->context = context;
	return 0;
}

uint64_t worker_value(const struct repl_worker *worker)
{
	return worker->value;
}

void worker_renew(struct repl_worker *worker)
{
	if (worker->done)
		worker->stale = true;
	else
		worker_end(worker);
}

void worker_free(struct repl_worker *worker)
{
	if (!worker)
		return;
	if (worker->done) {
		kill(worker->pid, SIGKILL);
		worker_drop(worker);
	} else {
		worker_end(worker);
	}
	free(worker);
}

/*
 * ---- Hooks ----
 */

struct repl_work {
	sd_event_source *source, *timer;
	pid_t pid;
	bool cancelled, late;
	char what[64];
	work_done_fn done;
	void *context;
};

static void work_free(struct repl_work *work)
{
	sd_event_source_disable_unref(work->source);
	sd_event_source_disable_unref(work->timer);
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
	work->done = done;
	work->context = context;
	return work;
}

/*
 * Nothing but words, and the first is a path: what a shell would do with it can be done
 * here, and a fence hook costs half.
 */
static bool only_words(const char *command)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_./:@%+,= -";

	return command[0] == '/' && !command[strspn(command, plain)];
}

static void exec_words(const char *command)
{
	char *text = strdup(command), *word[HOOK_WORDS + 1], *rest;
	unsigned int nr = 0;

	for (char *p = text ? strtok_r(text, " ", &rest) : NULL; p; p = strtok_r(NULL, " ", &rest)) {
		if (nr == HOOK_WORDS)
			return;			/* the shell knows no such bound */
		word[nr++] = p;
	}
	word[nr] = NULL;
	if (nr)
		execv(word[0], word);
}

static void child_hook(const char *command, char *const env[], int in, int out)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (unsigned int i = 0; env && env[i]; i++)
		putenv(env[i]);
	if (dup2(in >= 0 ? in : null, STDIN_FILENO) < 0 ||
	    dup2(out >= 0 ? out : STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(126);
	close_range(3, ~0U, 0);		/* what our caller had open */
	if (only_words(command))
		exec_words(command);
	/* Or that could not be: a script without #!, or the shell has words for why. */
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

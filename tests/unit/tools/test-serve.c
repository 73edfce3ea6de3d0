// SPDX-License-Identifier: GPL-2.0-only
/*
 * Daemons: two of them, whole, on loopback, as the hosts alpha and beta. The kernel's
 * side of each resource is a few numbers in memory that both share with the test; see
 * __wrap_resource_*(), which the linker puts in the place of resource.c's.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_do_recoverable_leak_check() 0	/* valgrind looks itself */
#endif

#include "conn.h"
#include "control.h"
#include "dm.h"
#include "identity.h"
#include "plan.h"
#include "resource.h"
#include "serve.h"
#include "steps.h"

enum { ALPHA, BETA };

#define RESOURCES 4		/* r0 to r3 */
#define WAIT_MS 20000		/* for anything */
#define LINE_MAX_ 4096		/* bytes of an answer */

static const char * const hosts[] = { "alpha", "beta" };

/*
 * ---- The kernel ----
 */

static struct fake {
	bool up, held, attached, over, stuck, stuck_import, stuck_commit, stuck_release;
	uint64_t checkpoint, prepared, holds;
	uint64_t cut, released, aborted;	/* ids */
	unsigned int anews, imports, resyncs, unexports, adopted, promotions;
	bool lost;			/* the primary's leg */
	bool ending;			/* the servers of old */
	uint64_t fresh;			/* the volumes whose legs could be connected */
	bool never;			/* nobody knows what the peer lacks */
	bool primary, bad_prepare;
	bool blank;
	struct repl_side side;
	char missing[256];		/* what it was to send at the last resync */
	bool no_cut, coming;
	bool full;			/* of a resync nothing gets there */
	bool no_way;			/* there is no data leg */
	bool overflows;			/* before the next cut */
	unsigned int changes;		/* that it has, of 8 sectors each; 0: 1200 */
	unsigned int settles, unsettles;
	bool no_settle, stuck_settle, first;
	uint64_t settled;		/* what the last resync was told */
} (*fakes)[RESOURCES];

static struct fake *fake_of(const struct repl_resource *resource)
{
	return &fakes[resource->here][resource->config->name[1] - '0'];
}

int __wrap_role_find(struct repl_resource *resource, bool offline, struct repl_error *error);
int __wrap_role_promote(struct repl_resource *resource, bool dry_run,
			struct repl_error *error);
int __wrap_role_side(const struct repl_resource *resource, unsigned int volume,
		     struct repl_side *side, struct repl_error *error);
int __wrap_role_adopt(const struct repl_resource *resource, struct repl_error *error);
int __wrap_dm_message(const char *name, const char *message, char *answer, size_t size,
		      struct repl_error *error);
uint64_t __wrap_blockdev_sectors(const char *path, struct repl_error *error);
int __wrap_resource_kernel(const struct repl_resource *resource, struct pair_kernel *kernel,
			   struct repl_error *error);
bool __wrap_resource_exported(const struct repl_resource *resource);
int __wrap_resource_syncfs(const struct repl_resource *resource, struct repl_error *error);
int __wrap_resource_hold(const struct repl_resource *resource, uint64_t id,
			 struct repl_error *error);
int __wrap_resource_release(const struct repl_resource *resource, uint64_t id,
			    bool committed, struct repl_error *error);
int __wrap_resource_cut(const struct repl_resource *resource, uint64_t id,
			struct repl_error *error);
int __wrap_resource_flush(const struct repl_resource *resource, uint64_t id,
			 struct repl_error *error);
int __wrap_resource_detach(const struct repl_resource *resource, struct repl_error *error);
int __wrap_resource_prepare(const struct repl_resource *resource, uint64_t id,
			    struct repl_error *error);
int __wrap_resource_commit(const struct repl_resource *resource, uint64_t id,
			   struct repl_error *error);
int __wrap_resource_abort(const struct repl_resource *resource, struct repl_error *error);
int __wrap_resource_failover(const struct repl_resource *resource, struct repl_error *error);
int __wrap_resource_unexport(const struct repl_resource *resource, struct repl_error *error);
int __wrap_resource_import(const struct repl_resource *resource, uint64_t volumes,
			   struct repl_error *error);
int __wrap_resource_settle(const struct repl_resource *resource, uint64_t *settled,
			   struct repl_error *error);
int __wrap_resource_unsettle(const struct repl_resource *resource, struct repl_error *error);
int __wrap_resource_lost_legs(const struct repl_resource *resource, uint64_t *volumes,
			      struct repl_error *error);
int __wrap_resource_export_anew(const struct repl_resource *resource, uint64_t volumes,
				struct repl_error *error);
int __wrap_resource_resync(const struct repl_resource *resource, const struct repl_resync *how,
			   struct repl_error *error);

int __wrap_role_find(struct repl_resource *resource, bool offline, struct repl_error *error)
{
	if (fake_of(resource)->primary)
		resource->role = PAIR_PRIMARY;
	return 0;
}

/* It merges still when it is asked first. */
int __wrap_role_promote(struct repl_resource *resource, bool dry_run, struct repl_error *error)
{
	struct fake *fake = fake_of(resource);

	if (!fake->promotions++)
		return error_set(error, REPL_EXIT_REFUSED, "it is merging still");
	fake->primary = true;
	return 0;
}

int __wrap_role_side(const struct repl_resource *resource, unsigned int volume,
		     struct repl_side *side, struct repl_error *error)
{
	*side = fake_of(resource)->side;
	return 0;
}

int __wrap_role_adopt(const struct repl_resource *resource, struct repl_error *error)
{
	fake_of(resource)->adopted++;
	return 0;
}

static struct fake *fake_here(unsigned int nr)
{
	return &fakes[!strcmp(getenv("REPLCTL_HOST"), "beta")][nr];
}

static uint64_t sectors(unsigned int nr)
{
	return (fake_here(nr)->changes ?: 1200) * 16ull;
}

/* Regions of 8 sectors, each the second, in answers of 500. */
int __wrap_dm_message(const char *name, const char *message, char *answer, size_t size,
		      struct repl_error *error)
{
	unsigned long long from, at, all = sectors(name[1] - '0');
	size_t used = 0;

	if (sscanf(message, "dirty extents dirty %llu", &from) != 1)
		return error_set(error, REPL_EXIT_FAILED, "%s: no such message", message);
	for (at = from; at < all && at < from + 8000; at += 16)
		used += snprintf(answer + used, size - used, "%llu 8\n", at);
	snprintf(answer + used, size - used, at < all ? "more %llu\n" : "end\n", at);
	return 0;
}

uint64_t __wrap_blockdev_sectors(const char *path, struct repl_error *error)
{
	return sectors(path[strlen(path) - 1] - '0');
}

int __wrap_resource_kernel(const struct repl_resource *resource, struct pair_kernel *kernel,
			   struct repl_error *error)
{
	const struct fake *fake = fake_of(resource);

	memset(kernel, 0, sizeof(*kernel));
	if (!fake->up)
		return error_set(error, REPL_EXIT_FAILED, "there is no device");
	kernel->checkpoint = fake->checkpoint;
	kernel->oldest = fake->checkpoint;
	kernel->prepared = fake->prepared;
	kernel->running = !fake->over && !fake->blank;
	kernel->blank = fake->blank;
	kernel->over = fake->over;
	kernel->partly_over = fake->over;
	kernel->attached = fake->attached;
	kernel->coming = fake->attached || fake->coming;
	kernel->lost = fake->lost && !fake->attached;
	kernel->never = fake->never;
	kernel->held = fake->held;
	return 0;
}

bool __wrap_resource_exported(const struct repl_resource *resource)
{
	return true;
}

int __wrap_resource_syncfs(const struct repl_resource *resource, struct repl_error *error)
{
	return 0;
}

int __wrap_resource_hold(const struct repl_resource *resource, uint64_t id,
			 struct repl_error *error)
{
	if (fake_of(resource)->overflows) {
		fake_of(resource)->overflows = false;
		fake_of(resource)->coming = true;
		fake_of(resource)->attached = false;
		return error_set(error, REPL_EXIT_FAILED, "it is behind");
	}
	fake_of(resource)->held = true;
	fake_of(resource)->holds++;
	fake_of(resource)->cut = id;
	return 0;
}

int __wrap_resource_cut(const struct repl_resource *resource, uint64_t id,
			struct repl_error *error)
{
	if (fake_of(resource)->no_cut)
		return error_set(error, REPL_EXIT_FAILED, "no cut");
	fake_of(resource)->held = true;
	fake_of(resource)->cut = id;
	return 0;
}

int __wrap_resource_release(const struct repl_resource *resource, uint64_t id,
			    bool committed, struct repl_error *error)
{
	struct fake *fake = fake_of(resource);

	while (fake->stuck_release)
		usleep(10000);
	fake->held = false;
	if (committed && id == fake->cut)
		fake->released = id;
	else
		fake->aborted = id;
	fake->cut = 0;
	return 0;
}

int __wrap_resource_flush(const struct repl_resource *resource, uint64_t id,
			 struct repl_error *error)
{
	while (fake_of(resource)->stuck)
		usleep(10000);
	fake_of(resource)->cut = id;
	return 0;
}

int __wrap_resource_detach(const struct repl_resource *resource, struct repl_error *error)
{
	fake_of(resource)->attached = false;
	return 0;
}

int __wrap_resource_lost_legs(const struct repl_resource *resource, uint64_t *volumes,
			      struct repl_error *error)
{
	*volumes = fake_of(resource)->attached ? 0 : fake_of(resource)->lost;
	return 0;
}

int __wrap_resource_export_anew(const struct repl_resource *resource, uint64_t volumes,
				struct repl_error *error)
{
	fake_of(resource)->ending = true;
	while (fake_of(resource)->stuck)
		usleep(10000);
	fake_of(resource)->ending = false;
	fake_of(resource)->anews++;
	return 0;
}

int __wrap_resource_import(const struct repl_resource *resource, uint64_t volumes,
			   struct repl_error *error)
{
	fake_of(resource)->imports++;
	if (fake_of(resource)->no_way)
		return error_set(error, REPL_EXIT_PEER, "there is no way");
	fake_of(resource)->fresh = volumes;
	while (fake_of(resource)->stuck_import)
		usleep(10000);
	return 0;
}

int __wrap_resource_settle(const struct repl_resource *resource, uint64_t *settled,
			   struct repl_error *error)
{
	fake_of(resource)->settles++;
	while (fake_of(resource)->stuck_settle)
		usleep(10000);
	if (fake_of(resource)->no_settle)
		return error_set(error, REPL_EXIT_FAILED, "no settle");
	*settled |= 1;
	return 0;
}

int __wrap_resource_unsettle(const struct repl_resource *resource, struct repl_error *error)
{
	fake_of(resource)->unsettles++;
	return 0;
}

int __wrap_resource_resync(const struct repl_resource *resource, const struct repl_resync *how,
			   struct repl_error *error)
{
	char path[256], line[64];
	unsigned int nr = 0;
	FILE *f;

	resource_volume_file(resource, 0, "missing", path, sizeof(path));
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		nr++;
	snprintf(fake_of(resource)->missing, 256, "%u, the last: %.60s", nr, nr ? line : "-");
	if (f)
		fclose(f);
	fake_of(resource)->resyncs++;
	fake_of(resource)->settled = how->settled;
	fake_of(resource)->first = how->first;
	fake_of(resource)->attached = !fake_of(resource)->full;
	return 0;
}

int __wrap_resource_prepare(const struct repl_resource *resource, uint64_t id,
			    struct repl_error *error)
{
	if (fake_of(resource)->bad_prepare) {
		fake_of(resource)->bad_prepare = false;
		return error_set(error, REPL_EXIT_FAILED, "no prepare");
	}
	fake_of(resource)->prepared = id;
	if (fake_of(resource)->blank)
		fake_of(resource)->checkpoint = id - 1;
	fake_of(resource)->blank = false;
	return 0;
}

int __wrap_resource_commit(const struct repl_resource *resource, uint64_t id,
			   struct repl_error *error)
{
	while (fake_of(resource)->stuck_commit)
		usleep(10000);
	fake_of(resource)->checkpoint = id;
	fake_of(resource)->prepared = 0;
	return 0;
}

int __wrap_resource_abort(const struct repl_resource *resource, struct repl_error *error)
{
	fake_of(resource)->prepared = 0;
	return 0;
}

int __wrap_resource_failover(const struct repl_resource *resource, struct repl_error *error)
{
	fake_of(resource)->over = true;
	return 0;
}

/* The first attempt fails. */
int __wrap_resource_unexport(const struct repl_resource *resource, struct repl_error *error)
{
	return fake_of(resource)->unexports++ ? 0 :
	       error_set(error, REPL_EXIT_FAILED, "the server does not end");
}

/*
 * ---- Hosts ----
 */

static char dir[] = "/tmp/test-serve-XXXXXX";
static pid_t daemons[2];
static unsigned int port[2];
static struct repl_error error;

static char *path_of(unsigned int host, const char *file)
{
	static char path[4][128];
	static unsigned int nr;
	char *p = path[nr++ % 4];

	snprintf(p, 128, "%s/%s/%s", dir, hosts[host], file);
	return p;
}

static void put_file(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
}

static char *log_of(unsigned int host)
{
	static char text[65536];
	int fd = open(path_of(host, "log"), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n < 0 ? 0 : n] = 0;
	return text;
}

static unsigned int times_in_log(unsigned int host, const char *words)
{
	unsigned int nr = 0;

	for (const char *p = log_of(host); (p = strstr(p, words)); p++)
		nr++;
	return nr;
}

static unsigned int free_port(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(in);

	assert_int_equal(bind(fd, (void *)&in, len), 0);
	getsockname(fd, (void *)&in, &len);
	close(fd);
	return ntohs(in.sin_port);
}

/* The file of r@nr on a host, and its key; @more: lines of [resource]. */
static void configure(unsigned int host, unsigned int nr, unsigned int primary,
		      const char *more)
{
	char text[2048], name[32];

	snprintf(name, sizeof(name), "conf/r%u.key", nr);
	snprintf(text, sizeof(text), "%064x\n", nr + 1);
	put_file(path_of(host, name), text, 0600);
	snprintf(text, sizeof(text),
		 "[resource]\nprimary = %s\n%s%s%s\nheartbeat = 100ms\ndead_after = 2s\n%s\n"
		 "[host alpha]\naddress = tcp:127.0.0.1:%u\n"
		 "[host beta]\naddress = tcp:127.0.0.1:%u\n"
		 "[volume v]\nport = %u\n"
		 "[volume v on alpha]\ndisk = /dev/t-d%u\nhidden = /dev/t-h%u\nactive = /dev/t-a%u\n"
		 "[volume v on beta]\ndisk = /dev/t-d%u\nhidden = /dev/t-h%u\nactive = /dev/t-a%u\n",
		 hosts[primary], strstr(more, "plaintext") ? "" : "key = ",
		 strstr(more, "plaintext") ? "" : path_of(host, name), "", more, port[0], port[1],
		 20000 + nr, nr, nr, nr, nr, nr, nr);
	snprintf(name, sizeof(name), "conf/r%u.conf", nr);
	put_file(path_of(host, name), text, 0600);
}

static void configure_both(unsigned int nr, unsigned int primary, const char *more)
{
	configure(ALPHA, nr, primary, more);
	configure(BETA, nr, primary, more);
}

static void start(unsigned int host, char *const names[], unsigned int nr)
{
	fflush(NULL);
	daemons[host] = fork();
	if (!daemons[host]) {
		struct repl_error why = { REPL_EXIT_OK, "" };
		int r, fd = open(path_of(host, "log"), O_WRONLY | O_CREAT | O_APPEND, 0600);

		dup2(fd, 2);
		close(fd);
		setenv("REPLCTL_HOST", hosts[host], 1);
		setenv("REPLCTL_CONFIG_DIR", path_of(host, "conf"), 1);
		setenv("REPLCTL_RUN_DIR", path_of(host, "run"), 1);
		setenv("REPLCTL_STATE_DIR", dir, 1);
		setenv("REPLCTL_TEST_BOOT_ID", path_of(host, "boot"), 1);
		r = serve(names, nr, &why);
		if (r)
			fprintf(stderr, "ends: %s\n", why.text);
		if (__lsan_do_recoverable_leak_check())
			_exit(99);
		_exit(r ? why.exit : 0);
	}
}

static void start_both(void)
{
	start(ALPHA, NULL, 0);
	start(BETA, NULL, 0);
}

/* Its exit status. */
static int ended(unsigned int host)
{
	int status;

	assert_int_equal(waitpid(daemons[host], &status, 0), daemons[host]);
	daemons[host] = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int setup(void **state)
{
	memset(fakes, 0, 2 * sizeof(*fakes));
	for (unsigned int host = 0; host < 2; host++) {
		mkdir(path_of(host, ""), 0700);
		mkdir(path_of(host, "conf"), 0700);
		put_file(path_of(host, "boot"), "00112233-4455-6677-8899-aabbccddeeff\n", 0600);
		port[host] = free_port();
		for (unsigned int i = 0; i < RESOURCES; i++) {
			fakes[host][i].up = true;
			fakes[host][i].attached = true;
		}
	}
	return 0;
}

static int teardown(void **state)
{
	char command[64];
	int bad = 0;

	for (unsigned int host = 0; host < 2; host++)
		if (daemons[host])
			kill(daemons[host], SIGTERM);
	for (unsigned int host = 0; host < 2; host++)
		if (daemons[host] && ended(host)) {
			print_message("# %s:\n%s", hosts[host], log_of(host));
			bad = 1;
		}
	snprintf(command, sizeof(command), "rm -rf %s/*", dir);
	return system(command) || bad;
}

/*
 * ---- What is asked ----
 */

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static void keep_line(struct json_object *line, void *context)
{
	char *text = context;

	snprintf(text, LINE_MAX_, "%s",
		 json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN));
}

/* Return: as control_call(); @text: the last line, LINE_MAX_ bytes. */
static int ask(unsigned int host, const char *verb, const char *name, char *text)
{
	struct json_object *request = json_object_new_object();
	char line[LINE_MAX_] = "";
	int r;

	memset(&error, 0, sizeof(error));
	json_object_object_add(request, "verb", json_object_new_string(verb));
	json_object_object_add(request, "resource", json_object_new_string(name));
	r = control_call(path_of(host, "run/" REPL_CONTROL_FILE), request, WAIT_MS, keep_line,
			 text ? text : line, &error);
	json_object_put(request);
	return r;
}

static void complain(const char *what)
{
	print_message("# waits for %s\n# alpha:\n%s# beta:\n", what, log_of(ALPHA));
	print_message("%s", log_of(BETA));
}

#define run_until(condition) do {						\
	uint64_t end_ = now() + WAIT_MS;					\
	while (!(condition)) {							\
		if (now() > end_)						\
			complain(#condition);					\
		assert_true(now() < end_);					\
		usleep(20000);							\
	}									\
} while (0)

static bool status_has(unsigned int host, const char *name, const char *words)
{
	char text[LINE_MAX_] = "";

	if (ask(host, "status", name, text))
		return strstr(error.text, words);
	return strstr(text, words);
}

static void connected(const char *name)
{
	run_until(status_has(ALPHA, name, "\"connection\":\"connected\""));
	run_until(status_has(BETA, name, "\"connection\":\"connected\""));
}

/* And it is over: who asked is told before the release, with which the journal goes. */
static void checkpoint(unsigned int host, const char *name)
{
	uint64_t was = fakes[!host][name[1] - '0'].checkpoint;

	if (ask(host, "checkpoint", name, NULL)) {
		complain(error.text);
		fail_msg("%s", error.text);
	}
	assert_true(fakes[!host][name[1] - '0'].checkpoint > was);
	run_until(status_has(host, name, "\"phase\":\"idle\""));
}

/*
 * ---- Tests ----
 */

/* Opposite primaries, and one port on each host. */
static void two_resources(void **state)
{
	configure_both(0, ALPHA, "save = /bin/echo state\nload = /bin/cat");
	configure_both(1, BETA, "");
	start_both();
	connected("r0");
	connected("r1");
	checkpoint(ALPHA, "r0");
	checkpoint(BETA, "r1");
	checkpoint(ALPHA, "r0");
	/* What waits behind the cut goes when the peer has what is before it. */
	run_until(fakes[ALPHA][0].released == 2 && !fakes[ALPHA][0].held);
	assert_int_equal(fakes[ALPHA][0].aborted, 0);
	assert_int_equal(fakes[BETA][0].checkpoint, 2);
	assert_int_equal(fakes[ALPHA][1].checkpoint, 1);
	assert_int_equal(fakes[ALPHA][0].checkpoint, 0);
	assert_int_equal(ask(BETA, "failover", "r0", NULL), 0);
	run_until(status_has(ALPHA, "r0", "diverged"));
	assert_true(status_has(ALPHA, "r1", "\"connection\":\"connected\""));
	checkpoint(BETA, "r1");
	/* Its server goes, and that is tried until it has. */
	run_until(fakes[BETA][0].unexports == 2);
	assert_int_equal(times_in_log(BETA, "the server does not end"), 1);
	assert_int_equal(fakes[ALPHA][0].unexports, 0);
}

/* The secondary asks for it, and hears how it went. */
static void asked_by_secondary(void **state)
{
	configure_both(0, ALPHA, "save = /bin/echo state\nload = /bin/cat");
	start(BETA, NULL, 0);
	run_until(status_has(BETA, "r0", "\"connection\""));
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_PEER);
	start(ALPHA, NULL, 0);
	connected("r0");
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), 0);
	assert_int_equal(fakes[BETA][0].checkpoint, 1);
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), 0);
	assert_int_equal(fakes[BETA][0].checkpoint, 2);

	configure(BETA, 0, ALPHA, "load = /bin/false");
	assert_int_equal(ask(BETA, "reload", "r0", NULL), 0);
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_FAILED);
	assert_non_null(strstr(error.text, "the load hook ended with status 1"));
	assert_int_equal(fakes[BETA][0].checkpoint, 2);
	/* And if it has not, it is dirty again. */
	run_until(fakes[ALPHA][0].aborted == 3);
	assert_int_equal(fakes[ALPHA][0].released, 2);

	/* Without a connection it is degraded, and says no. */
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	fakes[ALPHA][0].attached = false;
	start(ALPHA, NULL, 0);
	connected("r0");
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);
	assert_string_equal(error.text, "peer: the peer has missed writes: it needs a resync");
	assert_int_equal(ask(BETA, "failover", "r0", NULL), 0);
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), -1);
	assert_string_equal(error.text, "this side has failed over");
}

static void killed(void **state)
{
	configure_both(0, ALPHA, "");
	configure_both(1, BETA, "");
	start_both();
	connected("r0");
	connected("r1");
	checkpoint(ALPHA, "r0");
	kill(daemons[BETA], SIGKILL);
	assert_int_equal(ended(BETA), -SIGKILL);
	start(BETA, NULL, 0);
	connected("r0");
	connected("r1");
	checkpoint(ALPHA, "r0");
	checkpoint(BETA, "r1");
}

/*
 * The peer's daemon comes back, on the same boot of its host or on another: then what the
 * host had in its cache is gone, and the kernel here has seen nothing of that.
 */
static void rebooted(void **state)
{
	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	start(BETA, NULL, 0);
	connected("r0");
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);

	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	put_file(path_of(BETA, "boot"), "00112233-4455-6677-8899-aabbccddee00\n", 0600);
	start(BETA, NULL, 0);
	/* (Or it is connected still: then that one is closed.) */
	run_until(times_in_log(ALPHA, "beta has been rebooted"));
	run_until(fakes[ALPHA][0].resyncs == 1);
	run_until(status_has(ALPHA, "r0", "\"degraded\":false"));
	connected("r0");
	checkpoint(ALPHA, "r0");

	/* What it knows outlives the daemon; what it does not know, too. */
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	start(ALPHA, NULL, 0);
	connected("r0");
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[ALPHA][0].resyncs, 1);
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	put_file(path_of(BETA, "boot"), "00112233-4455-6677-8899-aabbccddee01\n", 0600);
	start_both();
	run_until(fakes[ALPHA][0].resyncs == 2);
	run_until(status_has(ALPHA, "r0", "\"degraded\":false"));
	checkpoint(ALPHA, "r0");
	assert_int_equal(times_in_log(ALPHA, "has been rebooted"), 2);
}

/* Nothing is connected, by whomever, before what was sent of old cannot be written any more. */
static void old_writes(void **state)
{
	pid_t asks;
	int status;

	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	for (unsigned int by_hand = 0; by_hand < 2; by_hand++) {
		unsigned int imports = fakes[ALPHA][0].imports;

		fakes[BETA][0].anews = 0;
		fakes[BETA][0].stuck = true;
		if (by_hand)
			fakes[ALPHA][0].never = true;
		fakes[ALPHA][0].attached = false;
		fakes[ALPHA][0].lost = true;
		fflush(NULL);
		asks = fork();
		if (!asks)
			_exit(by_hand ? ask(ALPHA, "anew", "r0", NULL) :
			      ask(ALPHA, "synced", "r0", NULL));	/* it looks */
		run_until(fakes[BETA][0].ending);
		assert_int_equal(fakes[ALPHA][0].imports, imports);
		assert_int_equal(waitpid(asks, &status, by_hand ? WNOHANG : 0), by_hand ? 0 : asks);
		fakes[BETA][0].stuck = false;
		if (by_hand) {
			assert_int_equal(waitpid(asks, &status, 0), asks);
			assert_int_equal(status, 0);
			fakes[ALPHA][0].never = false;
			assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);	/* it looks */
		}
		run_until(fakes[ALPHA][0].imports > imports);
		run_until(status_has(ALPHA, "r0", "\"degraded\":false"));
		assert_true(fakes[BETA][0].anews);
		assert_int_equal(fakes[ALPHA][0].fresh, 1);
		checkpoint(ALPHA, "r0");
	}
}

/* The peer lets the leg fail, again: how long it is until the next resync, in ms. */
static uint64_t again(unsigned int resyncs)
{
	uint64_t begin = now();

	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[ALPHA][0].resyncs == resyncs);
	run_until(status_has(ALPHA, "r0", "\"degraded\":false"));
	return now() - begin;
}

/* A peer whose disk is full takes nothing, whenever it is sent all again. */
static void full_disk(void **state)
{
	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	fakes[ALPHA][0].lost = true;
	again(1);
	again(2);
	assert_true(again(3) >= 3000);		/* (by a clock of 2 s) */
	checkpoint(ALPHA, "r0");		/* it has taken it */
	assert_true(again(4) < 3000);

	/* All was sent last time: who asks for a checkpoint waits until it has been again. */
	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), 0);
	assert_int_equal(fakes[ALPHA][0].resyncs, 5);

	/* It was not: who asks does not wait for the next one. */
	fakes[ALPHA][0].full = true;
	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[ALPHA][0].resyncs == 6);
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);

	/* Nor can it be sent anything: the status says why. */
	fakes[ALPHA][0].no_way = true;
	run_until(status_has(ALPHA, "r0", "\"behind_because\":\"there is no way\""));
	fakes[ALPHA][0].no_way = false;
	fakes[ALPHA][0].full = false;
	run_until(status_has(ALPHA, "r0", "\"behind_because\":null"));
	checkpoint(ALPHA, "r0");
}

static void hup(unsigned int host)
{
	unsigned int was = times_in_log(host, "configuration was read again") +
			   times_in_log(host, "goes on as before");

	kill(daemons[host], SIGHUP);
	run_until(times_in_log(host, "configuration was read again") +
		  times_in_log(host, "goes on as before") > was);
}

/* What the peer misses is on its way: a checkpoint waits for it, on either side. */
static void coming(void **state)
{
	uint64_t was, begin;
	pid_t asks[2];
	int status;

	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].coming = true;
	fflush(NULL);
	for (unsigned int host = 0; host < 2; host++) {
		asks[host] = fork();
		if (!asks[host])
			_exit(ask(host, "checkpoint", "r0", NULL) ? 1 : 0);
		run_until(status_has(ALPHA, "r0", "\"degraded\":true"));
	}
	assert_int_equal(waitpid(asks[ALPHA], &status, WNOHANG), 0);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	for (unsigned int host = 0; host < 2; host++) {
		assert_int_equal(waitpid(asks[host], &status, 0), asks[host]);
		assert_int_equal(status, 0);
	}
	run_until(status_has(ALPHA, "r0", "\"degraded\":false"));

	/* Just before the cut, when nobody looks any more. */
	fakes[ALPHA][0].overflows = true;
	fflush(NULL);
	asks[0] = fork();
	if (!asks[0])
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) ? 1 : 0);
	run_until(!fakes[ALPHA][0].overflows && !fakes[ALPHA][0].attached);
	assert_int_equal(waitpid(asks[0], &status, WNOHANG), 0);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(waitpid(asks[0], &status, 0), asks[0]);
	assert_int_equal(status, 0);

	/* A periodic one that was due in the meantime comes as soon as it has caught up. */
	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	was = fakes[BETA][0].checkpoint;
	configure(ALPHA, 0, ALPHA, "interval = 4s");
	hup(ALPHA);
	begin = now();
	run_until(now() - begin > 4500);
	assert_int_equal(fakes[BETA][0].checkpoint, was);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[BETA][0].checkpoint > was);
	assert_in_range(now() - begin, 4500, 7500);
	/* And not two, if somebody has asked for one as well. */
	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	was = fakes[BETA][0].checkpoint;
	begin = now();
	run_until(now() - begin > 4500);
	fflush(NULL);
	asks[0] = fork();
	if (!asks[0])
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) ? 1 : 0);
	usleep(300000);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	assert_int_equal(waitpid(asks[0], &status, 0), asks[0]);
	assert_int_equal(status, 0);
	begin = now();
	run_until(now() - begin > 2000);
	assert_int_equal(fakes[BETA][0].checkpoint, was + 1);
	configure(ALPHA, 0, ALPHA, "");
	hup(ALPHA);

	/* It comes no more: no longer. */
	fakes[ALPHA][0].attached = false;
	fflush(NULL);
	asks[0] = fork();
	if (!asks[0])
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) == -1 &&
		      error.exit == REPL_EXIT_REFUSED ? 0 : 1);
	run_until(status_has(ALPHA, "r0", "\"degraded\":true"));
	fakes[ALPHA][0].coming = false;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	assert_int_equal(waitpid(asks[0], &status, 0), asks[0]);
	assert_int_equal(status, 0);

	/* The resync has still to begin. */
	fakes[ALPHA][0].lost = true;
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[ALPHA][0].resyncs, 1);
	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), 0);
	assert_int_equal(fakes[ALPHA][0].resyncs, 2);
}

/* What a daemon does by its clock, it has had the time for. */
static void two_ticks(void)
{
	uint64_t begin = now();

	run_until(now() - begin > 4500);
}

/* At each tick of the clock a resync is noted; @blank: the secondary has no checkpoint yet. */
static void start_settling(bool blank)
{
	configure_both(0, ALPHA, "");
	fakes[BETA][0].blank = blank;
	setenv("REPLCTL_TEST_SETTLE_MS", "0", 1);
	start_both();
	unsetenv("REPLCTL_TEST_SETTLE_MS");
	connected("r0");
}

/* A resync is under way on alpha, and has been noted once more; then its leg fails. */
static void breaks_off(const char *looks)
{
	unsigned int settles = fakes[ALPHA][0].settles, resyncs = fakes[ALPHA][0].resyncs;

	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].lost = false;
	fakes[ALPHA][0].coming = true;
	ask(ALPHA, looks, "r0", NULL);
	run_until(fakes[ALPHA][0].settles >= settles + 2);
	fakes[ALPHA][0].coming = false;
	fakes[ALPHA][0].lost = true;
	run_until(fakes[ALPHA][0].resyncs == resyncs + 1);
	run_until(status_has(ALPHA, "r0", "\"degraded\":false"));
}

/*
 * What a resync has brought to the peer for good is not sent again when it is broken off: if
 * it is the same peer, and there was no checkpoint since.
 */
static void settling(void **state)
{
	start_settling(false);
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[ALPHA][0].settles, 0);
	breaks_off("synced");
	assert_int_equal(fakes[ALPHA][0].settled, 1);
	fakes[ALPHA][0].no_settle = true;
	breaks_off("synced");
	assert_int_equal(fakes[ALPHA][0].settled, 1);
	fakes[ALPHA][0].no_settle = false;

	assert_int_equal(fakes[ALPHA][0].unsettles, 1);		/* at the start */
	checkpoint(ALPHA, "r0");
	run_until(fakes[ALPHA][0].unsettles == 2);
	fakes[ALPHA][0].no_settle = true;
	breaks_off("synced");
	assert_int_equal(fakes[ALPHA][0].settled, 0);
	fakes[ALPHA][0].no_settle = false;
	checkpoint(ALPHA, "r0");

	/* A connection more or less changes nothing; another daemon of its may not know. */
	breaks_off("synced");
	assert_int_equal(fakes[ALPHA][0].settled, 1);
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].lost = true;
	start(BETA, NULL, 0);
	connected("r0");
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);	/* it looks */
	run_until(fakes[ALPHA][0].attached);
	assert_int_equal(fakes[ALPHA][0].settled, 0);
}

/* The first sync, too: then there is the first checkpoint by itself. */
static void settling_first(void **state)
{
	start_settling(true);
	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].lost = true;
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);	/* it looks */
	run_until(times_in_log(ALPHA, "sync --full") > 0);
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);
	breaks_off("checkpoint");
	assert_int_equal(fakes[ALPHA][0].settled, 1);
	assert_true(fakes[ALPHA][0].first);
	run_until(fakes[BETA][0].checkpoint);
	run_until(status_has(ALPHA, "r0", "\"phase\":\"idle\""));

	/* Another disk, later: that one has had nothing. (The leg looks well.) */
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	fakes[BETA][0].blank = true;
	fakes[BETA][0].checkpoint = 0;
	start(BETA, NULL, 0);
	connected("r0");
	two_ticks();
	assert_int_equal(fakes[BETA][0].checkpoint, 0);
}

/* Its host is rebooted in its first sync: what that has cost nobody has noted. */
static void settling_rebooted(void **state)
{
	unsigned int settles;

	start_settling(true);
	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].coming = true;
	ask(ALPHA, "checkpoint", "r0", NULL);		/* it looks */
	run_until(fakes[ALPHA][0].settles);
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	put_file(path_of(BETA, "boot"), "00112233-4455-6677-8899-aabbccddee03\n", 0600);
	start(BETA, NULL, 0);
	run_until(times_in_log(ALPHA, "beta has been rebooted"));
	settles = fakes[ALPHA][0].settles;
	two_ticks();
	assert_int_equal(fakes[ALPHA][0].settles, settles);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	two_ticks();
	assert_int_equal(fakes[BETA][0].checkpoint, 0);
}

/* A checkpoint does not begin while the worker waits for the peer's disk. */
static void settling_long(void **state)
{
	int status;
	pid_t asks;

	start_settling(false);
	checkpoint(ALPHA, "r0");
	fakes[ALPHA][0].stuck_settle = true;
	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].coming = true;
	fflush(NULL);
	asks = fork();
	if (!asks)
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) ? 1 : 0);
	run_until(fakes[ALPHA][0].settles);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);	/* it looks */
	assert_int_equal(waitpid(asks, &status, WNOHANG), 0);
	assert_true(status_has(ALPHA, "r0", "\"phase\":\"idle\""));
	fakes[ALPHA][0].stuck_settle = false;
	assert_int_equal(waitpid(asks, &status, 0), asks);
	assert_int_equal(status, 0);
	assert_int_equal(times_in_log(ALPHA, "an operation is under way"), 0);
}

/* Alpha has taken over at checkpoint 7, and beta returns, with so many changes of its own. */
static void configure_return(char lineage, unsigned int changes)
{
	configure_both(0, ALPHA, "");
	memset(fakes[ALPHA][0].side.lineage, 'b', LINEAGE_SIZE);
	memset(fakes[ALPHA][0].side.parent, 'a', LINEAGE_SIZE);
	fakes[ALPHA][0].side.fork = 7;
	fakes[ALPHA][0].side.checkpoint = 7;
	fakes[ALPHA][0].attached = false;
	fakes[BETA][0].blank = true;
	fakes[BETA][0].checkpoint = 7;
	memset(fakes[BETA][0].side.lineage, lineage, LINEAGE_SIZE);
	fakes[BETA][0].side.checkpoint = 7;
	fakes[BETA][0].side.dirty = changes;
	fakes[BETA][0].side.discard = true;
}

/*
 * The old primary returns, demoted: what either has changed is sent, and its first
 * checkpoint comes by itself. One that is nobody's is left to a person.
 */
static void returning(void **state)
{
	configure_return('x', 1200);
	start_both();
	run_until(times_in_log(ALPHA, "the disks have no history in common"));
	run_until(times_in_log(BETA, "the disks have no history in common"));
	connected("r0");
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);

	memset(fakes[BETA][0].side.lineage, 'a', LINEAGE_SIZE);
	fakes[BETA][0].bad_prepare = true;	/* it is tried again */
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	start(BETA, NULL, 0);
	/* 7 was the last, so 8 is what the primary's disk has, and 9 a checkpoint. */
	run_until(fakes[BETA][0].checkpoint == 9);
	assert_int_equal(times_in_log(ALPHA, "the old primary returns"), 1);
	assert_true(times_in_log(BETA, "no prepare"));
	assert_int_equal(fakes[ALPHA][0].resyncs, 1);
	assert_string_equal(fakes[ALPHA][0].missing, "1200, the last: 19184 8\n");
	run_until(fakes[BETA][0].adopted == 1);	/* (a step behind the commit) */
	run_until(status_has(ALPHA, "r0", "\"checkpoint\":9"));
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[BETA][0].checkpoint, 10);
	assert_int_equal(fakes[BETA][0].adopted, 1);
}

/* It has changed more than the primary wants to hear: that gets less exact, and is enough. */
static void many_changes(void **state)
{
	configure_return('a', 1200000);
	fakes[ALPHA][0].changes = 1200000;
	fakes[BETA][0].changes = 1200000;
	start_both();
	run_until(fakes[BETA][0].checkpoint == 9);
	/* Half a million as they are; the others are 8 sectors apart. */
	assert_string_equal(fakes[ALPHA][0].missing, "500001, the last: 8000000 11199992\n");
	assert_false(times_in_log(ALPHA, "too many"));
}

/* A new disk: when somebody has had all of it sent, it begins, and not before. */
static void new_disk(void **state)
{
	configure_both(0, ALPHA, "");
	memset(fakes[ALPHA][0].side.lineage, 'a', LINEAGE_SIZE);
	fakes[ALPHA][0].side.checkpoint = 9;
	fakes[ALPHA][0].side.pending = 10;	/* of somebody else: not once more */
	fakes[BETA][0].blank = true;
	start_both();
	connected("r0");
	run_until(times_in_log(ALPHA, "the secondary's disk is new"));
	assert_true(status_has(ALPHA, "r0", "\"apart\":\"the secondary's disk is new"));
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	assert_string_equal(error.text,
			    "the secondary has no first checkpoint: 'replctl sync --full' here, or 'replctl up --in-sync' there");
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[BETA][0].checkpoint == 12);
	run_until(status_has(ALPHA, "r0", "\"checkpoint\":12"));
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);
	assert_true(status_has(ALPHA, "r0", "\"apart\":null"));
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	start(ALPHA, NULL, 0);
	connected("r0");
	assert_true(status_has(BETA, "r0", "\"apart\":null"));
}

/* A sync is refused, and with it comes why, and what to type. */
static void no_sync(const char *verb, const char *why)
{
	char text[LINE_MAX_] = "";

	assert_int_equal(ask(ALPHA, verb, "r0", text), -1);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);
	assert_non_null(strstr(error.text, "nothing is sent to the peer: "));
	assert_non_null(strstr(error.text, why));
	assert_non_null(strstr(text, "to keep what alpha has: on "));
	assert_non_null(strstr(text, "to keep what beta has: on "));
}

/*
 * The two are apart, @why, and there is no checkpoint before all was sent over; @todo: for
 * that. Both sides say so.
 */
static void only_with_all(const char *why, const char *todo)
{
	for (unsigned int host = 0; host < 2; host++) {
		run_until(times_in_log(host, why));
		run_until(times_in_log(host, todo));
		run_until(status_has(host, "r0", why));
	}
	no_sync("sync", why);
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	assert_string_equal(error.text,
			    "the peer's checkpoint is not the last one: 'replctl sync --full'");
	assert_int_equal(fakes[BETA][0].checkpoint, 7);
}

/* An older image on either side: no checkpoint before all of it was sent over. */
static void restored(void **state)
{
	configure_both(0, ALPHA, "");
	for (unsigned int host = 0; host < 2; host++)
		memset(fakes[host][0].side.lineage, 'a', LINEAGE_SIZE);
	fakes[ALPHA][0].side.checkpoint = 9;
	fakes[BETA][0].side.checkpoint = 7;
	fakes[BETA][0].checkpoint = 7;
	start_both();
	connected("r0");
	only_with_all("the secondary has lost a checkpoint that it had acknowledged",
		      "to keep what alpha has: on alpha 'replctl sync --full r0'");
	/* An older image of ours: nothing is lost by that. */
	assert_int_equal(ask(ALPHA, "sync-full", "r0", NULL), 0);
	/* No id once more that our disk knows. */
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[BETA][0].checkpoint == 10);
	run_until(status_has(ALPHA, "r0", "\"checkpoint\":10"));
	run_until(status_has(ALPHA, "r0", "\"phase\":\"idle\""));
	assert_true(status_has(ALPHA, "r0", "\"apart\":null"));
	run_until(status_has(BETA, "r0", "\"apart\":null"));
	assert_int_equal(ask(ALPHA, "sync", "r0", NULL), 0);

	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	fakes[ALPHA][0].side.checkpoint = 5;
	fakes[BETA][0].side.checkpoint = 10;
	start(ALPHA, NULL, 0);
	run_until(times_in_log(ALPHA, "the primary has an older image than the secondary"));
	run_until(times_in_log(BETA, "the primary has an older image than the secondary"));
	connected("r0");
	/* The newer one is lost by it: not without its host's word. */
	no_sync("sync", "the primary has an older image");
	no_sync("sync-full", "the primary has an older image");
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(fakes[BETA][0].checkpoint, 10);

	/* An answer that was lost is no other image. */
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	fakes[ALPHA][0].side.checkpoint = 9;
	fakes[ALPHA][0].side.pending = 10;
	start(ALPHA, NULL, 0);
	connected("r0");
	assert_true(status_has(BETA, "r0", "\"apart\":null"));
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[BETA][0].checkpoint, 11);
}

/* A leg that nobody has found dead yet is no word for who has come to its address since. */
static void another_boot(void **state)
{
	configure_both(0, ALPHA, "");
	memset(fakes[ALPHA][0].side.lineage, 'a', LINEAGE_SIZE);
	memset(fakes[BETA][0].side.lineage, 'd', LINEAGE_SIZE);
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	put_file(path_of(BETA, "boot"), "00112233-4455-6677-8899-aabbccddee02\n", 0600);
	start(BETA, NULL, 0);
	run_until(status_has(ALPHA, "r0", "the disks have no history in common"));
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);
	no_sync("sync", "the disks have no history in common");
}

/*
 * A secondary goes on with somebody else's history: nothing is sent by itself, and its ids
 * say nothing of ours. But who says that both hold the same has the data leg attached.
 */
static void foreign(void **state)
{
	pid_t asks;
	int status;

	configure_both(0, ALPHA, "");
	memset(fakes[ALPHA][0].side.lineage, 'a', LINEAGE_SIZE);
	memset(fakes[BETA][0].side.lineage, 'd', LINEAGE_SIZE);
	fakes[ALPHA][0].side.checkpoint = 7;
	fakes[BETA][0].side.checkpoint = 7;
	fakes[BETA][0].checkpoint = 7;
	fakes[ALPHA][0].attached = false;
	start_both();
	connected("r0");
	only_with_all("the disks have no history in common",
		      "to keep what alpha has: on beta 'replctl demote --discard-local r0', then on alpha 'replctl sync --full r0'");
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);
	no_sync("sync-full", "the disks have no history in common");
	/* Its host agrees. */
	kill(daemons[BETA], SIGTERM);
	assert_int_equal(ended(BETA), 0);
	fakes[BETA][0].side.discard = true;
	start(BETA, NULL, 0);
	run_until(status_has(ALPHA, "r0", "to keep what alpha has: on alpha 'replctl sync --full r0'"));
	no_sync("sync", "the disks have no history in common");
	assert_int_equal(ask(ALPHA, "sync-full", "r0", NULL), 0);
	/* All of it was sent over. */
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[BETA][0].checkpoint == 8);
	run_until(fakes[BETA][0].adopted == 1);
	run_until(status_has(ALPHA, "r0", "\"phase\":\"idle\""));

	/* The operator's word. */
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	start(ALPHA, NULL, 0);
	connected("r0");
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[BETA][0].checkpoint, 9);

	/* It takes the place of one that owes us an answer. */
	fakes[BETA][0].side.lineage[0] = 'a';
	fakes[BETA][0].stuck_commit = true;
	fflush(NULL);
	asks = fork();
	if (!asks)
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) &&
		      !strcmp(error.text, "the peer is another one") ? 0 : 1);
	run_until(status_has(BETA, "r0", "\"phase\":\"committing\""));
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	fakes[BETA][0].checkpoint = 20;
	fakes[BETA][0].prepared = 0;
	fakes[BETA][0].side.lineage[0] = 'd';
	fakes[BETA][0].stuck_commit = false;
	fakes[ALPHA][0].attached = false;
	start(BETA, NULL, 0);
	assert_int_equal(waitpid(asks, &status, 0), asks);
	assert_int_equal(status, 0);
	assert_int_equal(fakes[BETA][0].checkpoint, 20);

	/* Ours comes back, and goes on. */
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	fakes[BETA][0].checkpoint = 9;
	fakes[BETA][0].side.lineage[0] = 'a';
	fakes[ALPHA][0].attached = true;
	start(BETA, NULL, 0);
	connected("r0");
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[BETA][0].checkpoint, 10);
}

/*
 * The peer is back, and its disk is being connected, which takes a while: in that time a
 * stranger comes in its place. What was missed is not sent to that one.
 */
static void another_meanwhile(void **state)
{
	configure_both(0, ALPHA, "");
	for (unsigned int host = 0; host < 2; host++) {
		memset(fakes[host][0].side.lineage, 'a', LINEAGE_SIZE);
		fakes[host][0].side.checkpoint = 7;
		fakes[host][0].checkpoint = 7;
	}
	fakes[ALPHA][0].attached = false;
	fakes[ALPHA][0].lost = true;
	fakes[ALPHA][0].stuck_import = true;
	start_both();
	connected("r0");
	run_until(fakes[ALPHA][0].imports == 1);
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	memset(fakes[BETA][0].side.lineage, 'd', LINEAGE_SIZE);
	start(BETA, NULL, 0);
	run_until(times_in_log(ALPHA, "the disks have no history in common"));
	fakes[ALPHA][0].stuck_import = false;
	usleep(3000000);	/* more than until it would be tried again */
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);
	assert_int_equal(fakes[ALPHA][0].imports, 1);

	/* Ours is back. */
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	memset(fakes[BETA][0].side.lineage, 'a', LINEAGE_SIZE);
	start(BETA, NULL, 0);
	run_until(fakes[ALPHA][0].resyncs == 1);
	assert_int_equal(fakes[ALPHA][0].imports, 2);
}

#define TWO_VOLUMES "[volume w]\nport = 20100\n" \
	"[volume w on alpha]\ndisk = /dev/t-d9\nhidden = /dev/t-h9\nactive = /dev/t-a9\n" \
	"[volume w on beta]\ndisk = /dev/t-d9\nhidden = /dev/t-h9\nactive = /dev/t-a9"

/*
 * A failover while the primary lives, and no promotion yet: both say what to do, once, and
 * meet again by themselves, so that it can be done.
 */
static void failed_over(void **state)
{
	static const char * const words[] = {
		"r0: the secondary has failed over",
		"alpha: history 61616161, checkpoint 7, 131072 bytes changed since",
		"beta: history 62626262, checkpoint 7, which left 61616161 at checkpoint 7, 262144 bytes changed since",
		"to keep what alpha has: on beta 'replctl wait r0 merged' and 'replctl demote --discard-local r0', then on alpha 'replctl sync --full r0'",
		"to keep what beta has: on alpha 'replctl demote --discard-local r0', then on beta 'replctl failover r0', 'replctl wait r0 merged' and 'replctl promote r0'",
		"the last checkpoint was at ",
	};

	configure_both(0, ALPHA, TWO_VOLUMES);
	for (unsigned int host = 0; host < 2; host++) {
		memset(fakes[host][0].side.lineage, 'a', LINEAGE_SIZE);
		fakes[host][0].side.checkpoint = 6;
		fakes[host][0].checkpoint = 6;
	}
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	for (unsigned int host = 0; host < 2; host++)
		fakes[host][0].side.checkpoint = 7;
	fakes[ALPHA][0].side.dirty = 1;
	memset(fakes[BETA][0].side.lineage, 'b', LINEAGE_SIZE);
	memset(fakes[BETA][0].side.parent, 'a', LINEAGE_SIZE);
	fakes[BETA][0].side.fork = 7;
	fakes[BETA][0].side.dirty = 2;
	assert_int_equal(ask(BETA, "failover", "r0", NULL), 0);
	for (unsigned int host = 0; host < 2; host++)
		for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			run_until(times_in_log(host, words[i]) == 1);
	run_until(status_has(ALPHA, "r0", "\"connection\":\"diverged\""));
	assert_true(status_has(ALPHA, "r0", "\"apart\":\"the secondary has failed over"));
	assert_true(status_has(BETA, "r0", "\"apart\":\"the secondary has failed over"));
	no_sync("sync", "the secondary has failed over");
	no_sync("sync-full", "the secondary has failed over");

	/* The status goes on, the log does not. */
	fakes[ALPHA][0].side.dirty = 3;
	for (unsigned int host = 0; host < 2; host++) {
		run_until(status_has(host, "r0", "393216 bytes changed since"));
		assert_int_equal(times_in_log(host, words[0]), 1);
		assert_int_equal(times_in_log(host, "bytes changed since"), 2);
		assert_int_equal(times_in_log(host, "connected to"), 1 + !host);
	}

	/* Its host gives up what it has. */
	assert_int_equal(ask(BETA, "release", "r0", NULL), 0);
	fakes[BETA][0].over = false;
	fakes[BETA][0].blank = true;
	fakes[BETA][0].side.discard = true;
	assert_int_equal(ask(BETA, "reload", "r0", NULL), 0);
	connected("r0");
	no_sync("sync", "the secondary has failed over");
	assert_int_equal(ask(ALPHA, "sync-full", "r0", NULL), 0);
	fakes[ALPHA][0].attached = true;
	assert_int_equal(ask(ALPHA, "synced", "r0", NULL), 0);
	run_until(fakes[BETA][0].checkpoint == 9);
	run_until(status_has(ALPHA, "r0", "\"apart\":null"));
	run_until(status_has(ALPHA, "r0", "\"phase\":\"idle\""));
	assert_true(status_has(ALPHA, "r0", "\"failed_over\":false"));
	assert_int_equal(fakes[ALPHA][0].resyncs, 0);
}

/* Whose disk the peer's is nobody knows before the two have met: that is waited for. */
static void sync_alone(void **state)
{
	pid_t asks;
	int status;

	configure_both(0, ALPHA, "");
	start(ALPHA, NULL, 0);
	run_until(status_has(ALPHA, "r0", "\"connection\""));
	assert_int_equal(ask(ALPHA, "sync-full", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_PEER);
	assert_non_null(strstr(error.text, "nobody knows whose disk the peer's is: "));
	fflush(NULL);
	asks = fork();
	if (!asks)
		_exit(ask(ALPHA, "sync", "r0", NULL) ? 1 : 0);
	start(BETA, NULL, 0);
	assert_int_equal(waitpid(asks, &status, 0), asks);
	assert_int_equal(status, 0);
	assert_int_equal(ask(BETA, "sync", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);
}

/* Both say who has taken over, what each has, and what to type; and try again later. */
static void two_primaries(void **state)
{
	static const char * const words[] = {
		"both hosts are primary: beta has taken over at checkpoint 7",
		"alpha: history 61616161, checkpoint 7, 65536 bytes changed since",
		"to keep what beta has: on alpha 'replctl demote --discard-local r0'",
		"to keep what alpha has: on beta 'replctl demote --discard-local r0', then on alpha 'replctl sync --full r0'",
	};

	configure(ALPHA, 0, ALPHA, "");
	configure(BETA, 0, BETA, "");
	memset(fakes[ALPHA][0].side.lineage, 'a', LINEAGE_SIZE);
	fakes[ALPHA][0].side.checkpoint = 7;
	fakes[ALPHA][0].side.dirty = 1;
	memset(fakes[BETA][0].side.lineage, 'b', LINEAGE_SIZE);
	memset(fakes[BETA][0].side.parent, 'a', LINEAGE_SIZE);
	fakes[BETA][0].side.fork = 7;
	fakes[BETA][0].side.checkpoint = 7;
	start_both();
	for (unsigned int host = 0; host < 2; host++)
		for (unsigned int i = 0; i < 4; i++)
			run_until(times_in_log(host, words[i]) == 1);
	run_until(status_has(ALPHA, "r0", "beta has taken over at checkpoint 7"));
	run_until(status_has(BETA, "r0", "beta has taken over at checkpoint 7"));
	run_until(status_has(ALPHA, "r0", "\"connection\":\"diverged\""));
	run_until(status_has(BETA, "r0", "\"connection\":\"disconnected\""));
	/* Neither is a disk to write to. */
	for (unsigned int host = 0; host < 2; host++) {
		assert_int_equal(ask(host, "sync", "r0", NULL), -1);
		assert_int_equal(error.exit, REPL_EXIT_REFUSED);
		assert_int_equal(ask(host, "sync-full", "r0", NULL), -1);
		assert_int_equal(error.exit, REPL_EXIT_REFUSED);
	}
}

/* A planned switch: the secondary takes over, and is the primary when it has merged. */
static void switching(void **state)
{
	pid_t slow;

	configure_both(0, ALPHA, "");
	start(ALPHA, NULL, 0);
	run_until(status_has(ALPHA, "r0", "disconnected"));
	assert_int_equal(ask(ALPHA, "switch", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_PEER);
	start(BETA, NULL, 0);
	connected("r0");
	assert_int_equal(ask(BETA, "switch", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);
	fakes[ALPHA][0].attached = false;
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	assert_int_equal(ask(ALPHA, "switch", "r0", NULL), -1);
	assert_string_equal(error.text, "the peer has not got all: a checkpoint comes first");
	fakes[ALPHA][0].attached = true;
	/* Who asked for it is told before it is released; the switch waits for that. */
	fakes[ALPHA][0].stuck_release = true;
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), 0);
	assert_false(fakes[BETA][0].over);
	fflush(NULL);
	slow = fork();
	if (!slow) {
		usleep(300000);		/* (if the request is later, nothing is tested) */
		fakes[ALPHA][0].stuck_release = false;
		_exit(0);
	}
	assert_int_equal(ask(ALPHA, "switch", "r0", NULL), 0);
	assert_int_equal(waitpid(slow, NULL, 0), slow);
	run_until(fakes[BETA][0].primary);
	assert_true(fakes[BETA][0].over);
	run_until(times_in_log(BETA, "r0: primary"));
	run_until(status_has(ALPHA, "r0", "\"failed_over\":true"));
	/* It was asked for: nobody is asked what to keep. */
	for (unsigned int host = 0; host < 2; host++)
		assert_int_equal(times_in_log(host, "the secondary has failed over"), 0);
	assert_int_equal(times_in_log(ALPHA, "to keep what"), 0);
}

/* The first child of a daemon; without hooks there is but the worker. */
static pid_t worker_of(unsigned int host)
{
	char path[64];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", daemons[host],
		 daemons[host]);
	f = fopen(path, "re");
	assert_non_null(f);
	if (fscanf(f, "%d", &pid) != 1)
		pid = 0;
	fclose(f);
	return pid;
}

/* It lasts. One that dies fails its operation, if it has one, and another follows. */
static void worker(void **state)
{
	pid_t first, asks;
	int status;

	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	assert_int_equal(worker_of(ALPHA), 0);
	checkpoint(ALPHA, "r0");
	first = worker_of(ALPHA);
	assert_true(first > 0);
	checkpoint(ALPHA, "r0");
	assert_int_equal(worker_of(ALPHA), first);

	kill(first, SIGKILL);
	run_until(worker_of(ALPHA) != first);
	checkpoint(ALPHA, "r0");
	first = worker_of(ALPHA);
	assert_int_equal(ask(ALPHA, "reload", "r0", NULL), 0);
	checkpoint(ALPHA, "r0");
	assert_true(worker_of(ALPHA) != first);

	fakes[ALPHA][0].stuck = true;
	fflush(NULL);
	asks = fork();
	if (!asks)
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) &&
		      strstr(error.text, "an operation was killed by signal 9") ? 0 : 1);
	run_until(status_has(ALPHA, "r0", "\"phase\":\"flushing\""));
	kill(worker_of(ALPHA), SIGKILL);
	assert_int_equal(waitpid(asks, &status, 0), asks);
	assert_int_equal(status, 0);
	fakes[ALPHA][0].stuck = false;
	checkpoint(ALPHA, "r0");
	run_until(!fakes[ALPHA][0].held);	/* who asked is told before */

	/* With the daemon it dies, also in the middle. */
	fakes[ALPHA][0].stuck = true;
	asks = fork();
	if (!asks)
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) ? 0 : 1);
	run_until(status_has(ALPHA, "r0", "\"phase\":\"flushing\""));
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	assert_int_equal(waitpid(asks, &status, 0), asks);
	start(ALPHA, NULL, 0);
	connected("r0");
	run_until(!fakes[ALPHA][0].held);	/* who asked is told before */
	fakes[ALPHA][0].stuck = false;
	checkpoint(ALPHA, "r0");
}

/* What is wrong with one is said, is nothing to the other, and can be put right. */
static void trouble(void **state)
{
	configure_both(0, ALPHA, "");
	configure_both(1, BETA, "");
	configure_both(2, ALPHA, "");
	configure_both(3, ALPHA, "");
	chmod(path_of(BETA, "conf/r0.key"), 0644);
	put_file(path_of(BETA, "conf/r2.conf"), "nonsense\n", 0600);
	fakes[BETA][3].up = false;
	start_both();
	connected("r1");
	checkpoint(BETA, "r1");
	assert_true(status_has(BETA, "r0", "others can read or write it"));
	assert_true(status_has(BETA, "r2", "r2.conf:1: "));
	assert_true(status_has(BETA, "r3", "there is no device"));
	assert_true(status_has(BETA, "r9", "not served"));
	assert_int_equal(ask(BETA, "checkpoint", "r0", NULL), -1);
	run_until(status_has(ALPHA, "r0", "has another key for r0, or does not serve it"));
	usleep(1500000);
	assert_int_equal(times_in_log(BETA, "others can read"), 1);
	chmod(path_of(BETA, "conf/r0.key"), 0600);
	configure(BETA, 2, ALPHA, "");
	fakes[BETA][3].up = true;
	connected("r0");
	connected("r2");
	connected("r3");
}

/* The wrong key, and a resource that the other host has not: a line on each side. */
static void strangers(void **state)
{
	configure_both(0, ALPHA, "");
	configure_both(1, ALPHA, "");
	configure(ALPHA, 2, ALPHA, "");
	put_file(path_of(ALPHA, "conf/r1.key"),
		 "00000000000000000000000000000000000000000000000000000000000000ff\n", 0600);
	start_both();
	connected("r0");
	run_until(status_has(ALPHA, "r1", "the peer has another key for r1"));
	run_until(status_has(ALPHA, "r2", "the peer has another key for r2"));
	run_until(times_in_log(BETA, "r1: the peer has another key"));
	run_until(times_in_log(BETA, "r2: the peer wants a resource that is not served here"));
	checkpoint(ALPHA, "r0");
	/* Once, though it is tried again each second. */
	usleep(1500000);
	assert_int_equal(times_in_log(ALPHA, "another key for r1"), 1);
	assert_int_equal(times_in_log(ALPHA, "another key for r2"), 1);
	assert_int_equal(times_in_log(BETA, "r1: the peer has another key"), 1);
	assert_int_equal(times_in_log(BETA, "r2: the peer wants"), 1);
}

/* Whoever has the key of r0 and speaks of r1, of which it may have none. */
static char closed_why[512];
static uint64_t sent_id;

static void liar_opened(struct repl_conn *conn, void *context)
{
	unsigned char payload[FRAME_HELLO_SIZE];
	struct repl_frame frame = { FRAME_HELLO, 0, sizeof(payload), payload };
	struct repl_hello hello = {
		.protocol_min = 6, .protocol_max = 6, .role = HELLO_PRIMARY, .nr_volumes = 1,
	};

	snprintf(hello.resource, sizeof(hello.resource), "%s", (const char *)context);
	snprintf(hello.host, sizeof(hello.host), "alpha");
	hello_encode(&hello, payload);
	assert_int_equal(conn_send(conn, &frame, &error), 0);
}

static void liar_frame(struct repl_conn *conn, const struct repl_frame *frame, void *context)
{
	struct repl_reply reply;

	if (frame->type != FRAME_FAILED)
		return;
	assert_int_equal(reply_decode(frame, &reply, &error), 0);
	sent_id = frame->id;
	snprintf(closed_why, sizeof(closed_why), "%s", reply.text);
}

static void liar_closed(struct repl_conn *conn, const char *why, void *context)
{
	if (!closed_why[0])
		snprintf(closed_why, sizeof(closed_why), "%s", why);
}

static void wrong_name(void **state)
{
	static const struct repl_conn_ops ops = { liar_opened, liar_frame, liar_closed, NULL };
	struct repl_address address = { .type = REPL_TCP, .host = (char *)"127.0.0.1", .fd = -1 };
	unsigned char key[1][KEY_SIZE];
	struct repl_conn_tls tls = { "r0", key, 1 };
	struct repl_conn *conn;
	sd_event *loop;

	configure_both(0, ALPHA, "");
	configure_both(1, ALPHA, "");
	start(BETA, NULL, 0);
	run_until(status_has(BETA, "r1", "\"connection\""));
	assert_int_equal(key_load(path_of(BETA, "conf/r0.key"), key[0], &error), 0);
	address.port = port[BETA];
	assert_true(sd_event_new(&loop) >= 0);
	closed_why[0] = 0;
	assert_int_equal(conn_connect(loop, &address, &tls, WAIT_MS, &ops, (void *)"r1", &conn,
				      &error), 0);
	while (!closed_why[0])
		assert_true(sd_event_run(loop, 100000) >= 0);
	assert_string_equal(closed_why, "the peer has another resource at this address");
	assert_int_equal(sent_id, 0);
	conn_free(conn);
	sd_event_unref(loop);
	run_until(times_in_log(BETA, "r0: peer: the peer has another resource"));
	assert_true(status_has(BETA, "r1", "\"disconnected_because\":null"));
	start(ALPHA, NULL, 0);
	connected("r0");
	connected("r1");
}

static void plaintext(void **state)
{
	configure_both(0, ALPHA, "plaintext = yes");
	configure_both(1, ALPHA, "plaintext = yes");
	configure(ALPHA, 2, ALPHA, "plaintext = yes");
	configure_both(3, ALPHA, "");
	start(BETA, NULL, 0);
	run_until(status_has(BETA, "r1", "\"connection\""));
	start(ALPHA, NULL, 0);
	/* Whichever began first has the port. */
	run_until(status_has(BETA, "r3", "one of them is plaintext") ||
		  status_has(BETA, "r0", "one of them is plaintext"));
	if (status_has(BETA, "r0", "one of them is plaintext"))
		return;
	connected("r0");
	connected("r1");
	checkpoint(ALPHA, "r0");
	checkpoint(ALPHA, "r1");
	run_until(status_has(ALPHA, "r2", "refused by the peer: r2 is not served here"));
	run_until(times_in_log(BETA, "r2 is not served here"));
	usleep(2500000);
	assert_int_equal(times_in_log(ALPHA, "r2 is not served here"), 1);
	assert_int_equal(times_in_log(BETA, "r2 is not served here"), 1);
}

static void names(void **state)
{
	char *some[] = { (char *)"r0", (char *)"r1" }, *twice[] = { some[0], some[0] };

	configure_both(0, ALPHA, "");
	configure_both(1, ALPHA, "");
	configure_both(2, ALPHA, "");
	start(ALPHA, some, 2);
	start(BETA, NULL, 0);
	connected("r0");
	connected("r1");
	assert_true(status_has(ALPHA, "r2", "does not know it"));
	kill(daemons[BETA], SIGTERM);
	assert_int_equal(ended(BETA), 0);
	start(BETA, twice, 2);
	assert_int_equal(ended(BETA), REPL_EXIT_USAGE);
}

/* With one name, what is wrong ends it. */
static void one_name(void **state)
{
	char *name[] = { (char *)"r0" };

	configure_both(0, ALPHA, "");
	chmod(path_of(ALPHA, "conf/r0.key"), 0644);
	start(ALPHA, name, 1);
	assert_int_equal(ended(ALPHA), REPL_EXIT_REFUSED);
	put_file(path_of(ALPHA, "conf/r0.conf"), "nonsense\n", 0600);
	start(ALPHA, name, 1);
	assert_int_equal(ended(ALPHA), REPL_EXIT_CONFIG);
	configure_both(0, ALPHA, "");
	fakes[ALPHA][0].up = false;
	start(ALPHA, name, 1);
	assert_int_equal(ended(ALPHA), REPL_EXIT_FAILED);
	fakes[ALPHA][0].up = true;
	start(ALPHA, name, 1);
	start(BETA, NULL, 0);
	connected("r0");
}

static void second_daemon(void **state)
{
	pid_t first;

	configure_both(0, ALPHA, "");
	start(ALPHA, NULL, 0);
	run_until(status_has(ALPHA, "r0", "\"connection\""));
	first = daemons[ALPHA];
	start(ALPHA, NULL, 0);
	assert_int_equal(ended(ALPHA), REPL_EXIT_REFUSED);
	daemons[ALPHA] = first;
	assert_true(status_has(ALPHA, "r0", "\"connection\""));
}

/* No periodic checkpoints of r0 any more, though one may be under way. */
static bool stops(void)
{
	uint64_t was, end = now() + WAIT_MS;

	do {
		was = fakes[BETA][0].checkpoint;
		usleep(1000000);
	} while (fakes[BETA][0].checkpoint != was && now() < end);
	return fakes[BETA][0].checkpoint == was;
}

static void reload(void **state)
{
	char text[LINE_MAX_] = "";
	uint64_t was;

	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	checkpoint(ALPHA, "r0");
	usleep(300000);
	assert_int_equal(fakes[BETA][0].checkpoint, 1);

	/* At once, and on the same connection. */
	configure(ALPHA, 0, ALPHA, "interval = 200ms");
	hup(ALPHA);
	run_until(fakes[BETA][0].checkpoint > 3);
	assert_int_equal(times_in_log(ALPHA, "connected to"), 1);

	/* From an hour to a moment, too. */
	configure(ALPHA, 0, ALPHA, "interval = 1h");
	hup(ALPHA);
	assert_true(stops());
	was = fakes[BETA][0].checkpoint;
	configure(ALPHA, 0, ALPHA, "interval = 300ms\nhold = /bin/true\nrelease = /bin/true");
	assert_int_equal(ask(ALPHA, "reload", "r0", NULL), 0);
	run_until(fakes[BETA][0].checkpoint > was + 2);
	was = fakes[ALPHA][0].holds;
	usleep(700000);
	assert_int_equal(fakes[ALPHA][0].holds, was);

	/* A bad file, or a bad key, and it goes on as before. */
	put_file(path_of(ALPHA, "conf/r0.conf"), "nonsense\n", 0600);
	assert_int_equal(ask(ALPHA, "reload", "r0", NULL), -1);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	configure(ALPHA, 0, ALPHA, "interval = 1h");
	chmod(path_of(ALPHA, "conf/r0.key"), 0644);
	hup(ALPHA);
	was = fakes[BETA][0].checkpoint;
	run_until(fakes[BETA][0].checkpoint > was + 2);

	/* What cannot change is said, the rest does. */
	port[BETA]++;
	configure(ALPHA, 0, ALPHA, "interval = 0");
	assert_int_equal(ask(ALPHA, "reload", "r0", text), 0);
	assert_non_null(strstr(text, "address of host beta: has changed in the file"));
	assert_true(stops());
	assert_int_equal(times_in_log(ALPHA, "connected to"), 1);
}

/* What one hook holds, the other one of that time releases. */
static void reload_while_held(void **state)
{
	char more[300];

	snprintf(more, sizeof(more), "hold = /bin/sleep 2\nrelease = /bin/touch %s",
		 path_of(ALPHA, "released"));
	configure_both(0, ALPHA, more);
	start_both();
	connected("r0");
	configure(ALPHA, 0, ALPHA, "");
	fflush(NULL);
	if (!fork())
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) ? 1 : 0);
	run_until(status_has(ALPHA, "r0", "\"phase\":\"holding\""));
	assert_int_equal(ask(ALPHA, "reload", "r0", NULL), 0);
	assert_int_equal(access(path_of(ALPHA, "released"), F_OK), -1);
	wait(NULL);
	run_until(!access(path_of(ALPHA, "released"), F_OK));
	assert_int_equal(fakes[ALPHA][0].holds, 0);
	/* From then on the devices are suspended. */
	checkpoint(ALPHA, "r0");
	assert_int_equal(fakes[ALPHA][0].holds, 1);
}

/* Asks for a checkpoint, which gets stuck in its flush. */
static pid_t stuck_checkpoint(void)
{
	pid_t asks;

	unlink(path_of(ALPHA, "released"));
	fakes[ALPHA][0].stuck = true;
	fflush(NULL);
	asks = fork();
	if (!asks)
		_exit(ask(ALPHA, "checkpoint", "r0", NULL) ? 1 : 0);
	run_until(status_has(ALPHA, "r0", "\"phase\":\"flushing\""));
	return asks;
}

static void goes_on(pid_t asks)
{
	int status;

	fakes[ALPHA][0].stuck = false;
	assert_int_equal(waitpid(asks, &status, 0), asks);
	assert_int_equal(status, 0);
}

/* The workload goes on as soon as there is a cut, unless its state is saved. */
static void early(void **state)
{
	char more[300], released[128];
	pid_t asks;

	snprintf(released, sizeof(released), "%s", path_of(ALPHA, "released"));
	snprintf(more, sizeof(more), "hold = /bin/true\nrelease = /bin/mkdir %s", released);
	configure_both(0, ALPHA, more);
	start_both();
	connected("r0");
	asks = stuck_checkpoint();
	assert_int_equal(access(released, F_OK), 0);
	assert_int_equal(fakes[ALPHA][0].cut, 1);
	/* With a daemon that dies it is not released once more: the hook would fail. */
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	waitpid(asks, NULL, 0);
	fakes[ALPHA][0].stuck = false;
	start(ALPHA, NULL, 0);
	connected("r0");
	run_until(!fakes[ALPHA][0].held);
	assert_int_equal(rmdir(released), 0);
	checkpoint(ALPHA, "r0");
	assert_int_equal(rmdir(released), 0);

	/* Without a cut it is released, too. */
	fakes[ALPHA][0].no_cut = true;
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	run_until(!rmdir(released));
	fakes[ALPHA][0].no_cut = false;

	/* A hook that fails is tried until it does not. */
	assert_int_equal(mkdir(released, 0700), 0);
	assert_int_equal(ask(ALPHA, "checkpoint", "r0", NULL), -1);
	run_until(times_in_log(ALPHA, "the release hook ended with status 1") >= 2);
	assert_int_equal(rmdir(released), 0);
	run_until(!rmdir(released));

	snprintf(more, sizeof(more), "save = /bin/echo state\nload = /bin/cat\n"
		 "hold = /bin/true\nrelease = /bin/mkdir %s", released);
	configure_both(0, ALPHA, more);
	assert_int_equal(ask(ALPHA, "reload", "r0", NULL), 0);
	assert_int_equal(ask(BETA, "reload", "r0", NULL), 0);
	asks = stuck_checkpoint();
	assert_int_equal(access(released, F_OK), -1);
	goes_on(asks);
	run_until(!rmdir(released));
}

/* A hook that runs when the session ends is ended, and not waited for. */
static void hook_in_flight(void **state)
{
	char more[300];
	uint64_t begin;

	snprintf(more, sizeof(more), "peer_loss = failover\nfence = /bin/touch %s; exec sleep 60",
		 path_of(BETA, "fencing"));
	configure_both(0, ALPHA, more);
	start_both();
	connected("r0");
	kill(daemons[ALPHA], SIGKILL);
	ended(ALPHA);
	run_until(!access(path_of(BETA, "fencing"), F_OK));
	begin = now();
	assert_int_equal(ask(BETA, "release", "r0", NULL), 0);
	assert_true(now() - begin < 30000);
	assert_false(fakes[BETA][0].over);
	start(ALPHA, NULL, 0);
	connected("r0");
	assert_false(fakes[BETA][0].over);
}

/* A new key, on one host after the other, without a restart of either. */
static void new_key(void **state)
{
	static const char line[] =
		"00000000000000000000000000000000000000000000000000000000000000aa\n";
	char more[2][200];

	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	for (unsigned int host = 0; host < 2; host++) {
		put_file(path_of(host, "conf/new.key"), line, 0600);
		snprintf(more[host], sizeof(more[host]), "old_key = %s",
			 path_of(host, "conf/new.key"));
		configure(host, 0, ALPHA, more[host]);
		hup(host);
	}
	/* The new one takes the place of the old one on alpha. */
	put_file(path_of(ALPHA, "conf/r0.key"), line, 0600);
	put_file(path_of(ALPHA, "conf/new.key"), line, 0600);
	hup(ALPHA);
	assert_int_equal(times_in_log(ALPHA, "connected to"), 1);
	kill(daemons[BETA], SIGKILL);
	ended(BETA);
	start(BETA, NULL, 0);
	connected("r0");
}

static void come_and_go(void **state)
{
	configure_both(0, ALPHA, "");
	start_both();
	connected("r0");
	configure_both(1, BETA, "");
	kill(daemons[ALPHA], SIGHUP);
	kill(daemons[BETA], SIGHUP);
	connected("r1");
	checkpoint(BETA, "r1");

	/* Gone, but not while its devices are there. */
	unlink(path_of(ALPHA, "conf/r1.conf"));
	kill(daemons[ALPHA], SIGHUP);
	run_until(times_in_log(ALPHA, "is gone: served as before"));
	checkpoint(BETA, "r1");
	fakes[ALPHA][1].up = false;
	assert_int_equal(ask(ALPHA, "release", "r1", NULL), 0);
	run_until(status_has(ALPHA, "r1", "does not know it"));
	run_until(status_has(BETA, "r1", "disconnected"));
	checkpoint(ALPHA, "r0");
}

/* "replctl down", and up again. */
static void down_and_up(void **state)
{
	configure_both(0, ALPHA, "");
	configure_both(1, BETA, "");
	start_both();
	connected("r0");
	connected("r1");
	assert_int_equal(ask(ALPHA, "release", "r0", NULL), 0);
	assert_true(status_has(ALPHA, "r0", "not served"));
	assert_true(status_has(BETA, "r0", "the peer's daemon was ended"));
	fakes[ALPHA][0].up = false;
	run_until(status_has(ALPHA, "r0", "there is no device"));
	assert_true(status_has(ALPHA, "r1", "\"connection\":\"connected\""));
	fakes[ALPHA][0].up = true;
	connected("r0");
	checkpoint(ALPHA, "r0");
	checkpoint(BETA, "r1");
}

static const char *plan(int (*fn)(const struct repl_resource *resource,
				  struct json_object *status, struct repl_error *error),
			const struct repl_resource *resource, const char *status)
{
	static char text[4096];
	struct json_object *array = json_object_new_array(), *o = json_tokener_parse(status);

	assert_non_null(o);
	steps_keep(array);
	if (fn(resource, o, &error))
		snprintf(text, sizeof(text), "%d: %s", error.exit, error.text);
	else
		snprintf(text, sizeof(text), "%s",
			 json_object_to_json_string_ext(array, JSON_C_TO_STRING_PLAIN));
	steps_keep(NULL);
	json_object_put(array);
	json_object_put(o);
	return text;
}

/* Who has waited for a checkpoint long enough. */
static void awaits(const char *status, const char *words)
{
	struct json_object *object = json_tokener_parse(status);

	plan_awaited(object, &error);
	assert_int_equal(error.exit, REPL_EXIT_TIMEOUT);
	assert_non_null(strstr(error.text, words));
	json_object_put(object);
}

/* What --dry-run says goes by what is. */
static void plans(void **state)
{
	static const char calm[] =
		"{\"connection\":\"connected\",\"phase\":\"idle\",\"checkpoint\":7,\"degraded\":false}";
	struct repl_config *config;
	struct repl_resource r;

	configure(ALPHA, 0, ALPHA, "hold = /bin/h\nrelease = /bin/r\nsave = /bin/s");
	config = config_load(path_of(ALPHA, "conf/r0.conf"), &error);
	assert_non_null(config);
	r = (struct repl_resource){ .config = config, .here = ALPHA };
	assert_string_equal(plan(plan_checkpoint, &r, calm),
			    "[\"hold the workload by \\/bin\\/h\","
			    "\"flush the writes of r0-v to beta\","
			    "\"send the state that \\/bin\\/s gives\","
			    "\"wait until beta has committed checkpoint 8, on all volumes\","
			    "\"let the workload go on by \\/bin\\/r\"]");
	free(config->hold);
	config->hold = NULL;
	assert_non_null(strstr(plan(plan_checkpoint, &r, calm),
			       "[\"hold the writes of r0-v until all volumes have their cut\",\"flush"));
	config->sync = true;
	assert_non_null(strstr(plan(plan_checkpoint, &r, calm), "[\"suspend r0-v\",\"flush"));
	config->sync = false;
	assert_non_null(strstr(plan(plan_checkpoint, &r,
				    "{\"connection\":\"connected\",\"phase\":\"sent\",\"checkpoint\":7}"),
			       "checkpoint 9"));
	assert_string_equal(plan(plan_checkpoint, &r,
				 "{\"connection\":\"connected\",\"degraded\":true}"),
			    "4: the peer has missed writes: it needs a resync");
	assert_string_equal(plan(plan_checkpoint, &r, "{\"connection\":\"disconnected\","
				 "\"disconnected_because\":\"it is dark\"}"),
			    "3: the peer is not connected: it is dark");
	awaits("{\"phase\":\"flushing\",\"connection\":\"connected\"}", "has not ended yet: flushing");
	awaits("{\"phase\":\"idle\",\"connection\":\"disconnected\",\"disconnected_because\":\"x\"}",
	       "the peer is not connected: x");
	awaits("{\"phase\":\"idle\",\"connection\":\"connected\",\"catching_up\":true}",
	       "'congestion = block'");
	awaits(calm, "the peer does not begin");
	assert_string_equal(plan(plan_failover, &r, calm),
			    "4: a failover is asked for on the secondary");
	r.here = BETA;
	fakes[BETA][0].checkpoint = 7;
	assert_non_null(strstr(plan(plan_checkpoint, &r, calm), "ask alpha for a checkpoint"));
	assert_non_null(strstr(plan(plan_failover, &r, calm), "alpha itself, which is connected"));
	assert_non_null(strstr(plan(plan_failover, &r, calm),
			       "make checkpoint 7 of r0-v permanent"));
	assert_non_null(strstr(plan(plan_failover, &r, calm),
			       "writes of alpha to r0-v-ingest, and end its export at port 20000"));
	assert_non_null(strstr(plan(plan_failover, &r, "{\"phase\":\"loading\"}"),
			       "wait until the checkpoint that is here is committed"));
	fakes[BETA][0].over = true;
	assert_string_equal(plan(plan_failover, &r, calm), "[\"do nothing: it has failed over\"]");
	assert_string_equal(plan(plan_checkpoint, &r, "{\"failed_over\":true}"),
			    "4: this side has failed over");
	config_free(config);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* test-serve [PATTERN]: the tests whose names it fits */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		test(two_resources), test(asked_by_secondary), test(killed), test(rebooted),
		test(old_writes), test(coming), test(settling), test(settling_first),
		test(settling_rebooted), test(settling_long), test(full_disk),
		test(returning), test(many_changes), test(new_disk), test(restored),
		test(foreign), test(another_boot), test(another_meanwhile), test(failed_over),
		test(sync_alone), test(two_primaries), test(switching), test(worker),
		test(trouble), test(strangers), test(wrong_name), test(plaintext),
		test(names), test(one_name), test(second_daemon), test(reload),
		test(reload_while_held), test(early), test(hook_in_flight), test(new_key),
		test(come_and_go), test(down_and_up), test(plans),
	};
	int r;

	fakes = mmap(NULL, 2 * sizeof(*fakes), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (fakes == MAP_FAILED || !mkdtemp(dir))
		return 1;
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	r = cmocka_run_group_tests_name("serve", tests, NULL, NULL);
	rmdir(dir);
	return r;
}

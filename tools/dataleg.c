// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataleg.h"
#include "dm.h"

/* Runs a program to its end; what it prints last is the error's text. */
static int run(char *const argv[], struct repl_error *error)
{
	char out[400] = "", *line;
	int fd[2], status;
	size_t nr = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return error_set(error, REPL_EXIT_FAILED, "pipe: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (dup2(null, 0) < 0 || dup2(fd[1], 1) < 0 || dup2(fd[1], 2) < 0)
			_exit(126);
		/* A server that stays would keep what our caller had open. */
		close_range(3, ~0U, 0);
		execvp(argv[0], argv);
		dprintf(2, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(fd[1]);
	if (pid < 0) {
		close(fd[0]);
		return error_set(error, REPL_EXIT_FAILED, "fork: %s", strerror(errno));
	}
	/*
	 * A server that stays may keep its end of the pipe open: what counts is the
	 * end of the program that was started.
	 */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	while (nr < sizeof(out) - 1 &&
	       (n = read(fd[0], out + nr, sizeof(out) - 1 - nr)) > 0)
		nr += n;
	out[nr] = 0;
	close(fd[0]);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	while (nr && out[nr - 1] == '\n')
		out[--nr] = 0;
	line = strrchr(out, '\n');
	return error_set(error, REPL_EXIT_FAILED, "%s: %s", argv[0], line ? line + 1 : out);
}

static long number_in(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return n <= 0 ? -1 : strtol(text, NULL, 10);
}

/* A pidfd of our server, or -1: the number may be somebody else's by now. */
static int server_of(const struct repl_resource *resource, unsigned int volume)
{
	char path[256], comm[64] = "";
	long pid;
	int pidfd, fd;

	resource_volume_file(resource, volume, "pid", path, sizeof(path));
	pid = number_in(path);
	if (pid <= 1)
		return -1;
	pidfd = syscall(SYS_pidfd_open, (pid_t)pid, 0);
	if (pidfd < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, comm, sizeof(comm) - 1) <= 0 || strcmp(comm, "nbdkit\n")) {
		close(pidfd);
		pidfd = -1;
	}
	if (fd >= 0)
		close(fd);
	return pidfd;
}

const char *dataleg_external(const struct repl_resource *resource, unsigned int volume)
{
	const struct repl_volume *v = &resource->config->volume[volume];
	bool primary = resource_role(resource) == PAIR_PRIMARY;

	return v->on[primary ? resource->here : !resource->here].import;
}

bool dataleg_exported(const struct repl_resource *resource, unsigned int volume)
{
	int server;

	if (dataleg_external(resource, volume))
		return true;
	server = server_of(resource, volume);
	if (server >= 0)
		close(server);
	return server >= 0;
}

int dataleg_export(const struct repl_resource *resource, unsigned int volume,
		   struct repl_error *error)
{
	const struct repl_config *config = resource->config;
	char pidfile[256], port[16], device[128], file[192];
	char *argv[] = {
		"nbdkit", "--pidfile", pidfile, "--ipaddr",
		config->host[resource->here].data_address, "--port", port,
		"--threads", "16", "file", file, NULL,
	};
	int server;

	if (dataleg_external(resource, volume))
		return 0;
	server = server_of(resource, volume);
	if (server >= 0) {
		close(server);
		return 0;
	}
	resource_volume_file(resource, volume, "pid", pidfile, sizeof(pidfile));
	unlink(pidfile);
	resource_device(resource, volume, true, device, sizeof(device));
	snprintf(port, sizeof(port), "%u", config->volume[volume].port);
	snprintf(file, sizeof(file), "file=/dev/mapper/%s", device);
	return run(argv, error);
}

int dataleg_unexport(const struct repl_resource *resource, unsigned int volume, bool wait,
		     struct repl_error *error)
{
	int server = server_of(resource, volume);
	struct pollfd p = { .fd = server, .events = POLLIN };
	char path[256];
	int r = 0;

	if (server < 0)
		return 0;
	/* It would wait for its client, who may be gone for good. */
	syscall(SYS_pidfd_send_signal, server, SIGKILL, NULL, 0);
	if (wait && poll(&p, 1, 10000) <= 0)
		r = error_set(error, REPL_EXIT_TIMEOUT,
			      "nbdkit does not end: its disk does not answer");
	close(server);
	if (wait && !r) {
		resource_volume_file(resource, volume, "pid", path, sizeof(path));
		unlink(path);
	}
	return r;
}

static bool nbd_connected(long nr)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/nbd%ld/pid", nr);
	return !access(path, F_OK);
}

static long nbd_free(void)
{
	char path[64];

	for (long nr = 0;; nr++) {
		snprintf(path, sizeof(path), "/sys/block/nbd%ld", nr);
		if (access(path, F_OK))
			return -1;
		if (!nbd_connected(nr))
			return nr;
	}
}

int dataleg_imported(const struct repl_resource *resource, unsigned int volume,
		     char *path, size_t size, struct repl_error *error)
{
	char record[256];
	long nr;

	if (dataleg_external(resource, volume))
		return dataleg_import(resource, volume, path, size, error);
	resource_volume_file(resource, volume, "nbd", record, sizeof(record));
	nr = number_in(record);
	if (nr < 0 || !nbd_connected(nr))
		return error_set(error, REPL_EXIT_PEER, "the data leg is not connected");
	snprintf(path, size, "/dev/nbd%ld", nr);
	return 0;
}

int dataleg_import(const struct repl_resource *resource, unsigned int volume,
		   char *path, size_t size, struct repl_error *error)
{
	const struct repl_config *config = resource->config;
	const struct repl_host *peer = &config->host[!resource->here];
	const char *external = dataleg_external(resource, volume);
	char port[16], timeout[24], record[256];
	char *modprobe[] = { "modprobe", "nbd", NULL };
	char *argv[] = {
		"nbd-client", peer->data_address, port, path, "-timeout", timeout,
		"-block-size", "512", NULL,
	};
	long nr;
	int fd;

	if (external) {
		if (!blockdev_sectors(external, error)) {
			if (error)
				error->exit = REPL_EXIT_PEER;
			return -1;
		}
		if (snprintf(path, size, "%s", external) >= (int)size)
			return error_set(error, REPL_EXIT_CONFIG, "%s: the path is too long",
					 external);
		return 0;
	}
	resource_volume_file(resource, volume, "nbd", record, sizeof(record));
	nr = number_in(record);
	if (nr >= 0 && nbd_connected(nr)) {
		snprintf(path, size, "/dev/nbd%ld", nr);
		return 0;
	}
	if (access("/sys/block/nbd0", F_OK) && run(modprobe, error))
		return -1;
	nr = nbd_free();
	if (nr < 0)
		return error_set(error, REPL_EXIT_FAILED,
				 "no nbd device is free: modprobe nbd nbds_max=64");
	snprintf(path, size, "/dev/nbd%ld", nr);
	snprintf(port, sizeof(port), "%u", config->volume[volume].port);
	snprintf(timeout, sizeof(timeout), "%llu",
		 (unsigned long long)config->data_timeout / 1000);
	if (run(argv, error)) {
		if (error)
			error->exit = REPL_EXIT_PEER;
		return -1;
	}
	fd = open(record, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || dprintf(fd, "%ld\n", nr) < 0)
		error_set(error, REPL_EXIT_FAILED, "%s: %s", record, strerror(errno));
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

int dataleg_disconnect(const struct repl_resource *resource, unsigned int volume,
		       struct repl_error *error)
{
	char record[256], path[64];
	char *argv[] = { "nbd-client", "-d", path, NULL };
	long nr;

	resource_volume_file(resource, volume, "nbd", record, sizeof(record));
	nr = number_in(record);
	if (nr >= 0 && nbd_connected(nr)) {
		snprintf(path, sizeof(path), "/dev/nbd%ld", nr);
		if (run(argv, error))
			return -1;
	}
	unlink(record);
	return 0;
}

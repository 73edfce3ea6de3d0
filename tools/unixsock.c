// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unixsock.h"

int unix_socket_address(const char *path, struct sockaddr_un *sun, struct repl_error *error)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(sun->sun_path))
		return error_set(error, REPL_EXIT_CONFIG, "%s: too long for a socket", path);
	strcpy(sun->sun_path, path);
	return 0;
}

static int stream_socket(struct repl_error *error)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? error_set(error, REPL_EXIT_FAILED, "socket: %s", strerror(errno)) : fd;
}

/*
 * Somebody's socket is at the path: is it left over? Connecting tells; that
 * the listener sees us come and go does no harm.
 */
static int remove_stale(const struct sockaddr_un *sun, struct repl_error *error)
{
	struct stat st;
	int fd, r;

	if (lstat(sun->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : error_set(error, REPL_EXIT_FAILED, "%s: %s",
						       sun->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return error_set(error, REPL_EXIT_CONFIG, "%s is there, and is not a socket",
				 sun->sun_path);
	fd = stream_socket(error);
	if (fd < 0)
		return -1;
	r = connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0 ? errno : 0;
	close(fd);
	if (!r || r == EAGAIN)
		return error_set(error, REPL_EXIT_REFUSED, "%s: somebody listens there already",
				 sun->sun_path);
	if (r != ECONNREFUSED)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", sun->sun_path, strerror(r));
	if (unlink(sun->sun_path) < 0 && errno != ENOENT)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", sun->sun_path,
				 strerror(errno));
	return 0;
}

static int bind_socket(struct unix_socket *s, int fd, const struct sockaddr_un *sun,
		       int backlog, struct repl_error *error)
{
	struct stat st;

	/* Linux gives the file the mode that the socket has before bind(). */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0 ||
	    listen(fd, backlog) < 0 || lstat(sun->sun_path, &st) < 0)
		return error_set(error, REPL_EXIT_FAILED, "%s: listen: %s", sun->sun_path,
				 strerror(errno));
	s->path = strdup(sun->sun_path);
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return s->path ? 0 : error_set(error, REPL_EXIT_FAILED, "out of memory");
}

int unix_socket_listen(struct unix_socket *s, const char *path, int backlog,
		       struct repl_error *error)
{
	struct sockaddr_un sun;
	int fd;

	memset(s, 0, sizeof(*s));
	if (unix_socket_address(path, &sun, error) < 0 || remove_stale(&sun, error) < 0)
		return -1;
	fd = stream_socket(error);
	if (fd >= 0 && bind_socket(s, fd, &sun, backlog, error) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void unix_socket_remove(struct unix_socket *s)
{
	struct stat st;

	if (s->path && !lstat(s->path, &st) && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	free(s->path);
	memset(s, 0, sizeof(*s));
}

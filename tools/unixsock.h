/* SPDX-License-Identifier: GPL-2.0-only */
/* UNIX sockets that have a path: of the control socket, and of an address unix:. */
#ifndef REPLCTL_UNIXSOCK_H
#define REPLCTL_UNIXSOCK_H

#include <sys/types.h>
#include <sys/un.h>

#include "error.h"

/* What is at the path: so that nobody removes what another has put there. */
struct unix_socket {
	char *path;		/* NULL: none */
	dev_t dev;
	ino_t ino;
};

/**
 * unix_socket_address() - a path as the kernel wants it
 * @path: path
 * @sun: out
 * @error: filled in on -1: REPL_EXIT_CONFIG, it is too long
 *
 * Return: 0, or -1.
 */
int unix_socket_address(const char *path, struct sockaddr_un *sun, struct repl_error *error);

/**
 * unix_socket_listen() - listen at a path
 * @s: out, for unix_socket_remove()
 * @path: of the socket, which gets mode 0600; one that is left over, which nobody
 *	listens on, is replaced
 * @backlog: of listen(2)
 * @error: filled in on -1: REPL_EXIT_REFUSED: somebody listens there; REPL_EXIT_CONFIG:
 *	the path is too long, or there is something else; REPL_EXIT_FAILED
 *
 * Return: a descriptor, non-blocking and close-on-exec, or -1.
 */
int unix_socket_listen(struct unix_socket *s, const char *path, int backlog,
		       struct repl_error *error);

/**
 * unix_socket_remove() - remove the socket from its folder, if it is still ours
 * @s: may be all zeroes, and is after it
 */
void unix_socket_remove(struct unix_socket *s);

#endif

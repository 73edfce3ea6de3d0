/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address: where a host listens for its peer, and where the peer looks for it.
 *
 *	tcp:HOST:PORT	tcp:[IPV6]:PORT
 *	unix:/PATH
 *	exec:COMMAND	the command's stdin and stdout, run by /bin/sh -c
 *	fd:N		a descriptor that is open already
 */
#ifndef REPLCTL_ADDRESS_H
#define REPLCTL_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum repl_address_type {
	REPL_TCP,
	REPL_UNIX,
	REPL_EXEC,
	REPL_FD,
};

struct repl_address {
	enum repl_address_type type;
	char *host;		/* REPL_TCP: name or number, without brackets */
	uint16_t port;		/* REPL_TCP: never 0 */
	char *path;		/* REPL_UNIX: absolute, fits sun_path */
	char *command;		/* REPL_EXEC */
	int fd;			/* REPL_FD; -1 otherwise */
};

/**
 * address_parse() - take an address from text
 * @text: one of the forms above
 * @address: filled in; to be freed with address_free() on success only
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Looks up no name and opens nothing.
 *
 * Return: 0, or -1.
 */
int address_parse(const char *text, struct repl_address *address, struct repl_error *error);

/**
 * address_free() - free what address_parse() allocated
 * @address: may be all zeroes; is all zeroes after
 */
void address_free(struct repl_address *address);

/**
 * address_same() - are they written alike?
 * @a: one
 * @b: the other
 *
 * Return: true if so.
 */
bool address_same(const struct repl_address *a, const struct repl_address *b);

/**
 * address_copy() - one of one's own
 * @from: address
 * @to: out, for address_free()
 *
 * Return: 0, or -1: out of memory.
 */
int address_copy(const struct repl_address *from, struct repl_address *to);

/**
 * address_is_local() - does it stay on this machine, as far as we can see?
 * @address: any
 *
 * An exec: command or an fd: counts as local because the socket is not ours;
 * where it leads is the business of who gave it.
 *
 * Return: true for loopback (see address_host_is_loopback()), unix:, exec:
 * and fd:.
 */
bool address_is_local(const struct repl_address *address);

/**
 * address_host_is_loopback() - is this host loopback, without a look-up?
 * @host: name or number, without brackets
 *
 * Return: true for 127.0.0.0/8, ::1, ::ffff:127.0.0.0/104 and "localhost".
 */
bool address_host_is_loopback(const char *host);

/**
 * address_host_is_number() - does this host need no look-up?
 * @host: name or number, without brackets
 */
bool address_host_is_number(const char *host);

/**
 * address_host_check() - check a host by itself: a name, IPv4 or IPv6 number
 * @text: the host, without brackets
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Return: 0, or -1.
 */
int address_host_check(const char *text, struct repl_error *error);

#endif

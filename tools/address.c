// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <ctype.h>
#include <limits.h>
#include <net/if.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "address.h"
#include "units.h"

#define HOST_MAX 253		/* bytes: a name in DNS */

static int no_memory(struct repl_error *error)
{
	return error_set(error, REPL_EXIT_FAILED, "out of memory");
}

/* An IPv6 number, perhaps with the %interface of a link-local one. */
static bool is_ipv6(const char *text)
{
	char number[INET6_ADDRSTRLEN];
	const char *scope = strchrnul(text, '%');
	struct in6_addr in6;

	if ((size_t)(scope - text) >= sizeof(number))
		return false;
	memcpy(number, text, scope - text);
	number[scope - text] = '\0';
	if (inet_pton(AF_INET6, number, &in6) != 1)
		return false;
	if (!*scope)
		return true;
	for (text = ++scope; isalnum((unsigned char)*text) || (*text && strchr("-_.", *text));)
		text++;
	return text > scope && !*text && text - scope < IF_NAMESIZE;
}

/* A name or an IPv4 number. It becomes an argument of commands: no '-' first. */
static bool is_name(const char *text)
{
	const char *p;

	for (p = text; isalnum((unsigned char)*p) || (*p && strchr("-_.", *p));)
		p++;
	return p > text && !*p && p - text <= HOST_MAX && *text != '-' && *text != '.';
}

bool address_host_is_number(const char *host)
{
	struct in_addr in;

	return inet_pton(AF_INET, host, &in) == 1 || is_ipv6(host);
}

int address_host_check(const char *text, struct repl_error *error)
{
	if (is_name(text) || is_ipv6(text))
		return 0;
	return error_set(error, REPL_EXIT_CONFIG, "\"%s\" is not a host's name or number", text);
}

static int parse_tcp(const char *text, struct repl_address *address, struct repl_error *error)
{
	bool brackets = *text == '[';
	const char *port = strrchr(text, ':');
	uint64_t number;
	char *host;

	if (!port || port == text || (brackets && port[-1] != ']'))
		return error_set(error, REPL_EXIT_CONFIG,
				 "\"tcp:%s\" is not tcp:HOST:PORT or tcp:[IPV6]:PORT", text);
	if (number_parse(port + 1, 1, UINT16_MAX, &number, error) < 0)
		return error_wrap(error, "port");
	host = brackets ? strndup(text + 1, port - text - 2) : strndup(text, port - text);
	if (!host)
		return no_memory(error);
	if (brackets ? !is_ipv6(host) : !is_name(host)) {
		error_set(error, REPL_EXIT_CONFIG, brackets ? "\"[%s]\" is not an IPv6 number" :
			  strchr(host, ':') ? "\"%s\" needs brackets: tcp:[IPV6]:PORT" :
			  "\"%s\" is not a host's name or number", host);
		free(host);
		return -1;
	}
	address->type = REPL_TCP;
	address->host = host;
	address->port = number;
	return 0;
}

static int parse_unix(const char *text, struct repl_address *address, struct repl_error *error)
{
	struct sockaddr_un sun;

	if (*text != '/')
		return error_set(error, REPL_EXIT_CONFIG, "\"unix:%s\" is not an absolute path",
				 text);
	if (strlen(text) >= sizeof(sun.sun_path))
		return error_set(error, REPL_EXIT_CONFIG,
				 "the path of a socket has at most %zu bytes",
				 sizeof(sun.sun_path) - 1);
	address->type = REPL_UNIX;
	address->path = strdup(text);
	return address->path ? 0 : no_memory(error);
}

static int parse_exec(const char *text, struct repl_address *address, struct repl_error *error)
{
	text += strspn(text, " \t");
	if (!*text)
		return error_set(error, REPL_EXIT_CONFIG, "exec: needs a command");
	address->type = REPL_EXEC;
	address->command = strdup(text);
	return address->command ? 0 : no_memory(error);
}

static int parse_fd(const char *text, struct repl_address *address, struct repl_error *error)
{
	uint64_t number;

	if (number_parse(text, 0, INT_MAX, &number, error) < 0)
		return error_wrap(error, "fd");
	address->type = REPL_FD;
	address->fd = number;
	return 0;
}

int address_parse(const char *text, struct repl_address *address, struct repl_error *error)
{
	static const struct {
		const char *prefix;
		int (*parse)(const char *text, struct repl_address *address,
			     struct repl_error *error);
	} types[] = {
		{ "tcp:", parse_tcp },
		{ "unix:", parse_unix },
		{ "exec:", parse_exec },
		{ "fd:", parse_fd },
	};
	size_t i, len;

	*address = (struct repl_address){ .fd = -1 };
	for (i = 0; i < sizeof(types) / sizeof(*types); i++) {
		len = strlen(types[i].prefix);
		if (!strncmp(text, types[i].prefix, len))
			return types[i].parse(text + len, address, error);
	}
	return error_set(error, REPL_EXIT_CONFIG,
			 "\"%s\" begins with none of tcp:, unix:, exec:, fd:", text);
}

void address_free(struct repl_address *address)
{
	free(address->host);
	free(address->path);
	free(address->command);
	memset(address, 0, sizeof(*address));
}

bool address_host_is_loopback(const char *host)
{
	struct in6_addr in6;
	struct in_addr in;

	if (inet_pton(AF_INET, host, &in) == 1)
		return ntohl(in.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &in6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&in6) ||
		       (IN6_IS_ADDR_V4MAPPED(&in6) && in6.s6_addr[12] == 127);
	return !strcasecmp(host, "localhost");
}

bool address_is_local(const struct repl_address *address)
{
	return address->type != REPL_TCP || address_host_is_loopback(address->host);
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

bool address_same(const struct repl_address *a, const struct repl_address *b)
{
	return a->type == b->type && same(a->host, b->host) && a->port == b->port &&
	       same(a->path, b->path) && same(a->command, b->command) && a->fd == b->fd;
}

int address_copy(const struct repl_address *from, struct repl_address *to)
{
	*to = *from;
	to->host = from->host ? strdup(from->host) : NULL;
	to->path = from->path ? strdup(from->path) : NULL;
	to->command = from->command ? strdup(from->command) : NULL;
	if (!from->host == !to->host && !from->path == !to->path &&
	    !from->command == !to->command)
		return 0;
	address_free(to);
	return -1;
}

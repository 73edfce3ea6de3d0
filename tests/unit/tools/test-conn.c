// SPDX-License-Identifier: GPL-2.0-only
/* Connections: two ends of each in one loop, and peers that behave badly. */
#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "conn.h"
#include "crc32c.h"

#define DEADLINE 5000	/* ms: nothing here takes so long */

/* One end, and what has happened to it. */
struct end {
	struct repl_conn *conn;
	unsigned int opened, closed, writable, frames;
	enum repl_frame_type type;
	uint64_t id, bytes;
	uint32_t length;
	char payload[64];
	char why[512];
	bool send_in_opened, free_in_opened, free_in_frame, free_in_closed, close_in_frame;
	bool answer, key_refused, guest;
	char resource[64];
};

static sd_event *loop;
static struct repl_conn_listener *listener;
static struct end client, server[32];
static unsigned int servers;
static struct repl_error error;
static char dir[] = "/tmp/test-conn-XXXXXX", path[64];
static const unsigned char keys[2][KEY_SIZE] = { "the first key", "the second key" };
static const unsigned char swapped[2][KEY_SIZE] = { "the second key", "the first key" };
static const struct repl_conn_tls first = { "r0", keys, 1 };
static const struct repl_conn_tls second = { "r0", &keys[1], 1 };
static const struct repl_conn_tls both = { "r0", keys, 2 };
static const struct repl_conn_tls both_swapped = { "r0", swapped, 2 };
static const struct repl_conn_tls *served, *served_too;	/* r0, and r1 */

static void drop(struct end *end)
{
	conn_free(end->conn);
	end->conn = NULL;
}

static void send_one(struct repl_conn *conn, enum repl_frame_type type, const char *payload)
{
	struct repl_frame f = { type, 99, strlen(payload), payload };

	assert_int_equal(conn_send(conn, &f, &error), 0);
}

static void opened(struct repl_conn *conn, void *context)
{
	struct end *end = context;

	end->opened++;
	if (!end->guest)
		conn_keep(conn);
	snprintf(end->resource, sizeof(end->resource), "%s", conn_resource(conn) ?: "");
	if (end->send_in_opened)
		send_one(conn, FRAME_PING, "the first word");
	if (end->free_in_opened)
		drop(end);
}

static void frame(struct repl_conn *conn, const struct repl_frame *f, void *context)
{
	struct end *end = context;

	assert_int_equal(end->closed, 0);
	end->frames++;
	end->type = f->type;
	end->id = f->id;
	end->length = f->length;
	end->bytes += f->length;
	memcpy(end->payload, f->payload,
	       f->length < sizeof(end->payload) ? f->length : sizeof(end->payload));
	if (end->answer)
		assert_int_equal(conn_send(conn, f, &error), 0);
	if (end->close_in_frame)
		conn_close(conn, "closed in frame()");
	if (end->free_in_frame)
		drop(end);
}

static void closed(struct repl_conn *conn, const char *why, void *context)
{
	struct end *end = context;

	end->closed++;
	end->key_refused = conn_key_refused(conn);
	snprintf(end->why, sizeof(end->why), "%s", why);
	if (end->free_in_closed)
		drop(end);
}

static void writable(struct repl_conn *conn, void *context)
{
	struct end *end = context;

	end->writable++;
}

static const struct repl_conn_ops ops = { opened, frame, closed, writable };

static void accepted(struct repl_conn *conn, void *context)
{
	struct end *end = &server[servers++];

	end->conn = conn;
	conn_set_ops(conn, &ops, end);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Until @condition, or the test has failed. */
#define run_until(condition) do {						\
	uint64_t end_ = now() + DEADLINE;					\
	while (!(condition)) {							\
		assert_true(now() < end_);					\
		assert_true(sd_event_run(loop, 20000) >= 0);			\
	}									\
} while (0)

static void run_for(unsigned int ms)
{
	uint64_t end = now() + ms;

	while (now() < end)
		assert_true(sd_event_run(loop, 5000) >= 0);
}

static int setup(void **state)
{
	memset(&client, 0, sizeof(client));
	memset(server, 0, sizeof(server));
	memset(&error, 0, sizeof(error));
	servers = 0;
	served_too = NULL;
	snprintf(path, sizeof(path), "%s/socket", dir);
	return sd_event_new(&loop);
}

static int teardown(void **state)
{
	unsigned int i;

	drop(&client);
	for (i = 0; i < servers; i++)
		drop(&server[i]);
	conn_listener_free(listener);
	listener = NULL;
	loop = sd_event_unref(loop);
	unlink(path);
	return 0;
}

static struct repl_address unix_at(void)
{
	return (struct repl_address){ .type = REPL_UNIX, .path = path, .fd = -1 };
}

static bool look_up(const char *resource, struct repl_conn_tls *tls, void *context)
{
	const struct repl_conn_tls *found = !strcmp(resource, "r0") ? served :
					    !strcmp(resource, "r1") ? served_too : NULL;

	if (found)
		*tls = *found;
	return found;
}

static void listen_at(struct repl_address address, const struct repl_conn_tls *tls,
		      unsigned int timeout)
{
	served = tls;
	if (conn_listen(loop, &address, tls ? look_up : NULL, timeout, accepted, NULL, &listener,
			&error) < 0)
		fail_msg("%s", error.text);
}

static void connect_to(struct repl_address address, const struct repl_conn_tls *tls,
		       unsigned int timeout)
{
	if (conn_connect(loop, &address, tls, timeout, &ops, &client, &client.conn, &error) < 0)
		fail_msg("%s", error.text);
}

/* Both ends over the path. */
static void pair_up(const struct repl_conn_tls *server_tls, const struct repl_conn_tls *client_tls)
{
	listen_at(unix_at(), server_tls, DEADLINE);
	connect_to(unix_at(), client_tls, DEADLINE);
}

static void pair_open(const struct repl_conn_tls *tls)
{
	pair_up(tls, tls);
	run_until(client.opened && server[0].opened);
}

/* A peer that is no repl_conn. */
static int raw_connect(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	memcpy(sun.sun_path, path, strlen(path));
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static uint16_t free_port(int family)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *addr = family == AF_INET ? (void *)&in : (void *)&in6;
	socklen_t len = family == AF_INET ? sizeof(in) : sizeof(in6);
	int r, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	r = bind(fd, addr, len);
	if (!r)
		getsockname(fd, addr, &len);
	close(fd);
	return r ? 0 : ntohs(family == AF_INET ? in.sin_port : in6.sin6_port);
}

/* A word each way, then the goodbye. */
static void talk(void)
{
	run_until(client.opened && server[0].opened);
	server[0].answer = true;
	send_one(client.conn, FRAME_PING, "hello");
	run_until(client.frames);
	assert_int_equal(server[0].type, FRAME_PING);
	assert_int_equal(client.id, 99);
	assert_int_equal(client.length, 5);
	assert_memory_equal(client.payload, "hello", 5);
	server[0].answer = false;
	send_one(client.conn, FRAME_BYE, "");
	conn_close(client.conn, "done");
	assert_int_equal(client.closed, 1);
	assert_string_equal(client.why, "done");
	run_until(server[0].closed);
	assert_int_equal(server[0].type, FRAME_BYE);
	assert_string_equal(server[0].why, "the peer closed the connection");
	conn_close(client.conn, "again");
	run_for(20);
	assert_int_equal(client.closed, 1);
	assert_int_equal(client.opened, 1);
	assert_int_equal(server[0].closed, 1);
	assert_int_equal(server[0].opened, 1);
	assert_int_equal(servers, 1);
}

static void plain_unix(void **state)
{
	struct stat st;

	pair_up(NULL, NULL);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	talk();
	assert_string_equal(conn_peer(server[0].conn), "unix");
	conn_listener_free(listener);
	listener = NULL;
	assert_int_equal(stat(path, &st), -1);
}

static void tls_unix(void **state)
{
	pair_up(&first, &first);
	talk();
}

static void tcp(int family, char *host, const struct repl_conn_tls *tls)
{
	struct repl_address address = { .type = REPL_TCP, .host = host, .fd = -1 };

	address.port = free_port(family);
	if (!address.port)
		skip();
	listen_at(address, tls, DEADLINE);
	connect_to(address, tls, DEADLINE);
	talk();
	assert_memory_equal(conn_peer(server[0].conn),
			    family == AF_INET ? "tcp:127" : "tcp:[::", 7);
}

static void plain_tcp(void **state)
{
	tcp(AF_INET, "127.0.0.1", NULL);
}

static void tls_tcp(void **state)
{
	tcp(AF_INET, "127.0.0.1", &first);
}

static void tls_tcp6(void **state)
{
	tcp(AF_INET6, "::1", &first);
}

static void tcp_refused(void **state)
{
	struct repl_address address = { .type = REPL_TCP, .host = "127.0.0.1", .fd = -1 };

	address.port = free_port(AF_INET);
	connect_to(address, &first, DEADLINE);
	run_until(client.closed);
	assert_string_equal(client.why, "connection refused");
	assert_int_equal(client.opened, 0);
	assert_false(client.key_refused);
}

static void tcp_name(void **state)
{
	struct repl_address address = { .type = REPL_TCP, .host = "localhost", .port = 1 };

	assert_int_equal(conn_connect(loop, &address, NULL, 1, &ops, NULL, &client.conn, &error),
			 -1);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_non_null(strstr(error.text, "\"localhost\" is not a number"));
}

static void unix_refused(void **state)
{
	struct repl_address address = unix_at();

	assert_int_equal(conn_connect(loop, &address, NULL, 1, &ops, NULL, &client.conn, &error),
			 -1);
	assert_int_equal(error.exit, REPL_EXIT_PEER);
	assert_string_equal(error.text, "No such file or directory");
}

/* A socket that nobody listens on is replaced, a live one is not, nor a file. */
static void unix_stale(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct repl_conn_listener *other;
	struct repl_address address = unix_at();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;

	memcpy(sun.sun_path, path, strlen(path));
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	close(fd);
	pair_up(NULL, NULL);
	assert_int_equal(conn_listen(loop, &address, NULL, 1, accepted, NULL, &other, &error), -1);
	assert_non_null(strstr(error.text, "somebody listens there already"));
	run_until(client.opened && server[0].opened);
	assert_int_equal(stat(path, &st), 0);
	/* Somebody else's socket at our path is left alone. */
	unlink(path);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	conn_listener_free(listener);
	listener = NULL;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(conn_listen(loop, &address, NULL, 1, accepted, NULL, &other, &error), -1);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
}

static void wrong_key(void **state)
{
	pair_up(&first, &second);
	run_until(client.closed && server[0].closed);
	run_for(20);
	assert_string_equal(client.why, "the peer has another key for r0, or does not serve it");
	assert_string_equal(server[0].why, "r0: the peer has another key");
	assert_true(client.key_refused && server[0].key_refused);
	assert_int_equal(client.closed + server[0].closed, 2);
	assert_int_equal(client.opened + server[0].opened, 0);
}

/* The same through TCP, where closing early may lose the reason. */
static void wrong_key_tcp(void **state)
{
	struct repl_address address = { .type = REPL_TCP, .host = "127.0.0.1", .fd = -1 };

	address.port = free_port(AF_INET);
	listen_at(address, &first, DEADLINE);
	connect_to(address, &second, DEADLINE);
	run_until(client.closed && server[0].closed);
	assert_string_equal(client.why, "the peer has another key for r0, or does not serve it");
	assert_string_equal(server[0].why, "r0: the peer has another key");
}

/*
 * A new key is rolled out: whoever has both lets in whoever has either. A
 * client with both offers its first; refused, it knows that the other is worth
 * trying.
 */
static void two_keys(void **state)
{
	const struct {
		const struct repl_conn_tls *server, *client;
		bool good;
	} cases[] = {
		{ &both, &first, true },
		{ &both, &second, true },
		{ &both, &both_swapped, true },
		{ &first, &both, true },
		{ &second, &both, false },
		{ &second, &both_swapped, true },
	};
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		pair_up(cases[i].server, cases[i].client);
		run_until((client.opened && server[0].opened) ||
			  (client.closed && server[0].closed));
		assert_int_equal(client.opened, cases[i].good);
		assert_int_equal(client.key_refused, !cases[i].good);
		teardown(state);
		setup(state);
	}
}

/* Keys are looked up when they are needed. */
static void new_keys(void **state)
{
	listen_at(unix_at(), &first, DEADLINE);
	served = &second;
	connect_to(unix_at(), &second, DEADLINE);
	run_until(client.opened && server[0].opened);
	assert_string_equal(server[0].resource, "r0");
	assert_string_equal(client.resource, "");
}

static void nr_keys(void **state)
{
	struct repl_conn_tls none = { "r0", keys, 0 }, three = { "r0", keys, 3 };
	struct repl_address address = unix_at();

	assert_int_equal(conn_connect(loop, &address, &none, 1, &ops, NULL, &client.conn, &error),
			 -1);
	assert_int_equal(conn_connect(loop, &address, &three, 1, &ops, NULL, &client.conn, &error),
			 -1);
	assert_string_equal(error.text, "TLS takes 1 or 2 keys, not 3");
}

/* One listener, two resources, each with a key of its own. */
static void two_resources(void **state)
{
	const struct repl_conn_tls r1 = { "r1", &keys[1], 1 };

	listen_at(unix_at(), &first, DEADLINE);
	served_too = &r1;
	connect_to(unix_at(), &r1, DEADLINE);
	run_until(client.opened && server[0].opened);
	assert_string_equal(server[0].resource, "r1");
	drop(&client);
	connect_to(unix_at(), &first, DEADLINE);
	run_until(client.opened == 2 && server[1].opened);
	assert_string_equal(server[1].resource, "r0");
}

/* The key of one resource does not open another, and nobody learns which there are. */
static void wrong_resource(void **state)
{
	static const struct {
		const char *name;
		unsigned int key;
		const char *server;
	} cases[] = {
		{ "r1", 0, "r1: the peer has another key" },
		{ "r0", 1, "r0: the peer has another key" },
		{ "r2", 0, "r2: the peer wants a resource that is not served here" },
		{ "", 0, "the peer names no resource" },
		{ "r0\33[2J", 0, "the peer names no resource" },
		{ "r0:r1", 0, "the peer names no resource" },
		{ ".r0", 0, "the peer names no resource" },
	};
	const struct repl_conn_tls r1 = { "r1", &keys[1], 1 };
	char why[128];
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct repl_conn_tls tls = { cases[i].name, &keys[cases[i].key], 1 };

		listen_at(unix_at(), &first, DEADLINE);
		served_too = &r1;
		connect_to(unix_at(), &tls, DEADLINE);
		run_until(client.closed && server[0].closed);
		assert_int_equal(client.opened + server[0].opened, 0);
		assert_string_equal(server[0].why, cases[i].server);
		snprintf(why, sizeof(why), "the peer has another key for %s, or does not serve it",
			 cases[i].name);
		assert_string_equal(client.why, why);
		teardown(state);
		setup(state);
	}
}

/* A guest in plaintext has a deadline until somebody keeps it. */
static void guest_late(void **state)
{
	int fd;

	server[0].guest = true;
	listen_at(unix_at(), NULL, 100);
	fd = raw_connect();
	run_until(server[0].closed);
	assert_int_equal(server[0].opened, 1);
	assert_string_equal(server[0].why, "no HELLO in 100 ms");
	close(fd);
}

static void guest_flood(void **state)
{
	int fd[CONN_HANDSHAKES_MAX + 1];
	unsigned int i;

	listen_at(unix_at(), NULL, DEADLINE);
	for (i = 0; i <= CONN_HANDSHAKES_MAX; i++) {
		server[i].guest = true;
		fd[i] = raw_connect();
		run_until(servers == i + 1);
	}
	run_until(server[CONN_HANDSHAKES_MAX].opened);
	assert_int_equal(server[0].closed, 1);
	assert_int_equal(server[1].closed, 0);
	for (i = 0; i <= CONN_HANDSHAKES_MAX; i++)
		close(fd[i]);
}

/* One side without TLS: each learns it from the other's first bytes. */
static void server_plaintext(void **state)
{
	pair_up(NULL, &first);
	run_until(client.closed && server[0].closed);
	assert_string_equal(server[0].why, "the peer speaks TLS, and we are set to plaintext");
	assert_int_equal(server[0].frames, 0);
	assert_string_equal(client.why, "handshake: the peer closed the connection");
	assert_int_equal(client.opened, 0);
}

/* As the daemon does, which says HELLO at once. */
static void server_plaintext_talks(void **state)
{
	server[0].send_in_opened = true;
	pair_up(NULL, &first);
	run_until(client.closed && server[0].closed);
	assert_int_equal(client.opened, 0);
	assert_string_equal(server[0].why, "the peer speaks TLS, and we are set to plaintext");
	assert_string_equal(client.why, "handshake: the peer does not speak TLS");
}

static void client_plaintext(void **state)
{
	pair_up(&first, NULL);
	run_until(client.opened);
	send_one(client.conn, FRAME_PING, "hello");
	run_until(client.closed && server[0].closed);
	assert_string_equal(server[0].why, "handshake: the peer does not speak TLS");
	assert_int_equal(server[0].opened, 0);
	assert_string_equal(client.why, "the peer speaks TLS, and we are set to plaintext");
}

/* A whole frame, in front of a handshake that is good otherwise: no frame() for it. */
static void frame_before_handshake(void **state)
{
	struct repl_frame ping = { FRAME_PING, 0, 0, NULL };
	char buf[FRAME_HEADER_SIZE];
	int fd;

	listen_at(unix_at(), &first, DEADLINE);
	fd = raw_connect();
	assert_int_equal(write(fd, buf, frame_encode(buf, sizeof(buf), &ping)), sizeof(buf));
	run_until(server[0].closed);
	assert_string_equal(server[0].why, "handshake: the peer does not speak TLS");
	assert_int_equal(server[0].frames + server[0].opened, 0);
	close(fd);
}

static void garbage(const struct repl_conn_tls *tls)
{
	unsigned int round, i;
	char buf[300];
	int fd;

	listen_at(unix_at(), tls, 300);
	srandom(1);
	for (round = 0; round < 30; round++) {
		for (i = 0; i < sizeof(buf); i++)
			buf[i] = random();
		/* Some look like the beginning of something. */
		if (round % 3 == 1)
			memcpy(buf, "\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03", 11);
		if (round % 3 == 2)
			memcpy(buf, "REPL\1\0", 6);
		fd = raw_connect();
		assert_int_equal(write(fd, buf, sizeof(buf)), sizeof(buf));
		run_until(servers == round + 1 && server[round].closed);
		assert_int_equal(server[round].frames, 0);
		assert_int_equal(server[round].opened, tls ? 0 : 1);
		assert_string_not_equal(server[round].why, "");
		close(fd);
	}
	/* And still: */
	connect_to(unix_at(), tls, DEADLINE);
	run_until(client.opened && server[30].opened);
}

static void garbage_plain(void **state)
{
	garbage(NULL);
}

static void garbage_tls(void **state)
{
	garbage(&first);
}

static void handshake_silent(void **state)
{
	uint64_t start = now();
	int fd;

	listen_at(unix_at(), &first, 100);
	fd = raw_connect();
	run_until(server[0].closed);
	assert_true(now() - start >= 100);
	assert_string_equal(server[0].why, "handshake: no answer in 100 ms");
	close(fd);
}

/* The client's side: somebody listens, and nobody accepts. */
static void connect_silent(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sun.sun_path, path, strlen(path));
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	connect_to(unix_at(), &first, 100);
	run_until(client.closed);
	assert_string_equal(client.why, "handshake: no answer in 100 ms");
	close(fd);
}

/* Half a frame, and then nothing: that is for the owner to end. */
static void half_frame(void **state)
{
	struct repl_frame ping = { FRAME_PING, 0, 4, "ping" };
	char buf[FRAME_HEADER_SIZE + 4];
	int fd;

	listen_at(unix_at(), NULL, 50);
	fd = raw_connect();
	assert_int_equal(frame_encode(buf, sizeof(buf), &ping), sizeof(buf));
	assert_int_equal(write(fd, buf, sizeof(buf) - 1), sizeof(buf) - 1);
	run_until(server[0].opened);
	run_for(150);
	assert_int_equal(server[0].closed + server[0].frames, 0);
	conn_close(server[0].conn, "no heartbeat in 100 ms");
	assert_string_equal(server[0].why, "no heartbeat in 100 ms");
	assert_int_equal(server[0].closed, 1);
	close(fd);
	/* One that goes away instead of hanging. */
	fd = raw_connect();
	assert_int_equal(write(fd, buf, sizeof(buf) - 1), sizeof(buf) - 1);
	close(fd);
	run_until(server[1].closed);
	assert_string_equal(server[1].why,
			    "the peer closed the connection in the middle of a frame");
}

static void oversize(void **state)
{
	struct repl_frame ping = { FRAME_PING, 0, 4, "ping" };
	char buf[FRAME_HEADER_SIZE + 4];
	uint32_t number;
	int fd;

	listen_at(unix_at(), NULL, DEADLINE);
	fd = raw_connect();
	frame_encode(buf, sizeof(buf), &ping);
	assert_int_equal(write(fd, buf, sizeof(buf)), sizeof(buf));
	number = htole32(70000);
	memcpy(buf + offsetof(struct repl_frame_header, length), &number, 4);
	number = htole32(crc32c(0, buf, 28));
	memcpy(buf + 28, &number, 4);
	assert_int_equal(write(fd, buf, sizeof(buf)), sizeof(buf));
	run_until(server[0].closed);
	assert_int_equal(server[0].frames, 1);
	assert_string_equal(server[0].why,
			    "the peer sent a frame of 70000 bytes, 4096 is the most (PING)");
	close(fd);
}

/* Byte by byte through a socket. */
static void trickle(void **state)
{
	struct repl_frame ping = { FRAME_PING, 7, 4, "ping" };
	char buf[FRAME_HEADER_SIZE + 4];
	unsigned int i;
	int fd;

	listen_at(unix_at(), NULL, DEADLINE);
	fd = raw_connect();
	frame_encode(buf, sizeof(buf), &ping);
	for (i = 0; i < sizeof(buf); i++) {
		assert_int_equal(server[0].frames, 0);
		assert_int_equal(write(fd, buf + i, 1), 1);
		run_for(1);
	}
	run_until(server[0].frames);
	assert_int_equal(server[0].id, 7);
	close(fd);
}

/* Those that only hold a connection cannot keep the peer out. */
static void flood(void **state)
{
	int fd[20];
	unsigned int i, held;

	listen_at(unix_at(), &first, DEADLINE);
	for (i = 0; i < 20; i++) {
		fd[i] = raw_connect();
		run_until(servers == i + 1);
	}
	for (i = 0, held = 0; i < 20; i++)
		held += !server[i].closed;
	assert_int_equal(held, CONN_HANDSHAKES_MAX);
	assert_string_equal(server[0].why,
			    "handshake: too many connections at a time, this was the oldest");
	assert_int_equal(server[11].closed, 1);
	assert_int_equal(server[12].closed, 0);
	connect_to(unix_at(), &first, DEADLINE);
	run_until(client.opened && server[20].opened);
	/* An open one does not count, and is not closed. */
	for (i = 0; i < 10; i++) {
		close(fd[i]);
		fd[i] = raw_connect();
		run_until(servers == 22 + i);
	}
	assert_int_equal(server[20].closed, 0);
	conn_listener_free(listener);
	listener = NULL;
	assert_string_equal(server[30].why, "we listen no more");
	assert_int_equal(server[20].closed, 0);
	send_one(client.conn, FRAME_PING, "");
	run_until(server[20].frames);
	for (i = 0; i < 20; i++)
		close(fd[i]);
}

/* The listener goes, and the connections, in the middle of closing one of them. */
static void last_closed(struct repl_conn *conn, const char *why, void *context)
{
	conn_listener_free(listener);
	listener = NULL;
	closed(conn, why, context);
}

static void flood_free(void **state)
{
	static const struct repl_conn_ops ends = { .closed = last_closed };
	int fd[9];
	unsigned int i;

	listen_at(unix_at(), &first, DEADLINE);
	for (i = 0; i < 8; i++) {
		fd[i] = raw_connect();
		run_until(servers == i + 1);
		server[i].free_in_closed = true;
	}
	conn_set_ops(server[0].conn, &ends, &server[0]);
	fd[8] = raw_connect();
	run_until(!listener);
	run_for(20);
	for (i = 0; i < 8; i++)
		assert_int_equal(server[i].closed, 1);
	assert_int_equal(servers, 8);
	for (i = 0; i < 9; i++)
		close(fd[i]);
}

/* Filled up to the last frame that fits, while the peer reads nothing. */
static void queue(const struct repl_conn_tls *tls)
{
	static char data[FRAME_DATA_MAX];
	struct repl_frame f = { FRAME_STATE_DATA, 1, sizeof(data), data };
	uint64_t sent = 0;
	size_t was;

	pair_open(tls);
	while (!conn_send(client.conn, &f, &error))
		sent += sizeof(data);
	assert_int_equal(sent / sizeof(data), CONN_QUEUE_MAX / (sizeof(data) + FRAME_HEADER_SIZE));
	assert_non_null(strstr(error.text, "the peer does not read: "));
	was = conn_queued(client.conn);
	assert_int_equal(was, sent + sent / sizeof(data) * FRAME_HEADER_SIZE);
	assert_true(was <= CONN_QUEUE_MAX);
	f.length = 0;
	f.type = FRAME_NR_TYPES;
	assert_int_equal(conn_send(client.conn, &f, &error), -1);
	assert_int_equal(client.writable, 0);
	run_until(server[0].bytes == sent);
	assert_int_equal(conn_queued(client.conn), 0);
	assert_int_equal(client.writable, 1);
	/* Far more than the queue, a frame of any size at a time. */
	f.type = FRAME_STATE_DATA;
	while (sent < 20 * CONN_QUEUE_MAX) {
		f.length = 1 + sent * 31 % sizeof(data);
		if (!conn_send(client.conn, &f, &error))
			sent += f.length;
		else
			assert_true(sd_event_run(loop, 100000) > 0);
	}
	run_until(server[0].bytes == sent);
	assert_int_equal(client.closed + server[0].closed, 0);
}

static void queue_plain(void **state)
{
	queue(NULL);
}

static void queue_tls(void **state)
{
	queue(&first);
}

/* A peer that does not read at all holds up nobody, also not at the end. */
static void peer_stuck(void **state)
{
	static char data[FRAME_DATA_MAX];
	struct repl_frame f = { FRAME_STATE_DATA, 1, sizeof(data), data };
	uint64_t start;
	int fd;

	listen_at(unix_at(), NULL, DEADLINE);
	fd = raw_connect();
	run_until(server[0].opened);
	while (!conn_send(server[0].conn, &f, &error))
		;
	run_for(50);
	assert_true(conn_queued(server[0].conn) > 0);
	start = now();
	conn_close(server[0].conn, "it does not read");
	assert_true(now() - start < 1000);
	assert_int_equal(conn_send(server[0].conn, &f, &error), -1);
	assert_int_equal(error.exit, REPL_EXIT_PEER);
	assert_int_equal(conn_queued(server[0].conn), 0);
	close(fd);
}

static void send_early(void **state)
{
	struct repl_frame f = { FRAME_PING, 0, 0, NULL };

	pair_up(&first, &first);
	assert_false(conn_is_open(client.conn));
	assert_int_equal(conn_send(client.conn, &f, &error), -1);
	assert_string_equal(error.text, "there is no connection to the peer");
	run_until(client.opened && server[0].opened);
	assert_true(conn_is_open(client.conn));
}

/* Callbacks that end their own connection. */
static void free_inside(const struct repl_conn_tls *tls, bool in_opened, bool in_frame,
			bool in_closed, bool close)
{
	unsigned int i;

	listen_at(unix_at(), tls, DEADLINE);
	client.free_in_opened = in_opened;
	client.free_in_frame = in_frame;
	client.free_in_closed = in_closed;
	client.close_in_frame = close;
	connect_to(unix_at(), tls, DEADLINE);
	run_until(server[0].opened);
	for (i = 0; i < 3 && conn_is_open(server[0].conn); i++)
		send_one(server[0].conn, FRAME_PING, "ping");
	run_until(server[0].closed);
	assert_int_equal(client.frames, in_opened ? 0 : 1);
	assert_int_equal(client.closed, close ? 1 : 0);
}

static void free_in_callbacks(void **state)
{
	const struct repl_conn_tls *tls[] = { NULL, &first };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		free_inside(tls[i], true, false, false, false);
		teardown(state);
		setup(state);
		free_inside(tls[i], false, true, false, false);
		teardown(state);
		setup(state);
		free_inside(tls[i], false, false, false, true);
		teardown(state);
		setup(state);
		free_inside(tls[i], false, false, true, true);
		teardown(state);
		setup(state);
		free_inside(tls[i], false, true, true, true);
		teardown(state);
		setup(state);
	}
}

/* TLS that is cut off is not an end like any other. */
static void tls_cut(void **state)
{
	struct repl_address address = { .type = REPL_FD };
	int pair[2], flags;
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	address.fd = pair[0];
	listen_at(address, &first, DEADLINE);
	address.fd = pair[1];
	connect_to(address, &first, DEADLINE);
	run_until(client.opened && server[0].opened);
	flags = fcntl(pair[0], F_GETFL);
	assert_true(flags & O_NONBLOCK);
	shutdown(pair[0], SHUT_RDWR);
	run_until(client.closed && server[0].closed);
	assert_string_equal(client.why, "the connection broke off");
	assert_int_equal(client.closed + server[0].closed, 2);
	assert_true(read(pair[0], &byte, 1) <= 0);
	close(pair[0]);
	close(pair[1]);
}

static void fd_pair(void **state)
{
	struct repl_address address = { .type = REPL_FD };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	address.fd = pair[0];
	listen_at(address, &first, DEADLINE);
	address.fd = pair[1];
	connect_to(address, &first, DEADLINE);
	assert_true(fcntl(pair[1], F_GETFD) & FD_CLOEXEC);
	talk();
	close(pair[0]);
	close(pair[1]);
}

/* As systemd gives it. */
static void fd_listening(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct repl_address address = { .type = REPL_FD };
	struct repl_conn *conn;

	address.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memcpy(sun.sun_path, path, strlen(path));
	assert_int_equal(bind(address.fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(address.fd, 4), 0);
	listen_at(address, NULL, DEADLINE);
	assert_int_equal(conn_connect(loop, &address, NULL, 1, &ops, NULL, &conn, &error), -1);
	assert_non_null(strstr(error.text, "is not connected"));
	connect_to(unix_at(), NULL, DEADLINE);
	talk();
	close(address.fd);
}

static void fd_bad(void **state)
{
	struct repl_address address = { .type = REPL_FD, .fd = 999 };
	int pipes[2];

	assert_int_equal(conn_connect(loop, &address, NULL, 1, &ops, NULL, &client.conn, &error),
			 -1);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	assert_int_equal(pipe(pipes), 0);
	address.fd = pipes[0];
	assert_int_equal(conn_connect(loop, &address, NULL, 1, &ops, NULL, &client.conn, &error),
			 -1);
	assert_int_equal(error.exit, REPL_EXIT_CONFIG);
	close(pipes[0]);
	close(pipes[1]);
}

static struct repl_address exec_of(char *command)
{
	return (struct repl_address){ .type = REPL_EXEC, .command = command, .fd = -1 };
}

/* No child of ours is left, not even a dead one. */
static void expect_reaped(void)
{
	run_until(waitid(P_ALL, 0, &(siginfo_t){ 0 }, WEXITED | WNOHANG | WNOWAIT) < 0);
}

static void exec_echo(void **state)
{
	connect_to(exec_of("exec cat"), NULL, DEADLINE);
	run_until(client.opened);
	send_one(client.conn, FRAME_PING, "echo");
	run_until(client.frames);
	assert_int_equal(client.type, FRAME_PING);
	assert_memory_equal(client.payload, "echo", 4);
	conn_close(client.conn, "enough");
	expect_reaped();
}

/* One that would stay is told to go, with what it has started. */
static void exec_stays(void **state)
{
	connect_to(exec_of("sleep 1000; true"), NULL, DEADLINE);
	run_until(client.opened);
	drop(&client);
	expect_reaped();
}

static void exec_fails(void **state)
{
	connect_to(exec_of("exit 3"), NULL, DEADLINE);
	run_until(client.closed);
	assert_memory_equal(client.why, "the command ended", 17);
	expect_reaped();
}

static void exec_listen(void **state)
{
	struct repl_address address = exec_of("cat");

	assert_int_equal(conn_listen(loop, &address, NULL, 1, accepted, NULL, &listener, &error),
			 -1);
	assert_string_equal(error.text, "exec: is for connecting only");
}

/* TLS through a command: an echo is no server. */
static void exec_tls_echo(void **state)
{
	connect_to(exec_of("exec cat"), &first, DEADLINE);
	run_until(client.closed);
	assert_memory_equal(client.why, "handshake: ", 11);
	assert_int_equal(client.opened, 0);
	expect_reaped();
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(plain_unix), test(tls_unix), test(plain_tcp), test(tls_tcp), test(tls_tcp6),
		test(tcp_refused), test(tcp_name), test(unix_refused), test(unix_stale),
		test(wrong_key), test(wrong_key_tcp), test(two_keys), test(new_keys),
		test(nr_keys), test(two_resources), test(wrong_resource), test(guest_late),
		test(guest_flood), test(server_plaintext), test(server_plaintext_talks),
		test(client_plaintext), test(frame_before_handshake), test(garbage_plain),
		test(garbage_tls), test(handshake_silent), test(connect_silent), test(half_frame),
		test(oversize), test(trickle), test(flood), test(flood_free), test(queue_plain),
		test(queue_tls), test(peer_stuck), test(send_early), test(free_in_callbacks),
		test(tls_cut), test(fd_pair), test(fd_listening), test(fd_bad), test(exec_echo),
		test(exec_stays), test(exec_fails), test(exec_listen), test(exec_tls_echo),
	};
	int r;

	if (!mkdtemp(dir))
		return 1;
	r = cmocka_run_group_tests_name("conn", tests, NULL, NULL);
	rmdir(dir);
	return r;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "conn.h"
#include "unixsock.h"

#define PRIORITY "SECURE128:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:-GROUP-ALL:" \
		 "+GROUP-X25519:+GROUP-SECP256R1"

#define IDENTITY_PREFIX	"dm-repl:"
#define IDENTITY_MARK	8	/* bytes: digits of the key's hash */
#define IDENTITY_SIZE	(sizeof(IDENTITY_PREFIX) + CONFIG_NAME_MAX + 1 + IDENTITY_MARK)
#define READS_MAX	16	/* per turn of the loop: the others want theirs */
#define BACKLOG		16
#define ACCURACY	10000	/* us, of the deadline */

enum conn_state {
	CONN_CONNECTING,
	CONN_HANDSHAKE,
	CONN_OPEN,
	CONN_CLOSED,
};

struct conn_keys {
	unsigned char key[CONN_KEYS_MAX][KEY_SIZE];
	unsigned int nr;	/* 0: plaintext */
};

struct repl_conn {
	enum conn_state state;
	const struct repl_conn_ops *ops;
	void *context;
	struct repl_conn_listener *listener;	/* while it counts as in handshake */
	unsigned int busy;			/* callers inside: free it later */
	bool freed;

	sd_event *event;
	sd_event_source *io;
	sd_event_source *deadline;
	uint32_t events;			/* that @io asks for */
	unsigned int timeout_ms;
	int fd;
	pid_t child;				/* of REPL_EXEC; 0: none */
	int pidfd;

	bool server;
	bool tls;
	bool key_refused;
	const char *refusal;			/* why, for a server */
	char resource[CONFIG_NAME_MAX + 1];	/* that the identity names; "": none */
	bool write_later;			/* gnutls has part of a record */
	struct conn_keys keys;			/* a client's; wiped after the handshake */
	gnutls_session_t session;		/* NULL: plaintext */
	gnutls_psk_client_credentials_t client_cred;
	gnutls_psk_server_credentials_t server_cred;

	struct repl_frame_reader reader;
	unsigned char *in;			/* FRAME_SIZE_MAX */
	/*
	 * What is queued is out[out_start] to out[out_end]. There is room for
	 * twice as much, so that each byte is moved to the front once at most.
	 */
	unsigned char *out;
	size_t out_start, out_end;
	bool above;				/* CONN_QUEUE_LOW, since writable() */

	char peer[NI_MAXHOST + 16];
	char why[512];
};

struct repl_conn_listener {
	sd_event *event;
	sd_event_source *io;
	conn_keys_fn *keys;			/* NULL: plaintext */
	conn_accept_fn *accept;
	void *context;
	unsigned int busy;
	bool freed;
	bool once;				/* fd is the connection itself */
	unsigned int timeout_ms;
	int fd;
	struct repl_conn *pending[CONN_HANDSHAKES_MAX];	/* the oldest first */
	unsigned int nr_pending;
	struct unix_socket socket;		/* of REPL_UNIX */
};

static int no_memory(struct repl_error *error)
{
	return error_set(error, REPL_EXIT_FAILED, "out of memory");
}

/*
 * The life of a connection.
 */
static void destroy(struct repl_conn *conn)
{
	sd_event_unref(conn->event);
	free(conn->in);
	free(conn->out);
	free(conn);
}

/* Between get() and put() the memory stays, whatever the callbacks do. */
static void get(struct repl_conn *conn)
{
	conn->busy++;
}

static void put(struct repl_conn *conn)
{
	if (!--conn->busy && conn->freed)
		destroy(conn);
}

/* It does not count as in handshake any more. */
static void leave_listener(struct repl_conn *conn)
{
	struct repl_conn_listener *listener = conn->listener;
	unsigned int i;

	if (!listener)
		return;
	conn->listener = NULL;
	for (i = 0; listener->pending[i] != conn;)
		i++;
	listener->nr_pending--;
	memmove(&listener->pending[i], &listener->pending[i + 1],
		(listener->nr_pending - i) * sizeof(listener->pending[0]));
}

static void end_tls(struct repl_conn *conn)
{
	gnutls_memset(&conn->keys, 0, sizeof(conn->keys));
	if (conn->session)
		gnutls_deinit(conn->session);
	if (conn->client_cred)
		gnutls_psk_free_client_credentials(conn->client_cred);
	if (conn->server_cred)
		gnutls_psk_free_server_credentials(conn->server_cred);
	conn->session = NULL;
	conn->client_cred = NULL;
	conn->server_cred = NULL;
}

/* pidfd_open() and waitid(P_PIDFD) spare the program its SIGCHLD. */
static int reap(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	siginfo_t info;

	waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG);
	/* Only the loop holds it, and lets go of it. */
	sd_event_source_set_floating(source, 0);
	return 0;
}

static void end_child(struct repl_conn *conn)
{
	sd_event_source *source;

	if (!conn->child)
		return;
	/* It is not reaped yet, so the number is still its own. */
	kill(-conn->child, SIGTERM);
	conn->child = 0;
	if (sd_event_add_io(conn->event, &source, conn->pidfd, EPOLLIN, reap, NULL) >= 0) {
		sd_event_source_set_io_fd_own(source, 1);
		sd_event_source_set_floating(source, 1);
		sd_event_source_unref(source);
	} else {
		close(conn->pidfd);
	}
	conn->pidfd = -1;
}

static ssize_t put_bytes(struct repl_conn *conn);

/* Everything goes but the memory. */
static void tear_down(struct repl_conn *conn)
{
	if (conn->state == CONN_OPEN) {
		while (conn->out_start < conn->out_end && put_bytes(conn) > 0)
			;
		if (conn->session && !conn->write_later)
			gnutls_bye(conn->session, GNUTLS_SHUT_WR);
	}
	conn->state = CONN_CLOSED;
	conn->out_start = 0;
	conn->out_end = 0;
	leave_listener(conn);
	end_tls(conn);
	conn->io = sd_event_source_disable_unref(conn->io);
	conn->deadline = sd_event_source_disable_unref(conn->deadline);
	/* REPL_FD: somebody else has a descriptor of it too. */
	if (conn->fd >= 0) {
		shutdown(conn->fd, SHUT_RDWR);
		close(conn->fd);
	}
	conn->fd = -1;
	end_child(conn);
}

void conn_close(struct repl_conn *conn, const char *why)
{
	if (conn->state == CONN_CLOSED)
		return;
	/* @why may be in memory that closed() frees. */
	snprintf(conn->why, sizeof(conn->why), "%s", why);
	tear_down(conn);
	get(conn);
	if (conn->ops && conn->ops->closed)
		conn->ops->closed(conn, conn->why, conn->context);
	put(conn);
}

static void close_why(struct repl_conn *conn, const char *fmt, ...) printf_like(2, 3);

static void close_why(struct repl_conn *conn, const char *fmt, ...)
{
	char why[sizeof(conn->why)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	conn_close(conn, why);
}

void conn_free(struct repl_conn *conn)
{
	if (!conn || conn->freed)
		return;
	tear_down(conn);
	conn->freed = true;
	if (!conn->busy)
		destroy(conn);
}

void conn_set_ops(struct repl_conn *conn, const struct repl_conn_ops *ops, void *context)
{
	conn->ops = ops;
	conn->context = context;
}

bool conn_is_open(const struct repl_conn *conn)
{
	return conn->state == CONN_OPEN;
}

bool conn_key_refused(const struct repl_conn *conn)
{
	return conn->key_refused;
}

void conn_keep(struct repl_conn *conn)
{
	leave_listener(conn);
	conn->deadline = sd_event_source_disable_unref(conn->deadline);
}

const char *conn_resource(const struct repl_conn *conn)
{
	return conn->state == CONN_OPEN && conn->session && conn->server ? conn->resource : NULL;
}

const char *conn_peer(const struct repl_conn *conn)
{
	return conn->peer;
}

static void want(struct repl_conn *conn, uint32_t events)
{
	if (conn->events == events)
		return;
	conn->events = events;
	sd_event_source_set_io_events(conn->io, events);
}

/*
 * Bytes, through TLS or not: more than 0: so many; 0: the end; -EAGAIN: not
 * now; other errors close the connection by broken().
 */
#define TLS_ERROR(r) (-0x10000 + (r))	/* apart from errno's */

static ssize_t get_bytes(struct repl_conn *conn, void *buf, size_t size)
{
	ssize_t r;

	do {
		if (conn->session)
			r = gnutls_record_recv(conn->session, buf, size);
		else
			r = recv(conn->fd, buf, size, 0);
	} while (conn->session ? r == GNUTLS_E_INTERRUPTED : r < 0 && errno == EINTR);
	if (r >= 0)
		return r;
	if (conn->session)
		return r == GNUTLS_E_AGAIN ? -EAGAIN : TLS_ERROR(r);
	return -errno;
}

static ssize_t put_bytes(struct repl_conn *conn)
{
	const unsigned char *buf = conn->out + conn->out_start;
	size_t size = conn->out_end - conn->out_start;
	ssize_t r;

	do {
		if (!conn->session)
			r = send(conn->fd, buf, size, MSG_NOSIGNAL);
		else if (conn->write_later)	/* it has a copy of what it began */
			r = gnutls_record_send(conn->session, NULL, 0);
		else
			r = gnutls_record_send(conn->session, buf, size);
	} while (conn->session ? r == GNUTLS_E_INTERRUPTED : r < 0 && errno == EINTR);
	if (conn->session)
		conn->write_later = r == GNUTLS_E_AGAIN;
	if (r >= 0) {
		conn->out_start += r;
		return r;
	}
	if (conn->session)
		return r == GNUTLS_E_AGAIN ? -EAGAIN : TLS_ERROR(r);
	return -errno;
}

/* What ended the command, if it has ended. */
static void close_command(struct repl_conn *conn)
{
	siginfo_t info = { 0 };

	if (waitid(P_PIDFD, conn->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
		close_why(conn, "the command ended its output");
	else if (info.si_code == CLD_EXITED)
		close_why(conn, "the command ended with status %d", info.si_status);
	else
		close_why(conn, "the command ended by signal %d", info.si_status);
}

static void broken(struct repl_conn *conn, ssize_t r)
{
	size_t partial = conn->in ? frame_reader_partial(&conn->reader) : 0;

	if (r && r < -0x8000) {
		r -= TLS_ERROR(0);
		if (r == GNUTLS_E_PREMATURE_TERMINATION || r == GNUTLS_E_PULL_ERROR ||
		    r == GNUTLS_E_PUSH_ERROR)
			close_why(conn, "the connection broke off");
		else if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
			close_why(conn, "TLS: the peer says: %s",
				  gnutls_alert_get_name(gnutls_alert_get(conn->session)));
		else
			close_why(conn, "TLS: %s", gnutls_strerror(r));
	} else if (conn->child && (!r || r == -ECONNRESET || r == -EPIPE)) {
		close_command(conn);
	} else if (r) {
		close_why(conn, "the connection broke: %s", strerror(-r));
	} else if (partial) {
		close_why(conn, "the peer closed the connection in the middle of a frame");
	} else {
		close_why(conn, "the peer closed the connection");
	}
}

/*
 * Frames.
 */
static void deliver(struct repl_conn *conn)
{
	struct repl_error error;
	struct repl_frame frame;
	int r = 0;

	while (conn->state == CONN_OPEN &&
	       (r = frame_reader_next(&conn->reader, &frame, &error)) > 0)
		if (conn->ops && conn->ops->frame)
			conn->ops->frame(conn, &frame, conn->context);
	if (conn->state == CONN_OPEN && r < 0)
		conn_close(conn, error.text);
}

static void read_frames(struct repl_conn *conn)
{
	int turns = 0;
	size_t size;
	ssize_t r;
	void *space;

	/* What GnuTLS has decrypted already would not wake us up again. */
	while (conn->state == CONN_OPEN &&
	       (turns++ < READS_MAX ||
		(conn->session && gnutls_record_check_pending(conn->session)))) {
		space = frame_reader_space(&conn->reader, &size);
		r = get_bytes(conn, space, size);
		if (r == -EAGAIN)
			return;
		if (r <= 0) {
			broken(conn, r);
			return;
		}
		frame_reader_added(&conn->reader, r);
		deliver(conn);
	}
}

static void write_frames(struct repl_conn *conn)
{
	ssize_t r = 1;

	while (conn->out_start < conn->out_end && r > 0)
		r = put_bytes(conn);
	if (r < 0 && r != -EAGAIN) {
		/* It may have said why before it went. */
		read_frames(conn);
		if (conn->state == CONN_OPEN)
			broken(conn, r);
		return;
	}
	want(conn, conn->out_start < conn->out_end ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (conn->above && conn_queued(conn) <= CONN_QUEUE_LOW) {
		conn->above = false;
		if (conn->ops && conn->ops->writable)
			conn->ops->writable(conn, conn->context);
	}
}

size_t conn_queued(const struct repl_conn *conn)
{
	return conn->out_end - conn->out_start;
}

int conn_send(struct repl_conn *conn, const struct repl_frame *frame, struct repl_error *error)
{
	size_t len = FRAME_HEADER_SIZE + frame->length;

	if (conn->state != CONN_OPEN)
		return error_set(error, REPL_EXIT_PEER, "there is no connection to the peer");
	if (!frame_max(frame->type) || frame->length > frame_max(frame->type))
		return error_set(error, REPL_EXIT_FAILED, "no frame: %s of %u bytes",
				 frame_name(frame->type), frame->length);
	if (conn_queued(conn) + len > CONN_QUEUE_MAX)
		return error_set(error, REPL_EXIT_FAILED,
				 "the peer does not read: %zu bytes wait to be sent",
				 conn_queued(conn));
	if (conn->out_end + len > 2 * CONN_QUEUE_MAX) {
		memmove(conn->out, conn->out + conn->out_start, conn_queued(conn));
		conn->out_end -= conn->out_start;
		conn->out_start = 0;
	}
	conn->out_end += frame_encode(conn->out + conn->out_end,
				      2 * CONN_QUEUE_MAX - conn->out_end, frame);
	if (conn_queued(conn) > CONN_QUEUE_LOW)
		conn->above = true;
	want(conn, EPOLLIN | EPOLLOUT);
	return 0;
}

/*
 * The handshake.
 */
static void identity(const char *resource, const unsigned char key[KEY_SIZE],
		     char name[IDENTITY_SIZE])
{
	unsigned char hash[32];

	gnutls_hash_fast(GNUTLS_DIG_SHA256, key, KEY_SIZE, hash);
	snprintf(name, IDENTITY_SIZE, IDENTITY_PREFIX "%s:%02x%02x%02x%02x", resource,
		 hash[0], hash[1], hash[2], hash[3]);
}

/* The resource that an identity names: anybody's bytes, so nothing but a good name. */
static bool resource_of(const gnutls_datum_t *given, char resource[CONFIG_NAME_MAX + 1])
{
	const size_t prefix = strlen(IDENTITY_PREFIX), rest = prefix + 1 + IDENTITY_MARK;

	if (given->size <= rest || given->size - rest > CONFIG_NAME_MAX ||
	    memcmp(given->data, IDENTITY_PREFIX, prefix) ||
	    memchr(given->data, 0, given->size))
		return false;
	snprintf(resource, CONFIG_NAME_MAX + 1, "%.*s", (int)(given->size - rest),
		 (const char *)given->data + prefix);
	return config_name_good(resource);
}

/* The server's: which of the keys does the client mean? */
static int find_key(gnutls_session_t session, const gnutls_datum_t *username, gnutls_datum_t *key)
{
	struct repl_conn *conn = gnutls_session_get_ptr(session);
	struct repl_conn_listener *listener = conn->listener;
	struct repl_conn_tls tls = { 0 };
	char name[IDENTITY_SIZE];
	unsigned int i;

	conn->key_refused = true;
	conn->resource[0] = '\0';
	if (!resource_of(username, conn->resource)) {
		conn->refusal = "the peer names no resource";
		conn->resource[0] = '\0';
		return -1;
	}
	if (!listener || !listener->keys(conn->resource, &tls, listener->context)) {
		conn->refusal = "the peer wants a resource that is not served here";
		return -1;
	}
	conn->refusal = "the peer has another key";
	for (i = 0; i < tls.nr_keys; i++) {
		identity(conn->resource, tls.keys[i], name);
		if (username->size != strlen(name) || memcmp(username->data, name, strlen(name)))
			continue;
		key->data = gnutls_malloc(KEY_SIZE);
		if (!key->data)
			return -1;
		key->size = KEY_SIZE;
		memcpy(key->data, tls.keys[i], KEY_SIZE);
		conn->key_refused = false;
		return 0;
	}
	return -1;
}

static int set_credentials(struct repl_conn *conn)
{
	gnutls_datum_t key = { conn->keys.key[0], KEY_SIZE };
	char name[IDENTITY_SIZE];
	int r;

	if (conn->server) {
		r = gnutls_psk_allocate_server_credentials(&conn->server_cred);
		if (r < 0)
			return r;
		gnutls_psk_set_server_credentials_function2(conn->server_cred, find_key);
		return gnutls_credentials_set(conn->session, GNUTLS_CRD_PSK, conn->server_cred);
	}
	r = gnutls_psk_allocate_client_credentials(&conn->client_cred);
	if (r < 0)
		return r;
	identity(conn->resource, conn->keys.key[0], name);
	r = gnutls_psk_set_client_credentials(conn->client_cred, name, &key, GNUTLS_PSK_KEY_RAW);
	if (r < 0)
		return r;
	return gnutls_credentials_set(conn->session, GNUTLS_CRD_PSK, conn->client_cred);
}

static int begin_tls(struct repl_conn *conn)
{
	int r;

	r = gnutls_init(&conn->session, (conn->server ? GNUTLS_SERVER : GNUTLS_CLIENT) |
			GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
	if (r < 0)
		return r;
	gnutls_session_set_ptr(conn->session, conn);
	r = gnutls_priority_set_direct(conn->session, PRIORITY, NULL);
	if (r < 0)
		return r;
	r = set_credentials(conn);
	if (r < 0)
		return r;
	/* The deadline is ours. */
	gnutls_handshake_set_timeout(conn->session, GNUTLS_INDEFINITE_TIMEOUT);
	gnutls_transport_set_int(conn->session, conn->fd);
	return 0;
}

static void handshake_alert(struct repl_conn *conn)
{
	gnutls_alert_description_t alert = gnutls_alert_get(conn->session);

	if (alert == GNUTLS_A_UNKNOWN_PSK_IDENTITY || alert == GNUTLS_A_DECRYPT_ERROR)
		conn->key_refused = true;
	if (conn->key_refused)
		close_why(conn, "the peer has another key for %s, or does not serve it",
			  conn->resource);
	else
		close_why(conn, "handshake: the peer says: %s", gnutls_alert_get_name(alert));
}

/* Tells the peer, too. */
static void handshake_failed(struct repl_conn *conn, int r)
{
	if (conn->key_refused) {
		/* No word of which it is: who has no key learns nothing of what is here. */
		gnutls_alert_send(conn->session, GNUTLS_AL_FATAL, GNUTLS_A_UNKNOWN_PSK_IDENTITY);
		close_why(conn, "%s%s%s", conn->resource, conn->resource[0] ? ": " : "",
			  conn->refusal);
		return;
	}
	if (r != GNUTLS_E_FATAL_ALERT_RECEIVED)
		gnutls_alert_send_appropriate(conn->session, r);
	switch (r) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		handshake_alert(conn);
		break;
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		conn_close(conn, "handshake: the peer closed the connection");
		break;
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
	case GNUTLS_E_UNEXPECTED_PACKET:
	case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
	case GNUTLS_E_RECORD_OVERFLOW:
		conn_close(conn, "handshake: the peer does not speak TLS");
		break;
	default:
		close_why(conn, "handshake: %s", gnutls_strerror(r));
	}
}

static void handshake_done(struct repl_conn *conn)
{
	conn->in = malloc(FRAME_SIZE_MAX);
	conn->out = malloc(2 * CONN_QUEUE_MAX);
	if (!conn->in || !conn->out) {
		conn_close(conn, "out of memory");
		return;
	}
	frame_reader_init(&conn->reader, conn->in, FRAME_SIZE_MAX);
	gnutls_memset(&conn->keys, 0, sizeof(conn->keys));
	conn->state = CONN_OPEN;
	if (!conn->server)
		conn_keep(conn);
	want(conn, EPOLLIN);
	if (conn->ops && conn->ops->opened)
		conn->ops->opened(conn, conn->context);
}

static void shake_hands(struct repl_conn *conn)
{
	int r;

	do {
		r = gnutls_handshake(conn->session);
	} while (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r));
	if (r == GNUTLS_E_AGAIN)
		want(conn, gnutls_record_get_direction(conn->session) ? EPOLLOUT : EPOLLIN);
	else if (r < 0)
		handshake_failed(conn, r);
	else if (gnutls_kx_get(conn->session) != GNUTLS_KX_ECDHE_PSK)
		conn_close(conn, "handshake: the peer got in without a key");
	else
		handshake_done(conn);
}

static void connected(struct repl_conn *conn)
{
	socklen_t len = sizeof(int);
	int r = 0;

	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &r, &len) < 0)
		r = errno;
	if (r) {
		/* "connection refused", as it stands in a sentence */
		close_why(conn, "%s", r == ECONNREFUSED ? "connection refused" : strerror(r));
		return;
	}
	conn->state = CONN_HANDSHAKE;
	if (!conn->tls) {
		handshake_done(conn);
		return;
	}
	r = begin_tls(conn);
	if (r < 0)
		close_why(conn, "handshake: %s", gnutls_strerror(r));
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct repl_conn *conn = userdata;

	get(conn);
	if (conn->state == CONN_CONNECTING)
		connected(conn);
	if (conn->state == CONN_HANDSHAKE)
		shake_hands(conn);
	/* Reading first: a peer that went may have said why. */
	if (conn->state == CONN_OPEN)
		read_frames(conn);
	if (conn->state == CONN_OPEN && conn->out_start < conn->out_end)
		write_frames(conn);
	put(conn);
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct repl_conn *conn = userdata;

	close_why(conn, "%sno %s in %u ms", conn->state == CONN_HANDSHAKE ? "handshake: " : "",
		  conn->state == CONN_OPEN ? "HELLO" : "answer", conn->timeout_ms);
	return 0;
}

/*
 * Sockets.
 */

/* Takes @fd over, also on failure. */
static struct repl_conn *make(sd_event *event, int fd, unsigned int timeout_ms,
			      struct repl_error *error)
{
	struct repl_conn *conn = calloc(1, sizeof(*conn));
	int on = 1, r;

	if (!conn) {
		close(fd);
		no_memory(error);
		return NULL;
	}
	conn->event = sd_event_ref(event);
	conn->fd = fd;
	conn->pidfd = -1;
	conn->timeout_ms = timeout_ms;
	/* Frames are small and waited for. Fails where it means nothing. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* Writable means connected: also where it is from the start. */
	conn->events = EPOLLOUT;
	r = sd_event_add_io(event, &conn->io, fd, conn->events, on_io, conn);
	if (r >= 0)
		r = sd_event_add_time_relative(event, &conn->deadline, CLOCK_MONOTONIC,
					       (uint64_t)timeout_ms * 1000, ACCURACY, on_deadline,
					       conn);
	if (r >= 0)
		return conn;
	error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r));
	conn_free(conn);
	return NULL;
}

static int copy_keys(const struct repl_conn_tls *tls, struct conn_keys *keys,
		     struct repl_error *error)
{
	memset(keys, 0, sizeof(*keys));
	if (!tls)
		return 0;
	if (!tls->nr_keys || tls->nr_keys > CONN_KEYS_MAX)
		return error_set(error, REPL_EXIT_CONFIG, "TLS takes 1 or %d keys, not %u",
				 CONN_KEYS_MAX, tls->nr_keys);
	keys->nr = tls->nr_keys;
	memcpy(keys->key, tls->keys, tls->nr_keys * sizeof(keys->key[0]));
	return 0;
}

/* Where a socket is: the peer's address, or what we made of ours. */
static void describe(char *to, size_t size, const struct sockaddr_storage *addr, socklen_t len)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if ((addr->ss_family != AF_INET && addr->ss_family != AF_INET6) ||
	    getnameinfo((const struct sockaddr *)addr, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(to, size, addr->ss_family == AF_UNIX ? "unix" : "?");
	else
		snprintf(to, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

static int tcp_address(const struct repl_address *address, struct sockaddr_storage *addr,
		       socklen_t *len, struct repl_error *error)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
	};
	struct addrinfo *info;
	char port[8];
	int r;

	snprintf(port, sizeof(port), "%u", address->port);
	r = getaddrinfo(address->host, port, &hints, &info);
	if (r)
		return error_set(error, REPL_EXIT_CONFIG,
				 "tcp: \"%s\" is not a number (names are not looked up here): %s",
				 address->host, gai_strerror(r));
	memcpy(addr, info->ai_addr, info->ai_addrlen);
	*len = info->ai_addrlen;
	freeaddrinfo(info);
	return 0;
}

static int unix_address(const struct repl_address *address, struct sockaddr_storage *addr,
			socklen_t *len, struct repl_error *error)
{
	*len = sizeof(struct sockaddr_un);
	return unix_socket_address(address->path, (struct sockaddr_un *)addr, error);
}

static int socket_address(const struct repl_address *address, struct sockaddr_storage *addr,
			  socklen_t *len, struct repl_error *error)
{
	return address->type == REPL_TCP ? tcp_address(address, addr, len, error) :
					   unix_address(address, addr, len, error);
}

static int stream_socket(int family, struct repl_error *error)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? error_set(error, REPL_EXIT_FAILED, "socket: %s", strerror(errno)) : fd;
}

static int connect_socket(const struct repl_address *address, struct repl_error *error)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd, r;

	if (socket_address(address, &addr, &len, error) < 0)
		return -1;
	fd = stream_socket(addr.ss_family, error);
	if (fd < 0)
		return -1;
	if (!connect(fd, (struct sockaddr *)&addr, len) || errno == EINPROGRESS)
		return fd;
	r = errno;
	close(fd);
	return error_set(error, REPL_EXIT_PEER, "%s",
			 r == ECONNREFUSED ? "connection refused" :
			 r == EAGAIN ? "the peer has too many connections to accept" :
			 strerror(r));
}

/* A stream socket that somebody gave us. */
static int given_socket(int given, bool *listening, struct repl_error *error)
{
	socklen_t len = sizeof(int);
	int fd, type, flags, accepts;

	if (getsockopt(given, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return error_set(error, REPL_EXIT_CONFIG, "fd:%d: %s", given, strerror(errno));
	if (type != SOCK_STREAM)
		return error_set(error, REPL_EXIT_CONFIG, "fd:%d is not a stream socket", given);
	len = sizeof(int);
	if (getsockopt(given, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) < 0)
		accepts = 0;
	*listening = accepts;
	flags = fcntl(given, F_GETFL);
	fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(given, F_SETFD, FD_CLOEXEC) < 0) {
		error_set(error, REPL_EXIT_FAILED, "fd:%d: %s", given, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* Its stdin and stdout are @fd; signals are as after login. */
static int spawn(const char *command, int fd, pid_t *pid)
{
	char *argv[] = { "sh", "-c", (char *)command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t set;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	sigemptyset(&set);
	posix_spawnattr_setsigmask(&attr, &set);
	sigfillset(&set);
	posix_spawnattr_setsigdefault(&attr, &set);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
				 POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn(pid, "/bin/sh", &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

static int start_command(const char *command, pid_t *pid, int *pidfd, struct repl_error *error)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set(error, REPL_EXIT_FAILED, "socketpair: %s", strerror(errno));
	r = spawn(command, pair[1], pid);
	close(pair[1]);
	if (r) {
		close(pair[0]);
		return error_set(error, REPL_EXIT_FAILED, "/bin/sh: %s", strerror(r));
	}
	*pidfd = syscall(SYS_pidfd_open, *pid, 0);
	/* Our end only: a command that is surprised by EAGAIN is a common one. */
	if (*pidfd >= 0 && fcntl(pair[0], F_SETFL, O_RDWR | O_NONBLOCK) == 0)
		return pair[0];
	error_set(error, REPL_EXIT_FAILED, "exec: %s", strerror(errno));
	if (*pidfd >= 0)
		close(*pidfd);
	close(pair[0]);
	kill(-*pid, SIGKILL);
	waitpid(*pid, NULL, 0);
	return -1;
}

static void name_peer(struct repl_conn *conn, const struct repl_address *address)
{
	if (address->type == REPL_TCP)
		snprintf(conn->peer, sizeof(conn->peer),
			 strchr(address->host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", address->host,
			 address->port);
	else if (address->type == REPL_UNIX)
		snprintf(conn->peer, sizeof(conn->peer), "unix:%s", address->path);
	else if (address->type == REPL_EXEC)
		snprintf(conn->peer, sizeof(conn->peer), "exec:%s", address->command);
	else
		snprintf(conn->peer, sizeof(conn->peer), "fd:%d", address->fd);
}

static int open_address(const struct repl_address *address, pid_t *child, int *pidfd,
			struct repl_error *error)
{
	bool listening;
	int fd;

	switch (address->type) {
	case REPL_EXEC:
		return start_command(address->command, child, pidfd, error);
	case REPL_FD:
		fd = given_socket(address->fd, &listening, error);
		if (fd < 0 || !listening)
			return fd;
		close(fd);
		return error_set(error, REPL_EXIT_CONFIG, "fd:%d is not connected", address->fd);
	default:
		return connect_socket(address, error);
	}
}

int conn_connect(sd_event *event, const struct repl_address *address,
		 const struct repl_conn_tls *tls, unsigned int timeout_ms,
		 const struct repl_conn_ops *ops, void *context, struct repl_conn **conn,
		 struct repl_error *error)
{
	struct conn_keys keys;
	pid_t child = 0;
	int pidfd = -1, fd;

	if (copy_keys(tls, &keys, error) < 0)
		return -1;
	fd = open_address(address, &child, &pidfd, error);
	if (fd >= 0) {
		*conn = make(event, fd, timeout_ms, error);
		if (!*conn && child) {
			kill(-child, SIGKILL);
			waitpid(child, NULL, 0);
			close(pidfd);
		}
	}
	if (fd >= 0 && *conn) {
		(*conn)->tls = tls;
		(*conn)->keys = keys;
		if (tls)
			snprintf((*conn)->resource, sizeof((*conn)->resource), "%s", tls->resource);
	}
	gnutls_memset(&keys, 0, sizeof(keys));
	if (fd < 0 || !*conn)
		return -1;
	(*conn)->child = child;
	(*conn)->pidfd = pidfd;
	name_peer(*conn, address);
	conn_set_ops(*conn, ops, context);
	return 0;
}

/*
 * The listener.
 */
static void listener_destroy(struct repl_conn_listener *listener)
{
	sd_event_unref(listener->event);
	free(listener);
}

static void listener_put(struct repl_conn_listener *listener)
{
	if (!--listener->busy && listener->freed)
		listener_destroy(listener);
}

static void add_pending(struct repl_conn_listener *listener, struct repl_conn *conn)
{
	/* closed() of the oldest may do anything: also accept nothing more. */
	while (!listener->freed && listener->nr_pending == CONN_HANDSHAKES_MAX)
		conn_close(listener->pending[0],
			   "handshake: too many connections at a time, this was the oldest");
	if (listener->freed) {
		conn_free(conn);
		return;
	}
	listener->pending[listener->nr_pending++] = conn;
	conn->listener = listener;
	listener->accept(conn, listener->context);
}

static int on_accept(sd_event_source *source, int given, uint32_t revents, void *userdata)
{
	struct repl_conn_listener *listener = userdata;
	struct sockaddr_storage addr = { 0 };
	socklen_t len = sizeof(addr);
	struct repl_conn *conn;
	int fd = given;

	if (listener->once) {
		listener->io = sd_event_source_disable_unref(listener->io);
		listener->fd = -1;
		getpeername(fd, (struct sockaddr *)&addr, &len);
	} else {
		fd = accept4(given, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	}
	if (fd < 0) {
		/* No descriptor left: those that only hold one make room. */
		if ((errno == EMFILE || errno == ENFILE) && listener->nr_pending)
			conn_close(listener->pending[0], "handshake: out of descriptors");
		return 0;
	}
	conn = make(listener->event, fd, listener->timeout_ms, NULL);
	if (!conn)
		return 0;
	conn->server = true;
	conn->tls = listener->keys;
	describe(conn->peer, sizeof(conn->peer), &addr, len);
	listener->busy++;
	add_pending(listener, conn);
	listener_put(listener);
	return 0;
}

static int listen_tcp(const struct repl_address *address, struct repl_error *error)
{
	struct sockaddr_storage addr;
	int on = 1, fd;
	socklen_t len;

	if (tcp_address(address, &addr, &len, error) < 0)
		return -1;
	fd = stream_socket(addr.ss_family, error);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, (const struct sockaddr *)&addr, len) && !listen(fd, BACKLOG))
		return fd;
	error_set(error, REPL_EXIT_FAILED, "listen: %s", strerror(errno));
	close(fd);
	return -1;
}

static int open_listener(struct repl_conn_listener *listener, const struct repl_address *address,
			 struct repl_error *error)
{
	bool listening = true;

	if (address->type == REPL_EXEC)
		return error_set(error, REPL_EXIT_CONFIG, "exec: is for connecting only");
	if (address->type == REPL_TCP)
		listener->fd = listen_tcp(address, error);
	if (address->type == REPL_UNIX)
		listener->fd = unix_socket_listen(&listener->socket, address->path, BACKLOG, error);
	if (address->type != REPL_FD)
		return listener->fd < 0 ? -1 : 0;
	listener->fd = given_socket(address->fd, &listening, error);
	listener->once = !listening;
	return listener->fd < 0 ? -1 : 0;
}

int conn_listen(sd_event *event, const struct repl_address *address,
		conn_keys_fn *keys, unsigned int timeout_ms, conn_accept_fn *accept,
		void *context, struct repl_conn_listener **listener, struct repl_error *error)
{
	struct repl_conn_listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return no_memory(error);
	l->event = sd_event_ref(event);
	l->fd = -1;
	l->timeout_ms = timeout_ms;
	l->keys = keys;
	l->accept = accept;
	l->context = context;
	if (open_listener(l, address, error) < 0)
		goto fail;
	r = sd_event_add_io(event, &l->io, l->fd, l->once ? EPOLLOUT : EPOLLIN, on_accept, l);
	/* The rest of the loop gets its turn in a flood, or without descriptors. */
	if (r >= 0 && !l->once)
		r = sd_event_source_set_ratelimit(l->io, 100000, 50);
	if (r < 0) {
		error_set(error, REPL_EXIT_FAILED, "event loop: %s", strerror(-r));
		goto fail;
	}
	*listener = l;
	return 0;
fail:
	conn_listener_free(l);
	return -1;
}

void conn_listener_wait(struct repl_conn_listener *listener, unsigned int timeout_ms)
{
	if (listener->timeout_ms < timeout_ms)
		listener->timeout_ms = timeout_ms;
}

void conn_listener_free(struct repl_conn_listener *listener)
{
	if (!listener || listener->freed)
		return;
	listener->freed = true;
	listener->busy++;
	listener->io = sd_event_source_disable_unref(listener->io);
	if (listener->fd >= 0)
		close(listener->fd);
	unix_socket_remove(&listener->socket);
	while (listener->nr_pending)
		conn_close(listener->pending[0], "we listen no more");
	listener_put(listener);
}

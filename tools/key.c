// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "key.h"

#define KEY_LINE (2 * KEY_SIZE + 1)	/* bytes, with the newline */

void key_wipe(unsigned char key[KEY_SIZE])
{
	explicit_bzero(key, KEY_SIZE);
}

static int fail_errno(struct repl_error *error, enum repl_exit exit, const char *path)
{
	return error_set(error, exit, "%s: %s", path, strerror(errno));
}

/* The name of a new file is durable once its directory is. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd, ret;

	if (!copy)
		return -1;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return -1;
	ret = fsync(fd);
	close(fd);
	return ret;
}

/* A new key as the line of a file. */
static int random_line(char line[KEY_LINE])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char key[KEY_SIZE];
	ssize_t got;
	int i;

	do
		got = getrandom(key, sizeof(key), 0);
	while (got < 0 && errno == EINTR);
	if (got != sizeof(key))
		return -1;
	for (i = 0; i < KEY_SIZE; i++) {
		line[2 * i] = digits[key[i] >> 4];
		line[2 * i + 1] = digits[key[i] & 15];
	}
	line[KEY_LINE - 1] = '\n';
	key_wipe(key);
	return 0;
}

static int write_line(int fd, const char line[KEY_LINE])
{
	ssize_t done;
	size_t at;

	for (at = 0; at < KEY_LINE; at += done) {
		done = write(fd, line + at, KEY_LINE - at);
		if (done < 0 && errno == EINTR)
			done = 0;
		if (done < 0)
			return -1;
	}
	return 0;
}

int key_generate(const char *path, struct repl_error *error)
{
	char line[KEY_LINE];
	bool good;
	int fd;

	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: exists; a key is never overwritten", path);
	if (fd < 0)
		return fail_errno(error, REPL_EXIT_FAILED, path);

	/* The umask may have taken away what the owner needs. */
	good = !fchmod(fd, 0600) && !random_line(line) && !write_line(fd, line) && !fsync(fd);
	explicit_bzero(line, sizeof(line));
	if (!good)
		fail_errno(error, REPL_EXIT_FAILED, path);
	if (close(fd) < 0 && good) {
		good = false;
		fail_errno(error, REPL_EXIT_FAILED, path);
	}
	if (good && sync_directory(path) < 0) {
		good = false;
		fail_errno(error, REPL_EXIT_FAILED, path);
	}
	if (!good)
		unlink(path);
	return good ? 0 : -1;
}

/* Is this a file that nobody but root and us could have read or written? */
static int check_file(int fd, const char *path, struct repl_error *error)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_errno(error, REPL_EXIT_FAILED, path);
	if (!S_ISREG(st.st_mode))
		return error_set(error, REPL_EXIT_REFUSED, "%s: not a regular file", path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: belongs to user %u, who knows the key: chown root %s, or make a new key",
				 path, st.st_uid, path);
	if (st.st_mode & (0066))
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: others can read or write it (mode %04o): chmod 600 %s, and make a new key if others may have read it",
				 path, st.st_mode & 07777, path);
	return 0;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool decode(const char *line, size_t len, unsigned char key[KEY_SIZE])
{
	int i, high, low;

	if (len == KEY_LINE && line[KEY_LINE - 1] == '\n')
		len--;
	if (len != 2 * KEY_SIZE)
		return false;
	for (i = 0; i < KEY_SIZE; i++) {
		high = digit(line[2 * i]);
		low = digit(line[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		key[i] = high << 4 | low;
	}
	return true;
}

/* The file's content: one byte more than a key's, to see what is too long. */
static int read_line(int fd, char line[KEY_LINE + 1], size_t *len)
{
	ssize_t got;

	*len = 0;
	do {
		got = read(fd, line + *len, KEY_LINE + 1 - *len);
		if (got > 0)
			*len += got;
	} while ((got > 0 && *len < KEY_LINE + 1) || (got < 0 && errno == EINTR));
	return got < 0 ? -1 : 0;
}

static int load(int fd, const char *path, unsigned char key[KEY_SIZE], struct repl_error *error)
{
	char line[KEY_LINE + 1];
	size_t len;
	int ret = 0;

	if (check_file(fd, path, error) < 0)
		return -1;
	if (read_line(fd, line, &len) < 0)
		ret = fail_errno(error, REPL_EXIT_FAILED, path);
	else if (!decode(line, len, key))
		ret = error_set(error, REPL_EXIT_REFUSED,
				"%s: not a key: one line of %d hexadecimal digits; replctl key generate makes one",
				path, 2 * KEY_SIZE);
	explicit_bzero(line, sizeof(line));
	return ret;
}

int key_load(const char *path, unsigned char key[KEY_SIZE], struct repl_error *error)
{
	int fd, ret;

	key_wipe(key);
	/* A FIFO or a terminal must not stop us before it is refused. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno == ELOOP)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: a symbolic link, not a regular file: name the file itself",
				 path);
	if (fd < 0)
		return fail_errno(error, REPL_EXIT_CONFIG, path);
	ret = load(fd, path, key, error);
	close(fd);
	if (ret < 0)
		key_wipe(key);
	return ret;
}

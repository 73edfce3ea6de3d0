// SPDX-License-Identifier: GPL-2.0-only
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "key.h"

#define HEX "00112233445566778899aAbBcCdDeEfF0123456789abcdef0123456789ABCDEF"

static char dir[] = "/tmp/test-key-XXXXXX";
static char path[64];		/* dir/r0.key */

static int make_dir(void **state)
{
	strcpy(dir + sizeof(dir) - 7, "XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/r0.key", dir);
	umask(022);
	return 0;
}

static int remove_dir(void **state)
{
	char other[80];

	snprintf(other, sizeof(other), "%s/other", dir);
	unlink(other);
	rmdir(path);
	unlink(path);
	return rmdir(dir);
}

static void put(const char *content, size_t len, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, len), len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

/* @words: with %s twice or once for the path */
static void refused(enum repl_exit exit, const char *words)
{
	unsigned char key[KEY_SIZE], zero[KEY_SIZE] = { };
	struct repl_error error = { };
	char expected[512];

	memset(key, 1, sizeof(key));
	assert_int_equal(key_load(path, key, &error), -1);
	snprintf(expected, sizeof(expected), words, path, path);
	assert_string_equal(error.text, expected);
	assert_int_equal(error.exit, exit);
	assert_memory_equal(key, zero, sizeof(key));
	assert_int_equal(key_load(path, key, NULL), -1);
}

static void not_a_key(const char *content, size_t len)
{
	put(content, len, 0600);
	refused(REPL_EXIT_REFUSED,
		"%s: not a key: one line of 64 hexadecimal digits; replctl key generate makes one");
	unlink(path);
}

static void generate(void **state)
{
	unsigned char one[KEY_SIZE], two[KEY_SIZE];
	struct repl_error error = { };
	struct stat st;
	char text[80];
	int fd;

	umask(0777);	/* must change nothing */
	assert_int_equal(key_generate(path, &error), 0);
	umask(022);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(st.st_size, 65);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 65);
	close(fd);
	assert_int_equal(strspn(text, "0123456789abcdef"), 64);
	assert_int_equal(text[64], '\n');
	assert_int_equal(key_load(path, one, &error), 0);

	/* the file holds what was loaded, digit by digit */
	for (fd = 0; fd < KEY_SIZE; fd++) {
		char digits[3];

		snprintf(digits, sizeof(digits), "%02x", one[fd]);
		assert_memory_equal(digits, text + 2 * fd, 2);
	}
	unlink(path);
	assert_int_equal(key_generate(path, &error), 0);
	assert_int_equal(key_load(path, two, &error), 0);
	assert_memory_not_equal(one, two, sizeof(one));
}

static void generate_refuses_existing(void **state)
{
	struct repl_error error = { };
	char expected[128], other[80], text[8] = "";
	int fd;

	snprintf(expected, sizeof(expected), "%s: exists; a key is never overwritten", path);
	put("mine", 4, 0600);
	assert_int_equal(key_generate(path, &error), -1);
	assert_string_equal(error.text, expected);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);
	assert_int_equal(key_generate(path, NULL), -1);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	close(fd);
	assert_memory_equal(text, "mine", 4);
	unlink(path);

	/* nor is a link followed, though it leads nowhere */
	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(symlink(other, path), 0);
	memset(&error, 0, sizeof(error));
	assert_int_equal(key_generate(path, &error), -1);
	assert_string_equal(error.text, expected);
	assert_int_equal(error.exit, REPL_EXIT_REFUSED);
	assert_int_not_equal(access(other, F_OK), 0);
}

static void generate_without_directory(void **state)
{
	struct repl_error error = { };

	assert_int_equal(key_generate("/nonexistent/r0.key", &error), -1);
	assert_string_equal(error.text, "/nonexistent/r0.key: No such file or directory");
	assert_int_equal(error.exit, REPL_EXIT_FAILED);
}

static void load_good(void **state)
{
	static const unsigned char expected[KEY_SIZE] = {
		0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
		0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
		0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
		0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
	};
	static const mode_t modes[] = { 0600, 0400, 0700, 0611 };
	unsigned char key[KEY_SIZE];
	struct repl_error error = { };
	size_t i;

	for (i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		put(HEX "\n", 65, modes[i]);
		assert_int_equal(key_load(path, key, &error), 0);
		assert_memory_equal(key, expected, sizeof(key));
		unlink(path);
	}
	put(HEX, 64, 0600);	/* without its newline */
	assert_int_equal(key_load(path, key, NULL), 0);
	assert_memory_equal(key, expected, sizeof(key));
}

static void load_missing(void **state)
{
	refused(REPL_EXIT_CONFIG, "%s: No such file or directory");
}

static void load_open_to_others(void **state)
{
	static const mode_t modes[] = { 0640, 0620, 0604, 0602, 0666 };
	char words[256];
	size_t i;

	for (i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		put(HEX "\n", 65, modes[i]);
		snprintf(words, sizeof(words),
			 "%%s: others can read or write it (mode %04o): chmod 600 %%s, and make a new key if others may have read it",
			 modes[i]);
		refused(REPL_EXIT_REFUSED, words);
		unlink(path);
	}
}

static void load_foreign_owner(void **state)
{
	put(HEX "\n", 65, 0600);
	if (chown(path, 12345, -1) < 0)
		skip();		/* only root can make such a file */
	refused(REPL_EXIT_REFUSED,
		"%s: belongs to user 12345, who knows the key: chown root %s, or make a new key");
}

static void load_not_regular(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char other[80];
	int fd;

	assert_int_equal(mkdir(path, 0700), 0);
	refused(REPL_EXIT_REFUSED, "%s: not a regular file");
	rmdir(path);

	assert_int_equal(mkfifo(path, 0600), 0);
	refused(REPL_EXIT_REFUSED, "%s: not a regular file");
	unlink(path);

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(sun.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	close(fd);
	refused(REPL_EXIT_CONFIG, "%s: No such device or address");
	unlink(path);

	put(HEX "\n", 65, 0600);
	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(symlink(other, path), 0);
	refused(REPL_EXIT_REFUSED,
		"%s: a symbolic link, not a regular file: name the file itself");
}

static void load_wrong_content(void **state)
{
	static const char nul[65] = HEX;	/* its last byte is no newline */
	char copy[65];
	int i;

	not_a_key("", 0);
	not_a_key("\n", 1);
	not_a_key(HEX, 63);
	not_a_key(HEX "0", 65);
	not_a_key(HEX "\n\n", 66);
	not_a_key(HEX "\r\n", 66);
	not_a_key(HEX "\n" HEX "\n", 130);
	not_a_key(nul, 65);
	not_a_key("0x112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef", 64);
	for (i = 0; i < 64; i += 21) {
		memcpy(copy, HEX "\n", 65);
		copy[i] = 'g';
		not_a_key(copy, 65);
		copy[i] = '/';
		not_a_key(copy, 65);
		copy[i] = '\0';
		not_a_key(copy, 65);
	}
}

static void wipe(void **state)
{
	unsigned char key[KEY_SIZE], zero[KEY_SIZE] = { };

	memset(key, 1, sizeof(key));
	key_wipe(key);
	assert_memory_equal(key, zero, sizeof(key));
}

#define test(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(generate),
		test(generate_refuses_existing),
		test(generate_without_directory),
		test(load_good),
		test(load_missing),
		test(load_open_to_others),
		test(load_foreign_owner),
		test(load_not_regular),
		test(load_wrong_content),
		test(wipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

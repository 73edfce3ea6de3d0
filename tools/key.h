/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Key: the pre-shared secret of the two hosts, 256 bits, in a file of its own:
 * one line of 64 hexadecimal digits, readable by its owner only. No function
 * here puts key material into an error or a log.
 */
#ifndef REPLCTL_KEY_H
#define REPLCTL_KEY_H

#include "error.h"

#define KEY_SIZE 32	/* bytes */

/**
 * key_generate() - make a new key and its file
 * @path: of the file; it must not exist
 * @error: set on failure: REPL_EXIT_REFUSED if there is something at @path,
 *	else REPL_EXIT_FAILED
 *
 * The file has mode 0600, and it is on disk when this returns. On failure
 * there is no file.
 *
 * Return: 0, or -1.
 */
int key_generate(const char *path, struct repl_error *error);

/**
 * key_load() - read a key
 * @path: of the file
 * @key: the result, for key_wipe(); all zeroes on failure
 * @error: set on failure: REPL_EXIT_CONFIG if the file cannot be opened,
 *	REPL_EXIT_REFUSED if it is not a regular file, others can read or write
 *	it, it belongs to neither root nor us, or is no key; REPL_EXIT_FAILED
 *	if it cannot be read
 *
 * Return: 0, or -1.
 */
int key_load(const char *path, unsigned char key[KEY_SIZE], struct repl_error *error);

/**
 * key_wipe() - forget a key
 * @key: overwritten in a way that the compiler keeps
 */
void key_wipe(unsigned char key[KEY_SIZE]);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TESTS_SHA256_H
#define TESTS_SHA256_H

#include <stddef.h>

#define SHA256_LANES 8

/*
 * The hashes, as 64 lower-case digits, of SHA256_LANES messages of the same
 * @len (a multiple of 64), side by side: in an emulated machine that is
 * several times faster than one after the other.
 */
void sha256_lanes(const void *const msg[SHA256_LANES], size_t len,
		  char hex[SHA256_LANES][65]);

#endif

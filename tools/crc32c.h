/* SPDX-License-Identifier: GPL-2.0-only */
/* CRC-32C (Castagnoli), as in iSCSI, ext4 and the kernel's crc32c(~0, ...) ^ ~0. */
#ifndef REPLCTL_CRC32C_H
#define REPLCTL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/**
 * crc32c() - checksum of bytes that may come in pieces
 * @crc: 0 for the first piece, the result of the piece before for the others
 * @data: the piece
 * @len: bytes
 *
 * Return: checksum of all the pieces so far.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Data leg: how the primary's writes reach the secondary. nbdkit exports ingest, the
 * kernel's nbd client imports it. Both go on when the daemon ends. Where the primary's
 * configuration has import the leg is another's, and nothing here touches it.
 */
#ifndef REPLCTL_DATALEG_H
#define REPLCTL_DATALEG_H

#include "resource.h"

/**
 * dataleg_external() - is the leg not ours to make and to end?
 * @resource: resource
 * @volume: index
 *
 * Return: the block device on the primary, or NULL.
 */
const char *dataleg_external(const struct repl_resource *resource, unsigned int volume);

/**
 * dataleg_exported() - is the server of a volume there?
 * @resource: resource; this side is secondary
 * @volume: index
 *
 * Does not block. Return: also true if others export it.
 */
bool dataleg_exported(const struct repl_resource *resource, unsigned int volume);

/**
 * dataleg_export() - serve a volume's ingest, unless it is served
 * @resource: resource, this host is the secondary
 * @volume: index
 * @error: filled in on -1
 */
int dataleg_export(const struct repl_resource *resource, unsigned int volume,
		   struct repl_error *error);

/**
 * dataleg_unexport() - end the server; whoever writes through it gets an error
 * @resource: resource
 * @volume: index
 * @wait: until it is gone, and the device and the port are free
 * @error: filled in on -1
 */
int dataleg_unexport(const struct repl_resource *resource, unsigned int volume, bool wait,
		     struct repl_error *error);

/**
 * dataleg_import() - connect to the peer's export, unless connected
 * @resource: resource, this host is the primary
 * @volume: index
 * @path: out: the block device
 * @size: bytes at @path
 * @error: filled in on -1: REPL_EXIT_PEER if nobody answers
 */
int dataleg_import(const struct repl_resource *resource, unsigned int volume,
		   char *path, size_t size, struct repl_error *error);

/**
 * dataleg_imported() - the import, if it is there: connects nothing
 * @resource: resource, this host is the primary
 * @volume: index
 * @path: out: the block device
 * @size: bytes at @path
 * @error: filled in on -1: REPL_EXIT_PEER if it is not connected
 */
int dataleg_imported(const struct repl_resource *resource, unsigned int volume,
		     char *path, size_t size, struct repl_error *error);

/**
 * dataleg_disconnect() - end the import
 * @resource: resource
 * @volume: index
 * @error: filled in on -1
 */
int dataleg_disconnect(const struct repl_resource *resource, unsigned int volume,
		       struct repl_error *error);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Configuration of a resource: one file, NAME.conf, the same on both hosts.
 * dm-repl.conf(5) describes it; the members below have the names of the keys.
 *
 * A configuration that config_load() returns is whole: every value is in
 * range, every default is filled in, and the parts fit together.
 */
#ifndef REPLCTL_CONFIG_H
#define REPLCTL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"
#include "error.h"

#define CONFIG_DIR		"/etc/dm-repl"
#define CONFIG_NAME_MAX		48		/* bytes: resource, host, volume */
#define CONFIG_FILE_MAX		(1024 * 1024)	/* bytes */
#define CONFIG_HOSTS		2
#define CONFIG_VOLUMES_MAX	64
#define CONFIG_PORT		10809		/* of the first volume's nbd export */

enum repl_peer_loss {
	REPL_PEER_LOSS_WAIT,
	REPL_PEER_LOSS_HOOK,
	REPL_PEER_LOSS_FAILOVER,
};

/* [host NAME] */
struct repl_host {
	char *name;
	struct repl_address address;
	char *data_address;	/* of the nbd export; no brackets; never NULL */
};

/* [volume NAME on HOST] */
struct repl_volume_on {
	char *disk;
	char *hidden;		/* NULL together with active: never secondary */
	char *active;
	char *metadata;		/* NULL: none ("-") */
	char *import;		/* as primary: the peer's leg; NULL: replctl's nbd */
};

/* [volume NAME] */
struct repl_volume {
	char *name;
	uint64_t region_size;	/* bytes: power of two, 4 KiB to 4 MiB */
	uint16_t port;		/* of the nbd export; no two volumes the same */
	struct repl_volume_on on[CONFIG_HOSTS];	/* index of the host */
};

struct repl_config {
	char *name;		/* of the resource, from the file's name */

	/* [resource] */
	int primary;		/* index of the host that is primary at first */
	char *key;		/* NULL only with plaintext */
	char *old_key;		/* NULL: none */
	bool plaintext;
	uint64_t interval;	/* ms; 0: no periodic checkpoints */
	uint64_t heartbeat;	/* ms */
	uint64_t dead_after;	/* ms, > heartbeat */
	uint64_t checkpoint_timeout;	/* ms */
	uint64_t data_timeout;	/* ms, whole seconds */
	bool sync;		/* a write waits for the peer */
	bool congestion_block;	/* async: it waits for room in the window */
	uint64_t window;	/* async: bytes, whole KiB */
	uint64_t peer_timeout;	/* async: ms */
	uint64_t resync_rate;	/* bytes a second, of each volume; 0: unlimited */
	bool syncfs;		/* async: file systems are synced before a checkpoint */
	uint64_t max_state;	/* bytes */
	char *save;		/* commands for /bin/sh -c; NULL: none */
	char *load;
	char *hold;		/* NULL together with release */
	char *release;
	enum repl_peer_loss peer_loss;
	char *peer_loss_hook;	/* not NULL with REPL_PEER_LOSS_HOOK */
	char *fence;		/* not NULL with REPL_PEER_LOSS_FAILOVER */

	struct repl_host host[CONFIG_HOSTS];	/* in the order of the file */
	unsigned int volumes;			/* 1 to CONFIG_VOLUMES_MAX */
	struct repl_volume *volume;		/* in the order of the file */
};

/**
 * config_load() - read a configuration file
 * @path: of the file; must end in /NAME.conf or be NAME.conf
 * @error: set on failure: REPL_EXIT_CONFIG, "FILE:LINE: words"
 *
 * Return: the configuration, for config_free(); or NULL.
 */
struct repl_config *config_load(const char *path, struct repl_error *error);

/**
 * config_parse() - take a configuration from memory
 * @text: the file's content; any bytes, need not end in NUL
 * @len: bytes
 * @path: of the file, for its name and for errors; it is not opened
 * @error: set on failure: REPL_EXIT_CONFIG, "FILE:LINE: words"
 *
 * Touches no file, except that devices are looked up with realpath() to see
 * whether two of them are one.
 *
 * Return: the configuration, for config_free(); or NULL.
 */
struct repl_config *config_parse(const char *text, size_t len, const char *path,
				 struct repl_error *error);

/**
 * config_free() - free a configuration
 * @config: or NULL
 */
void config_free(struct repl_config *config);

/**
 * config_this_host() - which of the two hosts are we?
 * @config: the resource
 * @nodename: our name; NULL: $REPLCTL_HOST, or else what uname() says
 * @error: set on failure: REPL_EXIT_CONFIG
 *
 * Return: index of the host, 0 or 1; -1 if it is neither.
 */
int config_this_host(const struct repl_config *config, const char *nodename,
		     struct repl_error *error);

/**
 * config_path() - find the file of a resource
 * @name_or_path: a name: NAME.conf in $REPLCTL_CONFIG_DIR, or else in
 *	CONFIG_DIR; with a slash: the path of the file, taken as it is
 * @path: the result
 * @size: bytes at @path
 * @error: set on failure: REPL_EXIT_USAGE (not a name), REPL_EXIT_CONFIG
 *	(longer than @size)
 *
 * Return: 0, or -1.
 */
int config_path(const char *name_or_path, char *path, size_t size, struct repl_error *error);

/**
 * config_name_good() - is this a name for a resource, host or volume?
 * @name: letters, digits, '_', '-', '.'; no '-' or '.' first; at most
 *	CONFIG_NAME_MAX
 *
 * Return: true if it is.
 */
bool config_name_good(const char *name);

#endif

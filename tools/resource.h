/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Resource: the kernel's side of one configuration on this host, all volumes of it.
 *
 *	primary		NAME-VOLUME		repl-primary
 *	secondary	NAME-VOLUME		repl-secondary, the view
 *			NAME-VOLUME-ingest	repl-ingest, what is exported
 *
 * The device that a workload uses has the same name on either host.
 *
 * These functions block, some of them for as long as the slowest disk takes. The
 * daemon calls them in a worker. Each is safe to repeat: what is done already is
 * done. They return 0, or -1 with the error of the first volume that failed.
 */
#ifndef REPLCTL_RESOURCE_H
#define REPLCTL_RESOURCE_H

#include "config.h"
#include "pair.h"

/* The daemon's socket in the run folder; no resource can have that name. */
#define REPL_CONTROL_FILE ".control"

struct repl_resource {
	const struct repl_config *config;
	unsigned int here;		/* index of this host */
	enum pair_role role;		/* role_find(); none: as the configuration says */
};

/**
 * resource_role() - what this host is
 * @resource: resource
 *
 * Return: PAIR_PRIMARY or PAIR_SECONDARY, as role_find() has found, else by the
 * configuration.
 */
enum pair_role resource_role(const struct repl_resource *resource);

/**
 * resource_device() - name of a volume's device
 * @resource: resource
 * @volume: index
 * @ingest: the one that is exported
 * @name: out
 * @size: bytes at @name
 */
void resource_device(const struct repl_resource *resource, unsigned int volume,
		     bool ingest, char *name, size_t size);

/**
 * resource_runtime() - path of a file of ours below /run/dm-repl
 * @resource: resource
 * @file: its name
 * @path: out; $REPLCTL_RUN_DIR overrides the folder
 * @size: bytes at @path
 *
 * The folder exists afterwards, mode 0700, if it can.
 */
void resource_runtime(const struct repl_resource *resource, const char *file,
		      char *path, size_t size);

/**
 * resource_volume_file() - path of a file of ours about a volume, in the same folder
 * @resource: resource
 * @volume: index
 * @suffix: which
 * @path: out
 * @size: bytes at @path
 */
void resource_volume_file(const struct repl_resource *resource, unsigned int volume,
			  const char *suffix, char *path, size_t size);

/**
 * resource_run_path() - path of a file of the daemon's below /run/dm-repl
 * @file: its name
 * @path: out; $REPLCTL_RUN_DIR overrides the folder
 * @size: bytes at @path
 *
 * The folder exists afterwards, mode 0700, if it can.
 */
void resource_run_path(const char *file, char *path, size_t size);

/**
 * resource_lock() - be the only one who works on it
 * @resource: resource
 * @fd: out: the lock is held until the last descriptor of it is closed
 * @error: filled in unless 0
 *
 * Return: 0; 1: somebody else has it; -1.
 */
int resource_lock(const struct repl_resource *resource, int *fd, struct repl_error *error);

/**
 * resource_up() - make what is missing: devices, exports, imports
 * @resource: resource
 * @in_sync: secondary: the disks are the same now: begin with a checkpoint
 * @dry_run: print what would be done, and do nothing
 * @error: filled in on -1
 */
int resource_up(const struct repl_resource *resource, bool in_sync, bool dry_run,
		struct repl_error *error);

/**
 * resource_may_go() - could it be taken down now?
 * @resource: resource
 * @force: as for resource_down()
 * @error: filled in on -1: REPL_EXIT_REFUSED if something is in use
 */
int resource_may_go(const struct repl_resource *resource, bool force,
		    struct repl_error *error);

/**
 * resource_down() - take down exports, imports, devices
 * @resource: resource
 * @force: also where that gives up a checkpoint (stage running, failover)
 * @dry_run: print what would be done, and do nothing
 * @error: filled in on -1: REPL_EXIT_REFUSED if something is in use
 */
int resource_down(const struct repl_resource *resource, bool force, bool dry_run,
		  struct repl_error *error);

/**
 * resource_kernel() - what the targets say, for the protocol
 * @resource: resource
 * @kernel: out
 * @error: filled in on -1
 */
int resource_kernel(const struct repl_resource *resource, struct pair_kernel *kernel,
		    struct repl_error *error);

bool resource_exported(const struct repl_resource *resource);
int resource_export(const struct repl_resource *resource, struct repl_error *error);
int resource_syncfs(const struct repl_resource *resource, struct repl_error *error);
int resource_hold(const struct repl_resource *resource, uint64_t id,
		  struct repl_error *error);
int resource_cut(const struct repl_resource *resource, uint64_t id,
		 struct repl_error *error);
int resource_release(const struct repl_resource *resource, uint64_t id, bool committed,
		     struct repl_error *error);
int resource_flush(const struct repl_resource *resource, uint64_t id,
		   struct repl_error *error);

#define RESYNC_RATE_CONFIG -1

struct repl_resync {
	bool full;			/* all of the disks, not only what the peer may have missed */
	bool compare;			/* read both sides, and send what differs */
	int64_t rate;			/* bytes a second, of each volume; 0: unlimited;
					   RESYNC_RATE_CONFIG: resync_rate */
	uint64_t settled;		/* volumes whose peer has all but resource_settle() says */
	bool first;			/* of the others it may have nothing */
};

/**
 * resource_import() - connect the data legs, anew where they are dead; attaches nothing
 * @resource: resource; this side is primary
 * @volumes: a bit for each whose old server has been ended (resource_export_anew()); of
 *	others a dead one is detached only
 * @error: filled in on -1: REPL_EXIT_PEER if one cannot be had; tried on all of them
 *
 * That can take as long as the network does, and in that time another host may have come
 * to the peer's address. So who wants to send something asks afterwards whose disk it is,
 * and then uses these connections, and no newer ones: resource_resync().
 */
int resource_import(const struct repl_resource *resource, uint64_t volumes,
		    struct repl_error *error);

/**
 * resource_resync() - bring the peer up to date
 * @resource: resource; this side is primary
 * @how: how
 * @error: filled in on -1: REPL_EXIT_PEER if a data leg cannot be had
 *
 * A leg that has failed is attached again, if resource_import() has connected it. What was
 * written since the last checkpoint that the peer acknowledged is sent too: a peer that has
 * lost its power has that checkpoint, and perhaps nothing more.
 *
 * Return: 0: under way on all volumes, or -1.
 */
int resource_resync(const struct repl_resource *resource, const struct repl_resync *how,
		    struct repl_error *error);
int resource_detach(const struct repl_resource *resource, struct repl_error *error);

/**
 * resource_settle() - remember what a resync has brought to the peer for good by now
 * @resource: resource; this side is primary
 * @settled: volumes of which that has succeeded before, a bit for each; those of which it
 *	has now are added
 * @error: filled in on -1; tried on all of them
 *
 * Waits for the peer's disks to be flushed. From then on a dirty map of the device has what
 * the peer may lack, less than all since the last checkpoint: for resource_resync(), as long
 * as it is the same disk and has not gone back.
 *
 * Return: 0 or -1: what was settled before still is.
 */
int resource_settle(const struct repl_resource *resource, uint64_t *settled,
		    struct repl_error *error);

/**
 * resource_unsettle() - forget what resource_settle() has remembered
 * @resource: resource; this side is primary
 * @error: filled in on -1
 */
int resource_unsettle(const struct repl_resource *resource, struct repl_error *error);

/**
 * resource_lost_legs() - which data legs are to be connected before they are attached
 * @resource: resource; this side is primary
 * @volumes: a bit for each, those of others' (dataleg_external()) left out
 * @error: filled in on -1
 *
 * Does not block. Return: 0 or -1.
 */
int resource_lost_legs(const struct repl_resource *resource, uint64_t *volumes,
		       struct repl_error *error);

/**
 * resource_export_anew() - end what serves the peer, and begin with another server
 * @resource: resource; this side is secondary
 * @volumes: a bit for each
 * @error: filled in on -1
 *
 * When it has returned, nothing that was sent before can be written any more, wherever it
 * was on its way. Waits for the end of the old servers.
 *
 * Return: 0 or -1.
 */
int resource_export_anew(const struct repl_resource *resource, uint64_t volumes,
			 struct repl_error *error);

/**
 * resource_prepare() - checkpoint_prepare on all volumes
 * @resource: resource
 * @id: checkpoint
 * @error: filled in on -1; some may be prepared then: resource_abort()
 */
int resource_prepare(const struct repl_resource *resource, uint64_t id,
		     struct repl_error *error);
int resource_commit(const struct repl_resource *resource, uint64_t id,
		    struct repl_error *error);
int resource_abort(const struct repl_resource *resource, struct repl_error *error);

/**
 * resource_failover() - fence ingest on all volumes: the views can be written
 * @resource: resource
 * @error: filled in on -1; tried on all volumes all the same
 */
int resource_failover(const struct repl_resource *resource, struct repl_error *error);
int resource_unexport(const struct repl_resource *resource, struct repl_error *error);
int resource_retry(const struct repl_resource *resource, bool dry_run,
		   struct repl_error *error);
int resource_message(const struct repl_resource *resource, const char *message,
		     struct repl_error *error);

/**
 * resource_job() - pause, resume or cancel the job of each volume that has such a one
 * @resource: resource
 * @what: "pause", "resume" or "cancel"
 * @error: filled in on -1: REPL_EXIT_REFUSED if no volume has
 */
int resource_job(const struct repl_resource *resource, const char *what,
		 struct repl_error *error);

/**
 * resource_job_speed() - how fast jobs are, also those that come
 * @resource: resource
 * @rate: bytes a second, of each volume; 0: unlimited
 * @error: filled in on -1
 */
int resource_job_speed(const struct repl_resource *resource, uint64_t rate,
		       struct repl_error *error);

#endif

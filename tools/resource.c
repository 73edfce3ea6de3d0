// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataleg.h"
#include "dirty.h"
#include "dm.h"
#include "resource-i.h"
#include "role.h"
#include "steps.h"

#define RUN_DIR "/run/dm-repl"

enum pair_role resource_role(const struct repl_resource *resource)
{
	if (resource->role)
		return resource->role;
	return (int)resource->here == resource->config->primary ? PAIR_PRIMARY :
								  PAIR_SECONDARY;
}

void resource_device(const struct repl_resource *resource, unsigned int volume,
		     bool ingest, char *name, size_t size)
{
	snprintf(name, size, "%s-%s%s", resource->config->name,
		 resource->config->volume[volume].name, ingest ? "-ingest" : "");
}

static const char *run_dir(void)
{
	const char *dir = getenv("REPLCTL_RUN_DIR");

	dir = dir ? dir : RUN_DIR;
	mkdir(dir, 0700);
	return dir;
}

void resource_run_path(const char *file, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", run_dir(), file);
}

void resource_runtime(const struct repl_resource *resource, const char *file,
		      char *path, size_t size)
{
	char folder[192];

	resource_run_path(resource->config->name, folder, sizeof(folder));
	mkdir(folder, 0700);
	snprintf(path, size, "%s/%s", folder, file);
}

void resource_volume_file(const struct repl_resource *resource, unsigned int volume,
			  const char *suffix, char *path, size_t size)
{
	char name[80];

	snprintf(name, sizeof(name), "%s.%s", resource->config->volume[volume].name, suffix);
	resource_runtime(resource, name, path, size);
}

int resource_lock(const struct repl_resource *resource, int *fd, struct repl_error *error)
{
	char path[256];
	int r;

	resource_runtime(resource, "lock", path, sizeof(path));
	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*fd < 0)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (!flock(*fd, LOCK_EX | LOCK_NB))
		return 0;
	r = errno == EWOULDBLOCK ? 1 : -1;
	error_set(error, REPL_EXIT_REFUSED,
		  "a daemon, what one left behind, or 'replctl down' has %s", path);
	return r;
}

/* Words about a volume before the error of its part. */
static int volume_error(const struct repl_resource *resource, unsigned int volume,
			struct repl_error *error)
{
	return error_wrap(error, "volume %s", resource->config->volume[volume].name);
}

/**
 * each() - the same for each volume
 * @resource: resource
 * @all: if one fails the rest is done too
 * @fn: what
 * @arg: for @fn
 * @error: the first one's
 */
int each(const struct repl_resource *resource, bool all, volume_fn *fn, void *arg,
	 struct repl_error *error)
{
	int r = 0;

	for (unsigned int i = 0; i < resource->config->volumes && (all || !r); i++) {
		struct repl_error why;
		char name[128];

		resource_device(resource, i, false, name, sizeof(name));
		if (fn(resource, i, name, arg, &why) && !r) {
			r = -1;
			if (error)
				*error = why;
			volume_error(resource, i, error);
		}
	}
	return r;
}

/**
 * status_of() - the status of a device of ours
 * @name: device
 * @role: that it must have
 * @status: out
 * @error: filled in on -1
 */
int status_of(const char *name, enum repl_role role, struct repl_status *status,
		     struct repl_error *error)
{
	char line[1024];

	if (dm_status(name, line, sizeof(line), error) ||
	    status_parse(line, status, error))
		return -1;
	if (status->role != role)
		return error_set(error, REPL_EXIT_FAILED, "%s is no repl-%s", name,
				 status_role_name(role));
	return 0;
}

/**
 * status_over() - has it failed over? In stage done the fence tells it from a stop
 * @name: view
 * @status: of it
 * @over: out
 * @error: filled in on -1
 */
int status_over(const char *name, const struct repl_status *status, bool *over,
		       struct repl_error *error)
{
	struct repl_status ingest;
	char device[144];

	*over = status->stage == REPL_STAGE_FAILOVER ||
		status->stage == REPL_STAGE_FAILOVER_FAILED;
	if (status->stage != REPL_STAGE_DONE)
		return 0;
	snprintf(device, sizeof(device), "%s-ingest", name);
	if (status_of(device, REPL_INGEST, &ingest, error))
		return -1;
	*over = ingest.ingest.is_fenced;
	return 0;
}

/*
 * ---- Up and down ----
 */

static int lengths(const struct repl_volume_on *on, uint64_t *sectors,
		   struct repl_error *error)
{
	const char *other[] = { on->hidden, on->active };

	*sectors = blockdev_sectors(on->disk, error);
	if (!*sectors)
		return -1;
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t n = other[i] ? blockdev_sectors(other[i], error) : *sectors;

		if (!n)
			return -1;
		if (n < *sectors)
			return error_set(error, REPL_EXIT_CONFIG,
					 "%s is shorter than %s", other[i], on->disk);
	}
	return 0;
}

/* May it begin anew? None does before all of them may. */
static int may_start(const struct repl_resource *resource, unsigned int i,
		     const char *view, void *arg, struct repl_error *error)
{
	struct repl_status status;
	struct repl_dm_info info;

	if (dm_info(view, &info, error))
		return -1;
	if (!info.exists)
		return 0;
	if (status_of(view, REPL_SECONDARY, &status, error))
		return -1;
	if (status.stage == REPL_STAGE_FAILOVER ||
	    status.stage == REPL_STAGE_FAILOVER_FAILED)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s has failed over and is merging: it cannot be a secondary before that is done",
				 view);
	if (status.stage == REPL_STAGE_DONE && info.open_count)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is in use: it cannot be a secondary again before that ends",
				 view);
	return 0;
}

/*
 * What the disk has is the first checkpoint, the operator says. A volume that has failed
 * over or was stopped begins anew: its metadata outlives the device, and with it the
 * stage and the fence of its earlier life.
 */
static int secondary_start(const char *view, bool dry_run, struct repl_error *error)
{
	struct repl_status status = { .stage = REPL_STAGE_NONE };

	if (!dry_run && status_of(view, REPL_SECONDARY, &status, error))
		return -1;
	if (status.stage != REPL_STAGE_NONE && status.stage != REPL_STAGE_DONE)
		return 0;
	step(dry_run, "start %s: what the disk has now is the first checkpoint", view);
	/* Of whoever is primary: that both hold the same is the operator's word. */
	return !dry_run && (dm_message(view, "lineage -", NULL, 0, error) ||
			    dm_message(view, "start", NULL, 0, error)) ? -1 : 0;
}

/* Make what is missing of a volume of the secondary. @arg: struct up */
int secondary_up(const struct repl_resource *resource, unsigned int i,
			const char *view, void *arg, struct repl_error *error)
{
	bool in_sync = ((struct up *)arg)->in_sync, dry_run = ((struct up *)arg)->dry_run;
	const struct repl_volume *volume = &resource->config->volume[i];
	const struct repl_volume_on *on = &volume->on[resource->here];
	char ingest[128], params[1024];
	uint64_t sectors;
	int there;

	resource_device(resource, i, true, ingest, sizeof(ingest));
	if (lengths(on, &sectors, error))
		return -1;
	there = dm_exists(view, error);
	if (there < 0)
		return -1;
	if (!there) {
		snprintf(params, sizeof(params), "%s %s %s %s %llu", on->disk, on->hidden,
			 on->active, on->metadata ?: "-",
			 (unsigned long long)volume->region_size / 512);
		step(dry_run, "make %s: repl-secondary %s", view, params);
		if (!dry_run && dm_create(view, sectors, "repl-secondary", params, error))
			return -1;
	}
	there = dm_exists(ingest, error);
	if (there < 0)
		return -1;
	if (!there) {
		step(dry_run, "make %s: repl-ingest %s", ingest, on->disk);
		if (!dry_run && dm_create(ingest, sectors, "repl-ingest", on->disk, error))
			return -1;
	}
	if (in_sync && secondary_start(view, dry_run, error))
		return -1;
	if (dataleg_external(resource, i))
		step(dry_run, "leave the export of %s to others: the primary has import", ingest);
	else
		step(dry_run, "export %s at %s port %u", ingest,
		     resource->config->host[resource->here].data_address, volume->port);
	return dry_run ? 0 : dataleg_export(resource, i, error);
}

/**
 * primary_params() - the words of a repl-primary
 * @resource: resource
 * @i: volume
 * @peer: device, or "-"
 * @params: out
 * @size: of it
 */
void primary_params(const struct repl_resource *resource, unsigned int i,
		    const char *peer, char *params, size_t size)
{
	const struct repl_volume *volume = &resource->config->volume[i];
	const struct repl_config *config = resource->config;
	char features[128] = "1 sync";

	if (!config->sync)
		snprintf(features, sizeof(features),
			 "4 async congestion=%s window=%llu peer_timeout=%llu",
			 config->congestion_block ? "block" : "dirty",
			 (unsigned long long)config->window / 1024,
			 (unsigned long long)config->peer_timeout);
	snprintf(params, size, "%s %s %s %llu %s", volume->on[resource->here].disk,
		 peer, volume->on[resource->here].metadata ?: "-",
		 (unsigned long long)volume->region_size / 512, features);
}

static int primary_make(const struct repl_resource *resource, unsigned int i,
			const char *name, uint64_t sectors, const char *peer,
			struct repl_error *error)
{
	char params[2 * PATH_MAX];

	primary_params(resource, i, peer, params, sizeof(params));
	step(false, "make %s: repl-primary %s", name, params);
	return dm_create(name, sectors, "repl-primary", params, error);
}

/*
 * The device that leads to the peer. A peer that has lost its power and come back leaves
 * a connection that is dead, which nobody may have noticed: then a new one.
 */
static int import_live(const struct repl_resource *resource, unsigned int i,
		       const char *name, char *path, size_t size, enum repl_peer *was,
		       struct repl_error *error)
{
	if (dataleg_import(resource, i, path, size, error))
		return -1;
	if (!blockdev_probe(path, error))
		return 0;
	if (dataleg_external(resource, i)) {
		if (error)
			error->exit = REPL_EXIT_PEER;
		return -1;
	}
	step(false, "connect %s anew: %s", path, error ? error->text : "it is dead");
	if (*was == REPL_PEER_ATTACHED || *was == REPL_PEER_FAILED) {
		if (dm_message(name, "detach", NULL, 0, error))
			return -1;
		*was = REPL_PEER_DETACHED;
	}
	return dataleg_disconnect(resource, i, error) ||
	       dataleg_import(resource, i, path, size, error) ? -1 : 0;
}

/*
 * Is it known what the peer lacks, although none has been attached since the device was
 * made? By metadata that a checkpoint was recorded in: all that was written since is.
 */
static bool primary_remembers(const char *name, const struct repl_status *status)
{
	unsigned long long checkpoint = 0;
	char answer[256];

	return status->primary.has_metadata &&
	       !dm_message(name, "identity", answer, sizeof(answer), NULL) &&
	       sscanf(answer, "%*s %*s %*s %*s %llu", &checkpoint) == 1 && checkpoint;
}

static int primary_up(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	bool in_sync = ((struct up *)arg)->in_sync, dry_run = ((struct up *)arg)->dry_run;
	const struct repl_volume *volume = &resource->config->volume[i];
	enum repl_peer was = REPL_PEER_NONE;
	char peer[PATH_MAX], message[PATH_MAX + 16];
	struct repl_status status;
	struct repl_error why;
	uint64_t sectors;
	int there, imported;

	if (lengths(&volume->on[resource->here], &sectors, error))
		return -1;
	there = dm_exists(name, error);
	if (there < 0)
		return -1;
	if (dry_run && dataleg_external(resource, i)) {
		step(true, in_sync || there ? "%s %s with %s" :
		     "%s %s without %s (no --in-sync)", there ? "attach" : "make", name,
		     dataleg_external(resource, i));
		return 0;
	}
	if (dry_run) {
		step(true, in_sync || there ? "import port %u of %s, and %s %s with it" :
		     "not import port %u of %s (no --in-sync), and %s %s without it", volume->port,
		     resource->config->host[!resource->here].data_address,
		     there ? "attach" : "make", name);
		return 0;
	}
	if (there) {
		if (status_of(name, REPL_PRIMARY, &status, error))
			return -1;
		was = status.primary.peer;
	}
	/* Nobody but the operator knows whether the disks hold the same, or the metadata. */
	if (!in_sync && was != REPL_PEER_ATTACHED) {
		if (!there && (primary_make(resource, i, name, sectors, "-", error) ||
			       status_of(name, REPL_PRIMARY, &status, error)))
			return -1;
		if (was == REPL_PEER_NONE && primary_remembers(name, &status)) {
			step(false, "%s works, and knows what the peer lacks: that is sent when the daemons have met",
			     name);
			return 0;
		}
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s works, but nothing is forwarded: 'replctl sync --full %s', or, when both disks hold the same, 'replctl adjust --in-sync %s'",
				 name, resource->config->name, resource->config->name);
	}
	imported = in_sync ? import_live(resource, i, name, peer, sizeof(peer), &was, &why) :
			     dataleg_import(resource, i, peer, sizeof(peer), &why);
	if (!there && primary_make(resource, i, name, sectors, imported ? "-" : peer, error))
		return -1;
	if (imported)
		return error_set(error, REPL_EXIT_PEER,
				 "%s works, but nothing is forwarded: %s", name, why.text);
	/* Both hold the same, the operator says: whatever the metadata remembers. */
	if (!there && in_sync && volume->on[resource->here].metadata)
		return dm_message(name, "dirty clear peer", NULL, 0, error);
	if (!there || was == REPL_PEER_ATTACHED)
		return 0;
	if (was == REPL_PEER_FAILED && dm_message(name, "detach", NULL, 0, error))
		return -1;
	step(false, "attach %s to %s", peer, name);
	snprintf(message, sizeof(message), "attach %s", peer);
	/* Both hold the same, the operator says: the peer misses nothing. */
	return dm_message(name, message, NULL, 0, error) ||
	       dm_message(name, "dirty clear peer", NULL, 0, error) ? -1 : 0;
}

/*
 * What the peer may lack of what the resync has to send: less than `checkpoint' has, by what
 * is on the peer's disk for good.
 */
#define SETTLED "replctl.settled"

static int forget_settled(const char *name, struct repl_error *error)
{
	struct repl_dirty_map map;
	int there = dirty_find_map(name, SETTLED, &map, error);

	if (there > 0 && map.is_frozen &&
	    dm_message(name, "dirty thaw " SETTLED " drop", NULL, 0, error))
		return -1;
	return there > 0 ? dm_message(name, "dirty remove " SETTLED, NULL, 0, error) : there;
}

#define MARKS 16		/* ranges in one message */

/*
 * What the peer has changed by itself, as it said (session-meet.c): it lacks our content
 * there. Once it is in the kernel's map the file has done its work.
 */
static int mark_missing(const struct repl_resource *resource, unsigned int i,
			const char *name, struct repl_error *error)
{
	char path[256], message[32 + MARKS * 48];
	unsigned long long sector, sectors;
	unsigned int nr = 0;
	size_t used = 0;
	FILE *f;
	int r = 0;

	resource_volume_file(resource, i, "missing", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : error_set(error, REPL_EXIT_FAILED, "%s: %s", path,
						       strerror(errno));
	r = forget_settled(name, error);
	while (!r && fscanf(f, "%llu %llu", &sector, &sectors) == 2) {
		if (!nr)
			used = sprintf(message, "dirty mark peer");
		used += sprintf(message + used, " %llu %llu", sector, sectors);
		if (++nr == MARKS) {
			r = dm_message(name, message, NULL, 0, error);
			nr = 0;
		}
	}
	if (!r && nr)
		r = dm_message(name, message, NULL, 0, error);
	fclose(f);
	if (!r)
		unlink(path);
	return r;
}

/* @rate: bytes a second; the module goes by KiB */
static int set_speed(const char *name, uint64_t rate, struct repl_error *error)
{
	char message[64];

	snprintf(message, sizeof(message), "job speed %llu", (unsigned long long)rate / 1024);
	return dm_message(name, message, NULL, 0, error);
}

static bool push_under_way(const struct repl_status *status)
{
	return status->primary.peer == REPL_PEER_ATTACHED && status->job.type == REPL_JOB_PUSH &&
	       (status->job.state == REPL_JOB_RUNNING || status->job.state == REPL_JOB_PAUSED);
}

static int volume_import(const struct repl_resource *resource, unsigned int i,
			 const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	char peer[PATH_MAX];
	enum repl_peer was;

	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	was = status.primary.peer;
	if (push_under_way(&status))
		return 0;
	if (*(const uint64_t *)arg >> i & 1 || dataleg_external(resource, i))
		return import_live(resource, i, name, peer, sizeof(peer), &was, error);
	/* What it had sent may be on its way still: another time, when that has been ended. */
	if (!dataleg_imported(resource, i, peer, sizeof(peer), error) &&
	    !blockdev_probe(peer, error))
		return 0;
	if (was == REPL_PEER_ATTACHED && dm_message(name, "detach", NULL, 0, error))
		return -1;
	return error_set(error, REPL_EXIT_PEER, "%s: its data leg has been lost just now", name);
}

int resource_import(const struct repl_resource *resource, uint64_t volumes,
		    struct repl_error *error)
{
	return each(resource, true, volume_import, &volumes, error);
}

static int one_lost_leg(const struct repl_resource *resource, unsigned int i,
			const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;

	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	if (status.primary.peer != REPL_PEER_ATTACHED && !dataleg_external(resource, i))
		*(uint64_t *)arg |= (uint64_t)1 << i;
	return 0;
}

int resource_lost_legs(const struct repl_resource *resource, uint64_t *volumes,
		       struct repl_error *error)
{
	*volumes = 0;
	return each(resource, true, one_lost_leg, volumes, error);
}

/*
 * What the peer may lack is to be sent to it. Return: 1: all of the disk, for it is a first
 * sync, and nobody knows how far that has come; 0; -1.
 */
static int mark_owed(const struct repl_resource *resource, unsigned int i, const char *name,
		     const struct repl_resync *how, struct repl_error *error)
{
	struct repl_dirty_map map;
	int there = 0;

	if (how->full)
		return forget_settled(name, error) ? -1 : 1;
	if (mark_missing(resource, i, name, error))
		return -1;
	if (how->settled >> i & 1)
		there = dirty_find_map(name, SETTLED, &map, error);
	if (there)
		return there < 0 ? -1 :
		       dm_message(name, "dirty merge " SETTLED " peer", NULL, 0, error);
	return how->first ? 1 : dm_message(name, "dirty merge checkpoint peer", NULL, 0, error);
}

static int mark_all(const char *name, struct repl_error *error)
{
	struct repl_dm_info info;
	char message[64];

	if (dm_info(name, &info, error))
		return -1;
	snprintf(message, sizeof(message), "dirty mark peer 0 %llu",
		 (unsigned long long)info.sectors);
	return dm_message(name, message, NULL, 0, error);
}

static int volume_resync(const struct repl_resource *resource, unsigned int i,
			 const char *name, void *arg, struct repl_error *error)
{
	const struct repl_resync *how = arg;
	char peer[PATH_MAX], message[PATH_MAX + 16];
	struct repl_status status;
	enum repl_peer was;
	int full;

	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	was = status.primary.peer;
	if (push_under_way(&status))
		return how->full ? error_set(error, REPL_EXIT_REFUSED,
					     "%s: a resync is under way", name) :
		       (how->rate >= 0 && set_speed(name, how->rate, error)) ||
		       mark_owed(resource, i, name, how, error) < 0 ? -1 : 0;
	if (how->first && status.job.state == REPL_JOB_CANCELLED)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: the first sync was cancelled: 'replctl sync --full %s'",
				 name, resource->config->name);
	if (was == REPL_PEER_NONE && !how->full && !primary_remembers(name, &status))
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: nobody knows what the peer has not got: 'replctl sync --full %s'",
				 name, resource->config->name);
	/* No other connection than the one that it was asked about: see resource.h. */
	if (dataleg_imported(resource, i, peer, sizeof(peer), error) ||
	    blockdev_probe(peer, error))
		return -1;
	/* Before it is attached: nobody may take it for one that has all. */
	full = mark_owed(resource, i, name, how, error);
	if (full < 0 || (full && was != REPL_PEER_ATTACHED && mark_all(name, error)))
		return -1;
	if (was == REPL_PEER_FAILED && dm_message(name, "detach", NULL, 0, error))
		return -1;
	if (was != REPL_PEER_ATTACHED) {
		step(false, "attach %s to %s", peer, name);
		snprintf(message, sizeof(message), "attach %s", peer);
		if (dm_message(name, message, NULL, 0, error))
			return -1;
	}
	if (set_speed(name, how->rate >= 0 ? (uint64_t)how->rate : resource->config->resync_rate,
		      error))
		return -1;
	/* Somebody holds it: it has all that there is to do, and goes on when he lets it. */
	if (status.job.type == REPL_JOB_PUSH && status.job.state == REPL_JOB_PAUSED &&
	    !full)
		return 0;
	snprintf(message, sizeof(message), "push %s%s", full ? "full" : "dirty",
		 how->compare ? " compare" : "");
	step(false, "resync %s: %s", name, message);
	return dm_message(name, message, NULL, 0, error);
}

int resource_resync(const struct repl_resource *resource, const struct repl_resync *how,
		    struct repl_error *error)
{
	/* All of them: one that cannot must not keep another behind. */
	return each(resource, true, volume_resync, (void *)how, error);
}

/*
 * The map begins anew, with what is written from now on; what the peer lacks by now is added,
 * before and after all that is on its way has arrived: what fails then is missed again.
 */
static int settle(const char *name, struct repl_error *error)
{
	static const char merge[] = "dirty merge peer " SETTLED;

	return dm_message(name, merge, NULL, 0, error) ||
	       dm_message(name, "flush", NULL, 0, error) ||
	       dm_message(name, merge, NULL, 0, error) ? -1 : 0;
}

static int one_settle_push(const struct repl_resource *resource, unsigned int i,
			   const char *name, void *arg, struct repl_error *error)
{
	uint64_t *settled = arg, bit = (uint64_t)1 << i;
	struct repl_dirty_map map;
	struct repl_status status;
	int there;

	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	if (!push_under_way(&status))
		return 0;
	there = *settled & bit ? dirty_find_map(name, SETTLED, &map, error) : 0;
	if (there > 0 && !map.is_frozen) {
		if (dm_message(name, "dirty freeze " SETTLED, NULL, 0, error))
			return -1;
		if (!settle(name, error))
			return dm_message(name, "dirty thaw " SETTLED " drop", NULL, 0, error);
		/* What it had before counts still. */
		if (dm_message(name, "dirty thaw " SETTLED " merge", NULL, 0, NULL))
			*settled &= ~bit;
		return -1;
	}
	*settled &= ~bit;
	if (forget_settled(name, error) ||
	    dm_message(name, "dirty add " SETTLED, NULL, 0, error))
		return -1;
	if (settle(name, error)) {
		forget_settled(name, NULL);
		return -1;
	}
	*settled |= bit;
	return 0;
}

int resource_settle(const struct repl_resource *resource, uint64_t *settled,
		    struct repl_error *error)
{
	return each(resource, true, one_settle_push, settled, error);
}

static int one_unsettle(const struct repl_resource *resource, unsigned int i,
			const char *name, void *arg, struct repl_error *error)
{
	return forget_settled(name, error);
}

int resource_unsettle(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_unsettle, NULL, error);
}

/* For resyncs that the kernel begins by itself. */
static int one_rate(const struct repl_resource *resource, unsigned int i, const char *name,
		    void *arg, struct repl_error *error)
{
	int there = dm_exists(name, error);

	return there > 0 ? set_speed(name, resource->config->resync_rate, error) : there;
}

int resource_up(const struct repl_resource *resource, bool in_sync, bool dry_run,
		struct repl_error *error)
{
	struct up up = { .in_sync = in_sync, .dry_run = dry_run };
	bool primary = resource_role(resource) == PAIR_PRIMARY;
	int r;

	if (!dry_run && dm_module(error))
		return -1;
	if (in_sync && !primary &&
	    each(resource, false, may_start, NULL, error))
		return -1;
	/* All of them: one that cannot forward must not keep another from working. */
	r = each(resource, true, primary ? primary_up : secondary_up, &up, error);
	if (primary && !dry_run && each(resource, true, one_rate, NULL, r ? NULL : error))
		return -1;
	return r;
}

/* May it go? Nothing is taken down before all of it may. */
static int may_go(const struct repl_resource *resource, unsigned int i,
		  const char *name, void *force, struct repl_error *error)
{
	struct repl_status status;
	struct repl_dm_info info;
	char ingest[128];

	if (dm_info(name, &info, error))
		return -1;
	if (!info.exists)
		return 0;
	if (info.open_count)
		return error_set(error, REPL_EXIT_REFUSED, "%s is in use", name);
	if (resource_role(resource) == PAIR_PRIMARY)
		return 0;
	/* An export of others': ours would end by itself. */
	resource_device(resource, i, true, ingest, sizeof(ingest));
	if (dataleg_external(resource, i) && dm_info(ingest, &info, error))
		return -1;
	if (info.open_count)
		return error_set(error, REPL_EXIT_REFUSED, "%s is in use: end its export first",
				 ingest);
	if (*(bool *)force)
		return 0;
	if (status_of(name, REPL_SECONDARY, &status, error))
		return -1;
	/* With metadata on a device nothing is lost by that. */
	if (status.stage == REPL_STAGE_NONE || status.stage == REPL_STAGE_DONE ||
	    status.secondary.has_metadata)
		return 0;
	return error_set(error, REPL_EXIT_REFUSED,
			 "%s is in stage %s: its checkpoint would be lost; 'replctl failover' or 'replctl stop' first, or --force",
			 name, status_stage_name(status.stage));
}

/* A device, if it is there. */
int remove_device(const char *name, bool dry_run, struct repl_error *error)
{
	int there = dm_exists(name, error);

	if (there <= 0)
		return there;
	step(dry_run, "remove %s", name);
	return dry_run ? 0 : dm_remove(name, error);
}

static int volume_down(const struct repl_resource *resource, unsigned int i,
		       const char *name, void *arg, struct repl_error *error)
{
	bool dry_run = *(bool *)arg;
	char ingest[128];

	if (resource_role(resource) == PAIR_PRIMARY)
		return remove_device(name, dry_run, error) ||
		       (!dry_run && dataleg_disconnect(resource, i, error)) ? -1 : 0;
	resource_device(resource, i, true, ingest, sizeof(ingest));
	return dm_exists(ingest, error) < 0 ||
	       (!dry_run && dataleg_unexport(resource, i, true, error)) ||
	       remove_device(ingest, dry_run, error) ||
	       remove_device(name, dry_run, error) ? -1 : 0;
}

int resource_may_go(const struct repl_resource *resource, bool force,
		    struct repl_error *error)
{
	return each(resource, false, may_go, &force, error);
}

int resource_down(const struct repl_resource *resource, bool force, bool dry_run,
		  struct repl_error *error)
{
	return resource_may_go(resource, force, error) ||
	       each(resource, false, volume_down, &dry_run, error) ? -1 : 0;
}

/*
 * ---- For the protocol ----
 */

/*
 * Has it to be attached, or told to send what was missed? What was missed for want of
 * room the kernel sends by itself; a push that failed or was cancelled is for a person.
 */
static bool primary_lost(const struct repl_status *status)
{
	const struct repl_primary_status *p = &status->primary;

	if (p->peer == REPL_PEER_FAILED || p->peer == REPL_PEER_DETACHED)
		return true;
	return p->peer == REPL_PEER_ATTACHED && p->dirty && !p->window_used &&
	       (status->job.state == REPL_JOB_IDLE || status->job.state == REPL_JOB_DONE);
}

static bool push_runs(const struct repl_status *status)
{
	return status->job.type == REPL_JOB_PUSH && status->job.state == REPL_JOB_RUNNING;
}

/* As long as the push has not ended badly, and nobody has stopped it, it goes on. */
static bool primary_coming(const struct repl_status *status)
{
	return status->primary.peer == REPL_PEER_ATTACHED &&
	       (!status->primary.dirty ||
		(status->job.state != REPL_JOB_FAILED &&
		 status->job.state != REPL_JOB_CANCELLED &&
		 status->job.state != REPL_JOB_PAUSED));
}

static int primary_kernel(const struct repl_resource *resource, unsigned int i,
			  const char *name, void *arg, struct repl_error *error)
{
	struct pair_kernel *kernel = arg;
	struct repl_status status;
	struct repl_dm_info info;
	bool remembers;

	if (dm_info(name, &info, error) || status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	kernel->held |= info.suspended || status.primary.cut != REPL_CUT_NONE;
	/* (A push that runs has still to write what it counts as done, and allows no cut.) */
	kernel->attached &= status.primary.peer == REPL_PEER_ATTACHED &&
			    !status.primary.dirty && !push_runs(&status);
	remembers = status.primary.peer == REPL_PEER_NONE && primary_remembers(name, &status);
	kernel->never &= status.primary.peer == REPL_PEER_NONE && !remembers;
	kernel->lost |= primary_lost(&status) || remembers;
	kernel->coming &= primary_coming(&status);
	return 0;
}

static int secondary_kernel(const struct repl_resource *resource, unsigned int i,
			    const char *name, void *arg, struct repl_error *error)
{
	struct pair_kernel *kernel = arg;
	struct repl_status status;
	bool over;

	if (status_of(name, REPL_SECONDARY, &status, error) ||
	    status_over(name, &status, &over, error))
		return -1;
	if (status.secondary.checkpoint > kernel->checkpoint)
		kernel->checkpoint = status.secondary.checkpoint;
	if (status.secondary.checkpoint < kernel->oldest)
		kernel->oldest = status.secondary.checkpoint;
	if (status.secondary.is_prepared)
		kernel->prepared = status.secondary.prepared;
	kernel->running &= status.stage == REPL_STAGE_RUNNING;
	kernel->blank &= status.stage == REPL_STAGE_RUNNING ||
			 status.stage == REPL_STAGE_NONE;
	kernel->over &= over;
	kernel->partly_over |= over;
	return 0;
}

int resource_kernel(const struct repl_resource *resource, struct pair_kernel *kernel,
		    struct repl_error *error)
{
	memset(kernel, 0, sizeof(*kernel));
	kernel->attached = true;
	kernel->coming = true;
	kernel->never = true;
	kernel->running = true;
	kernel->blank = true;
	kernel->over = resource_role(resource) == PAIR_SECONDARY;
	kernel->oldest = UINT64_MAX;
	if (each(resource, false, resource_role(resource) == PAIR_PRIMARY ?
		 primary_kernel : secondary_kernel, kernel, error))
		return -1;
	kernel->blank &= !kernel->running;
	return 0;
}

static void cut_message(char message[64], const char *what, uint64_t id, const char *more)
{
	snprintf(message, 64, "%s %llu%s", what, (unsigned long long)id, more);
}

/* What has been written to a file system by now is to be in the checkpoint. */
static int one_syncfs(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	return dm_syncfs(name, error);
}

struct hold {
	uint64_t id;
	bool sync[CONFIG_VOLUMES_MAX];	/* which are suspended */
};

/* A cut was refused: in words. */
static int cut_refused(const char *name, const struct repl_status *status,
		       struct repl_error *error)
{
	if (status->primary.peer != REPL_PEER_ATTACHED)
		return error_set(error, REPL_EXIT_FAILED, "%s: the peer is %s", name,
				 status_peer_name(status->primary.peer));
	if (status->primary.dirty)
		return error_set(error, REPL_EXIT_FAILED,
				 "%s: the peer is %llu regions behind: it waits for the resync",
				 name, (unsigned long long)status->primary.dirty);
	return 0;
}

/*
 * The writes stop. With mode async they only wait until all volumes have their cut;
 * with sync the device is suspended until the checkpoint is over. There, too, the cut is
 * what the kernel forgets when the peer has it. (The workload waits for every message:
 * the status is looked at only where one is refused.)
 */
static int one_hold(const struct repl_resource *resource, unsigned int i,
		    const char *name, void *arg, struct repl_error *error)
{
	struct hold *hold = arg;
	struct repl_status status;
	struct repl_error why;
	char message[64];

	cut_message(message, "cut", hold->id, " hold");
	if (!resource->config->sync && !dm_message(name, message, NULL, 0, error))
		return 0;
	if (status_of(name, REPL_PRIMARY, &status, &why))
		return -1;
	if (cut_refused(name, &status, error))
		return -1;
	hold->sync[i] = status.primary.mode == REPL_MODE_SYNC;
	if (!hold->sync[i])
		return resource->config->sync ? dm_message(name, message, NULL, 0, error) : -1;
	if (dm_suspend(name, DM_FREEZE_FS, error))
		return -1;
	cut_message(message, "cut", hold->id, "");
	return dm_message(name, message, NULL, 0, error);
}

/* All have it: on with the workload. */
static int one_open(const struct repl_resource *resource, unsigned int i,
		    const char *name, void *arg, struct repl_error *error)
{
	const struct hold *hold = arg;
	char message[64];

	cut_message(message, "cut", hold->id, "");
	return hold->sync[i] ? 0 : dm_message(name, message, NULL, 0, error);
}

struct release {
	uint64_t id;
	bool committed;
};

/* What is held goes on, and what waits behind a cut: it is over, well or badly. */
static int one_release(const struct repl_resource *resource, unsigned int i,
		       const char *name, void *arg, struct repl_error *error)
{
	const struct release *release = arg;
	struct repl_status status;
	struct repl_error why;
	char message[64];
	bool good;
	int r;

	/* What has been asked for, nearly always; nothing is suspended then. */
	if (release->committed && !resource->config->sync) {
		cut_message(message, "release", release->id, "");
		if (!dm_message(name, message, NULL, 0, &why))
			return 0;
	}
	r = status_of(name, REPL_PRIMARY, &status, error);
	if (!r && status.primary.cut != REPL_CUT_NONE) {
		good = release->committed && status.primary.cut_id == release->id;
		cut_message(message, good ? "release" : "abort", status.primary.cut_id, "");
		r = dm_message(name, message, NULL, 0, error);
	}
	/* Whatever it says: the workload goes on. */
	if (!dm_resume(name, r ? &why : error))
		return r;
	return -1;
}

/* The device of the peer's leg: the kernel names it by numbers, sysfs knows its name. */
static int peer_path(const char *name, char *path, size_t size, struct repl_error *error)
{
	struct repl_dm_info info;
	char peer[64], link[96], real[256];
	ssize_t n;

	if (dm_info(name, &info, error))
		return -1;
	if (sscanf(info.table, "%*s %63s", peer) != 1 || !strcmp(peer, "-"))
		return error_set(error, REPL_EXIT_FAILED, "%s has no peer", name);
	snprintf(link, sizeof(link), "/sys/dev/block/%s", peer);
	n = readlink(link, real, sizeof(real) - 1);
	if (n < 0)
		return error_set(error, REPL_EXIT_FAILED, "%s: %s", link, strerror(errno));
	real[n] = 0;
	if (!strchr(real, '/') ||
	    snprintf(path, size, "/dev/%s", strrchr(real, '/') + 1) >= (int)size)
		return error_set(error, REPL_EXIT_FAILED, "%s: a peer of that name?", name);
	return 0;
}

/* A hook has stopped the workload; in mode sync it has to stay so until the release. */
static int one_cut(const struct repl_resource *resource, unsigned int i,
		   const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	char message[64];

	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	if (status.primary.cut != REPL_CUT_NONE)
		return 0;
	if (status.primary.mode == REPL_MODE_SYNC && dm_suspend(name, 0, error))
		return -1;
	cut_message(message, "cut", *(uint64_t *)arg, "");
	return dm_message(name, message, NULL, 0, error);
}

static int one_flush(const struct repl_resource *resource, unsigned int i,
		     const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	char path[128], message[64];

	cut_message(message, "drain", *(uint64_t *)arg, "");
	if (!resource->config->sync && !resource->config->hold) {
		if (!dm_message(name, message, NULL, 0, error))
			return 0;
		if (errno != EINVAL && errno != EOPNOTSUPP)
			return -1;
	}
	/* A hold hook has stopped the workload, and perhaps there is no cut; or mode sync. */
	if (one_cut(resource, i, name, arg, error) ||
	    status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	if (status.primary.mode == REPL_MODE_ASYNC)
		return dm_message(name, message, NULL, 0, error);
	if (peer_path(name, path, sizeof(path), error))
		return -1;
	/* What it had acknowledged may be lost, and the next flush has no word of it. */
	if (blockdev_flush(path, error)) {
		dm_message(name, "detach", NULL, 0, NULL);
		return -1;
	}
	/* A write that failed before the flush is not on the peer's disk either. */
	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	if (status.primary.peer != REPL_PEER_ATTACHED || status.primary.dirty)
		return error_set(error, REPL_EXIT_FAILED, "%s: the peer is %s", name,
				 status.primary.dirty ? "behind" :
				 status_peer_name(status.primary.peer));
	return 0;
}

static int one_detach(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;

	if (!dm_message(name, "detach", NULL, 0, error))
		return 0;
	if (status_of(name, REPL_PRIMARY, &status, error))
		return -1;
	return status.primary.peer == REPL_PEER_NONE ||
	       status.primary.peer == REPL_PEER_DETACHED ? 0 : -1;
}

static int one_message(const struct repl_resource *resource, unsigned int i,
		       const char *name, void *arg, struct repl_error *error)
{
	return dm_message(name, arg, NULL, 0, error);
}

/* What is prepared of it: commit or abort that, and nothing else. */
static int one_settle(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	char message[96];

	if (status_of(name, REPL_SECONDARY, &status, error))
		return -1;
	if (!status.secondary.is_prepared)
		return 0;
	snprintf(message, sizeof(message), "%s %llu", (const char *)arg,
		 (unsigned long long)status.secondary.prepared);
	return dm_message(name, message, NULL, 0, error);
}

/*
 * Did a disk of ours, or hidden, fail before? All before the cut has been taken and flushed by
 * now, what failed among it, or the primary would not have sent STATE_SEND: so that is over.
 * Not so for a flush of ours: what the disk has lost then, the primary believes to be there.
 * And metadata is for a person.
 */
static bool was_repaired(const char *name)
{
	const unsigned int resent = 1u << REPL_CBW_READ | 1u << REPL_CBW_WRITE |
				    1u << REPL_SECONDARY_WRITE;
	struct repl_status status;

	if (status_of(name, REPL_SECONDARY, &status, NULL))
		return false;
	if (!(status.latched.classes & resent) ||
	    status.latched.classes & REPL_CLASSES_STOP_CHECKPOINTS & ~resent)
		return false;
	step(false, "%s has got what it could not take: its errors are forgotten", name);
	return !dm_message(name, "clear_error", NULL, 0, NULL);
}

/*
 * The first checkpoint of a secondary that is in stage none: the primary has sent all
 * before the cut, and nothing behind it, so what the disk has now can be one, too.
 */
static int begin_here(const struct repl_resource *resource, unsigned int i, const char *name,
		      uint64_t id, struct repl_error *error)
{
	struct repl_status status;
	struct repl_error why;
	char message[96], lineage[40];

	if (status_of(name, REPL_SECONDARY, &status, &why) || status.stage != REPL_STAGE_NONE)
		return -1;
	/* (A primary without metadata has none.) */
	if (role_lineage(resource, i, lineage, sizeof(lineage), &why))
		lineage[0] = 0;
	snprintf(message, sizeof(message), "start %llu %s", (unsigned long long)id - 1, lineage);
	return dm_message(name, message, NULL, 0, error);
}

static int one_prepare(const struct repl_resource *resource, unsigned int i,
		       const char *name, void *arg, struct repl_error *error)
{
	uint64_t id = *(uint64_t *)arg;
	char message[64];

	snprintf(message, sizeof(message), "checkpoint_prepare %llu", (unsigned long long)id);
	if (!dm_message(name, message, NULL, 0, error))
		return 0;
	if (!was_repaired(name) && begin_here(resource, i, name, id, error))
		return -1;
	if (!dm_message(name, message, NULL, 0, error))
		return 0;
	return begin_here(resource, i, name, id, error) ? -1 :
	       dm_message(name, message, NULL, 0, error);
}

static int one_failover(const struct repl_resource *resource, unsigned int i,
			const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	bool over;

	/* Or has it been done before? */
	if (dm_message(name, "failover", NULL, 0, error) &&
	    (status_of(name, REPL_SECONDARY, &status, NULL) ||
	     status_over(name, &status, &over, NULL) || !over))
		return -1;
	return 0;
}

static int one_export(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	bool over;

	if (status_of(name, REPL_SECONDARY, &status, error) ||
	    status_over(name, &status, &over, error))
		return -1;
	return over ? 0 : dataleg_export(resource, i, error);
}

static int one_anew(const struct repl_resource *resource, unsigned int i,
		    const char *name, void *arg, struct repl_error *error)
{
	if (!(*(uint64_t *)arg >> i & 1) || dataleg_external(resource, i))
		return 0;
	return dataleg_unexport(resource, i, true, error) ||
	       one_export(resource, i, name, NULL, error) ? -1 : 0;
}

int resource_export_anew(const struct repl_resource *resource, uint64_t volumes,
			 struct repl_error *error)
{
	return each(resource, true, one_anew, &volumes, error);
}

/**
 * resource_exported() - are the servers of all volumes there?
 * @resource: resource; this side is secondary
 *
 * Does not block.
 */
bool resource_exported(const struct repl_resource *resource)
{
	bool all = true;

	for (unsigned int i = 0; i < resource->config->volumes; i++)
		all &= dataleg_exported(resource, i);
	return all;
}

/**
 * resource_export() - start the servers that have died
 * @resource: resource; this side is secondary
 * @error: filled in on -1
 *
 * Not those of volumes that have failed over.
 */
int resource_export(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_export, NULL, error);
}

/* Once fenced, the server is of no use any more; its end is nobody's concern. */
static int one_unexport(const struct repl_resource *resource, unsigned int i,
			const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	bool over;

	if (status_of(name, REPL_SECONDARY, &status, error) ||
	    status_over(name, &status, &over, error))
		return -1;
	return over ? dataleg_unexport(resource, i, false, error) : 0;
}

/**
 * resource_syncfs() - what is in file systems' caches goes to the devices
 * @resource: resource
 * @error: filled in on -1
 *
 * For mode async, before resource_hold(). (A suspend does it by itself.)
 */
int resource_syncfs(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, false, one_syncfs, NULL, error);
}

/**
 * resource_hold() - one point in time for all volumes
 * @resource: resource
 * @id: of the checkpoint
 * @error: filled in on -1; some may be held then: resource_release()
 *
 * Mode async: the workload pauses until all volumes have their cut, and what it writes
 * later waits for resource_release(). Mode sync: it stands still until then, file systems frozen.
 */
int resource_hold(const struct repl_resource *resource, uint64_t id,
		  struct repl_error *error)
{
	struct hold hold = { .id = id };

	return each(resource, false, one_hold, &hold, error) ||
	       each(resource, true, one_open, &hold, error) ? -1 : 0;
}

/**
 * resource_cut() - one point in time, with a workload that stands still
 * @resource: resource; mode async
 * @id: of the checkpoint
 * @error: filled in on -1; some may have a cut then: resource_release()
 *
 * It may go on as soon as this has returned.
 */
int resource_cut(const struct repl_resource *resource, uint64_t id,
		 struct repl_error *error)
{
	return each(resource, false, one_cut, &id, error);
}

/**
 * resource_release() - the checkpoint is over: all goes on
 * @resource: resource
 * @id: of the checkpoint; 0: whatever there is
 * @committed: the peer has it
 * @error: filled in on -1; tried on all of them all the same
 */
int resource_release(const struct repl_resource *resource, uint64_t id, bool committed,
		     struct repl_error *error)
{
	struct release release = { id, committed };

	return each(resource, true, one_release, &release, error);
}

/**
 * resource_flush() - all before the point in time is on the peer's disks
 * @resource: resource
 * @id: of the checkpoint
 * @error: filled in on -1
 */
int resource_flush(const struct repl_resource *resource, uint64_t id,
		   struct repl_error *error)
{
	return each(resource, false, one_flush, &id, error);
}

/**
 * resource_detach() - forward nothing more
 * @resource: resource
 * @error: filled in on -1
 */
int resource_detach(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_detach, NULL, error);
}

int resource_prepare(const struct repl_resource *resource, uint64_t id,
		     struct repl_error *error)
{
	return each(resource, false, one_prepare, &id, error);
}

/**
 * resource_commit() - commit what is prepared
 * @resource: resource
 * @id: checkpoint
 * @error: filled in on -1
 *
 * Any volume that has committed it before is left as it is.
 */
int resource_commit(const struct repl_resource *resource, uint64_t id,
		    struct repl_error *error)
{
	struct pair_kernel kernel;
	char message[64];

	/* All of it, nearly always. */
	snprintf(message, sizeof(message), "checkpoint_commit %llu", (unsigned long long)id);
	if (!each(resource, true, one_message, message, error))
		return 0;
	if (each(resource, true, one_settle, (void *)"checkpoint_commit", error) ||
	    resource_kernel(resource, &kernel, error))
		return -1;
	if (kernel.oldest != id)
		return error_set(error, REPL_EXIT_FAILED,
				 "checkpoint %llu was not prepared everywhere",
				 (unsigned long long)id);
	return 0;
}

/**
 * resource_abort() - go on as before a prepare
 * @resource: resource
 * @error: filled in on -1
 */
int resource_abort(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_settle, (void *)"checkpoint_abort", error);
}

int resource_failover(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_failover, NULL, error);
}

/**
 * resource_unexport() - end the servers of what has failed over
 * @resource: resource; this side is secondary
 * @error: filled in on -1; tried on all volumes all the same
 */
int resource_unexport(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_unexport, NULL, error);
}

/*
 * What could not be flushed may be gone, and the primary need not have heard of it. It sends
 * all since the last checkpoint again if its data leg breaks; a daemon starts the server.
 */
static int send_again(const struct repl_resource *resource, unsigned int i, const char *name,
		      bool dry_run, struct repl_error *error)
{
	int lock, r;

	if (dataleg_external(resource, i))
		return 0;
	step(dry_run, "end the server of %s: the primary sends all since the last checkpoint again",
	     name);
	if (dry_run)
		return 0;
	if (dataleg_unexport(resource, i, true, error))
		return -1;
	r = resource_lock(resource, &lock, error);
	if (r < 0)
		return -1;
	if (!r)
		r = one_export(resource, i, name, NULL, error);
	close(lock);
	return r < 0 ? -1 : 0;
}

static int one_retry(const struct repl_resource *resource, unsigned int i, const char *name,
		     void *arg, struct repl_error *error)
{
	bool dry_run = *(bool *)arg, merge;
	struct repl_status status;

	if (status_of(name, REPL_SECONDARY, &status, error))
		return -1;
	merge = status.stage == REPL_STAGE_FAILOVER_FAILED;
	if (!merge && !status.latched.classes)
		return 0;
	if (status.latched.classes & 1u << REPL_FLUSH &&
	    send_again(resource, i, name, dry_run, error))
		return -1;
	step(dry_run, merge ? "go on with the merge of %s" : "forget the errors of %s", name);
	return dry_run ? 0 : dm_message(name, merge ? "retry" : "clear_error", NULL, 0, error);
}

/**
 * resource_retry() - what has failed is repaired
 * @resource: resource; this side is secondary
 * @dry_run: say what would be done, and do nothing
 * @error: filled in on -1; tried on all volumes all the same
 *
 * What the peer could not write here it sends by itself.
 */
int resource_retry(const struct repl_resource *resource, bool dry_run,
		   struct repl_error *error)
{
	return each(resource, true, one_retry, &dry_run, error);
}

/**
 * resource_message() - one message to each volume's device
 * @resource: resource
 * @message: words
 * @error: filled in on -1
 */
int resource_message(const struct repl_resource *resource, const char *message,
		     struct repl_error *error)
{
	return each(resource, false, one_message, (void *)message, error);
}

struct job_change {
	const char *what;
	unsigned int nr;		/* of jobs that it was done to */
};

/* As the module has it: another state is EBUSY. */
static bool job_can(enum repl_job_state state, const char *what)
{
	bool running = state == REPL_JOB_RUNNING, paused = state == REPL_JOB_PAUSED;

	return !strcmp(what, "pause") ? running : !strcmp(what, "resume") ? paused :
	       running || paused;
}

static int one_job(const struct repl_resource *resource, unsigned int i, const char *name,
		   void *arg, struct repl_error *error)
{
	struct job_change *change = arg;
	struct repl_status status;
	char line[1024], message[32];

	if (dm_status(name, line, sizeof(line), error) || status_parse(line, &status, error))
		return -1;
	if (!job_can(status.job.state, change->what))
		return 0;
	snprintf(message, sizeof(message), "job %s", change->what);
	if (dm_message(name, message, NULL, 0, error))
		return -1;
	step(false, "%s the %s of %s", change->what, status_job_name(status.job.type), name);
	change->nr++;
	return 0;
}

int resource_job(const struct repl_resource *resource, const char *what,
		 struct repl_error *error)
{
	struct job_change change = { .what = what };

	if (each(resource, true, one_job, &change, error))
		return -1;
	return change.nr ? 0 : error_set(error, REPL_EXIT_REFUSED,
					 "there is no job that one could %s", what);
}

static int one_speed(const struct repl_resource *resource, unsigned int i, const char *name,
		     void *arg, struct repl_error *error)
{
	return set_speed(name, *(uint64_t *)arg, error);
}

int resource_job_speed(const struct repl_resource *resource, uint64_t rate,
		       struct repl_error *error)
{
	return each(resource, true, one_speed, &rate, error);
}

// SPDX-License-Identifier: GPL-2.0-only
/* Role: see role.h. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "dataleg.h"
#include "dm.h"
#include "metadata.h"
#include "resource-i.h"
#include "role.h"
#include "steps.h"
#include "units.h"

/* Of a device that is there: its role. */
static int live_role(const char *name, enum pair_role *role, struct repl_status *status,
		     struct repl_error *error)
{
	struct repl_dm_info info;
	char line[1024];

	*role = PAIR_NO_ROLE;
	if (dm_info(name, &info, error))
		return -1;
	if (!info.exists)
		return 0;
	if (dm_status(name, line, sizeof(line), error) || status_parse(line, status, error))
		return -1;
	*role = status->role == REPL_PRIMARY ? PAIR_PRIMARY : PAIR_SECONDARY;
	return 0;
}

struct finding {
	enum pair_role role;
	bool offline;
};

static int one_role(const struct repl_resource *resource, unsigned int i,
		    const char *name, void *arg, struct repl_error *error)
{
	const char *metadata = resource->config->volume[i].on[resource->here].metadata;
	struct finding *all = arg;
	struct repl_status status;
	enum pair_role role;

	if (live_role(name, &role, &status, error))
		return -1;
	if (role == PAIR_NO_ROLE && all->offline && metadata &&
	    metadata_role(metadata, &role, error))
		return -1;
	if (role == PAIR_SECONDARY || all->role == PAIR_NO_ROLE)
		all->role = role;
	return 0;
}

int role_find(struct repl_resource *resource, bool offline, struct repl_error *error)
{
	struct finding all = { .offline = offline };

	if (each(resource, false, one_role, &all, error))
		return -1;
	resource->role = all.role;
	return 0;
}

/*
 * ---- What it says of itself ----
 */

/* "-" is none, which @lineage, all 0, is already. */
static int lineage_parse(const char *text, uint8_t lineage[LINEAGE_SIZE])
{
	return strcmp(text, "-") ? uuid_parse(text, lineage) : 0;
}

/*
 * A secondary that has a checkpoint keeps it until the next one. That what it has may be
 * lost all the same is said of that checkpoint, in words, and ends with it.
 */
static int agree_to(const struct repl_resource *resource, unsigned int volume,
		    const char *lineage, uint64_t checkpoint, struct repl_error *error)
{
	char path[256];
	FILE *f;
	int r;

	resource_volume_file(resource, volume, "discard", path, sizeof(path));
	f = fopen(path, "we");
	r = !f || fprintf(f, "%s %" PRIu64 "\n", lineage, checkpoint) < 0;
	if (f)
		r |= !!fclose(f);
	return r ? error_set(error, REPL_EXIT_FAILED, "%s: %s", path, strerror(errno)) : 0;
}

static bool agreed_to(const struct repl_resource *resource, unsigned int volume,
		      const char *lineage, uint64_t checkpoint)
{
	char path[256], word[40] = "";
	unsigned long long id = 0;
	FILE *f;

	resource_volume_file(resource, volume, "discard", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return false;
	if (fscanf(f, "%39s %llu", word, &id) != 2)
		word[0] = 0;
	fclose(f);
	return !strcmp(word, lineage) && id == checkpoint;
}

/* Of a secondary: may what only it has be lost? Who has been demoted has agreed. */
static bool may_discard(const struct repl_resource *resource, unsigned int volume,
			const char *name, const char *lineage, uint64_t checkpoint)
{
	struct repl_status status;

	if (status_of(name, REPL_SECONDARY, &status, NULL))
		return false;
	return status.stage == REPL_STAGE_NONE ||
	       (status.stage == REPL_STAGE_RUNNING &&
		agreed_to(resource, volume, lineage, checkpoint));
}

int role_side(const struct repl_resource *resource, unsigned int volume,
	      struct repl_side *side, struct repl_error *error)
{
	unsigned long long fork, checkpoint, dirty, pending;
	char name[128], answer[256], role[16], lineage[40], parent[40];

	memset(side, 0, sizeof(*side));
	resource_device(resource, volume, false, name, sizeof(name));
	if (dm_message(name, "identity", answer, sizeof(answer), error))
		return -1;
	if (sscanf(answer, "%15s %39s %39s %llu %llu %llu %llu", role, lineage, parent, &fork,
		   &checkpoint, &dirty, &pending) != 7 || lineage_parse(lineage, side->lineage) ||
	    lineage_parse(parent, side->parent))
		return error_set(error, REPL_EXIT_FAILED, "%s: identity '%s'?", name, answer);
	if (!resource->config->volume[volume].on[resource->here].metadata) {
		memset(side, 0, sizeof(*side));
		return 0;
	}
	side->fork = fork;
	side->checkpoint = checkpoint;
	side->dirty = dirty;
	side->pending = pending;
	side->discard = !strcmp(role, "secondary") &&
			may_discard(resource, volume, name, lineage, checkpoint);
	return 0;
}

int role_lineage(const struct repl_resource *resource, unsigned int volume, char *text,
		 size_t size, struct repl_error *error)
{
	char path[256];
	FILE *f;

	resource_volume_file(resource, volume, "lineage", path, sizeof(path));
	f = fopen(path, "re");
	if (!f || !fgets(text, size, f))
		text[0] = 0;
	if (f)
		fclose(f);
	text[strcspn(text, "\n")] = 0;
	return text[0] ? 0 : error_set(error, REPL_EXIT_FAILED,
				       "the primary has said no lineage");
}

static int one_adopt(const struct repl_resource *resource, unsigned int i,
		     const char *name, void *arg, struct repl_error *error)
{
	char lineage[40], message[64];
	struct repl_side side;
	uint8_t theirs[LINEAGE_SIZE];

	/* (It may have none: no metadata. Then there is nothing to take.) */
	if (role_lineage(resource, i, lineage, sizeof(lineage), error) ||
	    uuid_parse(lineage, theirs))
		return 0;
	if (role_side(resource, i, &side, error))
		return -1;
	if (!memcmp(side.lineage, theirs, LINEAGE_SIZE))
		return 0;
	snprintf(message, sizeof(message), "lineage %s", lineage);
	return dm_message(name, message, NULL, 0, error);
}

int role_adopt(const struct repl_resource *resource, struct repl_error *error)
{
	return each(resource, true, one_adopt, NULL, error);
}

/*
 * ---- Promotion ----
 */

static int may_promote(const struct repl_resource *resource, unsigned int i,
		       const char *name, void *arg, struct repl_error *error)
{
	struct repl_status status;
	enum pair_role role;
	bool over;

	if (live_role(name, &role, &status, error))
		return -1;
	if (role == PAIR_NO_ROLE)
		return error_set(error, REPL_EXIT_REFUSED, "%s is not up", name);
	if (role == PAIR_PRIMARY)
		return 0;
	if (status_over(name, &status, &over, error))
		return -1;
	if (!over)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s has not failed over: 'replctl failover %s' first", name,
				 resource->config->name);
	if (status.stage != REPL_STAGE_DONE)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is merging still: 'replctl wait %s merged' first", name,
				 resource->config->name);
	return 0;
}

static int one_promote(const struct repl_resource *resource, unsigned int i,
		       const char *name, void *arg, struct repl_error *error)
{
	char params[2 * PATH_MAX], ingest[144];
	bool dry_run = *(bool *)arg;
	struct repl_status status;
	enum pair_role role;
	uint64_t sectors;

	sectors = blockdev_sectors(resource->config->volume[i].on[resource->here].disk, error);
	if (!sectors || live_role(name, &role, &status, error))
		return -1;
	if (role != PAIR_PRIMARY) {
		primary_params(resource, i, "-", params, sizeof(params));
		step(dry_run, "make %s, as it is, a repl-primary %s", name, params);
		if (!dry_run && dm_reload(name, sectors, "repl-primary", params, error))
			return -1;
	}
	resource_device(resource, i, true, ingest, sizeof(ingest));
	return (!dry_run && dataleg_unexport(resource, i, true, error)) ||
	       remove_device(ingest, dry_run, error) ? -1 : 0;
}

int role_promote(struct repl_resource *resource, bool dry_run, struct repl_error *error)
{
	if (each(resource, false, may_promote, NULL, error) ||
	    each(resource, false, one_promote, &dry_run, error))
		return -1;
	if (!dry_run)
		resource->role = PAIR_PRIMARY;
	return 0;
}

/*
 * ---- The way back ----
 */

/* It is a secondary: what has it that would be given up? */
static int may_demote_secondary(const struct repl_resource *resource, const char *name,
				const struct repl_status *status, bool in_use, bool discard,
				struct repl_error *error)
{
	bool over;

	if (status->stage == REPL_STAGE_NONE)
		return 0;
	if (status_over(name, status, &over, error))
		return -1;
	if (over && status->stage != REPL_STAGE_DONE)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is merging still: 'replctl wait %s merged' first", name,
				 resource->config->name);
	if (over && in_use)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is in use: what has been written to it is to be given up; end that first",
				 name);
	if (over && !discard)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s has failed over: only this side has what was written to it since; --discard-local gives it up",
				 name);
	if (status->stage == REPL_STAGE_RUNNING && !discard)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is a secondary, with checkpoint %llu; --discard-local lets the primary write over it, whatever it has",
				 name, (unsigned long long)status->secondary.checkpoint);
	return 0;
}

static int may_demote(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	const struct repl_volume_on *on = &resource->config->volume[i].on[resource->here];
	bool discard = *(bool *)arg;
	struct repl_status status;
	struct repl_dm_info info;
	struct repl_side side;
	enum pair_role role;

	if (!on->hidden || !on->active)
		return error_set(error, REPL_EXIT_CONFIG,
				 "a secondary needs hidden and active, and none are configured for this host");
	if (dm_info(name, &info, error) || live_role(name, &role, &status, error))
		return -1;
	if (role == PAIR_NO_ROLE)
		return error_set(error, REPL_EXIT_REFUSED, "%s is not up", name);
	if (role == PAIR_SECONDARY)
		return may_demote_secondary(resource, name, &status, info.open_count, discard,
					    error);
	if (info.open_count)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s is in use: what has been written to it is to be given up, or sent back; end that first",
				 name);
	if (discard)
		return 0;
	if (!on->metadata)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s has no metadata: nobody knows what only this side has; --discard-local gives it up",
				 name);
	if (role_side(resource, i, &side, error))
		return -1;
	if (side.dirty)
		return error_set(error, REPL_EXIT_REFUSED,
				 "%s: only this side may have what was written since checkpoint %llu, %llu KiB; --discard-local gives it up",
				 name, (unsigned long long)side.checkpoint,
				 (unsigned long long)side.dirty *
				 resource->config->volume[i].region_size / 1024);
	return 0;
}

/* It keeps its checkpoint until the primary has sent all. */
static int demote_running(const struct repl_resource *resource, unsigned int i,
			  const char *name, bool dry_run, struct repl_error *error)
{
	char answer[256], lineage[40];
	unsigned long long checkpoint;

	step(dry_run, "let the primary write over what %s has: 'replctl sync --full' there",
	     name);
	if (dry_run)
		return 0;
	if (dm_message(name, "identity", answer, sizeof(answer), error))
		return -1;
	if (sscanf(answer, "%*s %39s %*s %*s %llu", lineage, &checkpoint) != 2)
		return error_set(error, REPL_EXIT_FAILED, "%s: identity '%s'?", name, answer);
	return agree_to(resource, i, lineage, checkpoint, error);
}

static int one_demote(const struct repl_resource *resource, unsigned int i,
		      const char *name, void *arg, struct repl_error *error)
{
	struct up up = { .dry_run = *(bool *)arg };
	struct repl_status status;
	enum pair_role role;

	if (live_role(name, &role, &status, error))
		return -1;
	if (role == PAIR_SECONDARY && status.stage == REPL_STAGE_RUNNING)
		return demote_running(resource, i, name, up.dry_run, error);
	if (role == PAIR_PRIMARY &&
	    (remove_device(name, up.dry_run, error) ||
	     (!up.dry_run && dataleg_disconnect(resource, i, error))))
		return -1;
	if (up.dry_run)
		step(true, "make %s a repl-secondary, and export it", name);
	else if (secondary_up(resource, i, name, &up, error))
		return -1;
	/* It stays one, and may be written over: that was the question. */
	return up.dry_run ? 0 : dm_message(name, "demote", NULL, 0, error);
}

int role_demote(struct repl_resource *resource, bool discard, bool dry_run,
		struct repl_error *error)
{
	if (each(resource, false, may_demote, &discard, error))
		return -1;
	if (!dry_run)
		resource->role = PAIR_SECONDARY;
	return each(resource, false, one_demote, &dry_run, error);
}

// SPDX-License-Identifier: GPL-2.0-only
#include <string.h>

#include "plan.h"
#include "steps.h"

static const char *word(struct json_object *status, const char *key)
{
	struct json_object *value;
	const char *text = NULL;

	if (json_object_object_get_ex(status, key, &value) && value)
		text = json_object_get_string(value);
	return text ? text : "";
}

static bool flag(struct json_object *status, const char *key)
{
	return !strcmp(word(status, key), "true");
}

static unsigned long long number(struct json_object *status, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(status, key, &value) ?
	       json_object_get_uint64(value) : 0;
}

static const char *peer_name(const struct repl_resource *resource)
{
	return resource->config->host[!resource->here].name;
}

/* As the daemon would say it: see primary_next() in pair.c. */
static int checkpoint_refused(const struct repl_resource *resource, struct json_object *status,
			      struct repl_error *error)
{
	bool primary = resource_role(resource) == PAIR_PRIMARY;

	if (flag(status, "failed_over"))
		return error_set(error, REPL_EXIT_REFUSED, primary ? "the peer has failed over" :
				 "this side has failed over");
	if (strcmp(word(status, "connection"), "connected"))
		return error_set(error, REPL_EXIT_PEER, "the peer is not connected: %s",
				 word(status, "disconnected_because"));
	if (flag(status, "stale"))
		return error_set(error, REPL_EXIT_REFUSED,
				 "the peer's checkpoint is not the last one: 'replctl sync --full'");
	if (flag(status, "degraded") && !flag(status, "catching_up"))
		return error_set(error, REPL_EXIT_REFUSED,
				 "the peer has missed writes: it needs a resync");
	return 0;
}

static void checkpoint_on_primary(const struct repl_resource *resource, unsigned long long id)
{
	const struct repl_config *config = resource->config;
	char name[128];

	if (config->hold)
		step(true, "hold the workload by %s", config->hold);
	for (unsigned int i = 0; i < config->volumes && !config->hold; i++) {
		resource_device(resource, i, false, name, sizeof(name));
		if (config->sync)
			step(true, "suspend %s", name);
		else
			step(true, "hold the writes of %s until all volumes have their cut", name);
	}
	for (unsigned int i = 0; i < config->volumes; i++) {
		resource_device(resource, i, false, name, sizeof(name));
		step(true, "flush the writes of %s to %s", name, peer_name(resource));
	}
	if (config->save)
		step(true, "send the state that %s gives", config->save);
	step(true, "wait until %s has committed checkpoint %llu, on all volumes",
	     peer_name(resource), id);
	step(true, "let the workload go on%s%s", config->release ? " by " : "",
	     config->release ? config->release : "");
}

int plan_checkpoint(const struct repl_resource *resource, struct json_object *status,
		    struct repl_error *error)
{
	unsigned long long id = number(status, "checkpoint") + 1;

	if (checkpoint_refused(resource, status, error))
		return -1;
	if (strcmp(word(status, "phase"), "idle")) {
		step(true, "wait for the end of checkpoint %llu, which is under way: %s", id,
		     word(status, "phase"));
		id++;
	}
	if (resource_role(resource) == PAIR_PRIMARY)
		checkpoint_on_primary(resource, id);
	else
		step(true, "ask %s for a checkpoint, and wait until %llu or a newer one is committed here",
		     peer_name(resource), id);
	return 0;
}

void plan_awaited(struct json_object *status, struct repl_error *error)
{
	const char *phase = word(status, "phase");

	if (strcmp(phase, "idle"))
		error_set(error, REPL_EXIT_TIMEOUT, "the checkpoint has not ended yet: %s", phase);
	else if (strcmp(word(status, "connection"), "connected"))
		error_set(error, REPL_EXIT_TIMEOUT, "no checkpoint yet: the peer is not connected: %s",
			  word(status, "disconnected_because"));
	else if (flag(status, "catching_up"))
		error_set(error, REPL_EXIT_TIMEOUT,
			  "no checkpoint yet: the peer is behind, and has not caught up in that time. If the workload writes more than the link carries: 'congestion = block'");
	else
		error_set(error, REPL_EXIT_TIMEOUT, "no checkpoint yet: the peer does not begin with it");
}

int plan_failover(const struct repl_resource *resource, struct json_object *status,
		  struct repl_error *error)
{
	const struct repl_config *config = resource->config;
	const char *phase = word(status, "phase");
	struct pair_kernel kernel;
	char view[128];

	if (resource_role(resource) != PAIR_SECONDARY)
		return error_set(error, REPL_EXIT_REFUSED,
				 "a failover is asked for on the secondary");
	if (resource_kernel(resource, &kernel, error))
		return -1;
	if (kernel.over) {
		step(true, "do nothing: it has failed over");
		return 0;
	}
	if (!kernel.running && !kernel.partly_over)
		return error_set(error, REPL_EXIT_REFUSED,
				 "there is no checkpoint to fail over to");
	if (!strcmp(phase, "loading") || !strcmp(phase, "committing"))
		step(true, "wait until the checkpoint that is here is committed: %s", phase);
	else if (strcmp(phase, "idle"))
		step(true, "drop the checkpoint that is under way: %s", phase);
	for (unsigned int i = 0; i < config->volumes; i++) {
		resource_device(resource, i, false, view, sizeof(view));
		step(true, "refuse all writes of %s to %s-ingest, and end its export at port %u",
		     peer_name(resource), view, config->volume[i].port);
		step(true, "make checkpoint %llu of %s permanent: writable at once, merged meanwhile",
		     (unsigned long long)kernel.oldest, view);
	}
	step(true, "not touch %s itself%s: make sure that it does not run any more",
	     peer_name(resource), strcmp(word(status, "connection"), "connected") ? "" :
	     ", which is connected");
	return 0;
}

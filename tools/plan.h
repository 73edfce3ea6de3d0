/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Plan: what a verb would do, by the state that things are in now (--dry-run). The
 * state may be another one a moment later.
 */
#ifndef REPLCTL_PLAN_H
#define REPLCTL_PLAN_H

#include <json-c/json.h>

#include "resource.h"

/**
 * plan_checkpoint() - say what a checkpoint would be, by step()
 * @resource: resource
 * @status: what the daemon says
 * @error: filled in on -1: why there would be none
 *
 * Return: 0 or -1.
 */
int plan_checkpoint(const struct repl_resource *resource, struct json_object *status,
		    struct repl_error *error);

/**
 * plan_awaited() - why has a checkpoint that was asked for not ended yet?
 * @status: what the daemon says
 * @error: filled in, REPL_EXIT_TIMEOUT
 */
void plan_awaited(struct json_object *status, struct repl_error *error);

/**
 * plan_failover() - say what a failover would be, by step()
 * @resource: resource
 * @status: what the daemon says
 * @error: filled in on -1: why there would be none
 *
 * Return: 0 or -1.
 */
int plan_failover(const struct repl_resource *resource, struct json_object *status,
		  struct repl_error *error);

#endif

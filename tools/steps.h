/* SPDX-License-Identifier: GPL-2.0-only */
/* Steps: what a verb does, or would do: lines for a person, or an array for --json. */
#ifndef REPLCTL_STEPS_H
#define REPLCTL_STEPS_H

#include <json-c/json.h>
#include <stdbool.h>

#include "error.h"

/**
 * step() - one line about what is done, or would be
 * @dry_run: would be
 * @fmt: words: "make r0-data"
 */
void step(bool dry_run, const char *fmt, ...) printf_like(2, 3);

/**
 * steps_keep() - print no more of them, collect them
 * @array: where; the caller keeps its reference
 */
void steps_keep(struct json_object *array);

#endif

// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>

#include "steps.h"

static struct json_object *kept;

void steps_keep(struct json_object *array)
{
	kept = array;
}

void step(bool dry_run, const char *fmt, ...)
{
	char text[1400];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (kept) {
		json_object_array_add(kept, json_object_new_string(text));
		return;
	}
	printf("%s%s\n", dry_run ? "would " : "", text);
	fflush(stdout);
}

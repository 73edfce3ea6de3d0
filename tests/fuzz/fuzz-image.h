/* SPDX-License-Identifier: GPL-2.0-only */
/* For those that feed metadata devices to what replctl says of them. */
#ifndef FUZZ_IMAGE_H
#define FUZZ_IMAGE_H

#include <json.h>
#include <stdio.h>
#include <stdlib.h>

#include "image.h"

#define require(x) do { if (!(x)) abort(); } while (0)

/* @how: 1: its dump, not its check; 2: as JSON, which has to be some. */
static void print(struct image *image, unsigned int how)
{
	struct json_object *object;
	char *text = NULL;
	size_t length;
	FILE *to = open_memstream(&text, &length);

	if (how & 1)
		image_dump(image, "device", how & 2, to);
	else
		image_report(image, "device", how & 2, to);
	fclose(to);
	require(length && text[length - 1] == '\n');
	if (how & 2) {
		object = json_tokener_parse(text);
		require(object && json_object_is_type(object, json_type_object));
		json_object_put(object);
	}
	free(text);
}

#endif

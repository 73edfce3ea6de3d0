// SPDX-License-Identifier: GPL-2.0-only
/* Status lines: whatever is taken can be printed, as JSON and as words. */
#include <json.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line = malloc(size + 1), *text = NULL;
	struct repl_rate rate = { 0 };
	struct repl_error error = { 0 };
	struct json_object *object;
	struct repl_status status;
	size_t length;
	FILE *to;

	memcpy(line, data, size);
	line[size] = 0;
	if (status_parse(line, &status, &error)) {
		if (!error.text[0] || strchr(error.text, '\n'))
			abort();
	} else {
		struct repl_report report = {
			.resource = "resource", .volume = "volume", .sectors = size,
			.region_size = 128, .status = &status, .rate = &rate,
		};

		if (status.role == REPL_SECONDARY) {
			rate_add(&rate, 1, status.job.done / 2);
			rate_add(&rate, 1000 + size, status.job.done);
		}
		object = status_json(&report);
		json_object_to_json_string(object);
		json_object_put(object);
		to = open_memstream(&text, &length);
		status_words(&report, size, to);
		fclose(to);
		free(text);
	}
	free(line);
	return 0;
}

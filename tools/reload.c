// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "reload.h"

struct notes {
	reload_note_fn *note;
	void *context;
	unsigned int nr;
};

static void note(struct notes *notes, const char *fmt, ...) printf_like(2, 3);
static void note(struct notes *notes, const char *fmt, ...)
{
	char what[200], text[300];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	snprintf(text, sizeof(text),
		 "%s: has changed in the file, and not here: that takes 'replctl down' and 'replctl up'",
		 what);
	notes->nr++;
	if (notes->note)
		notes->note(text, notes->context);
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void fixed_hosts(const struct repl_config *config, const struct repl_config *fresh,
			struct notes *notes)
{
	for (unsigned int i = 0; i < CONFIG_HOSTS; i++) {
		const struct repl_host *a = &config->host[i], *b = &fresh->host[i];

		if (!same(a->name, b->name)) {
			note(notes, "name of host %s", a->name);
			continue;
		}
		if (!address_same(&a->address, &b->address))
			note(notes, "address of host %s", a->name);
		if (!same(a->data_address, b->data_address))
			note(notes, "data_address of host %s", a->name);
	}
	if (config->primary != fresh->primary)
		note(notes, "primary");
	if (config->plaintext != fresh->plaintext)
		note(notes, "plaintext");
	if (config->sync != fresh->sync ||
	    config->congestion_block != fresh->congestion_block ||
	    config->window != fresh->window || config->peer_timeout != fresh->peer_timeout)
		note(notes, "mode, congestion, window or peer_timeout");
}

static bool same_volume(const struct repl_volume *a, const struct repl_volume *b)
{
	bool all = a->region_size == b->region_size && a->port == b->port;

	for (unsigned int i = 0; i < CONFIG_HOSTS; i++)
		all &= same(a->on[i].disk, b->on[i].disk) &&
		       same(a->on[i].hidden, b->on[i].hidden) &&
		       same(a->on[i].active, b->on[i].active) &&
		       same(a->on[i].metadata, b->on[i].metadata) &&
		       same(a->on[i].import, b->on[i].import);
	return all;
}

static void fixed_volumes(const struct repl_config *config, const struct repl_config *fresh,
			  struct notes *notes)
{
	unsigned int i;

	for (i = 0; i < config->volumes && i < fresh->volumes; i++) {
		if (!same(config->volume[i].name, fresh->volume[i].name))
			break;
		if (!same_volume(&config->volume[i], &fresh->volume[i]))
			note(notes, "volume %s", config->volume[i].name);
	}
	if (i < config->volumes || i < fresh->volumes)
		note(notes, "which volumes there are");
}

unsigned int reload_fixed(const struct repl_config *config, const struct repl_config *fresh,
			  reload_note_fn *fn, void *context)
{
	struct notes notes = { fn, context, 0 };

	fixed_hosts(config, fresh, &notes);
	fixed_volumes(config, fresh, &notes);
	return notes.nr;
}

#define swap(field) do {					\
	__typeof__(config->field) was = config->field;		\
								\
	config->field = fresh->field;				\
	fresh->field = was;					\
} while (0)

void reload_take(struct repl_config *config, struct repl_config *fresh)
{
	/* With plaintext there may be no key, and TLS needs one. */
	if (config->plaintext == fresh->plaintext) {
		swap(key);
		swap(old_key);
	}
	swap(interval);
	swap(heartbeat);
	swap(dead_after);
	swap(checkpoint_timeout);
	swap(data_timeout);
	swap(max_state);
	swap(resync_rate);
	swap(syncfs);
	swap(save);
	swap(load);
	swap(hold);
	swap(release);
	swap(peer_loss);
	swap(peer_loss_hook);
	swap(fence);
}

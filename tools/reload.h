/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reload: which parts of a configuration can change while the resource is served. Times,
 * hooks and keys can. What devices, exports and connections were made of cannot.
 */
#ifndef REPLCTL_RELOAD_H
#define REPLCTL_RELOAD_H

#include "config.h"

typedef void reload_note_fn(const char *text, void *context);

/**
 * reload_fixed() - tell what would change that cannot
 * @config: the one in use
 * @fresh: another one, of the same resource
 * @note: called with words for each such thing; may be NULL
 * @context: for @note
 *
 * Return: how many there are.
 */
unsigned int reload_fixed(const struct repl_config *config, const struct repl_config *fresh,
			  reload_note_fn *note, void *context);

/**
 * reload_take() - take over what can change
 * @config: the one in use
 * @fresh: the other; gets what @config had
 */
void reload_take(struct repl_config *config, struct repl_config *fresh);

#endif

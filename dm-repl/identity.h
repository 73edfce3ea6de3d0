/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Identity: whose data a device holds. A lineage is a history of data; a
 * failover begins a new one. What is stored of it is in meta.h; here is what
 * both roles do with it.
 */
#ifndef DM_REPL_IDENTITY_H
#define DM_REPL_IDENTITY_H

#include <linux/types.h>

#include "meta.h"

int repl_identity_show(const struct repl_identity *id, u64 checkpoint,
		       u64 dirty, u64 pending, char *result,
		       unsigned int maxlen);
int repl_lineage_parse(const char *word, u8 *lineage);
bool repl_lineage_is_known(const u8 *lineage);
bool repl_identity_set_lineage(struct repl_identity *id, const u8 *lineage);
void repl_identity_leave(struct repl_identity *id, u64 checkpoint);

#endif

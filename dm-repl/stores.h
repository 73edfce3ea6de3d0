/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stores: all metadata devices that are open, of either role. One belongs to
 * one mapped device; while that gets another table there are two stores for a
 * moment, of which one writes.
 */
#ifndef DM_REPL_STORES_H
#define DM_REPL_STORES_H

struct mapped_device;
struct repl_store;

int repl_stores_add(struct repl_store *store, struct mapped_device *md);
void repl_stores_del(struct repl_store *store);
void repl_stores_quiesce(struct repl_store *store);

#endif

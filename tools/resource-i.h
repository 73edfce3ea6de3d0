/* SPDX-License-Identifier: GPL-2.0-only */
/* What resource.c and role.c share, and nobody else sees. */
#ifndef REPLCTL_RESOURCE_I_H
#define REPLCTL_RESOURCE_I_H

#include "resource.h"
#include "status.h"

/* What is done with one volume; @name is its device. */
typedef int volume_fn(const struct repl_resource *resource, unsigned int volume,
		      const char *name, void *arg, struct repl_error *error);

struct up {
	bool in_sync, dry_run;
};

int each(const struct repl_resource *resource, bool all, volume_fn *fn, void *arg,
	 struct repl_error *error);
int status_of(const char *name, enum repl_role role, struct repl_status *status,
	      struct repl_error *error);
int status_over(const char *name, const struct repl_status *status, bool *over,
		struct repl_error *error);
int remove_device(const char *name, bool dry_run, struct repl_error *error);
volume_fn secondary_up;
void primary_params(const struct repl_resource *resource, unsigned int i,
		    const char *peer, char *params, size_t size);

#endif

// SPDX-License-Identifier: GPL-2.0-only
#include "kernel.h"

void (*shim_between_reads)(void);
unsigned int shim_warnings;
int shim_fail_alloc;
__thread int shim_cpu;
pthread_rwlock_t shim_rcu = PTHREAD_RWLOCK_INITIALIZER;
__thread bool shim_killed;

/* An allocation that nobody could serve returns NULL, as in the kernel. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

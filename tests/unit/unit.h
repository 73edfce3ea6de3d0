/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef UNIT_H
#define UNIT_H

#include "shim/kernel.h"

#include "../lib/tap.h"

static inline int unit_end(void)
{
	ok(!shim_warnings, "no warning");
	return tap_end();
}

#endif

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-only: 6.1 6.12 7.3
# What each error does: DESIGN.md's table, row by row.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program errors
suite_end

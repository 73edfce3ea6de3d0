#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What each error does: DESIGN.md's table, row by row.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program errors
suite_end

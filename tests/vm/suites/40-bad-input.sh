#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
# Tables and messages that must be refused: each malformed one, and random ones.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program bad-input ${REPL_SEED:+"$REPL_SEED"}
suite_end

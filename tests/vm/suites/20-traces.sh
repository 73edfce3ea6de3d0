#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Traces of COLO runs, with hashes that a model and QEMU's own driver agree on.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program traces "$REPO"/tests/traces/*.trace
suite_end

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Traces of COLO runs, with hashes that a model and QEMU's own driver agree on.
. "$(dirname "$0")/../../lib/suite.sh"
if [ -e "$REPO/build/tests/traces.good" ]; then
	ok "the model agrees with every hash"
else
	not_ok "the model agrees with every hash (make -C tests/src)"
fi
suite_program traces "$REPO"/tests/traces/*.trace
suite_end

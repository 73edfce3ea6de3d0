#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# replctl's layer over libdevmapper, which loads the module by itself.
. "$(dirname "$0")/../../lib/suite.sh"
[ ! -d /sys/module/dm_repl ] || rmmod dm_repl
"$REPO/build/tests/tools-dm" 2>"${REPL_OUT:-/tmp}/tools-dm.stderr" || suite_failed=1
if [ -s "${REPL_OUT:-/tmp}/tools-dm.stderr" ]; then
	not_ok "libdevmapper prints nothing"
	sed 's/^/# /' "${REPL_OUT:-/tmp}/tools-dm.stderr"
else
	ok "libdevmapper prints nothing"
fi
suite_end

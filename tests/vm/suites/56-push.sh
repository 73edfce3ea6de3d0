#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
# Push: first sync, resync, pace and errors, while the workload writes; dirty maps.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program push
suite_end

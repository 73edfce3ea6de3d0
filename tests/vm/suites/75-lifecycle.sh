#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
# Loading, suspending, reloading and removing in every stage; events; signals.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program lifecycle
suite_end

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
# The asynchronous primary: a peer that hangs or fails, a window that is full, order, cuts.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program async
suite_end

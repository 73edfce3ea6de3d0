#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
# A primary's dirty maps of the user, on its metadata device.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program kept
suite_end

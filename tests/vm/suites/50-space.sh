#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Hidden and active on thin volumes whose pool runs out of space.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program space
suite_end

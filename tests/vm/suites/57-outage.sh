#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-only: 6.1 6.12 7.3
# A long outage: memory.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program outage
suite_end

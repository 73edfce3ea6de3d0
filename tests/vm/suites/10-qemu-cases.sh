#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The cases of QEMU's unit test of its replication driver, compared exactly.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program qemu-cases
suite_end

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Failing allocations and requests; needs a kernel with fault injection.
. "$(dirname "$0")/../../lib/suite.sh"
suite_program faults
suite_end

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Power lost at many moments of a random workload on a chain with a metadata
# device; the view after it, whole, against a model (tests/crash/explore.c).
# REPL_POINTS=n moments, REPL_SEED=N.
. "$(dirname "$0")/../../lib/suite.sh"
# That kernel is ten times slower.
[ "${REPL_KERNEL-}" != debug ] || : "${REPL_POINTS:=40}"
suite_program explore --points "${REPL_POINTS:-200}" --seed "${REPL_SEED:-1}"
! grep -q '^nbd ' /proc/modules || rmmod nbd
suite_end

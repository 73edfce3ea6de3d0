#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
# A repl-secondary with a metadata device: made again, refused, failing; and the
# random test of 60-model on one.
. "$(dirname "$0")/../../lib/suite.sh"
[ "${REPL_KERNEL-}" != debug ] || export REPL_STEPS="${REPL_STEPS:-0.25}"
steps=$(awk "BEGIN { s = 600 * ${REPL_STEPS:-1}; print int(s < 16 ? 16 : s) }")
seed=${REPL_SEED:-101}
suite_program metadata
suite_program model --seed "$seed" --steps "$steps" --threads 1 --depth 1 --region 8 --metadata
suite_program model --seed $((seed + 1)) --steps "$steps" --threads 4 --depth 8 --region 8 --metadata
suite_program model --seed $((seed + 2)) --steps "$steps" --threads 4 --depth 8 --region 128 \
	--backing cached --metadata
suite_end

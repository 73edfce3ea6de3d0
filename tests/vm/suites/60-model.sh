#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# A random test against a model (tests/model/model.c), in several shapes.
# REPL_STEPS=10 makes it ten times as long, REPL_SEED=N is another seed. A
# failure prints the arguments that replay it.
. "$(dirname "$0")/../../lib/suite.sh"

# That kernel is ten times slower.
[ "${REPL_KERNEL-}" != debug ] || export REPL_STEPS="${REPL_STEPS:-0.25}"

seed=${REPL_SEED:-1}

# model STEPS ARGUMENT...
model()
{
	steps=$(awk "BEGIN { s = $1 * ${REPL_STEPS:-1}; print int(s < 16 ? 16 : s) }")
	shift
	suite_program model --seed "$seed" --steps "$steps" "$@"
	seed=$((seed + 1))
}

# One thread: what happens follows from the seed alone.
model  600 --threads 1 --depth 1  --region 8
model  600 --threads 1 --depth 8  --region 128
# Copy-before-write races: many requests on the same regions.
model 1200 --threads 4 --depth 8  --region 8
model 1200 --threads 4 --depth 8  --region 128
model  300 --threads 4 --depth 8  --region 8192
# Other devices: write-zeroes and a cache to flush; a cache that loses what was
# not flushed; larger blocks.
model  800 --threads 3 --depth 16 --region 128 --backing loop
model  800 --threads 3 --depth 16 --region 8   --backing cached
model  800 --threads 4 --depth 8  --region 128 --block 4096
# Slow reads of the secondary: they are in flight when writes overtake them.
model  600 --threads 4 --depth 16 --region 8   --delay 2
# All checkpoints with nothing in flight: then each sector has one right content.
model  800 --threads 4 --depth 16 --region 8   --quiet-checkpoints

suite_end

# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# For pair-mutants and identity-mutants, at the root of the repository. They say how a source
# is edited (edit EDIT, to its output), and how an explorer is run (holds EXPLORER: nothing
# was found).

# shellcheck disable=SC2034  # failed: who sources this ends with it
set -u
out=build/tests/unit/tools/mutants
mkdir -p $out
failed=0

# try SOURCE EXPLORER NAME EDIT: of tools/ and of tests/unit/tools/, without .c
try()
{
	local source=$1 explorer=$2 name=$3

	edit "$4" >"$out/$source.c"
	if cmp -s "tools/$source.c" "$out/$source.c"; then
		echo "not ok - tools mutant: $name: changes nothing"
		failed=1
		return
	fi
	gcc -O2 -std=gnu11 -D_GNU_SOURCE -w -Itools -o "$out/$explorer" \
		"tests/unit/tools/$explorer.c" "$out/$source.c" || {
		echo "not ok - tools mutant: $name: does not compile"
		failed=1
		return
	}
	if holds "$out/$explorer" >$out/log; then
		echo "not ok - tools mutant: $name: is not found"
		failed=1
	else
		echo "ok - tools mutant: $name: $(sed -n 's/^not ok - explore[ a-z]*: //p' $out/log)"
	fi
}

# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What tests/vm/run and its helpers share: where things are, how to complain,
# and how a missing package is named.

VM_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # for those who source this
REPO=$(cd "$VM_DIR/../.." && pwd)
# shellcheck disable=SC2034
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dm-repl

# depmod, modinfo and friends are not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

say()
{
	echo "${0##*/}: $*" >&2
}

die()
{
	say "$*"
	exit 125
}

# need_commands COMMAND=PACKAGE...
#
# Installs nothing: says which packages are missing and how to get them.
need_commands()
{
	local pair missing=()

	for pair; do
		command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} = 0 ] && return
	die "missing: ${missing[*]}
  apt-get install --no-install-recommends ${missing[*]}
or, for everything that the tests want: make setup"
}

# with_lock FILE COMMAND...
#
# Two runs that want the same kernel unpack it once.
with_lock()
{
	local file=$1

	shift
	mkdir -p "$(dirname "$file")"
	(
		flock 9
		"$@" 9>&-
	) 9>"$file"
}

# extract_vmlinux BZIMAGE OUTPUT
#
# The uncompressed kernel boots in half the time. The boot protocol header says
# where the payload is; its first bytes say how it is packed. All but gzip are
# followed by the 4-byte length of the unpacked image.
extract_vmlinux()
{
	local image=$1 out=$2 setup offset length magic unpack

	setup=$(od -An -tu1 -j 497 -N 1 "$image" | tr -d ' ')
	read -r offset length < <(od -An -tu4 -j 584 -N 8 "$image")
	[ "$setup" != 0 ] || setup=4
	offset=$((offset + (setup + 1) * 512))
	magic=$(od -An -tx1 -j $offset -N 4 "$image" | tr -d ' ')

	case $magic in
	1f8b*)	 unpack="gzip -dc" length=$((length + 4)) ;;
	fd377a58) unpack="xz -dc" ;;
	28b52ffd) unpack="zstd -dcq" ;;
	02214c18) unpack="lz4 -dc" ;;
	*) die "$image: packed in a way that is not known here ($magic)" ;;
	esac
	dd if="$image" bs=1M iflag=skip_bytes,count_bytes status=none \
		skip=$offset count=$((length - 4)) |
		$unpack >"$out.tmp" || die "$image: cannot be unpacked"
	mv "$out.tmp" "$out"
}

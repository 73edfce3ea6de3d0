#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# probe-headers.sh KERNEL/include/linux
#
# Prints -D options for what compat.h must know about the kernel's interfaces.

include=$1

# arguments FILE TEXT: how many parameters has the declaration that starts
# with TEXT? Nothing if there is none.
arguments()
{
	awk -v start="$2" '
	index($0, start) { on = 1; $0 = substr($0, index($0, start) + length(start)) }
	on {
		if (match($0, /;/)) {
			text = text substr($0, 1, RSTART)
			print gsub(/,/, ",", text) + 1
			exit
		}
		text = text $0
	}' "$include/$1" 2>/dev/null
}

# has FILE PATTERN NAME: -DNAME if the pattern is there
has()
{
	grep -qE -- "$2" "$include/$1" 2>/dev/null && echo "-D$3"
}

# dm_io(): 4 arguments, or 5 with ioprio, or 6.
n=$(arguments dm-io.h 'int dm_io(')
[ -n "$n" ] && echo "-DREPL_DM_IO_ARGS=$n"
# Its callback: 2 arguments or 3.
n=$(arguments dm-io.h '(*io_notify_fn)(')
[ -n "$n" ] && echo "-DREPL_IO_NOTIFY_ARGS=$n"
has blkdev.h 'max_hw_discard_sectors' REPL_HAVE_MAX_HW_DISCARD_SECTORS
exit 0

# SPDX-License-Identifier: GPL-2.0-only
#
# make            dm-repl.ko for KDIR's kernel, in build/RELEASE/
# make help       the rest

RUNNING := /lib/modules/$(shell uname -r)/build
NEWEST   = $(lastword $(shell ls -d /usr/src/linux-headers-*-amd64 2>/dev/null | sort -V))
KDIR    ?= $(if $(wildcard $(RUNNING)),$(RUNNING),$(NEWEST))
W       ?= 1

# (kernel.release of Debian's headers is not what uname -r says.)
RELEASE  = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)".*/\1/p' \
		$(KDIR)/include/generated/utsrelease.h 2>/dev/null)
BUILD    = $(CURDIR)/build/$(RELEASE)
INSTALL_MOD_DIR ?= updates

# Kbuild writes beside the sources; so each kernel has a folder of links to them.
SOURCES  = $(wildcard dm-repl/*.c dm-repl/*.h dm-repl/*.sh dm-repl/Kbuild)
# Without the kernel's image there is no type information to make for the module.
BTF      = $(if $(wildcard $(KDIR)/vmlinux),,CONFIG_DEBUG_INFO_BTF_MODULES= \
		'PAHOLE_VERSION=$$(CONFIG_PAHOLE_VERSION)')
KMAKE    = $(MAKE) -C $(KDIR) M=$(BUILD) W=$(W) $(BTF) --no-print-directory

PREFIX  ?= /usr/local
export PREFIX

.PHONY: all module tools links sparse checkpatch install uninstall clean help \
	setup check check-debug check-replctl check-unit check-vm compat dkms-check demo \
	seesaw bench bench-short shellcheck crash crash-short explore mutants mutants-sim

all: module tools

# ---------------------------------------------------------------- the module

module: links
	@+$(KMAKE) modules

links:
	@test -n "$(RELEASE)" || { \
	  echo "no kernel headers in '$(KDIR)': apt-get install linux-headers-amd64, or make KDIR=..." >&2; \
	  exit 1; }
	@mkdir -p $(BUILD)
	@find $(BUILD) -maxdepth 1 -type l ! -exec test -e {} \; -delete
	@for f in $(SOURCES); do \
	   l=$(BUILD)/$${f##*/}; \
	   [ -L $$l ] || ln -s ../../$$f $$l; \
	 done

sparse: links
	@command -v sparse >/dev/null || { echo "missing: apt-get install sparse" >&2; exit 1; }
	@+rm -f $(BUILD)/*.o
	@+$(KMAKE) C=2 modules 2>&1 | tee $(BUILD)/sparse.log
	@! grep -E '(warning|error):' $(BUILD)/sparse.log

# checkpatch.pl is in no headers package: it comes from Debian's linux-source.
checkpatch:
	@p=$$(tests/vm/checkpatch-path) && \
	 perl $$p --no-tree --strict --terse --show-types --no-summary \
	   --ignore FILE_PATH_CHANGES,SPDX_LICENSE_TAG,LINUX_VERSION_CODE \
	   -f $(filter-out dm-repl/trace.h dm-repl/user.h,$(wildcard dm-repl/*.[ch]))

# ---------------------------------------------------------------- tools

tools:
	@if [ -e tools/Makefile ]; then $(MAKE) --no-print-directory -C tools; fi

# ---------------------------------------------------------------- installing

install: all
	$(KMAKE) INSTALL_MOD_DIR=$(INSTALL_MOD_DIR) modules_install
	@if [ -e tools/Makefile ]; then $(MAKE) --no-print-directory -C tools install; fi

uninstall:
	rm -f $(INSTALL_MOD_PATH)/lib/modules/$(RELEASE)/$(INSTALL_MOD_DIR)/dm-repl.ko*
	if [ -z "$(INSTALL_MOD_PATH)" ]; then depmod $(RELEASE); fi
	@if [ -e tools/Makefile ]; then $(MAKE) --no-print-directory -C tools uninstall; fi

clean:
	rm -rf build
	@for d in tools tests/unit tests/vm/suites tests/helpers; do \
	   if [ -e $$d/Makefile ]; then $(MAKE) --no-print-directory -C $$d clean; fi; \
	 done

# ---------------------------------------------------------------- tests

setup:
	tests/vm/setup

check:
	@tests/vm/setup 6.1 >/dev/null
	tests/check

check-debug:
	@tests/vm/setup 6.1 >/dev/null
	tests/check --debug

# Minutes, in pairs of machines: not in check, but in CI.
check-replctl:
	@REPL_PACKAGES=postgresql tests/vm/setup 6.1 >/dev/null
	tests/replctl/run

# Ten changes of roles in a row, and what else may happen, with a database running.
CHANGES ?= 10
seesaw:
	@tests/vm/setup 6.1 >/dev/null
	tests/replctl/run 'seesaw $(CHANGES) $(SEED) changes'

check-unit:
	tests/check --unit

check-vm:
	tests/check --vm

compat:
	tests/vm/compat

dkms-check:
	tests/vm/dkms-check

# Power cuts: minutes of simulation, then POINTS moments in a machine.
POINTS  ?= 10000
SEED    ?= 1
crash:
	@tests/vm/setup 6.1 >/dev/null
	$(MAKE) -s --no-print-directory -C tests/crash
	build/tests/crash/sim-fast --seconds 60 --seed $(SEED)
	tests/vm/run --timeout 14400 -- sh -c 'modprobe dm-repl && \
		build/tests/explore --points $(POINTS) --seed $(SEED)'

crash-short: POINTS = 1000
crash-short: crash

# The checkpoint protocol: all that two daemons can do, with two faults.
explore:
	@$(MAKE) -s --no-print-directory -C tests/unit/tools explore

# The module, broken in one place after the other: crash has to find it.
mutants mutants-sim:
	@tests/vm/setup 6.1 >/dev/null
	tests/crash/mutants $(if $(filter mutants-sim,$@),sim)

shellcheck:
	shellcheck -x $$(grep -lE '^#!/bin/(ba)?sh' $$(git ls-files) 2>/dev/null)

demo:
	@tests/demo/run

bench bench-short:
	@tests/vm/setup 6.1 >/dev/null
	@test -x tests/bench/run || { echo "there is no benchmark yet" >&2; exit 1; }
	tests/bench/run $(if $(filter bench-short,$@),--short)

help:
	@echo 'make               dm-repl.ko for KDIR ($(KDIR)) and the tools'
	@echo 'make install       into /lib/modules; uninstall takes it away'
	@echo 'make clean'
	@echo 'make setup         installs the Debian packages that the tests want (as root)'
	@echo 'make check         unit tests, then every suite on a stock kernel in a VM'
	@echo 'make check-replctl two machines; daemons killed, power and link cut in each phase'
	@echo 'make seesaw        CHANGES (10) failovers, failbacks and switches in a row, with a'
	@echo '                   database running, in two machines; SEED; about 6 minutes'
	@echo 'make check-debug   the suites with KASAN, lockdep, kmemleak, fault injection'
	@echo 'make crash         power lost at POINTS moments (10000) of random workloads, SEED'
	@echo 'make explore       the checkpoint protocol in every order of events'
	@echo 'make mutants       breaks the module in one place after the other: is it found?'
	@echo 'make bench         the speed table; bench-short: a part of it'
	@echo 'make demo          replication and failover, shown'
	@echo 'make compat        builds against the headers of 6.1, 6.12 and 7.3'
	@echo 'make dkms-check    builds with dkms'
	@echo 'make sparse, checkpatch, shellcheck'
	@echo 'tests/vm/run --help: one command in a VM'

# SPDX-License-Identifier: GPL-2.0-or-later
#
# What one types. `make demo' and `make check' also install what they need and
# run in an emulated outer machine (selftests/bed); everything else is built
# with what is there.

# The kernel of the outer machine: 6.1, 6.12 or 7.2; none: this machine itself.
BED	?= 6.1
# Those under which `make check' runs.
KERNELS	?= 6.1
CPUS	?= 2
MEMORY	?= 512M

SETUP	:= selftests/bed/setup
# Where the kernel's headers are: `make modules KDIR=...' for any other kernel.
KDIR	?= $(if $(filter none,$(BED)),/lib/modules/$(shell uname -r)/build,$(shell $(SETUP) headers))
VERSION	:= 0.1

export BED CPUS MEMORY

help:
	@echo 'make demo        boot a Debian guest on fonda, in an emulated machine'
	@echo 'make shell       the same, with a shell in the guest'
	@echo 'make check       all tests that fit half an hour; check-all: the others, too'
	@echo 'make bench       instruction counts beside stock KVM'
	@echo 'make all         build fonda.ko (modules) and the fonda tool (tools)'
	@echo 'make install     both onto this machine; dkms-install: rebuilt with each kernel'
	@echo 'make style       rules of the source; fuzz: until stopped; clean'
	@echo 'BED=none runs demo and shell on this machine, as root.'

all: modules tools

modules:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

tools:
	$(MAKE) -C userspace

# What the tests run: their programs, and what their guest boots from.
programs:
	$(MAKE) -C selftests

guest:
	selftests/e2e/guest/make-guest build/guest

# Other VMMs, what their guests start from, and KVM's own selftests.
clients: guest
	selftests/client/make-client build/client
	selftests/client/kvm-selftests 6.1
	selftests/client/kvm-selftests 6.12

setup:
	@$(SETUP)

# Made again by make itself: setup may just have installed the headers.
build: setup
	@$(MAKE) --no-print-directory all

demo shell: build
	@selftests/e2e/$@

check check-all: setup
	@selftests/check $(if $(filter check-all,$@),--all) $(KERNELS)

bench: build
	$(MAKE) -C selftests/bench

fuzz: build programs
	selftests/fuzz/run

style:
	@selftests/style.sh $(KDIR)

install:
	$(MAKE) -C /lib/modules/$(shell uname -r)/build M=$(CURDIR) modules modules_install
	depmod
	$(MAKE) -C userspace install

dkms-install:
	install -d $(DESTDIR)/usr/src/fonda-$(VERSION)
	cp -R Kbuild kmod include $(DESTDIR)/usr/src/fonda-$(VERSION)
	sed 's/@VERSION@/$(VERSION)/' kmod/dkms.conf >$(DESTDIR)/usr/src/fonda-$(VERSION)/dkms.conf
	$(if $(DESTDIR),,dkms install fonda/$(VERSION))

clean:
	-$(MAKE) -C $(KDIR) M=$(CURDIR) clean
	for d in userspace selftests selftests/unit selftests/bench; do $(MAKE) -C $$d clean; done
	rm -rf build

.PHONY: help all modules tools programs guest clients setup build demo shell check check-all bench \
	fuzz style install dkms-install clean

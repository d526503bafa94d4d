#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the outer machine: what a VM costs from the start of its VMM, on the
# device under test. On stock KVM both QEMU and fonda's own VMM are measured.

cd /guest || exit 1
memory=512
append="console=ttyS0 quiet panic=-1 task=shell"
status=0

own_vmm() {
	[ -x /bin/fonda ] || return 0
	startup "fonda:${FONDA_DEV##*/}" $memory fonda run --device "$FONDA_DEV" --name bench \
		--cpus 1 --memory ${memory}M --kernel vmlinuz --initrd initrd \
		--append "$append" --disk disk.img || status=1
}

if [ "$FONDA_DEV" = /dev/kvm ]; then
	startup qemu:kvm $memory qemu-system-x86_64 -L /share/qemu -L /share/seabios \
		-M pc -accel kvm -cpu host -smp 1 -m ${memory}M -nodefaults -display none \
		-serial stdio -kernel vmlinuz -initrd initrd -append "$append" \
		-drive file=disk.img,if=virtio,format=raw -device virtio-rng-pci || status=1
fi
own_vmm
exit $status

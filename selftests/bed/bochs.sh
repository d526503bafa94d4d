# SPDX-License-Identifier: GPL-2.0-or-later
#
# The outer machine in Bochs 2.7, whose CPU offers VMX. Sourced by bed.
#
# Its time is the number of instructions, and nothing waits for the host's clock:
# an idle machine's seconds are free, and a run on one CPU repeats exactly.

kvm_module=kvm_intel
ips=50000000
# The kernel cannot measure the frequency of such a clock, and finds the sizes of
# compact AVX-512 state wrong. A store of one CPU does not always end the MWAIT of
# another. Mitigations cost much, and this CPU needs none. A guest that begins with
# its interrupts off keeps the host's away for as long (README), which a boot of
# Debian's kernel does until the host's watchdog would bark.
machine_parameters="nosoftlockup tsc=reliable no_timer_check tsc_early_khz=$((ips / 1000))
	clearcpuid=xsaves,xsavec idle=nomwait mitigations=off"
machine_parameters=${machine_parameters//$'\n\t'/ }
default_cpu=corei7_skylake_x
default_memory=1G
# What it exits with after any power off.
ok_status=1

machine_init() {
	local help

	[ -z "$shell" ] || die 2 "--shell: not with Bochs"
	[ ${#qemu_args[@]} = 0 ] || die 2 "--qemu-arg: not with Bochs"
	[ -z "$icount" ] || cpus=1
	memory_mib=$(numfmt --from=iec --to-unit=Mi "$memory") || exit 2
	command -v bochs-bin >/dev/null || "$here/setup" bochs || exit 3
	# It exits with 1 after this, too.
	help=$(bochs-bin --help cpu 2>&1) || :
	emulator_name="Bochs $(sed -n 's/.*Bochs x86 Emulator \([0-9.]*\).*/\1/p' <<<"$help")"
	grep -qx "$cpu" <<<"$help" ||
		die 2 "--cpu $cpu: Bochs does not know it; see bochs-bin --help cpu"
	# A machine under load, and a kernel that takes its time.
	limit_s=$((limit_s * 5))
}

# The ELF kernel that is packed in a bzImage, by its header ("The Linux/x86 Boot
# Protocol", payload_offset); others than gzip are followed by their size.
unpack_kernel() {
	local image=$1 setup_sects offset length

	setup_sects=$(od -An -tu1 -j 0x1f1 -N 1 "$image")
	read -r offset length < <(od -An -tu4 -j 0x248 -N 8 "$image")
	offset=$((offset + (setup_sects + 1) * 512))
	case $(od -An -tx1 -j $offset -N 4 "$image") in
	" 1f 8b"*) set -- gzip $length ;;
	" fd 37 7a 58") set -- xz $((length - 4)) ;;
	" 28 b5 2f fd") set -- zstd $((length - 4)) ;;
	*) die 3 "$image: packed in an unknown way" ;;
	esac
	dd if="$image" bs=1M iflag=skip_bytes,count_bytes skip=$offset count="$2" status=none |
		"$1" -dc
}

# machine_command IMAGE INITRAMFS PARAMETERS CONSOLE VERDICT: sets command. The
# console is written to that file.
machine_command() {
	local error=ignore

	emulator_output=${trace:-/dev/null}
	# Its reports of information can deadlock with a signal handler.
	[ -z "$verbose" ] || error=report
	gcc -O1 -o "$work/mkdisk" "$here/mkdisk.c" &&
		gcc -m32 -nostdlib -static -Wl,-Ttext=0x7c00,-e,start,--oformat=binary,--build-id=none \
			-o "$work/boot" "$here/bochs.S" || die 3 "the boot code does not compile"
	unpack_kernel "$1" >"$work/vmlinux" || die 3 "$1: cannot be unpacked"
	cylinders=$("$work/mkdisk" "$work/disk" "$work/boot" "$work/vmlinux" "$2" "$3") || exit 3
	cat >"$work/bochsrc" <<END
config_interface: textconfig
display_library: term
memory: guest=$memory_mib, host=$memory_mib
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=$cpu, count=$cpus, ips=$ips, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none, time0=1767225600
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path="$work/disk", mode=flat, cylinders=$cylinders, heads=16, spt=63
boot: disk
com1: enabled=1, mode=file, dev="$4"
com2: enabled=1, mode=file, dev="$5"
log: $work/bochs.log
panic: action=fatal
error: action=$error
info: action=ignore
debug: action=ignore
plugin_ctrl: unmapped=1, biosdev=1, serial=1
sound: waveoutdrv=dummy
speaker: enabled=0
END
	# Debian's starts in its debugger, and takes SIGTERM for a wish to debug. It
	# draws its screen on a terminal that nobody reads: with each refresh it hides
	# the cursor, so that after a quarter of an hour it would wait there for ever.
	# A VT100 cannot hide it.
	if [ -z "$trace" ]; then
		printf '%s\n' c q
	else
		echo "magic_break: enabled=1" >>"$work/bochsrc"
		for _ in {1..100}; do
			printf '%s\n' c "trace on" c "trace off"
		done
		# The breaks that follow are not counted.
		printf 'c\n%.0s' {1..10000}
	fi >"$work/debugger"
	command=(env TERM=vt100 script -qec
		"exec setpriv --pdeathsig KILL bochs-bin -q -unlock -f '$work/bochsrc' -rc '$work/debugger'"
		/dev/null)
}

# What Bochs had to say, for those who asked.
machine_done() {
	[ -z "$verbose" ] || sed 's/^/# bochs: /' "$work/bochs.log" >&2
}

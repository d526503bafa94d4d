# SPDX-License-Identifier: GPL-2.0-or-later
#
# The outer machine in QEMU's TCG, whose CPU offers SVM. Sourced by bed.

kvm_module=kvm_amd
machine_parameters="tsc=reliable no_timer_check"
# What TCG cannot do is named, or QEMU warns about each feature and CPU.
default_cpu=EPYC,+svm,+npt,-nrip-save,-xsavec,-topoext,-osvw,-misalignsse,-fxsr-opt
default_memory=2G
ok_status=0

machine_init() {
	[ -z "$trace" ] || die 2 "--trace: only with Bochs"
	case $emulator in
	qemu | qemu7)
		qemu=$cache/qemu/usr/bin/qemu-system-x86_64
		if [ "$emulator" = qemu ] && [ ! -e "$qemu" ]; then
			"$here/setup" qemu || :
		fi
		if [ "$emulator" = qemu ] && [ -x "$qemu" ] && [ ! -e "$cache/qemu/unusable" ]; then
			export QEMU_MODULE_DIR=$cache/qemu/usr/lib/x86_64-linux-gnu/qemu
			qemu_args=(-L "$cache/qemu/usr/share/qemu" -L "$cache/qemu/usr/share/seabios"
				-L /usr/share/seabios "${qemu_args[@]}")
		else
			qemu=$(command -v qemu-system-x86_64) ||
				die 3 "no qemu-system-x86_64; $here/setup installs it"
		fi ;;
	*) qemu=$emulator ;;
	esac
	emulator_name=$("$qemu" --version | sed -n '1s/.*version \([0-9.]*\).*/QEMU \1/p')

	# One thread for all CPUs: with several, QEMU 10.0 can lose an interrupt
	# that comes while VMRUN is emulated, under any hypervisor.
	accel=tcg,thread=$threads
	if [ -n "$icount" ]; then
		cpus=1 accel=tcg,thread=single
		qemu_args+=(-icount shift=0,sleep=off -seed 1 -rtc base=2026-01-01,clock=vm)
		# Its seconds are a thousand million instructions; the host is slower.
		limit_s=$((limit_s * 10))
	fi
}

# machine_command IMAGE INITRAMFS PARAMETERS CONSOLE VERDICT: sets command. The
# console is its standard input and output.
machine_command() {
	local chardev=stdio,id=console,signal=off

	emulator_output=$4
	[ -z "$shell" ] || chardev+=,mux=on,logfile=$log
	command=("$qemu" -nodefaults -no-user-config -no-reboot -display none
		-machine pc -accel "$accel" -cpu "$cpu" -smp "$cpus" -m "$memory"
		-kernel "$1" -initrd "$2" -append "$3"
		-chardev "$chardev" -serial chardev:console
		-chardev "file,id=verdict,path=$5" -serial chardev:verdict
		"${qemu_args[@]}")
	[ -z "$shell" ] || command+=(-echr 0x1d -mon chardev=console,mode=readline)
}

machine_done() {
	:
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Port I/O: every form of IN, OUT, INS and OUTS as the VMM sees it, what of
 * the registers they change, and how an exit is completed.
 */
#define _GNU_SOURCE
#include <string.h>

#include "tvm.h"

GUEST16(guest_out, "mov $0x2a, %al\n" "out %al, $0x80\n" "hlt");

TEST(out_carries_port_size_and_data)
{
	struct tvm t;

	tvm_init(&t, &guest_out);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.direction, KVM_EXIT_IO_OUT);
	EXPECT_EQ(t.run->io.port, 0x80);
	EXPECT_EQ(t.run->io.size, 1);
	EXPECT_EQ(t.run->io.count, 1);
	EXPECT_EQ(tvm_io_data(&t)[0], 0x2a);

	/* The OUT is complete: running on must reach the next instruction. */
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(tvm_regs(&t, 0).rip, GUEST_CODE + 5);
	tvm_fini(&t);
}

GUEST(guest_sync)
{
	GUEST_SYNC(7);
	GUEST_EQ(GUEST_TRY("ud2", , ), 6);
}

TEST(c_guest)
{
	struct tvm t;

	tvm_init(&t, &guest_sync);
	EXPECT_EQ(tvm_go(&t), 7);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How an operation is timed, and what a row of the table is made of. The unit
 * is the tick of the TSC: in the bed with instruction counting that is one
 * executed instruction of the outer machine, so the numbers are exact and
 * repeat from run to run; elsewhere they are reference cycles.
 *
 * A row says how one operation is done, once, and what it cost: inside the
 * guest for what the guest does, in the test program for an ioctl. The harness
 * repeats it and takes the median, which the timer interrupts of the outer
 * machine do not move. `run` puts the rows of two devices beside each other.
 */
#ifndef SELFTESTS_BENCH_H
#define SELFTESTS_BENCH_H

#include <sys/syscall.h>

#include "tvm.h"

#define BENCH_REPEAT	200

/* The target of operations that need no exit: what the guest itself executes. */
#define BENCH_NO_EXIT	50

/*
 * The number of ticks that _op takes, the two readings of the TSC included:
 * what a TIMED("") costs is to be subtracted. RAX, RDX and R15 belong to the
 * macro; the operands are lists as of asm, in GUEST_OPS(). Two NOPs tell
 * `profile` where the operation begins and ends; a third ends the row. To Bochs
 * an exchange of BX with itself says so.
 */
#define BENCH_BREAK	"xchg %%bx, %%bx\n\t"
#define BENCH_BEGIN	BENCH_BREAK ".byte 0x0f, 0x1f, 0x80, 0x01, 0xa0, 0x0d, 0x0f\n\t"
#define BENCH_END	".byte 0x0f, 0x1f, 0x80, 0x02, 0xa0, 0x0d, 0x0f\n\t" BENCH_BREAK
#define BENCH_NEXT	".byte 0x0f, 0x1f, 0x80, 0x03, 0xa0, 0x0d, 0x0f\n\t"

#define TIMED(_op, _inputs, ...)					\
	({								\
		uint64_t timed_ticks;					\
									\
		__asm__ volatile("lfence\n\trdtsc\n\t"			\
				 "shl $32, %%rdx\n\t"			\
				 "lea (%%rax, %%rdx), %%r15\n\t"	\
				 BENCH_BEGIN _op "\n\t" BENCH_END	\
				 "lfence\n\trdtsc\n\t"			\
				 "shl $32, %%rdx\n\t"			\
				 "add %%rdx, %%rax\n\t"			\
				 "sub %%r15, %%rax"			\
				 : "=&a"(timed_ticks) : _inputs		\
				 : "rdx", "r15", "cc", "memory",	\
				   ##__VA_ARGS__);			\
		timed_ticks;						\
	})

/*
 * A system call, without what the C library puts around it. Its result is not
 * looked at: a row makes the same call with a check first.
 */
#define TIMED_SYSCALL(_nr, _a, _b, _c)					\
	({								\
		register long timed_c __asm__("r8") = (long)(_c);	\
									\
		TIMED("mov %%ebx, %%eax\n\tmov %%r8, %%rdx\n\tsyscall",	\
		      GUEST_OPS("b"((int)(_nr)), "D"((long)(_a)),	\
				"S"((long)(_b)), "r"(timed_c)),		\
		      "rcx", "r11");					\
	})
#define TIMED_IOCTL(_fd, _cmd, _arg)	TIMED_SYSCALL(SYS_ioctl, _fd, _cmd, _arg)

struct bench_row {
	const char *label;	/* as in the table */
	uint32_t floor;		/* ticks that nobody can save there */
	uint32_t target;	/* at most this much on /dev/fonda */
	/* What the host would pay without a guest: added to both. */
	uint64_t (*host_part)(void);
	uint32_t repeat;	/* 0: BENCH_REPEAT, which is the most */
	uint32_t per;		/* the operation is for so many: pages, entries */
	/* On the host: before there is a vCPU, and before the guest starts. */
	void (*create)(struct tvm *t);
	void (*setup)(struct tvm *t);
	/* In the guest, once; and each time that the host calls bench_serve(). */
	void (*prepare)(void);
	void (*serve)(void);
	/* The operation, once: one of these. */
	uint64_t (*guest)(void);
	uint64_t (*host)(struct tvm *t);
};

void bench_row_run(const struct bench_row *row, const char *name);
/* For a row of the host: has the guest do what .serve says. */
void bench_serve(struct tvm *t);

/* ROW(name, .label = ..., ...): a row, which is the test bench_<name>. */
#define ROW(_name, ...)							\
	static const struct bench_row row_##_name = { __VA_ARGS__ };	\
	TEST(bench_##_name)						\
	{								\
		bench_row_run(&row_##_name, #_name);			\
	}

#endif /* SELFTESTS_BENCH_H */

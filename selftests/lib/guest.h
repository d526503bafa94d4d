/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What runs inside the guests of the tests: a fixed memory layout, snippets
 * in 16, 32 and 64-bit assembly, and 64-bit guests written in C. The image of
 * the test program itself is copied into guest memory at its own addresses,
 * which map one to one, so a C guest calls the program's functions and owns a
 * private copy of its variables (the host reaches those by G(), tvm.h). The
 * code there must not call the C library. guest.c has the exception vectors.
 */
#ifndef SELFTESTS_GUEST_H
#define SELFTESTS_GUEST_H

#include <stdbool.h>
#include <stdint.h>

/* Guest-physical layout. 0xa0000-0xfffff and all above the RAM is no memory. */
#define GUEST_CODE	0x1000		/* where a snippet starts */
#define GUEST_DATA	0x8000		/* a page for results */
#define GUEST_STACK16	0xa000		/* top of the stack of 16 and 32-bit code */
#define GUEST_GDT	0x10000
#define GUEST_IDT	0x11000
#define GUEST_TSS	0x12000		/* 0x100 bytes a vCPU */
#define GUEST_PML4	0x13000
#define GUEST_PDPT	0x14000
#define GUEST_PD	0x15000		/* four pages: 4 GiB in 2 MiB leaves */
#define GUEST_POOL	0x19000		/* more page tables, by tvm_map() */
#define GUEST_POOL_END	0x50000
#define GUEST_STACKS	0x60000		/* 0x2000 bytes a vCPU */
#define GUEST_IST	0x80000		/* 0x1000 bytes a vCPU */
#define GUEST_LOW_END	0xa0000
#define GUEST_HIGH	0x100000
#define GUEST_RAM_SIZE	0x800000

#define GUEST_MAX_VCPUS	16

/* Segment selectors of 32 and 64-bit guests. */
#define GUEST_CS32	0x08
#define GUEST_DS	0x10
#define GUEST_CS64	0x18
#define GUEST_USER_DS	0x23
#define GUEST_USER_CS	0x2b
#define GUEST_TR	0x30

/* A 32-bit write here hands a struct guest_report to the host. */
#define GUEST_PORT	0x5f0

#ifndef __ASSEMBLER__

struct guest_code {
	int bits;
	const void *start;	/* a snippet ... */
	const void *end;
	void (*fn)(void);	/* ... or a function of the image */
};

/* Numbers may be written as in C; labels are local to the program: use 1:. */
#define GUEST_ASM(_name, _bits, _mode, ...)				\
	__asm__(".pushsection .rodata.guest, \"a\"\n"			\
		_mode "\n" #_name "_start:\n" __VA_ARGS__ "\n"		\
		#_name "_end:\n" ".code64\n" ".popsection\n");		\
	extern const char _name##_start[], _name##_end[];		\
	static const struct guest_code _name = {			\
		.bits = (_bits), .start = _name##_start, .end = _name##_end, \
	}

#define GUEST16(_name, ...)	GUEST_ASM(_name, 16, ".code16", __VA_ARGS__)
#define GUEST32(_name, ...)	GUEST_ASM(_name, 32, ".code32", __VA_ARGS__)
#define GUEST64(_name, ...)	GUEST_ASM(_name, 64, ".code64", __VA_ARGS__)

/* A guest in C: GUEST(name) { ... }. Returning from it is GUEST_DONE(). */
#define GUEST(_name)							\
	static void _name##_fn(void);					\
	static const struct guest_code _name = { .bits = 64, .fn = _name##_fn }; \
	static void _name##_fn(void)

/* As pushed by the vectors of guest.c. */
struct guest_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

#define GUEST_NO_FAULT	0xffff

/* One a vCPU, found through GS. */
struct guest_cpu {
	struct guest_cpu *self;
	uint64_t fixup;			/* where GUEST_TRY() continues */
	uint32_t id;
	volatile uint32_t vector;	/* what GUEST_TRY() met */
	volatile uint64_t error;
	volatile uint64_t fault_rip;
	volatile uint32_t irqs[256];	/* taken by guest_eoi_handler() */
	volatile uint32_t last_irq;
};

enum guest_report_kind {
	GUEST_REPORT_DONE,
	GUEST_REPORT_SYNC,
	GUEST_REPORT_FAILED,
	GUEST_REPORT_FAULT,
};

struct guest_report {
	uint64_t kind;
	const char *what;		/* the check that failed */
	uint64_t line;			/* of it; or the argument of a sync */
	uint64_t left, right;		/* its values */
	const struct guest_frame *frame;
};

extern struct guest_cpu guest_cpus[GUEST_MAX_VCPUS];
extern void (*volatile guest_handlers[256])(struct guest_frame *frame);
extern volatile bool guest_x2apic;
extern const char guest_vectors[];	/* 256 entries of 16 bytes */

void guest_report(const struct guest_report *report);
void guest_exit(void) __attribute__((noreturn));
void guest_fail(const char *what, uint64_t line, uint64_t left, uint64_t right)
	__attribute__((noreturn));

/* Interrupt handlers: count it and acknowledge it, or only count it. */
void guest_eoi_handler(struct guest_frame *frame);
void guest_count_handler(struct guest_frame *frame);

#define GUEST_DONE()	guest_exit()
#define GUEST_SYNC(_n)							\
	guest_report(&(const struct guest_report){			\
		.kind = GUEST_REPORT_SYNC, .line = (_n) })
#define GUEST_TRUE(_c)							\
	do {								\
		if (!(_c))						\
			guest_fail(#_c, __LINE__, 0, 0);		\
	} while (0)
#define GUEST_EQ(_a, _b)						\
	do {								\
		uint64_t guest_a = (uint64_t)(_a);			\
		uint64_t guest_b = (uint64_t)(_b);			\
									\
		if (guest_a != guest_b)					\
			guest_fail(#_a " == " #_b, __LINE__, guest_a, guest_b); \
	} while (0)

/*
 * Runs one instruction that may fault and yields the vector it met, or
 * GUEST_NO_FAULT. The outputs and inputs are operand lists as of asm, in
 * GUEST_OPS(); RAX and R11 belong to the macro unless they are operands.
 */
#define GUEST_OPS(...)	__VA_ARGS__
#define GUEST_TRY(_insn, _outputs, _inputs)				\
	({								\
		guest_cpu()->vector = GUEST_NO_FAULT;			\
		__asm__ volatile("lea 771f(%%rip), %%r11\n\t"		\
				 "mov %%r11, %%gs:8\n\t"		\
				 _insn "\n"				\
				 "771:\tmovq $0, %%gs:8"		\
				 : _outputs : _inputs			\
				 : "r11", "memory", "cc");		\
		guest_cpu()->vector;					\
	})

static inline struct guest_cpu *guest_cpu(void)
{
	struct guest_cpu *cpu;

	__asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
	return cpu;
}

#define GUEST_OUT(_suffix, _type, _reg)					\
	static inline void out##_suffix(uint16_t port, _type val)	\
	{								\
		__asm__ volatile("out" #_suffix " %" _reg "0, %1"	\
				 : : "a"(val), "Nd"(port) : "memory");	\
	}								\
	static inline _type in##_suffix(uint16_t port)			\
	{								\
		_type val;						\
									\
		__asm__ volatile("in" #_suffix " %1, %" _reg "0"	\
				 : "=a"(val) : "Nd"(port) : "memory");	\
		return val;						\
	}

GUEST_OUT(b, uint8_t, "b")
GUEST_OUT(w, uint16_t, "w")
GUEST_OUT(l, uint32_t, "k")

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return lo | (uint64_t)hi << 32;
}

static inline void wrmsr(uint32_t msr, uint64_t val)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)val),
			 "d"((uint32_t)(val >> 32)) : "memory");
}

/* The vector that the access met, or GUEST_NO_FAULT. */
static inline uint32_t wrmsr_safe(uint32_t msr, uint64_t val)
{
	return GUEST_TRY("wrmsr", GUEST_OPS(), GUEST_OPS("c"(msr),
			 "a"((uint32_t)val), "d"((uint32_t)(val >> 32))));
}

static inline uint32_t rdmsr_safe(uint32_t msr, uint64_t *val)
{
	uint32_t lo = 0, hi = 0, vector;

	vector = GUEST_TRY("rdmsr", GUEST_OPS("+a"(lo), "+d"(hi)),
			   GUEST_OPS("c"(msr)));
	*val = lo | (uint64_t)hi << 32;
	return vector;
}

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return lo | (uint64_t)hi << 32;
}

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_regs cpuid(uint32_t leaf, uint32_t index)
{
	struct cpuid_regs r;

	__asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx),
			 "=d"(r.edx) : "a"(leaf), "c"(index) : "memory");
	return r;
}

static inline bool cpu_is_amd(void)
{
	return cpuid(0, 0).ebx == 0x68747541;	/* "Auth" */
}

/* By the instruction that this processor has for it. */
static inline uint64_t hypercall(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t ret;

	if (cpu_is_amd())
		__asm__ volatile("vmmcall" : "=a"(ret)
				 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	else
		__asm__ volatile("vmcall" : "=a"(ret)
				 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

#define GUEST_REG(_name)						\
	static inline uint64_t read_##_name(void)			\
	{								\
		uint64_t val;						\
									\
		__asm__ volatile("mov %%" #_name ", %0" : "=r"(val) : : "memory"); \
		return val;						\
	}								\
	static inline void write_##_name(uint64_t val)			\
	{								\
		__asm__ volatile("mov %0, %%" #_name : : "r"(val) : "memory"); \
	}

GUEST_REG(cr0)
GUEST_REG(cr2)
GUEST_REG(cr3)
GUEST_REG(cr4)
GUEST_REG(cr8)
GUEST_REG(dr0)
GUEST_REG(dr6)
GUEST_REG(dr7)

static inline void cli(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/* Interrupts are taken no later than the NOP: STI delays them by one. */
static inline void sti(void)
{
	__asm__ volatile("sti\n\tnop" : : : "memory");
}

static inline void sti_hlt(void)
{
	__asm__ volatile("sti\n\thlt" : : : "memory");
}

static inline void hlt(void)
{
	__asm__ volatile("hlt" : : : "memory");
}

static inline void cpu_relax(void)
{
	__asm__ volatile("pause" : : : "memory");
}

/* Local APIC registers by their offset in the memory-mapped page. */
#define APIC_BASE	0xfee00000ul
#define APIC_ID		0x20
#define APIC_VERSION	0x30
#define APIC_TPR	0x80
#define APIC_PPR	0xa0
#define APIC_EOI	0xb0
#define APIC_LDR	0xd0
#define APIC_DFR	0xe0
#define APIC_SVR	0xf0
#define APIC_ISR	0x100
#define APIC_TMR	0x180
#define APIC_IRR	0x200
#define APIC_ESR	0x280
#define APIC_ICR	0x300
#define APIC_ICR_HI	0x310
#define APIC_LVTT	0x320
#define APIC_LVT0	0x350
#define APIC_LVT1	0x360
#define APIC_LVTERR	0x370
#define APIC_TMICT	0x380
#define APIC_TMCCT	0x390
#define APIC_TDCR	0x3e0
#define APIC_SELF_IPI	0x3f0

#define APIC_LVT_MASKED		0x10000
#define APIC_LVT_PERIODIC	0x20000
#define APIC_LVT_DEADLINE	0x40000
#define APIC_DM_LOWEST		0x100
#define APIC_DM_NMI		0x400
#define APIC_DM_INIT		0x500
#define APIC_DM_SIPI		0x600
#define APIC_LOGICAL		0x800
#define APIC_ASSERT		0x4000
#define APIC_LEVEL		0x8000
#define APIC_DEST_SELF		0x40000
#define APIC_DEST_ALL		0x80000
#define APIC_DEST_OTHERS	0xc0000

#define MSR_TSC			0x10
#define MSR_APIC_BASE		0x1b
#define MSR_TSC_ADJUST		0x3b
#define MSR_TSC_DEADLINE	0x6e0
#define MSR_X2APIC		0x800
#define MSR_EFER		0xc0000080
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_FS_BASE		0xc0000100
#define MSR_GS_BASE		0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102
#define MSR_TSC_AUX		0xc0000103

static inline volatile uint32_t *mmio32(uint64_t addr)
{
	return (volatile uint32_t *)addr;
}

static inline uint32_t apic_read(uint32_t reg)
{
	return guest_x2apic ? (uint32_t)rdmsr(MSR_X2APIC + (reg >> 4)) :
			      *mmio32(APIC_BASE + reg);
}

static inline void apic_write(uint32_t reg, uint32_t val)
{
	if (guest_x2apic)
		wrmsr(MSR_X2APIC + (reg >> 4), val);
	else
		*mmio32(APIC_BASE + reg) = val;
}

/* In xAPIC mode dest is an APIC ID or logical mask of eight bits. */
static inline void apic_icr(uint32_t dest, uint32_t low)
{
	if (guest_x2apic) {
		wrmsr(MSR_X2APIC + (APIC_ICR >> 4), low | (uint64_t)dest << 32);
	} else {
		*mmio32(APIC_BASE + APIC_ICR_HI) = dest << 24;
		*mmio32(APIC_BASE + APIC_ICR) = low;
	}
}

/* Software-enables the local APIC, in x2APIC mode if guest_x2apic says so. */
static inline void apic_enable(void)
{
	/*
	 * Map what the delivery of interrupts touches. Where Bochs virtualizes the APIC
	 * it takes them by itself, and reports one that meets an EPT violation as the
	 * event before it, of whatever kind.
	 */
	(void)*mmio32(GUEST_GDT);
	(void)*mmio32(GUEST_IDT);
	__asm__ volatile("orb $0, -256(%%rsp)" : : : "memory", "cc");
	if (guest_x2apic)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	apic_write(APIC_SVR, 0x1ff);
}

#define IOAPIC_BASE	0xfec00000ul

static inline uint32_t ioapic_read(uint8_t reg)
{
	*mmio32(IOAPIC_BASE) = reg;
	return *mmio32(IOAPIC_BASE + 0x10);
}

static inline void ioapic_write(uint8_t reg, uint32_t val)
{
	*mmio32(IOAPIC_BASE) = reg;
	*mmio32(IOAPIC_BASE + 0x10) = val;
}

static inline void ioapic_rte(uint8_t pin, uint64_t rte)
{
	ioapic_write((uint8_t)(0x11 + 2 * pin), (uint32_t)(rte >> 32));
	ioapic_write((uint8_t)(0x10 + 2 * pin), (uint32_t)rte);
}

#endif /* __ASSEMBLER__ */
#endif /* SELFTESTS_GUEST_H */

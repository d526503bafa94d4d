/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Decoding and executing guest instructions: those that touch MMIO, the string
 * port instructions, and (length and operands only) those that exit without a
 * length. Pure: what the engine needs of the machine is in struct emulate_ctxt and
 * behind a few functions. mmio.c puts it to work for a vCPU.
 */
#ifndef FONDA_EMULATE_H
#define FONDA_EMULATE_H

#include "types.h"

/* The longest instruction, in bytes. */
#define FONDA_INSN_MAX	15

/* Instructions that cause intercepts of their own: their bytes, the first one lowest. */
enum fonda_exit_op {
	FONDA_OP_CPUID = 0xa20f, FONDA_OP_RDMSR = 0x320f, FONDA_OP_WRMSR = 0x300f,
	FONDA_OP_HLT = 0xf4, FONDA_OP_PAUSE = 0x90f3, FONDA_OP_INVD = 0x080f,
	FONDA_OP_WBINVD = 0x090f,	/* and WBNOINVD, with f3 */
	FONDA_OP_VMMCALL = 0xd9010f, FONDA_OP_XSETBV = 0xd1010f, FONDA_OP_MONITOR = 0xc8010f,
	FONDA_OP_MWAIT = 0xc9010f,
	FONDA_OP_MOV_FROM_DR = 0x210f, FONDA_OP_MOV_TO_DR = 0x230f,
	FONDA_OP_MOV_TO_CR = 0x220f, FONDA_OP_LMSW = 0x30010f,	/* with ModRM for operands */
};

struct fonda_exit_insn {
	u8 len;			/* bytes */
	u8 rm;			/* ModRM.rm with REX.B: the general register */
};

/*
 * Are the @nr bytes at @code, with any prefixes, instruction @op in a code
 * segment of @bits (16, 32, 64)? (AMD64 APM volume 3, "Instruction Formats".)
 */
bool fonda_decode_exit(struct fonda_exit_insn *i, const u8 *code, int nr, int bits,
		       enum fonda_exit_op op);

/* Base and index of an effective address beside the general registers. */
#define FONDA_REG_NONE		16
#define FONDA_REG_RIP_REL	17

/* An instruction with a memory operand, decoded. */
struct fonda_insn {
	u32 flags;		/* EMUL_*, with the operation: see emulate.c */
	u16 opcode;		/* the first byte lowest */
	u8 len;			/* bytes */
	u8 op_bytes;		/* size of the register operand */
	u8 mem_bytes;		/* size of the memory operand */
	u8 ad_bytes;		/* address size */
	u8 seg;			/* enum fonda_seg of the (source) memory operand */
	u8 rep;			/* 0xf2, 0xf3 or 0 */
	u8 rex;
	bool opsize, lock;	/* prefixes */
	u8 reg;			/* the register operand: its place among them, in bytes */
	u8 base, index;		/* 0-15 or FONDA_REG_* */
	u8 scale;		/* shift of the index */
	s64 disp;
	u64 imm;		/* extended to 64 bits */
};

/* Parts of fonda_insn.flags that callers may ask for. */
#define EMUL_OP_MASK	0x1f
#define EMUL_READ	(1u << 5)	/* reads its memory operand */
#define EMUL_WRITE	(1u << 6)	/* writes it */
#define EMUL_STRING	(1u << 7)	/* MOVS STOS LODS CMPS SCAS INS OUTS */
#define EMUL_PORT	(1u << 8)	/* INS OUTS */
#define EMUL_MOV	(1u << 9)	/* MOV or MOVZX, which only reads or only writes it */

enum emulate_result {
	EMULATE_OK,		/* within the engine: go on */
	EMULATE_DONE,		/* finished: RIP moves by insn.len */
	EMULATE_AGAIN,		/* one repetition is done, more are due */
	EMULATE_FAULT,		/* the guest takes it; registers as before */
	EMULATE_NEED_USER,	/* an access waits for user space */
	EMULATE_RETRY,		/* let the guest execute it again */
	EMULATE_UNSUPPORTED,	/* not an instruction that is emulated */
};

/*
 * Decode the @nr bytes at @code for a code segment of @bits (16, 32, 64).
 * EMULATE_OK; EMULATE_FAULT: it raises #UD; EMULATE_RETRY: it does not end
 * within @nr bytes; EMULATE_UNSUPPORTED, also when no operand is in memory.
 */
enum emulate_result fonda_decode(struct fonda_insn *insn, const u8 *code, int nr, int bits);

/* An operand: one piece in each page of memory that it touches. */
struct emulate_operand {
	gpa_t gpa[2];
	u16 len[2];		/* bytes; the second is 0 within one page */
};

enum emulate_mode { EMULATE_REAL, EMULATE_V86, EMULATE_PROTECTED, EMULATE_LONG };

struct emulate_ctxt {
	unsigned long *gpr;	/* 16, in the hardware's order */
	unsigned long rip;	/* of the instruction */
	unsigned long rflags;	/* in and out */
	u8 mode;		/* enum emulate_mode; LONG is 64-bit code */
	u8 va_bits;		/* of a canonical address: 48 or 57 */
	bool check_alignment;	/* CPL 3 with CR0.AM and RFLAGS.AC */
	u8 *pio_data;		/* a page */
	struct fonda_insn insn;

	/*
	 * Progress of the current repetition: fonda_emulate() is called again
	 * after EMULATE_NEED_USER, or when an access failed by an errno, walks the
	 * same way, and passes over the accesses that are done.
	 */
	u8 done;		/* accesses finished */
	u8 pos;			/* accesses met in this call */
	u32 count;		/* elements of a string port instruction */
	/* Source and destination of a string or vector move, both of CMPS; else one. */
	struct emulate_operand op[2];
	u64 data[2];		/* what was read */
};

/*
 * Where operands are that are not in memory: ports, and the XMM registers one after
 * the other.
 */
#define EMULATE_PORTS	(1ULL << 62)
#define EMULATE_XMM	(1ULL << 63)

/*
 * The machine; mmio.c (and a unit test) defines it. Accesses are physical and
 * do not cross a page; the engine has checked segments, and translated every
 * operand before the first access, so that an instruction which faults has had
 * no effect. What returns int answers EMULATE_OK or what fonda_emulate() is to
 * return, which may be a negative errno.
 */
/* The cache of a segment register. */
void fonda_emulate_segment(struct emulate_ctxt *c, enum fonda_seg seg, struct fonda_segment *s);
/* #SS, #GP or #AC, with an error code of 0 but in real mode. EMULATE_FAULT. */
int fonda_emulate_fault(struct emulate_ctxt *c, u8 vector);
/* FONDA_ACCESS_*, CPL excepted. EMULATE_FAULT: it is a #PF. */
int fonda_emulate_translate(struct emulate_ctxt *c, gva_t gva, u32 access, gpa_t *gpa);
/* Would read, or write, find memory and nothing else? */
bool fonda_emulate_is_ram(struct emulate_ctxt *c, gpa_t gpa, bool write);
/*
 * More than 8 bytes only where is_ram said so. With a port it is c->count elements,
 * which are in c->pio_data: it may do less and lower c->count, but not to 0.
 */
int fonda_emulate_access(struct emulate_ctxt *c, gpa_t gpa, void *data, int len, bool write);

/* Begin with c->insn; the fields up to it are the caller's to fill. */
static inline void fonda_emulate_begin(struct emulate_ctxt *c)
{
	c->done = 0;
}

/*
 * Execute c->insn, or one repetition of it. Registers and flags change only
 * with EMULATE_DONE and EMULATE_AGAIN; after the latter call again, or let the
 * guest execute the instruction anew. Never EMULATE_OK.
 */
int fonda_emulate(struct emulate_ctxt *c);

/*
 * For a caller who executes c->insn himself, which he can if it has EMUL_MOV:
 * the offset of the memory operand in its segment, and the other operand (a
 * register or an immediate). c->gpr and c->rip is all they need.
 */
u64 fonda_emulate_address(const struct emulate_ctxt *c);
u64 fonda_emulate_operand(const struct emulate_ctxt *c);
/* Load @val into @bytes of a register, @reg bytes from the first, as an instruction does. */
void fonda_load_gpr(unsigned long *gpr, int reg, int bytes, u64 val);

/*
 * Where the code of a guest's page is in the VMM's memory, and the entries of
 * the guest's tables that say so, root first: while they are the same in the
 * same places, so is the answer. See fetch.c.
 */
struct fonda_code_page {
	u64 generation;		/* of the slots; never 0 in one that holds */
	u64 root;		/* CR3 and the mode */
	gva_t page;
	hva_t code;
	u64 pad;		/* 128 bytes in all: quicker to find */
	struct fonda_code_level {
		hva_t where;
		u64 entry;
	} *end, level[5];
};

#define FONDA_CODE_PAGES	8

/*
 * The instruction that a vCPU is emulating, across the exits to user space. All (m);
 * mmio.c's own.
 */
struct fonda_io {
	/*
	 * What KVM_RUN has to finish, if anything: ctxt, or a RDMSR or WRMSR, whose
	 * length stays in vcpu->insn_len, or
	 */
	enum { FONDA_IO_NONE, FONDA_IO_SIMPLE, FONDA_IO_MSR, FONDA_IO_ENGINE } pending;
	/* a MOV, IN or OUT, which loads a register at most: */
	u8 reg;
	u8 reg_bytes;		/* 0: none, also of a WRMSR */
	u8 insn_len;
	u8 answer_len;		/* bytes; 0: it was a write */
	u16 port;
	u64 port_data;		/* what an OUT writes, or an IN has read in the kernel */
	void *source, *answer;	/* where the answer is, and where ctxt wants it */
	unsigned long rip;	/* of the instruction */
	gpa_t gpa;		/* the access that exited, and how (FONDA_ACCESS_*) */
	u32 access;
	u8 code_bits;		/* 16, 32, 64: what ctxt.insn was decoded from; 0: nothing */
	/* As KVM_EXIT_INTERNAL_ERROR shows it. */
	struct fonda_code {
		u8 len;		/* 0: could not be read */
		u8 bytes[FONDA_INSN_MAX];
	} code;
	struct emulate_ctxt ctxt;
};

#endif

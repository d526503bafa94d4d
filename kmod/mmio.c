// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulating an instruction for a vCPU: fetches it, gives the engine of
 * emulate.c the guest's memory, page tables and devices, and carries an
 * instruction across exits to user space. A MOV, IN or OUT needs no engine and is
 * done at once, with preemption off; the rest is left for when the handler is
 * called again where it may sleep.
 */
#include "backend.h"

/* Repetitions in a row before the guest gets its chance for interrupts. */
#define MAX_REPETITIONS	128

static struct fonda_vcpu *vcpu_of(struct emulate_ctxt *c)
{
	return container_of(c, struct fonda_vcpu, io.ctxt);
}

/* -- the machine that the engine sees --------------------------------------- */

void fonda_emulate_segment(struct emulate_ctxt *c, enum fonda_seg seg, struct fonda_segment *s)
{
	fonda_backend->get_segment(vcpu_of(c), seg, s);
}

int fonda_emulate_fault(struct emulate_ctxt *c, u8 vector)
{
	fonda_queue(vcpu_of(c), &(struct fonda_exception){
		.vector = vector, .has_error = c->mode != EMULATE_REAL });
	return EMULATE_FAULT;
}

int fonda_emulate_translate(struct emulate_ctxt *c, gva_t gva, u32 access, gpa_t *gpa)
{
	struct fonda_vcpu *vcpu = vcpu_of(c);
	const struct fonda_io *io = &vcpu->io;
	struct fonda_paging p;
	struct fonda_walk w;
	gva_t rip;
	int ret;

	/*
	 * The processor has translated this address for the same access before
	 * it exited. Strings have two operands, which may look alike.
	 */
	if (!(c->insn.flags & EMUL_STRING) && io->gpa != FONDA_INVALID_GPA &&
	    !((gva ^ io->gpa) & ~PAGE_MASK) && !(access & ~io->access)) {
		*gpa = io->gpa;
		return EMULATE_OK;
	}

	fonda_backend->get_code(vcpu, &p, &rip);
	if (fonda_backend->read_reg(vcpu, FONDA_REG_CPL) == 3)
		access |= FONDA_ACCESS_USER;
	ret = fonda_walk_guest(vcpu, &p, gva, access, &w);
	*gpa = w.gpa;
	if (ret == FONDA_WALK_FAULT) {
		fonda_queue(vcpu, &(struct fonda_exception){
			.vector = X86_TRAP_PF, .has_error = true, .error = w.error,
			.has_payload = true, .payload = gva });
		return EMULATE_FAULT;
	}
	/* The guest's tables are where there is no memory. */
	return ret == -EFAULT ? EMULATE_UNSUPPORTED : ret;
}

bool fonda_emulate_is_ram(struct emulate_ctxt *c, gpa_t gpa, bool write)
{
	const struct fonda_memslot *slot = fonda_vcpu_slot(vcpu_of(c), gpa >> PAGE_SHIFT);

	return slot && !(write && (slot->flags & KVM_MEM_READONLY));
}

/* The exit is filled in: @answer is where the @len bytes at @source go, if any. */
static int ask(struct fonda_vcpu *vcpu, void *source, void *answer, int len)
{
	vcpu->io.pending = FONDA_IO_SIMPLE;
	vcpu->io.source = source;
	vcpu->io.answer = answer;
	vcpu->io.answer_len = len;
	return EMULATE_NEED_USER;
}

static int ask_port(struct fonda_vcpu *vcpu, bool in, u16 port, int size, u32 count)
{
	vcpu->run->exit_reason = KVM_EXIT_IO;
	vcpu->run->io = (typeof(vcpu->run->io)){
		.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT, .size = size, .port = port,
		.count = count, .data_offset = FONDA_PIO_PAGE * PAGE_SIZE };
	return ask(vcpu, vcpu->pio_data, NULL, size);
}

/*
 * The c->count elements in the page for them, or as many as the kernel serves; if that
 * is none, user space is asked, whose page it is to scribble on.
 */
static int access_port(struct fonda_vcpu *vcpu, bool in, u16 port)
{
	struct emulate_ctxt *c = &vcpu->io.ctxt;
	u8 *data = vcpu->pio_data;
	int size = c->insn.op_bytes;
	u32 val = 0, i;

	for (i = 0; i < c->count; i++, data += size) {
		memcpy(&val, data, size);
		if (fonda_io_access(vcpu, fonda_bus(vcpu, FONDA_BUS_PIO), port, size, &val, !in))
			break;
		if (in)
			memcpy(data, &val, size);
	}
	if (!i)
		return ask_port(vcpu, in, port, size, c->count);
	c->count = i;
	return EMULATE_OK;
}

/*
 * The page of a local APIC that is off or in x2APIC mode is a hole, unless user space
 * has asked for it: it might take what is written there for a message.
 */
static __always_inline bool access_lapic(struct fonda_vcpu *vcpu, u32 offset, void *data, int len,
					 bool write)
{
	if (likely(lapic_has_page(&vcpu->lapic)))
		lapic_access(&vcpu->lapic, offset, len, data, write);
	else if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_LAPIC_MMIO_HOLE)
		return false;
	else if (!write)
		memset(data, 0xff, len);
	return true;
}

/* Asks user space for what no device in the kernel does; the data is not there yet. */
static __always_inline int access_device(struct fonda_vcpu *vcpu, gpa_t gpa, void *data, int len,
					 bool write)
{
	struct kvm_run *run = vcpu->run;

	if ((gpa & PAGE_MASK) == lapic_gpa(&vcpu->lapic) && vcpu->in_kernel_apic &&
	    access_lapic(vcpu, gpa & ~PAGE_MASK, data, len, write))
		return EMULATE_OK;
	if (!fonda_io_access(vcpu, fonda_bus(vcpu, FONDA_BUS_MMIO), gpa, len, data, write))
		return EMULATE_OK;
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = gpa;
	run->mmio.len = len;
	run->mmio.is_write = write;
	return ask(vcpu, run->mmio.data, write ? NULL : data, len);
}

/*
 * The access that exited is known to go past memory, so that the slots need not
 * be searched again. (Of a read-modify-write instruction on read-only memory only
 * the write exited.)
 */
int fonda_emulate_access(struct emulate_ctxt *c, gpa_t gpa, void *data, int len, bool write)
{
	struct fonda_vcpu *vcpu = vcpu_of(c);
	int r;

	if (gpa & EMULATE_PORTS)
		return access_port(vcpu, !write, gpa);
	if (gpa & EMULATE_XMM) {
		fonda_fpu_access_xmm(vcpu, gpa & ~EMULATE_XMM, data, len, write);
		return EMULATE_OK;
	}
	if ((gpa != vcpu->io.gpa || write != (vcpu->io.access == FONDA_ACCESS_WRITE)) &&
	    fonda_emulate_is_ram(c, gpa, write))
		return write ? fonda_write_guest(vcpu, gpa, data, len) :
			       fonda_read_guest(vcpu, gpa, data, len);
	/* The slot was deleted while user space had the instruction. */
	if (len > 8)
		return EMULATE_RETRY;
	r = access_device(vcpu, gpa, data, len, write);
	if (r == EMULATE_NEED_USER && write)
		memcpy(vcpu->run->mmio.data, data, len);
	return r;
}

/* -- one instruction -------------------------------------------------------- */

/*
 * KVM_EXIT_INTERNAL_ERROR with the bytes of the instruction, so that it is
 * found and added. A program of the guest must not end its machine, unless user
 * space wants to know of that, too (KVM_CAP_EXIT_ON_EMULATION_FAILURE): it gets
 * an #UD, as the kernel does if user space goes on.
 */
static int fail(struct fonda_vcpu *vcpu)
{
	const struct fonda_code *code = &vcpu->io.code;
	u64 data[3] = { code->len ? KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES : 0 };

	if (!vcpu->vm->exit_on_emulation_failure) {
		fonda_queue_exception(vcpu, X86_TRAP_UD);
		if (fonda_backend->read_reg(vcpu, FONDA_REG_CPL))
			return FONDA_RESUME_GUEST;
	}
	memcpy(&data[1], code, sizeof(*code));
	return fonda_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_EMULATION, data,
					 code->len ? 3 : 1);
}

/* Leave an instruction that is not done, or not within the engine. */
static int leave(struct fonda_vcpu *vcpu, int r)
{
	if (r == EMULATE_NEED_USER)
		return FONDA_EXIT_USER;
	/* -EAGAIN: another processor keeps changing the tables. */
	if (r == EMULATE_RETRY || r == EMULATE_FAULT || r == -EAGAIN)
		return FONDA_RESUME_GUEST;
	if (r == -EINTR)
		vcpu->run->exit_reason = KVM_EXIT_INTR;
	return r < 0 ? r : fail(vcpu);
}

/* Between two repetitions: is there a reason to go back to the guest? */
static bool must_yield(struct fonda_vcpu *vcpu, int repetitions)
{
	return repetitions >= MAX_REPETITIONS || (vcpu->rflags & X86_EFLAGS_TF) ||
	       READ_ONCE(vcpu->irq_pending) || READ_ONCE(vcpu->event_pending) ||
	       READ_ONCE(vcpu->requests) || need_resched() || signal_pending(current) ||
	       READ_ONCE(vcpu->run->immediate_exit__unsafe);
}

/* The end of a MOV, IN or OUT that is not the engine's. */
static __always_inline int finish(struct fonda_vcpu *vcpu, const void *data)
{
	const struct fonda_io *io = &vcpu->io;

	if (io->reg_bytes)
		fonda_load_gpr(vcpu->regs, io->reg, io->reg_bytes,
			       *(const u64 *)data & (~0ULL >> (64 - 8 * io->answer_len)));
	return fonda_skip_insn(vcpu, io->insn_len);
}

static int execute(struct fonda_vcpu *vcpu)
{
	struct fonda_io *io = &vcpu->io;
	struct emulate_ctxt *c = &io->ctxt;
	int n = 0, r;

	io->answer = NULL;
	c->rflags = vcpu->rflags;
	do {
		r = fonda_emulate(c);
	} while (r == EMULATE_AGAIN && !must_yield(vcpu, ++n));

	if (r == EMULATE_NEED_USER || r == -EINTR)
		io->pending = FONDA_IO_ENGINE;
	if (r == EMULATE_DONE || r == EMULATE_AGAIN)
		vcpu->rflags = c->rflags;
	if (r == EMULATE_DONE)
		return fonda_skip_insn(vcpu, c->insn.len);
	/* Each repetition is a step of its own. */
	if (r == EMULATE_AGAIN)
		return vcpu->rflags & X86_EFLAGS_TF ? fonda_skip_insn(vcpu, 0) :
						      FONDA_RESUME_GUEST;
	return leave(vcpu, r);
}

/* Fetch and decode into io->ctxt.insn: EMULATE_OK, or the result to end with. */
static __always_inline int decode(struct fonda_vcpu *vcpu, const struct fonda_paging *p,
				  gva_t rip, int bits)
{
	struct fonda_io *io = &vcpu->io;
	struct fonda_code code = { };
	int nr, r;

	nr = fonda_fetch_code(vcpu, p, rip, code.bytes);
	code.len = max(nr, 0);
	/* The same bytes mean the same. */
	if (likely(bits == io->code_bits && !memcmp(&code, &io->code, sizeof(code))))
		return EMULATE_OK;
	io->code = code;
	r = nr > 0 ? fonda_decode(&io->ctxt.insn, code.bytes, nr, bits) :
	    nr == -ENOENT ? EMULATE_RETRY : nr == -EFAULT ? EMULATE_UNSUPPORTED : nr;
	/* Remembered only if it is to be executed. */
	io->code_bits = r == EMULATE_OK ? bits : 0;
	return r;
}

/*
 * Most of MMIO: a MOV whose operand is all where the processor has found it. At
 * the beginning of a page that may be the second half of one across pages; with
 * AC it may have to be aligned.
 */
static __always_inline bool is_plain_mov(const struct fonda_vcpu *vcpu, int bits)
{
	const struct fonda_io *io = &vcpu->io;
	const struct fonda_insn *insn = &io->ctxt.insn;
	u32 access = insn->flags & EMUL_WRITE ? FONDA_ACCESS_WRITE : FONDA_ACCESS_READ;
	u32 offset = offset_in_page(io->gpa);

	if (!(insn->flags & EMUL_MOV) || access != io->access ||
	    offset + insn->mem_bytes > PAGE_SIZE || io->gpa == FONDA_INVALID_GPA ||
	    vcpu->rflags & X86_EFLAGS_AC)
		return false;
	return offset || (bits == 64 && insn->seg < FONDA_SEG_FS &&
			  !offset_in_page(fonda_emulate_address(&io->ctxt)));
}

static __always_inline int move(struct fonda_vcpu *vcpu)
{
	struct fonda_io *io = &vcpu->io;
	const struct fonda_insn *insn = &io->ctxt.insn;
	bool write = insn->flags & EMUL_WRITE;
	u64 val = write ? fonda_emulate_operand(&io->ctxt) : 0;

	io->reg = insn->reg;
	io->reg_bytes = write ? 0 : insn->op_bytes;
	io->insn_len = insn->len;
	io->answer_len = insn->mem_bytes;
	if (access_device(vcpu, io->gpa, &val, insn->mem_bytes, write)) {
		memcpy(vcpu->run->mmio.data, &val, sizeof(val));
		return FONDA_EXIT_USER;
	}
	return finish(vcpu, &val);
}

/*
 * What is not a plain MOV, once it has been decoded with result @r. @size: of what the
 * processor has allowed to move to or from a port.
 */
static noinline int emulate(struct fonda_vcpu *vcpu, int r, const struct fonda_paging *p, int bits,
			    int size)
{
	struct emulate_ctxt *c = &vcpu->io.ctxt;

	if (vcpu->atomic)
		return FONDA_RETRY_SLEEPING;
	/* Code where there is no memory, if only its second half. */
	if (vcpu->io.access & FONDA_ACCESS_FETCH && r != -EINTR)
		return fail(vcpu);
	if (r == EMULATE_FAULT)
		fonda_queue_exception(vcpu, X86_TRAP_UD);
	if (r != EMULATE_OK)
		return leave(vcpu, r);
	/* Another processor has changed the code. */
	if (c->insn.flags & EMUL_PORT && c->insn.op_bytes != size)
		return FONDA_RESUME_GUEST;

	c->mode = bits == 64 ? EMULATE_LONG : !(p->cr0 & X86_CR0_PE) ? EMULATE_REAL :
		  vcpu->rflags & X86_EFLAGS_VM ? EMULATE_V86 : EMULATE_PROTECTED;
	c->va_bits = p->cr4 & X86_CR4_LA57 ? 57 : 48;
	c->check_alignment = vcpu->rflags & X86_EFLAGS_AC && p->cr0 & X86_CR0_AM &&
			     fonda_backend->read_reg(vcpu, FONDA_REG_CPL) == 3;
	c->pio_data = vcpu->pio_data;
	fonda_emulate_begin(c);
	return execute(vcpu);
}

int fonda_emulate_insn(struct fonda_vcpu *vcpu, gpa_t gpa, u32 access, int port_size)
{
	struct fonda_paging p fonda_uninitialized;
	gva_t rip fonda_uninitialized;
	struct fonda_io *io = &vcpu->io;
	int bits, r;

	io->gpa = gpa;
	io->access = access;
	io->rip = vcpu->rip;
	io->ctxt.gpr = vcpu->regs;
	io->ctxt.rip = vcpu->rip;
	bits = fonda_backend->get_code(vcpu, &p, &rip);
	r = decode(vcpu, &p, rip, bits);
	if (likely(r == EMULATE_OK && is_plain_mov(vcpu, bits)))
		return move(vcpu);
	return emulate(vcpu, r, &p, bits, port_size);
}

/* What is needed after the access is kept where user space's answer needs it, too. */
static __always_inline int access_at_once(struct fonda_vcpu *vcpu, u16 port, int size, bool in,
					  int insn_len)
{
	struct fonda_io *io = &vcpu->io;

	io->port_data = vcpu->regs[FONDA_RAX];
	io->port = port;
	if (in)
		io->reg = FONDA_RAX * 8;
	io->reg_bytes = in ? size : 0;
	io->insn_len = insn_len;
	io->answer_len = size;
	if (!fonda_io_access(vcpu, fonda_bus(vcpu, FONDA_BUS_PIO), port, size, &io->port_data, !in))
		return in ? finish(vcpu, &io->port_data) : fonda_skip_insn(vcpu, io->insn_len);
	io->rip = vcpu->rip;
	*(u32 *)vcpu->pio_data = io->port_data;
	ask_port(vcpu, in, io->port, io->answer_len, 1);
	return FONDA_EXIT_USER;
}

int fonda_pio(struct fonda_vcpu *vcpu, u16 port, int size, bool in, int insn_len)
{
	return in ? access_at_once(vcpu, port, size, true, insn_len) :
		    access_at_once(vcpu, port, size, false, insn_len);
}

int fonda_complete_user_io(struct fonda_vcpu *vcpu)
{
	struct fonda_io *io = &vcpu->io;
	int pending = io->pending;

	if (likely(pending == FONDA_IO_NONE))
		return FONDA_RESUME_GUEST;
	io->pending = FONDA_IO_NONE;
	/* User space has put the guest elsewhere meanwhile: it has dealt with it. */
	if (vcpu->rip != io->rip)
		return FONDA_RESUME_GUEST;
	if (likely(pending == FONDA_IO_SIMPLE))
		return finish(vcpu, io->source);
	if (pending == FONDA_IO_MSR)
		return fonda_complete_msr(vcpu);
	if (io->answer)
		memcpy(io->answer, io->source, io->answer_len);
	return execute(vcpu);
}

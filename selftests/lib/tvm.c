// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tiny virtual machine for tests. See tvm.h. The state that a vCPU starts
 * in is written down here once, for the three modes of guest code.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tvm.h"

#define MAX_CPUID	256
#define MAX_TVMS	8

#define CPUID1_DEADLINE		(1u << 24)
#define CPUID1_HYPERVISOR	(1u << 31)

#define CR0_PE		0x1
#define CR0_START64	0x80010033	/* PG WP NE ET MP PE */
#define CR4_START64	0x620		/* PAE OSFXSR OSXMMEXCPT */
#define EFER_START64	0xd01		/* NXE LMA LME SCE */

static struct tvm *tvms[MAX_TVMS];
static atomic_bool out_of_time;

const char *tvm_dev_path(void)
{
	const char *path = getenv("FONDA_DEV");

	return path && *path ? path : "/dev/fonda";
}

bool tvm_is_stock(void)
{
	return !strcmp(tvm_dev_path(), "/dev/kvm");
}

bool tvm_in_tcg(void)
{
	struct cpuid_regs r = cpuid(0x40000000, 0);

	return r.ebx == 0x54474354 && r.ecx == 0x43544743;	/* "TCGTCGTC" */
}

bool tvm_in_bochs(void)
{
	const char *emulator = getenv("BED_EMULATOR");

	return emulator && !strcmp(emulator, "bochs");
}

bool tvm_vmx_parameter(const char *name)
{
	char path[96];
	FILE *file;
	int c;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s",
		 tvm_is_stock() ? "kvm_intel" : "fonda", name);
	file = fopen(path, "re");
	c = file ? fgetc(file) : EOF;
	if (file)
		fclose(file);
	return c == 'Y' && cpuid(0, 0).ecx == 0x6c65746e;	/* "ntel" */
}

bool tvm_has_apicv(void)
{
	return tvm_vmx_parameter(tvm_is_stock() ? "enable_apicv" : "apicv");
}

uint64_t tvm_counter(struct tvm *t, const char *name)
{
	int fd = ioctl(t->cpu, KVM_GET_STATS_FD, 0);
	static char buf[16384];
	struct kvm_stats_header *header = (void *)buf;
	struct kvm_stats_desc *desc;
	ssize_t len;
	uint32_t i;

	ASSERT_GE(fd, 0);
	len = pread(fd, buf, sizeof(buf), 0);
	ASSERT_GT(len, (ssize_t)sizeof(*header));
	close(fd);
	for (i = 0; i < header->num_desc; i++) {
		desc = (void *)(buf + header->desc_offset +
				i * (sizeof(*desc) + header->name_size));
		if (!strcmp(desc->name, name))
			return *(uint64_t *)(buf + header->data_offset + desc->offset);
	}
	FAIL("no counter %s", name);
}

int tvm_open(void)
{
	int dev = open(tvm_dev_path(), O_RDWR | O_CLOEXEC);

	if (dev < 0)
		FAIL("%s: %s (is the module loaded?)", tvm_dev_path(), strerror(errno));
	ASSERT_EQ(ioctl(dev, KVM_GET_API_VERSION, 0), KVM_API_VERSION);
	return dev;
}

size_t tvm_run_size(int dev)
{
	int size = ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0);

	ASSERT_GE(size, (int)sizeof(struct kvm_run));
	return (size_t)size;
}

struct kvm_cpuid2 *tvm_supported_cpuid(int dev)
{
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));
	ASSERT_TRUE(cpuid);
	cpuid->nent = MAX_CPUID;
	ASSERT_OK(ioctl(dev, KVM_GET_SUPPORTED_CPUID, cpuid));
	return cpuid;
}

const struct kvm_cpuid_entry2 *tvm_cpuid(uint32_t leaf, uint32_t index)
{
	static struct kvm_cpuid2 *cpuid;
	unsigned int i;
	int dev;

	if (!cpuid) {
		dev = tvm_open();
		cpuid = tvm_supported_cpuid(dev);
		close(dev);
	}
	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == leaf && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	}
	return NULL;
}

/* Every vCPU that is running comes out of KVM_RUN, and finds the flag set. */
static void on_alarm(int sig)
{
	unsigned int i, v;

	(void)sig;
	out_of_time = true;
	for (i = 0; i < MAX_TVMS; i++) {
		for (v = 0; tvms[i] && v < tvms[i]->nr_vcpus; v++) {
			if (tvms[i]->vcpu[v].tid)
				tvm_kick(tvms[i], v);
		}
	}
}

static void on_kick(int sig)
{
	(void)sig;
}

/* Gives up a little before the harness does, which could not say where. */
static void arm_watchdog(void)
{
	struct sigaction kick = { .sa_handler = on_kick };
	struct sigaction late = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	unsigned int limit_s = tap_limit_s();

	sigaction(SIGUSR1, &kick, NULL);
	sigaction(SIGALRM, &late, NULL);
	if (limit_s)
		alarm(limit_s - limit_s / 4);
}

void tvm_set_slot(struct tvm *t, unsigned int slot, unsigned int flags,
		  uint64_t gpa, uint64_t size, const void *host)
{
	ASSERT_OK(tvm_try_slot(t, slot, flags, gpa, size, host));
}

int tvm_try_slot(struct tvm *t, unsigned int slot, unsigned int flags,
		 uint64_t gpa, uint64_t size, const void *host)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa,
		.memory_size = size, .userspace_addr = (uintptr_t)host,
	};

	return ioctl(t->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

void tvm_init_bare(struct tvm *t, unsigned int flags)
{
	/* Port 0x61 comes with it. */
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	unsigned int i;

	memset(t, 0, sizeof(*t));
	t->dev = tvm_open();
	t->fd = ioctl(t->dev, KVM_CREATE_VM, 0);
	ASSERT_OK(t->fd);
	/* Intel's processors need three pages for the reference device. */
	ASSERT_OK(ioctl(t->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul));

	t->ram = mmap(NULL, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(t->ram, MAP_FAILED);
	tvm_set_slot(t, 0, 0, 0, GUEST_LOW_END, t->ram);
	tvm_set_slot(t, 1, 0, GUEST_HIGH, GUEST_RAM_SIZE - GUEST_HIGH,
		     t->ram + GUEST_HIGH);
	t->next_slot = 2;
	t->pool = GUEST_POOL;

	if (flags & TVM_IRQCHIP)
		ASSERT_OK(ioctl(t->fd, KVM_CREATE_IRQCHIP, 0));
	if (flags & TVM_PIT)
		ASSERT_OK(ioctl(t->fd, KVM_CREATE_PIT2, &pit));

	arm_watchdog();
	/* A test that closed the files itself may use the same object again. */
	for (i = 0; i < MAX_TVMS && tvms[i] && tvms[i] != t; i++)
		;
	ASSERT_LT(i, MAX_TVMS);
	tvms[i] = t;
}

void tvm_add_vcpu(struct tvm *t, unsigned int flags)
{
	struct tvm_vcpu *v = &t->vcpu[t->nr_vcpus];
	struct kvm_cpuid2 *cpuid;
	unsigned int i;

	ASSERT_LT(t->nr_vcpus, GUEST_MAX_VCPUS);
	v->vm = t;
	v->index = t->nr_vcpus;
	v->fd = ioctl(t->fd, KVM_CREATE_VCPU, (unsigned long)v->index);
	ASSERT_OK(v->fd);
	v->run = mmap(NULL, tvm_run_size(t->dev), PROT_READ | PROT_WRITE,
		      MAP_SHARED, v->fd, 0);
	ASSERT_NE(v->run, MAP_FAILED);

	if (!(flags & TVM_NO_CPUID)) {
		cpuid = tvm_supported_cpuid(t->dev);
		for (i = 0; i < cpuid->nent; i++) {
			struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

			if (e->function == 1) {
				e->ebx = (e->ebx & 0xffffff) | v->index << 24;
				/* Capabilities, not the table, promise these. */
				e->ecx |= CPUID1_DEADLINE | CPUID1_HYPERVISOR;
			} else if (e->function == 0xb) {
				e->edx = v->index;
			}
		}
		ASSERT_OK(ioctl(v->fd, KVM_SET_CPUID2, cpuid));
		free(cpuid);
	}
	if (!v->index) {
		t->cpu = v->fd;
		t->run = v->run;
	}
	t->nr_vcpus++;
}

static int copy_segment(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct tvm *t = arg;
	int i;

	(void)size;
	/* Only the program itself has its addresses as linked. */
	if (info->dlpi_addr)
		return 0;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD)
			continue;
		ASSERT_GE(ph->p_vaddr, GUEST_HIGH);
		ASSERT_LE(ph->p_vaddr + ph->p_memsz, GUEST_RAM_SIZE);
		memcpy(t->ram + ph->p_vaddr, (void *)ph->p_vaddr, ph->p_memsz);
	}
	return 0;
}

static void set_gate(struct tvm *t, unsigned int vector, uint64_t handler)
{
	uint64_t *gate = tvm_ptr(t, GUEST_IDT + vector * 16);

	gate[0] = (handler & 0xffff) | (uint64_t)GUEST_CS64 << 16 |
		  0x8eull << 40 | (handler >> 16 & 0xffff) << 48;
	gate[1] = handler >> 32;
	/* INT3, INTO and INT 0x80 are for everybody. */
	if (vector == 3 || vector == 4 || vector == 0x80)
		gate[0] |= 0x60ull << 40;
}

/* Descriptor tables, page tables and image: what a 64-bit guest lives in. */
static void load_image(struct tvm *t)
{
	uint64_t *gdt = tvm_ptr(t, GUEST_GDT);
	uint64_t *table;
	unsigned int i;

	dl_iterate_phdr(copy_segment, t);

	gdt[GUEST_CS32 / 8] = 0x00cf9b000000ffff;
	gdt[GUEST_DS / 8] = 0x00cf93000000ffff;
	gdt[GUEST_CS64 / 8] = 0x00af9b000000ffff;
	gdt[GUEST_USER_DS / 8] = 0x00cff3000000ffff;
	gdt[GUEST_USER_CS / 8] = 0x00affb000000ffff;
	/* The TSS descriptor of vCPU 0; the others have theirs loaded already. */
	gdt[GUEST_TR / 8] = 0x00008b0000000067 | (uint64_t)GUEST_TSS << 16;
	gdt[GUEST_TR / 8 + 1] = 0;

	for (i = 0; i < 256; i++)
		set_gate(t, i, (uintptr_t)guest_vectors + 16 * i);

	table = tvm_ptr(t, GUEST_PML4);
	table[0] = GUEST_PDPT | TVM_PTE_P | TVM_PTE_W | TVM_PTE_U;
	table = tvm_ptr(t, GUEST_PDPT);
	for (i = 0; i < 4; i++)
		table[i] = (GUEST_PD + i * 0x1000) | TVM_PTE_P | TVM_PTE_W | TVM_PTE_U;
	table = tvm_ptr(t, GUEST_PD);
	for (i = 0; i < 2048; i++)
		table[i] = (uint64_t)i << 21 | 0x80 | TVM_PTE_P | TVM_PTE_W | TVM_PTE_U;

	for (i = 0; i < GUEST_MAX_VCPUS; i++) {
		uint8_t *tss = tvm_ptr(t, GUEST_TSS + i * 0x100);
		uint64_t rsp0 = GUEST_STACKS + (i + 1) * 0x2000 - 0x1000;
		uint64_t ist1 = GUEST_IST + (i + 1) * 0x1000;

		memcpy(tss + 4, &rsp0, 8);
		memcpy(tss + 0x24, &ist1, 8);
		G(t, guest_cpus)[i].self = &guest_cpus[i];
		G(t, guest_cpus)[i].id = i;
	}
}

uint64_t *tvm_map(struct tvm *t, uint64_t gva, uint64_t gpa, uint64_t bits)
{
	uint64_t *entry = (uint64_t *)tvm_ptr(t, GUEST_PML4) + (gva >> 39 & 511);
	int shift;

	for (shift = 30; shift >= 12; shift -= 9) {
		if (!(*entry & TVM_PTE_P)) {
			ASSERT_LT(t->pool, GUEST_POOL_END);
			*entry = t->pool | TVM_PTE_P | TVM_PTE_W | TVM_PTE_U;
			t->pool += 0x1000;
		}
		ASSERT_FALSE(*entry & 0x80);
		entry = (uint64_t *)tvm_ptr(t, *entry & 0xffffffffff000) +
			(gva >> shift & 511);
	}
	*entry = gpa | bits;
	return entry;
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = selector, .type = type,
		.present = 1, .db = 1, .s = 1, .g = 1,
	};
}

static void set_mode16(struct kvm_sregs *s)
{
	s->cs.selector = 0;
	s->cs.base = 0;
}

static void set_mode32(struct kvm_sregs *s)
{
	s->cs = flat_segment(GUEST_CS32, 0xb);
	s->ds = flat_segment(GUEST_DS, 3);
	s->es = s->ds;
	s->fs = s->ds;
	s->gs = s->ds;
	s->ss = s->ds;
	s->cr0 |= CR0_PE;
	s->gdt.base = GUEST_GDT;
	s->gdt.limit = 0x7f;
}

static void set_mode64(struct kvm_sregs *s, unsigned int i)
{
	set_mode32(s);
	s->cs = flat_segment(GUEST_CS64, 0xb);
	s->cs.db = 0;
	s->cs.l = 1;
	s->gs.base = (uintptr_t)&guest_cpus[i];
	s->tr = (struct kvm_segment){
		.base = GUEST_TSS + i * 0x100, .limit = 0x67,
		.selector = GUEST_TR, .type = 0xb, .present = 1,
	};
	s->idt.base = GUEST_IDT;
	s->idt.limit = 0xfff;
	s->cr0 = CR0_START64;
	s->cr3 = GUEST_PML4;
	s->cr4 = CR4_START64;
	s->efer = EFER_START64;
}

void tvm_set_code(struct tvm *t, unsigned int i, const struct guest_code *code)
{
	struct kvm_regs regs = { .rflags = 2, .rip = GUEST_CODE };
	struct kvm_sregs sregs = tvm_sregs(t, i);
	struct kvm_lapic_state lapic;
	size_t size;

	if (code->bits == 64) {
		if (!i)
			load_image(t);
		set_mode64(&sregs, i);
		regs.rsp = GUEST_STACKS + (i + 1) * 0x2000;
	} else {
		regs.rsp = GUEST_STACK16;
		if (code->bits == 32) {
			load_image(t);
			set_mode32(&sregs);
		} else {
			set_mode16(&sregs);
		}
	}

	/*
	 * In Bochs an interrupt of the host does not end the run of a guest that never
	 * turns its own on. Without a local APIC none comes by itself.
	 */
	if (tvm_in_bochs() && code->fn && ioctl(t->vcpu[i].fd, KVM_GET_LAPIC, &lapic))
		regs.rflags |= 0x200;
	if (code->fn) {
		/* Its return address ends the guest. */
		regs.rsp -= 8;
		*(uint64_t *)tvm_ptr(t, regs.rsp) = (uintptr_t)guest_exit;
		regs.rip = (uintptr_t)code->fn;
	} else {
		size = (size_t)((const char *)code->end - (const char *)code->start);
		ASSERT_LE(size, GUEST_DATA - GUEST_CODE);
		memcpy(tvm_ptr(t, GUEST_CODE), code->start, size);
	}
	tvm_set_sregs(t, i, &sregs);
	tvm_set_regs(t, i, &regs);
}

void tvm_init_smp(struct tvm *t, const struct guest_code *code,
		  unsigned int flags, unsigned int nr_vcpus)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	unsigned int i;

	tvm_init_bare(t, flags);
	for (i = 0; i < nr_vcpus; i++) {
		tvm_add_vcpu(t, flags);
		if (i && (flags & TVM_WAIT_SIPI))
			continue;
		tvm_set_code(t, i, code);
		if (i)
			ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_SET_MP_STATE, &runnable));
	}
}

void tvm_init(struct tvm *t, const struct guest_code *code)
{
	tvm_init_smp(t, code, 0, 1);
}

void tvm_fini(struct tvm *t)
{
	size_t run_size = tvm_run_size(t->dev);
	unsigned int i;

	for (i = 0; i < MAX_TVMS; i++) {
		if (tvms[i] == t)
			tvms[i] = NULL;
	}
	for (i = 0; i < t->nr_vcpus; i++) {
		EXPECT_OK(munmap(t->vcpu[i].run, run_size));
		EXPECT_OK(close(t->vcpu[i].fd));
	}
	EXPECT_OK(close(t->fd));
	EXPECT_OK(close(t->dev));
	EXPECT_OK(munmap(t->ram, GUEST_RAM_SIZE));
}

struct kvm_regs tvm_regs(struct tvm *t, unsigned int i)
{
	struct kvm_regs regs;

	ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_GET_REGS, &regs));
	return regs;
}

struct kvm_sregs tvm_sregs(struct tvm *t, unsigned int i)
{
	struct kvm_sregs sregs;

	ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_GET_SREGS, &sregs));
	return sregs;
}

void tvm_set_regs(struct tvm *t, unsigned int i, const struct kvm_regs *regs)
{
	ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_SET_REGS, regs));
}

void tvm_set_sregs(struct tvm *t, unsigned int i, const struct kvm_sregs *sregs)
{
	ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_SET_SREGS, sregs));
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

uint64_t tvm_msr(struct tvm *t, unsigned int i, uint32_t msr)
{
	struct one_msr m = { .head.nmsrs = 1, .entry.index = msr };

	if (ioctl(t->vcpu[i].fd, KVM_GET_MSRS, &m) != 1)
		FAIL("KVM_GET_MSRS does not know MSR %#x", msr);
	return m.entry.data;
}

int tvm_set_msr(struct tvm *t, unsigned int i, uint32_t msr, uint64_t val)
{
	struct one_msr m = { .head.nmsrs = 1, .entry.index = msr, .entry.data = val };
	int ret = ioctl(t->vcpu[i].fd, KVM_SET_MSRS, &m);

	ASSERT_OK(ret);
	return ret;
}

struct kvm_lapic_state tvm_lapic(struct tvm *t, unsigned int i)
{
	struct kvm_lapic_state lapic;

	ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_GET_LAPIC, &lapic));
	return lapic;
}

uint32_t tvm_lapic_reg(struct tvm *t, unsigned int i, unsigned int reg)
{
	struct kvm_lapic_state lapic = tvm_lapic(t, i);
	uint32_t val;

	memcpy(&val, lapic.regs + reg, sizeof(val));
	return val;
}

static void __attribute__((noreturn)) report_stuck(struct tvm *t, unsigned int i)
{
	struct kvm_mp_state mp = { 0 };
	struct kvm_regs regs = { 0 };
	struct kvm_lapic_state lapic;
	uint32_t irr[8], isr[8], n;

	ioctl(t->vcpu[i].fd, KVM_GET_REGS, &regs);
	ioctl(t->vcpu[i].fd, KVM_GET_MP_STATE, &mp);
	if (!ioctl(t->vcpu[i].fd, KVM_GET_LAPIC, &lapic)) {
		for (n = 0; n < 8; n++) {
			isr[n] = *(uint32_t *)(lapic.regs + APIC_ISR + 0x10 * n);
			irr[n] = *(uint32_t *)(lapic.regs + APIC_IRR + 0x10 * n);
		}
		tap_diag("IRR %08x%08x%08x%08x%08x%08x%08x%08x", irr[7], irr[6], irr[5],
			 irr[4], irr[3], irr[2], irr[1], irr[0]);
		tap_diag("ISR %08x%08x%08x%08x%08x%08x%08x%08x", isr[7], isr[6], isr[5],
			 isr[4], isr[3], isr[2], isr[1], isr[0]);
	}
	FAIL("out of time: vCPU %u at rip %#llx rsp %#llx rflags %#llx rax %#llx, "
	     "mp_state %u, exit_reason %u", i, regs.rip, regs.rsp, regs.rflags, regs.rax,
	     mp.mp_state, t->vcpu[i].run->exit_reason);
}

int tvm_run_vcpu(struct tvm *t, unsigned int i)
{
	struct tvm_vcpu *v = &t->vcpu[i];
	int ret;

	do {
		v->tid = (int)syscall(SYS_gettid);
		ret = out_of_time ? -1 : ioctl(v->fd, KVM_RUN, 0);
		v->tid = 0;
		if (out_of_time)
			report_stuck(t, i);
		/* EAGAIN: the vCPU has just been started by an IPI. */
	} while (ret < 0 && (errno == EINTR || errno == EAGAIN) && !v->stop);

	if (ret < 0 && !v->stop)
		FAIL("KVM_RUN of vCPU %u: %s", i, strerror(errno));
	if (!ret && v->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		tap_diag("internal error, suberror %u, data %#llx %#llx %#llx",
			 v->run->internal.suberror, v->run->internal.data[0],
			 v->run->internal.data[1], v->run->internal.data[2]);
	if (!ret && v->run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		tap_diag("entry failed, reason %#llx",
			 v->run->fail_entry.hardware_entry_failure_reason);
	return ret < 0 ? KVM_EXIT_INTR : (int)v->run->exit_reason;
}

int tvm_run(struct tvm *t)
{
	return tvm_run_vcpu(t, 0);
}

uint8_t *tvm_io_data(struct tvm *t)
{
	return (uint8_t *)t->run + t->run->io.data_offset;
}

uint64_t tvm_report(struct tvm *t, unsigned int i, bool *is_report)
{
	const struct kvm_run *run = t->vcpu[i].run;
	const struct guest_report *report;
	const struct guest_frame *frame;
	uint32_t gpa;

	*is_report = run->exit_reason == KVM_EXIT_IO && run->io.port == GUEST_PORT &&
		     run->io.direction == KVM_EXIT_IO_OUT && run->io.size == 4;
	if (!*is_report)
		return 0;

	memcpy(&gpa, (const uint8_t *)run + run->io.data_offset, sizeof(gpa));
	ASSERT_LE(gpa, GUEST_RAM_SIZE - sizeof(*report));
	report = tvm_ptr(t, gpa);
	switch (report->kind) {
	case GUEST_REPORT_DONE:
		return TVM_DONE;
	case GUEST_REPORT_SYNC:
		return report->line;
	case GUEST_REPORT_FAILED:
		FAIL("guest line %llu, vCPU %u: not true: %s (left %#llx, right %#llx)",
		     (unsigned long long)report->line, i, report->what,
		     (unsigned long long)report->left, (unsigned long long)report->right);
	default:
		frame = tvm_ptr(t, report->frame);
		FAIL("guest, vCPU %u: unexpected vector %llu, error %#llx, at rip %#llx "
		     "rsp %#llx rflags %#llx rax %#llx, cr2 %#llx",
		     i, (unsigned long long)frame->vector, (unsigned long long)frame->error,
		     (unsigned long long)frame->rip, (unsigned long long)frame->rsp,
		     (unsigned long long)frame->rflags, (unsigned long long)frame->rax,
		     (unsigned long long)report->left);
	}
}

uint64_t tvm_go_vcpu(struct tvm *t, unsigned int i)
{
	int reason = tvm_run_vcpu(t, i);
	bool is_report;
	uint64_t ret;

	ret = tvm_report(t, i, &is_report);
	if (!is_report) {
		struct kvm_regs regs = tvm_regs(t, i);

		FAIL("vCPU %u: exit reason %d at rip %#llx instead of a report",
		     i, reason, regs.rip);
	}
	/* Completes the OUT, so that the registers are those after it. */
	tap_checked();
	return ret;
}

uint64_t tvm_go(struct tvm *t)
{
	return tvm_go_vcpu(t, 0);
}

static void *vcpu_thread(void *arg)
{
	struct tvm_vcpu *v = arg;
	bool is_report;

	for (;;) {
		int reason = tvm_run_vcpu(v->vm, v->index);

		if (v->stop)
			return NULL;
		if (tvm_report(v->vm, v->index, &is_report) == TVM_DONE && is_report)
			break;
		if (!is_report)
			FAIL("vCPU %u: exit reason %d in its thread", v->index, reason);
	}
	v->done = true;
	return NULL;
}

void tvm_start(struct tvm *t, unsigned int i)
{
	t->vcpu[i].stop = false;
	t->vcpu[i].done = false;
	t->vcpu[i].run->immediate_exit = 0;
	ASSERT_EQ(pthread_create(&t->vcpu[i].thread, NULL, vcpu_thread, &t->vcpu[i]), 0);
}

void tvm_join(struct tvm *t, unsigned int i)
{
	ASSERT_EQ(pthread_join(t->vcpu[i].thread, NULL), 0);
	tap_checked();
}

void tvm_kick(struct tvm *t, unsigned int i)
{
	int tid = t->vcpu[i].tid;

	/* The signal alone would be lost just before KVM_RUN begins. */
	t->vcpu[i].run->immediate_exit = 1;
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
}

void tvm_stop(struct tvm *t, unsigned int i)
{
	t->vcpu[i].stop = true;
	tvm_kick(t, i);
	tvm_join(t, i);
	t->vcpu[i].stop = false;
	t->vcpu[i].run->immediate_exit = 0;
}

void tvm_start_all(struct tvm *t)
{
	unsigned int i;

	for (i = 0; i < t->nr_vcpus; i++)
		tvm_start(t, i);
}

void tvm_join_all(struct tvm *t)
{
	unsigned int i;

	for (i = 0; i < t->nr_vcpus; i++)
		tvm_join(t, i);
}

void tvm_irq_line(struct tvm *t, unsigned int gsi, int level)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = (uint32_t)level };

	ASSERT_OK(ioctl(t->fd, KVM_IRQ_LINE, &irq));
}

int tvm_signal_msi(struct tvm *t, uint32_t addr, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = addr, .data = data };

	return ioctl(t->fd, KVM_SIGNAL_MSI, &msi);
}

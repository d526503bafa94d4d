// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The rows of `make bench`: what each exit and ioctl of a busy guest costs.
 *
 * The floor of a row counts the parts that no implementation can leave out on
 * the bed's processor and kernel: the world switch with all registers, VMLOAD
 * and VMSAVE and a skipped CPUID is 79 instructions; an ioctl that does nothing
 * 683; eventfd_signal() 86; the start of an hrtimer 391; get_user_pages_fast()
 * 499.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define VECTOR_IRQ	0x60	/* counted and acknowledged */
#define VECTOR_QUIET	0x61	/* counted: stays in service */

#define X2APIC_EOI	(MSR_X2APIC + (APIC_EOI >> 4))
#define X2APIC_ICR	(MSR_X2APIC + (APIC_ICR >> 4))
#define MSR_MISC_ENABLE	0x1a0

#define PORT_EXIT	0x80
#define PORT_EVENTFD	0x500
#define MMIO_EXIT	0xd0000000ul
#define MMIO_EVENTFD	0xd0001000ul
#define MEMORY		0x40000000ul	/* of the rows about memory */
#define PAGE_4K		0x1000ul
#define PAGE_2M		0x200000ul

/* A pin that only the IOAPIC has, and a GSI that is an MSI. */
#define GSI_PIN		20
#define GSI_MSI		24
#define IOAPIC_PINS	24

/*
 * Handlers that cost nothing worth mentioning: those of guest.c save all
 * registers and would be most of what is measured.
 */
extern volatile uint32_t bench_taken;
volatile uint32_t bench_taken;
extern const char bench_irq[], bench_quiet[], bench_skip_ud2[];

__asm__(".pushsection .text\n"
	"bench_irq:\n"
	"	push %rax\n"
	"	push %rcx\n"
	"	push %rdx\n"
	"	incl bench_taken\n"
	"	mov $0x80b, %ecx\n"
	"	xor %eax, %eax\n"
	"	xor %edx, %edx\n"
	"	wrmsr\n"
	"	pop %rdx\n"
	"	pop %rcx\n"
	"	pop %rax\n"
	"	iretq\n"
	"bench_quiet:\n"
	"	incl bench_taken\n"
	"	iretq\n"
	"bench_skip_ud2:\n"
	"	addq $2, (%rsp)\n"
	"	iretq\n"
	".popsection\n");

static void set_handler(unsigned int vector, const char *handler)
{
	uint64_t *gate = (uint64_t *)(GUEST_IDT + vector * 16ul);
	uint64_t addr = (uintptr_t)handler;

	gate[0] = (addr & 0xffff) | (uint64_t)GUEST_CS64 << 16 |
		  0x8eull << 40 | (addr >> 16 & 0xffff) << 48;
	gate[1] = addr >> 32;
}

/* --- Instructions that the guest cannot be allowed, or can --- */

static uint64_t op_cpuid(void)
{
	return TIMED("mov $1, %%eax\n\tcpuid", , "rbx", "rcx");
}
ROW(cpuid, .label = "CPUID", .floor = 110, .target = 450, .guest = op_cpuid)

static uint64_t op_rdmsr(void)
{
	return TIMED("rdmsr", GUEST_OPS("c"(MSR_MISC_ENABLE)));
}
ROW(rdmsr, .label = "RDMSR", .floor = 110, .target = 450, .guest = op_rdmsr)

static uint32_t misc_enable[2];

static void read_misc_enable(void)
{
	uint64_t val = rdmsr(MSR_MISC_ENABLE);

	misc_enable[0] = (uint32_t)val;
	misc_enable[1] = (uint32_t)(val >> 32);
}

/* EDX:EAX belong to TIMED(), so the operands come from RSI and RDI. */
#define WRMSR	"mov %%esi, %%eax\n\tmov %%edi, %%edx\n\twrmsr"
#define WRMSR_OPS(_msr, _low, _high) \
	GUEST_OPS("c"(_msr), "S"((uint32_t)(_low)), "D"((uint32_t)(_high)))

static uint64_t op_wrmsr(void)
{
	return TIMED(WRMSR, WRMSR_OPS(MSR_MISC_ENABLE, misc_enable[0], misc_enable[1]));
}
ROW(wrmsr, .label = "WRMSR", .floor = 110, .target = 450,
    .prepare = read_misc_enable, .guest = op_wrmsr)

static bool is_amd;

static void find_vendor(void)
{
	is_amd = cpu_is_amd();
}

/* The number is none of the hypercalls. */
static uint64_t op_hypercall(void)
{
	return is_amd ? TIMED("mov $0x7fff, %%eax\n\tvmmcall", ) :
			TIMED("mov $0x7fff, %%eax\n\tvmcall", );
}
ROW(hypercall, .label = "unknown hypercall", .floor = 110, .target = 450,
    .prepare = find_vendor, .guest = op_hypercall)

static uint64_t op_wbinvd(void)
{
	return TIMED("wbinvd", );
}
ROW(wbinvd, .label = "WBINVD", .floor = 110, .target = 450, .guest = op_wbinvd)

/* --- The local APIC --- */

static void enable_apic(void)
{
	guest_x2apic = true;
	apic_enable();
	set_handler(VECTOR_IRQ, bench_irq);
	set_handler(VECTOR_QUIET, bench_quiet);
}

static void self_ipi(uint32_t vector)
{
	wrmsr(X2APIC_ICR, APIC_DEST_SELF | APIC_ASSERT | vector);
}

static uint64_t op_eoi(void)
{
	uint32_t taken = bench_taken;

	self_ipi(VECTOR_QUIET);
	sti();
	cli();
	GUEST_EQ(bench_taken, taken + 1);
	return TIMED(WRMSR, WRMSR_OPS(X2APIC_EOI, 0, 0));
}
ROW(eoi, .label = "EOI", .floor = 90, .target = 450,
    .prepare = enable_apic, .guest = op_eoi)

static uint64_t op_ipi(void)
{
	uint64_t ticks;

	ticks = TIMED(WRMSR, WRMSR_OPS(X2APIC_ICR, APIC_DEST_SELF | APIC_ASSERT |
				       VECTOR_IRQ, 0));
	sti();
	cli();
	return ticks;
}
ROW(ipi, .label = "self-IPI by x2APIC ICR, pending", .floor = 120, .target = 500,
    .prepare = enable_apic, .guest = op_ipi)

static uint64_t op_ipi_taken(void)
{
	uint32_t taken = bench_taken;
	uint64_t ticks;

	sti();
	ticks = TIMED(WRMSR "\n\tcli",
		      WRMSR_OPS(X2APIC_ICR, APIC_DEST_SELF | APIC_ASSERT | VECTOR_IRQ, 0));
	GUEST_EQ(bench_taken, taken + 1);
	return ticks;
}
ROW(ipi_taken, .label = "self-IPI, taken and EOI'd", .floor = 240, .target = 1100,
    .prepare = enable_apic, .guest = op_ipi_taken)

static void enable_deadline(void)
{
	enable_apic();
	apic_write(APIC_LVTT, APIC_LVT_DEADLINE | VECTOR_IRQ);
}

static uint64_t op_deadline(void)
{
	/* A guest's tick; the host's own comes first, so no other clock is set. */
	uint64_t when = rdtsc() + 4000000;

	return TIMED(WRMSR, WRMSR_OPS(MSR_TSC_DEADLINE, when, when >> 32));
}
ROW(deadline, .label = "TSC-deadline re-arm", .floor = 490, .target = 800,
    .prepare = enable_deadline, .guest = op_deadline)

static uint64_t op_hlt(void)
{
	uint32_t taken = bench_taken;
	uint64_t ticks;

	/* STI lets HLT begin before the pending interrupt is taken. */
	self_ipi(VECTOR_IRQ);
	ticks = TIMED("sti\n\thlt\n\tcli", );
	GUEST_EQ(bench_taken, taken + 1);
	return ticks;
}
ROW(hlt, .label = "HLT, interrupt pending, taken, EOI'd", .floor = 260, .target = 1300,
    .prepare = enable_apic, .guest = op_hlt)

/* --- Accesses that user space serves, or an eventfd --- */

static void add_ioeventfd(struct tvm *t, uint64_t addr, uint32_t len, uint32_t flags)
{
	struct kvm_ioeventfd io = {
		.addr = addr, .len = len, .flags = flags, .fd = eventfd(0, 0),
	};

	ASSERT_OK(io.fd);
	ASSERT_OK(ioctl(t->fd, KVM_IOEVENTFD, &io));
}

static void add_port_eventfd(struct tvm *t)
{
	add_ioeventfd(t, PORT_EVENTFD, 2, KVM_IOEVENTFD_FLAG_PIO);
}

static void add_mmio_eventfd(struct tvm *t)
{
	add_ioeventfd(t, MMIO_EVENTFD, 4, 0);
}

static uint64_t op_out(void)
{
	return TIMED("out %%al, $0x80", );
}
ROW(pio_out, .label = "OUT to user space and back", .floor = 870, .target = 1300,
    .guest = op_out)

static uint64_t op_in(void)
{
	return TIMED("in $0x80, %%al", );
}
ROW(pio_in, .label = "IN from user space and back", .floor = 870, .target = 1300,
    .guest = op_in)

static uint64_t op_out_eventfd(void)
{
	return TIMED("mov %%ecx, %%edx\n\tout %%ax, %%dx", GUEST_OPS("c"(PORT_EVENTFD)));
}
ROW(pio_eventfd, .label = "OUT to an ioeventfd", .floor = 175, .target = 400,
    .setup = add_port_eventfd, .guest = op_out_eventfd)

static uint64_t op_mmio_write(void)
{
	return TIMED("mov %%edx, (%%rcx)", GUEST_OPS("c"(MMIO_EXIT)));
}
ROW(mmio_write, .label = "MMIO write to user space and back", .floor = 1050,
    .target = 1800, .guest = op_mmio_write)

static uint64_t op_mmio_read(void)
{
	return TIMED("mov (%%rcx), %%edx", GUEST_OPS("c"(MMIO_EXIT)));
}
ROW(mmio_read, .label = "MMIO read from user space and back", .floor = 1050,
    .target = 1800, .guest = op_mmio_read)

static uint64_t op_mmio_eventfd(void)
{
	return TIMED("mov %%edx, (%%rcx)", GUEST_OPS("c"(MMIO_EVENTFD)));
}
ROW(mmio_eventfd, .label = "MMIO write to an ioeventfd", .floor = 330, .target = 800,
    .setup = add_mmio_eventfd, .guest = op_mmio_eventfd)

/* --- Control registers; what should not leave the guest at all --- */

/* As a kernel does it: read, change, write back. */
static uint64_t op_cr0_wp(void)
{
	return TIMED("mov %%cr0, %%rax\n\txor $0x10000, %%eax\n\tmov %%rax, %%cr0", );
}
ROW(cr0_wp, .label = "CR0.WP toggle", .floor = 0, .target = 10, .guest = op_cr0_wp)

/* Off and on again, which forgets the global translations. */
static uint64_t op_cr4_pge(void)
{
	return TIMED("mov %%cr4, %%rax\n\t"
		     "xor $0x80, %%eax\n\tmov %%rax, %%cr4\n\t"
		     "xor $0x80, %%eax\n\tmov %%rax, %%cr4", );
}
ROW(cr4_pge, .label = "CR4.PGE toggle, off and on", .floor = 0, .target = 500, .guest = op_cr4_pge)

static void handle_ud2(void)
{
	set_handler(6, bench_skip_ud2);
}

static uint64_t op_ud2(void)
{
	return TIMED("ud2", );
}
ROW(ud2, .label = "UD2 in the guest", .target = BENCH_NO_EXIT,
    .prepare = handle_ud2, .guest = op_ud2)

static uint64_t op_cr3(void)
{
	return TIMED("mov %%rcx, %%cr3", GUEST_OPS("c"(read_cr3())));
}
ROW(cr3, .label = "CR3 write", .target = BENCH_NO_EXIT, .guest = op_cr3)

static uint64_t op_cr8(void)
{
	return TIMED("mov %%rcx, %%cr8", GUEST_OPS("c"(0ul)));
}
ROW(cr8, .label = "CR8 write", .target = BENCH_NO_EXIT, .guest = op_cr8)

static uint64_t op_invlpg(void)
{
	return TIMED("invlpg (%%rcx)", GUEST_OPS("c"(GUEST_DATA)));
}
ROW(invlpg, .label = "INVLPG", .target = BENCH_NO_EXIT, .guest = op_invlpg)

static uint64_t op_fs_base(void)
{
	return TIMED(WRMSR, WRMSR_OPS(MSR_FS_BASE, GUEST_DATA, 0));
}
ROW(fs_base, .label = "FS_BASE write", .target = BENCH_NO_EXIT, .guest = op_fs_base)

/* --- First touches of memory --- */

/*
 * A fresh page costs the host the same fault as any other process, most of it
 * the clearing (which 6.1 does twice on pages that user space gets: once on
 * allocation, once for the fault). That is measured beside it, and counts as
 * unavoidable.
 */
static uint8_t *next_page;
static uint64_t page_size;

static uint8_t *map_memory(uint64_t page, uint32_t pages)
{
	uint64_t size = page * pages;
	uint8_t *p;

	p = mmap(NULL, size + PAGE_2M, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(p, MAP_FAILED);
	p = (uint8_t *)(((uintptr_t)p + PAGE_2M - 1) & ~(PAGE_2M - 1));
	ASSERT_OK(madvise(p, size, page == PAGE_2M ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
	return p;
}

static void add_memory(struct tvm *t, uint64_t page, uint32_t pages, bool backed)
{
	uint8_t *p = map_memory(page, pages);
	uint32_t i;

	for (i = 0; backed && i < pages; i++)
		p[page * i] = 1;
	tvm_set_slot(t, t->next_slot++, 0, MEMORY, page * pages, p);
	G(t, next_page) = (uint8_t *)MEMORY;
	G(t, page_size) = page;

	/* Where the host touches, in the rows that count its own fault. */
	next_page = map_memory(page, pages);
	page_size = page;
}

/* Enough 2M pages for a median, and few enough for a small machine. */
#define PAGES_4K	BENCH_REPEAT
#define PAGES_2M	64

static void add_4k_backed(struct tvm *t)
{
	add_memory(t, PAGE_4K, PAGES_4K, true);
}

static void add_4k_fresh(struct tvm *t)
{
	add_memory(t, PAGE_4K, PAGES_4K, false);
}

static void add_2m_backed(struct tvm *t)
{
	add_memory(t, PAGE_2M, PAGES_2M, true);
}

static void add_2m_fresh(struct tvm *t)
{
	add_memory(t, PAGE_2M, PAGES_2M, false);
}

static uint64_t op_touch(void)
{
	uint64_t ticks = TIMED("movb $1, (%%rcx)", GUEST_OPS("c"(next_page)));

	next_page += page_size;
	return ticks;
}
ROW(touch_4k_backed, .label = "first touch of a 4K page, backed", .floor = 680,
    .target = 1000, .setup = add_4k_backed, .guest = op_touch)
ROW(touch_4k_fresh, .label = "first touch of a 4K page, fresh", .floor = 200,
    .target = 2450, .host_part = op_touch, .setup = add_4k_fresh, .guest = op_touch)
ROW(touch_2m_backed, .label = "first touch of a 2M page, backed", .floor = 700,
    .target = 1300, .repeat = PAGES_2M, .setup = add_2m_backed, .guest = op_touch)
ROW(touch_2m_fresh, .label = "first touch of a 2M page, fresh", .floor = 200,
    .target = 2900, .host_part = op_touch, .repeat = PAGES_2M, .setup = add_2m_fresh,
    .guest = op_touch)

/* --- ioctls of the vCPU --- */

static uint64_t op_run(struct tvm *t)
{
	uint64_t ticks;

	t->run->immediate_exit = 1;
	ticks = TIMED_IOCTL(t->cpu, KVM_RUN, 0);
	ASSERT_ERRNO(ioctl(t->cpu, KVM_RUN, 0), EINTR);
	return ticks;
}
ROW(run, .label = "KVM_RUN with immediate_exit", .floor = 720, .target = 950,
    .host = op_run)

static uint64_t op_get_regs(struct tvm *t)
{
	struct kvm_regs regs;

	return TIMED_IOCTL(t->cpu, KVM_GET_REGS, &regs);
}
ROW(get_regs, .label = "KVM_GET_REGS", .floor = 750, .target = 900,
    .host = op_get_regs)

static uint64_t op_set_regs(struct tvm *t)
{
	struct kvm_regs regs = tvm_regs(t, 0);

	return TIMED_IOCTL(t->cpu, KVM_SET_REGS, &regs);
}
ROW(set_regs, .label = "KVM_SET_REGS", .floor = 750, .target = 900,
    .host = op_set_regs)

static uint64_t op_get_sregs(struct tvm *t)
{
	struct kvm_sregs sregs;

	return TIMED_IOCTL(t->cpu, KVM_GET_SREGS, &sregs);
}
ROW(get_sregs, .label = "KVM_GET_SREGS", .floor = 800, .target = 1200,
    .host = op_get_sregs)

static uint64_t op_set_sregs(struct tvm *t)
{
	struct kvm_sregs sregs = tvm_sregs(t, 0);

	return TIMED_IOCTL(t->cpu, KVM_SET_SREGS, &sregs);
}
ROW(set_sregs, .label = "KVM_SET_SREGS", .floor = 800, .target = 1200,
    .host = op_set_sregs)

/* --- Interrupts from user space, for a vCPU that is not running --- */

static void enable_pin(void)
{
	enable_apic();
	ioapic_rte(GSI_PIN, VECTOR_IRQ);
}

/* An interrupt that is pending already would cost less the second time. */
static void take_interrupt(void)
{
	uint32_t taken = bench_taken;

	sti();
	cli();
	GUEST_EQ(bench_taken, taken + 1);
}

static uint64_t op_irq_line(struct tvm *t)
{
	struct kvm_irq_level up = { .irq = GSI_PIN, .level = 1 };
	struct kvm_irq_level down = { .irq = GSI_PIN, .level = 0 };
	uint64_t ticks;

	ticks = TIMED_IOCTL(t->fd, KVM_IRQ_LINE, &up);
	ticks += TIMED_IOCTL(t->fd, KVM_IRQ_LINE, &down) - TIMED("", );
	bench_serve(t);
	return ticks;
}
ROW(irq_line, .label = "KVM_IRQ_LINE up and down", .floor = 1430, .target = 1700,
    .prepare = enable_pin, .serve = take_interrupt, .host = op_irq_line)

static uint64_t op_signal_msi(struct tvm *t)
{
	struct kvm_msi msi = { .address_lo = TVM_MSI_ADDR(0), .data = VECTOR_IRQ };

	uint64_t ticks = TIMED_IOCTL(t->fd, KVM_SIGNAL_MSI, &msi);

	bench_serve(t);
	return ticks;
}
ROW(signal_msi, .label = "KVM_SIGNAL_MSI", .floor = 750, .target = 850,
    .prepare = enable_apic, .serve = take_interrupt, .host = op_signal_msi)

static struct kvm_irq_routing *make_routes(uint32_t nr)
{
	struct kvm_irq_routing *table;
	uint32_t i;

	table = calloc(1, sizeof(*table) + nr * sizeof(table->entries[0]));
	ASSERT_TRUE(table);
	table->nr = nr;
	for (i = 0; i < nr; i++) {
		struct kvm_irq_routing_entry *e = &table->entries[i];

		e->gsi = i;
		if (i < IOAPIC_PINS) {
			e->type = KVM_IRQ_ROUTING_IRQCHIP;
			e->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
			e->u.irqchip.pin = i;
		} else {
			e->type = KVM_IRQ_ROUTING_MSI;
			e->u.msi.address_lo = TVM_MSI_ADDR(0);
			e->u.msi.data = VECTOR_IRQ;
		}
	}
	return table;
}

static int signal_fd;

static void add_irqfd(struct tvm *t)
{
	struct kvm_irqfd fd = { .gsi = GSI_MSI };

	ASSERT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, make_routes(GSI_MSI + 1)));
	signal_fd = eventfd(0, 0);
	ASSERT_OK(signal_fd);
	fd.fd = (uint32_t)signal_fd;
	ASSERT_OK(ioctl(t->fd, KVM_IRQFD, &fd));
}

static uint64_t op_irqfd(struct tvm *t)
{
	uint64_t one = 1;
	uint64_t ticks = TIMED_SYSCALL(SYS_write, signal_fd, &one, sizeof(one));

	bench_serve(t);
	return ticks;
}
ROW(irqfd, .label = "irqfd signal", .floor = 850, .target = 1000,
    .setup = add_irqfd, .prepare = enable_apic, .serve = take_interrupt, .host = op_irqfd)

/* --- Configuration that VMMs change while the guest runs --- */

static struct kvm_irq_routing *routes;

static void make_24_routes(struct tvm *t)
{
	routes = make_routes(24);
	ASSERT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, routes));
}

static void make_64_routes(struct tvm *t)
{
	routes = make_routes(64);
	ASSERT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, routes));
}

static uint64_t op_routing(struct tvm *t)
{
	return TIMED_IOCTL(t->fd, KVM_SET_GSI_ROUTING, routes);
}
ROW(routing_24, .label = "KVM_SET_GSI_ROUTING, 24 entries", .floor = 1700,
    .target = 3500, .setup = make_24_routes, .host = op_routing)
ROW(routing_64, .label = "KVM_SET_GSI_ROUTING, 64 entries", .floor = 2700,
    .target = 6000, .setup = make_64_routes, .host = op_routing)

static struct kvm_userspace_memory_region slot_add, slot_delete;

static void make_slot(struct tvm *t)
{
	void *p = mmap(NULL, PAGE_2M, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(p, MAP_FAILED);
	slot_delete.slot = t->next_slot++;
	slot_delete.guest_phys_addr = MEMORY;
	slot_add = slot_delete;
	slot_add.memory_size = PAGE_2M;
	slot_add.userspace_addr = (uintptr_t)p;
	ASSERT_OK(ioctl(t->fd, KVM_SET_USER_MEMORY_REGION, &slot_add));
	ASSERT_OK(ioctl(t->fd, KVM_SET_USER_MEMORY_REGION, &slot_delete));
}

static uint64_t op_slot(struct tvm *t)
{
	uint64_t ticks;

	ticks = TIMED_IOCTL(t->fd, KVM_SET_USER_MEMORY_REGION, &slot_add);
	return ticks + TIMED_IOCTL(t->fd, KVM_SET_USER_MEMORY_REGION, &slot_delete) -
	       TIMED("", );
}
ROW(slot, .label = "slot add and delete", .floor = 2500, .target = 6000,
    .setup = make_slot, .host = op_slot)

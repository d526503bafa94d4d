/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints, in /sys/kernel/tracing/events/fonda: entry, exit, fault and
 * injection, as a newcomer follows one exit (see kmod/README.md).
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM fonda

#if !defined(FONDA_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define FONDA_TRACE_H

#include <linux/tracepoint.h>
#include "fonda.h"

TRACE_EVENT(fonda_entry,
	TP_PROTO(struct fonda_vcpu *vcpu),
	TP_ARGS(vcpu),
	TP_STRUCT__entry(__field(int, vcpu) __field(unsigned long, rip)),
	TP_fast_assign(
		__entry->vcpu = vcpu->id;
		__entry->rip = vcpu->rip;
	),
	TP_printk("vcpu %d rip 0x%lx", __entry->vcpu, __entry->rip)
);

/* The exit's code and first information word are the vendor's. */
TRACE_EVENT(fonda_exit,
	TP_PROTO(struct fonda_vcpu *vcpu, u64 code, u64 info),
	TP_ARGS(vcpu, code, info),
	TP_STRUCT__entry(__field(int, vcpu) __field(unsigned long, rip) __field(u64, code)
			 __field(u64, info)),
	TP_fast_assign(
		__entry->vcpu = vcpu->id;
		__entry->rip = vcpu->rip;
		__entry->code = code;
		__entry->info = info;
	),
	TP_printk("vcpu %d rip 0x%lx code 0x%llx info 0x%llx",
		  __entry->vcpu, __entry->rip, __entry->code, __entry->info)
);

/* access: 2 write, 16 fetch. result: FONDA_*, or a negative errno. */
TRACE_EVENT(fonda_fault,
	TP_PROTO(struct fonda_vcpu *vcpu, u64 gpa, u32 access, int result),
	TP_ARGS(vcpu, gpa, access, result),
	TP_STRUCT__entry(__field(int, vcpu) __field(u64, gpa) __field(u32, access)
			 __field(int, result)),
	TP_fast_assign(
		__entry->vcpu = vcpu->id;
		__entry->gpa = gpa;
		__entry->access = access;
		__entry->result = result;
	),
	TP_printk("vcpu %d gpa 0x%llx access %u result %d",
		  __entry->vcpu, __entry->gpa, __entry->access, __entry->result)
);

TRACE_EVENT(fonda_inject,
	TP_PROTO(struct fonda_vcpu *vcpu, u32 vector, u32 error),
	TP_ARGS(vcpu, vector, error),
	TP_STRUCT__entry(__field(int, vcpu) __field(u32, vector) __field(u32, error)),
	TP_fast_assign(
		__entry->vcpu = vcpu->id;
		__entry->vector = vector;
		__entry->error = error;
	),
	TP_printk("vcpu %d vector %u error 0x%x",
		  __entry->vcpu, __entry->vector, __entry->error)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

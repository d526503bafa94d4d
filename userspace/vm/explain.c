// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the explanations of both vendors have in common: counting what was
 * found, and saying it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "../util/util.h"
#include "explain.h"

/* Intel SDM volume 3, "VM-Instruction Error Numbers": those of an entry. */
static const char *instruction_error(uint32_t error)
{
	switch (error) {
	case 4:  return "VMLAUNCH with a VMCS that is not clear";
	case 5:  return "VMRESUME with a VMCS that was not launched";
	case 7:  return "invalid control field";
	case 8:  return "invalid host-state field";
	case 26: return "events blocked by MOV SS";
	default: return "see the manual";
	}
}

/* "VMX Basic Exit Reasons": those of an entry that failed after its start. */
static const char *exit_reason(uint32_t reason)
{
	switch (reason & 0xffff) {
	case 33: return "invalid guest state";
	case 34: return "an MSR could not be loaded";
	case 41: return "machine check during the entry";
	default: return "not a failed entry";
	}
}

void explain_add(struct explain *x, struct finding *f)
{
	f->manual = x->manual;
	f->section = x->section;
	x->count++;
	x->found(x->arg, f);
}

int explain_entry(const struct fonda_failed_entry *e,
		  void (*found)(void *arg, const struct finding *f), void *arg)
{
	struct explain x = { .entry = e, .found = found, .arg = arg };

	if (e->vendor == FONDA_ENTRY_SVM)
		explain_svm(&x);
	else if (e->vendor == FONDA_ENTRY_VMX && e->nr_fields <= FONDA_ENTRY_FIELDS)
		explain_vmx(&x);
	else
		return -EINVAL;
	return x.count;
}

static void print_finding(void *out, const struct finding *f)
{
	int i;

	fprintf(out, "\n  %s\n", f->rule);
	for (i = 0; i < f->nr; i++)
		fprintf(out, "    %-28s 0x%" PRIx64 "\n", f->field[i].name, f->field[i].value);
	fprintf(out, "    %s, \"%s\"\n", f->manual, f->section);
}

int explain_print(const struct fonda_failed_entry *e, FILE *out)
{
	int count;

	if (e->vendor == FONDA_ENTRY_SVM)
		fprintf(out, "VMRUN refused the VMCB (exit code 0x%" PRIx64 ").\n",
			(uint64_t)e->reason);
	else if (e->error)
		fprintf(out, "The processor refused the VMCS: error %u, %s.\n", e->error,
			instruction_error(e->error));
	else
		fprintf(out, "The entry failed: exit reason %u, %s; qualification %" PRIu64 ".\n",
			(unsigned int)(e->reason & 0xffff), exit_reason(e->reason),
			(uint64_t)e->qualification);
	count = explain_entry(e, print_finding, out);
	if (count == 0)
		fprintf(out, "None of the rules known here is broken.\n");
	else if (count > 0)
		fprintf(out, "\n%d rule%s broken.\n", count, count == 1 ? " is" : "s are");
	return count;
}

/* -- files ------------------------------------------------------------------ */

/* What begins a file; the structure follows. */
static const char magic[16] = "fonda-entry 1\n";

static bool write_file(int fd, const struct fonda_failed_entry *e)
{
	return write(fd, magic, sizeof(magic)) == sizeof(magic) &&
	       write(fd, e, sizeof(*e)) == sizeof(*e);
}

int explain_save(const struct fonda_failed_entry *e, char *path, size_t size)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	int fd, ret = 0;

	if (!dir)
		dir = getenv("TMPDIR");
	if ((size_t)snprintf(path, size, "%s/fonda-entry.XXXXXX", dir ? dir : "/tmp") >= size)
		return -ENAMETOOLONG;
	fd = mkstemp(path);
	if (fd < 0)
		return -errno;
	errno = ENOSPC;		/* of a short write */
	if (!write_file(fd, e)) {
		ret = -errno;
		unlink(path);
	}
	close(fd);
	return ret;
}

int explain_load(struct fonda_failed_entry *e, const char *path)
{
	FILE *file = fopen(path, "re");
	char head[sizeof(magic)];
	bool whole;

	if (!file)
		return fail(errno, "cannot open '%s'", path);
	whole = fread(head, sizeof(head), 1, file) == 1 && fread(e, sizeof(*e), 1, file) == 1;
	fclose(file);
	if (!whole || memcmp(head, magic, sizeof(magic)))
		return fail(EINVAL, "'%s' is not the record of a failed entry", path);
	return 0;
}

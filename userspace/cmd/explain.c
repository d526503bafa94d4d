// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fonda explain: why a processor refused to enter a guest, from the record that
 * `fonda run' left.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../util/util.h"
#include "../vm/explain.h"
#include "cmd.h"

static const char help[] =
"Usage: fonda explain FILE\n"
"Say which rules of the processor's manual the control block in FILE breaks.\n"
"\n"
"  -h, --help              this help\n"
"\n"
"FILE was written by 'fonda run' when the processor refused to enter its guest.\n"
"Exit status: 0 a rule was found, 1 none was, or FILE cannot be read, 2 usage.\n";

int cmd_explain(int argc, char **argv)
{
	struct fonda_failed_entry e;
	int count;

	if (argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		fputs(help, stdout);
		return EXIT_OK;
	}
	if (argc != 2) {
		fail(EINVAL, "explain takes the name of one file");
		fprintf(stderr, "Try 'fonda explain --help'.\n");
		return EXIT_USAGE;
	}
	if (explain_load(&e, argv[1]))
		return EXIT_ERROR;
	count = explain_print(&e, stdout);
	if (count < 0)
		fail(-count, "'%s' is of a processor unknown here (vendor %u)", argv[1], e.vendor);
	return count > 0 ? EXIT_OK : EXIT_ERROR;
}

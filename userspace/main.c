// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fonda: the table of verbs.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "util/util.h"

#ifndef FONDA_VERSION
#define FONDA_VERSION	"unknown"
#endif

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} verbs[] = {
	{ "run",	cmd_run,	"boot a kernel, its console on this terminal" },
	{ "doctor",	cmd_doctor,	"check that this machine can run guests" },
	{ "explain",	cmd_explain,	"say why a processor refused to enter a guest" },
};

static void help(FILE *out)
{
	size_t i;

	fprintf(out, "Usage: fonda VERB [OPTION]...\n\n");
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].what);
	fprintf(out, "\n'fonda VERB --help' explains a verb, 'man fonda' everything.\n");
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		help(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("fonda %s\n", FONDA_VERSION);
		return EXIT_OK;
	}
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);

	warn("there is no verb '%s'", argv[1]);
	fprintf(stderr, "Try 'fonda --help'.\n");
	return EXIT_USAGE;
}

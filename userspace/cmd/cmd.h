/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs of the command line. Each gets the arguments from its own name on
 * and returns the exit status of the program.
 */
#ifndef CMD_H
#define CMD_H

/* Exit statuses; the manual page has the same list. */
enum {
	EXIT_OK = 0,		/* the guest powered off; what was asked is done */
	EXIT_ERROR = 1,		/* something of the host failed */
	EXIT_USAGE = 2,		/* the command line makes no sense */
	EXIT_CRASHED = 3,	/* the guest cannot go on; a diagnosis was printed */
	EXIT_RESET = 4,		/* the guest asked for a reset, with --no-reboot */
	EXIT_STOPPED = 5,	/* the user or a signal ended it */
};

int cmd_run(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_explain(int argc, char **argv);

#endif /* CMD_H */

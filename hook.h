// SPDX-License-Identifier: Apache-2.0
/*
 * Child processes: the commands of --pre-publish-hook and --exec-hook. Row 1; calls buf, json, log, sys.
 *
 * A command is the path of one program, or a JSON array of strings ["/bin/x", "arg"]; no shell is involved, nothing is
 * searched, and the path is absolute: what was pulled must not choose what runs. It runs in a process group of its own
 * with /dev/null as stdin, default signals and an empty mask; its stdout and stderr are captured (the last 2 KiB), so
 * that stdout stays ours.
 */
#ifndef FETCHER_HOOK_H
#define FETCHER_HOOK_H

#include <stdatomic.h>

#include "buf.h"
#include "log.h"

struct hook_command {
	char **argv;		/* NULL-terminated, owned */
};

/* CODE_USAGE: empty, no absolute path, not an array of strings, over 64 KiB. The program need not exist yet. */
int hook_parse(const char *text, struct hook_command *ret, struct err *e);
void hook_release(struct hook_command *c);

struct hook_run {
	const char *cwd;		/* NULL = stay */
	/* "NAME=value" in front of this process's own, which lose variables of these names; NULL-terminated; may be NULL */
	const char *const *env;
	uint64_t timeout_ms;		/* then SIGTERM, a second later SIGKILL, both to the group; 0 = none */
	const atomic_int *stop;		/* non-zero: killed at once (SIGKILL), that code is returned */
	struct buf *output;		/* what it said, last 2 KiB; may be NULL */
};

/*
 * Runs it to its end. 0: exit status 0. -1: CODE_POLICY for another status or a signal (the message has it and the last
 * line of the output, escaped), CODE_DEADLINE after the timeout, CODE_USAGE when the program cannot be run (not found, no
 * permission), CODE_LOCAL when there is no memory, process or descriptor for it, CODE_SIGTERM/CODE_SIGINT when stopped.
 * When the program ends, what is left of its process group is killed; what left the group lives on. As PID 1 orphans are
 * reaped here too, when no hook runs. Sets SIGCHLD to its default, and close-on-exec on all descriptors above 2.
 * Any thread; several at once.
 */
int hook_run(const struct hook_command *c, const struct hook_run *o, struct err *e);

#endif

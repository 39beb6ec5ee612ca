// SPDX-License-Identifier: Apache-2.0
/*
 * The tables of options, commands and exit codes: data only. They feed getopt_long, the environment,
 * --help, the man page and README. Row 1; peer: config (the enums and fields).
 */
#ifndef FETCHER_OPTIONS_H
#define FETCHER_OPTIONS_H

#include "config.h"

enum option_type { OPT_BOOL, OPT_STRING, OPT_PATH, OPT_LIST, OPT_DURATION, OPT_SIZE, OPT_UINT, OPT_ENUM };

struct option_info {
	const char *name;		/* without dashes; the variable's name derives from it */
	char letter;			/* -x, or 0 */
	enum option_type type;
	unsigned commands;		/* bits 1 << enum config_command */
	const char *group;		/* heading in help; NULL = hidden, and without a variable */
	const char *arg;		/* FILE, SIZE...; NULL for OPT_BOOL */
	const char *def;		/* default as a user would write it; NULL = unset */
	const char *def_watch;		/* the default of watch where it is another; NULL = def */
	const char *zero;		/* word for 0 ("none"), or NULL: 0 is an ordinary value */
	uint64_t min, max;		/* numbers */
	const char *const *choices;	/* OPT_ENUM, NULL-terminated, in the order of the enum */
	size_t offset;			/* of the field in struct config */
	const char *help;
};
extern const struct option_info option_table[];
extern const size_t option_count;

struct command_info {
	const char *name;
	const char *operands;		/* "REF DEST [REF DEST ...]" */
	const char *summary;
	const char *text;		/* paragraphs */
	const char *const *examples;	/* NULL-terminated: line, comment, line, comment, ... */
};
extern const struct command_info command_table[CMD_COUNT];

struct exit_info {
	enum code code;
	const char *meaning;
	const char *retry;		/* does running it again help: "yes", "no", "" */
};
extern const struct exit_info exit_table[];
extern const size_t exit_count;

/* The default of one command; NULL = unset. */
const char *option_default(const struct option_info *o, enum config_command cmd);
/* FETCHER_FOO_BAR of an option. Returns ret. */
#define OPTION_VARIABLE_MAX 64
const char *option_variable(const struct option_info *o, char ret[static OPTION_VARIABLE_MAX]);

#endif

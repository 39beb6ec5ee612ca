// SPDX-License-Identifier: Apache-2.0
/*
 * Bounded reading of the part of TOML 1.0 that configuration files such as containerd's hosts.toml are written in. Row 0; calls buf, log;
 * peer: json (json_show). Pure.
 *
 * Read: comments, tables, dotted and quoted keys, basic and literal strings of one line, integers in decimal, booleans, arrays (nested,
 * over several lines), inline tables. Refused, with the line: strings over several lines, arrays of tables, NUL in strings. Other
 * numbers, dates and times are kept as they were written. As strict as the specification: keys twice, tables twice, bytes that are
 * not UTF-8, control characters, anything after a value are errors.
 */
#ifndef FETCHER_TOML_H
#define FETCHER_TOML_H

#include "buf.h"
#include "log.h"

enum toml_type { TOML_TABLE = 0, TOML_ARRAY, TOML_STRING, TOML_BOOL, TOML_INTEGER, TOML_OTHER };

struct toml {
	enum toml_type type;
	unsigned line;			/* where it begins, from 1 */
	char *key;			/* in its table, decoded; NULL in an array and of the document itself */
	struct toml *first, *next;	/* members of a table or array, in the order of the file; the next member of the same one */
	char *string;			/* TOML_STRING: UTF-8 without NUL; TOML_OTHER: as written */
	int64_t integer;
	bool boolean;
	unsigned how;			/* of a table, the parser's own: what brought it into being */
};

/*
 * The document, a table; the caller frees it. what names it in messages. CODE_USAGE: "WHAT, line N: ...". Also where it is larger than
 * LIMIT_TOML_NODES values or nested deeper than LIMIT_TOML_DEPTH.
 */
int toml_parse(const char *p, size_t n, const char *what, struct toml **ret, struct err *e);
void toml_free(struct toml *t);
/* A member of a table; NULL: there is none. */
const struct toml *toml_get(const struct toml *table, const char *key);
/* "a string", "a table", ...; for messages */
const char *toml_type_name(enum toml_type type);

#endif

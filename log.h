// SPDX-License-Identifier: Apache-2.0
/*
 * Errors by value and log lines. Row 0; calls buf (its .c). Everyone may use struct err; only
 * fetcher.c, watch.c and pull.c write log lines.
 *
 * A failing function returns -1 and fills the caller's struct err; on success the
 * struct is untouched. No allocation happens on any path here, so running out of
 * memory can be reported like everything else.
 */
#ifndef FETCHER_LOG_H
#define FETCHER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "caps.h"

/* Outcomes; the value is the exit code (README "Exit codes"). */
enum code {
	CODE_OK = 0,
	CODE_USAGE = 2,
	CODE_INTERNAL = 3,
	CODE_NO_SIGNATURE = 10,
	CODE_BAD_SIGNATURE = 12,
	CODE_POLICY = 14,
	CODE_AUTH = 20,
	CODE_NOT_FOUND = 21,
	CODE_INTEGRITY = 22,
	CODE_SPACE = 23,
	CODE_UNSAFE = 24,
	CODE_UNSUPPORTED = 25,
	CODE_NETWORK = 30,
	CODE_DEADLINE = 31,
	CODE_LOCAL = 40,
	CODE_LOCKED = 41,
	CODE_SIGINT = 130,
	CODE_SIGTERM = 143,
};

struct err {
	enum code code;
	int sys_errno;		/* 0 when no system call is to blame */
	int http_status;	/* 0 when no HTTP status is to blame */
	bool retryable;		/* another try inside this process may help */
	uint32_t retry_after_ms; /* what the server asked for; 0 = nothing */
	char msg[LIMIT_ERR_MSG + 24];
};

/* Each returns -1, so that `return err_set(e, ...)` works. e may be NULL. */
int err_set(struct err *e, enum code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Appends ": <strerror(errnum)>". ENOSPC, EDQUOT and EFBIG turn CODE_LOCAL into CODE_SPACE. */
int err_errno(struct err *e, enum code code, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Puts "<text>: " before the message; code and the rest stay. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int err_oom(struct err *e);
/* Name of a code for machines: "ok", "usage", "auth", "not_found", ... */
const char *code_name(enum code code);

enum log_format { LOG_AUTO = 0, LOG_TEXT, LOG_JSON };
enum log_level { LOG_DEBUG = 0, LOG_INFO, LOG_WARN, LOG_ERROR };

/* AUTO: text when stderr is a terminal, else JSON. Call before threads start. */
void log_init(enum log_format format, enum log_level min_level);
bool log_enabled(enum log_level level);
/*
 * One line on stderr: the message and key/value pairs of C strings, NULL-terminated:
 *   log_line(LOG_INFO, "pulled", "digest", d, "bytes", n, NULL);
 * Values that are all digits are written as JSON numbers. Control characters are escaped, each value is
 * cut at 2 KiB, user info and query strings of URLs in values are redacted. Thread safe (one write(2)).
 */
void log_line(enum log_level level, const char *msg, ...) __attribute__((sentinel));
/*
 * The last words: one line on stderr and, where /dev/termination-log exists and is a
 * regular file, the same line there (at most LIMIT_ERR_MSG bytes, valid UTF-8, no control characters).
 */
void log_fatal(const struct err *e);
/* The file log_fatal copies its line to; default /dev/termination-log; "" or NULL = none. Borrowed. */
void log_set_termination_log(const char *path);
/* Called before each line is written, e.g. to wipe a progress bar. NULL = none. */
void log_set_hook(void (*before)(void *), void (*after)(void *), void *arg);
/* Replaces "user:pw@" and "?query" of every http(s) URL inside s, in place. */
void log_redact(char *s);

#endif

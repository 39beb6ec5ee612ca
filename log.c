// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"

#define VALUE_MAX 2048
#define LINE_MAX_BYTES (16 * KIB)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_format sink_format = LOG_TEXT;
static enum log_level min = LOG_INFO;
static void (*hook_before)(void *), (*hook_after)(void *);
static void *hook_arg;

/* --- errors --- */

static void fill(struct err *e, enum code code, const char *fmt, va_list ap)
{
	e->code = code;
	e->sys_errno = 0;
	e->http_status = 0;
	e->retryable = false;
	e->retry_after_ms = 0;
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
}

int err_set(struct err *e, enum code code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, code, fmt, ap);
	va_end(ap);
	return -1;
}

int err_errno(struct err *e, enum code code, int errnum, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, code, fmt, ap);
	va_end(ap);
	e->sys_errno = errnum;
	if (code == CODE_LOCAL && (errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG))
		e->code = CODE_SPACE;
	/* musl's strerror is a table, glibc's is per thread: both may be called from any thread */
	size_t n = strlen(e->msg);
	snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", strerror(errnum));
	return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char old[sizeof(e->msg)];
	va_list ap;

	if (!e)
		return -1;
	memcpy(old, e->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	size_t n = strlen(e->msg);
	snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", old);
	return -1;
}

int err_oom(struct err *e)
{
	return err_set(e, CODE_INTERNAL, "out of memory");
}

const char *code_name(enum code code)
{
	switch (code) {
	case CODE_OK: return "ok";
	case CODE_USAGE: return "usage";
	case CODE_INTERNAL: return "internal";
	case CODE_NO_SIGNATURE: return "no_signature";
	case CODE_BAD_SIGNATURE: return "bad_signature";
	case CODE_POLICY: return "policy";
	case CODE_AUTH: return "auth";
	case CODE_NOT_FOUND: return "not_found";
	case CODE_INTEGRITY: return "integrity";
	case CODE_SPACE: return "space";
	case CODE_UNSAFE: return "unsafe";
	case CODE_UNSUPPORTED: return "unsupported";
	case CODE_NETWORK: return "network";
	case CODE_DEADLINE: return "deadline";
	case CODE_LOCAL: return "local";
	case CODE_LOCKED: return "locked";
	case CODE_SIGINT: return "sigint";
	case CODE_SIGTERM: return "sigterm";
	}
	return "unknown";
}

/* --- text --- */

/* Length of the valid UTF-8 sequence at p (RFC 3629), 0 when invalid. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
	if (p[0] < 0x80)
		return 1;
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
	if (len == 0 || p[0] > 0xf4 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

/* Adds s with everything that could break a line, a terminal or a JSON string escaped. */
static void add_clean(struct buf *b, const char *s, size_t cap, bool json)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strnlen(s, cap + 1);
	bool cut = n > cap;

	if (cut)
		n = cap;
	while (n) {
		size_t len = utf8_len(p, n);
		/* C1 controls (U+0080..U+009F) drive terminals as ESC does */
		bool c1 = len == 2 && p[0] == 0xc2 && p[1] < 0xa0;
		if (len == 0 || c1 || *p < 0x20 || *p == 0x7f) {
			buf_addf(b, json ? "\\u%04x" : "\\x%02x", (unsigned)(c1 ? p[1] : *p));
			len = len ? len : 1;
		} else {
			if (json && (*p == '"' || *p == '\\'))
				buf_addc(b, '\\');
			buf_add(b, p, len);
		}
		p += len;
		n -= len;
	}
	if (cut)
		buf_adds(b, "...");
}

void log_redact(char *s)
{
	static const char *const schemes[] = { "http://", "https://" };
	char *p = s;

	while (*p) {
		size_t skip = 0;
		for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
			if (strncasecmp(p, schemes[i], strlen(schemes[i])) == 0)
				skip = strlen(schemes[i]);
		if (!skip) {
			p++;
			continue;
		}
		p += skip;
		size_t host = strcspn(p, "/?# \t\"'");
		for (size_t i = host; i-- > 0;) {
			if (p[i] == '@') {
				memmove(p, p + i + 1, strlen(p + i + 1) + 1);
				break;
			}
		}
		p += strcspn(p, "?# \t\"'");
		if (*p == '?') {
			size_t query = strcspn(p, " \t\"'");
			memmove(p, p + query, strlen(p + query) + 1);
		}
	}
}

static void add_value(struct buf *b, const char *value, bool json)
{
	char copy[VALUE_MAX + 2];

	snprintf(copy, sizeof(copy), "%s", value);
	log_redact(copy);
	add_clean(b, copy, VALUE_MAX, json);
}

static bool plain_number(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n <= 19 && strspn(s, "0123456789") == n && (n == 1 || s[0] != '0');
}

static void add_time(struct buf *b)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	buf_addf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900, tm.tm_mon + 1,
		 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000);
}

static void emit(int fd, const struct buf *b)
{
	const char *p = b->data;
	size_t n = b->len;

	while (n) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return; /* nowhere left to complain */
		p += w;
		n -= (size_t)w;
	}
}

static void emit_locked(const struct buf *b)
{
	pthread_mutex_lock(&lock);
	if (hook_before)
		hook_before(hook_arg);
	emit(STDERR_FILENO, b);
	if (hook_after)
		hook_after(hook_arg);
	pthread_mutex_unlock(&lock);
}

/* --- lines --- */

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_init(enum log_format format, enum log_level min_level)
{
	if (format == LOG_AUTO)
		format = isatty(STDERR_FILENO) ? LOG_TEXT : LOG_JSON;
	sink_format = format;
	min = min_level;
}

bool log_enabled(enum log_level level)
{
	return level >= min;
}

void log_set_hook(void (*before)(void *), void (*after)(void *), void *arg)
{
	pthread_mutex_lock(&lock);
	hook_before = before;
	hook_after = after;
	hook_arg = arg;
	pthread_mutex_unlock(&lock);
}

static void begin_line(struct buf *b, enum log_level level, const char *msg)
{
	if (sink_format == LOG_JSON) {
		buf_adds(b, "{\"time\":\"");
		add_time(b);
		buf_addf(b, "\",\"level\":\"%s\",\"msg\":\"", level_names[level]);
		add_value(b, msg, true);
		buf_addc(b, '"');
	} else {
		buf_adds(b, level >= LOG_WARN ? "fetcher: " : "");
		buf_adds(b, level == LOG_WARN ? "warning: " : level == LOG_ERROR ? "error: " : "");
		add_value(b, msg, false);
	}
}

static void add_pair(struct buf *b, const char *key, const char *value)
{
	if (sink_format == LOG_JSON) {
		buf_addf(b, ",\"%s\":", key);
		if (plain_number(value)) {
			buf_adds(b, value);
			return;
		}
		buf_addc(b, '"');
		add_value(b, value, true);
		buf_addc(b, '"');
	} else {
		buf_addf(b, " %s=", key);
		bool quote = !*value || strpbrk(value, " \"=");
		if (quote)
			buf_addc(b, '"');
		add_value(b, value, false);
		if (quote)
			buf_addc(b, '"');
	}
}

void log_line(enum log_level level, const char *msg, ...)
{
	_cleanup_buf_ struct buf b = BUF_INIT(LINE_MAX_BYTES);
	va_list ap;

	if (level < min)
		return;
	begin_line(&b, level, msg);
	va_start(ap, msg);
	for (const char *key; (key = va_arg(ap, const char *));) {
		const char *value = va_arg(ap, const char *);
		add_pair(&b, key, value ? value : "");
	}
	va_end(ap);
	buf_adds(&b, sink_format == LOG_JSON ? "}\n" : "\n");
	if (!b.failed)
		emit_locked(&b);
}

static const char *termination_path = "/dev/termination-log";

void log_set_termination_log(const char *path)
{
	termination_path = path;
}

/* Only into a file that the kubelet made: regular, and never created or followed by us. */
static void write_termination_log(const struct buf *line)
{
	struct stat st;

	if (!termination_path || !*termination_path)
		return;
	int fd = open(termination_path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) == 0)
		emit(fd, line);
	close(fd);
}

void log_fatal(const struct err *e)
{
	_cleanup_buf_ struct buf line = BUF_INIT(LIMIT_ERR_MSG);
	_cleanup_buf_ struct buf clean = BUF_INIT(8 * sizeof(e->msg));
	char code[16], copy[sizeof(e->msg)];

	snprintf(copy, sizeof(copy), "%s", e->msg);
	log_redact(copy);
	add_clean(&clean, copy, sizeof(copy), false);
	/* a cut must not split a UTF-8 sequence */
	size_t n = MIN(clean.len, (size_t)LIMIT_ERR_MSG - 32);
	while (n && n < clean.len && ((unsigned char)clean.data[n] & 0xc0) == 0x80)
		n--;
	buf_addf(&line, "fetcher: %.*s (exit %d)", (int)n, buf_cstr(&clean), (int)e->code);
	if (sink_format == LOG_JSON) {
		snprintf(code, sizeof(code), "%d", (int)e->code);
		log_line(LOG_ERROR, copy, "code", code, "reason", code_name(e->code), NULL);
	} else {
		buf_addc(&line, '\n');
		emit_locked(&line);
	}
	write_termination_log(&line);
}

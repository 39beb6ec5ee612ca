// SPDX-License-Identifier: Apache-2.0
#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "log.h"
#include "sys.h"
#include "units.h"

#define DRAW_MS 200
#define LOG_MS 10000
#define SPEED_WINDOW_MS 5000	/* speed is the mean over about so long */
#define QUEUE_BYTES (256 * KIB)	/* file lines waiting for the next draw; more are dropped */
#define BAR_COLUMNS 20		/* at most; a quarter at least */
#define LABEL_COLUMNS 12	/* at least; a narrower terminal gets none */

enum style { STYLE_OFF = 0, STYLE_BAR, STYLE_LOG };

/*
 * The lock guards everything below. It is taken inside the log's own lock (by the hooks), so that
 * no log function may be called while it is held.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum style style;
static struct progress_state state;
static char label[256];
static bool on_screen;
static struct buf queue;	/* finished files, as lines */
static uint64_t queue_dropped;
static uint64_t draw_ms, log_ms;	/* last time */
static uint64_t mark_ms, mark_wire;	/* the speed window */

/* --- text --- */

/* Decodes one character. Returns its length, 0 when the bytes are no UTF-8 (RFC 3629). */
static size_t decode(const unsigned char *p, uint32_t *ret)
{
	uint32_t c = p[0];
	size_t n;

	if (c < 0x80) {
		*ret = c;
		return 1;
	}
	if (c >= 0xc2 && c < 0xe0)
		n = 2, c &= 0x1f;
	else if (c >= 0xe0 && c < 0xf0)
		n = 3, c &= 0x0f;
	else if (c >= 0xf0 && c < 0xf5)
		n = 4, c &= 0x07;
	else
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0; /* the terminating NUL ends here, too */
		c = c << 6 | (p[i] & 0x3f);
	}
	if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) ||
	    (c >= 0xd800 && c < 0xe000))
		return 0;
	*ret = c;
	return n;
}

/* Characters that move the cursor, hide, or turn text around (Unicode Cc, Cf and line separators). */
static bool unsafe_char(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x061c || c == 0x180e ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
	       (c >= 0xe0000 && c <= 0xe007f);
}

/* Escapes one character into ret; returns bytes of s taken, *ret_cols columns used. */
static size_t escape_one(const unsigned char *s, char ret[static 20], size_t *ret_cols)
{
	uint32_t c = 0;
	size_t n = decode(s, &c), at = 0;

	if (n && !unsafe_char(c)) {
		memcpy(ret, s, n);
		ret[n] = '\0';
		*ret_cols = 1;
		return n;
	}
	n = n ? n : 1;
	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(ret + at, 20 - at, "\\x%02x", s[i]);
	*ret_cols = 4 * n;
	return n;
}

void progress_escape(struct buf *b, const char *s, size_t max_cols)
{
	char one[20];
	size_t cols = 0, skip = 0, n;

	for (const unsigned char *p = (const unsigned char *)s; *p; p += escape_one(p, one, &n), cols += n)
		;
	if (max_cols && cols > max_cols) {
		skip = cols - max_cols + MIN(max_cols, (size_t)3);
		buf_add(b, "...", MIN(max_cols, (size_t)3));
	}
	cols = 0;
	for (const unsigned char *p = (const unsigned char *)s; *p;) {
		size_t taken = escape_one(p, one, &n);
		if (cols >= skip)
			buf_adds(b, one);
		cols += n;
		p += taken;
	}
}

static unsigned percent(uint64_t done, uint64_t total)
{
	if (total == 0 || done >= total)
		return 100;
	return total > UINT64_MAX / 100 ? (unsigned)(done / (total / 100)) : (unsigned)(done * 100 / total);
}

/* Columns of a line of ours: every byte that does not continue a character. */
static size_t columns_of(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void add_figures(struct buf *b, const struct progress_state *s)
{
	buf_addf(b, " %3u%%  ", percent(s->done, s->total_bytes));
	units_add_bytes(b, s->done);
	buf_adds(b, " / ");
	units_add_bytes(b, s->total_bytes);
	if (s->total_files > 1)
		buf_addf(b, "  %llu/%llu files", (unsigned long long)s->files,
			 (unsigned long long)s->total_files);
	if (s->speed) {
		buf_adds(b, "  ");
		units_add_bytes(b, s->speed);
		buf_adds(b, "/s");
	}
	if (s->speed && s->done < s->total_bytes) {
		buf_adds(b, "  ETA ");
		units_add_seconds(b, (s->total_bytes - s->done) / s->speed);
	}
}

void progress_render(struct buf *b, const struct progress_state *s, size_t columns)
{
	_cleanup_buf_ struct buf figures = BUF_INIT(1024);
	size_t used, full;

	add_figures(&figures, s);
	used = columns_of(buf_cstr(&figures));
	if (used > columns) {
		buf_add(b, buf_cstr(&figures), MIN(columns, figures.len));
		return;
	}
	size_t rest = columns - used, bar = MIN(rest > 2 ? rest - 2 : 0, (size_t)BAR_COLUMNS);
	if (rest >= bar + 2 + LABEL_COLUMNS + 1) {
		progress_escape(b, s->label, rest - bar - 3);
		buf_addc(b, ' ');
	}
	if (bar >= BAR_COLUMNS / 4) {
		full = percent(s->done, s->total_bytes) * bar / 100;
		buf_addc(b, '[');
		for (size_t i = 0; i < bar; i++)
			buf_addc(b, i < full ? '=' : i == full ? '>' : ' ');
		buf_addc(b, ']');
	}
	buf_adds(b, buf_cstr(&figures));
}

/* --- the screen; the lock is held --- */

static void put(const struct buf *b)
{
	size_t at = 0;

	while (at < b->len) {
		ssize_t n = write(STDERR_FILENO, b->data + at, b->len - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		at += (size_t)n;
	}
}

static size_t screen_columns(void)
{
	struct winsize w = { 0 };

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_col < 10)
		return 80;
	return MIN((size_t)w.ws_col, (size_t)400);
}

static void wipe(struct buf *b)
{
	if (on_screen)
		buf_adds(b, "\r\033[K");
	on_screen = false;
}

/* File lines first, then the bar below them, in one write. */
static void draw(bool with_bar)
{
	_cleanup_buf_ struct buf b = BUF_INIT(QUEUE_BYTES + 8 * KIB);

	wipe(&b);
	if (queue.len)
		buf_add(&b, queue.data, queue.len);
	if (queue_dropped)
		buf_addf(&b, "  ... and %llu more files\n", (unsigned long long)queue_dropped);
	buf_clear(&queue);
	queue_dropped = 0;
	if (with_bar) {
		/* the last column stays free: some terminals wrap as soon as it is written */
		progress_render(&b, &state, screen_columns() - 1);
		on_screen = true;
	}
	put(&b);
}

/*
 * The log's hooks: the bar leaves the line, and nobody draws it again before the log line stands
 * there. The next update brings it back.
 */
static void before_log(void *arg)
{
	_cleanup_buf_ struct buf b = BUF_INIT(64);

	(void)arg;
	pthread_mutex_lock(&lock);
	wipe(&b);
	put(&b);
	draw_ms = 0;
}

static void after_log(void *arg)
{
	(void)arg;
	pthread_mutex_unlock(&lock);
}

/* --- speed --- */

/* A window that slides by halves: the mean since `mark`, which moves on when it is old. */
static void measure(uint64_t now, uint64_t wire)
{
	uint64_t ms = now - mark_ms;

	if (wire < mark_wire) {
		mark_ms = now;
		mark_wire = wire;
		return;
	}
	if (ms < 500)
		return;
	uint64_t mean = (uint64_t)((double)(wire - mark_wire) * 1000 / (double)ms);
	/* what was shown before fades: the window has no memory of its own after it moved */
	state.speed = state.speed ? (state.speed * 3 + mean) / 4 : mean;
	if (ms >= SPEED_WINDOW_MS) {
		mark_ms = now;
		mark_wire = wire;
	}
}

/* --- the interface --- */

void progress_init(enum progress_mode mode, const char *name, uint64_t total_bytes, uint64_t total_files)
{
	bool terminal = isatty(STDERR_FILENO);

	pthread_mutex_lock(&lock);
	snprintf(label, sizeof(label), "%s", name);
	state = (struct progress_state){
		.label = label, .total_bytes = total_bytes, .total_files = total_files,
	};
	style = mode == PROGRESS_NEVER ? STYLE_OFF :
		mode == PROGRESS_ALWAYS || terminal ? STYLE_BAR : STYLE_LOG;
	buf_init(&queue, QUEUE_BYTES);
	queue_dropped = 0;
	on_screen = false;
	draw_ms = 0;
	log_ms = mark_ms = sys_now_ms();
	mark_wire = 0;
	pthread_mutex_unlock(&lock);
	if (style == STYLE_BAR)
		log_set_hook(before_log, after_log, NULL);
}

static void log_state(const struct progress_state *s)
{
	char bytes[24], total[24], part[8], speed[24], eta[24], files[24];

	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)s->done);
	snprintf(total, sizeof(total), "%llu", (unsigned long long)s->total_bytes);
	snprintf(part, sizeof(part), "%u", percent(s->done, s->total_bytes));
	snprintf(speed, sizeof(speed), "%llu", (unsigned long long)s->speed);
	snprintf(files, sizeof(files), "%llu", (unsigned long long)s->files);
	snprintf(eta, sizeof(eta), "%llu",
		 (unsigned long long)(s->speed ? (s->total_bytes - MIN(s->done, s->total_bytes)) / s->speed : 0));
	log_line(LOG_INFO, "pulling", "ref", s->label, "bytes", bytes, "total", total, "percent", part,
		 "files", files, "bytesPerSecond", speed, s->speed ? "etaSeconds" : NULL, eta, NULL);
}

void progress_update(uint64_t done, uint64_t wire, uint64_t files)
{
	uint64_t now = sys_now_ms();
	struct progress_state copy;
	bool say = false;

	pthread_mutex_lock(&lock);
	if (style == STYLE_OFF) {
		pthread_mutex_unlock(&lock);
		return;
	}
	state.done = MIN(done, state.total_bytes);
	state.files = files;
	measure(now, wire);
	if (style == STYLE_BAR && (!draw_ms || now - draw_ms >= DRAW_MS)) {
		draw(true);
		draw_ms = now;
	} else if (style == STYLE_LOG && now - log_ms >= LOG_MS) {
		log_ms = now;
		say = true;
	}
	copy = state;
	pthread_mutex_unlock(&lock);
	if (say)
		log_state(&copy);
}

void progress_file_done(const char *path, uint64_t size)
{
	_cleanup_buf_ struct buf line = BUF_INIT(4 * LIMIT_PATH + 64);

	pthread_mutex_lock(&lock);
	if (style == STYLE_BAR) {
		buf_adds(&line, "  ");
		progress_escape(&line, path, 60);
		buf_adds(&line, "  ");
		units_add_bytes(&line, size);
		buf_addc(&line, '\n');
		if (line.failed || line.len > queue.max - queue.len || buf_add(&queue, line.data, line.len))
			queue_dropped++;
	}
	pthread_mutex_unlock(&lock);
}

void progress_end(void)
{
	bool bar;

	pthread_mutex_lock(&lock);
	bar = style == STYLE_BAR;
	if (bar)
		draw(false);
	style = STYLE_OFF;
	buf_release(&queue);
	pthread_mutex_unlock(&lock);
	if (bar)
		log_set_hook(NULL, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include "metrics.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "progress.h"
#include "sys.h"
#include "version.h"

#define TEXT_MAX 1025		/* 1 KiB and the NUL */
#define SINKS 16
#define SERVERS 20
#define SAMPLES 20
#define SAMPLE_MS 500		/* at least so far apart: the ring reaches back 10 s */
#define WINDOW_MS 10000
#define STATUS_MAX 16384	/* of the JSON object's fixed part; strings may take more */

enum phase { STARTING = 0, CHECKING, PULLING, IDLE, FAILING };
static const char *const phase_names[] = { "starting", "checking", "pulling", "idle", "failing" };
static const char *const result_names[] = { "success", "noop", "error", "veto" };

struct sample {
	uint64_t ms, wire;
};

struct sink {
	char name[64];
	uint64_t ok, failed;
};

struct server {
	char name[256];
	struct metrics_server n;
};

struct state {
	enum phase phase;
	char ref[TEXT_MAX], dest[TEXT_MAX];
	/* what stands on the volume */
	char digest[TEXT_MAX], previous[TEXT_MAX], published_at[40];
	uint64_t generation, bytes, files;
	/* the running pull, or the last one */
	char plan_digest[TEXT_MAX];
	uint64_t plan_bytes, plan_files;
	uint64_t done, wire, done_files;
	struct sample samples[SAMPLES];	/* a ring; next_sample is where the oldest one goes */
	size_t n_samples, next_sample;
	/* since the start of the process */
	uint64_t results[ARRAY_SIZE(result_names)];
	uint64_t wire_total, integrity, failures;
	uint64_t passes, passes_ms, last_ms;	/* ended ones: how many, together, the last one */
	int64_t last_success;			/* seconds since 1970; 0 = none */
	struct {
		enum code code;			/* CODE_OK = there was none */
		char msg[LIMIT_ERR_MSG + 24];
		char at[32];
	} error;
	uint64_t versions, versions_bytes;
	struct sink sinks[SINKS];
	size_t n_sinks;
	struct server servers[SERVERS];
	size_t n_servers;
	/* sys_now_ms clock */
	uint64_t idle_until;			/* 0 = not said */
	uint64_t allowance;
	uint64_t called_ms, changed_ms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct state state;

/* Every writing function: in between, the state is the caller's. */
static struct state *enter(void)
{
	pthread_mutex_lock(&lock);
	state.called_ms = state.changed_ms = sys_now_ms();
	return &state;
}

static void leave(void)
{
	pthread_mutex_unlock(&lock);
}

static void copy_state(struct state *ret)
{
	pthread_mutex_lock(&lock);
	*ret = state;
	pthread_mutex_unlock(&lock);
}

static void put(char *ret, size_t n, const char *s)
{
	snprintf(ret, n, "%s", s ? s : "");
	log_redact(ret);
}

static bool running(const struct state *s)
{
	return s->phase == CHECKING || s->phase == PULLING;
}

/* --- speed --- */

static void add_sample(struct state *s, uint64_t now)
{
	s->samples[s->next_sample] = (struct sample){ now, s->wire };
	s->next_sample = (s->next_sample + 1) % SAMPLES;
	s->n_samples = MIN(s->n_samples + 1, (size_t)SAMPLES);
}

/*
 * Bytes per second: the mean since the oldest sample that is no older than the window. 0 before
 * there is enough to say anything, and when nothing was heard of for so long.
 */
static uint64_t speed(const struct state *s, uint64_t now)
{
	if (s->phase != PULLING)
		return 0;
	for (size_t i = 0; i < s->n_samples; i++) {
		const struct sample *a =
			&s->samples[(s->next_sample + SAMPLES - s->n_samples + i) % SAMPLES];
		if (now < a->ms || now - a->ms > WINDOW_MS)
			continue;
		if (now - a->ms < SAMPLE_MS || s->wire < a->wire)
			break;
		return (uint64_t)((double)(s->wire - a->wire) * 1000 / (double)(now - a->ms));
	}
	return 0;
}

/* Seconds until the running pull has everything; -1 = not known. */
static int64_t remaining(const struct state *s, uint64_t now)
{
	if (s->phase != PULLING)
		return *s->digest ? 0 : -1;
	if (s->done >= s->plan_bytes)
		return 0;
	uint64_t v = speed(s, now);
	uint64_t secs = v ? (s->plan_bytes - s->done) / v : 0;
	return v && secs <= INT64_MAX ? (int64_t)secs : -1;
}

/* --- what happens --- */

void metrics_begin(const char *ref, const char *dest)
{
	struct state *s = enter();

	s->phase = CHECKING;
	put(s->ref, sizeof(s->ref), ref);
	put(s->dest, sizeof(s->dest), dest);
	s->done = s->wire = s->done_files = 0;
	s->n_samples = 0;
	leave();
}

void metrics_plan(const char *digest, uint64_t bytes, uint64_t files)
{
	struct state *s = enter();

	s->phase = PULLING;
	put(s->plan_digest, sizeof(s->plan_digest), digest);
	s->plan_bytes = bytes;
	s->plan_files = files;
	s->done = s->done_files = 0;
	s->n_samples = 0;
	add_sample(s, s->changed_ms);
	leave();
}

void metrics_progress(uint64_t done, uint64_t wire, uint64_t files)
{
	uint64_t now = sys_now_ms();

	pthread_mutex_lock(&lock);
	struct state *s = &state;
	s->called_ms = now;
	if (done != s->done || wire != s->wire || files != s->done_files)
		s->changed_ms = now;
	/* counted from zero again: another run that nobody announced */
	s->wire_total += wire >= s->wire ? wire - s->wire : wire;
	if (wire < s->wire)
		s->n_samples = 0;
	s->done = done;
	s->wire = wire;
	s->done_files = files;
	size_t last = (s->next_sample + SAMPLES - 1) % SAMPLES;
	if (s->n_samples == 0 || now - s->samples[last].ms >= SAMPLE_MS)
		add_sample(s, now);
	pthread_mutex_unlock(&lock);
}

void metrics_end(enum metrics_result result, const struct err *e, uint64_t ms)
{
	struct state *s = enter();
	bool good = result == METRICS_PUBLISHED || result == METRICS_NOOP;

	if ((size_t)result >= ARRAY_SIZE(result_names)) {	/* METRICS_STOPPED: as it was before */
		s->phase = s->failures ? FAILING : s->passes ? IDLE : STARTING;
		leave();
		return;
	}
	s->phase = good ? IDLE : FAILING;
	s->results[result]++;
	s->passes++;
	s->passes_ms += ms;
	s->last_ms = ms;
	s->failures = good ? 0 : s->failures + 1;
	if (good)
		s->last_success = (int64_t)time(NULL);
	if (!good && e && e->code != CODE_OK) {
		s->error.code = e->code;
		put(s->error.msg, sizeof(s->error.msg), e->msg);
		sys_timestamp(s->error.at);
		s->integrity += e->code == CODE_INTEGRITY;
	}
	leave();
}

void metrics_published(const char *digest, const char *previous, uint64_t generation, uint64_t bytes,
		       uint64_t files, const char *published_at)
{
	struct state *s = enter();

	put(s->digest, sizeof(s->digest), digest);
	put(s->previous, sizeof(s->previous), previous);
	put(s->published_at, sizeof(s->published_at), published_at);
	s->generation = generation;
	s->bytes = bytes;
	s->files = files;
	leave();
}

void metrics_versions(uint64_t n, uint64_t bytes)
{
	struct state *s = enter();

	s->versions = n;
	s->versions_bytes = bytes;
	leave();
}

void metrics_notified(const char *sink, bool ok)
{
	struct state *s = enter();
	size_t i = 0;

	while (i < s->n_sinks && strncmp(s->sinks[i].name, sink, sizeof(s->sinks[i].name) - 1) != 0)
		i++;
	if (i == s->n_sinks && i < SINKS) {
		/* the last place is for all that come too late */
		put(s->sinks[i].name, sizeof(s->sinks[i].name), i < SINKS - 1 ? sink : "other");
		s->n_sinks++;
	}
	i = MIN(i, (size_t)SINKS - 1);
	s->sinks[i].ok += ok;
	s->sinks[i].failed += !ok;
	leave();
}

void metrics_served(const char *server, const struct metrics_server *more)
{
	struct state *s = enter();
	size_t i = 0;

	while (i < s->n_servers && strncmp(s->servers[i].name, server, sizeof(s->servers[i].name) - 1) != 0)
		i++;
	if (i == s->n_servers && i < SERVERS) {
		/* the last place is for all that come too late */
		put(s->servers[i].name, sizeof(s->servers[i].name), i < SERVERS - 1 ? server : "other");
		s->n_servers++;
	}
	struct metrics_server *n = &s->servers[MIN(i, (size_t)SERVERS - 1)].n;
	n->bytes += more->bytes;
	n->requests += more->requests;
	n->misses += more->misses;
	n->fallbacks += more->fallbacks;
	n->hits += more->hits;
	leave();
}

void metrics_idle_until(uint64_t at_ms)
{
	enter()->idle_until = at_ms;
	leave();
}

void metrics_allowance(uint64_t allowance_ms)
{
	enter()->allowance = allowance_ms;
	leave();
}

bool metrics_stalled(void)
{
	uint64_t now = sys_now_ms(), from, due;

	pthread_mutex_lock(&lock);
	from = running(&state) ? state.changed_ms : MAX(state.idle_until, state.called_ms);
	bool late = state.allowance && u64_add(from, state.allowance, &due) && now > due;
	pthread_mutex_unlock(&lock);
	return late;
}

/* --- Prometheus --- */

/*
 * A label's value: backslash, quote and line feed as the format has them; whatever else is no
 * printable UTF-8 as \xNN, since one wrong byte would cost the whole scrape.
 */
static void add_label(struct buf *b, const char *name, const char *value, bool first)
{
	_cleanup_buf_ struct buf clean = BUF_INIT(4 * TEXT_MAX);

	progress_escape(&clean, value, 0);
	buf_addf(b, "%s%s=\"", first ? "{" : ",", name);
	for (const char *p = buf_cstr(&clean); *p; p++) {
		if (*p == '"' || *p == '\\')
			buf_addc(b, '\\');
		buf_addc(b, *p);
	}
	buf_addc(b, '"');
}

static void add_head(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_value(struct buf *b, const char *name, const char *type, const char *help, uint64_t v)
{
	add_head(b, name, type, help);
	buf_addf(b, "%s %llu\n", name, (unsigned long long)v);
}

static void add_seconds(struct buf *b, const char *name, uint64_t ms)
{
	buf_addf(b, "%s %llu.%03u\n", name, (unsigned long long)(ms / 1000), (unsigned)(ms % 1000));
}

/* Seconds since 1970 of the marker's "2026-01-02T03:04:05Z"; 0 when it is none. */
static int64_t parse_timestamp(const char *s)
{
	static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
	struct tm tm = { 0 };
	int *const fields[] = { &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
				&tm.tm_sec };
	size_t field = 0;

	if (strlen(s) != sizeof(form) - 1)
		return 0;
	for (size_t i = 0; form[i]; i++) {
		if (form[i] != 'd') {
			if (s[i] != form[i])
				return 0;
			field++;
		} else if (s[i] < '0' || s[i] > '9') {
			return 0;
		} else {
			*fields[field] = *fields[field] * 10 + (s[i] - '0');
		}
	}
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	time_t t = timegm(&tm);
	return t > 0 ? (int64_t)t : 0;
}

static void add_passes(struct buf *b, const struct state *s)
{
	const char *name = "fetcher_sync_total";

	add_head(b, name, "counter", "Pulls and checks that ended, by result.");
	for (size_t i = 0; i < ARRAY_SIZE(result_names); i++)
		buf_addf(b, "%s{result=\"%s\"} %llu\n", name, result_names[i],
			 (unsigned long long)s->results[i]);
	name = "fetcher_sync_duration_seconds";
	add_head(b, name, "summary", "How long pulls and checks took.");
	add_seconds(b, "fetcher_sync_duration_seconds_sum", s->passes_ms);
	buf_addf(b, "%s_count %llu\n", name, (unsigned long long)s->passes);
	name = "fetcher_last_sync_duration_seconds";
	add_head(b, name, "gauge", "How long the last pull or check took.");
	add_seconds(b, name, s->last_ms);
	add_value(b, "fetcher_consecutive_failures", "gauge",
		  "Passes in a row that ended in error or veto.", s->failures);
	add_value(b, "fetcher_verify_failures_total", "counter",
		  "Passes that ended because a size or digest was wrong.", s->integrity);
	add_value(b, "fetcher_last_success_timestamp_seconds", "gauge",
		  "When a pass last ended well; 0 = not yet.", (uint64_t)s->last_success);
}

static void add_pull_series(struct buf *b, const struct state *s, uint64_t now)
{
	const char *name = "kaito_model_download_remaining_seconds";

	add_value(b, "fetcher_bytes_total", "counter", "Bytes of blobs received.", s->wire_total);
	add_value(b, "fetcher_bytes_expected", "gauge",
		  "Bytes of the running pull, or of the last one.", s->plan_bytes);
	add_value(b, "fetcher_bytes_done", "gauge",
		  "Bytes of them that are on the volume.", MIN(s->done, s->plan_bytes));
	add_value(b, "fetcher_files_expected", "gauge",
		  "Files of the running pull, or of the last one.", s->plan_files);
	add_value(b, "fetcher_files_done", "gauge", "Files of them that are finished.",
		  MIN(s->done_files, s->plan_files));
	add_value(b, "kaito_model_download_speed_bytes_per_second", "gauge",
		  "Bytes received per second, mean of the last seconds; 0 without a running pull.",
		  speed(s, now));
	add_head(b, name, "gauge", "Seconds until the running pull has everything; -1 = not known.");
	buf_addf(b, "%s %lld\n", name, (long long)remaining(s, now));
}

static void add_volume(struct buf *b, const struct state *s)
{
	add_head(b, "fetcher_info", "gauge", "What is asked for, and what stands on the volume.");
	buf_adds(b, "fetcher_info");
	add_label(b, "ref", s->ref, true);
	add_label(b, "digest", s->digest, false);
	add_label(b, "version", FETCHER_VERSION, false);
	buf_adds(b, "} 1\n");
	add_value(b, "fetcher_generation", "gauge", "Publications on this volume so far.", s->generation);
	add_value(b, "fetcher_published_timestamp_seconds", "gauge",
		  "When what stands on the volume was published; 0 = nothing was, or not known.",
		  (uint64_t)parse_timestamp(s->published_at));
	add_value(b, "fetcher_published_bytes", "gauge", "Bytes of what stands on the volume.", s->bytes);
	add_value(b, "fetcher_published_files", "gauge", "Files of what stands on the volume.", s->files);
	add_value(b, "fetcher_versions", "gauge", "Versions on the volume, old ones included.", s->versions);
	add_value(b, "fetcher_versions_bytes", "gauge", "Bytes of these versions.", s->versions_bytes);
}

static void add_sinks(struct buf *b, const struct state *s)
{
	if (s->n_sinks == 0)
		return;
	add_head(b, "fetcher_notify_total", "counter", "Tries to notify, by kind and result.");
	for (size_t i = 0; i < s->n_sinks; i++) {
		for (int ok = 1; ok >= 0; ok--) {
			buf_adds(b, "fetcher_notify_total");
			add_label(b, "sink", s->sinks[i].name, true);
			buf_addf(b, ",result=\"%s\"} %llu\n", ok ? "success" : "error",
				 (unsigned long long)(ok ? s->sinks[i].ok : s->sinks[i].failed));
		}
	}
}

static void add_servers(struct buf *b, const struct state *s)
{
	static const struct {
		const char *name, *help;
		size_t offset;
	} series[] = {
		{ "fetcher_server_bytes_total", "Bytes of blobs received, by the server that was asked.",
		  offsetof(struct metrics_server, bytes) },
		{ "fetcher_server_requests_total", "Requests for blobs, by server.", offsetof(struct metrics_server, requests) },
		{ "fetcher_server_misses_total", "Blobs that a mirror did not have.", offsetof(struct metrics_server, misses) },
		{ "fetcher_server_fallbacks_total", "Blobs taken away from a mirror because of trouble.",
		  offsetof(struct metrics_server, fallbacks) },
		{ "fetcher_server_hits_total", "Answers that a peer-to-peer proxy had at hand.", offsetof(struct metrics_server, hits) },
	};

	for (size_t k = 0; s->n_servers && k < ARRAY_SIZE(series); k++) {
		add_head(b, series[k].name, "counter", series[k].help);
		for (size_t i = 0; i < s->n_servers; i++) {
			buf_adds(b, series[k].name);
			add_label(b, "server", s->servers[i].name, true);
			buf_addf(b, "} %llu\n",
				 (unsigned long long)*(const uint64_t *)((const char *)&s->servers[i].n + series[k].offset));
		}
	}
}

static uint64_t resident_bytes(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT(4096);
	uint64_t pages = 0;

	if (sys_read_file(AT_FDCWD, "/proc/self/statm", &b) || !b.len)
		return 0;
	const char *p = strchr(b.data, ' ');	/* "size resident shared ..." */
	if (!p || !str_u64((struct str){ p + 1, strcspn(p + 1, " \n") }, &pages))
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!d)
		return 0;
	for (struct dirent *entry; (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	closedir(d);
	return n - (n > 0);	/* that of the list itself */
}

static void add_process(struct buf *b)
{
	const char *name = "process_cpu_seconds_total";
	struct rusage r = { 0 };

	getrusage(RUSAGE_SELF, &r);
	add_head(b, name, "counter", "CPU time of this process, user and system.");
	uint64_t us = (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
	add_seconds(b, name, (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 + us / 1000);
	add_value(b, "process_resident_memory_bytes", "gauge", "Memory of this process.",
		  resident_bytes());
	add_value(b, "process_open_fds", "gauge", "Open descriptors of this process.", open_fds());
}

static void render(struct buf *b, bool process)
{
	struct state s;
	uint64_t now = sys_now_ms();

	copy_state(&s);
	add_volume(b, &s);
	add_passes(b, &s);
	add_pull_series(b, &s, now);
	add_sinks(b, &s);
	add_servers(b, &s);
	if (process)
		add_process(b);
}

void metrics_prometheus(struct buf *ret)
{
	render(ret, true);
}

int metrics_write_file(const char *path, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(64 * KIB), dir = BUF_INIT(LIMIT_PATH);
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	_cleanup_close_ int fd = -1;
	char shown[256];

	json_show(str_of(path), shown, sizeof(shown));
	if (slash == path)
		buf_adds(&dir, "/");
	else if (slash)
		buf_add(&dir, path, (size_t)(slash - path));
	else
		buf_adds(&dir, ".");
	render(&text, false);
	if (text.failed)
		return err_oom(e);
	if (dir.failed || !*name)
		return err_set(e, CODE_LOCAL, "cannot write %s: not the name of a file", shown);
	fd = sys_open_dir(buf_cstr(&dir), 0);
	if (fd < 0 || sys_replace_file(fd, name, text.data, text.len, 0644, false) < 0)
		return err_errno(e, CODE_LOCAL, errno, "cannot write %s", shown);
	return 0;
}

/* --- JSON --- */

/* "" = not known. */
static void add_text(struct buf *b, const char *key, const char *s)
{
	json_add_text(b, key, *s ? s : NULL);
}

static void add_number_if(struct buf *b, const char *key, bool known, uint64_t v)
{
	if (known)
		json_add_number(b, key, v);
	else
		add_text(b, key, "");
}

static void add_pull(struct buf *b, const struct state *s, uint64_t now)
{
	int64_t eta = remaining(s, now);

	if (s->phase != PULLING) {
		add_text(b, "pull", "");
		return;
	}
	json_add_key(b, "pull");
	buf_addc(b, '{');
	add_text(b, "digest", s->plan_digest);
	json_add_number(b, "bytes", MIN(s->done, s->plan_bytes));
	json_add_number(b, "total", s->plan_bytes);
	json_add_number(b, "files", MIN(s->done_files, s->plan_files));
	json_add_number(b, "filesTotal", s->plan_files);
	json_add_number(b, "received", s->wire);
	json_add_number(b, "bytesPerSecond", speed(s, now));
	add_number_if(b, "etaSeconds", eta >= 0, (uint64_t)eta);
	buf_addc(b, '}');
}

static void add_error(struct buf *b, const struct state *s)
{
	if (s->error.code == CODE_OK) {
		add_text(b, "lastError", "");
		return;
	}
	json_add_key(b, "lastError");
	buf_addc(b, '{');
	json_add_number(b, "code", (uint64_t)s->error.code);
	add_text(b, "name", code_name(s->error.code));
	add_text(b, "message", s->error.msg);
	add_text(b, "at", s->error.at);
	buf_addc(b, '}');
}

static void add_last_success(struct buf *b, const struct state *s)
{
	time_t t = (time_t)s->last_success;
	char at[32] = "";
	struct tm tm;

	if (t && gmtime_r(&t, &tm))
		strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", &tm);
	add_text(b, "lastSuccess", at);
}

static void add_next_check(struct buf *b, const struct state *s, uint64_t now)
{
	bool known = !running(s) && s->idle_until && s->idle_until != UINT64_MAX;
	uint64_t ms = known && s->idle_until > now ? s->idle_until - now : 0;

	add_number_if(b, "nextCheckSeconds", known, ms / 1000 + (ms % 1000 != 0));
}

void metrics_status(struct buf *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT(STATUS_MAX + 6 * sizeof(struct state));
	uint64_t now = sys_now_ms();
	struct state s;

	copy_state(&s);
	buf_addc(&b, '{');
	json_add_number(&b, "schema", 1);
	add_text(&b, "version", FETCHER_VERSION);
	add_text(&b, "phase", phase_names[s.phase]);
	add_text(&b, "ref", s.ref);
	add_text(&b, "dest", s.dest);
	add_text(&b, "digest", s.digest);
	add_text(&b, "previous", s.previous);
	json_add_number(&b, "generation", s.generation);
	add_text(&b, "publishedAt", s.published_at);
	add_number_if(&b, "bytes", *s.digest, s.bytes);
	add_number_if(&b, "files", *s.digest, s.files);
	add_pull(&b, &s, now);
	add_error(&b, &s);
	add_last_success(&b, &s);
	json_add_number(&b, "failures", s.failures);
	add_next_check(&b, &s, now);
	json_add_number(&b, "versions", s.versions);
	json_add_number(&b, "versionsBytes", s.versions_bytes);
	json_add_key(&b, "results");
	buf_addc(&b, '{');
	for (size_t i = 0; i < ARRAY_SIZE(result_names); i++)
		json_add_number(&b, result_names[i], s.results[i]);
	buf_adds(&b, "}}\n");
	if (b.failed)
		ret->failed = true;
	else
		buf_add(ret, b.data, b.len);
}

// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=sys_now_ms
/* Counters, speed, the stall rule; the text read by a strict parser of the format, the JSON by the JSON module. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "json.h"
#include "metrics.h"
#include "prometheus_text.h"
#include "sys.h"
#include "version.h"

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static uint64_t now_ms = 1000000;
uint64_t __wrap_sys_now_ms(void);

uint64_t __wrap_sys_now_ms(void)
{
	return now_ms;
}

static struct buf text = BUF_INIT(1 << 20);

/* The value of a series, written as in the text with its labels; the whole text is checked each time. */
static double series(const char *name)
{
	double v = 0;

	buf_clear(&text);
	metrics_prometheus(&text);
	assert_false(text.failed);
	const char *wrong = prometheus_check(buf_cstr(&text));
	if (wrong)
		fail_msg("%s\n%s", wrong, buf_cstr(&text));
	if (!prometheus_value(buf_cstr(&text), name, &v))
		fail_msg("no series %s\n%s", name, buf_cstr(&text));
	return v;
}

static bool has_series(const char *name)
{
	double v;

	series("fetcher_generation");
	return prometheus_value(buf_cstr(&text), name, &v);
}

static struct json_doc status(void)
{
	struct json_doc d;
	struct err e = { 0 };

	buf_clear(&text);
	metrics_status(&text);
	assert_false(text.failed);
	assert_true(text.len > 1 && text.data[text.len - 1] == '\n');
	assert_ptr_equal(strchr(text.data, '\n'), text.data + text.len - 1);
	if (json_parse(text.data, text.len, "the status", &d, &e))
		fail_msg("%s: %s", e.msg, text.data);
	return d;
}

static void want_string(yyjson_val *obj, const char *key, const char *want)
{
	struct str s = { 0 };
	int has = json_str(obj, key, &s);

	assert_non_null(yyjson_obj_get(obj, key));
	if (!want) {
		assert_int_equal(has, 0);
		return;
	}
	assert_int_equal(has, 1);
	assert_string_equal(s.p, want);
}

static void want_number(yyjson_val *obj, const char *key, uint64_t want)
{
	uint64_t v = 0;

	if (json_u64(obj, key, &v) != 1)
		fail_msg("no number \"%s\"", key);
	assert_int_equal(v, want);
}

static void want_phase(const char *want)
{
	struct json_doc d = status();

	want_string(d.root, "phase", want);
	json_release(&d);
}

/* --- the parser itself must be able to fail --- */

static void parser_refuses(void **state)
{
	static const char *const bad[] = {
		"x 1\n",						/* no TYPE */
		"# HELP x a\n# TYPE x gauge\nx 1",			/* no end of line */
		"# TYPE x gauge\nx 1\n",				/* no HELP */
		"# HELP x a\n# TYPE x speed\nx 1\n",
		"# HELP x a\n# TYPE x gauge\nx one\n",
		"# HELP x a\n# TYPE x gauge\nx 1 \n",
		"# HELP x a\n# TYPE x gauge\nx  1\n",
		"# HELP x a\n# TYPE x gauge\nx{a=\"b} 1\n",
		"# HELP x a\n# TYPE x gauge\nx{a=\"b\\x\"} 1\n",
		"# HELP x a\n# TYPE x gauge\nx{a=\"\xff\"} 1\n",
		"# HELP x a\n# TYPE x gauge\nx{a=\"b\",} 1\n",
		"# HELP x a\n# TYPE x gauge\nx{1a=\"b\"} 1\n",
		"# HELP x a\n# TYPE x gauge\nx{a=\"b\",a=\"c\"} 1\n",
		"# HELP x a\n# TYPE x gauge\nx{a=\"b\"} 1\nx{a=\"b\"} 2\n",
		"# HELP x a\n# TYPE x gauge\nx 1\n# HELP x a\n# TYPE x gauge\nx 1\n",
		"# HELP x a\n# TYPE x counter\nx 1\n",			/* a counter's name ends in _total */
		"# HELP x a\n# TYPE x gauge\n\nx 1\n",
		"# HELP x_total a\n# TYPE x_total counter\nx_total -1\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (!prometheus_check(bad[i]))
			fail_msg("accepted:\n%s", bad[i]);
	assert_null(prometheus_check("# HELP x a \\\\ b\n# TYPE x gauge\nx{a=\"b\\\\\\\"\\n\xc3\xa9\"} -1.5\n"));
}

/* --- what happens in a life --- */

static void at_the_start(void **state)
{
	struct json_doc d = status();

	(void)state;
	want_number(d.root, "schema", 1);
	want_string(d.root, "phase", "starting");
	want_string(d.root, "ref", NULL);
	want_string(d.root, "digest", NULL);
	want_string(d.root, "lastSuccess", NULL);
	want_string(d.root, "lastError", NULL);
	want_string(d.root, "pull", NULL);
	want_string(d.root, "nextCheckSeconds", NULL);
	json_release(&d);
	assert_true(series("fetcher_sync_total{result=\"success\"}") == 0);
	assert_true(series("kaito_model_download_remaining_seconds") == -1);
	assert_true(series("fetcher_last_success_timestamp_seconds") == 0);
	assert_true(series("process_resident_memory_bytes") > 100000);
	assert_true(series("process_open_fds") >= 3);
	assert_true(series("process_cpu_seconds_total") >= 0);
	assert_false(has_series("fetcher_notify_total{sink=\"webhook\",result=\"success\"}"));
	assert_false(metrics_stalled());
}

static void one_pull(void **state)
{
	yyjson_val *pull;

	(void)state;
	metrics_begin("registry.example/m:v1", "/models");
	want_phase("checking");
	metrics_plan(DIGEST, 10000, 3);
	assert_true(series("kaito_model_download_remaining_seconds") == -1);
	for (int i = 1; i <= 8; i++) {	/* 1000 bytes a second */
		now_ms += 500;
		metrics_progress(2000 + (uint64_t)i * 500, (uint64_t)i * 500, 1);
	}
	assert_true(series("kaito_model_download_speed_bytes_per_second") == 1000);
	assert_true(series("kaito_model_download_remaining_seconds") == 4);
	assert_true(series("fetcher_bytes_expected") == 10000);
	assert_true(series("fetcher_bytes_done") == 6000);
	assert_true(series("fetcher_files_expected") == 3);
	assert_true(series("fetcher_files_done") == 1);
	assert_true(series("fetcher_bytes_total") == 4000);
	struct json_doc d = status();
	want_string(d.root, "phase", "pulling");
	assert_int_equal(json_obj(d.root, "pull", &pull), 1);
	want_string(pull, "digest", DIGEST);
	want_number(pull, "bytes", 6000);
	want_number(pull, "total", 10000);
	want_number(pull, "files", 1);
	want_number(pull, "filesTotal", 3);
	want_number(pull, "received", 4000);
	want_number(pull, "bytesPerSecond", 1000);
	want_number(pull, "etaSeconds", 4);
	json_release(&d);

	metrics_progress(10000, 8000, 3);
	metrics_published(DIGEST, NULL, 1, 10000, 3, "2026-01-02T03:04:05Z");
	metrics_versions(2, 20000);
	metrics_end(METRICS_PUBLISHED, NULL, 4250);
	assert_true(series("fetcher_sync_total{result=\"success\"}") == 1);
	assert_true(series("fetcher_sync_duration_seconds_sum") == 4.25);
	assert_true(series("fetcher_sync_duration_seconds_count") == 1);
	assert_true(series("fetcher_last_sync_duration_seconds") == 4.25);
	assert_true(series("fetcher_bytes_total") == 8000);
	assert_true(series("fetcher_published_timestamp_seconds") == 1767323045);
	assert_true(series("fetcher_last_success_timestamp_seconds") > 1e9);
	assert_true(series("fetcher_generation") == 1);
	assert_true(series("fetcher_versions") == 2);
	assert_true(series("fetcher_versions_bytes") == 20000);
	assert_true(series("kaito_model_download_speed_bytes_per_second") == 0);
	assert_true(series("kaito_model_download_remaining_seconds") == 0);
	d = status();
	want_string(d.root, "phase", "idle");
	want_string(d.root, "ref", "registry.example/m:v1");
	want_string(d.root, "dest", "/models");
	want_string(d.root, "digest", DIGEST);
	want_string(d.root, "previous", NULL);
	want_string(d.root, "publishedAt", "2026-01-02T03:04:05Z");
	want_string(d.root, "pull", NULL);
	want_number(d.root, "bytes", 10000);
	want_number(d.root, "files", 3);
	assert_non_null(yyjson_get_str(yyjson_obj_get(d.root, "lastSuccess")));
	json_release(&d);
}

/* What the line does now, not what it did a minute ago; nothing heard is no speed. */
static void speed_window(void **state)
{
	uint64_t wire = 0;

	(void)state;
	metrics_begin("r", "/d");
	metrics_plan(DIGEST, UINT64_MAX, 1);
	for (int i = 0; i < 100; i++) {
		now_ms += 100;
		wire += 1000000;
		metrics_progress(wire, wire, 0);
	}
	assert_true(series("kaito_model_download_speed_bytes_per_second") == 10000000);
	for (int i = 0; i < 120; i++) {
		now_ms += 100;
		wire += 100;
		metrics_progress(wire, wire, 0);
	}
	assert_true(series("kaito_model_download_speed_bytes_per_second") == 1000);
	now_ms += 60000;
	assert_true(series("kaito_model_download_speed_bytes_per_second") == 0);
	assert_true(series("kaito_model_download_remaining_seconds") == -1);
	/* the sums at the end of the range do not wrap */
	metrics_progress(UINT64_MAX, UINT64_MAX, UINT64_MAX);
	assert_true(series("fetcher_bytes_done") > 1e19);
	assert_true(series("fetcher_files_done") == 1);
	assert_true(series("kaito_model_download_remaining_seconds") == 0);
	metrics_end(METRICS_NOOP, NULL, 0);
	/* the next run counts from zero */
	double before = series("fetcher_bytes_total");
	metrics_begin("r", "/d");
	metrics_progress(0, 0, 0);
	metrics_end(METRICS_NOOP, NULL, 0);
	assert_true(series("fetcher_bytes_total") == before);
}

static void failures(void **state)
{
	struct err e = { 0 };
	yyjson_val *last;

	(void)state;
	err_set(&e, CODE_INTEGRITY, "layer 3 of https://u:geheim@h/v2/m?sig=geheim is \"not\" what\n it should be");
	metrics_begin("r", "/d");
	metrics_end(METRICS_FAILED, &e, 10);
	err_set(&e, CODE_POLICY, "the hook said no");
	metrics_begin("r", "/d");
	metrics_end(METRICS_VETOED, &e, 10);
	assert_true(series("fetcher_verify_failures_total") == 1);
	assert_true(series("fetcher_consecutive_failures") == 2);
	assert_true(series("fetcher_sync_total{result=\"error\"}") == 1);
	assert_true(series("fetcher_sync_total{result=\"veto\"}") == 1);
	struct json_doc d = status();
	want_string(d.root, "phase", "failing");
	want_number(d.root, "failures", 2);
	assert_int_equal(json_obj(d.root, "lastError", &last), 1);
	want_number(last, "code", 14);
	want_string(last, "name", "policy");
	want_string(last, "message", "the hook said no");
	assert_non_null(yyjson_get_str(yyjson_obj_get(last, "at")));
	json_release(&d);

	err_set(&e, CODE_NETWORK, "GET https://u:geheim@h/v2/m?sig=geheim: reset");
	metrics_begin("r", "/d");
	metrics_end(METRICS_FAILED, &e, 10);
	d = status();
	assert_int_equal(json_obj(d.root, "lastError", &last), 1);
	want_string(last, "message", "GET https://h/v2/m reset");
	assert_null(strstr(buf_cstr(&text), "geheim"));
	json_release(&d);
	metrics_begin("r", "/d");
	metrics_end(METRICS_NOOP, NULL, 10);
	d = status();
	want_string(d.root, "phase", "idle");
	want_number(d.root, "failures", 0);
	assert_int_equal(json_obj(d.root, "lastError", &last), 1);	/* what the last one was */
	json_release(&d);
	assert_true(series("fetcher_consecutive_failures") == 0);
}

/* A pull that was given up for another one leaves no trace but its bytes. */
static void stopped(void **state)
{
	struct err e = { 0 };
	double errors = series("fetcher_sync_total{result=\"error\"}"), passes = series("fetcher_sync_duration_seconds_count");

	(void)state;
	err_set(&e, CODE_INTEGRITY, "stopped");
	metrics_begin("r", "/d");
	metrics_plan(DIGEST, 10, 1);
	metrics_end(METRICS_STOPPED, &e, 10);
	want_phase("idle");
	assert_null(strstr(buf_cstr(&text), "stopped"));
	assert_true(series("fetcher_sync_total{result=\"error\"}") == errors);
	assert_true(series("fetcher_sync_duration_seconds_count") == passes);
	assert_true(series("fetcher_consecutive_failures") == 0);
	err_set(&e, CODE_NETWORK, "reset");
	metrics_end(METRICS_FAILED, &e, 10);
	metrics_begin("r", "/d");
	metrics_end(METRICS_STOPPED, NULL, 10);
	want_phase("failing");
	metrics_end(METRICS_NOOP, NULL, 10);
}

static void notifications(void **state)
{
	char name[100];

	(void)state;
	metrics_notified("webhook", true);
	metrics_notified("webhook", false);
	metrics_notified("webhook", true);
	metrics_notified("a \"quoted\\name\"\n\xff", false);
	assert_true(series("fetcher_notify_total{sink=\"webhook\",result=\"success\"}") == 2);
	assert_true(series("fetcher_notify_total{sink=\"webhook\",result=\"error\"}") == 1);
	assert_true(series("fetcher_notify_total{sink=\"a \\\"quoted\\\\name\\\"\\\\x0a\\\\xff\",result=\"error\"}") == 1);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "sink-%d-%070d", i, 0);
		metrics_notified(name, true);
		metrics_notified(name, true);
	}
	assert_true(series("fetcher_notify_total{sink=\"webhook\",result=\"success\"}") == 2);
	/* 16 places: the two above, 13 of these, and one for all the rest */
	assert_true(series("fetcher_notify_total{sink=\"other\",result=\"success\"}") == 2 * (200 - 13));
}

static void servers(void **state)
{
	const struct metrics_server some = { .bytes = 10, .requests = 2, .misses = 3, .fallbacks = 4, .hits = 5 };
	char name[400];

	(void)state;
	metrics_served("10.0.0.1:4001", &some);
	metrics_served("10.0.0.1:4001", &some);
	metrics_served("reg\"\n", &some);
	assert_true(series("fetcher_server_bytes_total{server=\"10.0.0.1:4001\"}") == 20);
	assert_true(series("fetcher_server_requests_total{server=\"10.0.0.1:4001\"}") == 4);
	assert_true(series("fetcher_server_misses_total{server=\"10.0.0.1:4001\"}") == 6);
	assert_true(series("fetcher_server_fallbacks_total{server=\"10.0.0.1:4001\"}") == 8);
	assert_true(series("fetcher_server_hits_total{server=\"reg\\\"\\\\x0a\"}") == 5);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "host-%03d-%0245d", i, 0);
		metrics_served(name, &some);
	}
	/* 20 places: the two above, 17 of these, and one for all the rest; and it fits where it has to */
	assert_true(series("fetcher_server_bytes_total{server=\"other\"}") == 10 * (100 - 17));
}

static void hostile_text(void **state)
{
	static char ref[3000];
	struct json_doc d;

	(void)state;
	metrics_begin("a\"b\\c\nd\re\033[2J\xe2\x80\xae\xff\xc3\xa9", "/d\"\n");
	assert_true(series("fetcher_info{ref=\"a\\\"b\\\\c\\\\x0ad\\\\x0de\\\\x1b[2J\\\\xe2\\\\x80\\\\xae\\\\xff\xc3\xa9\","
			   "digest=\"" DIGEST "\",version=\"" FETCHER_VERSION "\"}") == 1);
	d = status();
	want_string(d.root, "dest", "/d\"\n");
	json_release(&d);
	/* cut in the middle of a character, every byte of which takes the most room */
	for (size_t i = 0; i + 1 < sizeof(ref); i++)
		ref[i] = i % 2 ? '\x01' : '\xff';
	metrics_begin(ref, ref);
	metrics_published(ref, ref, UINT64_MAX, UINT64_MAX, UINT64_MAX, ref);
	series("fetcher_generation");
	assert_true(series("fetcher_published_timestamp_seconds") == 0);
	d = status();
	json_release(&d);
	metrics_published(DIGEST, DIGEST, 2, 1, 1, "2026-02-30T25:61:61Zx");
	assert_true(series("fetcher_published_timestamp_seconds") == 0);
	metrics_published(DIGEST, DIGEST, 2, 1, 1, NULL);
	assert_true(series("fetcher_published_timestamp_seconds") == 0);
	metrics_end(METRICS_NOOP, NULL, 1);
}

/* A buffer that is too small is told, and nothing is written beyond it. */
static void small_buffers(void **state)
{
	(void)state;
	for (size_t n = 0; n < 3000; n += 97) {
		struct buf b = BUF_INIT(n), c = BUF_INIT(n / 10);
		metrics_prometheus(&b);
		metrics_status(&c);
		assert_true(b.failed && c.failed);
		buf_release(&b);
		buf_release(&c);
	}
}

static void stalls(void **state)
{
	struct json_doc d;

	(void)state;
	metrics_allowance(30000);
	metrics_begin("r", "/d");
	now_ms += 30000;
	assert_false(metrics_stalled());
	now_ms += 1;
	assert_true(metrics_stalled());
	metrics_plan(DIGEST, 100, 1);
	assert_false(metrics_stalled());
	/* only what changes something counts while a pull runs */
	for (int i = 0; i < 31; i++) {
		now_ms += 1000;
		metrics_progress(0, 0, 0);
	}
	assert_true(metrics_stalled());
	metrics_progress(1, 1, 0);
	assert_false(metrics_stalled());
	metrics_end(METRICS_NOOP, NULL, 1);
	metrics_idle_until(now_ms + 300500);
	d = status();
	want_number(d.root, "nextCheckSeconds", 301);
	json_release(&d);
	now_ms += 300500 + 30000;
	assert_false(metrics_stalled());
	now_ms += 1;
	assert_true(metrics_stalled());
	series("fetcher_generation");	/* being asked is no sign of life */
	assert_true(metrics_stalled());
	d = status();
	want_number(d.root, "nextCheckSeconds", 0);
	json_release(&d);
	metrics_idle_until(UINT64_MAX);
	now_ms += 1000000000;
	assert_false(metrics_stalled());
	d = status();
	want_string(d.root, "nextCheckSeconds", NULL);
	json_release(&d);
	metrics_idle_until(now_ms);
	metrics_allowance(0);
	now_ms += 1000000000;
	assert_false(metrics_stalled());
}

static void the_file(void **state)
{
	char dir[] = "/tmp/fetcher-metrics-XXXXXX", path[64];
	struct buf b = BUF_INIT(1 << 20);
	struct err e = { 0 };
	struct stat st;
	double v;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/fetcher.prom", dir);
	for (int i = 0; i < 3; i++)
		assert_int_equal(metrics_write_file(path, &e), 0);
	assert_int_equal(sys_read_file(AT_FDCWD, path, &b), 0);
	assert_null(prometheus_check(buf_cstr(&b)));
	assert_true(prometheus_value(buf_cstr(&b), "fetcher_generation", &v));
	assert_null(strstr(buf_cstr(&b), "process_"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	/* no temporary stays, not on failure either */
	snprintf(path, sizeof(path), "%s/none/fetcher.prom", dir);
	assert_int_equal(metrics_write_file(path, &e), -1);
	assert_int_equal(e.code, CODE_LOCAL);
	assert_non_null(strstr(e.msg, path));
	snprintf(path, sizeof(path), "%s/", dir);
	assert_int_equal(metrics_write_file(path, &e), -1);
	snprintf(path, sizeof(path), "%s/fetcher.prom", dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(metrics_write_file(path, &e), -1);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(metrics_write_file("x.prom", &e), 0);
	assert_int_equal(unlink("x.prom"), 0);
	assert_int_equal(rmdir(dir), 0);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parser_refuses),
		cmocka_unit_test(at_the_start),
		cmocka_unit_test(one_pull),
		cmocka_unit_test(speed_window),
		cmocka_unit_test(failures),
		cmocka_unit_test(hostile_text),
		cmocka_unit_test(stopped),
		cmocka_unit_test(notifications),
		cmocka_unit_test(servers),
		cmocka_unit_test(small_buffers),
		cmocka_unit_test(stalls),
		cmocka_unit_test(the_file),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	buf_release(&text);
	return failed;
}

// SPDX-License-Identifier: Apache-2.0
/* Options: flags, variables, suggestions, operands; units; that the tables agree with each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "config.h"
#include "help.h"
#include "options.h"
#include "units.h"

static struct config cfg;
static struct err err;
static char *no_env[] = { NULL };

static int run(char **env, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	config_release(&cfg);
	memset(&err, 0, sizeof(err));
	return config_parse(argc, argv, env, &cfg, &err);
}
#define ARGS(...) (char **)(const char *[]){ "fetcher", __VA_ARGS__, NULL }
#define ENV(...) (char **)(const char *[]){ __VA_ARGS__, NULL }

static void good(char **env, char **argv)
{
	if (run(env, argv))
		fail_msg("refused: %s", err.msg);
}

/* Refused as usage, and the message holds `says`. */
static void bad(char **env, char **argv, const char *says)
{
	assert_int_equal(run(env, argv), -1);
	assert_int_equal(err.code, CODE_USAGE);
	if (!strstr(err.msg, says))
		fail_msg("message '%s' lacks '%s'", err.msg, says);
	assert_null(cfg.pairs);
}

static int drop(void **state)
{
	(void)state;
	config_release(&cfg);
	return 0;
}

static void test_defaults(void **state)
{
	(void)state;
	good(no_env, ARGS("pull", "r.io/a:b", "/d"));
	assert_int_equal(cfg.command, CMD_PULL);
	assert_int_equal(cfg.n_pairs, 1);
	assert_string_equal(cfg.pairs[0].ref, "r.io/a:b");
	assert_string_equal(cfg.pairs[0].dest, "/d");
	assert_int_equal(cfg.concurrency, 16);
	assert_int_equal(cfg.memory_budget, 64 * MIB);
	assert_int_equal(cfg.range_size, 0);
	assert_int_equal(cfg.max_bytes, 0);
	assert_int_equal(cfg.stall_timeout_ms, 30000);
	assert_int_equal(cfg.speed_limit, 4096);
	assert_int_equal(cfg.speed_time_ms, 60000);
	assert_int_equal(cfg.retry_timeout_ms, 300000);
	assert_int_equal(cfg.lock_timeout_ms, 600000);
	assert_int_equal(cfg.deadline_ms, 0);
	assert_int_equal(cfg.layout, CONFIG_FLAT);
	assert_int_equal(cfg.fsync, CONFIG_FSYNC_END);
	assert_int_equal(cfg.log_format, LOG_AUTO);
	assert_int_equal(cfg.progress, PROGRESS_AUTO);
	assert_string_equal(cfg.termination_log, "/dev/termination-log");
	assert_false(cfg.insecure || cfg.plain_http || cfg.quiet || cfg.verbose);
	assert_null(cfg.include.v);
	assert_int_equal(cfg.tls_min, CONFIG_TLS12);
	assert_int_equal(cfg.dns_timeout_ms, 10000);
	assert_null(cfg.resolve.v);
	assert_null(cfg.extra_ca_file.v);
	assert_null(cfg.proxy_ca_file);
}

static void test_operands_of_pull(void **state)
{
	(void)state;
	good(no_env, ARGS("r.io/a", "/d"));
	assert_int_equal(cfg.command, CMD_PULL);
	good(no_env, ARGS("r.io/a", "/d", "r.io/b", "/e"));
	assert_int_equal(cfg.n_pairs, 2);
	assert_string_equal(cfg.pairs[1].ref, "r.io/b");
	assert_string_equal(cfg.pairs[1].dest, "/e");
	good(no_env, ARGS("pull", "r.io/a", "-o", "/d"));
	assert_string_equal(cfg.pairs[0].dest, "/d");
	good(no_env, ARGS("pull", "-o/d", "r.io/a"));
	assert_string_equal(cfg.pairs[0].dest, "/d");
	good(no_env, ARGS("--plain-http", "r.io/a", "/d"));
	assert_true(cfg.plain_http);
	good(no_env, ARGS("pull", "--", "r.io/a", "/d"));
	assert_int_equal(cfg.n_pairs, 1);
	good(ENV("FETCHER_DEST=/env"), ARGS("r.io/a"));
	assert_string_equal(cfg.pairs[0].dest, "/env");
	good(ENV("FETCHER_DEST=/env"), ARGS("r.io/a", "/d"));
	assert_string_equal(cfg.pairs[0].dest, "/d");

	bad(no_env, ARGS("pull"), "no reference");
	bad(no_env, ARGS("pull", "r.io/a"), "no DEST");
	bad(no_env, ARGS("r.io/a", "/d", "r.io/b"), "no DEST");
	bad(no_env, ARGS("pull", "r.io/a", "/d", "-o", "/e"), "twice");
	bad(no_env, ARGS("pull", "r.io/a", ""), "empty");
	bad(no_env, ARGS("pull", "r.io/a", "-o", ""), "no DEST");
	bad(no_env, (char **)(const char *[]){ "fetcher", NULL }, "fetcher help");
}

static void test_other_commands(void **state)
{
	(void)state;
	good(no_env, ARGS("probe", "/d"));
	assert_int_equal(cfg.command, CMD_PROBE);
	assert_string_equal(cfg.dest, "/d");
	good(ENV("FETCHER_DEST=/env"), ARGS("probe"));
	assert_string_equal(cfg.dest, "/env");
	bad(no_env, ARGS("probe"), "no DEST");
	bad(no_env, ARGS("probe", "/d", "/e"), "too many");
	good(no_env, ARGS("resolve", "r.io/a"));
	assert_string_equal(cfg.ref, "r.io/a");
	bad(no_env, ARGS("ls"), "no reference");
	good(no_env, ARGS("gc", "--keep-versions=3", "/d"));
	assert_int_equal(cfg.keep_versions, 3);
	good(no_env, ARGS("install", "/x"));
	assert_string_equal(cfg.dest, "/x");
	bad(no_env, ARGS("version", "x"), "too many");
	bad(no_env, ARGS("plul", "r.io/a", "/d"), "did you mean 'pull'");
	bad(no_env, ARGS("frobnicate"), "neither a command nor a reference");
}

static void test_wait(void **state)
{
	(void)state;
	good(no_env, ARGS("wait", "/d"));
	assert_null(cfg.exec_argv);
	assert_int_equal(cfg.timeout_ms, 0);
	good(no_env, ARGS("wait", "--timeout", "90s", "/d", "--", "app", "--port", "1", "-q"));
	assert_int_equal(cfg.timeout_ms, 90000);
	assert_false(cfg.quiet);
	assert_string_equal(cfg.exec_argv[0], "app");
	assert_string_equal(cfg.exec_argv[3], "-q");
	assert_null(cfg.exec_argv[4]);
	bad(no_env, ARGS("wait", "/d", "--"), "no command after --");
	bad(no_env, ARGS("wait", "/d", "app"), "too many");
}

static void test_help_and_version(void **state)
{
	(void)state;
	good(no_env, ARGS("--help"));
	assert_int_equal(cfg.command, CMD_HELP);
	assert_int_equal(cfg.help_topic, CMD_COUNT);
	good(no_env, ARGS("pull", "-h"));
	assert_int_equal(cfg.command, CMD_HELP);
	assert_int_equal(cfg.help_topic, CMD_PULL);
	good(no_env, ARGS("help", "ls"));
	assert_int_equal(cfg.help_topic, CMD_LS);
	good(no_env, ARGS("help"));
	assert_int_equal(cfg.help_topic, CMD_COUNT);
	good(no_env, ARGS("help", "--man"));
	assert_true(cfg.help_man);
	good(no_env, ARGS("--version"));
	assert_int_equal(cfg.command, CMD_VERSION);
	/* a wrong environment must not keep anybody from the help */
	good(ENV("FETCHER_NONSENSE=1"), ARGS("gc", "--help"));
	bad(no_env, ARGS("help", "pulll"), "did you mean 'pull'");
}

static void test_unknown_flags(void **state)
{
	(void)state;
	bad(no_env, ARGS("pull", "--plan-http", "r.io/a", "/d"), "did you mean --plain-http");
	bad(no_env, ARGS("pull", "--password=hunter2", "r.io/a", "/d"), "did you mean --password-file");
	assert_null(strstr(err.msg, "hunter2"));
	/* unique prefixes are no names */
	bad(no_env, ARGS("pull", "--plain", "r.io/a", "/d"), "unknown flag --plain;");
	bad(no_env, ARGS("pull", "--conc=3", "r.io/a", "/d"), "unknown flag --conc;");
	bad(no_env, ARGS("pull", "--xyzzy", "r.io/a", "/d"), "unknown flag --xyzzy; see");
	bad(no_env, ARGS("pull", "-Z", "r.io/a", "/d"), "unknown flag -Z");
	bad(no_env, ARGS("pull", "r.io/a", "/d", "--ca-file"), "--ca-file needs a value");
	bad(no_env, ARGS("pull", "r.io/a", "-o"), "-o needs a value");
	bad(no_env, ARGS("probe", "--include", "x", "/d"), "has no meaning for 'probe'");
	bad(no_env, ARGS("pull", "--man", "r.io/a", "/d"), "has no meaning");
}

static void test_variables(void **state)
{
	(void)state;
	good(ENV("HOME=/x", "FETCHER_CONCURRENCY=4", "FETCHER_PLAIN_HTTP=true", "FETCHER_LAYOUT=versions",
		 "FETCHER_RETRY_TIMEOUT=1h30m", "FETCHER_MAX_BYTES=10GB", "FETCHER_USERNAME="),
	     ARGS("r.io/a", "/d"));
	assert_int_equal(cfg.concurrency, 4);
	assert_true(cfg.plain_http);
	assert_int_equal(cfg.layout, CONFIG_VERSIONS);
	assert_int_equal(cfg.retry_timeout_ms, 5400000);
	assert_int_equal(cfg.max_bytes, 10000000000);
	assert_null(cfg.username);

	/* the flag wins, in both directions */
	good(ENV("FETCHER_CONCURRENCY=4", "FETCHER_PLAIN_HTTP=1"),
	     ARGS("r.io/a", "/d", "--concurrency=8", "--plain-http=false"));
	assert_int_equal(cfg.concurrency, 8);
	assert_false(cfg.plain_http);

	bad(ENV("FETCHER_CONCURENCY=4"), ARGS("r.io/a", "/d"), "did you mean FETCHER_CONCURRENCY");
	bad(ENV("FETCHER_PEROID=4"), ARGS("r.io/a", "/d"), "unknown variable FETCHER_PEROID");
	bad(ENV("FETCHER_=4"), ARGS("r.io/a", "/d"), "unknown variable FETCHER_");
	bad(ENV("FETCHER_HELP=1"), ARGS("r.io/a", "/d"), "unknown variable FETCHER_HELP");
	bad(ENV("FETCHER_PASSWORD=hunter2"), ARGS("r.io/a", "/d"), "FETCHER_PASSWORD_FILE");
	assert_null(strstr(err.msg, "hunter2"));
	bad(ENV("FETCHER_CONCURRENCY=no"), ARGS("r.io/a", "/d"), "FETCHER_CONCURRENCY: 'no'");
	/* known everywhere, looked at only where it means something */
	good(ENV("FETCHER_CONCURRENCY=no"), ARGS("probe", "/d"));
	bad(ENV("FETCHER_CONCURENCY=4"), ARGS("probe", "/d"), "unknown variable");
}

static void test_watch(void **state)
{
	(void)state;
	good(no_env, ARGS("watch", "r.io/a:b", "/d"));
	assert_int_equal(cfg.command, CMD_WATCH);
	assert_int_equal(cfg.layout, CONFIG_VERSIONS);
	assert_int_equal(cfg.keep_versions, 1);
	assert_int_equal(cfg.period_ms, 300000);
	assert_int_equal(cfg.jitter, 10);
	assert_int_equal(cfg.on_failure, ON_FAILURE_KEEP);
	assert_string_equal(cfg.pairs[0].dest, "/d");
	good(no_env, ARGS("watch", "--layout", "flat", "r.io/a:b", "-o", "/d"));
	assert_int_equal(cfg.layout, CONFIG_FLAT);
	/* the defaults of the other commands stay */
	good(no_env, ARGS("pull", "r.io/a:b", "/d"));
	assert_int_equal(cfg.layout, CONFIG_FLAT);
	assert_int_equal(cfg.keep_versions, 0);

	good(no_env, ARGS("watch", "--ref-file", "/etc/model/ref", "/d"));
	assert_int_equal(cfg.n_pairs, 1);
	assert_null(cfg.pairs[0].ref);
	assert_string_equal(cfg.pairs[0].dest, "/d");
	good(ENV("FETCHER_REF_FILE=/r", "FETCHER_DEST=/d"), ARGS("watch"));
	assert_string_equal(cfg.pairs[0].dest, "/d");
	bad(no_env, ARGS("watch", "--ref-file", "/r", "r.io/a:b", "/d"), "too many");
	bad(no_env, ARGS("watch", "r.io/a:b"), "no DEST");
	bad(no_env, ARGS("watch", "r.io/a:b", "/d", "r.io/c:d", "/e"), "one REF");
	bad(no_env, ARGS("watch", "--max-failures", "3", "r.io/a:b", "/d"), "--on-failure exit");
	good(no_env, ARGS("watch", "--max-failures", "3", "--on-failure", "exit", "r.io/a:b", "/d"));
	bad(no_env, ARGS("watch", "--layout", "flat", "--pre-publish-hook", "/x", "r.io/a:b", "/d"), "versions");
	bad(no_env, ARGS("pull", "--pre-publish-hook", "/x", "r.io/a:b", "/d"), "versions");
	bad(no_env, ARGS("pull", "--period", "1m", "r.io/a:b", "/d"), "belongs to: watch");
}

static void test_list(void **state)
{
	(void)state;
	good(no_env, ARGS("pull", "--list", "/l", "--root", "/r", "--prune"));
	assert_int_equal(cfg.n_pairs, 0);
	bad(no_env, ARGS("pull", "--list", "/l", "r.io/a:b", "/d"), "--list");
	bad(no_env, ARGS("pull", "--list", "/l", "-o", "/d"), "--list");
	bad(no_env, ARGS("pull", "--list", "/l", "--prune"), "--root");
	bad(no_env, ARGS("pull", "--root", "/r", "r.io/a:b", "/d"), "--list");
	bad(no_env, ARGS("pull", "--list", "/l", "--touch-file", "/t"), "--list");
}

/* A hook that runs fetcher has these; a service of that name is no option either. */
static void test_hook_variables(void **state)
{
	(void)state;
	good(ENV("FETCHER_REF=r.io/a:b", "FETCHER_DIGEST=sha256:x", "FETCHER_PREVIOUS=", "FETCHER_PATH=/p",
		 "FETCHER_GENERATION=3"), ARGS("probe", "/d"));
	bad(ENV("FETCHER_DIGESTS=x"), ARGS("probe", "/d"), "FETCHER_DIGESTS");
}

static void rfc3339(const char *text, int64_t want)
{
	int64_t got = -1;

	if (!units_rfc3339(str_of(text), &got) || got != want)
		fail_msg("%s: %lld", text, (long long)got);
}

static void test_times_of_day(void **state)
{
	static const char *const wrong[] = {
		"", "2026-11-21", "2026-11-21T10:00:00", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
		"2026-01-32T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Zx",
		"2026-01-01T00:00:00+0200", "2026-01-01 00:00:00Z", "+026-01-01T00:00:00Z",
		"2026-01-01T00:00:00+02:0", "2026\r01\r01T00:00:00Z",
	};
	int64_t v;

	(void)state;
	rfc3339("1970-01-01T00:00:00Z", 0);
	rfc3339("1969-12-31T23:59:59z", -1);
	rfc3339("2000-02-29T12:30:15.123456Z", 951827415);
	rfc3339("2026-11-21T02:00:00+02:00", 1795219200);
	rfc3339("2026-11-20t22:30:00-01:30", 1795219200);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (units_rfc3339(str_of(wrong[i]), &v))
			fail_msg("accepted: %s", wrong[i]);
}

static void test_lists(void **state)
{
	(void)state;
	good(ENV("FETCHER_INCLUDE=*.json, a/b ,\nc\n,"), ARGS("r.io/a", "/d"));
	assert_int_equal(cfg.include.n, 3);
	assert_string_equal(cfg.include.v[0], "*.json");
	assert_string_equal(cfg.include.v[1], "a/b");
	assert_string_equal(cfg.include.v[2], "c");
	assert_null(cfg.include.v[3]);
	good(ENV("FETCHER_INCLUDE=x,y,z"), ARGS("r.io/a", "/d", "--include", "p,q", "--include=r"));
	assert_int_equal(cfg.include.n, 2);
	assert_string_equal(cfg.include.v[0], "p,q");
	assert_string_equal(cfg.include.v[1], "r");
}

/* A usage error is told where and how the user asked for, even when that stands beside the error. */
static void test_failure_keeps_the_log(void **state)
{
	(void)state;
	bad(ENV("FETCHER_TERMINATION_LOG=/t", "FETCHER_LOG_FORMAT=json", "FETCHER_X=1"), ARGS("pull"), "");
	assert_string_equal(cfg.termination_log, "/t");
	assert_int_equal(cfg.log_format, LOG_JSON);
	bad(ENV("FETCHER_LOG_FORMAT=nonsense"), ARGS("pull", "--termination-log=/u", "--zz"), "--zz");
	assert_string_equal(cfg.termination_log, "/u");
	assert_int_equal(cfg.log_format, LOG_AUTO);
}

static void test_service_links(void **state)
{
	char variable[OPTION_VARIABLE_MAX];

	(void)state;
	good(ENV("FETCHER_PORT=tcp://10.0.0.1:80", "FETCHER_SERVICE_HOST=10.0.0.1",
		 "FETCHER_SERVICE_PORT=80", "FETCHER_SERVICE_PORT_HTTP=80",
		 "FETCHER_PORT_80_TCP=tcp://10.0.0.1:80", "FETCHER_PORT_80_TCP_PROTO=tcp",
		 "FETCHER_PORT_80_TCP_PORT=80", "FETCHER_PORT_80_TCP_ADDR=10.0.0.1",
		 "FETCHER_CACHE_PORT=tcp://10.0.0.2:80", "FETCHER_CACHE_SERVICE_HOST=10.0.0.2",
		 "FETCHER_CACHE_PORT_53_UDP_ADDR=10.0.0.2"),
	     ARGS("r.io/a", "/d"));
	bad(ENV("FETCHER_CACHE_PORT=8080"), ARGS("r.io/a", "/d"), "unknown variable");
	bad(ENV("FETCHER_PORT_X_TCP=1"), ARGS("r.io/a", "/d"), "unknown variable");
	bad(ENV("FETCHER_PORT_80_TCPX=1"), ARGS("r.io/a", "/d"), "unknown variable");
	bad(ENV("FETCHER_SERVICE_HOSTS=1"), ARGS("r.io/a", "/d"), "unknown variable");
	for (size_t i = 0; i < option_count; i++)
		assert_false(config_service_link(option_variable(&option_table[i], variable), "tcp://x"));
}

static void test_values(void **state)
{
	(void)state;
	bad(no_env, ARGS("r.io/a", "/d", "--concurrency", "0"), "from 1 to 64");
	bad(no_env, ARGS("r.io/a", "/d", "--concurrency", "65"), "from 1 to 64");
	bad(no_env, ARGS("r.io/a", "/d", "--concurrency", "-1"), "from 1 to 64");
	bad(no_env, ARGS("r.io/a", "/d", "--deadline", "30"), "a time with a unit");
	bad(no_env, ARGS("r.io/a", "/d", "--deadline", "9999d"), "too large");
	bad(no_env, ARGS("r.io/a", "/d", "--stall-timeout", "0"), "too small");
	bad(no_env, ARGS("r.io/a", "/d", "--memory-budget", "64m"), "a size such as");
	bad(no_env, ARGS("r.io/a", "/d", "--memory-budget", "1"), "too small");
	bad(no_env, ARGS("r.io/a", "/d", "--layout", "Flat"), "flat or versions");
	bad(no_env, ARGS("r.io/a", "/d", "--fsync", "x"), "end, always or never");
	bad(no_env, ARGS("r.io/a", "/d", "--insecure=maybe"), "true or false");
	good(no_env, ARGS("r.io/a", "/d", "--range-size", "auto", "--deadline=none", "--max-bytes=0"));
	assert_int_equal(cfg.range_size, 0);
	good(no_env, ARGS("r.io/a", "/d", "--range-size=8MiB", "--fsync=never", "--progress=always",
			  "--log-format=json", "--output", "json", "-v", "--termination-log="));
	assert_int_equal(cfg.range_size, 8 * MIB);
	assert_int_equal(cfg.fsync, CONFIG_FSYNC_NEVER);
	assert_int_equal(cfg.progress, PROGRESS_ALWAYS);
	assert_int_equal(cfg.log_format, LOG_JSON);
	assert_int_equal(cfg.output, OUTPUT_JSON);
	assert_true(cfg.verbose);
	assert_null(cfg.termination_log);
	good(no_env, ARGS("r.io/a", "/d", "-qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
			  "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"));
	assert_true(cfg.quiet);
}

static void test_exclusions(void **state)
{
	(void)state;
	bad(no_env, ARGS("r.io/a", "/d", "-q", "-v"), "--quiet and --verbose");
	bad(no_env, ARGS("r.io/a", "/d", "--cert-file", "x"), "belong together");
	bad(no_env, ARGS("r.io/a", "/d", "--username", "x"), "belong together");
	bad(no_env, ARGS("r.io/a", "/d", "--password-file", "x"), "belong together");
	bad(no_env, ARGS("r.io/a", "/d", "--username=a", "--password-file=x", "--token-file=y"), "exclude");
	good(ENV("FETCHER_USERNAME=u"), ARGS("r.io/a", "/d", "--password-file", "x"));
}

static void test_units(void **state)
{
	static const struct { const char *text; bool ok; uint64_t value; } times[] = {
		{ "0", true, 0 }, { "10s", true, 10000 }, { "1h30m", true, 5400000 }, { "500ms", true, 500 },
		{ "1.5h", true, 5400000 }, { "2d", true, 172800000 }, { "1m0.5s", true, 60500 },
		{ "", false, 0 }, { "5", false, 0 }, { "s", false, 0 }, { "-5s", false, 0 },
		{ "5 s", false, 0 }, { "5S", false, 0 }, { "1.s", false, 0 }, { ".5s", false, 0 },
		{ "1.1234567s", false, 0 }, { "99999999999999999999s", false, 0 }, { "1h2", false, 0 },
		{ "18446744073709551615h", false, 0 }, { "00s", false, 0 }, { "5min", false, 0 },
	}, sizes[] = {
		{ "0", true, 0 }, { "1024", true, 1024 }, { "64MiB", true, 64 << 20 }, { "64Mi", true, 64 << 20 },
		{ "10GB", true, 10000000000 }, { "1.5KiB", true, 1536 }, { "5k", true, 5000 },
		{ "2TiB", true, UINT64_C(2) << 40 }, { "7B", true, 7 }, { "18446744073709551615", true, UINT64_MAX },
		{ "18446744073709551616", false, 0 }, { "16777216TiB", false, 0 }, { "64m", false, 0 },
		{ "64mib", false, 0 }, { "1.5", false, 0 }, { "1.5B", false, 0 }, { "MiB", false, 0 },
		{ "1MiB2", false, 0 }, { "1 MiB", false, 0 }, { "", false, 0 }, { "+1", false, 0 }, { "0x10", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		uint64_t v = 77;
		bool ok = units_duration(str_of(times[i].text), &v);
		if (ok != times[i].ok || v != (ok ? times[i].value : 77))
			fail_msg("duration '%s': %d %llu", times[i].text, ok, (unsigned long long)v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t v = 77;
		bool ok = units_size(str_of(sizes[i].text), &v);
		if (ok != sizes[i].ok || v != (ok ? sizes[i].value : 77))
			fail_msg("size '%s': %d %llu", sizes[i].text, ok, (unsigned long long)v);
	}
}

static void shows(void (*add)(struct buf *, uint64_t), uint64_t v, const char *want)
{
	struct buf b = BUF_INIT(64);

	add(&b, v);
	assert_string_equal(buf_cstr(&b), want);
	buf_release(&b);
}

static void test_human(void **state)
{
	(void)state;
	shows(units_add_bytes, 0, "0 B");
	shows(units_add_bytes, 1023, "1023 B");
	shows(units_add_bytes, 1024, "1.0 KiB");
	shows(units_add_bytes, 1536, "1.5 KiB");
	shows(units_add_bytes, (UINT64_C(3) << 30) + (UINT64_C(1) << 28), "3.2 GiB");
	shows(units_add_bytes, UINT64_MAX, "15.9 EiB");
	shows(units_add_seconds, 59, "59s");
	shows(units_add_seconds, 200, "3m20s");
	shows(units_add_seconds, 7500, "2h05m");
}

/* The tables feed six things: what would break one of them is refused here. */
static void test_tables(void **state)
{
	char a[OPTION_VARIABLE_MAX], b[OPTION_VARIABLE_MAX];

	(void)state;
	for (size_t i = 0; i < option_count; i++) {
		const struct option_info *o = &option_table[i];
		assert_int_equal(strspn(o->name, "abcdefghijklmnopqrstuvwxyz-"), strlen(o->name));
		assert_true(strlen(o->name) < 40 && o->commands != 0);
		assert_true(!o->group || o->help);
		assert_int_equal(o->type == OPT_BOOL, o->arg == NULL);
		assert_int_equal(o->type == OPT_ENUM, o->choices != NULL);
		/* secrets never travel on the command line */
		assert_true(!strstr(o->name, "password") || strcmp(o->name, "password-file") == 0);
		for (size_t j = 0; j < i; j++) {
			assert_string_not_equal(option_variable(o, a), option_variable(&option_table[j], b));
			assert_true(!o->letter || o->letter != option_table[j].letter);
		}
	}
	for (size_t i = 0; i < CMD_COUNT; i++) {
		size_t n = 0;
		while (command_table[i].examples[n])
			n++;
		assert_true(n >= 2 && n % 2 == 0);
	}
	for (size_t i = 1; i < exit_count; i++)
		assert_true(exit_table[i - 1].code < exit_table[i].code);
}

static void test_help_texts(void **state)
{
	char variable[OPTION_VARIABLE_MAX], needle[96];

	(void)state;
	for (int cmd = 0; cmd <= CMD_COUNT; cmd++) {
		struct buf text = BUF_INIT(64 * KIB);
		help_text((enum config_command)cmd, &text);
		assert_false(text.failed);
		for (size_t i = 0; cmd < CMD_COUNT && i < option_count; i++) {
			const struct option_info *o = &option_table[i];
			snprintf(needle, sizeof(needle), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
			if (o->group && (o->commands & 1u << cmd))
				assert_non_null(strstr(buf_cstr(&text), needle));
		}
		for (char *line = text.data; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
			assert_true(strcspn(line, "\n") <= 80);
		buf_release(&text);
	}
	struct buf man = BUF_INIT(256 * KIB), table = BUF_INIT(256 * KIB);
	help_man(&man);
	help_markdown(&table);
	assert_false(man.failed || table.failed);
	for (size_t i = 0; i < option_count; i++) {
		if (!option_table[i].group)
			continue;
		option_variable(&option_table[i], variable);
		assert_non_null(strstr(buf_cstr(&man), variable));
		assert_non_null(strstr(buf_cstr(&table), variable));
	}
	buf_release(&man);
	buf_release(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_defaults, drop),
		cmocka_unit_test_teardown(test_operands_of_pull, drop),
		cmocka_unit_test_teardown(test_other_commands, drop),
		cmocka_unit_test_teardown(test_wait, drop),
		cmocka_unit_test_teardown(test_help_and_version, drop),
		cmocka_unit_test_teardown(test_unknown_flags, drop),
		cmocka_unit_test_teardown(test_variables, drop),
		cmocka_unit_test_teardown(test_lists, drop),
		cmocka_unit_test_teardown(test_watch, drop),
		cmocka_unit_test_teardown(test_list, drop),
		cmocka_unit_test_teardown(test_hook_variables, drop),
		cmocka_unit_test(test_times_of_day),
		cmocka_unit_test_teardown(test_failure_keeps_the_log, drop),
		cmocka_unit_test_teardown(test_service_links, drop),
		cmocka_unit_test_teardown(test_values, drop),
		cmocka_unit_test_teardown(test_exclusions, drop),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_human),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_help_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

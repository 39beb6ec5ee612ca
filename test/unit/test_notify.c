// SPDX-License-Identifier: Apache-2.0
/* Notifications: the thread, files, commands, and signals to real processes. */
#include "notify_fixture.h"

#include <sys/prctl.h>

/* --- pure --- */

static void filling(void **state)
{
	const struct notify_event ev = { "r/m:1", DIGEST_A, NULL, "/m/\"q\"\\\n{digest}", 18446744073709551615ULL };
	struct buf b = BUF_INIT(4096), small = BUF_INIT(10);

	(void)state;
	assert_int_equal(notify_fill("{\"r\":\"{ref}\",\"p\":\"{previous}\",\"g\":{generation}}", &ev, true, &b), 0);
	assert_string_equal(buf_cstr(&b), "{\"r\":\"r/m:1\",\"p\":\"\",\"g\":18446744073709551615}");
	buf_clear(&b);
	assert_int_equal(notify_fill("{path}", &ev, true, &b), 0);
	assert_string_equal(buf_cstr(&b), "/m/\\\"q\\\"\\\\\\n{digest}");
	buf_clear(&b);
	assert_int_equal(notify_fill("{path}", &ev, false, &b), 0);
	assert_string_equal(buf_cstr(&b), ev.path);
	buf_clear(&b);
	assert_int_equal(notify_fill("{{ref}}{Ref}{ref }{}{{unknown}{digest", &ev, true, &b), 0);
	assert_string_equal(buf_cstr(&b), "{r/m:1}{Ref}{ref }{}{{unknown}{digest");
	buf_clear(&b);
	assert_int_equal(notify_fill("", &ev, true, &b), 0);
	assert_string_equal(buf_cstr(&b), "");
	assert_int_equal(notify_fill("{digest}", &ev, true, &small), -1);
	assert_int_equal(notify_fill("{digest}", &ev, false, &small), -1);
	buf_release(&b);
	buf_release(&small);
}

static void environment(void **state)
{
	char **env = notify_env(&event_b);

	(void)state;
	assert_non_null(env);
	assert_string_equal(env[0], "FETCHER_REF=r.example/m:1");
	assert_string_equal(env[1], "FETCHER_DIGEST=" DIGEST_B);
	assert_string_equal(env[2], "FETCHER_PREVIOUS=" DIGEST_A);
	assert_string_equal(env[3], "FETCHER_PATH=/models/b");
	assert_string_equal(env[4], "FETCHER_GENERATION=2");
	assert_null(env[5]);
	notify_env_free(env);
	notify_env_free(NULL);
}

static void options_refused(void **state)
{
	static const struct http_options no_ca = { .ca_file = "/nonexistent/ca.pem" };
	static const struct {
		struct notify_options o;
		const char *word;
	} bad[] = {
		{ { .touch_file = "" }, "--touch-file" },
		{ { .exec_hook = "relative" }, "--exec-hook" },
		{ { .exec_hook = "[" }, "--exec-hook" },
		{ { .signal = "nginx" }, "--signal" },
		{ { .signal = ":HUP" }, "--signal" },
		{ { .signal = "nginx:" }, "--signal" },
		{ { .signal = "nginx:0" }, "--signal" },
		{ { .signal = "nginx:65" }, "--signal" },
		{ { .signal = "nginx:-1" }, "--signal" },
		{ { .signal = "nginx:FOO" }, "--signal" },
		{ { .signal = "/usr/bin/nginx:HUP" }, "--signal" },
		{ { .webhook_url = "" }, "--webhook-url" },
		{ { .webhook_url = "ftp://h/" }, "--webhook-url" },
		{ { .webhook_url = "h:8080/x" }, "--webhook-url" },
		{ { .webhook_url = "http://user:hunter2@h/" }, "--webhook-url" },
		{ { .webhook_url = "http://h/a b" }, "--webhook-url" },
		{ { .webhook_url = "http://h/a\r\nX: y" }, "--webhook-url" },
		{ { .webhook_url = "http://h/", .webhook_method = "" }, "--webhook-method" },
		{ { .webhook_url = "http://h/", .webhook_method = "PO ST" }, "--webhook-method" },
		{ { .webhook_url = "http://h/", .webhook_method = "POST\r\nX: y" }, "--webhook-method" },
		{ { .webhook_url = "http://h/", .webhook_success_status = 99 }, "--webhook-success-status" },
		{ { .webhook_url = "http://h/", .webhook_success_status = 600 }, "--webhook-success-status" },
		{ { .webhook_url = "http://h/", .preset = NOTIFY_TRITON }, "/load" },
		{ { .webhook_url = "http://h/v2/repository/models/load", .preset = NOTIFY_TRITON }, "/load" },
		{ { .webhook_url = "http://h/v2/repository/models//load", .preset = NOTIFY_TRITON }, "/load" },
		{ { .webhook_url = "http://h/v2/repository/models/a/b/load", .preset = NOTIFY_TRITON }, "/load" },
		{ { .webhook_url = "http://h/v2/repository/models/a/unload", .preset = NOTIFY_TRITON }, "/load" },
		{ { .webhook_url = "http://h/?/v2/repository/models/a/load", .preset = NOTIFY_TRITON }, "/load" },
		{ { .webhook_url = "https://h/", .http = &no_ca }, "/nonexistent/ca.pem" },
	};
	struct notify *n = NULL;
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&e, 0, sizeof(e));
		if (notify_new(&n, &bad[i].o, &e) == 0)
			fail_msg("entry %zu was accepted", i);
		if (e.code != CODE_USAGE || !strstr(e.msg, bad[i].word) || strstr(e.msg, "hunter2"))
			fail_msg("entry %zu: code %d: %s", i, (int)e.code, e.msg);
		assert_null(n);
	}
}

static void nobody_to_tell(void **state)
{
	struct notify *n = begin((struct notify_options){ 0 });

	(void)state;
	assert_int_equal(entries("/proc/self/task"), threads_before);
	notify_send(n, &event_a);
	assert_true(notify_idle(n));
	notify_free(n);
	notify_send(NULL, &event_a);
	assert_true(notify_idle(NULL));
	notify_free(NULL);
}

/* --- touch-file --- */

static void touch_file(void **state)
{
	char path[128];
	struct stat st;
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	mode_t mask = umask(022);

	(void)state;
	struct notify *n = begin((struct notify_options){ .touch_file = in_directory("touched", path) });
	notify_send(n, &event_a);
	wait_idle(n);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(st.st_size, 0);
	write_file(path, "kept");
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	notify_send(n, &event_b);
	wait_idle(n);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_mtime > 1000);
	assert_int_equal(st.st_size, 4);
	notify_free(n);
	umask(mask);
}

static void touch_file_retried(void **state)
{
	char path[128], parent[128];

	(void)state;
	struct notify *n = begin((struct notify_options){ .touch_file = in_directory("later/touched", path) });
	notify_send(n, &event_a);
	wait_failures(2);
	assert_true(told_says(path));
	assert_false(notify_idle(n));
	assert_int_equal(mkdir(in_directory("later", parent), 0755), 0);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(access(path, F_OK), 0);
}

/* --- exec-hook --- */

static void exec_hook(void **state)
{
	char command[512], out[128], flag[128];
	struct buf b = BUF_INIT(4096);
	struct stat st;

	(void)state;
	in_directory("out", out);
	in_directory("flag", flag);
	snprintf(command, sizeof(command), "[\"/bin/sh\",\"-c\",\"[ -e %s ] || { touch %s; echo not yet; exit 1; }; "
		 "echo $FETCHER_DIGEST $FETCHER_GENERATION >> %s\"]", flag, flag, out);
	struct notify *n = begin((struct notify_options){ .exec_hook = command });
	notify_send(n, &event_a);
	wait_idle(n);
	assert_int_equal(told_count(false), 1);
	assert_true(told_says("not yet"));
	assert_int_equal(told.last.code, CODE_POLICY);
	/* taken: the same event again changes nothing, another one does */
	notify_send(n, &event_a);
	assert_true(notify_idle(n));
	notify_send(n, &event_b);
	wait_idle(n);
	assert_int_equal(sys_read_file(AT_FDCWD, out, &b), 0);
	assert_string_equal(buf_cstr(&b), DIGEST_A " 1\n" DIGEST_B " 2\n");
	notify_free(n);
	buf_release(&b);
	/* one that hangs, while somebody wants to go */
	remove(out);
	snprintf(command, sizeof(command), "[\"/bin/sh\",\"-c\",\"trap '' TERM; touch %s; while :; do sleep 1; done\"]", out);
	n = begin((struct notify_options){ .exec_hook = command });
	notify_send(n, &event_a);
	for (int i = 0; i < 1000 && stat(out, &st); i++)
		sys_sleep_ms(10);
	end_quickly(n);
	assert_int_equal(told_count(false), 0);
}

/* --- signal --- */

static volatile sig_atomic_t caught;

static void on_signal(int sig)
{
	caught = sig;
}

/* Until /proc says that it has a handler for SIGUSR1. */
static void wait_handler(pid_t pid)
{
	struct buf b = BUF_INIT(65536);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	for (uint64_t end = sys_now_ms() + LONG_MS;; sys_sleep_ms(2)) {
		assert_int_equal(sys_read_file(AT_FDCWD, path, &b), 0);
		const char *set = strstr(buf_cstr(&b), "SigCgt:\t");
		if (set && (strtoull(set + 8, NULL, 16) & 1ULL << (SIGUSR1 - 1)))
			break;
		assert_true(sys_now_ms() < end);
	}
	buf_release(&b);
}

/*
 * A process of that name with a handler for SIGUSR1, at once or when handler_fd has a byte; it ends with 7 when the
 * handler was called.
 */
static pid_t named_process(const char *name, int handler_fd)
{
	pid_t pid = fork();
	char c;

	assert_true(pid >= 0);
	if (pid) {
		if (handler_fd < 0)
			wait_handler(pid);
		return pid;
	}
	alarm(60);
	for (int sig = 1; sig < 32; sig++) /* those of the test's own run-time */
		signal(sig, SIG_DFL);
	prctl(PR_SET_NAME, name);
	if (handler_fd >= 0 && read(handler_fd, &c, 1) != 1)
		_exit(1);
	const struct sigaction sa = { .sa_handler = on_signal };
	sigset_t block, old;
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, &old);
	sigaction(SIGUSR1, &sa, NULL);
	while (!caught)
		sigsuspend(&old);
	_exit(7);
}

static void assert_was_signalled(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
}

/* None at first; then one that would die of it; ourselves never. */
static void signal_waits_for_a_handler(void **state)
{
	int gate[2];
	char old[32] = "";

	(void)state;
	assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
	prctl(PR_GET_NAME, old);
	prctl(PR_SET_NAME, "notified.test");
	struct notify *n = begin((struct notify_options){ .signal = "notified.test:SIGUSR1" });
	notify_send(n, &event_a);
	wait_failures(1);
	assert_true(told_says("shareProcessNamespace"));
	pid_t pid = named_process("notified.test", gate[0]);
	for (uint64_t end = sys_now_ms() + LONG_MS; !told_says("no handler"); sys_sleep_ms(5))
		assert_true(sys_now_ms() < end);
	assert_int_equal(write(gate[1], "x", 1), 1);
	wait_idle(n);
	notify_free(n);
	assert_was_signalled(pid);
	prctl(PR_SET_NAME, old);
	close(gate[0]);
	close(gate[1]);
}

/* comm holds 15 bytes; a number; several processes; a dead one that nobody collected does not count. */
static void signal_by_long_name(void **state)
{
	(void)state;
	pid_t dead = fork();
	if (dead == 0) {
		prctl(PR_SET_NAME, "text-generation");
		_exit(0);
	}
	struct notify *n = begin((struct notify_options){ .signal = "text-generation-server:10" });
	notify_send(n, &event_a);
	wait_failures(2);
	notify_free(n);
	pid_t a = named_process("text-generation-server", -1), b = named_process("text-generation-server", -1);
	n = begin((struct notify_options){ .signal = "text-generation-server:10" });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_was_signalled(a);
	assert_was_signalled(b);
	waitpid(dead, NULL, 0);
}

/* argv[0] names it, comm does not: a shell that was started under another name. */
static void signal_by_argv0(void **state)
{
	int status = 0;

	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/bin/sh", "/opt/x/argv0.test.server", "-c", "trap 'exit 7' USR1; while :; do sleep 0.05; done", NULL);
		_exit(1);
	}
	struct notify *n = begin((struct notify_options){ .signal = "argv0.test.server:usr1" });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void signal_not_permitted(void **state)
{
	int status = 0;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid_t target = named_process("notified.root", -1);
	pid_t other = fork();
	assert_true(other >= 0);
	if (other == 0) {
		if (setgid(65534) || setuid(65534))
			_exit(1);
		struct notify *n = begin((struct notify_options){ .signal = "notified.root:USR1" });
		notify_send(n, &event_a);
		for (int i = 0; i < 1000 && !told_says("uid 65534"); i++)
			sys_sleep_ms(10);
		notify_free(n);
		_exit(told_says("uid 65534") && told_count(true) == 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	kill(target, SIGKILL);
	assert_int_equal(waitpid(target, &status, 0), target);
}

/* --- all of them --- */

static void all_in_order(void **state)
{
	char url[128], path[128];

	(void)state;
	server_start(NULL);
	pid_t pid = named_process("in.order.test", -1);
	struct notify *n = begin((struct notify_options){
		.webhook_url = server_url("/x", url), .touch_file = in_directory("t", path), .exec_hook = "/bin/true",
		.signal = "in.order.test:10" });
	notify_send(n, &event_a);
	wait_idle(n);
	notify_free(n);
	assert_string_equal(told.order, "touch-file\nexec-hook\nsignal\nwebhook\n");
	assert_int_equal(told_count(false), 0);
	assert_was_signalled(pid);
	server_stop();
}

/* One that fails, and pauses for long, holds up nobody. */
static void not_held_up(void **state)
{
	char url[128], path[128];

	(void)state;
	server_start(NULL);
	struct notify *n = begin((struct notify_options){
		.touch_file = in_directory("none/t", path), .exec_hook = "/bin/false", .webhook_url = server_url("/x", url),
		.hook_backoff_ms = 3600 * 1000 });
	notify_send(n, &event_a);
	wait_failures(2);
	wait_requests(1);
	assert_false(notify_idle(n));
	end_quickly(n);
	assert_string_equal(told.order, "webhook\n");
	server_stop();
}

/* Nothing grows with the number of events. */
static void a_thousand(void **state)
{
	char path[128];

	(void)state;
	struct notify *n = begin((struct notify_options){ .touch_file = in_directory("t", path) });
	for (uint64_t i = 1; i <= 1000; i++) {
		struct notify_event ev = event_a;
		ev.generation = i;
		notify_send(n, &ev);
	}
	wait_idle(n);
	assert_int_equal(told_count(false), 0);
	assert_in_range(told_count(true), 1, 1000);
	notify_free(n);
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(filling),
		TEST(environment),
		TEST(options_refused),
		TEST(nobody_to_tell),
		TEST(touch_file),
		TEST(touch_file_retried),
		TEST(exec_hook),
		TEST(signal_waits_for_a_handler),
		TEST(signal_by_long_name),
		TEST(signal_by_argv0),
		TEST(signal_not_permitted),
		TEST(all_in_order),
		TEST(not_held_up),
		TEST(a_thousand),
	};

	fx_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

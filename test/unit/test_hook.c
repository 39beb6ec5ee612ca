// SPDX-License-Identifier: Apache-2.0
/* Commands, with real children: /bin/sh. Case 10 of the lifecycle list (PID 1) runs in a PID namespace of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hook.h"
#include "sys.h"

#define LONG_MS 20000	/* a command that takes so long hangs */

static unsigned open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static unsigned files_before;

static int before(void **state)
{
	(void)state;
	files_before = open_files();
	return 0;
}

/* No descriptor and no child is left, not even a dead one. */
static int after(void **state)
{
	(void)state;
	assert_int_equal(open_files(), files_before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, before, after)

/* `sh -c script` */
static int shell(const char *script, struct hook_run o, struct err *e)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)script, NULL };
	const struct hook_command c = { argv };

	memset(e, 0, sizeof(*e));
	if (!o.timeout_ms)
		o.timeout_ms = LONG_MS;
	return hook_run(&c, &o, e);
}

static bool is_gone(pid_t pid)
{
	for (int i = 0; i < 200; i++) {
		if (kill(pid, 0) < 0 && errno == ESRCH)
			return true;
		/* an orphan that nobody reaps yet is dead all the same */
		char path[64], stat[512] = "";
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
		FILE *f = fopen(path, "r");
		if (f) {
			size_t n = fread(stat, 1, sizeof(stat) - 1, f);
			stat[n] = '\0';
			fclose(f);
		}
		if (strstr(stat, ") Z "))
			return true;
		sys_sleep_ms(10);
	}
	return false;
}

static pid_t number_in(const struct buf *b)
{
	return (pid_t)strtol(buf_cstr(b), NULL, 10);
}

/* --- parsing --- */

static void parsing(void **state)
{
	struct hook_command c;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(hook_parse("/bin/a program with blanks", &c, &e), 0);
	assert_string_equal(c.argv[0], "/bin/a program with blanks");
	assert_null(c.argv[1]);
	hook_release(&c);
	assert_int_equal(hook_parse(" [\"/bin/x\", \"a b\", \"\", \"$HOME\"]", &c, &e), 0);
	assert_string_equal(c.argv[0], "/bin/x");
	assert_string_equal(c.argv[1], "a b");
	assert_string_equal(c.argv[2], "");
	assert_string_equal(c.argv[3], "$HOME");
	assert_null(c.argv[4]);
	hook_release(&c);
	hook_release(&c);
}

static void parsing_refused(void **state)
{
	static const char *const bad[] = {
		"", "  ", "[]", "[1]", "[\"/bin/x\", 1]", "[\"/bin/x\"", "[\"/bin/x\"] x", "[[\"/bin/x\"]]",
		"[\"/bin/x\\u0000y\"]", "[null]", "x", "./x", "../x", "[\"x\"]", "[\"\"]", "{\"a\":1}",
	};
	struct hook_command c = { NULL };
	struct err e;
	char *large = malloc(70000);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&e, 0, sizeof(e));
		if (hook_parse(bad[i], &c, &e) == 0)
			fail_msg("accepted: %s", bad[i]);
		if (e.code != CODE_USAGE)
			fail_msg("%s: code %d", bad[i], (int)e.code);
		assert_null(c.argv);
	}
	memset(large, 'x', 69999);
	large[0] = '/';
	large[69999] = '\0';
	assert_int_equal(hook_parse(large, &c, &e), -1);
	assert_int_equal(e.code, CODE_USAGE);
	free(large);
}

/* --- running --- */

static void status_and_output(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;

	(void)state;
	assert_int_equal(shell("echo out; echo err >&2", (struct hook_run){ .output = &out }, &e), 0);
	assert_string_equal(buf_cstr(&out), "out\nerr\n");
	assert_int_equal(e.code, CODE_OK);
	assert_int_equal(shell("exit 7", (struct hook_run){ 0 }, &e), -1);
	assert_int_equal(e.code, CODE_POLICY);
	assert_non_null(strstr(e.msg, "status 7"));
	assert_int_equal(shell("echo first; printf 'so \\033[31mlast\\n\\n'; exit 1", (struct hook_run){ 0 }, &e), -1);
	assert_non_null(strstr(e.msg, ": so \\u001b[31mlast"));
	assert_null(strstr(e.msg, "first"));
	assert_int_equal(shell("kill -9 $$", (struct hook_run){ 0 }, &e), -1);
	assert_int_equal(e.code, CODE_POLICY);
	assert_non_null(strstr(e.msg, "signal 9"));
	buf_release(&out);
}

static void not_to_be_run(void **state)
{
	static const char *const bad[] = { "/nonexistent/program", "/etc/passwd", "/etc", "/dev/null" };
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *argv[] = { (char *)bad[i], NULL };
		const struct hook_command c = { argv };
		const struct hook_run o = { .timeout_ms = LONG_MS };
		assert_int_equal(hook_run(&c, &o, &e), -1);
		assert_int_equal(e.code, CODE_USAGE);
		assert_non_null(strstr(e.msg, bad[i]));
	}
	assert_int_equal(shell("true", (struct hook_run){ .cwd = "/nonexistent" }, &e), -1);
	assert_int_equal(e.code, CODE_USAGE);
}

static void no_descriptor_left(void **state)
{
	struct rlimit old, few = { 0 };
	struct err e;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few.rlim_max = old.rlim_max;
	few.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	int rc = shell("true", (struct hook_run){ 0 }, &e);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(rc, -1);
	assert_int_equal(e.code, CODE_LOCAL);
}

static void environment(void **state)
{
	static const char *const env[] = { "HOOK_A=new", "HOOK_B=b c", NULL };
	struct buf out = BUF_INIT(4096);
	struct err e;

	(void)state;
	setenv("HOOK_A", "old", 1);
	setenv("HOOK_AB", "kept", 1);
	assert_int_equal(shell("pwd; cat; env | grep -c ^HOOK_A=; echo $HOOK_A,$HOOK_B,$HOOK_AB; umask",
			       (struct hook_run){ .cwd = "/usr", .env = env, .output = &out }, &e), 0);
	assert_non_null(strstr(buf_cstr(&out), "/usr\n1\nnew,b c,kept\n"));
	unsetenv("HOOK_A");
	unsetenv("HOOK_AB");
	buf_release(&out);
}

/* Blocked and ignored signals of ours are not inherited, nor is any descriptor, however it was opened. */
static void signals_and_descriptors(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;
	sigset_t all, old;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	(void)state;
	assert_true(fd >= 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int rc = shell("grep -E '^Sig(Blk|Ign)' /proc/self/status; for f in /proc/self/fd/*; do "
		       "readlink $f; done | grep -c socket", (struct hook_run){ .output = &out }, &e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	close(fd);
	assert_int_equal(rc, -1); /* grep -c found nothing */
	const char *ignored = strstr(buf_cstr(&out), "SigIgn:\t");
	assert_non_null(strstr(buf_cstr(&out), "SigBlk:\t0000000000000000\n"));
	assert_non_null(ignored);
	/* 32 to 34 are the C library's own */
	assert_int_equal(strtoull(ignored + 8, NULL, 16) & ~0x380000000ULL, 0);
	assert_string_equal(strrchr(buf_cstr(&out), '\n') - 2, "\n0\n");
	buf_release(&out);
}

/* Started with SIGCHLD ignored: the kernel would not tell the status. */
static void status_despite_ignored_sigchld(void **state)
{
	struct err e;

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	assert_int_equal(shell("exit 3", (struct hook_run){ 0 }, &e), -1);
	assert_non_null(strstr(e.msg, "status 3"));
	signal(SIGCHLD, SIG_DFL);
}

/* --- commands that do not end, or do not end alone --- */

static void timeout_ends_it(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;
	uint64_t t = sys_now_ms();

	(void)state;
	assert_int_equal(shell("sleep 1000 & echo $!; wait", (struct hook_run){ .timeout_ms = 200, .output = &out }, &e), -1);
	assert_int_equal(e.code, CODE_DEADLINE);
	assert_true(sys_now_ms() - t < LONG_MS / 2);
	assert_true(is_gone(number_in(&out)));
	buf_release(&out);
}

static void timeout_though_sigterm_is_ignored(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;
	uint64_t t = sys_now_ms();

	(void)state;
	assert_int_equal(shell("trap '' TERM; echo $$; while :; do sleep 0.05; done",
			       (struct hook_run){ .timeout_ms = 200, .output = &out }, &e), -1);
	assert_int_equal(e.code, CODE_DEADLINE);
	assert_true(sys_now_ms() - t >= 1200); /* it had its second */
	assert_true(sys_now_ms() - t < LONG_MS / 2);
	assert_true(is_gone(number_in(&out)));
	buf_release(&out);
}

/* SIGTERM comes first: who cleans up in time may. */
static void sigterm_first(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;

	(void)state;
	assert_int_equal(shell("trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.02; done",
			       (struct hook_run){ .timeout_ms = 200, .output = &out }, &e), -1);
	assert_int_equal(e.code, CODE_DEADLINE);
	assert_non_null(strstr(buf_cstr(&out), "cleaned\n"));
	buf_release(&out);
}

static void closed_output_lives_on(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(shell("exec >&- 2>&-; sleep 0.3; exit 5", (struct hook_run){ 0 }, &e), -1);
	assert_non_null(strstr(e.msg, "status 5"));
	assert_int_equal(shell("exec >&- 2>&-; sleep 1000", (struct hook_run){ .timeout_ms = 200 }, &e), -1);
	assert_int_equal(e.code, CODE_DEADLINE);
}

static void grandchild_holds_the_pipe(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;
	uint64_t t = sys_now_ms();

	(void)state;
	assert_int_equal(shell("sleep 1000 & echo $!", (struct hook_run){ .output = &out }, &e), 0);
	assert_true(sys_now_ms() - t < LONG_MS / 2);
	assert_true(is_gone(number_in(&out))); /* of the group: ended with it */
	/* one that left the group and goes on writing: it lives, and nobody waits for it */
	t = sys_now_ms();
	assert_int_equal(shell("setsid sh -c 'trap \"\" PIPE; echo $$; exec yes' & sleep 0.2",
			       (struct hook_run){ .output = &out }, &e), 0);
	assert_true(sys_now_ms() - t < LONG_MS / 2);
	buf_release(&out);
}

static void floods(void **state)
{
	struct buf out = BUF_INIT(4096);
	struct err e;
	struct rusage a, b;

	(void)state;
	getrusage(RUSAGE_SELF, &a);
	assert_int_equal(shell("head -c 1073741824 /dev/zero; echo; echo the end; exit 1",
			       (struct hook_run){ .output = &out, .timeout_ms = 120000 }, &e), -1);
	getrusage(RUSAGE_SELF, &b);
	assert_int_equal(out.len, 2048);
	assert_memory_equal(out.data + out.len - 9, "\nthe end\n", 9);
	assert_non_null(strstr(e.msg, ": the end"));
	assert_true(b.ru_maxrss - a.ru_maxrss < 16 * 1024); /* KiB */
	/* one that never ends is ended all the same */
	assert_int_equal(shell("yes", (struct hook_run){ .timeout_ms = 200 }, &e), -1);
	assert_int_equal(e.code, CODE_DEADLINE);
	buf_release(&out);
}

/* --- stop --- */

static void *set_later(void *arg)
{
	sys_sleep_ms(200);
	atomic_store((atomic_int *)arg, CODE_SIGTERM);
	return NULL;
}

static void stop_ends_it(void **state)
{
	struct buf out = BUF_INIT(4096);
	atomic_int stop = 0;
	pthread_t thread;
	struct err e;

	(void)state;
	uint64_t t = sys_now_ms();
	assert_int_equal(pthread_create(&thread, NULL, set_later, &stop), 0);
	int rc = shell("trap '' TERM; echo $$; while :; do sleep 1; done",
		       (struct hook_run){ .stop = &stop, .output = &out }, &e);
	t = sys_now_ms() - t;
	pthread_join(thread, NULL);
	assert_int_equal(rc, -1);
	assert_int_equal(e.code, CODE_SIGTERM);
	assert_true(t < 1200);
	assert_true(is_gone(number_in(&out)));
	/* and it is not even begun */
	assert_int_equal(shell("true", (struct hook_run){ .stop = &stop }, &e), -1);
	assert_int_equal(e.code, CODE_SIGTERM);
	buf_release(&out);
}

static void *many(void *arg)
{
	struct err e;
	char script[64], want[64];

	for (int i = 0; i < 20; i++) {
		snprintf(script, sizeof(script), "exit %d", 1 + i);
		snprintf(want, sizeof(want), "status %d", 1 + i);
		if (shell(script, (struct hook_run){ 0 }, &e) == 0 || !strstr(e.msg, want))
			*(int *)arg = 1;
	}
	return NULL;
}

static void several_at_once(void **state)
{
	pthread_t threads[4];
	int bad[4] = { 0 };

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many, &bad[i]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 4; i++)
		assert_int_equal(bad[i], 0);
}

/* --- PID 1 --- */

/* In the namespace: an orphan that left its group is reaped by a later run; statuses are not lost to the sweep. */
static int as_init(void)
{
	struct err e;
	int bad[2] = { 0 };
	pthread_t threads[2];

	if (getpid() != 1)
		return 10;
	if (shell("setsid sh -c 'sleep 0.1' >/dev/null 2>&1 & :", (struct hook_run){ 0 }, &e))
		return 11;
	sys_sleep_ms(500);
	siginfo_t info = { 0 };
	if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0)
		return 12; /* the orphan should lie there */
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, many, &bad[i]);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		if (bad[i])
			return 13;
	}
	return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : 14;
}

static void orphans_of_pid_1(void **state)
{
	int status = 0;

	(void)state;
	pid_t outer = fork();
	assert_true(outer >= 0);
	if (outer == 0) {
		alarm(60);
		if (unshare(CLONE_NEWPID) && unshare(CLONE_NEWUSER | CLONE_NEWPID))
			_exit(99);
		pid_t inner = fork();
		if (inner == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(as_init());
		}
		if (inner < 0 || waitpid(inner, &status, 0) != inner)
			_exit(98);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 97);
	}
	assert_int_equal(waitpid(outer, &status, 0), outer);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 99) {
		print_message("no PID namespace is to be had here\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(parsing),
		TEST(parsing_refused),
		TEST(status_and_output),
		TEST(not_to_be_run),
		TEST(no_descriptor_left),
		TEST(environment),
		TEST(signals_and_descriptors),
		TEST(status_despite_ignored_sigchld),
		TEST(timeout_ends_it),
		TEST(timeout_though_sigterm_is_ignored),
		TEST(sigterm_first),
		TEST(closed_output_lives_on),
		TEST(grandchild_holds_the_pipe),
		TEST(floods),
		TEST(stop_ends_it),
		TEST(several_at_once),
		TEST(orphans_of_pid_1),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

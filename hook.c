// SPDX-License-Identifier: Apache-2.0
#include "hook.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "sys.h"

#define COMMAND_MAX (64 * KIB)
#define TAIL_MAX 2048		/* of the output that is kept */
#define TICK_MS 50		/* how late a stop or a silent end may be noticed */
#define TERM_MS 1000		/* between SIGTERM and SIGKILL */
#define REST_READS 64		/* of the pipe once the command has ended: somebody else may hold it open */
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* --- commands --- */

void hook_release(struct hook_command *c)
{
	for (size_t i = 0; c->argv && c->argv[i]; i++)
		free(c->argv[i]);
	free(c->argv);
	c->argv = NULL;
}

static int parse_array(yyjson_val *list, struct hook_command *c, struct err *e)
{
	size_t i, n;
	yyjson_val *v;

	if (!yyjson_is_arr(list) || !yyjson_arr_size(list))
		return err_set(e, CODE_USAGE, "must be a program's path or a JSON array of strings");
	c->argv = calloc(yyjson_arr_size(list) + 1, sizeof(*c->argv));
	if (!c->argv)
		return err_oom(e);
	yyjson_arr_foreach(list, i, n, v) {
		if (!yyjson_is_str(v))
			return err_set(e, CODE_USAGE, "must be a JSON array of strings only");
		c->argv[i] = strdup(yyjson_get_str(v));
		if (!c->argv[i])
			return err_oom(e);
	}
	return 0;
}

static int parse(const char *text, struct hook_command *c, struct err *e)
{
	struct json_doc doc;
	int rc;

	if (text[strspn(text, " \t\r\n")] != '[') {
		c->argv = calloc(2, sizeof(*c->argv));
		if (c->argv)
			c->argv[0] = strdup(text);
		return c->argv && c->argv[0] ? 0 : err_oom(e);
	}
	if (json_parse(text, strlen(text), "the JSON array", &doc, e)) {
		if (e && e->code == CODE_INTEGRITY)
			e->code = CODE_USAGE;
		return -1;
	}
	rc = parse_array(doc.root, c, e);
	json_release(&doc);
	return rc;
}

int hook_parse(const char *text, struct hook_command *ret, struct err *e)
{
	struct hook_command c = { 0 };
	char shown[128];

	if (!text[strspn(text, " \t\r\n")])
		return err_set(e, CODE_USAGE, "the command is empty");
	if (strlen(text) > COMMAND_MAX)
		return err_set(e, CODE_USAGE, "the command is longer than 64 KiB");
	if (parse(text, &c, e)) {
		hook_release(&c);
		return -1;
	}
	/* A relative path would be looked up in the directory of the version: what was pulled must not choose what runs */
	if (c.argv[0][0] != '/') {
		json_show(str_of(c.argv[0]), shown, sizeof(shown));
		hook_release(&c);
		return err_set(e, CODE_USAGE, "\"%s\" must be an absolute path", shown);
	}
	*ret = c;
	return 0;
}

/* --- starting --- */

/* Guards spawning against the sweep of PID 1, which would take a fresh child's status. */
static pthread_mutex_t children_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned children;

struct child {
	const char *name;	/* for messages, escaped */
	pid_t pid;		/* also its process group */
	int fd;			/* read end of its output; -1 when that ended */
	int status;		/* as of waitpid */
	size_t tail_len;
	char tail[TAIL_MAX];
};

static bool same_name(const char *entry, const char *other)
{
	size_t n = strcspn(entry, "=");

	return strncmp(entry, other, n) == 0 && other[n] == '=';
}

/* Ours first; of the process's own what ours does not replace. Borrows the strings. */
static char **merged_environment(const char *const *own)
{
	size_t n_own = 0, n = 0, k = 0;

	while (own && own[n_own])
		n_own++;
	while (environ && environ[n])
		n++;
	char **list = calloc(n_own + n + 1, sizeof(*list));
	if (!list)
		return NULL;
	for (; k < n_own; k++)
		list[k] = (char *)own[k];
	for (size_t i = 0; i < n; i++) {
		bool replaced = false;
		for (size_t j = 0; j < n_own; j++)
			replaced |= same_name(own[j], environ[i]);
		if (!replaced)
			list[k++] = environ[i];
	}
	return list;
}

static int spawn_actions(posix_spawn_file_actions_t *a, const char *cwd, int output)
{
	int rc = posix_spawn_file_actions_addopen(a, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

	if (!rc)
		rc = posix_spawn_file_actions_adddup2(a, output, STDOUT_FILENO);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(a, output, STDERR_FILENO);
	if (!rc && cwd)
		rc = posix_spawn_file_actions_addchdir_np(a, cwd);
	return rc;
}

static int spawn_attributes(posix_spawnattr_t *a)
{
	sigset_t all, none;
	int rc;

	sigfillset(&all);
	sigemptyset(&none);
	rc = posix_spawnattr_setflags(a, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
					 POSIX_SPAWN_SETSIGMASK);
	if (!rc)
		rc = posix_spawnattr_setpgroup(a, 0);
	if (!rc)
		rc = posix_spawnattr_setsigdefault(a, &all);
	if (!rc)
		rc = posix_spawnattr_setsigmask(a, &none);
	return rc;
}

/* 0, or an errno. */
static int spawn(const struct hook_command *c, const struct hook_run *o, int output, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	_cleanup_free_ char **env = merged_environment(o->env);
	int rc;

	if (!env || posix_spawn_file_actions_init(&actions))
		return ENOMEM;
	if (posix_spawnattr_init(&attributes)) {
		posix_spawn_file_actions_destroy(&actions);
		return ENOMEM;
	}
	rc = spawn_actions(&actions, o->cwd, output);
	if (!rc)
		rc = spawn_attributes(&attributes);
	pthread_mutex_lock(&children_lock);
	if (!rc) {
		/* where we were started with SIGCHLD ignored the kernel would throw the status away */
		signal(SIGCHLD, SIG_DFL);
		/*
		 * Not every library opens its sockets with close-on-exec (libcurl 8.14 does not). Old kernels
		 * do not know the call; then a socket may be seen by the command.
		 */
		syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
		rc = posix_spawn(ret, c->argv[0], &actions, &attributes, c->argv, env);
	}
	if (!rc)
		children++;
	pthread_mutex_unlock(&children_lock);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return rc;
}

static int start(const struct hook_command *c, const struct hook_run *o, struct child *k,
		 struct err *e)
{
	int p[2], rc;

	if (pipe2(p, O_CLOEXEC))
		return err_errno(e, CODE_LOCAL, errno, "cannot run %s: no pipe", k->name);
	/* this end only: the command's writes block as it expects */
	rc = fcntl(p[0], F_SETFL, O_NONBLOCK) ? errno : spawn(c, o, p[1], &k->pid);
	close(p[1]);
	if (rc) {
		close(p[0]);
		bool ours = rc == ENOMEM || rc == EAGAIN || rc == EMFILE || rc == ENFILE;
		return err_errno(e, ours ? CODE_LOCAL : CODE_USAGE, rc, "cannot run %s", k->name);
	}
	k->fd = p[0];
	return 0;
}

/* --- waiting --- */

static void keep_tail(struct child *k, const char *p, size_t n)
{
	if (n > TAIL_MAX) {
		p += n - TAIL_MAX;
		n = TAIL_MAX;
	}
	size_t keep = MIN(k->tail_len, TAIL_MAX - n);
	memmove(k->tail, k->tail + k->tail_len - keep, keep);
	memcpy(k->tail + keep, p, n);
	k->tail_len = keep + n;
}

/* One read. False: nothing there now, or the output has ended. */
static bool read_some(struct child *k)
{
	char chunk[16 * 1024];
	ssize_t n;

	if (k->fd < 0)
		return false;
	n = read(k->fd, chunk, sizeof(chunk));
	if (n > 0) {
		keep_tail(k, chunk, (size_t)n);
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	close(k->fd);
	k->fd = -1;
	return false;
}

/* Has it ended? Its status stays uncollected, so that its group's number cannot become somebody else's. */
static bool ended(pid_t pid)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ?
	       errno != EINTR : info.si_pid == pid;
}

/* Output, its end, or some milliseconds. */
static void pause_for(struct child *k, unsigned *silent_ms)
{
	struct pollfd p = { .fd = k->fd, .events = POLLIN };

	if (k->fd >= 0) {
		if (poll(&p, 1, TICK_MS) > 0)
			read_some(k);
		return;
	}
	/* mostly the process ends a moment after its output did */
	sys_sleep_ms(*silent_ms);
	*silent_ms = MIN(*silent_ms * 2, (unsigned)TICK_MS);
}

/* 0: it ended by itself. Else what it was ended for: CODE_DEADLINE, or the code of stop. */
static int wait_for(struct child *k, const struct hook_run *o)
{
	uint64_t started = sys_now_ms(), kill_at = UINT64_MAX;
	unsigned silent_ms = 1;
	int why = 0;

	while (!ended(k->pid)) {
		uint64_t now = sys_now_ms();
		int stop = o->stop ? atomic_load_explicit(o->stop, memory_order_relaxed) : 0;
		if (stop && why <= CODE_DEADLINE) {
			why = stop;
			kill_at = now;
		} else if (!why && o->timeout_ms && now - started >= o->timeout_ms) {
			why = CODE_DEADLINE;
			kill_at = now + TERM_MS;
			kill(-k->pid, SIGTERM);
		}
		if (now >= kill_at)
			kill(-k->pid, SIGKILL);
		pause_for(k, &silent_ms);
	}
	return why;
}

/* PID 1 is the parent of all that lost theirs. Nobody's status may be taken, hence only when no hook runs. */
static void sweep_locked(void)
{
	if (children == 0 && getpid() == 1)
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
}

/* Ends the rest of the group, collects the status and what is left in the pipe. */
static void finish(struct child *k)
{
	kill(-k->pid, SIGKILL);
	for (int i = 0; i < REST_READS && read_some(k); i++)
		;
	if (k->fd >= 0)
		close(k->fd);
	pthread_mutex_lock(&children_lock);
	while (waitpid(k->pid, &k->status, 0) < 0 && errno == EINTR)
		;
	children--;
	sweep_locked();
	pthread_mutex_unlock(&children_lock);
}

/* --- the outcome --- */

/* ": last line", escaped, or "". */
static const char *last_words(const struct child *k, char *ret, size_t n)
{
	size_t end = k->tail_len, from;

	while (end && strchr(" \t\r\n", k->tail[end - 1]))
		end--;
	for (from = end; from && k->tail[from - 1] != '\n';)
		from--;
	*ret = '\0';
	if (from < end) {
		memcpy(ret, ": ", 2);
		json_show((struct str){ k->tail + from, end - from }, ret + 2, n - 2);
	}
	return ret;
}

static int outcome(const struct child *k, int why, const struct hook_run *o, struct err *e)
{
	char words[400];

	last_words(k, words, sizeof(words));
	if (why == CODE_DEADLINE)
		return err_set(e, CODE_DEADLINE, "%s ran longer than %llu ms and was ended%s", k->name,
			       (unsigned long long)o->timeout_ms, words);
	if (why)
		return err_set(e, (enum code)why, "%s was ended: stopped by a signal", k->name);
	if (WIFSIGNALED(k->status))
		return err_set(e, CODE_POLICY, "%s was ended by signal %d%s", k->name,
			       WTERMSIG(k->status), words);
	if (WEXITSTATUS(k->status))
		return err_set(e, CODE_POLICY, "%s ended with status %d%s", k->name,
			       WEXITSTATUS(k->status), words);
	return 0;
}

int hook_run(const struct hook_command *c, const struct hook_run *o, struct err *e)
{
	char name[256];
	struct child k = { .name = json_show(str_of(c->argv[0]), name, sizeof(name)), .fd = -1,
			   .status = 127 << 8 /* should it get lost: no success */ };
	int stop = o->stop ? atomic_load_explicit(o->stop, memory_order_relaxed) : 0;

	if (stop)
		return err_set(e, (enum code)stop, "%s was not run: stopped by a signal", name);
	if (start(c, o, &k, e))
		return -1;
	int why = wait_for(&k, o);
	finish(&k);
	if (o->output) {
		buf_clear(o->output);
		buf_add(o->output, k.tail, k.tail_len);
	}
	return outcome(&k, why, o, e);
}

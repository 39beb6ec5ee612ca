// SPDX-License-Identifier: Apache-2.0
/* Signals to processes by name. Belongs to notify.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "json.h"
#include "notify_internal.h"
#include "sys.h"

#define COMM_MAX 15	/* bytes of a name that the kernel keeps (TASK_COMM_LEN - 1) */
#define SIGNAL_MAX 64

/* The kernel's generic numbers, which x86 and arm64 share. */
static const char *const signal_names[] = {
	[SIGHUP] = "HUP", [SIGINT] = "INT", [SIGQUIT] = "QUIT", [SIGILL] = "ILL", [SIGTRAP] = "TRAP",
	[SIGABRT] = "ABRT", [SIGBUS] = "BUS", [SIGFPE] = "FPE", [SIGKILL] = "KILL", [SIGUSR1] = "USR1",
	[SIGSEGV] = "SEGV", [SIGUSR2] = "USR2", [SIGPIPE] = "PIPE", [SIGALRM] = "ALRM",
	[SIGTERM] = "TERM", [SIGSTKFLT] = "STKFLT", [SIGCHLD] = "CHLD", [SIGCONT] = "CONT",
	[SIGSTOP] = "STOP", [SIGTSTP] = "TSTP", [SIGTTIN] = "TTIN", [SIGTTOU] = "TTOU",
	[SIGURG] = "URG", [SIGXCPU] = "XCPU", [SIGXFSZ] = "XFSZ", [SIGVTALRM] = "VTALRM",
	[SIGPROF] = "PROF", [SIGWINCH] = "WINCH", [SIGIO] = "IO", [SIGPWR] = "PWR", [SIGSYS] = "SYS",
};

static int signal_number(const char *s)
{
	uint64_t n;

	if (str_u64(str_of(s), &n))
		return n <= SIGNAL_MAX ? (int)n : 0;
	if (strncasecmp(s, "SIG", 3) == 0)
		s += 3;
	for (size_t i = 1; i < ARRAY_SIZE(signal_names); i++)
		if (signal_names[i] && strcasecmp(s, signal_names[i]) == 0)
			return (int)i;
	return 0;
}

int signal_parse(const char *text, struct signal_target *ret, struct err *e)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	struct signal_target t;

	if (!n || n >= sizeof(t.name) || memchr(text, '/', n))
		return err_set(e, CODE_USAGE, "--signal must be NAME:SIG, such as nginx:HUP; NAME is a process's "
			       "name without its directory");
	memcpy(t.name, text, n);
	t.name[n] = '\0';
	t.signal = signal_number(colon + 1);
	if (!t.signal)
		return err_set(e, CODE_USAGE, "--signal: what stands after the colon must be a signal such as HUP, "
			       "SIGUSR1, or a number from 1 to %d", SIGNAL_MAX);
	*ret = t;
	return 0;
}

/* --- processes --- */

struct process {
	char comm[COMM_MAX + 1];
	char state;
	uint64_t blocked, ignored, caught;	/* sets of signals */
};

/* The beginning of /proc/PID/NAME, NUL-terminated; false when it is gone or hidden. */
static bool read_proc(int proc, const char *pid, const char *name, char *ret, size_t n)
{
	char path[64];
	_cleanup_close_ int fd = -1;
	ssize_t len;

	snprintf(path, sizeof(path), "%s/%s", pid, name);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? -1 : sys_pread_full(fd, ret, n - 1, 0);
	if (len < 0)
		return false;
	ret[len] = '\0';
	return true;
}

static uint64_t hex_set(const char *status, const char *field)
{
	const char *p = strstr(status, field);
	uint64_t v = 0;

	for (p = p ? p + strlen(field) : ""; *p && strchr("0123456789abcdef", *p); p++)
		v = v << 4 | (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
	return v;
}

static bool read_process(int proc, const char *pid, struct process *ret)
{
	char status[4096];
	const char *state;

	if (!read_proc(proc, pid, "comm", ret->comm, sizeof(ret->comm)) ||
	    !read_proc(proc, pid, "status", status, sizeof(status)))
		return false;
	ret->comm[strcspn(ret->comm, "\n")] = '\0';
	/* a newline within a name is escaped there, so that these stand at the beginning of a line */
	state = strstr(status, "\nState:\t");
	ret->state = state ? state[8] : '?';
	ret->blocked = hex_set(status, "\nSigBlk:\t");
	ret->ignored = hex_set(status, "\nSigIgn:\t");
	ret->caught = hex_set(status, "\nSigCgt:\t");
	return true;
}

static bool has_name(int proc, const char *pid, const struct process *p, const char *name)
{
	char argv0[LIMIT_PATH];
	const char *slash;

	if (strncmp(p->comm, name, COMM_MAX) == 0)
		return true;
	if (!read_proc(proc, pid, "cmdline", argv0, sizeof(argv0)))
		return false;
	slash = strrchr(argv0, '/');
	return strcmp(slash ? slash + 1 : argv0, name) == 0;
}

/*
 * A server that is just starting has no handler yet: the signal that means "load anew" would be its end. Those that are
 * meant to end or stop a process are left to the one who chose them.
 */
static bool would_end(const struct process *p, int sig)
{
	uint64_t bit = (uint64_t)1 << (sig - 1);

	return (sig == SIGHUP || sig == SIGUSR1 || sig == SIGUSR2) &&
	       !((p->blocked | p->ignored | p->caught) & bit);
}

struct tally {
	unsigned sent, unready, refused;
	unsigned refused_pid, unready_pid;
};

static void signal_one(int proc, const char *pid, const struct signal_target *t, struct tally *n)
{
	struct process p;
	uint64_t number;

	if (!str_u64(str_of(pid), &number) || number > INT32_MAX || (pid_t)number == getpid())
		return;
	if (!read_process(proc, pid, &p) || p.state == 'Z' || p.state == 'X' ||
	    !has_name(proc, pid, &p, t->name))
		return;
	if (would_end(&p, t->signal)) {
		n->unready++;
		n->unready_pid = (unsigned)number;
	} else if (kill((pid_t)number, t->signal) == 0) {
		n->sent++;
	} else if (errno == EPERM) {
		n->refused++;
		n->refused_pid = (unsigned)number;
	}
}

static int nobody(const struct signal_target *t, const struct tally *n, struct err *e)
{
	char name[128];

	json_show(str_of(t->name), name, sizeof(name));
	if (n->refused)
		return err_set(e, CODE_LOCAL, "not permitted to signal %s (process %u); run as the same uid as it, "
			       "this is uid %u", name, n->refused_pid, (unsigned)geteuid());
	if (n->unready)
		return err_set(e, CODE_LOCAL, "%s (process %u) has no handler for signal %d yet, which would end it",
			       name, n->unready_pid, t->signal);
	return err_set(e, CODE_LOCAL, "no process named %s is to be seen; in a Pod, set shareProcessNamespace: true",
		       name);
}

int signal_send(const struct signal_target *t, struct err *e)
{
	struct tally n = { 0 };
	struct dirent *entry;
	DIR *dir = opendir("/proc");

	if (!dir)
		return err_errno(e, CODE_LOCAL, errno, "cannot look for processes in /proc");
	while ((entry = readdir(dir))) /* threads are not listed */
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			signal_one(dirfd(dir), entry->d_name, t, &n);
	closedir(dir);
	return n.sent ? 0 : nobody(t, &n, e);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * main: configuration, signals, exit code. Row 5. What the commands do is in commands.c.
 *
 * SIGTERM and SIGINT are blocked in every thread and taken by one thread of their own, so that no
 * code runs in a handler and PID 1 (which has no default actions) is stopped by them like any other
 * process. The first one sets `stop`, which pull and http look at; whoever is still there after
 * GRACE_MS is ended, and a second signal ends at once. The journal on the volume is current at any moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "config.h"
#include "log.h"
#include "watch.h"

#define GRACE_MS 800

static atomic_int stop;		/* 0, CODE_SIGTERM, CODE_SIGINT */
static atomic_flag last_words = ATOMIC_FLAG_INIT;

/* The one line that says why; whoever ends the process first says it. */
static void say_last(const struct err *e)
{
	if (!atomic_flag_test_and_set(&last_words))
		log_fatal(e);
}

static void stop_error(int code, struct err *e)
{
	err_set(e, (enum code)code, "stopped by %s; run the same command again to go on from here",
		code == CODE_SIGINT ? "SIGINT" : "SIGTERM");
}

static void *signal_main(void *arg)
{
	sigset_t *set = arg;
	const struct timespec grace = { .tv_nsec = GRACE_MS * 1000000L };
	struct err e = { 0 };
	int sig;

	do {
		sig = sigwaitinfo(set, NULL);
		if (sig == SIGHUP)
			watch_wake();
	} while (sig < 0 || sig == SIGHUP);
	atomic_store(&stop, sig == SIGINT ? CODE_SIGINT : CODE_SIGTERM);
	watch_wake();
	sigdelset(set, SIGHUP);
	/* the time left, or the second signal: either way it is over */
	while (sigtimedwait(set, NULL, &grace) < 0 && errno == EINTR)
		;
	stop_error(atomic_load(&stop), &e);
	say_last(&e);
	_exit((int)e.code);
}

static int start_signals(const struct config *cfg, struct err *e)
{
	static sigset_t set;
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	pthread_t thread;
	int rc;

	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGXFSZ, &ignore, NULL); /* RLIMIT_FSIZE: write says EFBIG instead */
	/* a pull outlives the terminal it was started from */
	if (cfg->command == CMD_PULL)
		sigaction(SIGHUP, &ignore, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (cfg->command == CMD_WATCH)
		sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	rc = pthread_create(&thread, NULL, signal_main, &set);
	if (rc)
		return err_errno(e, CODE_INTERNAL, rc, "cannot start a thread");
	pthread_detach(thread);
	return 0;
}

/* A file opened later must not become somebody's stdout. */
static void open_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static void start_log(const struct config *cfg)
{
	log_init(cfg->log_format, cfg->quiet ? LOG_WARN : cfg->verbose ? LOG_DEBUG : LOG_INFO);
	/* a probe is not the container's last word */
	log_set_termination_log(cfg->command == CMD_PROBE ? NULL : cfg->termination_log);
}

static int finish(const struct config *cfg, int rc, struct err *e)
{
	int code = atomic_load(&stop);

	if (rc == 0)
		return CODE_OK;
	if (code)
		stop_error(code, e);
	if (!(cfg->command == CMD_PROBE && cfg->quiet))
		say_last(e);
	return e->code == CODE_OK ? CODE_INTERNAL : (int)e->code;
}

int main(int argc, char **argv)
{
	struct config cfg = { 0 };
	struct err e = { 0 };
	int rc;

	open_standard_files();
	rc = config_parse(argc, argv, environ, &cfg, &e);
	if (rc < 0 && argc > 1 && strcmp(argv[1], "probe") == 0)
		cfg.termination_log = NULL;
	start_log(&cfg);
	if (rc == 0)
		rc = start_signals(&cfg, &e);
	if (rc == 0)
		rc = command_run(&cfg, &stop, &e);
	rc = finish(&cfg, rc, &e);
	config_release(&cfg);
	return rc;
}

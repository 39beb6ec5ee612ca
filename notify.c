// SPDX-License-Identifier: Apache-2.0
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hook.h"
#include "json.h"
#include "notify_internal.h"
#include "sys.h"

#define BACKOFF_MAX_MS 60000
#define DEFAULT_BACKOFF_MS 3000
#define DEFAULT_HOOK_MS 30000
#define ENV_VALUES 5

/* --- events --- */

struct event {
	struct notify_event ev;
	char text[];	/* the strings of ev */
};

static struct event *event_copy(const struct notify_event *ev)
{
	const char *const from[] = { ev->ref, ev->digest, ev->previous, ev->path };
	struct event *c;
	size_t total = 0;

	for (size_t i = 0; i < ARRAY_SIZE(from); i++)
		total += from[i] ? strlen(from[i]) + 1 : 1;
	c = malloc(sizeof(*c) + total);
	if (!c)
		return NULL;
	const char **to[] = { &c->ev.ref, &c->ev.digest, &c->ev.previous, &c->ev.path };
	char *p = c->text;
	for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
		size_t n = from[i] ? strlen(from[i]) : 0;
		memcpy(p, from[i] ? from[i] : "", n);
		p[n] = '\0';
		*to[i] = p;
		p += n + 1;
	}
	c->ev.generation = ev->generation;
	return c;
}

static bool event_same(const struct event *a, const struct event *b)
{
	return a && a->ev.generation == b->ev.generation && strcmp(a->ev.digest, b->ev.digest) == 0 &&
	       strcmp(a->ev.path, b->ev.path) == 0 && strcmp(a->ev.ref, b->ev.ref) == 0;
}

static void add_value(struct buf *b, const char *s, bool json)
{
	_cleanup_buf_ struct buf quoted = BUF_INIT(b->max);

	if (!json) {
		buf_adds(b, s);
	} else if (json_add_string(&quoted, s, strlen(s)) == 0) {
		buf_add(b, quoted.data + 1, quoted.len - 2);
	} else {
		b->failed = true;
	}
}

/* Adds the value of the word that text begins with and returns its length, 0 if there is none. */
static size_t add_word(struct buf *b, const char *text, const struct notify_event *ev, bool json)
{
	char number[24];
	const struct {
		const char *word, *value;
	} words[] = {
		{ "{ref}", ev->ref }, { "{digest}", ev->digest }, { "{previous}", ev->previous },
		{ "{path}", ev->path }, { "{generation}", number },
	};

	snprintf(number, sizeof(number), "%llu", (unsigned long long)ev->generation);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t n = strlen(words[i].word);
		if (strncmp(text, words[i].word, n) == 0) {
			add_value(b, words[i].value ? words[i].value : "", json);
			return n;
		}
	}
	return 0;
}

int notify_fill(const char *template_text, const struct notify_event *ev, bool json, struct buf *ret)
{
	for (const char *p = template_text; *p;) {
		size_t plain = strcspn(p, "{"), word;

		buf_add(ret, p, plain);
		p += plain;
		if (!*p)
			break;
		word = add_word(ret, p, ev, json);
		if (!word)
			buf_addc(ret, *p);
		p += word ? word : 1;
	}
	return ret->failed ? -1 : 0;
}

void notify_env_free(char **env)
{
	for (size_t i = 0; env && env[i]; i++)
		free(env[i]);
	free(env);
}

char **notify_env(const struct notify_event *ev)
{
	const struct {
		const char *name, *word;
	} values[ENV_VALUES] = {
		{ "FETCHER_REF=", "{ref}" }, { "FETCHER_DIGEST=", "{digest}" },
		{ "FETCHER_PREVIOUS=", "{previous}" }, { "FETCHER_PATH=", "{path}" },
		{ "FETCHER_GENERATION=", "{generation}" },
	};
	char **env = calloc(ENV_VALUES + 1, sizeof(*env));

	for (size_t i = 0; env && i < ENV_VALUES; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT(MIB);
		buf_adds(&b, values[i].name);
		notify_fill(values[i].word, ev, false, &b);
		env[i] = buf_steal(&b);
		if (!env[i]) {
			notify_env_free(env);
			return NULL;
		}
	}
	return env;
}

/* --- sinks --- */

enum { SINK_TOUCH = 0, SINK_EXEC, SINK_SIGNAL, SINK_WEBHOOK, SINKS };

struct sink {
	bool on, taken;		/* taken: the newest event the thread knows */
	unsigned failures;	/* of this event */
	uint64_t due_ms;
};

struct notify {
	struct notify_options o;
	struct hook_command exec;
	struct signal_target target;
	struct webhook webhook;
	atomic_int quit;	/* what ends a running command or request; notify_free sets it */
	bool started;
	pthread_t thread;

	pthread_mutex_t lock;	/* of what follows */
	pthread_cond_t news;
	struct event *mail;	/* newer than now; NULL = none */
	struct event *now;	/* replaced by the thread only, and read by it without the lock */
	struct sink sinks[SINKS];
};

static int touch(const char *path, struct err *e)
{
	_cleanup_close_ int fd = -1;

	if (utimensat(AT_FDCWD, path, NULL, 0) == 0)
		return 0;
	if (errno == ENOENT) {
		fd = open(path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
		if (fd >= 0)
			return 0;
	}
	return err_errno(e, CODE_LOCAL, errno, "cannot touch %s", path);
}

static int run_command(struct notify *n, const struct notify_event *ev, struct err *e)
{
	char **env = notify_env(ev);
	const struct hook_run run = {
		.env = (const char *const *)env,
		.timeout_ms = n->o.hook_timeout_ms,
		.stop = &n->quit,
	};

	if (!env)
		return err_oom(e);
	int rc = hook_run(&n->exec, &run, e);
	notify_env_free(env);
	return rc;
}

static int try_sink(struct notify *n, int i, const struct notify_event *ev, struct err *e)
{
	switch (i) {
	case SINK_TOUCH:
		return touch(n->o.touch_file, e);
	case SINK_EXEC:
		return run_command(n, ev, e);
	case SINK_SIGNAL:
		return signal_send(&n->target, e);
	default:
		return webhook_call(&n->webhook, ev, e);
	}
}

/* --- the thread --- */

static void take_mail(struct notify *n)
{
	if (!n->mail)
		return;
	free(n->now);
	n->now = n->mail;
	n->mail = NULL;
	for (int i = 0; i < SINKS; i++)
		n->sinks[i] = (struct sink){ .on = n->sinks[i].on };
}

/* The sink that waited longest, the first of equals; -1 = all are done. */
static int next_sink(const struct notify *n)
{
	int best = -1;

	for (int i = 0; i < SINKS; i++)
		if (n->sinks[i].on && !n->sinks[i].taken &&
		    (best < 0 || n->sinks[i].due_ms < n->sinks[best].due_ms))
			best = i;
	return best;
}

static void wait_until(struct notify *n, uint64_t due_ms)
{
	struct timespec at = { (time_t)(due_ms / 1000), (long)(due_ms % 1000) * 1000000 };

	if (due_ms == UINT64_MAX)
		pthread_cond_wait(&n->news, &n->lock);
	else
		pthread_cond_timedwait(&n->news, &n->lock, &at);
}

/* Doubled up to a minute, less up to a quarter: many Pods do not ask in step. */
static uint64_t backoff_ms(uint64_t first, unsigned failures)
{
	uint64_t ms = MIN(first, (uint64_t)BACKOFF_MAX_MS) << MIN(failures, 20u);

	ms = MIN(ms, MAX(first, (uint64_t)BACKOFF_MAX_MS));
	return ms - sys_random64() % (ms / 4 + 1);
}

/* Called, and returns, with the lock held. */
static void try_one(struct notify *n, int i)
{
	static const char *const names[] = { "touch-file", "exec-hook", "signal", "webhook" };
	struct sink *s = &n->sinks[i];
	struct err e = { 0 };

	pthread_mutex_unlock(&n->lock);
	int rc = try_sink(n, i, &n->now->ev, &e);
	/* what notify_free ended says nothing about the sink */
	if (n->o.told && (!rc || !atomic_load(&n->quit)))
		n->o.told(n->o.arg, names[i], n->now->ev.digest, rc ? &e : NULL);
	pthread_mutex_lock(&n->lock);
	s->taken = rc == 0;
	if (rc)
		s->due_ms = sys_now_ms() + backoff_ms(n->o.hook_backoff_ms, s->failures++);
}

static bool stopped(const struct notify *n)
{
	return n->o.stop && atomic_load_explicit(n->o.stop, memory_order_relaxed);
}

static void *notify_main(void *arg)
{
	struct notify *n = arg;

	pthread_mutex_lock(&n->lock);
	while (!atomic_load(&n->quit)) {
		take_mail(n);
		int i = n->now && !stopped(n) ? next_sink(n) : -1;
		if (i < 0)
			wait_until(n, UINT64_MAX);
		else if (n->sinks[i].due_ms > sys_now_ms())
			wait_until(n, n->sinks[i].due_ms);
		else
			try_one(n, i);
	}
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

/* --- life --- */

static int set_up(struct notify *n, struct err *e)
{
	const struct notify_options *o = &n->o;

	if (o->touch_file && !*o->touch_file)
		return err_set(e, CODE_USAGE, "--touch-file is empty");
	if (o->exec_hook && hook_parse(o->exec_hook, &n->exec, e))
		return err_wrap(e, "--exec-hook");
	if (o->signal && signal_parse(o->signal, &n->target, e))
		return -1;
	if (o->webhook_url && webhook_init(&n->webhook, o, &n->quit, e))
		return -1;
	n->sinks[SINK_TOUCH].on = o->touch_file;
	n->sinks[SINK_EXEC].on = o->exec_hook;
	n->sinks[SINK_SIGNAL].on = o->signal;
	n->sinks[SINK_WEBHOOK].on = o->webhook_url;
	return 0;
}

static int start_thread(struct notify *n, struct err *e)
{
	int rc;

	if (next_sink(n) < 0)
		return 0;
	rc = pthread_create(&n->thread, NULL, notify_main, n);
	if (rc)
		return err_errno(e, CODE_LOCAL, rc, "cannot start a thread");
	n->started = true;
	return 0;
}

int notify_new(struct notify **ret, const struct notify_options *o, struct err *e)
{
	struct notify *n = calloc(1, sizeof(*n));
	pthread_condattr_t attr;

	if (!n)
		return err_oom(e);
	n->o = *o;
	if (!n->o.hook_timeout_ms)
		n->o.hook_timeout_ms = DEFAULT_HOOK_MS;
	if (!n->o.hook_backoff_ms)
		n->o.hook_backoff_ms = DEFAULT_BACKOFF_MS;
	pthread_mutex_init(&n->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&n->news, &attr);
	pthread_condattr_destroy(&attr);
	if (set_up(n, e) || start_thread(n, e)) {
		notify_free(n);
		return -1;
	}
	*ret = n;
	return 0;
}

void notify_send(struct notify *n, const struct notify_event *ev)
{
	struct event *c, *old;

	/* without memory the older event stays; whoever follows it is told by the next one */
	if (!n || !n->started || !(c = event_copy(ev)))
		return;
	pthread_mutex_lock(&n->lock);
	if (event_same(n->mail ? n->mail : n->now, c)) {
		old = c;
	} else {
		old = n->mail;
		n->mail = c;
		pthread_cond_signal(&n->news);
	}
	pthread_mutex_unlock(&n->lock);
	free(old);
}

bool notify_idle(struct notify *n)
{
	bool idle;

	if (!n || !n->started)
		return true;
	pthread_mutex_lock(&n->lock);
	idle = !n->mail && (!n->now || next_sink(n) < 0);
	pthread_mutex_unlock(&n->lock);
	return idle;
}

void notify_free(struct notify *n)
{
	if (!n)
		return;
	if (n->started) {
		pthread_mutex_lock(&n->lock);
		atomic_store(&n->quit, CODE_SIGTERM);
		pthread_cond_signal(&n->news);
		pthread_mutex_unlock(&n->lock);
		pthread_join(n->thread, NULL);
	}
	webhook_release(&n->webhook);
	hook_release(&n->exec);
	free(n->mail);
	free(n->now);
	pthread_cond_destroy(&n->news);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "announce.h"
#include "endpoints.h"
#include "metrics.h"
#include "pull.h"
#include "sys.h"

#define REF_POLL_MS 1000	/* where there is no inotify to be had */
#define PRUNE_RETRY_MS 10000	/* the volume was locked by another fetcher */
#define TOLD_POLL_MS 1000	/* has everybody taken the newest version? */
#define STALL_SLACK_MS 60000

struct watch {
	const struct config *cfg;
	const atomic_int *stop;		/* of the process */
	const char *dest;
	struct announce *announce;
	struct endpoints *endpoints;

	/* between the loop and the thread that waits for events */
	pthread_t thread;
	bool has_thread;
	atomic_bool quit;
	int wake_fd, inotify_fd;
	pthread_mutex_t lock;
	pthread_cond_t event;
	bool poked;			/* look now */
	bool replaced;			/* the reference changed while its pull was running */
	char *ref;			/* what is being followed; owned; NULL until it could be read */
	atomic_int interrupt;		/* of the running pull: stop's code, or any when the reference changed */

	/* the loop's own */
	bool published;			/* a version stands */
	bool announced;
	struct digest announced_digest;
	char *taken;			/* name of the version that everybody notified has taken, or NULL */
	bool telling;			/* the last prune spared that one for somebody who had not taken the newest */
	char *version;			/* name of the one that stands */
	unsigned failures;		/* in a row */
	uint64_t next_look, next_prune;	/* sys_now_ms; next_prune 0 = nothing is due */
	uint64_t start_ms;
	int64_t start_time;
};

/* --- waking --- */

static atomic_int wake_fd = -1;

void watch_wake(void)
{
	int fd = atomic_load(&wake_fd);
	uint64_t one = 1;

	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it will wake all the same */
}

static void on_sync(void *arg)
{
	(void)arg;
	watch_wake();
}

/* --- the reference --- */

/* First line of the file, trimmed. A file that is empty is being written. */
static int read_ref_file(const char *path, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_REF_FILE);
	struct ref parsed;
	char *ref;

	if (sys_read_file(AT_FDCWD, path, &text))
		return err_errno(e, CODE_LOCAL, errno, "cannot read --ref-file %s", path);
	struct str s = { text.data, text.len };
	while (s.n && strchr(" \t\r\n", s.p[s.n - 1]))
		s.n--;
	while (s.n && strchr(" \t\r\n", s.p[0]))
		s.p++, s.n--;
	if (!s.n)
		return err_set(e, CODE_USAGE, "--ref-file %s is empty", path);
	if (memchr(s.p, '\0', s.n) || memchr(s.p, '\n', s.n))
		return err_set(e, CODE_USAGE, "--ref-file %s must hold one reference and nothing else", path);
	ref = strndup(s.p, s.n);
	if (!ref)
		return err_oom(e);
	if (ref_parse(ref, &parsed, e)) {
		free(ref);
		return err_wrap(e, "--ref-file %s", path);
	}
	*ret = ref;
	return 0;
}

/* The reference of the next pull goes to w->ref; what interrupts it counts from here on. */
static int take_ref(struct watch *w, struct err *e)
{
	char *ref = NULL;
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	if (w->cfg->ref_file)
		rc = read_ref_file(w->cfg->ref_file, &ref, e);
	else if (!w->ref && !(ref = strdup(w->cfg->pairs[0].ref)))
		rc = err_oom(e);
	if (ref) {
		free(w->ref);
		w->ref = ref;
	}
	w->poked = w->replaced = false;
	atomic_store(&w->interrupt, atomic_load(w->stop));
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* --- events --- */

/* Also looks at the directory again: it may have been replaced. Kubernetes swaps a link in it, not the file. */
static void watch_directory(struct watch *w)
{
	const char *path = w->cfg->ref_file, *slash = strrchr(path, '/');
	_cleanup_free_ char *dir = slash ? strndup(path, MAX((size_t)(slash - path), (size_t)1)) : strdup(".");

	if (w->inotify_fd >= 0 && dir &&
	    inotify_add_watch(w->inotify_fd, dir, IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE_SELF |
			      IN_MOVE_SELF | IN_ONLYDIR) >= 0)
		return;
	cleanup_close_fn(&w->inotify_fd);
}

static void drain(int fd)
{
	char junk[4096] __attribute__((aligned(8)));

	while (read(fd, junk, sizeof(junk)) > 0)
		;
}

static void ref_may_have_changed(struct watch *w)
{
	struct err ignored;
	char *ref = NULL;

	if (read_ref_file(w->cfg->ref_file, &ref, &ignored))
		return; /* the loop says so at its next look */
	pthread_mutex_lock(&w->lock);
	if (!w->ref || strcmp(ref, w->ref) != 0) {
		w->poked = w->replaced = true;
		atomic_store(&w->interrupt, CODE_SIGTERM);
		pthread_cond_signal(&w->event);
	}
	pthread_mutex_unlock(&w->lock);
	free(ref);
}

static void *events_main(void *arg)
{
	struct watch *w = arg;

	while (!atomic_load(&w->quit)) {
		struct pollfd fds[2] = {
			{ .fd = w->wake_fd, .events = POLLIN }, { .fd = w->inotify_fd, .events = POLLIN },
		};
		int n = poll(fds, 2, w->cfg->ref_file && w->inotify_fd < 0 ? REF_POLL_MS : -1);
		if (n < 0 && errno != EINTR)
			break;
		if (fds[0].revents) {
			drain(w->wake_fd);
			pthread_mutex_lock(&w->lock);
			w->poked = true;
			if (atomic_load(w->stop))
				atomic_store(&w->interrupt, atomic_load(w->stop));
			pthread_cond_signal(&w->event);
			pthread_mutex_unlock(&w->lock);
		}
		if (w->cfg->ref_file && (n == 0 || fds[1].revents)) {
			if (fds[1].revents)
				drain(w->inotify_fd);
			watch_directory(w);
			ref_may_have_changed(w);
		}
	}
	return NULL;
}

static int start_events(struct watch *w, struct err *e)
{
	pthread_condattr_t attr;

	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0)
		return err_errno(e, CODE_INTERNAL, errno, "eventfd");
	if (w->cfg->ref_file) {
		w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		watch_directory(w);
	}
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->event, &attr);
	pthread_condattr_destroy(&attr);
	atomic_store(&wake_fd, w->wake_fd);
	int rc = pthread_create(&w->thread, NULL, events_main, w);
	w->has_thread = rc == 0;
	return rc ? err_errno(e, CODE_INTERNAL, rc, "cannot start a thread") : 0;
}

/* Until at_ms, or until somebody wants something. true = look now. */
static bool sleep_until(struct watch *w, uint64_t at_ms)
{
	struct timespec at = { .tv_sec = (time_t)(at_ms / 1000), .tv_nsec = (long)(at_ms % 1000) * 1000000 };
	bool poked;

	metrics_idle_until(at_ms);
	pthread_mutex_lock(&w->lock);
	while (!w->poked && !atomic_load(w->stop))
		if (pthread_cond_timedwait(&w->event, &w->lock, &at))
			break;
	poked = w->poked;
	w->poked = false;
	pthread_mutex_unlock(&w->lock);
	return poked;
}

/* --- old versions --- */

/*
 * The wall clock as it was at the start plus the time since: a clock that jumps while we run makes nothing older than
 * it is. Across restarts the wall clock is all there is.
 */
static int64_t steady_time(const struct watch *w)
{
	return w->start_time + (int64_t)((sys_now_ms() - w->start_ms) / 1000);
}

/* partials: nothing is half fetched that somebody wants, so partial/ goes too. Returns how many versions went. */
static uint64_t prune(struct watch *w, uint64_t keep, bool partials)
{
	struct store_gc_policy policy = {
		.keep = (unsigned)keep,
		.stale_ms = w->cfg->stale_timeout_ms,
		.keep_bytes = w->cfg->keep_bytes,
		.now = steady_time(w),
		.partials = partials,
	};
	struct store_gc_result r = { 0 };
	struct store *s = NULL;
	struct err e = { 0 };

	w->next_prune = 0;
	w->telling = !announce_idle(w->announce);
	if (!w->telling) {
		free(w->taken);
		w->taken = w->version ? strdup(w->version) : NULL;
	}
	policy.spare = w->taken;
	int rc = store_open(&s, w->dest, false, &e);
	if (rc == 0)
		rc = store_lock(s, 0, w->stop, NULL, NULL, &e);
	if (rc == 0)
		rc = store_gc(s, &policy, &r, &e);
	store_close(s);
	if (rc == 0) {
		metrics_versions(r.left, r.left_bytes);
		if (r.next)
			w->next_prune = sys_now_ms() + 1000 * (uint64_t)MAX(r.next - policy.now, (int64_t)1);
		if (r.versions) {
			char versions[24], bytes[24];
			snprintf(versions, sizeof(versions), "%llu", (unsigned long long)r.versions);
			snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)r.bytes);
			log_line(LOG_INFO, "dropped old versions", "dest", w->dest, "versions", versions,
				 "bytes", bytes, NULL);
		}
	} else if (e.code == CODE_LOCKED) {
		w->next_prune = sys_now_ms() + PRUNE_RETRY_MS;
	} else {
		log_line(LOG_WARN, "cannot drop old versions", "dest", w->dest, "reason", e.msg, NULL);
	}
	return r.versions;
}

/* --- one look --- */

static int pull_once(struct watch *w, struct pull_result *r, struct err *e)
{
	const struct config *c = w->cfg;
	struct pull_options o = {
		.cfg = c,
		.ref = w->ref,
		.dest = w->dest,
		.stop = &w->interrupt,
		/* with a version to serve, a registry that is away is found out within a period */
		.check_budget_ms = w->published ? MIN(c->retry_timeout_ms, c->period_ms) : 0,
		.repeated = w->published,
		.accept = announce_accept,
		.accept_arg = w->announce,
	};

	if (announce_about(w->announce, w->ref, w->dest, e))
		return -1;
	return pull_run(&o, r, e);
}

static int remember(struct watch *w, const struct store_marker *m, struct err *e)
{
	w->published = true;
	w->failures = 0;
	if (!w->version || strcmp(w->version, m->version) != 0) {
		free(w->version);
		w->version = strdup(m->version);
		if (!w->version)
			return err_oom(e);
	}
	/* also what another fetcher published on this volume, and after a restart what stood there already */
	if (w->announced && digest_equal(&w->announced_digest, &m->digest))
		return 0;
	if (announce_published(w->announce, m, e))
		return -1;
	w->announced = true;
	w->announced_digest = m->digest;
	return 0;
}

/*
 * After a restart while the registry is away: what stands on the volume is served, and those who may have missed it
 * before are told.
 */
static void adopt(struct watch *w)
{
	struct store_marker m = { 0 };
	struct store *s = NULL;
	struct err ignored;
	char digest[DIGEST_STR_MAX];

	if (store_open(&s, w->dest, false, &ignored) == 0 && store_read_marker(s, &m, &ignored) == 1 &&
	    store_check(s, &m, NULL, true, &ignored) == 1) {
		metrics_published(digest_format(&m.digest, ':', digest), m.previous, m.generation, m.bytes, m.files,
				  m.published_at);
		remember(w, &m, &ignored);
	}
	store_marker_release(&m);
	store_close(s);
}

static uint64_t with_jitter(const struct watch *w, uint64_t ms)
{
	uint64_t spread = ms / 100 * w->cfg->jitter;

	return ms - spread + (spread ? sys_random64() % (2 * spread + 1) : 0);
}

/* The first pause doubled for each failure in a row, never more than a period. */
static uint64_t backoff(const struct watch *w, uint64_t first_ms)
{
	unsigned shift = MIN(w->failures ? w->failures - 1 : 0, 16u);

	return MIN(first_ms << shift, MAX(w->cfg->period_ms, first_ms));
}

/* 0: go on. -1: this failure ends the watch. */
static int failed(struct watch *w, const struct err *e)
{
	const struct config *c = w->cfg;
	bool veto = e->code == CODE_POLICY;
	uint64_t pause = c->period_ms;
	char seconds[24], failures[24];

	/* what stands on the command line will not get better */
	if (e->code == CODE_USAGE && !c->ref_file && !w->published)
		return -1;
	if (!w->published)
		adopt(w);
	w->failures++;
	if (!veto && c->on_failure == ON_FAILURE_EXIT && w->failures > c->max_failures)
		return -1;
	if (veto && c->pre_publish_hook)
		pause = backoff(w, c->hook_backoff_ms);
	else if (!w->published)
		pause = backoff(w, c->init_period_ms);
	pause = with_jitter(w, pause);
	w->next_look = sys_now_ms() + pause;
	snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)(pause / 1000));
	snprintf(failures, sizeof(failures), "%u", w->failures);
	log_line(LOG_WARN, e->msg, "error", code_name(e->code), "failures", failures, "nextTrySeconds", seconds,
		 "dest", w->dest, NULL);
	return 0;
}

static bool was_replaced(struct watch *w)
{
	pthread_mutex_lock(&w->lock);
	bool replaced = w->replaced;
	pthread_mutex_unlock(&w->lock);
	return replaced;
}

/* 0: go on. -1: end. */
static int look(struct watch *w, struct err *e)
{
	struct pull_result r = { 0 };
	uint64_t start = sys_now_ms();
	int rc = take_ref(w, e);

	if (rc) /* pull_run counts its own failures */
		metrics_end(METRICS_FAILED, e, 0);
	else
		rc = pull_once(w, &r, e);
	if (rc == 0)
		rc = remember(w, &r.marker, e);
	pull_result_release(&r);
	if (atomic_load(w->stop))
		return rc;
	if (rc == 0) {
		w->next_look = start + with_jitter(w, w->cfg->period_ms);
		prune(w, w->cfg->keep_versions, true);
	} else if (was_replaced(w) || (e->code == CODE_SPACE && w->published && prune(w, 0, false))) {
		/* another reference, or room: what only --keep-versions spares gives way to a new version */
		w->next_look = sys_now_ms();
		rc = 0;
	} else {
		rc = failed(w, e);
	}
	struct err why;
	if (w->cfg->metrics_file && metrics_write_file(w->cfg->metrics_file, &why))
		log_line(LOG_WARN, "cannot write --metrics-file", "reason", why.msg, NULL);
	return rc;
}

/* --- start and end --- */

static int start(struct watch *w, struct err *e)
{
	const struct config *c = w->cfg;

	metrics_allowance(c->retry_timeout_ms + c->lock_timeout_ms + c->stall_timeout_ms + c->hook_timeout_ms +
			  STALL_SLACK_MS);
	if (announce_new(&w->announce, c, w->stop, e) || start_events(w, e))
		return -1;
	announce_veto_stop(w->announce, &w->interrupt);
	return endpoints_new(&w->endpoints, c, &w->dest, 1, on_sync, NULL, e);
}

static void release(struct watch *w)
{
	endpoints_free(w->endpoints);
	atomic_store(&w->quit, true);
	watch_wake();
	if (w->has_thread)
		pthread_join(w->thread, NULL);
	atomic_store(&wake_fd, -1);
	announce_free(w->announce);
	cleanup_close_fn(&w->wake_fd);
	cleanup_close_fn(&w->inotify_fd);
	free(w->ref);
	free(w->taken);
	free(w->version);
}

int watch_run(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	struct watch w = {
		.cfg = cfg, .stop = stop, .dest = cfg->pairs[0].dest, .wake_fd = -1, .inotify_fd = -1,
		.start_ms = sys_now_ms(), .start_time = time(NULL),
	};
	int rc = start(&w, e);

	while (rc == 0 && !atomic_load(stop)) {
		rc = look(&w, e);
		while (rc == 0 && !atomic_load(stop)) {
			uint64_t at = w.next_prune ? MIN(w.next_look, w.next_prune) : w.next_look;
			if (w.telling)
				at = MIN(at, sys_now_ms() + TOLD_POLL_MS);
			if (sleep_until(&w, at) || sys_now_ms() >= w.next_look)
				break;
			if ((w.next_prune && sys_now_ms() >= w.next_prune) ||
			    (w.telling && announce_idle(w.announce)))
				prune(&w, cfg->keep_versions, false);
		}
	}
	if (rc == 0 && !w.published)
		rc = err_set(e, (enum code)atomic_load(stop), "stopped before a first version was published");
	release(&w);
	return rc;
}

// SPDX-License-Identifier: Apache-2.0
#include "announce.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "hook.h"
#include "metrics.h"
#include "notify.h"
#include "sys.h"

_Static_assert((int)PRESET_POST == (int)NOTIFY_POST && (int)PRESET_SGLANG == (int)NOTIFY_SGLANG &&
	       (int)PRESET_TRITON == (int)NOTIFY_TRITON, "config.h and notify.h agree on presets");

#define WAIT_POLL_MS 20

struct announce {
	const struct config *cfg;
	const atomic_int *stop, *veto_stop;
	struct http_options http;
	struct notify *notify;
	struct hook_command veto;
	bool has_veto;
	char *ref, *dest, *previous;
	pthread_mutex_t lock;		/* last */
	struct err last;		/* why the newest try of a notification failed */
};

static void on_told(void *arg, const char *sink, const char *digest, const struct err *e)
{
	struct announce *a = arg;

	metrics_notified(sink, !e);
	if (!e) {
		log_line(LOG_INFO, "notified", "by", sink, "digest", digest, NULL);
		return;
	}
	log_line(LOG_WARN, "notification failed; it will be tried again", "by", sink, "digest", digest, "reason",
		 e->msg, NULL);
	pthread_mutex_lock(&a->lock);
	a->last = *e;
	pthread_mutex_unlock(&a->lock);
}

int announce_new(struct announce **ret, const struct config *cfg, const atomic_int *stop, struct err *e)
{
	struct announce *a = calloc(1, sizeof(*a));

	if (!a)
		return err_oom(e);
	a->cfg = cfg;
	a->stop = a->veto_stop = stop;
	pthread_mutex_init(&a->lock, NULL);
	a->http = (struct http_options){
		.ca_file = cfg->ca_file,
		.extra_ca_files = cfg->extra_ca_file.v,
		.proxy_ca_file = cfg->proxy_ca_file,
		.tls13 = cfg->tls_min == CONFIG_TLS13,
		.resolve = cfg->resolve.v,
		.dns_timeout_ms = (unsigned)cfg->dns_timeout_ms,
		.insecure = cfg->insecure,
		.connect_timeout_ms = (unsigned)cfg->connect_timeout_ms,
		.user_agent = FETCHER_USER_AGENT,
	};
	struct notify_options o = {
		.touch_file = cfg->touch_file,
		.exec_hook = cfg->exec_hook,
		.signal = cfg->signal,
		.webhook_url = cfg->webhook_url,
		.preset = (enum notify_preset)cfg->webhook_preset,
		.webhook_method = cfg->webhook_method,
		.webhook_headers = cfg->webhook_header_file.v,
		.webhook_body = cfg->webhook_body,
		.webhook_timeout_ms = cfg->webhook_timeout_ms,
		.webhook_success_status = (unsigned)cfg->webhook_success_status,
		.hook_timeout_ms = cfg->hook_timeout_ms,
		.hook_backoff_ms = cfg->hook_backoff_ms,
		.http = &a->http,
		.stop = stop,
		.told = on_told,
		.arg = a,
	};
	if (cfg->pre_publish_hook) {
		if (hook_parse(cfg->pre_publish_hook, &a->veto, e)) {
			announce_free(a);
			return err_wrap(e, "--pre-publish-hook");
		}
		a->has_veto = true;
	}
	if (notify_new(&a->notify, &o, e)) {
		announce_free(a);
		return -1;
	}
	*ret = a;
	return 0;
}

void announce_free(struct announce *a)
{
	if (!a)
		return;
	notify_free(a->notify);
	hook_release(&a->veto);
	free(a->ref);
	free(a->dest);
	free(a->previous);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

void announce_veto_stop(struct announce *a, const atomic_int *stop)
{
	a->veto_stop = stop;
}

/* The digest that stands on dest now, "" when there is none. */
static char *published_digest(const char *dest)
{
	struct store_marker m = { 0 };
	struct store *s = NULL;
	struct err ignored;
	char digest[DIGEST_STR_MAX] = "";

	if (store_open(&s, dest, false, &ignored) == 0 && store_read_marker(s, &m, &ignored) == 1)
		digest_format(&m.digest, ':', digest);
	store_marker_release(&m);
	store_close(s);
	return strdup(digest);
}

int announce_about(struct announce *a, const char *ref, const char *dest, struct err *e)
{
	free(a->ref);
	free(a->dest);
	free(a->previous);
	a->ref = strdup(ref);
	a->dest = strdup(dest);
	a->previous = a->has_veto ? published_digest(dest) : strdup("");
	return a->ref && a->dest && a->previous ? 0 : err_oom(e);
}

int announce_accept(void *arg, const char *digest, const char *path, struct err *e)
{
	struct announce *a = arg;
	struct notify_event ev = { .ref = a->ref, .digest = digest, .previous = a->previous, .path = path };

	if (!a->has_veto)
		return 0;
	char **env = notify_env(&ev);
	if (!env)
		return err_oom(e);
	struct hook_run run = {
		.cwd = path,
		.env = (const char *const *)env,
		.timeout_ms = a->cfg->hook_timeout_ms,
		.stop = a->veto_stop,
	};
	int rc = hook_run(&a->veto, &run, e);
	notify_env_free(env);
	/* a hook that hangs, or is not there (yet), has not said yes */
	if (rc && (e->code == CODE_DEADLINE || e->code == CODE_USAGE))
		e->code = CODE_POLICY;
	if (rc && e->code != CODE_SIGTERM && e->code != CODE_SIGINT)
		err_wrap(e, "--pre-publish-hook keeps %s back", digest);
	return rc;
}

/* Exactly this version's directory: a reader that opens file after file below the link could see two versions. */
static int version_path(const struct announce *a, const struct store_marker *m, struct buf *ret)
{
	const char *dest = a->cfg->notify_dest ? a->cfg->notify_dest : a->dest;
	_cleanup_free_ char *real = a->cfg->notify_dest ? NULL : realpath(dest, NULL);

	buf_adds(ret, real ? real : dest);
	if (strcmp(m->path, ".") != 0)
		buf_addf(ret, "/.fetcher/versions/%s", m->version);
	return ret->failed ? -1 : 0;
}

int announce_published(struct announce *a, const struct store_marker *m, struct err *e)
{
	_cleanup_buf_ struct buf path = BUF_INIT(4 * LIMIT_PATH);
	char digest[DIGEST_STR_MAX];

	if (version_path(a, m, &path))
		return err_oom(e);
	const struct notify_event ev = {
		.ref = m->ref,
		.digest = digest_format(&m->digest, ':', digest),
		.previous = m->previous ? m->previous : "",
		.path = buf_cstr(&path),
		.generation = m->generation,
	};
	notify_send(a->notify, &ev);
	return 0;
}

bool announce_idle(const struct announce *a)
{
	return notify_idle(a->notify);
}

int announce_wait(struct announce *a, uint64_t budget_ms, struct err *e)
{
	uint64_t start = sys_now_ms();

	while (!notify_idle(a->notify)) {
		int code = atomic_load(a->stop);
		if (code)
			return err_set(e, (enum code)code, "stopped");
		if (sys_now_ms() - start >= budget_ms) {
			pthread_mutex_lock(&a->lock);
			*e = a->last;
			pthread_mutex_unlock(&a->lock);
			if (!e->msg[0])
				err_set(e, CODE_NETWORK, "no answer yet");
			e->code = CODE_NETWORK;
			return err_wrap(e, "published, but a notification was not taken");
		}
		sys_sleep_ms(WAIT_POLL_MS);
	}
	return 0;
}

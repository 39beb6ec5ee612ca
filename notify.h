// SPDX-License-Identifier: Apache-2.0
/*
 * Telling others that a version was published: touch a file, run a command, signal a process, call a webhook, in this
 * order. Row 2; calls hook, http, json, secret, sys. notify_webhook.c: the request; notify_signal.c: finding processes.
 *
 * At least once, the last value wins: each sink is tried until it took the newest event, with backoff (hook_backoff_ms,
 * doubled up to a minute, jittered); an event that a newer one overtook is dropped. One thread of its own, so that a
 * server that takes minutes to load a model stops nobody. A sink that took an event is not asked again for the same
 * one. Sinks do not wait for each other's success; the one that waited longest is next. After a restart the caller
 * sends the version that stands; delivering twice is allowed, never not at all.
 *
 * Signals go to every process but ourselves whose comm or argv[0] has the name (the kernel cuts comm at 15 bytes, so a
 * longer NAME is compared that far). HUP, USR1 and USR2 are held back from a process that neither handles, blocks nor
 * ignores them: a server that is just starting would be ended by what should make it load.
 *
 * Webhook: no redirect is followed, no credential of the registry is sent, header files and CA are read for each try; a
 * message never has a header's value or a URL's query. Content-Type is application/json unless a header file says
 * otherwise; if that is no JSON type, the values in the body are not escaped. Presets (the URL's path, the body):
 *   post	{"ref","digest","previous","path","generation"}
 *   sglang	/update_weights_from_disk where the URL has no path, {"model_path"}; "success": false is a failure
 *   triton	the URL must be .../v2/repository/models/NAME/load, {}
 */
#ifndef FETCHER_NOTIFY_H
#define FETCHER_NOTIFY_H

#include <stdatomic.h>

#include "http.h"
#include "log.h"

enum notify_preset { NOTIFY_POST = 0, NOTIFY_SGLANG, NOTIFY_TRITON };

struct notify_event {
	const char *ref, *digest;	/* digest "sha256:..." */
	const char *previous;		/* digest, or "" */
	const char *path;		/* absolute directory of exactly this version (never the link: readers would mix) */
	uint64_t generation;
};

struct notify_options {			/* strings are borrowed until notify_free; NULL = that sink is off */
	const char *touch_file;		/* created, or its mtime set to now */
	const char *exec_hook;		/* hook_parse; stays in our directory: path may be another container's */
	const char *signal;		/* "NAME:SIG": /proc/<pid>/comm or the base name of argv[0]; HUP, SIGHUP or 1 to 64 */
	const char *webhook_url;	/* http or https; user info in it is refused */
	enum notify_preset preset;
	const char *webhook_method;	/* NULL = the preset's (POST); GET and HEAD have no body */
	const char *const *webhook_headers; /* files with "Name: value" lines; read again each time; NULL-terminated */
	const char *webhook_body;	/* template: {digest} {path} {previous} {ref} {generation}; NULL = the preset's */
	uint64_t webhook_timeout_ms;	/* whole exchange; 0 = 1 min */
	unsigned webhook_success_status; /* 0 = any 2xx */
	uint64_t hook_timeout_ms, hook_backoff_ms; /* 0 = 30 s, 3 s */
	/* ca_file, insecure, user_agent and trace are for the webhook too; nothing else of it is used. Borrowed, or NULL */
	const struct http_options *http;
	const atomic_int *stop;		/* non-zero: no further try begins; the running one ends with notify_free. May be NULL */
	/* Each try that ended; sink is "touch-file", "exec-hook", "signal", "webhook"; e is NULL when it was taken. Notify's thread. */
	void (*told)(void *arg, const char *sink, const char *digest, const struct err *e);
	void *arg;
};

struct notify;

/*
 * Checks the options (CODE_USAGE with the option's name; for https also whether the CA file can be read) and starts the thread; no
 * sink = no thread, every call below is cheap.
 */
int notify_new(struct notify **ret, const struct notify_options *o, struct err *e);
/*
 * Copies the event; it replaces one that is still waiting. The newest one again (same ref, digest, path and generation)
 * changes nothing. Never blocks. NULL is fine, here and in notify_idle.
 */
void notify_send(struct notify *n, const struct notify_event *ev);
/* Every sink took the newest event (or there is none). */
bool notify_idle(struct notify *n);
/* Gives up at once: a running command is killed, a running request dropped. NULL is fine. */
void notify_free(struct notify *n);

/* --- pure, for tests --- */
/*
 * Adds the filled template; values are escaped as inside a JSON string when json is true, and not filled again. Unknown
 * {words} stay as they are. -1: ret's cap, or memory.
 */
int notify_fill(const char *template_text, const struct notify_event *ev, bool json, struct buf *ret);
/* The environment of the commands: FETCHER_REF, _DIGEST, _PREVIOUS, _PATH, _GENERATION. NULL = no memory. */
char **notify_env(const struct notify_event *ev);
void notify_env_free(char **env);

#endif

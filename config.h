// SPDX-License-Identifier: Apache-2.0
/*
 * From the command line and the environment to struct config, driven by the one table of options.h.
 * Row 1; calls buf, log, progress (its modes); peer: options.
 *
 * A flag beats its variable FETCHER_<NAME>. Unknown flags and unknown FETCHER_* variables are
 * CODE_USAGE with the nearest known name; service-link variables of Kubernetes (FETCHER_PORT,
 * FETCHER_SERVICE_HOST, FETCHER_PORT_80_TCP...) are ignored, and no option uses such a name.
 * What hooks are told (FETCHER_REF, _DIGEST, _PREVIOUS, _PATH, _GENERATION) is ignored too: a hook may run fetcher.
 * Variables of all options are accepted by every command, flags only where they have a meaning.
 */
#ifndef FETCHER_CONFIG_H
#define FETCHER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "log.h"
#include "progress.h"
#include "version.h"	/* generated: FETCHER_VERSION, FETCHER_COMMIT ("" = unknown) */

#define FETCHER_USER_AGENT "fetcher/" FETCHER_VERSION

enum config_command {
	CMD_PULL = 0,
	CMD_WATCH,
	CMD_PROBE,
	CMD_WAIT,
	CMD_VERIFY,
	CMD_RESOLVE,
	CMD_LS,
	CMD_GC,
	CMD_INSTALL,
	CMD_VERSION,
	CMD_HELP,
	CMD_COUNT,
};
#define HELP_AUTH ((enum config_command)(CMD_COUNT + 1))	/* help's topic that is no command */

/* Same order as enum store_layout and enum store_fsync (a higher row; pull.c asserts it). */
enum config_layout { CONFIG_FLAT = 0, CONFIG_VERSIONS };
enum config_fsync { CONFIG_FSYNC_END = 0, CONFIG_FSYNC_ALWAYS, CONFIG_FSYNC_NEVER };

enum config_cloud { CLOUD_LOGIN_AUTO = 0, CLOUD_LOGIN_OFF };
enum config_tls { CONFIG_TLS12 = 0, CONFIG_TLS13 };
enum config_output { OUTPUT_TEXT = 0, OUTPUT_JSON };
enum config_on_failure { ON_FAILURE_KEEP = 0, ON_FAILURE_EXIT };
/* Same order as enum notify_preset (notify.h). */
enum config_preset { PRESET_POST = 0, PRESET_SGLANG, PRESET_TRITON };

struct config_list {
	const char **v;		/* NULL-terminated; NULL when empty; owned, entries too */
	size_t n;
};

struct config_pair {
	const char *ref, *dest;	/* borrowed from argv; ref NULL: from ref_file */
};

/* Strings are borrowed from argv and the environment, which must outlive it; NULL = not given. */
struct config {
	enum config_command command;

	/* registry */
	bool plain_http, insecure, allow_private_realm;
	const char *ca_file, *cert_file, *key_file, *proxy_ca_file;
	struct config_list extra_ca_file, resolve;
	enum config_tls tls_min;
	const char *username, *password_file, *token_file;
	struct config_list registry_config;
	enum config_cloud cloud_login;

	/* mirrors */
	struct config_list mirror;
	const char *hosts_dir;
	uint64_t mirror_timeout_ms, mirror_speed_limit;

	/* what is taken */
	const char *platform;
	struct config_list include, exclude, type;
	const char *layout_as;		/* NULL = auto */
	const char *subdir;		/* of container images; NULL = models */
	bool strict;

	/* transfer */
	uint64_t concurrency;		/* most connections, 1..LIMIT_CONNECTIONS */
	uint64_t max_connections_per_host; /* 0 = no limit but concurrency */
	uint64_t rate_limit;		/* bytes per second of all connections; 0 = none */
	uint64_t range_size;		/* bytes; 0 = chosen by the engine */
	uint64_t memory_budget;		/* bytes */
	uint64_t max_bytes;		/* refuse artifacts with more; 0 = no limit */
	uint64_t stall_timeout_ms;
	uint64_t speed_limit;		/* bytes per second; 0 = off */
	uint64_t speed_time_ms;
	uint64_t retry_timeout_ms;	/* without progress */
	uint64_t connect_timeout_ms, dns_timeout_ms;
	uint64_t deadline_ms;		/* whole pull; 0 = none */

	/* volume */
	enum config_layout layout;
	enum config_fsync fsync;
	uint64_t lock_timeout_ms;
	uint64_t keep_versions, stale_timeout_ms, keep_bytes;	/* old versions; keep_bytes 0 = no cap */

	/* watch */
	uint64_t period_ms, init_period_ms;
	uint64_t jitter;		/* percent of a period */
	uint64_t max_failures;
	enum config_on_failure on_failure;
	const char *ref_file;
	bool deny_downgrade;

	/* those who want to know */
	const char *pre_publish_hook, *exec_hook, *signal, *touch_file;
	uint64_t hook_timeout_ms, hook_backoff_ms;
	const char *webhook_url, *webhook_method, *webhook_body;
	enum config_preset webhook_preset;
	struct config_list webhook_header_file;
	uint64_t webhook_timeout_ms, webhook_success_status;
	const char *notify_dest;	/* DEST where the notified server has it; NULL = the same */
	const char *http_bind, *metrics_file;

	/* pull --list */
	const char *list, *root;
	bool prune;
	uint64_t random_delay_ms;

	/* seen by people and machines */
	enum config_output output;
	enum log_format log_format;
	bool quiet, verbose;
	enum progress_mode progress;
	const char *termination_log;	/* NULL = none */
	uint64_t timeout_ms;		/* wait; 0 = forever */

	/* operands */
	struct config_pair *pairs;	/* pull (n_pairs 0 with --list), watch (1): REF DEST pairs; owned */
	size_t n_pairs;
	const char *ref;		/* resolve, ls */
	const char *dest;		/* probe, wait, verify, gc, install */
	char **exec_argv;		/* wait: CMD ARG..., NULL-terminated; NULL = none; borrowed */
	enum config_command help_topic;	/* help; CMD_COUNT = all, HELP_AUTH */
	bool help, version;		/* --help, --version: consumed by config_parse */
	bool help_man, help_markdown;	/* help --man, --markdown */
};

/*
 * argv[0] is skipped; environ_ is a NULL-terminated list of "NAME=value". "COMMAND --help" becomes
 * CMD_HELP with the topic. A first operand that is no command is the short form of pull.
 * On failure (CODE_USAGE) only log_format and termination_log are set, as far as they could be read.
 * config_release may be called on a zeroed struct.
 */
int config_parse(int argc, char **argv, char **environ_, struct config *ret, struct err *e);
void config_release(struct config *c);

/* Is this variable one that Kubernetes sets for a Service whose name starts with "fetcher"? */
bool config_service_link(const char *name, const char *value);

#endif

// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <string.h>

#define BIT(cmd) (1u << (cmd))
#define PULL BIT(CMD_PULL)
#define WATCH BIT(CMD_WATCH)
#define FETCH (PULL | WATCH)
#define REMOTE (FETCH | BIT(CMD_RESOLVE) | BIT(CMD_LS))
#define PLAN (FETCH | BIT(CMD_LS))
#define ON_VOLUME (BIT(CMD_PROBE) | BIT(CMD_WAIT) | BIT(CMD_VERIFY) | BIT(CMD_GC))
#define ALL (BIT(CMD_COUNT) - 1)

#define FIELD(f) .offset = offsetof(struct config, f)
#define SECOND UINT64_C(1000)
#define DAY (86400 * SECOND)

static const char *const layouts[] = { "flat", "versions", NULL };
static const char *const fsyncs[] = { "end", "always", "never", NULL };
static const char *const on_failures[] = { "keep", "exit", NULL };
static const char *const tls_versions[] = { "1.2", "1.3", NULL };
static const char *const presets[] = { "post", "sglang", "triton", NULL };
static const char *const cloud_logins[] = { "auto", "off", NULL };
static const char *const outputs[] = { "text", "json", NULL };
static const char *const log_formats[] = { "auto", "text", "json", NULL };
static const char *const progress_modes[] = { "auto", "never", "always", NULL };

/*
 * Groups stand in the order of the help. No name may end in _PORT or _SERVICE_HOST: its variable
 * would be taken for a service link.
 */
const struct option_info option_table[] = {
	{ .name = "dest", .letter = 'o', .type = OPT_PATH, .commands = FETCH | ON_VOLUME,
	  .group = "Volume", .arg = "DIR", FIELD(dest),
	  .help = "the directory to fill, in place of the operand DEST" },
	{ .name = "layout", .type = OPT_ENUM, .commands = FETCH, .group = "Volume", .arg = "KIND",
	  .def = "flat", .def_watch = "versions", .choices = layouts, FIELD(layout),
	  .help = "flat: the files stand in DEST itself; versions: in a directory of their own "
		"that the link DEST/current names" },
	{ .name = "fsync", .type = OPT_ENUM, .commands = FETCH, .group = "Volume", .arg = "WHEN",
	  .def = "end", .choices = fsyncs, FIELD(fsync),
	  .help = "end: flush everything before the ready marker is written; always: also each "
		"file as it is placed; never: leave it to the kernel" },
	{ .name = "lock-timeout", .type = OPT_DURATION, .commands = FETCH | BIT(CMD_GC), .group = "Volume",
	  .arg = "TIME", .def = "10m", .max = 24 * DAY, FIELD(lock_timeout_ms),
	  .help = "how long to wait for another fetcher that works on DEST; 0 = one try" },
	{ .name = "max-bytes", .type = OPT_SIZE, .commands = FETCH, .group = "Volume", .arg = "SIZE",
	  .def = "none", .zero = "none", .max = UINT64_MAX, FIELD(max_bytes),
	  .help = "refuse an artifact whose files need more, before the first byte; set it to "
		"the sizeLimit of an emptyDir" },
	{ .name = "keep-versions", .type = OPT_UINT, .commands = FETCH | BIT(CMD_GC), .group = "Volume",
	  .arg = "N", .def = "0", .def_watch = "1", .max = 1000000, FIELD(keep_versions),
	  .help = "how many old versions to keep beside the published one; watch drops them early when the volume is full" },
	{ .name = "stale-timeout", .type = OPT_DURATION, .commands = FETCH | BIT(CMD_GC), .group = "Volume",
	  .arg = "TIME", .def = "0s", .max = 3650 * DAY, FIELD(stale_timeout_ms),
	  .help = "keep every old version so long after it was replaced" },
	{ .name = "keep-bytes", .type = OPT_SIZE, .commands = FETCH | BIT(CMD_GC), .group = "Volume",
	  .arg = "SIZE", .def = "none", .zero = "none", .max = UINT64_MAX, FIELD(keep_bytes),
	  .help = "most disk space for the old versions that --keep-versions keeps; the oldest go first" },

	{ .name = "include", .type = OPT_LIST, .commands = PLAN, .group = "Selection", .arg = "GLOB",
	  FIELD(include),
	  .help = "take only files that match; * and ? stay inside a name, ** crosses "
		"directories, a pattern without / matches base names; may be given several times" },
	{ .name = "exclude", .type = OPT_LIST, .commands = PLAN, .group = "Selection", .arg = "GLOB",
	  FIELD(exclude), .help = "leave out files that match; wins over --include; may be given "
		"several times" },
	{ .name = "type", .type = OPT_LIST, .commands = PLAN, .group = "Selection", .arg = "KIND",
	  FIELD(type),
	  .help = "take only layers of these kinds, where the producer tells them: weight, config, doc, code, dataset, "
		"other; may be given several times" },
	{ .name = "layout-as", .type = OPT_STRING, .commands = PLAN, .group = "Selection", .arg = "PRODUCER",
	  .def = "auto", FIELD(layout_as),
	  .help = "whose rules say what each layer becomes: auto, modelpack (unpack every tar), oras (as oras pull), "
		"image (a container image), raw (unpack nothing)" },
	{ .name = "subdir", .type = OPT_STRING, .commands = PLAN, .group = "Selection", .arg = "DIR",
	  FIELD(subdir),
	  .help = "of a container image take what lies below it; default models, / = everything" },
	{ .name = "strict", .type = OPT_BOOL, .commands = PLAN, .group = "Selection", FIELD(strict),
	  .help = "a layer of unknown type without a name is an error instead of a warning" },
	{ .name = "platform", .type = OPT_STRING, .commands = PLAN, .group = "Selection",
	  .arg = "OS/ARCH[/VARIANT]", FIELD(platform),
	  .help = "which entry of an image index to take; default linux and the architecture of "
		"this machine" },

	{ .name = "registry-config", .type = OPT_LIST, .commands = REMOTE, .group = "Registry", .arg = "FILE",
	  FIELD(registry_config),
	  .help = "docker config.json with credentials, or a directory with one such as a mounted "
		"Secret; may be given several times; default $DOCKER_CONFIG (else ~/.docker), then "
		"$REGISTRY_AUTH_FILE" },
	{ .name = "username", .type = OPT_STRING, .commands = REMOTE, .group = "Registry", .arg = "NAME",
	  FIELD(username), .help = "user name, together with --password-file; wins over config "
		"files" },
	{ .name = "password-file", .type = OPT_PATH, .commands = REMOTE, .group = "Registry", .arg = "FILE",
	  FIELD(password_file), .help = "file with the password; read again whenever a token is "
		"needed" },
	{ .name = "token-file", .type = OPT_PATH, .commands = REMOTE, .group = "Registry", .arg = "FILE",
	  FIELD(token_file), .help = "file with a registry token, sent as it is (Bearer)" },
	{ .name = "cloud-login", .type = OPT_ENUM, .commands = REMOTE, .group = "Registry", .arg = "WHEN",
	  .def = "auto", .choices = cloud_logins, FIELD(cloud_login),
	  .help = "auto: where no other credential is found, registries of AWS (ECR), Google and Azure (ACR) get the "
		"credentials of the Pod's identity or of the machine's; off: never" },
	{ .name = "allow-private-realm", .type = OPT_BOOL, .commands = REMOTE, .group = "Registry",
	  FIELD(allow_private_realm),
	  .help = "let the registry send credentials to a token server on a private address "
		"other than its own" },

	{ .name = "ca-file", .type = OPT_PATH, .commands = REMOTE, .group = "Transport", .arg = "FILE",
	  FIELD(ca_file),
	  .help = "PEM certificates to trust, and no others; default $SSL_CERT_FILE, "
		"$SSL_CERT_DIR, the system's, then the built-in Mozilla bundle" },
	{ .name = "extra-ca-file", .type = OPT_LIST, .commands = REMOTE, .group = "Transport", .arg = "FILE",
	  FIELD(extra_ca_file),
	  .help = "PEM certificates to trust beside those of --ca-file or its defaults, such as the CA of a company or of a "
		"proxy that looks into TLS; may be given several times" },
	{ .name = "proxy-ca-file", .type = OPT_PATH, .commands = REMOTE, .group = "Transport", .arg = "FILE",
	  FIELD(proxy_ca_file),
	  .help = "PEM certificates to trust, and no others, for a proxy that is itself spoken to over TLS (https_proxy=https://...); "
		"default as for the registry" },
	{ .name = "tls-min", .type = OPT_ENUM, .commands = REMOTE, .group = "Transport", .arg = "VERSION",
	  .def = "1.2", .choices = tls_versions, FIELD(tls_min),
	  .help = "oldest version of TLS to speak: 1.2 or 1.3" },
	{ .name = "cert-file", .type = OPT_PATH, .commands = REMOTE, .group = "Transport", .arg = "FILE",
	  FIELD(cert_file), .help = "PEM client certificate, together with --key-file" },
	{ .name = "key-file", .type = OPT_PATH, .commands = REMOTE, .group = "Transport", .arg = "FILE",
	  FIELD(key_file), .help = "PEM key of the client certificate" },
	{ .name = "insecure", .type = OPT_BOOL, .commands = REMOTE, .group = "Transport", FIELD(insecure),
	  .help = "do not verify TLS certificates; a warning is logged on every run" },
	{ .name = "plain-http", .type = OPT_BOOL, .commands = REMOTE, .group = "Transport", FIELD(plain_http),
	  .help = "talk HTTP without TLS to the registry" },

	{ .name = "resolve", .type = OPT_LIST, .commands = REMOTE, .group = "Transport", .arg = "HOST:PORT:ADDR[,ADDR...]",
	  FIELD(resolve),
	  .help = "addresses of a host, in place of the name server's, as for curl; also of a proxy; * for any HOST or PORT; may be "
		"given several times" },
	{ .name = "dns-timeout", .type = OPT_DURATION, .commands = REMOTE, .group = "Transport", .arg = "TIME",
	  .def = "10s", .min = 100, .max = 24 * DAY, FIELD(dns_timeout_ms),
	  .help = "one try to look up a name" },

	{ .name = "mirror", .type = OPT_LIST, .commands = REMOTE, .group = "Mirrors", .arg = "URL", FIELD(mirror),
	  .help = "ask this host for content before the registry; tags are still resolved by the registry, and every byte is verified; "
		"dragonfly+http://HOST:4001 is a Dragonfly peer; may be given several times" },
	{ .name = "hosts-dir", .type = OPT_PATH, .commands = REMOTE, .group = "Mirrors", .arg = "DIR", FIELD(hosts_dir),
	  .help = "directory with containerd's HOST/hosts.toml, such as /etc/containerd/certs.d: mirrors, their CAs and certificates" },
	{ .name = "mirror-timeout", .type = OPT_DURATION, .commands = REMOTE, .group = "Mirrors", .arg = "TIME",
	  .def = "10s", .min = 100, .max = DAY, FIELD(mirror_timeout_ms),
	  .help = "a mirror that is silent for so long is left for the rest of the run" },
	{ .name = "mirror-speed-limit", .type = OPT_SIZE, .commands = REMOTE, .group = "Mirrors", .arg = "SIZE",
	  .def = "1MiB", .zero = "off", .max = GIB, FIELD(mirror_speed_limit),
	  .help = "a mirror that brings less than this many bytes a second, all its connections together, over --mirror-timeout is left, "
		"too; it is taken back if the registry fails or is slower; off where the mirror is there because the line is slow" },

	{ .name = "concurrency", .type = OPT_UINT, .commands = FETCH, .group = "Transfer", .arg = "N",
	  .def = "16", .min = 1, .max = LIMIT_CONNECTIONS, FIELD(concurrency),
	  .help = "most connections at a time; fewer are used where more bring nothing" },
	{ .name = "max-connections-per-host", .type = OPT_UINT, .commands = FETCH, .group = "Transfer", .arg = "N",
	  .def = "none", .zero = "none", .min = 1, .max = LIMIT_CONNECTIONS, FIELD(max_connections_per_host),
	  .help = "most connections for blobs at a time to one host and port: to the registry, to its storage, to a mirror" },
	{ .name = "rate-limit", .type = OPT_SIZE, .commands = FETCH, .group = "Transfer", .arg = "SIZE",
	  .def = "none", .zero = "none", .min = KIB, .max = UINT64_C(1) << 40, FIELD(rate_limit),
	  .help = "most bytes a second, all connections of a pull together" },
	{ .name = "range-size", .type = OPT_SIZE, .commands = FETCH, .group = "Transfer", .arg = "SIZE",
	  .def = "auto", .zero = "auto", .min = 64 * KIB, .max = 4 * GIB, FIELD(range_size),
	  .help = "bytes asked for in one request" },
	{ .name = "memory-budget", .type = OPT_SIZE, .commands = FETCH, .group = "Transfer", .arg = "SIZE",
	  .def = "64MiB", .min = 4 * MIB, .max = 64 * GIB, FIELD(memory_budget),
	  .help = "most memory for buffers" },
	{ .name = "stall-timeout", .type = OPT_DURATION, .commands = REMOTE, .group = "Transfer", .arg = "TIME",
	  .def = "30s", .min = 100, .max = 24 * DAY, FIELD(stall_timeout_ms),
	  .help = "a connection without a byte for so long is given up and its range asked for "
		"again" },
	{ .name = "speed-limit", .type = OPT_SIZE, .commands = FETCH, .group = "Transfer", .arg = "SIZE",
	  .def = "4KiB", .zero = "off", .max = UINT64_C(1) << 40, FIELD(speed_limit),
	  .help = "a connection slower than this many bytes a second counts as stalled after "
		"--speed-time" },
	{ .name = "speed-time", .type = OPT_DURATION, .commands = FETCH, .group = "Transfer", .arg = "TIME",
	  .def = "60s", .min = SECOND, .max = 24 * DAY, FIELD(speed_time_ms),
	  .help = "see --speed-limit" },
	{ .name = "connect-timeout", .type = OPT_DURATION, .commands = REMOTE, .group = "Transfer",
	  .arg = "TIME", .def = "10s", .min = 100, .max = 24 * DAY, FIELD(connect_timeout_ms),
	  .help = "one try to connect, TLS included" },
	{ .name = "retry-timeout", .type = OPT_DURATION, .commands = REMOTE, .group = "Transfer", .arg = "TIME",
	  .def = "5m", .min = 1, .max = 24 * DAY, FIELD(retry_timeout_ms),
	  .help = "give up after so long without progress; starts anew whenever bytes arrive" },
	{ .name = "deadline", .type = OPT_DURATION, .commands = FETCH, .group = "Transfer", .arg = "TIME",
	  .def = "none", .zero = "none", .max = 24 * DAY, FIELD(deadline_ms),
	  .help = "give up after so long in any case" },

	{ .name = "period", .type = OPT_DURATION, .commands = WATCH, .group = "Watching", .arg = "TIME",
	  .def = "5m", .min = 100, .max = 24 * DAY, FIELD(period_ms),
	  .help = "time between two looks at the registry" },
	{ .name = "jitter", .type = OPT_UINT, .commands = WATCH, .group = "Watching", .arg = "PERCENT",
	  .def = "10", .max = 100, FIELD(jitter),
	  .help = "how much a period may be shorter or longer, so that a thousand Pods do not ask at once" },
	{ .name = "init-period", .type = OPT_DURATION, .commands = WATCH, .group = "Watching", .arg = "TIME",
	  .def = "5s", .min = 100, .max = 24 * DAY, FIELD(init_period_ms),
	  .help = "the same until a first version stands" },
	{ .name = "on-failure", .type = OPT_ENUM, .commands = WATCH, .group = "Watching", .arg = "WHAT",
	  .def = "keep", .choices = on_failures, FIELD(on_failure),
	  .help = "keep: go on serving what there is and try again; exit: end with the failure's exit "
		"code" },
	{ .name = "max-failures", .type = OPT_UINT, .commands = WATCH, .group = "Watching", .arg = "N",
	  .def = "0", .max = 1000000, FIELD(max_failures),
	  .help = "with --on-failure exit: how many failures in a row to bear; a veto is none" },
	{ .name = "ref-file", .type = OPT_PATH, .commands = WATCH, .group = "Watching", .arg = "FILE",
	  FIELD(ref_file),
	  .help = "read REF from a file, such as a key of a ConfigMap or an annotation by the downward API; "
		"a change is taken up at once" },
	{ .name = "deny-downgrade", .type = OPT_BOOL, .commands = FETCH, .group = "Watching",
	  FIELD(deny_downgrade),
	  .help = "refuse (exit 14) an artifact that was created before the published one, by the annotation "
		"org.opencontainers.image.created, or that is the one which the published one replaced" },

	{ .name = "pre-publish-hook", .type = OPT_STRING, .commands = FETCH, .group = "Notification",
	  .arg = "CMD", FIELD(pre_publish_hook),
	  .help = "program, or JSON array of program and arguments, to run when a version is verified and "
		"before anybody sees it; a status other than 0 keeps it back (exit 14); layout versions only" },
	{ .name = "exec-hook", .type = OPT_STRING, .commands = FETCH, .group = "Notification", .arg = "CMD",
	  FIELD(exec_hook), .help = "program, or JSON array, to run when a version was published; with "
		"FETCHER_REF, _DIGEST, _PREVIOUS, _PATH and _GENERATION in its environment" },
	{ .name = "hook-timeout", .type = OPT_DURATION, .commands = FETCH, .group = "Notification",
	  .arg = "TIME", .def = "30s", .min = 100, .max = 24 * DAY, FIELD(hook_timeout_ms),
	  .help = "a hook that runs longer is killed and has failed" },
	{ .name = "hook-backoff", .type = OPT_DURATION, .commands = FETCH, .group = "Notification",
	  .arg = "TIME", .def = "3s", .min = 10, .max = DAY, FIELD(hook_backoff_ms),
	  .help = "first pause after a failed notification; doubled up to a minute" },
	{ .name = "webhook-url", .type = OPT_STRING, .commands = FETCH, .group = "Notification", .arg = "URL",
	  FIELD(webhook_url), .help = "request to make when a version was published" },
	{ .name = "webhook-preset", .type = OPT_ENUM, .commands = FETCH, .group = "Notification",
	  .arg = "KIND", .def = "post", .choices = presets, FIELD(webhook_preset),
	  .help = "post: a JSON object with all facts; sglang: update_weights_from_disk; triton: load of "
		"the model that the URL names" },
	{ .name = "webhook-method", .type = OPT_STRING, .commands = FETCH, .group = "Notification",
	  .arg = "METHOD", FIELD(webhook_method), .help = "another method than POST" },
	{ .name = "webhook-header-file", .type = OPT_LIST, .commands = FETCH, .group = "Notification",
	  .arg = "FILE", FIELD(webhook_header_file),
	  .help = "file with \"Name: value\" lines, read for each request; may be given several times" },
	{ .name = "webhook-body", .type = OPT_STRING, .commands = FETCH, .group = "Notification",
	  .arg = "TEXT", FIELD(webhook_body),
	  .help = "body of the request; {ref} {digest} {previous} {path} {generation} are filled in" },
	{ .name = "webhook-timeout", .type = OPT_DURATION, .commands = FETCH, .group = "Notification",
	  .arg = "TIME", .def = "5m", .min = 100, .max = DAY, FIELD(webhook_timeout_ms),
	  .help = "for the whole request: some servers answer when the model is loaded" },
	{ .name = "webhook-success-status", .type = OPT_UINT, .commands = FETCH, .group = "Notification",
	  .arg = "STATUS", .def = "0", .max = 599, FIELD(webhook_success_status),
	  .help = "the status that counts as taken; 0 = any 2xx" },
	{ .name = "signal", .type = OPT_STRING, .commands = FETCH, .group = "Notification", .arg = "NAME:SIG",
	  FIELD(signal), .help = "send a signal to the processes of that name (shareProcessNamespace) when a "
		"version was published" },
	{ .name = "touch-file", .type = OPT_PATH, .commands = FETCH, .group = "Notification", .arg = "FILE",
	  FIELD(touch_file), .help = "create or touch a file when a version was published" },
	{ .name = "notify-dest", .type = OPT_STRING, .commands = FETCH, .group = "Notification",
	  .arg = "DIR", FIELD(notify_dest),
	  .help = "DEST as the notified server knows it, when it is mounted elsewhere there; goes into "
		"{path}" },

	{ .name = "http-bind", .type = OPT_STRING, .commands = FETCH, .group = "Endpoints",
	  .arg = "[HOST]:PORT", FIELD(http_bind),
	  .help = "answer /readyz, /healthz, /status and /metrics there; watch also POST /sync, from loopback" },
	{ .name = "metrics-file", .type = OPT_PATH, .commands = FETCH, .group = "Endpoints", .arg = "FILE",
	  FIELD(metrics_file), .help = "write the metrics to a file, for the textfile collector of node_exporter" },

	{ .name = "list", .type = OPT_PATH, .commands = PULL, .group = "Warming a node", .arg = "FILE",
	  FIELD(list), .help = "pull what the file says: a line is REF DEST, or REF alone with --root" },
	{ .name = "root", .type = OPT_PATH, .commands = PULL, .group = "Warming a node", .arg = "DIR",
	  FIELD(root), .help = "where lines without DEST go: DIR/HOST/REPO@TAG (a port's colon becomes _), or "
		"DIR/HOST/REPO@sha256-HEX for a digest; also the start of a relative DEST" },
	{ .name = "prune", .type = OPT_BOOL, .commands = PULL, .group = "Warming a node", FIELD(prune),
	  .help = "after a list was pulled: drop old versions, and directories below --root that no line names "
		"any more, by --keep-versions, --stale-timeout and --keep-bytes" },
	{ .name = "random-delay", .type = OPT_DURATION, .commands = PULL, .group = "Warming a node",
	  .arg = "TIME", .def = "0s", .max = DAY, FIELD(random_delay_ms),
	  .help = "wait up to so long before the start, so that a thousand nodes do not ask at once" },

	{ .name = "timeout", .type = OPT_DURATION, .commands = BIT(CMD_WAIT), .group = "Waiting", .arg = "TIME",
	  .def = "none", .zero = "none", .max = 24 * DAY, FIELD(timeout_ms),
	  .help = "give up (exit 31) when DEST is not ready after so long" },

	{ .name = "output", .type = OPT_ENUM, .commands = ALL & ~(BIT(CMD_HELP) | WATCH), .group = "Output",
	  .arg = "KIND", .def = "text", .choices = outputs, FIELD(output),
	  .help = "what goes to stdout; json: one object a line" },
	{ .name = "progress", .type = OPT_ENUM, .commands = FETCH, .group = "Output", .arg = "WHEN",
	  .def = "auto", .choices = progress_modes, FIELD(progress),
	  .help = "the bar on stderr; auto: a bar on a terminal, a log line every 10 s elsewhere" },
	{ .name = "log-format", .type = OPT_ENUM, .commands = ALL, .group = "Output", .arg = "KIND",
	  .def = "auto", .choices = log_formats, FIELD(log_format),
	  .help = "lines on stderr; auto: text on a terminal, json elsewhere" },
	{ .name = "quiet", .letter = 'q', .type = OPT_BOOL, .commands = ALL, .group = "Output", FIELD(quiet),
	  .help = "only warnings and errors" },
	{ .name = "verbose", .letter = 'v', .type = OPT_BOOL, .commands = ALL, .group = "Output", FIELD(verbose),
	  .help = "also every request and retry" },
	{ .name = "termination-log", .type = OPT_PATH, .commands = ALL, .group = "Output", .arg = "FILE",
	  .def = "/dev/termination-log", FIELD(termination_log),
	  .help = "existing file that gets the line that says what failed; empty = none" },

	{ .name = "help", .letter = 'h', .type = OPT_BOOL, .commands = ALL, FIELD(help) },
	{ .name = "version", .type = OPT_BOOL, .commands = ALL, FIELD(version) },
	{ .name = "man", .type = OPT_BOOL, .commands = BIT(CMD_HELP), FIELD(help_man) },
	{ .name = "markdown", .type = OPT_BOOL, .commands = BIT(CMD_HELP), FIELD(help_markdown) },
};
const size_t option_count = ARRAY_SIZE(option_table);

#define EXAMPLES(...) (const char *const[]){ __VA_ARGS__, NULL }

const struct command_info command_table[CMD_COUNT] = {
	[CMD_PULL] = {
		"pull", "REF DEST [REF DEST ...]", "get it, verify it, publish it, exit",
		"Resolves REF, fetches what DEST does not have yet over several connections at "
		"once, verifies every SHA-256 "
		"and publishes the files. The ready marker DEST/.fetcher/ready.json is written "
		"last. A killed "
		"pull goes on where it was; a pull of what is already there moves no blob bytes.\n"
		"REF is [oci://]HOST[:PORT]/REPO[:TAG][@DIGEST]; a digest always wins over the "
		"tag, and without either the tag is latest. "
		"The command word may be left out: \"fetcher REF DEST\" is the same. Several "
		"pairs are pulled one after the other; "
		"the first failure ends the run. With --list the pairs come from a file, a failure ends only its own, "
		"and --output json prints one summary.",
		EXAMPLES("fetcher pull registry.example.com/models/llama:8b /models/llama",
			 "into a directory",
			 "fetcher pull registry.example.com/llama:8b -o /models --include '*.json'",
			 "only some of the files",
			 "fetcher pull --plain-http localhost:5000/demo/model:v1 /tmp/model",
			 "from a registry without TLS"),
	},
	[CMD_WATCH] = {
		"watch", "REF DEST", "pull, then stay: follow the tag, hot-swap new digests",
		"Pulls REF, and asks the registry every --period which digest it names now (one HEAD request). "
		"A new one is fetched beside the old one: blobs that did not change are linked, not fetched. "
		"When all of it is verified the link DEST/current is switched in one step and those who want "
		"to know are notified. Readers go through DEST/current and never see a mixture. "
		"While the registry is away the old version is served.\n"
		"SIGHUP, a change of --ref-file and POST /sync mean: look now. A reference with a digest is "
		"pulled once; then watch idles. SIGTERM ends it: exit 0 when nothing was under way.",
		EXAMPLES("fetcher watch registry.example.com/models/llama:stable /models/llama",
			 "a sidecar; the server reads /models/llama/current",
			 "fetcher watch --ref-file /etc/model/ref --http-bind :8080 /models/llama",
			 "the reference from a ConfigMap, with probes and metrics over HTTP",
			 "fetcher watch --webhook-preset sglang --webhook-url URL REF DEST",
			 "have SGLang load each new version"),
	},
	[CMD_PROBE] = {
		"probe", "DEST", "exit 0 if DEST holds a complete published version",
		"Reads the ready marker and looks at what it names, without hashing and without "
		"network: made for exec probes. "
		"Exit 21 when there is none.",
		EXAMPLES("fetcher probe /models/llama", "as startupProbe: exec: command: "
		"[/fetcher, probe, /models/llama]"),
	},
	[CMD_WAIT] = {
		"wait", "DEST [-- CMD ARG...]", "block until DEST is ready, then exit 0 or run CMD",
		"Waits until \"fetcher probe DEST\" would succeed; then becomes CMD (exec), or "
		"exits 0 without one.",
		EXAMPLES("fetcher wait /models/llama -- /app/server --model /models/llama",
			 "start a server when its model is complete",
			 "fetcher wait --timeout 10m /models/llama", "give up after ten minutes "
			 "(exit 31)"),
	},
	[CMD_VERIFY] = {
		"verify", "DEST", "hash the published files again",
		"Reads every published file and compares size and SHA-256 with what was published. "
		"Each file that differs is logged; exit 22 then.",
		EXAMPLES("fetcher verify /models/llama", "after a disk was suspected"),
	},
	[CMD_RESOLVE] = {
		"resolve", "REF", "print the digest that REF names now",
		"Asks the registry for the digest of the manifest or index, without fetching more.",
		EXAMPLES("fetcher resolve registry.example.com/models/llama:8b", "to pin a tag"),
	},
	[CMD_LS] = {
		"ls", "REF", "list files, sizes and digests, without downloading",
		"Shows what a pull with the same options would lay out. With --output json one "
		"object for the artifact, its files in an array.",
		EXAMPLES("fetcher ls registry.example.com/models/llama:8b", "a table",
			 "fetcher ls --output json --exclude '*.bin' "
			 "registry.example.com/llama:8b", "for scripts"),
	},
	[CMD_GC] = {
		"gc", "DEST", "drop old versions and partial files",
		"Removes versions other than the published one (and the --keep-versions newest "
		"others) and what unfinished pulls left. "
		"Waits for the lock of DEST, so that no running pull loses anything.",
		EXAMPLES("fetcher gc /models/llama", "free what is not needed",
			 "fetcher gc --keep-versions 1 /models/llama", "keep one version to roll "
			 "back to"),
	},
	[CMD_INSTALL] = {
		"install", "PATH", "copy this binary",
		"Copies the running binary to PATH (or into the directory PATH, as \"fetcher\"), "
		"mode 0755, so that a container "
		"of another image on the same volume can run it.",
		EXAMPLES("fetcher install /shared/fetcher", "then, elsewhere: /shared/fetcher "
		"wait /models/llama -- CMD"),
	},
	[CMD_VERSION] = {
		"version", "", "print the version", "Prints version and "
		"commit.", EXAMPLES("fetcher version", "one line"),
	},
	[CMD_HELP] = {
		"help", "[COMMAND|auth]", "explain a command",
		"Prints the overview, everything about one command, or how credentials are found (auth).",
		EXAMPLES("fetcher help pull", "all options of pull", "fetcher help auth", "how credentials are found"),
	},
};

const struct exit_info exit_table[] = {
	{ CODE_OK, "done", "" },
	{ CODE_USAGE, "usage or configuration", "no" },
	{ CODE_INTERNAL, "internal error", "no" },
	{ CODE_POLICY, "refused by a hook or by --deny-downgrade", "no" },
	{ CODE_AUTH, "not authorised (401, 403, a policy of the registry)", "no" },
	{ CODE_NOT_FOUND, "not found; probe: nothing published", "no" },
	{ CODE_INTEGRITY, "integrity: a size or digest differs", "no" },
	{ CODE_SPACE, "no space, or a declared limit would be exceeded", "no" },
	{ CODE_UNSAFE, "unsafe content: a path that escapes or collides", "no" },
	{ CODE_UNSUPPORTED, "unsupported media type, no matching platform, or nothing to lay "
	"out", "no" },
	{ CODE_NETWORK, "network: retries exhausted", "yes" },
	{ CODE_DEADLINE, "deadline or stall", "yes" },
	{ CODE_LOCAL, "local I/O or permission (says uid, gid, mode)", "yes" },
	{ CODE_LOCKED, "DEST is locked by another fetcher beyond --lock-timeout", "yes" },
	{ CODE_SIGINT, "SIGINT before done; what was fetched stays resumable", "yes" },
	{ CODE_SIGTERM, "SIGTERM before done; what was fetched stays resumable", "yes" },
};
const size_t exit_count = ARRAY_SIZE(exit_table);

const char *option_default(const struct option_info *o, enum config_command cmd)
{
	return cmd == CMD_WATCH && o->def_watch ? o->def_watch : o->def;
}

const char *option_variable(const struct option_info *o, char ret[static OPTION_VARIABLE_MAX])
{
	static const char prefix[] = "FETCHER_";
	size_t n = sizeof(prefix) - 1;

	memcpy(ret, prefix, n);
	for (const char *p = o->name; *p && n < OPTION_VARIABLE_MAX - 1; p++)
		ret[n++] = *p == '-' ? '_' : (char)(*p - 'a' + 'A');
	ret[n] = '\0';
	return ret;
}

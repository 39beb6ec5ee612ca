// SPDX-License-Identifier: Apache-2.0
#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "announce.h"
#include "endpoints.h"
#include "help.h"
#include "json.h"
#include "list.h"
#include "metrics.h"
#include "pull.h"
#include "units.h"
#include "watch.h"

#define PRINT_MAX (256 * MIB)	/* of one result; ls of LIMIT_LAYERS long paths stays below */
#define WAIT_POLL_MS 100
#define LEASE_TRIES 5
#define SELF "/proc/self/exe"

/* --- stdout --- */

static int print(const struct buf *b, struct err *e)
{
	if (b->failed)
		return err_oom(e);
	if (sys_write_full(STDOUT_FILENO, b->data, b->len))
		return err_errno(e, CODE_LOCAL, errno, "cannot write to stdout");
	return 0;
}

static void add_digest(struct buf *b, const char *name, const struct digest *d)
{
	char text[DIGEST_STR_MAX];

	json_add_text(b, name, digest_format(d, ':', text));
}

/* The keys of the ready marker, in its order; downloaded and durationMs are the caller's. */
static void add_marker(struct buf *b, const struct store_marker *m, uint64_t downloaded,
		       uint64_t duration_ms)
{
	json_add_number(b, "schema", 1);
	json_add_text(b, "ref", m->ref);
	add_digest(b, "digest", &m->digest);
	json_add_text(b, "mediaType", m->media_type);
	json_add_text(b, "artifactType", m->artifact_type);
	json_add_text(b, "path", m->path);
	json_add_number(b, "files", m->files);
	json_add_number(b, "bytes", m->bytes);
	json_add_number(b, "downloaded", downloaded);
	json_add_text(b, "publishedAt", m->published_at);
	json_add_number(b, "durationMs", duration_ms);
	json_add_text(b, "previous", m->previous);
	json_add_number(b, "generation", m->generation);
	json_add_text(b, "fetcher", m->fetcher);
}

/* --- pull --- */

static void add_servers(struct buf *b, const struct pull_result *r)
{
	json_add_key(b, "servers");
	buf_addc(b, '[');
	for (size_t i = 0; i < r->n_servers; i++) {
		const struct pull_server *s = &r->servers[i];
		buf_adds(b, i ? ",{" : "{");
		json_add_text(b, "name", s->name);
		json_add_bool(b, "mirror", s->mirror);
		json_add_number(b, "bytes", s->bytes);
		json_add_number(b, "requests", s->requests);
		json_add_number(b, "misses", s->misses);
		json_add_number(b, "fallbacks", s->fallbacks);
		json_add_number(b, "hits", s->hits);
		json_add_bool(b, "bad", s->bad);
		buf_addc(b, '}');
	}
	buf_addc(b, ']');
}

static int print_pulled(const struct config_pair *pair, const struct pull_result *r, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT(PRINT_MAX);

	buf_addc(&out, '{');
	add_marker(&out, &r->marker, r->downloaded, r->duration_ms);
	json_add_text(&out, "dest", pair->dest);
	json_add_bool(&out, "upToDate", r->up_to_date);
	json_add_number(&out, "reused", r->reused);
	if (r->n_servers)
		add_servers(&out, r);
	buf_adds(&out, "}\n");
	return print(&out, e);
}

static int pull_one(const struct config *cfg, const struct config_pair *pair, struct announce *a,
		    const atomic_int *stop, struct err *e)
{
	const struct pull_options o = {
		.cfg = cfg, .ref = pair->ref, .dest = pair->dest, .stop = stop,
		.accept = announce_accept, .accept_arg = a,
	};
	struct pull_result r = { 0 };
	int rc;

	if (announce_about(a, pair->ref, pair->dest, e) || pull_run(&o, &r, e))
		return -1;
	rc = cfg->output == OUTPUT_JSON ? print_pulled(pair, &r, e) : 0;
	if (rc == 0)
		rc = announce_published(a, &r.marker, e) || announce_wait(a, cfg->retry_timeout_ms, e) ? -1 : 0;
	pull_result_release(&r);
	return rc;
}

static int pull_pairs(const struct config *cfg, struct announce *a, const atomic_int *stop, struct err *e)
{
	for (size_t i = 0; i < cfg->n_pairs; i++) {
		if (pull_one(cfg, &cfg->pairs[i], a, stop, e) == 0)
			continue;
		/* with one pair the message says enough */
		return cfg->n_pairs == 1 ? -1 : err_wrap(e, "%s", cfg->pairs[i].ref);
	}
	return 0;
}

static int run_pull(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	_cleanup_free_ const char **dests = calloc(cfg->n_pairs + 1, sizeof(*dests));
	struct announce *a = NULL;
	struct endpoints *p = NULL;
	struct err why;

	if (!dests)
		return err_oom(e);
	for (size_t i = 0; i < cfg->n_pairs; i++)
		dests[i] = cfg->pairs[i].dest;
	int rc = announce_new(&a, cfg, stop, e);
	if (rc == 0)
		rc = endpoints_new(&p, cfg, dests, cfg->n_pairs, NULL, NULL, e);
	if (rc == 0)
		rc = cfg->list ? list_run(cfg, stop, e) : pull_pairs(cfg, a, stop, e);
	if (cfg->metrics_file && metrics_write_file(cfg->metrics_file, &why))
		log_line(LOG_WARN, "cannot write --metrics-file", "reason", why.msg, NULL);
	endpoints_free(p);
	announce_free(a);
	return rc;
}

/* --- probe, wait --- */

/* 1 = ready, *ret_marker filled; 0 = not (reason in e->msg); -1. */
static int ready(const char *dest, struct store_marker *ret_marker, struct err *e)
{
	struct store_marker m = { 0 };
	struct store *s = NULL;
	int rc;

	if (store_open(&s, dest, false, e) < 0)
		return e->code == CODE_NOT_FOUND ? 0 : -1;
	rc = store_read_marker(s, &m, e);
	if (rc == 0)
		err_set(e, CODE_NOT_FOUND, "%s holds no complete published version", dest);
	if (rc == 1)
		rc = store_check(s, &m, NULL, true, e);
	store_close(s);
	if (rc == 1)
		*ret_marker = m;
	else
		store_marker_release(&m);
	return rc;
}

static int run_probe(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	struct store_marker m = { 0 };
	_cleanup_buf_ struct buf out = BUF_INIT(PRINT_MAX);
	char text[DIGEST_STR_MAX];
	int rc = ready(cfg->dest, &m, e);

	(void)stop;
	if (rc == 0)
		e->code = CODE_NOT_FOUND;
	if (rc <= 0)
		return -1;
	if (cfg->output == OUTPUT_JSON) {
		buf_addc(&out, '{');
		add_marker(&out, &m, m.downloaded, m.duration_ms);
		buf_adds(&out, "}\n");
	} else {
		buf_addf(&out, "%s\n", digest_format(&m.digest, ':', text));
	}
	store_marker_release(&m);
	return cfg->quiet ? 0 : print(&out, e);
}

/* Becomes the command, with the signals as a fresh process has them. */
static int become(char **argv, struct err *e)
{
	const struct sigaction normal = { .sa_handler = SIG_DFL };
	sigset_t none;

	sigaction(SIGPIPE, &normal, NULL);
	sigaction(SIGXFSZ, &normal, NULL);
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	execvp(argv[0], argv);
	return err_errno(e, CODE_USAGE, errno, "cannot run '%s'", argv[0]);
}

/*
 * CMD, and what it starts, keep the version that is ready now from being dropped while they run.
 * Best effort: flat, or a file system without leases, or the volume swaps faster than we look.
 */
static void lease_for_command(const char *dest)
{
	struct store *s = NULL;
	struct err e = { 0 };

	if (store_open(&s, dest, false, &e) < 0)
		return;
	for (int i = 0; i < LEASE_TRIES; i++) {
		struct store_marker m = { 0 };
		int fd = -1;
		/* What was replaced before the lease stood is not what CMD will read. */
		bool done = store_read_marker(s, &m, &e) != 1 || (fd = store_lease(s, &m, true)) < 0 ||
			    store_check(s, &m, NULL, true, &e) == 1;

		store_marker_release(&m);
		if (done)
			break;
		cleanup_close_fn(&fd);
	}
	store_close(s);
}

static int run_wait(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	uint64_t start = sys_now_ms();
	struct store_marker m = { 0 };
	bool told = false;
	int rc;

	while ((rc = ready(cfg->dest, &m, e)) == 0) {
		if (atomic_load(stop))
			return -1;
		if (cfg->timeout_ms && sys_now_ms() - start >= cfg->timeout_ms)
			return err_set(e, CODE_DEADLINE, "%s was not ready within --timeout", cfg->dest);
		if (!told)
			log_line(LOG_INFO, "waiting", "dest", cfg->dest, NULL);
		told = true;
		sys_sleep_ms(WAIT_POLL_MS);
	}
	if (rc < 0)
		return -1;
	char text[DIGEST_STR_MAX];
	log_line(LOG_INFO, "ready", "dest", cfg->dest, "digest", digest_format(&m.digest, ':', text), NULL);
	store_marker_release(&m);
	if (!cfg->exec_argv)
		return 0;
	lease_for_command(cfg->dest);
	return become(cfg->exec_argv, e);
}

/* --- verify --- */

static void found_bad(void *arg, const char *path, const char *why)
{
	struct buf *list = arg;

	log_line(LOG_WARN, "file differs", "path", path, "why", why, NULL);
	buf_adds(list, list->len ? ",{" : "{");
	json_add_text(list, "path", path);
	json_add_text(list, "why", why);
	buf_addc(list, '}');
}

static int verify_opened(const struct config *cfg, struct store *s, struct err *e)
{
	_cleanup_buf_ struct buf bad = BUF_INIT(PRINT_MAX / 2), out = BUF_INIT(PRINT_MAX);
	struct store_marker m = { 0 };
	uint64_t files = 0, bytes = 0;
	char digest[DIGEST_STR_MAX];
	struct err print_error = { 0 };
	int rc = store_read_marker(s, &m, e);

	if (rc == 0)
		return err_set(e, CODE_NOT_FOUND, "%s holds no complete published version", cfg->dest);
	if (rc < 0)
		return -1;
	digest_format(&m.digest, ':', digest);
	store_marker_release(&m);
	rc = store_verify(s, found_bad, &bad, &files, &bytes, e);
	if (cfg->output == OUTPUT_JSON && (rc == 0 || e->code == CODE_INTEGRITY)) {
		buf_addc(&out, '{');
		json_add_text(&out, "dest", cfg->dest);
		json_add_text(&out, "digest", digest);
		json_add_bool(&out, "ok", rc == 0);
		json_add_number(&out, "files", files);
		json_add_number(&out, "bytes", bytes);
		json_add_key(&out, "bad");
		buf_addf(&out, "[%s]}\n", buf_cstr(&bad));
		if (print(&out, &print_error) < 0 && rc == 0) {
			*e = print_error;
			rc = -1;
		}
	}
	if (rc == 0) {
		char n_files[24], n_bytes[24];
		snprintf(n_files, sizeof(n_files), "%llu", (unsigned long long)files);
		snprintf(n_bytes, sizeof(n_bytes), "%llu", (unsigned long long)bytes);
		log_line(LOG_INFO, "verified", "dest", cfg->dest, "digest", digest, "files", n_files,
			 "bytes", n_bytes, NULL);
	}
	return rc;
}

static int run_verify(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	struct store *s = NULL;
	int rc;

	(void)stop;
	if (store_open(&s, cfg->dest, false, e) < 0)
		return -1;
	rc = verify_opened(cfg, s, e);
	store_close(s);
	return rc;
}

/* --- resolve, ls --- */

struct remote {
	struct oci_repo *repo;
	struct ref ref;
};

static void remote_close(struct remote *r)
{
	oci_repo_free(r->repo);
}
#define _cleanup_remote_ __attribute__((cleanup(remote_close)))

static int run_resolve(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	_cleanup_remote_ struct remote r = { 0 };
	_cleanup_buf_ struct buf out = BUF_INIT(PRINT_MAX), name = BUF_INIT(PRINT_MAX);
	char text[DIGEST_STR_MAX];
	struct digest d;

	if (pull_open_repo(cfg, cfg->ref, stop, &r.repo, &r.ref, e) < 0 ||
	    oci_resolve_digest(r.repo, &d, e) < 0)
		return -1;
	digest_format(&d, ':', text);
	if (cfg->output == OUTPUT_JSON) {
		if (ref_format(&r.ref, &name) < 0)
			return err_oom(e);
		buf_addc(&out, '{');
		json_add_text(&out, "ref", buf_cstr(&name));
		json_add_text(&out, "digest", text);
		buf_adds(&out, "}\n");
	} else {
		buf_addf(&out, "%s\n", text);
	}
	return print(&out, e);
}

static unsigned file_mode(const struct layout_file *f)
{
	return f->mode ? f->mode : 0644;
}

/* A layer whose files are known when it was unpacked. */
static void ls_tree_json(struct buf *b, const struct layout_tree *t, bool first)
{
	_cleanup_buf_ struct buf what = BUF_INIT(4 * LIMIT_PATH);

	layout_tree_describe(t, &what);
	buf_adds(b, first ? "{" : ",{");
	json_add_number(b, "layer", t->layer + 1);
	json_add_number(b, "size", t->size);
	add_digest(b, "digest", &t->digest);
	json_add_text(b, "unpack", buf_cstr(&what));
	buf_addc(b, '}');
}

static void ls_json(struct buf *b, const char *name, const struct oci_resolved *a, const struct layout *l)
{
	buf_addc(b, '{');
	json_add_text(b, "ref", name);
	add_digest(b, "digest", &a->digest);
	json_add_text(b, "mediaType", a->media_type);
	add_digest(b, "manifest", &a->manifest_digest);
	json_add_text(b, "artifactType", a->manifest.artifact_type);
	json_add_number(b, "bytes", l->bytes);
	json_add_number(b, "uniqueBytes", l->unique_bytes);
	json_add_number(b, "excluded", l->n_excluded);
	json_add_key(b, "files");
	buf_addc(b, '[');
	for (size_t i = 0; i < l->n_files; i++) {
		const struct layout_file *f = &l->files[i];
		buf_adds(b, i ? ",{" : "{");
		json_add_text(b, "path", f->path);
		json_add_number(b, "size", f->size);
		add_digest(b, "digest", &f->digest);
		json_add_key(b, "mode");
		buf_addf(b, "\"%04o\"}", file_mode(f));
	}
	buf_addc(b, ']');
	json_add_key(b, "layers");
	buf_addc(b, '[');
	for (size_t i = 0; i < l->n_trees; i++)
		ls_tree_json(b, &l->trees[i], i == 0);
	buf_adds(b, "]}\n");
}

static void ls_text(struct buf *b, const struct layout *l)
{
	char text[DIGEST_STR_MAX];

	buf_addf(b, "%10s  %-4s  %-71s  %s\n", "SIZE", "MODE", "DIGEST", "NAME");
	for (size_t i = 0; i < l->n_files; i++) {
		const struct layout_file *f = &l->files[i];
		_cleanup_buf_ struct buf size = BUF_INIT(64);
		units_add_bytes(&size, f->size);
		buf_addf(b, "%10s  %04o  %-71s  ", buf_cstr(&size), file_mode(f),
			 digest_format(&f->digest, ':', text));
		progress_escape(b, f->path, 0);
		buf_addc(b, '\n');
	}
	for (size_t i = 0; i < l->n_trees; i++) {
		const struct layout_tree *t = &l->trees[i];
		_cleanup_buf_ struct buf size = BUF_INIT(64), what = BUF_INIT(4 * LIMIT_PATH);
		units_add_bytes(&size, t->size);
		layout_tree_describe(t, &what);
		buf_addf(b, "%10s  %-4s  %-71s  <", buf_cstr(&size), "tar", digest_format(&t->digest, ':', text));
		progress_escape(b, buf_cstr(&what), 0);
		buf_adds(b, ">\n");
	}
	buf_addf(b, "%zu %s, ", l->n_files, l->n_files == 1 ? "file" : "files");
	units_add_bytes(b, l->bytes);
	if (l->n_trees) {
		buf_addf(b, ", %zu %s to unpack, ", l->n_trees, l->n_trees == 1 ? "layer" : "layers");
		units_add_bytes(b, l->tree_bytes);
	}
	if (l->n_excluded)
		buf_addf(b, ", %zu left out", l->n_excluded);
	buf_addc(b, '\n');
}

static int ls_resolved(const struct config *cfg, const struct remote *r, const struct oci_resolved *a,
		       struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT(PRINT_MAX), name = BUF_INIT(PRINT_MAX);
	struct layout l = { 0 };

	if (ref_format(&r->ref, &name) < 0)
		return err_oom(e);
	if (pull_plan(cfg, r->repo, &a->manifest, &l, e) < 0)
		return -1;
	for (size_t i = 0; i < l.n_warnings; i++)
		log_line(LOG_WARN, l.warnings[i], "ref", buf_cstr(&name), NULL);
	if (cfg->output == OUTPUT_JSON)
		ls_json(&out, buf_cstr(&name), a, &l);
	else
		ls_text(&out, &l);
	layout_release(&l);
	return print(&out, e);
}

static int run_ls(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	_cleanup_remote_ struct remote r = { 0 };
	struct oci_platform platform = { 0 };
	struct oci_resolved a = { 0 };
	int rc;

	if (cfg->platform && oci_platform_parse(cfg->platform, &platform, e) < 0)
		return -1;
	rc = pull_open_repo(cfg, cfg->ref, stop, &r.repo, &r.ref, e);
	if (rc == 0)
		rc = oci_resolve(r.repo, NULL, cfg->platform ? &platform : NULL, &a, e);
	if (rc == 0) {
		rc = ls_resolved(cfg, &r, &a, e);
		oci_resolved_release(&a);
	}
	oci_platform_release(&platform);
	return rc;
}

/* --- gc, install --- */

static void waiting_for_lock(void *arg, const char *holder)
{
	const struct config *cfg = arg;

	log_line(LOG_INFO, "waiting for the lock", "dest", cfg->dest, "holder", holder, NULL);
}

static int gc_report(const struct config *cfg, const struct store_gc_result *r, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT(PRINT_MAX);
	char versions[24], partials[24], bytes[24];

	snprintf(versions, sizeof(versions), "%llu", (unsigned long long)r->versions);
	snprintf(partials, sizeof(partials), "%llu", (unsigned long long)r->partials);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)r->bytes);
	log_line(LOG_INFO, "removed", "dest", cfg->dest, "versions", versions, "partials", partials, "bytes",
		 bytes, NULL);
	if (cfg->output != OUTPUT_JSON)
		return 0;
	buf_addc(&out, '{');
	json_add_text(&out, "dest", cfg->dest);
	json_add_number(&out, "versions", r->versions);
	json_add_number(&out, "partials", r->partials);
	json_add_number(&out, "bytes", r->bytes);
	buf_adds(&out, "}\n");
	return print(&out, e);
}

/* Nothing of ours in DEST: nothing to drop, and nothing is made there. */
static bool has_store(const struct store *s)
{
	struct stat st;

	return fstatat(store_dirfd(s), ".fetcher", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int run_gc(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	const struct store_gc_policy policy = {
		.keep = (unsigned)cfg->keep_versions,
		.stale_ms = cfg->stale_timeout_ms,
		.keep_bytes = cfg->keep_bytes,
		.partials = true,
	};
	struct store_gc_result r = { 0 };
	struct store *s = NULL;
	int rc = 0;

	if (store_open(&s, cfg->dest, false, e) < 0)
		return -1;
	if (has_store(s)) {
		rc = store_lock(s, cfg->lock_timeout_ms, stop, waiting_for_lock, (void *)cfg, e);
		if (rc == 0)
			rc = store_gc(s, &policy, &r, e);
	}
	store_close(s);
	return rc < 0 ? -1 : gc_report(cfg, &r, e);
}

/* The copy takes its name only when it is complete: somebody may be about to run the old one. */
static int install_at(int dirfd, const char *name, const char *shown, struct err *e)
{
	_cleanup_close_ int self = open(SELF, O_RDONLY | O_CLOEXEC), copy = -1;
	char temp[64];
	struct stat st;

	if (self < 0 || fstat(self, &st) < 0)
		return err_errno(e, CODE_LOCAL, errno, "cannot read " SELF);
	snprintf(temp, sizeof(temp), ".fetcher-install.%016llx", (unsigned long long)sys_random64());
	copy = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0700);
	if (copy < 0)
		return err_errno(e, CODE_LOCAL, errno, "cannot create %s", shown);
	if (sys_copy(self, copy, (uint64_t)st.st_size) < 0 || fchmod(copy, 0755) < 0 || fsync(copy) < 0 ||
	    renameat(dirfd, temp, dirfd, name) < 0) {
		err_errno(e, CODE_LOCAL, errno, "cannot write %s", shown);
		unlinkat(dirfd, temp, 0);
		return -1;
	}
	return 0;
}

static int run_install(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	const char *path = cfg->dest, *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	_cleanup_free_ char *parent = slash ? strndup(path, MAX((size_t)(slash - path), (size_t)1)) : strdup(".");
	_cleanup_close_ int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_buf_ struct buf shown = BUF_INIT(PRINT_MAX);

	(void)stop;
	if (!parent)
		return err_oom(e);
	buf_adds(&shown, path);
	if (dirfd >= 0) {
		name = "fetcher";
		buf_addf(&shown, "%s%s", path[strlen(path) - 1] == '/' ? "" : "/", name);
	} else {
		dirfd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dirfd < 0)
			return err_errno(e, CODE_LOCAL, errno, "cannot open the directory %s", parent);
		if (!*name)
			return err_set(e, CODE_LOCAL, "%s is not a directory", path);
	}
	if (install_at(dirfd, name, buf_cstr(&shown), e) < 0)
		return -1;
	log_line(LOG_INFO, "installed", "path", buf_cstr(&shown), "version", FETCHER_VERSION, NULL);
	return 0;
}

/* --- version, help --- */

static int run_version(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT(4096);

	(void)stop;
	if (cfg->output == OUTPUT_JSON) {
		buf_addc(&out, '{');
		json_add_text(&out, "version", FETCHER_VERSION);
		json_add_text(&out, "commit", FETCHER_COMMIT);
		buf_adds(&out, "}\n");
	} else {
		buf_adds(&out, "fetcher " FETCHER_VERSION);
		if (*FETCHER_COMMIT)
			buf_adds(&out, " (" FETCHER_COMMIT ")");
		buf_addc(&out, '\n');
	}
	return print(&out, e);
}

static int run_help(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT(PRINT_MAX);

	(void)stop;
	if (cfg->help_man)
		help_man(&out);
	else if (cfg->help_markdown)
		help_markdown(&out);
	else
		help_text(cfg->help_topic, &out);
	return print(&out, e);
}

int command_run(const struct config *cfg, const atomic_int *stop, struct err *e)
{
	static int (*const commands[CMD_COUNT])(const struct config *, const atomic_int *, struct err *) = {
		[CMD_PULL] = run_pull,       [CMD_PROBE] = run_probe,     [CMD_WAIT] = run_wait,
		[CMD_VERIFY] = run_verify,   [CMD_RESOLVE] = run_resolve, [CMD_LS] = run_ls,
		[CMD_GC] = run_gc,           [CMD_INSTALL] = run_install, [CMD_VERSION] = run_version,
		[CMD_HELP] = run_help,       [CMD_WATCH] = watch_run,
	};

	return commands[cfg->command](cfg, stop, e);
}
